//! The memory model: what a domain is given, decided before Xen is asked for anything.
//!
//! Everything here is arithmetic on values. There is no FFI, no I/O and no `unsafe`, so a plan can be printed, drawn,
//! compared and tested on a machine without Xen; the builder then carries out what the plan says.
//!
//! - [`units`]: one type per unit, and conversions that say how they round.
//! - [`size`]: sizes as people write them on a command line.
//! - [`model`]: from a [`Request`] to the breakdown of a domain's memory.
//! - [`multiplier`]: the factor for the paging pool.
//! - [`layout`]: where that memory stands in the guest's physical address space.
//! - [`plan`]: both together, with the page counts that Xen will report.
//! - [`error`]: why a request cannot become a plan.
//! - [`picture`]: a plan as a drawing for the terminal.
//!
//! The model is the HVM one of xenops (`xenops/memory.ml` of the OpenXT toolstack, stable-6); the layout is the one that
//! libxl makes (`tools/libs/light/libxl_dom.c` and `libxl_x86.c`, Xen 4.17).

pub mod error;
pub mod layout;
pub mod model;
pub mod multiplier;
pub mod picture;
pub mod plan;
pub mod size;
pub mod units;

pub use error::PlanError;
pub use layout::{E820Entry, E820Kind, Layout};
pub use model::{Memory, Request};
pub use multiplier::{ShadowMultiplier, ShadowMultiplierError};
pub use picture::render;
pub use plan::Plan;
pub use size::SizeError;
pub use units::{Bytes, Gfn, Kib, Mib, PAGE_SIZE, Pages};
