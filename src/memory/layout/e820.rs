//! The e820 memory map of a guest.

use serde::Serialize;

use crate::units::Bytes;

/// The type of an e820 entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum E820Kind {
    /// Usable RAM.
    Ram,
    /// Reserved: the guest must not use it.
    Reserved,
    /// ACPI tables, usable as RAM once the guest has read them.
    Acpi,
}

/// One entry of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct E820Entry {
    /// The guest-physical address of the first byte.
    #[serde(rename = "addr_bytes")]
    pub addr: Bytes,
    /// The length, never 0.
    #[serde(rename = "size_bytes")]
    pub size: Bytes,
    /// The type.
    #[serde(rename = "type")]
    pub kind: E820Kind,
}

impl E820Entry {
    /// The entry for `from..to`; `None` if the range is empty.
    pub(super) fn range(kind: E820Kind, from: Bytes, to: Bytes) -> Option<Self> {
        to.checked_sub(from).filter(|size| !size.is_zero()).map(|size| Self { addr: from, size, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serializes_with_short_words() {
        for (kind, word) in [(E820Kind::Ram, "ram"), (E820Kind::Reserved, "reserved"), (E820Kind::Acpi, "acpi")] {
            let entry = E820Entry::range(kind, Bytes(4096), Bytes(12288)).expect("a range");
            let json = serde_json::to_string(&entry).expect("json");
            assert_eq!(json, format!(r#"{{"addr_bytes":4096,"size_bytes":8192,"type":"{word}"}}"#));
            assert_eq!(E820Entry::range(kind, Bytes(4096), Bytes(4096)), None);
            assert_eq!(E820Entry::range(kind, Bytes(4096), Bytes(0)), None);
        }
    }
}
