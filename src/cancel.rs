//! SIGINT, SIGTERM and SIGHUP, noticed between two steps and while waiting, so that a run can clean up after itself.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::Error;

/// Remembers the signal that asked this run to stop.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    signal: Arc<AtomicUsize>,
}

impl Cancel {
    /// Takes over SIGINT, SIGTERM and SIGHUP, which counts as SIGTERM; one that the caller had ignored (nohup) stays
    /// ignored.
    ///
    /// # Errors
    /// Where the system refuses the handlers.
    pub fn install() -> Result<Self, Error> {
        let cancel = Self::default();
        let ignored = ignored();
        for (signal, counts_as) in [(SIGINT, SIGINT), (SIGTERM, SIGTERM), (SIGHUP, SIGTERM)] {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            let value = usize::try_from(counts_as).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&cancel.signal), value)
                .map_err(|error| Error::Internal(format!("cannot handle signal {signal}: {error}")))?;
        }
        Ok(cancel)
    }

    /// Fails once a signal has come.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<(), Error> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Error::Interrupted { signal: i32::try_from(signal).unwrap_or(SIGTERM) }),
        }
    }
}

/// The signals that this process was started with as ignored (proc(5): SigIgn is a mask in hexadecimal).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
