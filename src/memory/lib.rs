//! Computes the memory of a Xen domain before the domain is built: sizes, page counts, limits and address layout.
//!
//! The crate does arithmetic only: no FFI, no I/O and no `unsafe`. A [`Plan`] can be printed, drawn, compared and tested
//! on a machine without Xen.
//!
//! ```
//! use dombuild_memory::{Kib, Plan, Request};
//!
//! # fn main() -> Result<(), dombuild_memory::PlanError> {
//! // An HVM guest that starts with 2 GiB and can balloon up to 4 GiB.
//! let request = Request { static_max: Some(Kib(4 << 20)), ..Request::new(Kib(2 << 20)) };
//! let plan = Plan::new(&request)?;
//!
//! println!("{} pages after the build", plan.owned_pages_built.get());
//! println!("{} pages at most", plan.max_pages.get());
//! println!("the host needs {} free", plan.memory.footprint);
//! # assert_eq!(plan.owned_pages_built.get(), (2048 - 16) * 256 - 32 + 16);
//! # assert_eq!(plan.max_pages.get(), 4097 * 256);
//! # Ok(())
//! # }
//! ```
//!
//! - [`units`]: one type per unit, with conversions that name their rounding.
//! - [`size`]: parses sizes such as `4GiB`.
//! - [`kind`]: HVM, PVH or PV.
//! - [`request`]: the input of a plan.
//! - [`limits`]: the limits of a guest's memory and the defaults of a request.
//! - [`reserved`]: regions in which a guest must have no RAM.
//! - [`model`]: the toolstacks whose figures a plan can use.
//! - [`mod@breakdown`]: the breakdown of a domain's memory by those figures.
//! - [`multiplier`]: the factor for the paging pool.
//! - [`layout`]: the guest's physical address space and e820 map.
//! - [`vnuma`]: the NUMA nodes that the guest sees.
//! - [`vnuma_error`]: why it cannot see these.
//! - [`nodes`]: the host's NUMA nodes that its memory goes to.
//! - [`plan`]: breakdown and layout together, with the page counts that Xen reports.
//! - [`mod@balloon`]: limits, targets and completion of a resize.
//! - [`mod@compare`]: the differences between a plan and a running domain.
//! - [`error`]: why a request cannot be planned.
//!
//! The models are those of xenops (`xenops/memory.ml` of the OpenXT toolstack, stable-6), xapi (`memory.ml` of xen-api)
//! and libxl (`tools/libs/light`, Xen 4.17). The layout is libxl's (`libxl_dom.c` and `libxl_x86.c`).

#![forbid(unsafe_code)]

pub mod balloon;
pub mod breakdown;
pub mod compare;
pub mod error;
pub mod kind;
pub mod layout;
pub mod limits;
pub mod model;
pub mod multiplier;
pub mod nodes;
pub mod plan;
pub mod request;
pub mod reserved;
pub mod size;
#[cfg(test)]
mod tests;
pub mod units;
pub mod vnuma;
pub mod vnuma_error;

pub use balloon::{BalloonError, Move, Present};
pub use breakdown::Memory;
pub use compare::{Difference, Measured, NodeFigure, by_node, compare, touched};
pub use error::PlanError;
pub use kind::{Kind, KindError};
pub use layout::{E820Entry, E820Kind, Layout};
pub use model::{Model, ModelError};
pub use multiplier::{ShadowMultiplier, ShadowMultiplierError};
pub use nodes::{HostNode, NodePages, NodeRange};
pub use plan::{Plan, Pod};
pub use request::Request;
pub use reserved::Reserved;
pub use size::SizeError;
pub use units::{Bytes, Gfn, Kib, Mib, PAGE_SIZE, Pages};
pub use vnuma::{Vnode, Vnuma};
pub use vnuma_error::VnumaError;
