//! Names, files and settings that are refused before Xen is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::run::{Files, Ran, command, refused, text, with};

fn message(arguments: &[String], code: &str) -> String {
    let error = refused(arguments, 3, code);
    assert_eq!(error["stage"], "check-input", "{error}");
    error["message"].as_str().expect("text").to_owned()
}

#[test]
fn kernels_that_are_none() {
    let files = Files::new();
    // The headers of a 64-bit program, as this test's own, without the place of its sections at the end (elf(5))
    let mut wide = fs::read("/proc/self/exe").expect("read")[..4096].to_vec();
    wide[40..48].fill(0);
    wide[60..64].fill(0);
    let mut arm = fs::read(files.path("hvmloader")).expect("read");
    arm[18] = 40;
    files.add("wide", &wide);
    files.add("arm", &arm);
    files.add("text", b"#!/bin/sh\n");
    files.add("empty", b"");
    files.add("cut", b"\x7fELF\x01");
    let huge = fs::File::create(files.path("huge")).expect("created");
    huge.set_len((16 << 20) + 1).expect("a sparse file");
    for (name, word) in [
        ("missing", "No such file"),
        ("wide", "is cut off"),
        ("arm", "neither a 32-bit x86 program"),
        ("text", "not a usable ELF file"),
        ("empty", "is empty"),
        ("cut", "not a usable ELF file"),
        ("huge", "16777217 bytes"),
        (".", "not a regular file"),
    ] {
        let path = text(&files.path(name));
        for arguments in [files.create(), files.build()] {
            let message = message(&with(&arguments, "--hvmloader", &path), "bad-kernel");
            assert!(message.contains(word) && message.contains(&path), "{name}: {message}");
        }
    }
}

#[test]
fn firmware_that_is_none() {
    let files = Files::new();
    files.add("empty", b"");
    for (name, word) in [("missing", "No such file"), ("empty", "is empty"), (".", "not a regular file")] {
        let path = text(&files.path(name));
        for arguments in [files.create(), files.build()] {
            for kind in ["seabios", "ovmf"] {
                let message = message(&with(&arguments, "--firmware", &format!("{kind}:{path}")), "bad-firmware");
                assert!(message.contains(word) && message.contains(&path), "{name}: {message}");
            }
        }
    }
    let small = with(&with(&files.create(), "--memory", "3"), "--video", "0");
    assert!(message(&small, "bad-firmware").contains("at least 5 MiB"));
}

#[test]
fn device_models_that_are_none() {
    let files = Files::new();
    for (name, word) in
        [("missing", "No such file"), ("firmware", "not an executable file"), (".", "not an executable")]
    {
        let path = text(&files.path(name));
        let message = message(&with(&files.create(), "--device-model", &path), "bad-file");
        assert!(message.contains(word) && message.contains(&path), "{name}: {message}");
        assert!(message.contains("device model"), "{message}");
    }
    let message = message(&with(&with(&files.create(), "--device-model", "none"), "--dm-arg", "-cdrom"), "bad-config");
    assert!(message.contains("--dm-arg") && message.contains("without a device model"), "{message}");
}

#[test]
fn names_that_could_be_misread() {
    let files = Files::new();
    let long = "x".repeat(81);
    for (name, word) in [
        ("", "1 to 80 bytes"),
        (&long, "this has 81"),
        ("7", "taken for a domid"),
        ("0042", "taken for a domid"),
        ("a/b", "'/'"),
        ("../x", "'/'"),
        (" a", "with a space"),
        ("a ", "with a space"),
        ("a\u{a0}b", r"'\u{a0}'"),
        ("a\u{202e}b", r"'\u{202e}'"),
        ("a\u{200b}b", r"'\u{200b}'"),
        ("a\nb", r"'\n'"),
        ("a\tb", r"'\t'"),
        ("a\x1b[31m", r"'\u{1b}'"),
        ("+7", "taken for a domid"),
        (".x", "not start with"),
    ] {
        let message = message(&with(&files.create(), "--name", name), "bad-config");
        assert!(message.contains(word) && message.contains("--name"), "{name:?}: {message}");
        assert!(!message.contains(['\n', '\t', '\x1b']), "shown as it is: {message:?}");
    }
    // A dash reads as a flag, unless it is tied to its own.
    let mut dashed = files.create();
    dashed.push("--name=-x".to_owned());
    let at = dashed.iter().position(|argument| argument == "--name").expect("there");
    dashed.drain(at..at + 2);
    assert!(message(&dashed, "bad-config").contains("not start with"));
}

#[test]
fn good_names_get_as_far_as_the_kernel() {
    let files = Files::new();
    let no_kernel = with(&files.create(), "--hvmloader", "/nowhere/hvmloader");
    for name in ["web", "win10-x64", "a.b_c+d", "7up", "_", "+x", "a b", "a,b", "a%n", "größe", &"x".repeat(80)] {
        message(&with(&no_kernel, "--name", name), "bad-kernel");
    }
}

#[test]
fn settings_that_make_no_guest() {
    let files = Files::new();
    let nil = "00000000-0000-0000-0000-000000000000";
    assert!(message(&with(&files.create(), "--uuid", nil), "bad-config").contains("nil UUID"));
    for few in ["0", "15"] {
        let message = message(&with(&files.create(), "--event-channels", few), "bad-config");
        assert!(message.contains(few) && message.contains("at least 16"), "{message}");
    }
    let same = with(&with(&files.build(), "--store-port", "3"), "--console-port", "3");
    assert!(message(&same, "bad-config").contains("must differ"));
}

/// Where nothing is installed and nothing was named, the message says what to install and which flag names a file.
#[test]
fn what_is_not_installed_is_named() {
    let features = Ran::of(&mut command(&["features", "--json"])).json();
    let files = Files::new();
    let found = |what: &str| {
        let list = features["files"].as_array().expect("a list");
        let entry = list.iter().find(|entry| entry["what"] == what).expect("an entry for each file");
        entry["path"].as_str().map(str::to_owned)
    };
    for (what, flag, default, code) in [
        ("hvmloader", "--hvmloader", "", "bad-kernel"),
        ("SeaBIOS", "--firmware", "seabios", "bad-firmware"),
        ("OVMF", "--firmware", "ovmf", "bad-firmware"),
        ("QEMU", "--device-model", "", "bad-file"),
    ] {
        let mut arguments = files.create();
        let at = arguments.iter().position(|argument| argument == flag).expect("there");
        if default.is_empty() {
            arguments.drain(at..at + 2);
        } else {
            default.clone_into(&mut arguments[at + 1]);
        }
        if found(what).is_some() {
            // It is taken: what is refused then is something that is looked at later.
            let error = refused(&with(&arguments, "--memory", "0"), 3, "bad-memory");
            assert!(error["message"].as_str().is_some_and(|text| text.contains("target of 0 MiB")), "{error}");
        } else {
            let message = message(&arguments, code);
            for word in [what, flag, "install Debian's package"] {
                assert!(message.contains(word), "{what}: {word} is missing: {message}");
            }
        }
    }
}

/// Root reads everything; for anybody else a closed file is one more bad file.
#[test]
fn files_that_may_not_be_read() {
    let files = Files::new();
    fs::set_permissions(files.path("hvmloader"), fs::Permissions::from_mode(0o000)).expect("permissions");
    if fs::read(files.path("hvmloader")).is_ok() {
        super::run::skipped("files_that_may_not_be_read", "this user may read every file");
        return;
    }
    assert!(message(&files.create(), "bad-kernel").contains("Permission denied"));
}
