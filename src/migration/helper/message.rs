//! What the child that calls libxenguest and its parent say to each other: the child sends lines of JSON, the parent answers each
//! question with a byte.

use serde::{Deserialize, Serialize};

use crate::xen::Round;

/// The most bytes of a message.
pub(super) const LONGEST_MESSAGE: usize = 16 << 10;

/// A message of the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Message {
    /// A question: the guest is to be suspended.
    Suspend,
    /// A question: a round of a live save begins or has ended.
    Round {
        /// The rounds that have begun before.
        iteration: u32,
        /// The pages that are written.
        written: u64,
        /// The pages that have changed since.
        dirty: Option<u64>,
    },
    /// A question: QEMU is to record what it changes, or not any more.
    LogDirty(bool),
    /// The task is done.
    Done {
        /// The frames of the store ring and of the console ring, behind a restore.
        rings: Option<(u64, u64)>,
    },
    /// A call failed.
    Failed {
        /// The C function.
        call: String,
        /// What it was asked for.
        arguments: String,
        /// The errno.
        errno: Option<i32>,
        /// What the library said.
        detail: Option<String>,
    },
}

impl From<Round> for Message {
    fn from(round: Round) -> Self {
        let Round { iteration, written, dirty } = round;
        Self::Round { iteration, written: written.0, dirty: dirty.map(|pages| pages.0) }
    }
}

/// The parent's answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done; a live save goes on.
    GoOn,
    /// A live save suspends the guest now.
    Stop,
    /// It is refused: the save ends with an error.
    Refuse,
}

impl Answer {
    const ALL: [Self; 3] = [Self::GoOn, Self::Stop, Self::Refuse];

    /// The byte that stands for it.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::GoOn => b'g',
            Self::Stop => b's',
            Self::Refuse => b'r',
        }
    }

    pub(super) fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|answer| answer.byte() == byte)
    }
}
