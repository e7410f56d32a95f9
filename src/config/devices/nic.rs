//! A network card of a guest.

use std::fmt;

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its number among the guest's cards, if it was chosen.
    pub devid: Option<u32>,
    /// Its address; `None`: a random one.
    pub mac: Option<MacAddress>,
    /// The bridge in the backend's domain, if it was chosen.
    pub bridge: Option<String>,
    /// The hotplug script, if it was chosen: a name in the directory of Xen's scripts, or a path.
    pub script: Option<String>,
    /// The addresses that the guest may use, as the script takes them.
    pub ip: Option<String>,
    /// The name of the interface in the backend's domain, if it was chosen.
    pub vifname: Option<String>,
    /// The limit of what the guest sends.
    pub rate: Option<Rate>,
    /// The largest packet, in bytes, if it was chosen.
    pub mtu: Option<u32>,
    /// The gateway's interface, for `vif-route`.
    pub gatewaydev: Option<String>,
    /// The emulated card of an HVM guest, as QEMU names it, if it was chosen.
    pub model: Option<String>,
    /// Whether there is an emulated card, if it was chosen. `None`: for an HVM guest that is created.
    pub emulated: Option<bool>,
    /// The driver domain that serves the card; `None`: dom0.
    pub backend_domain: Option<String>,
    /// The guest trusts the backend. `None`: yes.
    pub trusted: Option<bool>,
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The limit of what a guest sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes in each interval.
    pub bytes: u64,
    /// The interval, in microseconds.
    pub interval_us: u32,
}
