//! Reads all boot files of a guest.

use std::ffi::CString;
use std::path::Path;

use super::boot_files::{BootFiles, FirmwareModules, Module};
use super::firmware::FirmwareChoice;
use super::kernel::placement::check_placement;
use super::kernel::{Keep, LARGEST_KERNEL, Unpacker, Unpacking};
use super::search::{load_ramdisk, map_ramdisk, map_shim, map_shim_kernel, read_firmware, read_hvmloader};
use crate::memory::{Model, Plan};
use crate::payload::error::FileError;

/// The command line of the PV shim: run as a shim, and use its own PV console (libxl's `PVSHIM_CMDLINE`).
const SHIM_CMDLINE: &str = "pv-shim console=xen,pv";

/// The files of a PVH or PV guest.
#[derive(Debug, Clone)]
pub struct KernelFiles<'a> {
    /// The kernel: an ELF file or a Linux bzImage.
    pub kernel: &'a Path,
    /// An initial ramdisk.
    pub ramdisk: Option<&'a Path>,
    /// The command line of the kernel.
    pub cmdline: CString,
    /// The PV shim, where the plan has one.
    pub shim: ShimFiles<'a>,
}

/// The PV shim of a guest, where it is not the usual one (pvshim_path and others in xl.cfg).
#[derive(Debug, Clone, Copy, Default)]
pub struct ShimFiles<'a> {
    /// Another file than the installed one.
    pub path: Option<&'a Path>,
    /// A command line in place of the usual one.
    pub cmdline: Option<&'a str>,
    /// What is appended to the command line.
    pub extra: Option<&'a str>,
}

impl ShimFiles<'_> {
    /// Its command line, without what the plan adds.
    #[must_use]
    pub fn command_line(&self) -> String {
        let extra = self.extra.map(|extra| format!(" {extra}")).unwrap_or_default();
        format!("{}{extra}", self.cmdline.unwrap_or(SHIM_CMDLINE))
    }
}

/// Reads the boot files of an HVM guest. Without `hvmloader`, uses the installed one.
///
/// # Errors
/// If a file is missing, unusable, or too large for the guest of this plan.
pub fn hvm_boot_files(
    plan: &Plan,
    hvmloader: Option<&Path>,
    firmware: &FirmwareChoice,
    modules: FirmwareModules,
) -> Result<BootFiles, FileError> {
    let hvmloader = read_hvmloader(hvmloader, plan)?;
    let kind = firmware.kind;
    let firmware = read_firmware(firmware, plan.low_memory_at_start())?;
    Ok(BootFiles::Firmware { hvmloader, kind, firmware, modules })
}

/// Reads the boot files of a PVH or PV guest; with a plan for the PV shim, the shim too. `unpacker` is the
/// unprivileged program that unpacks the kernel.
///
/// # Errors
/// If a file is missing, unusable, or too large for the guest of this plan or for dom0.
pub fn kernel_boot_files(
    unpacker: &Unpacker,
    plan: &Plan,
    files: KernelFiles<'_>,
    keep: Keep,
) -> Result<BootFiles, FileError> {
    // First, as it may take memory, of which the rest is the kernel's.
    let ramdisk = files.ramdisk.map(|path| {
        Ok::<_, FileError>(Module { data: map_ramdisk(path)?, path: path.to_owned(), cmdline: CString::default() })
    });
    let ramdisk = ramdisk.transpose()?;
    // The child unpacks the kernel while this thread reads the ramdisk.
    let unpacking =
        if plan.request.shim { None } else { Some(Unpacking::start(unpacker, files.kernel, LARGEST_KERNEL, keep)?) };
    ramdisk.iter().try_for_each(load_ramdisk)?;
    let data = match unpacking {
        Some(unpacking) => unpacking.finish(plan)?,
        None => map_shim_kernel(files.kernel)?,
    };
    let file = Module { data, path: files.kernel.to_owned(), cmdline: files.cmdline };
    if !plan.request.shim {
        return placed(plan, file, ramdisk.into_iter().collect());
    }
    // The shim finds the guest's kernel as its first module.
    let mut text = files.shim.command_line();
    if plan.request.model == Model::Xapi {
        text.push_str(&format!(" shim_mem={}M", plan.memory.shim.0 / 1024));
    }
    let (data, path) = map_shim(files.shim.path)?;
    let cmdline = CString::new(text).unwrap_or_default();
    let modules = [file].into_iter().chain(ramdisk).collect();
    placed(plan, Module { data, path, cmdline }, modules)
}

fn placed(plan: &Plan, kernel: Module, modules: Vec<Module>) -> Result<BootFiles, FileError> {
    check_placement(plan, &kernel, &modules)?;
    Ok(BootFiles::Kernel { kernel, modules, features: CString::default(), start_flags: 0 })
}
