//! The procedure that carries a plan out: pre, hvm, post, and what undoes it.

mod hvm;
mod keys;
mod post;
mod pre;
mod progress;
mod rollback;
mod teardown;

use serde::Serialize;

use crate::cancel::Cancel;
use crate::error::{AtStage, Error, Failure, Stage};
use crate::memory::{Kib, Pages};
use crate::xen::{DomId, Interface, Store};

pub use hvm::{HvmBuildArgs, Rings, hvm_build};
pub use keys::{Keys, check_uuid_free, find_by_name, is_ours};
pub use post::{Identity, build_post, make_skeleton};
pub use pre::{Ports, build_pre};
pub use progress::Progress;
pub use rollback::NewDomain;
pub use teardown::{end_process, teardown};

/// What every step needs: the handles, a way to tell how far it is, and a way to be stopped.
#[derive(Debug)]
pub struct Context<'a> {
    /// libxenctrl.
    pub xen: &'a Interface,
    /// xenstored.
    pub store: &'a Store,
    /// Tells the user.
    pub progress: &'a Progress,
    /// Tells us.
    pub cancel: &'a Cancel,
}

impl Context<'_> {
    /// Runs one step of the procedure under its name, unless the user has asked to stop.
    ///
    /// # Errors
    /// What the step returns, with its name.
    pub fn step<T, E: Into<Error>>(&self, stage: Stage, work: impl FnOnce() -> Result<T, E>) -> Result<T, Failure> {
        self.cancel.check().at(stage)?;
        self.progress.begin(stage);
        work().at(stage)
    }
}

/// What Xen shows of a domain, to be held against its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Pages owned.
    pub owned_pages: Pages,
    /// The most it may own.
    pub max_pages: Pages,
    /// The paging pool.
    pub paging_pool_kib: Kib,
}

/// Asks Xen what a domain has.
///
/// # Errors
/// Where it cannot be asked, or the domain is gone.
pub fn measure(xen: &Interface, domid: DomId) -> Result<Measured, Error> {
    let info = xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
    Ok(Measured {
        owned_pages: info.owned_pages,
        max_pages: info.max_pages,
        paging_pool_kib: Kib(xen.paging_pool(domid)?.0 >> 10),
    })
}
