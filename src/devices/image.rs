//! The image of a disk: a file or block device that dom0 can open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use crate::config::devices::disk::Disk;
use crate::config::devices::set::MigratesFrom;
use crate::error::device::DeviceError;
use crate::os::loop_device::{FilePart, part_of};

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
    /// The part of a file that it is: of itself, or of the file below a loop device. `None`: it is another block device.
    pub part: Option<FilePart>,
    /// The guest may write.
    pub writable: bool,
    /// The image may be in use elsewhere.
    pub shared: bool,
    /// The guest's own QEMU has it, too, for the emulated twin.
    pub emulated: bool,
    /// Where the guest has it, too, while it migrates.
    pub migrates_from: MigratesFrom,
}

impl OpenImage {
    /// The same image with a descriptor of its own.
    ///
    /// # Errors
    /// [`DeviceError::Open`] if the descriptor cannot be copied.
    pub fn try_clone(&self) -> Result<Self, DeviceError> {
        let file = self.file.try_clone().map_err(|source| DeviceError::Open {
            vdev: self.vdev.clone(),
            path: self.path.clone(),
            source,
        })?;
        let (vdev, path, part) = (self.vdev.clone(), self.path.clone(), self.part.clone());
        Ok(Self { vdev, path, file, part, ..*self })
    }

    /// Whether two disks of one guest cannot have these images: they are one image, and one of them may write.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let same_device = self.block_device.is_some() && self.block_device == other.block_device;
        let same_file = self.part.as_ref().zip(other.part.as_ref()).is_some_and(|(one, other)| one.overlaps(other));
        (same_device || same_file) && (self.writable || other.writable) && !(self.shared && other.shared)
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
    let part = match block_device {
        Some(_) => part_of(&file).map_err(failed)?,
        None => Some(FilePart { device: status.dev(), inode: status.ino(), bytes: 0..u64::MAX }),
    };
    let (writable, shared) = (disk.writable, disk.shared);
    Ok(Some(OpenImage {
        vdev,
        path,
        file,
        block_device,
        part,
        writable,
        shared,
        emulated: false,
        migrates_from: MigratesFrom::Nowhere,
    }))
}

/// The size of a file or block device.
fn size(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(size)
}
