//! What only system calls without a safe wrapper can do for and to processes.
//!
//! Nothing of Xen's, but `unsafe` all the same, and so at home here.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Has a program start with no descriptor but the three standard ones, whatever the caller of this program forgot to close:
/// the other end of a pipe in a program that stays would keep the caller waiting.
///
/// # Errors
/// Where `/proc` does not tell what is open.
pub fn withhold_descriptors(command: &mut Command) -> io::Result<()> {
    let open = other_descriptors()?;
    // SAFETY: between fork and exec, the closure makes system calls that take numbers, and nothing else. A number that is
    // not open any more is no more than EBADF.
    unsafe {
        command.pre_exec(move || {
            for fd in &open {
                libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
            Ok(())
        });
    }
    Ok(())
}

/// Every descriptor that is open behind the three standard ones. One of them is that of the list, which is closed by then.
pub(super) fn other_descriptors() -> io::Result<Vec<libc::c_int>> {
    let names = fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).filter(|fd| *fd > 2).collect())
}

/// Kills every process of a user at once, those included that it is about to fork: between two looks at `/proc` it could
/// always be another one.
///
/// A thread takes on the user's identity for that, its own alone (the system call, not the C library's function, which
/// changes all threads). With the `reaper` as its real user, and root as its saved one, none of those processes may signal it
/// (`kill_ok_by_cred`, kernel/signal.c), and so stop its process. Processes of the reaper are killed as well.
///
/// # Errors
/// Where the system refuses; `EINVAL` for root.
pub fn kill_all_of(uid: u32, reaper: u32) -> io::Result<()> {
    if uid == 0 || reaper == 0 || uid == reaper {
        return Err(Errno::EINVAL.into());
    }
    let killer = thread::Builder::new().spawn(move || {
        become_user(reaper, uid)?;
        match kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    })?;
    killer.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// Sets real and effective user of this thread, which ends soon after; its saved one is root.
fn become_user(real: u32, effective: u32) -> io::Result<()> {
    let word = libc::c_long::from;
    // SAFETY: the call takes three numbers, touches no memory, and changes the calling thread's credentials alone.
    let returned = unsafe { libc::syscall(libc::SYS_setresuid, word(real), word(effective), word(0_u32)) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
    use std::os::unix::process::ExitStatusExt;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    /// Where these tests are not root's there is nothing to see.
    fn root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[test]
    fn root_is_never_killed() {
        for (uid, reaper) in [(0, 0), (0, 7), (7, 0), (7, 7)] {
            assert_eq!(kill_all_of(uid, reaper).expect_err("refused").raw_os_error(), Some(libc::EINVAL));
        }
    }

    #[test]
    fn every_process_of_a_user_is_killed_and_no_other() {
        if !root() {
            return;
        }
        let start = |uid| Command::new("sleep").arg("1000").uid(uid).spawn().expect("sleep");
        let (mut victim, mut other) = (start(2_130_700_001), start(2_130_700_002));
        if kill_all_of(2_130_700_001, 2_130_700_003).is_ok() {
            assert_eq!(victim.wait().expect("waited").signal(), Some(libc::SIGKILL));
            assert!(other.try_wait().expect("waited").is_none(), "another user's process goes on");
            assert!(nix::unistd::geteuid().is_root(), "and so does this one, as root");
        }
        let _ = victim.kill();
        other.kill().expect("killed");
        other.wait().expect("waited");
    }

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
                withhold_descriptors(&mut command).expect("listed");
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
