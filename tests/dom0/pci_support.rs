//! What the tests of PCI devices share: the devices of the host, who has them, and guests with them.
//!
//! Xen's own list of devices (debug key Q) says which domain has each, and `xl` sees the same as dombuild.

use std::thread;
use std::time::Duration;

use dombuild::xen::DomId;
use serde_json::Value;

use super::support::{GUEST_INITRD, GUEST_KERNEL, dombuild, file, run, shell};

/// The e1000e, and its MAC address and the host behind it (tests/nested/boot.sh).
pub(crate) const CARD: &str = "0000:01:00.0";
pub(crate) const MAC: &str = "52:54:00:12:34:56";
pub(crate) const EDU: &str = "0000:00:08.0";

/// Devices with pciback; they go back to dom0 with the value.
pub(crate) struct Assignable(Vec<&'static str>);

impl Assignable {
    pub(crate) fn new(devices: &[&'static str]) -> Self {
        shell("modprobe xen-pciback");
        for device in devices {
            dombuild(&["pci", "assign", device]).success();
        }
        Self(devices.to_vec())
    }
}

impl Drop for Assignable {
    fn drop(&mut self) {
        for device in &self.0 {
            run("dombuild", &["pci", "release", device]);
        }
    }
}

/// Whose a device is, in Xen's own words: `d0`, `d[IO]` or `d7`.
pub(crate) fn owner(device: &str) -> String {
    shell("xl debug-keys Q");
    thread::sleep(Duration::from_millis(300));
    let log = shell("xl dmesg");
    let title = format!("{device} - ");
    let line = log.lines().rev().find_map(|line| line.split_once(&title));
    let (_, rest) = line.unwrap_or_else(|| panic!("{device} is not in Xen's list: {log}"));
    let word = rest.split(' ').next().expect("a word");
    // Xen 4.17 names its own domain with the number of the IOMMU's table.
    if word.starts_with("DomIO") { "d[IO]".to_owned() } else { word.to_owned() }
}

pub(crate) fn of(domid: DomId) -> String {
    format!("d{domid}")
}

/// xenstore's nodes of PCI devices, without the number of the guest.
pub(crate) fn nodes(domid: DomId) -> Vec<String> {
    let all = shell("xenstore-ls -fp");
    let number = domid.to_string();
    let ends = [format!("/backend/pci/{number}/"), format!("/local/domain/{number}/device/pci")];
    let lines = all.lines().filter(|line| {
        let path = line.split(' ').next().unwrap_or_default();
        ends.iter().any(|end| path.contains(end)) || path.starts_with("/libxl/pci/")
    });
    let plain = |line: &str| {
        line.replace(&format!("/pci/{number}"), "/pci/N")
            .replace(&format!("domain/{number}/"), "domain/N/")
            .replace(&format!("\"{number}\""), "\"N\"")
            .replace(&format!("n{number}"), "nN")
            .replace(&format!("r{number}"), "rN")
    };
    // What dombuild notes besides, and xl's notes of the device that it made assignable.
    let own = |line: &String| !line.contains("dombuild-guest") && !line.contains("driver_path");
    lines.map(plain).filter(own).collect()
}

/// The device's part of libxl's configuration of a guest.
pub(crate) fn recorded(domid: DomId) -> Value {
    let text = shell(&format!("cat /var/lib/xen/userdata-d.{domid}.*.libxl-json"));
    let value: Value = serde_json::from_str(text.trim_end_matches(['\0', '\n'])).expect("JSON");
    value["pcidevs"].clone()
}

/// The device as `dombuild pci list` shows it.
pub(crate) fn listed(device: &str) -> Option<Value> {
    let all = dombuild(&["pci", "list"]).success().json();
    all.as_array().expect("a list").iter().find(|row| row["address"] == device).cloned()
}

pub(crate) fn is_assignable_for_xl(device: &str) -> bool {
    shell("xl pci-assignable-list").lines().any(|line| line.trim() == device)
}

/// The flags of a PV guest with the card.
pub(crate) const PV: [&str; 6] = ["--kind", "pv", "--memory", "160", "--pci", CARD];

pub(crate) fn program() -> String {
    shell("command -v pci-guest").trim().to_owned()
}

/// xl's configuration of a guest with a device.
pub(crate) fn xl_config(kind: &str, device: &str) -> tempfile::TempPath {
    let of_kind = match kind {
        "pv" => format!("kernel = '{GUEST_KERNEL}'\nramdisk = '{GUEST_INITRD}'\n"),
        _ => format!("vnc = 0\nvga = 'none'\nfirmware_override = '{}'\n", program()),
    };
    file(format!("name = 't'\ntype = '{kind}'\nmemory = 160\npci = ['{device}']\n{of_kind}").as_bytes())
}

pub(crate) fn hvm_flags(program: &str) -> Vec<&str> {
    vec!["--memory", "160", "--vga", "none", "--hvmloader", program, "--pci", EDU]
}
