//! Whether an image is in use: mounted in dom0, given to a guest by the kernel or by a QEMU, or opened by another QEMU.
//!
//! A guest that may write needs the image alone. A guest that may only read needs that no other user writes.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::fcntl::{FcntlArg, fcntl};

use super::block::opened_by_blkback;
use super::image::OpenImage;
use crate::config::devices::set::MigratesFrom;
use crate::error::Error;
use crate::error::device::{DeviceError, DiskUser};
use crate::os::Untrusted;
use crate::os::loop_device::loop_devices_of;
use crate::xen::{DomId, Store, Transaction, XenError};

/// The bytes by which QEMU locks an image: 100 and on for what a user does, 200 and on for what it forbids to others
/// (`RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE`, block/file-posix.c, QEMU 7.2 and 10.0). The bit of writing is 1
/// (`BLK_PERM_WRITE`, include/block/block-common.h).
const QEMU_LOCKS: (libc::off_t, libc::off_t) = (100, 200);
const QEMU_WRITES: libc::off_t = 101;

/// The user of an image that forbids this one, if there is one. `device` names the disk in errors, as in `vbd 51712`. The guest
/// itself, where it migrates from, forbids nothing; its QEMU is not known by its lock.
///
/// # Errors
/// [`DeviceError::System`] if the system does not list the users, or an error of xenstored.
pub(crate) fn user_of(store: &Store, image: &OpenImage, device: &str) -> Result<Option<DiskUser>, Error> {
    if image.shared {
        return Ok(None);
    }
    let found = user_in_system(image).map_err(|source| DeviceError::System {
        device: device.to_owned(),
        action: format!("find the users of {}", image.path.display()),
        source,
    })?;
    let found = found.map_or_else(|| served_by_qemu(&store.plain(), image), |user| Ok(Some(user)))?;
    Ok(found.filter(|user| match (user, image.migrates_from) {
        (DiskUser::Qemu { .. }, MigratesFrom::AnotherHost | MigratesFrom::Domain(_)) => false,
        (DiskUser::Guest { domid, .. }, MigratesFrom::Domain(number)) => domid.get() != number,
        _ => true,
    }))
}

/// The guest to which a QEMU serves the image. QEMU does not lock what it serves (`xen_block_drive_create`,
/// hw/block/xen-block.c, QEMU 7.2 and 10.0), so that only xenstore knows.
fn served_by_qemu(store: &Transaction<'_>, image: &OpenImage) -> Result<Option<DiskUser>, XenError> {
    const BACKENDS: &str = "/local/domain/0/backend/qdisk";
    let guests: Vec<_> =
        store.children(BACKENDS)?.into_iter().filter_map(|name| DomId::new(name.parse().ok()?)).collect();
    let directories: Vec<_> = guests.iter().map(|domid| format!("{BACKENDS}/{domid}")).collect();
    let (mut owners, mut nodes) = (Vec::new(), Vec::new());
    for ((domid, directory), devids) in guests.iter().zip(&directories).zip(store.children_of_all(&directories)?) {
        for devid in devids {
            owners.push(*domid);
            nodes.extend(["params", "mode"].map(|node| format!("{directory}/{devid}/{node}")));
        }
    }
    let values = store.read_all(&nodes)?;
    let user = owners.into_iter().zip(values.chunks(2)).find_map(|(domid, values)| {
        let [Some(params), mode] = values else { return None };
        let status = fs::metadata(params.split_once(':')?.1).ok()?;
        let writable = mode.as_deref().is_some_and(|mode| mode.starts_with('w'));
        let same = match status.file_type().is_block_device() {
            true => image.block_device == Some(status.rdev()),
            false => image.part.as_ref().is_some_and(|part| (part.device, part.inode) == (status.dev(), status.ino())),
        };
        (same && (image.writable || writable)).then_some(DiskUser::Guest { domid, writable })
    });
    Ok(user)
}

fn user_in_system(image: &OpenImage) -> io::Result<Option<DiskUser>> {
    // A loop device shares its file with other loop devices.
    let mut devices = image.part.as_ref().map_or(Ok(Vec::new()), loop_devices_of)?;
    devices.extend(image.block_device);
    if let Some(path) = mount_of(&devices, image.writable)? {
        return Ok(Some(DiskUser::Mounted(path)));
    }
    let guest = opened_by_blkback()?
        .into_iter()
        .find(|opened| devices.contains(&opened.number) && (image.writable || opened.writable));
    if let Some(opened) = guest
        && let Some(domid) = DomId::new(opened.domid)
    {
        return Ok(Some(DiskUser::Guest { domid, writable: opened.writable }));
    }
    // The locks of this guest's own QEMU do not count; there were no others when the image was opened.
    if image.emulated { Ok(None) } else { locked_by_qemu(image) }
}

/// Where one of these devices is mounted; where the image will be read only, a read-only mount does not count.
fn mount_of(devices: &[u64], writable: bool) -> io::Result<Option<Untrusted>> {
    if devices.is_empty() {
        return Ok(None);
    }
    // /proc/self/mountinfo (proc(5)): ID, parent, device, root, mount point, options, ... - type source options
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, _, number, _, place, options, ..] = words.as_slice() else { continue };
        if !writable && options.split(',').any(|option| option == "ro") {
            continue;
        }
        let source = words.iter().position(|word| *word == "-").and_then(|at| words.get(at + 2)).copied();
        let number = number
            .split_once(':')
            .and_then(|(major, minor)| Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?)));
        // File systems of several devices have a number of their own, and name one device as their source.
        let named = source.filter(|source| source.starts_with("/dev/")).and_then(|source| fs::metadata(source).ok());
        let named = named.filter(|status| status.file_type().is_block_device()).map(|status| status.rdev());
        if [number, named].iter().flatten().any(|number| devices.contains(number)) {
            return Ok(Some(Untrusted::from(*place)));
        }
    }
    Ok(None)
}

/// A QEMU that has opened the image, by QEMU's locks.
fn locked_by_qemu(image: &OpenImage) -> io::Result<Option<DiskUser>> {
    let writes = lock_at(image, QEMU_WRITES, 1)?;
    let (first, last) = QEMU_LOCKS;
    let user = match writes {
        Some(pid) => Some((pid, true)),
        None if image.writable => lock_at(image, first, last - first)?.map(|pid| (pid, false)),
        None => None,
    };
    Ok(user.map(|(pid, writable)| DiskUser::Qemu { pid, writable }))
}

/// The holder of a lock on these bytes; its process is unknown if the lock belongs to an open file description.
#[expect(clippy::option_option, reason = "a lock can have an unknown holder")]
fn lock_at(image: &OpenImage, start: libc::off_t, length: libc::off_t) -> io::Result<Option<Option<i32>>> {
    // A read lock would not conflict with QEMU's read locks, and only a descriptor for writing can ask for a write lock;
    // F_OFD_GETLK asks for either on any descriptor.
    let mut lock = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).map_err(io::Error::other)?,
        l_whence: libc::c_short::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    fcntl(image.file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))?;
    let free = libc::c_int::from(lock.l_type) == libc::F_UNLCK;
    Ok((!free).then(|| Some(lock.l_pid).filter(|pid| *pid > 0)))
}
