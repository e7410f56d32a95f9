//! The procedure that carries a plan out: pre, hvm, post, and what undoes it.

mod acpi;
mod balloon;
mod claim;
mod cpuid;
mod dom0_memory;
mod handover;
mod helpers;
mod host_memory;
mod hvm;
mod image;
mod keys;
mod ledger;
mod leftovers;
mod locks;
mod measure;
mod platform;
mod populate;
mod post;
mod pre;
mod progress;
mod pv;
mod pvh;
mod record;
mod rollback;
mod shortage;
mod teardown;
mod zombie;

use crate::cancel::Cancel;
use crate::config::{Guest, Payload};
use crate::error::{AtStage, Error, Failure, Stage};
use crate::memory::Kind;
use crate::xen::{DirectStart, DomId, HvmModules, Interface, Store};

pub use balloon::balloon;
pub use claim::give_back_claim;
pub use dom0_memory::{dom0_memory, may_shrink_dom0};
pub use handover::{write_hole, write_modules};
pub use helpers::{Ending, LIMITS, cgroup_name, make_cgroup};
pub use host_memory::free_memory;
pub use image::{Rings, check_paging_pool, check_room, check_width, device_memory};
pub use keys::{Keys, check_uuid_free, find_by_name, has_keys, is_ours, mark_of, name_owner};
pub use ledger::{Recorded, RunVerb, forget_dead, is_recorded};
pub use leftovers::{Leftover, What, clean_up};
pub use measure::{count_special_pages, measure};
pub use platform::{set_platform, set_scheduling};
pub use populate::populates_before;
pub use post::{Identity, build_post, digit, make_skeleton};
pub use pre::{Ports, build_pre};
pub use progress::Progress;
pub use record::{Origin, fitting_origin};
pub use rollback::NewDomain;
pub use shortage::shortage;
pub use teardown::{remove_file, remove_unknown, teardown};

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
        let running = self.progress.begin(stage);
        let value = work().map_err(|error| self.cancel.explain(error.into())).at(stage)?;
        running.done();
        Ok(value)
    }
}

/// A guest, and where it is built.
pub struct BuildJob<'a> {
    /// The domain, which has its limits and vCPUs.
    pub domid: DomId,
    /// What is built.
    pub guest: &'a Guest,
    /// The event channels of its rings.
    pub ports: Ports,
    /// Starts what gets ready while memory is populated.
    pub beside: Option<Box<dyn FnOnce() -> Result<(), Failure> + 'a>>,
}

/// Builds a guest of any kind into its domain, and returns the frames of its store and console rings.
///
/// # Errors
/// The step and the call that failed. The domain is left as far as it came.
pub fn build_guest(context: &Context<'_>, job: BuildJob<'_>) -> Result<Rings, Failure> {
    match &job.guest.payload {
        Payload::Firmware { hvmloader, firmware, modules, .. } => {
            let modules = HvmModules::new(modules.smbios.as_deref(), modules.acpi.as_deref());
            hvm::hvm_build(context, job, hvmloader, firmware, &modules)
        }
        Payload::Kernel { kernel, modules, features, start_flags } => {
            let modules: Vec<_> = modules.iter().map(|module| (&module.data, module.cmdline.as_c_str())).collect();
            let start =
                DirectStart { cmdline: &kernel.cmdline, modules: &modules, features, start_flags: *start_flags };
            let build = if job.guest.plan.request.kind == Kind::Pv { pv::pv_build } else { pvh::pvh_build };
            build(context, job, &kernel.data, start)
        }
    }
}
