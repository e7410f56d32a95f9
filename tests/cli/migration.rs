//! Files that are no saved guests are refused before Xen is touched.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::run::{FIRST_CALL, Ran, command};

/// A file of xl's with this configuration and an empty stream behind it.
fn saved(configuration: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec(configuration).expect("JSON");
    text.push(0);
    let length = u32::try_from(text.len()).expect("short");
    let mut bytes = b"Xen saved domain, xl format\n \0 \r".to_vec();
    bytes.extend([0x0102_0304, 3, 0, length + 4, length].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend(text);
    bytes.extend(*b"LibxlFmt\0\0\0\x02\0\0\0\0");
    bytes
}

fn restore(content: &[u8]) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("guest");
    fs::write(&path, content).expect("written");
    let ran = Ran::of(command(&["--json", "restore", path.to_str().expect("UTF-8")]).env("RUST_LOG", "dombuild=debug"));
    assert!(!ran.stderr.contains(FIRST_CALL) && !ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
    ran
}

#[test]
fn a_file_is_looked_through_first() {
    let guest = json!({
        "c_info": { "type": "pvh", "name": "web", "uuid": "4c11f710-ec8d-11f1-ae77-cdbfcc4f498c" },
        "b_info": { "max_memkb": 65536, "type.pvh": {} },
    });
    let with = |pointer: &str, field: &str, value: Value| {
        let mut changed = guest.clone();
        changed.pointer_mut(pointer).expect("it is there")[field] = value;
        saved(&changed)
    };
    for (content, words) in [
        (Vec::new(), "does not begin with xl's mark"),
        (b"\x7fELF".repeat(100), "does not begin with xl's mark"),
        (saved(&guest)[..100].to_vec(), "in the middle of the configuration"),
        (saved(&json!("text")), "has  = \"text\""),
        (saved(&json!({})), "has no usable c_info.type"),
        (with("/b_info", "vpmu", json!("True")), "has b_info.vpmu = \"True\", which dombuild cannot give the guest"),
        (with("/c_info", "x\u{1b}", json!("\u{1b}[2J")), "c_info.x\\u{1b} = \"\\u{1b}[2J\""),
        (with("/c_info", "name", json!("../x")), "has no usable c_info.name"),
        (saved(&guest), "in the middle of a record of libxl"),
    ] {
        let ran = restore(&content);
        let error = ran.error();
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(words), "{words}: {message}");
        assert_eq!((ran.exit, &error["code"], &error["stage"]), (3, &json!("bad-file"), &json!("check-input")));
    }
}

#[test]
fn what_is_no_file_is_refused() {
    for path in ["/nowhere/guest", "/", "/dev/null"] {
        let ran = Ran::of(command(&["--json", "restore", path]).env("RUST_LOG", "dombuild=debug"));
        assert_eq!((ran.exit, &ran.error()["code"]), (3, &json!("bad-file")), "{path}: {ran:?}");
        assert!(!ran.stderr.contains(FIRST_CALL), "{}", ran.stderr);
    }
}

/// The verb of the child is for dombuild itself.
#[test]
fn the_child_does_nothing_for_others() {
    for words in [&["migration-helper"][..], &["migration-helper", "--help"], &["migration-helper", "99", "7", "1"]] {
        let ran = Ran::of(command(words).stdin(Stdio::null()));
        assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""), "{words:?}: {ran:?}");
        assert_ne!(ran.stderr, "", "{words:?}");
    }
}
