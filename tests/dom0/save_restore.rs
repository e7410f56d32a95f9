//! Guests are saved and restored, by dombuild and by xl in turn.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use dombuild::memory::{Gfn, Pages};
use dombuild::xen::{DomId, DomainInfo, HvmParam, Interface};
use serde_json::{Value, json};

use super::Test;
use super::device_model::ask;
use super::devices::{HVM_QUICK, Images, Link, create_with, loops};
use super::linux::{QUICK, said, start};
use super::support::{CMDLINE, GUEST_INITRD, PACKED_KERNEL, create, dombuild, file, path_text, run, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("saved_pvh_moves_between_xl_and_dombuild", || linux_moves("pvh")),
    ("saved_pv_moves_between_xl_and_dombuild", || linux_moves("pv")),
    ("saved_hvm_moves_between_xl_and_dombuild", hvm_moves),
    ("saved_hvm_of_xl_has_its_devices", xls_hvm),
    ("saved_hvm_with_drivers_moves_between_xl_and_dombuild", hvm_with_drivers),
    ("saved_devices_come_back", devices_come_back),
    ("saved_guest_without_qemu", without_qemu),
    ("saved_guest_that_never_ran", never_ran),
];

const BRIDGE: &str = "saved0";

/// A folder for files of saved guests.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        path_text(&self.0.path().join(name)).to_owned()
    }

    /// Everything in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum By {
    Dombuild,
    Xl,
}

pub(crate) fn save(by: By, name: &str, path: &str) {
    match by {
        By::Dombuild => {
            let saved = dombuild(&["save", name, path]).success().json();
            assert_eq!((&saved["state"], &saved["bytes"]), (&json!("destroyed"), &json!(length(path))), "{saved}");
        }
        By::Xl => drop(run("xl", &["save", name, path]).success()),
    }
    assert_eq!(run("xl", &["domid", name]).status, Some(1), "it is gone");
    let checked = dombuild(&["check", path]).success().json();
    let xen = env!("DOMBUILD_XEN_VERSION");
    assert_eq!((&checked["name"], &checked["xen"], &checked["restorable"]), (&json!(name), &json!(xen), &json!(true)));
}

/// Restores a guest, which stays paused.
fn restore(by: By, path: &str) {
    match by {
        By::Dombuild => {
            let restored = dombuild(&["restore", path, "--paused"]).success().json();
            assert_eq!(restored["pages"], restored["measured_built"]["owned_pages"], "{restored}");
        }
        By::Xl => drop(run("xl", &["restore", "-p", path]).success()),
    }
}

fn length(path: &str) -> u64 {
    fs::metadata(path).expect("it is there").len()
}

pub(crate) fn info(name: &str) -> DomainInfo {
    let number = run("xl", &["domid", name]).success().stdout.trim().parse().expect("a number");
    let domid = DomId::new(number).expect("a domid");
    Interface::open().expect("Xen").domain(domid).expect("asked").expect("it is there")
}

/// Waits until the guest has used more of a CPU.
pub(crate) fn assert_runs(name: &str) {
    let before = info(name);
    assert_eq!((before.shutdown, before.paused), (None, false), "{name}");
    wait_for("the guest runs", 30, || info(name).cpu_time > before.cpu_time);
}

/// The pages in a file, by their frames: read by a reader that shares no code with dombuild's.
fn pages_in_file(path: &str) -> HashMap<u64, Vec<u8>> {
    let mut file = BufReader::new(File::open(path).expect("opened"));
    let skip = |file: &mut BufReader<File>, bytes: u64| {
        file.seek_relative(i64::try_from(bytes).expect("short")).expect("there is more");
    };
    let number = |file: &mut BufReader<File>, bytes: usize| {
        let mut buffer = [0; 8];
        file.read_exact(&mut buffer[..bytes]).expect("there is more");
        u64::from_le_bytes(buffer)
    };
    skip(&mut file, 44);
    let optional = number(&mut file, 4);
    // libxl's head, the head of its record, and libxc's heads.
    skip(&mut file, optional + 16 + 8 + 40);
    let mut pages = HashMap::new();
    loop {
        let (kind, length) = (number(&mut file, 4), number(&mut file, 4));
        let padded = length.next_multiple_of(8);
        match kind {
            0 => return pages,
            1 => {
                let count = number(&mut file, 8);
                let words: Vec<u64> = (0..count).map(|_| number(&mut file, 8)).collect();
                for word in words.into_iter().filter(|word| word >> 60 < 13) {
                    let mut page = vec![0; 4096];
                    file.read_exact(&mut page).expect("a page");
                    pages.insert(word & ((1 << 52) - 1), page);
                }
            }
            _ => skip(&mut file, padded),
        }
    }
}

/// Compares the memory of a paused HVM or PVH guest with the pages in the file.
fn assert_same_memory(name: &str, path: &str) {
    const CHUNK: u64 = 128;
    let (xen, domid, in_file) = (Interface::open().expect("Xen"), info(name).domid, pages_in_file(path));
    // The guests here have less than 2 GiB; cards and special pages are above.
    let special = 0x80000;
    let last = in_file.keys().copied().filter(|frame| *frame < special).max().expect("some");
    let (mut same, mut other) = (0_usize, Vec::new());
    let mut compare = |first: u64, count: u64| {
        let Ok(mapped) = xen.map(domid, Gfn(first), Pages(count)) else { return false };
        for index in 0..count {
            let mut page = vec![0; 4096];
            mapped.read(usize::try_from(index).expect("small") * 4096, &mut page);
            match in_file.get(&(first + index)) {
                Some(saved) if *saved == page => same += 1,
                saved => other.push((first + index, saved.is_some())),
            }
        }
        true
    };
    for first in (0..=last).step_by(usize::try_from(CHUNK).expect("small")) {
        if !compare(first, CHUNK) {
            // One of them is a hole.
            for frame in first..first + CHUNK {
                compare(frame, 1);
            }
        }
    }
    assert!(other.is_empty(), "of {same} pages, these differ: {other:?}");
    let saved = in_file.keys().filter(|frame| **frame < special).count();
    assert_eq!(same, saved, "every page in the file is in the guest");
    assert!(same > 10_000, "{same}");
}

/// The kernel answers to `xl sysrq`, and the first process follows the balloon's target.
fn assert_linux_lives(target_mib: u64) {
    let helps = || super::linux::console().matches("sysrq: HELP").count();
    let before = helps();
    wait_for("the guest's kernel answers", 60, || {
        shell("xl sysrq t h");
        helps() > before
    });
    run("xl", &["mem-set", "t", &format!("{target_mib}m")]).success();
    let arrived = || said("current_kb").and_then(|text| text.parse::<u64>().ok());
    wait_for("the first process goes on", 60, || arrived().is_some_and(|kib| kib.abs_diff(target_mib << 10) < 4096));
}

fn linux_moves(kind: &str) {
    use By::{Dombuild, Xl};
    let folder = Folder::new();
    start(&["--kind", kind, "--memory", "112"], "guest.touch=16");
    wait_for("its memory is full", 120, || said("touched").is_some());
    let chain = [(Dombuild, Xl), (Xl, Dombuild), (Dombuild, Dombuild)];
    for ((saver, restorer), target) in chain.into_iter().zip([108, 104, 100]) {
        let path = folder.path("guest");
        save(saver, "t", &path);
        restore(restorer, &path);
        if kind == "pvh" {
            assert_same_memory("t", &path);
        }
        fs::remove_file(&path).expect("removed");
        run("xl", &["unpause", "t"]).success();
        assert_linux_lives(target);
    }
    // It is dombuild's, with its plan.
    let shown = dombuild(&["inspect", "t"]).success().json();
    assert_eq!((&shown["recorded"], &shown["model"]), (&json!(true), &json!("xenops")), "{shown}");

    let path = folder.path("checkpoint");
    let saved = dombuild(&["save", "t", &path, "--checkpoint"]).success().json();
    assert!(saved["state"] == "running" && saved["suspended_ms"].as_u64().is_some_and(|time| time > 0), "{saved}");
    assert_linux_lives(96);
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    dombuild(&["save", "t", &path]).failed_with(3, "bad-file");
    dombuild(&["restore", &path]).failed_with(3, "name-taken");
    fs::remove_file(&path).expect("removed");
    dombuild(&["save", "t", &path, "--keep-paused"]).success();
    assert!(info("t").paused);
    run("xl", &["unpause", "t"]).success();
    assert_linux_lives(92);
    dombuild(&["destroy", "t"]).success();
}

/// SeaBIOS runs, and QEMU's devices.
pub(crate) fn assert_hvm_lives(name: &str) {
    assert_runs(name);
    let status = ask(u64::from(info(name).domid.get()), &json!({ "execute": "query-status" })).expect("QEMU lives");
    assert_eq!(status["return"]["running"], true, "{status}");
}

/// Saves and restores an HVM guest along the chain.
fn hvm_chain(name: &str, chain: &[(By, By)]) {
    let folder = Folder::new();
    for (saver, restorer) in chain {
        let path = folder.path("guest");
        save(*saver, name, &path);
        restore(*restorer, &path);
        assert_same_memory(name, &path);
        fs::remove_file(&path).expect("removed");
        run("xl", &["unpause", name]).success();
        assert_hvm_lives(name);
    }
}

fn hvm_moves() {
    use By::{Dombuild, Xl};
    create("t", &["--memory", "96", "--vcpus", "2"]);
    thread::sleep(Duration::from_secs(5));
    hvm_chain("t", &[(Dombuild, Dombuild), (Dombuild, Xl), (Xl, Dombuild)]);
    let shown = dombuild(&["inspect", "t"]).success().json();
    assert_eq!(shown["recorded"], true, "{shown}");
    let path = Folder::new();
    dombuild(&["save", "t", &path.path("checkpoint"), "--checkpoint"]).success();
    assert_hvm_lives("t");
    dombuild(&["destroy", "t"]).success();
}

/// Starts the small Linux guest as HVM, with a disk and a network card, and waits until it has used its disk.
pub(crate) fn start_hvm_linux(images: &Images, bridge: &str, words: &str) {
    let cmdline = format!("{CMDLINE} {QUICK} {HVM_QUICK} {words}");
    let words = ["-kernel", PACKED_KERNEL, "-initrd", GUEST_INITRD, "-append", &cmdline];
    let files: Vec<String> = words.iter().map(|word| format!("--dm-arg={word}")).collect();
    let (disk, card) = (format!("{},raw,xvda,w", images.image("disk")), format!("bridge={bridge}"));
    let mut flags = vec!["--memory", "192", "--platform", "tsc_mode=2", "--disk", &disk, "--vif", &card];
    flags.extend(files.iter().map(String::as_str));
    super::linux::expect_guest();
    create("t", &flags);
    wait_for("the guest is up", 1800, || said("wrote xvda").is_some() || super::linux::kernel_crashed());
    assert!(said("wrote xvda").is_some(), "{}", super::linux::CRASHED);
}

/// Its kernel is asked to suspend itself. On Xen 4.17, whose dom0 has a kernel packed by xz, the unpacking alone takes minutes.
fn hvm_with_drivers() {
    use By::{Dombuild, Xl};
    if !super::sample::full() {
        println!("only with --full: the guest's kernel takes many minutes to unpack itself and to start");
        return;
    }
    let (images, folder) = (Images::new(), Folder::new());
    let _bridge = Link::bridge(BRIDGE);
    start_hvm_linux(&images, BRIDGE, "guest.touch=16 guest.drivers guest.disk=xvda");
    let xen = Interface::open().expect("Xen");
    for ((saver, restorer), target) in
        [(Dombuild, Dombuild), (Dombuild, Xl), (Xl, Dombuild)].into_iter().zip([180, 176, 172])
    {
        assert_ne!(xen.hvm_param(info("t").domid, HvmParam::CallbackIrq).expect("asked"), 0, "it has drivers");
        let path = folder.path("guest");
        save(saver, "t", &path);
        restore(restorer, &path);
        fs::remove_file(&path).expect("removed");
        run("xl", &["unpause", "t"]).success();
        assert_linux_lives(target);
        assert_hvm_lives("t");
    }
    dombuild(&["destroy", "t"]).success();
}

/// The parts of QEMU's command line that the guest sees, and those of its PCI bus.
fn pci_bus(name: &str) -> Vec<(Value, Value)> {
    let answer = ask(u64::from(info(name).domid.get()), &json!({ "execute": "query-pci" })).expect("QEMU lives");
    let devices = answer["return"][0]["devices"].as_array().cloned().expect("a bus");
    devices.iter().map(|device| (device["slot"].clone(), device["id"].clone())).collect()
}

fn xls_hvm() {
    use By::{Dombuild, Xl};
    let _bridge = Link::bridge(BRIDGE);
    let images = Images::new();
    let disks = format!("\"{},raw,hda,w\",\",hdc:cdrom,r\"", images.image("disk"));
    // QEMU 10 refuses a sound card without an audio backend, and libxl names none.
    let sound = if env!("DOMBUILD_XEN_VERSION") == "4.17" { "soundhw=\"ac97\"\n" } else { "" };
    let config = format!(
        "type=\"hvm\"\nname=\"x\"\nmemory=96\nserial=\"pty\"\nvnc=1\nusbdevice=[\"tablet\"]\n{sound}disk=[{disks}]\n\
         vif=[\"bridge={BRIDGE},model=e1000\"]\nviridian=1\nhpet=0\n"
    );
    let config = file(config.as_bytes());
    shell(&format!("xl create {}", path_text(&config)));
    thread::sleep(Duration::from_secs(5));
    let before = pci_bus("x");
    let backends = || shell(&format!("xenstore-ls /libxl/{}/device | grep -c ' backend = '", info("x").domid));
    let devices = backends();
    hvm_chain("x", &[(Xl, Dombuild)]);
    assert_eq!(pci_bus("x"), before);
    assert_eq!(backends(), devices, "disks, card, console and keyboard");
    hvm_chain("x", &[(Dombuild, Xl), (Xl, Dombuild)]);
    assert_eq!(pci_bus("x"), before);
    dombuild(&["destroy", "x"]).success();
}

fn devices_come_back() {
    let _bridge = Link::bridge(BRIDGE);
    let images = Images::new();
    let folder = Folder::new();
    let disk = format!("{},raw,xvda,w", images.image("t"));
    let card = format!("bridge={BRIDGE},mac=00:16:3e:00:00:0a");
    let flags = ["--kind", "pvh", "--memory", "112", "--disk", &disk, "--vif", &card];
    start(&flags, "guest.drivers guest.disk=xvda");
    let listed = || dombuild(&["list", "--devices", "t"]).success().json();
    let connected = || {
        let all = listed().as_array().cloned().unwrap_or_default();
        all.len() == 2 && all.iter().all(|device| device["frontend_state"] == "connected")
    };
    wait_for("the guest has its devices", 60, || said("wrote xvda").is_some() && connected());
    let shown = || {
        let of =
            |device: &Value| ["kind", "vdev", "target", "writable", "mac", "bridge"].map(|name| device[name].clone());
        listed().as_array().expect("a list").iter().map(of).collect::<Vec<_>>()
    };
    let (before, loops_before) = (shown(), loops().len());
    for (saver, restorer) in [(By::Dombuild, By::Dombuild), (By::Xl, By::Dombuild), (By::Dombuild, By::Xl)] {
        let path = folder.path("guest");
        save(saver, "t", &path);
        assert_eq!(loops().len(), loops_before - 1, "the disk goes with the saved guest");
        let told = dombuild(&["restore", &path, "--dry-run"]).success().json();
        assert!(told["devices"].as_str().is_some_and(|text| text.contains("vbd") && text.contains("vif")), "{told}");
        assert_eq!(loops().len(), loops_before - 1);
        restore(restorer, &path);
        run("xl", &["unpause", "t"]).success();
        wait_for("the restored guest connects its devices", 60, connected);
        assert_eq!(shown(), before, "{saver:?}, {restorer:?}");
        fs::remove_file(&path).expect("removed");
    }
    // A disk that is gone is found before there is a domain.
    let path = folder.path("guest");
    save(By::Dombuild, "t", &path);
    fs::remove_file(images.path("t")).expect("removed");
    dombuild(&["restore", &path]).failed_with(3, "bad-file");
}

pub(crate) fn small_hvm() {
    create("t", &["--memory", "64", "--device-model", "none"]);
    thread::sleep(Duration::from_secs(3));
}

fn without_qemu() {
    let folder = Folder::new();
    small_hvm();
    let path = folder.path("guest");
    save(By::Dombuild, "t", &path);
    restore(By::Dombuild, &path);
    assert_same_memory("t", &path);
    run("xl", &["unpause", "t"]).success();
    assert_runs("t");
    dombuild(&["destroy", "t"]).success();
}

/// It has no drivers yet that would have to know.
fn never_ran() {
    let folder = Folder::new();
    create_with("t", &[]).success();
    let path = folder.path("guest");
    save(By::Dombuild, "t", &path);
    restore(By::Dombuild, &path);
    assert_same_memory("t", &path);
    dombuild(&["destroy", "t"]).success();
}
