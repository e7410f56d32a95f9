//! The firmware that hvmloader starts.

use std::path::PathBuf;
use std::str::FromStr;

/// Firmware that hvmloader can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirmwareKind {
    /// A BIOS.
    #[default]
    SeaBios,
    /// UEFI.
    Ovmf,
}

impl FirmwareKind {
    /// The value of `hvmloader/bios` in xenstore.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SeaBios => "seabios",
            Self::Ovmf => "ovmf",
        }
    }
}

/// `--firmware`: the firmware and its file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirmwareChoice {
    /// The firmware.
    pub kind: FirmwareKind,
    /// The user's own file.
    pub path: Option<PathBuf>,
}

impl FromStr for FirmwareChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, path) = match text.split_once(':') {
            Some((_, "")) => return Err(format!("{text:?} lacks the path after the colon")),
            Some((kind, path)) => (kind, Some(PathBuf::from(path))),
            None => (text, None),
        };
        let kind = match kind {
            "seabios" => FirmwareKind::SeaBios,
            "ovmf" => FirmwareKind::Ovmf,
            other => return Err(format!("{other:?} is not known; take seabios or ovmf, as in ovmf:/path/OVMF.fd")),
        };
        Ok(Self { kind, path })
    }
}
