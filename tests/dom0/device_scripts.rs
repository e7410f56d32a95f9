//! Hotplug scripts other than Xen's own: they are called as xl calls them, and whatever they do, nothing of them stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::Test;
use super::devices::{Images, Link, create_with, loops, message};
use super::faults::tiny_kernel;
use super::support::{Ran, dombuild, file, path_text, run, shell};

pub(crate) const TESTS: &[Test] = &[
    ("device_scripts_are_called_as_xl_calls_them", as_xl_calls_them),
    ("device_scripts_that_fail", that_fail),
    ("device_scripts_that_print_much", that_print_much),
    ("device_scripts_that_hang", that_hang),
    ("device_scripts_that_fail_half_way", half_way),
];

/// A script among Xen's; it goes with the value.
struct HotplugScript;

impl HotplugScript {
    const NAME: &str = "dombuild-test";

    fn new(text: &str) -> Self {
        let path = format!("/etc/xen/scripts/{}", Self::NAME);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
        Self
    }
}

impl Drop for HotplugScript {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/etc/xen/scripts/{}", Self::NAME));
    }
}

const DISK: &str = "vdev=xvda,script=dombuild-test,target=what the script takes";
const CARD: &str = "bridge=test0,script=dombuild-test";

/// Its arguments and its environment go to a file, in one write: others run at the same time. Shells set some of what is left
/// out here. INTERFACE is the name of an emulated card's tap device: libxl sets it for such cards, dombuild for all.
fn recording(log: &str) -> String {
    format!(
        "record=$(echo \"$0 $*\"; env | grep -vE '^(PWD|OLDPWD|SHLVL|_|INTERFACE)=' | sort); echo \"$record\" >>{log}"
    )
}

fn as_xl_calls_them() {
    let log = file(b"");
    let _script = HotplugScript::new(&recording(path_text(&log)));
    let _bridge = Link::bridge("test0");
    let kernel = file(&tiny_kernel());
    let kernel = path_text(&kernel);
    // In the order of their devices: the scripts of a guest run at the same time.
    let calls = |domid: &str| {
        let text = fs::read_to_string(&log).expect("read");
        fs::write(&log, "").expect("emptied");
        // The environment of this process is not part of the call.
        let own: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
        let lines = text.lines().filter(|line| !own.iter().any(|of_ours| of_ours == line));
        let mut calls: Vec<Vec<String>> = Vec::new();
        for line in lines {
            if line.starts_with("/etc/") {
                calls.push(Vec::new());
            }
            let line = line.replace(&format!("/{domid}/"), "/N/").replace(&format!("vif{domid}."), "vifN.");
            calls.last_mut().expect("a call begins with the script").push(line);
        }
        calls.sort();
        calls
    };
    let other = "bridge=test0,script=dombuild-test,gatewaydev=lo,vifname=other";
    let config = format!(
        "type=\"pvh\"\nname=\"x\"\nmemory=64\nkernel=\"{kernel}\"\ndisk=[{DISK:?}]\nvif=[{CARD:?}, {other:?}]\n"
    );
    let config = file(config.as_bytes());
    shell(&format!("xl create -p {}", path_text(&config)));
    let theirs = shell("xl domid x");
    let plugged = calls(theirs.trim());
    shell("xl destroy x");
    let unplugged = calls(theirs.trim());

    create_with("t", &["--disk", DISK, "--vif", CARD, "--vif", other]).success();
    let ours = shell("xl domid t");
    assert_eq!(calls(ours.trim()), plugged);
    dombuild(&["destroy", "t"]).success();
    assert_eq!(calls(ours.trim()), unplugged);

    let first: Vec<&str> = plugged.iter().chain(&unplugged).map(|call| call[0].as_str()).collect();
    let (online, offline) = ("online type_if=vif", "offline type_if=vif");
    let expected = ["add", online, online, offline, offline, "remove"];
    assert_eq!(first, expected.map(|words| format!("/etc/xen/scripts/dombuild-test {words}")));
    assert!(plugged[0].len() >= 4 && plugged[1].len() >= 6, "{plugged:#?}");
}

/// Asks for a guest whose script does not plug the device.
fn refused(flags: &[&str], status: i32, code: &str) -> (Ran, String) {
    let ran = create_with("t", flags);
    let text = message(&ran.failed_with(status, code)).to_owned();
    (ran, text)
}

fn that_fail() {
    let _bridge = Link::bridge("test0");
    let _script = HotplugScript::new("case $1 in add|online) echo 'there is no such volume' >&2; exit 3;; esac");
    for (flags, device) in
        [(["--disk", DISK], "vbd 51712: the hotplug script"), (["--vif", CARD], "vif 0: the hotplug script")]
    {
        let (_, text) = refused(&flags, 1, "device-failed");
        for words in [device, "/etc/xen/scripts/dombuild-test", "exit status: 3", "there is no such volume"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    // What it writes to its node comes first, as in xl.
    let _script = HotplugScript::new(
        "[ $1 != add ] || { xenstore-write $XENBUS_PATH/hotplug-error 'no licence'; echo noise; exit 1; }",
    );
    assert!(refused(&["--disk", DISK], 1, "device-failed").1.contains("no licence"));
    // A script that cannot be started.
    let _script = HotplugScript::new("");
    fs::write("/etc/xen/scripts/dombuild-test", "no program\n").expect("written");
    let (_, text) = refused(&["--disk", DISK], 3, "bad-file");
    assert!(text.contains("Exec format error"), "{text}");
    // Its failure at the end does not keep the guest.
    let _script = HotplugScript::new("[ $1 != remove ] || { echo 'cannot let go' >&2; exit 1; }");
    create_with("t", &["--disk", DISK]).success();
    let ran = dombuild(&["destroy", "t"]).success();
    assert!(ran.stderr.contains("cannot let go"), "{ran:?}");
}

fn that_print_much() {
    let _script = HotplugScript::new(
        "yes 'a line of no use' | head -c 1048576; yes noise | head -c 1048576 >&2; echo the last line; [ ! -e /run/fail-now ]",
    );
    create_with("t", &["--disk", DISK]).success();
    dombuild(&["destroy", "t"]).success();
    fs::write("/run/fail-now", "").expect("written");
    let refusal = std::panic::catch_unwind(|| refused(&["--disk", DISK], 1, "device-failed"));
    fs::remove_file("/run/fail-now").expect("removed");
    let (ran, text) = refusal.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(text.contains("the last line") && text.len() < 5000, "{} bytes: {text}", text.len());
    assert!(ran.stderr.len() < 20_000, "{} bytes", ran.stderr.len());
}

/// The script and what it has started are killed.
fn that_hang() {
    let _bridge = Link::bridge("test0");
    let _script = HotplugScript::new("case $1 in add|online) echo waiting; sleep 86399 & sleep 86399;; esac");
    let sleeping = || run("pgrep", &["-fx", "sleep 86399"]).stdout;
    for flags in [["--disk", DISK], ["--vif", CARD]] {
        let start = Instant::now();
        let (_, text) = refused(&[&flags[..], &["--hotplug-timeout", "1"]].concat(), 8, "timed-out");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        for words in ["did not end within 1 seconds", "waiting", "--hotplug-timeout gives it longer"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert_eq!(sleeping(), "");
    }
    // A script that ends while what it has started still runs, with its output open, does not hold the run up.
    let _script = HotplugScript::new("[ $1 != add ] || sleep 20 &");
    let start = Instant::now();
    create_with("t", &["--disk", DISK]).success();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    dombuild(&["destroy", "t"]).success();
}

/// What a script had done when it failed, its `remove` undoes.
fn half_way() {
    let images = Images::new();
    let image = images.image("image");
    let _script = HotplugScript::new(
        "case $1 in\n\
         add) node=$(losetup -f --show \"$(xenstore-read $XENBUS_PATH/params)\")\n\
         xenstore-write $XENBUS_PATH/node $node; exit 1;;\n\
         remove) losetup -d $(xenstore-read $XENBUS_PATH/node);;\n\
         esac",
    );
    let before = loops();
    let other = images.image("other");
    let flags = [
        "--disk",
        &format!("vdev=xvda,script=dombuild-test,target={image}"),
        "--disk",
        &format!("vdev=xvdb,target={other}"),
    ];
    refused(&flags, 1, "device-failed");
    assert_eq!(loops(), before);
}
