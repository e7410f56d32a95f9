//! Files that are no saved guests are refused before Xen is touched.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use dombuild::cancel::Cancel;
use dombuild::error::Error;
use dombuild::error::damage::Damage;
use dombuild::error::migration::MigrationError;
use dombuild::migration::checker::StateChecker;
use dombuild::migration::libxc_records::{Bounds, Container};
use dombuild::migration::libxc_stream::CheckedStream;
use serde_json::{Value, json};

use super::run::{FIRST_CALL, PROGRAM, Ran, command};
use super::streams::{self, LAST, VCPUS};

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
        (saved(&guest)[..100].to_vec(), "at byte 100, the configuration: it is cut off"),
        (saved(&json!("text")), "has no usable c_info.type"),
        (saved(&json!({})), "has no usable c_info.type"),
        (with("/b_info", "vpmu", json!("True")), "has b_info.vpmu = \"True\", which dombuild cannot give the guest"),
        (with("/c_info", "x\u{1b}", json!("\u{1b}[2J")), "c_info.x\\u{1b} = \"\\u{1b}[2J\""),
        (with("/c_info", "name", json!("../x")), "has no usable c_info.name"),
        (saved(&guest), "LIBXC_CONTEXT: it is cut off"),
    ] {
        let ran = restore(&content);
        let error = ran.error();
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(words), "{words}: {message}");
        assert_eq!((ran.exit, &error["code"], &error["stage"]), (3, &json!("bad-file"), &json!("check-input")));
        assert_eq!(error["offset"].is_u64() && error["record"].is_string(), message.contains("at byte"), "{error}");
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
    for words in [
        &["migration-helper"][..],
        &["migration-helper", "--help"],
        &["migration-helper", "99", "7", "1"],
        &["check-state"],
        &["check-state", "--help"],
        &["check-state", "stream", "0", "1", "1", "1"],
    ] {
        let ran = Ran::of(command(words).stdin(Stdio::null()));
        assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""), "{words:?}: {ran:?}");
        assert_ne!(ran.stderr, "", "{words:?}");
    }
}

/// Sends these bytes to the child through a socket. Returns what it passes on, its verdict, and what it leaves in the socket.
fn forwarded(sent: Vec<u8>, timeout: Duration) -> (Vec<u8>, Result<CheckedStream, Error>, Vec<u8>) {
    let (mut ours, mut theirs) = UnixStream::pair().expect("sockets");
    let from = ours.try_clone().expect("a descriptor").into();
    let checker = StateChecker::new(PROGRAM.into());
    let (checking, pipe) = checker.forward(from, 0, Bounds::new(LAST, VCPUS), timeout).expect("it starts");
    let reading = thread::spawn(move || {
        let mut passed = Vec::new();
        File::from(pipe).read_to_end(&mut passed).map(|_| passed)
    });
    let length = sent.len();
    let sending = thread::spawn(move || theirs.write_all(&sent).map(|()| theirs));
    let verdict = checking.wait(&Cancel::default(), || ());
    let mut rest = Vec::new();
    ours.set_nonblocking(true).expect("set");
    if verdict.is_ok() {
        drop(sending.join().expect("it ended").expect("sent"));
        ours.read_to_end(&mut rest).expect("read");
    }
    let passed = reading.join().expect("it ended").expect("read");
    assert!(passed.len() + rest.len() <= length);
    (passed, verdict, rest)
}

/// A child in its sandbox checks a stream, passes it on, and leaves what follows it.
#[test]
fn a_stream_is_passed_on() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut records = streams::hvm();
    let many: Vec<u64> = (0..=0x1f).cycle().take(3000).collect();
    records.insert(4, streams::pages(&many));
    let whole = streams::stream(2, 3, &records);
    let (passed, verdict, rest) = forwarded([&whole[..], b"libxl's next record"].concat(), PATIENCE);
    let found = verdict.expect("it is whole");
    assert_eq!((found.end, found.pages.0, found.container), (whole.len() as u64, 0x20, Container::Hvm));
    assert!(passed == whole && rest == b"libxl's next record", "{} of {} bytes", passed.len(), whole.len());

    let mut damaged = whole.clone();
    let context = damaged.len() - 8 - 64 - streams::context().len();
    damaged[context] ^= 2;
    let (passed, verdict, _) = forwarded(damaged, PATIENCE);
    let Err(Error::Migration(error)) = verdict else { panic!("{verdict:?}") };
    let MigrationError::BadStream(Damage { offset, record, .. }) = &*error else { panic!("{error}") };
    assert_eq!((*offset, record.to_string().as_str()), (context as u64, "HVM_CONTEXT"));
    assert!(whole.starts_with(&passed) && passed.len() == context - 8, "{} bytes", passed.len());

    // A sender that says nothing more.
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let checker = StateChecker::new(PROGRAM.into());
    let timeout = Duration::from_secs(1);
    let (checking, pipe) = checker.forward(ours.into(), 0, Bounds::new(LAST, VCPUS), timeout).expect("it starts");
    let verdict = checking.wait(&Cancel::default(), || ());
    assert!(matches!(verdict, Err(Error::TimedOut { .. })), "{verdict:?}");
    assert_eq!(File::from(pipe).read_to_end(&mut Vec::new()).expect("read"), 0, "its child has ended");
    drop(theirs);
}
