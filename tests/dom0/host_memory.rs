//! All verbs agree on the host's free memory: no run takes what another has reserved.

use std::process::{Command, Stdio};

use dombuild::xen::{DomId, Interface};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Test;
use super::support::{DOMBUILD, create, dombuild, number, path_text, run, script, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("host_memory_a_balloon_leaves_what_a_build_was_promised", balloon_leaves_promises),
    ("host_memory_dom0_gives_what_is_missing", dom0_gives),
];

/// A build without a claim has come to its QEMU, which has yet to take the video memory. Another guest would fit but for that.
fn balloon_leaves_promises() {
    const VIDEO_MIB: u64 = 32;
    let sleeper = script("#!/bin/sh\nsleep 1000\n");
    let words = ["create", "--name", "t", "--memory", "128", "--video", "32", "--no-claim", "--dm-timeout", "600"];
    let mut build = Command::new(DOMBUILD)
        .args(words)
        .args(["--device-model", path_text(&sleeper)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for("the device model runs", 60, || shell("ps ax").contains("sleep 1000"));
    let xen = Interface::open().expect("Xen");
    let free_mib = || xen.physinfo().expect("physinfo").available().0 / 1024;
    // Its paging pool is taken when it is created.
    let most = (64 + free_mib()).to_string();
    let guest = create("grows", &["--memory", "64", "--maxmem", &most, "--device-model", "none", "--paused"]);
    let free = free_mib();
    // Populated on demand, so that Xen would take the memory at once, although the guest does not run.
    let size = (64 + free - VIDEO_MIB / 2).to_string();
    let ran = dombuild(&["balloon", "grows", &size, "--timeout", "2"]);
    assert!(free_mib() + 1 >= free, "{} of {free} MiB are free after {ran:?}", free_mib());
    let error = ran.failed_with(4, "not-enough-memory");
    assert_eq!(error["stage"], "wait-free-memory");
    let told = number(&error, "free_kib") / 1024;
    assert!(told + VIDEO_MIB <= free + 1 && told + VIDEO_MIB + 2 >= free, "{told} of {free}: {error}");
    // It may take unreserved memory.
    let size = (64 + free - VIDEO_MIB - 16).to_string();
    dombuild(&["balloon", "grows", &size, "--timeout", "2"]).failed_with(8, "timed-out");
    assert_eq!(number(&guest, "domid"), number(&dombuild(&["inspect", "grows"]).success().json(), "domid"));
    kill(Pid::from_raw(i32::try_from(build.id()).expect("a pid")), Signal::SIGTERM).expect("it still runs");
    assert_eq!(build.wait().expect("waited for").code(), Some(143));
    dombuild(&["destroy", "grows"]).success();
}

fn available_mib() -> u64 {
    Interface::open().expect("Xen").physinfo().expect("physinfo").available().0 / 1024
}

fn dom0_mib() -> u64 {
    let dom0 = Interface::open().expect("Xen").domain(DomId::DOM0).expect("asked").expect("it is there");
    dom0.owned_pages.0 / 256
}

/// Keys that the first program to resize dom0 makes.
const KEYS: [&str; 2] = ["/local/domain/0/memory", "/vm/00000000-0000-0000-0000-000000000000"];

/// dom0 as it was, also where a test fails: its size, and which of the keys were missing.
struct Dom0(u64, Vec<&'static str>);

impl Dom0 {
    fn now() -> Self {
        Self(dom0_mib(), KEYS.into_iter().filter(|key| run("xenstore-exists", &[key]).status != Some(0)).collect())
    }

    fn set(&self, mib: u64) {
        run("xl", &["mem-set", "0", &format!("{mib}m")]);
        wait_for("dom0 has its size", 60, || dom0_mib().abs_diff(mib) <= 1);
    }
}

impl Drop for Dom0 {
    fn drop(&mut self) {
        run(DOMBUILD, &["destroy", "t"]);
        self.set(self.0);
        self.1.iter().for_each(|key| drop(run("xenstore-rm", &[key])));
    }
}

/// dom0 has what a guest lacks, and there is no other guest. Xen's command line fixes its size.
fn dom0_gives() {
    let free = available_mib();
    let dom0 = Dom0::now();
    let size = (free + 42).to_string();
    let words = ["create", "--name", "t", "--memory", &size, "--device-model", "none", "--paused"];
    let create = |more: &[&str]| dombuild(&[&words[..], more].concat());

    let error = create(&[]).failed_with(4, "not-enough-memory");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("give this guest less; dom0 itself has") && !message.contains("shut down"), "{message}");
    assert_eq!(number(&error, "dom0_kib") / 1024, dom0.0, "{error}");
    let (_, advised) = message.split_once("`xl mem-set 0 ").expect("advice");
    let advised: u64 = advised.split_once("m`").expect("a size").0.parse().expect("MiB");
    for flags in [
        &["--autoballoon", "off"][..],
        &["--autoballoon", "on", "--dom0-min", "1000MiB"],
        &["--autoballoon", "on", "--wait-memory", "0"],
        &["--dry-run"],
    ] {
        create(flags).failed_with(4, "not-enough-memory");
        assert_eq!(dom0_mib(), dom0.0, "{flags:?}");
    }
    let checks = create(&["--dry-run", "--autoballoon", "on"]).success().json()["checks"].to_string();
    assert!(checks.contains("of which dom0 would give"), "{checks}");
    assert_eq!(dom0_mib(), dom0.0, "nothing was changed");

    // dom0 gives it by itself, and no more than is missing.
    let ran = create(&["--autoballoon", "on"]).success();
    assert!(ran.stderr.contains("dom0 was made smaller for this guest"), "{ran:?}");
    let given = dom0.0 - dom0_mib();
    println!("{given} MiB were missing and given");
    let missing = (number(&error, "required_kib") - number(&error, "free_kib")).div_ceil(1024);
    assert!(given.abs_diff(missing) <= 4, "{given} of {missing}");
    assert_eq!(dombuild(&["inspect", "t"]).success().json()["differences"], serde_json::json!([]));
    dombuild(&["destroy", "t"]).success();
    dom0.set(dom0.0);

    // What the message says does it as well.
    dom0.set(advised);
    create(&[]).success();
}
