//! The figures of a model, as data: one constant of [`Rules`] per model.

use crate::kind::Kind;
use crate::units::Kib;

/// The figures of a model. [`Memory`](super::Memory) computes the sums.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Sizes of the request are rounded up to a multiple of this.
    pub input: Kib,
    /// The base of Xen's limit.
    pub limit: Limit,
    /// The memory in addition to the guest's own.
    pub extras: fn(Kind) -> Extras,
    /// The size of the paging pool.
    pub paging: Paging,
    /// The overhead of this many vCPUs; `None` if it does not fit.
    pub vcpu_overhead: fn(u32) -> Option<Kib>,
    /// What Xen's PV shim needs for a guest of this size; `None` if the model has no shim.
    pub shim: Option<fn(Kib) -> Option<Kib>>,
    /// The footprint is rounded up to a multiple of this.
    pub footprint: Kib,
}

/// The base of Xen's limit for a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Static max: the guest can balloon up without a change of the limit.
    StaticMax,
    /// The target: the toolstack raises the limit before the guest balloons up.
    Target,
}

/// The memory in addition to the guest's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extras {
    /// Room under Xen's limit.
    pub internal: Kib,
    /// What Xen allocates outside that limit.
    pub external: Kib,
    /// Whether a guest can start with less than static max.
    pub can_start_ballooned_down: bool,
}

/// The size of a paging pool.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    /// Pages for each vCPU.
    pub per_vcpu: u64,
    /// Pages for each whole MiB of static max.
    pub per_mib: fn(Kind) -> u64,
    /// The pages are rounded up to a multiple of this, multiplied by the factor, and rounded down to a multiple of
    /// this, at least one.
    pub unit: Kib,
}

/// One MiB, the unit of xenops and xapi.
pub(super) const ONE_MIB: Kib = Kib(1024);
