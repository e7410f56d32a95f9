//! Devices that QEMU has a part in: images of its own formats, and the emulated twins of an HVM guest's disks and cards.

use std::fs;

use serde_json::{Value, json};

use super::Test;
use super::cage::{assert_filtered, namespace};
use super::device_model::ask;
use super::devices::create_with;
use super::linux::{said, start};
use super::support::{create, dombuild, number, path_text, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("qemu_serves_a_qcow2_disk", qcow2_disk),
    ("an_hvm_guest_has_emulated_twins", emulated_twins),
    ("only_qemu_serves_qcow2", without_qemu),
];

const BRIDGE: &str = "twinbr0";

/// A folder with images of 8 MiB, whose first line is `line of NAME`, and a bridge.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        shell(&format!("ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up"));
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> String {
        path_text(&self.folder.path().join(name)).to_owned()
    }

    fn raw(&self, name: &str) -> String {
        let path = self.path(name);
        let mut content = format!("line of {name}\n").into_bytes();
        content.resize(8 << 20, 0);
        fs::write(&path, content).expect("written");
        path
    }

    fn qcow2(&self, name: &str) -> String {
        let (raw, path) = (self.raw(name), self.path(&format!("{name}.qcow2")));
        shell(&format!("qemu-img convert -f raw -O qcow2 {raw} {path}"));
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        shell(&format!("ip link del {BRIDGE}"));
    }
}

fn qcow2_disk() {
    let place = Place::new();
    let image = place.qcow2("c");
    let disk = format!("{image},qcow2,xvda,w");
    let words = "guest.drivers guest.disk=xvda";
    let built = start(&["--kind", "pvh", "--memory", "128", "--disk", &disk], words);
    wait_for("the guest writes", 60, || said("wrote xvda").is_some());
    assert_eq!(said("disk xvda").as_deref(), Some("16384 line of c"));
    let pid = number(&built, "device_model_pid");
    assert_filtered(pid);
    assert_ne!(namespace(&pid.to_string(), "net"), namespace("self", "net"));
    // The same QEMU serves another one.
    let second = place.qcow2("d");
    let attached = dombuild(&["attach", "disk", "t", &format!("{second},qcow2,xvdb,w")]).success().json();
    assert_eq!((&attached["backend_kind"], &attached["backend_state"]), (&json!("qdisk"), &json!("connected")));
    let error = dombuild(&["attach", "disk", "t", &format!("{second},qcow2,xvdc,w")]).failed_with(3, "bad-config");
    assert!(error["message"].to_string().contains("is in use"), "{error}");
    // QEMU does not lock what it serves.
    let error = create_with("u", &["--disk", &disk]).failed_with(3, "bad-config");
    assert!(error["message"].to_string().contains(&format!("domain {} has it", number(&built, "domid"))), "{error}");
    dombuild(&["detach", "disk", "t", "xvdb"]).success();
    dombuild(&["destroy", "t"]).success();

    shell(&format!("qemu-img convert -f qcow2 -O raw {image} {image}.raw"));
    let content = fs::read(format!("{image}.raw")).expect("converted");
    assert!(content[512..].starts_with(b"from the guest\n"), "what the guest wrote is in the image");
}

fn emulated_twins() {
    let place = Place::new();
    let (first, second, cd) = (place.raw("a"), place.raw("b"), place.raw("cd"));
    let third = place.qcow2("c");
    let device = shell(&format!("losetup --find --show {second}")).trim().to_owned();
    let disks = [
        format!("{first},raw,hda,w"),
        format!("{device},raw,xvdb,w"),
        format!("{third},qcow2,hdc,w"),
        format!("{cd},raw,hdd:cdrom,r"),
        format!("{},raw,sda,r", place.raw("scsi")),
    ];
    let mut words = vec!["--memory", "64", "--paused", "--vif", "bridge=twinbr0,model=e1000,vifname=web"];
    words.extend(["--vif", "bridge=twinbr0,type=vif"]);
    disks.iter().for_each(|disk| words.extend(["--disk", disk]));
    let built = create("t", &words);
    let domid = number(&built, "domid");

    let query = |command: &str| ask(domid, &json!({ "execute": command })).expect("QEMU lives")["return"].to_string();
    let nodes = query("query-named-block-nodes");
    assert!(nodes.contains("host_device"), "the block device: {nodes}");
    let blocks = query("query-block");
    for file in ["qcow2", "ide0-hd0", "ide0-hd1", "ide1-hd0", "ide-5696", "scsi0-hd0"] {
        assert!(blocks.contains(file), "{file} is not in {blocks}");
    }
    let pid = number(&built, "device_model_pid");
    assert_filtered(pid);
    assert_ne!(namespace(&pid.to_string(), "net"), namespace("self", "net"));
    let ports = shell(&format!("ls /sys/class/net/{BRIDGE}/brif"));
    let mut ports: Vec<_> = ports.split_whitespace().collect();
    ports.sort_unstable();
    assert_eq!(ports, [&format!("vif{domid}.1"), "web", "web-emu"]);

    // The image of the confined QEMU's qcow2 disk has no paravirtual twin; the CD has none either.
    let devices: Vec<_> = built["devices"].as_array().expect("a list").iter().map(label).collect();
    assert_eq!(devices, ["vbd 768", "vbd 51728", "vbd 2048", "vif 0", "vif 1"]);
    dombuild(&["destroy", "t"]).success();
    shell(&format!("losetup --detach {device}"));
}

fn label(device: &Value) -> String {
    format!("{} {}", device["kind"].as_str().expect("a kind"), device["devid"])
}

/// Without a QEMU that serves it, a qcow2 disk is refused before there is a domain.
fn without_qemu() {
    let place = Place::new();
    let disk = format!("{},qcow2,xvde,w", place.qcow2("c"));
    for more in [&["--device-model", "none"][..], &[]] {
        let error = dombuild(&[&["create", "--name", "t", "--memory", "64", "--disk", &disk], more].concat());
        let error = error.failed_with(3, "bad-config");
        assert!(error["message"].to_string().contains("only QEMU can serve it"), "{error}");
    }
}
