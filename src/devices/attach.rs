//! Attaches devices to a domain: writes their nodes, waits for their backends, and plugs them. All devices take each step
//! together.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::block::{BlockDevice, is_open, kernel_backend};
use super::bridge::BridgePort;
use super::disk::OpenImage;
use super::hotplug::Hotplug;
use super::nic::interface_name;
use super::plan::PlannedDevice;
use super::script::{Action, Call, run_all};
use super::sharing::user_of;
use super::xenbus::{XenbusDevice, state};
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::device::{DeviceError, DiskUser};
use crate::error::{Error, Failure, Wait};
use crate::os::network_interface::NetworkInterface;
use crate::os::{Untrusted, shared_file};
use crate::stage::Stage;
use crate::xen::{DomId, Store, XenError};

/// How long dom0's kernel may take to make a backend, and to open its block device (`LIBXL_INIT_TIMEOUT`, Xen 4.17). It makes
/// one after the other, so that each has this time after the one before it.
const BACKEND_TIMEOUT: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(1);

/// The lock of Xen's script `block` (tools/hotplug/Linux/locking.sh): while it is held, no other program gives out images.
const BLOCK_LOCK: &str = "/run/xen-hotplug/block";

/// Attaches the devices. Each script may take `script_timeout`.
///
/// # Errors
/// [`DeviceError`] with the device and what its backend or script reports. Everything that was done stays for
/// [`super::remove`].
pub fn attach(
    context: &Context<'_>,
    domid: DomId,
    devices: &[PlannedDevice],
    script_timeout: Duration,
) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    context.step(Stage::Devices, || {
        context.store.transaction(|transaction| {
            for planned in devices {
                planned.device.write(transaction, domid)?;
                if !matches!(planned.hotplug, Hotplug::Script(_)) {
                    transaction.write(&native_tag(&planned.device, domid), "")?;
                }
            }
            Ok::<_, XenError>(())
        })?;
        wait_for_backends(context, domid, devices)?;
        wait_for_interfaces(context, domid, devices)?;
        plug_blocks(context, domid, devices)?;
        plug_bridges(context, domid, devices)?;
        run_scripts(context, domid, devices, script_timeout)
    })
}

/// The node that shows that no script has plugged the device, and that none has to unplug it.
pub(super) fn native_tag(device: &XenbusDevice, domid: DomId) -> String {
    format!("{}/native/{}/{}", XenstorePaths::new(domid).owner_tag(), device.kind, device.devid)
}

/// Waits until every backend that no QEMU serves is in the state `InitWait`.
fn wait_for_backends(context: &Context<'_>, domid: DomId, devices: &[PlannedDevice]) -> Result<(), Error> {
    let served = devices.iter().filter(|planned| !matches!(planned.hotplug, Hotplug::None));
    let mut waiting: Vec<_> = served.map(|planned| (&planned.device, planned.device.paths(domid).backend)).collect();
    for (_, backend) in &waiting {
        context.store.watch(&format!("{backend}/state"))?;
    }
    let mut end = Instant::now() + BACKEND_TIMEOUT;
    loop {
        let count = waiting.len();
        let paths: Vec<_> = waiting.iter().map(|(_, backend)| format!("{backend}/state")).collect();
        let states = context.store.plain().read_all(&paths)?;
        let mut states = states.into_iter();
        let mut last = None;
        waiting.retain(|_| {
            let state = states.next().flatten();
            let waits = state.as_deref() != Some(state::INIT_WAIT);
            last = if waits { state } else { last.take() };
            waits
        });
        let Some((device, backend)) = waiting.first() else { return Ok(()) };
        if waiting.len() < count {
            end = Instant::now() + BACKEND_TIMEOUT;
        }
        check_error(context.store, device, backend)?;
        context.cancel.check()?;
        if Instant::now() >= end {
            return Err(DeviceError::TimedOut {
                device: device.label(),
                what: "its backend did not get ready".to_owned(),
                state: Untrusted::from(last.unwrap_or_default()),
                after: BACKEND_TIMEOUT,
            }
            .into());
        }
        context.store.wait(Duration::from_millis(250))?;
    }
}

/// Waits until the network cards have their interfaces: netback makes one after it has set the state `InitWait`
/// (`netback_probe`, drivers/net/xen-netback/xenbus.c, Linux 6.1).
fn wait_for_interfaces(context: &Context<'_>, domid: DomId, devices: &[PlannedDevice]) -> Result<(), Error> {
    let cards = devices.iter().map(|planned| &planned.device);
    for card in cards.filter(|device| device.backend_kind == "vif" && device.backend == DomId::DOM0) {
        let end = Instant::now() + BACKEND_TIMEOUT;
        while NetworkInterface::find(&interface_name(domid, card.devid)).is_none() {
            check_error(context.store, card, &card.paths(domid).backend)?;
            context.cancel.check()?;
            if Instant::now() >= end {
                return Err(DeviceError::TimedOut {
                    device: card.label(),
                    what: "its backend did not make an interface".to_owned(),
                    state: Untrusted::from(state::INIT_WAIT),
                    after: BACKEND_TIMEOUT,
                }
                .into());
            }
            thread::sleep(POLL);
        }
    }
    Ok(())
}

/// Fails if the kernel has reported an error of the backend (`xenbus_dev_error` writes below `error`).
fn check_error(store: &Store, device: &XenbusDevice, backend: &str) -> Result<(), Error> {
    let home = format!("/local/domain/{}/", device.backend);
    let Some(path) = backend.strip_prefix(&home) else { return Ok(()) };
    match store.plain().read(&format!("{home}error/{path}/error"))? {
        Some(says) => Err(DeviceError::Backend { device: device.label(), says: Untrusted::from(says) }.into()),
        None => Ok(()),
    }
}

/// Makes block devices of the images and gives them to blkback. The lock is held until blkback has opened them, so that two
/// guests cannot get one image.
fn plug_blocks(context: &Context<'_>, domid: DomId, devices: &[PlannedDevice]) -> Result<(), Error> {
    let blocks = devices.iter().filter_map(|planned| match &planned.hotplug {
        Hotplug::Block(image) => Some((&planned.device, image)),
        _ => None,
    });
    let blocks: Vec<(&XenbusDevice, &OpenImage)> = blocks.collect();
    if blocks.is_empty() {
        return Ok(());
    }
    let _lock = BlockLock::take(context)?;
    let mut opened = Vec::with_capacity(blocks.len());
    for (index, (device, image)) in blocks.iter().enumerate() {
        let twice = blocks.iter().take(index).find(|(_, other)| image.conflicts_with(other));
        let user = match twice {
            Some((other, _)) => Some(DiskUser::SameGuest(other.label())),
            None => user_of(image).map_err(Error::io(format!("find the users of {}", image.path.display())))?,
        };
        if let Some(user) = user {
            return Err(DeviceError::InUse { vdev: image.vdev.clone(), path: image.path.clone(), user }.into());
        }
        opened.push((*device, BlockDevice::of(image, &device.label())?));
    }
    context.store.transaction(|transaction| {
        opened.iter().try_for_each(|(device, block)| block.publish(transaction, &device.paths(domid).backend))
    })?;
    for (device, _) in &opened {
        let end = Instant::now() + BACKEND_TIMEOUT;
        let (directory, backend) = (kernel_backend("vbd", domid, device.devid), device.paths(domid).backend);
        while !is_open(&directory) {
            check_error(context.store, device, &backend)?;
            context.cancel.check()?;
            if Instant::now() >= end {
                return Err(DeviceError::TimedOut {
                    device: device.label(),
                    what: "its backend did not open the image".to_owned(),
                    state: Untrusted::from(state::INIT_WAIT),
                    after: BACKEND_TIMEOUT,
                }
                .into());
            }
            thread::sleep(POLL);
        }
    }
    Ok(())
}

/// Makes the interfaces of the cards ports of their bridges.
fn plug_bridges(context: &Context<'_>, domid: DomId, devices: &[PlannedDevice]) -> Result<(), Error> {
    let ports = devices.iter().filter_map(|planned| match &planned.hotplug {
        Hotplug::Bridge(port) => Some((&planned.device, port)),
        _ => None,
    });
    let ports: Vec<(&XenbusDevice, &BridgePort)> = ports.collect();
    if ports.is_empty() {
        return Ok(());
    }
    let mut mtus = Vec::with_capacity(ports.len());
    for (device, port) in &ports {
        let name = interface_name(domid, device.devid);
        let Some(interface) = NetworkInterface::find(&name) else {
            let source = Errno::ENODEV.into();
            return Err(DeviceError::System {
                device: device.label(),
                action: format!("find the interface {name}"),
                source,
            }
            .into());
        };
        mtus.push(port.connect(interface, port.vifname.as_deref(), device.devid)?);
    }
    context.store.transaction(|transaction| {
        for ((device, _), mtu) in ports.iter().zip(&mtus) {
            let paths = device.paths(domid);
            transaction.write(&format!("{}/mtu", paths.frontend), &mtu.to_string())?;
            transaction.write(&format!("{}/hotplug-status", paths.backend), "connected")?;
        }
        Ok::<_, XenError>(())
    })?;
    Ok(())
}

/// Runs the scripts of the devices that have one: all at once, then those of the tap devices.
fn run_scripts(context: &Context<'_>, domid: DomId, devices: &[PlannedDevice], timeout: Duration) -> Result<(), Error> {
    let calls = devices.iter().filter_map(|planned| match &planned.hotplug {
        Hotplug::Script(script) => {
            let device = &planned.device;
            Some(Call { script, action: Action::Plug, domid, backend_kind: device.backend_kind, devid: device.devid })
        }
        _ => None,
    });
    let calls: Vec<_> = calls.collect();
    let outcomes = run_all(&calls, timeout, || context.cancel.check())?;
    for (call, outcome) in calls.iter().zip(outcomes) {
        let node = format!("/local/domain/0/backend/{}/{domid}/{}/hotplug-error", call.backend_kind, call.devid);
        let noted = context.store.plain().read(&node)?.map(Untrusted::from);
        outcome.check(call, noted, timeout)?;
    }
    Ok(())
}

/// The lock of Xen's script `block`, which removes the file when it releases the lock.
struct BlockLock(File);

impl BlockLock {
    fn take(context: &Context<'_>) -> Result<Self, Error> {
        let path = Path::new(BLOCK_LOCK);
        let failed = || Error::io(format!("take the lock {BLOCK_LOCK}"));
        fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed())?;
        let end = Instant::now() + BACKEND_TIMEOUT;
        loop {
            let file = shared_file::open(path, OpenOptions::new().read(true).write(true), Some(0o644));
            let file = file.map_err(failed())?.into_file();
            match file.try_lock() {
                Ok(()) => {
                    let (ours, there) = (file.metadata().map_err(failed())?, fs::metadata(path));
                    // Another holder may have removed the file in between.
                    if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                        return Ok(Self(file));
                    }
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
            }
            context.cancel.check()?;
            if Instant::now() >= end {
                return Err(Error::TimedOut {
                    what: format!("the lock {BLOCK_LOCK} was not free"),
                    after: BACKEND_TIMEOUT,
                    wait: Wait::BlockLock,
                });
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for BlockLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(BLOCK_LOCK);
        let _ = self.0.unlock();
    }
}
