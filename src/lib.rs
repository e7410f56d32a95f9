//! Plans, builds and measures Xen domains through Xen's own libraries.
//!
//! The program `dombuild` is made of this library. Another program in dom0 can use its parts:
//!
//! - [`memory`] decides. A [`Plan`](memory::Plan) has the page counts that Xen will report for a guest; it needs no Xen.
//! - [`picture`] draws a plan, for a terminal or as SVG.
//! - [`payload`] reads and checks the files that a guest starts with; [`config`] has its other settings.
//! - [`builder`] carries a plan out in a domain, through the wrappers of libxenctrl, libxenguest and xenstored in [`xen`].
//! - [`domain`] finds and measures domains, whichever toolstack built them.
//! - [`context`] has what every step needs; an [`Observer`](observer::Observer) takes the progress of a run.
//! - [`error`] has the errors, which carry facts and can be matched, and the step at which each happened.
//!
//! # Plan a guest
//!
//! ```
//! use dombuild::memory::{Mib, Plan, Request};
//! use dombuild::picture::text::render;
//!
//! let plan = Plan::new(&Request { vcpus: 2, ..Request::new(Mib(256).to_kib()) })?;
//! println!("{}", render(&plan));
//! assert_eq!(plan.max_pages.0, 65_792);
//! # Ok::<_, dombuild::memory::PlanError>(())
//! ```
//!
//! # Build it, and measure it
//!
//! The domain exists and is empty: its toolstack created it. It stays whatever happens.
//!
//! ```no_run
//! use dombuild::builder::given_domain::build_given_domain;
//! use dombuild::cancel::Cancel;
//! use dombuild::config::guest::Guest;
//! use dombuild::context::Context;
//! use dombuild::domain::measure::measure;
//! use dombuild::memory::{Mib, Plan, Request};
//! use dombuild::observer::Silent;
//! use dombuild::payload::boot_files::FirmwareModules;
//! use dombuild::payload::firmware::FirmwareChoice;
//! use dombuild::payload::read::hvm_boot_files;
//! use dombuild::xen::{DomId, Interface, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let domid = DomId::new(7).ok_or("not a domid")?;
//! let plan = Plan::new(&Request::new(Mib(256).to_kib()))?;
//! let files = hvm_boot_files(&plan, None, &FirmwareChoice::default(), FirmwareModules::default())?;
//! let (xen, store, cancel) = (Interface::open()?, Store::open()?, Cancel::default());
//! let context = Context { xen: &xen, store: &store, observer: &Silent, cancel: &cancel };
//! let built = build_given_domain(&context, domid, &mut Guest::new(plan, files), None)?;
//! println!("{built}");
//! println!("{} pages", measure(&xen, domid)?.owned_pages.0);
//! # Ok(())
//! # }
//! ```
//!
//! A PVH or PV guest's kernel is unpacked by a child without privileges. The caller names its program: see
//! [`Unpacker`](payload::kernel::Unpacker).
//!
//! Modules that this page does not name are the program's own; they change without notice.

#![forbid(unsafe_code)]

pub use dombuild_memory as memory;
pub use dombuild_os as os;
pub use dombuild_xen as xen;

pub mod builder;
pub mod cancel;
#[doc(hidden)]
pub mod cli;
pub mod config;
pub mod context;
#[doc(hidden)]
pub mod devices;
pub mod domain;
pub mod error;
#[doc(hidden)]
pub mod lifecycle;
#[doc(hidden)]
pub mod logging;
#[doc(hidden)]
pub mod migration;
pub mod observer;
pub mod payload;
pub mod picture;
#[doc(hidden)]
pub mod qemu;
#[doc(hidden)]
pub mod runs;
pub mod stage;
