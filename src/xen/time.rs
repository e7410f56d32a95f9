//! Clocks of a guest.

use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, Interface};

impl Interface {
    /// Sets the TSC mode: 0 default, 1 always emulated, 2 never emulated.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn set_tsc_mode(&self, domid: DomId, mode: u32) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_set_tsc_info(self.as_raw(), domid.get(), mode, 0, 0, 0) };
        error::minus_one("xc_domain_set_tsc_info", format_args!("domid {domid}, mode {mode}"), returned).map(drop)
    }

    /// Reads the TSC mode.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn tsc_mode(&self, domid: DomId) -> Result<u32, XenError> {
        let (mut mode, mut elapsed, mut khz, mut incarnation) = (0, 0, 0, 0);
        // SAFETY: the four pointers are to live integers of the types that the call fills.
        let returned = unsafe {
            sys::xc_domain_get_tsc_info(
                self.as_raw(),
                domid.get(),
                &raw mut mode,
                &raw mut elapsed,
                &raw mut khz,
                &raw mut incarnation,
            )
        };
        error::minus_one("xc_domain_get_tsc_info", format_args!("domid {domid}"), returned)?;
        Ok(mode)
    }

    /// Sets the offset of the guest's wall clock and RTC from the host's, in seconds.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn set_time_offset(&self, domid: DomId, seconds: i32) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_set_time_offset(self.as_raw(), domid.get(), seconds) };
        error::minus_one("xc_domain_set_time_offset", format_args!("domid {domid}, {seconds} s"), returned).map(drop)
    }
}
