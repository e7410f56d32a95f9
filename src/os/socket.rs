//! Unix sockets: connects without blocking, and receives descriptors.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect as connect_to, recvmsg, socket,
};

use super::wait::WaitLimit;

/// The most descriptors that one message has (`SCM_MAX_FD`, include/net/scm.h, Linux 6.1): with room for all, none is lost.
const MOST_DESCRIPTORS: usize = 253;

/// The interval between attempts while the listener's queue is full: the kernel does not signal free room.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Connects a non-blocking stream to the listener at `path`.
///
/// # Errors
/// The error of connect(2), without a wait: `ENOENT` and `ECONNREFUSED` if there is no listener, `EAGAIN` if the
/// listener's queue is full.
pub fn try_connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect_to(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// As [`try_connect`], but waits while the listener's queue is full.
///
/// # Errors
/// The error of connect(2); `ETIMEDOUT` if the queue stays full, `ECANCELED` if a signal ends the wait.
pub fn connect(path: &Path, limit: &WaitLimit) -> io::Result<OwnedFd> {
    let start = Instant::now();
    loop {
        match try_connect(path) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            outcome => return outcome,
        }
        if limit.interrupt.signal().is_some() && start.elapsed() >= limit.grace {
            return Err(Errno::ECANCELED.into());
        }
        if start.elapsed() >= limit.timeout {
            return Err(Errno::ETIMEDOUT.into());
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Reads what is there from a stream, and a descriptor that came with it. More than one is refused: the others are closed.
///
/// # Errors
/// The error of recvmsg(2).
pub fn receive(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut received = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel has just made these descriptors for this process, and nothing else owns them.
            received.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    match received.len() {
        0 => Ok((message.bytes, None)),
        1 => Ok((message.bytes, received.pop())),
        _ => Err(io::Error::other("more than one descriptor came at once")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSlice, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{ControlMessage, sendmsg};

    use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};

    use super::*;

    #[test]
    fn a_listener_whose_queue_is_full_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        assert_eq!(try_connect(&path).expect_err("none").raw_os_error(), Some(libc::ENOENT));
        let listener = UnixListener::bind(&path).expect("bound");
        listen(&listener, Backlog::new(0).expect("a number")).expect("a short queue");
        let mut queued = Vec::new();
        let full = loop {
            match try_connect(&path) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.raw_os_error(), Some(libc::EAGAIN));
        let limit = WaitLimit { timeout: Duration::from_millis(30), ..WaitLimit::default() };
        let start = Instant::now();
        let error = connect(&path, &limit).expect_err("it stays full");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        assert!(start.elapsed() >= Duration::from_millis(30));
        listener.accept().expect("one of them");
        connect(&path, &limit).expect("there is room");
        // Shut down, not just closed: a child that another test has forked keeps it open until `execve`.
        shutdown(listener.as_raw_fd(), Shutdown::Both).expect("it listens no more");
        assert_eq!(try_connect(&path).expect_err("dead").raw_os_error(), Some(libc::ECONNREFUSED));
    }

    #[test]
    fn one_descriptor_comes_with_the_text() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut kept = Vec::new();
        for number in [0, 1, 2, 5] {
            let pipes: Vec<_> = (0..number).map(|_| io::pipe().expect("a pipe")).collect();
            let raw: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_raw_fd()).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let rights = if number == 0 { &[] } else { &rights[..] };
            sendmsg::<()>(theirs.as_raw_fd(), &[IoSlice::new(b"text")], rights, MsgFlags::empty(), None).expect("sent");
            let mut buffer = [0; 16];
            match receive(&ours, &mut buffer) {
                Ok((length, descriptor)) => {
                    assert_eq!((&buffer[..length], descriptor.is_some()), (&b"text"[..], number == 1));
                    kept.extend(descriptor);
                }
                Err(error) => assert!(number > 1, "{number}: {error}"),
            }
            for (index, (mut reader, writer)) in pipes.into_iter().enumerate() {
                drop(writer);
                if let Some(copy) = kept.pop() {
                    assert_eq!(index, 0);
                    File::from(copy).write_all(b"x").expect("it is the pipe");
                    reader.read_exact(&mut [0]).expect("it is the same pipe");
                }
                // Every copy of the write end is closed.
                let mut watched = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
                poll(&mut watched, PollTimeout::ZERO).expect("polled");
                assert_eq!(watched[0].revents(), Some(PollFlags::POLLHUP));
            }
        }
        drop(theirs);
        assert_eq!(receive(&ours, &mut [0; 16]).expect("the end").0, 0);
    }
}
