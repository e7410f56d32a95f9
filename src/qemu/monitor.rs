//! QMP with a QEMU that runs: several commands on one connection, each with a deadline.

use std::io::{Error, ErrorKind, IoSlice, Read, Result, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use crate::cancel::Cancel;
use crate::error::monitor::MonitorError;
use crate::os::Untrusted;
use crate::os::socket::connect;
use crate::os::wait::{WaitLimit, WaitResult};

/// How long QEMU may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum length of a line, in bytes.
const LONGEST: usize = 1 << 20;

/// The maximum length of a refusal that is shown.
const LONGEST_REFUSAL: usize = 1000;

/// A connection to a monitor.
#[derive(Debug)]
pub struct Monitor<'a> {
    stream: UnixStream,
    cancel: &'a Cancel,
    timeout: Duration,
    /// Received bytes that do not form a whole line yet.
    unread: Vec<u8>,
}

impl<'a> Monitor<'a> {
    /// Connects to the monitor at this socket. A signal ends waits.
    ///
    /// # Errors
    /// The error of the connection: a monitor talks to one program at a time, so that another may have it.
    pub fn open(socket: &Path, cancel: &'a Cancel) -> std::result::Result<Self, MonitorError> {
        let limit = WaitLimit { timeout: TIMEOUT, interrupt: cancel.interrupt().clone(), ..WaitLimit::default() };
        let stream = connect(socket, &limit).map_err(|source| MonitorError::Io { command: "connect", source })?;
        let mut monitor = Self { stream: UnixStream::from(stream), cancel, timeout: TIMEOUT, unread: Vec::new() };
        monitor.execute("qmp_capabilities", &json!({}), None)?;
        Ok(monitor)
    }

    /// The same monitor, with this time for each answer.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends a command with its arguments, an object, and returns its result. QEMU gets the descriptor with it.
    ///
    /// # Errors
    /// QEMU's refusal, a connection that is lost, `ETIMEDOUT` after 10 seconds, or the time of [`Self::with_timeout`].
    pub fn execute(
        &mut self,
        command: &'static str,
        arguments: &Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> std::result::Result<Value, MonitorError> {
        let answer = self.send(command, arguments, descriptor).and_then(|()| self.answer());
        match answer.map_err(|source| MonitorError::Io { command, source })? {
            Ok(value) => Ok(value),
            Err(says) => Err(MonitorError::Refused { command, says }),
        }
    }

    fn send(&mut self, command: &str, arguments: &Value, descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
        let text = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        let bytes = text.as_bytes();
        let Some(descriptor) = descriptor else { return self.stream.write_all(bytes) };
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let sent =
            sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        self.stream.write_all(bytes.get(sent..).unwrap_or_default())
    }

    /// The next answer: events and the greeting are none.
    fn answer(&mut self) -> Result<std::result::Result<Value, Untrusted>> {
        let end = Instant::now() + self.timeout;
        loop {
            while let Some(length) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=length).collect();
                let mut value: Value = serde_json::from_slice(&line)?;
                if let Some(error) = value.get("error") {
                    let text = error["desc"].as_str().map_or_else(|| error.to_string(), str::to_owned);
                    let says = Untrusted::from(text).shortened(LONGEST_REFUSAL).to_string();
                    return Ok(Err(Untrusted::from(says)));
                }
                if let Some(answer) = value.get_mut("return") {
                    return Ok(Ok(answer.take()));
                }
            }
            if self.unread.len() > LONGEST {
                return Err(Error::other("a line without end"));
            }
            let timeout = end.saturating_duration_since(Instant::now());
            let limit = WaitLimit { timeout, interrupt: self.cancel.interrupt().clone(), ..WaitLimit::default() };
            match limit.wait(&self.stream, PollFlags::POLLIN)? {
                WaitResult::Ready => {}
                WaitResult::TimedOut => return Err(ErrorKind::TimedOut.into()),
                WaitResult::Interrupted => return Err(ErrorKind::Interrupted.into()),
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.unread.extend(piece.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A monitor that answers each line with the next of these.
    fn serve(answers: &'static [&'static str]) -> (tempfile::TempDir, thread::JoinHandle<Vec<String>>) {
        let folder = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(folder.path().join("qmp")).expect("bound");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it came");
            stream.write_all(b"{\"QMP\": {}}\n").expect("written");
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
            let mut seen = Vec::new();
            for answer in answers {
                seen.push(lines.next().expect("a line").expect("read"));
                stream.write_all(answer.as_bytes()).expect("written");
            }
            seen
        });
        (folder, server)
    }

    #[test]
    fn commands_have_answers_and_events_are_passed_over() {
        let (folder, server) = serve(&[
            "{\"return\": {}}\n",
            "{\"event\": \"DEVICE_TRAY_MOVED\"}\n{\"return\": [1]}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"is\\u001b locked\"}}\n",
        ]);
        let cancel = Cancel::default();
        let mut monitor = Monitor::open(&folder.path().join("qmp"), &cancel).expect("open");
        assert_eq!(monitor.execute("query-block", &json!({}), None).expect("an answer"), json!([1]));
        let file = File::open("/dev/null").expect("Linux has it");
        let refused = monitor.execute("eject", &json!({ "id": "x" }), Some(file.as_fd())).expect_err("refused");
        assert!(refused.to_string().contains("QEMU refuses eject: is\\u{1b} locked"), "{refused}");
        let lost = monitor.execute("query-block", &json!({}), None).expect_err("it is gone");
        assert!(matches!(lost, MonitorError::Io { command: "query-block", .. }), "{lost}");
        let seen = server.join().expect("served");
        assert!(seen[0].contains("qmp_capabilities") && seen[2].contains("\"id\":\"x\""), "{seen:?}");
    }

    #[test]
    fn without_a_monitor_there_is_an_error_at_once() {
        let folder = tempfile::tempdir().expect("a directory");
        let refused = Monitor::open(&folder.path().join("none"), &Cancel::default()).expect_err("none");
        assert!(refused.to_string().contains("connect on QEMU's monitor failed"), "{refused}");
    }
}
