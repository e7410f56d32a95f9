//! Converts a saved or incoming guest to a request, as [`super::from_flags`] does with flags.

use super::args::host::HostArgs;
use super::args::migration::RestoredGuestArgs;
use super::from_flags::{Create, FirmwareFiles};
use crate::config::autoballoon::Dom0Share;
use crate::config::cpu_pool::CpuPool;
use crate::config::devices::machine::Machine;
use crate::config::guest::{Claim, Guest};
use crate::config::placement::{Placement, PlacementPolicy};
use crate::devices::disk::{Server, server};
use crate::error::Error;
use crate::memory::{Kib, Kind};
use crate::migration::saved::Saved;
use crate::payload::boot_files::BootFiles;
use crate::payload::search::resolve_device_model;
use crate::qemu::config::{DeviceModelConfig, QemuRole};
use crate::qemu::confinement::{RunAs, UserChoice};
use crate::qemu::needs::Needs;
use crate::xen::ImageLimits;

/// The guest.
///
/// # Errors
/// Where its sizes make no guest, or its QEMU cannot run here.
pub(crate) fn create(arguments: &RestoredGuestArgs, saved: &Saved) -> Result<Create, Error> {
    let from = &saved.guest;
    let plan = saved.plan()?;
    let kind = plan.request.kind;
    from.platform.check(kind, plan.vcpus, false)?;
    let mut devices = from.devices.clone();
    devices.complete();
    devices.machine = from.qemu.machine.clone();
    let has_device_model = saved.has_qemu;
    if kind == Kind::Hvm && !has_device_model {
        // They are QEMU's.
        devices.framebuffer = None;
    }
    let serves = devices.need_backend() || devices.disks.iter().any(|disk| server(disk, kind) == Server::Qemu);
    let backend = kind != Kind::Hvm && serves;
    let device_model = if has_device_model { Some(qemu(arguments, saved, QemuRole::DeviceModel)?) } else { None };
    let backend = if backend { Some(qemu(arguments, saved, QemuRole::Backend)?) } else { None };
    let host = &arguments.host;
    let claim = if host.no_claim { Claim::Nothing { device_model: true } } else { Claim::Running };
    Ok(Create {
        name: from.name.clone(),
        uuid: from.uuid,
        guest: Guest {
            plan,
            boot_files: BootFiles::Saved { firmware: from.firmware, image: from.image.clone() },
            platform: from.platform.clone(),
            placement: placement(host)?,
            limits: ImageLimits::default(),
            devices: Vec::new(),
            wait_memory: host.wait_memory,
            claim,
            build_locks: !host.no_build_lock,
            dom0_share: Dom0Share { autoballoon: host.autoballoon, least: host.dom0_min },
        },
        devices,
        hotplug_timeout: arguments.hotplug_timeout,
        device_model,
        backend,
        quiet: false,
        paused: false,
        foreground: false,
        seclabel: from.seclabel.clone(),
        max_grant_frames: from.max_grant_frames,
        max_maptrack_frames: from.max_maptrack_frames,
        event_channels: from.event_channels,
        max_grant_version: None,
        vpmu: false,
        msr_relaxed: from.relaxed_msrs,
        cpupool: CpuPool::Number(from.cpupool),
        pirqs: saved.has_pirqs(),
        vmtrace: Kib::ZERO,
        driver_domain: false,
        firmware: FirmwareFiles::default(),
        bootloader: None,
    })
}

/// The guest's QEMU. It runs as the file says; dombuild's own guests say nothing where libxl has no word for their user.
fn qemu(arguments: &RestoredGuestArgs, saved: &Saved, role: QemuRole) -> Result<DeviceModelConfig, Error> {
    let from = &saved.guest.qemu;
    let vnc = saved.guest.devices.framebuffer.as_ref().map(|framebuffer| format!("-vnc {}", framebuffer.address()));
    let resolved = |path| {
        let found = resolve_device_model(path)?;
        found.ok_or_else(|| Error::BadConfig("the guest has a QEMU, and this host has none".to_owned()))
    };
    if role == QemuRole::Backend {
        return Ok(DeviceModelConfig {
            role,
            path: resolved(None)?,
            machine: Machine::default(),
            arguments: Vec::new(),
            timeout: arguments.dm_timeout,
            run_as: RunAs::Root,
            needs: Needs { network: vnc, programs: None },
            filter: true,
        });
    }
    let path = resolved(from.path.as_deref().filter(|path| path.exists()))?;
    let chosen = from.user.as_deref().map(|name| UserChoice::Name(name.to_owned()));
    let chosen = arguments.device_model_user.as_ref().or(chosen.as_ref());
    let root =
        arguments.device_model_root || (arguments.device_model_user.is_none() && !from.restricted && !saved.guest.ours);
    let run_as = RunAs::asked(chosen.filter(|_| !root), root, saved.guest.request.passthrough, &path)?;
    let mut needs = Needs::of(&from.arguments);
    needs.network = needs.network.or(vnc);
    if let RunAs::User(user) = &run_as
        && user.is_script()
    {
        needs.programs = Some(format!("the script {}", path.display()));
    }
    Ok(DeviceModelConfig {
        role,
        path,
        machine: from.machine.clone(),
        arguments: from.arguments.clone(),
        timeout: arguments.dm_timeout,
        run_as,
        needs,
        filter: true,
    })
}

/// libxenguest populates a saved guest and names no node: Xen takes those of the vCPUs' affinity.
fn placement(arguments: &HostArgs) -> Result<Placement, Error> {
    let nodes = arguments.nodes.clone().map(|list| list.0).unwrap_or_default();
    match arguments.placement.unwrap_or_default() {
        PlacementPolicy::Strict => Err(Error::BadConfig(
            "--placement strict is not for a saved guest: libxenguest names no node; --nodes says which nodes are preferred".to_owned(),
        )),
        PlacementPolicy::None if !nodes.is_empty() => {
            Err(Error::BadConfig("--nodes and --placement none exclude each other".to_owned()))
        }
        policy => Ok(Placement { policy, nodes }),
    }
}
