//! The memory map that a guest is given.

use serde::Serialize;

use crate::units::Bytes;

/// What an e820 entry describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum E820Kind {
    /// RAM for the guest to use.
    Ram,
    /// Not for the guest to use.
    Reserved,
    /// ACPI tables, to be used as RAM once they are read.
    Acpi,
}

/// One range of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct E820Entry {
    /// Guest-physical address of its first byte.
    pub addr: Bytes,
    /// Its length, never 0.
    pub size: Bytes,
    /// What it describes.
    #[serde(rename = "type")]
    pub kind: E820Kind,
}

impl E820Entry {
    /// The range from `from` to before `to`, where there is anything between them.
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
            assert_eq!(json, format!(r#"{{"addr":4096,"size":8192,"type":"{word}"}}"#));
            assert_eq!(E820Entry::range(kind, Bytes(4096), Bytes(4096)), None);
            assert_eq!(E820Entry::range(kind, Bytes(4096), Bytes(0)), None);
        }
    }
}
