//! QMP, QEMU's monitor protocol (docs/interop/qmp-spec.txt, QEMU 7.2): one query to a QEMU that is starting.
//!
//! QEMU listens early, and a separate thread sends the greeting while QEMU still initialises as root. Commands wait for
//! the main loop (`monitor_qmp_dispatcher_co`, monitor/qmp.c), which begins after QEMU has dropped its rights
//! (`os_setup_post`, softmmu/vl.c). So the answer to a command, not the greeting, shows that QEMU is ready.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::poll::PollFlags;
use serde_json::{Value, json};

use crate::os::Untrusted;
use crate::os::socket::try_connect;
use crate::os::wait::WaitLimit;

/// How long one poll waits for an answer.
const LOOK: Duration = Duration::from_millis(100);
/// How long one poll waits while no monitor listens: no event announces a new socket.
const POLL: Duration = Duration::from_millis(5);
/// The maximum length of a line, in bytes.
const LONGEST: usize = 1 << 20;
/// The maximum length of a refusal that is shown.
const LONGEST_REFUSAL: usize = 1000;
/// The ID that marks the answer to the command.
const ID: &str = "dombuild";

/// A query, sent as soon as the monitor listens.
#[derive(Debug)]
pub struct QmpQuery {
    socket: PathBuf,
    command: &'static str,
    arguments: Value,
    stream: Option<UnixStream>,
    /// Received bytes that do not form a whole line yet.
    unread: Vec<u8>,
}

impl QmpQuery {
    /// A command with its arguments, an object, for the monitor at this socket, which need not exist yet.
    #[must_use]
    pub fn new(socket: PathBuf, command: &'static str, arguments: Value) -> Self {
        Self { socket, command, arguments, stream: None, unread: Vec::new() }
    }

    /// Returns the command's result once it has arrived; waits briefly for it, however much else arrives. If the
    /// monitor does not exist or closes the connection, the next call sends the query again: the caller also watches
    /// the process.
    ///
    /// # Errors
    /// If the monitor refuses the command, or sends invalid JSON.
    pub fn answer(&mut self) -> Result<Option<Value>> {
        if self.stream.is_none() {
            self.unread.clear();
            self.stream = self.ask().ok();
        }
        let mut piece = [0; 4096];
        match self.stream.as_mut().map(|stream| read(stream, &mut piece)) {
            Some(Ok(count)) if count > 0 => self.unread.extend(piece.iter().take(count)),
            Some(Err(error)) if is_for_now(&error) => {}
            None | Some(_) => {
                self.stream = None;
                thread::sleep(POLL);
            }
        }
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let mut value: Value = serde_json::from_slice(&line)?;
            if let Some(error) = value.get("error") {
                return Err(Error::other(Untrusted::from(error.to_string()).shortened(LONGEST_REFUSAL).to_string()));
            }
            if value["id"] == ID {
                return Ok(Some(value["return"].take()));
            }
            // Anything else is the greeting, an event, or the answer to an earlier command.
        }
        if self.unread.len() > LONGEST { Err(Error::other("a line without end")) } else { Ok(None) }
    }

    /// Sent as one piece, because each separate write wakes QEMU.
    fn ask(&self) -> Result<UnixStream> {
        // The buffer of a new connection holds both commands.
        let mut stream = UnixStream::from(try_connect(&self.socket)?);
        let first = json!({ "execute": "qmp_capabilities" });
        let command = json!({ "execute": self.command, "arguments": self.arguments, "id": ID });
        stream.write_all(format!("{first}\n{command}\n").as_bytes())?;
        Ok(stream)
    }
}

/// The received bytes, once there are some; waits briefly for them.
fn read(stream: &mut UnixStream, piece: &mut [u8]) -> Result<usize> {
    WaitLimit { timeout: LOOK, ..WaitLimit::default() }.wait(&stream, PollFlags::POLLIN)?;
    stream.read(piece)
}

/// No bytes have arrived, and the connection is open.
fn is_for_now(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::Shutdown;
    use std::os::unix::net::UnixListener;

    use super::*;

    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n{\"return\": {}}\r\n";

    struct Monitor {
        _folder: tempfile::TempDir,
        listener: UnixListener,
    }

    fn monitor() -> (QmpQuery, Monitor) {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("monitor");
        let mut question = QmpQuery::new(path.clone(), "query-chardev", json!({}));
        assert_eq!(question.answer().expect("no answer"), None, "no listener");
        let listener = UnixListener::bind(&path).expect("bound");
        assert_eq!(question.answer().expect("no answer"), None, "no answer yet");
        (question, Monitor { _folder: folder, listener })
    }

    impl Monitor {
        /// The monitor's end of a query that was sent completely.
        fn asked(&self) -> UnixStream {
            let (stream, _) = self.listener.accept().expect("it came");
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
            for command in ["qmp_capabilities", "query-chardev"] {
                let line = lines.next().expect("a line").expect("read");
                assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["execute"], command);
            }
            stream
        }
    }

    #[test]
    fn neither_greeting_nor_events_are_an_answer() {
        let (mut question, monitor) = monitor();
        let mut other = monitor.asked();
        let mut says = |bytes: &[u8]| {
            other.write_all(bytes).expect("written");
            question.answer().expect("no error")
        };
        assert_eq!(says(GREETING), None);
        assert_eq!(says(b"{\"event\": \"RESUME\"}\r\n"), None);
        assert_eq!(says(b"{\"return\": [{\"lab"), None, "half a line");
        assert_eq!(says(b"el\": \"serial0\"}], \"id\": \"dombuild\"}\r\n"), Some(json!([{ "label": "serial0" }])));
    }

    #[test]
    fn a_monitor_that_goes_away_is_asked_again() {
        let (mut question, monitor) = monitor();
        let mut first = monitor.asked();
        first.write_all(&[GREETING, b"{\"ret"].concat()).expect("written");
        assert_eq!(question.answer().expect("no answer"), None);
        // A close alone has no effect while a child that another test forked keeps the descriptor open.
        first.shutdown(Shutdown::Both).expect("shut down");
        assert_eq!(question.answer().expect("no answer"), None, "closed");
        assert_eq!(question.answer().expect("no answer"), None, "asked again");
        let mut second = monitor.asked();
        second.write_all(&[GREETING, b"{\"return\": 7, \"id\": \"dombuild\"}\n"].concat()).expect("written");
        assert_eq!(question.answer().expect("answered"), Some(json!(7)));
    }

    #[test]
    fn what_is_no_answer_holds_nobody_up() {
        let (mut question, monitor) = monitor();
        let mut other = monitor.asked();
        // As much as a socket holds, more than one poll reads.
        other.set_nonblocking(true).expect("set");
        while other.write(b"{\"event\": \"BALLOON_CHANGE\"}\n").is_ok() {}
        assert_eq!(question.answer().expect("no answer"), None);
        let (mut question, monitor) = self::monitor();
        let mut other = monitor.asked();
        let feed = thread::spawn(move || while other.write_all(&[b' '; 4096]).is_ok() {});
        let looks = (0..2 * LONGEST / 4096).find_map(|_| question.answer().err());
        assert!(looks.expect("it is refused in the end").to_string().contains("without end"));
        drop(question);
        feed.join().expect("the other end is gone");
    }

    /// A connection waits for a free place in the queue of a listener that does not accept, and has no timeout of its
    /// own.
    #[test]
    fn a_listener_that_accepts_nobody_holds_nobody_up() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("monitor");
        let listener = UnixListener::bind(&path).expect("bound");
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).expect("a size")).expect("it listens");
        let mut queue = Vec::new();
        let full = loop {
            match try_connect(&path) {
                Ok(stream) => queue.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
        let (mut question, start) = (QmpQuery::new(path, "query-chardev", json!({})), std::time::Instant::now());
        assert_eq!(question.answer().expect("no answer"), None);
        assert!(start.elapsed() < 10 * LOOK, "{:?}", start.elapsed());
    }

    #[test]
    fn what_it_refuses_is_told() {
        let (mut question, monitor) = monitor();
        let mut other = monitor.asked();
        other.write_all("{\"error\": {\"class\": \"CommandNotFound\u{202e}\"}}\n".as_bytes()).expect("written");
        let refused = question.answer().expect_err("refused").to_string();
        assert!(refused.contains("CommandNotFound\\u{202e}"), "{refused}");
        let (mut question, monitor) = self::monitor();
        monitor.asked().write_all(b"login:\n").expect("written");
        assert!(question.answer().is_err(), "no monitor");
    }
}
