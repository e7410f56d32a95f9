//! libxl: `tools/libs/light` of Xen 4.17 and later, in KiB.
//!
//! The footprint is that of `libxl_domain_need_memory` (`libxl_mem.c`), the limit that of `libxl__build_pre`
//! (`libxl_dom.c`). libxl also counts memory for separate IOMMU page tables of guests with PCI devices; this model does
//! not, because sharing the CPU's tables is the default.

use super::rules::{Extras, Limit, Paging, Rules};
use crate::kind::Kind;
use crate::units::Kib;

pub(super) const RULES: Rules = Rules {
    input: Kib(1),
    limit: Limit::Target,
    extras,
    paging: Paging { per_vcpu: 256, per_mib: paging_pages_per_mib, unit: Kib(4) },
    vcpu_overhead: |_| Some(Kib::ZERO),
    // The shim uses the guest's own memory: libxl builds a guest of the same size with and without it.
    shim: Some(|_| Some(Kib::ZERO)),
    footprint: Kib(2048),
};

/// The limit less the target (`LIBXL_MAXMEM_CONSTANT`), for every kind.
const MAXMEM_CONSTANT: Kib = Kib(1024);
/// What an HVM or PVH guest needs in addition to its target and paging pool (`LIBXL_HVM_EXTRA_MEMORY`, 2048 KiB), less
/// the part under the limit. For a PV guest (`LIBXL_PV_EXTRA_MEMORY`, 1024 KiB) all of it is under the limit.
const MEMORY_OUTSIDE_LIMIT: Kib = Kib(1024);

fn extras(kind: Kind) -> Extras {
    let external = if kind.is_translated() { MEMORY_OUTSIDE_LIMIT } else { Kib::ZERO };
    Extras { internal: MAXMEM_CONSTANT, external, can_start_ballooned_down: true }
}

/// One page for the p2m of an HVM or PVH guest. One page for shadow page tables of a PV guest, which migration needs
/// (`libxl__get_required_paging_memory`, `libxl_create.c`).
fn paging_pages_per_mib(kind: Kind) -> u64 {
    let hardware_assisted = kind.is_translated();
    u64::from(kind.is_translated()) + u64::from(!hardware_assisted)
}
