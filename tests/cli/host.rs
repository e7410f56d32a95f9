//! Hosts that are no dom0, or not for this user: no Xen, no permission, no xenstore.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::run::{FIRST_CALL, Files, PROGRAM, Ran, command, has_xen, line, run, skipped, text, with};

/// The verbs that need Xen, with all else that they need.
fn verbs(files: &Files) -> [Vec<String>; 6] {
    let destroy = |domain: &str| ["destroy", "--force", domain].map(str::to_owned).to_vec();
    let of = |words: &str| words.split(' ').map(str::to_owned).collect();
    [files.create(), files.build(), destroy("7"), destroy("web"), of("balloon web 1GiB"), of("inspect 7")]
}

#[test]
fn without_xen_every_verb_that_needs_it_says_so() {
    if has_xen("without_xen_every_verb_that_needs_it_says_so") {
        return;
    }
    let files = Files::new();
    for arguments in verbs(&files) {
        let plain = run(&arguments);
        assert_eq!((plain.exit, plain.stdout.as_str()), (5, ""), "{arguments:?}: {plain:?}");
        for word in ["dombuild: connect: xc_interface_open() failed", "ENOENT (2)", "dom0", "modprobe xen-privcmd"] {
            assert!(plain.stderr.contains(word), "{word} is missing: {}", plain.stderr);
        }
        assert_eq!(plain.stderr.lines().count(), 1, "told once: {}", plain.stderr);

        let json = Ran::of(command(&arguments).arg("--json"));
        let error = json.error();
        assert_eq!((json.exit, &error["code"], &error["stage"]), (5, &"no-xen".into(), &"connect".into()), "{error}");
        assert_eq!((&error["errno"], &error["call"]), (&"ENOENT".into(), &"xc_interface_open".into()), "{error}");
    }
}

#[test]
fn the_log_shows_the_call_and_only_where_it_is_asked_for() {
    if has_xen("the_log_shows_the_call_and_only_where_it_is_asked_for") {
        return;
    }
    for arguments in [&["destroy", "7"][..], &["features"], &["features", "--json"]] {
        let quiet = run(arguments);
        assert!(!quiet.stderr.contains("DEBUG"), "{}", quiet.stderr);
        let loud = Ran::of(command(arguments).env("RUST_LOG", "dombuild=debug"));
        let call = format!("{FIRST_CALL}) = NULL");
        assert!(loud.stderr.lines().any(|line| line.contains("DEBUG") && line.contains(&call)), "{}", loud.stderr);
        // The log is beside the result, not in it.
        assert_eq!((loud.exit, &loud.stdout), (quiet.exit, &quiet.stdout));
    }
    let plan = Ran::of(command(&["plan", "--memory", "256"]).env("RUST_LOG", "dombuild=trace"));
    assert_eq!(plan.exit, 0, "{plan:?}");
    assert!(plan.stderr.contains("stage check-input") && !plan.stderr.contains("xc_"), "a plan asks Xen nothing");
}

/// What `features` promises on any machine.
fn check_features(json: &Value, text: &str) {
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let built_for = json["built_for_xen"].as_str().expect("a release");
    assert!(built_for.starts_with("4."), "{built_for}");
    assert!(text.contains(&format!("built for Xen {built_for}")), "{text}");

    let files = json["files"].as_array().expect("a list");
    let names: Vec<&str> = files.iter().filter_map(|file| file["what"].as_str()).collect();
    assert_eq!(names, ["hvmloader", "PV shim", "SeaBIOS", "OVMF", "QEMU"]);
    let missing: Vec<&str> =
        json["missing"].as_array().expect("a list").iter().map(|entry| entry.as_str().expect("text")).collect();
    for file in files {
        let what = file["what"].as_str().expect("text");
        let listed = missing.iter().find(|entry| entry.starts_with(what));
        if let Some(path) = file["path"].as_str() {
            assert!(Path::new(path).is_file(), "{path}");
            assert!(text.contains(path) && listed.is_none(), "{what} is there: {json}");
        } else {
            let entry = listed.unwrap_or_else(|| panic!("{what} is missing, and not told: {json}"));
            assert!(entry.contains("Debian package"), "{entry}");
            assert!(text.lines().any(|line| line.starts_with("missing") && line.contains(entry)), "{text}");
        }
    }
    assert_eq!(missing.len(), files.iter().filter(|file| file["path"].is_null()).count());
}

#[test]
fn features_works_without_xen() {
    if has_xen("features_works_without_xen") {
        return;
    }
    let (json, text) = (line("features --json"), line("features"));
    assert_eq!((json.exit, text.exit), (0, 0));
    assert_eq!((json.stderr.as_str(), text.stderr.as_str()), ("", ""));
    let object = json.json();
    assert_eq!(object.get("xen"), Some(&Value::Null), "{object}");
    let reason = object["xen_error"].as_str().expect("the reason");
    assert!(reason.contains("xc_interface_open() failed: ENOENT") && reason.contains("dom0"), "{reason}");
    assert!(text.stdout.contains(&format!("none: {reason}")), "{}", text.stdout);
    check_features(&object, &text.stdout);
}

/// A host whose /dev has a `xen/privcmd` that can be opened, but does nothing: a plain file, in a mount namespace of its
/// own. The program is there too, where every user can run it.
const FAKE_HOST: &str = r#"
set -e
mount -t tmpfs none /dev
mkdir /dev/xen
: > /dev/xen/privcmd
chmod 600 /dev/xen/privcmd
cp "$0" /dev/dombuild
chmod 755 /dev /dev/xen /dev/dombuild
exec "$@"
"#;

fn on_fake_host(user: &[&str], arguments: &[impl AsRef<OsStr>], json: bool) -> Ran {
    let mut fake = Command::new("unshare");
    fake.args(["--mount", "sh", "-c", FAKE_HOST, PROGRAM]).args(user).arg("/dev/dombuild").args(arguments);
    if json {
        fake.arg("--json");
    }
    Ran::of(fake.env_remove("RUST_LOG"))
}

/// Whether this machine lets us make one; says so where it does not.
fn can_fake_a_host(test: &str) -> bool {
    if has_xen(test) {
        return false;
    }
    let probe =
        Command::new("unshare").args(["--mount", "sh", "-c", FAKE_HOST, PROGRAM, "setpriv", "--version"]).output();
    match probe {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            skipped(test, &format!("it takes root and a mount namespace of its own: {reason}"));
            false
        }
        Err(error) => {
            skipped(test, &format!("it takes unshare(1): {error}"));
            false
        }
    }
}

const NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

#[test]
fn another_user_is_told_to_be_root() {
    if !can_fake_a_host("another_user_is_told_to_be_root") {
        return;
    }
    let files = Files::new();
    for arguments in verbs(&files) {
        let plain = on_fake_host(&NOBODY, &arguments, false);
        assert_eq!((plain.exit, plain.stdout.as_str()), (5, ""), "{plain:?}");
        assert!(plain.stderr.contains("EACCES (13)"), "{}", plain.stderr);
        assert!(plain.stderr.contains("run dombuild as root in dom0"), "{}", plain.stderr);

        let json = on_fake_host(&NOBODY, &arguments, true);
        let error = json.error();
        assert_eq!(
            (json.exit, &error["code"], &error["errno"]),
            (5, &"permission".into(), &"EACCES".into()),
            "{error}"
        );
        assert_eq!(error["stage"], "connect");
    }
    // What is wrong with the files comes first, and for this user a closed one is: root would read it.
    let kernel = files.add("closed", b"\x7fELF");
    fs::set_permissions(&kernel, fs::Permissions::from_mode(0o600)).expect("permissions");
    let closed = on_fake_host(&NOBODY, &with(&files.create(), "--hvmloader", &text(&kernel)), true);
    assert_eq!((closed.exit, &closed.error()["code"]), (3, &"bad-kernel".into()), "{closed:?}");
    assert!(closed.stderr.contains("Permission denied"), "{}", closed.stderr);

    let features = on_fake_host(&NOBODY, &["features"], true);
    assert_eq!(features.exit, 0, "{features:?}");
    let object = features.json();
    assert!(object["xen"].is_null());
    assert!(object["xen_error"].as_str().is_some_and(|reason| reason.contains("as root")), "{object}");
    check_features(&object, &on_fake_host(&NOBODY, &["features"], false).stdout);

    let plan = on_fake_host(&NOBODY, &["plan", "--memory", "256"], false);
    assert_eq!((plan.exit, plan.stdout), (0, line("plan --memory 256").stdout), "a plan needs no root");
}

#[test]
fn without_xenstored_the_exit_code_is_its_own() {
    if !can_fake_a_host("without_xenstored_the_exit_code_is_its_own") {
        return;
    }
    let files = Files::new();
    for arguments in verbs(&files) {
        let plain = on_fake_host(&["env"], &arguments, false);
        assert_eq!((plain.exit, plain.stdout.as_str()), (6, ""), "{plain:?}");
        assert!(plain.stderr.contains("start xenstored"), "{}", plain.stderr);
        let json = on_fake_host(&["env"], &arguments, true);
        let error = json.error();
        assert_eq!((json.exit, &error["code"], &error["call"]), (6, &"xenstore".into(), &"xs_open".into()), "{error}");
    }
}
