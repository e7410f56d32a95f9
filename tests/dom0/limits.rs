//! What setting Xen's limit from static max (xenops) or from the target (libxl) permits and forbids: the claims of
//! docs/memory.md, each on a real Xen.

use std::thread;
use std::time::Duration;

use dombuild::xen::{Interface, ShutdownReason};

use super::Test;
use super::linux::{said, start};
use super::support::{create, dombuild, domid, file, number, pages_in_dump, path_text, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("xenops_lets_a_guest_grow_past_its_target", xenops_lets_a_guest_grow),
    ("libxl_keeps_a_guest_at_its_target", libxl_keeps_a_guest),
    ("no_limit_saves_a_guest_that_never_balloons_down", never_balloons_down),
    ("video_ram_fits_under_either_limit", video_ram_fits),
    ("large_roms_need_a_limit_above_the_target", large_roms),
    ("a_grown_guest_leaves_no_room_for_another", a_grown_guest_leaves_no_room),
];

/// 512 MiB, of which it was given 256, and it asks for 480 on its own.
const GREEDY: [&str; 6] = ["--kind", "pvh", "--memory", "256", "--maxmem", "512"];
const WORDS: &str = "guest.target=491520";

/// Starts the greedy guest under a model and gives back what it owns when it owns no more.
fn greedy(model: &str) -> (u64, u64) {
    let built = start(&[&GREEDY[..], &["--model", model]].concat(), WORDS);
    // It reports its memory every second.
    let has = || said("current_kb");
    wait_for("the guest sets its own target", 60, || has().is_some());
    wait_for("it has what it can get", 60, || {
        let before = has();
        thread::sleep(Duration::from_secs(4));
        has() == before
    });
    let owned = pages_in_dump(domid(&built)).0;
    println!(
        "{model}: target 256 MiB, asked for 480 MiB by itself, owns {owned} pages of {}",
        built["plan"]["max_pages"]
    );
    let target = shell("xenstore-read /local/domain/$(xl domid t)/memory/target");
    assert_eq!(target.trim(), "261120", "the toolstack told it nothing of the kind");
    let limit = number(&built["plan"], "max_pages");
    dombuild(&["destroy", "t"]).success();
    (owned, limit)
}

fn xenops_lets_a_guest_grow() {
    let (owned, limit) = greedy("xenops");
    assert_eq!(limit, 513 * 256);
    assert!(owned > 450 * 256, "{owned}");
}

fn libxl_keeps_a_guest() {
    let (owned, limit) = greedy("libxl");
    assert_eq!(limit, 257 * 256);
    assert!(owned <= limit, "{owned}");
}

/// Xen takes what is touched from the PoD cache alone: a larger limit does not make the cache larger.
fn never_balloons_down() {
    let xen = Interface::open().expect("Xen");
    for model in ["xenops", "libxl"] {
        // Without its balloon driver Linux fills more than the 256 MiB it may hold.
        let words = "initcall_blacklist=balloon_init guest.touch=400";
        let built = start(&[&GREEDY[..], &["--model", model]].concat(), words);
        let guest = domid(&built);
        wait_for("the guest is crashed", 120, || {
            xen.domain(guest).expect("told").is_some_and(|info| info.shutdown == Some(ShutdownReason::Crash))
        });
        assert!(shell("xl dmesg").contains("out of PoD memory"), "{}", shell("xl dmesg | tail -20"));
        dombuild(&["destroy", "t"]).success();
    }
}

/// QEMU's video RAM is part of the target: it fits with room to spare, whichever the limit was set from.
fn video_ram_fits() {
    for (model, limit) in [("xenops", 513), ("libxl", 257)] {
        let built =
            create("t", &["--memory", "256", "--maxmem", "512", "--video", "32MiB", "--model", model, "--paused"]);
        assert_eq!(pages_in_dump(domid(&built)), (256 * 256, limit * 256), "{model}");
        dombuild(&["destroy", "t"]).success();
    }
}

/// QEMU puts a card's ROM into the guest in pages of its own, beyond the target.
fn large_roms() {
    let rom = file(&vec![0; 2 << 20]);
    let card = format!("e1000,romfile={}", path_text(&rom));
    for (model, fits) in [("libxl", false), ("xenops", true)] {
        let flags = ["--memory", "256", "--maxmem", "512", "--model", model, "--dm-arg", "-device", "--dm-arg", &card];
        let ran = dombuild(&[&["create", "--name", "t", "--paused"], &flags[..]].concat());
        if fits {
            let built = ran.success().json();
            assert_eq!(pages_in_dump(domid(&built)).0, 256 * 256 + 512, "its pages come on top");
            dombuild(&["destroy", "t"]).success();
        } else {
            ran.failed_with(1, "device-model-failed");
        }
    }
}

/// The host has room for both guests at their targets. Under xenops' limit the first may take what the second needs.
fn a_grown_guest_leaves_no_room() {
    let xen = Interface::open().expect("Xen");
    let free_mib = xen.physinfo().expect("physinfo").available().0 / 1024;
    let second = (free_mib - 700).to_string();
    for (model, fits) in [("xenops", false), ("libxl", true)] {
        let arguments = ["--kind", "pvh", "--memory", "512", "--maxmem", "1GiB", "--model", model];
        let built = start(&arguments, "guest.target=1000000");
        wait_for("the guest sets its own target", 60, || said("current_kb").is_some());
        if !fits {
            wait_for("it has grown", 120, || {
                xen.domain(domid(&built)).expect("told").is_some_and(|info| info.owned_pages.0 > 900 * 256)
            });
        }
        let flags = ["--memory", &second, "--device-model", "none", "--paused", "--wait-memory", "0"];
        let ran = dombuild(&[&["create", "--name", "second"], &flags[..]].concat());
        if fits {
            ran.success();
            dombuild(&["destroy", "second"]).success();
        } else {
            ran.failed_with(4, "not-enough-memory");
        }
        dombuild(&["destroy", "t"]).success();
    }
}
