//! A region of guest-physical addresses without RAM.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::units::{Bytes, KIB};

/// A region of guest-physical addresses that must not be RAM, in whole pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reserved {
    /// The first address.
    pub start: Bytes,
    /// The length.
    pub size: Bytes,
}

impl Reserved {
    /// The end (exclusive); saturates at the highest address.
    pub(crate) fn end(self) -> Bytes {
        self.start.checked_add(self.size).unwrap_or(Bytes(u64::MAX))
    }

    /// Whether the region overlaps `from..to`.
    pub(crate) fn overlaps(self, from: Bytes, to: Bytes) -> bool {
        self.start < to && from < self.end()
    }
}

impl fmt::Display for Reserved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x} to {:#x} ({} KiB)", self.start.get(), self.end().get(), self.size.get() / KIB)
    }
}
