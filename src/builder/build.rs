//! The build of a guest of any kind into its domain.

use crate::config::guest::Guest;
use crate::context::Context;
use crate::error::{AtStage, Error, Failure};
use crate::memory::Kind;
use crate::payload::boot_files::BootFiles;
use crate::stage::Stage;
use crate::xen::{DirectStart, DomId, HvmModules};

use super::image::BuildResult;
use super::pre::Prepared;
use super::{hvm, pv, pvh};

/// A guest and the domain into which it is built.
pub struct BuildJob<'a> {
    /// The domain. Its limits and vCPUs are set.
    pub domid: DomId,
    /// The guest.
    pub guest: &'a Guest,
    /// What build_pre has returned for the domain.
    pub prepared: &'a Prepared,
    /// Starts the device model, which initialises while memory is populated.
    pub start_device_model: Option<Box<dyn FnOnce() -> Result<(), Failure> + 'a>>,
}

/// Builds a guest of any kind into its domain, and returns the frames of its store and console rings.
///
/// # Errors
/// The step and the call that failed. The domain keeps what was done before that.
pub fn build_guest(context: &Context<'_>, job: BuildJob<'_>) -> Result<BuildResult, Failure> {
    match &job.guest.boot_files {
        BootFiles::Firmware { hvmloader, firmware, modules, .. } => {
            let modules = HvmModules::new(modules.smbios.as_deref(), modules.acpi.as_deref());
            hvm::hvm_build(context, job, hvmloader, firmware, &modules)
        }
        BootFiles::Kernel { kernel, modules, features, start_flags } => {
            let modules: Vec<_> = modules.iter().map(|module| (&module.data, module.cmdline.as_c_str())).collect();
            let start =
                DirectStart { cmdline: &kernel.cmdline, modules: &modules, features, start_flags: *start_flags };
            let build = if job.guest.plan.request.kind == Kind::Pv { pv::pv_build } else { pvh::pvh_build };
            build(context, job, &kernel.data, start)
        }
        BootFiles::Saved { .. } => {
            Err(Error::Internal("a saved guest is restored, not built".to_owned())).at(Stage::ParseImage)
        }
    }
}
