//! Connects to Unix sockets without blocking.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, socket};

use super::wait::WaitLimit;

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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

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
}
