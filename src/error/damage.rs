//! What is wrong with the state of a saved guest, and where.

use serde::{Deserialize, Serialize};

use crate::os::Untrusted;

/// The first fault of a file or a stream with a guest's state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("at byte {offset}, {record}: {fault}")]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// The place of the fault: bytes from the start of the file, or of the stream where there is no file.
    pub offset: u64,
    /// The record, by its name in the format's specification.
    pub record: Untrusted,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// The data end in it.
    #[error("it is cut off")]
    CutOff,
    /// No record of this type may stand there.
    #[error("it does not belong there")]
    Misplaced,
    /// A record that may be there once is there again.
    #[error("it is there twice")]
    Repeated,
    /// The end is reached, and this is not there.
    #[error("{0} is missing before it")]
    Missing(Untrusted),
    /// Something follows the end.
    #[error("more follows it")]
    Rest,
    /// A field has a value that it cannot have.
    #[error("{what} is {value:#x}")]
    Value {
        /// The field.
        what: Untrusted,
        /// Its value.
        value: u64,
    },
    /// A frame lies beyond any that the guest can have.
    #[error("frame {frame:#x} lies beyond the guest's last, {last:#x}")]
    Frame {
        /// The frame.
        frame: u64,
        /// The last that the guest can have.
        last: u64,
    },
}

impl Fault {
    /// A field has a value that it cannot have.
    #[must_use]
    pub fn value(what: &str, value: impl Into<u64>) -> Self {
        Self::Value { what: what.into(), value: value.into() }
    }

    /// The text in it that is not the program's own, where a child has sent it.
    #[must_use]
    pub fn text(&self) -> Option<&Untrusted> {
        match self {
            Self::Missing(text) | Self::Value { what: text, .. } => Some(text),
            _ => None,
        }
    }
}
