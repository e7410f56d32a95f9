//! The system calls that a device model may make (seccomp(2)): a list of what is allowed; any other call ends the process.
//!
//! The list is that of QEMU 7.2 and 10.0 as strace shows them (start, firmware, disks, CD drives, VNC, serial ports, QMP,
//! hot-plug, reset, end), with glibc 2.36 and 2.41, and calls of the same kind that another build would make. The filter is
//! installed before `execve`, so that it covers the dynamic loader, and the change of root directory and user.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// What a filter allows in addition to what every device model additional.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Additional {
    /// Sockets other than unix sockets.
    pub network: bool,
    /// To start programs, as a script does.
    pub programs: bool,
}

/// Two programs for the kernel, compiled before `fork`.
#[derive(Debug, Clone)]
pub struct SystemCallFilter {
    /// What fails with `ENOSYS`, and is allowed by the other: a caller goes on without it.
    absent: BpfProgram,
    /// What is allowed.
    allowed: BpfProgram,
}

/// Stands for the process's own number until it has one: no process number is as high (PID_MAX_LIMIT, 2^22).
const OWN_PID: u32 = 0x7fff_0b5e;

/// Calls that programs try, and do without where a kernel does not have them: they would evade the filter (`io_uring`
/// makes calls of its own, flags of `clone3` are behind a pointer), or make files that can be executed.
const ABSENT: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
];

/// Calls of Linux 5.17 and later, and of Linux to come: a C library that uses one does without it on an older kernel.
const NEWER: RangeInclusive<libc::c_long> = 450..=511;

const ALLOWED: &[libc::c_long] = &[
    // Memory
    libc::SYS_brk,
    libc::SYS_get_mempolicy,
    libc::SYS_madvise,
    libc::SYS_mbind,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munlockall,
    libc::SYS_munmap,
    libc::SYS_set_mempolicy,
    // Files and descriptors
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readv,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_tee,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_io_cancel,
    libc::SYS_io_destroy,
    libc::SYS_io_getevents,
    SYS_IO_PGETEVENTS,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    // Names of files: there is none below an empty root directory
    libc::SYS_access,
    libc::SYS_chdir,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_chroot,
    libc::SYS_creat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_lchown,
    libc::SYS_lgetxattr,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lsetxattr,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_rmdir,
    libc::SYS_setxattr,
    libc::SYS_stat,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    // Waiting and events
    libc::SYS_epoll_create,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_eventfd2,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_select,
    libc::SYS_signalfd,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // Sockets: see `rules` for which families
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Time
    libc::SYS_alarm,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getitimer,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_setitimer,
    libc::SYS_time,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_timer_settime,
    libc::SYS_times,
    // Threads and signals
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    SYS_FUTEX_WAITV,
    libc::SYS_get_robust_list,
    libc::SYS_membarrier,
    libc::SYS_pause,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    // The process: a filter of QEMU's own can only forbid more
    libc::SYS_arch_prctl,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_execve,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpgrp,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_seccomp,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setrlimit,
    libc::SYS_setuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Numbers that the crate `libc` does not have (asm/unistd_64.h).
const SYS_IO_PGETEVENTS: libc::c_long = 333;
const SYS_FUTEX_WAITV: libc::c_long = 449;

/// What starting other programs takes, and a shell.
const PROGRAMS: &[libc::c_long] = &[
    libc::SYS_clone,
    libc::SYS_fcntl,
    libc::SYS_fork,
    libc::SYS_kill,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_vfork,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// What `prctl` may do: names, timers, and forbid itself more.
const PRCTL: &[libc::c_int] = &[
    libc::PR_CAPBSET_READ,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NAME,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    libc::PR_GET_TIMERSLACK,
    libc::PR_MCE_KILL,
    libc::PR_SET_NAME,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_SET_PDEATHSIG,
    libc::PR_SET_SECCOMP,
    libc::PR_SET_TIMERSLACK,
    libc::PR_SET_VMA,
];

/// Commands of `fcntl` by which a descriptor sends signals: to any process of the same user.
const SIGNALLING: [libc::c_int; 3] = [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX];

/// asm-generic/fcntl.h
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;

impl SystemCallFilter {
    /// Compiles the filter.
    ///
    /// # Errors
    /// Where there is none for this architecture, as text.
    pub fn new(additional: Additional) -> Result<Self, String> {
        let text = |error: seccompiler::BackendError| error.to_string();
        let compiled = |rules, otherwise, named| -> Result<BpfProgram, seccompiler::BackendError> {
            SeccompFilter::new(rules, otherwise, named, std::env::consts::ARCH.try_into()?)?.try_into()
        };
        let absent = absent(additional).map_err(text)?;
        let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let mut allowed = allowed(additional).map_err(text)?;
        allowed.extend(absent.keys().map(|call| (*call, Vec::new())));
        Ok(Self {
            absent: compiled(absent, SeccompAction::Allow, enosys).map_err(text)?,
            allowed: compiled(allowed, SeccompAction::KillProcess, SeccompAction::Allow).map_err(text)?,
        })
    }

    /// Installs it in this process, for good. It may be called between `fork` and `execve`: it makes system calls, and
    /// allocates nothing.
    ///
    /// # Errors
    /// Where the kernel refuses (`CONFIG_SECCOMP_FILTER` is needed).
    pub(super) fn apply(&mut self) -> io::Result<()> {
        let own = nix::unistd::getpid().as_raw().unsigned_abs();
        // Signals to itself alone
        for instruction in self.allowed.iter_mut().filter(|instruction| instruction.k == OWN_PID) {
            instruction.k = own;
        }
        for program in [&self.absent, &self.allowed] {
            apply_filter(program).map_err(|error| match error {
                Error::Prctl(error) | Error::Seccomp(error) => error,
                _ => io::ErrorKind::InvalidInput.into(),
            })?;
        }
        Ok(())
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Rule = Result<SeccompRule, seccompiler::BackendError>;

/// That every argument of a call, by its number, stands to a value as told.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Rule {
    let condition = |(argument, operator, value): &(u8, SeccompCmpOp, u64)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
    };
    SeccompRule::new(conditions.iter().map(condition).collect::<Result<_, _>>()?)
}

fn word(number: libc::c_int) -> u64 {
    u64::from(number.cast_unsigned())
}

fn absent(additional: Additional) -> Result<Rules, seccompiler::BackendError> {
    let mut calls: Rules = ABSENT.iter().copied().chain(NEWER).map(|call| (call, Vec::new())).collect();
    if !additional.network {
        // Not to be killed for it: name services of the host's are asked for users, and may try others.
        calls.insert(libc::SYS_socket, vec![rule(&[(0, SeccompCmpOp::Ne, word(libc::AF_UNIX))])?]);
        calls.insert(libc::SYS_socketpair, vec![rule(&[(0, SeccompCmpOp::Ne, word(libc::AF_UNIX))])?]);
    }
    Ok(calls)
}

fn allowed(additional: Additional) -> Result<Rules, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut calls: Rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    calls.insert(libc::SYS_socket, Vec::new());
    calls.insert(libc::SYS_socketpair, Vec::new());
    let thread = word(libc::CLONE_THREAD);
    let no_signal: Vec<_> = SIGNALLING.iter().map(|command| (1, Ne, word(*command))).collect();
    let prctl: Result<_, _> = PRCTL.iter().map(|option| rule(&[(0, Eq, word(*option))])).collect();
    // Signals to its own threads, its own limits, and threads, which end with it.
    calls.extend([
        (libc::SYS_clone, vec![rule(&[(0, MaskedEq(thread), thread)])?]),
        (libc::SYS_fcntl, vec![rule(&no_signal)?]),
        (libc::SYS_prctl, prctl?),
        (libc::SYS_prlimit64, vec![rule(&[(0, Eq, 0)])?]),
        (libc::SYS_tgkill, vec![rule(&[(0, Eq, u64::from(OWN_PID))])?]),
    ]);
    if additional.programs {
        calls.extend(PROGRAMS.iter().map(|call| (*call, Vec::new())));
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output, Stdio};

    use super::*;

    const VARIABLE: &str = "SYSTEM_CALL_FILTER_TEST";

    /// What becomes of a call.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Outcome {
        Allowed,
        Absent,
        Killed,
    }
    use Outcome::{Absent, Allowed, Killed};

    /// A call with its first four arguments, and its outcome: alone, and where programs may be started. `PARENT` stands for
    /// the parent's process number.
    type Case = (&'static str, libc::c_long, [i64; 4], Outcome, Outcome);
    const PARENT: i64 = -77;

    fn cases() -> Vec<Case> {
        let (thread, child) = (i64::from(libc::CLONE_THREAD), i64::from(libc::SIGCHLD));
        let prctl = |option: libc::c_int| [i64::from(option), 0, 0, 0];
        vec![
            ("getpid", libc::SYS_getpid, [0; 4], Allowed, Allowed),
            ("socketpair of unix sockets", libc::SYS_socketpair, [1, 1, 0, 0], Allowed, Allowed),
            ("socket, unix", libc::SYS_socket, [1, 1, 0, 0], Allowed, Allowed),
            ("socket, inet", libc::SYS_socket, [2, 1, 0, 0], Absent, Absent),
            ("socket, netlink", libc::SYS_socket, [16, 3, 0, 0], Absent, Absent),
            ("clone3", libc::SYS_clone3, [0; 4], Absent, Absent),
            ("io_uring_setup", libc::SYS_io_uring_setup, [0; 4], Absent, Absent),
            ("memfd_create", libc::SYS_memfd_create, [0; 4], Absent, Absent),
            ("fchmodat2", 452, [-1, 0, 0, 0], Absent, Absent),
            ("mseal", 462, [-1, 0, 0, 0], Absent, Absent),
            // EINVAL: a thread shares memory and signal handlers as well
            ("clone of a thread", libc::SYS_clone, [thread, 0, 0, 0], Allowed, Allowed),
            ("clone of a process", libc::SYS_clone, [child, 0, 0, 0], Killed, Allowed),
            ("fork", libc::SYS_fork, [0; 4], Killed, Allowed),
            ("vfork", libc::SYS_vfork, [0; 4], Killed, Allowed),
            ("kill", libc::SYS_kill, [PARENT, 0, 0, 0], Killed, Allowed),
            ("tkill", libc::SYS_tkill, [PARENT, 0, 0, 0], Killed, Allowed),
            ("tgkill of another", libc::SYS_tgkill, [PARENT, PARENT, 0, 0], Killed, Allowed),
            ("fcntl F_SETOWN", libc::SYS_fcntl, [0, 8, PARENT, 0], Killed, Allowed),
            ("fcntl F_SETSIG", libc::SYS_fcntl, [0, 10, 9, 0], Killed, Allowed),
            ("fcntl F_SETOWN_EX", libc::SYS_fcntl, [0, 15, 0, 0], Killed, Allowed),
            ("fcntl F_GETFL", libc::SYS_fcntl, [0, 3, 0, 0], Allowed, Allowed),
            ("prctl PR_GET_DUMPABLE", libc::SYS_prctl, prctl(libc::PR_GET_DUMPABLE), Allowed, Allowed),
            ("prctl PR_SET_DUMPABLE", libc::SYS_prctl, prctl(libc::PR_SET_DUMPABLE), Killed, Allowed),
            ("prlimit64 of itself", libc::SYS_prlimit64, [0, 0, 0, 0], Allowed, Allowed),
            ("prlimit64 of another", libc::SYS_prlimit64, [PARENT, 0, 0, 0], Killed, Allowed),
            ("ptrace", libc::SYS_ptrace, [0; 4], Killed, Killed),
            ("process_vm_readv", libc::SYS_process_vm_readv, [0; 4], Killed, Killed),
            ("process_vm_writev", libc::SYS_process_vm_writev, [0; 4], Killed, Killed),
            ("mount", libc::SYS_mount, [0; 4], Killed, Killed),
            ("umount2", libc::SYS_umount2, [0; 4], Killed, Killed),
            ("pivot_root", libc::SYS_pivot_root, [0; 4], Killed, Killed),
            ("fsopen", libc::SYS_fsopen, [0; 4], Killed, Killed),
            ("open_tree", libc::SYS_open_tree, [0; 4], Killed, Killed),
            ("move_mount", libc::SYS_move_mount, [0; 4], Killed, Killed),
            ("unshare", libc::SYS_unshare, [0; 4], Killed, Killed),
            ("setns", libc::SYS_setns, [-1, 0, 0, 0], Killed, Killed),
            ("kexec_load", libc::SYS_kexec_load, [0; 4], Killed, Killed),
            ("bpf", libc::SYS_bpf, [0; 4], Killed, Killed),
            ("perf_event_open", libc::SYS_perf_event_open, [0; 4], Killed, Killed),
            ("keyctl", libc::SYS_keyctl, [0; 4], Killed, Killed),
            ("add_key", libc::SYS_add_key, [0; 4], Killed, Killed),
            ("request_key", libc::SYS_request_key, [0; 4], Killed, Killed),
            ("userfaultfd", libc::SYS_userfaultfd, [0; 4], Killed, Killed),
            ("io_uring_enter", libc::SYS_io_uring_enter, [-1, 0, 0, 0], Killed, Killed),
            ("io_uring_register", libc::SYS_io_uring_register, [-1, 0, 0, 0], Killed, Killed),
            ("init_module", libc::SYS_init_module, [0; 4], Killed, Killed),
            ("finit_module", libc::SYS_finit_module, [-1, 0, 0, 0], Killed, Killed),
            ("delete_module", libc::SYS_delete_module, [0; 4], Killed, Killed),
            ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0], Killed, Killed),
            ("name_to_handle_at", libc::SYS_name_to_handle_at, [-1, 0, 0, 0], Killed, Killed),
            ("execveat", libc::SYS_execveat, [-1, 0, 0, 0], Killed, Killed),
            ("pidfd_open", libc::SYS_pidfd_open, [PARENT, 0, 0, 0], Killed, Killed),
            ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0], Killed, Killed),
            ("pidfd_send_signal", libc::SYS_pidfd_send_signal, [-1, 0, 0, 0], Killed, Killed),
            ("personality", libc::SYS_personality, [0xffff_ffff, 0, 0, 0], Killed, Killed),
            ("iopl", libc::SYS_iopl, [0; 4], Killed, Killed),
            ("shmget", libc::SYS_shmget, [0; 4], Killed, Killed),
            ("msgget", libc::SYS_msgget, [0; 4], Killed, Killed),
            ("mknod", libc::SYS_mknod, [0; 4], Killed, Killed),
            ("sethostname", libc::SYS_sethostname, [0; 4], Killed, Killed),
            ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, [PARENT, 0, 0, 0], Killed, Killed),
            ("getpid of x32", libc::SYS_getpid | 0x4000_0000, [0; 4], Killed, Killed),
        ]
    }

    /// Starts this program of tests once more, to do one thing under the filter.
    fn inside(what: &str, programs: bool) -> Output {
        let program = env::current_exe().expect("a path");
        Command::new(program)
            .args([
                "--exact",
                "os::system_call_filter::tests::under_the_filter",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(VARIABLE, format!("{what}/{programs}"))
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    }

    fn outcome(output: &Output) -> Option<Outcome> {
        let text = String::from_utf8_lossy(&output.stdout);
        match output.status.signal() {
            Some(libc::SIGSYS) => Some(Killed),
            None if text.contains("outcome: absent") => Some(Absent),
            None if text.contains("outcome: allowed") => Some(Allowed),
            _ => None,
        }
    }

    /// The program may have been started through another loader than its own, which it would not be the next time.
    fn through_a_loader() -> bool {
        env::current_exe().is_ok_and(|path| path.to_string_lossy().contains("/ld-"))
    }

    #[test]
    fn each_call_is_allowed_or_absent_or_kills() {
        if through_a_loader() {
            return;
        }
        for (what, _, _, alone, with_programs) in cases() {
            for (programs, expected) in [(false, alone), (true, with_programs)] {
                let output = inside(what, programs);
                assert_eq!(outcome(&output), Some(expected), "{what}, programs: {programs}: {output:?}");
            }
        }
    }

    #[test]
    fn threads_and_unix_sockets_work_and_aborting_does() {
        if through_a_loader() {
            return;
        }
        for (what, signal) in [("threads", None), ("abort", Some(libc::SIGABRT)), ("network", None)] {
            let output = inside(what, false);
            assert_eq!(output.status.signal(), signal, "{what}: {output:?}");
            assert!(signal.is_some() || outcome(&output) == Some(Allowed), "{what}: {output:?}");
        }
    }

    /// Not a test of its own: the other two start it.
    #[test]
    #[ignore = "it gives up most system calls"]
    fn under_the_filter() {
        let Ok(what) = env::var(VARIABLE) else { return };
        let (what, programs) = what.split_once('/').expect("two words");
        let parent = i64::from(nix::unistd::getppid().as_raw());
        let all = cases();
        let additional = Additional { network: what == "network", programs: programs == "true" };
        SystemCallFilter::new(additional).expect("compiled").apply().expect("this kernel has seccomp");
        let absent = match what {
            "threads" => {
                let (one, other) = UnixStream::pair().expect("allowed");
                std::thread::spawn(move || drop(one)).join().expect("a thread");
                drop(other);
                false
            }
            "abort" => std::process::abort(),
            "network" => UdpSocket::bind("127.0.0.1:0").is_err(),
            _ => {
                let (_, call, arguments, ..) = all.iter().find(|case| case.0 == what).expect("a case");
                let [a, b, c, d] = arguments.map(|argument| if argument == PARENT { parent } else { argument });
                let mut room = [0_i32; 2];
                // socketpair is the one that writes somewhere.
                let d = if *call == libc::SYS_socketpair { room.as_mut_ptr() as i64 } else { d };
                // SAFETY: null pointers and numbers that mean nothing, which the kernel refuses, or room for two
                // descriptors; a child that comes about ends at once, below.
                let returned = unsafe { libc::syscall(*call, a, b, c, d) };
                let error = io::Error::last_os_error();
                if returned == 0 && ["fork", "vfork", "clone of a process"].contains(&what) {
                    // SAFETY: ends the child, which shares what it has with nobody, or in the case of vfork ran alone.
                    unsafe { libc::_exit(0) };
                }
                returned == -1 && error.raw_os_error() == Some(libc::ENOSYS)
            }
        };
        println!("outcome: {}", if absent { "absent" } else { "allowed" });
    }
}
