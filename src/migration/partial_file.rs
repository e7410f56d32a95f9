//! The file of a guest that is being saved: it has another name in its folder until it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};

use crate::error::Error;
use crate::error::migration::MigrationError;
use crate::runs::journal::JournalEntry;

/// A file that does not have its final name yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct PartialFile {
    pub(super) file: File,
    /// Where it is.
    path: PathBuf,
    /// Where it is to be.
    goal: PathBuf,
    /// Its length, once it is complete.
    pub(super) length: u64,
    keep: bool,
}

impl PartialFile {
    /// Makes the file, for this user alone, with `room` bytes reserved where the file system can do that.
    pub(super) fn create(goal: &Path, run: &mut JournalEntry, room: u64) -> Result<Self, Error> {
        if fs::symlink_metadata(goal).is_ok() {
            return Err(MigrationError::Exists(goal.to_owned()).into());
        }
        let bad = |reason: &str| Error::BadFile { what: "file", path: goal.to_owned(), reason: reason.to_owned() };
        let name = goal.file_name().ok_or_else(|| bad("is no name of a file"))?.to_string_lossy();
        let goal = std::path::absolute(goal).map_err(Error::io("find the directory of the file"))?;
        let path = goal.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        run.set_file(&path)?;
        let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = created.map_err(|error| Error::BadFile {
            what: "file",
            path: path.clone(),
            reason: format!("cannot be made: {error}"),
        })?;
        let partial = Self { file, path, goal, length: 0, keep: false };
        let length = i64::try_from(room).unwrap_or(i64::MAX);
        match fallocate(&partial.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            Err(Errno::ENOSPC | Errno::EDQUOT) => {
                Err(MigrationError::NoRoom { path: partial.goal.clone(), needed: room }.into())
            }
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(partial),
            Err(errno) => Err(partial.failed("reserve room for")(errno.into())),
        }
    }

    pub(super) fn failed(&self, action: &str) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("{action} {}", self.goal.display()))
    }

    /// Completes the file: writes its end, puts it on the disk, and gives it its name.
    pub(super) fn finish(&mut self, tail: &[u8]) -> Result<(), Error> {
        self.file.write_all(tail).map_err(self.failed("write"))?;
        self.length = self.file.stream_position().map_err(self.failed("write"))?;
        // What was reserved and not used goes back.
        self.file.set_len(self.length).map_err(self.failed("write"))?;
        self.file.sync_all().map_err(self.failed("write"))?;
        match renameat2(AT_FDCWD, &self.path, AT_FDCWD, &self.goal, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(MigrationError::Exists(self.goal.clone()).into()),
            // A file system without that flag.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                fs::hard_link(&self.path, &self.goal).map_err(self.failed("name"))?;
                fs::remove_file(&self.path).map_err(self.failed("name"))?;
            }
            Err(errno) => return Err(self.failed("name")(errno.into())),
        }
        self.path.clone_from(&self.goal);
        let directory = self.goal.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(self.failed("write"))
    }

    pub(super) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::error!("cannot remove {}: {error}", self.path.display());
        }
    }
}
