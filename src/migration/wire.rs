//! The connection of a migration, with a deadline for each read and write, and the messages of xl on it.
//!
//! xl's order (`migrate_domain` and `migrate_receive`, tools/xl/xl_migrate.c, Xen 4.17 and 4.20): the destination says that it is
//! `READY` for data. The source sends what a saved file has. The destination has `RECEIVED` the guest, which is paused. The
//! source says `GO`. The destination sends its `REPORT` and a byte: 0 if the guest runs there. If it does not, the destination
//! destroys it and says `GO` in its turn.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{Shutdown, shutdown};

use crate::cancel::Cancel;
use crate::error::migration::MigrationError;
use crate::error::{Error, Wait};
use crate::os::Untrusted;
use crate::os::wait::{Interrupt, WaitLimit, WaitResult};

/// The destination is ready.
pub(super) const READY: &[u8] = b"xl migration receiver ready, send binary domain data.\n";
/// The destination has the guest, paused.
pub(super) const RECEIVED: &[u8] = b"domain received, ready to unpause\0";
/// The guest belongs to the other side from now on.
pub(super) const GO: &[u8] = b"domain is yours, you are cleared to unpause\0";
/// Before the byte that says whether the guest runs.
pub(super) const REPORT: &[u8] = b"my copy unpause results are as follows\0";

/// The bytes of one write: so many do not block once poll says that there is room (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// The most bytes of another text in the place of a message.
const LONGEST_OTHER: usize = 200;

/// A connection to the other side of a migration.
#[derive(Debug)]
pub struct Wire {
    input: File,
    output: File,
    interrupt: Interrupt,
    end: Instant,
    timeout: Duration,
}

impl Wire {
    /// Takes a connection: `input` to read from, and `output` to write to. All of its reads and writes end within `timeout`.
    #[must_use]
    pub fn new(input: OwnedFd, output: OwnedFd, cancel: &Cancel, timeout: Duration) -> Self {
        let interrupt = cancel.interrupt().clone();
        Self { input: input.into(), output: output.into(), interrupt, end: Instant::now() + timeout, timeout }
    }

    /// Ends the connection for both sides, where it is a socket.
    pub(super) fn cut(&self) {
        for socket in [&self.input, &self.output] {
            // A pipe ends when its descriptor does.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        }
    }

    /// Ends the reads and writes from here on within this time, if they would end later.
    pub(super) fn hurry(&mut self, timeout: Duration) {
        let end = Instant::now() + timeout;
        if end < self.end {
            (self.end, self.timeout) = (end, timeout);
        }
    }

    /// Reads from the connection; `what` names in errors what is read.
    pub(super) fn reader(&self, what: &'static str) -> WireReader<'_> {
        WireReader { wire: self, what, error: None }
    }

    /// A descriptor to read from, for another program that reads on.
    pub(super) fn input(&self) -> Result<OwnedFd, Error> {
        self.input.try_clone().map(OwnedFd::from).map_err(Error::io("copy the connection"))
    }

    /// A descriptor to write to, for another program that writes on.
    pub(super) fn output(&self) -> Result<OwnedFd, Error> {
        self.output.try_clone().map(OwnedFd::from).map_err(Error::io("copy the connection"))
    }

    /// Fills the buffer. `what` names in errors what is read.
    pub(super) fn read(&self, mut buffer: &mut [u8], what: &'static str) -> Result<(), Error> {
        while !buffer.is_empty() {
            let length = self.read_some(buffer, what)?;
            buffer = buffer.get_mut(length..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads what is there, at least a byte, and at most what fits.
    fn read_some(&self, buffer: &mut [u8], what: &'static str) -> Result<usize, Error> {
        loop {
            self.wait(&self.input, PollFlags::POLLIN, what)?;
            match (&self.input).read(buffer) {
                Ok(0) => return Err(lost(what, ErrorKind::UnexpectedEof.into())),
                Ok(length) => return Ok(length),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(lost(what, error)),
            }
        }
    }

    pub(super) fn array<const N: usize>(&self, what: &'static str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.read(&mut bytes, what)?;
        Ok(bytes)
    }

    /// Writes all bytes.
    pub(super) fn write(&self, bytes: &[u8], what: &'static str) -> Result<(), Error> {
        for mut piece in bytes.chunks(PIECE) {
            while !piece.is_empty() {
                self.wait(&self.output, PollFlags::POLLOUT, what)?;
                match (&self.output).write(piece) {
                    Ok(length) => piece = piece.get(length..).unwrap_or_default(),
                    Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                    Err(error) => return Err(lost(what, error)),
                }
            }
        }
        Ok(())
    }

    /// Reads a message of xl's.
    pub(super) fn expect(&self, message: &[u8], what: &'static str) -> Result<(), Error> {
        let mut bytes = vec![0; message.len()];
        let mut length = 0;
        while length < message.len() {
            length += self.read_some(bytes.get_mut(length..).unwrap_or_default(), what)?;
            // Another text may be shorter.
            if bytes.get(..length) != message.get(..length) {
                bytes.truncate(length);
                return Err(self.another(bytes, what));
            }
        }
        Ok(())
    }

    /// Says that the guest is here, and waits until it may start.
    ///
    /// # Errors
    /// [`MigrationError::NotLetGo`]: the guest must not start here.
    pub fn wait_for_word(&self) -> Result<(), Error> {
        self.write(RECEIVED, "that the guest is here")?;
        match self.expect(GO, "the word to start") {
            Err(error @ (Error::Interrupted { .. } | Error::TimedOut { .. })) => Err(error),
            outcome => outcome.map_err(|error| MigrationError::NotLetGo(error.to_string()).into()),
        }
    }

    /// Says that the guest runs here.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn report_success(&self) -> Result<(), Error> {
        self.write(&[REPORT, &[0]].concat(), "that the guest runs")
    }

    /// Says that the guest does not run here, and that nothing of it is left.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn report_failure(&self) -> Result<(), Error> {
        self.write(&[REPORT, &[1], GO].concat(), "that the guest does not run")
    }

    /// The error of another text than the expected message, with what of it is there already.
    fn another(&self, mut bytes: Vec<u8>, what: &'static str) -> Error {
        let soon = WaitLimit { timeout: Duration::from_millis(200), ..WaitLimit::default() };
        while bytes.len() < LONGEST_OTHER && matches!(soon.wait(&self.input, PollFlags::POLLIN), Ok(WaitResult::Ready))
        {
            let mut more = [0; LONGEST_OTHER];
            match (&self.input).read(&mut more) {
                Ok(length) if length > 0 => bytes.extend(more.iter().take(length)),
                _ => break,
            }
        }
        bytes.truncate(LONGEST_OTHER);
        let says = Untrusted::from(String::from_utf8_lossy(&bytes).into_owned());
        MigrationError::OtherMessage { what, says }.into()
    }

    fn wait(&self, descriptor: impl AsFd, events: PollFlags, what: &'static str) -> Result<(), Error> {
        let timeout = self.end.saturating_duration_since(Instant::now());
        let limit = WaitLimit { timeout, interrupt: self.interrupt.clone(), ..WaitLimit::default() };
        match limit.wait(descriptor, events).map_err(Error::io("wait for the other side"))? {
            WaitResult::Ready => Ok(()),
            WaitResult::TimedOut => Err(Error::TimedOut {
                what: format!("the other side of the migration does not answer ({what})"),
                after: self.timeout,
                wait: Wait::Migration,
            }),
            WaitResult::Interrupted => {
                Err(Error::Interrupted { signal: self.interrupt.signal().unwrap_or(libc::SIGINT) })
            }
        }
    }
}

/// Reads from a connection. Behind an error, [`WireReader::error`] has what it means.
#[derive(Debug)]
pub(super) struct WireReader<'a> {
    wire: &'a Wire,
    what: &'static str,
    /// The last error.
    pub(super) error: Option<Error>,
}

impl Read for WireReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.read(buffer, self.what).map_err(|error| {
            let text = error.to_string();
            self.error = Some(error);
            io::Error::other(text)
        })?;
        Ok(buffer.len())
    }
}

fn lost(what: &'static str, source: io::Error) -> Error {
    MigrationError::ConnectionLost { what, source }.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    fn pair(timeout: Duration) -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let copy = ours.try_clone().expect("a copy");
        (Wire::new(ours.into(), copy.into(), &Cancel::default(), timeout), theirs)
    }

    #[test]
    fn messages_have_the_lengths_of_xl() {
        assert_eq!([READY, RECEIVED, GO, REPORT].map(<[u8]>::len), [54, 34, 44, 39]);
    }

    #[test]
    fn another_text_is_shown_and_the_end_is_an_error() {
        let (wire, mut other) = pair(Duration::from_secs(20));
        other.write_all(RECEIVED).expect("written");
        wire.expect(RECEIVED, "the answer").expect("the message");
        other.write_all(b"dom\x1b[31min").expect("written");
        let text = wire.expect(RECEIVED, "the answer").expect_err("another text").to_string();
        assert!(text.contains("dom\\u{1b}[31min"), "{text}");
        drop(other);
        let text = wire.expect(RECEIVED, "the answer").expect_err("closed").to_string();
        assert!(text.contains("the answer"), "{text}");
        wire.write(b"x", "a word").expect_err("closed");
    }

    #[test]
    fn nothing_waits_for_ever() {
        let (wire, other) = pair(Duration::from_millis(300));
        assert!(matches!(wire.expect(GO, "the word"), Err(Error::TimedOut { .. })));
        // The other side reads nothing, and the socket's buffer becomes full.
        assert!(matches!(wire.write(&vec![0; 8 << 20], "the guest"), Err(Error::TimedOut { .. })));
        drop(other);
    }

    #[test]
    fn what_is_written_arrives() {
        let (wire, mut other) = pair(Duration::from_secs(20));
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let copy = bytes.clone();
        let reader = thread::spawn(move || {
            let mut read = vec![0; copy.len()];
            other.read_exact(&mut read).map(|()| read == copy)
        });
        wire.write(&bytes, "the guest").expect("written");
        assert!(reader.join().expect("it ends").expect("read"));
    }
}
