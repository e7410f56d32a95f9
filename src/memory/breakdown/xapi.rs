//! xapi: `ocaml/xapi-idl/memory/memory.ml` of xen-api. It is xenops' model with two more terms.

use super::rules::{ONE_MIB, Rules};
use super::xenops;
use crate::units::{Kib, Mib, Pages};

pub(super) const RULES: Rules = Rules { vcpu_overhead, shim: Some(shim), ..xenops::RULES };

/// Pages of Xen's memory per vCPU.
const PAGES_PER_VCPU: u64 = 38;
/// The shim's memory for a guest of any size.
const SHIM_BASE: Mib = Mib(23);
/// The shim needs 1 MiB more for each 90 MiB of the guest.
const SHIM_DIVISOR: u64 = 90;

fn vcpu_overhead(vcpus: u32) -> Option<Kib> {
    Pages(PAGES_PER_VCPU.checked_mul(u64::from(vcpus))?).to_kib().round_up(ONE_MIB)
}

/// The memory that Xen's PV shim needs in addition to a guest of `size`.
fn shim(size: Kib) -> Option<Kib> {
    let more = size.get().checked_div(ONE_MIB.get())?.checked_div(SHIM_DIVISOR)?;
    Mib(u32::try_from(more).ok()?).checked_add(SHIM_BASE).map(Mib::to_kib)
}
