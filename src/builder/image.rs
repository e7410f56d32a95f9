//! The part of a build that all kinds of guest share: the image is parsed, memory populated, and the image loaded.
//!
//! It calls libxenguest's `xc_dom_*` functions in the order of tools/libs/light/libxl_dom.c (Xen 4.17).

use std::time::Duration;

use serde::Serialize;

use super::build::BuildJob;
use super::claim::claim;
use super::populate::Populating;
use super::pre::{Ports, Prepared, set_paging_pool};
use super::shortage::{check_room, device_memory};
use crate::config::guest::Guest;
use crate::context::Context;
use crate::error::host::HostError;
use crate::error::{Error, Failure};
use crate::memory::{Gfn, Kind, Pages, Plan};
use crate::payload::boot_files::BootFiles;
use crate::payload::kernel::is_32_bit;
use crate::stage::Stage;
use crate::xen::{Boot, DomId, DomainImage, HvmParam, ImageContents, ImageParts, PlacedModules, XenError};

/// The result of a build: the frames of the two rings, and the places of hvmloader's modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BuildResult {
    /// The frame of the xenstore ring.
    pub store_gfn: Gfn,
    /// The frame of the console ring.
    pub console_gfn: Gfn,
    /// The places of the caller's SMBIOS structures and ACPI tables. They are for hvmloader and not part of the output.
    #[serde(skip)]
    pub modules: PlacedModules,
    /// The pages that are on another NUMA node than planned, because that was full.
    #[serde(rename = "pages_on_other_nodes", skip_serializing_if = "is_none")]
    pub elsewhere: Pages,
}

fn is_none(pages: &Pages) -> bool {
    pages.0 == 0
}

/// About as long as a device model needs to map its video memory above the guest's RAM. Below a mapped page, populating a page
/// costs Xen nearly twice the time (`p2m_pt_get_entry`, xen/arch/x86/mm/p2m-pt.c, Xen 4.17 and 4.20). So the device model of
/// a large guest starts when the rest of the memory takes this long to populate.
const QEMU_STARTUP: Duration = Duration::from_millis(100);

/// Builds the image into the domain:
///
/// 1. the image: kernel, modules, layout;
/// 2. memory: build max, on demand if build start is less; for PV build start, at once, by libxenguest. The device model
///    starts before, or when most of a large guest is populated;
/// 3. the virtual NUMA nodes, if there are any, and the memory map, which PV guests have already;
/// 4. kernel, modules and special pages into memory;
/// 5. start info and first vCPU;
/// 6. the grant table's two entries.
///
/// # Errors
/// The step and the call that failed. The domain keeps what was done before that.
pub(crate) fn build_image(
    context: &Context<'_>,
    job: BuildJob<'_>,
    kernel: &[u8],
    contents: ImageContents<'_>,
) -> Result<BuildResult, Failure> {
    let BuildJob { domid, guest, prepared: Prepared { ports, nodes }, start_device_model } = job;
    let plan = &guest.plan;
    let pv = plan.request.kind == Kind::Pv;
    // 1.
    let mut image = context.step(Stage::ParseImage, || {
        let parts = ImageParts {
            kernel,
            contents,
            layout: &plan.layout,
            target_pages: plan.memory.build_start.to_pages_floor(),
            vcpus: plan.vcpus,
            limits: guest.limits,
            store_port: ports.store,
            store_domain: ports.store_domain,
            console_port: ports.console,
            console_domain: ports.console_domain,
            nodes: &nodes.ranges,
        };
        check_width(context, guest)?;
        let mut image = DomainImage::new(context.xen, domid, parts)?;
        image.parse()?;
        let size = if pv { plan.memory.build_start } else { plan.memory.build_max };
        let mib = size.to_mib_exact();
        let mib = mib.ok_or(Error::NotWholeMib(size))?;
        image.set_size(mib)?;
        Ok::<_, Error>(image)
    })?;
    let shortage = |error| shortage(context, domid, plan.owned_pages_built, error);
    // 2.
    let mut memory = Populating::new(plan, nodes);
    if let Some(start) = start_device_model {
        if memory.is_long(QEMU_STARTUP) {
            context.step(Stage::Populate, || memory.populate(context, domid, shortage, Some(QEMU_STARTUP)))?;
        }
        start()?;
    }
    context.step(Stage::Populate, || {
        if pv {
            image.populate_pv().map_err(shortage)?;
            // libxenguest has dropped the claim.
            return claim(context, domid, guest);
        }
        memory.populate(context, domid, shortage, None).map_err(|error| {
            // The device model may have taken the pages that the guest lacks. With PoD, the guest has all its pages before that.
            let populated = Pages(plan.owned_pages_built.0.saturating_sub(memory.left().0));
            let own = if plan.pod.is_some() { plan.owned_pages_built } else { populated };
            device_memory(context, domid, plan, own).unwrap_or(error)
        })
    })?;
    // 3.
    if !pv {
        context.step(Stage::MemoryMap, || {
            plan.vnuma.as_ref().map_or(Ok(()), |vnuma| context.xen.set_vnuma(domid, vnuma))?;
            context.xen.set_memory_map(domid, &plan.layout.e820)
        })?;
    }
    // 4.
    context.step(Stage::LoadImage, || image.load().map_err(shortage))?;
    // 5.
    context.step(Stage::BootImage, || image.boot())?;
    // 6.
    let Boot { store_gfn, console_gfn, modules } = context.step(Stage::GrantTable, || image.seed_grant_table())?;
    Ok(BuildResult { store_gfn, console_gfn, modules, elsewhere: memory.elsewhere() })
}

/// Checks that this Xen runs 32-bit PV guests, if the guest's kernel is one.
///
/// # Errors
/// [`Error::BadConfig`] if it does not; an error of Xen.
pub fn check_width(context: &Context<'_>, guest: &Guest) -> Result<(), Error> {
    /// libxenguest's name for such a guest (`xc_dom_guest_type`, tools/libs/guest/xg_dom_elfloader.c).
    const PV_32: &str = "xen-3.0-x86_32p";
    let BootFiles::Kernel { kernel, .. } = &guest.boot_files else { return Ok(()) };
    if guest.plan.request.kind != Kind::Pv || !is_32_bit(&kernel.data) {
        return Ok(());
    }
    let types = context.xen.version()?.capabilities;
    if types.iter().any(|known| known == PV_32) {
        return Ok(());
    }
    Err(HostError::No32BitPv { kernel: kernel.path.clone(), wanted: PV_32, runs: types }.into())
}

/// Finds the cause of an error of libxenguest, which reports a shortage neither as such nor by its size.
fn shortage(context: &Context<'_>, domid: DomId, wanted: Pages, error: XenError) -> Error {
    match check_room(context, domid, wanted) {
        Ok(()) => error.into(),
        Err(cause) => {
            log::info!("{error}");
            cause
        }
    }
}

/// Parameters that libxenguest sets without checking the result (`alloc_magic_pages_hvm`,
/// tools/libs/guest/xg_dom_x86.c, Xen 4.17). Each is nonzero when set.
const UNCHECKED: [HvmParam; 6] = [
    HvmParam::BufioreqPfn,
    HvmParam::IoreqPfn,
    HvmParam::PagingRingPfn,
    HvmParam::MonitorRingPfn,
    HvmParam::SharingRingPfn,
    HvmParam::IdentPt,
];
/// The same for guests with a device model.
const UNCHECKED_IOREQ: [HvmParam; 2] = [HvmParam::IoreqServerPfn, HvmParam::IoreqServerPages];

/// Sets the event channels of the rings, which libxenguest since Xen 4.17 sets without checking that it has any. Then checks
/// the frames of the rings and the other parameters that libxenguest sets.
pub(crate) fn check_params(
    context: &Context<'_>,
    domid: DomId,
    kind: Kind,
    ports: Ports,
    rings: BuildResult,
) -> Result<(), XenError> {
    let xen = context.xen;
    xen.set_hvm_param(domid, HvmParam::StorePort, u64::from(ports.store.0))?;
    xen.set_hvm_param(domid, HvmParam::ConsolePort, u64::from(ports.console.0))?;
    let lost = |param: HvmParam, value: u64| {
        let detail = format!("libxenguest took it for done, and the parameter is {value:#x}");
        Err(XenError::unexpected("xc_hvm_param_set", format!("domid {domid}, {param:?}"), detail))
    };
    for (param, gfn) in [(HvmParam::StorePfn, rings.store_gfn), (HvmParam::ConsolePfn, rings.console_gfn)] {
        let value = xen.hvm_param(domid, param)?;
        if value != gfn.0 {
            return lost(param, value);
        }
    }
    let ioreq: &[HvmParam] = if kind == Kind::Hvm { &UNCHECKED_IOREQ } else { &[] };
    for param in UNCHECKED.iter().chain(ioreq) {
        if xen.hvm_param(domid, *param)? == 0 {
            return lost(*param, 0);
        }
    }
    Ok(())
}

/// Checks that the paging pool still has its size, and restores it if it shrank.
///
/// # Errors
/// Xen does not report the size, or refuses to restore it.
pub fn check_paging_pool(context: &Context<'_>, domid: DomId, plan: &Plan) -> Result<(), Failure> {
    if plan.request.kind == Kind::Pv {
        return Ok(());
    }
    context.step(Stage::CheckPagingPool, || {
        if context.xen.paging_pool(domid)? < plan.paging_pool {
            log::info!("the paging pool of domain {domid} shrank while it was built; it is restored");
            set_paging_pool(context, domid, plan.paging_pool)?;
        }
        Ok::<_, Error>(())
    })
}
