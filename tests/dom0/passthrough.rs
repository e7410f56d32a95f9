//! Memory for PCI devices, and tables for hvmloader: as a running guest's firmware sees them.
//!
//! The machine of `tests/nested.sh` has no IOMMU. So the test supplies what Xen would report about a device's reserved
//! memory, and no device is assigned to a guest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dombuild::builder::build::{BuildJob, build_guest};
use dombuild::builder::post::{Identity, build_post, make_skeleton};
use dombuild::builder::pre::build_pre;
use dombuild::cancel::Cancel;
use dombuild::config::devices::machine::Machine;
use dombuild::config::guest::Guest;
use dombuild::context::Context;
use dombuild::devices::pci;
use dombuild::domain::measure::measure;
use dombuild::memory::{Bytes, Gfn, Kind, Mib, Pages, Plan, Request, Reserved};
use dombuild::observer::Silent;
use dombuild::payload::boot_files::FirmwareModules;
use dombuild::payload::firmware::FirmwareChoice;
use dombuild::payload::read::hvm_boot_files;
use dombuild::payload::search::resolve_device_model;
use dombuild::payload::smbios;
use dombuild::qemu::config::{DeviceModelConfig, QemuRole};
use dombuild::qemu::confinement::RunAs;
use dombuild::qemu::device_model::DeviceModel;
use dombuild::qemu::devices::QemuDevices;
use dombuild::qemu::needs::Needs;
use dombuild::runs::journal::{JournalEntry, RunVerb};
use dombuild::xen::{DomId, Interface, Store};
use serde_json::Value;

use super::Test;
use super::support::{
    create, dombuild, domid, empty_domain, file, number, pages_in_dump, path_text, shell, wait_for, wait_for_guest_line,
};

pub(crate) const TESTS: &[Test] = &[
    ("passthrough_hole_of_a_given_domain", hole_of_a_given_domain),
    ("passthrough_needs_an_iommu", needs_an_iommu),
    ("passthrough_reserved_memory_is_what_the_guest_sees", reserved_memory),
    ("passthrough_vgpu_memory_is_what_the_guest_sees", vgpu_memory),
    ("passthrough_tables_for_hvmloader_are_in_the_guest", tables_in_the_guest),
    ("passthrough_tables_of_the_host", tables_of_the_host),
];

/// A sysfs with one device, which takes 300 MiB.
pub(crate) fn sysfs() -> tempfile::TempDir {
    let sysfs = tempfile::tempdir().expect("a directory");
    let device = sysfs.path().join("bus/pci/devices/0000:03:00.0");
    fs::create_dir_all(&device).expect("made");
    let line = "0x00000000c0000000 0x00000000d2bfffff 0x0000000000040200\n".to_owned();
    let nothing = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n".repeat(12);
    for (name, content) in [("vendor", "0x8086\n"), ("device", "0x10fb\n"), ("resource", &(line + &nothing))] {
        fs::write(device.join(name), content).expect("written");
    }
    sysfs
}

fn key(domid: DomId, name: &str) -> Option<String> {
    let read = super::support::run("xenstore-read", &[&format!("/local/domain/{domid}/{name}")]);
    (read.status == Some(0)).then(|| read.stdout.trim_end_matches('\n').to_owned())
}

fn hole_of_a_given_domain() {
    let xen = Interface::open().expect("Xen");
    let sysfs = sysfs();
    // Whatever the address: without an IOMMU Xen has nothing reserved, and says so without an error.
    assert_eq!(xen.reserved_regions("0000:03:00.0".parse().expect("an address")).expect("asked"), []);
    let mut owned = Vec::new();
    for flags in [&["--pci", "3:0.0", "--sysfs", path_text(sysfs.path())][..], &["--passthrough"], &[]] {
        let domid = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain");
        let text = domid.to_string();
        let built = dombuild(&[&["build", "--domid", &text, "--memory", "3328"], flags].concat()).success().json();
        let hole = if flags.len() > 1 { 1 << 30 } else { 256 << 20 };
        assert_eq!(number(&built["plan"], "mmio_size_bytes"), hole);
        let published = (!flags.is_empty()).then(|| hole.to_string());
        assert_eq!(key(domid, "vm-data/mmio-hole-size"), published, "{flags:?}");
        assert_eq!(key(domid, "platform/mmio_hole_size"), published.filter(|_| flags.len() > 1), "{flags:?}");
        assert_eq!(key(domid, "vm-data/vram-reserved-addr"), None);
        assert_eq!(number(&built["measured_built"], "owned_pages"), number(&built["plan"], "owned_pages_built"));
        owned.push(pages_in_dump(domid));
        dombuild(&["destroy", "--force", &text]).success();
    }
    assert!(owned.windows(2).all(|pair| pair[0] == pair[1]), "a hole takes no memory: {owned:?}");
}

fn needs_an_iommu() {
    let features = dombuild(&["features"]).success().json();
    if features["xen"]["directio"] == true {
        println!("this host has an IOMMU: what is refused without one was not seen");
        return;
    }
    let sysfs = sysfs();
    let flags = ["--pci", "3:0.0", "--sysfs", path_text(sysfs.path()), "--device-model", "none", "--paused"];
    let ran = dombuild(&[&["create", "--name", "t", "--memory", "512"], &flags[..]].concat());
    let error = ran.failed_with(3, "bad-config");
    assert!(error["message"].as_str().expect("text").contains("leave out --passthrough and --pci"), "{error}");
    assert_eq!(error["stage"], "create-domain");
}

/// The map that hvmloader gives to the firmware, as (start, end, kind).
fn e820_of(domid: DomId) -> Vec<(u64, u64, String)> {
    let prefix = format!("(d{domid}) ");
    let parse = |line: &str| {
        let (range, kind) = line.split_once("]: ")?.1.rsplit_once(": ")?;
        let (start, end) = range.split_once(" - ")?;
        let number = |text: &str| u64::from_str_radix(&text.replace(':', ""), 16).ok();
        Some((number(start)?, number(end)?, kind.to_owned()))
    };
    shell("xl dmesg").lines().filter(|line| line.contains(&prefix)).filter_map(parse).collect()
}

fn assert_sees(domid: DomId, plan: &Value) {
    wait_for_guest_line(domid, "Invoking SeaBIOS", 180);
    let seen = e820_of(domid);
    for entry in plan["e820"].as_array().expect("entries") {
        let (start, end) = (number(entry, "addr_bytes"), number(entry, "addr_bytes") + number(entry, "size_bytes"));
        let kind = entry["type"].as_str().expect("a word").to_uppercase();
        assert!(seen.contains(&(start, end, kind)), "{entry} is not in {seen:x?}");
    }
    // Besides RAM below 640 KiB, which the plan leaves to hvmloader, there is no other RAM.
    let planned = plan["e820"].as_array().expect("entries").iter().filter(|entry| entry["type"] == "ram").count();
    assert_eq!(seen.iter().filter(|(_, _, kind)| kind == "RAM").count(), planned + 1, "{seen:x?}");
    wait_for_guest_line(domid, "SeaBIOS (version", 60);
}

/// A guest around memory that the host reserves: hvmloader, SeaBIOS and QEMU see its RAM where the builder put it.
fn reserved_memory() {
    let (xen, store) = (Interface::open().expect("Xen"), Store::open().expect("xenstored"));
    let cancel = Cancel::default();
    let context = Context { xen: &xen, store: &store, observer: &Silent, cancel: &cancel };
    let region = |start, size| Reserved { start: Bytes(start), size: Bytes(size) };
    let reserved = vec![region(0x2010_1000, 0x10_0000), region(0xe000_0000, 0x2000)];
    let plan = Plan::new(&Request { reserved, passthrough: true, ..Request::new(Mib(1024).to_kib()) }).expect("a plan");
    assert_eq!(plan.layout.lowmem_end, Bytes(0x2000_0000));
    let modules = FirmwareModules::default();
    let boot_files = hvm_boot_files(&plan, None, &FirmwareChoice::default(), modules).expect("installed");
    let guest = Guest::new(plan, boot_files);
    let domid = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain");
    let uuid = xen.domain(domid).expect("asked").expect("there").uuid;
    let identity = Identity { uuid, name: Some("t".parse().expect("a name")), driver_domain: false };
    make_skeleton(&context, domid, &identity, Kind::Hvm).expect("directories");
    let mut run = JournalEntry::begin(RunVerb::Create, uuid, Some(domid)).expect("recorded");
    let prepared = build_pre(&context, domid, &guest, None, &mut run).expect("pre");
    let rings = build_guest(&context, BuildJob { domid, guest: &guest, prepared: &prepared, start_device_model: None })
        .expect("built");
    assert_eq!(measure(&xen, domid).expect("measured").owned_pages, guest.plan.owned_pages_built);
    build_post(&context, domid, &guest, &identity, &prepared, rings).expect("post");
    assert_eq!(key(domid, "vm-data/mmio-hole-size"), Some((0xe000_0000_u64).to_string()));
    assert_eq!(key(domid, "platform/mmio_hole_size"), Some((0xe000_0000_u64).to_string()));

    let path = resolve_device_model(None).expect("QEMU").expect("not none");
    let (arguments, timeout, run_as) = (Vec::new(), Duration::from_secs(60), RunAs::Root);
    let config = DeviceModelConfig {
        role: QemuRole::DeviceModel,
        path,
        machine: Machine::default(),
        arguments,
        timeout,
        run_as,
        needs: Needs::default(),
        filter: true,
    };
    let held = xen.domain(domid).expect("asked").expect("there").held();
    let mut model =
        DeviceModel::start(&context, held, &"t".parse().expect("a name"), &guest.plan, &config, QemuDevices::default())
            .expect("QEMU is started");
    model.get_ready(&context, domid, &guest.plan).expect("QEMU is ready");
    assert_eq!(measure(&xen, domid).expect("measured").owned_pages, guest.plan.owned_pages_running);
    xen.unpause(domid).expect("unpaused");
    assert_sees(domid, &serde_json::to_value(&guest.plan).expect("JSON"));
    dombuild(&["destroy", "t"]).success();
}

fn vgpu_memory() {
    let built = create("t", &["--memory", "256", "--vgpu"]);
    let domid = domid(&built);
    assert_eq!(key(domid, "vm-data/mmio-hole-size").as_deref(), Some("536870912"));
    assert_eq!(key(domid, "vm-data/vram-reserved-addr").as_deref(), Some("fb000000"));
    assert_eq!(key(domid, "vm-data/vram-reserved-size").as_deref(), Some("16777216"));
    assert_sees(domid, &built["plan"]);
    dombuild(&["destroy", "t"]).success();
}

/// Bytes of a guest's memory, from any address on.
pub(crate) fn guest_memory(domid: DomId, start: u64, length: u64) -> Vec<u8> {
    let xen = Interface::open().expect("Xen");
    let pages = Pages((start % 4096 + length).div_ceil(4096));
    let mapped = xen.map(domid, Gfn(start / 4096), pages).expect("mapped");
    let mut bytes = vec![0; usize::try_from(length).expect("small")];
    mapped.read(usize::try_from(start % 4096).expect("small"), &mut bytes);
    bytes
}

pub(crate) fn number_at(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Where a signature stands in the BIOS's area, on 16 bytes, with a checksum over what follows, as an operating system looks
/// for it.
fn find(bios: &[u8], signature: &[u8], summed: usize) -> Option<usize> {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let good = |rest: &[u8]| rest.starts_with(signature) && rest.len() >= summed && sum(&rest[..summed]) == 0;
    (0..bios.len()).step_by(16).find(|at| good(&bios[*at..]))
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

fn tables_in_the_guest() {
    let system = [&[1, 8, 0x34, 0x12, 1, 2, 0, 0][..], b"Nobody's Own Maker\0Model Seventeen\0\0"].concat();
    let vendor = [&[200, 6, 0x78, 0x56, 0xaa, 0xbb][..], b"of a vendor\0\0"].concat();
    let framed = |structure: &[u8]| [&u32::try_from(structure.len()).expect("small").to_le_bytes(), structure].concat();
    let table = |signature: &[u8; 4], content: &[u8]| {
        let length = u32::try_from(36 + content.len()).expect("small").to_le_bytes();
        let mut table = [&signature[..], &length, &[1, 0], &[b'x'; 26], content].concat();
        table[9] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        table
    };
    let (slic, oem) = (table(b"SLIC", b"a licence of nobody's"), table(b"OEM7", &[7; 5000]));
    let smbios_file = file(&[framed(&system), framed(&vendor)].concat());
    let acpi_file = file(&[&slic[..], &oem].concat());
    let flags = ["--memory", "128", "--smbios", path_text(&smbios_file), "--acpi", path_text(&acpi_file), "--paused"];
    let built = create("t", &flags);
    let domid = domid(&built);
    // The modules stand in memory that the guest has anyway.
    let plan = &built["plan"];
    assert_eq!(pages_in_dump(domid).0, number(plan, "owned_pages_running"));
    for (name, content) in [("smbios", &smbios_file), ("acpi", &acpi_file)] {
        let told = |what: &str| {
            let text = key(domid, &format!("hvmloader/{name}/{what}")).expect(what);
            u64::from_str_radix(text.strip_prefix("0x").expect("hexadecimal"), 16).expect("a number")
        };
        let content = fs::read(content).expect("read");
        assert_eq!(told("length"), content.len() as u64, "{name}");
        assert_eq!(guest_memory(domid, told("address"), told("length")), content, "{name}");
    }
    let owner = format!("xenstore-ls -p /local/domain/{domid}/hvmloader | grep -c 'n0,r{domid}'");
    assert!(shell(&owner).trim().parse::<u32>().expect("a count") >= 4, "the guest may read them");
    shell("xl unpause t");
    wait_for_guest_line(domid, "SeaBIOS (version", 180);
    let bios = || guest_memory(domid, 0xf_0000, 0x1_0000);
    wait_for("both tables are where an operating system looks for them", 60, || {
        let bios = bios();
        find(&bios, b"_SM_", 16).is_some() && find(&bios, b"RSD PTR ", 20).is_some()
    });
    shell("xl pause t");

    let bios = bios();
    let entry = &bios[find(&bios, b"_SM_", 16).expect("SMBIOS")..];
    let structures = guest_memory(domid, number_at(entry, 0x18, 4), number_at(entry, 0x16, 2));
    // hvmloader gives the system's structure the handle that it has for it, and lets the vendor's keep its own.
    let system = [&[1, 8, 0, 1][..], &system[4..]].concat();
    assert!(contains(&structures, &system) && contains(&structures, &vendor), "{structures:x?}");
    assert!(!contains(&structures, b"HVM domU\0"), "its own has made way");

    let tables = acpi_tables(domid);
    let names: Vec<String> = tables.iter().map(|table| String::from_utf8_lossy(&table[..4]).into_owned()).collect();
    assert!(names.contains(&"APIC".to_owned()), "hvmloader's own are there: {names:?}");
    assert!(tables.contains(&slic) && tables.contains(&oem), "{names:?}");
    dombuild(&["destroy", "t"]).success();
}

/// The ACPI tables that hvmloader has given a guest, once SeaBIOS has put their root where an operating system looks for it.
pub(crate) fn acpi_tables(domid: DomId) -> Vec<Vec<u8>> {
    let bios = || guest_memory(domid, 0xf_0000, 0x1_0000);
    wait_for("the ACPI tables are where an operating system looks for them", 60, || {
        find(&bios(), b"RSD PTR ", 20).is_some()
    });
    let bios = bios();
    let root = &bios[find(&bios, b"RSD PTR ", 20).expect("ACPI")..];
    let rsdt_at = number_at(root, 16, 4);
    let rsdt = guest_memory(domid, rsdt_at, number_at(&guest_memory(domid, rsdt_at, 36), 4, 4));
    let tables: Vec<Vec<u8>> = rsdt[36..]
        .chunks(4)
        .map(|entry| {
            let at = number_at(entry, 0, 4);
            guest_memory(domid, at, number_at(&guest_memory(domid, at, 36), 4, 4))
        })
        .collect();
    tables
}

fn tables_of_the_host() {
    let flags = ["--memory", "64", "--smbios-passthrough", "--device-model", "none", "--paused"];
    let sysfs = Path::new(pci::SYSFS);
    let table = sysfs.join("firmware/dmi/tables/DMI");
    if !table.exists() {
        println!("dom0 has no {}: what is refused without one is seen instead", table.display());
        let ran = dombuild(&[&["create", "--name", "t"], &flags[..]].concat());
        let error = ran.failed_with(3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains("has no SMBIOS table"), "{error}");
        return;
    }
    let built = create("t", &flags);
    let domid = domid(&built);
    let told = |what: &str| {
        let text = key(domid, &format!("hvmloader/smbios/{what}")).expect(what);
        u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number")
    };
    let module = guest_memory(domid, told("address"), told("length"));
    let types = smbios::check(&module).expect("hvmloader's format");
    println!("the host's structures: types {types:?}, {} bytes", module.len());
    assert!(types.contains(&1), "{types:?}");
    // dom0's kernel reports the maker by another interface.
    let maker = fs::read_to_string("/sys/class/dmi/id/sys_vendor").expect("the maker");
    assert!(contains(&module, maker.trim().as_bytes()), "{maker}");
    assert_eq!(number(&built["measured_built"], "owned_pages"), number(&built["plan"], "owned_pages_built"));
    dombuild(&["destroy", "t"]).success();
}
