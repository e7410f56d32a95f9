//! The memory that dom0 has for a guest's files during their preparation.

use std::path::Path;

use crate::memory::{Bytes, Kib};
use crate::os::meminfo::MachineMemory;
use crate::payload::error::FileError;

/// The memory that dom0 had at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room(MachineMemory);

impl Room {
    /// The memory that dom0 has now.
    ///
    /// # Errors
    /// [`Error::Internal`] if the kernel does not report it.
    pub(crate) fn now() -> Result<Self, FileError> {
        MachineMemory::now().map(Self).map_err(FileError::Dom0MemoryUnknown)
    }

    /// How much may be taken.
    pub(crate) fn usable(&self) -> Bytes {
        self.0.usable()
    }

    /// Checks that `required` bytes may be taken for a file.
    ///
    /// # Errors
    /// [`FileError::NotEnoughDom0Memory`].
    pub(crate) fn check(&self, what: &'static str, path: &Path, required: u64) -> Result<(), FileError> {
        if required <= self.usable().0 { Ok(()) } else { Err(self.shortage(what, path, required)) }
    }

    /// The error of a file that takes at least `required` bytes.
    pub(crate) fn shortage(&self, what: &'static str, path: &Path, required: u64) -> FileError {
        FileError::NotEnoughDom0Memory {
            what,
            path: path.to_owned(),
            required: Kib(required.div_ceil(1 << 10)),
            available: self.0.available,
            reserve: self.0.reserve(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(total: Kib, available: Kib) -> Self {
        Self(MachineMemory { total, available })
    }
}
