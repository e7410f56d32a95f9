//! Converts flags to a request, with every check that needs no Xen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::{boot_file_flags, device_flags, machine_flags};
use crate::builder::bootloader::{self, Bootloader};
use crate::cancel::Cancel;
use crate::cli::args::boot::BootArgs;
use crate::cli::args::devices::DeviceArgs;
use crate::cli::args::host::HostArgs;
use crate::cli::args::memory::MemoryArgs;
use crate::cli::args::qemu::Switch;
use crate::cli::args::{BuildArgs, CreateArgs, GuestArgs};
use crate::config::autoballoon::{Autoballoon, Dom0Share};
use crate::config::cpu_pool::CpuPool;
use crate::config::cpuid_policy;
use crate::config::devices::machine::Machine;
use crate::config::devices::pci::{self, PciDevice};
use crate::config::devices::set::Devices;
use crate::config::error::ConfigError;
use crate::config::guest::{Claim, Guest};
use crate::config::name::DomainName;
use crate::config::placement::{Placement, PlacementPolicy};
use crate::config::platform::Platform;
use crate::devices::disk::{Server, server};
use crate::devices::pci::{agree, needed_hole};
use crate::devices::plan::GuestQemu;
use crate::error::Error;
use crate::memory::{Kib, Kind, Plan, Request};
use crate::payload::kernel::Keep;
use crate::payload::search::resolve_device_model;
use crate::qemu::command_line::is_option;
use crate::qemu::config::{DeviceModelConfig, QemuRole};
use crate::qemu::confinement::RunAs;
use crate::qemu::needs::Needs;
use crate::xen::{DomId, EventPort, ImageLimits, PciAddress};

/// `create`, ready to be carried out.
#[derive(Debug)]
pub struct Create {
    /// The guest's name.
    pub name: DomainName,
    /// Its UUID.
    pub uuid: Uuid,
    /// What goes into it.
    pub guest: Guest,
    /// Its devices, complete.
    pub devices: Devices,
    /// How long the hotplug script of a device may take.
    pub hotplug_timeout: Duration,
    /// QEMU, where it is to have one.
    pub device_model: Option<DeviceModelConfig>,
    /// The QEMU that serves devices of a PVH or PV guest, if there are such devices.
    pub backend: Option<DeviceModelConfig>,
    /// Its start is not reported.
    pub quiet: bool,
    /// It stays paused.
    pub paused: bool,
    /// The run lasts as long as the guest.
    pub foreground: bool,
    /// Its FLASK label.
    pub seclabel: Option<String>,
    /// Grant table frames.
    pub max_grant_frames: Option<i32>,
    /// Maptrack frames.
    pub max_maptrack_frames: Option<i32>,
    /// Highest event channel port.
    pub event_channels: u32,
    /// The highest version of its grant table; `None` is Xen's.
    pub max_grant_version: Option<u32>,
    /// It has performance counters.
    pub vpmu: bool,
    /// Unknown MSRs read as 0.
    pub msr_relaxed: bool,
    /// CPU pool.
    pub cpupool: CpuPool,
    /// Its drivers may route emulated interrupts over event channels.
    pub pirqs: bool,
    /// The buffer of each vCPU's processor trace; 0 for none.
    pub vmtrace: Kib,
    /// It may serve devices to others.
    pub driver_domain: bool,
    /// The files of its firmware that were chosen.
    pub firmware: FirmwareFiles,
    /// The boot loader that found its kernel.
    pub bootloader: Option<Bootloader>,
}

/// The paths of an HVM guest's firmware, as far as they were chosen.
#[derive(Debug, Default)]
pub struct FirmwareFiles {
    /// hvmloader.
    pub hvmloader: Option<PathBuf>,
    /// SeaBIOS or OVMF.
    pub system: Option<PathBuf>,
    /// SMBIOS structures.
    pub smbios: Option<PathBuf>,
    /// ACPI tables.
    pub acpi: Option<PathBuf>,
}

impl Create {
    /// What the guest's QEMU can do for its devices.
    pub(crate) fn guest_qemu(&self) -> GuestQemu {
        match (&self.device_model, &self.backend) {
            (Some(DeviceModelConfig { run_as: RunAs::User(_), .. }), _) => GuestQemu::Confined,
            (Some(_), _) | (None, Some(_)) => GuestQemu::Serves,
            (None, None) => GuestQemu::Absent,
        }
    }
}

/// `build`, ready to be carried out.
#[derive(Debug)]
pub struct Build {
    /// The given domain.
    pub domid: DomId,
    /// What goes into it.
    pub guest: Guest,
    /// Store and console port, where the caller has them already.
    pub ports: Option<(EventPort, EventPort)>,
}

/// The plan of these flags; `device_model` is true if QEMU will add its video RAM.
///
/// # Errors
/// Where the numbers make no guest.
pub(crate) fn plan(arguments: &MemoryArgs, device_model: bool) -> Result<Plan, Error> {
    let bytes = |hole: Kib| {
        let beyond = || Error::BadConfig(format!("--mmio-hole of {} KiB is beyond any address", hole.get()));
        hole.to_bytes().ok_or_else(beyond)
    };
    let chosen = arguments.devices.mmio_hole.map(bytes).transpose()?;
    let pci = pci_devices(&arguments.devices)?;
    pci::check(&pci, arguments.kind).map_err(ConfigError::from)?;
    let addresses: Vec<PciAddress> = pci.iter().map(|device| device.address).collect();
    // The memory of a PV guest has no hole.
    let needed = needed_hole(
        if arguments.kind == Kind::Hvm { &addresses } else { &[] },
        arguments.devices.vgpu && arguments.kind == Kind::Hvm,
        &arguments.devices.sysfs,
    )?;
    let mmio_hole = agree(chosen, needed)?;
    if arguments.shadow_memory.is_some() && arguments.kind == Kind::Pv {
        return Err(Error::BadConfig(
            "--shadow-memory is for --kind hvm and pvh; a pv guest has no paging pool".to_owned(),
        ));
    }
    let plan = Plan::new(&Request {
        kind: arguments.kind,
        model: arguments.model,
        target: arguments.memory,
        static_max: arguments.maxmem,
        video: arguments.video,
        extra_internal: arguments.extra_internal,
        vcpus: arguments.vcpus,
        shadow_multiplier: arguments.shadow_multiplier,
        shadow_memory: arguments.shadow_memory,
        mmio_hole,
        device_model,
        passthrough: arguments.devices.passthrough || !arguments.devices.pci.is_empty(),
        shim: arguments.shim,
        reserved: Vec::new(),
        vgpu: arguments.devices.vgpu,
        vnodes: arguments.vnode.iter().map(|node| node.0.clone()).collect(),
    })?;
    log::debug!("plan {}", serde_json::to_string(&plan).unwrap_or_default());
    Ok(plan)
}

/// The PCI devices of `--pci`.
fn pci_devices(arguments: &DeviceArgs) -> Result<Vec<PciDevice>, Error> {
    Ok(pci::devices(&arguments.pci).map_err(ConfigError::from)?)
}

/// Checks the flags of a guest, without a look at its files, and returns its platform.
fn check(arguments: &GuestArgs, bootloader: bool, plan: &Plan) -> Result<Platform, Error> {
    let mut platform = Platform::asked(&arguments.platform.platform)?;
    for text in &arguments.platform.cpuid {
        cpuid_policy::add(&mut platform.cpuid, text).map_err(|error| {
            let column = text.get(..error.span.start).unwrap_or(text).chars().count() + 1;
            Error::BadConfig(format!("--cpuid {text:?}, column {column}: {error}"))
        })?;
    }
    platform.altp2m = arguments.platform.altp2m;
    platform.bios_strings.clone_from(&arguments.boot.bios_string);
    platform.check(plan.request.kind, plan.vcpus, plan.pod.is_some())?;
    if platform.nested && plan.request.kind == Kind::Pv {
        return Err(Error::BadConfig("--platform nested-virt is for --kind hvm and pvh".to_owned()));
    }
    boot_file_flags::check(&arguments.boot, bootloader, plan.request.kind, plan.request.shim)?;
    Ok(platform)
}

/// The placement of these flags. Who gives a domain to be built decides where it is.
fn placement(arguments: &HostArgs, claim: Claim, plan: &Plan) -> Result<Placement, Error> {
    let usual =
        if claim == Claim::Built && arguments.nodes.is_none() { PlacementPolicy::None } else { PlacementPolicy::Auto };
    let policy = arguments.placement.unwrap_or(usual);
    let nodes = arguments.nodes.clone().map(|list| list.0).unwrap_or_default();
    let bad = |text: &str| Err(Error::BadConfig(text.to_owned()));
    match policy {
        PlacementPolicy::None if !nodes.is_empty() => bad("--nodes and --placement none exclude each other"),
        _ if plan.vnuma.is_some() && !nodes.is_empty() => {
            bad("--nodes and --vnode exclude each other; each --vnode names its node")
        }
        PlacementPolicy::Strict if plan.pod.is_some() => bad(
            "--placement strict is not for a guest that is populated on demand: Xen names no node when it fills the cache; give --memory and --maxmem one size, or leave it out",
        ),
        policy => Ok(Placement { policy, nodes }),
    }
}

fn guest(arguments: &GuestArgs, plan: Plan, platform: Platform, claim: Claim, keep: Keep) -> Result<Guest, Error> {
    // Whoever gives a domain to be built decides over the host's memory.
    let autoballoon = match (arguments.host.autoballoon, claim) {
        (Autoballoon::Auto, Claim::Built) => Autoballoon::Off,
        (chosen, _) => chosen,
    };
    let placement = placement(&arguments.host, claim, &plan)?;
    Ok(Guest {
        placement,
        boot_files: boot_file_flags::read(&arguments.boot, &arguments.memory.devices.sysfs, &plan, keep)?,
        devices: pci_devices(&arguments.memory.devices)?.iter().map(|device| device.address).collect(),
        plan,
        platform,
        limits: ImageLimits::default(),
        wait_memory: arguments.host.wait_memory,
        claim: if arguments.host.no_claim { Claim::Nothing { device_model: claim == Claim::Running } } else { claim },
        build_locks: !arguments.host.no_build_lock,
        dom0_share: Dom0Share { autoballoon, least: arguments.host.dom0_min },
    })
}

/// Whether the guest has a QEMU: an HVM guest has one by default, the others have none.
fn has_device_model(arguments: &CreateArgs) -> Result<bool, Error> {
    let (kind, chosen) = (arguments.guest.memory.kind, arguments.qemu.device_model.as_deref());
    let none = chosen == Some(Path::new("none"));
    match kind {
        Kind::Hvm => Ok(!none),
        Kind::Pvh | Kind::Pv if chosen.is_some() && !none => {
            Err(Error::BadConfig(format!("--device-model is for --kind hvm; a {kind} guest has none")))
        }
        Kind::Pvh | Kind::Pv => Ok(false),
    }
}

/// QEMU's options that set its guest and its user, which dombuild sets itself.
const OURS: [&str; 5] = ["xen-domid", "xen-domid-restrict", "chroot", "runas", "run-with"];

/// QEMU, and the user that runs it.
fn qemu(
    arguments: &CreateArgs,
    guest_devices: &Devices,
    online_vcpus: Option<u32>,
    path: PathBuf,
) -> Result<DeviceModelConfig, Error> {
    let DeviceArgs { passthrough, vgpu, ref pci, .. } = arguments.guest.memory.devices;
    let devices = passthrough || vgpu || !pci.is_empty();
    let run_as =
        RunAs::asked(arguments.qemu.device_model_user.as_ref(), arguments.qemu.device_model_root, devices, &path)?;
    let words: Vec<_> = machine_flags::as_arguments(&guest_devices.machine).collect();
    let mut needs = Needs::of(&[words.as_slice(), &arguments.qemu.dm_arg].concat());
    needs.network = needs.network.or_else(|| vnc_network(guest_devices));
    if let RunAs::User(user) = &run_as {
        if user.is_script() {
            needs.programs = Some(format!("the script {}", path.display()));
        }
        log::info!("QEMU is confined: {needs}");
    }
    Ok(DeviceModelConfig {
        role: QemuRole::DeviceModel,
        path,
        machine: Machine { online_vcpus, ..guest_devices.machine.clone() },
        arguments: arguments.qemu.dm_arg.clone(),
        timeout: arguments.qemu.dm_timeout,
        run_as,
        needs,
        filter: arguments.qemu.device_model_filter == Switch::On,
    })
}

/// What needs dom0's network: the port of VNC.
fn vnc_network(devices: &Devices) -> Option<String> {
    devices.framebuffer.as_ref().map(|framebuffer| format!("-vnc {}", framebuffer.address()))
}

/// The QEMU that serves devices of a PVH or PV guest. It needs Xen's and xenstore's rights, and so runs as root.
fn backend(arguments: &CreateArgs, devices: &Devices, kind: Kind) -> Result<Option<DeviceModelConfig>, Error> {
    let serves = devices.need_backend() || devices.disks.iter().any(|disk| server(disk, kind) == Server::Qemu);
    if kind == Kind::Hvm || !serves {
        return Ok(None);
    }
    let path = resolve_device_model(None)?;
    Ok(path.map(|path| DeviceModelConfig {
        role: QemuRole::Backend,
        path,
        machine: Machine::default(),
        arguments: Vec::new(),
        timeout: arguments.qemu.dm_timeout,
        run_as: RunAs::Root,
        needs: Needs { network: vnc_network(devices), programs: None },
        filter: true,
    }))
}

/// Checks the flags of `create` and reads the files. `cancel` ends a boot loader; without it, signals are handled while one runs.
///
/// # Errors
/// Where a setting or a file is not usable.
pub(crate) fn create(arguments: &CreateArgs, cancel: Option<&Cancel>) -> Result<Create, Error> {
    let none = arguments.qemu.device_model.as_deref() == Some(Path::new("none"));
    let mut guest_arguments = arguments.guest.clone();
    machine_flags::complete_video(&mut guest_arguments.memory, &arguments.devices);
    let plan = plan(&guest_arguments.memory, !none)?;
    let has_device_model = has_device_model(arguments)?;
    let bootloader = bootloader(arguments);
    let (kind, video) = (plan.request.kind, plan.memory.video);
    let boot = &mut guest_arguments.boot;
    let machine = machine_flags::read(&arguments.devices, boot, &arguments.qemu, video, kind, has_device_model)?;
    let platform = check(&guest_arguments, bootloader.is_some(), &plan)?;
    let pci = pci_devices(&guest_arguments.memory.devices)?;
    let devices = Devices { machine, pci, ..device_flags::read(&arguments.devices, kind)? };
    if !has_device_model && !arguments.qemu.dm_arg.is_empty() {
        return Err(Error::BadConfig("--dm-arg makes no sense without a device model".to_owned()));
    }
    let root_or_user = arguments.qemu.device_model_root || arguments.qemu.device_model_user.is_some();
    if !has_device_model && (root_or_user || arguments.qemu.device_model_filter == Switch::Off) {
        return Err(Error::BadConfig(
            "--device-model-user, --device-model-root and --device-model-filter make no sense without a device model"
                .to_owned(),
        ));
    }
    if let Some(own) = OURS.iter().find(|own| arguments.qemu.dm_arg.iter().any(|argument| is_option(argument, own))) {
        return Err(Error::BadConfig(format!(
            "dombuild itself sets QEMU's -{own}: leave it out of --dm-arg; --device-model-user and --device-model-root choose QEMU's user"
        )));
    }
    if arguments.qemu.dm_arg.iter().any(|argument| is_option(argument, "daemonize")) {
        return Err(Error::BadConfig(
            "--dm-arg -daemonize would hide QEMU from dombuild; QEMU stays without it as well".to_owned(),
        ));
    }
    let name = arguments
        .name
        .parse()
        .map_err(|reason| Error::BadConfig(format!("--name {:?} cannot be: {reason}", arguments.name)))?;
    let odd = |label: &str| label.len() > 1024 || !label.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(label) = arguments.domain.seclabel.as_deref().filter(|label| odd(label)) {
        return Err(Error::BadConfig(format!(
            "--seclabel {label:?} is no label: user:role:type in at most 1024 printable ASCII characters"
        )));
    }
    if arguments.domain.uuid.is_some_and(|uuid| uuid.is_nil()) {
        return Err(Error::BadConfig("the nil UUID belongs to dom0; give another, or none".to_owned()));
    }
    if arguments.domain.hvm_pirq && kind != Kind::Hvm {
        return Err(Error::BadConfig(format!(
            "--hvm-pirq is for --kind hvm; a {kind} guest has no emulated interrupts"
        )));
    }
    if arguments.domain.event_channels < 16 {
        return Err(Error::BadConfig(format!(
            "--event-channels {} is too few for a guest to start; give at least 16",
            arguments.domain.event_channels
        )));
    }
    // All flags are checked: from here on it is files.
    let device_model =
        if has_device_model { resolve_device_model(arguments.qemu.device_model.as_deref())? } else { None };
    let backend = backend(arguments, &devices, plan.request.kind)?;
    let keep = if arguments.dry_run { Keep::No } else { Keep::Yes };
    let guest = match &bootloader {
        Some(bootloader) => booted_guest(arguments, cancel, bootloader, &devices, plan, platform, keep)?,
        None => guest(&guest_arguments, plan, platform, Claim::Running, keep)?,
    };
    let online_vcpus = guest.platform.online_vcpus;
    Ok(Create {
        name,
        uuid: arguments.domain.uuid.unwrap_or_else(Uuid::new_v4),
        guest,
        bootloader,
        device_model: device_model.map(|path| qemu(arguments, &devices, online_vcpus, path)).transpose()?,
        devices,
        hotplug_timeout: arguments.devices.hotplug_timeout,
        backend,
        quiet: arguments.quiet,
        paused: arguments.paused,
        foreground: arguments.foreground,
        seclabel: arguments.domain.seclabel.clone(),
        max_grant_frames: arguments.domain.max_grant_frames,
        max_maptrack_frames: arguments.domain.max_maptrack_frames,
        event_channels: arguments.domain.event_channels,
        max_grant_version: arguments.domain.max_grant_version,
        vpmu: arguments.domain.vpmu,
        msr_relaxed: arguments.domain.msr_relaxed,
        cpupool: arguments.domain.cpupool.clone(),
        pirqs: arguments.domain.hvm_pirq,
        vmtrace: arguments.domain.vmtrace.unwrap_or_default(),
        driver_domain: arguments.domain.driver_domain,
        firmware: firmware(&arguments.guest.boot),
    })
}

fn bootloader(arguments: &CreateArgs) -> Option<Bootloader> {
    let (flags, boot) = (&arguments.bootloader, &arguments.guest.boot);
    Some(Bootloader {
        name: flags.bootloader.clone()?,
        arguments: flags.bootloader_arg.clone(),
        timeout: flags.bootloader_timeout,
        unconfined: flags.bootloader_unconfined,
        kernel: boot.kernel.clone(),
        ramdisk: boot.ramdisk.clone(),
        cmdline: boot.cmdline.clone(),
    })
}

/// A guest whose kernel a boot loader finds. What it finds is read before it is removed.
fn booted_guest(
    arguments: &CreateArgs,
    cancel: Option<&Cancel>,
    bootloader: &Bootloader,
    devices: &Devices,
    plan: Plan,
    platform: Platform,
    keep: Keep,
) -> Result<Guest, Error> {
    let cancel = cancel.map_or_else(Cancel::install, |cancel| Ok(cancel.clone()))?;
    let files = bootloader::run(bootloader, &devices.disks, &cancel)?;
    let mut found = arguments.guest.clone();
    found.boot.kernel = Some(files.kernel.clone());
    found.boot.ramdisk = files.ramdisk.clone();
    found.boot.cmdline = files.cmdline.clone();
    boot_file_flags::check(&found.boot, true, plan.request.kind, plan.request.shim)?;
    let guest = guest(&found, plan, platform, Claim::Running, keep)?;
    // No later wait of this run would see a signal that came until now.
    cancel.check()?;
    Ok(guest)
}

fn firmware(arguments: &BootArgs) -> FirmwareFiles {
    FirmwareFiles {
        hvmloader: arguments.hvmloader.clone(),
        system: arguments.firmware.as_ref().and_then(|firmware| firmware.path.clone()),
        smbios: arguments.smbios.clone(),
        acpi: arguments.acpi.clone(),
    }
}

/// Checks the flags of `build` and reads the files.
///
/// # Errors
/// Where a setting or a file is not usable.
pub(crate) fn build(arguments: &BuildArgs) -> Result<Build, Error> {
    let domid = DomId::new(arguments.domid)
        .ok_or_else(|| Error::BadConfig(format!("--domid {} is no guest's number", arguments.domid)))?;
    let ports = arguments.store_port.zip(arguments.console_port);
    if ports.is_some_and(|(store, console)| store == console) {
        return Err(Error::BadConfig("--store-port and --console-port must differ".to_owned()));
    }
    let plan = plan(&arguments.guest.memory, true)?;
    let platform = check(&arguments.guest, false, &plan)?;
    Ok(Build {
        domid,
        guest: guest(&arguments.guest, plan, platform, Claim::Built, Keep::Yes)?,
        ports: ports.map(|(store, console)| (EventPort(store), EventPort(console))),
    })
}
