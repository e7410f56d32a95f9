//! Detaches devices from a domain, whoever attached them: closes their backends, runs their scripts, removes their nodes.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::block::kernel_backend;
use super::channel::remove_socket;
use super::hotplug::{Script, ScriptClass, script_path};
use super::script::{Action, Call, run_all};
use super::xenbus::{error_directory, kernel_driver, state};
use crate::domain::devices::ListedDevice;
use crate::domain::paths::XenstorePaths;
use crate::error::device::DeviceError;
use crate::xen::{DomId, Store, Transaction, XenError};

/// How long a backend may take to close (`LIBXL_DESTROY_TIMEOUT`, Xen 4.17).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the script of a removed device may take (`LIBXL_HOTPLUG_TIMEOUT`, Xen 4.17).
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(40);

const POLL: Duration = Duration::from_millis(2);

/// Removes devices of a domain, such as one that no longer runs. The guest is not asked.
///
/// # Errors
/// Everything that could not be removed, in one sentence. The failure of a script is logged only, as in libxl.
pub fn remove_at_once(store: &Store, domid: DomId, devices: &[ListedDevice]) -> Result<(), String> {
    if devices.is_empty() {
        return Ok(());
    }
    let text = |error: XenError| error.to_string();
    store.transaction(|transaction| close(transaction, devices)).map_err(text)?;
    let mut problems = wait_closed(domid, devices);
    run_scripts(domid, devices);
    for device in devices.iter().filter(|device| device.kind == "console") {
        if let Some(path) = &device.path {
            remove_socket(Path::new(path));
        }
    }
    let removed =
        store.transaction(|transaction| devices.iter().try_for_each(|device| remove_nodes(transaction, domid, device)));
    problems.extend(removed.map_err(text).err());
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Tells the backends to close: the frontend goes first, so that they do not wait for it.
fn close(transaction: &Transaction<'_>, devices: &[ListedDevice]) -> Result<(), XenError> {
    for device in devices {
        transaction.remove(&device.frontend)?;
        if transaction.read(&format!("{}/state", device.backend))?.is_some() {
            transaction.write(&format!("{}/online", device.backend), "0")?;
            transaction.write(&format!("{}/state", device.backend), state::CLOSING)?;
        }
    }
    Ok(())
}

/// Waits until dom0's kernel has closed its backends. What remains of them after the deadline is returned.
fn wait_closed(domid: DomId, devices: &[ListedDevice]) -> Vec<String> {
    let ours = devices.iter().filter(|device| device.backend_domid == DomId::DOM0);
    let ours = ours.filter(|device| kernel_driver(&device.backend_kind).is_some());
    let mut open: Vec<_> =
        ours.map(|device| (device, kernel_backend(&device.backend_kind, domid, device.devid))).collect();
    let end = Instant::now() + CLOSE_TIMEOUT;
    loop {
        open.retain(|(_, backend)| backend.exists() && !is_closed(backend));
        if open.is_empty() {
            return Vec::new();
        }
        if Instant::now() >= end {
            let after = CLOSE_TIMEOUT.as_secs();
            let text = |device: &ListedDevice| {
                format!("the backend of its {} {} has not closed within {after} s", device.kind, device.devid)
            };
            return open.iter().map(|(device, _)| text(device)).collect();
        }
        thread::sleep(POLL);
    }
}

/// Whether a backend has closed; the kernel keeps its device until the nodes are gone.
fn is_closed(backend: &Path) -> bool {
    fs::read_to_string(backend.join("state")).is_ok_and(|state| state.trim() == "Closed")
}

/// Runs the scripts of the devices that a script has plugged.
fn run_scripts(domid: DomId, devices: &[ListedDevice]) {
    let plugged = devices.iter().filter(|device| !device.native && device.backend_domid == DomId::DOM0);
    let scripts: Vec<_> = plugged
        .filter_map(|device| {
            let class = match device.kind.as_str() {
                "vbd" => ScriptClass::Disk,
                "vif" => ScriptClass::Nic,
                _ => return None,
            };
            let path = script_path(device.script.as_deref()?);
            Some((device, Script { path, class, gatewaydev: device.gatewaydev.clone(), tap: false }))
        })
        .collect();
    let calls: Vec<_> = scripts
        .iter()
        .map(|(device, script)| Call {
            script,
            action: Action::Unplug,
            domid,
            backend_kind: &device.backend_kind,
            devid: device.devid,
        })
        .collect();
    let failed = |error: &DeviceError| log::warn!("{error}");
    match run_all(&calls, SCRIPT_TIMEOUT, || Ok::<_, DeviceError>(())) {
        Ok(outcomes) => {
            for (call, outcome) in calls.iter().zip(outcomes) {
                outcome.check(call, None, SCRIPT_TIMEOUT).unwrap_or_else(|error| failed(&error));
            }
        }
        Err(error) => failed(&error),
    }
}

/// Removes the nodes of a device, and directories that it leaves empty.
fn remove_nodes(transaction: &Transaction<'_>, domid: DomId, device: &ListedDevice) -> Result<(), XenError> {
    let keys = XenstorePaths::new(domid);
    for path in [
        device.frontend.clone(),
        device.backend.clone(),
        format!("{}/device/{}/{}", keys.libxl, device.kind, device.devid),
    ] {
        transaction.remove(&path)?;
    }
    // vif-bridge takes the name of the interface for a domid and writes the MTU there.
    if let Some(name) = device.vifname.as_deref().filter(|name| is_stray(name)) {
        transaction.remove(&format!("/local/domain/{name}"))?;
    }
    // A kernel that has reported an error has made all of these.
    let errors = error_directory(device.backend_domid, &device.backend_kind, domid, device.devid);
    if transaction.read(&errors)?.is_some() {
        transaction.remove(&errors)?;
        let home = format!("/local/domain/{}/error", device.backend_domid);
        let kind = format!("{home}/backend/{}", device.backend_kind);
        remove_empty(transaction, [format!("{kind}/{domid}"), kind, format!("{home}/backend"), home])?;
    }
    // As libxl does (`libxl__xs_path_cleanup`, tools/libs/light/libxl_xshelp.c, Xen 4.17).
    let class = format!("device/{}", device.kind);
    for directory in [keys.of_domain(&class), format!("{}/{class}", keys.libxl)] {
        remove_empty(transaction, [directory])?;
    }
    let backends = format!("/local/domain/{}/backend/{}", device.backend_domid, device.backend_kind);
    remove_empty(transaction, [format!("{backends}/{domid}"), backends])
}

/// Removes directories, each in the next one, up to the first that is not empty.
fn remove_empty(transaction: &Transaction<'_>, directories: impl IntoIterator<Item = String>) -> Result<(), XenError> {
    for directory in directories {
        if !transaction.children(&directory)?.is_empty() {
            break;
        }
        transaction.remove(&directory)?;
    }
    Ok(())
}

/// Whether a name is that of an interface and of no domain.
fn is_stray(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name.bytes().any(|byte| !byte.is_ascii_digit())
}
