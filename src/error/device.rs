//! Why a device cannot be given to a guest.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use super::monitor::MonitorError;
use crate::os::Untrusted;
use crate::xen::DomId;

/// Why a device cannot be given to a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The kernel of dom0 has no driver for the backend.
    #[error("dom0's kernel has no backend for {kind} devices (/sys/bus/xen-backend/drivers/{kind})")]
    NoBackendDriver {
        /// The class of the device in xenstore, as in `vbd`.
        kind: &'static str,
        /// The module that has the driver.
        module: &'static str,
    },
    /// The image of a disk cannot be opened.
    #[error("disk {vdev}: cannot open {path}: {source}")]
    Open {
        /// The disk.
        vdev: String,
        /// The file or block device.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The image of a disk is neither a file nor a block device.
    #[error("disk {vdev}: {path} is a {is}, and a disk is a file or a block device")]
    NotADisk {
        /// The disk.
        vdev: String,
        /// The path.
        path: PathBuf,
        /// What it is.
        is: &'static str,
    },
    /// The image of a disk is empty.
    #[error("disk {vdev}: {path} has a size of 0")]
    EmptyDisk {
        /// The disk.
        vdev: String,
        /// The path.
        path: PathBuf,
    },
    /// Only a QEMU can serve the device, and the guest has none that can.
    #[error("{device}: only QEMU can serve it, and the guest's QEMU does not")]
    NoQemu {
        /// The device.
        device: String,
        /// It is a disk, which a QEMU without rights on xenstore emulates at some places.
        is_disk: bool,
    },
    /// QEMU's monitor refused or lost a command for the device.
    #[error("{device}: {error}")]
    Monitor {
        /// The device.
        device: String,
        /// What happened.
        error: MonitorError,
    },
    /// The directory of a share cannot be used.
    #[error("share {tag}: {path} cannot be used: {source}")]
    Share {
        /// The tag of the share.
        tag: String,
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Something is at the place of a channel's socket.
    #[error("channel {name}: {path} exists, and QEMU would make its socket there")]
    SocketTaken {
        /// The channel.
        name: String,
        /// The path.
        path: PathBuf,
    },
    /// The image is in use.
    #[error("disk {vdev}: {path} is in use: {user}")]
    InUse {
        /// The disk.
        vdev: String,
        /// The path.
        path: PathBuf,
        /// Who uses it.
        user: DiskUser,
    },
    /// There is no such bridge.
    #[error("network card {devid}: dom0 has no bridge {bridge:?}")]
    NoBridge {
        /// The card.
        devid: u32,
        /// The name of the bridge.
        bridge: String,
    },
    /// The interface of this name is not a bridge.
    #[error("network card {devid}: the interface {name:?} is not a bridge")]
    NotABridge {
        /// The card.
        devid: u32,
        /// The name of the interface.
        name: String,
    },
    /// An interface has the name that the card's interface is to have.
    #[error("network card {devid}: dom0 has an interface {name:?} already")]
    InterfaceTaken {
        /// The card.
        devid: u32,
        /// The name.
        name: String,
    },
    /// The hotplug script does not exist or cannot be executed.
    #[error("device {device}: the hotplug script {script} cannot be used: {source}")]
    NoScript {
        /// The device, as in `vif 0`.
        device: String,
        /// The path of the script.
        script: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The hotplug script failed.
    #[error(
        "device {device}: the hotplug script {script} {action} failed ({status}){}",
        says.as_ref().map(|says| format!(", its last words: {says:?}")).unwrap_or_default()
    )]
    Script {
        /// The device, as in `vif 0`.
        device: String,
        /// The path of the script.
        script: PathBuf,
        /// The action, as in `add`.
        action: String,
        /// Its exit status.
        status: String,
        /// What it wrote to `hotplug-error`, or last to its output.
        says: Option<Untrusted>,
    },
    /// The hotplug script did not end in time, and was killed.
    #[error(
        "device {device}: the hotplug script {script} {action} did not end within {} seconds{}", after.as_secs(),
        says.as_ref().map(|says| format!(", its last words: {says:?}")).unwrap_or_default()
    )]
    ScriptTimedOut {
        /// The device, as in `vif 0`.
        device: String,
        /// The path of the script.
        script: PathBuf,
        /// The action, as in `add`.
        action: String,
        /// What it wrote to `hotplug-error`, or last to its output.
        says: Option<Untrusted>,
        /// The time limit.
        after: Duration,
    },
    /// A system call for the device failed.
    #[error("device {device}: cannot {action}: {source}")]
    System {
        /// The device, as in `vbd 51712`.
        device: String,
        /// What failed, as in `make a loop device of /srv/a.img`.
        action: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The backend reported an error.
    #[error("device {device}: its backend refuses it: {says:?}")]
    Backend {
        /// The device, as in `vbd 51712`.
        device: String,
        /// The text of the backend.
        says: Untrusted,
    },
    /// The backend, or the script, did not become ready.
    #[error("device {device}: {what} within {} seconds (its backend's state is {state})", after.as_secs())]
    TimedOut {
        /// The device, as in `vbd 51712`.
        device: String,
        /// What did not happen.
        what: String,
        /// The state of the backend.
        state: Untrusted,
        /// The time limit.
        after: Duration,
    },
    /// The guest has a device of that class and number.
    #[error("the guest has a {device} already")]
    NumberTaken {
        /// The device, as in `vbd 51712`.
        device: String,
    },
    /// A network card of the guest has the address.
    #[error("the guest's {device} has the address {mac} already")]
    MacTaken {
        /// The card that has it.
        device: String,
        /// The address.
        mac: String,
    },
    /// The guest has network cards of all numbers.
    #[error("the guest has {most} network cards, which is the most")]
    TooManyNics {
        /// The most network cards.
        most: u32,
    },
    /// The device cannot be attached to a guest that runs.
    #[error("{device} cannot be attached to a guest that exists: {reason}")]
    NotHotplugged {
        /// The device, as in `disk xvdb`.
        device: String,
        /// Why not.
        reason: &'static str,
    },
    /// The guest has no such device.
    #[error("domain {domid} has no {device}")]
    NoSuchDevice {
        /// The domain.
        domid: DomId,
        /// The device, as in `disk xvdb`.
        device: String,
    },
    /// The domain has stopped, so that it cannot connect or release a device.
    #[error("domain {domid} has stopped")]
    Stopped {
        /// The domain.
        domid: DomId,
    },
    /// The guest did not do its part.
    #[error(
        "domain {domid} has not {part} {device} within {} seconds ({ends})",
        after.as_secs()
    )]
    GuestTimedOut {
        /// The domain.
        domid: DomId,
        /// The device, as in `vbd 51712`.
        device: String,
        /// What it did not do.
        part: GuestPart,
        /// The states of both ends, for people.
        ends: Untrusted,
        /// Whether the domain is paused, and so cannot.
        paused: bool,
        /// The time limit.
        after: Duration,
    },
    /// The guest has released a device, and its backend has not closed.
    #[error(
        "the backend of {device} of domain {domid}, served by {server}, has not closed within {} seconds, although the guest \
         has released it",
        after.as_secs()
    )]
    BackendTimedOut {
        /// The domain.
        domid: DomId,
        /// The device, as in `vbd 51712`.
        device: String,
        /// What serves it.
        server: String,
        /// The time limit.
        after: Duration,
    },
    /// A device could not be taken away.
    #[error("{device} of domain {domid} was left behind, because {problem}{}",
        cause.as_ref().map(|cause| format!(" (first error: {cause})")).unwrap_or_default())]
    LeftBehind {
        /// The domain.
        domid: DomId,
        /// The device, as in `vbd 51712`.
        device: String,
        /// Why it could not be removed.
        problem: String,
        /// The error that led to the removal. `None` if the user asked for the removal.
        cause: Option<Box<Failure>>,
    },
    /// There is no domain of this name to serve the device.
    #[error("device {device}: there is no domain {name:?} to serve it")]
    NoBackendDomain {
        /// The device.
        device: String,
        /// The name.
        name: String,
    },
}

/// The part of a guest when a device comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestPart {
    /// It connects the device.
    Connect,
    /// It releases the device.
    Release,
}

impl fmt::Display for GuestPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connected",
            Self::Release => "released",
        })
    }
}

/// Who uses the image of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskUser {
    /// dom0 has mounted it at this path.
    Mounted(Untrusted),
    /// Another disk of the same guest has it.
    SameGuest(String),
    /// A guest has it.
    Guest {
        /// The guest.
        domid: DomId,
        /// It may write.
        writable: bool,
    },
    /// A QEMU, or another program that locks images as QEMU does, has opened it.
    Qemu {
        /// The process, if it is known.
        pid: Option<i32>,
        /// It may write.
        writable: bool,
    },
}

impl fmt::Display for DiskUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = |writable: &bool| if *writable { "for writing" } else { "for reading" };
        match self {
            Self::Mounted(path) => write!(f, "dom0 has mounted it at {path:?}"),
            Self::SameGuest(disk) => write!(f, "{disk} of this guest has it, too"),
            Self::Guest { domid, writable } => write!(f, "domain {domid} has it {}", how(writable)),
            Self::Qemu { pid: Some(pid), writable } => write!(f, "process {pid} (QEMU) has it {}", how(writable)),
            Self::Qemu { pid: None, writable } => write!(f, "a QEMU has it {}", how(writable)),
        }
    }
}
