//! The system calls that a device model may make (seccomp(2)): a list of what is allowed; any other call ends the process.
//!
//! The list covers QEMU 7.2 with glibc 2.36 and QEMU 10.0 with glibc 2.41 through start, firmware, disks, CD drives, VNC, serial
//! ports, QMP, hot-plug, tap, reset and end, and has calls of the same kind that another build may make. The filter is installed
//! before `execve`, so that it covers the dynamic loader, and the change of root directory and user.

mod calls;
mod program;

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, Error, apply_filter};

use calls::{ABSENT, ALLOWED, NEWER, PRCTL, PROGRAMS, SIGNALLING};
use program::{Outcome, Test, Verdict, program};

/// What a filter allows in addition to what every device model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Additional {
    /// Sockets other than unix sockets.
    pub network: bool,
    /// To start programs, as a script does.
    pub programs: bool,
}

/// A program for the kernel, made before `fork`.
#[derive(Debug, Clone)]
pub struct SystemCallFilter(BpfProgram);

/// Stands for the process's own number until it has one: no process number is as high (PID_MAX_LIMIT, 2^22).
const OWN_PID: u32 = 0x7fff_0b5e;

impl SystemCallFilter {
    /// Makes the filter.
    #[must_use]
    pub fn new(additional: Additional) -> Self {
        Self(program(&verdicts(additional), NEWER))
    }

    /// Installs it in this process, for good. It may be called between `fork` and `execve`: it makes system calls, and
    /// allocates nothing.
    ///
    /// # Errors
    /// Where the kernel refuses (`CONFIG_SECCOMP_FILTER` is needed).
    pub(super) fn apply(&mut self) -> io::Result<()> {
        let own = nix::unistd::getpid().as_raw().unsigned_abs();
        // Signals to itself alone
        for instruction in self.0.iter_mut().filter(|instruction| instruction.k == OWN_PID) {
            instruction.k = own;
        }
        apply_filter(&self.0).map_err(|error| match error {
            Error::Prctl(error) | Error::Seccomp(error) => error,
            _ => io::ErrorKind::InvalidInput.into(),
        })
    }
}

/// What becomes of each call that is not killed.
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
    verdicts.extend(all(ALLOWED, Allowed));
    verdicts.extend(all(ABSENT, Absent));
    // Signals to its own threads, its own limits, and threads, which end with it.
    verdicts.extend([
        depends(libc::SYS_clone, 0, Test::Bits(libc::CLONE_THREAD.cast_unsigned()), Allowed, Killed),
        depends(libc::SYS_fcntl, 1, one_of(&SIGNALLING), Killed, Allowed),
        depends(libc::SYS_prctl, 0, one_of(PRCTL), Allowed, Killed),
        depends(libc::SYS_prlimit64, 0, one_of(&[0]), Allowed, Killed),
        depends(libc::SYS_tgkill, 0, Test::OneOf(vec![OWN_PID]), Allowed, Killed),
    ]);
    let others = if additional.network { Allowed } else { Absent };
    // Not killed for another family: name services of the host's are asked for users, and may try others.
    verdicts.extend(
        [libc::SYS_socket, libc::SYS_socketpair]
            .map(|call| depends(call, 0, one_of(&[libc::AF_UNIX]), Allowed, others)),
    );
    if additional.programs {
        verdicts.extend(all(PROGRAMS, Allowed));
    }
    verdicts
}

#[cfg(test)]
mod tests;
