//! Opens files in directories where other users can create files, such as /run/lock and /tmp.
//!
//! [`open`] opens only the path itself, never waits, and reports the owner. The caller decides what follows from that.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::Uid;

/// The attempts at a file that appears and disappears.
const MAX_ATTEMPTS: usize = 8;

/// An open file with its owner, mode and link count at the time of the open.
#[derive(Debug)]
pub struct SharedFile {
    file: File,
    metadata: Metadata,
}

/// Opens a path with this access; with `Some(mode)`, a missing file is created.
///
/// Symbolic links are not followed, a FIFO does not block, and a terminal does not become the controlling one. Creation
/// is separate from opening: with `O_CREAT`, the kernel refuses other users' files in a sticky directory
/// (`fs.protected_regular`), and the caller could not report the owner.
///
/// # Errors
/// `ELOOP` for a symbolic link; any other error of open(2).
pub fn open(path: &Path, access: &mut OpenOptions, mode: Option<u32>) -> io::Result<SharedFile> {
    access.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    for _ in 0..MAX_ATTEMPTS {
        match (access.create_new(false).open(path), mode) {
            (Err(error), Some(mode)) if error.kind() == io::ErrorKind::NotFound => {
                match access.create_new(true).mode(mode).open(path) {
                    // Another process created the file first.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => return made.and_then(SharedFile::of),
                }
            }
            (opened, _) => return opened.and_then(SharedFile::of),
        }
    }
    Err(io::Error::other("it appears and disappears"))
}

/// Whether a user is trusted: root, and the user of this process.
#[must_use]
pub fn is_trusted(user: u32) -> bool {
    user == 0 || Uid::effective().as_raw() == user
}

impl SharedFile {
    fn of(file: File) -> io::Result<Self> {
        Ok(Self { metadata: file.metadata()?, file })
    }

    /// Returns the open file.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.metadata.is_file()
    }

    /// Whether it is a character device, such as a terminal or /dev/null.
    #[must_use]
    pub fn is_character_device(&self) -> bool {
        self.metadata.file_type().is_char_device()
    }

    /// Whether root or this process's user owns it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        is_trusted(self.metadata.uid())
    }

    /// Whether no untrusted user can open it: root or this process's user owns it, and group and others can neither
    /// read nor write it. (Either permits locking it.)
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.is_ours() && self.metadata.mode() & 0o066 == 0
    }

    /// Whether it has several hard links.
    #[must_use]
    pub fn has_other_names(&self) -> bool {
        self.metadata.nlink() > 1
    }
}

impl fmt::Display for SharedFile {
    /// `user 65534's, mode 0644`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "user {}'s, mode {:04o}", self.metadata.uid(), self.metadata.mode() & 0o7777)
    }
}

/// Removes a file; a missing file is no error.
///
/// # Errors
/// The error of the system call.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn writing(path: &Path, mode: Option<u32>) -> io::Result<SharedFile> {
        open(path, OpenOptions::new().write(true), mode)
    }

    #[test]
    fn what_stands_at_the_path_is_opened_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        assert_eq!(writing(&path, None).expect_err("missing").kind(), io::ErrorKind::NotFound);
        symlink("elsewhere", &path).expect("linked");
        for mode in [None, Some(0o600)] {
            assert_eq!(writing(&path, mode).expect_err("a link").raw_os_error(), Some(libc::ELOOP));
        }
        assert!(!folder.path().join("elsewhere").exists());
        fs::remove_file(&path).expect("removed");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert_eq!(writing(&fifo, None).expect_err("no reader").raw_os_error(), Some(libc::ENXIO));
        let null = writing(Path::new("/dev/null"), None).expect("Linux has it");
        assert!(null.is_character_device() && !null.is_regular());
    }

    #[test]
    fn its_owner_mode_and_names_are_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let made = writing(&path, Some(0o200)).expect("made");
        assert!(made.is_regular() && made.is_ours() && made.is_private() && !made.has_other_names());
        assert_eq!(made.to_string(), format!("user {}'s, mode 0200", Uid::effective()));
        for mode in [0o604, 0o640, 0o602, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert!(!writing(&path, Some(0)).expect("there").is_private(), "{mode:o}");
        }
        fs::hard_link(&path, folder.path().join("other")).expect("linked");
        assert!(writing(&path, None).expect("there").has_other_names());
    }
}
