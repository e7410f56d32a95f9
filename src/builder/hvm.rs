//! hvm_build: puts memory, hvmloader and firmware into the guest.
//!
//! libxc had one call for this, `xc_hvm_build`, until Xen 4.6. The meaning is the same here: `mem_size` (build max) is the
//! most that the guest may have, `mem_target` (build start) is what it starts with, and memory is populated on demand
//! exactly when target < size.

use super::build::BuildJob;
use super::cpuid::apply_cpuid;
use super::image::{BuildResult, build_image, check_params};
use crate::context::Context;
use crate::error::Failure;
use crate::memory::Kind;
use crate::memory::layout::VGA_HOLE_PAGES;
use crate::stage::Stage;
use crate::xen::{HvmInfo, HvmModules, ImageContents};

/// Builds the guest and returns the frames of its store and console rings.
///
/// 1. the image, as for every kind of guest;
/// 2. APIC mode, vCPU count and online map in `hvm_info`;
/// 3. the rings' event channels as HVM parameters; the CPUID policy.
///
/// # Errors
/// The step and the call that failed. The domain keeps what was done before that.
pub(crate) fn hvm_build(
    context: &Context<'_>,
    job: BuildJob<'_>,
    hvmloader: &[u8],
    firmware: &[u8],
    modules: &HvmModules,
) -> Result<BuildResult, Failure> {
    let BuildJob { domid, guest, prepared, .. } = job;
    let (plan, platform) = (&guest.plan, &guest.platform);
    // 1.
    let contents = ImageContents::Hvm { firmware, modules, vga_hole: VGA_HOLE_PAGES };
    let rings = build_image(context, job, hvmloader, contents)?;
    // 2.
    context.step(Stage::HvmInfo, || {
        HvmInfo::finish(context.xen, domid, plan.vcpus, platform.online(plan.vcpus), platform.apic)
    })?;
    // 3.
    context.step(Stage::HvmParams, || check_params(context, domid, Kind::Hvm, prepared.ports, rings))?;
    context.step(Stage::CpuidPolicy, || apply_cpuid(context, domid, Kind::Hvm, platform))?;
    Ok(rings)
}
