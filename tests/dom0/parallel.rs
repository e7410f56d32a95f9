//! Builds at once: memory is claimed before it is taken, and others' build locks are honoured.

use std::env;
use std::fs;
use std::process::Child;
use std::thread;

use dombuild::runs::build_lock::{OPENXT_LOCK, XL_LOCK};
use dombuild::xen::{Interface, PhysInfo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Test;
use super::lock_holder::LockHolder;
use super::sample::{Random, count};
use super::support::{
    GUEST_INITRD, GUEST_KERNEL, Host, dombuild, file, number, path_text, run, shell, start_silently, wait_for,
};

pub(crate) const TESTS: &[Test] = &[
    ("walk_builds_at_once", as_many_as_fit),
    ("one_name_for_guests_at_once", one_name),
    ("claimed_memory_is_nobody_elses", claimed_memory),
    ("builds_wait_for_the_lock_of_xl", xl_lock),
    ("builds_wait_for_the_lock_of_openxt", openxt_lock),
    ("a_callers_own_lock_does_not_stop_a_build", callers_lock),
];

/// The second of two processors, where it rests (tests/nested.sh test): it works while this lives.
#[derive(Debug)]
pub(crate) struct SecondProcessor;

impl SecondProcessor {
    pub(crate) fn wake() -> Option<Self> {
        env::var_os("NESTED_RESTING").map(|_| {
            shell("xen-hptool cpu-online 1");
            Self
        })
    }
}

impl Drop for SecondProcessor {
    fn drop(&mut self) {
        let ran = run("xen-hptool", &["cpu-offline", "1"]);
        if ran.status != Some(0) {
            eprintln!("the second processor goes on: {ran:?}");
        }
    }
}

fn host() -> PhysInfo {
    Interface::open().expect("Xen").physinfo().expect("physinfo")
}

/// Creates guests of `mib` each at once, and returns how each ended.
fn at_once(guests: u32, arguments: &[&str], mib: u64) -> Vec<Value> {
    let size = mib.to_string();
    thread::scope(|scope| {
        let runs: Vec<_> = (0..guests)
            .map(|index| {
                let size = &size;
                scope.spawn(move || {
                    let name = format!("t{index}");
                    dombuild(&[&["create", "--name", &name, "--memory", size, "--paused"], arguments].concat())
                })
            })
            .collect();
        runs.into_iter()
            .map(|run| {
                let ran = run.join().expect("it ran");
                let object = ran.json();
                match ran.status {
                    Some(0) => {}
                    Some(4) => {
                        ran.failed_with(4, "not-enough-memory");
                        let error = &object["error"];
                        assert!(number(error, "required_kib") > number(error, "free_kib"), "{error}");
                        assert!(error["message"].as_str().expect("text").contains("nothing is left"), "{error}");
                    }
                    other => panic!("{other:?}: {ran:?}"),
                }
                object
            })
            .collect()
    })
}

fn as_many_as_fit() {
    let _both = SecondProcessor::wake();
    let kernel = ["--kind", "pvh", "--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD];
    let bare = ["--device-model", "none"];
    let mut random = Random::new("parallel");
    let mut table = String::new();
    for round in 0..count(1, 12) {
        let before = Host::now();
        let (kind, arguments): (&str, &[&str]) = match round % 3 {
            0 => ("hvm without device model", &bare),
            1 => ("pvh", &kernel),
            _ => ("hvm", &[]),
        };
        let (guests, room) = (5, 2 + random.below(2));
        // So large that `room` of them fit, and no more by half a guest.
        let mib = host().available().0 / 1024 * 2 / (2 * room + 1);
        let ended = at_once(guests, arguments, mib);
        let built = ended.iter().filter(|object| object.get("error").is_none());
        let domids: Vec<String> = built.map(|object| object["domid"].to_string()).collect();
        table.push_str(&format!("{guests} {kind} guests of {mib} MiB at once: {} built\n", domids.len()));
        assert_eq!(u64::try_from(domids.len()).expect("few"), room, "{kind}, {mib} MiB each: {ended:?}");
        assert_eq!(host().claimed_kib.0, 0, "every claim was given back");
        for domid in domids {
            let shown = dombuild(&["inspect", &domid]).success().json();
            assert_eq!(shown["differences"], serde_json::json!([]), "whole");
            dombuild(&["destroy", &domid]).success();
        }
        before.assert_back().expect("the host is as it was");
    }
    super::support::figures("parallel", &table);
}

/// Of several guests with one name that are created at once, one gets it.
fn one_name() {
    let _both = SecondProcessor::wake();
    for _ in 0..count(2, 20) {
        let before = Host::now();
        let ended: Vec<_> = thread::scope(|scope| {
            let create =
                || dombuild(&["create", "--name", "t", "--memory", "64", "--paused", "--device-model", "none"]);
            let runs: Vec<_> = (0..5).map(|_| scope.spawn(create)).collect();
            runs.into_iter().map(|run| run.join().expect("it ran")).collect()
        });
        let (created, refused): (Vec<_>, Vec<_>) = ended.into_iter().partition(|ran| ran.status == Some(0));
        assert_eq!(created.len(), 1, "{refused:?}");
        for ran in refused {
            ran.failed_with(3, "name-taken");
        }
        assert_eq!(shell("xl list | grep -c '^t '").trim(), "1");
        dombuild(&["destroy", "t"]).success();
        before.assert_back().expect("the host is as it was");
    }
}

/// While a guest is being built, Xen gives its memory to no other domain; `--no-claim` leaves it to the first that
/// asks.
fn claimed_memory() {
    let _both = SecondProcessor::wake();
    // A device model that never gets ready: the build is at its end then, but for what QEMU still needs.
    let sleeper = super::support::script("#!/bin/sh\nsleep 1000\n");
    let plan = dombuild(&["plan", "--memory", "128"]).success().json();
    let of_qemu = number(&plan, "owned_pages_running") - number(&plan, "owned_pages_built");
    for (flags, claimed) in [(&[][..], of_qemu * 4), (&["--no-claim"][..], 0)] {
        let words = ["--memory", "128", "--dm-timeout", "600", "--device-model", path_text(&sleeper)];
        let mut child = start_silently(&[&["create", "--name", "t"], &words[..], flags].concat());
        wait_for("the device model runs", 60, || shell("ps ax").contains("sleep 1000"));
        // It starts before the last of the guest's memory is populated, and so from the claim.
        wait_for(&format!("{claimed} KiB are claimed, {flags:?}"), 60, || host().claimed_kib.0 == claimed);
        signal(&child, Signal::SIGTERM);
        assert_eq!(child.wait().expect("waited for").code(), Some(143));
        assert_eq!(host().claimed_kib.0, 0);
    }
}

fn signal(child: &Child, with: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), with).expect("it still runs");
}

const GUEST: [&str; 8] = ["create", "--name", "t", "--memory", "64", "--paused", "--device-model", "none"];

/// While another process holds the lock: a build is interrupted, gives up, ignores the lock on request, or waits and
/// goes on.
fn with_lock(path: &str, call: &str) {
    let there = fs::exists(path).expect("asked");
    let log = file(b"");
    let begin = || {
        fs::write(&log, "").expect("emptied");
        let child = start_silently(&[&GUEST[..], &["--log", path_text(&log)]].concat());
        let waits = format!("waiting for the build lock {path}, held by process ");
        wait_for("it waits", 60, || fs::read_to_string(&log).expect("the log").contains(&waits));
        child
    };

    let holder = LockHolder::new(0, path, "O_WRONLY | O_CREAT", call, "");
    let mut child = begin();
    assert!(child.try_wait().expect("asked").is_none());
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().expect("waited for").code(), Some(130), "it is interrupted");

    let error = dombuild(&[&GUEST[..], &["--wait-memory", "0"]].concat()).failed_with(8, "timed-out");
    assert_eq!(error["stage"], "wait-free-memory");
    let message = error["message"].as_str().expect("text");
    let told = format!("{path}, held by process {} (perl)", holder.pid());
    assert!(message.contains(&told) && message.contains("nothing is left"), "{message}");

    dombuild(&[&GUEST[..], &["--no-build-lock"]].concat()).success();
    dombuild(&["destroy", "t"]).success();

    let mut child = begin();
    drop(holder);
    assert!(child.wait().expect("waited for").success(), "it goes on");
    dombuild(&["destroy", "t"]).success();
    // And it has given the lock back, though its guest's files are open.
    drop(LockHolder::new(0, path, "O_WRONLY | O_CREAT", call, ""));
    if !there {
        fs::remove_file(path).expect("removed");
    }
}

fn xl_lock() {
    // struct flock of Linux on x86-64
    with_lock(XL_LOCK, "do { my $lock = pack('s s x4 q q l x4', F_WRLCK, 0, 0, 0, 0); fcntl($file, F_SETLK, $lock) }");
}

fn openxt_lock() {
    with_lock(OPENXT_LOCK, "flock($file, LOCK_EX)");
    assert!(!fs::exists(OPENXT_LOCK).expect("asked"), "where OpenXT is not, there is no lock of it");
    dombuild(&GUEST).success();
    assert!(!fs::exists(OPENXT_LOCK).expect("asked"));
    dombuild(&["destroy", "t"]).success();
}

/// A toolstack that holds the lock while it has a guest built is not waited for: as the process that starts dombuild, as
/// the one before that, or with nothing but the open file.
fn callers_lock() {
    let command = GUEST.join(" ");
    for line in [
        format!("flock {OPENXT_LOCK} dombuild --json {command}"),
        format!("flock --no-fork {OPENXT_LOCK} dombuild --json {command}"),
        format!("exec 9>{OPENXT_LOCK}; flock 9; dombuild --json {command}"),
        format!("exec 9>{OPENXT_LOCK}; flock 9; sh -c 'dombuild --json {command}; true' 9>&-"),
    ] {
        let ran = run("sh", &["-c", &line]).success();
        assert!(ran.stdout.contains("\"domid\""), "{line}: {ran:?}");
        dombuild(&["destroy", "t"]).success();
    }
    fs::remove_file(OPENXT_LOCK).expect("removed");
}
