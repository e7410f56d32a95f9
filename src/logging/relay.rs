//! A thread for each destination that may stall (the journal, syslog, a terminal, a file on a network).
//!
//! The thread writes while the run continues. Records that are not written yet wait in a queue. A destination is given up if the
//! run has waited for it for more than [`PATIENCE`] in all, or if it takes no record for that long.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, Log, Record};
use nix::sys::signal::SigSet;

use crate::error::Error;

/// How long a destination may delay a run in all.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// The most records in a queue, so that a stalled destination does not use up the host's memory.
const LONGEST_QUEUE: usize = 1024;

/// The handle to the thread of a destination.
pub(super) struct Relay {
    name: String,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    records: VecDeque<OwnedRecord>,
    /// The number of records that are not written: those in the queue, and the one that the thread has.
    unwritten: usize,
    /// When the last record was written, or the first one queued.
    progress: Instant,
    /// The rest of [`PATIENCE`].
    left: Duration,
    /// The result of opening the destination, once known and until it is taken.
    opened: Option<Result<(), Error>>,
    /// Whether the destination is given up: no more records are written, and the thread ends.
    given_up: bool,
    /// Why the destination was given up, until that is reported.
    problem: Option<String>,
}

impl Relay {
    /// Starts the thread, which opens the destination and writes to it. A destination that stalls while it is opened is given
    /// up, and the first call of [`Relay::log`] reports that.
    ///
    /// # Errors
    /// Those of `open`; [`Error::Internal`] if the thread cannot be started.
    pub(super) fn start(
        name: String,
        open: impl FnOnce() -> Result<Box<dyn Log>, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let state = State {
            records: VecDeque::new(),
            unwritten: 0,
            progress: Instant::now(),
            left: PATIENCE,
            opened: None,
            given_up: false,
            problem: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || served.serve(open));
        thread.map_err(Error::io(format!("start a thread for the log {name}")))?;
        let relay = Self { name, shared };
        let mut state = relay.wait(relay.shared.lock(), |state| state.opened.is_some());
        match state.opened.take() {
            Some(Err(error)) => Err(error),
            Some(Ok(())) | None => {
                drop(state);
                Ok(relay)
            }
        }
    }

    /// Queues a record. If the destination is given up, returns the reason, once.
    pub(super) fn log(&self, record: &Record<'_>) -> Option<String> {
        let mut state = self.shared.lock();
        if !state.given_up && state.unwritten > 0 && state.progress.elapsed() > PATIENCE {
            self.give_up(&mut state);
        }
        state = self.wait(state, |state| state.unwritten < LONGEST_QUEUE);
        if state.given_up {
            return state.problem.take();
        }
        if state.unwritten == 0 {
            state.progress = Instant::now();
        }
        state.records.push_back(OwnedRecord::of(record));
        state.unwritten += 1;
        self.shared.changed.notify_all();
        None
    }

    /// Waits until all records are written. If the destination is given up, returns the reason, once.
    pub(super) fn flush(&self) -> Option<String> {
        self.wait(self.shared.lock(), |state| state.unwritten == 0).problem.take()
    }

    /// Waits for the thread until `done`, at most for the rest of the patience. Then the destination is given up.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, done: impl Fn(&State) -> bool) -> MutexGuard<'a, State> {
        while !state.given_up && !done(&state) {
            if state.left.is_zero() {
                self.give_up(&mut state);
                break;
            }
            let (start, left) = (Instant::now(), state.left);
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.left = left.saturating_sub(start.elapsed());
        }
        state
    }

    fn give_up(&self, state: &mut State) {
        state.given_up = true;
        state.problem = Some(format!(
            "the log {} stalls: it was waited for {} s, {} of its records are lost, and it gets no more",
            self.name,
            PATIENCE.as_secs(),
            state.unwritten
        ));
        state.records.clear();
        self.shared.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().given_up = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the thread.
    fn serve(&self, open: impl FnOnce() -> Result<Box<dyn Log>, Error>) {
        // Only the other threads handle signals. Otherwise a signal could interrupt a write here.
        let _ = SigSet::all().thread_block();
        let (sink, opened) = match open() {
            Ok(sink) => (Some(sink), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let mut state = self.lock();
        state.opened = Some(opened);
        self.changed.notify_all();
        let Some(sink) = sink else { return };
        while !state.given_up {
            let Some(record) = state.records.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            record.send(&*sink);
            state = self.lock();
            state.unwritten -= 1;
            state.progress = Instant::now();
            self.changed.notify_all();
        }
    }
}

/// A copy of a record that outlives the call that logs it.
struct OwnedRecord {
    level: Level,
    target: String,
    message: String,
    module: Option<&'static str>,
    file: Option<&'static str>,
    line: Option<u32>,
    fields: Fields,
}

#[derive(Default)]
struct Fields(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        self.0.push((key.to_string(), value.to_string()));
        Ok(())
    }
}

impl OwnedRecord {
    fn of(record: &Record<'_>) -> Self {
        let mut fields = Fields::default();
        // Only `visit_pair` could fail, and it does not.
        let _ = record.key_values().visit(&mut fields);
        Self {
            level: record.level(),
            target: record.target().to_owned(),
            message: record.args().to_string(),
            module: record.module_path_static(),
            file: record.file_static(),
            line: record.line(),
            fields,
        }
    }

    fn send(&self, sink: &dyn Log) {
        let fields: Vec<(&str, &str)> =
            self.fields.0.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        sink.log(
            &Record::builder()
                .level(self.level)
                .target(&self.target)
                .args(format_args!("{}", self.message))
                .module_path_static(self.module)
                .file_static(self.file)
                .line(self.line)
                .key_values(&fields)
                .build(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use log::Metadata;

    use super::*;

    /// A destination that blocks while its channel is full.
    struct Sink(SyncSender<String>);

    impl Log for Sink {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            let stage = record.key_values().get("STAGE".into()).map(|value| value.to_string());
            let place = (record.module_path(), record.file(), record.line());
            let (level, target, message) = (record.level(), record.target(), record.args());
            let _ = self.0.send(format!("{level} {target} {message} {stage:?} {place:?}"));
        }

        fn flush(&self) {}
    }

    fn relay(room: usize) -> (Relay, Receiver<String>) {
        let (sender, receiver) = sync_channel(room);
        let relay = Relay::start("test:x".to_owned(), move || Ok(Box::new(Sink(sender)))).expect("a thread");
        (relay, receiver)
    }

    fn log(relay: &Relay, message: &str) -> Option<String> {
        relay.log(&Record::builder().level(Level::Info).args(format_args!("{message}")).build())
    }

    #[test]
    fn records_arrive_whole_and_in_order() {
        let (relay, receiver) = relay(2 * LONGEST_QUEUE);
        let fields = [("STAGE", "populate")];
        let problem = relay.log(
            &Record::builder()
                .level(Level::Warn)
                .target("crate::x")
                .args(format_args!("a\nb"))
                .module_path_static(Some("m"))
                .file_static(Some("f"))
                .line(Some(7))
                .key_values(&fields)
                .build(),
        );
        assert_eq!(problem, None);
        for index in 0..LONGEST_QUEUE + 10 {
            assert_eq!(log(&relay, &index.to_string()), None);
        }
        assert_eq!(relay.flush(), None);
        let first = receiver.try_recv().expect("flushed");
        assert_eq!(first, "WARN crate::x a\nb Some(\"populate\") (Some(\"m\"), Some(\"f\"), Some(7))");
        for index in 0..LONGEST_QUEUE + 10 {
            assert!(receiver.try_recv().expect("flushed").contains(&format!(" {index} None")));
        }
    }

    #[test]
    fn what_takes_nothing_is_waited_for_once() {
        // Its clock runs from its start.
        let start = Instant::now();
        let (relay, _receiver) = relay(0);
        let problems: Vec<_> = (0..3 * LONGEST_QUEUE).filter_map(|_| log(&relay, "x")).chain(relay.flush()).collect();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("test:x stalls: it was waited for 1 s, 1024 of its records"), "{problems:?}");
        let took = start.elapsed();
        assert!(took >= PATIENCE && took < 3 * PATIENCE, "{took:?}");
    }

    #[test]
    fn few_records_that_are_not_taken_are_noticed() {
        let (at_the_end, _receiver) = relay(0);
        assert_eq!(log(&at_the_end, "x"), None, "not waited for yet");
        assert!(at_the_end.flush().is_some_and(|problem| problem.contains(" 1 of its records")));
        assert_eq!(at_the_end.flush(), None, "once");

        let (later, _receiver) = relay(0);
        assert_eq!(log(&later, "x"), None);
        thread::sleep(PATIENCE + Duration::from_millis(50));
        let start = Instant::now();
        assert!(log(&later, "y").is_some(), "it has had its time");
        assert!(start.elapsed() < PATIENCE / 2);
    }

    #[test]
    fn a_destination_that_does_not_open_is_given_up_or_an_error() {
        let (_keep, never) = sync_channel::<()>(0);
        let stalled = Relay::start("test:x".to_owned(), move || {
            let _ = never.recv();
            Err(Error::BadConfig("late".to_owned()))
        });
        assert!(log(&stalled.expect("it goes on"), "x").is_some_and(|problem| problem.contains("stalls")));
        let refused = Relay::start("test:x".to_owned(), || Err(Error::BadConfig("no listener".to_owned())));
        assert_eq!(refused.err().expect("refused").to_string(), "no listener");
    }
}
