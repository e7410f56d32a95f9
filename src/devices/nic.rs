//! Network cards: their nodes in xenstore, and how one is plugged into dom0's network.

use super::bridge::{BridgePort, find_bridge};
use super::hotplug::{Hotplug, Script, ScriptClass, check_script, is_stock_bridge, script_path};
use super::xenbus::{self, XenbusDevice};
use crate::config::devices::nic::{MacAddress, Nic};
use crate::error::device::DeviceError;
use crate::memory::Kind;
use crate::xen::DomId;

/// The script of a card that has none of its own, and the bridge of a card that names none (libxl__device_nic_setdefault,
/// tools/libs/light/libxl_nic.c, Xen 4.17).
const VIF_BRIDGE: &str = "vif-bridge";
const DEFAULT_BRIDGE: &str = "xenbr0";

/// The MTU that the guest sees if none was chosen (`LIBXL_DEVICE_NIC_MTU_DEFAULT`).
const DEFAULT_MTU: u32 = 1500;

/// The name of the interface that netback makes for a card.
#[must_use]
pub fn interface_name(domid: DomId, devid: u32) -> String {
    format!("vif{domid}.{devid}")
}

/// Whether a card of a guest has an emulated twin.
#[must_use]
pub fn is_emulated(nic: &Nic, kind: Kind) -> bool {
    kind == Kind::Hvm && nic.emulated.unwrap_or(true)
}

/// The device in xenstore (libxl__set_xenstore_nic, Xen 4.17) and how it is plugged, with its number and address. `tap`: QEMU
/// has a tap device for its emulated twin.
///
/// # Errors
/// [`DeviceError`] if the bridge or the script cannot be used.
pub fn device(
    nic: &Nic,
    devid: u32,
    mac: MacAddress,
    kind: Kind,
    backend: DomId,
    tap: bool,
) -> Result<(XenbusDevice, Hotplug), DeviceError> {
    let script = script_path(nic.script.as_deref().unwrap_or(VIF_BRIDGE));
    let bridge = nic.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE);
    let mut nodes = vec![("script", script.display().to_string())];
    let mut add = |name, value: Option<String>| nodes.extend(value.map(|value| (name, value)));
    add("vifname", nic.vifname.clone());
    add("mac", Some(mac.to_string()));
    add("ip", nic.ip.clone());
    add("gatewaydev", nic.gatewaydev.clone());
    add("rate", nic.rate.filter(|rate| rate.bytes > 0).map(|rate| format!("{},{}", rate.bytes, rate.interval_us)));
    add("mtu", nic.mtu.filter(|mtu| *mtu != DEFAULT_MTU).map(|mtu| mtu.to_string()));
    add("bridge", Some(bridge.to_owned()));
    add("handle", Some(devid.to_string()));
    add("type", Some(if is_emulated(nic, kind) { "vif_ioemu" } else { "vif" }.to_owned()));
    add("hotplug-status", Some(String::new()));
    let trusted = if nic.trusted.unwrap_or(true) { "1" } else { "0" };
    let device = XenbusDevice {
        kind: "vif",
        backend_kind: "vif",
        backend,
        devid,
        backend_nodes: xenbus::nodes(nodes),
        frontend_nodes: xenbus::nodes(vec![
            ("handle", devid.to_string()),
            ("mac", mac.to_string()),
            ("trusted", trusted.to_owned()),
        ]),
        frontend_fixed: xenbus::nodes(vec![("mtu", nic.mtu.unwrap_or(DEFAULT_MTU).to_string())]),
    };
    if backend != DomId::DOM0 {
        return Ok((device, Hotplug::WaitOnly));
    }
    let is_bridge_script = script.file_name().is_some_and(|name| name == VIF_BRIDGE);
    let hotplug = if is_bridge_script && is_stock_bridge(&script) {
        let bridge = find_bridge(devid, bridge)?;
        Hotplug::Bridge(BridgePort { bridge, vifname: nic.vifname.clone(), mtu: nic.mtu, tap })
    } else {
        if is_bridge_script {
            find_bridge(devid, bridge)?;
        }
        check_script(&script).map_err(|source| DeviceError::NoScript {
            device: format!("vif {devid}"),
            script: script.clone(),
            source,
        })?;
        let gatewaydev = Some(nic.gatewaydev.clone().unwrap_or_default());
        Hotplug::Script(Script { path: script, class: ScriptClass::Nic, gatewaydev, tap })
    };
    Ok((device, hotplug))
}
