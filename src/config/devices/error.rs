//! What is wrong in the text of a device, and where.

use std::ops::Range;

/// A text that describes no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct DeviceSpecError {
    /// The bytes of the text that are wrong. It is empty and at the end of the text if something is missing.
    pub span: Range<usize>,
    /// What is wrong with them.
    pub problem: SpecProblem,
}

/// What is wrong with a part of the text of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecProblem {
    /// A word that the device does not have.
    #[error("{word:?} is unknown; the words are {takes}")]
    UnknownWord {
        /// The word, or the key in front of `=`.
        word: String,
        /// The words of the device.
        takes: &'static str,
    },
    /// A value that a key cannot have.
    #[error("{key} is {value:?}; it takes {takes}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The values that it takes.
        takes: &'static str,
    },
    /// A key has two values.
    #[error("{key} is given twice")]
    Repeated {
        /// The key.
        key: &'static str,
    },
    /// A device of this kind needs the key.
    #[error("there is no {key}; give {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// How it is given.
        example: &'static str,
    },
    /// A word that xl knows and dombuild does not take.
    #[error("{word} cannot be used: {reason}")]
    Unsupported {
        /// The word.
        word: String,
        /// Why not.
        reason: &'static str,
    },
    /// A word after target, format, vdev and access.
    #[error("{word:?} is one word too many: target, format, vdev and access come before it")]
    TooMany {
        /// The word.
        word: String,
    },
    /// A format after a prefix of the target, which stands for it.
    #[error("there is no format after a prefix such as phy: leave {word} out")]
    FormatAfterPrefix {
        /// The format.
        word: String,
    },
    /// `=` behind text that is no key.
    #[error("{word:?} before = is no key; a target that contains = or , is given as target=TARGET at the end")]
    NoKey {
        /// The text before `=`.
        word: String,
    },
    /// A character that xenstore, scripts and logs do not carry as text.
    #[error("{0:?} is a control character")]
    Control(char),
}

impl DeviceSpecError {
    /// A value that `key` cannot have.
    pub(super) fn bad_value(key: &'static str, value: &str, takes: &'static str) -> Self {
        Self { span: 0..value.len(), problem: SpecProblem::BadValue { key, value: value.to_owned(), takes } }
    }

    /// The same error for a text that has the wrong one at byte `offset`.
    #[must_use]
    pub(super) fn at(mut self, offset: usize) -> Self {
        self.span = self.span.start.saturating_add(offset)..self.span.end.saturating_add(offset);
        self
    }
}
