//! Memory that makes no guest: refused with one code, before anything else is looked at.

use super::run::{Files, line, refused, text, with};

/// Flags of the memory model, and what the message must say: the figures, and what to do.
///
/// The model can refuse two more things that no command line reaches: a paging pool past Xen's 32 bits, for which the
/// multiplier would have to be above 100, and a layout without RAM above 1 MiB, which the least guest of 2 MiB has.
const REFUSED: [(&[&str], &[&str]); 32] = [
    (&["--memory", "257", "--maxmem", "256"], &["257 MiB", "256 MiB", "lower --memory or raise --maxmem"]),
    (&["--memory", "256", "--maxmem", "0"], &["static max of 0 MiB"]),
    (&["--memory", "0"], &["video RAM of 16 MiB", "target of 0 MiB", "raise --memory or lower --video"]),
    (&["--memory", "16"], &["video RAM of 16 MiB", "target of 16 MiB"]),
    (&["--memory", "0", "--video", "0"], &["target of 0 MiB is less than the 2 MiB", "raise --memory"]),
    (&["--memory", "300K"], &["target of 1 MiB"]),
    (&["--memory", "256", "--video", "12"], &["12 MiB is not a power of two"]),
    (&["--memory", "256", "--video", "512K"], &["512 KiB is not a power of two"]),
    (&["--memory", "4GiB", "--video", "1GiB"], &["1024 MiB", "512 MiB", "lower --video"]),
    (&["--memory", "4GiB", "--video", "256"], &["256 MiB", "--mmio-hole 512MiB"]),
    (&["--memory", "4GiB", "--video", "512", "--mmio-hole", "513"], &["--mmio-hole 1024MiB"]),
    (&["--memory", "256", "--vcpus", "0"], &["0 vCPUs", "at least 1"]),
    (&["--memory", "256", "--vcpus", "129"], &["129 vCPUs", "128"]),
    (&["--memory", "17"], &["17 MiB", "16 MiB of video RAM", "2 MiB", "raise --memory"]),
    (&["--memory", "1", "--video", "0"], &["2 MiB"]),
    (&["--memory", "256", "--mmio-hole", "255"], &["255 MiB", "256MiB to 2GiB"]),
    (&["--memory", "256", "--mmio-hole", "2049MiB"], &["2049 MiB"]),
    (&["--memory", "256", "--mmio-hole", "262145K"], &["262145 KiB", "whole number of MiB"]),
    (&["--memory", "16TiB"], &["target of 16777216 MiB", "16777214 MiB"]),
    (&["--memory", "1GiB", "--maxmem", "16TiB"], &["static max of 16777216 MiB", "lower --memory or --maxmem"]),
    (&["--memory", "16776960", "--video", "0"], &["build max of 16776960 MiB", "16776959 MiB"]),
    (&["--memory", "18446744073709551615K"], &["18446744073709551615 KiB", "past what Xen can hold"]),
    (&["--memory", "256", "--kind", "pvh", "--video", "16"], &["a pvh guest has no VGA card", "leave --video out"]),
    (&["--memory", "256", "--kind", "pv", "--video", "4"], &["a pv guest has no VGA card"]),
    (&["--memory", "256", "--kind", "pvh", "--mmio-hole", "256"], &["always 64 MiB", "leave --mmio-hole out"]),
    (&["--memory", "256", "--kind", "pv", "--mmio-hole", "256"], &["a pv guest has no MMIO hole"]),
    (
        &["--memory", "262143K", "--model", "libxl"],
        &["target of 262143 KiB is not whole MiB", "give --memory 255 MiB or 256 MiB"],
    ),
    (
        &["--memory", "64", "--maxmem", "262143K", "--model", "libxl"],
        &["static max of 262143 KiB is not whole MiB", "give --maxmem 255"],
    ),
    (
        &["--memory", "131073K", "--maxmem", "256", "--model", "libxl", "--kind", "pv"],
        &["target of 131073 KiB", "give --memory 128"],
    ),
    (&["--memory", "1", "--kind", "pv"], &["target of 1 MiB is less than the 2 MiB"]),
    (&["--memory", "257", "--maxmem", "256", "--model", "libxl"], &["lower --memory or raise --maxmem"]),
    (&["--memory", "16777214", "--kind", "pvh", "--model", "xapi"], &["build max of 16777214 MiB"]),
];

#[test]
fn plan_refuses_what_makes_no_guest() {
    for (flags, words) in REFUSED {
        let arguments: Vec<&str> = ["plan"].iter().chain(flags).copied().collect();
        let error = refused(&arguments, 3, "bad-memory");
        assert_eq!(error["stage"], "check-input");
        let message = error["message"].as_str().expect("text");
        for word in words {
            assert!(message.contains(word), "{flags:?}: {word:?} is missing: {message}");
        }
    }
}

#[test]
fn create_and_build_refuse_the_same() {
    let files = Files::new();
    for (flags, words) in REFUSED {
        for start in [files.create(), files.build()] {
            let arguments = flags.chunks(2).fold(start, |arguments, pair| with(&arguments, pair[0], pair[1]));
            let error = refused(&arguments, 3, "bad-memory");
            let message = error["message"].as_str().expect("text");
            assert!(words.iter().all(|word| message.contains(word)), "{flags:?}: {message}");
        }
    }
}

/// Flags without a value.
#[test]
fn what_does_not_go_together() {
    let devices = "populate on demand under an IOMMU: give a --maxmem equal to --memory, or no --passthrough";
    for (arguments, words) in [
        ("--memory 256 --maxmem 512 --passthrough", devices),
        ("--memory 256 --maxmem 512 --kind pvh --model libxl --passthrough", devices),
        ("--memory 256 --shim", "not of a hvm one: give --kind pvh"),
        ("--memory 256 --shim --kind pv --model xapi", "not of a pv one: give --kind pvh"),
        ("--memory 256 --shim --kind pvh", "the xenops model has no figure for Xen's PV shim"),
    ] {
        let arguments: Vec<&str> = ["plan"].into_iter().chain(arguments.split(' ')).collect();
        let error = refused(&arguments, 3, "bad-memory");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(words), "{arguments:?}: {message}");
    }
    assert_eq!(line("plan --memory 256 --maxmem 512 --kind pv --passthrough").exit, 0);
}

#[test]
fn words_that_are_no_kind_and_no_model() {
    for (flag, words) in [("--kind", "use hvm, pvh or pv"), ("--model", "use xenops, xapi or libxl")] {
        for text in ["", "HVM", "xen"] {
            let error = refused(&["plan", "--memory", "256", flag, text], 2, "usage");
            let message = error["message"].as_str().expect("text");
            assert!(message.contains(words) && message.contains(flag), "{message}");
        }
    }
}

/// What belongs to another kind of guest is refused, not ignored.
#[test]
fn each_kind_has_its_own_files() {
    let files = Files::new();
    for (kind, most) in [("pvh", 2047), ("pv", 1023)] {
        let (longest, long) = ("x".repeat(most), "x".repeat(most + 1));
        let too_long = format!("of {} bytes is longer than the {most} that", most + 1);
        let firmware = format!("--firmware is for --kind hvm; a {kind} guest starts its --kernel");
        let kernel = format!("--kind {kind} needs the guest's own kernel");
        for (arguments, words) in [
            (vec!["--kernel", "/x", "--firmware", "seabios"], firmware.as_str()),
            (vec![], kernel.as_str()),
            (vec!["--kernel", "/x", "--hvmloader", "/x"], "--hvmloader is for --kind hvm"),
            (vec!["--kernel", "/x", "--cmdline", &long], &too_long),
        ] {
            for verb in [vec!["create", "--name", "t"], vec!["build", "--domid", "7"]] {
                let all = [verb, vec!["--memory", "64", "--kind", kind], arguments.clone()].concat();
                let error = refused(&all, 3, "bad-config");
                let message = error["message"].as_str().expect("text");
                assert!(message.contains(words), "{all:?}: {message}");
            }
        }
        // One that is not too long is not what is refused.
        let words =
            ["create", "--name", "t", "--memory", "64", "--kind", kind, "--kernel", "/x", "--cmdline", &longest];
        refused(&words, 3, "bad-kernel");
        let model = ["create", "--name", "t", "--memory", "64", "--kind", kind, "--device-model", "/x"];
        let error = refused(&model, 3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(&format!("a {kind} guest has none")), "{error}");
        let text = text(&files.path("firmware"));
        let error =
            refused(&["create", "--name", "t", "--memory", "64", "--kind", kind, "--kernel", &text], 3, "bad-kernel");
        assert!(error["message"].as_str().expect("text").contains("neither an ELF file nor a bzImage"), "{error}");
    }
    let shim =
        ["create", "--name", "t", "--memory", "64", "--kind", "pvh", "--model", "libxl", "--shim", "--kernel", "/x"];
    let error = refused(&[&shim[..], &["--cmdline", &"x".repeat(1024)]].concat(), 3, "bad-config");
    assert!(error["message"].as_str().expect("text").contains("longer than the 1023 that a module"), "{error}");
    for flag in ["--ramdisk", "--cmdline"] {
        for start in [files.create(), files.build()] {
            let error = refused(&with(&start, flag, "x"), 3, "bad-config");
            let message = error["message"].as_str().expect("text");
            assert!(message.contains(flag) && message.contains("--kind pvh or --kind pv"), "{message}");
        }
    }
}

/// hvmloader and a guest's kernel are two things, each with a flag of its own.
#[test]
fn a_kernel_is_no_hvmloader() {
    let files = Files::new();
    let error = refused(&with(&files.build(), "--kernel", "/nowhere"), 3, "bad-config");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("--hvmloader FILE") && message.contains("add --kind pvh"), "{message}");
    // The QEMU that create starts starts it.
    let error = refused(&with(&files.create(), "--kernel", "/nowhere"), 3, "bad-kernel");
    assert!(error["message"].as_str().expect("text").starts_with("kernel /nowhere: "), "{error}");
    for kind in ["pvh", "pv"] {
        let words = ["create", "--name", "t", "--memory", "64", "--kind", kind, "--kernel", "/nowhere"];
        let error = refused(&[&words[..], &["--hvmloader", "/nowhere"]].concat(), 3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains("--hvmloader is for --kind hvm"), "{error}");
    }
}

/// A guest without QEMU has no card whose memory must find a place.
#[test]
fn without_a_device_model_video_is_only_a_number() {
    let files = Files::new();
    let large = with(&with(&files.create(), "--memory", "4GiB"), "--video", "1GiB");
    refused(&large, 3, "bad-memory");
    let none = with(&with(&large, "--device-model", "none"), "--hvmloader", "/nowhere/hvmloader");
    // It gets past the memory, and no further than the kernel.
    refused(&none, 3, "bad-kernel");
}

/// A hole that cannot even be said in bytes is still no reason to panic.
#[test]
fn a_hole_past_every_address() {
    let error = refused(&["plan", "--memory", "256", "--mmio-hole", "18446744073709551615K"], 3, "bad-config");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("18446744073709551615 KiB")), "{error}");
}

#[test]
fn texts_that_are_no_sizes() {
    for (text, words) in [
        ("", "the size is empty"),
        ("big", "`big` is not a size"),
        ("4GB", "`GB` in `4GB` is not a unit"),
        ("4X", "`X` in `4X` is not a unit"),
        ("-5", "`-5` is not a size"),
        (".5G", "`.5G` is not a size"),
        ("1,5G", "is not a unit"),
        ("0x100", "is not a unit"),
        ("1e3", "`e3` in `1e3` is not a unit"),
        ("0.3G", "`0.3G` is not a whole number of KiB"),
        ("99999999999999999999", "larger than any machine's memory"),
        (" 4G", "is not a size"),
        ("४", "is not a size"),
    ] {
        for flag in ["--memory", "--maxmem", "--video", "--mmio-hole"] {
            let mut arguments = vec!["plan", flag, text];
            if flag != "--memory" {
                arguments.extend(["--memory", "256"]);
            }
            let error = refused(&arguments, 2, "usage");
            let message = error["message"].as_str().expect("text");
            assert!(message.contains(words) && message.contains(flag), "{flag} {text:?}: {message}");
            assert!(message.contains("4GiB") || message.contains("1.5GiB"), "an example: {message}");
        }
    }
}

#[test]
fn multipliers_and_counts_that_are_no_numbers() {
    for text in ["0", "-1", "100.1", "nan", "inf", "two", ""] {
        let error = refused(&["plan", "--memory", "256", "--shadow-multiplier", text], 2, "usage");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(&format!("`{text}` is not a shadow multiplier")), "{message}");
    }
    for text in ["two", "1.5", "-1", "4294967296", ""] {
        refused(&["plan", "--memory", "256", "--vcpus", text], 2, "usage");
    }
}

#[test]
fn for_people_the_message_is_one_line_without_the_stage() {
    let ran = line("plan --memory 0");
    let expected = "dombuild: video RAM of 16 MiB leaves nothing of the target of 0 MiB, which it is part of: raise --memory or \
                    lower --video\n";
    assert_eq!(ran.stderr, expected);
    let error = refused(&["plan", "--memory", "0"], 3, "bad-memory");
    let message = error["message"].as_str().expect("text");
    assert_eq!((format!("dombuild: {message}\n").as_str(), &error["stage"]), (expected, &"check-input".into()));
}

/// A flag that is wrong is named before a file that is missing.
#[test]
fn flags_are_checked_before_files() {
    let missing = ["--memory", "64", "--hvmloader", "/nowhere", "--smbios", "/nowhere", "--device-model", "/nowhere"];
    let create = [&["create", "--name", "t"], &missing[..]].concat();
    for flags in [
        &["--platform", "colour=blue"][..],
        &["--cmdline", "x"],
        &["--event-channels", "1"],
        &["--smbios-passthrough"],
        &["--dm-arg", "-daemonize"],
    ] {
        let error = refused(&[&create[..], flags].concat(), 3, "bad-config");
        assert!(!error["message"].as_str().expect("text").contains("/nowhere"), "{error}");
    }
    refused(&create, 3, "bad-file");
}
