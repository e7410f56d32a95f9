//! The configuration in a saved guest's file: `libxl_domain_config` as JSON (tools/libs/light/libxl_types.idl, Xen 4.17 and
//! 4.20), read for a guest whose state is there.
//!
//! Three kinds of fields: those that the domain, its QEMU or its keys need; those whose effect is in the state already or that
//! concern other things than the guest (named in lists here); and everything else, which is refused by name.

use serde_json::Value;
use uuid::Uuid;

use super::saved_fields::{Fields, bits};
use super::saved_qemu::SavedQemu;
use super::{saved_devices, saved_qemu};
use crate::config::devices::set::Devices;
use crate::config::name::DomainName;
use crate::config::platform::Platform;
use crate::domain::saved_request::{self, RESTORED_NODE};
use crate::error::migration::FileProblem;
use crate::memory::units::KIB_PER_MIB;
use crate::memory::{Kib, Kind, Model, Request};
use crate::payload::firmware::FirmwareKind;

/// libxl's default for the highest event channel port.
const EVENT_CHANNELS: u32 = 1023;

/// libxl's value of a size or a number that was not chosen.
const NOT_CHOSEN: u64 = u64::MAX;
const NOT_CHOSEN_32: u64 = u32::MAX as u64;

/// Nodes in xenstore, with their values.
type Nodes = Vec<(String, String)>;

/// A saved guest, as its configuration describes it.
#[derive(Debug)]
pub struct SavedGuest {
    /// Its name.
    pub name: DomainName,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its memory. Whether it has a QEMU is not in the configuration, but in the state.
    pub request: Request,
    /// Its paging pool, if it was chosen.
    pub paging_pool: Option<Kib>,
    /// Its platform, as far as it is not in the state.
    pub platform: Platform,
    /// The firmware of an HVM guest.
    pub firmware: Option<FirmwareKind>,
    /// What xenstore has of a PV guest's files.
    pub image: Vec<(&'static str, String)>,
    /// Its devices.
    pub devices: Devices,
    /// Its QEMU, if it has one.
    pub qemu: SavedQemu,
    /// Its CPU pool.
    pub cpupool: u32,
    /// Its FLASK label.
    pub seclabel: Option<String>,
    /// Its grant table frames, if they were chosen.
    pub max_grant_frames: Option<i32>,
    /// Its maptrack frames, if they were chosen.
    pub max_maptrack_frames: Option<i32>,
    /// Its highest event channel port.
    pub event_channels: u32,
    /// Registers of the CPU that Xen does not know do not fault.
    pub relaxed_msrs: bool,
    /// Whether an HVM guest's drivers may route emulated interrupts over event channels, if the file says so.
    pub pirqs: Option<bool>,
    /// Nodes below the domain's directory that it was created with.
    pub keys: Nodes,
    /// dombuild created it.
    pub ours: bool,
}

impl SavedGuest {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`FileProblem::Unknown`] and [`FileProblem::Device`] for what dombuild cannot give the guest; [`FileProblem::Missing`].
    pub fn read(configuration: &Value) -> Result<Self, FileProblem> {
        let mut all = Fields::of("", Some(configuration.clone()))?;
        let (mut create, mut build) = (all.object("c_info")?, all.object("b_info")?);
        let kind = match create.text("type")?.as_deref() {
            Some("hvm") => Kind::Hvm,
            Some("pvh") => Kind::Pvh,
            Some("pv") => Kind::Pv,
            _ => return Err(create.missing("type")),
        };
        let name = create.text("name")?.and_then(|name| name.parse().ok()).ok_or_else(|| create.missing("name"))?;
        let uuid = create.text("uuid")?.and_then(|uuid| Uuid::parse_str(&uuid).ok()).filter(|uuid| !uuid.is_nil());
        let uuid = uuid.ok_or_else(|| create.missing("uuid"))?;
        let (keys, recorded) = keys(&mut create)?;
        let mut devices = saved_devices::read(&mut all)?;
        let mut hvm = build.object("type.hvm")?;
        let mut memory = Memory::read(&mut build, &mut hvm, kind)?;
        let platform = platform(&mut build, &mut hvm, memory.vcpus)?;
        let qemu = saved_qemu::read(&mut build, &mut hvm, kind, &mut devices, &mut memory.video)?;
        let passthrough = passthrough(&mut create)?;
        let guest = Self {
            name,
            uuid,
            relaxed_msrs: relaxed_msrs(&mut build)?.unwrap_or(recorded.is_none()),
            pirqs: hvm.truth("pirq")?,
            ours: recorded.is_some(),
            request: memory.request(kind, recorded, passthrough),
            paging_pool: memory.paging_pool,
            platform,
            firmware: if kind == Kind::Hvm { Some(firmware(&mut hvm)?) } else { None },
            image: image(&mut build, kind)?,
            devices,
            qemu,
            cpupool: create.small("poolid")?.unwrap_or(0),
            seclabel: create.text("ssid_label")?,
            max_grant_frames: chosen(&mut build, "max_grant_frames")?,
            max_maptrack_frames: chosen(&mut build, "max_maptrack_frames")?,
            event_channels: build.small("event_channels")?.filter(|most| *most > 0).unwrap_or(EVENT_CHANNELS),
            keys,
        };
        end(all, create, build, hvm, kind)?;
        Ok(guest)
    }
}

/// What a domain and its QEMU were given beyond this list is refused; this is what a guest is not, whose state is there.
fn end(mut all: Fields, mut create: Fields, mut build: Fields, mut hvm: Fields, kind: Kind) -> Result<(), FileProblem> {
    // What xl does when the guest stops: it stays in the configuration.
    all.pass(&["on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset"]);
    // The domain gets another number; the others are about shadow paging, names of what has a number, and libxl itself.
    create.pass(&["domid", "oos", "pool_name", "run_hotplug_scripts", "xend_suspend_evtchn_compat"]);
    create.one_of("hap", &["True", "<default>"])?;
    create.end()?;
    // In the state: CPUID, TSC. Of the host: the placement of memory, which is chosen anew. Of libxl: the rest.
    build.pass(&["cpuid", "cpuid_policy", "msr", "tsc_mode", "cpumap", "nodemap", "numa_placement", "claim_mode"]);
    build.pass(&["iommu_memkb", "blkdev_start", "max_grant_version", "disable_migrate", "arch_arm", "apic"]);
    build.pass(&["bootloader", "bootloader_args", "bootloader_restrict", "bootloader_user"]);
    build.pass(&["stubdomain_memkb", "stubdomain_kernel", "stubdomain_cmdline", "stubdomain_ramdisk"]);
    build.one_of("tee", &["none"])?;
    build.one_of("altp2m", &["disabled"])?;
    let mut of_kind = match kind {
        // In memory: hvmloader with its tables. In the state: the enlightenments, and what QEMU had.
        Kind::Hvm => {
            hvm.pass(&[
                "firmware",
                "system_firmware",
                "smbios_firmware",
                "acpi_firmware",
                "smbios",
                "acpi_laptop_slate",
            ]);
            hvm.pass(&["pae", "nx", "apic", "viridian", "viridian_enable", "viridian_disable", "mca_caps"]);
            hvm.pass(&["nographic", "rdm_mem_boundary_memkb", "spice"]);
            hvm.one_of("vendor_device", &["none"])?;
            hvm.one_of("gfx_passthru_kind", &["default"])?;
            let mut reserved = hvm.object("rdm")?;
            reserved.one_of("strategy", &["ignore"])?;
            reserved.one_of("policy", &["relaxed", "strict", "invalid"])?;
            reserved.end()?;
            hvm
        }
        Kind::Pvh => build.object("type.pvh")?,
        Kind::Pv => build.object("type.pv")?,
    };
    of_kind.pass(&["pvshim", "pvshim_path", "pvshim_cmdline", "pvshim_extra", "slack_memkb", "features"]);
    of_kind.end()?;
    build.end()?;
    all.end()
}

/// The nodes below the domain's directory, without the one in which dombuild keeps the request, and that request.
fn keys(create: &mut Fields) -> Result<(Nodes, Option<Request>), FileProblem> {
    let (mut keys, mut recorded) = (Vec::new(), None);
    for (list, directory) in [("xsdata", ""), ("platformdata", "platform/")] {
        let Some(value) = create.take(list) else { continue };
        let fields = value.as_object().ok_or_else(|| create.unknown(list, &value))?;
        for (name, text) in fields {
            let node = |byte: u8| byte.is_ascii_alphanumeric() || b"-_@/.:".contains(&byte);
            let good = name.bytes().all(node) && name.split('/').all(|part| !part.is_empty() && part != "..");
            let text = text.as_str().filter(|_| good).ok_or_else(|| create.unknown(&format!("{list}.{name}"), text))?;
            if directory.is_empty() && name == RESTORED_NODE {
                recorded = saved_request::of_text(text);
            } else {
                keys.push((format!("{directory}{name}"), text.to_owned()));
            }
        }
    }
    Ok((keys, recorded))
}

fn passthrough(create: &mut Fields) -> Result<bool, FileProblem> {
    match create.text("passthrough")?.as_deref() {
        None | Some("default" | "disabled" | "unknown") => Ok(false),
        Some("enabled" | "sync_pt" | "share_pt") => Ok(true),
        Some(other) => Err(create.unknown("passthrough", &other.into())),
    }
}

/// Whether registers that Xen does not know do not fault. libxl lets them not fault where a file says nothing, as in Xen 4.14
/// (`libxl_domain_create_restore`); dombuild's guests never have that.
fn relaxed_msrs(build: &mut Fields) -> Result<Option<bool>, FileProblem> {
    let mut x86 = build.object("arch_x86")?;
    let relaxed = x86.truth("msr_relaxed")?;
    x86.end()?;
    Ok(relaxed)
}

fn chosen(build: &mut Fields, name: &str) -> Result<Option<i32>, FileProblem> {
    let number = build.number(name)?.filter(|number| *number != NOT_CHOSEN_32);
    number.map(|number| i32::try_from(number).map_err(|_| build.unknown(name, &number.into()))).transpose()
}

fn firmware(hvm: &mut Fields) -> Result<FirmwareKind, FileProblem> {
    match hvm.text("bios")?.as_deref() {
        None | Some("seabios") => Ok(FirmwareKind::SeaBios),
        Some("ovmf") => Ok(FirmwareKind::Ovmf),
        Some(other) => Err(hvm.unknown("bios", &other.into())),
    }
}

/// What xenstore has of a PV guest's files. Other kinds have none, and their kernel is in their memory.
fn image(build: &mut Fields, kind: Kind) -> Result<Vec<(&'static str, String)>, FileProblem> {
    let mut image = Vec::new();
    for name in ["kernel", "ramdisk", "cmdline"] {
        if let Some(text) = build.text(name)?.filter(|text| !text.is_empty()) {
            if kind == Kind::Hvm {
                // QEMU starts it, and has parts of it in its own state.
                return Err(build.unknown(name, &text.into()));
            }
            image.push((name, text));
        }
    }
    if kind != Kind::Pv {
        return Ok(Vec::new());
    }
    image.push(("ostype", "linux".to_owned()));
    Ok(image)
}

/// The sizes in a configuration.
struct Memory {
    target: Kib,
    most: Kib,
    video: Option<Kib>,
    paging_pool: Option<Kib>,
    mmio_hole: Option<Kib>,
    shim: bool,
    vcpus: u32,
}

impl Memory {
    fn read(build: &mut Fields, hvm: &mut Fields, kind: Kind) -> Result<Self, FileProblem> {
        let size = |fields: &mut Fields, name: &str| {
            Ok::<_, FileProblem>(fields.number(name)?.filter(|kib| *kib != NOT_CHOSEN).map(Kib))
        };
        let most = size(build, "max_memkb")?.ok_or_else(|| build.missing("max_memkb"))?;
        let target = size(build, "target_memkb")?.unwrap_or(most);
        let video = size(build, "video_memkb")?;
        let mut pvh = build.object("type.pvh")?;
        let shim = pvh.truth("pvshim")?.unwrap_or(false);
        pvh.pass(&["pvshim_path", "pvshim_cmdline", "pvshim_extra"]);
        pvh.end()?;
        Ok(Self {
            target: target.min(most),
            most,
            video: video.filter(|_| kind == Kind::Hvm),
            paging_pool: size(build, "shadow_memkb")?.filter(|pool| kind != Kind::Pv && !pool.is_zero()),
            mmio_hole: size(hvm, "mmio_hole_memkb")?.filter(|hole| !hole.is_zero()),
            shim,
            vcpus: build.small("max_vcpus")?.filter(|vcpus| *vcpus > 0).unwrap_or(1),
        })
    }

    /// The request: the recorded one with the present sizes, or one of libxl's figures.
    fn request(&self, kind: Kind, recorded: Option<Request>, passthrough: bool) -> Request {
        let plain = Request { kind, model: Model::Libxl, shim: self.shim, ..Request::new(self.target) };
        let base = recorded.filter(|request| request.kind == kind).unwrap_or(plain);
        // A PV guest has whole MiB.
        let mib = |size: Kib| if kind == Kind::Pv { size.round_up(Kib(KIB_PER_MIB)).unwrap_or(size) } else { size };
        Request {
            target: mib(self.target),
            static_max: Some(mib(self.most)),
            video: self.video,
            vcpus: self.vcpus,
            mmio_hole: self.mmio_hole.and_then(Kib::to_bytes),
            passthrough,
            ..base
        }
    }
}

/// The settings of the platform that are not in the state.
fn platform(build: &mut Fields, hvm: &mut Fields, vcpus: u32) -> Result<Platform, FileProblem> {
    let mut settings = Vec::new();
    let online = build.bits("avail_vcpus")?;
    if !online.is_empty() {
        let count = u32::try_from(online.len()).unwrap_or(u32::MAX);
        if !(0..count).eq(online.iter().copied()) {
            return Err(build.unknown("avail_vcpus", &online.into()));
        }
        settings.push(format!("vcpu/current={count}"));
    }
    let hard = build.list("vcpu_hard_affinity")?;
    let soft = build.list("vcpu_soft_affinity")?;
    let hard = hard.iter().enumerate().map(|(vcpu, map)| (vcpu, map, "affinity"));
    let soft = soft.iter().enumerate().map(|(vcpu, map)| (vcpu, map, "soft-affinity"));
    for (vcpu, map, setting) in hard.chain(soft) {
        let cpus = bits(map).ok_or_else(|| build.unknown("vcpu_hard_affinity", map))?;
        let last = cpus.iter().max().copied().unwrap_or(0).min(1 << 14);
        let digits: String = (0..=last).map(|cpu| if cpus.contains(&cpu) { '1' } else { '0' }).collect();
        if !cpus.is_empty() && u32::try_from(vcpu).is_ok_and(|vcpu| vcpu < vcpus) {
            settings.push(format!("vcpu/{vcpu}/{setting}={digits}"));
        }
    }
    let mut share = build.object("sched_params")?;
    for name in ["weight", "cap"] {
        if let Some(value) = share.number(name)? {
            settings.push(format!("vcpu/{name}={value}"));
        }
    }
    share.pass(&["sched"]);
    share.end()?;
    let offset = build.small::<u32>("rtc_timeoffset")?.unwrap_or(0).cast_signed();
    settings.push(format!("timeoffset={offset}"));
    for (name, setting) in
        [("hpet", "hpet"), ("vpt_align", "vpt-align"), ("acpi_s3", "acpi_s3"), ("acpi_s4", "acpi_s4")]
    {
        if hvm.truth(name)? == Some(false) {
            settings.push(format!("{setting}=0"));
        }
    }
    const TIMER_MODES: [&str; 4] =
        ["delay_for_missed_ticks", "no_delay_for_missed_ticks", "no_missed_ticks_pending", "one_missed_tick_pending"];
    for fields in [&mut *hvm, &mut *build] {
        let Some(word) = fields.text("timer_mode")?.filter(|word| word != "unknown") else { continue };
        let mode = TIMER_MODES.iter().position(|known| *known == word);
        let mode = mode.ok_or_else(|| fields.unknown("timer_mode", &word.into()))?;
        settings.push(format!("timer_mode={mode}"));
    }
    // QEMU has ACPI's devices, as dombuild starts it; libxl starts it without them where the guest has no ACPI.
    for fields in [build, hvm] {
        if fields.truth("acpi")? == Some(false) {
            return Err(fields.unknown("acpi", &false.into()));
        }
    }
    let platform = Platform::asked(&settings).map_err(|error| FileProblem::Missing(error.to_string()))?;
    Ok(Platform { viridian: crate::config::platform::Viridian::default(), ..platform })
}

#[cfg(test)]
mod tests;
