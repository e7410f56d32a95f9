//! Kernels that were unpacked before, so that the next guest with the same one need not wait for it.
//!
//! Each is kept as the child wrote it, with the packed file behind it, by whose bytes it is found again, and is checked as if
//! it came from the child. What is kept is written whole before it has a name and never after that, in a directory where root
//! alone may do anything: a guest's owner can neither change what another guest starts nor put something in its place. The
//! one that was used longest ago goes first. A cache that cannot be used costs time and nothing else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{geteuid, linkat};

use crate::memory::Bytes;
use crate::xen::Sealed;

/// Where they are kept; what is there may be removed at any time.
pub const KERNELS_DIRECTORY: &str = "/var/cache/dombuild/kernels";

/// What all of them have together at most, and how many there are.
const MOST: Bytes = Bytes(512 << 20);
const MOST_KERNELS: usize = 32;

/// To be raised whenever the child makes another file of the same kernel.
const FORM: u32 = 2;

/// How much is compared at once.
const PIECE: usize = 64 << 10;

/// The directory, as far as it can be trusted.
#[derive(Debug)]
pub(super) struct Cache(PathBuf);

impl Cache {
    /// The one of this host.
    pub(super) fn of_host() -> Self {
        Self(PathBuf::from(KERNELS_DIRECTORY))
    }

    /// The kernel that came out of a packed file, if it was kept.
    pub(super) fn find(&self, packed: &File) -> Option<Sealed> {
        match self.try_find(packed) {
            Ok(found) => found,
            Err(error) => {
                log::debug!("{}: {error}", self.0.display());
                None
            }
        }
    }

    fn try_find(&self, packed: &File) -> io::Result<Option<Sealed>> {
        check_directory(&self.0)?;
        let size = packed.metadata()?.len();
        let names = names(size);
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(&names) {
                continue;
            }
            match compared(&entry.path(), packed, size) {
                Ok(None) => {}
                found => return found,
            }
        }
        Ok(None)
    }

    /// Keeps one, where it is not too large.
    pub(super) fn keep(&self, packed: &[u8], kernel: &[u8]) {
        match self.try_keep(packed, kernel) {
            Ok(path) => log::debug!("kept as {}", path.display()),
            Err(error) => log::info!("the unpacked kernel is not kept in {}: {error}", self.0.display()),
        }
    }

    fn try_keep(&self, packed: &[u8], kernel: &[u8]) -> io::Result<PathBuf> {
        let length = kernel.len() as u64 + packed.len() as u64;
        if length > MOST.0 / 4 {
            return Err(io::Error::other(format!("it has {length} bytes")));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        check_directory(&self.0)?;
        self.make_room(length)?;
        // It has no name until it is whole and on the disk: nothing of it is left by a run that is killed.
        let mut file = OpenOptions::new().write(true).mode(0o400).custom_flags(libc::O_TMPFILE).open(&self.0)?;
        file.write_all(kernel)?;
        file.write_all(packed)?;
        file.sync_data()?;
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        for number in 0..MOST_KERNELS {
            let path = self.0.join(format!("{}{number}", names(packed.len() as u64)));
            match linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW) {
                Ok(()) => return Ok(path),
                Err(nix::errno::Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other("every name is taken"))
    }

    /// Removes those that were used longest ago, until one of `length` fits.
    fn make_room(&self, length: u64) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            // Another run may remove it meanwhile.
            if let Ok(metadata) = entry.metadata() {
                kept.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        kept.sort_unstable();
        let mut total: u64 = kept.iter().map(|(_, length, _)| length).sum();
        let mut count = kept.len();
        for (_, size, path) in kept {
            if total.saturating_add(length) <= MOST.0 && count < MOST_KERNELS {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            total = total.saturating_sub(size);
            count -= 1;
        }
        Ok(())
    }
}

/// How the names of the kernels begin whose packed files have this size.
fn names(packed: u64) -> String {
    format!("{FORM}-{packed}-")
}

/// A kept kernel, where its packed file is this one to the last byte.
fn compared(path: &Path, packed: &File, size: u64) -> io::Result<Option<Sealed>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let kernel = file.metadata()?.len().saturating_sub(size);
    let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        let (one, other) = (&mut one[..length], &mut other[..length]);
        packed.read_exact_at(one, at)?;
        file.read_exact_at(other, kernel + at)?;
        if one != other {
            return Ok(None);
        }
        at += length as u64;
    }
    let sealed = Sealed::of_own_file(&file, kernel, MOST.0)?;
    file.set_modified(SystemTime::now())?;
    Ok(Some(sealed))
}

/// That nobody but this user may do anything in it.
fn check_directory(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other("others than this user have rights on the directory, or it is none: remove it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = Cache(directory.path().join("kernels"));
        (directory, cache)
    }

    fn packed(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    #[test]
    fn what_is_kept_is_found_by_its_content() {
        let (_directory, cache) = cache();
        let find = |content: &[u8]| cache.find(&packed(content)).map(|sealed| sealed.to_vec());
        let mut content = vec![1; PIECE + 7];
        assert!(find(&content).is_none(), "not even a directory");
        cache.keep(&content, b"first");
        assert_eq!(find(&content).as_deref(), Some(&b"first"[..]));
        // Another of the same size, which differs in its last byte.
        content[PIECE + 6] = 2;
        assert!(find(&content).is_none());
        cache.keep(&content, b"second");
        assert_eq!(find(&content).as_deref(), Some(&b"second"[..]));
        content[PIECE + 6] = 1;
        assert_eq!(find(&content).as_deref(), Some(&b"first"[..]));
        content.pop();
        assert!(find(&content).is_none(), "a shorter one");
    }

    #[test]
    fn what_others_could_have_made_is_not_used() {
        let (directory, cache) = cache();
        let packed = packed(b"packed");
        let path = cache.try_keep(b"packed", b"kernel").expect("kept");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o400);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
        mode(&path, 0o602);
        assert!(cache.find(&packed).is_none(), "a file that others may write");
        mode(&path, 0o400);
        let second = directory.path().join("second");
        fs::hard_link(&path, &second).expect("a second name");
        assert!(cache.find(&packed).is_none(), "a file of another name too");
        fs::remove_file(&path).expect("removed");
        symlink(&second, &path).expect("linked");
        assert!(cache.find(&packed).is_none(), "a link");
        fs::remove_file(&path).expect("removed");
        fs::rename(&second, &path).expect("back");
        assert!(cache.find(&packed).is_some());
        mode(&cache.0, 0o750);
        assert!(cache.find(&packed).is_none(), "a directory that others may look into");
        assert!(cache.try_keep(b"packed", b"kernel").is_err());
    }

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let (_directory, cache) = cache();
        let files: Vec<Vec<u8>> = (0..=MOST_KERNELS).map(|index| vec![0; index + 1]).collect();
        let find = |index: usize| cache.find(&packed(&files[index]));
        for (age, file) in files.iter().take(MOST_KERNELS).enumerate() {
            let path = cache.try_keep(file, b"kernel").expect("kept");
            let file = File::open(path).expect("there");
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64)).expect("aged");
        }
        assert!(find(0).is_some(), "which makes it the youngest");
        cache.keep(&files[MOST_KERNELS], b"kernel");
        assert!(find(1).is_none());
        assert!(find(0).is_some() && find(MOST_KERNELS).is_some());
        let large = vec![0; usize::try_from(MOST.0 / 4).expect("small")];
        assert!(cache.try_keep(&files[1], &large).is_err());
    }
}
