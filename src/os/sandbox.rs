//! The walls around a child of this program that looks into what somebody else made.
//!
//! Nothing of Xen's, but `unsafe` all the same, where no crate has the system call. The child calls [`confine`] before it
//! reads its first byte: what it was given then is all that it ever has.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, id};

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

use super::process::other_descriptors;

/// The user and group `nobody`, which own nothing.
const NOBODY: u32 = 65534;

/// The highest `oom_score_adj`: the kernel kills such a process first (proc(5)).
const OOM_FIRST: &str = "1000";

/// The first number behind the three descriptors that the child keeps.
const FIRST_OTHER: libc::c_uint = 3;

/// What the child may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Its address space in bytes, program and libraries included.
    pub address_space: u64,
    /// What it may write into a file, in bytes.
    pub file_size: u64,
    /// Its CPU time; `SIGXCPU` ends it.
    pub cpu_seconds: u64,
}

/// The child that `command` will start dies with the thread that starts it, from its first instruction on.
///
/// The parent may die between fork and `PR_SET_PDEATHSIG`. Then the child has another parent already, and kills itself.
pub fn die_with_parent(command: &mut Command) {
    let parent = libc::pid_t::try_from(id()).unwrap_or(0);
    // SAFETY: between fork and exec, the closure makes system calls that take numbers, and nothing else.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                libc::kill(libc::getpid(), libc::SIGKILL);
            }
            Ok(())
        });
    }
}

/// The same in the child itself, after a change of credentials, which makes the kernel forget the signal (prctl(2)).
fn still_die_with(parent: Pid) -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if unistd::getppid() == parent { Ok(()) } else { raise(Signal::SIGKILL) }
}

/// Gives up all that this process has but descriptors 0 to 2, memory and CPU time: root and capabilities, other descriptors,
/// the file system, the network, other processes. From then on it may read from descriptor 0, write to 1 and 2, ask for
/// memory, and end; any other system call kills it. It dies with `parent`, the process that started it by
/// [`die_with_parent`], and where memory is short, the kernel kills it before any other process.
///
/// Returns the walls that this host has not got, which are those behind the last one: mount, network, IPC and UTS
/// namespaces with an empty directory as the root, and the preference of the OOM killer. To be called once, before a second thread is started.
///
/// # Errors
/// Where one of the others is missing, and which: nothing may be read then.
pub fn enter_sandbox(limits: &Limits, parent: Pid) -> Result<Vec<String>, String> {
    let need = |what: &'static str| move |error: &dyn std::fmt::Display| format!("{what}: {error}");
    let mut missing = Vec::new();
    // First of all: /proc goes away, and memory is taken.
    let preferred = fs::write("/proc/self/oom_score_adj", OOM_FIRST);
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
        // At the hard limit it would be SIGKILL, which tells nothing.
        (Resource::RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds.saturating_add(1)),
        (Resource::RLIMIT_NOFILE, 0, 0),
        (Resource::RLIMIT_NPROC, 0, 0),
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_MEMLOCK, 0, 0),
    ] {
        // One that is lower already stays.
        getrlimit(resource)
            .and_then(|(_, most)| setrlimit(resource, soft.min(most), hard.min(most)))
            .map_err(|error| format!("{resource:?} cannot be set to {soft}: {error}"))?;
    }
    if root {
        drop_bounding_set().map_err(|error| need("the capability bounding set cannot be emptied")(&error))?;
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        unistd::setgroups(&[])
            .and_then(|()| unistd::setresgid(group, group, group))
            .and_then(|()| unistd::setresuid(user, user, user))
            .map_err(|error| format!("user {NOBODY} cannot be taken on: {error}"))?;
    }
    still_die_with(parent).map_err(|error| need("PR_SET_PDEATHSIG")(&error))?;
    drop_capabilities().map_err(|error| need("capabilities cannot be given up")(&error))?;
    prctl::set_no_new_privs().map_err(|error| need("no_new_privs cannot be set")(&error))?;
    // No other process of the same user shall trace it.
    prctl::set_dumpable(false).map_err(|error| need("it cannot be hidden from tracers")(&error))?;
    let filter = filter().map_err(|error| need("the system call filter cannot be made")(&error))?;
    seccompiler::apply_filter(&filter)
        .map_err(|error| format!("seccomp refuses the filter (CONFIG_SECCOMP_FILTER is needed): {error}"))?;
    Ok(missing)
}

/// Closes every descriptor but the first three.
fn close_others() -> io::Result<()> {
    // SAFETY: this process has just been started for nothing but this, and owns no descriptor behind the third.
    let returned = unsafe { libc::syscall(libc::SYS_close_range, FIRST_OTHER, libc::c_uint::MAX, 0) };
    if returned == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error);
    }
    // Linux before 5.9
    for fd in other_descriptors()? {
        // SAFETY: as above; a number that is not open is no more than EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Moves to namespaces of its own, in which there is nothing, and to an empty directory as the root.
fn hide_host() -> Result<(), String> {
    let failed = |what: &'static str| move |error: Errno| format!("no {what}: {error}");
    let spaces =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(spaces).map_err(failed("namespaces"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("private mounts"))?;
    // A directory that is there for certain: this program was started from it.
    const EMPTY: &str = "/proc";
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), EMPTY, Some("tmpfs"), flags, Some("size=4k,nr_inodes=2,mode=0"))
        .map_err(failed("empty directory"))?;
    unistd::chdir(EMPTY).map_err(failed("empty directory"))?;
    match unistd::pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).map_err(failed("other root"))?,
        // The root of an initial ramdisk cannot be exchanged.
        Err(_) => unistd::chroot(".").map_err(failed("other root"))?,
    }
    unistd::chdir("/").map_err(failed("other root"))
}

/// Takes every capability out of what an `execve` could give back.
fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: takes no pointer.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // The first number that no capability has.
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
    // SAFETY: both point to what version 3 takes, a header of two words and six words of sets; it writes into neither.
    let returned = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the child may still call. Whatever is not named here kills it.
fn filter() -> Result<BpfProgram, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let one = |argument: u8, operator: SeccompCmpOp, value: u64| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
        let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
        rule.map_err(|error| text(&error))
    };
    // Memory that can be executed is of no use to it.
    let executable = u64::try_from(libc::PROT_EXEC).unwrap_or(u64::MAX);
    let mut calls = BTreeMap::from([
        (libc::SYS_read, vec![one(0, SeccompCmpOp::Eq, 0)?]),
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
        // By it, Rust's handler of SIGSEGV gives way to the signal.
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

    const FORBIDDEN: [&str; 10] =
        ["open", "socket", "fork", "kill", "execute", "read", "write", "chdir", "setuid", "limits"];

    /// Starts this program of tests once more, to do one thing behind the walls.
    fn inside(what: &str) -> std::process::Output {
        let program = env::current_exe().expect("a path");
        Command::new(program)
            .args(["--exact", "sandbox::tests::behind_the_walls", "--ignored", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, what)
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    }

    /// The program may have been started through another loader than its own, which it would not be the next time.
    fn through_a_loader() -> bool {
        env::current_exe().is_ok_and(|path| path.to_string_lossy().contains("/ld-"))
    }

    #[test]
    fn what_is_forbidden_kills() {
        if through_a_loader() {
            return;
        }
        for what in FORBIDDEN {
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

    /// Not a test of its own: the other two start it.
    #[test]
    #[ignore = "it gives up all that its process has"]
    fn behind_the_walls() {
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
                // SAFETY: a new mapping harms nothing.
                let _ = unsafe { nix::sys::mman::mmap_anonymous(None, length, protection, flags) };
            }
            // Another descriptor than its own three, and those in the other direction.
            "read" => drop(unistd::read(io::stdout(), &mut [0])),
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
