//! Inherited descriptors, set-uid detection, and the end of a child.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use crate::launch::Step;

/// Returns the step that closes every descriptor except 0, 1 and 2 in a child. Otherwise a long-running child could
/// keep the other end of a caller's pipe open, and the caller would wait for ever.
///
/// # Errors
/// If `/proc` does not list the open descriptors.
pub fn withhold_descriptors() -> io::Result<Step> {
    let open = other_descriptors()?;
    // SAFETY: between fork and exec, the closure only makes system calls that take numbers. A number that is no longer
    // open gives EBADF.
    let step = unsafe {
        Step::new(move || {
            for fd in &open {
                libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
            Ok(())
        })
    };
    Ok(step)
}

/// Returns the step that passes descriptors to the program, under the same numbers. It follows
/// [`withhold_descriptors`].
#[must_use]
pub fn pass_descriptors(descriptors: Vec<OwnedFd>) -> Step {
    // SAFETY: between fork and exec, the closure only makes system calls that take numbers, and it owns the descriptors.
    unsafe {
        Step::new(move || {
            for fd in &descriptors {
                if libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        })
    }
}

/// Returns the step by which the program starts in the root directory.
#[must_use]
pub fn go_to_root() -> Step {
    // SAFETY: the closure makes one system call, with a constant string.
    unsafe { Step::new(|| if libc::chdir(c"/".as_ptr()) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }) }
}

/// Every open descriptor above 2. The list's own descriptor is among them, and closed by the time of the return.
pub(super) fn other_descriptors() -> io::Result<Vec<libc::c_int>> {
    let names = fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).filter(|fd| *fd > 2).collect())
}

/// Whether this program has more privileges than its caller: set-uid, set-gid, or file capabilities (`AT_SECURE`). Then
/// its environment is untrusted.
#[must_use]
pub fn has_borrowed_rights() -> bool {
    // SAFETY: the call takes a number and accesses no memory.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Kills a child and waits for its end, which a system call that it is in delays.
///
/// # Errors
/// `ETIMEDOUT` if it has not ended within `timeout`: it may hang on a file system that does not answer.
pub fn end_child(child: &mut Child, timeout: Duration) -> io::Result<()> {
    const POLL: Duration = Duration::from_millis(1);
    child.kill()?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() >= timeout {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test]
    fn descriptors_stay_here() {
        let (_reader, writer) = io::pipe().expect("a pipe");
        // As an inherited descriptor, or one opened without O_CLOEXEC.
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).expect("it is open");
        let pipe = fs::read_link(format!("/proc/self/fd/{}", writer.as_raw_fd())).expect("it is open");
        let passed_on = |withheld: bool| {
            let mut command = Command::new("ls");
            command.args(["-l", "/proc/self/fd"]);
            if withheld {
                withhold_descriptors().expect("listed").put_into(&mut command);
            }
            let output = command.output().expect("ls").stdout;
            String::from_utf8(output).expect("UTF-8").contains(&format!("-> {}", pipe.display()))
        };
        assert!(passed_on(false));
        assert!(!passed_on(true));
    }

    #[test]
    fn what_is_passed_arrives_under_its_number() {
        let (_reader, writer) = io::pipe().expect("a pipe");
        let number = writer.as_raw_fd();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("test -p /proc/self/fd/{number}")]);
        withhold_descriptors().expect("listed").put_into(&mut command);
        pass_descriptors(vec![writer.into()]).put_into(&mut command);
        assert!(command.status().expect("sh").success());
    }

    #[test]
    fn a_test_has_borrowed_nothing() {
        assert!(!has_borrowed_rights());
    }
}
