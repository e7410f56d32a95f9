//! The wire protocol of xenstored (xen/include/public/io/xs_wire.h and docs/misc/xenstore.txt, Xen 4.17): requests,
//! answers and watch events.
//!
//! libxenstore writes a request in three pieces, each of which wakes xenstored, and waits for each answer. This client
//! sends queued requests in one piece and reads their answers together.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::PollFlags;
use xen_sys as sys;

use dombuild_os::socket;
use dombuild_os::wait::{WaitLimit, WaitResult};

pub(super) use sys::xsd_sockmsg_type as Kind;

/// The default socket of xenstored; as for libxenstore, the environment can name another.
const SOCKET_PATH: &str = "/run/xenstored/socket";
/// The kernel's device for a xenstored in another domain.
const DEVICE_PATH: &str = "/dev/xen/xenbus";

const HEADER_SIZE: usize = size_of::<sys::xsd_sockmsg>();
/// The most bytes after a header.
const MAX_PAYLOAD: usize = sys::XENSTORE_PAYLOAD_MAX as usize;
/// The most bytes of an answer: oxenstored sends a long list to a socket in one piece (`packet_of`,
/// tools/ocaml/xenstored/connection.ml, Xen 4.17), where the C xenstored answers E2BIG.
const LONGEST_ANSWER: usize = 1 << 20;

/// The names of xenstored's errors (`xsd_errors`).
const ERRORS: [(&[u8], Errno); 16] = [
    (b"EINVAL", Errno::EINVAL),
    (b"EACCES", Errno::EACCES),
    (b"EEXIST", Errno::EEXIST),
    (b"EISDIR", Errno::EISDIR),
    (b"ENOENT", Errno::ENOENT),
    (b"ENOMEM", Errno::ENOMEM),
    (b"ENOSPC", Errno::ENOSPC),
    (b"EIO", Errno::EIO),
    (b"ENOTEMPTY", Errno::ENOTEMPTY),
    (b"ENOSYS", Errno::ENOSYS),
    (b"EROFS", Errno::EROFS),
    (b"EBUSY", Errno::EBUSY),
    (b"EAGAIN", Errno::EAGAIN),
    (b"EISCONN", Errno::EISCONN),
    (b"E2BIG", Errno::E2BIG),
    (b"EPERM", Errno::EPERM),
];

/// A request or an answer.
struct Message {
    kind: u32,
    request: u32,
    content: Vec<u8>,
}

/// A connection to xenstored. It never blocks: each wait has the deadline of `limit`.
pub(super) struct Connection {
    file: File,
    /// The socket or device, for error messages.
    path: PathBuf,
    /// The deadline of each answer.
    pub(super) limit: WaitLimit,
    /// Why the connection is unusable: after a timeout, the next answer would belong to another request.
    lost: Option<Errno>,
    /// Whether it accepts several requests in one write. The kernel's device drops all but the first, and limits a
    /// request to 4096 bytes with its header (drivers/xen/xenbus/xenbus_dev_frontend.c, Linux 6.1).
    pub(super) takes_many: bool,
    /// The ID of the last request.
    number: u32,
    /// Queued requests.
    output: Vec<u8>,
    /// Received bytes, and how many of them are parsed.
    input: Vec<u8>,
    used: usize,
    /// A watch has fired since the last query.
    has_fired: bool,
}

impl Connection {
    /// Connects to the socket; opens the device if there is no socket. A socket without a listener means that xenstored
    /// has died: then nothing serves the device of this domain.
    pub(super) fn open(limit: WaitLimit) -> (PathBuf, Result<Self, Errno>) {
        let socket = env::var_os("XENSTORED_PATH").map_or_else(|| PathBuf::from(SOCKET_PATH), PathBuf::from);
        match socket::connect(&socket, &limit) {
            Ok(fd) => (socket.clone(), Ok(Self::on(fd.into(), socket, true, limit))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).clone();
                let device = options.open(DEVICE_PATH).map_err(|_| errno(&error));
                (DEVICE_PATH.into(), device.map(|device| Self::on(device, DEVICE_PATH.into(), false, limit)))
            }
            Err(error) => (socket, Err(errno(&error))),
        }
    }

    pub(super) fn on(file: File, path: PathBuf, takes_many: bool, limit: WaitLimit) -> Self {
        let (output, input) = (Vec::new(), Vec::new());
        let (number, used, has_fired, lost) = (0, 0, false, None);
        Self { file, path, limit, lost, takes_many, number, output, input, used, has_fired }
    }

    /// The path of the socket or device.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the connection is unusable.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Waits for the socket; on a timeout the connection becomes unusable.
    fn wait(&mut self, events: PollFlags) -> Result<(), Errno> {
        match self.limit.wait(&self.file, events) {
            Ok(WaitResult::Ready) => Ok(()),
            Ok(WaitResult::TimedOut) => Err(Errno::ETIMEDOUT),
            Ok(WaitResult::Interrupted) => Err(Errno::ECANCELED),
            Err(error) => Err(errno(&error)),
        }
    }

    /// Makes the connection unusable after an error of the connection itself, as opposed to an error answer.
    fn lose<T>(&mut self, outcome: Result<T, Errno>) -> Result<T, Errno> {
        if let Err(errno) = &outcome {
            self.lost = Some(*errno);
        }
        outcome
    }

    /// Queues a request and returns its ID. `transaction` is 0 outside any.
    pub(super) fn prepare(&mut self, kind: Kind, transaction: u32, parts: &[&[u8]]) -> Result<u32, Errno> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > if self.takes_many { MAX_PAYLOAD } else { MAX_PAYLOAD - HEADER_SIZE } {
            return Err(Errno::E2BIG);
        }
        self.number = self.number.wrapping_add(1);
        let length = u32::try_from(length).map_err(|_| Errno::E2BIG)?;
        for word in [kind.0, self.number, transaction, length] {
            self.output.extend(word.to_ne_bytes());
        }
        for part in parts {
            self.output.extend_from_slice(part);
        }
        Ok(self.number)
    }

    /// Sends the queued requests.
    pub(super) fn send(&mut self) -> Result<(), Errno> {
        let output = std::mem::take(&mut self.output);
        self.lost.map_or(Ok(()), Err)?;
        let sent = self.write(&output);
        self.lose(sent)
    }

    fn write(&mut self, mut output: &[u8]) -> Result<(), Errno> {
        while !output.is_empty() {
            match self.file.write(output) {
                Ok(count) => output = output.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(())
    }

    /// Reads the answer to a request. Answers come in the order of the requests: the protocol does not guarantee that,
    /// but both xenstored implementations (C and OCaml) do it.
    pub(super) fn answer(&mut self, number: u32, kind: Kind) -> Result<Vec<u8>, Errno> {
        loop {
            let message = self.message()?;
            if message.kind == Kind::XS_WATCH_EVENT.0 {
                self.has_fired = true;
            } else if message.request != number {
                return self.lose(Err(Errno::EPROTO));
            } else if message.kind == Kind::XS_ERROR.0 {
                let text = message.content.split(|byte| *byte == 0).next().unwrap_or_default();
                let known = ERRORS.iter().find(|(name, _)| *name == text);
                return Err(known.map_or(Errno::EINVAL, |(_, errno)| *errno));
            } else if message.kind == kind.0 {
                return Ok(message.content);
            } else {
                return self.lose(Err(Errno::EPROTO));
            }
        }
    }

    /// Returns and clears whether a watch has fired, among the messages read so far.
    pub(super) fn take_fired(&mut self) -> bool {
        std::mem::take(&mut self.has_fired)
    }

    /// Reads a watch event: call it if the socket is readable and no request is open.
    pub(super) fn read_event(&mut self) -> Result<(), Errno> {
        let message = self.message()?;
        if message.kind != Kind::XS_WATCH_EVENT.0 {
            return self.lose(Err(Errno::EPROTO));
        }
        self.has_fired = true;
        Ok(())
    }

    /// Whether received bytes are not parsed yet.
    pub(super) fn has_more(&self) -> bool {
        self.used < self.input.len()
    }

    fn message(&mut self) -> Result<Message, Errno> {
        self.lost.map_or(Ok(()), Err)?;
        let message = self.read_message();
        self.lose(message)
    }

    fn read_message(&mut self) -> Result<Message, Errno> {
        self.fill(HEADER_SIZE)?;
        let header = self.input.get(self.used..self.used + HEADER_SIZE).unwrap_or_default();
        let mut words = header.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap_or_default()));
        let mut word = || words.next().unwrap_or_default();
        let (kind, request, _, length) = (word(), word(), word(), word());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > LONGEST_ANSWER {
            return Err(Errno::EPROTO);
        }
        self.fill(HEADER_SIZE + length)?;
        let start = self.used + HEADER_SIZE;
        let content = self.input.get(start..start + length).unwrap_or_default().to_vec();
        self.used = start + length;
        Ok(Message { kind, request, content })
    }

    /// Reads until this many bytes are not parsed yet.
    fn fill(&mut self, wanted: usize) -> Result<(), Errno> {
        while self.input.len() - self.used < wanted {
            self.wait(PollFlags::POLLIN)?;
            self.input.drain(..self.used);
            self.used = 0;
            let had = self.input.len();
            self.input.resize(had + HEADER_SIZE + MAX_PAYLOAD, 0);
            let read = self.file.read(self.input.get_mut(had..).unwrap_or_default());
            self.input.truncate(had + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => return Err(Errno::EPIPE),
                Err(error) if !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                    return Err(errno(&error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;

    /// A connection whose peer has sent these bytes.
    fn answered(bytes: &[u8]) -> (Connection, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        theirs.write_all(bytes).expect("sent");
        ours.set_nonblocking(true).expect("set");
        let limit = WaitLimit { timeout: Duration::from_secs(60), ..WaitLimit::default() };
        (Connection::on(File::from(OwnedFd::from(ours)), PathBuf::new(), true, limit), theirs)
    }

    #[test]
    fn an_answer_that_does_not_come_is_given_up_once() {
        let (mut connection, mut theirs) = answered(b"");
        connection.limit.timeout = Duration::from_millis(20);
        let number = connection.prepare(Kind::XS_READ, 0, &[b"/a", b"\0"]).expect("prepared");
        connection.send().expect("sent");
        let start = Instant::now();
        assert_eq!(connection.answer(number, Kind::XS_READ), Err(Errno::ETIMEDOUT));
        assert!(start.elapsed() >= Duration::from_millis(20) && connection.is_lost());
        // A late answer belongs to no request.
        theirs.write_all(&message(Kind::XS_READ, 2, b"late")).expect("sent");
        connection.prepare(Kind::XS_READ, 0, &[b"/b", b"\0"]).expect("prepared");
        assert_eq!(connection.send(), Err(Errno::ETIMEDOUT));
        assert_eq!(connection.answer(2, Kind::XS_READ), Err(Errno::ETIMEDOUT));
    }

    #[test]
    fn requests_that_are_not_read_are_given_up() {
        let (mut connection, _theirs) = answered(b"");
        connection.limit.timeout = Duration::from_millis(20);
        for _ in 0..4096 {
            connection.prepare(Kind::XS_WRITE, 1, &[&[b'x'; MAX_PAYLOAD]]).expect("prepared");
        }
        assert_eq!(connection.send(), Err(Errno::ETIMEDOUT));
    }

    fn message(kind: Kind, request: u32, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("short");
        let mut bytes: Vec<u8> = [kind.0, request, 0, length].into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend(content);
        bytes
    }

    #[test]
    fn requests_go_out_in_one_piece_and_each_has_its_answer() {
        let bytes = [
            message(Kind::XS_WRITE, 1, b"OK\0"),
            message(Kind::XS_WATCH_EVENT, 0, b"/path\0token\0"),
            message(Kind::XS_ERROR, 2, b"EACCES\0"),
            message(Kind::XS_READ, 3, b"value"),
        ];
        let (mut connection, mut theirs) = answered(&bytes.concat());
        let parts: &[&[u8]] = &[b"/a", b"\0", b"1"];
        assert_eq!(connection.prepare(Kind::XS_WRITE, 7, parts), Ok(1));
        assert_eq!(connection.prepare(Kind::XS_RM, 7, &[b"/b", b"\0"]), Ok(2));
        assert_eq!(connection.prepare(Kind::XS_READ, 0, &[b"/c", b"\0"]), Ok(3));
        connection.send().expect("sent");
        let mut sent = [0; 3 * HEADER_SIZE + 4 + 3 + 3];
        theirs.read_exact(&mut sent).expect("all of it");
        let mut first = message(Kind::XS_WRITE, 1, b"/a\x001");
        first[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(sent[..first.len()], first);
        assert_eq!(connection.answer(1, Kind::XS_WRITE), Ok(b"OK\0".to_vec()));
        assert!(!connection.take_fired());
        assert_eq!(connection.answer(2, Kind::XS_RM), Err(Errno::EACCES));
        assert_eq!(connection.answer(3, Kind::XS_READ), Ok(b"value".to_vec()));
        assert!(connection.take_fired() && !connection.take_fired() && !connection.has_more());
        drop(theirs);
        assert_eq!(connection.answer(4, Kind::XS_READ), Err(Errno::EPIPE), "it has ended");
    }

    #[test]
    fn an_answer_that_comes_in_pieces_is_put_together() {
        let bytes = message(Kind::XS_READ, 1, &[b'x'; 3 * MAX_PAYLOAD]);
        let (mut connection, mut theirs) = answered(&bytes[..5]);
        connection.prepare(Kind::XS_READ, 0, &[b"/", b"\0"]).expect("prepared");
        let sender = std::thread::spawn(move || {
            for piece in bytes[5..].chunks(1000) {
                theirs.write_all(piece).expect("sent");
            }
        });
        assert_eq!(connection.answer(1, Kind::XS_READ).expect("all of it").len(), 3 * MAX_PAYLOAD);
        sender.join().expect("sent");
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        for bytes in [
            message(Kind::XS_READ, 2, b"of another request"),
            message(Kind::XS_MKDIR, 1, b"of another kind"),
            // The header alone is enough.
            message(Kind::XS_READ, 1, &vec![0; LONGEST_ANSWER + 1])[..HEADER_SIZE].to_vec(),
        ] {
            let (mut connection, _theirs) = answered(&bytes);
            assert_eq!(connection.answer(1, Kind::XS_READ), Err(Errno::EPROTO));
        }
        let (mut connection, _theirs) = answered(&message(Kind::XS_ERROR, 1, b"EWHATEVER\0"));
        assert_eq!(connection.answer(1, Kind::XS_READ), Err(Errno::EINVAL), "an error of a later Xen");
        let (mut connection, _theirs) = answered(b"");
        assert_eq!(connection.prepare(Kind::XS_WRITE, 0, &[&[0; MAX_PAYLOAD + 1]]), Err(Errno::E2BIG));
    }
}
