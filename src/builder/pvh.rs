//! pvh_build: puts memory, a kernel and ACPI tables into a guest that has no firmware and no device model.
//!
//! The kernel is entered at the address of its `XEN_ELFNOTE_PHYS32_ENTRY` note, with the start info in %ebx
//! (xen/include/public/arch-x86/hvm/start_info.h).

use super::acpi;
use super::build::BuildJob;
use super::cpuid::apply_cpuid;
use super::image::{BuildResult, build_image, check_params};
use crate::context::Context;
use crate::error::Failure;
use crate::memory::Kind;
use crate::memory::layout::ACPI_START;
use crate::stage::Stage;
use crate::xen::{DirectStart, ImageContents};

/// Builds the guest and returns the frames of its store and console rings. It is populated on demand exactly when build
/// start < build max, as an HVM guest is.
///
/// # Errors
/// The step and the call that failed. The domain keeps what was done before that.
pub(crate) fn pvh_build(
    context: &Context<'_>,
    job: BuildJob<'_>,
    kernel: &[u8],
    start: DirectStart<'_>,
) -> Result<BuildResult, Failure> {
    let BuildJob { domid, guest, prepared, .. } = job;
    let tables = acpi::tables(guest.plan.vcpus, guest.plan.vnuma.as_ref(), ACPI_START);
    let contents = ImageContents::Pvh { start, acpi: &tables, acpi_at: ACPI_START };
    let rings = build_image(context, job, kernel, contents)?;
    context.step(Stage::HvmParams, || check_params(context, domid, Kind::Pvh, prepared.ports, rings))?;
    context.step(Stage::CpuidPolicy, || apply_cpuid(context, domid, Kind::Pvh, &guest.platform))?;
    Ok(rings)
}
