//! The place of a disk in a guest, by its name there and by its number in xenstore.

/// The place of a disk: `xvda`, `hdc`, `sda1`, `d2p3` or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualDevice {
    /// The name, as it was given.
    pub name: String,
    /// The number of the device in xenstore (docs/man/xen-vbd-interface.7, Xen 4.17).
    pub number: u32,
    /// The disk, counted from 0 in its class.
    pub disk: u32,
    /// The partition; 0: the whole disk.
    pub partition: u32,
    /// The class of the name.
    pub class: DiskClass,
}

/// The class of a disk's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskClass {
    /// `xvdX`, `dNpM`, or a plain number that is none of the others.
    Xen,
    /// `hdX`.
    Ide,
    /// `sdX`.
    Scsi,
}
