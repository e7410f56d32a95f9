//! A cache of unpacked kernels, so that the next guest with the same kernel starts sooner.
//!
//! Each entry holds the child's output followed by the packed file, whose bytes identify it, and gets the same checks
//! as the child's output. An entry is written completely before it has a name and never changes afterwards, in a
//! directory to which only root has access: a guest's owner can neither change nor replace the kernel of another guest.
//! The least recently used entry is removed first. An unusable cache costs only time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statvfs::statvfs;
use nix::unistd::{geteuid, linkat};

use super::Keep;
use crate::memory::Bytes;
use crate::os::sealed::Sealed;

/// The directory of the cache; its files may be removed at any time.
pub const KERNELS_DIRECTORY: &str = "/var/cache/dombuild/kernels";

/// The maximum total size of the entries, and their maximum number.
const MOST: Bytes = Bytes(512 << 20);
const MOST_KERNELS: usize = 32;

/// The part of a file system that stays free for others: a tenth, and on a file system that is not small at least this.
const LEFT_TO_OTHERS: u64 = 256 << 20;

/// A file system with less than this is small.
const SMALL: u64 = 1 << 30;

/// The format version; raise it whenever the child writes another file for the same kernel.
const FORM: u32 = 3;

/// The size of one read, in bytes.
const PIECE: usize = 64 << 10;

/// The maximum number of files of the same size to compare: a user could fill the cache with them.
const MOST_COMPARED: usize = 4;

/// The directory, if it is trustworthy.
#[derive(Debug)]
pub(super) struct Cache(PathBuf);

impl Cache {
    /// The cache of this host.
    pub(super) fn of_host() -> Self {
        Self(PathBuf::from(KERNELS_DIRECTORY))
    }

    /// Whether the cache may keep the result of a packed file of this size.
    pub(super) fn takes(size: u64) -> bool {
        size <= MOST.0 / 4
    }

    /// The cached result of a packed kernel, if there is one.
    pub(super) fn find(&self, packed: &File, keep: Keep) -> Option<Sealed> {
        let logged = |path: &Path, error: io::Error| log::debug!("{}: {error}", path.display());
        let (size, kept) = match packed.metadata().and_then(|metadata| Ok((metadata.len(), self.kept()?))) {
            Ok(found) => found,
            Err(error) => {
                logged(&self.0, error);
                return None;
            }
        };
        let name = name_start(size);
        let alike = kept
            .iter()
            .rev()
            .map(|kept| kept.path.as_path())
            .filter(|path| path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(&name)));
        alike.take(MOST_COMPARED).find_map(|path| {
            same(path, packed, size, keep).unwrap_or_else(|error| {
                logged(path, error);
                None
            })
        })
    }

    /// Adds an entry, unless it is too large. The packed file must be immutable.
    pub(super) fn keep(&self, packed: &File, kernel: &[u8]) {
        match self.try_keep(packed, kernel) {
            Ok(()) => log::debug!("kept in {}", self.0.display()),
            Err(error) => log::info!("the unpacked kernel is not kept in {}: {error}", self.0.display()),
        }
    }

    fn try_keep(&self, packed: &File, kernel: &[u8]) -> io::Result<()> {
        let size = packed.metadata()?.len();
        let length = size.saturating_add(kernel.len() as u64);
        if !Self::takes(length) {
            return Err(io::Error::other(format!("it has {length} bytes")));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        // Another run has meanwhile added the same kernel.
        if self.find(packed, Keep::Yes).is_some() {
            return Ok(());
        }
        self.make_room(length)?;
        let file_system = statvfs(&self.0)?;
        let bytes = |blocks: u64| blocks.saturating_mul(file_system.fragment_size());
        check_space(bytes(file_system.blocks()), bytes(file_system.blocks_available()), length)?;
        // The file has no name until it is complete and on disk, so a killed run leaves nothing of it.
        let mut file = OpenOptions::new().write(true).mode(0o400).custom_flags(libc::O_TMPFILE).open(&self.0)?;
        file.write_all(kernel)?;
        in_pieces(packed, size, |_, piece| file.write_all(piece).map(|()| true))?;
        file.sync_data()?;
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        for number in 0..MOST_KERNELS {
            let path = self.0.join(format!("{}{number}", name_start(size)));
            match linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW) {
                Err(nix::errno::Errno::EEXIST) => {}
                outcome => return Ok(outcome?),
            }
        }
        Err(io::Error::other("every name is taken"))
    }

    /// The entries, the least recently used first, if the directory is trustworthy.
    fn kept(&self) -> io::Result<Vec<Kept>> {
        check_directory(&self.0)?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            // Another run may remove it meanwhile.
            if let Ok(metadata) = entry.metadata() {
                kept.push(Kept { used: metadata.modified()?, size: metadata.len(), path: entry.path() });
            }
        }
        kept.sort_unstable_by(|one, other| (one.used, &one.path).cmp(&(other.used, &other.path)));
        Ok(kept)
    }

    /// Removes the least recently used entries until one of `length` fits.
    fn make_room(&self, length: u64) -> io::Result<()> {
        let kept = self.kept()?;
        let mut total: u64 = kept.iter().map(|kept| kept.size).sum();
        let mut count = kept.len();
        for Kept { size, path, .. } in kept {
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

/// Whether a file of `length` leaves enough of a file system of `total` bytes, with `free` bytes writable, to others.
fn check_space(total: u64, free: u64, length: u64) -> io::Result<()> {
    let left = if total < SMALL { total / 10 } else { LEFT_TO_OTHERS.max(total / 10) };
    if free.saturating_sub(length) >= left && free >= length {
        return Ok(());
    }
    let reason = format!("it takes {length} bytes, the file system has {free} free, and {left} are left to others");
    Err(io::Error::new(io::ErrorKind::StorageFull, reason))
}

/// A file of the cache.
#[derive(Debug)]
struct Kept {
    used: SystemTime,
    size: u64,
    path: PathBuf,
}

/// The name prefix of the kernels whose packed files have this size.
fn name_start(packed: u64) -> String {
    format!("{FORM}-{packed}-")
}

/// A cached kernel, if its packed file equals this one in every byte.
fn same(path: &Path, packed: &File, size: u64, keep: Keep) -> io::Result<Option<Sealed>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let kernel = file.metadata()?.len().saturating_sub(size);
    let mut kept = vec![0; PIECE];
    let is_same = in_pieces(packed, size, |at, piece| {
        let kept = kept.get_mut(..piece.len()).unwrap_or_default();
        file.read_exact_at(kept, kernel + at)?;
        Ok(kept == piece)
    })?;
    if !is_same {
        return Ok(None);
    }
    let sealed = Sealed::of_own_file(&file, kernel, MOST.0)?;
    if keep == Keep::Yes {
        file.set_modified(SystemTime::now())?;
    }
    Ok(Some(sealed))
}

/// Passes the first `size` bytes of a file to a closure, piece by piece with offsets, until the closure rejects one;
/// returns whether it accepted all.
fn in_pieces(file: &File, size: u64, mut is_good: impl FnMut(u64, &[u8]) -> io::Result<bool>) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        let piece = piece.get_mut(..length).unwrap_or_default();
        file.read_exact_at(piece, at)?;
        if !is_good(at, piece)? {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(true)
}

/// Whether only this user has access to the directory.
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
        // In memory: a disk of which less than a tenth is free keeps nothing.
        let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let cache = Cache(directory.path().join("kernels"));
        (directory, cache)
    }

    fn packed(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    /// What is kept for such a file, by a run that keeps.
    fn find(cache: &Cache, content: &[u8]) -> Option<Vec<u8>> {
        cache.find(&packed(content), Keep::Yes).map(|sealed| sealed.to_vec())
    }

    fn paths(cache: &Cache) -> Vec<PathBuf> {
        cache.kept().expect("a directory").into_iter().map(|kept| kept.path).collect()
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    }

    #[test]
    fn what_is_kept_is_found_by_its_content() {
        let (_directory, cache) = cache();
        let mut content = vec![1; PIECE + 7];
        assert!(find(&cache, &content).is_none(), "not even a directory");
        cache.keep(&packed(&content), b"first");
        assert_eq!(find(&cache, &content).as_deref(), Some(&b"first"[..]));
        // Another of the same size, which differs in its last byte.
        content[PIECE + 6] = 2;
        assert!(find(&cache, &content).is_none());
        cache.keep(&packed(&content), b"second");
        assert_eq!(find(&cache, &content).as_deref(), Some(&b"second"[..]));
        content[PIECE + 6] = 1;
        assert_eq!(find(&cache, &content).as_deref(), Some(&b"first"[..]));
        cache.keep(&packed(&content), b"again");
        assert_eq!(paths(&cache).len(), 2, "it is there already");
        content.pop();
        assert!(find(&cache, &content).is_none(), "a shorter one");
    }

    #[test]
    fn what_others_could_have_made_is_not_used() {
        let (directory, cache) = cache();
        cache.keep(&packed(b"packed"), b"kernel");
        let path = paths(&cache).remove(0);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o400);
        set_mode(&path, 0o602);
        assert!(find(&cache, b"packed").is_none(), "a file that others may write");
        set_mode(&path, 0o400);
        let second = directory.path().join("second");
        fs::hard_link(&path, &second).expect("a second name");
        assert!(find(&cache, b"packed").is_none(), "a file of another name too");
        fs::remove_file(&path).expect("removed");
        symlink(&second, &path).expect("linked");
        assert!(find(&cache, b"packed").is_none(), "a link");
        fs::remove_file(&path).expect("removed");
        fs::rename(&second, &path).expect("back");
        assert!(find(&cache, b"packed").is_some());
        set_mode(&cache.0, 0o750);
        assert!(find(&cache, b"packed").is_none(), "a directory that others may look into");
        assert!(cache.try_keep(&packed(b"other"), b"kernel").is_err());
    }

    #[test]
    fn a_file_that_cannot_be_used_hides_no_other() {
        let (_directory, cache) = cache();
        cache.keep(&packed(b"good"), b"kernel");
        cache.keep(&packed(b"bad!"), b"other");
        // The younger one, which is looked at first: cut off, so that not even the packed part is there.
        let bad = paths(&cache).remove(1);
        set_mode(&bad, 0o600);
        OpenOptions::new().write(true).open(&bad).and_then(|file| file.set_len(2)).expect("cut");
        assert_eq!(find(&cache, b"good").as_deref(), Some(&b"kernel"[..]));
        assert!(find(&cache, b"bad!").is_none());
    }

    #[test]
    fn a_search_has_an_end_and_may_leave_no_trace() {
        let (_directory, cache) = cache();
        for number in 0..=u8::try_from(MOST_COMPARED).expect("few") {
            cache.keep(&packed(&[number]), b"kernel");
        }
        assert!(find(&cache, &[0]).is_none(), "there are too many younger ones");
        let youngest = paths(&cache).pop().expect("one");
        assert!(cache.find(&packed(&[1]), Keep::No).is_some());
        assert_eq!(paths(&cache).pop(), Some(youngest), "a dry run does not use it");
    }

    #[test]
    fn space_is_left_to_others() {
        const MIB: u64 = 1 << 20;
        for (total, free, length, fits) in [
            // A small file system keeps a tenth,
            (500 * MIB, 150 * MIB, 100 * MIB, true),
            (500 * MIB, 149 * MIB, 100 * MIB, false),
            // another 256 MiB,
            (1024 * MIB, 356 * MIB, 100 * MIB, true),
            (1024 * MIB, 355 * MIB, 100 * MIB, false),
            // and a large one more.
            (10_000 * MIB, 1100 * MIB, 100 * MIB, true),
            (10_000 * MIB, 1099 * MIB, 100 * MIB, false),
            (0, 0, 1, false),
            (10_000 * MIB, 10 * MIB, 100 * MIB, false),
        ] {
            assert_eq!(check_space(total, free, length).is_ok(), fits, "{free} of {total} for {length}");
        }
    }

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let (_directory, cache) = cache();
        let files: Vec<Vec<u8>> = (0..=MOST_KERNELS).map(|index| vec![0; index + 1]).collect();
        for (age, file) in files.iter().take(MOST_KERNELS).enumerate() {
            cache.keep(&packed(file), b"kernel");
            let path = cache.0.join(format!("{}0", name_start(file.len() as u64)));
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64);
            File::open(path).and_then(|file| file.set_modified(time)).expect("aged");
        }
        assert!(find(&cache, &files[0]).is_some(), "which makes it the youngest");
        cache.keep(&packed(&files[MOST_KERNELS]), b"kernel");
        assert!(find(&cache, &files[1]).is_none());
        assert!(find(&cache, &files[0]).is_some() && find(&cache, &files[MOST_KERNELS]).is_some());
        let large = vec![0; usize::try_from(MOST.0 / 4).expect("small")];
        assert!(cache.try_keep(&packed(&files[1]), &large).is_err());
    }
}
