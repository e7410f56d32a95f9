//! Creates, destroys, pauses and inspects domains.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::raw::c_int;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use serde::Serialize;
use uuid::Uuid;
use xen_sys as sys;

use super::error::{self, XenError};
use super::{Altp2m, DomId, Interface};
use dombuild_memory::{Bytes, Kib, Kind, Pages};

/// The settings of a new domain: the part of `struct xen_domctl_createdomain` that does not follow from its kind.
#[derive(Debug, Clone)]
pub struct CreateDomain {
    /// The kind; HVM and PVH use hardware-assisted paging.
    pub kind: Kind,
    /// PCI devices can be assigned to it.
    pub passthrough: bool,
    /// Nested virtualisation, for HVM and PVH only.
    pub nested: bool,
    /// The UUID by which xl and xenstore know the domain.
    pub uuid: Uuid,
    /// The number of vCPUs, 1 to 128.
    pub vcpus: u32,
    /// The highest event channel port; libxl's default is 1023.
    pub max_event_channel: u32,
    /// The most grant table frames; `None` means Xen's default.
    pub max_grant_frames: Option<i32>,
    /// The most maptrack frames; `None` means Xen's default.
    pub max_maptrack_frames: Option<i32>,
    /// The highest grant table version, 1 or 2.
    pub grant_version: u32,
    /// It has the processor's performance counters.
    pub vpmu: bool,
    /// Its unknown MSRs read as 0 (`XEN_X86_MSR_RELAXED`).
    pub msr_relaxed: bool,
    /// The CPU pool; 0 is the default pool.
    pub cpupool: u32,
    /// The FLASK security ID; 0 without FLASK.
    pub ssid: u32,
    /// An HVM guest's drivers may route emulated interrupts over event channels (`XEN_X86_EMU_USE_PIRQ`). Until Xen 4.18 every
    /// guest may.
    pub pirqs: bool,
    /// Who may use its alternate memory maps, if it has some. Until Xen 4.18 [`Interface::set_altp2m`] sets it instead.
    pub altp2m: Option<Altp2m>,
    /// The buffer of each vCPU's processor trace, rounded up to whole pages; 0 for none.
    pub vmtrace: Kib,
}

/// The state of a domain (`XEN_DOMCTL_getdomaininfo`).
#[derive(Debug, Clone, Serialize)]
pub struct DomainInfo {
    /// The domid.
    pub domid: DomId,
    /// The UUID.
    pub uuid: Uuid,
    /// It is being destroyed.
    pub dying: bool,
    /// The kind of guest.
    pub kind: Kind,
    /// It uses hardware-assisted paging.
    pub hap: bool,
    /// The toolstack has paused it.
    pub paused: bool,
    /// Why it has shut down; `None` while it has not.
    pub shutdown: Option<ShutdownReason>,
    /// The pages that it owns (`tot_pages`); a plan predicts them as `owned_pages_*`.
    pub owned_pages: Pages,
    /// The most pages that it may own (`max_pages`).
    pub max_pages: Pages,
    /// The pages that are claimed and not allocated yet.
    pub outstanding_pages: Pages,
    /// The number of allocated vCPUs.
    pub existing_vcpus: u32,
    /// The CPU time of all its vCPUs together.
    pub cpu_time: Duration,
    /// The CPU pool.
    pub cpupool: u32,
}

/// Why a domain shut down (`SHUTDOWN_*`, xen/include/public/sched.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownReason {
    /// It powered itself off.
    Poweroff,
    /// It requested a reboot.
    Reboot,
    /// It suspended itself.
    Suspend,
    /// It crashed.
    Crash,
    /// Its watchdog expired.
    Watchdog,
    /// It requested a soft reset.
    SoftReset,
    /// An unknown code.
    Other(u32),
}

impl ShutdownReason {
    fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Poweroff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            5 => Self::SoftReset,
            other => Self::Other(other),
        }
    }
}

impl ShutdownReason {
    /// Its number in Xen.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Poweroff => 0,
            Self::Reboot => 1,
            Self::Suspend => 2,
            Self::Crash => 3,
            Self::Watchdog => 4,
            Self::SoftReset => 5,
            Self::Other(code) => code,
        }
    }
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poweroff => formatter.write_str("poweroff"),
            Self::Reboot => formatter.write_str("reboot"),
            Self::Suspend => formatter.write_str("suspend"),
            Self::Crash => formatter.write_str("crash"),
            Self::Watchdog => formatter.write_str("watchdog"),
            Self::SoftReset => formatter.write_str("soft-reset"),
            Self::Other(code) => write!(formatter, "shutdown code {code}"),
        }
    }
}

/// Identifies a domain over time: Xen reuses domids, but not UUIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainRef {
    /// The domid.
    pub domid: DomId,
    /// The UUID.
    pub uuid: Uuid,
}

impl fmt::Display for DomainRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "domain {} ({})", self.domid, self.uuid)
    }
}

impl DomainInfo {
    /// The identity of this domain.
    #[must_use]
    pub fn held(&self) -> DomainRef {
        DomainRef { domid: self.domid, uuid: self.uuid }
    }
}

impl Interface {
    /// Creates an empty domain and returns its domid.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn create(&self, wanted: &CreateDomain) -> Result<DomId, XenError> {
        let container = match wanted.kind {
            Kind::Hvm | Kind::Pvh => sys::XEN_DOMCTL_CDF_hvm | sys::XEN_DOMCTL_CDF_hap,
            Kind::Pv => 0,
        };
        let mut config = sys::xen_domctl_createdomain {
            ssidref: wanted.ssid,
            handle: wanted.uuid.into_bytes(),
            flags: container
                | if wanted.passthrough { sys::XEN_DOMCTL_CDF_iommu } else { 0 }
                | if wanted.nested { sys::XEN_DOMCTL_CDF_nested_virt } else { 0 }
                | if wanted.vpmu { sys::XEN_DOMCTL_CDF_vpmu } else { 0 },
            max_vcpus: wanted.vcpus,
            max_evtchn_port: wanted.max_event_channel,
            max_grant_frames: wanted.max_grant_frames.unwrap_or(-1),
            max_maptrack_frames: wanted.max_maptrack_frames.unwrap_or(-1),
            grant_opts: wanted.grant_version,
            cpupool_id: wanted.cpupool,
            vmtrace_size: trace_bytes(wanted.vmtrace),
            #[cfg(xen_4_19_or_later)]
            altp2m_opts: wanted.altp2m.map_or(0, Altp2m::code),
            ..Default::default()
        };
        config.arch.emulation_flags = emulation_flags(wanted.kind, wanted.pirqs);
        if wanted.msr_relaxed {
            config.arch.misc_flags |= sys::XEN_X86_MSR_RELAXED;
        }
        let mut domid = 0_u32;
        // SAFETY: both pointers are to live locals of the types that the call takes; domid 0 selects any free one.
        error::minus_one("xc_domain_create", format_args!("{wanted:?}"), unsafe {
            sys::xc_domain_create(self.as_raw(), &raw mut domid, &raw mut config)
        })?;
        DomId::new(domid)
            .ok_or_else(|| XenError::unexpected("xc_domain_create", String::new(), format!("returned domid {domid}")))
    }

    /// Destroys a domain if it still exists with this UUID; a missing one is no error. Xen frees its memory in the
    /// background while other domains map it.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn destroy(&self, domain: DomainRef) -> Result<(), XenError> {
        if self.find(domain)?.is_none() {
            return Ok(());
        }
        let domid = domain.domid;
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_destroy(self.as_raw(), domid.get()) };
        match error::minus_one("xc_domain_destroy", format_args!("domid {domid}"), returned) {
            Err(error) if error.errno != Some(Errno::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// The ABI of a PV guest for its device backends, for example `x86_64-abi`.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn native_protocol(&self, domid: DomId) -> Result<String, XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let name = unsafe { sys::xc_domain_get_native_protocol(self.as_raw(), domid.get()) };
        let name = error::pointer("xc_domain_get_native_protocol", format_args!("domid {domid}"), name.cast_mut())?;
        // SAFETY: the result is a NUL-terminated constant of libxenguest.
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// Pauses a domain. Pauses are counted.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn pause(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_pause(self.as_raw(), domid.get()) };
        error::minus_one("xc_domain_pause", format_args!("domid {domid}"), returned).map(drop)
    }

    /// Unpauses a domain. A new domain is paused once.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn unpause(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_unpause(self.as_raw(), domid.get()) };
        error::minus_one("xc_domain_unpause", format_args!("domid {domid}"), returned).map(drop)
    }

    /// Presses the power button of an HVM guest's ACPI.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn press_power_button(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned =
            unsafe { sys::xc_domain_send_trigger(self.as_raw(), domid.get(), sys::XEN_DOMCTL_SENDTRIGGER_POWER, 0) };
        error::minus_one("xc_domain_send_trigger", format_args!("domid {domid}, power"), returned).map(drop)
    }

    /// Ends a domain for a reason, as if it had ended itself (`SCHEDOP_remote_shutdown`). It still exists then.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn shut_down(&self, domid: DomId, reason: ShutdownReason) -> Result<(), XenError> {
        let code = c_int::try_from(reason.code()).unwrap_or(c_int::MAX);
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_shutdown(self.as_raw(), domid.get(), code) };
        error::minus_one("xc_domain_shutdown", format_args!("domid {domid}, {reason}"), returned).map(drop)
    }

    /// Writes the memory and the state of a domain to a file, which is created for root alone. The domain must not run.
    ///
    /// # Errors
    /// If Xen refuses a page, or the file cannot be written.
    pub fn dump_core(&self, domid: DomId, file: &Path) -> Result<(), XenError> {
        const CALL: &str = "xc_domain_dumpcore";
        let shown = file.display();
        let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
            return Err(XenError::unexpected(CALL, format!("{shown}"), "the path has a NUL byte".to_owned()));
        };
        // SAFETY: the handle is valid, and the path ends with a NUL and lives until the call returns.
        let returned = unsafe { sys::xc_domain_dumpcore(self.as_raw(), domid.get(), path.as_ptr()) };
        error::minus_one(CALL, format_args!("domid {domid}, {shown}"), returned).map(drop)
    }

    /// The state of a domain; `None` if there is no such domain.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn domain(&self, domid: DomId) -> Result<Option<DomainInfo>, XenError> {
        Ok(self.domains_from(domid, 1)?.into_iter().find(|info| info.domid == domid))
    }

    /// The state of a domain; `None` if it no longer exists with this UUID.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn find(&self, domain: DomainRef) -> Result<Option<DomainInfo>, XenError> {
        Ok(self.domain(domain.domid)?.filter(|info| info.uuid == domain.uuid))
    }

    /// The states of all domains, dom0 first.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn domains(&self) -> Result<Vec<DomainInfo>, XenError> {
        let mut all: Vec<DomainInfo> = Vec::new();
        let mut first = Some(DomId::DOM0);
        while let Some(start) = first {
            let some = self.domains_from(start, 256)?;
            first = some.last().and_then(|last| DomId::new(last.domid.get() + 1));
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        Ok(all)
    }

    fn domains_from(&self, first: DomId, most: u32) -> Result<Vec<DomainInfo>, XenError> {
        let mut buffer = vec![sys::xc_domaininfo_t::default(); usize::try_from(most).unwrap_or(1)];
        // SAFETY: the buffer has room for `most` entries.
        let found = error::minus_one("xc_domain_getinfolist", format_args!("from domid {first}, {most}"), unsafe {
            sys::xc_domain_getinfolist(self.as_raw(), first.get(), most, buffer.as_mut_ptr())
        })?;
        buffer.truncate(usize::try_from(found).unwrap_or(0));
        Ok(buffer.iter().filter_map(domain_info).collect())
    }

    /// Allocates the vCPUs; `vcpus` must equal the number at creation.
    ///
    /// # Errors
    /// `EINVAL` if the number differs; `ENOMEM`.
    pub fn max_vcpus(&self, domid: DomId, vcpus: u32) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_max_vcpus(self.as_raw(), domid.get(), vcpus) };
        error::minus_one("xc_domain_max_vcpus", format_args!("domid {domid}, {vcpus} vCPUs"), returned).map(drop)
    }

    /// The number of vCPUs at the domain's creation, allocated or not.
    ///
    /// Xen has no query for it. But for a vCPU beyond that number it returns `EINVAL`, and for one that is not
    /// allocated `ESRCH` (`XEN_DOMCTL_getvcpuinfo`, xen/common/domctl.c, Xen 4.17).
    ///
    /// The domain must exist: otherwise Xen also returns `ESRCH`.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn created_vcpus(&self, domid: DomId) -> Result<u32, XenError> {
        let within = |vcpu: u32| -> Result<bool, XenError> {
            let mut info = sys::xc_vcpuinfo_t::default();
            // SAFETY: `info` is a valid struct of the type that the call fills.
            let returned = unsafe { sys::xc_vcpu_getinfo(self.as_raw(), domid.get(), vcpu, &raw mut info) };
            match error::minus_one("xc_vcpu_getinfo", format_args!("domid {domid}, vCPU {vcpu}"), returned) {
                Ok(_) => Ok(true),
                Err(error) => match error.errno {
                    Some(Errno::ESRCH) => Ok(true),
                    Some(Errno::EINVAL) => Ok(false),
                    _ => Err(error),
                },
            }
        };
        // Binary search between a vCPU within (or none) and one beyond.
        let (mut low, mut high) = (0, sys::HVM_MAX_VCPUS + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if within(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// The emulated devices, as libxl of the same release: for HVM all except vPCI (and, since Xen 4.19, PIRQs if not asked for); for PVH
/// the local APIC.
fn emulation_flags(kind: Kind, pirqs: bool) -> u32 {
    let all = sys::XEN_X86_EMU_ALL & !sys::XEN_X86_EMU_VPCI;
    match kind {
        Kind::Hvm if cfg!(xen_4_19_or_later) && !pirqs => all & !sys::XEN_X86_EMU_USE_PIRQ,
        Kind::Hvm => all,
        Kind::Pvh => sys::XEN_X86_EMU_LAPIC,
        Kind::Pv => 0,
    }
}

/// The size of a processor trace in bytes; what is too large for the field is too large for Xen, too.
fn trace_bytes(size: Kib) -> u32 {
    let bytes = size.to_bytes().map(Bytes::to_pages_ceil).and_then(Pages::to_bytes);
    bytes.and_then(|bytes| u32::try_from(bytes.get()).ok()).unwrap_or(u32::MAX)
}

fn domain_info(raw: &sys::xc_domaininfo_t) -> Option<DomainInfo> {
    let has = |bit: u32| raw.flags & bit != 0;
    let code = (raw.flags >> sys::XEN_DOMINF_shutdownshift) & sys::XEN_DOMINF_shutdownmask;
    Some(DomainInfo {
        domid: DomId::new(u32::from(raw.domain))?,
        uuid: Uuid::from_bytes(raw.handle),
        dying: has(sys::XEN_DOMINF_dying),
        kind: match raw.arch_config.emulation_flags {
            _ if !has(sys::XEN_DOMINF_hvm_guest) => Kind::Pv,
            sys::XEN_X86_EMU_LAPIC => Kind::Pvh,
            _ => Kind::Hvm,
        },
        hap: has(sys::XEN_DOMINF_hap),
        paused: has(sys::XEN_DOMINF_paused),
        shutdown: has(sys::XEN_DOMINF_shutdown).then(|| ShutdownReason::from_code(code)),
        owned_pages: Pages(raw.tot_pages),
        max_pages: Pages(raw.max_pages),
        outstanding_pages: Pages(raw.outstanding_pages),
        // Without vCPUs Xen returns XEN_INVALID_MAX_VCPU_ID, all ones.
        existing_vcpus: raw.max_vcpu_id.wrapping_add(1),
        cpu_time: Duration::from_nanos(raw.cpu_time),
        cpupool: raw.cpupool,
    })
}
