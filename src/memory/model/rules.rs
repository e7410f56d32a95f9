//! What a model has to say, as data: one constant of [`Rules`] for each model.

use crate::kind::Kind;
use crate::units::Kib;

/// The data of a model. [`Memory`](super::Memory) does the sums, the same for all of them.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Sizes that come in are rounded up to a multiple of this; 1 KiB leaves them as they are.
    pub input: Kib,
    /// What Xen's limit is counted from.
    pub limit: Limit,
    /// What comes on top of the guest's own memory.
    pub extras: fn(Kind) -> Extras,
    /// How large the paging pool is.
    pub paging: Paging,
    /// What the number of vCPUs adds to the overhead alone.
    pub vcpu_overhead: fn(u32) -> Option<Kib>,
    /// What Xen's PV shim needs in a guest of a size; `None` where the model does not know the shim.
    pub shim: Option<fn(Kib) -> Option<Kib>>,
    /// The footprint is rounded up to a multiple of this.
    pub footprint: Kib,
}

/// What Xen's limit for a domain is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The most that the guest may balloon up to: it may do so without being asked.
    StaticMax,
    /// What the guest runs with: the limit has to be raised before the guest can balloon up.
    Target,
}

/// What comes on top of the guest's own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extras {
    /// Room under Xen's limit.
    pub internal: Kib,
    /// What Xen allocates outside of it.
    pub external: Kib,
    /// Whether a guest can start with less than it may balloon up to.
    pub can_start_ballooned_down: bool,
}

/// How large a paging pool is.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    /// Pages for each vCPU.
    pub per_vcpu: u64,
    /// Pages for each whole MiB of static max.
    pub per_mib: fn(Kind) -> u64,
    /// The pages are rounded up to a multiple of this before the multiplier is applied, and the product is rounded down
    /// to one, which is also the least.
    pub unit: Kib,
}

/// One MiB, the unit of xenops and xapi.
pub(super) const ONE_MIB: Kib = Kib(1024);
