//! The boot files of a guest: the flags of each guest type, and the files to read.

use std::ffi::CString;
use std::path::Path;

use crate::cli::args::boot::BootArgs;
use crate::config::cmdline::CmdlineOf;
use crate::error::Error;
use crate::memory::{Kind, Plan};
use crate::payload::boot_files::{BootFiles, FirmwareModules};
use crate::payload::kernel::{Keep, Unpacker};
use crate::payload::read::{KernelFiles, ShimFiles, hvm_boot_files, kernel_boot_files};
use crate::payload::{acpi_tables, smbios};

/// Checks the flags for boot files against the kind of guest, without a look at any file. A guest with a boot loader needs no
/// kernel.
///
/// # Errors
/// [`Error::BadConfig`] for a flag that belongs to another kind, that is missing, or whose value cannot be.
pub(crate) fn check(arguments: &BootArgs, bootloader: bool, kind: Kind, shim: bool) -> Result<(), Error> {
    match kind {
        Kind::Hvm if bootloader => Err(Error::BadConfig(
            "--bootloader is for pvh and pv guests: an HVM guest's firmware starts what is on its disk".to_owned(),
        )),
        Kind::Hvm => check_hvm(arguments),
        Kind::Pvh | Kind::Pv => check_direct(arguments, bootloader, kind, shim),
    }
}

fn check_hvm(arguments: &BootArgs) -> Result<(), Error> {
    if arguments.kernel.is_some() {
        return Err(Error::BadConfig(
            "an HVM guest's --kernel is started by the QEMU that create starts, and there is none; --hvmloader FILE names another hvmloader; \
             for a kernel without QEMU add --kind pvh"
                .to_owned(),
        ));
    }
    for (flag, given) in [("--ramdisk", arguments.ramdisk.is_some()), ("--cmdline", arguments.cmdline.is_some())] {
        if given {
            return Err(Error::BadConfig(format!(
                "{flag} is for a kernel, and there is none: give --kernel, with --kind pvh or --kind pv for one that Xen starts itself"
            )));
        }
    }
    if arguments.smbios.is_some() && arguments.smbios_passthrough {
        return Err(Error::BadConfig(
            "--smbios and --smbios-passthrough both say what the guest's SMBIOS table has: give one of them".to_owned(),
        ));
    }
    Ok(())
}

fn check_direct(arguments: &BootArgs, bootloader: bool, kind: Kind, shim: bool) -> Result<(), Error> {
    if arguments.firmware.is_some() {
        return Err(Error::BadConfig(format!("--firmware is for --kind hvm; a {kind} guest starts its --kernel")));
    }
    for (flag, given) in [
        ("--hvmloader", arguments.hvmloader.is_some()),
        ("--smbios", arguments.smbios.is_some()),
        ("--smbios-passthrough", arguments.smbios_passthrough),
        ("--bios-string", !arguments.bios_string.is_empty()),
        ("--acpi", arguments.acpi.is_some()),
    ] {
        if given {
            return Err(Error::BadConfig(format!("{flag} is for --kind hvm; a {kind} guest has no hvmloader")));
        }
    }
    if arguments.kernel.is_none() && !bootloader {
        return Err(Error::BadConfig(format!(
            "--kind {kind} needs the guest's own kernel: give --kernel PATH, or --bootloader, which takes it from the disk"
        )));
    }
    let text = arguments.cmdline.as_deref().unwrap_or_default();
    let reader = if shim { CmdlineOf::Module } else { CmdlineOf::Kernel(kind) };
    reader.check("a --cmdline", text.len()).map_err(Error::BadConfig)?;
    if let Some(control) = text.chars().find(|char| char.is_control()) {
        return Err(Error::BadConfig(format!(
            "--cmdline has the control character {control:?} in it; a kernel takes one line"
        )));
    }
    // The shim is a Xen, whose command line has the bounds of those that it keeps.
    let of_shim = shim_files(arguments).command_line();
    CmdlineOf::Module.check("a --shim-cmdline", of_shim.len()).map_err(Error::BadConfig)?;
    if of_shim.chars().any(char::is_control) {
        return Err(Error::BadConfig(
            "--shim-cmdline and --shim-extra are one line: leave out its control characters".to_owned(),
        ));
    }
    for (flag, path) in [
        ("--kernel", arguments.kernel.as_ref()),
        ("--ramdisk", arguments.ramdisk.as_ref()),
        ("--shim-file", arguments.shim_file.as_ref()),
    ] {
        path.map_or(Ok(()), |path| check_path(flag, path))?;
    }
    Ok(())
}

fn shim_files(arguments: &BootArgs) -> ShimFiles<'_> {
    ShimFiles {
        path: arguments.shim_file.as_deref(),
        cmdline: arguments.shim_cmdline.as_deref(),
        extra: arguments.shim_extra.as_deref(),
    }
}

/// Reads the files of flags that [`check`] has passed.
///
/// # Errors
/// A file that is missing or unusable.
pub(crate) fn read(arguments: &BootArgs, sysfs: &Path, plan: &Plan, keep: Keep) -> Result<BootFiles, Error> {
    let Some(path) = &arguments.kernel else {
        let modules = modules(arguments, sysfs)?;
        let firmware = arguments.firmware.clone().unwrap_or_default();
        return Ok(hvm_boot_files(plan, arguments.hvmloader.as_deref(), &firmware, modules)?);
    };
    let text = arguments.cmdline.clone().unwrap_or_default();
    let cmdline = CString::new(text).map_err(|_| Error::BadConfig("--cmdline has a NUL byte in it".to_owned()))?;
    let files =
        KernelFiles { kernel: path, ramdisk: arguments.ramdisk.as_deref(), cmdline, shim: shim_files(arguments) };
    Ok(kernel_boot_files(&Unpacker::this_program(), plan, files, keep)?)
}

/// What hvmloader puts into the guest's tables.
fn modules(arguments: &BootArgs, sysfs: &Path) -> Result<FirmwareModules, Error> {
    let smbios = match (&arguments.smbios, arguments.smbios_passthrough) {
        (Some(path), _) => Some(smbios::read(path)?),
        (None, true) => Some(smbios::of_host(sysfs)?),
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
