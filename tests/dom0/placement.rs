//! How large a kernel and its ramdisk may be: what is refused before Xen is touched is what libxenguest cannot place, and the
//! largest that is not refused starts.

use std::fs::File;

use dombuild::xen::{Interface, ShutdownReason};
use tempfile::TempPath;

use super::Test;
use super::images::kernels;
use super::sample::Random;
use super::support::{GUEST_KERNEL, dombuild, domid, file, path_text, run, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("placement_the_largest_ramdisk_starts", largest_ramdisk),
    ("placement_is_libxenguests_own", as_libxenguest),
    ("placement_of_a_firmware_on_demand", firmware_on_demand),
];

/// A file of so many zeros, which takes no room.
fn zeros(size: u64) -> TempPath {
    let path = file(b"");
    File::options().write(true).open(&path).expect("it is there").set_len(size).expect("a sparse file");
    path
}

/// Some of the guests, or all of them in a full run: each takes ten to twenty seconds.
fn sampled<'a>(purpose: &str, tiny: &'a str) -> Vec<Vec<&'a str>> {
    let mut all = guests(tiny);
    let total = u64::try_from(all.len()).expect("a few");
    let chosen = Random::new(purpose).sample(total, 3);
    let mut index = 0;
    all.retain(|_| {
        index += 1;
        chosen.contains(&(index - 1))
    });
    all
}

/// The flags of guests: with a kernel of two segments that stops at once, and with Linux, which reaches up to 78 MiB.
fn guests(tiny: &str) -> Vec<Vec<&str>> {
    let pvh = ["--kind", "pvh", "--memory", "128"];
    let pv = ["--kind", "pv", "--memory", "128", "--maxmem", "256"];
    let shim = ["--kind", "pvh", "--memory", "64", "--model", "libxl", "--shim"];
    vec![
        [&pvh[..], &["--kernel", tiny]].concat(),
        [&pvh[..], &["--kernel", tiny, "--maxmem", "512"]].concat(),
        [&pvh[..], &["--kernel", GUEST_KERNEL]].concat(),
        [&pvh[..], &["--kernel", GUEST_KERNEL, "--maxmem", "512"]].concat(),
        [&pv[..], &["--kernel", tiny]].concat(),
        [&pv[..], &["--kernel", GUEST_KERNEL]].concat(),
        [&shim[..], &["--kernel", tiny]].concat(),
        [&shim[..], &["--kernel", tiny, "--maxmem", "256"]].concat(),
    ]
}

/// The size in the error of a ramdisk that is too large; `create` and `--dry-run` say the same, and do not reach Xen.
fn largest(flags: &[&str], size: u64) -> u64 {
    let ramdisk = zeros(size);
    let mut said = Vec::new();
    for verb in [&["create", "--name", "t"][..], &["create", "--dry-run", "--name", "t"]] {
        let ran = dombuild(&[verb, flags, &["--ramdisk", path_text(&ramdisk)]].concat());
        let error = ran.failed_with(3, "bad-file");
        assert_eq!(error["stage"], "check-input", "{error}");
        said.push(error["message"].as_str().expect("text").to_owned());
    }
    assert_eq!(said[0], said[1]);
    let (_, rest) = said[0].split_once("room for a ramdisk of ").unwrap_or_else(|| panic!("{said:?}"));
    rest.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said:?}"))
}

fn largest_ramdisk() {
    let (xen, tiny) = (Interface::open().expect("Xen"), file(&kernels::good()));
    for flags in sampled("the largest ramdisk", path_text(&tiny)) {
        let fits = largest(&flags, 200 << 20);
        assert_eq!(largest(&flags, fits + 1), fits, "{flags:?}");
        let ramdisk = zeros(fits);
        let words = [&["create", "--name", "t"], &flags[..], &["--ramdisk", path_text(&ramdisk)]].concat();
        // Linux needs more than that, and the tiny one nothing; only as PVH can it end.
        let runs = flags.contains(&path_text(&tiny)) && !flags.contains(&"pv") && !flags.contains(&"--shim");
        let words = if runs { words } else { [&words[..], &["--paused"]].concat() };
        let built = dombuild(&words).success().json();
        if runs {
            let guest = domid(&built);
            wait_for("its kernel has stopped it", 20, || {
                xen.domain(guest).expect("told").is_some_and(|info| info.shutdown == Some(ShutdownReason::Poweroff))
            });
        }
        dombuild(&["destroy", "t"]).success();
        println!("{}: {fits} bytes", flags.join(" "));
    }
}

/// The witness is xl, which asks nothing and lets libxenguest fail: with a page more it does, where the check is exact.
fn as_libxenguest() {
    let tiny = file(&kernels::good());
    for flags in sampled("placement as libxenguest", path_text(&tiny)) {
        let value = |flag: &str| flags.iter().position(|word| *word == flag).map(|at| flags[at + 1]);
        let on_demand = value("--kind") == Some("pvh") && value("--maxmem").is_some();
        if on_demand {
            // There Xen looks for pages of zeros to take back, page by page.
            continue;
        }
        let fits = largest(&flags, 200 << 20);
        for (size, succeeds) in [(fits, true), (fits + 4096, false)] {
            let ramdisk = zeros(size);
            let config = format!(
                "type=\"{}\"\nname=\"x\"\nmemory={}\nmaxmem={}\nkernel=\"{}\"\nramdisk=\"{}\"\npvshim={}\n",
                value("--kind").expect("given"),
                value("--memory").expect("given"),
                value("--maxmem").or(value("--memory")).expect("given"),
                value("--kernel").expect("given"),
                path_text(&ramdisk),
                u8::from(flags.contains(&"--shim")),
            );
            let config = file(config.as_bytes());
            let ran = run("xl", &["create", "-p", path_text(&config)]);
            assert_eq!(ran.status == Some(0), succeeds, "{flags:?} with {size} bytes: {ran:?}");
            if succeeds {
                shell("xl destroy x");
            }
        }
    }
}

/// OVMF of 4 MiB is more than a guest has that starts with 4 MiB of 256.
fn firmware_on_demand() {
    let flags = ["--memory", "4", "--maxmem", "256", "--video", "0", "--firmware", "ovmf", "--device-model", "none"];
    let error =
        dombuild(&[&["create", "--name", "t", "--dry-run"], &flags[..]].concat()).failed_with(3, "bad-firmware");
    assert!(error["message"].as_str().expect("text").contains("this one has 4 MiB"), "{error}");
}
