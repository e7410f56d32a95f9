//! The memory model: what a domain is given, decided before Xen is asked for anything.
//!
//! Everything here is arithmetic on values. There is no FFI, no I/O and no `unsafe`, so a plan can be printed, drawn,
//! compared and tested on a machine without Xen; the builder then carries out what the plan says.
//!
//! - [`units`]: one type per unit, and conversions that say how they round.
//! - [`size`]: sizes as people write them on a command line.
//! - [`kind`]: HVM, PVH or PV.
//! - [`request`]: what is asked for, and the limits of that.
//! - [`model`]: from a [`Request`] to the breakdown of a domain's memory, by the numbers of one of several toolstacks.
//! - [`multiplier`]: the factor for the paging pool.
//! - [`layout`]: where that memory stands in the guest's physical address space.
//! - [`plan`]: both together, with the page counts that Xen will report.
//! - [`mod@balloon`]: how a guest is moved to another size.
//! - [`mod@compare`]: a plan held against what Xen shows.
//! - [`error`]: why a request cannot become a plan.
//!
//! The models are those of xenops (`xenops/memory.ml` of the OpenXT toolstack, stable-6), of xapi (the younger
//! `memory.ml` of xen-api) and of libxl (`tools/libs/light`, Xen 4.17); the layout is the one that libxl makes
//! (`libxl_dom.c` and `libxl_x86.c` there).

#![forbid(unsafe_code)]

pub mod balloon;
pub mod compare;
pub mod error;
pub mod kind;
pub mod layout;
pub mod model;
pub mod multiplier;
pub mod plan;
pub mod request;
pub mod size;
#[cfg(test)]
mod tests;
pub mod units;

pub use balloon::{BalloonError, Move, Present};
pub use compare::{Difference, Measured, compare, touched};
pub use error::PlanError;
pub use kind::{Kind, KindError};
pub use layout::{E820Entry, E820Kind, Layout, Reserved};
pub use model::{Memory, Model, ModelError};
pub use multiplier::{ShadowMultiplier, ShadowMultiplierError};
pub use plan::{Plan, Pod};
pub use request::Request;
pub use size::SizeError;
pub use units::{Bytes, Gfn, Kib, Mib, PAGE_SIZE, Pages};
