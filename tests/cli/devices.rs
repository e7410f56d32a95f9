//! Memory for PCI devices, with a sysfs tree of the test's own, and the tables that hvmloader gets.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Value, json};

use super::run::{Files, line, refused, run, text};

const MIB: u64 = 1 << 20;

/// A sysfs with PCI devices in it.
struct Sysfs(tempfile::TempDir);

impl Sysfs {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> String {
        text(self.0.path())
    }

    /// A device whose registers take these sizes, as Linux shows it.
    fn device(&self, address: &str, ids: (&str, &str), sizes: &[u64]) {
        let line = |size: &u64| match size {
            0 => format!("{0} {0} {0}\n", "0x0000000000000000"),
            _ => format!("{:#018x} {:#018x} {:#018x}\n", 0x20_0000_0000_u64, 0x20_0000_0000 + size - 1, 0x14_220c),
        };
        let mut resource: String = sizes.iter().map(line).collect();
        resource.push_str(&line(&0).repeat(13 - sizes.len()));
        self.files(address, ids, &resource);
    }

    fn files(&self, address: &str, (vendor, device): (&str, &str), resource: &str) {
        let directory = self.0.path().join("bus/pci/devices").join(address);
        fs::create_dir_all(&directory).expect("made");
        for (name, content) in [("vendor", vendor), ("device", device), ("resource", resource)] {
            fs::write(directory.join(name), content).expect("written");
        }
    }

    fn plan(&self, arguments: &str) -> Value {
        let ran = line(&format!("plan --json --sysfs {} {arguments}", self.path()));
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{arguments}: {ran:?}");
        ran.json()
    }

    fn refused(&self, arguments: &str, code: &str, words: &[&str]) {
        let path = self.path();
        let all: Vec<&str> = ["plan", "--sysfs", &path].into_iter().chain(arguments.split(' ')).collect();
        let error = refused(&all, 3, code);
        let message = error["message"].as_str().expect("text");
        for word in words {
            assert!(message.contains(word), "{arguments}: {word:?} is missing: {message}");
        }
    }
}

const NIC: (&str, &str) = ("0x8086\n", "0x10fb\n");

#[test]
fn the_hole_is_as_large_as_the_devices_need() {
    let sysfs = Sysfs::new();
    sysfs.device("0000:03:00.0", NIC, &[0x8_0000, 0, 0x20, 0, 0x4000]);
    sysfs.device("0000:03:00.1", NIC, &[128 * MIB]);
    sysfs.device("0001:af:1f.7", NIC, &[256 * MIB, 0, 32 * MIB, 0, 0, 0, 0x8_0000]);
    sysfs.device("0000:04:00.0", NIC, &[16 << 30]);
    sysfs.device("0000:05:00.0", ("0x1002\n", "0x692f\n"), &[MIB]);
    // The eighth line is a bridge's or SR-IOV's, and no part of the device.
    sysfs.device("0000:06:00.0", NIC, &[0, 0, 0, 0, 0, 0, 0, 1 << 30]);
    for (flags, hole) in [
        ("", 256),
        ("--pci 0000:06:00.0", 256),
        ("--pci 03:00.0", 512),
        ("--pci 03:00.0 --pci 03:00.1", 512),
        ("--pci 03:00.0,0000:03:00.1", 512),
        ("--pci 1:af:1f.7", 1024),
        ("--pci 1:af:1f.7,3:0.1", 1024),
        ("--pci 4:0.0", 2048),
        ("--pci 5:0.0", 2048),
        ("--vgpu", 512),
        ("--vgpu --pci 3:0.0", 1024),
        ("--pci 3:0.0 --mmio-hole 768", 768),
        ("--pci 3:0.0 --mmio-hole 2GiB", 2048),
    ] {
        let plan = sysfs.plan(&format!("--memory 4GiB {flags}"));
        assert_eq!(plan["mmio_size_bytes"], json!(hole * MIB), "{flags}: {plan}");
        assert_eq!(plan["mmio_start_bytes"], json!((4096 - hole) * MIB), "{flags}");
        assert_eq!(plan["lowmem_end_bytes"], plan["mmio_start_bytes"], "{flags}");
        // RAM moves, and none is lost.
        let high = plan["highmem_end_bytes"].as_u64().expect("bytes");
        assert_eq!((4096 - hole) * MIB + high - 4096 * MIB, (4096 - 16) * MIB, "{flags}");
        let shown = line(&format!("plan --sysfs {} --memory 4GiB {flags}", sysfs.path()));
        assert!(shown.stdout.contains(&format!("MMIO hole: {hole} MiB below 4 GiB")), "{flags}:\n{}", shown.stdout);
        assert_eq!(shown.stdout.contains("for a vGPU's memory"), flags.contains("vgpu"), "{flags}:\n{}", shown.stdout);
    }
    let vgpu = sysfs.plan("--memory 1GiB --vgpu");
    assert_eq!(
        vgpu["e820"][1],
        json!({"addr_bytes": 0xfb00_0000_u32, "size_bytes": 16 * MIB, "type": "reserved"}),
        "{vgpu}"
    );
    let drawn = run(&["plan", "--memory", "1GiB", "--vgpu", "--svg", "-"]);
    assert!(drawn.stdout.contains("vGPU") && drawn.exit == 0, "{drawn:?}");
}

#[test]
fn devices_that_there_are_not_or_that_do_not_go_together() {
    let sysfs = Sysfs::new();
    sysfs.device("0000:03:00.0", NIC, &[300 * MIB]);
    let memory = "--memory 4GiB";
    let too_small = ["1023 MiB", "1024 MiB", "--mmio-hole 1024MiB"];
    sysfs.refused(&format!("{memory} --pci 3:0.0 --mmio-hole 1023"), "bad-config", &too_small);
    sysfs.refused(&format!("{memory} --vgpu --mmio-hole 256"), "bad-config", &["256 MiB", "512 MiB"]);
    sysfs.refused(&format!("{memory} --pci 7:0.0"), "bad-config", &["no PCI device 0000:07:00.0", "lspci"]);
    sysfs.refused(&format!("{memory} --pci 3:0.0,0000:03:00.0"), "bad-config", &["0000:03:00.0 is named twice"]);
    let on_demand = ["populate on demand under an IOMMU"];
    sysfs.refused("--memory 1GiB --maxmem 2GiB --pci 3:0.0", "bad-memory", &on_demand);
    sysfs.refused("--memory 1GiB --kind pvh --pci 3:0.0", "bad-config", &["no passthrough for x86 PVH guests"]);
    sysfs.refused("--memory 1GiB --kind pv --pci 3:0.0@5", "bad-config", &["0000:03:00.0: a slot (@) is for an HVM"]);
    sysfs.refused("--memory 1GiB --pci permissive=1,3:0.0", "bad-config", &["comes after the device"]);
    for kind in ["pvh", "pv"] {
        sysfs.refused(&format!("--memory 1GiB --kind {kind} --vgpu"), "bad-memory", &["give --kind hvm", "--vgpu"]);
    }
    for bad in ["", "3:0", "3:0.8", "3:20.0", "3:0.0,,4:0.0", "00003:00.0", "3:0.0;4:0.0"] {
        let error = refused(&["plan", "--memory", "1GiB", "--pci", bad], 2, "usage");
        assert!(error["message"].as_str().expect("text").contains("--pci"), "{bad}: {error}");
    }
}

#[test]
fn a_sysfs_that_is_not_as_linux_makes_it() {
    let line = "0x00000000fe000000 0x00000000fe0fffff 0x0000000000040200\n";
    for (resource, words) in [
        (line.repeat(6), "has 6 lines; at least 7"),
        (String::new(), "has 0 lines"),
        (line.repeat(6) + "0x1 0x2\n", "line 7 is \"0x1 0x2\""),
        (line.repeat(2) + &line.replace("0x00000000fe0", "0x0000zz00fe0") + &line.repeat(5), "line 3"),
        (line.repeat(3) + &line.replace("0x0000000000040200", "40200") + &line.repeat(4), "line 4"),
        (line.repeat(3) + "0x2000 0x1000 0x0\n" + &line.repeat(4), "ends before it begins"),
        (line.repeat(3) + "0x1 0xffffffffffffffff 0x0\n" + &line.repeat(4), "more than there are addresses"),
        (line.repeat(3) + "0x1 0x2 0x3 0x4\n" + &line.repeat(4), "line 4"),
    ] {
        let sysfs = Sysfs::new();
        sysfs.files("0000:03:00.0", NIC, &resource);
        sysfs.refused("--memory 1GiB --pci 3:0.0", "bad-file", &["0000:03:00.0/resource", words]);
    }
    for (ids, name) in
        [(("8086\n", "0x1\n"), "vendor"), (("0x8086\n", "\n"), "device"), (("0x10000\n", "0x1\n"), "vendor")]
    {
        let sysfs = Sysfs::new();
        sysfs.files("0000:03:00.0", ids, &line.repeat(13));
        let file = format!("0000:03:00.0/{name}");
        sysfs.refused("--memory 1GiB --pci 3:0.0", "bad-file", &[&file, "0x8086"]);
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_devices(sizes in prop::collection::vec(prop::collection::vec((0_u32..31, any::<bool>()), 0..7), 1..4)) {
        let sysfs = Sysfs::new();
        let mut total = 256 * MIB;
        let mut flags = String::new();
        for (index, sizes) in sizes.iter().enumerate() {
            let sizes: Vec<u64> = sizes.iter().map(|(shift, there)| if *there { 1 << shift } else { 0 }).collect();
            total += sizes.iter().sum::<u64>();
            sysfs.device(&format!("0000:00:0{index}.0"), NIC, &sizes);
            flags.push_str(&format!(" --pci 0:{index}.0"));
        }
        let plan = sysfs.plan(&format!("--memory 4GiB{flags}"));
        let hole = plan["mmio_size_bytes"].as_u64().expect("bytes");
        prop_assert_eq!(hole, total.next_power_of_two().min(2048 * MIB));
    }
}

fn structure(number: u8, string: &str) -> Vec<u8> {
    [&[number, 8, 0, 1, 1, 0, 0, 0][..], string.as_bytes(), &[0, 0]].concat()
}

fn table(signature: &[u8; 4]) -> Vec<u8> {
    let mut table = [&signature[..], &[36, 0, 0, 0, 1, 0], &[b' '; 26]].concat();
    table[9] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    table
}

/// Flags that are refused before Xen is touched, on top of a `create` and a `build` that lack nothing.
fn guest_refused(files: &Files, flags: &[&str], code: &str, words: &[&str]) {
    for mut arguments in [files.create(), files.build()] {
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let error = refused(&arguments, 3, code);
        let message = error["message"].as_str().expect("text");
        assert_eq!(error["stage"], "check-input");
        for word in words {
            assert!(message.contains(word), "{flags:?}: {word:?} is missing: {message}");
        }
    }
}

#[test]
fn tables_for_hvmloader_are_checked_first() {
    let files = Files::new();
    let structure = structure(1, "Maker");
    let framed = [&[15, 0, 0, 0][..], &structure].concat();
    let smbios = text(&files.add("smbios", &framed));
    let cut_off = text(&files.add("cut-off", &framed[..framed.len() - 1]));
    let words = ["cut-off", "says at byte 0 that 15 bytes follow, but only 14 do", "32-bit little-endian"];
    guest_refused(&files, &["--smbios", &cut_off], "bad-file", &words);
    let nothing = text(&files.path("nothing"));
    guest_refused(&files, &["--smbios", &nothing], "bad-file", &["nothing", "No such file"]);
    guest_refused(&files, &["--smbios", &smbios, "--smbios-passthrough"], "bad-config", &["give one of them"]);
    let empty = Sysfs::new();
    let flags = ["--smbios-passthrough", "--sysfs", &empty.path()];
    guest_refused(&files, &flags, "bad-config", &["this host has no SMBIOS table", "firmware/dmi/tables/DMI"]);
    let dmi = Path::new(&empty.path()).join("firmware/dmi/tables");
    fs::create_dir_all(&dmi).expect("made");
    fs::write(dmi.join("DMI"), &structure[..10]).expect("written");
    guest_refused(&files, &flags, "bad-file", &["tables/DMI", "byte 0", "two zero bytes"]);

    let mut wrong = [table(b"SLIC"), table(b"OEM1")].concat();
    wrong[36 + 30] ^= 1;
    let wrong = text(&files.add("wrong", &wrong));
    guest_refused(&files, &["--acpi", &wrong], "bad-file", &["wrong", "OEM1 at byte 36", "checksum"]);
    let dsdt = text(&files.add("dsdt", &table(b"DSDT")));
    guest_refused(&files, &["--acpi", &dsdt], "bad-file", &["DSDT", "hvmloader makes the guest's own"]);
    let firmware = text(&files.path("firmware"));
    guest_refused(&files, &["--acpi", &firmware], "bad-file", &["no ACPI table", "byte 0"]);

    for kind in ["pvh", "pv"] {
        for flags in [&["--smbios", &smbios][..], &["--smbios-passthrough"], &["--acpi", &smbios]] {
            let start = ["create", "--name", "t", "--memory", "64", "--kind", kind, "--kernel", "/x"];
            let error = refused(&[&start, flags].concat(), 3, "bad-config");
            let words = format!("{} is for --kind hvm", flags[0]);
            assert!(error["message"].as_str().expect("text").contains(&words), "{error}");
        }
    }
}
