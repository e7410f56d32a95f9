//! hvm_build: memory, hvmloader and firmware into the guest.
//!
//! libxc had one call for this, `xc_hvm_build`, until Xen 4.6. Its meaning is kept: `mem_size` is the most that the
//! guest may have, `mem_target` what it starts with, and it is populated on demand exactly when target < size. What
//! carries it out are libxenguest's `xc_dom_*` calls, in the order of tools/libs/light/libxl_dom.c (Xen 4.17).

use serde::Serialize;

use super::Context;
use super::pre::{Ports, set_paging_pool};
use crate::config::Guest;
use crate::error::{Error, Failure, Stage};
use crate::memory::layout::{IOREQ_SERVER_PAGES, SPECIAL_PAGES, VGA_HOLE_PAGES};
use crate::memory::{Bytes, Gfn, Kib, Layout, Pages};
use crate::xen::{DomId, DomainImage, HvmBoot, HvmImage, HvmInfo, HvmParam, XenError};

/// What `xc_hvm_build` was told, in its own words.
#[derive(Debug, Clone, Copy)]
pub struct HvmBuildArgs<'a> {
    /// The most memory that the guest may have, without its video memory: build max.
    pub mem_size: Bytes,
    /// What it starts with, without its video memory: build start.
    pub mem_target: Bytes,
    /// Where memory goes.
    pub layout: &'a Layout,
    /// hvmloader.
    pub kernel: &'a [u8],
    /// SeaBIOS or OVMF.
    pub firmware: &'a [u8],
    /// Number of vCPUs, all of them online.
    pub vcpus: u32,
    /// Event channels of the two rings.
    pub ports: Ports,
    /// The paging pool that the guest was given, to be kept.
    pub paging_pool: Bytes,
}

impl<'a> HvmBuildArgs<'a> {
    /// The arguments that carry out a guest's plan.
    #[must_use]
    pub fn new(guest: &'a Guest, ports: Ports) -> Self {
        Self {
            mem_size: guest.plan.memory.build_max.to_bytes_saturating(),
            mem_target: guest.plan.memory.build_start.to_bytes_saturating(),
            layout: &guest.plan.layout,
            kernel: &guest.kernel,
            firmware: &guest.firmware,
            vcpus: guest.plan.vcpus,
            ports,
            paging_pool: guest.plan.paging_pool.to_bytes_saturating(),
        }
    }
}

/// Frames of the two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rings {
    /// xenstore's.
    pub store_gfn: Gfn,
    /// The console's.
    pub console_gfn: Gfn,
}

/// Builds the guest and returns the frames of its store and console rings.
///
/// 1. the image: kernel, firmware, layout;
/// 2. memory, on demand where target < size;
/// 3. the e820;
/// 4. kernel, firmware and special pages into memory;
/// 5. start info, `hvm_info`, first vCPU;
/// 6. the grant table's two entries;
/// 7. APIC mode, vCPU count and online map in `hvm_info`;
/// 8. the rings' event channels as HVM parameters; the CPUID policy;
/// 9. the paging pool again, restored where it shrank.
///
/// # Errors
/// The step and the call that failed. The domain is left as far as it came.
pub fn hvm_build(context: &Context<'_>, domid: DomId, args: &HvmBuildArgs<'_>) -> Result<Rings, Failure> {
    let xen = context.xen;
    // 1.
    let mut image = context.step(Stage::ParseImage, || {
        let mut image = DomainImage::new_hvm(
            xen,
            domid,
            HvmImage {
                kernel: args.kernel,
                firmware: args.firmware,
                layout: args.layout,
                target_pages: args.mem_target.to_pages_floor(),
                vga_hole: VGA_HOLE_PAGES,
                vcpus: args.vcpus,
                store_port: args.ports.store,
                store_domain: args.ports.store_domain,
                console_port: args.ports.console,
                console_domain: args.ports.console_domain,
            },
        )?;
        image.parse()?;
        Ok::<_, XenError>(image)
    })?;
    // 2.
    context.step(Stage::Populate, || {
        let size = args
            .mem_size
            .to_mib_exact()
            .ok_or_else(|| Error::Internal(format!("build max of {} bytes is not whole MiB", args.mem_size.0)))?;
        image.populate(size).map_err(|error| shortage(context, domid, args, error))
    })?;
    // 3.
    context.step(Stage::MemoryMap, || xen.set_memory_map(domid, &args.layout.e820))?;
    // 4.
    context.step(Stage::LoadImage, || image.load().map_err(|error| shortage(context, domid, args, error)))?;
    // 5.
    context.step(Stage::BootImage, || image.boot())?;
    // 6.
    let boot = context.step(Stage::GrantTable, || image.seed_grant_table())?;
    drop(image);
    // 7.
    context.step(Stage::HvmInfo, || HvmInfo::finish(xen, domid, args.vcpus))?;
    // 8.
    context.step(Stage::HvmParams, || check_rings(context, domid, args.ports, boot))?;
    context.step(Stage::CpuidPolicy, || xen.apply_cpuid_policy(domid))?;
    // 9.
    context.step(Stage::CheckPagingPool, || {
        if xen.paging_pool(domid)? < args.paging_pool {
            log::info!("the paging pool of domain {domid} shrank while it was built; it is restored");
            set_paging_pool(context, domid, args.paging_pool)?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(Rings { store_gfn: boot.store_gfn, console_gfn: boot.console_gfn })
}

/// libxenguest tells of a shortage without saying how much is missing, or that it is one: look at the host.
fn shortage(context: &Context<'_>, domid: DomId, args: &HvmBuildArgs<'_>, error: XenError) -> Error {
    let (Ok(host), Ok(Some(domain))) = (context.xen.physinfo(), context.xen.domain(domid)) else {
        return error.into();
    };
    let special = IOREQ_SERVER_PAGES.0 + SPECIAL_PAGES.0;
    let all = (args.mem_target.0 >> 10) + Pages(special).to_kib().0;
    let missing = Kib(all.saturating_sub(VGA_HOLE_PAGES.to_kib().0).saturating_sub(domain.owned_pages.to_kib().0));
    let free = host.available();
    if free < missing {
        log::info!("{error}");
        return Error::NotEnoughMemory { required: missing, free };
    }
    error.into()
}

/// Sets the rings' ports, which libxenguest does since Xen 4.17 without checking that it was told any, and makes sure
/// that Xen has the frames which the guest will be told.
fn check_rings(context: &Context<'_>, domid: DomId, ports: Ports, boot: HvmBoot) -> Result<(), Error> {
    let xen = context.xen;
    xen.set_hvm_param(domid, HvmParam::StorePort, u64::from(ports.store.0))?;
    xen.set_hvm_param(domid, HvmParam::ConsolePort, u64::from(ports.console.0))?;
    for (param, gfn) in [(HvmParam::StorePfn, boot.store_gfn), (HvmParam::ConsolePfn, boot.console_gfn)] {
        let told = xen.hvm_param(domid, param)?;
        if told != gfn.0 {
            return Err(Error::Internal(format!(
                "{param:?} of domain {domid} is {told:#x}, but libxenguest says {:#x}",
                gfn.0
            )));
        }
    }
    Ok(())
}
