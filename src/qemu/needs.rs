//! The arguments of QEMU that need dom0's network, or programs that QEMU starts.
//!
//! Only the user's arguments (`--dm-arg`) are examined; dombuild's own need neither. An unknown argument counts as one
//! that needs the network: QEMU then works as requested, and the log names the argument.

use std::fmt;

use serde_json::Value;

/// The needs of QEMU's arguments, each with the argument that causes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Dom0's network namespace and sockets other than unix sockets.
    pub network: Option<String>,
    /// Programs that QEMU starts.
    pub programs: Option<String>,
}

/// Options whose values name only files, descriptors or things inside the guest.
const LOCAL: &[&str] = &[
    "D",
    "L",
    "M",
    "S",
    "accel",
    "acpitable",
    "action",
    "add-fd",
    "append",
    "bios",
    "boot",
    "cpu",
    "d",
    "dfilter",
    "dtb",
    "dump-vmstate",
    "echr",
    "fsdev",
    "full-screen",
    "fw_cfg",
    "g",
    "global",
    "icount",
    "initrd",
    "k",
    "kernel",
    "loadvm",
    "m",
    "machine",
    "mem-path",
    "mem-prealloc",
    "mon",
    "msg",
    "name",
    "no-acpi",
    "no-fd-bootchk",
    "no-hpet",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nographic",
    "numa",
    "only-migratable",
    "overcommit",
    "pidfile",
    "preconfig",
    "rotate",
    "rtc",
    "sandbox",
    "seed",
    "shim-verbose",
    "smbios",
    "smp",
    "tpmdev",
    "trace",
    "usb",
    "uuid",
    "vga",
    "virtfs",
    "watchdog",
    "watchdog-action",
    "win2k-hack",
];

/// Options whose value is the name of an image, which can be a URL.
const IMAGE: &[&str] = &["cdrom", "fda", "fdb", "hda", "hdb", "hdc", "hdd", "mtdblock", "pflash", "sd"];

/// Options whose value is a character device in its short form.
const CHARACTER_DEVICE: &[&str] = &["debugcon", "gdb", "monitor", "parallel", "qmp", "qmp-pretty", "serial"];

/// Character devices that are neither sockets nor unknown, in either form.
const LOCAL_CHARACTER_DEVICES: &[&str] = &[
    "chardev",
    "con",
    "console",
    "file",
    "memory",
    "msmouse",
    "mux",
    "none",
    "null",
    "parallel",
    "parport",
    "pipe",
    "pty",
    "ringbuf",
    "serial",
    "spiceport",
    "spicevmc",
    "stdio",
    "testdev",
    "tty",
    "unix",
    "vc",
    "wctablet",
];

/// Formats and protocols of images that are on this host.
const LOCAL_DRIVERS: &[&str] = &[
    "blkdebug",
    "blklogwrites",
    "blkverify",
    "bochs",
    "cloop",
    "compress",
    "copy-on-read",
    "dmg",
    "file",
    "host_cdrom",
    "host_device",
    "luks",
    "null-aio",
    "null-co",
    "parallels",
    "preallocate",
    "qcow",
    "qcow2",
    "qed",
    "quorum",
    "raw",
    "throttle",
    "vdi",
    "vhdx",
    "vmdk",
    "vpc",
    "vvfat",
];

/// Objects without a connection of their own, by the prefix of their type names.
const LOCAL_OBJECTS: &[&str] = &[
    "authz-list",
    "authz-simple",
    "filter-buffer",
    "filter-dump",
    "filter-replay",
    "iothread",
    "main-loop",
    "memory-backend-",
    "rng-builtin",
    "rng-random",
    "secret",
    "thread-context",
    "throttle-",
    "tls-c",
];

/// Devices that reach the host by a network socket: libusb uses netlink for hotplug, and vsock is a network.
const NETWORK_DEVICES: &[&str] = &["u2f-", "usb-host", "vhost-vsock", "vhost-user-vsock"];

impl Needs {
    /// The needs of these arguments, in QEMU's own grammar: options have one dash or two, and a value follows its
    /// option.
    #[must_use]
    pub fn of(arguments: &[String]) -> Self {
        let mut needs = Self::default();
        for (at, word) in arguments.iter().enumerate() {
            let Some(rest) = word.strip_prefix('-') else { continue };
            let option = rest.strip_prefix('-').unwrap_or(rest);
            let value = arguments.get(at + 1).map_or("", String::as_str);
            // An unknown option may or may not have a value: its possible value is examined as a value and as an
            // option.
            let shown = || if value.is_empty() { word.clone() } else { format!("{word} {value}") };
            if needs.network.is_none() && needs_network(option, value) {
                needs.network = Some(shown());
            }
            if needs.programs.is_none() && needs_programs(option, value) {
                needs.programs = Some(shown());
            }
        }
        needs
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.network {
            Some(what) => write!(formatter, "in dom0's network, which {what:?} needs")?,
            None => write!(formatter, "in a network namespace of its own")?,
        }
        match &self.programs {
            Some(what) => write!(formatter, ", free to start programs, as {what:?} does"),
            None => Ok(()),
        }
    }
}

fn needs_network(option: &str, value: &str) -> bool {
    let first = value.split(',').next().unwrap_or_default();
    match option {
        _ if LOCAL.contains(&option) => false,
        _ if IMAGE.contains(&option) => !is_local_name(value),
        _ if CHARACTER_DEVICE.contains(&option) => !is_local_character_device(value),
        "net" => first != "none" && (first != "nic" || key(value, "netdev").is_some()),
        "nic" => first != "none",
        "netdev" => match first {
            "hubport" | "vhost-user" => false,
            "stream" | "dgram" => {
                key(value, "addr.type").or(key(value, "local.type")) != Some("unix") || is_abstract(value)
            }
            _ => true,
        },
        "chardev" => match first.strip_prefix("backend=").unwrap_or(first) {
            "socket" => key(value, "path").is_none() || key(value, "host").is_some() || is_abstract(value),
            other => !LOCAL_CHARACTER_DEVICES.contains(&other),
        },
        "vnc" => !(first == "none" || first.starts_with("unix:")) || key(value, "websocket").is_some(),
        "spice" => {
            !value.split(',').any(|part| part == "unix" || part == "unix=on")
                || ["port", "tls-port"].iter().any(|name| key(value, name).is_some())
        }
        "display" => !["none", "egl-headless", "curses"].contains(&first),
        "incoming" => !["unix:", "fd:", "file:", "exec:"].iter().any(|scheme| value.starts_with(scheme)),
        "audio" | "audiodev" => {
            let driver = first.strip_prefix("driver=").unwrap_or(first);
            driver != "none" && driver != "wav"
        }
        "usbdevice" => !["tablet", "mouse", "keyboard", "wacom-tablet"].contains(&value),
        "device" => {
            named(value, "driver").is_none_or(|name| NETWORK_DEVICES.iter().any(|known| name.starts_with(known)))
        }
        "object" => {
            named(value, "qom-type").is_none_or(|name| !LOCAL_OBJECTS.iter().any(|known| name.starts_with(known)))
        }
        "drive" => !is_local_drive(value),
        "blockdev" => {
            !serde_json::from_str::<Value>(value).map_or_else(|_| is_local_drive(value), |json| is_local_node(&json))
        }
        _ => true,
    }
}

/// QEMU starts the scripts of a tap unless disabled, the helper of a bridge, and the programs of `exec:` and `cmd:`.
fn needs_programs(option: &str, value: &str) -> bool {
    let first = value.split(',').next().unwrap_or_default();
    match option {
        "net" | "nic" | "netdev" => match first {
            "tap" => ["script", "downscript"].iter().any(|name| key(value, name) != Some("no")),
            "bridge" | "passt" => true,
            _ => key(value, "smb").is_some() || value.contains("cmd:") || key(value, "helper").is_some(),
        },
        "incoming" => value.starts_with("exec:"),
        _ => false,
    }
}

/// The value of a key in `KEY=VALUE,...`; empty if the key has no value.
fn key<'value>(value: &'value str, name: &str) -> Option<&'value str> {
    value.split(',').find_map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (key == name).then_some(value)
    })
}

/// A unix socket in the abstract namespace belongs to a network namespace.
fn is_abstract(value: &str) -> bool {
    value.split(',').any(|part| part.ends_with("abstract") || part.ends_with("abstract=on"))
}

/// The type that begins a device or an object, or that its JSON names.
fn named(value: &str, member: &str) -> Option<String> {
    if value.starts_with('{') {
        let json = serde_json::from_str::<Value>(value).ok()?;
        return json[member].as_str().map(str::to_owned);
    }
    let first = value.split(',').next()?;
    Some(first.strip_prefix(member).and_then(|rest| rest.strip_prefix('=')).unwrap_or(first).to_owned())
}

fn is_local_character_device(value: &str) -> bool {
    let value = value.strip_prefix("mon:").unwrap_or(value);
    let name = value.split([':', ',']).next().unwrap_or_default();
    value.starts_with('/') || (LOCAL_CHARACTER_DEVICES.contains(&name) && !is_abstract(value))
}

/// A file name, which QEMU distinguishes from a URL by the first of `:` and `/`.
fn is_local_name(name: &str) -> bool {
    let scheme = match name.find([':', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b':') => &name[..at],
        _ => return true,
    };
    match scheme {
        "file" | "fat" | "host_device" | "host_cdrom" => true,
        "nbd" => name.starts_with("nbd:unix:"),
        "nbd+unix" => true,
        _ => false,
    }
}

fn is_local_drive(value: &str) -> bool {
    value.split(',').all(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        is_local_member(key.rsplit('.').next().unwrap_or(key), value)
    })
}

fn is_local_member(name: &str, value: &str) -> bool {
    match name {
        "driver" | "format" => LOCAL_DRIVERS.contains(&value),
        "file" | "filename" | "backing" => is_local_name(value),
        _ => true,
    }
}

fn is_local_node(json: &Value) -> bool {
    match json {
        Value::Object(members) => members.iter().all(|(name, value)| match value {
            Value::String(text) => is_local_member(name.rsplit('.').next().unwrap_or(name), text),
            other => is_local_node(other),
        }),
        Value::Array(values) => values.iter().all(is_local_node),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
