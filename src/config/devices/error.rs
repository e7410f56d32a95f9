//! What is wrong in the text of a device, and where.

use std::ops::Range;

use crate::memory::Kind;

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
    #[error("{word:?} cannot be used: {reason}")]
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

/// Why a guest cannot have these devices together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceSetError {
    /// Two disks have one number in xenstore.
    #[error("the disks {first} and {second} have one number, {number}: the guest sees one of them only")]
    SameNumber {
        /// The place of the first.
        first: String,
        /// The place of the second.
        second: String,
        /// Their number.
        number: u32,
    },
    /// Two disks of an HVM guest have one place on the emulated IDE or SCSI controller.
    #[error("the disks {first} and {second} have one place on the emulated controller of an HVM guest")]
    SameEmulatedPlace {
        /// The place of the first.
        first: String,
        /// The place of the second.
        second: String,
    },
    /// QEMU has no read-only IDE disks.
    #[error(
        "disk {vdev}: QEMU has no read-only {name} disks, and xvda to {last} are {name} disks of an HVM guest, too: place it at \
         {beyond} or beyond, or at sda to sdp",
        name = if *ahci { "AHCI" } else { "IDE" },
        last = if *ahci { "xvdf" } else { "xvdd" },
        beyond = if *ahci { "xvdg" } else { "xvde" }
    )]
    ReadOnlyIde {
        /// The disk's place.
        vdev: String,
        /// The guest's disks are on AHCI.
        ahci: bool,
    },
    /// A disk that the guest cannot have.
    #[error("disk {vdev}: {reason}")]
    Disk {
        /// The disk's place.
        vdev: String,
        /// Why not.
        reason: &'static str,
    },
    /// A network card that the guest cannot have.
    #[error("network card {card}: {reason}")]
    Nic {
        /// The card, counted from 1.
        card: u32,
        /// Why not.
        reason: &'static str,
    },
    /// The kernel cannot give the card's interface this name.
    #[error("network card {card}: vifname {vifname} is too long: it has at most {longest} bytes, and {} with {suffix}", longest + suffix.len())]
    LongVifname {
        /// The card, counted from 1.
        card: u32,
        /// The name.
        vifname: String,
        /// The longest name of such a card, in bytes.
        longest: usize,
        /// What the name of the emulated card's interface has behind it.
        suffix: &'static str,
    },
    /// Two network cards have one number, address or interface.
    #[error("the network cards {first} and {second} have one {what}")]
    SameNic {
        /// The first, counted from 1.
        first: u32,
        /// The second, counted from 1.
        second: u32,
        /// What they both have.
        what: String,
    },
    /// An emulated device of a guest that has none.
    #[error("a {kind} guest cannot have {what}: QEMU emulates devices for HVM guests only")]
    NotEmulated {
        /// The device.
        what: &'static str,
        /// The kind of the guest.
        kind: Kind,
    },
    /// Two devices have one name.
    #[error("{what}")]
    Twice {
        /// The class of the devices, as in `p9`.
        class: &'static str,
        /// Which, and what they both have.
        what: String,
    },
    /// More network cards than numbers for them.
    #[error("a guest has at most {most} network cards")]
    TooManyNics {
        /// The most.
        most: u32,
    },
}
