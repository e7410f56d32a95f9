//! libxl: `tools/libs/light` of Xen 4.17 and later, in KiB.
//!
//! The footprint is what `libxl_domain_need_memory` tells (`libxl_mem.c`), the limit what `libxl__build_pre` sets
//! (`libxl_dom.c`). Memory for the IOMMU's own page tables, which libxl counts where a guest with PCI devices does not
//! share them with the CPU's, is no part of it: sharing them is the default.

use super::rules::{Extras, Limit, Paging, Rules};
use crate::kind::Kind;
use crate::units::Kib;

pub(super) const RULES: Rules = Rules {
    input: Kib(1),
    limit: Limit::Target,
    extras,
    paging: Paging { per_vcpu: 256, per_mib: paging_pages_per_mib, unit: Kib(4) },
    vcpu_overhead: |_| Some(Kib::ZERO),
    // The shim lives on the guest's own memory: libxl builds a guest of the same size with it and without.
    shim: Some(|_| Some(Kib::ZERO)),
    footprint: Kib(2048),
};

/// What the limit is above the target (`LIBXL_MAXMEM_CONSTANT`), whatever the kind.
const MAXMEM_CONSTANT: Kib = Kib(1024);
/// What an HVM or PVH guest needs beside its target and its paging pool (`LIBXL_HVM_EXTRA_MEMORY`, 2048 KiB), less the part
/// that is under the limit; a PV guest's (`LIBXL_PV_EXTRA_MEMORY`, 1024 KiB) is all under the limit.
const OUTSIDE_LIMIT: Kib = Kib(1024);

fn extras(kind: Kind) -> Extras {
    let external = if kind.is_translated() { OUTSIDE_LIMIT } else { Kib::ZERO };
    Extras { internal: MAXMEM_CONSTANT, external, can_start_ballooned_down: true }
}

/// One page for the p2m of a guest that has one, and one for shadow page tables where the hardware does not translate
/// (`libxl__get_required_paging_memory`, `libxl_create.c`): a PV guest may need those while it is migrated.
fn paging_pages_per_mib(kind: Kind) -> u64 {
    let hardware_assisted = kind.is_translated();
    u64::from(kind.is_translated()) + u64::from(!hardware_assisted)
}
