//! Mapped files that cannot change: sealed memory files, and files that only this user can write. A mapping of any size
//! uses no anonymous memory of this process.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::slice;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mprotect, munmap};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::unistd::geteuid;

/// A memory file (memfd) with `FD_CLOEXEC`.
#[derive(Debug)]
pub struct MemoryFile {
    fd: OwnedFd,
}

impl MemoryFile {
    /// Creates an empty memory file. `name` appears in `/proc`.
    ///
    /// # Errors
    /// If memfd_create(2) fails.
    pub fn new(name: &CStr) -> io::Result<Self> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        Ok(Self { fd })
    }

    /// Duplicates the descriptor for the process that fills the file.
    ///
    /// # Errors
    /// If the process has too many descriptors.
    pub fn writer(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Appends the next `size` bytes of another file, in pieces.
    ///
    /// # Errors
    /// If the other file has fewer bytes or cannot be read, or memory is short.
    pub fn fill(&self, mut from: &File, size: u64) -> io::Result<()> {
        let count = io::copy(&mut from.by_ref().take(size), &mut File::from(self.writer()?))?;
        if count == size { Ok(()) } else { Err(io::Error::other(format!("ended after {count} of {size} bytes"))) }
    }

    /// Seals the file against writes through any descriptor, and returns it for reading.
    ///
    /// # Errors
    /// If a process has a writable mapping of it.
    pub fn end_writing(self) -> io::Result<OwnedFd> {
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&self.fd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(self.fd)
    }

    /// As [`MemoryFile::end_writing`], and maps the content.
    ///
    /// # Errors
    /// As [`MemoryFile::end_writing`]; if the file is empty, or has more than `most` bytes.
    pub fn seal(self, most: u64) -> io::Result<Sealed> {
        let fd = self.end_writing()?;
        let size = fstat(&fd)?.st_size;
        map(fd, u64::try_from(size).unwrap_or(0), most, MapFlags::MAP_POPULATE)
    }
}

/// Bytes that do not change, mapped read-only.
///
/// # Invariant
/// Only this user (root, as a rule) can write or truncate the mapped file, and this user could also write to this
/// process. A truncated page would be `SIGBUS` for this process.
pub struct Sealed {
    start: NonNull<u8>,
    length: NonZeroUsize,
    file: OwnedFd,
}

// SAFETY: the bytes cannot change, and the mapping belongs to no thread.
unsafe impl Send for Sealed {}
// SAFETY: as above.
unsafe impl Sync for Sealed {}

impl Sealed {
    /// Maps the first `length` bytes of a file that only this user may access and that has one link.
    ///
    /// # Errors
    /// If the file is another one or shorter, or `length` is 0 or more than `most`.
    pub fn of_own_file(file: &File, length: u64, most: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let own = metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.nlink() == 1;
        if !own || metadata.mode() & 0o077 != 0 {
            return Err(io::Error::other("others than this user have rights on the file, or it has another name"));
        }
        if metadata.len() < length {
            return Err(io::Error::other(format!("it has {} bytes", metadata.len())));
        }
        map(file.as_fd().try_clone_to_owned()?, length, most, MapFlags::MAP_POPULATE)
    }

    /// Maps the first `length` bytes of a file that only this user can write; `None` for any other file. Pages are read
    /// on first access, or by [`load`](Self::load).
    ///
    /// # Errors
    /// If the file is shorter or cannot be mapped.
    pub fn of_unchanging_file(file: &File, length: u64) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        // An ACL entry that permits writes shows in the group bits.
        let own = metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        // A FUSE server can report any owner and mode.
        if !own || fstatfs(file)?.filesystem_type() == FUSE_SUPER_MAGIC || !has_no_writer(file) {
            return Ok(None);
        }
        if metadata.len() < length {
            return Err(io::Error::other(format!("it has {} bytes", metadata.len())));
        }
        map(file.as_fd().try_clone_to_owned()?, length, length, MapFlags::empty()).map(Some)
    }

    /// Reads all pages from storage. A page that cannot be read is an error here, and `SIGBUS` on a later access.
    ///
    /// # Errors
    /// If a page cannot be read.
    pub fn load(&self) -> io::Result<()> {
        // SAFETY: this value owns the mapping, and the call neither changes nor moves it.
        match unsafe { madvise(self.start.cast(), self.length.get(), MmapAdvise::MADV_POPULATE_READ) } {
            // Linux before 5.14 lacks MADV_POPULATE_READ and reads each page on first access.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(Errno::EFAULT) => Err(io::Error::other("cannot be read from where it is stored")),
            Err(error) => Err(error.into()),
        }
    }

    /// A copy with another first byte. Only its page becomes private to this process; the others stay shared.
    ///
    /// # Errors
    /// If the file cannot be mapped again.
    pub fn with_first(&self, first: u8) -> io::Result<Self> {
        let length = self.length.get() as u64;
        let other = map(self.file.try_clone()?, length, length, MapFlags::empty())?;
        // SAFETY: the mapping is private, so neither its file nor another mapping of it changes, and nothing refers to
        // it yet. It has at least one byte, in its first page.
        unsafe {
            mprotect(other.start.cast(), 1, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
            other.start.write(first);
            mprotect(other.start.cast(), 1, ProtFlags::PROT_READ)?;
        }
        Ok(other)
    }
}

/// `F_SETSIG` on every architecture (asm-generic/fcntl.h); the crate `libc` lacks it.
const F_SETSIG: libc::c_int = 10;

/// Whether no process has the file open for writing, which may predate its current mode. The kernel grants a read lease
/// (fcntl(2)) on such a file only; the lease is released at once.
fn has_no_writer(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // SAFETY: these commands take integers and access no memory.
    unsafe {
        // The signal if another process opens the file meanwhile: not SIGIO, which would end this process.
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

/// Maps a file for reading from its start.
fn map(file: OwnedFd, size: u64, most: u64, more: MapFlags) -> io::Result<Sealed> {
    let length = usize::try_from(size).ok().filter(|_| size <= most).and_then(NonZeroUsize::new);
    let length = length.ok_or_else(|| io::Error::other(format!("it has {size} bytes")))?;
    // Not MAP_SHARED: older kernels refuse it for sealed memory that is open for writing. As the file does not change,
    // there is nothing to share.
    let flags = MapFlags::MAP_PRIVATE | more;
    // SAFETY: the kernel chooses a free address, so no existing mapping changes.
    let start = unsafe { mmap(None, length, ProtFlags::PROT_READ, flags, &file, 0) }?;
    Ok(Sealed { start: start.cast(), length, file })
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has this length and lives as long as `self`. Either its file was sealed before: no
        // process can write, shorten or unseal it. Or only this user can write the file, no process had it open for
        // writing, and this program does not change it. So no byte changes or disappears.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length.get()) }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping, and no slice of it outlives `self`.
        if let Err(error) = unsafe { munmap(self.start.cast(), self.length.get()) } {
            log::error!("munmap of {} bytes failed: {error}", self.length);
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sealed({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn filled(content: &[u8]) -> (MemoryFile, File) {
        let memory = MemoryFile::new(c"test").expect("memory");
        let mut writer = File::from(memory.writer().expect("a descriptor"));
        writer.write_all(content).expect("written");
        (memory, writer)
    }

    #[test]
    fn nobody_changes_what_is_sealed() {
        let (memory, mut writer) = filled(b"kernel");
        let sealed = memory.seal(6).expect("small enough");
        assert_eq!(&*sealed, b"kernel");
        assert_eq!(writer.write_all(b"more").expect_err("no writing").raw_os_error(), Some(libc::EPERM));
        assert_eq!(writer.set_len(1).expect_err("no shortening").raw_os_error(), Some(libc::EPERM));
        assert_eq!(&*sealed, b"kernel");
    }

    /// Repeats `look` until the file has no writer: a child that another test has forked keeps a closed file open until
    /// `execve`.
    fn when_closed<T>(look: impl Fn() -> Option<T>) -> Option<T> {
        (0..1000).find_map(|_| {
            let seen = look();
            if seen.is_none() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            seen
        })
    }

    #[test]
    fn a_file_of_ones_own_is_mapped_and_any_other_is_not() {
        let mut written = tempfile::NamedTempFile::new().expect("a file");
        written.write_all(b"ramdisk").expect("written");
        let path = written.into_temp_path();
        let look = || {
            let file = File::open(&path).expect("it is there");
            Sealed::of_unchanging_file(&file, 7).expect("it can be asked").map(|sealed| sealed.to_vec())
        };
        let mapped = || when_closed(look);
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        for own in [0o600, 0o644, 0o400, 0o555] {
            mode(own);
            assert_eq!(mapped().as_deref(), Some(&b"ramdisk"[..]), "{own:o}");
        }
        for others in [0o660, 0o602, 0o666] {
            mode(others);
            assert_eq!(look(), None, "{others:o}");
        }
        mode(0o600);
        let writer = fs::OpenOptions::new().write(true).open(&path).expect("it is ours");
        assert_eq!(look(), None, "a process can still write to it");
        drop(writer);
        assert!(mapped().is_some());
        let file = File::open(&path).expect("it is there");
        assert!(Sealed::of_unchanging_file(&file, 8).is_err(), "it has no 8 bytes");
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), None).expect("root may");
            assert_eq!(look(), None, "another user's");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(3 << 12).expect("longer");
        let sealed = Sealed::of_unchanging_file(&File::open(file.path()).expect("there"), 3 << 12);
        assert!(sealed.expect("asked").is_none(), "it is open for writing");
        let path = file.into_temp_path();
        let look = || Sealed::of_unchanging_file(&File::open(&path).expect("there"), 3 << 12).expect("asked");
        let sealed = when_closed(look).expect("ours");
        sealed.load().expect("it is all there");
        // As if a disk failed: the page does not exist any more.
        File::options().write(true).open(&path).and_then(|file| file.set_len(1)).expect("cut");
        match sealed.load() {
            Err(error) => assert!(error.to_string().contains("cannot be read"), "{error}"),
            // Linux before 5.14
            Ok(()) => assert!(!has_populate_read(), "nothing was said"),
        }
    }

    fn has_populate_read() -> bool {
        let sealed = filled(b"kernel").0.seal(6).expect("small enough");
        // SAFETY: the mapping exists, and the call does not change it.
        unsafe { madvise(sealed.start.cast(), 6, MmapAdvise::MADV_POPULATE_READ) }.is_ok()
    }

    #[test]
    fn the_first_byte_can_be_another() {
        let content = [7; 3 << 12];
        let sealed = filled(&content).0.seal(3 << 12).expect("small enough");
        let other = sealed.with_first(1).expect("mapped");
        assert_eq!((other[0], &other[1..]), (1, &content[1..]));
        assert_eq!(&*sealed, &content[..], "and here it is the same");
    }

    #[test]
    fn a_copy_has_all_of_a_file() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"ramdisk").expect("written");
        for (size, fits) in [(7, true), (3, true), (8, false)] {
            io::Seek::rewind(&mut file).expect("a file");
            let memory = MemoryFile::new(c"test").expect("memory");
            assert_eq!(memory.fill(&file, size).is_ok(), fits, "{size}");
            if fits {
                let sealed = memory.seal(size).expect("small enough");
                assert_eq!(&*sealed, &b"ramdisk"[..usize::try_from(size).expect("small")]);
            }
        }
    }

    #[test]
    fn the_size_has_bounds() {
        assert!(filled(b"kernel").0.seal(5).expect_err("too long").to_string().contains("6 bytes"));
        assert!(filled(b"").0.seal(5).expect_err("empty").to_string().contains("0 bytes"));
    }
}
