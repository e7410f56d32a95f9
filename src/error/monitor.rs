//! Why a command on QEMU's monitor failed.

use std::io::Error;

use crate::os::Untrusted;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// QEMU refuses the command.
    #[error("QEMU refuses {command}: {says}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's reason.
        says: Untrusted,
    },
    /// The connection failed.
    #[error("{command} on QEMU's monitor failed: {source}")]
    Io {
        /// The command.
        command: &'static str,
        /// The error of the system.
        source: Error,
    },
}
