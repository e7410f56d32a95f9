//! Media of CD drives, changed while the guest runs.

use std::fs;

use serde_json::{Value, json};

use super::Test;
use super::device_model::ask;
use super::devices::message;
use super::support::{create, dombuild, file, number, path_text, shell};

pub(crate) const TESTS: &[Test] = &[("a_medium_is_inserted_and_ejected", ours), ("a_medium_for_a_guest_of_xl", of_xl)];

/// The drive as QEMU describes it.
fn drive(domid: u64, id: &str) -> Value {
    let drives = ask(domid, &json!({ "execute": "query-block" })).expect("QEMU lives")["return"].clone();
    let drives = drives.as_array().expect("a list");
    drives.iter().find(|drive| drive["device"] == id).cloned().unwrap_or_else(|| panic!("{id}"))
}

/// The size of its medium.
fn size(domid: u64) -> Option<u64> {
    drive(domid, "ide-5632")["inserted"]["image"]["virtual-size"].as_u64()
}

/// Its medium in libxl's configuration; empty if there is none.
fn recorded(name: &str) -> String {
    let list: Value = serde_json::from_str(&shell(&format!("xl list -l {name}"))).expect("JSON");
    let disks = list[0]["config"]["disks"].as_array().expect("disks").clone();
    disks.into_iter().find(|disk| disk["vdev"] == "hdc").expect("the drive")["pdev_path"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn ours() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = |name: &str, mib: usize| {
        let path = folder.path().join(name);
        fs::write(&path, vec![b'x'; mib << 20]).expect("written");
        path_text(&path).to_owned()
    };
    let (first, second) = (image("a,b c.iso", 1), image("second", 2));
    let device = shell(&format!("losetup --find --show {second}")).trim().to_owned();
    let built = create("t", &["--memory", "64", "--disk", ",hdc:cdrom,r"]);
    let domid = number(&built, "domid");
    assert_eq!(size(domid), None);
    let listed = dombuild(&["list", "--devices", "t"]).success().json();
    assert_eq!(
        (&listed[0]["vdev"], &listed[0]["cdrom"], &listed[0]["target"]),
        (&json!("hdc"), &json!(true), &Value::Null)
    );
    let inserted = dombuild(&["insert", "t", "hdc", &first]).success().json();
    assert_eq!((&inserted["vdev"], &inserted["target"]), (&json!("hdc"), &json!(first)));
    assert_eq!((size(domid), recorded("t")), (Some(1 << 20), first.clone()));
    assert_eq!(drive(domid, "ide-5632")["inserted"]["ro"], true);
    // A block device, in place of what is in the drive.
    dombuild(&["insert", "t", "hdc", &device]).success();
    assert_eq!((size(domid), recorded("t")), (Some(2 << 20), device.clone()));
    dombuild(&["eject", "t", "hdc"]).success();
    assert_eq!((size(domid), recorded("t")), (None, String::new()));
    // An empty drive is ejected without any effect.
    dombuild(&["eject", "t", "hdc"]).success();
    let descriptors = ask(domid, &json!({ "execute": "query-fdsets" })).expect("an answer")["return"].clone();
    assert_eq!(descriptors, json!([]), "QEMU keeps no descriptor of a medium that is out");

    for (words, status, code, text) in [
        (&["insert", "t", "hdd", &first][..], 3, "bad-config", "CD drive hdd"),
        (&["insert", "t", "sda", &first], 3, "bad-config", "one of hda to hdd"),
        (&["insert", "t", "hdc", "/none"], 3, "bad-file", "cannot open /none"),
        (&["insert", "t", "hdc", path_text(folder.path())], 3, "bad-file", "directory"),
        (&["insert", "t", "hdc", &first, "--format", "dmg"], 3, "bad-config", "format"),
        (&["eject", "none", "hdc"], 3, "no-such-domain", "none"),
    ] {
        let error = dombuild(words).failed_with(status, code);
        assert!(message(&error).contains(text), "{words:?}: {error}");
    }
    // What is no image of this format: the drive stays empty.
    let error = dombuild(&["insert", "t", "hdc", &first, "--format", "qcow2"]).failed_with(1, "device-failed");
    assert!(message(&error).contains("QEMU refuses blockdev-change-medium"), "{error}");
    assert_eq!(size(domid), None);
    dombuild(&["destroy", "t"]).success();
    shell(&format!("losetup --detach {device}"));
}

/// xl's guest has paravirtual nodes for its empty drive; xl's own cd-insert ends its QEMU.
fn of_xl() {
    let image = file(&[0; 1 << 20]);
    let config = "type=\"hvm\"\nname=\"x\"\nmemory=64\nvnc=0\ndisk=[\",hdc:cdrom,r\"]\n";
    let config = file(config.as_bytes());
    shell(&format!("xl create -p {}", path_text(&config)));
    let domid: u64 = shell("xl domid x").trim().parse().expect("a domid");
    dombuild(&["insert", "x", "hdc", path_text(&image)]).success();
    assert_eq!((size(domid), recorded("x")), (Some(1 << 20), path_text(&image).to_owned()));
    assert!(shell("xl block-list x").lines().count() > 1);
    dombuild(&["eject", "x", "hdc"]).success();
    assert_eq!((size(domid), recorded("x")), (None, String::new()));
    shell("xl destroy x");
}
