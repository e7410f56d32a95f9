//! xenops: `xenops/memory.ml` of the OpenXT toolstack (stable-6), in MiB.

use super::rules::{Extras, Limit, ONE_MIB, Paging, Rules};
use crate::kind::Kind;
use crate::units::Kib;

pub(super) const RULES: Rules = Rules {
    input: ONE_MIB,
    limit: Limit::StaticMax,
    extras,
    paging: PAGING,
    vcpu_overhead: |_| Some(Kib::ZERO),
    shim: None,
    footprint: Kib(1),
};

/// Per MiB: one page for the p2m, and one for the shadows of resident pages.
pub(super) const PAGING: Paging = Paging { per_vcpu: 256, per_mib: |_| 2, unit: ONE_MIB };

/// `HVM_memory_model_data` and `Linux_memory_model_data`. xenops predates PVH; as in xapi, PVH uses the HVM figures.
pub(super) fn extras(kind: Kind) -> Extras {
    match kind {
        Kind::Hvm | Kind::Pvh => Extras { internal: ONE_MIB, external: ONE_MIB, can_start_ballooned_down: true },
        Kind::Pv => Extras { internal: Kib::ZERO, external: ONE_MIB, can_start_ballooned_down: true },
    }
}
