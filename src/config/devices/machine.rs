//! The emulated machine of an HVM guest: its graphics card, its boot order, its serial ports, and a kernel that it starts
//! without a disk.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::memory::Kib;
use crate::memory::limits::DEFAULT_VIDEO;

/// A graphics card of QEMU's, by its name in xl's `vga` (`libxl_vga_interface_type`, libxl_types.idl, Xen 4.17).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum GraphicsCard {
    /// A VGA card with VESA modes
    #[default]
    #[value(name = "stdvga")]
    Std,
    /// Cirrus Logic GD5446
    Cirrus,
    /// The card of SPICE
    Qxl,
    /// No card
    None,
}

impl GraphicsCard {
    /// The word for libxl's JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Std => "std",
            Self::Cirrus => "cirrus",
            Self::Qxl => "qxl",
            Self::None => "none",
        }
    }

    /// The memory that it has by default (`libxl__domain_build_info_setdefault`, libxl_create.c, Xen 4.17).
    #[must_use]
    pub const fn usual_video(self) -> Kib {
        match self {
            Self::Std => DEFAULT_VIDEO,
            Self::Cirrus => Kib(8 * 1024),
            Self::Qxl => Kib(128 * 1024),
            Self::None => Kib::ZERO,
        }
    }

    /// The device in QEMU's words with `mib` MiB of memory (`libxl__build_device_model_args_new`, libxl_dm.c, Xen 4.17).
    #[must_use]
    pub fn device(self, mib: u64) -> Option<String> {
        match self {
            Self::Std => Some(format!("VGA,vgamem_mb={mib}")),
            Self::Cirrus => Some(format!("cirrus-vga,vgamem_mb={mib}")),
            // The card has two memories.
            Self::Qxl => Some(format!("qxl-vga,vram_size_mb={0},ram_size_mb={0}", mib / 2)),
            Self::None => None,
        }
    }
}

/// The controller of the emulated disks, by its name in xl's `hdtype`. CD drives are on IDE in any case, and `sd` disks on SCSI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum DiskController {
    /// IDE, with four places
    #[default]
    Ide,
    /// AHCI, with six ports
    Ahci,
}

/// The order in which the firmware looks for something to start: `a` floppy, `c` disk, `d` CD drive, `n` network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootOrder(String);

/// Of libxl (`libxl__domain_build_info_setdefault`, libxl_create.c, Xen 4.17).
impl Default for BootOrder {
    fn default() -> Self {
        Self("cda".to_owned())
    }
}

impl fmt::Display for BootOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BootOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let once = |letter: char| "acdn".contains(letter) && text.matches(letter).count() == 1;
        if text.is_empty() || !text.chars().all(once) {
            return Err(format!("{text:?} is no boot order; it takes each of the letters a, c, d and n once at most"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A kernel that QEMU gives to the firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectKernel {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initial ramdisk.
    pub ramdisk: Option<PathBuf>,
    /// Its command line.
    pub cmdline: String,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The graphics card.
    pub graphics: GraphicsCard,
    /// The controller of the disks.
    pub disks: DiskController,
    /// What is started first.
    pub boot: BootOrder,
    /// The serial ports, in QEMU's words.
    pub serial: Vec<String>,
    /// Xen's PCI device, by which PV drivers find Xen.
    pub platform_device: bool,
    /// The kernel that it starts, if it starts one.
    pub kernel: Option<DirectKernel>,
    /// How many processors it has at the start; all without it.
    pub online_vcpus: Option<u32>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            graphics: GraphicsCard::default(),
            disks: DiskController::default(),
            boot: BootOrder::default(),
            serial: vec!["pty".to_owned()],
            platform_device: true,
            kernel: None,
            online_vcpus: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_orders() {
        assert_eq!("dcn".parse::<BootOrder>().map(|order| order.to_string()), Ok("dcn".to_owned()));
        for bad in ["", "cc", "x", "c,d"] {
            assert!(bad.parse::<BootOrder>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cards_in_qemus_words() {
        assert_eq!(GraphicsCard::Cirrus.device(8).as_deref(), Some("cirrus-vga,vgamem_mb=8"));
        assert_eq!(GraphicsCard::Qxl.device(128).as_deref(), Some("qxl-vga,vram_size_mb=64,ram_size_mb=64"));
        assert_eq!(GraphicsCard::None.device(0), None);
    }
}
