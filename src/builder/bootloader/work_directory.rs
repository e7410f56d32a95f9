//! The directory of a boot loader's run: its answer, its files, and the place of its disk.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::mkdtemp;

use crate::os::confined_program::USER;

/// The directory in which each run has its own.
pub(super) const DIRECTORY: &str = "/var/tmp";

/// The name of a run's directory, before what is random.
const PREFIX: &str = "dombuild-bootloader-";

/// The directory of a run. It is removed with its content when it is dropped; that of a run that was killed by the next run.
#[derive(Debug)]
pub(super) struct WorkDirectory {
    path: PathBuf,
    /// Locked as long as the run lasts.
    _lock: File,
}

impl WorkDirectory {
    pub(super) fn new() -> io::Result<Self> {
        remove_abandoned();
        let path = mkdtemp(&Path::new(DIRECTORY).join(format!("{PREFIX}XXXXXX")))?;
        let lock = File::open(&path).and_then(|lock| lock.try_lock().map_err(io::Error::from).map(|()| lock));
        let lock = lock.inspect_err(|_| drop(fs::remove_dir(&path)))?;
        let directory = Self { path, _lock: lock };
        // Another user goes through it, and lists nothing.
        fs::set_permissions(&directory.path, Permissions::from_mode(0o711))?;
        for (name, owned) in [("files", true), ("device", false), ("device/mounted", false)] {
            let path = directory.path.join(name);
            fs::create_dir(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(if owned { 0o700 } else { 0o755 }))?;
            if owned {
                chown(&path, Some(USER), Some(USER))?;
            }
        }
        let answer = OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.answer())?;
        std::os::unix::fs::fchown(&answer, Some(USER), Some(USER))?;
        Ok(directory)
    }

    pub(super) fn answer(&self) -> PathBuf {
        self.path.join("answer")
    }

    pub(super) fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// The disk, as a confined program sees it.
    pub(super) fn device(&self) -> PathBuf {
        self.path.join("device/mounted/disk")
    }

    /// The bytes that it has in its files.
    pub(super) fn written(&self) -> u64 {
        let entries = fs::read_dir(self.files()).into_iter().flatten().flatten();
        let lengths = entries.filter_map(|entry| entry.path().symlink_metadata().ok()).map(|file| file.blocks() * 512);
        lengths.fold(0, u64::saturating_add)
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("{} cannot be removed: {error}", self.path.display());
        }
    }
}

/// Removes the directories of runs that were killed: those of root that no process has locked.
fn remove_abandoned() {
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let is_run = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let path = entry.path();
        let is_ours = |file: &fs::Metadata| file.is_dir() && file.uid() == nix::unistd::geteuid().as_raw();
        if !is_run || !path.symlink_metadata().is_ok_and(|file| is_ours(&file)) {
            continue;
        }
        let Ok(lock) = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) else { continue };
        if lock.try_lock().is_ok() {
            log::info!("{} is left by a run that was killed: it is removed", path.display());
            let _ = fs::remove_dir_all(&path);
        }
    }
}
