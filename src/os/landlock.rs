//! Landlock (landlock(7), Linux 5.13): a process and its children reach only the files that a ruleset names, and the kernel
//! enforces it also on root.

use std::fs::OpenOptions;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;

/// linux/landlock.h.
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: libc::c_int = 1;
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Every right on files that each version of the interface has, from 1 on.
const RIGHTS: [u64; 5] = [(1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1, (1 << 16) - 1];
/// Bind and connect of TCP, from version 4 on.
const NETWORK: u64 = 3;
/// Abstract Unix sockets and signals to processes outside, from version 6 on.
const SCOPES: u64 = 3;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Attributes {
    fs: u64,
    net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: libc::c_int,
}

/// What a process may do with a file, or with what is below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it, start it, list it.
    Read,
    /// Read and write it; its control commands, where it is a device.
    Use,
    /// Also make and remove regular files.
    Fill,
}

impl Access {
    const fn rights(self) -> u64 {
        match self {
            Self::Read => EXECUTE | READ_FILE | READ_DIR,
            Self::Use => READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV | READ_DIR,
            Self::Fill => READ_FILE | WRITE_FILE | TRUNCATE | READ_DIR | REMOVE_FILE | MAKE_REG,
        }
    }
}

/// The files that a process may reach; it has no other rights on files, and no TCP where the kernel can tell (Linux 6.7).
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// An empty one.
    ///
    /// # Errors
    /// `ENOSYS` or `EOPNOTSUPP`: the kernel has no Landlock, or it is off (`lsm=` on the kernel's command line).
    pub fn new() -> io::Result<Self> {
        let none: *const Attributes = ptr::null();
        // SAFETY: with this flag, a null pointer and no size, the call returns the version.
        let version =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, CREATE_RULESET_VERSION) };
        let version = usize::try_from(version).map_err(|_| io::Error::last_os_error())?;
        let handled = RIGHTS[version.clamp(1, RIGHTS.len()) - 1];
        let attributes = Attributes {
            fs: handled,
            net: if version >= 4 { NETWORK } else { 0 },
            scoped: if version >= 6 { SCOPES } else { 0 },
        };
        // SAFETY: the struct has the size and layout that linux/landlock.h gives it; an older kernel accepts what it does not
        // know if it is 0.
        let fd = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size_of::<Attributes>(), 0_u32)
        };
        let fd = libc::c_int::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the call returned a descriptor that nothing else owns; the kernel closes it at exec.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, handled })
    }

    /// Allows this access to a file, or to all that is below a directory, also what is mounted there later. What does not
    /// exist is left out.
    ///
    /// # Errors
    /// The error of open or of the rule.
    pub fn allow(&mut self, path: &Path, access: Access) -> io::Result<()> {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
        let opened = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let mut allowed = access.rights() & self.handled;
        if !opened.metadata()?.is_dir() {
            allowed &= EXECUTE | READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV;
        }
        let rule = PathBeneath { allowed, parent: opened.as_raw_fd() };
        // SAFETY: the struct has the layout that linux/landlock.h gives it, and outlives the call, as the descriptor in it does.
        let returned = unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.fd.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0_u32)
        };
        if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Confines this process for good. It only makes a system call, and so is safe between fork and exec.
    ///
    /// # Errors
    /// `EPERM` if the process has neither `no_new_privs` nor CAP_SYS_ADMIN.
    pub(super) fn restrict_self(&self) -> io::Result<()> {
        // SAFETY: the call takes numbers.
        let returned = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0_u32) };
        if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::super::launch::Step;
    use super::*;

    /// What a shell line does under a ruleset; `None` on a host without Landlock.
    fn under(line: &str, rules: &[(&Path, Access)]) -> Option<bool> {
        let mut ruleset = match Ruleset::new() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => return None,
            ruleset => ruleset.expect("a ruleset"),
        };
        for path in ["/usr", "/bin", "/lib", "/lib64"] {
            ruleset.allow(Path::new(path), Access::Read).expect("a rule");
        }
        for (path, access) in rules {
            ruleset.allow(path, *access).expect("a rule");
        }
        let mut command = Command::new("/bin/sh");
        // SAFETY: it makes two system calls.
        let step = unsafe {
            Step::new(move || {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                ruleset.restrict_self()
            })
        };
        step.put_into(command.args(["-c", line]));
        Some(command.output().expect("there is a shell").status.success())
    }

    #[test]
    fn only_what_is_allowed_is_reached() {
        let directory = tempfile::tempdir().expect("a directory");
        let (own, other) = (directory.path().join("own"), directory.path().join("other"));
        fs::create_dir(&own).expect("a directory");
        fs::write(&other, "x").expect("a file");
        let (own_text, other_text) = (own.display(), other.display());
        for (line, access, expected) in [
            (format!("cat {other_text}"), None, false),
            (format!("cat {other_text}"), Some((&*other, Access::Read)), true),
            (format!(": >>{other_text}"), Some((&*other, Access::Read)), false),
            (format!(": >>{other_text}"), Some((&*other, Access::Use)), true),
            (format!(": >{own_text}/a && cd {own_text} && test -e a"), Some((&*own, Access::Fill)), true),
            (format!("mkdir {own_text}/b"), Some((&*own, Access::Fill)), false),
            (format!(": >{other_text}.new"), Some((&*own, Access::Fill)), false),
        ] {
            let rules: Vec<_> = access.into_iter().collect();
            match under(&line, &rules) {
                None => println!("this kernel has no Landlock"),
                done => assert_eq!(done, Some(expected), "{line}, {rules:?}"),
            }
        }
        // What is not there needs no rule.
        assert_ne!(under(":", &[(Path::new("/no/such/file"), Access::Read)]), Some(false));
    }
}
