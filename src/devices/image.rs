//! The image of a disk: a file or block device that dom0 can open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use crate::config::devices::disk::Disk;
use crate::error::device::DeviceError;

/// The image of a disk, opened.
#[derive(Debug)]
pub struct OpenImage {
    /// The name of the disk.
    pub vdev: String,
    /// Its path.
    pub path: PathBuf,
    /// The open file or block device.
    pub file: File,
    /// The number of the block device; `None`: it is a file.
    pub block_device: Option<u64>,
    /// The device of the file system, and the inode.
    pub identity: (u64, u64),
    /// The guest may write.
    pub writable: bool,
    /// The image may be in use elsewhere.
    pub shared: bool,
    /// The guest's own QEMU has it, too, for the emulated twin.
    pub emulated: bool,
}

impl OpenImage {
    /// Whether two disks of one guest cannot have these images: they are one image, and one of them may write.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let same = match (self.block_device, other.block_device) {
            (None, None) => self.identity == other.identity,
            (one, other) => one == other,
        };
        same && (self.writable || other.writable) && !(self.shared && other.shared)
    }
}

/// Opens the image of a disk. `None`: there is no medium, or only a script or a driver domain can open it.
///
/// # Errors
/// [`DeviceError`] if it is no image.
pub fn open_image(disk: &Disk) -> Result<Option<OpenImage>, DeviceError> {
    let (Some(target), None, None) = (&disk.target, &disk.script, &disk.backend_domain) else { return Ok(None) };
    let (vdev, path) = (disk.vdev.name.clone(), PathBuf::from(target));
    let failed = |source| DeviceError::Open { vdev: vdev.clone(), path: path.clone(), source };
    // Other kinds of files could block the open or react to it.
    let kind = fs::metadata(&path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let is = if kind.is_dir() { "directory" } else { "special file" };
        return Err(DeviceError::NotADisk { vdev, path, is });
    }
    let mut file = OpenOptions::new().read(true).write(disk.writable).open(&path).map_err(failed)?;
    let status = file.metadata().map_err(failed)?;
    if size(&mut file).map_err(failed)? == 0 {
        return Err(DeviceError::EmptyDisk { vdev, path });
    }
    let block_device = status.file_type().is_block_device().then(|| status.rdev());
    let (writable, shared) = (disk.writable, disk.shared);
    Ok(Some(OpenImage {
        vdev,
        path,
        file,
        block_device,
        identity: (status.dev(), status.ino()),
        writable,
        shared,
        emulated: false,
    }))
}

/// The size of a file or block device.
fn size(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(size)
}
