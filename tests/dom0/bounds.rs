//! What Xen, a kernel or a limit bounds: tables of grants, command lines, and the memory of QEMU's devices.

use std::ops::RangeInclusive;

use dombuild::xen::{Interface, XenParameter};

use super::Test;
use super::linux::{console, expect_guest};
use super::support::{GUEST_INITRD, GUEST_KERNEL, create, dombuild, domid, number, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("bounds_of_grant_tables_are_named", grant_tables),
    ("bounds_command_lines_arrive_whole", command_lines),
    ("bounds_devices_with_memory_need_room", devices_with_memory),
];

const PLAIN: [&str; 7] = ["--name", "t", "--memory", "64", "--device-model", "none", "--paused"];

/// The number that the next domain gets, less one.
fn last_domid() -> u32 {
    let built = dombuild(&[&["create"], &PLAIN[..]].concat()).success().json();
    dombuild(&["destroy", "t"]).success();
    domid(&built).get()
}

/// Creates a guest with so many frames; whether Xen gave them.
fn with_frames(flag: &str, frames: u32) -> Result<(), String> {
    let number = frames.to_string();
    let words = [&["create"], &PLAIN[..], &[flag, &number]].concat();
    let dry = dombuild(&[&words[..], &["--dry-run"]].concat());
    let ran = dombuild(&words);
    assert_eq!(dry.status, ran.status, "{dry:?} {ran:?}");
    if ran.status == Some(0) {
        let guest = domid(&ran.json());
        if flag == "--max-grant-frames" {
            assert_eq!(Interface::open().expect("Xen").grant_frames(guest).expect("told").1, frames);
        }
        dombuild(&["destroy", "t"]).success();
        return Ok(());
    }
    let said = [dry, ran].map(|ran| ran.failed_with(5, "xen-refused")["message"].as_str().expect("text").to_owned());
    for text in &said {
        assert!(text.contains("xc_domain_create") && text.contains(flag), "{text}");
    }
    Err(said[1].clone())
}

/// Xen's boot options are limits up to Xen 4.17, and defaults since. They can be changed while Xen runs.
fn grant_tables() {
    let xen = Interface::open().expect("Xen");
    let before = last_domid();
    let mut created = 1;
    for (flag, parameter) in [
        ("--max-grant-frames", XenParameter::MaxGrantFrames),
        ("--max-maptrack-frames", XenParameter::MaxMaptrackFrames),
    ] {
        let option = parameter.name();
        let limit = xen.parameter(parameter).expect("Xen tells it");
        assert_eq!(shell(&format!("xenhypfs cat /params/{option}")).trim(), limit.to_string());
        with_frames(flag, limit).expect("the limit itself");
        let above = with_frames(flag, limit + 1);
        if env!("DOMBUILD_XEN_VERSION") != "4.17" {
            above.expect("it is a default");
        } else {
            let told = above.expect_err("it is a limit");
            for words in [&format!("this Xen gives {limit} at most"), &format!("{option}={}", limit + 1)] {
                assert!(told.contains(words), "{words:?}: {told}");
            }
        }
        shell(&format!("xenhypfs write /params/{option} {}", limit * 2));
        let raised = with_frames(flag, limit + 1);
        shell(&format!("xenhypfs write /params/{option} {limit}"));
        raised.expect("the limit was raised");
        // One that Xen refuses has its number by then; a dry run has none.
        created += 3;
    }
    assert_eq!(last_domid(), before + created, "no number went to a dry run");
}

/// A shell in the place of the guest's init shows what it finds in /proc/cmdline; the line ends there.
fn command_lines() {
    const SHOW: &str = "rdinit=/bin/busybox -- sh -c \"export PATH=/bin; mount -t proc proc /proc; \
                        echo 1 >/proc/sys/kernel/printk; while true; do cat /proc/cmdline; sleep 1; done; : END\"";
    for (kind, length) in [("pvh", 2047), ("pv", 1023)] {
        let start = "console=hvc0 watchdog_thresh=30 mitigations=off cryptomgr.notests guest.fill=";
        let fill = length - start.len() - SHOW.len() - 1;
        let line = format!("{start}{} {SHOW}", "0123456789".repeat(fill.div_ceil(10)).get(..fill).expect("digits"));
        assert_eq!(line.len(), length);
        expect_guest();
        let files = ["--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD, "--cmdline", &line];
        create("t", &[&["--kind", kind, "--memory", "256", "--platform", "tsc_mode=2"], &files[..]].concat());
        wait_for("the guest shows its whole command line", 120, || console().replace('\r', "").contains(&line));
        dombuild(&["destroy", "t"]).success();
    }
}

/// Creates a paused guest with one more device; what its devices have of their own besides the VGA card, in pages, or the
/// error.
fn with_device(device: &str, more: &[&str]) -> Result<u64, String> {
    let flags = ["--memory", "128", "--paused", "--dm-arg", "-device", "--dm-arg", device];
    let ran = dombuild(&[&["create", "--name", "t"], &flags[..], more].concat());
    if ran.status != Some(0) {
        return Err(ran.failed_with(1, "device-model-failed")["message"].as_str().expect("text").to_owned());
    }
    let built = ran.json();
    let owned = number(&built["measured_running"], "owned_pages");
    dombuild(&["destroy", "t"]).success();
    Ok(owned - number(&built["plan"], "owned_pages_running"))
}

fn devices_with_memory() {
    // What each needs, in MiB: its memory and its ROM.
    let devices: [(&str, RangeInclusive<u64>); 2] =
        [("secondary-vga", 16..=18), ("secondary-vga,vgamem_mb=32", 32..=34)];
    for (device, expected) in devices {
        let told = with_device(device, &[]).expect_err("no room");
        for words in ["the domain may own 132096 KiB", "raise --extra-internal, which is 1024 KiB here"] {
            assert!(told.contains(words), "{words:?}: {told}");
        }
        let pages = with_device(device, &["--extra-internal", "128MiB"]).expect("room");
        let least = pages.div_ceil(256);
        println!("{device}: {pages} pages, --extra-internal {least}MiB");
        assert!(expected.contains(&least), "{device}: {least} MiB");
        for model in ["xenops", "xapi", "libxl"] {
            let room = |mib: u64| with_device(device, &["--model", model, "--extra-internal", &format!("{mib}MiB")]);
            assert_eq!(room(least).as_ref(), Ok(&pages), "{model}");
            room(least - 1).expect_err(model);
        }
    }
}
