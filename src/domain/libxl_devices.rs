//! The devices in libxl's configuration of a guest: what they are there, and how one is added or removed while everything else
//! stays.

use serde_json::{Value, json};

use super::libxl_fields::{Fields, truth};
use crate::config::devices::channel::{Channel, ChannelConnection};
use crate::config::devices::disk::{Disk, DiskBackend};
use crate::config::devices::emulated::{SoundModel, Usb};
use crate::config::devices::framebuffer::Framebuffer;
use crate::config::devices::nic::Nic;
use crate::config::devices::pci::PciDevice;
use crate::config::devices::pvcalls::PvCalls;
use crate::config::devices::set::Devices;
use crate::config::devices::share::Share;
use crate::config::devices::sound::{Pcm, SoundCard, SoundParams, StreamDirection};
use crate::config::devices::vdispl::Vdispl;
use crate::config::devices::virtual_device::VirtualDevice;
use crate::config::devices::vtpm::Vtpm;
use crate::config::host_access::{IoMemory, PortRange};
use crate::memory::Kind;
use crate::xen::PciAddress;

/// Adds a disk; one of the same number is replaced, as libxl does.
pub fn add_disk(configuration: &mut Value, new: &Disk) {
    remove_disk(configuration, new.vdev.number);
    push(configuration, "disks", disk(new));
}

/// Adds a network card; one of the same number is replaced, as libxl does.
pub fn add_nic(configuration: &mut Value, devid: u32, new: &Nic, kind: Kind) {
    remove_nic(configuration, devid);
    push(configuration, "nics", nic(devid, new, kind));
}

/// Adds a PCI device of the host.
pub fn add_pci(configuration: &mut Value, new: &PciDevice, kind: Kind) {
    remove_pci(configuration, new.address);
    push(configuration, "pcidevs", pci(new, kind));
}

/// Removes a PCI device of the host. libxl leaves out what is 0.
pub fn remove_pci(configuration: &mut Value, address: PciAddress) {
    let wanted = [
        ("func", u64::from(address.function())),
        ("dev", address.device().into()),
        ("bus", address.bus().into()),
        ("domain", address.segment().into()),
    ];
    remove(configuration, "pcidevs", |device| {
        wanted.iter().all(|(name, number)| device.get(*name).and_then(Value::as_u64).unwrap_or(0) == *number)
    });
}

/// Changes the medium of the CD drive of this number.
pub fn set_medium(configuration: &mut Value, number: u32, medium: Option<&Disk>) {
    let Some(disks) = configuration.get_mut("disks").and_then(Value::as_array_mut) else { return };
    let Some(fields) = disks.iter_mut().find(|disk| has_number(disk, number)).and_then(Value::as_object_mut) else {
        return;
    };
    fields.remove("pdev_path");
    let format = medium.map_or("empty", |medium| medium.format.as_str());
    fields.insert("format".to_owned(), format.into());
    if let Some(target) = medium.and_then(|medium| medium.target.as_deref()) {
        fields.insert("pdev_path".to_owned(), target.into());
    }
}

fn has_number(disk: &Value, number: u32) -> bool {
    let vdev = disk.get("vdev").and_then(Value::as_str).and_then(|vdev| vdev.parse::<VirtualDevice>().ok());
    vdev.is_some_and(|vdev| vdev.number == number)
}

/// Removes the disk of this number.
pub fn remove_disk(configuration: &mut Value, number: u32) {
    remove(configuration, "disks", |disk| has_number(disk, number));
}

/// Removes the network card of this number.
pub fn remove_nic(configuration: &mut Value, devid: u32) {
    remove_numbered(configuration, "nics", devid);
}

/// Removes the device of this class and number in xenstore. One of a class that `detach` does not know stays.
pub fn remove_device(configuration: &mut Value, kind: &str, devid: u32) {
    match kind {
        "vbd" => remove_disk(configuration, devid),
        "vif" => remove_nic(configuration, devid),
        "vtpm" => remove_numbered(configuration, "vtpms", devid),
        "vdispl" => remove_numbered(configuration, "vdispls", devid),
        "vsnd" => remove_numbered(configuration, "vsnds", devid),
        "pvcalls" => remove_numbered(configuration, "pvcallsifs", devid),
        _ => {}
    }
}

fn remove_numbered(configuration: &mut Value, list: &str, devid: u32) {
    // libxl leaves out what has its default, and that of the number is -1.
    remove(configuration, list, |device| device.get("devid").and_then(Value::as_u64) == Some(devid.into()));
}

/// I/O ports of the host, as libxl has them: what is 0 is left out.
#[must_use]
pub fn ports(ports: PortRange) -> Value {
    let mut fields = Fields::default();
    fields.put_some("first", Some(ports.first).filter(|first| *first != 0));
    fields.put("number", ports.count);
    fields.into()
}

/// I/O memory of the host.
#[must_use]
pub fn io_memory(memory: IoMemory) -> Value {
    let mut fields = Fields::default();
    for (name, number) in [("start", memory.start), ("number", memory.count)] {
        fields.put_some(name, Some(number).filter(|number| *number != 0));
    }
    fields.put_some("gfn", memory.gfn);
    fields.into()
}

/// The lists of a guest's devices that are not empty, by their names.
pub(super) fn lists(devices: &Devices, kind: Kind) -> Vec<(&'static str, Vec<Value>)> {
    let framebuffer = devices.framebuffer.as_ref().filter(|_| kind != Kind::Hvm);
    let mut all = vec![
        ("disks", devices.disks.iter().map(disk).collect()),
        ("nics", (0..).zip(&devices.nics).map(|(index, card)| nic(index, card, kind)).collect()),
        ("vfbs", framebuffer.map(vfb).into_iter().collect()),
        ("vkbs", framebuffer.map(|_| json!({ "devid": 0 })).into_iter().collect()),
        ("p9s", (0..).zip(&devices.shares).map(|(devid, share)| p9(devid, share)).collect()),
        ("channels", (1..).zip(&devices.channels).map(|(devid, one)| channel(devid, one)).collect()),
        ("vtpms", (0..).zip(&devices.vtpms).map(|(devid, one)| vtpm(devid, one)).collect()),
        ("vdispls", (0..).zip(&devices.vdispls).map(|(devid, one)| vdispl(devid, one)).collect()),
        ("vsnds", (0..).zip(&devices.sound_cards).map(|(devid, one)| vsnd(devid, one)).collect()),
        ("pcidevs", devices.pci.iter().map(|device| pci(device, kind)).collect()),
        ("pvcallsifs", (0..).zip(&devices.pvcalls).map(|(devid, one)| pvcallsif(devid, one)).collect()),
    ];
    all.retain(|(_, list): &(_, Vec<_>)| !list.is_empty());
    all
}

/// A `libxl_vnc_info`.
pub(super) fn vnc(framebuffer: &Framebuffer) -> Value {
    let mut fields = Fields::default();
    fields.put("enable", truth(true));
    fields.put("listen", framebuffer.listen.to_string());
    fields.put_some("passwd", framebuffer.password.as_deref());
    fields.put("display", framebuffer.display);
    fields.put("findunused", truth(framebuffer.unused));
    fields.into()
}

/// The fields of an HVM guest's sound card and USB.
pub(super) fn put_emulated(hvm: &mut Fields, devices: &Devices) {
    hvm.put_some("soundhw", devices.sound.map(SoundModel::as_str));
    match &devices.usb {
        Some(Usb::Devices(list)) => {
            hvm.put("usb", truth(true));
            let list: Vec<_> = list.iter().map(|device| device.as_str()).collect();
            hvm.put_some("usbdevice_list", Some(list).filter(|list| !list.is_empty()));
        }
        Some(Usb::Controller(version)) => hvm.put("usbversion", version.number()),
        None => {}
    }
}

/// A `libxl_device_vfb`.
fn vfb(framebuffer: &Framebuffer) -> Value {
    let mut fields = Fields::default();
    fields.put("devid", 0);
    fields.put("vnc", vnc(framebuffer));
    fields.put("sdl", json!({ "enable": truth(false) }));
    fields.put_some("keymap", framebuffer.keymap.as_deref());
    fields.into()
}

/// A `libxl_device_p9`.
fn p9(devid: u32, share: &Share) -> Value {
    json!({
        "devid": devid,
        "tag": share.tag,
        "path": share.path.to_string_lossy(),
        "security_model": share.security_model.as_str(),
    })
}

/// A `libxl_device_channel`.
fn channel(devid: u32, channel: &Channel) -> Value {
    let mut fields = Fields::default();
    fields.put("devid", devid);
    fields.put("name", channel.name.as_str());
    match &channel.connection {
        ChannelConnection::Pty => fields.put("connection.pty", json!({})),
        ChannelConnection::Socket(path) => {
            fields.put("connection.socket", json!({ "path": path.to_string_lossy() }));
        }
    }
    fields.into()
}

/// A `libxl_device_vtpm`.
fn vtpm(devid: u32, vtpm: &Vtpm) -> Value {
    let mut fields = external(devid, vtpm.backend_domain.as_deref());
    fields.put_some("uuid", vtpm.uuid.map(|uuid| uuid.to_string()));
    fields.into()
}

/// A `libxl_device_vdispl`.
fn vdispl(devid: u32, vdispl: &Vdispl) -> Value {
    let mut fields = external(devid, vdispl.backend_domain.as_deref());
    fields.put("be_alloc", vdispl.backend_allocates);
    let connectors = vdispl.connectors.iter().map(
        |connector| json!({ "unique_id": connector.unique_id, "width": connector.width, "height": connector.height }),
    );
    fields.put("connectors", connectors.collect::<Vec<_>>());
    fields.into()
}

/// A `libxl_device_vsnd`.
fn vsnd(devid: u32, card: &SoundCard) -> Value {
    let mut fields = external(devid, card.backend_domain.as_deref());
    fields.put_some("short_name", card.short_name.as_deref());
    fields.put_some("long_name", card.long_name.as_deref());
    fields.put("params", sound_params(&card.params));
    fields.put("pcms", card.pcms.iter().map(pcm).collect::<Vec<_>>());
    fields.into()
}

/// A `libxl_vsnd_pcm`.
fn pcm(pcm: &Pcm) -> Value {
    let mut fields = Fields::default();
    fields.put_some("name", pcm.name.as_deref());
    fields.put("params", sound_params(&pcm.params));
    let streams = pcm.streams.iter().map(|stream| {
        let mut fields = Fields::default();
        fields.put_some("unique_id", stream.unique_id.as_deref());
        fields.put_some("type", stream.direction.map(StreamDirection::as_str));
        fields.put("params", sound_params(&stream.params));
        Value::from(fields)
    });
    fields.put("streams", streams.collect::<Vec<_>>());
    fields.into()
}

/// A `libxl_vsnd_params`.
fn sound_params(params: &SoundParams) -> Value {
    let mut fields = Fields::default();
    fields.put_some("sample_rates", Some(params.sample_rates.clone()).filter(|rates| !rates.is_empty()));
    fields.put_some("sample_formats", Some(params.sample_formats.clone()).filter(|formats| !formats.is_empty()));
    fields.put_some("channels_min", params.channels_min);
    fields.put_some("channels_max", params.channels_max);
    fields.put_some("buffer_size", params.buffer_size);
    fields.into()
}

/// A `libxl_device_pci`.
fn pci(device: &PciDevice, kind: Kind) -> Value {
    let PciDevice { address, slot, .. } = *device;
    let mut fields = Fields::default();
    for (name, number) in [
        ("func", address.function().into()),
        ("dev", address.device().into()),
        ("bus", address.bus().into()),
        ("domain", u32::from(address.segment())),
        ("vdevfn", u32::from(slot.unwrap_or(0)) << 3),
    ] {
        fields.put_some(name, Some(number).filter(|number| *number != 0));
    }
    fields.put("vfunc_mask", 1_u32 << address.function());
    for (name, on) in [
        ("msitranslate", device.msitranslate),
        ("power_mgmt", device.power_mgmt),
        ("permissive", device.permissive),
        ("seize", device.seize),
    ] {
        fields.put_some(name, on.then_some(true));
    }
    // As xl: of an HVM guest's device, only another policy than the default.
    let policy = if device.relaxed { "relaxed" } else { "strict" };
    fields.put_some("rdm_policy", Some(policy).filter(|_| kind != Kind::Hvm || device.relaxed));
    fields.into()
}

/// A `libxl_device_pvcallsif`.
fn pvcallsif(devid: u32, pvcalls: &PvCalls) -> Value {
    external(devid, pvcalls.backend_domain.as_deref()).into()
}

/// What the devices of other domains' backends have in common.
fn external(devid: u32, backend_domain: Option<&str>) -> Fields {
    let mut fields = Fields::default();
    fields.put("devid", devid);
    fields.put_some("backend_domname", backend_domain);
    fields
}

/// A `libxl_device_disk`.
fn disk(disk: &Disk) -> Value {
    let mut fields = Fields::default();
    fields.put_some("pdev_path", disk.target.as_deref());
    fields.put("vdev", disk.vdev.name.as_str());
    fields.put_some("backend", disk.backend.map(DiskBackend::as_str));
    fields.put("format", if disk.target.is_none() { "empty" } else { disk.format.as_str() });
    fields.put_some("script", disk.script.as_deref());
    fields.put_some("backend_domname", disk.backend_domain.as_deref());
    fields.put_some("readwrite", disk.writable.then_some(1));
    for name in ["removable", "is_cdrom"] {
        fields.put_some(name, disk.cdrom.then_some(1));
    }
    fields.put_some("direct_io_safe", disk.direct_io_safe.then_some(true));
    fields.put_some("discard_enable", disk.discard.map(truth));
    fields.put_some("trusted", disk.trusted.map(truth));
    fields.into()
}

/// A `libxl_device_nic`.
fn nic(index: u32, nic: &Nic, kind: Kind) -> Value {
    let mut fields = Fields::default();
    fields.put("devid", nic.devid.unwrap_or(index));
    fields.put_some("mac", nic.mac.map(|mac| mac.to_string()));
    for (name, text) in [
        ("bridge", &nic.bridge),
        ("script", &nic.script),
        ("ip", &nic.ip),
        ("ifname", &nic.vifname),
        ("gatewaydev", &nic.gatewaydev),
        ("model", &nic.model),
        ("backend_domname", &nic.backend_domain),
    ] {
        fields.put_some(name, text.as_deref());
    }
    let emulated = nic.emulated.unwrap_or(kind == Kind::Hvm);
    fields.put("nictype", if emulated { "vif_ioemu" } else { "vif" });
    fields.put_some("rate_bytes_per_interval", nic.rate.map(|rate| rate.bytes));
    fields.put_some("rate_interval_usecs", nic.rate.map(|rate| rate.interval_us));
    fields.put_some("mtu", nic.mtu);
    fields.put_some("trusted", nic.trusted.map(truth));
    fields.into()
}

fn push(configuration: &mut Value, list: &str, device: Value) {
    let Some(fields) = configuration.as_object_mut() else { return };
    if let Some(devices) = fields.entry(list).or_insert_with(|| json!([])).as_array_mut() {
        devices.push(device);
    }
}

fn remove(configuration: &mut Value, list: &str, is_it: impl Fn(&Value) -> bool) {
    if let Some(devices) = configuration.get_mut(list).and_then(Value::as_array_mut) {
        devices.retain(|device| !is_it(device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_changes_and_the_rest_stays() {
        let mut configuration = json!({
            "b_info": { "a field": "of another version" },
            "disks": [{ "vdev": "xvda", "pdev_path": "/a" }, { "vdev": "51728" }, { "vdev": "no disk", "x": 1 }],
            "nics": [{ "devid": 0, "mac": "00:16:3e:00:00:01" }, { "mac": "00:16:3e:00:00:02" }],
        });
        let before = configuration.clone();
        add_disk(&mut configuration, &"/c,raw,xvdc,w".parse().expect("a disk"));
        add_nic(&mut configuration, 7, &"bridge=b0".parse().expect("a card"), Kind::Pvh);
        assert_eq!(
            configuration["disks"][3],
            json!({ "vdev": "xvdc", "pdev_path": "/c", "format": "raw", "readwrite": 1 })
        );
        for list in ["vtpms", "vdispls", "vsnds", "pvcallsifs"] {
            configuration[list] = json!([{ "devid": 0 }, { "devid": 1 }]);
        }
        for (kind, list) in [("vtpm", "vtpms"), ("vdispl", "vdispls"), ("vsnd", "vsnds"), ("pvcalls", "pvcallsifs")] {
            remove_device(&mut configuration, kind, 0);
            assert_eq!(configuration[list], json!([{ "devid": 1 }]));
            configuration.as_object_mut().expect("an object").remove(list);
        }
        remove_device(&mut configuration, "9pfs", 0);
        assert_eq!(configuration["nics"][2], json!({ "devid": 7, "bridge": "b0", "nictype": "vif" }));
        remove_disk(&mut configuration, 51744);
        remove_device(&mut configuration, "vif", 7);
        assert_eq!(configuration, before);

        add_disk(&mut configuration, &"/b,raw,xvdb,r".parse().expect("a disk"));
        let disks = configuration["disks"].as_array().expect("a list");
        assert_eq!(disks.iter().map(|disk| &disk["vdev"]).collect::<Vec<_>>(), ["xvda", "no disk", "xvdb"]);
    }

    #[test]
    fn a_medium_comes_and_goes() {
        let mut configuration =
            json!({ "disks": [{ "vdev": "xvda" }, { "vdev": "hdc", "format": "empty", "is_cdrom": 1 }] });
        let before = configuration.clone();
        let medium: Disk = "/a.iso,raw,hdc:cdrom,r".parse().expect("a disk");
        set_medium(&mut configuration, 5632, Some(&medium));
        let filled = json!({ "vdev": "hdc", "format": "raw", "is_cdrom": 1, "pdev_path": "/a.iso" });
        assert_eq!(configuration["disks"][1], filled);
        set_medium(&mut configuration, 5632, None);
        set_medium(&mut configuration, 7, Some(&medium));
        assert_eq!(configuration, before);
    }

    #[test]
    fn a_configuration_without_devices_gets_a_list() {
        let mut configuration = json!({});
        remove_disk(&mut configuration, 51712);
        remove_nic(&mut configuration, 0);
        assert_eq!(configuration, json!({}));
        add_nic(&mut configuration, 0, &"".parse().expect("a card"), Kind::Pv);
        assert_eq!(configuration, json!({ "nics": [{ "devid": 0, "nictype": "vif" }] }));
        for mut other in [json!([]), json!({ "disks": "none" })] {
            let before = other.clone();
            add_disk(&mut other, &"/a,raw,xvda,w".parse().expect("a disk"));
            remove_disk(&mut other, 51712);
            assert_eq!(other, before);
        }
    }
}
