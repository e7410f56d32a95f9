//! What Xen reports of a domain, for comparison with its plan.

use crate::error::Error;
use crate::memory::layout::{FIRST_IOREQ_SERVER_PAGE, IOREQ_SERVER_PAGES, SPECIAL_PAGES};
use crate::memory::{Kib, Kind, Measured, Pages};
use crate::xen::{DomId, Interface, PodPages};

/// Asks Xen for the page counts and the paging pool of a domain.
///
/// # Errors
/// [`Error::NoSuchDomain`] if the domain is gone; an error of Xen.
pub fn measure(xen: &Interface, domid: DomId) -> Result<Measured, Error> {
    let info = xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
    // A PV domain has neither, and Xen returns an error for it.
    let (pool, pod) = match info.kind {
        Kind::Pv => (Kib(0), PodPages::default()),
        Kind::Hvm | Kind::Pvh => (xen.paging_pool(domid)?, xen.pod_pages(domid)?),
    };
    Ok(Measured {
        owned_pages: info.owned_pages,
        max_pages: info.max_pages,
        pod_cache_pages: pod.cache,
        pod_entries: pod.entries,
        paging_pool_kib: pool,
        claimed_pages: info.outstanding_pages,
    })
}

/// The number of pages that exist in the range of an HVM or PVH guest's special pages and ioreq server pages.
#[must_use]
pub fn count_special_pages(xen: &Interface, domid: DomId) -> Pages {
    let there = (0..IOREQ_SERVER_PAGES.0 + SPECIAL_PAGES.0)
        .filter_map(|index| FIRST_IOREQ_SERVER_PAGE.checked_add_pages(Pages(index)))
        .filter(|gfn| xen.has_page(domid, *gfn))
        .count();
    Pages(u64::try_from(there).unwrap_or(0))
}
