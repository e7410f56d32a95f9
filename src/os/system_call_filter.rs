//! The seccomp(2) filter of a device model: an allowlist; any other call kills the process.
//!
//! The list covers QEMU 7.2 with glibc 2.36 and QEMU 10.0 with glibc 2.41: start, firmware, disks, CD drives, VNC,
//! serial ports, QMP, hot-plug, tap, reset and exit. It includes similar calls that other builds may make. The filter
//! is installed before `execve`, so it also covers the dynamic loader and QEMU's change of root directory and user.

mod calls;
mod program;

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, Error, apply_filter};

use calls::{ABSENT_CALLS, ALLOWED_CALLS, NEWER_CALLS, PRCTL_OPERATIONS, PROGRAM_CALLS, SIGNAL_COMMANDS};
use program::{Outcome, Test, Verdict, program};

/// Calls to allow in addition to those of every device model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Additional {
    /// Sockets other than Unix sockets.
    pub network: bool,
    /// Starting programs, as a script does.
    pub programs: bool,
}

/// A compiled BPF program, made before `fork`.
#[derive(Debug, Clone)]
pub struct SystemCallFilter(BpfProgram);

/// A placeholder for the process's own ID, above the highest possible ID (PID_MAX_LIMIT, 2^22).
const OWN_PID: u32 = 0x7fff_0b5e;

impl SystemCallFilter {
    /// Compiles the filter.
    #[must_use]
    pub fn new(additional: Additional) -> Self {
        Self(program(&verdicts(additional), NEWER_CALLS))
    }

    /// Installs the filter in this process permanently. Safe between `fork` and `execve`: it only makes system calls
    /// and allocates nothing.
    ///
    /// # Errors
    /// If the kernel refuses it (`CONFIG_SECCOMP_FILTER` is required).
    pub(super) fn apply(&mut self) -> io::Result<()> {
        let own = nix::unistd::getpid().as_raw().unsigned_abs();
        // Signals to itself only.
        for instruction in self.0.iter_mut().filter(|instruction| instruction.k == OWN_PID) {
            instruction.k = own;
        }
        apply_filter(&self.0).map_err(|error| match error {
            Error::Prctl(error) | Error::Seccomp(error) => error,
            _ => io::ErrorKind::InvalidInput.into(),
        })
    }
}

/// The verdict for each call that is not killed.
fn verdicts(additional: Additional) -> BTreeMap<u32, Verdict> {
    use Outcome::{Absent, Allowed, Killed};
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let all = |calls: &[libc::c_long], outcome| {
        calls.iter().map(|call| (number(*call), Verdict::Always(outcome))).collect::<Vec<_>>()
    };
    let one_of = |values: &[libc::c_int]| Test::OneOf(values.iter().map(|value| value.cast_unsigned()).collect());
    let depends =
        |call, argument, on, then, otherwise| (number(call), Verdict::Depends { argument, on, then, otherwise });
    let mut verdicts = BTreeMap::new();
    verdicts.extend(all(ALLOWED_CALLS, Allowed));
    verdicts.extend(all(ABSENT_CALLS, Absent));
    // Signals to its own threads, its own limits, and threads, which end with the process.
    verdicts.extend([
        depends(libc::SYS_clone, 0, Test::Bits(libc::CLONE_THREAD.cast_unsigned()), Allowed, Killed),
        depends(libc::SYS_fcntl, 1, one_of(&SIGNAL_COMMANDS), Killed, Allowed),
        depends(libc::SYS_prctl, 0, one_of(PRCTL_OPERATIONS), Allowed, Killed),
        depends(libc::SYS_prlimit64, 0, one_of(&[0]), Allowed, Killed),
        depends(libc::SYS_tgkill, 0, Test::OneOf(vec![OWN_PID]), Allowed, Killed),
    ]);
    let others = if additional.network { Allowed } else { Absent };
    // Other families fail instead: name services, which look up users, may try them.
    verdicts.extend(
        [libc::SYS_socket, libc::SYS_socketpair]
            .map(|call| depends(call, 0, one_of(&[libc::AF_UNIX]), Allowed, others)),
    );
    if additional.programs {
        verdicts.extend(all(PROGRAM_CALLS, Allowed));
    }
    verdicts
}

#[cfg(test)]
mod tests;
