//! The kinds of guest on x86.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kind of a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A complete PC: hvmloader, a firmware, and QEMU for its devices.
    #[default]
    Hvm,
    /// Hardware-assisted paging without firmware and emulated devices: Xen starts the kernel directly.
    Pvh,
    /// Paravirtual: the kernel maintains its page tables through Xen, in pseudo-physical addresses.
    Pv,
}

/// The error for a word that names no [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a kind of guest: use hvm, pvh or pv")]
pub struct KindError(String);

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Hvm, Self::Pvh, Self::Pv];

    /// Its name on the command line, in JSON and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hvm => "hvm",
            Self::Pvh => "pvh",
            Self::Pv => "pv",
        }
    }

    /// Whether Xen translates the guest's addresses by a p2m, whose memory comes from a paging pool. Such a guest can
    /// be populated on demand.
    #[must_use]
    pub const fn is_translated(self) -> bool {
        matches!(self, Self::Hvm | Self::Pvh)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == input).ok_or_else(|| KindError(input.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_everywhere() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            let json = serde_json::to_string(&kind).expect("json");
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<Kind>(&json).expect("a kind"), kind);
        }
        assert_eq!(Kind::default(), Kind::Hvm);
        for word in ["", "HVM", "pv ", "xen"] {
            let error = word.parse::<Kind>().expect_err(word);
            assert_eq!(error.to_string(), format!("`{word}` is not a kind of guest: use hvm, pvh or pv"));
        }
    }
}
