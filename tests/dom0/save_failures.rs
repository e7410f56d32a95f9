//! A guest whose save fails, or is killed, runs on; files that are damaged leave nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dombuild::xen::{DomId, HvmParam, Interface, ShutdownReason, Store};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, close};
use serde_json::{Value, json};

use super::Test;
use super::devices::message;
use super::kills::{clean, kill_in};
use super::sample::{Random, count};
use super::save_restore::{By, Folder, assert_runs, info, save, small_hvm};
use super::support::{DOMBUILD, Ran, create, dombuild, path_text, run, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("saved_guests_run_on_after_failures", failures),
    ("saved_guests_run_on_after_sigkill", killed),
    ("saved_guests_that_do_not_suspend", does_not_suspend),
    ("saved_guests_with_obstacles", obstacles),
    ("saved_files_that_are_damaged", damaged),
];

/// Starts `dombuild --json ARGUMENTS`, calls `act` when this step begins, and waits for the end.
fn act_at(arguments: &[&str], step: &str, act: impl FnOnce(&Child)) -> Ran {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let events = fcntl(&writer, FcntlArg::F_DUPFD(20)).expect("a descriptor that is handed on");
    let child = Command::new(DOMBUILD)
        .args(["--json", "--events-fd", &events.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(writer);
    close(events).expect("closed");
    let mut lines = BufReader::new(reader).lines();
    let found = lines.any(|line| {
        let event: Value = serde_json::from_str(&line.expect("a line")).expect("an object");
        event["state"] == "started" && event["stage"] == step
    });
    if found {
        act(&child);
    }
    // The pipe must not be full while it ends.
    lines.for_each(drop);
    let ran = Ran::new(&child.wait_with_output().expect("it ends"));
    assert!(found, "{step} is one of its steps: {ran:?}");
    ran
}

fn process(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("a pid"))
}

/// The children that call libxenguest.
fn helpers() -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| {
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        words
            .split(|byte| *byte == 0)
            .nth(1)
            .is_some_and(|word| word == b"migration-helper")
            .then_some(Pid::from_raw(pid))
    });
    pids.collect()
}

/// Starts a save of the guest, and acts once the guest is suspended: the child is stopped before it reads memory.
fn act_in_the_middle(arguments: &[&str], act: impl FnOnce(Pid, Pid)) -> Ran {
    act_at(arguments, "suspend", |child| {
        let helper = helpers()[0];
        kill(helper, Signal::SIGSTOP).expect("stopped");
        wait_for("the guest is suspended", 30, || info("t").shutdown == Some(ShutdownReason::Suspend));
        act(process(child.id()), helper);
    })
}

fn failures() {
    let folder = Folder::new();
    let path = folder.path("guest");
    small_hvm();
    let goes_on = |ran: &Ran, status: i32, code: &str| {
        let error = ran.failed_with(status, code);
        assert!(message(&error).contains("goes on as before, and no file is left"), "{error}");
        assert_runs("t");
        assert_eq!(folder.names(), [""; 0]);
        assert_eq!(dombuild(&["cleanup"]).success().json(), json!([]));
        error
    };
    let killed = act_in_the_middle(&["save", "t", &path], |_, helper| kill(helper, Signal::SIGKILL).expect("killed"));
    let error = goes_on(&killed, 1, "internal");
    assert!(message(&error).contains("ended without a result (signal: 9"), "{error}");
    let stopped = act_in_the_middle(&["save", "t", &path, "--timeout", "20"], |_, _| {});
    goes_on(&stopped, 8, "timed-out");
    let interrupted = act_in_the_middle(&["save", "t", &path], |run, _| kill(run, Signal::SIGINT).expect("sent"));
    goes_on(&interrupted, 130, "interrupted");
    // The file may not become as long as it would.
    let limited = Ran::new(
        &Command::new("sh")
            .args(["-c", &format!("ulimit -f 20000; exec {DOMBUILD} --json save t {path}")])
            .output()
            .expect("a shell"),
    );
    // By where the file system counts: at the reservation, or in the middle.
    assert!(matches!(limited.status, Some(1 | 5)) && limited.stderr.contains("File too large"), "{limited:?}");
    assert_runs("t");
    assert_eq!(folder.names(), [""; 0]);

    // A file system without room is found before the guest is suspended.
    let full = folder.path("full");
    fs::create_dir(&full).expect("made");
    shell(&format!("mount -t tmpfs -o size=16m full {full}"));
    let before = info("t").domid;
    let error = dombuild(&["save", "t", &format!("{full}/guest")]).failed_with(3, "bad-file");
    assert!(message(&error).contains("has no room for"), "{error}");
    assert_eq!(fs::read_dir(&full).expect("mounted").count(), 0);
    shell(&format!("umount {full}"));
    assert_eq!(info("t").domid, before);
    assert_runs("t");
    for bad in ["/nowhere/guest", "/"] {
        dombuild(&["save", "t", bad]).failed_with(3, "bad-file");
    }
    dombuild(&["destroy", "t"]).success();
}

fn killed() {
    let folder = Folder::new();
    let path = folder.path("guest");
    small_hvm();
    let whats = |removed: &[Value]| removed.iter().map(|left| left["what"].clone()).collect::<Vec<_>>();
    let ran = act_in_the_middle(&["save", "t", &path], |run, _| kill(run, Signal::SIGKILL).expect("killed"));
    assert_eq!(ran.status, None, "{ran:?}");
    wait_for("the child dies with its parent", 20, || helpers().is_empty());
    assert_eq!(info("t").shutdown, Some(ShutdownReason::Suspend));
    assert_eq!(folder.names().len(), 1);
    let refused = dombuild(&["save", "t", &path]).failed_with(3, "bad-config");
    assert!(message(&refused).contains("cleanup --apply"), "{refused}");
    assert_eq!(whats(&clean()), ["suspended", "partial-file"]);
    assert_eq!(folder.names(), [""; 0]);
    assert_runs("t");

    // Before the guest is suspended.
    kill_in("check-input", &["save", "t", &path], Duration::from_millis(50));
    let removed = whats(&clean());
    assert!(!removed.contains(&json!("domain")), "{removed:?}");
    assert_eq!(folder.names(), [""; 0]);
    assert_runs("t");

    // The file is the guest, and cleanup completes what the run began.
    kill_in("destroy", &["save", "t", &path], Duration::ZERO);
    clean();
    assert_eq!(run("xl", &["domid", "t"]).status, Some(1));
    assert_eq!(folder.names(), ["guest"]);
    let restored = dombuild(&["restore", &path]).success().json();
    assert_eq!(restored["name"], "t");
    assert_runs("t");
    dombuild(&["destroy", "t"]).success();
}

fn request_of(domid: DomId) -> String {
    let store = Store::open().expect("xenstored");
    store.plain().read(&format!("/local/domain/{domid}/control/shutdown")).expect("read").expect("it is there")
}

fn does_not_suspend() {
    let folder = Folder::new();
    let path = folder.path("guest");
    small_hvm();
    let domid = info("t").domid;
    // SeaBIOS has no drivers of Xen. With the parameter that those set first, it is asked, and does not answer.
    let xen = Interface::open().expect("Xen");
    let has_drivers = |value| xen.set_hvm_param(domid, HvmParam::CallbackIrq, value).expect("set");
    has_drivers(2 << 56 | 0xf3);
    let error = dombuild(&["save", "t", &path, "--suspend-timeout", "2"]).failed_with(8, "timed-out");
    assert!(message(&error).contains("has not answered the request to suspend itself within 2 seconds"), "{error}");
    assert_eq!((request_of(domid).as_str(), info("t").shutdown), ("", None), "the request is taken back");
    assert_eq!(folder.names(), [""; 0]);

    // It answers, and does not do it: another program stands in for its kernel.
    let late = act_at(&["save", "t", &path, "--suspend-timeout", "10"], "suspend", |_| {
        wait_for("it is asked", 10, || request_of(domid) == "suspend");
        shell(&format!("xenstore-write /local/domain/{domid}/control/shutdown ''"));
    });
    let error = late.failed_with(8, "timed-out");
    assert!(message(&error).contains("may still suspend itself: `dombuild cleanup --apply`"), "{error}");
    xen.shut_down_to_suspend(domid).expect("shut down");
    has_drivers(0);
    let removed = clean();
    assert_eq!((removed.len(), &removed[0]["what"]), (1, &json!("suspended")));
    assert_eq!((info("t").shutdown, folder.names().len()), (None, 0));
    dombuild(&["destroy", "t"]).success();
}

fn obstacles() {
    let folder = Folder::new();
    let refused = |name: &str, words: &str| {
        let error = dombuild(&["save", name, &folder.path("guest")]).failed_with(3, "bad-config");
        assert!(message(&error).contains(words), "{words}: {error}");
        assert_eq!(folder.names(), [""; 0]);
    };
    create("t", &["--memory", "64", "--maxmem", "128", "--device-model", "none", "--paused"]);
    refused("t", "pages are populated on demand");
    dombuild(&["destroy", "t"]).success();
    create("t", &["--memory", "64", "--device-model", "none", "--platform", "nomigrate=1", "--paused"]);
    refused("t", "nomigrate");
    dombuild(&["destroy", "t"]).success();
    let xen = Interface::open().expect("Xen");
    let empty = super::support::empty_domain(&xen, dombuild::memory::Kind::Hvm, 1, false).expect("a domain");
    refused(&empty.to_string(), "no configuration in libxl's format");
    super::support::destroy(&xen, empty);
    dombuild(&["save", "0", &folder.path("guest")]).failed_with(3, "bad-config");
    dombuild(&["save", "no-such-guest", &folder.path("guest")]).failed_with(3, "no-such-domain");
}

fn damaged() {
    let folder = Folder::new();
    let good = PathBuf::from(folder.path("good"));
    small_hvm();
    save(By::Dombuild, "t", path_text(&good));
    let content = fs::read(&good).expect("read");
    let bad = folder.path("bad");
    let attempt = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = content.clone();
        change(&mut bytes);
        fs::write(&bad, bytes).expect("written");
        dombuild(&["restore", &bad, "--paused"])
    };
    for length in [0, 40, 100, 2000, content.len() / 2, content.len() - 9, content.len() - 1] {
        attempt(&|bytes| bytes.truncate(length)).failed_with(3, "bad-file");
    }
    attempt(&|bytes| bytes.push(0)).failed_with(3, "bad-file");
    // Each shape: refused before Xen is touched, with the place and the name of the record.
    let records = records(&content);
    let of = |kind: u32| records.iter().find(|record| record.0 == kind).map(|record| record.1).expect("it has one");
    for (kind, name) in RECORDS {
        let at = of(kind);
        for (place, change, shown) in
            SHAPES.iter().filter(|shape| shape.0 == kind).map(|shape| (shape.1, shape.2, shape.3))
        {
            let ran = attempt(&|bytes| bytes[at + place] ^= change);
            let error = ran.failed_with(3, "bad-file");
            assert!(message(&error).contains(shown), "{name} at {place}: {error}");
            let offset = error["offset"].as_u64().and_then(|offset| usize::try_from(offset).ok()).expect("a place");
            assert!((at..=at + 64).contains(&offset) && error["record"] == name, "{name} at {place}: {error}");
            let checked = dombuild(&["check", &bad]).failed_with(3, "bad-file");
            assert_eq!((&checked["offset"], &checked["record"]), (&error["offset"], &error["record"]));
        }
    }
    // What only Xen knows: the type of the second state of its vCPUs and devices, behind the header's 32 bytes.
    let error = attempt(&|bytes| bytes[of(0x9) + 8 + 32] ^= 0x40).failed_with(5, "xen-refused");
    assert!(message(&error).contains("xc_domain_restore"), "{error}");
    // Bytes anywhere: either it is found, or it does no harm to anything else.
    let mut random = Random::new("damaged");
    let (mut refused, runs) = (0, count(4, 60));
    for _ in 0..runs {
        // Most of them where the configuration and the first records are.
        let most = if random.permille() < 700 { 5000 } else { content.len() - 8 };
        let at = usize::try_from(random.below(most as u64)).expect("small");
        let ran = attempt(&|bytes| bytes[at..at + 8].fill(0xff));
        match ran.status {
            Some(0) => drop(dombuild(&["destroy", "t"]).success()),
            Some(_) => refused += 1,
            None => panic!("at {at}: {ran:?}"),
        }
        assert_eq!(run("xl", &["domid", "t"]).status, Some(1), "at {at}: {ran:?}");
    }
    println!("{refused} of {runs} damaged files were refused");
    // The good one is as it was.
    let restored = dombuild(&["restore", path_text(&good)]).success().json();
    assert_eq!(restored["state"], Value::Null);
    assert_runs("t");
    dombuild(&["destroy", "t"]).success();
}

/// The records of an HVM guest without QEMU.
const RECORDS: [(u32, &str); 8] = [
    (0x0, "END"),
    (0x1, "PAGE_DATA"),
    (0x8, "X86_TSC_INFO"),
    (0x9, "HVM_CONTEXT"),
    (0xa, "HVM_PARAMS"),
    (0x10, "STATIC_DATA_END"),
    (0x11, "X86_CPUID_POLICY"),
    (0x12, "X86_MSR_POLICY"),
];

/// Changes of a record: its type, the place of a byte, the bits that change, and a part of the error.
const SHAPES: [(u32, usize, u8, &str); 16] = [
    (0x0, 4, 8, "its length is 0x8"),
    (0x1, 4, 1, "its length"),
    (0x1, 10, 0xff, "the number of frames"),
    // The number of the first frame, and its type.
    (0x1, 21, 8, "beyond the guest's last"),
    (0x1, 23, 0x10, "the type of a frame is 0x1"),
    (0x8, 4, 16, "its length is 0x8"),
    (0x8, 8, 0x40, "the mode of the TSC"),
    (0x9, 8, 2, "the type of a state is 0x3"),
    (0x9, 14, 0xff, "the length of a state"),
    (0x9, 16, 1, "the mark of Xen's state"),
    // The number of the first vCPU.
    (0x9, 42, 4, "the number of a vCPU is 0x4"),
    (0xa, 8, 1, "its length"),
    (0x10, 4, 8, "its length is 0x8"),
    (0x11, 4, 1, "its length"),
    (0x12, 4, 8, "its length"),
    (0x12, 12, 1, "a register's flags is 0x1"),
];

/// The types and places of libxenguest's records in a file of xl's.
fn records(file: &[u8]) -> Vec<(u32, usize)> {
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| usize::try_from(number(at)).expect("it fits");
    // xl's header and the configuration; libxl's header and the head of its record; libxenguest's headers.
    let mut at = 48 + long(44) + 16 + 8 + 40;
    let mut found = Vec::new();
    loop {
        found.push((number(at), at));
        if number(at) == 0 {
            return found;
        }
        at += 8 + long(at + 4).next_multiple_of(8);
    }
}
