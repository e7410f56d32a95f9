//! A panic is an internal error, told like any other.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use crate::error::Error;
use crate::report;

thread_local! {
    /// What the first panic of this thread said.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether somebody will tell it.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, and makes an error of a panic in it: nothing is printed then, and all guards have done their work when the
/// error is returned.
///
/// A panic that comes while another unwinds ends the process; it is told at once, as nobody can do so afterwards.
///
/// # Errors
/// Those of `work`, and [`Error::Internal`] for a panic.
pub fn catch<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    panic::set_hook(Box::new(remember));
    CAUGHT.set(true);
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome,
        Err(_) => {
            let said = SAID.take().unwrap_or_else(|| "of an unknown kind".to_owned());
            Err(Error::Internal(format!("this is a bug in dombuild: {said}")).into())
        }
    }
}

fn remember(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let reason = text.unwrap_or("no reason is given");
    let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
    let said = format!("{reason}{place}");
    // Empty unless RUST_BACKTRACE asks for it.
    log::debug!("panicked: {said}\n{}", Backtrace::capture());
    if !CAUGHT.get() {
        log::error!("a part of dombuild has stopped: {said}");
        return;
    }
    let first = SAID.with_borrow_mut(|first| first.replace(said));
    if let Some(first) = first {
        report::last_words(&format!(
            "this is a bug in dombuild: {first}; and while cleaning up after it: {reason}{place}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error_with_its_place() {
        let before = panic::take_hook();
        let error = catch::<()>(|| panic!("no number")).expect_err("it panics").to_string();
        let fine = catch(|| Ok(1)).expect("it does not");
        panic::set_hook(before);
        assert!(error.starts_with("this is a bug in dombuild: no number (src/logging/panics.rs:"), "{error}");
        assert_eq!(fine, 1);
    }
}
