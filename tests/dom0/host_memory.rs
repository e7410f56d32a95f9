//! The host's free memory is the same for every verb: what one run was promised no other takes.

use std::process::{Command, Stdio};

use dombuild::xen::Interface;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Test;
use super::support::{DOMBUILD, create, dombuild, number, path_text, script, shell, wait_for};

pub(crate) const TESTS: &[Test] =
    &[("host_memory_a_balloon_leaves_what_a_build_was_promised", balloon_leaves_promises)];

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
    // What is nobody's it may take.
    let size = (64 + free - VIDEO_MIB - 16).to_string();
    dombuild(&["balloon", "grows", &size, "--timeout", "2"]).failed_with(8, "timed-out");
    assert_eq!(number(&guest, "domid"), number(&dombuild(&["inspect", "grows"]).success().json(), "domid"));
    kill(Pid::from_raw(i32::try_from(build.id()).expect("a pid")), Signal::SIGTERM).expect("it still runs");
    assert_eq!(build.wait().expect("waited for").code(), Some(143));
    dombuild(&["destroy", "grows"]).success();
}
