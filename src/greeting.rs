//! The first words of QEMU's monitor, by which it says that it has come to its main loop.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long one look waits for the words.
const LOOK: Duration = Duration::from_millis(50);

/// A monitor that is waited for: QEMU listens early, takes the connection late, and greets at once then.
pub(crate) struct Greeting {
    socket: PathBuf,
    stream: Option<BufReader<UnixStream>>,
    line: Vec<u8>,
}

impl Greeting {
    /// The monitor at this socket, which need not be there yet.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, stream: None, line: Vec::new() }
    }

    /// Whether it has greeted; waits a moment for it. An error is no answer: whoever asks looks at the process as well.
    pub(crate) fn has_come(&mut self) -> bool {
        if self.stream.is_none() {
            let Ok(stream) = UnixStream::connect(&self.socket) else { return false };
            if stream.set_read_timeout(Some(LOOK)).is_err() {
                return false;
            }
            self.line.clear();
            self.stream = Some(BufReader::new(stream));
        }
        // What has come before the time is over stays in `line`.
        if let Some(stream) = &mut self.stream
            && stream.read_until(b'\n', &mut self.line).is_ok_and(|length| length == 0)
        {
            self.stream = None;
        }
        self.line.ends_with(b"\n") && self.line.windows(5).any(|word| word == b"\"QMP\"")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn it_is_there_when_its_line_is_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("monitor");
        let mut greeting = Greeting::new(path.clone());
        assert!(!greeting.has_come(), "nobody listens");
        let listener = UnixListener::bind(&path).expect("bound");
        assert!(!greeting.has_come(), "nobody speaks");
        let (mut monitor, _) = listener.accept().expect("it came");
        monitor.write_all(b"{\"QMP\": {").expect("written");
        assert!(!greeting.has_come(), "half a line");
        monitor.write_all(b"}}\r\n").expect("written");
        assert!(greeting.has_come());
    }

    #[test]
    fn a_monitor_that_goes_away_is_waited_for_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("monitor");
        let listener = UnixListener::bind(&path).expect("bound");
        let mut greeting = Greeting::new(path);
        assert!(!greeting.has_come());
        drop(listener.accept().expect("it came"));
        assert!(!greeting.has_come(), "closed");
        assert!(!greeting.has_come(), "connected again");
        let (mut monitor, _) = listener.accept().expect("it came again");
        monitor.write_all(b"{\"QMP\": {}}\n").expect("written");
        assert!(greeting.has_come());
    }
}
