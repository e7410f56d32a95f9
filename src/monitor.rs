//! QEMU's monitor (docs/interop/qmp-spec.rst, QEMU 7.2): one question to a QEMU that is starting.
//!
//! It listens early, and a thread of its own greets whoever connects while QEMU still initialises as root. Commands wait for
//! the main loop (`monitor_qmp_dispatcher_co`, monitor/qmp.c), which begins when QEMU's rights are gone (`os_setup_post`,
//! system/vl.c): the answer to a command, and not the greeting, tells that it is ready.

use std::io::{BufRead, BufReader, Error, ErrorKind, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

/// How long one look waits for an answer.
const LOOK: Duration = Duration::from_millis(100);

/// A question, asked as soon as somebody listens.
#[derive(Debug)]
pub struct Question {
    socket: PathBuf,
    command: &'static str,
    stream: Option<BufReader<UnixStream>>,
    line: Vec<u8>,
    /// How many answers have come since it was asked: the one to the command is the second.
    answers: u32,
}

impl Question {
    /// A command without arguments, for the monitor at this socket, which need not be there yet.
    #[must_use]
    pub fn new(socket: PathBuf, command: &'static str) -> Self {
        Self { socket, command, stream: None, line: Vec::new(), answers: 0 }
    }

    /// What the command returned, once that has come; waits a moment for it where the monitor is there. Where it is not, or
    /// goes away, the question is asked again next time: whoever asks looks at the process as well.
    ///
    /// # Errors
    /// Where the monitor refuses the command, or says what is no JSON.
    pub fn answer(&mut self) -> Result<Option<Value>> {
        if self.stream.is_none() {
            let Ok(stream) = self.ask() else { return Ok(None) };
            self.line.clear();
            self.answers = 0;
            self.stream = Some(stream);
        }
        while let Some(stream) = &mut self.stream {
            match stream.read_until(b'\n', &mut self.line) {
                // What has come before the time is over stays in `line`.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(_) | Ok(0) => self.stream = None,
                Ok(_) if !self.line.ends_with(b"\n") => self.stream = None,
                Ok(_) => {
                    let mut value: Value = serde_json::from_slice(&self.line)?;
                    self.line.clear();
                    if let Some(error) = value.get("error") {
                        return Err(Error::other(error.to_string()));
                    }
                    // The greeting and events are no answers.
                    if let Some(returned) = value.get_mut("return") {
                        self.answers += 1;
                        if self.answers == 2 {
                            return Ok(Some(returned.take()));
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// In one piece: each that comes alone wakes QEMU.
    fn ask(&self) -> Result<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        let commands = ["qmp_capabilities", self.command].map(|name| format!("{}\n", json!({ "execute": name })));
        stream.write_all(commands.concat().as_bytes())?;
        Ok(BufReader::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    struct Monitor {
        _folder: tempfile::TempDir,
        listener: UnixListener,
    }

    fn monitor() -> (Question, Monitor) {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("monitor");
        let mut question = Question::new(path.clone(), "query-chardev");
        assert_eq!(question.answer().expect("no answer"), None, "nobody listens");
        let listener = UnixListener::bind(&path).expect("bound");
        assert_eq!(question.answer().expect("no answer"), None, "nobody speaks");
        (question, Monitor { _folder: folder, listener })
    }

    impl Monitor {
        /// The other end of a question, which has been asked whole.
        fn asked(&self) -> UnixStream {
            let (stream, _) = self.listener.accept().expect("it came");
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
            for command in ["qmp_capabilities", "query-chardev"] {
                let line = lines.next().expect("a line").expect("read");
                assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), json!({ "execute": command }));
            }
            stream
        }
    }

    #[test]
    fn the_greeting_is_no_answer() {
        let (mut question, monitor) = monitor();
        let mut other = monitor.asked();
        let mut says = |bytes: &[u8]| {
            other.write_all(bytes).expect("written");
            question.answer().expect("no error")
        };
        assert_eq!(says(GREETING), None);
        assert_eq!(says(b"{\"return\": {}}\r\n{\"event\": \"RESUME\"}\r\n"), None);
        assert_eq!(says(b"{\"return\": [{\"lab"), None, "half a line");
        assert_eq!(says(b"el\": \"serial0\"}]}\r\n"), Some(json!([{ "label": "serial0" }])));
    }

    #[test]
    fn a_monitor_that_goes_away_is_asked_again() {
        let (mut question, monitor) = monitor();
        let mut first = monitor.asked();
        first.write_all(&[GREETING, b"{\"return\": {}}\n{\"ret"].concat()).expect("written");
        assert_eq!(question.answer().expect("no answer"), None);
        drop(first);
        assert_eq!(question.answer().expect("no answer"), None, "closed");
        assert_eq!(question.answer().expect("no answer"), None, "asked again");
        let mut second = monitor.asked();
        second.write_all(&[GREETING, b"{\"return\": {}}\n{\"return\": 7}\n"].concat()).expect("written");
        assert_eq!(question.answer().expect("answered"), Some(json!(7)));
    }

    #[test]
    fn what_it_refuses_is_told() {
        let (mut question, monitor) = monitor();
        let mut other = monitor.asked();
        other.write_all(b"{\"return\": {}}\n{\"error\": {\"class\": \"CommandNotFound\"}}\n").expect("written");
        assert!(question.answer().expect_err("refused").to_string().contains("CommandNotFound"));
        let (mut question, monitor) = self::monitor();
        monitor.asked().write_all(b"login:\n").expect("written");
        assert!(question.answer().is_err(), "no monitor");
    }
}
