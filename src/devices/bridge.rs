//! Makes the interface of a network card a port of a bridge, as Xen's script `vif-bridge` does.

use std::io;

use crate::error::device::DeviceError;
use crate::os::network_interface::NetworkInterface;

/// The address of every port: the largest one that is no group address, so that the bridge never takes it for its own.
const PORT_ADDRESS: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

/// The port of a network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgePort {
    /// The bridge.
    pub bridge: NetworkInterface,
    /// The name that the interface gets, if not its own.
    pub vifname: Option<String>,
    /// Its MTU in bytes; `None`: the bridge's.
    pub mtu: Option<u32>,
    /// The card has an emulated twin, whose tap device becomes a port as well.
    pub tap: bool,
}

/// Finds a bridge by name. The script takes `ethN` for a missing `xenbrN`, which hosts of Xen 3 have.
///
/// # Errors
/// [`DeviceError`] if there is no such bridge.
pub(crate) fn find_bridge(devid: u32, name: &str) -> Result<NetworkInterface, DeviceError> {
    let old = || {
        let number = name.strip_prefix("xenbr")?;
        NetworkInterface::find(&format!("eth{number}")).filter(NetworkInterface::is_bridge)
    };
    let Some(found) = NetworkInterface::find(name).or_else(old) else {
        return Err(DeviceError::NoBridge { devid, bridge: name.to_owned() });
    };
    if !found.is_bridge() {
        return Err(DeviceError::NotABridge { devid, name: name.to_owned() });
    }
    Ok(found)
}

impl BridgePort {
    /// Makes an interface a port of the bridge: named, with the port's address and MTU, and up. Returns the MTU.
    ///
    /// # Errors
    /// [`DeviceError::InterfaceTaken`]; [`DeviceError::System`].
    pub(crate) fn connect(
        &self,
        mut interface: NetworkInterface,
        name: Option<&str>,
        devid: u32,
    ) -> Result<u32, DeviceError> {
        let failed = |action: &str, interface: &NetworkInterface| {
            let (device, action) = (format!("vif {devid}"), format!("{action} of {}", interface.name()));
            move |source| DeviceError::System { device, action, source }
        };
        if let Some(name) = name {
            interface.rename(name).map_err(|error| match error.raw_os_error() {
                Some(libc::EEXIST) => DeviceError::InterfaceTaken { devid, name: name.to_owned() },
                _ => failed("change the name", &interface)(error),
            })?;
        }
        let mtu = self.mtu.map_or_else(|| self.bridge.mtu(), Ok).map_err(failed("read the MTU", &self.bridge))?;
        interface.set_up(false).map_err(failed("stop the interface", &interface))?;
        interface.set_address(PORT_ADDRESS).map_err(failed("set the address", &interface))?;
        interface.set_mtu(mtu).map_err(failed("set the MTU", &interface))?;
        match self.bridge.add_port(&interface) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && self.has(&interface) => {}
            added => added.map_err(failed("make a port", &interface))?,
        }
        interface.set_up(true).map_err(failed("start the interface", &interface))?;
        if !self.has(&interface) {
            let gone = io::Error::other(format!("it is no port of {}", self.bridge.name()));
            return Err(failed("make a port", &interface)(gone));
        }
        Ok(mtu)
    }

    fn has(&self, interface: &NetworkInterface) -> bool {
        interface.bridge().as_deref() == Some(self.bridge.name())
    }
}
