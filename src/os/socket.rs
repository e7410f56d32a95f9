//! Connecting to a Unix socket without ever blocking in it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, socket};

use super::wait::Patience;

/// How often a listener is tried whose queue is full: the kernel tells nobody when there is room again.
const POLL: Duration = Duration::from_millis(10);

/// A stream that does not block, connected to the listener at `path`.
///
/// # Errors
/// What connect(2) says, at once: `ENOENT` and `ECONNREFUSED` where nobody listens, `EAGAIN` where the listener's queue is
/// full.
pub fn try_connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect_to(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// The same, where a listener whose queue is full is waited for.
///
/// # Errors
/// What connect(2) says; `ETIMEDOUT` where the queue stays full, `ECANCELED` where a signal ends the wait.
pub fn connect(path: &Path, patience: &Patience) -> io::Result<OwnedFd> {
    let start = Instant::now();
    loop {
        match try_connect(path) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            outcome => return outcome,
        }
        if patience.interrupt.signal().is_some() && start.elapsed() >= patience.grace {
            return Err(Errno::ECANCELED.into());
        }
        if start.elapsed() >= patience.timeout {
            return Err(Errno::ETIMEDOUT.into());
        }
        thread::sleep(POLL);
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
        let patience = Patience { timeout: Duration::from_millis(30), ..Patience::default() };
        let start = Instant::now();
        let error = connect(&path, &patience).expect_err("it stays full");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        assert!(start.elapsed() >= Duration::from_millis(30));
        listener.accept().expect("one of them");
        connect(&path, &patience).expect("there is room");
        // Not closed alone: a child that another test has just forked keeps it open until it calls `execve`.
        shutdown(listener.as_raw_fd(), Shutdown::Both).expect("it listens no more");
        assert_eq!(try_connect(&path).expect_err("dead").raw_os_error(), Some(libc::ECONNREFUSED));
    }
}
