//! Files that are no saved guests are refused before Xen is touched; the connection of a migration.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use dombuild::cancel::Cancel;
use dombuild::error::Error;
use dombuild::error::damage::Damage;
use dombuild::error::migration::MigrationError;
use dombuild::migration::checker::StateChecker;
use dombuild::migration::libxc_records::{Bounds, Container};
use dombuild::migration::libxc_stream::CheckedStream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

/// Standard output is the connection to the other side, which would take an object for the guest.
#[test]
fn the_connection_gets_no_object() {
    let ran = Ran::of(&mut command(&["--json", "migrate-receive"]));
    assert_eq!((ran.exit, ran.stdout.as_str()), (5, ""), "{ran:?}");
    assert!(ran.stderr.contains("xc_interface_open"), "{ran:?}");
    for words in [&["migrate"][..], &["migrate", "web"], &["migrate", "web", "host", "--fd", "3"]] {
        assert_eq!(Ran::of(&mut command(words)).exit, 2, "{words:?}");
    }
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
    // A child of another test may have the other end until it begins its program.
    ours.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
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

/// What the child says is checked again. Its words reach no terminal.
#[test]
fn a_child_that_lies_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("liar");
    let verdict = |answer: &str, status: i32| {
        let script = format!("#!/bin/sh\nprintf '%s' '{answer}' >&2\nexit {status}\n");
        fs::write(&program, script).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("permissions");
        let from = File::open("/dev/null").expect("it is there").into();
        let checker = StateChecker::new(program.clone());
        let timeout = Duration::from_secs(20);
        let started = checker.forward(from, 100, Bounds::new(LAST, VCPUS), timeout);
        let (checking, _pipe) = started.expect("it starts");
        checking.wait(&Cancel::default(), || ())
    };
    let whole = |end: u64, pages: u64| {
        let found = json!({ "container": "hvm", "end": end, "pages": pages, "xen": [4, 17], "records": [] });
        json!({ "whole": { "found": found, "missing": [] } }).to_string()
    };
    let damaged = |offset: u64, record: &str| {
        json!({ "damaged": { "offset": offset, "record": record, "fault": "cut-off" } }).to_string()
    };
    assert_eq!(verdict(&whole(148, 0x21), 0).expect("it can be").pages.0, 0x21);
    for (answer, status, words) in [
        (whole(148, 0x22), 0, "answers wrongly"),
        (whole(147, 0), 0, "answers wrongly"),
        (whole(140, 0), 0, "answers wrongly"),
        (whole(99, 0), 0, "answers wrongly"),
        (whole(148, 0), 1, "ended without an answer"),
        (String::new(), 0, "ended without an answer"),
        ("x".repeat(5000), 0, "answers wrongly"),
        (whole(148, 0).replace("hvm", "other"), 0, "ended without an answer"),
        (damaged(99, "END"), 1, "answers wrongly"),
        (damaged(100, &"x".repeat(500)), 1, "answers wrongly"),
        (damaged(100, "\u{1b}[2J"), 1, "at byte 100, \\u{1b}[2J: it is cut off"),
        (json!({ "failed": "\u{1b}[2J" }).to_string(), 1, "not checked: \\u{1b}[2J"),
        (json!({ "unsafe": "no seccomp" }).to_string(), 1, "this host cannot confine the child"),
    ] {
        let error = verdict(&answer, status).expect_err("it is a lie").to_string();
        assert!(error.contains(words) && !error.contains('\u{1b}'), "{words}: {error}");
    }
}

/// A whole file of 16 GiB that takes little room on the disk, and a while to check.
fn long_file(path: &Path) {
    const PAGES: u64 = 4 << 20;
    let guest = json!({
        "c_info": { "type": "pvh", "name": "web", "uuid": "4c11f710-ec8d-11f1-ae77-cdbfcc4f498c" },
        "b_info": { "max_memkb": PAGES * 4, "type.pvh": {} },
    });
    let mut start = saved(&guest);
    start.extend(streams::record(1, &[]));
    start.extend(streams::stream(2, 3, &streams::hvm()[..3]));
    let file = File::create(path).expect("a file");
    let mut at = start.len() as u64;
    file.write_all_at(&start, 0).expect("written");
    for first in (0..PAGES).step_by(1024) {
        let length = 8 + 1024 * 8 + 1024 * 4096_u32;
        let mut head: Vec<u8> = [1, length, 1024, 0].into_iter().flat_map(u32::to_le_bytes).collect();
        head.extend((first..first + 1024).flat_map(u64::to_le_bytes));
        file.write_all_at(&head, at).expect("written");
        at += 8 + u64::from(length);
    }
    let mut end = streams::stream(2, 3, &streams::hvm()[4..])[40..].to_vec();
    end.extend(streams::record(0, &[]));
    file.write_all_at(&end, at).expect("written");
}

/// The children of this process that check a state.
fn children(of: u32) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .map(|entry| entry.path())
        .filter(|folder| is_child(folder) && status(folder, &format!("PPid:\t{of}")))
        .collect()
}

/// Whether a process checks a state, and has not ended.
fn is_child(folder: &Path) -> bool {
    fs::read(folder.join("cmdline")).is_ok_and(|words| words.starts_with(b"dombuild\0check-state\0"))
}

fn status(folder: &Path, line: &str) -> bool {
    fs::read_to_string(folder.join("status")).is_ok_and(|text| text.lines().any(|other| other == line))
}

#[test]
fn a_signal_ends_a_check_and_its_child() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long");
    long_file(&path);
    // A shell lets its background jobs ignore SIGINT, and so does dombuild then.
    for (signal, exit) in [(Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)] {
        let mut run = command(&["--json", "check", path.to_str().expect("UTF-8")]);
        let mut child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut found = Vec::new();
        while found.is_empty() {
            assert!(Instant::now() < deadline && child.try_wait().expect("asked").is_none(), "it has a child");
            found = children(child.id());
        }
        // It would end by itself soon.
        for folder in &found {
            let pid = folder.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a pid");
            kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("sent");
        }
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("sent");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), exit, "{output:?}");
        if exit.is_some() {
            let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(object["error"]["stage"], json!("check-input"), "{object}");
        }
        while found.iter().any(|folder| is_child(folder)) {
            assert!(Instant::now() < deadline, "{signal}: its child lives");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
