//! HVM parameters, memory maps and HVM contexts.

use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, Interface};
use dombuild_memory::{E820Entry, E820Kind, Kib};

/// Hyper-V enlightenments: bits of `HVM_PARAM_VIRIDIAN` (xen/include/public/hvm/params.h).
pub mod enlightenment {
    pub use xen_sys::{
        HVMPV_apic_assist as APIC_ASSIST, HVMPV_base_freq as BASE, HVMPV_cpu_hotplug as CPU_HOTPLUG,
        HVMPV_crash_ctl as CRASH_CTL, HVMPV_ex_processor_masks as EX_PROCESSOR_MASKS, HVMPV_hcall_ipi as HCALL_IPI,
        HVMPV_hcall_remote_tlb_flush as HCALL_REMOTE_TLB_FLUSH, HVMPV_no_freq as NO_FREQ,
        HVMPV_no_vp_limit as NO_VP_LIMIT, HVMPV_reference_tsc as REFERENCE_TSC, HVMPV_stimer as STIMER,
        HVMPV_synic as SYNIC, HVMPV_time_ref_count as TIME_REF_COUNT,
    };
}

/// The HVM parameters that the builder sets or reads (xen/include/public/hvm/params.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HvmParam {
    /// How missed timer ticks are delivered.
    TimerMode,
    /// The guest has an HPET.
    HpetEnabled,
    /// Periodic timers are aligned, which saves host interrupts.
    VptAlign,
    /// Event channel of the xenstore ring.
    StorePort,
    /// Event channel of the console ring.
    ConsolePort,
    /// Frame of the xenstore ring.
    StorePfn,
    /// Frame of the console ring.
    ConsolePfn,
    /// The Hyper-V enlightenments of the guest, a mask of `HVMPV_*`.
    Viridian,
    /// The shutdown reason after a triple fault (`SHUTDOWN_*`).
    TripleFaultReason,
    /// The width of the saved FIP and FDP of the x87: 0 automatic, 4 or 8 bytes.
    X87FipWidth,
    /// Frame of the ring of buffered I/O requests.
    BufioreqPfn,
    /// Frame of I/O requests.
    IoreqPfn,
    /// Frame of the ring for memory paging events.
    PagingRingPfn,
    /// Frame of the ring for monitoring events.
    MonitorRingPfn,
    /// Frame of the ring for memory sharing events.
    SharingRingPfn,
    /// The first frame for ioreq servers.
    IoreqServerPfn,
    /// The number of frames for ioreq servers.
    IoreqServerPages,
    /// The address of the page table that maps the first 4 GiB one to one.
    IdentPt,
    /// The interrupt by which Xen calls the guest's PV drivers; 0: it has none.
    CallbackIrq,
    /// ACPI's sleep state, 0 to 5.
    AcpiState,
    /// The address of the VM generation ID in the guest's memory; 0: it has none.
    GenerationId,
    /// Any other parameter, by number.
    Number(u32),
}

impl HvmParam {
    fn number(self) -> u32 {
        match self {
            Self::GenerationId => sys::HVM_PARAM_VM_GENERATION_ID_ADDR,
            Self::TimerMode => sys::HVM_PARAM_TIMER_MODE,
            Self::HpetEnabled => sys::HVM_PARAM_HPET_ENABLED,
            Self::VptAlign => sys::HVM_PARAM_VPT_ALIGN,
            Self::StorePort => sys::HVM_PARAM_STORE_EVTCHN,
            Self::ConsolePort => sys::HVM_PARAM_CONSOLE_EVTCHN,
            Self::StorePfn => sys::HVM_PARAM_STORE_PFN,
            Self::ConsolePfn => sys::HVM_PARAM_CONSOLE_PFN,
            Self::Viridian => sys::HVM_PARAM_VIRIDIAN,
            Self::TripleFaultReason => sys::HVM_PARAM_TRIPLE_FAULT_REASON,
            Self::X87FipWidth => sys::HVM_PARAM_X87_FIP_WIDTH,
            Self::BufioreqPfn => sys::HVM_PARAM_BUFIOREQ_PFN,
            Self::IoreqPfn => sys::HVM_PARAM_IOREQ_PFN,
            Self::PagingRingPfn => sys::HVM_PARAM_PAGING_RING_PFN,
            Self::MonitorRingPfn => sys::HVM_PARAM_MONITOR_RING_PFN,
            Self::SharingRingPfn => sys::HVM_PARAM_SHARING_RING_PFN,
            Self::IoreqServerPfn => sys::HVM_PARAM_IOREQ_SERVER_PFN,
            Self::IoreqServerPages => sys::HVM_PARAM_NR_IOREQ_SERVER_PAGES,
            Self::IdentPt => sys::HVM_PARAM_IDENT_PT,
            Self::CallbackIrq => sys::HVM_PARAM_CALLBACK_IRQ,
            Self::AcpiState => sys::HVM_PARAM_ACPI_S_STATE,
            Self::Number(number) => number,
        }
    }
}

impl Interface {
    /// Sets an HVM parameter.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn set_hvm_param(&self, domid: DomId, param: HvmParam, value: u64) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_hvm_param_set(self.as_raw(), domid.get(), param.number(), value) };
        error::minus_one("xc_hvm_param_set", format_args!("domid {domid}, {param:?} = {value}"), returned).map(drop)
    }

    /// Reads an HVM parameter.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn hvm_param(&self, domid: DomId, param: HvmParam) -> Result<u64, XenError> {
        let mut value = 0;
        // SAFETY: `value` is a live u64.
        let returned = unsafe { sys::xc_hvm_param_get(self.as_raw(), domid.get(), param.number(), &raw mut value) };
        error::minus_one("xc_hvm_param_get", format_args!("domid {domid}, {param:?}"), returned)?;
        Ok(value)
    }

    /// Sets the guest's memory map (`XENMEM_set_memory_map`), which hvmloader reads.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn set_memory_map(&self, domid: DomId, map: &[E820Entry]) -> Result<(), XenError> {
        let mut entries = raw_e820(map);
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        // SAFETY: `entries` has `count` elements and lives through the call.
        let returned =
            unsafe { sys::xc_domain_set_memory_map(self.as_raw(), domid.get(), entries.as_mut_ptr(), count) };
        error::minus_one("xc_domain_set_memory_map", format_args!("domid {domid}, {count} entries"), returned).map(drop)
    }

    /// Sets a PV guest's memory map to one range of RAM from 0 to `limit` (`XENMEM_set_memory_map`).
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn set_memory_map_limit(&self, domid: DomId, limit: Kib) -> Result<(), XenError> {
        let kib = limit.0;
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_set_memmap_limit(self.as_raw(), domid.get(), kib) };
        error::minus_one("xc_domain_set_memmap_limit", format_args!("domid {domid}, {kib} KiB"), returned).map(drop)
    }

    /// Reads the guest's HVM context: the records that `xen-hvmctx` prints.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn hvm_context(&self, domid: DomId) -> Result<Vec<u8>, XenError> {
        let call = "xc_domain_hvm_getcontext";
        // SAFETY: with a null buffer, the call returns the size.
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

/// Converts a memory map to Xen's struct.
pub(super) fn raw_e820(map: &[E820Entry]) -> Vec<sys::e820entry> {
    map.iter()
        .map(|entry| sys::e820entry {
            addr: entry.addr.0,
            size: entry.size.0,
            type_: match entry.kind {
                E820Kind::Ram => sys::E820_RAM,
                E820Kind::Reserved => sys::E820_RESERVED,
                E820Kind::Acpi => sys::E820_ACPI,
            },
        })
        .collect()
}
