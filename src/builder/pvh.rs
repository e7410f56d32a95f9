//! pvh_build: memory, a kernel and ACPI tables into a guest that has no firmware and no device model.
//!
//! The kernel is entered at the address of its `XEN_ELFNOTE_PHYS32_ENTRY` note, with the start info in %ebx
//! (xen/include/public/arch-x86/hvm/start_info.h).

use super::image::{Rings, build_image, check_paging_pool, check_rings};
use super::pre::Ports;
use super::{Context, acpi};
use crate::error::{Failure, Stage};
use crate::memory::Plan;
use crate::memory::layout::ACPI_START;
use crate::xen::{Contents, DirectStart, DomId};

/// Builds the guest and returns the frames of its store and console rings. It is populated on demand exactly when build
/// start < build max, as an HVM guest is.
///
/// # Errors
/// The step and the call that failed. The domain is left as far as it came.
pub(super) fn pvh_build(
    context: &Context<'_>,
    domid: DomId,
    plan: &Plan,
    ports: Ports,
    kernel: &[u8],
    start: DirectStart<'_>,
) -> Result<Rings, Failure> {
    let tables = acpi::tables(plan.vcpus, ACPI_START);
    let contents = Contents::Pvh { start, acpi: &tables, acpi_at: ACPI_START };
    let rings = build_image(context, domid, plan, ports, kernel, contents)?;
    context.step(Stage::HvmParams, || check_rings(context, domid, ports, rings))?;
    context.step(Stage::CpuidPolicy, || context.xen.apply_cpuid_policy(domid))?;
    context.step(Stage::CheckPagingPool, || check_paging_pool(context, domid, plan))?;
    Ok(rings)
}
