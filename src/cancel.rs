//! SIGINT, SIGTERM and SIGHUP, noticed between two steps and while waiting, so that a run can clean up after itself.

use std::fs;
use std::io;

use nix::errno::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::Error;
use crate::os::wait::Interrupt;

/// Remembers the signal that asked this run to stop.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    interrupt: Interrupt,
}

impl Cancel {
    /// Takes over SIGINT, SIGTERM and SIGHUP, which counts as SIGTERM; one that the caller had ignored (nohup) stays
    /// ignored.
    ///
    /// # Errors
    /// Where the system refuses the handlers.
    pub fn install() -> Result<Self, Error> {
        let (interrupt, came, pipe) =
            Interrupt::new().map_err(|error| Error::Internal(format!("there is no pipe for signals: {error}")))?;
        let ignored = ignored();
        for (signal, counts_as) in [(SIGINT, SIGINT), (SIGTERM, SIGTERM), (SIGHUP, SIGTERM)] {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            let value = usize::try_from(counts_as).unwrap_or(0);
            // In this order: who is woken finds the number.
            let handled = flag::register_usize(signal, came.clone(), value)
                .and_then(|_| low_level::pipe::register(signal, pipe.try_clone()?));
            handled.map_err(|error: io::Error| Error::Internal(format!("cannot handle signal {signal}: {error}")))?;
        }
        Ok(Self { interrupt })
    }

    /// What ends waits once a signal has come.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Fails once a signal has come.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<(), Error> {
        self.interrupt.signal().map_or(Ok(()), |signal| Err(Error::Interrupted { signal }))
    }

    /// The error of a step in which a signal ended a wait is the signal.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match (&error, self.interrupt.signal()) {
            (Error::Xen(wait), Some(signal)) if wait.errno == Some(Errno::ECANCELED) => Error::Interrupted { signal },
            _ => error,
        }
    }
}

/// The signals that this process was started with as ignored (proc(5): SigIgn is a mask in hexadecimal).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
