//! What only system calls without a safe wrapper can do for and to processes.
//!
//! Nothing of Xen's, but `unsafe` all the same, and so at home here.

use std::fs;
use std::io;

use crate::launch::Step;

/// Has a program start with no descriptor but the three standard ones, whatever the caller of this program forgot to close:
/// the other end of a pipe in a program that stays would keep the caller waiting.
///
/// # Errors
/// Where `/proc` does not tell what is open.
pub fn withhold_descriptors() -> io::Result<Step> {
    let open = other_descriptors()?;
    // SAFETY: between fork and exec, the closure makes system calls that take numbers, and nothing else. A number that is
    // not open any more is no more than EBADF.
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

/// Every descriptor that is open behind the three standard ones. One of them is that of the list, which is closed by then.
pub(super) fn other_descriptors() -> io::Result<Vec<libc::c_int>> {
    let names = fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).filter(|fd| *fd > 2).collect())
}

/// Whether this program was started with more rights than its caller has: set-uid, set-gid, or with file capabilities
/// (`AT_SECURE`). What its environment says then is the caller's word.
#[must_use]
pub fn has_borrowed_rights() -> bool {
    // SAFETY: the call takes a number and touches no memory of ours.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
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
        // As one that was inherited, or opened by somebody careless.
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
    fn a_test_has_borrowed_nothing() {
        assert!(!has_borrowed_rights());
    }
}
