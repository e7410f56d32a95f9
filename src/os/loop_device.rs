//! Loop devices: block devices of files (loop(4)).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// The attempts to get a loop device: another program may take the free one first.
const MAX_ATTEMPTS: u32 = 50;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A loop device of a file. The kernel releases it when the last descriptor on it is closed: this one, and those of others
/// who have opened the device since.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// Makes a loop device of an open file; read-only if `writable` is not set.
    ///
    /// # Errors
    /// If the kernel has no loop devices, or refuses the file.
    pub fn attach(file: &File, writable: bool) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut failed = Errno::EBUSY;
        for _ in 0..MAX_ATTEMPTS {
            // SAFETY: the call takes no argument and accesses no memory.
            let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(writable).open(&path)?;
            match configure(&device, file, writable) {
                Ok(()) => return Ok(Self { path, device }),
                Err(Errno::EBUSY) => failed = Errno::EBUSY,
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(failed.into())
    }

    /// Its path in /dev.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number, as stat(2) has it.
    ///
    /// # Errors
    /// The error of fstat.
    pub fn number(&self) -> io::Result<u64> {
        Ok(self.device.metadata()?.rdev())
    }
}

fn configure(device: &File, file: &File, writable: bool) -> Result<(), Errno> {
    // SAFETY: a struct of integers, for which zero is valid.
    let mut config: Config = unsafe { mem::zeroed() };
    config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    config.info.flags = LO_FLAGS_AUTOCLEAR | if writable { 0 } else { LO_FLAGS_READ_ONLY };
    // SAFETY: the struct has the size and layout that linux/loop.h gives it, and outlives the call.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    /// The device of the file system.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// The bytes; the end of a part without a limit is `u64::MAX`.
    pub bytes: Range<u64>,
}

impl FilePart {
    /// Whether two parts have a byte in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
    }
}

/// The part of a file that an open block device is; `None`: it is no loop device, or has no file.
///
/// # Errors
/// Any other error of the kernel: whether it is a loop device is then unknown.
pub fn part_of(opened: &File) -> io::Result<Option<FilePart>> {
    // SAFETY: a struct of integers, for which zero is valid.
    let mut info: Info = unsafe { mem::zeroed() };
    // SAFETY: the struct has the size and layout that linux/loop.h gives it, and outlives the call.
    match Errno::result(unsafe { libc::ioctl(opened.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) }) {
        // A loop device without a file; another file or block device, whose driver may say EINVAL as well.
        Err(Errno::ENXIO | Errno::ENOTTY | Errno::EINVAL) => return Ok(None),
        status => status?,
    };
    let end = if info.size_limit == 0 { u64::MAX } else { info.offset.saturating_add(info.size_limit) };
    Ok(Some(FilePart { device: info.device, inode: info.inode, bytes: info.offset..end }))
}

/// The numbers (as stat(2) has them) of the loop devices that overlap a part of a file.
///
/// # Errors
/// If /sys/block cannot be read, or the kernel does not report the file of a loop device. A loop device that is released meanwhile is left out.
pub fn loop_devices_of(part: &FilePart) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else { continue };
        if !Path::new("/sys/block").join(name).join("loop/backing_file").exists() {
            continue;
        }
        let Ok(opened) = File::open(Path::new("/dev").join(name)) else { continue };
        if part_of(&opened)?.is_some_and(|other| part.overlaps(&other)) {
            found.push(opened.metadata()?.rdev());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// Does nothing where loop devices cannot be made (another user, a container).
    #[test]
    fn a_loop_device_goes_with_its_last_descriptor() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 20).expect("sized");
        let status = file.metadata().expect("there");
        let part = |bytes| FilePart { device: status.dev(), inode: status.ino(), bytes };
        let Ok(made) = LoopDevice::attach(&file, true) else { return };
        let number = made.number().expect("there");
        let whole = part(0..u64::MAX);
        assert_eq!(part_of(&made.device).expect("its status"), Some(whole.clone()));
        assert_eq!(loop_devices_of(&part(512..1024)).expect("listed"), [number]);
        drop(made);
        // A program that looks at all devices, as loop_devices_of does, may have it open for a moment.
        let end = Instant::now() + Duration::from_secs(10);
        while loop_devices_of(&whole).expect("listed") != [0; 0] {
            assert!(Instant::now() < end, "it is still there");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(part_of(&file).expect("its status"), None);
    }

    #[test]
    fn parts_of_a_file_overlap_or_not() {
        let part = |inode, bytes| FilePart { device: 1, inode, bytes };
        let whole = part(1, 0..u64::MAX);
        assert!(
            whole.overlaps(&whole) && whole.overlaps(&part(1, 512..513)) && part(1, 0..10).overlaps(&part(1, 9..20))
        );
        assert!(!whole.overlaps(&part(2, 0..u64::MAX)) && !part(1, 0..10).overlaps(&part(1, 10..20)));
    }
}
