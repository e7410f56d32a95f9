//! Opens, reads and maps a file that goes into a guest.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::room::Room;
use crate::os::sealed::{MemoryFile, Sealed};
use crate::payload::error::FileError;

/// The name of a kernel's module in errors.
pub(crate) const RAMDISK: &str = "ramdisk";

/// Reads a whole file, which must have 1 to `largest` bytes.
pub(crate) fn read(kind: &'static str, path: &Path, largest: u64) -> Result<Vec<u8>, FileError> {
    let bad = |error: io::Error| FileError::Unusable { what: kind, path: path.to_owned(), reason: error.to_string() };
    let (file, size) = open(kind, path, largest)?;
    log::debug!("{kind} {}, {size} bytes", path.display());
    let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // The file may grow during the read.
    file.take(largest).read_to_end(&mut data).map_err(bad)?;
    Ok(data)
}

/// Maps a whole file, which must have 1 to `largest` bytes. A file that others may change is first copied into memory
/// that no other process can change.
pub(crate) fn map(kind: &'static str, path: &Path, largest: u64) -> Result<Sealed, FileError> {
    let bad = |error: io::Error| FileError::Unusable { what: kind, path: path.to_owned(), reason: error.to_string() };
    let (file, size) = open(kind, path, largest)?;
    if let Some(mapped) = Sealed::of_unchanging_file(&file, size).map_err(bad)? {
        log::debug!("{kind} {}, {size} bytes: mapped", path.display());
        return Ok(mapped);
    }
    Room::now()?.check(kind, path, size)?;
    let memory = MemoryFile::new(&CString::new(kind).unwrap_or_default()).map_err(bad)?;
    memory.fill(&file, size).map_err(bad)?;
    log::debug!("{kind} {}, {size} bytes: copied, since others may change it", path.display());
    memory.seal(size).map_err(bad)
}

/// Opens a regular file, which must have 1 to `largest` bytes, and returns its length. Does not block if the path is a
/// pipe.
pub(crate) fn open(kind: &'static str, path: &Path, largest: u64) -> Result<(File, u64), FileError> {
    let bad = |reason: String| FileError::Unusable { what: kind, path: path.to_owned(), reason };
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    // Symbolic links are followed: /vmlinuz is one.
    let file = options.open(path).map_err(|error| bad(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| bad(error.to_string()))?;
    if !metadata.is_file() {
        return Err(bad("is not a regular file".to_owned()));
    }
    if metadata.len() == 0 {
        return Err(bad("is empty".to_owned()));
    }
    if metadata.len() > largest {
        return Err(bad(format!("has {} bytes; more than {largest} cannot be right", metadata.len())));
    }
    Ok((file, metadata.len()))
}
