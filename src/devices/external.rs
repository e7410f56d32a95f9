//! Devices that neither dom0's kernel nor a QEMU serves: virtual TPMs, displays, sound cards and PV calls. A program in dom0 or
//! another domain has their backends. dom0 writes their nodes.

use super::hotplug::Hotplug;
use super::xenbus::{Nodes, XenbusDevice, nodes};
use crate::config::devices::pvcalls::PvCalls;
use crate::config::devices::set::Devices;
use crate::config::devices::sound::{SoundCard, SoundParams};
use crate::config::devices::vdispl::Vdispl;
use crate::config::devices::vtpm::Vtpm;
use crate::xen::DomId;

/// One of these devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalDevice<'a> {
    /// PV calls.
    PvCalls(&'a PvCalls),
    /// A virtual TPM.
    Vtpm(&'a Vtpm),
    /// A display.
    Vdispl(&'a Vdispl),
    /// A sound card.
    SoundCard(&'a SoundCard),
}

/// Those of a guest in libxl's order, each with its number in its class.
pub fn numbered(devices: &Devices) -> impl Iterator<Item = (u32, ExternalDevice<'_>)> {
    let pvcalls = (0..).zip(devices.pvcalls.iter().map(ExternalDevice::PvCalls));
    let vtpms = (0..).zip(devices.vtpms.iter().map(ExternalDevice::Vtpm));
    let vdispls = (0..).zip(devices.vdispls.iter().map(ExternalDevice::Vdispl));
    let sound_cards = (0..).zip(devices.sound_cards.iter().map(ExternalDevice::SoundCard));
    pvcalls.chain(vtpms).chain(vdispls).chain(sound_cards)
}

impl<'a> ExternalDevice<'a> {
    /// The class of both ends in xenstore.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PvCalls(_) => "pvcalls",
            Self::Vtpm(_) => "vtpm",
            Self::Vdispl(_) => "vdispl",
            Self::SoundCard(_) => "vsnd",
        }
    }

    /// The name or number of the domain that serves it; `None`: dom0.
    #[must_use]
    pub fn backend_domain(&self) -> Option<&'a str> {
        match self {
            Self::PvCalls(pvcalls) => pvcalls.backend_domain.as_deref(),
            Self::Vtpm(vtpm) => vtpm.backend_domain.as_deref(),
            Self::Vdispl(vdispl) => vdispl.backend_domain.as_deref(),
            Self::SoundCard(card) => card.backend_domain.as_deref(),
        }
    }

    /// What dom0 does. As libxl, it waits for every backend, except that of PV calls (`libxl__device_add_async` and
    /// `libxl__device_add`, tools/libs/light/libxl_device.c, Xen 4.17).
    #[must_use]
    pub const fn hotplug(&self) -> Hotplug {
        match self {
            Self::PvCalls(_) => Hotplug::None,
            Self::Vtpm(_) | Self::Vdispl(_) | Self::SoundCard(_) => Hotplug::WaitOnly,
        }
    }

    /// The device in xenstore (libxl_vtpm.c, libxl_vdispl.c, libxl_vsnd.c and libxl_pvcalls.c in tools/libs/light, Xen 4.17).
    #[must_use]
    pub fn device(&self, devid: u32, backend: DomId) -> XenbusDevice {
        let mut device = XenbusDevice {
            kind: self.kind(),
            backend_kind: self.kind(),
            backend,
            devid,
            backend_nodes: Nodes::new(),
            frontend_nodes: Nodes::new(),
            frontend_fixed: Nodes::new(),
        };
        match self {
            Self::PvCalls(_) => {}
            Self::Vtpm(vtpm) => {
                let handle = || ("handle", devid.to_string());
                let uuid = vtpm.uuid.unwrap_or_default();
                device.backend_nodes =
                    nodes(vec![handle(), ("uuid", uuid.to_string()), ("resume", "False".to_owned())]);
                device.frontend_nodes = nodes(vec![handle()]);
            }
            Self::Vdispl(vdispl) => device.frontend_fixed = display_nodes(vdispl),
            Self::SoundCard(card) => device.frontend_nodes = sound_nodes(card),
        }
        device
    }
}

fn display_nodes(vdispl: &Vdispl) -> Nodes {
    let mut found = nodes(vec![("be-alloc", if vdispl.backend_allocates { "1" } else { "0" }.to_owned())]);
    for (index, connector) in vdispl.connectors.iter().enumerate() {
        found.push((format!("{index}/resolution").into(), format!("{}x{}", connector.width, connector.height)));
        found.push((format!("{index}/unique-id").into(), connector.unique_id.clone()));
    }
    found
}

fn sound_nodes(card: &SoundCard) -> Nodes {
    let mut found = Nodes::new();
    add(&mut found, "", "long-name", card.long_name.clone());
    add(&mut found, "", "short-name", card.short_name.clone());
    add_params(&mut found, "", &card.params);
    for (index, pcm) in card.pcms.iter().enumerate() {
        let directory = format!("{index}/");
        add(&mut found, &directory, "name", pcm.name.clone());
        add_params(&mut found, &directory, &pcm.params);
        for (index, stream) in pcm.streams.iter().enumerate() {
            let directory = format!("{directory}{index}/");
            add(&mut found, &directory, "unique-id", stream.unique_id.clone());
            add(&mut found, &directory, "type", stream.direction.map(|direction| direction.as_str().to_owned()));
            add_params(&mut found, &directory, &stream.params);
        }
    }
    found
}

fn add_params(found: &mut Nodes, directory: &str, params: &SoundParams) {
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
    let rates = params.sample_rates.iter().map(u32::to_string).collect();
    let formats = params.sample_formats.iter().map(|format| (*format).to_owned()).collect();
    for (name, value) in [
        ("sample-rates", list(rates)),
        ("sample-formats", list(formats)),
        ("channels-min", params.channels_min.map(|channels| channels.to_string())),
        ("channels-max", params.channels_max.map(|channels| channels.to_string())),
        ("buffer-size", params.buffer_size.map(|bytes| bytes.to_string())),
    ] {
        add(found, directory, name, value);
    }
}

fn add(found: &mut Nodes, directory: &str, name: &str, value: Option<String>) {
    found.extend(value.map(|value| (format!("{directory}{name}").into(), value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(nodes: &Nodes) -> Vec<String> {
        nodes.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn the_nodes_are_those_of_libxl_in_its_order() {
        let backend = DomId::new(3).expect("a domid");
        let vtpm: Vtpm = "backend=3,uuid=69b92c70-99c7-4502-9334-6cf87ad556ee".parse().expect("a TPM");
        let device = ExternalDevice::Vtpm(&vtpm).device(1, backend);
        assert_eq!((device.label().as_str(), device.backend), ("vtpm 1", backend));
        assert_eq!(
            lines(&device.backend_nodes),
            ["handle=1", "uuid=69b92c70-99c7-4502-9334-6cf87ad556ee", "resume=False"]
        );
        assert_eq!(lines(&device.frontend_nodes), ["handle=1"]);

        let vdispl: Vdispl = "connectors=a:800x600;b:1x2,be-alloc=1".parse().expect("a display");
        let device = ExternalDevice::Vdispl(&vdispl).device(0, backend);
        let expected = ["be-alloc=1", "0/resolution=800x600", "0/unique-id=a", "1/resolution=1x2", "1/unique-id=b"];
        assert_eq!(lines(&device.frontend_fixed), expected);

        let card: SoundCard = "CARD,short-name=s,long-name=l,buffer-size=64,PCM,name=d,sample-rates=1;2,STREAM,type=p,\
                               unique-id=x,STREAM,unique-id=y,channels-max=2,channels-min=1"
            .parse()
            .expect("a card");
        let device = ExternalDevice::SoundCard(&card).device(0, backend);
        assert_eq!(
            lines(&device.frontend_nodes),
            [
                "long-name=l",
                "short-name=s",
                "buffer-size=64",
                "0/name=d",
                "0/sample-rates=1,2",
                "0/0/unique-id=x",
                "0/0/type=p",
                "0/1/unique-id=y",
                "0/1/channels-min=1",
                "0/1/channels-max=2",
            ]
        );
        assert!(device.backend_nodes.is_empty() && device.frontend_fixed.is_empty());
    }

    #[test]
    fn the_order_of_the_classes_is_libxls() {
        let devices = Devices {
            vtpms: vec!["backend=a".parse().expect("a TPM"), "backend=b".parse().expect("a TPM")],
            vdispls: vec!["connectors=a:1x1".parse().expect("a display")],
            sound_cards: vec!["".parse().expect("a card")],
            pvcalls: vec!["backend=net".parse().expect("a connection")],
            ..Devices::default()
        };
        let found: Vec<_> = numbered(&devices).map(|(devid, device)| (device.kind(), devid)).collect();
        assert_eq!(found, [("pvcalls", 0), ("vtpm", 0), ("vtpm", 1), ("vdispl", 0), ("vsnd", 0)]);
        let backends: Vec<_> = numbered(&devices).map(|(_, device)| device.backend_domain()).collect();
        assert_eq!(backends, [Some("net"), Some("a"), Some("b"), None, None]);
    }
}
