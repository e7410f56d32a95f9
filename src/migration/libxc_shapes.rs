//! The inner shape of libxenguest's small records: what libxenguest and Xen believe, or would refuse in the middle.
//!
//! Each check names its source, in Xen 4.17 and 4.20: the handlers of tools/libs/guest/xg_sr_restore_x86_pv.c, …_hvm.c and
//! xg_sr_common_x86.c, and what they call.

use std::collections::BTreeSet;

use super::libxc_records::{Bounds, kind, name};
use super::passage::RecordHead;
use crate::error::damage::{Damage, Fault};

/// The most bytes of a record that is held completely, other than the two below.
const LONGEST_SMALL: u64 = 1 << 20;

/// The most bytes of the state of an HVM guest's vCPUs and devices: 128 vCPUs take about 2 MiB.
const LONGEST_CONTEXT: u64 = 16 << 20;

/// The page of a PV guest, and so that of a list of its frames.
const PAGE_SIZE: u64 = 4096;

/// The width of a PV guest, from X86_PV_INFO (`valid_x86_pv_info_combination`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// 32 bits, 3 levels of page tables.
    Narrow,
    /// 64 bits, 4 levels of page tables.
    Wide,
}

impl Width {
    /// The levels of page tables.
    pub(super) fn levels(self) -> u64 {
        match self {
            Self::Narrow => 3,
            Self::Wide => 4,
        }
    }

    /// The bytes of a frame's number.
    fn bytes(self) -> u64 {
        match self {
            Self::Narrow => 4,
            Self::Wide => 8,
        }
    }

    /// The bytes of `vcpu_guest_context` (xen/include/public/arch-x86/xen.h).
    fn context(self) -> u64 {
        match self {
            Self::Narrow => 2800,
            Self::Wide => 5168,
        }
    }
}

/// A record's body, without its padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) head: &'a RecordHead,
    pub(super) bytes: &'a [u8],
}

impl Body<'_> {
    fn u16(&self, at: usize) -> u16 {
        self.array(at).map_or(0, u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> u32 {
        self.array(at).map_or(0, u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        self.array(at).map_or(0, u64::from_le_bytes)
    }

    /// Callers have checked the length; there is nothing beyond it.
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    fn damage(&self, at: usize, fault: Fault) -> Damage {
        self.head.damage(8 + at as u64, name(self.head.kind), fault)
    }

    fn wrong(&self, at: usize, what: &str, value: impl Into<u64>) -> Damage {
        self.damage(at, Fault::value(what, value))
    }

    fn has_length(&self, length: u64) -> Result<(), Damage> {
        if self.head.length == length { Ok(()) } else { Err(self.head.bad_length(name(self.head.kind))) }
    }

    /// The places of entries of this size behind `from`.
    fn entries(&self, from: usize, size: usize) -> Result<impl Iterator<Item = usize>, Damage> {
        let bytes = self.bytes.len().saturating_sub(from);
        if bytes == 0 || !bytes.is_multiple_of(size) {
            return Err(self.head.bad_length(name(self.head.kind)));
        }
        Ok((from..self.bytes.len()).step_by(size))
    }
}

/// The most bytes that a record of this type may have in the stream of a guest with these bounds.
pub(super) fn longest(kind: u32, bounds: Bounds) -> u64 {
    match kind {
        kind::HVM_CONTEXT => LONGEST_CONTEXT,
        // 512 frames of a 64-bit guest take one entry, 1024 of a 32-bit one.
        kind::X86_PV_P2M_FRAMES => 16 + bounds.last_frame / 512 * 8,
        _ => LONGEST_SMALL,
    }
}

/// X86_PV_INFO (`handle_x86_pv_info`).
pub(super) fn pv_info(body: Body<'_>) -> Result<Width, Damage> {
    body.has_length(8)?;
    match body.bytes {
        [4, 3, ..] => Ok(Width::Narrow),
        [8, 4, ..] => Ok(Width::Wide),
        _ => Err(body.wrong(0, "the guest's width and levels of page tables", body.u16(0))),
    }
}

/// X86_PV_P2M_FRAMES (`handle_x86_pv_p2m_frames`, `update_guest_p2m`). Returns the guest's last frame.
pub(super) fn p2m_frames(body: Body<'_>, width: Width, bounds: Bounds) -> Result<u64, Damage> {
    if body.bytes.len() < 8 {
        return Err(body.head.bad_length(name(body.head.kind)));
    }
    let (start, end) = (u64::from(body.u32(0)), u64::from(body.u32(4)));
    if start > end {
        return Err(body.wrong(0, "the first frame, behind the last,", start));
    }
    let beyond = |frame, last| Fault::Frame { frame, last };
    if end > bounds.last_frame {
        return Err(body.damage(4, beyond(end, bounds.last_frame)));
    }
    let per_page = PAGE_SIZE / width.bytes();
    body.has_length(8 + 8 * (end / per_page + 1 - start / per_page))?;
    for at in body.entries(8, 8)? {
        let frame = body.u64(at);
        if frame > end {
            return Err(body.damage(at, beyond(frame, end)));
        }
    }
    Ok(end)
}

/// A record of a PV guest's vCPU (`handle_x86_pv_vcpu_blob`). Returns the vCPU, unless the record is an empty one, as older
/// senders wrote.
pub(super) fn pv_vcpu(body: Body<'_>, width: Width, bounds: Bounds) -> Result<Option<u32>, Damage> {
    let record = name(body.head.kind);
    let Some(state) = body.head.length.checked_sub(8) else { return Err(body.head.bad_length(record)) };
    let vcpu = body.u32(0);
    if vcpu >= bounds.vcpus {
        return Err(body.wrong(0, "the number of a vCPU", vcpu));
    }
    if state == 0 {
        return Ok(None);
    }
    let fits = match body.head.kind {
        kind::X86_PV_VCPU_BASIC => state == width.context(),
        // The size of its place in `struct xen_domctl`.
        kind::X86_PV_VCPU_EXTENDED => state <= 128,
        kind::X86_PV_VCPU_XSAVE => state >= 16,
        _ => {
            for at in body.entries(8, 16)? {
                // XEN_DOMCTL_set_vcpu_msrs, xen/arch/x86/domctl.c
                if body.u32(at + 4) != 0 {
                    return Err(body.wrong(at + 4, "the reserved part of a register", body.u32(at + 4)));
                }
            }
            true
        }
    };
    if fits { Ok(Some(vcpu)) } else { Err(body.head.bad_length(record)) }
}

/// SHARED_INFO, a page (`handle_shared_info`).
pub(super) fn shared_info(body: Body<'_>) -> Result<(), Damage> {
    body.has_length(PAGE_SIZE)
}

/// X86_TSC_INFO (`handle_x86_tsc_info`; `tsc_set_info`, xen/arch/x86/time.c; mode 3 is that of Xen before 4.13).
pub(super) fn tsc_info(body: Body<'_>) -> Result<(), Damage> {
    body.has_length(24)?;
    match body.u32(0) {
        0..=3 => Ok(()),
        mode => Err(body.wrong(0, "the mode of the TSC", mode)),
    }
}

/// X86_CPUID_POLICY, entries of `xen_cpuid_leaf_t` (`handle_x86_cpuid_policy`). A later one would replace an earlier one.
pub(super) fn cpuid_policy(body: Body<'_>) -> Result<(), Damage> {
    let mut seen = BTreeSet::new();
    for at in body.entries(0, 24)? {
        if !seen.insert((body.u32(at), body.u32(at + 4))) {
            return Err(body.wrong(at, "a leaf that is there twice", body.u32(at)));
        }
    }
    Ok(())
}

/// X86_MSR_POLICY, entries of `xen_msr_entry_t` (`handle_x86_msr_policy`; `x86_msr_copy_from_buffer`, xen/lib/x86/msr.c).
pub(super) fn msr_policy(body: Body<'_>) -> Result<(), Damage> {
    let mut seen = BTreeSet::new();
    for at in body.entries(0, 16)? {
        if body.u32(at + 4) != 0 {
            return Err(body.wrong(at + 4, "the set of a register's flags", body.u32(at + 4)));
        }
        if !seen.insert(body.u32(at)) {
            return Err(body.wrong(at, "a register that is there twice", body.u32(at)));
        }
    }
    Ok(())
}

/// HVM_PARAMS (`handle_hvm_params`). Xen sets some of them once (`hvm_allow_set_param`, xen/arch/x86/hvm/hvm.c).
pub(super) fn hvm_params(body: Body<'_>, bounds: Bounds) -> Result<(), Damage> {
    /// Those whose frame libxenguest clears: of the rings of xenstore and of the console, of requests and of buffered ones
    /// (`HVM_PARAM_STORE_PFN` and others, xen/include/public/hvm/params.h).
    const FRAMES: [u64; 4] = [1, 5, 6, 17];
    if body.bytes.len() < 8 {
        return Err(body.head.bad_length(name(body.head.kind)));
    }
    let count = body.u32(0);
    body.has_length(8 + 16 * u64::from(count))?;
    let mut seen = BTreeSet::new();
    for at in (8..body.bytes.len()).step_by(16) {
        let (index, value) = (body.u64(at), body.u64(at + 8));
        // `xc_hvm_param_set` takes 32 bits.
        if index > u32::MAX.into() {
            return Err(body.wrong(at, "a parameter", index));
        }
        if !seen.insert(index) {
            return Err(body.wrong(at, "a parameter that is there twice", index));
        }
        if FRAMES.contains(&index) && value > bounds.last_frame {
            return Err(body.damage(at + 8, Fault::Frame { frame: value, last: bounds.last_frame }));
        }
    }
    Ok(())
}

/// HVM_CONTEXT: a chain of `hvm_save_descriptor`, each before its state (xen/include/public/hvm/save.h; `hvm_load`,
/// xen/arch/x86/hvm/save.c). HEADER is the first, END the last.
pub(super) fn hvm_context(body: Body<'_>, bounds: Bounds) -> Result<(), Damage> {
    /// The types (xen/include/public/arch-x86/hvm/save.h).
    const END: u16 = 0;
    const HEADER: u16 = 1;
    /// CPU, LAPIC, LAPIC_REGS, MTRR, CPU_XSAVE, VIRIDIAN_VCPU, VMCE_VCPU, TSC_ADJUST and CPU_MSR: the instance is the vCPU.
    const OF_A_VCPU: [u16; 9] = [2, 5, 6, 14, 16, 17, 18, 19, 20];
    /// `HVM_FILE_MAGIC`, `HVM_FILE_VERSION`.
    const MAGIC: u32 = 0x5438_1286;
    const VERSION: u32 = 1;
    let mut seen = BTreeSet::new();
    let mut at = 0;
    loop {
        let rest = body.bytes.len() - at;
        let Some(rest) = rest.checked_sub(8) else {
            return Err(body.wrong(at, "the room for the next state", rest as u64));
        };
        let (kind, instance, length) = (body.u16(at), body.u16(at + 2), body.u32(at + 4));
        if (at == 0) != (kind == HEADER) {
            return Err(body.wrong(at, "the type of a state", kind));
        }
        if usize::try_from(length).is_ok_and(|length| length > rest) || (kind == END && length != 0) {
            return Err(body.wrong(at + 4, "the length of a state", length));
        }
        if kind == END {
            return if rest == 0 {
                Ok(())
            } else {
                Err(body.wrong(at, "the number of bytes behind the end", rest as u64))
            };
        }
        if kind == HEADER && (length < 8 || (body.u32(at + 8), body.u32(at + 12)) != (MAGIC, VERSION)) {
            return Err(body.wrong(at + 8, "the mark of Xen's state", body.u32(at + 8)));
        }
        if OF_A_VCPU.contains(&kind) && u32::from(instance) >= bounds.vcpus {
            return Err(body.wrong(at + 2, "the number of a vCPU", instance));
        }
        if !seen.insert((kind, instance)) {
            return Err(body.wrong(at, "the type of a state that is there twice", kind));
        }
        at += 8 + usize::try_from(length).unwrap_or(rest);
    }
}
