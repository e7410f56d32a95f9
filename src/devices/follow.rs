//! Waits for a guest that runs: until it has connected a device, or released one.

use std::fmt;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::details::EndState;
use super::xenbus::{kernel_driver, state};
use crate::context::Context;
use crate::domain::devices::ListedDevice;
use crate::error::Error;
use crate::error::device::{DeviceError, GuestPart};
use crate::os::Untrusted;
use crate::xen::{DomId, DomainRef, Transaction, XenError};

/// The longest wait between two looks at the domain itself.
const POLL: Duration = Duration::from_millis(250);

/// Waits until both ends of a device are connected.
///
/// # Errors
/// [`DeviceError::GuestTimedOut`]; [`DeviceError::Stopped`] if the guest stops meanwhile; [`Error::Interrupted`].
pub fn wait_connected(
    context: &Context<'_>,
    domain: DomainRef,
    device: &ListedDevice,
    timeout: Duration,
) -> Result<(), Error> {
    wait(context, domain, device, GuestPart::Connect, timeout)
}

/// What was asked of a guest, and the states before.
#[derive(Debug)]
pub struct Request {
    frontend: EndState,
    backend: String,
}

/// Asks a guest to release a device, as libxl does (`libxl__initiate_device_generic_remove`,
/// tools/libs/light/libxl_device.c, Xen 4.17). `None`: the backend is gone already.
///
/// # Errors
/// An error of xenstored.
pub fn ask_to_release(context: &Context<'_>, device: &ListedDevice) -> Result<Option<Request>, XenError> {
    context.store.transaction(|transaction| {
        let Ends { frontend, backend: EndState(Some(backend)) } = Ends::read(transaction, device)? else {
            return Ok(None);
        };
        transaction.write(&format!("{}/online", device.backend), "0")?;
        transaction.write(&format!("{}/state", device.backend), state::CLOSING)?;
        Ok(Some(Request { frontend, backend }))
    })
}

/// Waits until the backend has closed, which it does when the guest has released the device.
///
/// # Errors
/// As [`wait_connected`].
pub fn wait_released(
    context: &Context<'_>,
    domain: DomainRef,
    device: &ListedDevice,
    timeout: Duration,
) -> Result<(), Error> {
    wait(context, domain, device, GuestPart::Release, timeout)
}

/// Withdraws a request that the guest has not followed. False if the guest has begun to follow it: the request then stands.
///
/// # Errors
/// An error of xenstored.
pub fn withdraw(context: &Context<'_>, device: &ListedDevice, request: &Request) -> Result<bool, XenError> {
    context.store.transaction(|transaction| {
        let ends = Ends::read(transaction, device)?;
        let untouched = ends.frontend == request.frontend && ends.backend.is(state::CLOSING);
        if untouched {
            transaction.write(&format!("{}/state", device.backend), &request.backend)?;
            transaction.write(&format!("{}/online", device.backend), "1")?;
        }
        Ok(untouched)
    })
}

/// The states of the two ends of a device.
struct Ends {
    frontend: EndState,
    backend: EndState,
}

impl Ends {
    fn read(transaction: &Transaction<'_>, device: &ListedDevice) -> Result<Self, XenError> {
        let paths = [format!("{}/state", device.frontend), format!("{}/state", device.backend)];
        let [frontend, backend] = transaction.read_all(&paths)?.try_into().unwrap_or_default();
        Ok(Self { frontend: EndState(frontend), backend: EndState(backend) })
    }

    fn are_done(&self, part: GuestPart) -> bool {
        match part {
            GuestPart::Connect => self.frontend.is(state::CONNECTED) && self.backend.is(state::CONNECTED),
            GuestPart::Release => self.backend.0.is_none() || self.backend.is(state::CLOSED),
        }
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest's end is {}, the backend's is {}", self.frontend, self.backend)
    }
}

fn wait(
    context: &Context<'_>,
    domain: DomainRef,
    device: &ListedDevice,
    part: GuestPart,
    timeout: Duration,
) -> Result<(), Error> {
    for end in [&device.frontend, &device.backend] {
        match context.store.watch(&format!("{end}/state")) {
            // The attachment of the device watches its backend already.
            Err(error) if error.errno == Some(Errno::EEXIST) => {}
            watched => watched?,
        }
    }
    let end = Instant::now() + timeout;
    loop {
        let ends = Ends::read(&context.store.plain(), device)?;
        if ends.are_done(part) {
            return Ok(());
        }
        context.cancel.check()?;
        let info = context.xen.find(domain)?.filter(|info| !info.dying && info.shutdown.is_none());
        let Some(info) = info else { return Err(DeviceError::Stopped { domid: domain.domid }.into()) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() && part == GuestPart::Release && ends.frontend.is(state::CLOSED) {
            let (device, server) = (device.label(), server_of(device));
            return Err(DeviceError::BackendTimedOut { domid: domain.domid, device, server, after: timeout }.into());
        }
        if left.is_zero() {
            return Err(DeviceError::GuestTimedOut {
                domid: domain.domid,
                device: device.label(),
                part,
                ends: Untrusted::from(ends.to_string()),
                paused: info.paused,
                after: timeout,
            }
            .into());
        }
        context.store.wait(left.min(POLL))?;
    }
}

/// What serves a device, for people.
fn server_of(device: &ListedDevice) -> String {
    match (device.backend_domid, device.backend_kind.as_str()) {
        (DomId::DOM0, "qdisk") => "a QEMU".to_owned(),
        (DomId::DOM0, kind) if kernel_driver(kind).is_some() => "dom0's kernel".to_owned(),
        (DomId::DOM0, _) => "a program in dom0".to_owned(),
        (domid, _) => format!("domain {domid}"),
    }
}
