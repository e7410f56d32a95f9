//! The outcome of each call.

use std::env;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use super::*;

const VARIABLE: &str = "SYSTEM_CALL_FILTER_TEST";

use Outcome::{Absent, Allowed, Killed};

/// A call with its first four arguments, and its outcomes without and with `programs`. `PARENT` stands for the parent's
/// process ID.
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
        ("memfd_create", libc::SYS_memfd_create, [0; 4], Allowed, Allowed),
        ("fchmodat2", 452, [-1, 0, 0, 0], Absent, Absent),
        ("mseal", 462, [-1, 0, 0, 0], Absent, Absent),
        // EINVAL: a thread must share memory and signal handlers.
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

/// Starts this test program again to run one case under the filter.
fn inside(what: &str, programs: bool) -> Output {
    let program = env::current_exe().expect("a path");
    Command::new(program)
        .args([
            "--exact",
            "system_call_filter::tests::under_the_filter",
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

/// Whether a loader other than the program's own started it: then it cannot start itself again.
fn through_a_loader() -> bool {
    env::current_exe().is_ok_and(|path| path.to_string_lossy().contains("/ld-"))
}

/// Interprets a BPF program for a call whose arguments are zero.
fn result(program: &BpfProgram, architecture: u32, call: u32) -> u32 {
    let (mut at, mut value) = (0, 0);
    loop {
        let instruction = &program[at];
        let (jump, k) = (|taken| if taken { instruction.jt } else { instruction.jf }, instruction.k);
        at += 1;
        match u32::from(instruction.code) {
            0x20 => value = [call, architecture].get(usize::try_from(k / 4).expect("small")).copied().unwrap_or(0),
            0x05 => at += usize::try_from(k).expect("small"),
            0x15 => at += usize::from(jump(value == k)),
            0x35 => at += usize::from(jump(value >= k)),
            0x45 => at += usize::from(jump(value & k != 0)),
            0x06 => return k,
            code => panic!("{code:x} is none of the codes that the kernel looks through"),
        }
    }
}

#[test]
fn every_number_has_the_verdict_of_the_lists() {
    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;
    for (network, programs) in [(false, false), (true, false), (false, true), (true, true)] {
        let additional = Additional { network, programs };
        let (filter, verdicts) = (SystemCallFilter::new(additional).0, verdicts(additional));
        assert!(filter.len() < 1000, "the kernel takes 4096: {}", filter.len());
        let killed = libc::SECCOMP_RET_KILL_PROCESS;
        for call in (0..600).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0027, u32::MAX]) {
            let expected = match verdicts.get(&call) {
                Some(Verdict::Always(Allowed)) => libc::SECCOMP_RET_ALLOW,
                Some(Verdict::Always(Absent)) => libc::SECCOMP_RET_ERRNO | 38,
                Some(Verdict::Always(Killed)) => killed,
                None if NEWER_CALLS.contains(&call) => libc::SECCOMP_RET_ERRNO | 38,
                None => killed,
                // An argument of zero
                Some(Verdict::Depends { on: Test::Bits(_), .. }) => killed,
                Some(Verdict::Depends { on: Test::OneOf(values), then, otherwise, .. }) => {
                    match if values.contains(&0) { then } else { otherwise } {
                        Allowed => libc::SECCOMP_RET_ALLOW,
                        Absent => libc::SECCOMP_RET_ERRNO | 38,
                        Killed => killed,
                    }
                }
            };
            assert_eq!(result(&filter, X86_64, call), expected, "{call}, {additional:?}");
            assert_eq!(result(&filter, I386, call), killed, "{call}");
        }
    }
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

/// Runs only when the other two tests start it.
#[test]
#[ignore = "it gives up most system calls"]
fn under_the_filter() {
    let Ok(what) = env::var(VARIABLE) else { return };
    let (what, programs) = what.split_once('/').expect("two words");
    let parent = i64::from(nix::unistd::getppid().as_raw());
    let all = cases();
    let additional = Additional { network: what == "network", programs: programs == "true" };
    SystemCallFilter::new(additional).apply().expect("this kernel has seccomp");
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
            // Only socketpair writes to memory.
            let d = if *call == libc::SYS_socketpair { room.as_mut_ptr() as i64 } else { d };
            // SAFETY: null pointers and meaningless numbers, which the kernel refuses, or room for two descriptors. A
            // child that results ends at once, below.
            let returned = unsafe { libc::syscall(*call, a, b, c, d) };
            let error = io::Error::last_os_error();
            if returned == 0 && ["fork", "vfork", "clone of a process"].contains(&what) {
                // SAFETY: ends the child, which shares nothing, or in the case of vfork ran alone.
                unsafe { libc::_exit(0) };
            }
            returned == -1 && error.raw_os_error() == Some(libc::ENOSYS)
        }
    };
    println!("outcome: {}", if absent { "absent" } else { "allowed" });
}
