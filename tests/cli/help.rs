//! What the program teaches about itself.

use super::run::line;

const VERBS: [&str; 22] = [
    "plan",
    "check",
    "create",
    "run",
    "build",
    "inspect",
    "pci",
    "list",
    "balloon",
    "attach",
    "detach",
    "insert",
    "eject",
    "save",
    "restore",
    "migrate",
    "migrate-receive",
    "resume",
    "destroy",
    "cleanup",
    "xenguest",
    "features",
];

#[test]
fn the_help_of_the_program_teaches() {
    let help = line("--help");
    assert_eq!((help.exit, help.stderr.as_str()), (0, ""));
    for word in ["KiB MiB GiB TiB", "K M G T", "a bare number is MiB", "Examples:", "Exit codes:", "RUST_LOG", "--json"]
    {
        assert!(help.stdout.contains(word), "{word} is missing:\n{}", help.stdout);
    }
    for verb in VERBS {
        assert!(help.stdout.contains(&format!("\n  {verb} ")), "{verb} is missing:\n{}", help.stdout);
    }
    let table = help.stdout.split_once("Exit codes:").expect("the table").1;
    for meaning in [
        "0 done",
        "1 internal",
        "2 usage",
        "3 bad input",
        "4 not enough memory",
        "5 Xen is absent or refused",
        "6 xenstore",
        "7 a domain was left behind",
        "8 timed out",
        "130, 143 after SIGINT, SIGTERM",
    ] {
        assert!(table.contains(meaning), "{meaning} is missing:\n{table}");
    }
    let short = line("-h");
    assert_eq!((short.exit, short.stderr.as_str()), (0, ""));
    assert!(short.stdout.contains("Exit codes:"), "{}", short.stdout);
}

#[test]
fn every_verbs_help_teaches() {
    for verb in VERBS {
        for flag in ["-h", "--help"] {
            let help = line(&format!("{verb} {flag}"));
            assert_eq!((help.exit, help.stderr.as_str()), (0, ""), "{verb} {flag}");
            for word in [&format!("Usage: dombuild {verb}"), "Examples:", "Exit codes:", "0 done", "2 usage", "--json"]
            {
                assert!(help.stdout.contains(word), "{verb}: {word} is missing:\n{}", help.stdout);
            }
            // An example that one can type, and that the parser knows: the next test types them.
            assert!(help.stdout.contains(&format!("\n  dombuild {verb}")), "{verb}:\n{}", help.stdout);
            assert_eq!(
                help.stdout.contains("a bare number is MiB"),
                help.stdout.contains("<SIZE>"),
                "{verb} explains sizes exactly where it takes them:\n{}",
                help.stdout
            );
            assert!(help.stdout.lines().all(|line| line.chars().count() <= 100), "{verb}:\n{}", help.stdout);
            if flag == "--help" {
                assert_eq!(line(&format!("help {verb}")).stdout, help.stdout, "help {verb}");
            }
        }
    }
}

#[test]
fn help_is_a_verb_too() {
    for verb in [""].iter().chain(&VERBS) {
        let (as_verb, as_flag) = (line(&format!("help {verb}")), line(&format!("{verb} --help")));
        assert_eq!((as_verb.exit, &as_verb.stdout), (0, &as_flag.stdout), "{verb}");
    }
    assert_eq!(line("help nonsense").exit, 2);
}

#[test]
fn flags_stand_in_groups() {
    let help = line("create --help").stdout;
    for (group, flag) in [
        ("Memory", "--maxmem"),
        ("Devices", "--pci"),
        ("Devices", "--disk"),
        ("Boot", "--hvmloader"),
        ("Platform", "--platform"),
        ("Host", "--wait-memory"),
        ("QEMU", "--dm-arg"),
        ("Output", "--json"),
    ] {
        let section = help.split(&format!("\n{group}:\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("{group} is missing:\n{help}"));
        let section = section.split("\n\n").next().expect("a first part");
        assert!(
            section.contains(&format!("{flag} ")) || section.contains(&format!("{flag}\n")),
            "{flag} is not in {group}:\n{help}"
        );
    }
}

/// An example in the help that does not work is worse than none.
#[test]
fn the_examples_are_understood() {
    let mut tried = 0;
    for verb in [""].iter().chain(&VERBS) {
        let help = line(&format!("{verb} --help")).stdout.replace("\\\n", " ");
        let examples = help.split_once("Examples:").expect("examples").1;
        for example in examples.lines().filter_map(|line| line.strip_prefix("  dombuild ")) {
            // The guest called so cannot exist; and without Xen nothing gets that far anyway.
            let example = example.replace("web", "no-such-guest-of-the-help").replace(" 7", " 32751");
            if example.starts_with("create") {
                // The last value is refused, which keeps this from ever creating anything; all before it was understood.
                let ran = line(&format!("{example} --max-grant-frames 0"));
                assert!(ran.exit == 2 && ran.stderr.contains("'--max-grant-frames <N>'"), "{example}: {ran:?}");
            } else {
                let ran = line(&example);
                assert_ne!(ran.exit, 2, "{example}: {ran:?}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 11, "only {tried} examples");
}

#[test]
fn the_flags_of_each_verb() {
    let memory = "--kind --memory --maxmem --video --extra-internal --vcpus --shadow-multiplier --shadow-memory --vnode --mmio-hole --model --passthrough --pci --vgpu --shim";
    let guest = "--firmware --smbios --bios-string --smbios-passthrough --acpi --hvmloader --kernel --ramdisk --cmdline --shim-file --shim-cmdline --shim-extra --platform --cpuid --altp2m --wait-memory \
                 --autoballoon --dom0-min --placement --nodes --no-claim --no-build-lock";
    let table = [
        ("plan", format!("{memory} --svg")),
        ("check", "--strict --libxl-json --xl-conf".to_owned()),
        (
            "create",
            format!(
                "{memory} {guest} --name --dry-run --libxl-json --paused --device-model --device-model-filter --device-model-user --device-model-root --dm-arg --dm-timeout \
                 --bootloader --bootloader-arg --bootloader-timeout --bootloader-unconfined --uuid --foreground --disk --vif --vfb --p9 --channel --vtpm --vdispl --vsnd --pvcalls --sound --usb --usb-device --usb-version --ioport --irq --iomem --hdtype --vga --serial --xen-platform-pci --boot --console --vncviewer --quiet --hotplug-timeout --vmtrace --driver-domain --hvm-pirq --seclabel \
                 --max-grant-frames --max-maptrack-frames --max-grant-version --vpmu --msr-relaxed --event-channels --cpupool --store-timeout"
            ),
        ),
        (
            "run",
            "--adopt --reread --on-poweroff --on-reboot --on-crash --on-watchdog --restart-limit --restart-window --shutdown-timeout --store-timeout"
                .to_owned(),
        ),
        ("build", format!("{memory} {guest} --domid --store-port --console-port --store-timeout")),
        ("destroy", "--force --store-timeout".to_owned()),
        ("cleanup", "--apply --store-timeout".to_owned()),
        ("balloon", "--timeout --model --force --store-timeout".to_owned()),
        ("inspect", "--watch --svg --nodes --model --store-timeout".to_owned()),
        ("attach", "--timeout --no-wait --hotplug-timeout --store-timeout".to_owned()),
        ("detach", "--timeout --force --store-timeout".to_owned()),
        ("insert", "--format --timeout --force --store-timeout".to_owned()),
        ("eject", "--timeout --force --store-timeout".to_owned()),
        ("save", "--checkpoint --keep-paused --suspend-timeout --timeout --store-timeout".to_owned()),
        (
            "restore",
            "--dry-run --paused --timeout --wait-memory --autoballoon --dom0-min --placement --nodes --no-claim --no-build-lock --hotplug-timeout \
             --dm-timeout --device-model-user --device-model-root --store-timeout"
                .to_owned(),
        ),
        (
            "migrate",
            "--ssh --receiver --fd --ask --no-live --max-rounds --max-downtime --at-limit --suspend-timeout --answer-timeout --timeout \
             --store-timeout"
                .to_owned(),
        ),
        (
            "migrate-receive",
            "--fd --paused --has --timeout --wait-memory --autoballoon --dom0-min --placement --nodes --no-claim --no-build-lock --hotplug-timeout \
             --dm-timeout --device-model-user --device-model-root --store-timeout"
                .to_owned(),
        ),
        ("resume", "--store-timeout".to_owned()),
        ("pci", String::new()),
        ("list", "--devices --store-timeout".to_owned()),
        ("features", String::new()),
    ];
    for (verb, flags) in table {
        let help = line(&format!("{verb} --help")).stdout;
        let options = help.split_once("Options:").expect("options").1;
        let options = options.split("Sizes take").next().and_then(|text| text.split("Examples:").next());
        let mut found: Vec<&str> = options
            .expect("the options")
            .lines()
            // A flag is six columns in; a text that is wrapped before a flag's name is further in.
            .filter_map(|line| {
                line.strip_prefix("      ").or_else(|| line.strip_prefix("  -")?.split_once(", ").map(|(_, flag)| flag))
            })
            .filter_map(|line| line.split(['[', ' ']).next())
            .filter(|word| word.len() > 2 && word.starts_with("--") && word.chars().nth(2) != Some(' '))
            .collect();
        let mut expected: Vec<&str> = flags
            .split_whitespace()
            .chain(["--json", "--log", "--log-format", "--debug", "--events-fd", "--help"])
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{verb}:\n{help}");
    }
}

#[test]
fn the_version() {
    let expected = format!("dombuild {}\n", env!("CARGO_PKG_VERSION"));
    for flag in ["--version", "-V", "--json --version"] {
        let version = line(flag);
        assert_eq!((version.exit, version.stdout, version.stderr), (0, expected.clone(), String::new()), "{flag}");
    }
}
