//! CPU affinity, CPU pools and scheduling weights of domains.

use std::os::raw::c_int;

use nix::errno::Errno;
use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, Interface};

/// A scheduler with weights and caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// The older scheduler, credit.
    Credit,
    /// Xen's default since 4.12.
    Credit2,
}

/// An affinity of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// The CPUs that it may run on.
    Hard,
    /// Of these, the ones on which it runs by preference.
    Soft,
}

impl Interface {
    /// The number of bytes in a CPU map of the host.
    ///
    /// # Errors
    /// If the hypercall fails.
    fn cpu_map_size(&self) -> Result<usize, XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_get_cpumap_size(self.as_raw()) };
        let size = error::minus_one("xc_get_cpumap_size", format_args!(""), returned)?;
        Ok(usize::try_from(size).unwrap_or(0))
    }

    /// The CPUs of a CPU pool, one bit each; `None` if there is no such pool. Xen returns the first pool whose number
    /// is not lower (`XEN_SYSCTL_CPUPOOL_OP_INFO`, xen/common/sched/cpupool.c, Xen 4.17).
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn pool_cpus(&self, pool: u32) -> Result<Option<Vec<u8>>, XenError> {
        let size = self.cpu_map_size()?;
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let info = unsafe { sys::xc_cpupool_getinfo(self.as_raw(), pool) };
        let info = match error::pointer("xc_cpupool_getinfo", format_args!("pool {pool}"), info) {
            Ok(info) => info,
            Err(error) if error.errno == Some(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: the call returned a struct that the caller owns, whose map has the size of a CPU map. Both are read,
        // then freed once by the matching function.
        let (found, cpus) = unsafe {
            let raw = info.as_ref();
            let cpus = std::slice::from_raw_parts(raw.cpumap, size).to_vec();
            let found = raw.cpupool_id;
            sys::xc_cpupool_infofree(self.as_raw(), info.as_ptr());
            (found, cpus)
        };
        Ok((found == pool).then_some(cpus))
    }

    /// Sets an affinity of a vCPU. `cpus` has one bit per CPU, the lowest first; bits above the host's CPUs are ignored.
    ///
    /// # Errors
    /// `EINVAL` if none of the CPUs exists.
    pub fn set_vcpu_affinity(&self, domid: DomId, vcpu: u32, cpus: &[u8], which: Affinity) -> Result<(), XenError> {
        let mut map = cpus.to_vec();
        map.resize(self.cpu_map_size()?, 0);
        let index = c_int::try_from(vcpu).unwrap_or(c_int::MAX);
        let (hard, soft, flag) = match which {
            Affinity::Hard => (map.as_mut_ptr(), std::ptr::null_mut(), sys::XEN_VCPUAFFINITY_HARD),
            Affinity::Soft => (std::ptr::null_mut(), map.as_mut_ptr(), sys::XEN_VCPUAFFINITY_SOFT),
        };
        // SAFETY: the map that the flag names has as many bytes as libxc reads and writes back; the other is not wanted.
        let returned = unsafe { sys::xc_vcpu_setaffinity(self.as_raw(), domid.get(), index, hard, soft, flag) };
        let arguments = format_args!("domid {domid}, vCPU {vcpu}, {which:?}, CPUs {cpus:02x?}");
        error::minus_one("xc_vcpu_setaffinity", arguments, returned).map(drop)
    }

    /// Reads a vCPU's hard affinity, one bit per CPU.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn vcpu_affinity(&self, domid: DomId, vcpu: u32) -> Result<Vec<u8>, XenError> {
        let mut map = vec![0; self.cpu_map_size()?];
        let index = c_int::try_from(vcpu).unwrap_or(c_int::MAX);
        // SAFETY: the map has as many bytes as libxc writes; no map of soft affinity is wanted.
        let returned = unsafe {
            sys::xc_vcpu_getaffinity(
                self.as_raw(),
                domid.get(),
                index,
                map.as_mut_ptr(),
                std::ptr::null_mut(),
                sys::XEN_VCPUAFFINITY_HARD,
            )
        };
        error::minus_one("xc_vcpu_getaffinity", format_args!("domid {domid}, vCPU {vcpu}"), returned)?;
        Ok(map)
    }

    /// Reads the scheduler, weight and cap of a domain; `None` if its scheduler has neither.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn cpu_share(&self, domid: DomId) -> Result<Option<(Scheduler, u16, u16)>, XenError> {
        // Xen answers only for the scheduler of the domain's own CPU pool (sched_adjust, xen/common/sched).
        let mut credit = sys::xen_domctl_sched_credit::default();
        // SAFETY: the struct is live and of the type that the call fills.
        let returned = unsafe { sys::xc_sched_credit_domain_get(self.as_raw(), domid.get(), &raw mut credit) };
        match error::minus_one("xc_sched_credit_domain_get", format_args!("domid {domid}"), returned) {
            Ok(_) => return Ok(Some((Scheduler::Credit, credit.weight, credit.cap))),
            Err(error) if error.errno == Some(Errno::EINVAL) => {}
            Err(error) => return Err(error),
        }
        let mut credit2 = sys::xen_domctl_sched_credit2::default();
        // SAFETY: the struct is live and of the type that the call fills.
        let returned = unsafe { sys::xc_sched_credit2_domain_get(self.as_raw(), domid.get(), &raw mut credit2) };
        match error::minus_one("xc_sched_credit2_domain_get", format_args!("domid {domid}"), returned) {
            Ok(_) => Ok(Some((Scheduler::Credit2, credit2.weight, credit2.cap))),
            Err(error) if error.errno == Some(Errno::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets weight (1 to 65535; 256 is usual) and cap (percent of one CPU, 0 for none) of a domain.
    ///
    /// # Errors
    /// If Xen refuses them.
    pub fn set_cpu_share(&self, domid: DomId, scheduler: Scheduler, weight: u16, cap: u16) -> Result<(), XenError> {
        let arguments = format_args!("domid {domid}, weight {weight}, cap {cap}");
        match scheduler {
            Scheduler::Credit => {
                let mut share = sys::xen_domctl_sched_credit { weight, cap };
                // SAFETY: the struct is live and of the type that the call reads.
                let returned = unsafe { sys::xc_sched_credit_domain_set(self.as_raw(), domid.get(), &raw mut share) };
                error::minus_one("xc_sched_credit_domain_set", arguments, returned).map(drop)
            }
            Scheduler::Credit2 => {
                let mut share = sys::xen_domctl_sched_credit2 { weight, cap };
                // SAFETY: the struct is live and of the type that the call reads.
                let returned = unsafe { sys::xc_sched_credit2_domain_set(self.as_raw(), domid.get(), &raw mut share) };
                error::minus_one("xc_sched_credit2_domain_set", arguments, returned).map(drop)
            }
        }
    }
}
