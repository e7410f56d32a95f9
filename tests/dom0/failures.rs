//! Whatever fails: the right exit code, an error that says what to do, and the host as it was. That the host is as it was
//! is checked after every test (see `main`).

use super::Test;
use super::support::{Ran, create, dombuild, file, number, path_text, run, script, shell};

pub(crate) const TESTS: &[Test] = &[
    ("bad_kernel", bad_kernel),
    ("missing_firmware", missing_firmware),
    ("too_little_host_memory", too_little_host_memory),
    ("name_taken", name_taken),
    ("uuid_taken", uuid_taken),
    ("no_permission", no_permission),
    ("no_xen", no_xen),
    ("no_xenstore", no_xenstore),
    ("device_model_dies", device_model_dies),
    ("device_model_is_no_program", device_model_is_no_program),
    ("device_model_takes_too_long", device_model_takes_too_long),
    ("device_model_goes_into_the_background", device_model_goes_into_the_background),
    ("xen_refuses_the_domain", xen_refuses_the_domain),
    ("unknown_security_label", unknown_security_label),
    ("no_such_domain", no_such_domain),
];

const CREATE: [&str; 5] = ["create", "--name", "t", "--memory", "128"];

fn bad_kernel() {
    let text = file(b"not a kernel");
    let error = dombuild(&[&CREATE[..], &["--hvmloader", path_text(&text)]].concat()).failed_with(3, "bad-kernel");
    assert_eq!(error["stage"], "check-input", "before Xen is touched");
    // hvmloader, cut off in the middle
    let whole = std::fs::read(shell("echo /usr/lib/xen-*/boot/hvmloader").trim()).expect("hvmloader");
    let half = file(&whole[..whole.len() / 2]);
    dombuild(&[&CREATE[..], &["--hvmloader", path_text(&half)]].concat()).failed_with(3, "bad-kernel");
    // One that libxenguest would refuse when the domain exists already: a segment that is not at a page's start.
    let mut odd = whole;
    let headers = usize::try_from(u32::from_le_bytes([odd[28], odd[29], odd[30], odd[31]])).expect("small");
    odd[headers + 12..headers + 16].copy_from_slice(&0x10_0800_u32.to_le_bytes());
    let odd = file(&odd);
    let error = dombuild(&[&CREATE[..], &["--hvmloader", path_text(&odd)]].concat()).failed_with(3, "bad-kernel");
    assert_eq!(error["stage"], "check-input", "before Xen is touched");
}

fn missing_firmware() {
    let ran = dombuild(&[&CREATE[..], &["--firmware", "seabios:/nowhere/bios.bin"]].concat());
    let error = ran.failed_with(3, "bad-firmware");
    assert!(error["message"].as_str().expect("text").contains("/nowhere/bios.bin"), "{error}");
}

fn too_little_host_memory() {
    let ran = dombuild(&["create", "--name", "t", "--memory", "1TiB", "--device-model", "none"]);
    let error = ran.failed_with(4, "not-enough-memory");
    assert_eq!(error["stage"], "wait-free-memory");
    assert_eq!(error["errno"], "ENOMEM");
    let (required, free) = (number(&error, "required_kib"), number(&error, "free_kib"));
    let plan = dombuild(&["plan", "--memory", "1TiB"]).success().json();
    assert_eq!(required, number(&plan, "footprint_kib"));
    assert!(free > 0 && free < required, "{error}");
}

fn name_taken() {
    let first = create("t", &["--memory", "64", "--device-model", "none", "--paused"]);
    let error = dombuild(&CREATE).failed_with(3, "name-taken");
    let owner = format!("domain {}", number(&first, "domid"));
    assert!(error["message"].as_str().expect("text").contains(&owner), "{error}");
    assert_eq!(shell("xl list | grep -c '^t '").trim(), "1");
    dombuild(&["destroy", "t"]).success();
}

fn uuid_taken() {
    let uuid = "6d0d1b3e-3f0e-4a55-9a3a-2b8f6a8f0f11";
    create("first", &["--memory", "64", "--device-model", "none", "--paused", "--uuid", uuid]);
    dombuild(&[&CREATE[..], &["--uuid", uuid]].concat()).failed_with(3, "bad-config");
    dombuild(&["destroy", "first"]).success();
}

/// Runs dombuild after a preparation, in a mount namespace of its own.
pub(crate) fn dombuild_after(preparation: &str, arguments: &[&str]) -> Ran {
    let line = format!("{preparation} && exec dombuild --json {}", arguments.join(" "));
    run("unshare", &["--mount", "sh", "-c", &line])
}

fn no_permission() {
    let words =
        [&["--reuid", "65534", "--regid", "65534", "--clear-groups", "dombuild", "--json"], &CREATE[..]].concat();
    let error = run("setpriv", &words).failed_with(5, "permission");
    assert!(error["message"].as_str().expect("text").contains("as root"), "{error}");
}

fn no_xen() {
    let error = dombuild_after("mount -t tmpfs tmpfs /dev/xen && umount /proc/xen", &CREATE).failed_with(5, "no-xen");
    assert_eq!(error["call"], "xc_interface_open");
    assert_eq!(error["errno"], "ENOENT");
}

fn no_xenstore() {
    // From the socket it goes on to the kernel's device; libxc finds its own under /proc.
    let hide = "mount -t tmpfs tmpfs /run/xenstored && mount -t tmpfs tmpfs /dev/xen && mkdir /dev/xen/xenbus";
    let error = dombuild_after(hide, &CREATE).failed_with(6, "xenstore");
    assert_eq!(error["call"], "xs_open");
}

fn device_model_dies() {
    let error = dombuild(&[&CREATE[..], &["--dm-arg", "-nonsense"]].concat()).failed_with(1, "device-model-failed");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("/var/log/xen/qemu-dm-t.log"), "{message}");
    assert!(message.contains("nonsense"), "QEMU's own words are in it: {message}");
}

fn device_model_is_no_program() {
    let text = file(b"#!/bin/sh\n");
    dombuild(&[&CREATE[..], &["--device-model", path_text(&text)]].concat()).failed_with(3, "bad-file");
    let broken = script("#!/nowhere/interpreter\n");
    let error = dombuild(&[&CREATE[..], &["--device-model", path_text(&broken)]].concat()).failed_with(3, "bad-file");
    assert_eq!(error["stage"], "start-device-model");
}

fn device_model_takes_too_long() {
    let sleeper = script("#!/bin/sh\nsleep 1000\n");
    let words = ["--dm-timeout", "2", "--device-model", path_text(&sleeper)];
    let error = dombuild(&[&CREATE[..], &words].concat()).failed_with(8, "timed-out");
    assert_eq!(error["stage"], "device-model");
}

/// A wrapper that leaves QEMU to itself: dombuild cannot watch that one, and must find it all the same.
fn device_model_goes_into_the_background() {
    let wrapper = script("#!/bin/sh\n/usr/libexec/xen-qemu-system-i386 \"$@\" &\nexit 0\n");
    let ran = dombuild(&[&CREATE[..], &["--paused", "--device-model", path_text(&wrapper)]].concat());
    ran.failed_with(1, "device-model-failed");
    dombuild(&[&CREATE[..], &["--dm-arg", "-daemonize"]].concat()).failed_with(3, "bad-config");
}

fn xen_refuses_the_domain() {
    let error = dombuild(&[&CREATE[..], &["--cpupool", "77"]].concat());
    assert_eq!(error.status, Some(5), "{error:?}");
    assert_eq!(error.json()["error"]["call"], "xc_domain_create");
}

fn unknown_security_label() {
    let error = dombuild(&[&CREATE[..], &["--seclabel", "no:such:label"]].concat()).failed_with(5, "xen-refused");
    assert_eq!(error["call"], "xc_flask_context_to_sid");
}

fn no_such_domain() {
    dombuild(&["destroy", "nobody"]).failed_with(3, "no-such-domain");
    dombuild(&["destroy", "4711"]).failed_with(3, "no-such-domain");
    dombuild(&["destroy", "0"]).failed_with(3, "bad-config");
}
