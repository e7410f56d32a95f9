//! Who may do what with a node.

use super::DomId;

/// Who may do what with a node (docs/misc/xenstore.txt: the first entry names the owner and everybody's rights).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// The owner, who may always read and write.
    pub owner: DomId,
    /// One more domain, which may read it.
    pub reader: Option<DomId>,
}

impl Permissions {
    /// dom0's alone.
    #[must_use]
    pub fn dom0_only() -> Self {
        Self { owner: DomId::DOM0, reader: None }
    }

    /// dom0's, and the guest may read it.
    #[must_use]
    pub fn read_only_for(guest: DomId) -> Self {
        Self { owner: DomId::DOM0, reader: Some(guest) }
    }

    /// The guest's own.
    #[must_use]
    pub fn owned_by(guest: DomId) -> Self {
        Self { owner: guest, reader: None }
    }

    /// As xenstored reads them.
    pub(super) fn text(self) -> String {
        let mut text = format!("n{}\0", self.owner);
        if let Some(domain) = self.reader {
            text.push_str(&format!("r{domain}\0"));
        }
        text
    }
}
