//! A guest's configuration as libxl keeps it: `libxl_domain_config` as JSON (tools/libs/light/libxl_types.idl, Xen 4.17
//! and 4.20).
//!
//! xl reads it whenever it needs more than xenstore has: to list a guest in full, to attach a device, to save or migrate
//! the guest. A restored guest gets the QEMU that this value describes, and Xen and QEMU refuse a state that does not fit,
//! so the value describes the QEMU that runs. Enumerations are words, and a setting that is true or false is the text
//! `True` or `False`. What is missing has libxl's default.

use std::path::{Path, absolute};

use serde_json::{Value, json};
use uuid::Uuid;

use super::libxl_fields::{Fields, truth};
use super::{libxl_cpuid, libxl_devices, saved_request};
use crate::config::bios_string::BiosString;
use crate::config::devices::machine::{BootOrder, DiskController, GraphicsCard};
use crate::config::devices::set::Devices;
use crate::config::guest::Guest;
use crate::config::host_access::Irq;
use crate::config::name::DomainName;
use crate::config::platform::CpuMap;
use crate::error::Error;
use crate::memory::units::KIB_PER_MIB;
use crate::memory::{Kib, Kind, Vnode};
use crate::payload::boot_files::{BootFiles, Module};
use crate::xen::Altp2m;

/// libxl's default for the highest event channel port (`libxl__domain_build_info_setdefault`).
const EVENT_CHANNELS: u32 = 1023;

/// libxl 4.17 has no field for SMBIOS strings and for the way of emulated interrupts.
const HAS_STRINGS_AND_PIRQ: bool = !matches!(env!("DOMBUILD_XEN_VERSION").as_bytes(), b"4.17");

/// A guest as `create` knows it.
#[derive(Debug)]
pub struct LibxlConfig<'a> {
    /// Its name.
    pub name: &'a DomainName,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its plan, its files and its settings.
    pub guest: &'a Guest,
    /// The files of an HVM guest's firmware.
    pub firmware: FirmwarePaths<'a>,
    /// Its QEMU, if it has one.
    pub device_model: Option<LibxlDeviceModel<'a>>,
    /// Its CPU pool.
    pub cpupool: u32,
    /// The CPUs of that pool: where a vCPU without an affinity of its own runs.
    pub pool_cpus: &'a [u8],
    /// Its FLASK label.
    pub seclabel: Option<&'a str>,
    /// The highest version of its grant table, if it was chosen.
    pub max_grant_version: Option<u32>,
    /// Drivers of an HVM guest may route its emulated interrupts over event channels.
    pub pirqs: bool,
    /// The buffer of each vCPU's processor trace.
    pub vmtrace: Kib,
    /// It may serve devices to others.
    pub driver_domain: bool,
    /// It has performance counters.
    pub vpmu: bool,
    /// Its unknown MSRs read as 0.
    pub msr_relaxed: bool,
    /// Its grant table frames, if they were chosen.
    pub max_grant_frames: Option<i32>,
    /// Its maptrack frames, if they were chosen.
    pub max_maptrack_frames: Option<i32>,
    /// Its highest event channel port.
    pub event_channels: u32,
    /// Its devices.
    pub devices: &'a Devices,
    /// The boot loader that found its kernel.
    pub bootloader: Option<LibxlBootloader<'a>>,
}

/// A boot loader: libxl keeps what it was asked for, and not what it found.
#[derive(Debug, Clone, Copy)]
pub struct LibxlBootloader<'a> {
    /// The program, as it was named.
    pub name: &'a str,
    /// Its own arguments.
    pub arguments: &'a [String],
    /// The kernel to look for on the disk.
    pub kernel: Option<&'a Path>,
    /// The ramdisk to look for.
    pub ramdisk: Option<&'a Path>,
    /// The command line to add.
    pub cmdline: Option<&'a str>,
}

/// The files of an HVM guest's firmware, as far as they were chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirmwarePaths<'a> {
    /// hvmloader.
    pub hvmloader: Option<&'a Path>,
    /// SeaBIOS or OVMF.
    pub system: Option<&'a Path>,
    /// SMBIOS structures.
    pub smbios: Option<&'a Path>,
    /// ACPI tables.
    pub acpi: Option<&'a Path>,
}

/// A guest's QEMU.
#[derive(Debug)]
pub struct LibxlDeviceModel<'a> {
    /// The program.
    pub path: &'a Path,
    /// The user's own arguments.
    pub arguments: &'a [String],
    /// The user that runs it.
    pub user: LibxlUser,
}

/// The user of a QEMU, in libxl's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibxlUser {
    /// root, or a user that libxl cannot name: libxl starts QEMU as root.
    Root,
    /// The user that libxl itself chooses for a restricted QEMU.
    OfLibxl,
    /// A user with a name.
    Named(String),
}

impl LibxlConfig<'_> {
    /// The value.
    ///
    /// # Errors
    /// [`Error::Json`]; [`Error::Io`] if a relative path has no absolute one.
    pub fn value(&self) -> Result<Value, Error> {
        let mut config = json!({
            "c_info": self.create_info()?,
            "b_info": self.build_info()?,
            // As xl has it where nothing else was asked for. Only a guest that xl watches is restarted.
            "on_reboot": "restart",
            "on_soft_reset": "soft_reset",
        });
        let kind = self.guest.plan.request.kind;
        for (list, devices) in libxl_devices::lists(self.devices, kind) {
            config[list] = devices.into();
        }
        Ok(config)
    }

    fn create_info(&self) -> Result<Value, Error> {
        let request = &self.guest.plan.request;
        let mut info = Fields::default();
        info.put("type", request.kind.to_string());
        info.put("name", self.name.as_str());
        info.put("uuid", self.uuid.to_string());
        info.put("run_hotplug_scripts", truth(true));
        info.put_some("ssid_label", self.seclabel);
        info.put_some("poolid", Some(self.cpupool).filter(|pool| *pool != 0));
        info.put_some("driver_domain", self.driver_domain.then(|| truth(true)));
        info.put_some("passthrough", request.passthrough.then_some("enabled"));
        // libxl writes these nodes below /local/domain/N when it restores the guest.
        let saved = saved_request::text(self.uuid, request)?;
        info.put("xsdata", json!({ saved_request::RESTORED_NODE: saved }));
        Ok(info.into())
    }

    fn build_info(&self) -> Result<Value, Error> {
        let Guest { plan, platform, .. } = self.guest;
        let (memory, kind) = (&plan.memory, plan.request.kind);
        let mut info = Fields::default();
        info.put("max_vcpus", plan.vcpus);
        info.put("avail_vcpus", (0..platform.online_vcpus.unwrap_or(plan.vcpus)).collect::<Vec<_>>());
        info.put("max_memkb", memory.static_max.0);
        info.put("target_memkb", memory.target.0);
        info.put("video_memkb", memory.video.0);
        info.put_some("shadow_memkb", (kind != Kind::Pv).then_some(plan.paging_pool.0));
        let mut share = Fields::default();
        share.put_some("weight", platform.weight);
        share.put_some("cap", platform.cap);
        info.put("sched_params", share);
        if !platform.affinity.is_empty() {
            let cpus = |vcpu| platform.affinity.get(&vcpu).map_or(self.pool_cpus, CpuMap::bytes);
            info.put("vcpu_hard_affinity", (0..plan.vcpus).map(|vcpu| bits(cpus(vcpu))).collect::<Vec<_>>());
            info.put("numa_placement", truth(false));
        }
        if !platform.soft_affinity.is_empty() {
            let cpus = |vcpu| platform.soft_affinity.get(&vcpu).map_or(self.pool_cpus, CpuMap::bytes);
            info.put("vcpu_soft_affinity", (0..plan.vcpus).map(|vcpu| bits(cpus(vcpu))).collect::<Vec<_>>());
        }
        let nodes = &plan.request.vnodes;
        if let Some(vnuma) = &plan.vnuma {
            let distances = vnuma.distances.chunks(nodes.len().max(1));
            let node = |(node, distances): (&Vnode, &[u32])| {
                let mut fields = Fields::default();
                fields.put("memkb", node.size.to_kib().0);
                fields.put("distances", distances.to_vec());
                fields.put_some("pnode", Some(node.pnode).filter(|pnode| *pnode != 0));
                fields.put_some("vcpus", Some(node.vcpus.clone()).filter(|vcpus| !vcpus.is_empty()));
                Value::from(fields)
            };
            info.put("vnuma_nodes", nodes.iter().zip(distances).map(node).collect::<Vec<Value>>());
            info.put("numa_placement", truth(false));
        }
        info.put("claim_mode", truth(self.guest.is_claimed()));
        info.put_some("event_channels", Some(self.event_channels).filter(|most| *most != EVENT_CHANNELS));
        info.put_some("max_grant_version", self.max_grant_version);
        info.put_some("vpmu", self.vpmu.then(|| truth(true)));
        info.put_some("arch_x86", self.msr_relaxed.then(|| json!({ "msr_relaxed": truth(true) })));
        info.put_some("vmtrace_buf_kb", Some(self.vmtrace.get()).filter(|kib| *kib != 0));
        info.put_some("altp2m", platform.altp2m.map(Altp2m::as_str));
        let access = &self.devices.host_access;
        let listed = |list: Vec<Value>| (!list.is_empty()).then_some(list);
        info.put_some("ioports", listed(access.ports.iter().copied().map(libxl_devices::ports).collect()));
        info.put_some("irqs", listed(access.irqs.iter().map(|Irq(number)| (*number).into()).collect()));
        info.put_some("iomem", listed(access.memory.iter().copied().map(libxl_devices::io_memory).collect()));
        info.put_some("max_grant_frames", self.max_grant_frames);
        info.put_some("max_maptrack_frames", self.max_maptrack_frames);
        info.put_some(
            "tsc_mode",
            match platform.tsc_mode {
                1 => Some("always_emulate"),
                2 => Some("native"),
                _ => None,
            },
        );
        // libxl keeps a negative offset as the same 32 bits without a sign.
        let offset = Some(platform.time_offset.cast_unsigned()).filter(|offset| *offset != 0);
        info.put_some("rtc_timeoffset", offset);
        info.put_some("disable_migrate", platform.nomigrate.then(|| truth(true)));
        info.put_some("cpuid", libxl_cpuid::policy(&platform.cpuid));
        if kind != Kind::Pv {
            info.put_some(
                "timer_mode",
                match platform.timer_mode {
                    Some(0) => Some("delay_for_missed_ticks"),
                    Some(2) => Some("no_missed_ticks_pending"),
                    Some(3) => Some("one_missed_tick_pending"),
                    _ => None,
                },
            );
            info.put_some("nested_hvm", platform.nested.then(|| truth(true)));
        }
        match &self.guest.boot_files {
            BootFiles::Firmware { kind, .. } => {
                info.put_some("apic", (!platform.apic).then(|| truth(false)));
                self.put_device_model(&mut info)?;
                if let Some(direct) = &self.devices.machine.kernel {
                    info.put("kernel", path(&direct.kernel)?);
                    info.put_some("ramdisk", direct.ramdisk.as_deref().map(path).transpose()?);
                    info.put_some("cmdline", Some(direct.cmdline.as_str()).filter(|text| !text.is_empty()));
                }
                let mut hvm = self.hvm()?;
                hvm.put("bios", kind.name());
                info.put("type.hvm", hvm);
            }
            // The guest keeps the configuration that it was saved with.
            BootFiles::Saved { .. } => info.put(&format!("type.{kind}"), Fields::default()),
            BootFiles::Kernel { kernel, modules, .. } => {
                let mut of_kind = Fields::default();
                let (kernel, modules) = match modules.split_first() {
                    Some((own, rest)) if plan.request.shim => {
                        of_kind.put("pvshim", truth(true));
                        of_kind.put("pvshim_path", path(&kernel.path)?);
                        of_kind.put("pvshim_cmdline", cmdline(kernel));
                        (own, rest)
                    }
                    _ => (kernel, modules.as_slice()),
                };
                if let Some(bootloader) = &self.bootloader {
                    let shown = |path: &Path| path.to_string_lossy().into_owned();
                    info.put("bootloader", bootloader.name);
                    info.put_some("bootloader_args", Some(bootloader.arguments).filter(|words| !words.is_empty()));
                    info.put_some("kernel", bootloader.kernel.map(shown));
                    info.put_some("ramdisk", bootloader.ramdisk.map(shown));
                    info.put_some("cmdline", bootloader.cmdline);
                } else {
                    info.put("kernel", path(&kernel.path)?);
                    info.put_some("cmdline", Some(cmdline(kernel)).filter(|text| !text.is_empty()));
                    info.put_some("ramdisk", modules.first().map(|ramdisk| path(&ramdisk.path)).transpose()?);
                }
                if kind == Kind::Pv && plan.request.passthrough {
                    of_kind.put("e820_host", truth(true));
                }
                info.put(&format!("type.{kind}"), of_kind);
            }
        }
        Ok(info.into())
    }

    /// The program, its user and its arguments.
    fn put_device_model(&self, info: &mut Fields) -> Result<(), Error> {
        let Some(model) = &self.device_model else { return Ok(()) };
        info.put("device_model_version", "qemu_xen");
        info.put("device_model", path(model.path)?);
        match &model.user {
            LibxlUser::Root => {}
            LibxlUser::OfLibxl => info.put("dm_restrict", truth(true)),
            LibxlUser::Named(name) => {
                info.put("dm_restrict", truth(true));
                info.put("device_model_user", name.as_str());
            }
        }
        let card = (!self.is_card_of_libxl()).then(|| {
            let device = self.devices.machine.graphics.device(self.guest.plan.memory.video.0 / KIB_PER_MIB);
            device.map(|device| ["-device".to_owned(), device])
        });
        let own_card = card.iter().flatten().flatten();
        let arguments: Vec<_> = own_card.chain(model.arguments).map(String::as_str).collect();
        info.put_some("extra_hvm", (!arguments.is_empty()).then_some(arguments));
        Ok(())
    }

    /// An HVM guest's own settings. QEMU has ACPI's devices even if hvmloader makes no ACPI tables, so `acpi` keeps its
    /// default: libxl would start QEMU without them.
    fn hvm(&self) -> Result<Fields, Error> {
        let Guest { plan, platform, .. } = self.guest;
        let mut hvm = Fields::default();
        for (name, file) in [
            ("firmware", self.firmware.hvmloader),
            ("system_firmware", self.firmware.system),
            ("smbios_firmware", self.firmware.smbios),
            ("acpi_firmware", self.firmware.acpi),
        ] {
            hvm.put_some(name, file.map(path).transpose()?);
        }
        if HAS_STRINGS_AND_PIRQ {
            hvm.put_some("pirq", self.pirqs.then(|| truth(true)));
            let string = |string: &BiosString| json!({ "key": string.name, "value": string.text });
            let strings: Vec<Value> = platform.bios_strings.iter().map(string).collect();
            hvm.put_some("smbios", (!strings.is_empty()).then_some(strings));
        }
        hvm.put_some("mca_caps", platform.local_machine_checks.then_some(1));
        hvm.put_some("acpi_laptop_slate", platform.acpi_laptop_slate.then(|| truth(true)));
        for (name, on) in [
            ("pae", platform.pae),
            ("nx", platform.nx),
            ("acpi_s3", platform.acpi_s3),
            ("acpi_s4", platform.acpi_s4),
            ("hpet", platform.hpet),
            ("vpt_align", platform.vpt_align.unwrap_or(true)),
        ] {
            hvm.put_some(name, (!on).then(|| truth(false)));
        }
        let groups = platform.viridian.mask(plan.request.vgpu).and_then(crate::config::platform::viridian::groups_of);
        hvm.put_some("viridian_enable", groups);
        let hole = plan.layout.has_custom_hole().then(|| plan.layout.mmio_size.get() >> 10);
        hvm.put_some("mmio_hole_memkb", hole);
        let machine = &self.devices.machine;
        let card = if self.is_card_of_libxl() { machine.graphics } else { GraphicsCard::None };
        hvm.put("vga", json!({ "kind": card.as_str() }));
        hvm.put_some("hdtype", (machine.disks == DiskController::Ahci).then_some("ahci"));
        hvm.put_some("boot", (machine.boot != BootOrder::default()).then(|| machine.boot.to_string()));
        hvm.put_some("xen_platform_pci", (!machine.platform_device).then(|| truth(false)));
        let framebuffer = self.devices.framebuffer.as_ref();
        hvm.put("vnc", framebuffer.map_or_else(|| json!({ "enable": truth(false) }), libxl_devices::vnc));
        hvm.put_some("keymap", framebuffer.and_then(|framebuffer| framebuffer.keymap.as_deref()));
        hvm.put("vkb_device", truth(false));
        libxl_devices::put_emulated(&mut hvm, self.devices);
        if self.device_model.is_some() {
            match machine.serial.as_slice() {
                [] => {}
                [port] => hvm.put("serial", port.as_str()),
                ports => hvm.put("serial_list", ports.to_vec()),
            }
        }
        Ok(hvm)
    }

    /// Whether libxl gives QEMU this card: with less video RAM it refuses the card, which is then one of QEMU's own arguments.
    fn is_card_of_libxl(&self) -> bool {
        self.guest.plan.memory.video >= self.devices.machine.graphics.usual_video()
    }
}

/// The CPUs of a map, as a `libxl_bitmap`.
fn bits(map: &[u8]) -> Vec<usize> {
    (0..map.len() * 8).filter(|cpu| map[cpu / 8] >> (cpu % 8) & 1 == 1).collect()
}

fn cmdline(module: &Module) -> String {
    module.cmdline.to_string_lossy().into_owned()
}

/// An absolute path: xl runs elsewhere.
fn path(path: &Path) -> Result<String, Error> {
    let absolute = absolute(path).map_err(Error::io(format!("make {} an absolute path", path.display())))?;
    Ok(absolute.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
