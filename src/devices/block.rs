//! Gives an image to blkback as Xen's script `block` does: the loop device of a file, and the nodes that name the device.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::image::OpenImage;
use crate::error::device::DeviceError;
use crate::os::loop_device::LoopDevice;
use crate::xen::{Transaction, XenError};

/// An image that is a block device for blkback. A loop device goes with this value, unless blkback has opened it.
#[derive(Debug)]
pub(crate) struct BlockDevice {
    number: u64,
    path: PathBuf,
    loop_device: Option<LoopDevice>,
}

impl BlockDevice {
    /// Makes a block device of an image.
    ///
    /// # Errors
    /// [`DeviceError::System`] if there is no loop device for it.
    pub(crate) fn of(image: &OpenImage, device: &str) -> Result<Self, DeviceError> {
        let failed = |source| DeviceError::System {
            device: device.to_owned(),
            action: format!("make a loop device of {}", image.path.display()),
            source,
        };
        if let Some(number) = image.block_device {
            // The script follows links, so that the node names the device itself.
            let path = fs::canonicalize(&image.path).unwrap_or_else(|_| image.path.clone());
            return Ok(Self { number, path, loop_device: None });
        }
        let made = LoopDevice::attach(&image.file, image.writable).map_err(failed)?;
        let number = made.number().map_err(failed)?;
        Ok(Self { number, path: made.path().to_owned(), loop_device: Some(made) })
    }

    /// Writes the nodes by which blkback opens the device.
    ///
    /// # Errors
    /// An error of xenstored.
    pub(crate) fn publish(&self, transaction: &Transaction<'_>, backend: &str) -> Result<(), XenError> {
        let path = self.path.to_string_lossy();
        if self.loop_device.is_some() {
            transaction.write(&format!("{backend}/node"), &path)?;
        }
        let number = format!("{:x}:{:x}", major(self.number), minor(self.number));
        transaction.write(&format!("{backend}/physical-device"), &number)?;
        transaction.write(&format!("{backend}/physical-device-path"), &path)?;
        transaction.write(&format!("{backend}/hotplug-status"), "connected")
    }
}

/// The directory of a backend of dom0's kernel in sysfs. It exists as long as the kernel has the backend.
#[must_use]
pub fn kernel_backend(kind: &str, domid: impl std::fmt::Display, devid: u32) -> PathBuf {
    Path::new("/sys/bus/xen-backend/devices").join(format!("{kind}-{domid}-{devid}"))
}

/// Whether blkback has opened the device of a disk.
pub(crate) fn is_open(backend: &Path) -> bool {
    backend.join("physical_device").exists()
}

/// A block device that blkback has opened for a guest: its number and whether the guest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) domid: u32,
    pub(crate) number: u64,
    pub(crate) writable: bool,
}

/// Every block device that blkback has opened (`/sys/bus/xen-backend/devices/vbd-DOMID-DEVID`).
pub(crate) fn opened_by_blkback() -> io::Result<Vec<Opened>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir("/sys/bus/xen-backend/devices") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(domid) = name.to_str().and_then(|name| name.strip_prefix("vbd-")?.split('-').next()?.parse().ok())
        else {
            continue;
        };
        // Both files come when the device is opened, and go with it.
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        let (Some(device), Some(mode)) = (read("physical_device"), read("mode")) else { continue };
        let parsed = device.trim().split_once(':').and_then(|(major, minor)| {
            let hex = |text| u64::from_str_radix(text, 16).ok();
            Some(nix::sys::stat::makedev(hex(major)?, hex(minor)?))
        });
        if let Some(number) = parsed {
            found.push(Opened { domid, number, writable: mode.contains('w') });
        }
    }
    Ok(found)
}
