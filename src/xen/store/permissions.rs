//! Who may do what with a node.

use super::DomId;

/// What a domain may do with a node that it does not own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    None,
    /// Read it.
    Read,
}

/// Who may do what with a node (docs/misc/xenstore.txt: the first entry names the owner and everybody's rights).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// The owner, who may always read and write.
    pub owner: DomId,
    /// One more domain and its access.
    pub other: Option<(DomId, Access)>,
}

impl Permissions {
    /// dom0's alone.
    #[must_use]
    pub fn dom0_only() -> Self {
        Self { owner: DomId::DOM0, other: None }
    }

    /// dom0's, and the guest may read it.
    #[must_use]
    pub fn read_only_for(guest: DomId) -> Self {
        Self { owner: DomId::DOM0, other: Some((guest, Access::Read)) }
    }

    /// The guest's own.
    #[must_use]
    pub fn owned_by(guest: DomId) -> Self {
        Self { owner: guest, other: None }
    }

    /// As xenstored reads them.
    pub(super) fn text(self) -> String {
        let mut text = format!("n{}\0", self.owner);
        if let Some((domain, access)) = self.other {
            let letter = match access {
                Access::None => 'n',
                Access::Read => 'r',
            };
            text.push_str(&format!("{letter}{domain}\0"));
        }
        text
    }
}
