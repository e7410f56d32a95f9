//! A guest that is saved in a file, or that another host sends.

use std::path::Path;

use serde_json::Value;

use super::configuration::SavedGuest;
use super::libxc_records::Bounds;
use super::saved_file::{CheckJob, CheckedFile};
use super::wire::Wire;
use crate::error::Error;
use crate::memory::{Kib, Kind, Pages, Plan};

/// A guest that is saved in a file, or that another host sends.
#[derive(Debug)]
pub struct Saved {
    /// Its configuration, as it stands there.
    pub configuration: Value,
    /// What bounds its state.
    pub bounds: Bounds,
    /// What the configuration says.
    pub guest: SavedGuest,
    /// The pages that the guest owns. `None` if xl sends it, which does not say so.
    pub pages: Option<Pages>,
    /// Whether the state of QEMU's devices is with it.
    pub has_qemu: bool,
    /// The release of Xen that it comes from, major and minor, if that is known.
    pub xen: Option<(u32, u32)>,
    /// Where its state is.
    pub source: Source,
}

/// Where the state of a saved guest is.
#[derive(Debug)]
pub enum Source {
    /// In a file that was checked completely.
    File(CheckedFile),
    /// It arrives from another host.
    Wire {
        /// The connection.
        wire: Wire,
        /// The bytes that have arrived.
        offset: u64,
    },
}

impl Saved {
    /// Opens a file and checks it. Neither Xen nor the guest's other files are touched.
    ///
    /// # Errors
    /// As [`CheckedFile::open`]; what dombuild cannot give the guest.
    pub fn open(path: &Path, job: &CheckJob<'_>) -> Result<Self, Error> {
        let (checked, mut guest) = CheckedFile::open(path, job, SavedGuest::read)?;
        let has_qemu = checked.state.emulator.is_some();
        guest.request.device_model = has_qemu;
        Ok(Self {
            configuration: checked.configuration.clone(),
            bounds: checked.outline.bounds(),
            guest,
            pages: Some(checked.state.libxc.pages),
            has_qemu,
            xen: Some(checked.state.libxc.xen),
            source: Source::File(checked),
        })
    }

    /// Whether an HVM guest's drivers may route emulated interrupts over event channels. Where the configuration does not say it,
    /// libxl lets them, because every guest could before Xen 4.19; dombuild's guests on later releases cannot.
    #[must_use]
    pub fn has_pirqs(&self) -> bool {
        self.guest.pirqs.unwrap_or(!self.guest.ours || self.xen.is_some_and(|xen| xen < (4, 19)))
    }

    /// The plan of the restored guest: that of its configuration, with the pages that it owns.
    ///
    /// # Errors
    /// If the sizes in the configuration make no guest.
    pub fn plan(&self) -> Result<Plan, Error> {
        let guest = &self.guest;
        let mut plan = Plan::new(&guest.request)?;
        // A guest that xl sends owns at most what xl lets it own.
        let pages = self.pages.unwrap_or(plan.max_pages);
        let more = |size: Kib, than: Kib| Kib(size.0.saturating_sub(than.0));
        let mut beyond = more(pages.to_kib(), plan.memory.target);
        if let Some(pool) = guest.paging_pool {
            beyond = Kib(beyond.0 + more(pool, plan.paging_pool).0);
            plan.paging_pool = pool;
        }
        plan.memory.footprint = Kib(plan.memory.footprint.0.saturating_add(beyond.0));
        // What is not populated is not sent. The target of an HVM guest's balloon driver keeps its 1 MiB.
        plan.pod = None;
        plan.memory.populate_on_demand &= guest.request.kind == Kind::Hvm;
        (plan.owned_pages_built, plan.owned_pages_running) = (pages, pages);
        // A guest whose balloon driver is behind owns more than its target.
        if pages > plan.max_pages {
            (plan.max_pages, plan.memory.xen_max) = (pages, pages.to_kib());
        }
        Ok(plan)
    }
}
