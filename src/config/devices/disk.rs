//! A disk or CD drive of a guest.

use std::fmt;

use super::virtual_device::VirtualDevice;

/// A disk or a CD drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The place of the disk in the guest.
    pub vdev: VirtualDevice,
    /// The file or block device, or what the script takes. `None`: a drive without a medium.
    pub target: Option<String>,
    /// The format of the image.
    pub format: DiskFormat,
    /// The program that serves the disk, if it was chosen.
    pub backend: Option<DiskBackend>,
    /// The hotplug script, if it was chosen: a name in the directory of Xen's scripts, or a path.
    pub script: Option<String>,
    /// The driver domain that serves the disk; `None`: dom0.
    pub backend_domain: Option<String>,
    /// A CD drive, whose medium can be changed. It is never writable.
    pub cdrom: bool,
    /// The guest may write.
    pub writable: bool,
    /// The image may be in use elsewhere as well (`w!`).
    pub shared: bool,
    /// The guest may discard blocks. `None`: where it may write.
    pub discard: Option<bool>,
    /// Direct I/O is safe for the image (`direct-io-safe`).
    pub direct_io_safe: bool,
    /// The guest trusts the backend. `None`: yes.
    pub trusted: Option<bool>,
}

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's first copy-on-write format.
    Qcow,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// Microsoft's virtual hard disk.
    Vhd,
    /// QEMU's enhanced disk.
    Qed,
}

impl DiskFormat {
    /// Its name, as xl writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Qed => "qed",
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The program that serves a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBackend {
    /// The kernel (blkback), from a block device.
    Phy,
    /// QEMU.
    Qdisk,
    /// tapdisk.
    Tap,
    /// Another program, which another toolstack starts.
    Standalone,
}

impl DiskBackend {
    /// Its name, as xl writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Phy => "phy",
            Self::Qdisk => "qdisk",
            Self::Tap => "tap",
            Self::Standalone => "standalone",
        }
    }
}

impl fmt::Display for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
