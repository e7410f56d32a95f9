//! The devices of a guest in libxl's form, before libxl completes them (`parse_config_data`, xl_parse.c, Xen 4.17 and 4.20). The
//! texts have been checked.

use serde_json::{Map, Value, json};

use super::device_texts;
use super::fields::{Configuration, truth};
use super::reader::Read;
use crate::config::devices::channel::{Channel, ChannelConnection};
use crate::config::devices::disk::Disk;
use crate::config::devices::nic::Nic;
use crate::config::devices::sound::{SoundCard, SoundParams};
use crate::config::devices::vdispl::Vdispl;
use crate::config::devices::vtpm::Vtpm;
use crate::memory::Kind;

/// Whether channels have no number of their own yet.
const CHANNELS_WITHOUT_DEVID: bool = !matches!(env!("DOMBUILD_XEN_VERSION").as_bytes(), b"4.17" | b"4.18");

type Fields = Map<String, Value>;

/// The text of a list's entries.
fn texts<'a>(value: &'a Read<'_>) -> impl Iterator<Item = &'a str> {
    let items = if let Read::Texts(items) = value { &items[..] } else { &[] };
    items.iter().map(|(text, _)| text.as_str())
}

/// The keys with their values between commas, as xl's own parser cuts them.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter_map(|word| word.trim_start_matches(' ').split_once('='))
}

/// The value of a key; the last one counts.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    pairs(text).filter(|(name, _)| *name == key).last().map(|(_, value)| value)
}

fn put(fields: &mut Fields, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Puts a list of devices, with their numbers where they have some.
fn put_list(configuration: &mut Configuration<'_>, list: &str, numbered: bool, devices: Vec<Fields>) {
    let devices: Vec<Value> = devices
        .into_iter()
        .enumerate()
        .map(|(number, mut device)| {
            if numbered {
                device.entry("devid").or_insert_with(|| number.into());
            }
            device.into()
        })
        .collect();
    configuration.put_some(list, Some(devices).filter(|devices| !devices.is_empty()));
}

pub(super) fn disks(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let disk = |text: &str| {
        let disk: Disk = text.parse().ok()?;
        // All that comes after the target is the target.
        let words = text.find("target=").map_or(text, |end| &text[..end]);
        let mut fields = Fields::new();
        put(&mut fields, "backend_domname", value_of(words, "backend"));
        let by_place = text.trim_start().starts_with(',');
        put(&mut fields, "pdev_path", disk.target.clone().or(by_place.then(String::new)));
        put(&mut fields, "vdev", Some(disk.vdev.name.as_str()));
        put(&mut fields, "backend", disk.backend.map(|backend| backend.as_str()));
        put(&mut fields, "format", Some(if disk.target.is_some() { disk.format.as_str() } else { "empty" }));
        put(&mut fields, "script", disk.script.as_deref());
        put(&mut fields, "removable", disk.cdrom.then_some(1));
        put(&mut fields, "readwrite", disk.writable.then_some(1));
        put(&mut fields, "is_cdrom", disk.cdrom.then_some(1));
        put(&mut fields, "direct_io_safe", disk.direct_io_safe.then_some(true));
        put(&mut fields, "discard_enable", disk.discard.map(truth));
        put(&mut fields, "specification", value_of(words, "specification"));
        put(&mut fields, "trusted", disk.trusted.map(truth));
        Some(fields)
    };
    put_list(configuration, "disks", false, texts(value).filter_map(disk).collect());
}

pub(super) fn nics(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let xl_conf = configuration.xl_conf;
    let nic = |text: &str| {
        let nic: Nic = text.parse().ok()?;
        let mut fields = Fields::new();
        let said = |key: &str| value_of(text, key).map(str::to_owned);
        put(&mut fields, "backend_domname", said("backend").or_else(|| xl_conf.vif_backend.clone()));
        put(&mut fields, "devid", nic.devid);
        put(&mut fields, "mtu", nic.mtu);
        put(&mut fields, "model", said("model"));
        put(&mut fields, "mac", nic.mac.map(|mac| mac.to_string()));
        put(&mut fields, "ip", said("ip"));
        put(&mut fields, "bridge", said("bridge").or_else(|| xl_conf.vif_bridge.clone()));
        put(&mut fields, "ifname", said("vifname"));
        put(&mut fields, "script", said("script").or_else(|| xl_conf.vif_script.clone()));
        put(&mut fields, "nictype", nic.emulated.map(|emulated| if emulated { "vif_ioemu" } else { "vif" }));
        put(&mut fields, "rate_bytes_per_interval", nic.rate.map(|rate| rate.bytes));
        put(&mut fields, "rate_interval_usecs", nic.rate.map(|rate| rate.interval_us));
        let gateway = said("gatewaydev").or_else(|| said("netdev")).or_else(|| xl_conf.vif_gatewaydev.clone());
        put(&mut fields, "gatewaydev", gateway);
        put(&mut fields, "trusted", nic.trusted.map(truth));
        Some(fields)
    };
    put_list(configuration, "nics", true, texts(value).filter_map(nic).collect());
}

/// The fields of a text whose values are taken as they stand.
fn plain(text: &str, keys: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (key, field) in keys {
        put(&mut fields, field, value_of(text, key));
    }
    fields
}

pub(super) fn shares(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let keys = [("tag", "tag"), ("path", "path"), ("security_model", "security_model"), ("backend", "backend_domname")];
    // xl clears the numbers that it has given them.
    put_list(configuration, "p9s", false, texts(value).map(|text| plain(text, &keys)).collect());
}

pub(super) fn pvcalls(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let devices = texts(value).map(|text| plain(text, &[("backend", "backend_domname")])).collect();
    put_list(configuration, "pvcallsifs", true, devices);
}

pub(super) fn vtpms(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let vtpm = |text: &str| {
        let mut fields = plain(text, &[("backend", "backend_domname")]);
        put(&mut fields, "uuid", text.parse::<Vtpm>().ok()?.uuid.map(|uuid| uuid.to_string()));
        Some(fields)
    };
    put_list(configuration, "vtpms", true, texts(value).filter_map(vtpm).collect());
}

pub(super) fn vdispls(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let vdispl = |text: &str| {
        let vdispl: Vdispl = text.parse().ok()?;
        let mut fields = plain(text, &[("backend", "backend_domname")]);
        put(&mut fields, "be_alloc", vdispl.backend_allocates.then_some(true));
        let connectors = vdispl.connectors.iter().map(
            |connector| json!({ "unique_id": connector.unique_id, "width": connector.width, "height": connector.height }),
        );
        put(&mut fields, "connectors", Some(connectors.collect::<Vec<_>>()));
        Some(fields)
    };
    put_list(configuration, "vdispls", true, texts(value).filter_map(vdispl).collect());
}

pub(super) fn channels(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let channel = |text: &str| {
        let channel: Channel = text.parse().ok()?;
        let mut fields = Fields::new();
        // xl takes the blanks around a value off.
        put(&mut fields, "backend_domname", value_of(text, "backend").map(str::trim));
        put(&mut fields, "name", Some(channel.name));
        let (connection, own) = match channel.connection {
            ChannelConnection::Pty => ("connection.pty", json!({})),
            ChannelConnection::Socket(path) => ("connection.socket", json!({ "path": path })),
        };
        put(&mut fields, connection, Some(own));
        Some(fields)
    };
    put_list(configuration, "channels", !CHANNELS_WITHOUT_DEVID, texts(value).filter_map(channel).collect());
}

pub(super) fn sound_cards(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let Read::Lists(cards) = value else { return };
    let card = |words: &Vec<(String, &super::value::Text)>| {
        let text = words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(",");
        let card: SoundCard = text.parse().ok()?;
        let mut fields = plain(&text, &[("backend", "backend_domname")]);
        put(&mut fields, "short_name", card.short_name);
        put(&mut fields, "long_name", card.long_name);
        put(&mut fields, "params", Some(params(&card.params)));
        let pcms = card.pcms.iter().map(|pcm| {
            let streams = pcm.streams.iter().map(|stream| {
                let mut fields = Fields::new();
                put(&mut fields, "unique_id", stream.unique_id.as_deref());
                let direction = stream.direction.map(|direction| direction.as_str().to_ascii_lowercase());
                put(&mut fields, "type", direction);
                put(&mut fields, "params", Some(params(&stream.params)));
                Value::from(fields)
            });
            let streams: Vec<Value> = streams.collect();
            let mut fields = Fields::new();
            put(&mut fields, "name", pcm.name.as_deref());
            put(&mut fields, "params", Some(params(&pcm.params)));
            put(&mut fields, "streams", Some(streams).filter(|streams| !streams.is_empty()));
            Value::from(fields)
        });
        put(&mut fields, "pcms", Some(pcms.collect::<Vec<_>>()).filter(|pcms| !pcms.is_empty()));
        Some(fields)
    };
    put_list(configuration, "vsnds", true, cards.iter().filter_map(card).collect());
}

fn params(params: &SoundParams) -> Value {
    let mut fields = Fields::new();
    put(&mut fields, "sample_rates", Some(params.sample_rates.clone()).filter(|rates| !rates.is_empty()));
    put(&mut fields, "sample_formats", Some(params.sample_formats.clone()).filter(|formats| !formats.is_empty()));
    put(&mut fields, "channels_min", params.channels_min.filter(|channels| *channels != 0));
    put(&mut fields, "channels_max", params.channels_max.filter(|channels| *channels != 0));
    put(&mut fields, "buffer_size", params.buffer_size.filter(|size| *size != 0));
    fields.into()
}

pub(super) fn usb_controllers(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let devices = texts(value).filter_map(|text| device_texts::usbctrl(text).ok()).collect();
    put_list(configuration, "usbctrls", true, devices);
}

pub(super) fn usb_devices(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let devices = texts(value).filter_map(|text| device_texts::usbdev(text).ok()).collect();
    put_list(configuration, "usbdevs", false, devices);
}

pub(super) fn pci_devices(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let mut all = Fields::new();
    for name in ["msitranslate", "power_mgmt", "permissive", "seize"] {
        let on = configuration.values.get(&*format!("pci_{name}")).and_then(Read::flag);
        put(&mut all, name, on.filter(|on| *on));
    }
    // xl takes the policy of all devices from a part that only an HVM guest has; in the others it has the number of strict.
    put(&mut all, "rdm_policy", (configuration.kind != Kind::Hvm).then_some("strict"));
    let device = |text: &str| {
        let mut fields = all.clone();
        fields.extend(device_texts::pci(text).ok()?);
        fields.retain(|_, value| *value != false);
        Some(fields)
    };
    let devices: Vec<Fields> = texts(value).filter_map(device).collect();
    if configuration.kind == Kind::Pv && !devices.is_empty() {
        configuration.put("b_info.type.pv.e820_host", truth(true));
    }
    put_list(configuration, "pcidevs", false, devices);
}

/// The framebuffers, the keyboard that comes with each, and the keyboards of `vkb`.
pub(super) fn framebuffers(configuration: &mut Configuration<'_>) {
    let mut keyboards = Vec::new();
    let mut framebuffers: Vec<Fields> = configuration.texts("vfb").into_iter().map(framebuffer).collect();
    let vnc = configuration.values.get("vnc").and_then(Read::flag) == Some(true);
    if configuration.kind == Kind::Pv && framebuffers.is_empty() && vnc {
        let mut fields = Fields::new();
        put(&mut fields, "vnc", Some(top_level_vnc(configuration)));
        put(&mut fields, "sdl", Some(top_level_sdl(configuration)));
        put(&mut fields, "keymap", configuration.text("keymap"));
        framebuffers.push(fields);
    }
    keyboards.resize(framebuffers.len(), Fields::new());
    keyboards.extend(configuration.texts("vkb").into_iter().filter_map(|text| device_texts::vkb(text).ok()));
    put_list(configuration, "vfbs", true, framebuffers);
    put_list(configuration, "vkbs", true, keyboards);
}

fn framebuffer(text: &str) -> Fields {
    // As atoi reads it.
    let number = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(text.len());
        text.get(..end).and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0)
    };
    let (mut vnc, mut sdl) = (Fields::new(), Fields::new());
    for (fields, field, key) in [(&mut vnc, "enable", "vnc"), (&mut sdl, "enable", "sdl")] {
        put(fields, field, value_of(text, key).map(|value| truth(number(value) != 0)));
    }
    put(&mut vnc, "listen", value_of(text, "vnclisten"));
    put(&mut vnc, "passwd", value_of(text, "vncpasswd"));
    put(&mut vnc, "display", value_of(text, "vncdisplay").map(number).filter(|display| *display != 0));
    put(&mut vnc, "findunused", value_of(text, "vncunused").map(|value| truth(number(value) != 0)));
    put(&mut sdl, "opengl", value_of(text, "opengl").map(|value| truth(number(value) != 0)));
    put(&mut sdl, "display", value_of(text, "display"));
    put(&mut sdl, "xauthority", value_of(text, "xauthority"));
    let mut fields = Fields::new();
    put(&mut fields, "vnc", Some(vnc));
    put(&mut fields, "sdl", Some(sdl));
    put(&mut fields, "keymap", value_of(text, "keymap"));
    fields
}

/// VNC by the keys of the guest itself.
pub(super) fn top_level_vnc(configuration: &Configuration<'_>) -> Fields {
    let flag = |key: &str| configuration.values.get(key).and_then(Read::flag).map(truth);
    let mut fields = Fields::new();
    put(&mut fields, "enable", flag("vnc"));
    put(&mut fields, "listen", configuration.text("vnclisten"));
    put(&mut fields, "passwd", configuration.text("vncpasswd"));
    put(&mut fields, "display", configuration.number("vncdisplay").filter(|display| *display != 0));
    put(&mut fields, "findunused", flag("vncunused"));
    fields
}

/// SDL by the keys of the guest itself.
pub(super) fn top_level_sdl(configuration: &Configuration<'_>) -> Fields {
    let flag = |key: &str| configuration.values.get(key).and_then(Read::flag).map(truth);
    let mut fields = Fields::new();
    put(&mut fields, "enable", flag("sdl"));
    put(&mut fields, "opengl", flag("opengl"));
    put(&mut fields, "display", configuration.text("display"));
    put(&mut fields, "xauthority", configuration.text("xauthority"));
    fields
}
