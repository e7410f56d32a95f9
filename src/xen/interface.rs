//! The handle of libxenctrl, and the limits of a domain's memory. Its other calls are in `host`, `domain` and `hvm`.

use std::fmt;
use std::ptr::NonNull;

use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, EventPort, ForeignPages, logger};
use crate::memory::{Bytes, Gfn, Kib, Pages};

/// An open `xc_interface`. Not for use after `fork`, and not shared between threads.
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
    /// Opens libxenctrl on the hypervisor.
    ///
    /// # Errors
    /// Where there is no Xen, or the caller may not talk to it.
    pub fn open() -> Result<Self, XenError> {
        // The second one is libxenguest's, which would open a file of its own without it.
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

    /// Sets the most memory that a domain may own.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn set_max_memory(&self, domid: DomId, most: Kib) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_domain_setmaxmem(self.as_raw(), domid.get(), most.0) };
        error::minus_one("xc_domain_setmaxmem", format_args!("domid {domid}, {} KiB", most.0), returned).map(drop)
    }

    /// Sets the size of the paging pool; whole pages.
    ///
    /// # Errors
    /// `ENOMEM` where the host lacks the memory; `EINVAL` for a size that is not whole pages.
    pub fn set_paging_pool(&self, domid: DomId, size: Bytes) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_set_paging_mempool_size(self.as_raw(), domid.get(), size.0) };
        error::minus_one("xc_set_paging_mempool_size", format_args!("domid {domid}, {} bytes", size.0), returned)
            .map(drop)
    }

    /// The size of the paging pool.
    ///
    /// # Errors
    /// Where Xen refuses to tell.
    pub fn paging_pool(&self, domid: DomId) -> Result<Bytes, XenError> {
        let mut size = 0;
        // SAFETY: `size` is a live u64.
        let returned = unsafe { sys::xc_get_paging_mempool_size(self.as_raw(), domid.get(), &raw mut size) };
        error::minus_one("xc_get_paging_mempool_size", format_args!("domid {domid}"), returned)?;
        Ok(Bytes(size))
    }

    /// The PoD cache and the entries not yet backed by it.
    ///
    /// # Errors
    /// Where Xen refuses to tell (not an HVM guest).
    pub fn pod_pages(&self, domid: DomId) -> Result<(Pages, Pages), XenError> {
        let (mut owned, mut cache, mut entries) = (0, 0, 0);
        // SAFETY: the three pointers are to live u64s.
        let returned = unsafe {
            sys::xc_domain_get_pod_target(self.as_raw(), domid.get(), &raw mut owned, &raw mut cache, &raw mut entries)
        };
        error::minus_one("xc_domain_get_pod_target", format_args!("domid {domid}"), returned)?;
        Ok((Pages(cache), Pages(entries)))
    }

    /// Allocates an event channel in `domid` that `remote` may bind to.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn alloc_event_port(&self, domid: DomId, remote: DomId) -> Result<EventPort, XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_evtchn_alloc_unbound(self.as_raw(), domid.get(), remote.get()) };
        error::minus_one("xc_evtchn_alloc_unbound", format_args!("domid {domid}, remote {remote}"), returned)
            .map(EventPort)
    }

    /// Maps `count` frames of a guest from `first` on.
    ///
    /// # Errors
    /// Where one of them is not populated.
    pub fn map(&self, domid: DomId, first: Gfn, count: Pages) -> Result<ForeignPages, XenError> {
        ForeignPages::map(self, domid, first, count)
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn where_there_is_no_xen_the_error_says_so() {
        // A build machine has no Xen; on one that has, there is nothing to see here, and the dom0 tests cover it.
        if std::path::Path::new("/proc/xen/privcmd").exists() || std::path::Path::new("/dev/xen/privcmd").exists() {
            return;
        }
        let error = Interface::open().expect_err("no Xen here");
        assert_eq!(error.call, "xc_interface_open");
        assert_eq!(error.errno, Some(Errno::ENOENT));
        assert!(error.to_string().contains("/dev/xen/privcmd"), "{error}");
        assert!(error.detail.is_some(), "libxc's own message came through our logger");
    }
}
