//! The keys that make several fields of libxl's configuration, or a part of one (`parse_config_data`, xl_parse.c, Xen 4.17 and
//! 4.20). The values have been checked.

use serde_json::Value;

use super::fields::{Configuration, strings, truth};
use super::reader::Read;
use super::{cpu_list, device_texts, vnuma};
use crate::config::cpuid_policy;
use crate::config::platform::viridian::group;
use crate::domain::libxl_cpuid;
use crate::memory::Kind;
use crate::xen::CpuidRules;

/// The bits of the two maps of enlightenments (`LIBXL_BUILDINFO_HVM_VIRIDIAN_ENABLE_DISABLE_WIDTH`, libxl.h).
const VIRIDIAN_BITS: usize = 64;

/// The FLASK labels: the one until the guest is complete, and the one after that.
pub(super) fn seclabel(configuration: &mut Configuration<'_>, _: &Read<'_>) {
    let (first, last) = (configuration.text("init_seclabel"), configuration.text("seclabel"));
    configuration.put_some("c_info.ssid_label", first.or(last));
    configuration.put_some("b_info.exec_ssid_label", first.and(last));
}

pub(super) fn uuid(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    configuration.put_some("c_info.uuid", value.text().map(str::to_ascii_lowercase));
}

/// The vCPUs that are online.
pub(super) fn vcpus(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let count = value.number().unwrap_or_default();
    configuration.put("b_info.avail_vcpus", (0..count).collect::<Vec<_>>());
    configuration.put_default("b_info.max_vcpus", count);
}

pub(super) fn maxvcpus(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    configuration.put_some("b_info.max_vcpus", value.number());
}

pub(super) fn maxmem(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    configuration.put_some("b_info.max_memkb", value.number().map(|mib| mib.saturating_mul(1024)));
}

pub(super) fn cpus(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    affinity(configuration, "cpus", "b_info.vcpu_hard_affinity", value);
}

pub(super) fn cpus_soft(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    affinity(configuration, "cpus_soft", "b_info.vcpu_soft_affinity", value);
}

/// A text is for every vCPU, a list has one for each. A list, and any soft affinity, turns automatic placement off.
fn affinity(configuration: &mut Configuration<'_>, key: &'static str, path: &str, value: &Read<'_>) {
    let vnuma: usize = match configuration.values.get("vnuma") {
        Some(Read::Lists(lists)) => vnuma::nodes(lists).unwrap_or_default().iter().map(|node| node.vcpus.len()).sum(),
        _ => 0,
    };
    let vcpus = configuration.number("maxvcpus").or_else(|| configuration.number("vcpus"));
    let vcpus = vcpus.and_then(|vcpus| usize::try_from(vcpus).ok()).unwrap_or(vnuma);
    let lists: Vec<&str> = match value {
        Read::Text(text) => vec![text; vcpus],
        Read::Texts(items) => items.iter().map(|(text, _)| text.as_str()).take(vcpus).collect(),
        _ => return,
    };
    if key == "cpus_soft" || matches!(value, Read::Texts(_)) {
        configuration.put("b_info.numa_placement", truth(false));
    }
    match lists.iter().map(|list| cpu_list::cpus(list)).collect::<Option<Vec<_>>>() {
        Some(maps) if maps.is_empty() => {}
        Some(maps) => {
            let maps: Value = maps.iter().map(|cpus| cpus.iter().copied().collect::<Value>()).collect();
            configuration.put(path, maps);
        }
        None => configuration.note(key, format!("which CPUs {key} names depends on the host: the field is left out")),
    }
}

pub(super) fn vnuma(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let Read::Lists(lists) = value else { return };
    let Ok(nodes) = vnuma::nodes(lists) else { return };
    if nodes.is_empty() {
        return;
    }
    if nodes.iter().any(|node| node.pnode.is_some()) {
        configuration.put("b_info.numa_placement", truth(false));
    }
    configuration.put("b_info.vnuma_nodes", vnuma::json(&nodes));
    let mib: u64 = nodes.iter().filter_map(|node| node.memory_mib).sum();
    configuration.put("b_info.max_memkb", mib * 1024);
    configuration.put("b_info.max_vcpus", nodes.iter().map(|node| node.vcpus.len()).sum::<usize>());
}

/// Whether xl takes this kernel of an HVM guest for hvmloader, which it starts anyway.
pub(super) fn is_hvmloader(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name == "hvmloader")
}

/// xl takes no kernel for an HVM guest that is hvmloader.
pub(super) fn kernel(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let is_ignored = |path: &&str| configuration.kind == Kind::Hvm && is_hvmloader(path);
    let kernel = value.text().filter(|path| !is_ignored(path));
    configuration.put_some("b_info.kernel", kernel);
}

/// The command line, of which any of three keys is the reason.
pub(super) fn cmdline(configuration: &mut Configuration<'_>, _: &Read<'_>) {
    let (root, extra) = (configuration.text("root"), configuration.text("extra"));
    let joined = match (root, extra) {
        (Some(root), Some(extra)) => Some(format!("root={root} {extra}")),
        (Some(root), None) => Some(format!("root={root}")),
        (None, extra) => extra.map(str::to_owned),
    };
    configuration.put_some("b_info.cmdline", configuration.text("cmdline").map(str::to_owned).or(joined));
}

pub(super) fn firmware(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let Some(word) = value.text() else { return };
    match (configuration.kind, word) {
        (Kind::Hvm, "seabios" | "ovmf" | "rombios") => configuration.put("b_info.type.hvm.bios", word),
        (Kind::Hvm, "uefi") => configuration.put("b_info.type.hvm.bios", "ovmf"),
        (Kind::Hvm, "bios") => {}
        (Kind::Hvm, path) => configuration.put("b_info.type.hvm.firmware", path),
        (Kind::Pvh | Kind::Pv, name) => {
            let directory = concat!("/usr/lib/xen-", env!("DOMBUILD_XEN_VERSION"), "/boot");
            configuration.put("b_info.kernel", format!("{directory}/{name}.bin"));
        }
    }
}

/// `firmware` with a path counts before it.
pub(super) fn firmware_override(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    if let Some(path) = value.text() {
        configuration.put_default("b_info.type.hvm.firmware", path);
    }
}

/// `firmware` counts before it.
pub(super) fn bios(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    if let Some(word) = value.text() {
        configuration.put_default("b_info.type.hvm.bios", word);
    }
}

pub(super) fn bootloader_args(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let arguments: Value = match value {
        Read::Text(text) => text.split([' ', '\t', '\n']).filter(|word| !word.is_empty()).collect(),
        Read::Texts(texts) if !texts.is_empty() => strings(texts),
        _ => return,
    };
    configuration.put("b_info.bootloader_args", arguments);
}

/// Seconds, which libxl keeps in 32 bits without a sign.
pub(super) fn rtc_timeoffset(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let seconds = value.number().and_then(|seconds| i32::try_from(seconds).ok()).map(i32::cast_unsigned);
    configuration.put_some("b_info.rtc_timeoffset", seconds.filter(|seconds| *seconds != 0));
}

/// xl reads it for HVM guests alone, though libxl has it for all.
pub(super) fn apic(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    if configuration.kind == Kind::Hvm {
        configuration.put_some("b_info.apic", value.flag().map(truth));
    }
}

pub(super) fn viridian(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let Read::Texts(words) = value else {
        return configuration.put_some("b_info.type.hvm.viridian", value.flag().map(truth));
    };
    let (mut enabled, mut disabled) = ([false; VIRIDIAN_BITS], [false; VIRIDIAN_BITS]);
    for (word, _) in words {
        match (word.as_str(), group(word.trim_start_matches('!'))) {
            ("all", _) => enabled = [true; VIRIDIAN_BITS],
            ("defaults", _) => configuration.put("b_info.type.hvm.viridian", truth(true)),
            (word, Some(bit)) => {
                let on = !word.starts_with('!');
                (enabled[bit], disabled[bit]) = (on, !on);
            }
            (_, None) => {}
        }
    }
    for (path, bits) in [("b_info.type.hvm.viridian_enable", enabled), ("b_info.type.hvm.viridian_disable", disabled)] {
        let set: Vec<usize> = (0..VIRIDIAN_BITS).filter(|bit| bits[*bit]).collect();
        configuration.put_some(path, Some(set).filter(|set| !set.is_empty()));
    }
}

pub(super) fn cpuid(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let mut rules = CpuidRules::default();
    let added = match value {
        Read::Text(text) => cpuid_policy::add_features(&mut rules, text),
        Read::Texts(texts) => texts.iter().try_for_each(|(text, _)| cpuid_policy::add_registers(&mut rules, text)),
        _ => Ok(()),
    };
    configuration.put_some("b_info.cpuid", added.ok().and_then(|()| libxl_cpuid::policy(&rules)));
}

/// `lmce` is bit 0 (`XEN_HVM_MCA_CAP_LMCE`, xen/include/public/hvm/params.h).
pub(super) fn mca_caps(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    if matches!(value, Read::Texts(words) if !words.is_empty()) {
        configuration.put("b_info.type.hvm.mca_caps", 1);
    }
}

/// A random one, as 16 bytes.
pub(super) fn ms_vm_genid(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    if value.text() == Some("generate") {
        configuration.put("b_info.type.hvm.ms_vm_genid", uuid::Uuid::new_v4().into_bytes().to_vec());
    }
}

pub(super) fn smbios(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    list(configuration, "b_info.type.hvm.smbios", value, device_texts::smbios);
}

pub(super) fn rdm(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let found = value.text().and_then(|text| device_texts::rdm(text).ok());
    configuration.put_some("b_info.type.hvm.rdm", found);
}

pub(super) fn ioports(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    list(configuration, "b_info.ioports", value, device_texts::ioports);
}

pub(super) fn irqs(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    list(configuration, "b_info.irqs", value, device_texts::irq);
}

pub(super) fn iomem(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    list(configuration, "b_info.iomem", value, device_texts::iomem);
}

fn list(
    configuration: &mut Configuration<'_>,
    path: &str,
    value: &Read<'_>,
    read: fn(&str) -> Result<Value, device_texts::Wrong>,
) {
    let Read::Texts(texts) = value else { return };
    let found: Vec<Value> = texts.iter().filter_map(|(text, _)| read(text).ok()).collect();
    configuration.put_some(path, Some(found).filter(|found| !found.is_empty()));
}

/// The words stdvga and none are libxl's std and none.
pub(super) fn vga(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let card = value.text().map(|card| if card == "stdvga" { "std" } else { card });
    configuration.put_some("b_info.type.hvm.vga.kind", card);
}

/// `vga` counts before it.
pub(super) fn stdvga(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    let card = value.flag().map(|standard| if standard { "std" } else { "cirrus" });
    if configuration.text("vga").is_none() {
        configuration.put_some("b_info.type.hvm.vga.kind", card);
    }
}

pub(super) fn gfx_passthru(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    configuration.put_some("b_info.type.hvm.gfx_passthru_kind", value.text());
    configuration.put("b_info.type.hvm.gfx_passthru", truth(value.flag() != Some(false)));
}

/// A text is one, a list several.
pub(super) fn serial(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    one_or_several(configuration, "b_info.type.hvm.serial", value);
}

/// A text is one, a list several.
pub(super) fn usbdevice(configuration: &mut Configuration<'_>, value: &Read<'_>) {
    one_or_several(configuration, "b_info.type.hvm.usbdevice", value);
}

fn one_or_several(configuration: &mut Configuration<'_>, path: &str, value: &Read<'_>) {
    match value {
        Read::Text(text) => configuration.put(path, text.as_str()),
        Read::Texts(texts) if !texts.is_empty() => configuration.put(&format!("{path}_list"), strings(texts)),
        _ => {}
    }
}
