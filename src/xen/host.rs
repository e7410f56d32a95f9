//! The host: version, memory and abilities of the hypervisor.

use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_int, c_uint};

use serde::Serialize;
use xen_sys as sys;

use super::Interface;
use super::error::{self, XenError};
use dombuild_memory::{Kib, Pages};

/// Memory and abilities of the host (`XEN_SYSCTL_physinfo`).
#[derive(Debug, Clone, Serialize)]
pub struct PhysInfo {
    /// The memory that Xen manages.
    pub total_kib: Kib,
    /// Free memory, including claimed memory.
    pub free_kib: Kib,
    /// Free memory that is claimed for domains still being built.
    pub claimed_kib: Kib,
    /// Xen can run HVM guests.
    pub hvm: bool,
    /// Xen can run PV guests.
    pub pv: bool,
    /// PCI devices can be assigned to guests.
    pub directio: bool,
    /// Hardware-assisted paging is available.
    pub hap: bool,
    /// Shadow paging is available.
    pub shadow: bool,
    /// Grant table version 2 is available.
    pub grant_v2: bool,
    /// Xen can trace what the CPU does in a guest.
    pub vmtrace: bool,
}

impl PhysInfo {
    /// Free memory that is not claimed.
    #[must_use]
    pub fn available(&self) -> Kib {
        Kib(self.free_kib.0.saturating_sub(self.claimed_kib.0))
    }
}

/// The output of `xc_version`.
#[derive(Debug, Clone, Serialize)]
pub struct VersionInfo {
    /// The version, for example `4.17.7`.
    pub version: String,
    /// The supported guest types, for example `hvm-3.0-x86_64`.
    pub capabilities: Vec<String>,
    /// The hypervisor's command line.
    pub command_line: String,
}

impl Interface {
    /// Reads the hypervisor's version, capabilities and command line.
    ///
    /// # Errors
    /// If `xc_version` fails.
    pub fn version(&self) -> Result<VersionInfo, XenError> {
        // SAFETY: XENVER_version takes no argument.
        let number = error::minus_one("xc_version", format_args!("XENVER_version"), unsafe {
            sys::xc_version(self.as_raw(), as_c_int(sys::XENVER_version), std::ptr::null_mut())
        })?;
        let extra = self.version_text(sys::XENVER_extraversion)?;
        let capabilities = self.version_text(sys::XENVER_capabilities)?;
        Ok(VersionInfo {
            version: format!("{}.{}{extra}", number >> 16, number & 0xffff),
            capabilities: capabilities.split_whitespace().map(str::to_owned).collect(),
            command_line: self.version_text(sys::XENVER_commandline)?,
        })
    }

    /// The NUMA node of each CPU of the host, by the CPU's number; `None` for a number without a CPU
    /// (`XEN_SYSCTL_cputopoinfo`).
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn cpu_nodes(&self) -> Result<Vec<Option<u32>>, XenError> {
        const CALL: &str = "xc_cputopoinfo";
        /// `XEN_INVALID_NODE_ID` (xen/include/public/sysctl.h).
        const NONE: u32 = u32::MAX;
        let mut count: c_uint = 0;
        // SAFETY: without an array, the call returns the number of CPUs; `count` is live.
        let returned = unsafe { sys::xc_cputopoinfo(self.as_raw(), &raw mut count, std::ptr::null_mut()) };
        error::minus_one(CALL, format_args!("number of CPUs"), returned)?;
        let mut all = vec![sys::xc_cputopo_t::default(); usize::try_from(count).unwrap_or(0)];
        // SAFETY: the array has `count` entries, of the type that the call fills.
        let returned = unsafe { sys::xc_cputopoinfo(self.as_raw(), &raw mut count, all.as_mut_ptr()) };
        error::minus_one(CALL, format_args!("{} CPUs", all.len()), returned)?;
        all.truncate(usize::try_from(count).unwrap_or(0));
        Ok(all.iter().map(|cpu| Some(cpu.node).filter(|node| *node != NONE)).collect())
    }

    fn version_text(&self, command: u32) -> Result<String, XenError> {
        // The longest of these (`xen_capabilities_info_t`, `xen_commandline_t`) has 1024 bytes.
        let mut buffer: [c_char; 2048] = [0; 2048];
        // SAFETY: the buffer is larger than any XENVER string type, and the last byte stays 0.
        error::minus_one("xc_version", format_args!("{command}"), unsafe {
            sys::xc_version(self.as_raw(), as_c_int(command), buffer.as_mut_ptr().cast())
        })?;
        // SAFETY: the buffer was zeroed and is longer than what Xen writes, so it ends with a NUL.
        Ok(unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// Reads the host's memory and abilities.
    ///
    /// # Errors
    /// If `xc_physinfo` fails.
    pub fn physinfo(&self) -> Result<PhysInfo, XenError> {
        let mut info = sys::xc_physinfo_t::default();
        // SAFETY: `info` is a valid struct of the type that the call fills.
        error::minus_one("xc_physinfo", format_args!(""), unsafe { sys::xc_physinfo(self.as_raw(), &raw mut info) })?;
        let has = |bit: u32| info.capabilities & bit != 0;
        Ok(PhysInfo {
            total_kib: Pages(info.total_pages).to_kib(),
            free_kib: Pages(info.free_pages).to_kib(),
            claimed_kib: Pages(info.outstanding_pages).to_kib(),
            hvm: has(sys::XEN_SYSCTL_PHYSCAP_hvm),
            pv: has(sys::XEN_SYSCTL_PHYSCAP_pv),
            directio: has(sys::XEN_SYSCTL_PHYSCAP_directio),
            hap: has(sys::XEN_SYSCTL_PHYSCAP_hap),
            shadow: has(sys::XEN_SYSCTL_PHYSCAP_shadow),
            grant_v2: has(sys::XEN_SYSCTL_PHYSCAP_gnttab_v2),
            vmtrace: has(sys::XEN_SYSCTL_PHYSCAP_vmtrace),
        })
    }

    /// The FLASK security ID of a label such as `system_u:system_r:domU_t`.
    ///
    /// # Errors
    /// `ENOSYS` if Xen has no FLASK; `EINVAL` for a label that the policy does not know.
    pub fn security_id(&self, label: &str) -> Result<u32, XenError> {
        let text = CString::new(label)
            .map_err(|_| XenError::unexpected("xc_flask_context_to_sid", label.to_owned(), "contains NUL".into()))?;
        let length = u32::try_from(label.len()).unwrap_or(u32::MAX);
        let mut sid = 0;
        // SAFETY: `text` has `length` bytes before its NUL, and the call only reads them.
        let returned =
            unsafe { sys::xc_flask_context_to_sid(self.as_raw(), text.as_ptr().cast_mut(), length, &raw mut sid) };
        error::minus_one("xc_flask_context_to_sid", format_args!("{label:?}"), returned)?;
        Ok(sid)
    }
}

/// A small constant of `xc_version` as C's `int`.
fn as_c_int(number: u32) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}
