//! The sandbox of a child process that parses untrusted input.
//!
//! The child calls [`enter_sandbox`] before it reads its first byte. It keeps descriptors 0 to 2, memory and CPU time,
//! and cannot regain anything else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::process::id;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, raise};
use nix::unistd::{self, Gid, Pid, Uid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::launch::Step;
use super::process::other_descriptors;

/// The user and group `nobody`, which own no files.
const NOBODY_ID: u32 = 65534;

/// The highest `oom_score_adj`: the OOM killer chooses the process first (proc(5)).
const MAX_OOM_SCORE_ADJ: &str = "1000";

/// The first descriptor to close: the child keeps 0 to 2.
const FIRST_CLOSED_FD: libc::c_uint = 3;

/// Resource limits of the child.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The address space in bytes, including the program and its libraries.
    pub address_space: u64,
    /// The size of any file that it writes, in bytes.
    pub file_size: u64,
    /// CPU time; `SIGXCPU` ends the child.
    pub cpu_seconds: u64,
}

/// The step of a launch by which the child dies with the thread that starts it.
///
/// The parent may die between fork and `PR_SET_PDEATHSIG`. Then the child finds another parent and kills itself.
pub fn die_with_parent() -> Step {
    let parent = libc::pid_t::try_from(id()).unwrap_or(0);
    let step = move || {
        // SAFETY: these calls take numbers.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                libc::kill(libc::getpid(), libc::SIGKILL);
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls.
    unsafe { Step::new(step) }
}

/// Sets the signal again in the child: a change of credentials clears it (prctl(2)).
fn still_die_with(parent: Pid) -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if unistd::getppid() == parent { Ok(()) } else { raise(Signal::SIGKILL) }
}

/// Gives up everything except descriptors 0 to 2, memory and CPU time: root, capabilities, other descriptors, the file
/// system, the network, and other processes. Afterwards the process may read descriptor 0 and seek in it, write 1 and
/// 2, allocate memory, and exit; any other system call kills it. It dies with `parent`, which started it by [`die_with_parent`],
/// and the OOM killer chooses it first.
///
/// Returns the optional protections that this host lacks: mount, network, IPC and UTS namespaces with an empty root
/// directory, and the OOM killer's preference. Call it once, before a second thread starts.
///
/// # Errors
/// Names the required protection that is missing. Then the child must not read its input.
pub fn enter_sandbox(limits: &Limits, parent: Pid) -> Result<Vec<String>, String> {
    let need = |what: &'static str| move |error: &dyn std::fmt::Display| format!("{what}: {error}");
    let mut missing = Vec::new();
    // First, because /proc disappears and memory is limited later.
    let preferred = fs::write("/proc/self/oom_score_adj", MAX_OOM_SCORE_ADJ);
    missing.extend(preferred.err().map(|error| format!("no preference of the OOM killer: {error}")));
    close_others().map_err(|error| need("other descriptors cannot be closed")(&error))?;
    let root = unistd::geteuid().is_root();
    if root {
        missing.extend(hide_host().err());
    } else {
        missing.push("no namespaces, as this is not root".to_owned());
    }
    for (resource, soft, hard) in [
        (Resource::RLIMIT_AS, limits.address_space, limits.address_space),
        (Resource::RLIMIT_FSIZE, limits.file_size, limits.file_size),
        // At the hard limit the signal is SIGKILL, which does not name the cause.
        (Resource::RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds.saturating_add(1)),
        (Resource::RLIMIT_NOFILE, 0, 0),
        (Resource::RLIMIT_NPROC, 0, 0),
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_MEMLOCK, 0, 0),
    ] {
        // A lower limit stays.
        getrlimit(resource)
            .and_then(|(_, most)| setrlimit(resource, soft.min(most), hard.min(most)))
            .map_err(|error| format!("{resource:?} cannot be set to {soft}: {error}"))?;
    }
    if root {
        drop_bounding_set().map_err(|error| need("the capability bounding set cannot be emptied")(&error))?;
        let (user, group) = (Uid::from_raw(NOBODY_ID), Gid::from_raw(NOBODY_ID));
        unistd::setgroups(&[])
            .and_then(|()| unistd::setresgid(group, group, group))
            .and_then(|()| unistd::setresuid(user, user, user))
            .map_err(|error| format!("user {NOBODY_ID} cannot be taken on: {error}"))?;
    }
    still_die_with(parent).map_err(|error| need("PR_SET_PDEATHSIG")(&error))?;
    drop_capabilities().map_err(|error| need("capabilities cannot be given up")(&error))?;
    prctl::set_no_new_privs().map_err(|error| need("no_new_privs cannot be set")(&error))?;
    // Other processes of the same user must not trace it.
    prctl::set_dumpable(false).map_err(|error| need("it cannot be hidden from tracers")(&error))?;
    let filter = filter().map_err(|error| need("the system call filter cannot be made")(&error))?;
    seccompiler::apply_filter(&filter)
        .map_err(|error| format!("seccomp refuses the filter (CONFIG_SECCOMP_FILTER is needed): {error}"))?;
    Ok(missing)
}

/// Closes every descriptor except the first three.
fn close_others() -> io::Result<()> {
    // SAFETY: this process has just started for this purpose, and owns no descriptor above the third.
    let returned = unsafe { libc::syscall(libc::SYS_close_range, FIRST_CLOSED_FD, libc::c_uint::MAX, 0) };
    if returned == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error);
    }
    // Linux before 5.9
    for fd in other_descriptors()? {
        // SAFETY: as above; a number that is not open gives EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Moves to new, empty namespaces, and to an empty root directory.
fn hide_host() -> Result<(), String> {
    let failed = |what: &'static str| move |error: Errno| format!("no {what}: {error}");
    let spaces =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(spaces).map_err(failed("namespaces"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("private mounts"))?;
    // A directory that exists: this program was started from it.
    const EMPTY_ROOT: &str = "/proc";
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), EMPTY_ROOT, Some("tmpfs"), flags, Some("size=4k,nr_inodes=2,mode=0"))
        .map_err(failed("empty directory"))?;
    unistd::chdir(EMPTY_ROOT).map_err(failed("empty directory"))?;
    match unistd::pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).map_err(failed("other root"))?,
        // The root of an initial ramdisk cannot be replaced.
        Err(_) => unistd::chroot(".").map_err(failed("other root"))?,
    }
    unistd::chdir("/").map_err(failed("other root"))
}

/// Removes every capability from the bounding set, so that `execve` restores none.
fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: the call takes no pointer.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // The first number above the last capability.
            return if capability > 0 && error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Empties the effective, permitted and inheritable sets.
fn drop_capabilities() -> io::Result<()> {
    // struct __user_cap_header_struct and two struct __user_cap_data_struct (linux/capability.h).
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let sets = [0u32; 6];
    // SAFETY: both pointers are to what version 3 takes: a header of two words and six words of sets. The call writes
    // to neither.
    let returned = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The system calls that the child may make. Any other call kills it.
fn filter() -> Result<BpfProgram, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let one = |argument: u8, operator: SeccompCmpOp, value: u64| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
        let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
        rule.map_err(|error| text(&error))
    };
    // The child needs no executable memory.
    let executable = u64::try_from(libc::PROT_EXEC).unwrap_or(u64::MAX);
    let mut calls = BTreeMap::from([
        (libc::SYS_read, vec![one(0, SeccompCmpOp::Eq, 0)?]),
        (libc::SYS_lseek, vec![one(0, SeccompCmpOp::Eq, 0)?]),
        (libc::SYS_write, vec![one(0, SeccompCmpOp::Eq, 1)?, one(0, SeccompCmpOp::Eq, 2)?]),
        (libc::SYS_mmap, vec![one(2, SeccompCmpOp::MaskedEq(executable), 0)?]),
    ]);
    let plain = [
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_getrandom,
        // Rust's SIGSEGV handler restores the default action by it.
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    calls.extend(plain.map(|call| (call, Vec::new())));
    let arch = std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| text(&error))?;
    SeccompFilter::new(calls, SeccompAction::KillProcess, SeccompAction::Allow, arch)
        .and_then(TryInto::try_into)
        .map_err(|error| text(&error))
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::File;
    use std::hint::black_box;
    use std::net::UdpSocket;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    const VARIABLE: &str = "SANDBOX_TEST";

    const FORBIDDEN_CASES: [&str; 11] =
        ["open", "socket", "fork", "kill", "execute", "read", "seek", "write", "chdir", "setuid", "limits"];

    /// Starts this test program again to run one case in the sandbox.
    fn inside(what: &str) -> std::process::Output {
        let program = env::current_exe().expect("a path");
        Command::new(program)
            .args(["--exact", "sandbox::tests::in_the_sandbox", "--ignored", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, what)
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    }

    /// Whether a loader other than the program's own started it: then it cannot start itself again.
    fn through_a_loader() -> bool {
        env::current_exe().is_ok_and(|path| path.to_string_lossy().contains("/ld-"))
    }

    #[test]
    fn what_is_forbidden_kills() {
        if through_a_loader() {
            return;
        }
        for what in FORBIDDEN_CASES {
            let output = inside(what);
            assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{what}: {output:?}");
        }
    }

    #[test]
    fn memory_is_there_up_to_the_limit() {
        if through_a_loader() {
            return;
        }
        let output = inside("memory");
        assert_eq!(output.status.signal(), None, "{output:?}");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    /// Runs only when the other two tests start it.
    #[test]
    #[ignore = "it gives up all that its process has"]
    fn in_the_sandbox() {
        let Ok(what) = env::var(VARIABLE) else { return };
        let limits = Limits { address_space: 1 << 30, file_size: 1 << 20, cpu_seconds: 10 };
        enter_sandbox(&limits, unistd::getppid()).expect("this machine has what is needed");
        match what.as_str() {
            "open" => drop(File::open("/")),
            "socket" => drop(UdpSocket::bind("127.0.0.1:0")),
            "fork" => drop(Command::new("/bin/true").status()),
            "kill" => drop(nix::sys::signal::kill(Pid::from_raw(1), None)),
            "execute" => {
                let length = std::num::NonZeroUsize::MIN;
                let (protection, flags) = (
                    nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_EXEC,
                    nix::sys::mman::MapFlags::MAP_PRIVATE,
                );
                // SAFETY: a new mapping changes no existing one.
                let _ = unsafe { nix::sys::mman::mmap_anonymous(None, length, protection, flags) };
            }
            // A descriptor other than its own three, and those in the opposite direction.
            "read" => drop(unistd::read(io::stdout(), &mut [0])),
            "seek" => drop(unistd::lseek(io::stdout(), 0, unistd::Whence::SeekCur)),
            "write" => drop(unistd::write(io::stdin(), &[0])),
            "chdir" => drop(unistd::chdir("/")),
            "setuid" => drop(unistd::setuid(Uid::from_raw(0))),
            "limits" => drop(setrlimit(Resource::RLIMIT_AS, u64::MAX, u64::MAX)),
            "memory" => {
                let enough = black_box(vec![1u8; 256 << 20]);
                assert_eq!(enough.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 256 << 20);
                let mut more = Vec::<u8>::new();
                assert!(more.try_reserve_exact(1 << 30).is_err(), "over the limit");
            }
            _ => {}
        }
    }
}
