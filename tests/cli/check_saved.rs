//! `check` of saved guests' files, whole and damaged.

use serde_json::{Value, json};

use super::run::{Files, run, text};
use super::streams::{self, Record, record, stream};

const UUID: &str = "4c11f710-ec8d-11f1-ae77-cdbfcc4f498c";

/// A configuration of libxl's.
fn configuration(kind: &str) -> Value {
    let of_kind = format!("type.{kind}");
    json!({
        "c_info": { "type": kind, "name": "web", "uuid": UUID },
        // The frames of the streams end below 128 KiB; those of HVM guests may lie anywhere below 4 GiB.
        "b_info": { "max_memkb": 128, "target_memkb": 100, "max_vcpus": streams::VCPUS, of_kind: {} },
        "disks": [{ "vdev": "xvda", "pdev_path": "/srv/\u{1b}[31mweb.img" }],
    })
}

/// A file of xl's.
fn saved(configuration: &Value, libxc: &[u8], emulator: Option<&[u8]>) -> Vec<u8> {
    let mut text = serde_json::to_vec(configuration).expect("JSON");
    text.push(0);
    let length = u32::try_from(text.len()).expect("short");
    let mut bytes = b"Xen saved domain, xl format\n \0 \r".to_vec();
    bytes.extend([0x0102_0304, 3, 0, length + 4, length].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend(text);
    bytes.extend(*b"LibxlFmt\0\0\0\x02\0\0\0\0");
    bytes.extend(record(1, &[]));
    bytes.extend(libxc);
    bytes.extend(emulator.iter().flat_map(|state| record(3, &[&[2, 0, 0, 0, 0, 0, 0, 0], *state].concat())));
    bytes.extend(record(0, &[]));
    bytes
}

fn whole(kind: &str, version: u32, records: &[Record], emulator: Option<&[u8]>) -> Vec<u8> {
    let container = if kind == "pv" { 1 } else { 2 };
    saved(&configuration(kind), &stream(container, version, records), emulator)
}

#[test]
fn a_saved_guest_is_shown() {
    let files = Files::new();
    let path = text(&files.add("web", &whole("hvm", 3, &streams::hvm(), Some(b"QEMU's state"))));
    let ran = run(&["check", &path]);
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{ran:?}");
    for part in [
        ": a saved HVM guest, whole, ",
        "name        web\n",
        UUID,
        "vCPUs       2\n",
        "pages       4, 0 MiB\n",
        "saved on    Xen 4.17\n",
        "device      disks: xvda /srv/\\u{1b}[31mweb.img\n",
        "PAGE_DATA                       1           12352\n",
        "HVM_CONTEXT                     1             160\n",
        "QEMU's state                                   12\n",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\u{1b}'));
    let object = run(&["check", &path, "--json"]).json();
    for (name, value) in [
        ("format", json!("saved-guest")),
        ("kind", json!("hvm")),
        ("name", json!("web")),
        ("uuid", json!(UUID)),
        ("vcpus", json!(2)),
        ("static_max_kib", json!(128)),
        ("pages", json!(4)),
        ("xen", json!("4.17")),
        ("qemu_state", json!(true)),
        ("devices", json!([{ "list": "disks", "device": "xvda /srv/\u{1b}[31mweb.img" }])),
    ] {
        assert_eq!(object[name], value, "{object}");
    }
    let parts = object["parts"].as_array().expect("a list");
    assert!(parts.contains(&json!({ "name": "HVM_PARAMS", "records": 1, "bytes": 64 })), "{object}");
    let configured = run(&["check", &path, "--libxl-json"]);
    assert_eq!(configured.json(), configuration("hvm"));
    for word in ["--strict", "memory=7"] {
        let refused = run(&["check", &path, word]);
        assert_eq!(refused.exit, 3, "{refused:?}");
        assert!(refused.stderr.contains("the file is a saved guest"), "{refused:?}");
    }
}

#[test]
fn guests_of_each_kind() {
    let files = Files::new();
    for (kind, version, records, pages) in [
        ("pvh", 3, streams::hvm(), 4),
        ("hvm", 2, streams::hvm_old(), 2),
        ("pv", 3, streams::pv(), 4),
        ("pv", 2, streams::pv_old(), 4),
        ("pv", 3, streams::pv_narrow(), 4),
    ] {
        let path = text(&files.add(kind, &whole(kind, version, &records, None)));
        let object = run(&["check", &path, "--json"]).json();
        assert_eq!(
            (&object["kind"], &object["pages"], &object["qemu_state"]),
            (&json!(kind), &json!(pages), &json!(false))
        );
    }
    // What dombuild cannot give the guest is no damage.
    let mut other = configuration("pvh");
    other["b_info"]["vpmu"] = json!("True");
    let path = text(&files.add("other", &saved(&other, &stream(2, 3, &streams::hvm()), None)));
    let ran = run(&["check", &path]);
    assert!(ran.exit == 0 && ran.stdout.contains("Note: `dombuild restore` refuses it: "), "{ran:?}");
    assert_eq!(run(&["check", &path, "--json"]).json()["restorable"], json!(false));
}

#[test]
fn damage_has_a_place_and_a_name() {
    let files = Files::new();
    let good = whole("hvm", 3, &streams::hvm(), Some(b"QEMU's state"));
    let context = good.windows(4).rposition(|bytes| bytes == 0x5438_1286_u32.to_le_bytes()).expect("Xen's mark");
    let refused = |bytes: &[u8], offset: usize, record: &str| {
        let path = text(&files.add("web", bytes));
        let ran = run(&["check", &path, "--json"]);
        let error = ran.error();
        let place = (ran.exit, error["code"].clone(), error["offset"].clone(), error["record"].clone());
        assert_eq!(place, (3, json!("bad-file"), json!(offset), json!(record)), "{error}");
        assert!(!ran.stderr.contains('\u{1b}'));
    };
    let mut changed = good.clone();
    changed[context] ^= 1;
    refused(&changed, context, "HVM_CONTEXT");
    refused(&good[..context], context, "HVM_CONTEXT");
    refused(&good[..good.len() - 8], good.len() - 8, "the head of a record of libxl");
    refused(&[&good[..], b"more"].concat(), good.len(), "libxl's END");
    refused(&good[..20], 20, "xl's header");
    let other = saved(&configuration("pv"), &stream(2, 3, &streams::hvm()), None);
    let ran = run(&["check", &text(&files.add("web", &other))]);
    assert!(ran.exit == 3 && ran.stderr.contains("its configuration is of a pv guest"), "{ran:?}");
}

/// The child has 192 MiB of addresses, and what it keeps of each frame.
#[test]
fn a_file_takes_no_more_memory_than_its_frames() {
    let files = Files::new();
    let mut large = configuration("pvh");
    large["b_info"]["max_memkb"] = json!(1 << 20);
    let batch = record(1, &streams::pages(&(0..1024).collect::<Vec<_>>()).1);
    let mut libxc = stream(2, 3, &streams::hvm()[..3]);
    libxc.extend(batch.repeat(64));
    libxc.extend(&stream(2, 3, &streams::hvm()[4..])[40..]);
    let path = text(&files.add("web", &saved(&large, &libxc, None)));
    let object = run(&["check", &path, "--json"]).json();
    assert_eq!((&object["pages"], object["bytes"].as_u64() > Some(256 << 20)), (&json!(1024), true), "{object}");
}
