//! The log of a device model.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::name::DomainName;
use crate::error::Error;
use crate::os::Untrusted;

/// The directory of QEMU's logs, the same as xl's.
pub const LOG_DIRECTORY: &str = "/var/log/xen";

/// The directory of QEMU's monitor sockets, in which libxl looks for them.
pub const XEN_RUN_DIR: &str = "/var/run/xen";

/// Opens a new QEMU log; the log of the last run with this name stays in the same directory.
pub(crate) fn open_log(name: &DomainName) -> Result<(PathBuf, File), Error> {
    let path = Path::new(LOG_DIRECTORY).join(format!("qemu-dm-{}.log", name.file_name()));
    let failed = |what: &str| Error::io(format!("{what} the device model's log {}", path.display()));
    for directory in [LOG_DIRECTORY, XEN_RUN_DIR] {
        fs::create_dir_all(directory).map_err(failed("make the directories for"))?;
    }
    if path.exists() {
        fs::rename(&path, path.with_extension("log.1")).map_err(failed("move"))?;
    }
    let file = OpenOptions::new().create_new(true).append(true).mode(0o640).open(&path).map_err(failed("open"))?;
    Ok((path, file))
}

/// The last line of a log of any size.
pub(crate) fn last_line(log: &Path) -> Option<Untrusted> {
    const TAIL: u64 = 4096;
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text).lines().rev().find(|line| !line.trim().is_empty()).map(Untrusted::from)
}
