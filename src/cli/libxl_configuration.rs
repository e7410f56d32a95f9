//! The configuration of a guest of `create` in libxl's format.

use serde_json::Value;

use super::create_request::pool_number;
use super::from_flags::Create;
use crate::context::Context;
use crate::domain::libxl_json::{FirmwarePaths, LibxlBootloader, LibxlConfig, LibxlDeviceModel, LibxlUser};
use crate::error::Error;
use crate::qemu::config::DeviceModelConfig;
use crate::qemu::confinement::RunAs;

/// The configuration. Xen is asked for the CPUs of the pool if a vCPU has an affinity.
///
/// # Errors
/// An error of Xen; those of [`LibxlConfig::value`].
pub(crate) fn of(context: &Context<'_>, config: &Create) -> Result<Value, Error> {
    let platform = &config.guest.platform;
    let pinned = !platform.affinity.is_empty() || !platform.soft_affinity.is_empty();
    let cpupool = pool_number(context, &config.cpupool)?;
    let pool_cpus = if pinned { context.xen.pool_cpus(cpupool)? } else { None }.unwrap_or_default();
    let files = &config.firmware;
    let configuration = LibxlConfig {
        name: &config.name,
        uuid: config.uuid,
        guest: &config.guest,
        firmware: FirmwarePaths {
            hvmloader: files.hvmloader.as_deref(),
            system: files.system.as_deref(),
            smbios: files.smbios.as_deref(),
            acpi: files.acpi.as_deref(),
        },
        device_model: config.device_model.as_ref().map(device_model),
        cpupool,
        pool_cpus: &pool_cpus,
        seclabel: config.seclabel.as_deref(),
        max_grant_version: config.max_grant_version,
        pirqs: config.pirqs,
        vmtrace: config.vmtrace,
        driver_domain: config.driver_domain,
        vpmu: config.vpmu,
        msr_relaxed: config.msr_relaxed,
        max_grant_frames: config.max_grant_frames,
        max_maptrack_frames: config.max_maptrack_frames,
        event_channels: config.event_channels,
        devices: &config.devices,
        bootloader: config.bootloader.as_ref().map(|bootloader| LibxlBootloader {
            name: &bootloader.name,
            arguments: &bootloader.arguments,
            kernel: bootloader.kernel.as_deref(),
            ramdisk: bootloader.ramdisk.as_deref(),
            cmdline: bootloader.cmdline.as_deref(),
        }),
    };
    configuration.value()
}

fn device_model(config: &DeviceModelConfig) -> LibxlDeviceModel<'_> {
    LibxlDeviceModel {
        path: &config.path,
        arguments: &config.arguments,
        user: match &config.run_as {
            RunAs::Root | RunAs::RestrictedRoot => LibxlUser::Root,
            RunAs::User(user) => user.in_libxl(),
        },
    }
}
