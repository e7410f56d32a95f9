//! The system calls that a device model may make (seccomp(2)): a list of what is allowed; any other call ends the process.
//!
//! The list covers QEMU 7.2 with glibc 2.36 and QEMU 10.0 with glibc 2.41 through start, firmware, disks, CD drives, VNC, serial
//! ports, QMP, hot-plug, tap, reset and end, and has calls of the same kind that another build may make. The filter is installed
//! before `execve`, so that it covers the dynamic loader, and the change of root directory and user.

mod calls;

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use calls::{ABSENT, ALLOWED, NEWER, PRCTL, PROGRAMS, SIGNALLING};

/// What a filter allows in addition to what every device model needs.
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
mod tests;
