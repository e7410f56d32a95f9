//! Takes a device away from a guest that runs.

use std::slice;
use std::time::Duration;

use super::attach_device::{check_alive, record};
use crate::context::Context;
use crate::devices::follow::{ask_to_release, wait_released, withdraw};
use crate::devices::remove::remove_at_once;
use crate::domain::devices::ListedDevice;
use crate::domain::libxl_devices;
use crate::error::device::DeviceError;
use crate::error::{Error, Failure};
use crate::stage::Stage;
use crate::xen::DomainInfo;

/// Whether the guest is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// The guest releases the device within this time.
    Asked(Duration),
    /// The device goes at once.
    Forced,
}

/// Detaches a device: the guest releases it, its script runs, its nodes and its place in libxl's configuration go.
///
/// A guest that has not begun to release the device in time keeps it, and the request is withdrawn. (libxl leaves the request
/// there.)
///
/// # Errors
/// [`DeviceError::GuestTimedOut`], [`DeviceError::Stopped`], [`DeviceError::LeftBehind`]; an error of Xen or xenstored.
pub fn detach_device(
    context: &Context<'_>,
    domain: &DomainInfo,
    device: &ListedDevice,
    consent: Consent,
) -> Result<(), Failure> {
    if let Consent::Asked(timeout) = consent {
        context.step(Stage::CheckInput, || check_alive(domain))?;
        release(context, domain, device, timeout)?;
    }
    context.step(Stage::RemoveDevice, || {
        let (domid, cause) = (domain.domid, None);
        remove_at_once(context.store, domid, slice::from_ref(device)).map_err(|problem| DeviceError::LeftBehind {
            domid,
            device: device.label(),
            problem,
            cause,
        })
    })?;
    record(context, domain.held(), |configuration| {
        libxl_devices::remove_device(configuration, &device.kind, device.devid);
    })
}

fn release(
    context: &Context<'_>,
    domain: &DomainInfo,
    device: &ListedDevice,
    timeout: Duration,
) -> Result<(), Failure> {
    let mut request = None;
    let released = context.step::<_, Error>(Stage::WaitDevice, || {
        request = ask_to_release(context, device)?;
        match request {
            Some(_) => wait_released(context, domain.held(), device, timeout),
            None => Ok(()),
        }
    });
    let (Err(failure), Some(request)) = (&released, &request) else { return released };
    context.store.begin_rollback();
    let label = device.label();
    let aftermath = match withdraw(context, device, request) {
        Ok(true) => format!("the request was withdrawn, the guest keeps {label}"),
        Ok(false) => format!("the guest has begun to release {label}, the request stands"),
        Err(error) => format!("the request stands, because {error}"),
    };
    log::info!("{}: {aftermath}", failure.error);
    released.map_err(|failure| Failure { aftermath: Some(aftermath), ..failure })
}
