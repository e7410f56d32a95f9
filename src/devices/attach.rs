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
use super::hotplug::Hotplug;
use super::image::OpenImage;
use super::nic::interface_name;
use super::plan::PlannedDevice;
use super::script::{Action, Call, run_all};
use super::sharing::user_of;
use super::xenbus::{DevicePaths, XenbusDevice, error_directory, state};
use crate::config::devices::nic::Nic;
use crate::context::Context;
use crate::domain::devices::{NATIVE_NODE, RUN_NODE};
use crate::error::device::DeviceError;
use crate::error::{Error, Failure, Wait};
use crate::os::network_interface::NetworkInterface;
use crate::os::{Untrusted, shared_file};
use crate::qemu::devices::tap_name;
use crate::stage::Stage;
use crate::xen::{DomId, Store, XenError};

/// How long dom0's kernel may take to make a backend, and to open its block device (`LIBXL_INIT_TIMEOUT`, Xen 4.17). It makes
/// one after the other, so that each has this time after the one before it.
const BACKEND_TIMEOUT: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(1);

/// The lock of Xen's script `block` (tools/hotplug/Linux/locking.sh): while it is held, no other program gives out images.
const BLOCK_LOCK: &str = "/run/xen-hotplug/block";

/// Attaches the devices, with the mark of this run if it adds them to a guest that exists. Each script may take
/// `script_timeout`.
///
/// # Errors
/// [`DeviceError`] with the device and what its backend or script reports. Everything that was done stays for
/// [`super::remove`].
pub fn attach(
    context: &Context<'_>,
    domid: DomId,
    devices: &[PlannedDevice],
    mark: Option<&str>,
    script_timeout: Duration,
) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    context.step(Stage::Devices, || {
        context.store.transaction(|transaction| {
            for planned in devices {
                let DevicePaths { frontend, backend, libxl } = planned.device.paths(domid);
                // Another program may have attached one since the checks.
                if mark.is_some() && transaction.read_all(&[&frontend, &backend, &libxl])?.iter().any(Option::is_some) {
                    return Err(DeviceError::NumberTaken { device: planned.device.label() }.into());
                }
                planned.device.write(transaction, domid)?;
                if !matches!(planned.hotplug, Hotplug::Script(_)) {
                    transaction.write(&format!("{libxl}/{NATIVE_NODE}"), "")?;
                }
                if let Some(mark) = mark {
                    transaction.write(&format!("{libxl}/{RUN_NODE}"), mark)?;
                }
            }
            Ok::<_, Error>(())
        })?;
        wait_for_backends(context, domid, devices)?;
        wait_for_interfaces(context, domid, devices)?;
        plug_blocks(context, domid, devices)?;
        plug_bridges(context, domid, devices)?;
        run_scripts(context, domid, devices, script_timeout)
    })
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
        let Some((device, _)) = waiting.first() else { return Ok(()) };
        if waiting.len() < count {
            end = Instant::now() + BACKEND_TIMEOUT;
        }
        check_error(context.store, domid, device)?;
        context.cancel.check()?;
        if Instant::now() >= end {
            return Err(DeviceError::TimedOut {
                device: device.label(),
                what: match device.backend {
                    DomId::DOM0 => "its backend did not get ready".to_owned(),
                    other => format!("its backend in domain {other} did not get ready"),
                },
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
        wait_until(context, domid, card, "its backend did not make an interface", || {
            NetworkInterface::find(&interface_name(domid, card.devid)).is_some()
        })?;
    }
    Ok(())
}

/// Waits until dom0's kernel has done its part for a device whose backend is ready.
fn wait_until(
    context: &Context<'_>,
    domid: DomId,
    device: &XenbusDevice,
    what: &str,
    done: impl Fn() -> bool,
) -> Result<(), Error> {
    let end = Instant::now() + BACKEND_TIMEOUT;
    while !done() {
        check_error(context.store, domid, device)?;
        context.cancel.check()?;
        if Instant::now() >= end {
            return Err(DeviceError::TimedOut {
                device: device.label(),
                what: what.to_owned(),
                state: Untrusted::from(state::INIT_WAIT),
                after: BACKEND_TIMEOUT,
            }
            .into());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Fails if the kernel has reported an error of the backend.
fn check_error(store: &Store, domid: DomId, device: &XenbusDevice) -> Result<(), Error> {
    let errors = error_directory(device.backend, device.backend_kind, domid, device.devid);
    match store.plain().read(&format!("{errors}/error"))? {
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
    for (device, image) in &blocks {
        if let Some(user) = user_of(context.store, image, &device.label())? {
            return Err(DeviceError::InUse { vdev: image.vdev.clone(), path: image.path.clone(), user }.into());
        }
        opened.push((*device, BlockDevice::of(image, &device.label())?));
    }
    context.store.transaction(|transaction| {
        opened.iter().try_for_each(|(device, block)| block.publish(transaction, &device.paths(domid).backend))
    })?;
    for (device, _) in &opened {
        let directory = kernel_backend("vbd", domid, device.devid);
        wait_until(context, domid, device, "its backend did not open the image", || is_open(&directory))?;
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
        let interface = find_interface(device, &interface_name(domid, device.devid))?;
        mtus.push(port.connect(interface, port.vifname.as_deref(), device.devid)?);
        if port.tap {
            let tap = find_interface(device, &tap_name(domid, device.devid))?;
            let name = port.vifname.as_ref().map(|name| format!("{name}{}", Nic::EMULATED_SUFFIX));
            port.connect(tap, name.as_deref(), device.devid)?;
        }
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

fn find_interface(device: &XenbusDevice, name: &str) -> Result<NetworkInterface, DeviceError> {
    NetworkInterface::find(name).ok_or_else(|| DeviceError::System {
        device: device.label(),
        action: format!("find the interface {name}"),
        source: Errno::ENODEV.into(),
    })
}

/// Runs the scripts of the devices that have one: all at once, then those of the tap devices.
fn run_scripts(context: &Context<'_>, domid: DomId, devices: &[PlannedDevice], timeout: Duration) -> Result<(), Error> {
    for action in [Action::Plug, Action::PlugTap] {
        let calls = devices.iter().filter_map(|planned| match &planned.hotplug {
            Hotplug::Script(script) if action == Action::Plug || script.tap => {
                let (backend_kind, devid) = (planned.device.backend_kind, planned.device.devid);
                Some(Call { script, action, domid, backend_kind, devid })
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
