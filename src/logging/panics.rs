//! Panics, reported as internal errors.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use crate::error::Error;

thread_local! {
    /// The message of the first panic of this thread.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    static STATE: Cell<State> = const { Cell::new(State::Alone) };
}

/// How a panic in this thread is handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No caller catches it: the thread ends, and the run continues.
    Alone,
    /// [`catch`] turns it into an error.
    Caught,
    /// Everything is reported, and the process is about to end.
    Told,
}

/// Runs `work`, and turns a panic in it into an error. Nothing is printed, and all guards have run when the error is
/// returned.
///
/// A second panic during the unwinding ends the process: `last_words` gets the message before that.
///
/// # Errors
/// Those of `work`, and [`Error::Internal`] for a panic.
pub fn catch<T>(
    last_words: impl Fn(&str) + Send + Sync + 'static,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    panic::set_hook(Box::new(move |panic| remember(panic, &last_words)));
    STATE.set(State::Caught);
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome,
        Err(_) => {
            let said = SAID.take().unwrap_or_else(|| "of an unknown kind".to_owned());
            Err(Error::Internal(format!("this is a bug in dombuild: {said}")).into())
        }
    }
}

fn remember(panic: &PanicHookInfo<'_>, last_words: &dyn Fn(&str)) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let reason = text.unwrap_or("no reason is given");
    let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
    let said = format!("{reason}{place}");
    if STATE.get() == State::Told {
        // This is the runtime's own panic, which announces the abort.
        return;
    }
    // It is empty unless RUST_BACKTRACE is set.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        log::debug!("panicked: {said}\n{trace}");
    }
    match (STATE.get(), SAID.take()) {
        (State::Alone, _) => log::error!("a part of dombuild has stopped: {said}"),
        (_, None) => SAID.set(Some(said)),
        (_, Some(first)) => {
            STATE.set(State::Told);
            last_words(&format!("this is a bug in dombuild: {first}; and while cleaning up after it: {said}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::{env, fs};

    use log::Level;

    use super::*;
    use crate::logging::conclude;
    use crate::logging::destination::Destination;
    use crate::logging::{LogConfig, init};

    #[test]
    fn a_panic_is_an_internal_error_with_its_place() {
        let before = panic::take_hook();
        let error = catch::<()>(|_| {}, || panic!("no number")).expect_err("it panics").to_string();
        let fine = catch(|_| {}, || Ok(1)).expect("it does not");
        panic::set_hook(before);
        assert!(error.starts_with("this is a bug in dombuild: no number (src/logging/panics.rs:"), "{error}");
        assert_eq!(fine, 1);
    }

    const LOG: &str = "DOMBUILD_TEST_LOG";

    /// Aborts the process. The next test runs it in a process of its own.
    #[test]
    #[ignore = "it aborts, and is part of another test"]
    fn panics_while_it_panics() {
        struct Guard;
        impl Drop for Guard {
            fn drop(&mut self) {
                panic!("second");
            }
        }
        let Some(path) = env::var_os(LOG) else { return };
        init(&LogConfig { destinations: vec![Destination::File(path.into())], ..LogConfig::default() }).expect("a log");
        let _ = catch::<()>(
            |message| conclude(Level::Error, message),
            || {
                let _guard = Guard;
                panic!("first")
            },
        );
    }

    #[test]
    fn a_panic_while_another_unwinds_is_told_before_the_end() {
        let log = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut alone = Command::new(env::current_exe().expect("this program"));
        alone.args(["--ignored", "--exact", "logging::panics::tests::panics_while_it_panics"]).env(LOG, log.path());
        let output = alone.output().expect("it starts");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let text = fs::read_to_string(log.path()).expect("a log");
        let last = text.lines().last().expect("a line");
        assert!(last.contains(" ERROR dombuild] this is a bug in dombuild: first (src/logging/panics.rs:"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(last.contains("and while cleaning up after it: second (src/logging/panics.rs:"), "{text}");
    }
}
