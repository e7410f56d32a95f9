//! Values that try to be more than they are: to reach another file, another option of QEMU's, another record, another line of
//! a terminal. They are refused before Xen is touched, and shown without their control characters.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::run::{Files, PROGRAM, Ran, command, copy_program, refused, skipped, text, with};

/// Nothing of what was refused may speak to the terminal.
fn assert_quiet(ran: &Ran) {
    let odd = ran.stderr.trim_end_matches('\n').chars().find(|char| char.is_control());
    assert_eq!(odd, None, "{:?}", ran.stderr);
}

#[test]
fn names_that_try_to_escape() {
    let files = Files::new();
    let long = "x".repeat(100_000);
    for name in [
        "a\nb",
        "a/b",
        "../../etc/passwd",
        "..",
        ".",
        ".a",
        "-a",
        "--",
        "a,path=/x",
        "a\u{1b}[2J",
        "a\tb",
        "a\u{7f}",
        "\u{202e}a",
        "a\u{2028}b",
        "a\u{200b}b",
        "a\u{a0}b",
        &long,
    ] {
        let arguments = with(&files.create(), "--name", name);
        let arguments: Vec<String> = arguments
            .iter()
            .map(|word| if word == name { format!("--name={name}") } else { word.clone() })
            .filter(|word| word != "--name")
            .collect();
        refused(&arguments, 3, "bad-config");
        assert_quiet(&Ran::of(&mut command(&arguments)));
    }
}

#[test]
fn bytes_that_are_no_text() {
    let files = Files::new();
    for flag in ["--name", "--dm-arg", "--uuid", "--seclabel", "--platform", "--memory", "--device-model-user"] {
        let mut arguments: Vec<OsString> = files.create().into_iter().map(OsString::from).collect();
        arguments.extend([OsString::from(flag), OsStr::from_bytes(b"a\xff\xfe").to_owned()]);
        refused(&arguments, 2, "usage");
    }
    // A path may be any bytes; but xenstore takes text.
    let kernel = files.add("guest", b"\x7fELF and more");
    let odd = kernel.with_file_name(OsStr::from_bytes(b"k\xff"));
    fs::copy(&kernel, &odd).expect("copied");
    for (flag, other) in [("--kernel", "--ramdisk"), ("--ramdisk", "--kernel")] {
        let words = ["create", "--name", "t", "--memory", "64", "--kind", "pv"].map(OsString::from);
        let values = [flag.into(), odd.clone().into_os_string(), other.into(), kernel.clone().into_os_string()];
        let error = refused(&[&words[..], &values].concat(), 3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains("not UTF-8"), "{error}");
    }
}

#[test]
fn what_goes_into_xenstore_is_one_line_that_fits() {
    let files = Files::new();
    let kernel = text(&files.add("guest", b"\x7fELF and more"));
    let create = |flags: &[&str]| -> Vec<String> {
        let words = ["create", "--name", "t", "--memory", "64", "--kind", "pv"];
        words.iter().chain(flags).map(|word| (*word).to_owned()).collect()
    };
    let two_lines = text(&files.add("a\nb", b"\x7fELF and more"));
    let long = format!("{}{kernel}", "/.".repeat(1600));
    for (flags, word) in [
        (["--kernel", two_lines.as_str(), "--cmdline", "quiet"], "control character"),
        (["--kernel", long.as_str(), "--cmdline", "quiet"], "3072 bytes"),
        (["--kernel", &kernel, "--cmdline", "quiet\nroot=/dev/evil"], "control character"),
        (["--kernel", &kernel, "--cmdline", "\u{1b}[2Jquiet"], "control character"),
        (["--kernel", &kernel, "--cmdline", &"x".repeat(1024)], "1023"),
    ] {
        let error = refused(&create(&flags), 3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(word), "{error}");
    }
    for label in ["a b", "a\nb", "é", &"x".repeat(1025)] {
        let error = refused(&with(&files.create(), "--seclabel", label), 3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains("--seclabel"), "{error}");
    }
}

#[test]
fn files_with_odd_names_are_told_of_in_one_line() {
    let files = Files::new();
    for path in ["/nowhere/a\nb", "/nowhere/\u{1b}[2J", "/nowhere/%s%n", "/nowhere/a,b"] {
        for (flag, value, code) in [
            ("--hvmloader", path.to_owned(), "bad-kernel"),
            ("--firmware", format!("seabios:{path}"), "bad-firmware"),
            ("--device-model", path.to_owned(), "bad-file"),
            ("--smbios", path.to_owned(), "bad-file"),
            ("--acpi", path.to_owned(), "bad-file"),
        ] {
            let arguments = with(&files.create(), flag, &value);
            let plain = Ran::of(&mut command(&arguments));
            assert_eq!(plain.exit, 3, "{plain:?}");
            assert_quiet(&plain);
            let error = Ran::of(command(&arguments).arg("--json")).json()["error"].clone();
            assert_eq!(error["code"], code, "{error}");
        }
    }
}

#[test]
fn what_dombuild_tells_qemu_is_not_the_users_to_tell() {
    let files = Files::new();
    for option in ["xen-domid", "xen-domid-restrict", "chroot", "runas", "run-with", "daemonize"] {
        for dashes in ["-", "--"] {
            let error = refused(&with(&files.create(), "--dm-arg", &format!("{dashes}{option}")), 3, "bad-config");
            assert!(error["message"].as_str().expect("text").contains(option), "{error}");
        }
    }
}

#[test]
fn users_of_the_device_model_that_cannot_be() {
    let files = Files::new();
    for (user, word) in [
        ("root", "--device-model-root"),
        ("0", "--device-model-root"),
        ("0:0", "--device-model-root"),
        ("7:0", "--device-model-root"),
        ("no-such-user-here", "no user"),
    ] {
        let error = refused(&with(&files.create(), "--device-model-user", user), 3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(word), "{user}: {error}");
    }
    for user in ["", ":", "7:", ":7", "7:8:9", "-7", "a:b", "a,chroot=/", "a\nb", "../a", "4294967295", "65535"] {
        refused(&[files.create(), vec![format!("--device-model-user={user}")]].concat(), 2, "usage");
    }
    let both = [files.create(), vec!["--device-model-root".to_owned()]].concat();
    refused(&with(&both, "--device-model-user", "7"), 2, "usage");
    refused(&with(&both, "--device-model-filter", "off"), 2, "usage");
    refused(&with(&files.create(), "--device-model-filter", "maybe"), 2, "usage");
    let none = with(&files.create(), "--device-model", "none");
    refused(&with(&none, "--device-model-filter", "off"), 3, "bad-config");
    refused(&with(&none, "--device-model-user", "7"), 3, "bad-config");
    refused(&[none, vec!["--device-model-root".to_owned()]].concat(), 3, "bad-config");
    let devices = [files.create(), vec!["--passthrough".to_owned()]].concat();
    refused(&with(&devices, "--device-model-user", "7"), 3, "bad-config");
    // A program that is no QEMU of Xen's.
    let error = refused(&with(&files.create(), "--device-model", PROGRAM), 3, "bad-file");
    assert!(error["message"].as_str().expect("text").contains("--device-model-root"), "{error}");
}

/// Called by one user with the rights of another, it does nothing, and opens nothing that it was told to.
#[test]
fn it_does_not_run_with_borrowed_rights() {
    const TEST: &str = "it_does_not_run_with_borrowed_rights";
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("dombuild");
    copy_program(Path::new(PROGRAM), &program);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    if chown(&program, Some(65_534), Some(65_534)).is_err() {
        return skipped(TEST, "it takes root to make a file another user's");
    }
    let log = directory.path().join("log");
    for (mode, uid) in [(0o4755, 0), (0o2755, 0), (0o4755, 12_345)] {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("permissions");
        let mut command = Command::new(&program);
        command.uid(uid).args(["--json", "--log", &text(&log), "plan", "--memory", "64"]);
        let ran = Ran::of(&mut command);
        if ran.exit == 0 {
            return skipped(TEST, "the file system ignores set-uid");
        }
        assert_eq!(ran.exit, 5, "{ran:?}");
        assert_eq!(ran.json()["error"]["code"], "permission");
        assert!(ran.stderr.contains("set-uid"), "{ran:?}");
        assert!(!log.exists(), "it opened what it was told to");
    }
}

/// A picture is made as the caller's umask says, but never for others to write.
#[test]
fn no_file_is_everybodys_to_write() {
    let directory = tempfile::tempdir().expect("a directory");
    for (umask, svg, log) in [("000", 0o644, 0o640), ("022", 0o644, 0o640), ("077", 0o600, 0o600)] {
        let (picture, journal) = (directory.path().join(format!("{umask}.svg")), directory.path().join(umask));
        let line = format!("umask {umask}; exec \"$0\" \"$@\"");
        let words = ["plan", "--memory", "64", "--svg", &text(&picture), "--log", &text(&journal)].map(str::to_owned);
        let ran = Ran::of(Command::new("sh").args(["-c", &line, PROGRAM]).args(words));
        assert_eq!(ran.exit, 0, "{ran:?}");
        let mode = |path| fs::metadata(path).expect("made").permissions().mode() & 0o7777;
        assert_eq!((mode(&picture), mode(&journal)), (svg, log), "{umask}");
    }
}

/// A link in a directory of everybody's leads where its maker wants.
#[test]
fn a_picture_goes_through_no_link_of_another_user() {
    let files = Files::new();
    let (link, target) = (files.path("link"), files.add("target", b"precious"));
    symlink(&target, &link).expect("made");
    if lchown(&link, Some(65_534), None).is_err() {
        let test = "a_picture_goes_through_no_link_of_another_user";
        return skipped(test, "it takes root to make a link another user's");
    }
    let error = refused(&["plan", "--memory", "64", "--svg", &text(&link)], 3, "bad-file");
    assert!(error["message"].as_str().expect("text").contains("symbolic link of user 65534"), "{error}");
    assert_eq!(fs::read(&target).expect("there"), b"precious");
    lchown(&link, Some(0), None).expect("given back");
    assert_eq!(Ran::of(&mut command(&["plan", "--memory", "64", "--svg", &text(&link)])).exit, 0);
    assert_ne!(fs::read(&target).expect("there"), b"precious");
}

/// clap quotes what it does not understand.
#[test]
fn usage_errors_are_quiet_too() {
    for word in ["--a\u{1b}[2Jb", "a\u{1b}]0;x\u{7}", "--memory=\u{202e}1"] {
        let ran = Ran::of(&mut command(&["plan", word]));
        assert_eq!(ran.exit, 2, "{ran:?}");
        let odd = ran.stderr.chars().find(|char| *char != '\n' && (char.is_control() || *char == '\u{202e}'));
        assert_eq!(odd, None, "{:?}", ran.stderr);
    }
}
