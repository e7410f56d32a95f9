//! The disk that a boot loader reads: the first one, as a block device.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::config::devices::disk::{Disk, DiskFormat};
use crate::error::bootloader::BootloaderError;
use crate::os::loop_device::LoopDevice;

/// The first disk, opened, with the number of its block device.
pub(super) struct BootDisk {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    _file: File,
    _device: Option<LoopDevice>,
}

impl BootDisk {
    pub(super) fn open(disks: &[Disk]) -> Result<Self, BootloaderError> {
        let disk = disks.first().ok_or(BootloaderError::NoDisk)?;
        let bad = |reason: &str| BootloaderError::Disk { vdev: disk.vdev.to_string(), reason: reason.to_owned() };
        if disk.backend_domain.is_some() {
            return Err(bad("another domain serves it"));
        }
        if disk.script.is_some() {
            return Err(bad("a script makes the device out of its target when the guest is there already"));
        }
        if disk.format != DiskFormat::Raw {
            return Err(bad(&format!(
                "its format is {}, and a boot loader reads raw disks; `qemu-nbd -r -c /dev/nbd0 FILE` makes a device of it, \
                 or `qemu-img convert -O raw` a raw image",
                disk.format
            )));
        }
        let path = PathBuf::from(disk.target.as_ref().ok_or_else(|| bad("it has no medium"))?);
        let failed = |source| BootloaderError::OpenDisk { path: path.clone(), source };
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.file_type().is_block_device() {
            return Ok(Self { number: metadata.rdev(), path, _file: file, _device: None });
        }
        if !metadata.is_file() {
            return Err(bad("it is neither a file nor a block device"));
        }
        let device = LoopDevice::attach(&file, false).map_err(failed)?;
        let number = device.number().map_err(failed)?;
        Ok(Self { number, path, _file: file, _device: Some(device) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(spec: &str) -> Disk {
        spec.parse().expect("a disk")
    }

    #[test]
    fn disks_that_no_boot_loader_reads() {
        let refused = |specs: &[&str]| {
            let disks: Vec<Disk> = specs.iter().map(|spec| disk(spec)).collect();
            BootDisk::open(&disks).map(|_| ()).expect_err("refused").to_string()
        };
        for (specs, words) in [
            (&[][..], "there is none"),
            (&["/a,qcow2,xvda"], "xvda: its format is qcow2, and a boot loader reads raw disks; `qemu-nbd"),
            (&["nbd:x,xvda,w"], "a script makes the device"),
            (&["backend=store,vdev=xvda,target=/a"], "another domain serves it"),
            (&[",hdc:cdrom,r", "/a,raw,xvda"], "hdc: it has no medium"),
            (&["/dev/null,raw,xvda"], "neither a file nor a block device"),
            (&["/no/such/file,raw,xvda"], "/no/such/file: No such file"),
        ] {
            let message = refused(specs);
            assert!(message.contains(words), "{specs:?}: {message}");
        }
    }
}
