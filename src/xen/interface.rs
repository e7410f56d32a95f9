//! The handle of libxenctrl: everything that is asked of the hypervisor about hosts and domains.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::raw::{c_char, c_int};
use std::ptr::NonNull;

use nix::errno::Errno;
use serde::Serialize;
use uuid::Uuid;
use xen_sys as sys;

use super::error::{self, XenError};
use super::logger::Logger;
use super::{DomId, EventPort, ForeignPages};
use crate::memory::{Bytes, E820Entry, E820Kind, Gfn, Kib, Pages};

/// An open `xc_interface`. Not for use after `fork`, and not shared between threads.
pub struct Interface {
    raw: NonNull<sys::xc_interface>,
    /// libxc keeps a pointer to it until the handle is closed.
    _logger: Box<Logger>,
}

impl fmt::Debug for Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Interface")
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // SAFETY: `raw` came from xc_interface_open and is closed here, once; the logger is dropped after it.
        let returned = unsafe { sys::xc_interface_close(self.raw.as_ptr()) };
        log::debug!("xc_interface_close() = {returned}");
    }
}

/// What a new domain is created with: `struct xen_domctl_createdomain`, less what is the same for every HVM guest.
#[derive(Debug, Clone)]
pub struct CreateDomain {
    /// The handle by which xl and xenstore know the domain.
    pub uuid: Uuid,
    /// Number of vCPUs, 1 to 128.
    pub vcpus: u32,
    /// Highest event channel port; libxl's default is 1023.
    pub max_event_channel: u32,
    /// Grant table frames; `None` takes the hypervisor's default.
    pub max_grant_frames: Option<i32>,
    /// Maptrack frames; `None` takes the hypervisor's default.
    pub max_maptrack_frames: Option<i32>,
    /// Grant table version 1 or 2.
    pub grant_version: u32,
    /// CPU pool, 0 by default.
    pub cpupool: u32,
    /// FLASK security id, 0 where there is none.
    pub ssid: u32,
}

/// A domain as the hypervisor sees it (`XEN_DOMCTL_getdomaininfo`).
#[derive(Debug, Clone, Serialize)]
pub struct DomainInfo {
    /// The domain.
    pub domid: DomId,
    /// Its handle.
    pub uuid: Uuid,
    /// It is being destroyed.
    pub dying: bool,
    /// It is an HVM (or PVH) domain.
    pub hvm: bool,
    /// It runs under hardware-assisted paging.
    pub hap: bool,
    /// The toolstack has paused it.
    pub paused: bool,
    /// It has shut down, and why.
    pub shutdown: Option<ShutdownReason>,
    /// Pages it owns (`tot_pages`): what `owned_pages_*` of a plan predict.
    pub owned_pages: Pages,
    /// The most it may own (`max_pages`).
    pub max_pages: Pages,
    /// Pages claimed for it and not yet populated.
    pub outstanding_pages: Pages,
    /// vCPUs that exist already.
    pub existing_vcpus: u32,
    /// Its CPU pool.
    pub cpupool: u32,
}

/// Why a domain shut down (`SHUTDOWN_*`, xen/include/public/sched.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownReason {
    /// It powered itself off.
    Poweroff,
    /// It asks to be started again.
    Reboot,
    /// It suspended itself.
    Suspend,
    /// It crashed.
    Crash,
    /// Its watchdog expired.
    Watchdog,
    /// It asks for a soft reset.
    SoftReset,
    /// A code that is not known here.
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

/// The host (`XEN_SYSCTL_physinfo`).
#[derive(Debug, Clone, Serialize)]
pub struct PhysInfo {
    /// Memory that Xen manages.
    pub total_kib: Kib,
    /// Free memory, claimed or not.
    pub free_kib: Kib,
    /// Free memory that is claimed for domains still being built.
    pub claimed_kib: Kib,
    /// HVM guests can run.
    pub hvm: bool,
    /// Hardware-assisted paging is there.
    pub hap: bool,
    /// Shadow paging is there.
    pub shadow: bool,
    /// Grant table version 2 is there.
    pub grant_v2: bool,
}

impl PhysInfo {
    /// Free memory that no claim stands on.
    #[must_use]
    pub fn available(&self) -> Kib {
        Kib(self.free_kib.0.saturating_sub(self.claimed_kib.0))
    }
}

/// What `xc_version` tells.
#[derive(Debug, Clone, Serialize)]
pub struct VersionInfo {
    /// For example `4.17.7`.
    pub version: String,
    /// Guest types, for example `hvm-3.0-x86_64`.
    pub capabilities: Vec<String>,
    /// The hypervisor's command line.
    pub command_line: String,
}

/// The HVM parameters that the builder sets or reads (xen/include/public/hvm/params.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HvmParam {
    /// How missed timer ticks are delivered.
    TimerMode,
    /// The guest sees an HPET.
    HpetEnabled,
    /// Periodic timers are aligned, to save host interrupts.
    VptAlign,
    /// Event channel of the xenstore ring.
    StorePort,
    /// Event channel of the console ring.
    ConsolePort,
    /// Frame of the xenstore ring.
    StorePfn,
    /// Frame of the console ring.
    ConsolePfn,
    /// Any other, by number.
    Number(u32),
}

impl HvmParam {
    fn number(self) -> u32 {
        match self {
            Self::TimerMode => sys::HVM_PARAM_TIMER_MODE,
            Self::HpetEnabled => sys::HVM_PARAM_HPET_ENABLED,
            Self::VptAlign => sys::HVM_PARAM_VPT_ALIGN,
            Self::StorePort => sys::HVM_PARAM_STORE_EVTCHN,
            Self::ConsolePort => sys::HVM_PARAM_CONSOLE_EVTCHN,
            Self::StorePfn => sys::HVM_PARAM_STORE_PFN,
            Self::ConsolePfn => sys::HVM_PARAM_CONSOLE_PFN,
            Self::Number(number) => number,
        }
    }
}

impl Interface {
    /// Opens libxenctrl on the hypervisor.
    ///
    /// # Errors
    /// Where there is no Xen, or the caller may not talk to it.
    pub fn open() -> Result<Self, XenError> {
        let mut logger = Logger::new();
        let callbacks = logger.as_raw();
        // SAFETY: `callbacks` points into the box that the returned value keeps until after xc_interface_close.
        let raw = error::pointer("xc_interface_open", format_args!(""), unsafe {
            sys::xc_interface_open(callbacks, callbacks, 0)
        })?;
        Ok(Self { raw, _logger: logger })
    }

    pub(super) fn as_raw(&self) -> *mut sys::xc_interface {
        self.raw.as_ptr()
    }

    /// The running hypervisor's version, capabilities and command line.
    ///
    /// # Errors
    /// Where `xc_version` fails.
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

    /// The host's memory and abilities.
    ///
    /// # Errors
    /// Where `xc_physinfo` fails.
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
            hap: has(sys::XEN_SYSCTL_PHYSCAP_hap),
            shadow: has(sys::XEN_SYSCTL_PHYSCAP_shadow),
            grant_v2: has(sys::XEN_SYSCTL_PHYSCAP_gnttab_v2),
        })
    }

    /// Creates an empty HVM domain under hardware-assisted paging and returns its number.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn create_hvm(&self, wanted: &CreateDomain) -> Result<DomId, XenError> {
        let mut config = sys::xen_domctl_createdomain {
            ssidref: wanted.ssid,
            handle: wanted.uuid.into_bytes(),
            flags: sys::XEN_DOMCTL_CDF_hvm | sys::XEN_DOMCTL_CDF_hap,
            max_vcpus: wanted.vcpus,
            max_evtchn_port: wanted.max_event_channel,
            max_grant_frames: wanted.max_grant_frames.unwrap_or(-1),
            max_maptrack_frames: wanted.max_maptrack_frames.unwrap_or(-1),
            grant_opts: wanted.grant_version,
            cpupool_id: wanted.cpupool,
            ..Default::default()
        };
        config.arch.emulation_flags = emulation_flags();
        let mut domid = 0_u32;
        // SAFETY: both pointers are to live locals of the types that the call takes; domid 0 asks for any free one.
        error::minus_one("xc_domain_create", format_args!("{wanted:?}"), unsafe {
            sys::xc_domain_create(self.as_raw(), &raw mut domid, &raw mut config)
        })?;
        DomId::new(domid)
            .ok_or_else(|| XenError::unexpected("xc_domain_create", String::new(), format!("returned domid {domid}")))
    }

    /// Destroys a domain. Its memory is freed in the background while others still map it.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn destroy(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_domain_destroy(self.as_raw(), domid.get()) };
        error::minus_one("xc_domain_destroy", format_args!("domid {domid}"), returned).map(drop)
    }

    /// Pauses a domain.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn pause(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_domain_pause(self.as_raw(), domid.get()) };
        error::minus_one("xc_domain_pause", format_args!("domid {domid}"), returned).map(drop)
    }

    /// Lets a domain run. A new domain is paused once.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn unpause(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_domain_unpause(self.as_raw(), domid.get()) };
        error::minus_one("xc_domain_unpause", format_args!("domid {domid}"), returned).map(drop)
    }

    /// One domain, or `None` where there is no such domain.
    ///
    /// # Errors
    /// Where Xen refuses to tell.
    pub fn domain(&self, domid: DomId) -> Result<Option<DomainInfo>, XenError> {
        Ok(self.domains_from(domid, 1)?.into_iter().find(|info| info.domid == domid))
    }

    /// All domains, dom0 first.
    ///
    /// # Errors
    /// Where Xen refuses to tell.
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

    /// Allocates the vCPUs; `vcpus` must be what the domain was created with.
    ///
    /// # Errors
    /// `EINVAL` where the number differs; `ENOMEM`.
    pub fn max_vcpus(&self, domid: DomId, vcpus: u32) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_domain_max_vcpus(self.as_raw(), domid.get(), vcpus) };
        error::minus_one("xc_domain_max_vcpus", format_args!("domid {domid}, {vcpus} vCPUs"), returned).map(drop)
    }

    /// The number of vCPUs that a domain was created with, whether they exist yet or not.
    ///
    /// Xen tells it nowhere; but asked for a vCPU beyond that number it says `EINVAL`, and for one that does not exist
    /// yet `ESRCH` (`XEN_DOMCTL_getvcpuinfo`, xen/common/domctl.c, Xen 4.17).
    ///
    /// # Errors
    /// Where Xen refuses to tell.
    pub fn created_vcpus(&self, domid: DomId) -> Result<u32, XenError> {
        let within = |vcpu: u32| -> Result<bool, XenError> {
            let mut info = sys::xc_vcpuinfo_t::default();
            // SAFETY: `info` is a valid struct of the type that the call fills.
            let returned = unsafe { sys::xc_vcpu_getinfo(self.as_raw(), domid.get(), vcpu, &raw mut info) };
            match error::minus_one("xc_vcpu_getinfo", format_args!("domid {domid}, vCPU {vcpu}"), returned) {
                Ok(_) => Ok(true),
                Err(error) if vcpu > 0 || error.errno == Some(Errno::ESRCH) => match error.errno {
                    Some(Errno::EINVAL) => Ok(false),
                    Some(Errno::ESRCH) => Ok(true),
                    _ => Err(error),
                },
                Err(error) => Err(error),
            }
        };
        // Half-interval search between a vCPU within (or none) and one beyond.
        let (mut low, mut high) = (0, 8192);
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

    /// Sets an HVM parameter.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn set_hvm_param(&self, domid: DomId, param: HvmParam, value: u64) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_hvm_param_set(self.as_raw(), domid.get(), param.number(), value) };
        error::minus_one("xc_hvm_param_set", format_args!("domid {domid}, {param:?} = {value}"), returned).map(drop)
    }

    /// Reads an HVM parameter.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn hvm_param(&self, domid: DomId, param: HvmParam) -> Result<u64, XenError> {
        let mut value = 0;
        // SAFETY: `value` is a live u64.
        let returned = unsafe { sys::xc_hvm_param_get(self.as_raw(), domid.get(), param.number(), &raw mut value) };
        error::minus_one("xc_hvm_param_get", format_args!("domid {domid}, {param:?}"), returned)?;
        Ok(value)
    }

    /// Sets the TSC mode: 0 default, 1 always emulated, 2 never.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn set_tsc_mode(&self, domid: DomId, mode: u32) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let returned = unsafe { sys::xc_domain_set_tsc_info(self.as_raw(), domid.get(), mode, 0, 0, 0) };
        error::minus_one("xc_domain_set_tsc_info", format_args!("domid {domid}, mode {mode}"), returned).map(drop)
    }

    /// Gives the guest its memory map (`XENMEM_set_memory_map`), which hvmloader reads.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn set_memory_map(&self, domid: DomId, map: &[E820Entry]) -> Result<(), XenError> {
        let mut entries = raw_e820(map);
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        // SAFETY: `entries` has `count` elements and lives through the call.
        let returned =
            unsafe { sys::xc_domain_set_memory_map(self.as_raw(), domid.get(), entries.as_mut_ptr(), count) };
        error::minus_one("xc_domain_set_memory_map", format_args!("domid {domid}, {count} entries"), returned).map(drop)
    }

    /// Applies Xen's default CPUID policy for HVM guests: PAE, no invariant TSC, no nested virtualisation.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn apply_cpuid_policy(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: null featureset and overrides with a count of 0 ask for Xen's own defaults.
        let returned = unsafe {
            sys::xc_cpuid_apply_policy(
                self.as_raw(),
                domid.get(),
                false,
                std::ptr::null(),
                0,
                true,
                false,
                false,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        error::negative_errno("xc_cpuid_apply_policy", format_args!("domid {domid}"), returned)
    }

    /// The FLASK security id of a label such as `system_u:system_r:domU_t`.
    ///
    /// # Errors
    /// `ENOSYS` where Xen has no FLASK; `EINVAL` for a label that the policy does not know.
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

    /// Maps `count` frames of a guest from `first` on.
    ///
    /// # Errors
    /// Where one of them is not populated.
    pub fn map(&self, domid: DomId, first: Gfn, count: Pages) -> Result<ForeignPages, XenError> {
        ForeignPages::map(self, domid, first, count)
    }

    /// The guest's HVM context: the records that `xen-hvmctx` prints.
    ///
    /// # Errors
    /// Where Xen refuses to tell.
    pub fn hvm_context(&self, domid: DomId) -> Result<Vec<u8>, XenError> {
        let call = "xc_domain_hvm_getcontext";
        // SAFETY: a null buffer asks for the size.
        let size = error::minus_one(call, format_args!("domid {domid}, size"), unsafe {
            sys::xc_domain_hvm_getcontext(self.as_raw(), domid.get(), std::ptr::null_mut(), 0)
        })?;
        let mut buffer = vec![0_u8; usize::try_from(size).unwrap_or(0)];
        // SAFETY: the buffer has `size` bytes.
        let length = error::minus_one(call, format_args!("domid {domid}"), unsafe {
            sys::xc_domain_hvm_getcontext(self.as_raw(), domid.get(), buffer.as_mut_ptr(), size)
        })?;
        buffer.truncate(usize::try_from(length).unwrap_or(0));
        Ok(buffer)
    }
}

/// What is emulated for an HVM guest: everything but vPCI, which is what libxl of the same release asks for; Xen 4.19
/// made the PIRQ emulation optional, and libxl leaves it out since.
fn emulation_flags() -> u32 {
    let flags = sys::XEN_X86_EMU_ALL & !sys::XEN_X86_EMU_VPCI;
    if cfg!(xen_4_19_or_later) { flags & !sys::XEN_X86_EMU_USE_PIRQ } else { flags }
}

/// The same memory map in Xen's own struct.
pub(super) fn raw_e820(map: &[E820Entry]) -> Vec<sys::e820entry> {
    map.iter()
        .map(|entry| sys::e820entry {
            addr: entry.addr.0,
            size: entry.size.0,
            type_: match entry.kind {
                E820Kind::Ram => sys::E820_RAM,
                E820Kind::Reserved => sys::E820_RESERVED,
            },
        })
        .collect()
}

fn domain_info(raw: &sys::xc_domaininfo_t) -> Option<DomainInfo> {
    let has = |bit: u32| raw.flags & bit != 0;
    let code = (raw.flags >> sys::XEN_DOMINF_shutdownshift) & sys::XEN_DOMINF_shutdownmask;
    Some(DomainInfo {
        domid: DomId::new(u32::from(raw.domain))?,
        uuid: Uuid::from_bytes(raw.handle),
        dying: has(sys::XEN_DOMINF_dying),
        hvm: has(sys::XEN_DOMINF_hvm_guest),
        hap: has(sys::XEN_DOMINF_hap),
        paused: has(sys::XEN_DOMINF_paused),
        shutdown: has(sys::XEN_DOMINF_shutdown).then(|| ShutdownReason::from_code(code)),
        owned_pages: Pages(raw.tot_pages),
        max_pages: Pages(raw.max_pages),
        outstanding_pages: Pages(raw.outstanding_pages),
        // Without any vCPU Xen says XEN_INVALID_MAX_VCPU_ID, all ones.
        existing_vcpus: raw.max_vcpu_id.wrapping_add(1),
        cpupool: raw.cpupool,
    })
}

/// C's `int` for the small constants of `xc_version`.
fn as_c_int(number: u32) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
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
