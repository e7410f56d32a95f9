//! The protocol by which emu-manager gives orders (EMP): JSON objects on a socket, one behind the other without a frame.
//!
//! Each command gets an answer at once, and a descriptor may come with it; what a command starts tells its end by an event. The
//! client's buffer holds 1024 bytes, and it gives up at a key that it does not know.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::memory::Gfn;
use crate::os::one_line;
use crate::os::socket::receive;
use crate::xen::Round;

/// The most bytes that a client sends before a command is whole.
const LONGEST_COMMAND: usize = 64 << 10;

/// The most bytes that wait for a client.
const MOST_UNSENT: usize = 64 << 10;

/// The most characters of an error: its object fits into the client's buffer even if each is written as four bytes.
const LONGEST_ERROR: usize = 200;

/// What a client asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Command {
    pub(super) execute: Name,
    #[serde(default)]
    pub(super) arguments: Option<Value>,
}

/// The name of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Name {
    /// The stream comes with it.
    MigrateInit,
    SetArgs,
    /// Pages that change are recorded. A live save does so anyway.
    TrackDirty,
    /// This client wants events.
    MigrateProgress,
    MigrateLive,
    /// A live save sends the rest.
    MigratePause,
    /// The guest is suspended.
    MigratePaused,
    MigrateNonlive,
    Restore,
    MigrateAbort,
    Quit,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    unread: Vec<u8>,
    /// What it has not read.
    unsent: Vec<u8>,
    /// A descriptor that came, for the next command.
    descriptor: Option<OwnedFd>,
    /// It wants events.
    pub(super) watches: bool,
}

impl Client {
    /// # Errors
    /// If its socket cannot be used without blocking.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, unread: Vec::new(), unsent: Vec::new(), descriptor: None, watches: false })
    }

    /// What becomes readable with its next bytes.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads what is there, and says whether the client is still there.
    ///
    /// # Errors
    /// An error of its socket.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        match receive(&self.stream, &mut buffer) {
            Ok((0, _)) => Ok(false),
            Ok((length, descriptor)) => {
                self.unread.extend_from_slice(buffer.get(..length).unwrap_or_default());
                self.descriptor = descriptor.or(self.descriptor.take());
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next command, if it is whole.
    ///
    /// # Errors
    /// Why the next object is no command.
    pub(super) fn command(&mut self) -> Result<Option<Command>, String> {
        let mut objects = serde_json::Deserializer::from_slice(&self.unread).into_iter::<Value>();
        let object = match objects.next() {
            None => Ok(None),
            Some(Ok(object)) => Ok(Some(object)),
            Some(Err(error)) if error.is_eof() && self.unread.len() <= LONGEST_COMMAND => return Ok(None),
            Some(Err(error)) => Err(format!("this is no JSON: {error}")),
        };
        let read = if object.is_ok() { objects.byte_offset() } else { self.unread.len() };
        self.unread.drain(..read);
        object?.map(Command::deserialize).transpose().map_err(|error| error.to_string())
    }

    /// The descriptor that came last.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Sends an object as soon as the client reads.
    ///
    /// # Errors
    /// If the client has gone, or has not read for long.
    pub(super) fn send(&mut self, object: &Value) -> io::Result<()> {
        self.unsent.extend_from_slice(object.to_string().as_bytes());
        self.flush()
    }

    /// Sends an event that the next one replaces, unless the client has not read what came before.
    ///
    /// # Errors
    /// If the client has gone.
    pub(super) fn send_progress(&mut self, event: &Value) -> io::Result<()> {
        if self.unsent.is_empty() { self.send(event) } else { Ok(()) }
    }

    /// Whether something waits until the client reads.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends what the client's socket takes.
    ///
    /// # Errors
    /// If the client has gone, or has not read for long.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.unsent.len() <= MOST_UNSENT => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The answer to a command that is carried out.
pub(super) fn done() -> Value {
    json!({ "return": {} })
}

/// The answer to a command that is refused.
pub(super) fn refused(text: &str) -> Value {
    json!({ "error": one_line(text).chars().take(LONGEST_ERROR).collect::<String>() })
}

/// The event of a round; `meanwhile`, while the next one lasts: then it is not known what has changed.
pub(super) fn progress(round: Round, meanwhile: bool) -> Value {
    let remaining = match round.dirty {
        Some(pages) if !meanwhile => json!(pages.0),
        _ => json!(-1),
    };
    event(&json!({ "sent": round.written.0, "remaining": remaining, "iteration": round.iteration }))
}

/// The event of the end; after a restore, with the frames of the store ring and of the console ring.
pub(super) fn completed(rings: Option<(Gfn, Gfn)>) -> Value {
    match rings {
        None => event(&json!({ "status": "completed" })),
        Some((store, console)) => {
            event(&json!({ "status": "completed", "result": format!("{} {}", store.0, console.0) }))
        }
    }
}

fn event(data: &Value) -> Value {
    json!({ "event": "MIGRATION", "data": data })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::Pages;

    fn pair() -> (UnixStream, Client) {
        let (theirs, ours) = UnixStream::pair().expect("a pair of sockets");
        (theirs, Client::new(ours).expect("a client"))
    }

    #[test]
    fn commands_come_in_pieces_and_at_once() {
        let (mut theirs, mut client) = pair();
        theirs
            .write_all(b"{ \"execute\" : \"migrate_init\"}{\"execute\":\"set_args\",\"arguments\":{\"pv\":")
            .expect("write");
        assert!(client.read().expect("read"));
        let first = client.command().expect("a command").expect("it is whole");
        assert_eq!((first.execute, first.arguments), (Name::MigrateInit, None));
        assert!(client.command().expect("a piece").is_none());
        theirs.write_all(b"\"true\" } }").expect("write");
        assert!(client.read().expect("read"));
        let second = client.command().expect("a command").expect("it is whole");
        assert_eq!((second.execute, second.arguments), (Name::SetArgs, Some(json!({ "pv": "true" }))));
        drop(theirs);
        assert!(!client.read().expect("the end"));
    }

    #[test]
    fn what_is_no_command_is_refused_once() {
        let (mut theirs, mut client) = pair();
        for text in ["{\"execute\":\"dance\"}", "[]", "7 ", "{\"execute\":", "}", "nonsense"] {
            theirs.write_all(text.as_bytes()).expect("write");
            assert!(client.read().expect("read"));
            let whole = !text.ends_with(':');
            assert_eq!(client.command().is_err(), whole, "{text}");
            if whole {
                assert!(client.command().expect("nothing is left").is_none(), "{text}");
            }
        }
        // An object that never ends is not kept for ever.
        for _ in 0..=LONGEST_COMMAND / 4096 {
            theirs.write_all(&[b'['; 4096]).expect("write");
            assert!(client.read().expect("read"));
        }
        client.command().expect_err("it is too long");
    }

    #[test]
    fn progress_never_fills_the_socket_of_a_client_that_does_not_read() {
        let (mut theirs, mut client) = pair();
        for iteration in 0..5000 {
            let round = Round { iteration, written: Pages(9), dirty: Some(Pages(1)) };
            client.send_progress(&progress(round, false)).expect("it is there");
        }
        assert!(client.has_unsent());
        client.send(&done()).expect("an answer waits");
        client.send(&completed(None)).expect("the end waits");
        theirs.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            io::Read::read_to_string(&mut theirs, &mut text).expect("UTF-8");
            text
        });
        while client.has_unsent() {
            client.flush().expect("it reads");
        }
        drop(client);
        let text = reader.join().expect("it ends");
        let objects: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter().map(|object| object.expect("whole")).collect();
        assert_eq!(objects[objects.len() - 2..], [done(), completed(None)]);
        assert!(objects.len() < 5000, "{}", objects.len());
        // Answers that are never read are not kept for ever.
        let (_theirs, mut client) = pair();
        (0..100_000).try_for_each(|_| client.send(&done())).expect_err("it is given up");
    }

    #[test]
    fn messages_fit_into_the_clients_buffer() {
        let round = Round { iteration: u32::MAX, written: Pages(u64::MAX), dirty: Some(Pages(u64::MAX)) };
        let rings = (Gfn(u64::MAX), Gfn(u64::MAX));
        for object in [refused(&"\u{1f600}\"\\\n".repeat(1000)), progress(round, false), completed(Some(rings))] {
            assert!(object.to_string().len() < 1024, "{object}");
        }
        assert_eq!(progress(round, true)["data"]["remaining"], json!(-1));
        assert_eq!(
            completed(Some((Gfn(5), Gfn(6)))),
            json!({ "event": "MIGRATION", "data": { "status": "completed", "result": "5 6" } })
        );
    }
}
