//! The progress of a run for a program: one JSON object a line on a descriptor that the caller passed on (`--events-fd`).
//!
//! docs/interface.md describes the records. They are an interface: fields may be added; a field that changes its meaning
//! makes another [`SCHEMA`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, RawFd};
use std::process;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde_json::Value;

use crate::logging::record::timestamp;
use crate::observer::{Observer, Outcome, Progress, Unit};
use crate::os::fd;
use crate::stage::Stage;

/// The number of this interface, in the first record.
pub const SCHEMA: u32 = 1;

/// How long a reader that reads nothing may hold a run up, once and in all.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Record<'a> {
    Start { schema: u32, verb: Option<&'a str>, pid: u32, time: String },
    Stage(StageRecord),
    Progress { stage: Option<&'static str>, done: u64, total: u64, unit: Unit, text: &'a str },
    Result { result: &'a Value },
    Error { error: &'a Value, exit: u8 },
}

#[derive(Serialize)]
struct StageRecord {
    stage: &'static str,
    state: &'static str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// The descriptor, served by a thread of its own: a write that blocks for ever blocks that one.
#[derive(Debug)]
struct Stream {
    lines: SyncSender<String>,
    written: Receiver<io::Result<()>>,
    stage: Option<Stage>,
}

/// The events of one run. Without a descriptor it takes them and does nothing.
#[derive(Debug, Default)]
pub struct Events {
    stream: Mutex<Option<Stream>>,
}

impl Events {
    /// Takes descriptor `number` over (see [`fd::take`]), for all records of this run.
    ///
    /// # Errors
    /// What is wrong with the descriptor: it is not open, not for writing, or not one that the caller passed on.
    pub fn open(&self, number: RawFd) -> Result<(), String> {
        let taken = fd::take(number).map_err(|error| error.to_string())?;
        if !taken.access.writes() {
            return Err(format!("descriptor {number} is not open for writing"));
        }
        let stream =
            Stream::new(File::from(taken.fd)).map_err(|error| format!("there is no thread for events: {error}"))?;
        *self.lock() = Some(stream);
        Ok(())
    }

    /// The first record of a run.
    pub fn start(&self, verb: Option<&str>) {
        self.send(&Record::Start { schema: SCHEMA, verb, pid: process::id(), time: timestamp() });
    }

    /// The last record of a run that succeeded, with what `--json` prints.
    pub fn result(&self, result: &Value) {
        self.end(&Record::Result { result });
    }

    /// The last record of a run that failed, with what `--json` prints in its `error`, and the exit status.
    pub fn error(&self, error: &Value, exit: u8) {
        self.end(&Record::Error { error, exit });
    }

    /// Writes a last record. After it there is no stream: a second last record is not written.
    fn end(&self, record: &Record<'_>) {
        self.send(record);
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record. If a write fails, the stream is closed, and the run goes on.
    fn send(&self, record: &Record<'_>) {
        let mut stream = self.lock();
        let Some(problem) = stream.as_ref().and_then(|open| open.write(record).err()) else { return };
        *stream = None;
        drop(stream);
        log::warn!("no more events are sent: {problem}");
    }
}

impl Observer for Events {
    fn stage_started(&self, stage: Stage) {
        if let Some(stream) = &mut *self.lock() {
            stream.stage = Some(stage);
        }
        let record = StageRecord { stage: stage.name(), state: "started", time: timestamp(), seconds: None };
        self.send(&Record::Stage(record));
    }

    fn stage_ended(&self, stage: Stage, outcome: Outcome, elapsed: Duration) {
        let state = match outcome {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
        };
        let seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
        let record = StageRecord { stage: stage.name(), state, time: timestamp(), seconds: Some(seconds) };
        self.send(&Record::Stage(record));
    }

    fn progress(&self, progress: &Progress<'_>) {
        let stage = self.lock().as_ref().and_then(|stream| stream.stage).map(Stage::name);
        let Progress { done, total, unit, text, .. } = *progress;
        self.send(&Record::Progress { stage, done, total, unit, text });
    }
}

impl Stream {
    fn new(mut file: File) -> io::Result<Self> {
        // Nothing is queued: a line is taken when the one before it is written.
        let (lines, taken) = mpsc::sync_channel::<String>(1);
        let (done, written) = mpsc::sync_channel(1);
        thread::Builder::new().name("events".to_owned()).spawn(move || {
            for line in taken {
                if done.send(write_whole(&mut file, line.as_bytes())).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { lines, written, stage: None })
    }

    fn write(&self, record: &Record<'_>) -> io::Result<()> {
        let line = format!("{}\n", serde_json::to_string(record)?);
        let stopped = || io::Error::other("their thread has stopped");
        self.lines.send(line).map_err(|_| stopped())?;
        match self.written.recv_timeout(PATIENCE) {
            Ok(written) => written,
            Err(RecvTimeoutError::Timeout) => {
                Err(io::Error::other(format!("the reader has not read them for {} s", PATIENCE.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(stopped()),
        }
    }
}

/// Writes a line, with one call where it is taken whole. Some callers' descriptors do not block: what does not fit yet is
/// waited for, too.
fn write_whole(file: &mut File, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match file.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use serde_json::json;

    use super::*;

    fn stream() -> (Stream, BufReader<io::PipeReader>) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (Stream::new(File::from(OwnedFd::from(writer))).expect("a thread"), BufReader::new(reader))
    }

    fn written(record: &Record<'_>) -> Value {
        let (stream, mut reader) = stream();
        stream.write(record).expect("written");
        drop(stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("read");
        assert!(line.ends_with('\n'));
        let mut more = String::new();
        assert_eq!(reader.read_line(&mut more).expect("read"), 0, "{more}");
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn records_are_as_documented() {
        let start = Record::Start { schema: SCHEMA, verb: Some("plan"), pid: 7, time: "T".to_owned() };
        assert_eq!(written(&start), json!({"schema": 1, "event": "start", "verb": "plan", "pid": 7, "time": "T"}));
        let stage = |state, seconds| {
            written(&Record::Stage(StageRecord { stage: "populate", state, time: "T".to_owned(), seconds }))
        };
        assert_eq!(
            stage("started", None),
            json!({"event": "stage", "stage": "populate", "state": "started", "time": "T"})
        );
        assert_eq!(stage("failed", Some(0.123))["seconds"], 0.123);
        let progress =
            Record::Progress { stage: Some("wait-balloon"), done: 1, total: 2, unit: Unit::Pages, text: "half" };
        assert_eq!(
            written(&progress),
            json!({"event": "progress", "stage": "wait-balloon", "done": 1, "total": 2, "unit": "pages", "text": "half"})
        );
        let object = json!({"domid": 1, "text": "a\nb"});
        assert_eq!(written(&Record::Result { result: &object }), json!({"event": "result", "result": object}));
        assert_eq!(
            written(&Record::Error { error: &object, exit: 3 }),
            json!({"event": "error", "error": object, "exit": 3})
        );
    }

    #[test]
    fn a_reader_that_went_away_is_told_of() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        let stream = Stream::new(File::from(OwnedFd::from(writer))).expect("a thread");
        // Not closed alone: a child that another test has just forked keeps it open until it calls `execve`.
        reader.shutdown(Shutdown::Both).expect("closed");
        let error = stream.write(&Record::Result { result: &Value::Null }).expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_descriptor_that_does_not_block_gets_all_of_a_long_record() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        writer.set_nonblocking(true).expect("set");
        let stream = Stream::new(File::from(OwnedFd::from(writer))).expect("a thread");
        let listener = thread::spawn(|| BufReader::new(reader).lines().collect::<io::Result<Vec<_>>>().expect("read"));
        let much = json!("x".repeat(4 << 20));
        stream.write(&Record::Result { result: &much }).expect("written");
        drop(stream);
        let lines = listener.join().expect("it ends with the stream");
        assert_eq!(lines.len(), 1);
        assert_eq!(serde_json::from_str::<Value>(&lines[0]).expect("JSON")["result"], much);
    }

    /// More than a pipe holds, without a reader: the writer gives up instead of waiting for ever.
    #[test]
    fn a_reader_that_does_not_read_is_given_up() {
        let (stream, _reader) = stream();
        let much = json!("x".repeat(1 << 20));
        let error = stream.write(&Record::Result { result: &much }).expect_err("it does not fit");
        assert!(error.to_string().contains("the reader has not read"), "{error}");
    }
}
