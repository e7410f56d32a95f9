//! Cancellation: SIGINT, SIGTERM and SIGHUP stop a run between two steps and during waits, so that it can clean up.

use std::fs;

use nix::errno::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

use crate::error::Error;
use crate::os::wait::Interrupt;

/// The signal that asked this run to stop, if one has come.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    interrupt: Interrupt,
}

impl Cancel {
    /// Handles SIGINT, SIGTERM and SIGHUP (which counts as SIGTERM). A signal that was ignored at the start (nohup) stays
    /// ignored.
    ///
    /// # Errors
    /// [`Error::Internal`] if the system refuses the handlers.
    pub fn install() -> Result<Self, Error> {
        Self::on(&[(SIGINT, SIGINT), (SIGTERM, SIGTERM), (SIGHUP, SIGTERM)])
    }

    /// Handles SIGINT, SIGTERM and SIGUSR1, for a run that keeps SIGHUP for something else.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn install_for_supervisor() -> Result<Self, Error> {
        Self::on(&[(SIGINT, SIGINT), (SIGTERM, SIGTERM), (SIGUSR1, SIGUSR1)])
    }

    /// Handles signals, each as another one or itself.
    fn on(signals: &[(i32, i32)]) -> Result<Self, Error> {
        let (interrupt, came, pipe) = Interrupt::new().map_err(Error::io("make a pipe for signals"))?;
        let ignored = ignored();
        for &(signal, counts_as) in signals {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            let value = usize::try_from(counts_as).unwrap_or(0);
            // The order matters: the thread that the pipe wakes must find the number.
            let handled = flag::register_usize(signal, came.clone(), value)
                .and_then(|_| low_level::pipe::register(signal, pipe.try_clone()?));
            handled.map_err(Error::io(format!("handle signal {signal}")))?;
        }
        Ok(Self { interrupt })
    }

    /// The interrupt that ends waits once a signal has come.
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

    /// Turns the error of a wait that a signal ended into [`Error::Interrupted`].
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match (&error, self.interrupt.signal()) {
            (Error::Xen(wait), Some(signal)) if wait.errno == Some(Errno::ECANCELED) => Error::Interrupted { signal },
            _ => error,
        }
    }
}

/// The mask of signals that were ignored when this process started (proc(5): SigIgn, in hexadecimal).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
