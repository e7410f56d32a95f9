//! The handle of libxenctrl, and calls about a domain's memory. Other calls are in `host`, `domain` and `hvm`.

use std::fmt;
use std::ptr::NonNull;

use nix::errno::Errno;
use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, EventPort, ForeignPages, FromNode, logger};
use dombuild_memory::layout::Extents;
use dombuild_memory::{Bytes, Gfn, Kib, Pages};

/// The PoD counts of a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodPages {
    /// The pages that the domain owns and Xen has not placed yet.
    pub cache: Pages,
    /// The frames that are not populated yet.
    pub entries: Pages,
}

/// How [`Interface::populate`] gets memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PopulateMode {
    /// From the nodes of the domain's affinity in turn, then from the others.
    AnyNode,
    /// From one node.
    Node(FromNode),
    /// Later, when the guest touches it.
    OnDemand,
}

/// An open `xc_interface`. It must not be used after `fork` or shared between threads.
pub struct Interface {
    raw: NonNull<sys::xc_interface>,
}

impl fmt::Debug for Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Interface")
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // SAFETY: `raw` came from xc_interface_open and is closed here, once.
        let returned = unsafe { sys::xc_interface_close(self.raw.as_ptr()) };
        log::debug!("xc_interface_close() = {returned}");
    }
}

impl Interface {
    /// Opens libxenctrl.
    ///
    /// # Errors
    /// If Xen is not running, or the caller lacks the right to use it.
    pub fn open() -> Result<Self, XenError> {
        // The second logger is for libxenguest, which would otherwise open a log file.
        let logger = logger::callbacks();
        // SAFETY: the callbacks are static, and libxc only reads them.
        let raw = error::pointer("xc_interface_open", format_args!(""), unsafe {
            sys::xc_interface_open(logger, logger, 0)
        })?;
        Ok(Self { raw })
    }

    pub(super) fn as_raw(&self) -> *mut sys::xc_interface {
        self.raw.as_ptr()
    }

    /// Sets the limit of a domain's memory.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn set_max_memory(&self, domid: DomId, most: Kib) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_setmaxmem(self.as_raw(), domid.get(), most.0) };
        error::minus_one("xc_domain_setmaxmem", format_args!("domid {domid}, {} KiB", most.0), returned).map(drop)
    }

    /// Claims free memory for a domain. `total` is the number of pages that it will own; Xen reserves those that it
    /// does not own yet. 0 cancels the claim.
    ///
    /// # Errors
    /// `ENOMEM` if the host lacks unclaimed pages; `EINVAL` if the domain has a claim, owns `total` pages already, or
    /// may not own `total` (`domain_set_outstanding_pages`, xen/common/page_alloc.c, Xen 4.17).
    pub fn claim(&self, domid: DomId, total: Pages) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_claim_pages(self.as_raw(), domid.get(), total.0) };
        error::minus_one("xc_domain_claim_pages", format_args!("domid {domid}, {} pages", total.0), returned).map(drop)
    }

    /// Populates extents of an HVM or PVH domain, or marks them as PoD. Returns the number of leading extents that
    /// succeeded: fewer than requested if the host or the node lacks pages of that size, or the domain may not own more.
    ///
    /// # Errors
    /// If Xen refuses the first extent. `EBUSY`, as from `xc_domain_populate_physmap_exact`, if not all of a set of
    /// single pages are populated, unless they must come from one node.
    pub fn populate(&self, domid: DomId, extents: Extents, mode: PopulateMode) -> Result<u64, XenError> {
        let Extents { first, order, count } = extents;
        let mut frames: Vec<_> = (0..count).map(|index| first.0.saturating_add(extents.pages(index).0)).collect();
        let flags = match mode {
            PopulateMode::AnyNode => 0,
            PopulateMode::Node(from) => from.flags(),
            PopulateMode::OnDemand => sys::XENMEMF_populate_on_demand,
        };
        let arguments = format!("domid {domid}, {count} extents of order {order} from gfn {:#x} on", first.0);
        // SAFETY: libxc reads and writes `count` frames, the length of the array.
        let returned = unsafe {
            sys::xc_domain_populate_physmap(self.as_raw(), domid.get(), count, order, flags, frames.as_mut_ptr())
        };
        let done =
            error::minus_one("xc_domain_populate_physmap", format_args!("{arguments}"), returned).map(u64::from)?;
        let exact = matches!(mode, PopulateMode::Node(FromNode { exact: true, .. }));
        if done < count && order == 0 && !exact {
            let detail = Some(format!("{done} were populated"));
            return Err(XenError { call: "xc_domain_populate_physmap", arguments, errno: Some(Errno::EBUSY), detail });
        }
        Ok(done)
    }

    /// Sets the paging pool of an HVM or PVH domain, in whole pages.
    ///
    /// # Errors
    /// `ENOMEM` if the host lacks the memory; `EINVAL` for a size that is not whole pages.
    pub fn set_paging_pool(&self, domid: DomId, size: Kib) -> Result<(), XenError> {
        let bytes = size.to_bytes().unwrap_or(Bytes(u64::MAX)).0;
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_set_paging_mempool_size(self.as_raw(), domid.get(), bytes) };
        error::minus_one("xc_set_paging_mempool_size", format_args!("domid {domid}, {bytes} bytes"), returned).map(drop)
    }

    /// Reads the size of the paging pool of an HVM or PVH domain.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn paging_pool(&self, domid: DomId) -> Result<Kib, XenError> {
        let mut size = 0;
        // SAFETY: `size` is a live u64.
        let returned = unsafe { sys::xc_get_paging_mempool_size(self.as_raw(), domid.get(), &raw mut size) };
        error::minus_one("xc_get_paging_mempool_size", format_args!("domid {domid}"), returned)?;
        Ok(Kib(size / 1024))
    }

    /// Reads the PoD counts.
    ///
    /// # Errors
    /// If the hypercall fails, as for a PV guest.
    pub fn pod_pages(&self, domid: DomId) -> Result<PodPages, XenError> {
        let (mut owned, mut cache, mut entries) = (0, 0, 0);
        // SAFETY: the three pointers are to live u64s.
        let returned = unsafe {
            sys::xc_domain_get_pod_target(self.as_raw(), domid.get(), &raw mut owned, &raw mut cache, &raw mut entries)
        };
        error::minus_one("xc_domain_get_pod_target", format_args!("domid {domid}"), returned)?;
        Ok(PodPages { cache: Pages(cache), entries: Pages(entries) })
    }

    /// Sets the pages that an HVM or PVH domain may own while it is populated on demand; Xen fills the cache up to it.
    /// Without PoD entries, or for a target below the owned pages, Xen does nothing (`p2m_pod_set_mem_target`,
    /// xen/arch/x86/mm/p2m-pod.c, Xen 4.17).
    ///
    /// # Errors
    /// `EINVAL` if the target is above the domain's limit; `ENOMEM`.
    pub fn set_pod_target(&self, domid: DomId, target: Pages) -> Result<(), XenError> {
        let none = std::ptr::null_mut();
        // SAFETY: null pointers omit the three results.
        let returned = unsafe { sys::xc_domain_set_pod_target(self.as_raw(), domid.get(), target.0, none, none, none) };
        error::minus_one("xc_domain_set_pod_target", format_args!("domid {domid}, {} pages", target.0), returned)
            .map(drop)
    }

    /// Reads the frames of a domain's grant table: current and maximum.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn grant_frames(&self, domid: DomId) -> Result<(u32, u32), XenError> {
        let mut query =
            sys::gnttab_query_size { dom: u16::try_from(domid.get()).unwrap_or(u16::MAX), ..Default::default() };
        // SAFETY: `query` is a live struct of the type that the call reads and fills.
        let returned = unsafe { sys::xc_gnttab_query_size(self.as_raw(), &raw mut query) };
        error::minus_one("xc_gnttab_query_size", format_args!("domid {domid}"), returned)?;
        // The call succeeds even if the query fails.
        if i32::from(query.status) != sys::GNTST_okay.cast_signed() {
            let detail = format!("answered with status {}", query.status);
            return Err(XenError::unexpected("xc_gnttab_query_size", format!("domid {domid}"), detail));
        }
        Ok((query.nr_frames, query.max_nr_frames))
    }

    /// Allocates an event channel in `domid` to which `remote` may bind.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn alloc_event_port(&self, domid: DomId, remote: DomId) -> Result<EventPort, XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_evtchn_alloc_unbound(self.as_raw(), domid.get(), remote.get()) };
        error::minus_one("xc_evtchn_alloc_unbound", format_args!("domid {domid}, remote {remote}"), returned)
            .map(EventPort)
    }

    /// Maps `count` frames of a guest from `first`.
    ///
    /// # Errors
    /// If a frame is not populated.
    pub fn map(&self, domid: DomId, first: Gfn, count: Pages) -> Result<ForeignPages, XenError> {
        ForeignPages::map(self, domid, first, count, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Whether a frame of a guest is populated.
    #[must_use]
    pub fn has_page(&self, domid: DomId, gfn: Gfn) -> bool {
        ForeignPages::map(self, domid, gfn, Pages(1), libc::PROT_READ).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn where_there_is_no_xen_the_error_says_so() {
        // On a machine with Xen there is nothing to test; the dom0 tests cover it.
        if std::path::Path::new("/proc/xen/privcmd").exists() || std::path::Path::new("/dev/xen/privcmd").exists() {
            return;
        }
        let error = Interface::open().expect_err("no Xen here");
        assert_eq!(error.call, "xc_interface_open");
        assert_eq!(error.errno, Some(Errno::ENOENT));
        assert!(error.to_string().starts_with("xc_interface_open() failed: ENOENT (2): "), "{error}");
        assert!(error.detail.is_some(), "libxc's own message came through our logger");
    }
}
