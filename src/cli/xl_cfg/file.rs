//! Reads a configuration file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::payload::error::FileError;

/// The most bytes of a configuration: far more than any has.
const LARGEST: u64 = 1 << 20;

/// The number of /dev/null (Documentation/admin-guide/devices.txt, Linux).
const NULL: (u64, u64) = (1, 3);

/// Reads a whole file. /dev/null is an empty one; other devices, pipes, sockets and directories are refused without a wait.
///
/// # Errors
/// If it cannot be read, or has more than 1 MiB.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let bad = |reason: String| FileError::Unusable { what: "configuration", path: path.to_owned(), reason };
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file: File = options.open(path).map_err(|error| bad(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| bad(error.to_string()))?;
    if is_null(&metadata) {
        return Ok(Vec::new());
    }
    if !metadata.is_file() {
        return Err(bad("it is no regular file; write what a program prints into a file first".to_owned()));
    }
    let mut bytes = Vec::new();
    // The file may grow meanwhile.
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= LARGEST) {
        return Ok(bytes);
    }
    Err(bad(format!("it has more than {LARGEST} bytes, which no configuration has")))
}

fn is_null(metadata: &Metadata) -> bool {
    let number = metadata.rdev();
    metadata.file_type().is_char_device() && (libc::major(number).into(), libc::minor(number).into()) == NULL
}
