//! The files that a guest starts with: which of the flags belong to which kind, and what is read.

use std::ffi::CString;
use std::path::Path;

use crate::cli::args::GuestArgs;
use crate::config::cmdline::CmdlineOf;
use crate::error::Error;
use crate::memory::{Kind, Model, Plan};
use crate::payload::boot_files::{BootFiles, FirmwareModules, Module};
use crate::payload::kernel::placement::check_placement;
use crate::payload::kernel::{Keep, LARGEST_KERNEL, Unpacker, Unpacking};
use crate::payload::search::{load_ramdisk, map_ramdisk, map_shim, map_shim_kernel, read_firmware, read_hvmloader};
use crate::payload::{acpi_tables, smbios};

/// What the PV shim is told: to be one, and to talk through its own PV console (libxl's `PVSHIM_CMDLINE`).
const SHIM_CMDLINE: &str = "pv-shim console=xen,pv";

/// Checks the flags and reads the files.
///
/// # Errors
/// Where a flag belongs to another kind of guest, or a file is not usable.
pub(crate) fn read(arguments: &GuestArgs, plan: &Plan, keep: Keep) -> Result<BootFiles, Error> {
    match plan.request.kind {
        Kind::Hvm => firmware(arguments, plan),
        Kind::Pvh | Kind::Pv => kernel(arguments, plan, keep),
    }
}

/// What an HVM guest starts with.
fn firmware(arguments: &GuestArgs, plan: &Plan) -> Result<BootFiles, Error> {
    for (flag, given) in [("--ramdisk", arguments.ramdisk.is_some()), ("--cmdline", arguments.cmdline.is_some())] {
        if given {
            return Err(Error::BadConfig(format!(
                "{flag} is for kernels that Xen starts itself: give it with --kind pvh or --kind pv"
            )));
        }
    }
    let modules = modules(arguments)?;
    let hvmloader = read_hvmloader(arguments.kernel.as_deref(), plan)?;
    let choice = arguments.firmware.clone().unwrap_or_default();
    let firmware = read_firmware(&choice, plan.low_memory_at_start())?;
    Ok(BootFiles::Firmware { hvmloader, kind: choice.kind, firmware, modules })
}

/// What hvmloader puts into the guest's tables.
fn modules(arguments: &GuestArgs) -> Result<FirmwareModules, Error> {
    let smbios = match (&arguments.smbios, arguments.smbios_passthrough) {
        (Some(_), true) => {
            return Err(Error::BadConfig(
                "--smbios and --smbios-passthrough both say what the guest's SMBIOS table has: give one of them"
                    .to_owned(),
            ));
        }
        (Some(path), false) => Some(smbios::read(path)?),
        (None, true) => Some(smbios::of_host(&arguments.memory.sysfs)?),
        (None, false) => None,
    };
    Ok(FirmwareModules { smbios, acpi: arguments.acpi.as_deref().map(acpi_tables::read).transpose()? })
}

/// A path that is written to xenstore for others to read: text of one line, and with its node not longer than what
/// xenstored takes at once (`XENSTORE_PAYLOAD_MAX` is 4096, xen/include/public/io/xs_wire.h).
fn check_path(flag: &str, path: &Path) -> Result<(), Error> {
    const LONGEST: usize = 3072;
    let bad =
        |reason: String| Err(Error::BadConfig(format!("{flag} {path:?} {reason}: rename the file or use a link")));
    match path.to_str() {
        None => bad("is not UTF-8, which xenstore could not tell others".to_owned()),
        Some(text) if text.chars().any(char::is_control) => bad("has a control character in it".to_owned()),
        Some(text) if text.len() > LONGEST => bad(format!("has more than {LONGEST} bytes, which xenstore cannot hold")),
        Some(_) => Ok(()),
    }
}

/// What a PVH or PV guest starts with.
fn kernel(arguments: &GuestArgs, plan: &Plan, keep: Keep) -> Result<BootFiles, Error> {
    let kind = plan.request.kind;
    if arguments.firmware.is_some() {
        return Err(Error::BadConfig(format!("--firmware is for --kind hvm; a {kind} guest starts its --kernel")));
    }
    for (flag, given) in [
        ("--smbios", arguments.smbios.is_some()),
        ("--smbios-passthrough", arguments.smbios_passthrough),
        ("--acpi", arguments.acpi.is_some()),
    ] {
        if given {
            return Err(Error::BadConfig(format!(
                "{flag} is for --kind hvm; a {kind} guest has no hvmloader to take it"
            )));
        }
    }
    let Some(path) = &arguments.kernel else {
        return Err(Error::BadConfig(format!("--kind {kind} needs the guest's own kernel: give --kernel PATH")));
    };
    let text = arguments.cmdline.clone().unwrap_or_default();
    let reader = if plan.request.shim { CmdlineOf::Module } else { CmdlineOf::Kernel(kind) };
    reader.check("a --cmdline", text.len()).map_err(Error::BadConfig)?;
    if let Some(control) = text.chars().find(|char| char.is_control()) {
        return Err(Error::BadConfig(format!(
            "--cmdline has the control character {control:?} in it; a kernel takes one line"
        )));
    }
    for (flag, path) in [("--kernel", Some(path)), ("--ramdisk", arguments.ramdisk.as_ref())] {
        path.map_or(Ok(()), |path| check_path(flag, path))?;
    }
    let cmdline = CString::new(text).map_err(|_| Error::BadConfig("--cmdline has a NUL byte in it".to_owned()))?;
    // First, as it may take memory, of which the rest is the kernel's.
    let ramdisk = arguments.ramdisk.as_deref().map(|path| {
        Ok::<_, Error>(Module { data: map_ramdisk(path)?, path: path.to_owned(), cmdline: CString::default() })
    });
    let ramdisk = ramdisk.transpose()?;
    // It is unpacked while the ramdisk is read.
    let unpacking = if plan.request.shim {
        None
    } else {
        Some(Unpacking::start(&Unpacker::this_program(), path, LARGEST_KERNEL, keep)?)
    };
    ramdisk.iter().try_for_each(load_ramdisk)?;
    let data = match unpacking {
        Some(unpacking) => unpacking.finish(plan)?,
        None => map_shim_kernel(path)?,
    };
    let file = Module { data, path: path.clone(), cmdline };
    if !plan.request.shim {
        return payload(plan, file, ramdisk.into_iter().collect());
    }
    // The shim finds the guest's kernel as its first module.
    let mut text = SHIM_CMDLINE.to_owned();
    if plan.request.model == Model::Xapi {
        text.push_str(&format!(" shim_mem={}M", plan.memory.shim.0 / 1024));
    }
    let (data, path) = map_shim()?;
    let cmdline = CString::new(text).unwrap_or_default();
    let modules = [file].into_iter().chain(ramdisk).collect();
    payload(plan, Module { data, path, cmdline }, modules)
}

fn payload(plan: &Plan, kernel: Module, modules: Vec<Module>) -> Result<BootFiles, Error> {
    check_placement(plan, &kernel, &modules)?;
    Ok(BootFiles::Kernel { kernel, modules, features: CString::default(), start_flags: 0 })
}
