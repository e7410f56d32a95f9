//! Devices that come and go while a guest exists: `attach`, `detach` and `list --devices`, alone and together with xl.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::Test;
use super::linux::{said, start};
use super::support::{
    DOMBUILD, GUEST_INITRD, GUEST_KERNEL, create, dombuild, path_text, run, script, shell, start_silently, wait_for,
};

pub(crate) const TESTS: &[Test] = &[
    ("devices_come_to_a_running_guest_and_go", come_and_go),
    ("a_paused_guest_keeps_what_it_has", paused_guest),
    ("devices_that_cannot_be_attached", refused),
    ("a_killed_attach_is_cleaned_up", killed_attach),
];

const BRIDGE: &str = "hotbr0";
const MAC: &str = "00:16:3e:0a:0b:0c";

/// Images and a bridge, and what the host had before: dropped, they go.
struct Site {
    folder: tempfile::TempDir,
    before: Vec<String>,
}

impl Site {
    fn new() -> Self {
        shell(&format!("ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up"));
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.img", "b.img"] {
            fs::write(folder.path().join(name), vec![b'x'; 1 << 20]).expect("written");
        }
        Self { folder, before: host_devices() }
    }

    fn image(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spec(&self, name: &str, place: &str) -> String {
        format!("{},raw,{place},w", path_text(&self.image(name)))
    }

    /// dom0 has no loop device and no interface more than before, and xenstore no device of the guest.
    fn assert_back(&self) {
        wait_for("the host has no device of the guest", 10, || host_devices() == self.before);
        assert_eq!(devices().as_array().map(Vec::len), Some(0), "{}", devices());
        let left = shell("xenstore-ls -f / | grep -E '/(vbd|vif)/[0-9]+/[0-9]+|/device/(vbd|vif)/[0-9]' || true");
        assert_eq!(left, "");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        run("ip", &["link", "delete", BRIDGE]);
    }
}

fn host_devices() -> Vec<String> {
    let loops = shell("losetup -a");
    let interfaces = fs::read_dir("/sys/class/net").expect("listed").flatten();
    let names = interfaces.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = loops.lines().map(str::to_owned).chain(names).collect();
    found.sort();
    found
}

/// What `list --devices t` says.
fn devices() -> Value {
    dombuild(&["list", "--devices", "t"]).success().json()
}

fn state_of(node: &str, kind: &str, devid: &str) -> String {
    shell(&format!("xenstore-read /local/domain/0/backend/{kind}/$(xl domid t)/{devid}/{node}")).trim().to_owned()
}

fn message(error: &Value) -> &str {
    error["message"].as_str().expect("text")
}

fn paused(kind: &str) {
    create("t", &["--kind", kind, "--memory", "96", "--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD, "--paused"]);
}

fn come_and_go() {
    let site = Site::new();
    start(&["--kind", "pvh", "--memory", "128"], "guest.drivers");
    wait_for("the guest's drivers", 60, || said("drivers").is_some());

    // dombuild alone.
    let disk = dombuild(&["attach", "disk", "t", &site.spec("a.img", "xvdb")]).success().json();
    let nic = dombuild(&["attach", "vif", "t", &format!("bridge={BRIDGE},mac={MAC}")]).success().json();
    assert_eq!(
        (&disk["kind"], &disk["devid"], &disk["vdev"]),
        (&"vbd".into(), &51728.into(), &"xvdb".into()),
        "{disk}"
    );
    assert_eq!((&nic["kind"], &nic["devid"], &nic["mac"]), (&"vif".into(), &0.into(), &MAC.into()), "{nic}");
    for device in [&disk, &nic] {
        assert_eq!((&device["frontend_state"], &device["backend_state"]), (&"connected".into(), &"connected".into()));
    }
    assert_eq!(devices(), Value::Array(vec![disk.clone(), nic.clone()]));
    assert_eq!(dombuild(&["list", "--devices"]).success().json(), devices(), "there is no other guest");
    let table = run(DOMBUILD, &["list", "--devices", "t"]).success().stdout;
    for words in ["vbd 51728 (xvdb)", "connected", path_text(&site.image("a.img")), MAC, BRIDGE] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let listed = shell("xl block-list t; xl network-list t");
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    // block-list: Vdev BE handle state; network-list: Idx BE MAC handle state.
    assert!(rows.iter().any(|row| row.first() == Some(&"51728") && row.get(3) == Some(&"4")), "{listed}");
    assert!(rows.iter().any(|row| row.get(2) == Some(&MAC) && row.get(4) == Some(&"4")), "{listed}");
    let config = shell("xl list -l t");
    assert!(config.contains(path_text(&site.image("a.img"))) && config.contains(MAC), "{config}");

    // What is there is not replaced.
    for (class, spec, words) in [
        ("disk", site.spec("b.img", "xvdb"), "the guest has a vbd 51728 (xvdb) already"),
        ("disk", site.spec("a.img", "xvdc"), "is in use"),
        ("vif", format!("bridge={BRIDGE},devid=0"), "the guest has a vif 0 already"),
        ("vif", format!("bridge={BRIDGE},mac={MAC}"), "vif 0 has the address"),
    ] {
        let error = dombuild(&["attach", class, "t", &spec]).failed_with(3, "bad-config");
        assert!(message(&error).contains(words), "{error}");
    }
    assert_eq!(devices(), Value::Array(vec![disk, nic]));
    let second = dombuild(&["attach", "vif", "t", &format!("bridge={BRIDGE}")]).success().json();
    assert_eq!(second["devid"], 1, "the lowest free number");

    dombuild(&["detach", "vif", "t", MAC]).success();
    dombuild(&["detach", "vif", "t", "1"]).success();
    let gone = dombuild(&["detach", "disk", "t", "51728"]).success().json();
    assert_eq!((&gone["devid"], &gone["forced"]), (&51728.into(), &false.into()));
    site.assert_back();
    let config = shell("xl list -l t");
    assert!(!config.contains("a.img") && !config.contains("\"mac\""), "{config}");

    // xl attaches, dombuild detaches.
    shell(&format!(
        "xl block-attach t '{}' && xl network-attach t bridge={BRIDGE} mac={MAC}",
        site.spec("a.img", "xvdc")
    ));
    let connected = || {
        let devices = devices();
        let states = devices.as_array().expect("a list").iter().map(|device| device["frontend_state"].clone());
        states.filter(|state| state == "connected").count() == 2
    };
    wait_for("the guest connects xl's devices", 30, connected);
    dombuild(&["detach", "disk", "t", "xvdc"]).success();
    dombuild(&["detach", "vif", "t", "0"]).success();
    site.assert_back();

    // dombuild attaches, xl detaches.
    dombuild(&["attach", "disk", "t", &site.spec("b.img", "xvdd")]).success();
    dombuild(&["attach", "vif", "t", &format!("bridge={BRIDGE}")]).success();
    shell("xl block-detach t xvdd && xl network-detach t 0");
    site.assert_back();

    // A guest that xl shuts down stays until it is destroyed: no program watches it.
    run("xl", &["shutdown", "-w", "t"]).success();
    assert_eq!(shell("xl list t | tail -1").split_whitespace().nth(4), Some("---s--"));
    dombuild(&["destroy", "t"]).success();
}

/// A guest that does not run connects nothing and releases nothing.
fn paused_guest() {
    let site = Site::new();
    paused("pvh");
    let config = shell("cat /var/lib/xen/userdata-d.*.libxl-json");
    let (disk, nic) = (site.spec("a.img", "xvdb"), format!("bridge={BRIDGE}"));
    for (class, spec) in [("disk", &disk), ("vif", &nic)] {
        let error = dombuild(&["attach", class, "t", spec, "--timeout", "1"]).failed_with(8, "timed-out");
        assert_eq!(error["stage"], "wait-device", "{error}");
        for words in ["has not connected", "within 1 seconds", "init-wait", "it is paused", "was taken away again"] {
            assert!(message(&error).contains(words), "{words}: {error}");
        }
        site.assert_back();
    }
    assert_eq!(shell("cat /var/lib/xen/userdata-d.*.libxl-json"), config);

    dombuild(&["attach", "disk", "t", &disk, "--no-wait"]).success();
    dombuild(&["attach", "vif", "t", &nic, "--no-wait"]).success();
    for (class, kind, device) in [("disk", "vbd", "51728"), ("vif", "vif", "0")] {
        let error = dombuild(&["detach", class, "t", device, "--timeout", "1"]).failed_with(8, "timed-out");
        for words in ["has not released", "within 1 seconds", "it is paused", "the request was withdrawn"] {
            assert!(message(&error).contains(words), "{words}: {error}");
        }
        assert_eq!(
            (state_of("state", kind, device), state_of("online", kind, device)),
            ("2".to_owned(), "1".to_owned())
        );
    }
    let both = shell("cat /var/lib/xen/userdata-d.*.libxl-json");
    assert!(both.contains("xvdb") && both.contains("nics"), "{both}");
    for (class, device) in [("disk", "xvdb"), ("vif", "0")] {
        dombuild(&["detach", class, "t", device, "--force"]).success();
    }
    site.assert_back();
    assert!(!shell("cat /var/lib/xen/userdata-d.*.libxl-json").contains("xvdb"));

    // With devices, the guest is destroyed like any other.
    dombuild(&["attach", "disk", "t", &disk, "--no-wait"]).success();
    dombuild(&["destroy", "t"]).success();
    wait_for("no loop device is left", 10, || host_devices() == site.before);

    // A guest without libxl's file gets none.
    paused("pv");
    shell("rm /var/lib/xen/userdata-d.[1-9]*.libxl-json");
    dombuild(&["attach", "disk", "t", &disk, "--no-wait"]).success();
    dombuild(&["detach", "disk", "t", "xvdb", "--force"]).success();
    assert_eq!(shell("ls /var/lib/xen | grep -c '^userdata-d.[1-9].*libxl-json' || true").trim(), "0");
    dombuild(&["destroy", "t"]).success();
}

fn refused() {
    let site = Site::new();
    let failing = script("#!/bin/sh\necho it is broken\nexit 3\n");
    create("t", &["--memory", "64", "--device-model", "none", "--paused"]);
    let image = site.image("a.img");
    let image = path_text(&image);
    for (class, spec, exit, code, words) in [
        ("disk", format!("{image},qcow2,xvdb,w"), 3, "bad-config", "only QEMU can serve it"),
        ("disk", format!("{image},raw,hdc:cdrom,r"), 3, "bad-config", "the CD drives of an HVM guest are emulated"),
        ("disk", "/nowhere,raw,xvdb,w".to_owned(), 3, "bad-file", "/nowhere"),
        ("disk", format!("{image},raw,vda,w"), 3, "bad-config", "disk \"/"),
        ("vif", "bridge=nobridge".to_owned(), 3, "bad-config", "no bridge \"nobridge\""),
        ("vif", "type=ioemu".to_owned(), 3, "bad-config", "leave type=ioemu and model= out"),
        ("vif", format!("bridge={BRIDGE},vifname={BRIDGE}"), 3, "bad-config", "has an interface"),
        ("vif", format!("script={}", path_text(&failing)), 1, "device-failed", "it is broken"),
    ] {
        let error = dombuild(&["attach", class, "t", &spec, "--no-wait"]).failed_with(exit, code);
        assert!(message(&error).contains(words), "{words}: {error}");
        site.assert_back();
    }
    for device in ["xvdb", "51712"] {
        let error = dombuild(&["detach", "disk", "t", device]).failed_with(3, "bad-config");
        assert!(message(&error).contains("has no disk"), "{error}");
    }
    dombuild(&["attach", "vif", "0", ""]).failed_with(3, "bad-config");
    dombuild(&["detach", "disk", "no-such-guest", "xvda"]).failed_with(3, "no-such-domain");
    // A disk at an emulated place has no emulated twin when it comes later.
    dombuild(&["attach", "disk", "t", &format!("{image},raw,hda,r"), "--no-wait"]).success();
    let listed = devices();
    assert_eq!((&listed[0]["devid"], &listed[0]["writable"]), (&768.into(), &false.into()), "{listed}");
    dombuild(&["destroy", "t"]).success();
}

/// Starts an attach that the paused guest does not follow, and returns once the device is there.
fn started_attach(site: &Site) -> Child {
    let child = start_silently(&["attach", "disk", "t", &site.spec("a.img", "xvdb")]);
    wait_for("the disk is plugged", 20, || {
        shell("losetup -a").contains("a.img") && !devices().as_array().expect("a list").is_empty()
    });
    thread::sleep(Duration::from_millis(200));
    child
}

fn killed_attach() {
    let site = Site::new();
    paused("pvh");
    let mut killed = started_attach(&site);
    let living = dombuild(&["cleanup"]).success().json();
    assert_eq!(living.as_array().map(Vec::len), Some(0), "it lives: {living}");
    killed.kill().expect("killed");
    killed.wait().expect("it ended");
    assert!(shell("losetup -a").contains("a.img"));
    // Another device of the same guest, which is complete, stays.
    dombuild(&["attach", "disk", "t", &site.spec("b.img", "xvdc"), "--no-wait"]).success();
    for apply in [false, true] {
        let found = dombuild(if apply { &["cleanup", "--apply"] } else { &["cleanup"] }).success().json();
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
        let expected = (&"device".into(), &"attach".into(), &apply.into());
        assert_eq!((&found[0]["what"], &found[0]["verb"], &found[0]["removed"]), expected, "{found}");
    }
    let left = devices();
    assert_eq!((left.as_array().map(Vec::len), &left[0]["vdev"]), (Some(1), &"xvdc".into()), "{left}");
    dombuild(&["detach", "disk", "t", "xvdc", "--force"]).success();
    site.assert_back();

    // A signal ends it in order.
    let stopped = started_attach(&site);
    let pid = stopped.id().to_string();
    run("kill", &["-INT", &pid]).success();
    let output = stopped.wait_with_output().expect("it ended");
    assert_eq!(output.status.code(), Some(130));
    site.assert_back();
    dombuild(&["destroy", "t"]).success();
}
