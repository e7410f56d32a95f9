//! The sound card and USB that QEMU emulates for an HVM guest.

use std::collections::BTreeMap;

use serde_json::json;

use super::Test;
use super::cage::assert_filtered;
use super::device_model::ask;
use super::libxl_record::listed;
use super::support::{create, dombuild, file, number, path_text, run, shell};

pub(crate) const TESTS: &[Test] = &[("emulated_devices_are_as_xl_has_them", same_as_xl)];

/// The classes of QEMU's sound and USB devices, and how many of each a guest has.
fn devices(domid: u64) -> BTreeMap<String, usize> {
    let command = json!({ "execute": "human-monitor-command", "arguments": { "command-line": "info qtree" } });
    let tree = ask(domid, &command).expect("QEMU lives")["return"].as_str().expect("text").to_owned();
    let mut found = BTreeMap::new();
    for line in tree.lines().filter_map(|line| line.trim().strip_prefix("dev: ")) {
        let class = line.split(',').next().unwrap_or(line).to_owned();
        if ["usb", "hci", "hda", "AC97", "ES1370"].iter().any(|part| class.contains(part)) {
            *found.entry(class).or_default() += 1;
        }
    }
    found
}

fn same_as_xl() {
    // xl's QEMU shows the guest by VNC there.
    shell("ip link set lo up");
    // QEMU 10 refuses a sound card without an audio backend, and libxl names none.
    let xl_has_sound = env!("DOMBUILD_XEN_VERSION") == "4.17";
    if !xl_has_sound {
        let config = file(b"type=\"hvm\"\nname=\"x\"\nmemory=64\nsoundhw=\"ac97\"\n");
        let ran = run("xl", &["create", "-p", path_text(&config)]);
        let log = shell("cat /var/log/xen/qemu-dm-x.log");
        assert!(ran.status != Some(0) && log.contains("audio"), "{ran:?}: {log}");
    }
    for (sound, flags, usb, classes) in [
        ("hda", vec!["--usb-device", "tablet,keyboard"], "usb=1\nusbdevice=[\"tablet\",\"keyboard\"]", 6),
        ("ac97", vec!["--usb-version", "2"], "usbversion=2", 5),
        ("es1370", vec!["--usb-version", "3"], "usbversion=3", 2),
    ] {
        let own = [&["--memory", "64", "--paused", "--sound", sound][..], &flags].concat();
        let built = create("t", &own);
        let ours = devices(number(&built, "domid"));
        // QEMU adds a hub where a second device would take the last port.
        assert_eq!(ours.len(), classes, "{ours:?}");
        assert_filtered(number(&built, "device_model_pid"));

        let with_sound = if xl_has_sound { format!("soundhw=\"{sound}\"\n") } else { String::new() };
        let config = format!("type=\"hvm\"\nname=\"x\"\nmemory=64\nvga=\"stdvga\"\nvideoram=16\n{usb}\n{with_sound}");
        let config = file(config.as_bytes());
        shell(&format!("xl create -p {}", path_text(&config)));
        let mut theirs = devices(shell("xl domid x").trim().parse().expect("a domid"));
        let mut expected = ours.clone();
        if !xl_has_sound {
            for devices in [&mut theirs, &mut expected] {
                devices.retain(|class, _| class.contains("usb"));
            }
        }
        assert_eq!(expected, theirs);
        let [recorded, xls] = ["t", "x"].map(|name| listed(name)["b_info"]["type.hvm"].clone());
        assert_eq!(recorded["soundhw"], sound);
        for field in ["usb", "usbdevice_list", "usbversion"] {
            assert_eq!(recorded[field], xls[field], "{field}");
        }
        println!("--sound {sound} {}: {ours:?}", flags.join(" "));
        shell("xl destroy x");
        dombuild(&["destroy", "t"]).success();
    }
    assert_eq!(run("xl", &["domid", "t"]).status, Some(1));
}
