//! Bytes that nobody can change: in memory that another process has filled, or in a file of this user's own.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::slice;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
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
        map(fd, u64::try_from(size).unwrap_or(0), most)
    }
}

/// Bytes that stay as they are.
///
/// # Invariant
/// Nobody but root, who could write into this process as well, can change what is mapped here.
pub struct Sealed {
    start: NonNull<u8>,
    length: NonZeroUsize,
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
        map(file, length, most)
    }
}

/// Maps a file for reading, from its start on, all of it at once.
fn map(file: impl AsFd, size: u64, most: u64) -> io::Result<Sealed> {
    let length = usize::try_from(size).ok().filter(|_| size <= most).and_then(NonZeroUsize::new);
    let length = length.ok_or_else(|| io::Error::other(format!("it has {size} bytes")))?;
    // Not MAP_SHARED, which older kernels refuse for sealed memory that is open for writing: nobody writes to it, so that there
    // is nothing to share.
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice harms nothing that is there.
    let start = unsafe { mmap(None, length, ProtFlags::PROT_READ, flags, file, 0) }?;
    Ok(Sealed { start: start.cast(), length })
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is as long as this and lives as long. The seals on its file were set before it was made, and
        // let nobody write to it, shorten it, or take them off; or it is a file that nobody else may write, and that nothing
        // here changes once it has a name. The bytes do not change, and none of them goes away.
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
    use std::io::Write;

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

    #[test]
    fn the_size_has_bounds() {
        assert!(filled(b"kernel").0.seal(5).expect_err("too long").to_string().contains("6 bytes"));
        assert!(filled(b"").0.seal(5).expect_err("empty").to_string().contains("0 bytes"));
    }
}
