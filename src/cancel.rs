//! SIGINT and SIGTERM, noticed between two steps and while waiting, so that a run can clean up after itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::Error;

/// Remembers the signal that asked this run to stop.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    signal: Arc<AtomicUsize>,
}

impl Cancel {
    /// Takes over SIGINT and SIGTERM.
    ///
    /// # Errors
    /// Where the system refuses the handlers.
    pub fn install() -> Result<Self, Error> {
        let cancel = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let value = usize::try_from(signal).unwrap_or(0);
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
