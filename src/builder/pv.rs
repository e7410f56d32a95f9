//! pv_build: puts memory and a kernel into a paravirtualised guest.
//!
//! libxenguest allocates build start at once. The room for growth exists in the guest's memory map only, and its balloon
//! driver asks for those pages. There is no populate on demand, and no paging pool.

use super::build::BuildJob;
use super::cpuid::apply_cpuid;
use super::image::{BuildResult, build_image};
use crate::context::Context;
use crate::error::Failure;
use crate::memory::Kind;
use crate::stage::Stage;
use crate::xen::{DirectStart, ImageContents};

/// Builds the guest and returns the (machine) frames of its store and console rings.
///
/// # Errors
/// The step and the call that failed. The domain keeps what was done before that.
pub(crate) fn pv_build(
    context: &Context<'_>,
    job: BuildJob<'_>,
    kernel: &[u8],
    start: DirectStart<'_>,
) -> Result<BuildResult, Failure> {
    let BuildJob { domid, guest, .. } = job;
    let rings = build_image(context, job, kernel, ImageContents::Pv(start))?;
    context.step(Stage::CpuidPolicy, || apply_cpuid(context, domid, Kind::Pv, &guest.platform))?;
    Ok(rings)
}
