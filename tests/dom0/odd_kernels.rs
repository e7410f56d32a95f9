//! Kernels that Xen's own loader starts, though they are odd: they start here as well.

use dombuild::memory::Kind;

use super::images::kernels;
use super::support::{dombuild, file, path_text, shell, wait_for};
use super::{Test, sample};

#[path = "../data/odd_kernels.rs"]
mod shapes;

pub(crate) const TESTS: &[Test] = &[
    ("odd_kernels_start", start),
    ("walk_odd_kernels_pass_every_check", pass_every_check),
    ("odd_kernels_start_in_hvmloaders_place", start_in_hvmloaders_place),
    ("odd_kernels_pv_of_32_bits", pv_of_32_bits),
];

/// A 32-bit program that powers the guest off.
const HALT: &[u8] = include_bytes!("../data/halt.elf");

/// Starts a guest that looks at its own memory and powers itself off, and crashes where that is not as it should be.
fn powers_off(name: &str, arguments: &[&str], flag: &str, kernel: &[u8]) {
    let kernel = file(kernel);
    let words = ["create", "--foreground", "--name", "t", "--memory", "64", flag, path_text(&kernel)];
    let ran = dombuild(&[&words[..], arguments].concat()).success();
    assert_eq!(ran.json()["ended"], "poweroff", "{name}: {ran:?}");
}

fn start() {
    let (name, kernel) = shapes::odd_forms().pop().expect("the last has what all the others have");
    for kind in ["pvh", "pv"] {
        powers_off(name, &["--kind", kind], "--kernel", &kernel);
    }
    // The witness: xl starts it as well.
    let kernel = file(&kernel);
    for kind in ["pvh", "pv"] {
        let keep = "on_poweroff=\"preserve\"\non_crash=\"preserve\"\n";
        let text = format!("type=\"{kind}\"\nname=\"x\"\nmemory=64\nkernel=\"{}\"\n{keep}", path_text(&kernel));
        let config = file(text.as_bytes());
        shell(&format!("xl create {}", path_text(&config)));
        wait_for("xl's guest powers itself off", 60, || shell("xl list x | tail -1").contains("---s--"));
        shell("xl destroy x");
    }
}

/// The command-line tests see that they get as far as Xen; here it is Xen that answers.
fn pass_every_check() {
    let forms = shapes::odd_forms().into_iter().map(|(name, kernel)| (name, kernel, &[Kind::Pvh, Kind::Pv][..]));
    for (number, (name, kernel, kinds)) in forms.chain(shapes::tolerated()).enumerate() {
        if !sample::full() && number % 5 != 0 {
            continue;
        }
        let kernel = file(&kernel);
        let kind = kinds[number % kinds.len()].to_string();
        let words = ["create", "--dry-run", "--name", "t", "--memory", "64", "--kind", &kind];
        let ran = dombuild(&[&words[..], &["--kernel", path_text(&kernel)]].concat());
        assert_eq!(ran.status, Some(0), "{name} as {kind}: {ran:?}");
    }
}

/// 64-bit test kernels are made so: a file of 32 bits with the machine x86-64.
fn start_in_hvmloaders_place() {
    let mut kernel = HALT.to_vec();
    kernel[18] = 62;
    powers_off("halt", &["--device-model", "none"], "--hvmloader", &kernel);
}

/// Whether this Xen runs them, it says itself.
fn pv_of_32_bits() {
    let low = |kind, value: u32| kernels::note(kind, &value.to_le_bytes());
    let notes = [kernels::notes(), low(3, 0xc000_0000), low(1, 0xc010_0000)].concat();
    let segment = |kind, place, address, size: usize| kernels::header(kind, 7, place, address, size, size as u64);
    let headers = [segment(1, kernels::CODE, 0x10_0000, 0x80), segment(4, kernels::NOTES, 0, notes.len())];
    let mut kernel = kernels::elf_of(&headers, &notes);
    kernel[18] = 3;
    let kernel = file(&kernel);
    let kind = Kind::Pv.to_string();
    let words =
        ["create", "--paused", "--name", "t", "--memory", "64", "--kind", &kind, "--kernel", path_text(&kernel)];
    if shell("xl info xen_caps").contains("xen-3.0-x86_32p") {
        dombuild(&words).success();
        dombuild(&["destroy", "t"]).success();
        return;
    }
    let error = dombuild(&words).failed_with(3, "bad-config");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("this Xen runs no 32-bit PV guests"), "{message}");
}
