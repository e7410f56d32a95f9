//! Permissions of a node.

use super::DomId;

/// Permissions of a node (docs/misc/xenstore.txt: the first entry names the owner and the rights of all other domains).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// The owner, which may always read and write.
    pub owner: DomId,
    /// Another domain, which may read.
    pub reader: Option<DomId>,
}

impl Permissions {
    /// For dom0 only.
    #[must_use]
    pub fn dom0_only() -> Self {
        Self { owner: DomId::DOM0, reader: None }
    }

    /// Owned by dom0, readable by the guest.
    #[must_use]
    pub fn read_only_for(guest: DomId) -> Self {
        Self { owner: DomId::DOM0, reader: Some(guest) }
    }

    /// Owned by the guest.
    #[must_use]
    pub fn owned_by(guest: DomId) -> Self {
        Self { owner: guest, reader: None }
    }

    /// In xenstored's format.
    pub(super) fn text(self) -> String {
        let mut text = format!("n{}\0", self.owner);
        if let Some(domain) = self.reader {
            text.push_str(&format!("r{domain}\0"));
        }
        text
    }
}
