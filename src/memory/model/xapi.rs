//! xapi: `ocaml/xapi-idl/memory/memory.ml` of today's xen-api. It is xenops' model with two more terms.

use super::rules::{ONE_MIB, Rules};
use super::xenops;
use crate::units::{Kib, Mib, Pages};

pub(super) const RULES: Rules = Rules { vcpu_overhead, shim: Some(shim), ..xenops::RULES };

/// Pages that a vCPU takes of Xen's own memory.
const PAGES_PER_VCPU: u64 = 38;
/// What the shim takes of any guest.
const SHIM_BASE: Mib = Mib(23);
/// For so many MiB of the guest the shim takes one more.
const SHIM_DIVISOR: u64 = 90;

fn vcpu_overhead(vcpus: u32) -> Option<Kib> {
    Pages(PAGES_PER_VCPU.checked_mul(u64::from(vcpus))?).to_kib().round_up(ONE_MIB)
}

/// What Xen's PV shim needs beside a guest of `size`, which it hands on whole.
fn shim(size: Kib) -> Option<Kib> {
    let more = size.get().checked_div(ONE_MIB.get())?.checked_div(SHIM_DIVISOR)?;
    Mib(u32::try_from(more).ok()?).checked_add(SHIM_BASE).map(Mib::to_kib)
}
