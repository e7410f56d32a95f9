//! What only system calls without a safe wrapper can do for and to processes.
//!
//! Nothing of Xen's, but `unsafe` all the same, and so at home here.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What a device model may take of the host beside memory: no core file, which would hold the guest's memory, no queues,
/// no locked memory, and so many processes and threads that a fork bomb ends.
const LIMITS: [(libc::__rlimit_resource_t, libc::rlim_t); 5] = [
    (libc::RLIMIT_CORE, 0),
    (libc::RLIMIT_MSGQUEUE, 0),
    (libc::RLIMIT_LOCKS, 0),
    (libc::RLIMIT_MEMLOCK, 0),
    (libc::RLIMIT_NPROC, 1024),
];

/// Has a program start in mount and IPC namespaces of its own, under limits, and without a way to gain rights by `execve`
/// (`PR_SET_NO_NEW_PRIVS`): what libxl does for a restricted device model (tools/libs/light/libxl_linux.c,
/// libxl__local_dm_preexec_restrict, Xen 4.17), and the last. A caller without the right to do so fails to start it.
pub fn confine(command: &mut Command) {
    // SAFETY: between fork and exec, the closure makes system calls and nothing else: it allocates nothing, takes no lock,
    // and its pointer is to a local that lives through the call.
    unsafe {
        command.pre_exec(|| {
            done(libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC))?;
            for (resource, most) in LIMITS {
                let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
                done(libc::setrlimit(resource, &raw const limit))?;
            }
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        });
    }
}

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

fn done(returned: libc::c_int) -> io::Result<()> {
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

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    /// Where these tests are not root's there is nothing to see.
    fn root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[test]
    fn a_confined_program_is_confined() {
        if !root() {
            return;
        }
        let mut command = Command::new("cat");
        confine(command.arg("/proc/self/limits").arg("/proc/self/status"));
        let Ok(output) = command.output() else { return };
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        let words = line("Max core file size");
        assert!(words.split_whitespace().filter(|word| *word == "0").count() == 2, "{words}");
        assert_eq!(line("NoNewPrivs:").split_whitespace().nth(1), Some("1"));
        assert!(fs::metadata("/proc/self/ns/mnt").is_ok());
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
