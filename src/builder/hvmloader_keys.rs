//! Xenstore keys by which hvmloader, and the program that starts the device model, learn what the builder decided.

use crate::config::bios_string;
use crate::config::platform::Platform;
use crate::domain::paths::XenstorePaths;
use crate::memory::limits::VGPU_VRAM;
use crate::memory::{Kind, Plan};
use crate::payload::firmware::FirmwareKind;
use crate::xen::{Placed, PlacedModules, Transaction, XenError};

/// Writes the addresses and lengths of hvmloader's SMBIOS structures and ACPI tables, in hexadecimal bytes as libxl does
/// (`hvm_build_set_xs_values`, tools/libs/light/libxl_dom.c, Xen 4.17). hvmloader reads them by `strtoll` in any base.
///
/// # Errors
/// An error of xenstored.
pub fn write_modules(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    modules: PlacedModules,
) -> Result<(), XenError> {
    for (name, placed) in [("smbios", modules.smbios), ("acpi", modules.acpi)] {
        if let Some(Placed { address, length }) = placed {
            let key = |what: &str| keys.of_domain(&format!("hvmloader/{name}/{what}"));
            transaction.write(&key("address"), &format!("{:#x}", address.get()))?;
            transaction.write(&key("length"), &format!("{:#x}", length.get()))?;
        }
    }
    Ok(())
}

/// The two words that hvmloader accepts for yes and no.
fn bool01(yes: bool) -> &'static str {
    if yes { "1" } else { "0" }
}

/// Writes which ACPI features the guest has, which firmware hvmloader starts, and strings of the SMBIOS tables.
///
/// # Errors
/// An error of xenstored.
pub fn write_firmware(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    platform: &Platform,
    firmware: FirmwareKind,
) -> Result<(), XenError> {
    for (name, value) in [
        ("platform/acpi", bool01(platform.acpi)),
        ("platform/acpi_s3", bool01(platform.acpi_s3)),
        ("platform/acpi_s4", bool01(platform.acpi_s4)),
        ("platform/acpi_laptop_slate", bool01(platform.acpi_laptop_slate)),
        ("hvmloader/bios", firmware.name()),
    ] {
        transaction.write(&keys.of_domain(name), value)?;
    }
    for (node, text) in bios_string::nodes(&platform.bios_strings) {
        transaction.write(&keys.of_domain(&format!("bios-strings/{node}")), text)?;
    }
    if let Some(id) = &platform.generation_id {
        transaction.write(&keys.of_domain("platform/generation-id"), id)?;
    }
    Ok(())
}

/// Writes, for the program that starts the device model of an HVM guest, the size of the MMIO hole in decimal bytes, and the
/// place reserved for a vGPU's video RAM: its address in hexadecimal without 0x, its size in decimal bytes. The keys and
/// their format are those of XenServer.
///
/// # Errors
/// An error of xenstored.
pub fn write_hole(transaction: &Transaction<'_>, keys: &XenstorePaths, plan: &Plan) -> Result<(), XenError> {
    if plan.request.kind != Kind::Hvm {
        return Ok(());
    }
    let write = |name: &str, value: &str| transaction.write(&keys.of_domain(&format!("vm-data/{name}")), value);
    write("mmio-hole-size", &plan.layout.mmio_size.get().to_string())?;
    if let Some(vram) = plan.layout.vram {
        write("vram-reserved-addr", &format!("{:x}", vram.get()))?;
        write("vram-reserved-size", &VGPU_VRAM.get().to_string())?;
    }
    Ok(())
}
