//! QEMU without root's rights, as the kernel shows it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use dombuild::qemu::confinement::{EMPTY_DIRECTORY, FIRST_USER};
use dombuild::qemu::helpers::LIMITS;
use serde_json::{Value, json};

use super::Test;
use super::support::{
    DOMBUILD, create, dombuild, domid, file, number, path_text, run, script, shell, wait_for, wait_for_guest_line,
};

pub(crate) const TESTS: &[Test] = &[
    ("device_model_has_no_rights", no_rights),
    ("device_model_of_a_chosen_user", chosen_user),
    ("device_model_as_root_where_it_is_asked_for", as_root),
    ("device_model_is_root_for_pci_devices", root_for_devices),
    ("device_model_without_rights_has_its_disks", disks),
    ("device_model_inherits_nothing", inherits_nothing),
    ("device_model_rests_when_its_guest_does", rests),
    ("device_model_leaves_no_process_of_its_user", no_process_is_left),
    ("device_model_is_not_started_in_a_directory_of_others", foreign_directory),
];

const SMALL: [&str; 3] = ["--memory", "64", "--paused"];

/// A field of `/proc/PID/status`.
pub(crate) fn status(pid: u64, field: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

fn assert_unprivileged(pid: u64, user: u32, group: u32) {
    assert_eq!(status(pid, "Uid"), vec![user.to_string(); 4]);
    assert_eq!(status(pid, "Gid"), vec![group.to_string(); 4]);
    let groups = status(pid, "Groups");
    assert!(groups.iter().all(|other| *other == group.to_string()), "{groups:?}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(pid, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), ["1"]);
    let root = fs::read_link(format!("/proc/{pid}/root")).expect("its root");
    assert_eq!(root, Path::new(EMPTY_DIRECTORY));
    let there = fs::metadata(EMPTY_DIRECTORY).expect("it is there");
    assert_eq!(there.permissions().mode() & 0o7777, 0);
    assert_eq!(fs::read_dir(EMPTY_DIRECTORY).expect("root may look").count(), 0);
    for space in ["mnt", "ipc"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{space}")).expect("a namespace");
        assert_ne!(of(&pid.to_string()), of("self"), "{space}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line").to_owned();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
}

fn no_rights() {
    let built = create("t", &["--memory", "128"]);
    let (guest, pid) = (domid(&built), number(&built, "device_model_pid"));
    let user = FIRST_USER + guest.get();
    assert_unprivileged(pid, user, user);
    // No handle of xenstore, and none by which it could call Xen or map another guest's memory or grants.
    let xenstored: BTreeSet<String> = open_files(pid).into_iter().filter(|file| file.contains("xen")).collect();
    let known: BTreeSet<String> =
        ["/dev/xen/privcmd", "/dev/xen/evtchn", "/var/log/xen/qemu-dm-t.log"].map(str::to_owned).into();
    assert!(xenstored.is_subset(&known), "{xenstored:?}");
    assert_eq!(shell(&format!("xenstore-read /local/domain/0/device-model/{guest}/state")).trim(), "running");
    wait_for_guest_line(guest, "SeaBIOS (version", 120);
    dombuild(&["destroy", "t"]).success();
}

fn open_files(pid: u64) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    entries.flatten().filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string())).collect()
}

fn chosen_user() {
    let built = create("t", &[&SMALL[..], &["--device-model-user", "12345:23456"]].concat());
    assert_unprivileged(number(&built, "device_model_pid"), 12_345, 23_456);
    dombuild(&["destroy", "t"]).success();
    let built = create("t", &[&SMALL[..], &["--device-model-user", "nobody"]].concat());
    assert_unprivileged(number(&built, "device_model_pid"), 65_534, 65_534);
    // That user has other processes, which are none of the guest's.
    let mut other = Command::new("sleep").arg("1000").uid(65_534).spawn().expect("sleep");
    dombuild(&["destroy", "t"]).success();
    assert!(other.try_wait().expect("waited").is_none(), "it goes on");
    other.kill().expect("killed");
    other.wait().expect("waited");
}

fn as_root() {
    let built = create("t", &[&SMALL[..], &["--device-model-root"]].concat());
    let pid = number(&built, "device_model_pid");
    assert_eq!(status(pid, "Uid"), ["0", "0", "0", "0"]);
    assert_eq!(fs::read_link(format!("/proc/{pid}/root")).expect("its root"), Path::new("/"));
    dombuild(&["destroy", "t"]).success();
}

/// A vGPU's guest can be made without an IOMMU, as the others cannot here.
fn root_for_devices() {
    let built = create("t", &[&SMALL[..], &["--vgpu"]].concat());
    assert_eq!(status(number(&built, "device_model_pid"), "Uid")[0], "0");
    dombuild(&["destroy", "t"]).success();
}

/// Gives QEMU's monitor a command; its answer, or `None` where it ended instead.
pub(crate) fn ask(domid: u64, command: &Value) -> Option<Value> {
    let stream = UnixStream::connect(format!("/run/xen/qmp-libxl-{domid}")).expect("the monitor");
    let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
    let mut writer = stream;
    let mut answer = || loop {
        let value: Value = serde_json::from_str(&lines.next()?.ok()?).expect("JSON");
        if value.get("event").is_none() {
            return Some(value);
        }
    };
    answer()?;
    writeln!(writer, "{}", json!({ "execute": "qmp_capabilities" })).expect("written");
    answer()?;
    writeln!(writer, "{command}").expect("written");
    answer()
}

/// What QEMU's monitor says to a question.
fn query(domid: u64, command: &str) -> Value {
    ask(domid, &json!({ "execute": command })).expect("an answer")["return"].clone()
}

/// Files that root alone may read: QEMU has opened them before.
fn disks() {
    let (disk, cdrom) = (file(&vec![7; 1 << 20]), file(&vec![0; 1 << 20]));
    for path in [&disk, &cdrom] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
    }
    let drive = format!("file={},format=raw,if=ide,media=disk", path_text(&disk));
    let words = ["--dm-arg", "-drive", "--dm-arg", &drive, "--dm-arg", "-cdrom", "--dm-arg", path_text(&cdrom)];
    let built = create("t", &[&["--memory", "64"], &words[..]].concat());
    assert_ne!(status(number(&built, "device_model_pid"), "Uid")[0], "0");
    let blocks = query(number(&built, "domid"), "query-block");
    let files: Vec<&str> =
        blocks.as_array().expect("a list").iter().filter_map(|block| block["inserted"]["file"].as_str()).collect();
    assert!(files.contains(&path_text(&disk)) && files.contains(&path_text(&cdrom)), "{blocks}");
    wait_for("SeaBIOS has read the disk", 120, || {
        let stats = query(number(&built, "domid"), "query-blockstats");
        let of = |device: &Value, field: &str| device["stats"][field].as_u64().unwrap_or(0);
        let devices = stats.as_array().expect("a list");
        assert!(devices.iter().all(|device| of(device, "failed_rd_operations") == 0), "{stats}");
        devices.iter().any(|device| of(device, "rd_operations") > 0)
    });
    dombuild(&["destroy", "t"]).success();
}

/// No descriptor, no variable of the caller's; and files that it makes are not everybody's.
fn inherits_nothing() {
    let seen =
        script("#!/bin/sh\nls -l /proc/$$/fd >&2\nenv >&2\numask >&2\nexec /usr/libexec/xen-qemu-system-i386 \"$@\"\n");
    let words = ["create", "--name", "t", "--device-model", path_text(&seen)];
    let line = format!(
        "umask 000; export SECRET=x LD_BIND_NOW=1 RUST_LOG=dombuild=info XENSTORED_SECRET_TEST=y; \
         exec dombuild --log /tmp/log --events-fd 9 {} {} 9>/dev/null 8</etc/hostname",
        words.join(" "),
        SMALL.join(" ")
    );
    run("sh", &["-c", &line]).success();
    let log = fs::read_to_string("/var/log/xen/qemu-dm-t.log").expect("QEMU's log");
    println!("{log}");
    let links: Vec<&str> = log.lines().filter(|line| line.contains(" -> ")).collect();
    let allowed = ["0 -> ", "1 -> /var/log/xen/qemu-dm-t.log", "2 -> /var/log/xen/qemu-dm-t.log", "10 -> "];
    assert!(links.iter().all(|link| allowed.iter().any(|allowed| link.contains(allowed))), "{links:?}");
    assert!(!links.iter().any(|link| link.contains("10 -> ") && !link.contains("/tmp/")), "the shell's own: {links:?}");
    for variable in ["SECRET=", "LD_BIND_NOW", "RUST_LOG", "HOME="] {
        assert!(!log.lines().any(|line| line.starts_with(variable)), "{variable}");
    }
    for variable in ["XENSTORED_SECRET_TEST=y", "LANG=C.UTF-8", "XEN_DOMAIN_ID="] {
        assert!(log.lines().any(|line| line.starts_with(variable)), "{variable}");
    }
    assert!(log.lines().any(|line| line == "0022"), "the umask");
    for (path, most) in [("/tmp/log", 0o640), ("/var/log/xen/qemu-dm-t.log", 0o640)] {
        let mode = fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode, most, "{path} {mode:o}");
    }
    fs::remove_file("/tmp/log").expect("removed");
    dombuild(&["destroy", "t"]).success();
}

/// What was closed under it must not keep it busy.
fn rests() {
    let built = create("t", &SMALL);
    let pid = number(&built, "device_model_pid");
    let ticks = || {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let rest = text.rsplit(')').next().expect("fields").to_owned();
        rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum::<u64>()
    };
    // Quiet for a second, of a hundred ticks.
    wait_for("QEMU rests", 60, || {
        let before = ticks();
        std::thread::sleep(std::time::Duration::from_secs(1));
        ticks() - before < 20
    });
    dombuild(&["destroy", "t"]).success();
}

/// A process that hides from its arguments and its group, as one would that had taken over QEMU: not from its cgroup.
fn no_process_is_left() {
    let built = create("t", &SMALL);
    let user = FIRST_USER + domid(&built).get();
    let mut hidden = Command::new("sleep").arg("1000").uid(user).gid(user).process_group(0).spawn().expect("sleep");
    let uuid = built["uuid"].as_str().expect("a UUID");
    let cgroup = format!("/sys/fs/cgroup/dombuild/{}.{uuid}", domid(&built));
    fs::write(format!("{cgroup}/cgroup.procs"), hidden.id().to_string()).expect("put into it");
    for (limit, value) in [("memory.max", LIMITS.memory.to_string()), ("pids.max", LIMITS.tasks.to_string())] {
        assert_eq!(fs::read_to_string(format!("{cgroup}/{limit}")).expect("a limit").trim(), value, "{limit}");
    }
    let mut neighbour = Command::new("sleep").arg("1000").uid(user + 1).process_group(0).spawn().expect("sleep");
    dombuild(&["destroy", "t"]).success();
    assert!(hidden.wait().expect("waited").signal().is_some());
    assert!(neighbour.try_wait().expect("waited").is_none(), "the next guest's QEMU goes on");
    assert!(!fs::exists(&cgroup).expect("asked"), "its cgroup goes with it");
    // xl leaves an empty one, which the next guest's start removes.
    let built = create("t", &SMALL);
    let left = format!("/sys/fs/cgroup/dombuild/{}.{}", domid(&built), built["uuid"].as_str().expect("a UUID"));
    shell("xl destroy t");
    assert!(fs::exists(&left).expect("asked"));
    create("t", &SMALL);
    assert!(!fs::exists(&left).expect("asked"));
    dombuild(&["destroy", "t"]).success();
    neighbour.kill().expect("killed");
    neighbour.wait().expect("waited");
}

fn foreign_directory() {
    // Made by the first guest, where no earlier test has.
    create("t", &SMALL);
    dombuild(&["destroy", "t"]).success();
    let stray = Path::new(EMPTY_DIRECTORY).join("stray");
    fs::write(&stray, "").expect("written");
    let refused = dombuild(&[&["create", "--name", "t"], &SMALL[..]].concat());
    let message = refused.failed_with(1, "internal")["message"].as_str().expect("text").to_owned();
    assert!(message.contains(EMPTY_DIRECTORY) && message.contains("remove it"), "{message}");
    fs::remove_file(&stray).expect("removed");
    run(DOMBUILD, &[&["create", "--name", "t"], &SMALL[..]].concat()).success();
    dombuild(&["destroy", "t"]).success();
}
