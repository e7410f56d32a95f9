//! Bytes that nobody can change: in memory that is sealed, or in a file that this user alone can write. They are mapped, so
//! that a file of any size takes none of this process's own memory.

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

/// A file without a name, in memory; closed by `execve`.
#[derive(Debug)]
pub struct MemoryFile {
    fd: OwnedFd,
}

impl MemoryFile {
    /// An empty one. The name is for people who look into `/proc`.
    ///
    /// # Errors
    /// Where Linux refuses it.
    pub fn new(name: &CStr) -> io::Result<Self> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        Ok(Self { fd })
    }

    /// A descriptor for the process that is to fill it.
    ///
    /// # Errors
    /// Where there are too many descriptors.
    pub fn writer(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Writes the next `size` bytes of another file into it, piece by piece.
    ///
    /// # Errors
    /// Where that file has fewer, or cannot be read; where memory is short.
    pub fn fill(&self, mut from: &File, size: u64) -> io::Result<()> {
        let count = io::copy(&mut from.by_ref().take(size), &mut File::from(self.writer()?))?;
        if count == size { Ok(()) } else { Err(io::Error::other(format!("ended after {count} of {size} bytes"))) }
    }

    /// Ends all writing, whoever still has a descriptor; what is left to read.
    ///
    /// # Errors
    /// Where somebody has it mapped for writing.
    pub fn end_writing(self) -> io::Result<OwnedFd> {
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&self.fd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(self.fd)
    }

    /// The same, and shows what is in it.
    ///
    /// # Errors
    /// As there; where it is empty, or has more than `most` bytes.
    pub fn seal(self, most: u64) -> io::Result<Sealed> {
        let fd = self.end_writing()?;
        let size = fstat(&fd)?.st_size;
        map(fd, u64::try_from(size).unwrap_or(0), most, MapFlags::MAP_POPULATE)
    }
}

/// Bytes that stay as they are.
///
/// # Invariant
/// Nobody but this user (root, as a rule), who could write into this process as well, can change or cut off what is mapped
/// here: a page that is cut off would be `SIGBUS` for this process.
pub struct Sealed {
    start: NonNull<u8>,
    length: NonZeroUsize,
    file: OwnedFd,
}

// SAFETY: nobody can write to what it shows, and it belongs to no thread.
unsafe impl Send for Sealed {}
// SAFETY: as above.
unsafe impl Sync for Sealed {}

impl Sealed {
    /// Shows the first `length` bytes of a file to which this user alone has any right, and which has one name.
    ///
    /// # Errors
    /// Where it is another one or has less, or `length` is 0 or more than `most`.
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

    /// Shows the first `length` bytes of a file that nobody but this user can write; `None` for any other file. Nothing of
    /// it is read before it is used, or [`load`](Self::load)ed.
    ///
    /// # Errors
    /// Where it has fewer bytes, or cannot be mapped.
    pub fn of_unchanging_file(file: &File, length: u64) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        // An ACL that lets others write shows among the rights of the group.
        let own = metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        // Whoever serves a FUSE file system can claim any of that.
        if !own || fstatfs(file)?.filesystem_type() == FUSE_SUPER_MAGIC || !has_no_writer(file) {
            return Ok(None);
        }
        if metadata.len() < length {
            return Err(io::Error::other(format!("it has {} bytes", metadata.len())));
        }
        map(file.as_fd().try_clone_to_owned()?, length, length, MapFlags::empty()).map(Some)
    }

    /// Reads all of it from where it is stored. A page that cannot be read is an error here, and `SIGBUS` later.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn load(&self) -> io::Result<()> {
        // SAFETY: the mapping is ours, and is neither changed nor moved by this.
        match unsafe { madvise(self.start.cast(), self.length.get(), MmapAdvise::MADV_POPULATE_READ) } {
            // Linux before 5.14 reads each page when it is used.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(Errno::EFAULT) => Err(io::Error::other("cannot be read from where it is stored")),
            Err(error) => Err(error.into()),
        }
    }

    /// The same bytes, but for the first. The page that it is in becomes this process's own; the others stay shared.
    ///
    /// # Errors
    /// Where it cannot be mapped once more.
    pub fn with_first(&self, first: u8) -> io::Result<Self> {
        let length = self.length.get() as u64;
        let other = map(self.file.try_clone()?, length, length, MapFlags::empty())?;
        // SAFETY: the mapping is private, so that neither its file nor another mapping of it changes, and nobody else refers
        // to it yet. It has at least one byte, in its first page.
        unsafe {
            mprotect(other.start.cast(), 1, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
            other.start.write(first);
            mprotect(other.start.cast(), 1, ProtFlags::PROT_READ)?;
        }
        Ok(other)
    }
}

/// `F_SETSIG` of Linux on every architecture (asm-generic/fcntl.h), which the crate `libc` does not have.
const F_SETSIG: libc::c_int = 10;

/// Whether no process has the file open for writing: it may have been opened before its rights were taken away. The kernel
/// tells that of a file on which a read lease can be taken (fcntl(2)), which is given back at once.
fn has_no_writer(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // SAFETY: these commands take integers, and no memory is touched.
    unsafe {
        // What is sent where another process opens the file meanwhile: not SIGIO, which would end this process.
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

/// Maps a file for reading, from its start on.
fn map(file: OwnedFd, size: u64, most: u64, more: MapFlags) -> io::Result<Sealed> {
    let length = usize::try_from(size).ok().filter(|_| size <= most).and_then(NonZeroUsize::new);
    let length = length.ok_or_else(|| io::Error::other(format!("it has {size} bytes")))?;
    // Not MAP_SHARED, which older kernels refuse for sealed memory that is open for writing: nobody writes to it, so that there
    // is nothing to share.
    let flags = MapFlags::MAP_PRIVATE | more;
    // SAFETY: a new mapping at an address of the kernel's choice harms nothing that is there.
    let start = unsafe { mmap(None, length, ProtFlags::PROT_READ, flags, &file, 0) }?;
    Ok(Sealed { start: start.cast(), length, file })
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is as long as this and lives as long. The seals on its file were set before it was made, and
        // let nobody write to it, shorten it, or take them off; or it is a file that only this user can write, that no process
        // had open for writing, and that nothing here changes. The bytes do not change, and none of them goes away.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length.get()) }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives `self`.
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

    /// What `look` sees once the file has no writer: a child that another test has just forked keeps a file open that this
    /// process has closed, until it calls `execve`.
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
        // As where a disk fails: the page is there no more.
        File::options().write(true).open(&path).and_then(|file| file.set_len(1)).expect("cut");
        match sealed.load() {
            Err(error) => assert!(error.to_string().contains("cannot be read"), "{error}"),
            // Linux before 5.14
            Ok(()) => assert!(!has_populate_read(), "nothing was said"),
        }
    }

    fn has_populate_read() -> bool {
        let sealed = filled(b"kernel").0.seal(6).expect("small enough");
        // SAFETY: the mapping is there, and is not changed.
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
