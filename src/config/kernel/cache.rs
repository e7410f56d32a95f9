//! Kernels that were unpacked before, so that the next guest with the same one need not wait for it.
//!
//! Each is kept under a digest of the packed file, as the child wrote it, and is checked as if it came from the child. What is
//! kept is written whole before it has a name and never after that, in a directory where root alone may do anything: a guest's
//! owner can neither change what another guest starts nor, without a collision of BLAKE3, put something in its place. The
//! one that was used longest ago goes first. A cache that cannot be used costs time and nothing else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
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
const FORM: u32 = 1;

/// Which kernel: a digest of its packed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// Reads a file to its end, into a copy that its owner cannot change any more.
    ///
    /// # Errors
    /// Where it cannot be read, or the copy not be written.
    pub(super) fn of(mut file: &File, mut copy: &File) -> io::Result<Self> {
        let mut digest = blake3::Hasher::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let count = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let read = piece.get(..count).unwrap_or_default();
            digest.update(read);
            copy.write_all(read)?;
        }
        copy.rewind()?;
        Ok(Self(format!("{}-{FORM}", digest.finalize())))
    }
}

/// The directory, as far as it can be trusted.
#[derive(Debug)]
pub(super) struct Cache(PathBuf);

impl Cache {
    /// The one of this host.
    pub(super) fn of_host() -> Self {
        Self(PathBuf::from(KERNELS_DIRECTORY))
    }

    /// The kernel, if it was kept.
    pub(super) fn find(&self, key: &Key) -> Option<Sealed> {
        let path = self.0.join(&key.0);
        let found = check_directory(&self.0).and_then(|()| {
            let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
            let sealed = Sealed::of_own_file(&file, MOST.0)?;
            file.set_modified(SystemTime::now())?;
            Ok(sealed)
        });
        match found {
            Ok(sealed) => Some(sealed),
            Err(error) => {
                log::debug!("{}: {error}", path.display());
                None
            }
        }
    }

    /// Keeps one, where it is not too large.
    pub(super) fn keep(&self, key: &Key, kernel: &[u8]) {
        match self.try_keep(key, kernel) {
            Ok(()) => log::debug!("kept as {}/{}", self.0.display(), key.0),
            Err(error) => log::info!("the unpacked kernel is not kept in {}: {error}", self.0.display()),
        }
    }

    fn try_keep(&self, key: &Key, kernel: &[u8]) -> io::Result<()> {
        let length = kernel.len() as u64;
        if length > MOST.0 / 4 {
            return Err(io::Error::other(format!("it has {length} bytes")));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        check_directory(&self.0)?;
        self.make_room(length)?;
        // It has no name until it is whole and on the disk: nothing of it is left by a run that is killed.
        let mut file = OpenOptions::new().write(true).mode(0o400).custom_flags(libc::O_TMPFILE).open(&self.0)?;
        file.write_all(kernel)?;
        file.sync_data()?;
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        match linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, &self.0.join(&key.0), AtFlags::AT_SYMLINK_FOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
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

    fn key(content: &[u8]) -> Key {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        file.rewind().expect("again");
        let copy = tempfile::tempfile().expect("a file");
        let key = Key::of(&file, &copy).expect("read");
        let mut copied = Vec::new();
        (&copy).read_to_end(&mut copied).expect("from its start");
        assert_eq!(copied, content);
        key
    }

    #[test]
    fn what_is_kept_is_found_by_its_content() {
        let (_directory, cache) = cache();
        let (one, other) = (key(&[1; 100_000]), key(&[2; 100_000]));
        assert!(cache.find(&one).is_none(), "not even a directory");
        cache.keep(&one, b"first");
        cache.keep(&one, b"again");
        assert_eq!(cache.find(&one).as_deref(), Some(&b"first"[..]));
        assert!(cache.find(&other).is_none());
        assert_eq!(one.0.len(), 66);
    }

    #[test]
    fn what_others_could_have_made_is_not_used() {
        let (directory, cache) = cache();
        let key = key(b"packed");
        cache.keep(&key, b"kernel");
        let path = cache.0.join(&key.0);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o400);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
        mode(&path, 0o602);
        assert!(cache.find(&key).is_none(), "a file that others may write");
        mode(&path, 0o400);
        let second = directory.path().join("second");
        fs::hard_link(&path, &second).expect("a second name");
        assert!(cache.find(&key).is_none(), "a file of another name too");
        fs::remove_file(&path).expect("removed");
        symlink(&second, &path).expect("linked");
        assert!(cache.find(&key).is_none(), "a link");
        fs::remove_file(&path).expect("removed");
        fs::rename(&second, &path).expect("back");
        assert!(cache.find(&key).is_some());
        mode(&cache.0, 0o750);
        assert!(cache.find(&key).is_none(), "a directory that others may look into");
        assert!(cache.try_keep(&key, b"kernel").is_err());
    }

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let (_directory, cache) = cache();
        let keys: Vec<Key> = (0..=MOST_KERNELS).map(|index| key(&[u8::try_from(index).expect("few")])).collect();
        for (age, key) in keys.iter().take(MOST_KERNELS).enumerate() {
            cache.keep(key, b"kernel");
            let file = File::open(cache.0.join(&key.0)).expect("there");
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64)).expect("aged");
        }
        assert!(cache.find(&keys[0]).is_some(), "which makes it the youngest");
        cache.keep(&keys[MOST_KERNELS], b"kernel");
        assert!(cache.find(&keys[1]).is_none());
        assert!(cache.find(&keys[0]).is_some() && cache.find(&keys[MOST_KERNELS]).is_some());
        let large = vec![0; usize::try_from(MOST.0 / 4).expect("small") + 1];
        assert!(cache.try_keep(&keys[1], &large).is_err());
    }
}
