//! Takes ownership of file descriptors that this program inherited, by number.
//!
//! The conversion of a number into an owned descriptor is `unsafe`. [`take`] checks its conditions first.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The access mode of a descriptor; a socket has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `O_RDONLY`.
    Read,
    /// `O_WRONLY`.
    Write,
    /// `O_RDWR`.
    ReadWrite,
}

impl Access {
    /// Whether it permits reads.
    #[must_use]
    pub fn reads(self) -> bool {
        self != Self::Write
    }

    /// Whether it permits writes.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

/// An inherited descriptor, now owned: closed when dropped, and by `execve`.
#[derive(Debug)]
pub struct Inherited {
    /// The descriptor, with `FD_CLOEXEC`.
    pub fd: OwnedFd,
    /// The access mode.
    pub access: Access,
}

/// Why a descriptor cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Standard input, output and error are shared by the whole process.
    #[error("descriptor {0} is standard input, output or error: give one of 3 and above")]
    Standard(RawFd),
    /// The number is no open descriptor.
    #[error("descriptor {0} is not open: the caller has to pass it on (in a shell: {0}>FILE)")]
    NotOpen(RawFd),
    /// This program opened the descriptor itself.
    #[error("descriptor {0} was not passed on by the caller, or is used twice")]
    NotInherited(RawFd),
    /// The descriptor was opened with `O_PATH`, or fcntl failed.
    #[error("descriptor {fd} cannot be used: {error}")]
    Unusable {
        /// The number.
        fd: RawFd,
        /// The error of fcntl.
        error: io::Error,
    },
}

/// Takes ownership of an inherited descriptor and sets `FD_CLOEXEC`, so that no child program inherits it.
///
/// A descriptor that already has `FD_CLOEXEC` is refused: it did not survive an `execve`, so this program opened it
/// (Rust's standard library always sets the flag) or has taken it before. Call this before Xen's libraries open
/// descriptors.
///
/// # Errors
/// [`TakeError`]: for 0 to 2, a number that is not open, a descriptor that was not inherited, and an `O_PATH` one.
pub fn take(fd: RawFd) -> Result<Inherited, TakeError> {
    if (0..=2).contains(&fd) {
        return Err(TakeError::Standard(fd));
    }
    let flags = control(fd, libc::F_GETFD, 0).map_err(|error| match error.raw_os_error() {
        Some(libc::EBADF) => TakeError::NotOpen(fd),
        _ => TakeError::Unusable { fd, error },
    })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(TakeError::NotInherited(fd));
    }
    let unusable = |error| TakeError::Unusable { fd, error };
    let status = control(fd, libc::F_GETFL, 0).map_err(unusable)?;
    let access = match status & (libc::O_ACCMODE | libc::O_PATH) {
        libc::O_RDONLY => Access::Read,
        libc::O_WRONLY => Access::Write,
        libc::O_RDWR => Access::ReadWrite,
        _ => return Err(unusable(io::Error::other("it is neither for reading nor for writing"))),
    };
    control(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC).map_err(unusable)?;
    // SAFETY: `fd` is open, and nothing in this process owns it: descriptors that the process opened have FD_CLOEXEC,
    // which this one had not. A second call finds the flag that is set above. Standard input, output and error are
    // refused.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Inherited { fd, access })
}

fn control(fd: RawFd, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFD, F_GETFL and F_SETFD access no memory and are defined for every number: EBADF if it is not open.
    let answer = unsafe { libc::fcntl(fd, command, argument) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::fs::OpenOptionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Makes a descriptor look inherited.
    fn inherited(fd: impl Into<OwnedFd>) -> RawFd {
        let fd = fd.into().into_raw_fd();
        control(fd, libc::F_SETFD, 0).expect("it is open");
        fd
    }

    #[test]
    fn what_is_taken_works_and_is_closed_on_exec() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let number = inherited(writer);
        let taken = take(number).expect("inherited");
        assert_eq!((taken.fd.as_raw_fd(), taken.access), (number, Access::Write));
        assert_eq!(control(number, libc::F_GETFD, 0).expect("open"), libc::FD_CLOEXEC);
        let mut file = File::from(taken.fd);
        file.write_all(b"x").expect("written");
        drop(file);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("the other end is closed, so there is an end");
        assert_eq!(text, "x");
    }

    #[test]
    fn the_access_mode_is_told() {
        let of = |fd| take(fd).expect("inherited").access;
        let (reader, _writer) = io::pipe().expect("a pipe");
        assert_eq!(of(inherited(reader)), Access::Read);
        let (socket, _other) = UnixStream::pair().expect("a pair");
        assert_eq!(of(inherited(socket)), Access::ReadWrite);
        assert!(Access::ReadWrite.reads() && Access::ReadWrite.writes());
        assert!(!Access::Read.writes() && !Access::Write.reads());
    }

    #[test]
    fn what_was_not_inherited_is_refused() {
        for standard in 0..=2 {
            assert!(matches!(take(standard), Err(TakeError::Standard(_))));
        }
        for nowhere in [-1, i32::MIN, 1_000_000, i32::MAX] {
            assert!(matches!(take(nowhere), Err(TakeError::NotOpen(_))), "{nowhere}");
        }
        let own = File::open("/dev/null").expect("Linux has it");
        assert!(matches!(take(own.as_raw_fd()), Err(TakeError::NotInherited(_))));
        let taken = take(inherited(own)).expect("inherited");
        assert!(matches!(take(taken.fd.as_raw_fd()), Err(TakeError::NotInherited(_))), "once is enough");
        let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/").expect("it is there");
        let number = inherited(path);
        assert!(matches!(take(number), Err(TakeError::Unusable { .. })));
    }
}
