//! Confines a program of the host that parses untrusted input, such as a boot loader that reads a guest's disk: another user
//! without capabilities, Landlock, namespaces, resource limits and a filter of system calls. It sees one block device.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, sock_filter};

use super::landlock::{Access, Ruleset};
use super::launch::Step;

/// The user and group `nobody`, which own no files.
pub const USER: u32 = 65534;

/// The address space of the program, in bytes: an interpreter with its libraries, and a kernel in memory.
const ADDRESS_SPACE: u64 = 2 << 30;

/// Where programs, their libraries and their data are.
const SYSTEM: [&str; 10] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/lib32",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
];

/// Calls that the program has no use for: other processes, the network, and the kernel's own parts. They fail with `EPERM`.
const REFUSED: [libc::c_long; 51] = [
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_connect,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_mq_open,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_request_key,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setns,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_syslog,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Offset of the call's number in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
/// The lowest number of a call of the x32 ABI (asm/unistd.h), which the filter does not know.
const X32: u32 = 0x4000_0000;

/// What a program may do.
#[derive(Debug)]
pub struct Confinement<'a> {
    /// The program.
    pub program: &'a Path,
    /// The number of the block device that it reads, as stat(2) has it.
    pub device: u64,
    /// The path of that device for the program. It is made in a file system that is mounted on its directory for the program
    /// alone; above that directory is one that has nothing else.
    pub node: &'a Path,
    /// A directory in which it makes files. It must belong to [`USER`].
    pub output_directory: &'a Path,
    /// A file that it writes. It must belong to [`USER`].
    pub output: &'a Path,
    /// The largest file that it writes, in bytes.
    pub file_size: u64,
    /// Its CPU time.
    pub cpu_seconds: u64,
}

/// All that the child needs, made before the fork.
struct Prepared {
    ruleset: Ruleset,
    filter: BpfProgram,
    directory: CString,
    node: CString,
    device: u64,
    limits: [(libc::__rlimit_resource_t, libc::rlim_t); 7],
}

/// Returns the step that confines a program at its start. It needs root. The program starts no other program, and has no
/// process but its own. It must be the last step.
///
/// # Errors
/// If this kernel lacks Landlock or seccomp, or a path contains a NUL byte.
pub fn confine_program(confinement: &Confinement<'_>) -> io::Result<Step> {
    let mut ruleset = Ruleset::new()?;
    for path in SYSTEM.into_iter().map(Path::new).chain([confinement.program]) {
        ruleset.allow(path, Access::Read)?;
    }
    ruleset.allow(Path::new("/dev/null"), Access::Use)?;
    let mounted = confinement.node.parent().unwrap_or(confinement.node);
    // What a file system is mounted on is hidden from Landlock, which looks at the directory above.
    ruleset.allow(mounted.parent().unwrap_or(mounted), Access::Use)?;
    ruleset.allow(confinement.output, Access::Use)?;
    ruleset.allow(confinement.output_directory, Access::Fill)?;
    // The settings of an interpreter; Debian's python3 has its own there.
    for entry in std::fs::read_dir("/etc").into_iter().flatten().flatten() {
        if entry.file_name().as_bytes().starts_with(b"python3") {
            ruleset.allow(&entry.path(), Access::Read)?;
        }
    }
    let directory = CString::new(mounted.as_os_str().as_bytes())?;
    let node = CString::new(confinement.node.as_os_str().as_bytes())?;
    let limits = [
        (libc::RLIMIT_FSIZE, confinement.file_size),
        (libc::RLIMIT_CPU, confinement.cpu_seconds),
        (libc::RLIMIT_AS, ADDRESS_SPACE),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NOFILE, 256),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
    ];
    let prepared = Prepared { ruleset, filter: filter()?, directory, node, device: confinement.device, limits };
    // SAFETY: `enter` makes system calls only, and allocates nothing.
    Ok(unsafe { Step::new(move || prepared.enter()) })
}

/// Everything is allowed but the refused calls, and calls of another ABI.
fn filter() -> io::Result<BpfProgram> {
    let invalid = |error: seccompiler::BackendError| io::Error::new(io::ErrorKind::Unsupported, error.to_string());
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let calls: BTreeMap<i64, _> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().map_err(invalid)?;
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refused, arch).map_err(invalid)?;
    let known: BpfProgram = filter.try_into().map_err(invalid)?;
    let code = |code: u32| u16::try_from(code).unwrap_or_default();
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    let mut program = vec![
        sock_filter { code: code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), jt: 0, jf: 0, k: NUMBER },
        sock_filter { code: code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K), jt: 0, jf: 1, k: X32 },
        sock_filter { code: code(libc::BPF_RET | libc::BPF_K), jt: 0, jf: 0, k: refuse },
    ];
    program.extend(known);
    Ok(program)
}

fn done(returned: libc::c_long) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Prepared {
    /// Between fork and exec.
    fn enter(&self) -> io::Result<()> {
        let spaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        // SAFETY: the calls take numbers, and pointers to strings and structs that outlive them. glibc's own functions for
        // the identity would take a lock; these calls change the only thread.
        unsafe {
            done(libc::unshare(spaces).into())?;
            let none = ptr::null();
            done(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()).into())?;
            let (kind, flags) = (c"tmpfs".as_ptr(), libc::MS_NOSUID | libc::MS_NOEXEC);
            let options = c"size=64k,nr_inodes=8,mode=0755".as_ptr();
            done(libc::mount(c"none".as_ptr(), self.directory.as_ptr(), kind, flags, options.cast()).into())?;
            done(libc::mknod(self.node.as_ptr(), libc::S_IFBLK | 0o400, self.device).into())?;
            done(libc::chown(self.node.as_ptr(), USER, USER).into())?;
            done(libc::chdir(c"/".as_ptr()).into())?;
            libc::umask(0o077);
            for (resource, most) in self.limits {
                let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                done(libc::getrlimit(resource, &raw mut limit).into())?;
                let limit = libc::rlimit { rlim_cur: limit.rlim_cur.min(most), rlim_max: limit.rlim_max.min(most) };
                done(libc::setrlimit(resource, &raw const limit).into())?;
            }
            for capability in 0..64 {
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                    // The first number above the last capability.
                    if capability > 0 && Errno::last() == Errno::EINVAL {
                        break;
                    }
                    return Err(io::Error::last_os_error());
                }
            }
            done(libc::syscall(libc::SYS_setgroups, 0_usize, ptr::null::<libc::gid_t>()))?;
            done(libc::syscall(libc::SYS_setresgid, USER, USER, USER))?;
            done(libc::syscall(libc::SYS_setresuid, USER, USER, USER))?;
            // Only now: a change of the user above the limit would make exec fail.
            let nothing = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            done(libc::setrlimit(libc::RLIMIT_NPROC, &raw const nothing).into())?;
            // struct __user_cap_header_struct and two struct __user_cap_data_struct (linux/capability.h).
            let (header, sets) = ([0x2008_0522_u32, 0], [0_u32; 6]);
            done(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()))?;
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        }
        self.ruleset.restrict_self()?;
        seccompiler::apply_filter(&self.filter).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
            _ => io::ErrorKind::InvalidInput.into(),
        })
    }
}
