//! The records of libxenguest's stream: their types and names (docs/specs/libxc-migration-stream.pandoc), and where each of
//! them may stand (`process_record`, tools/libs/guest/xg_sr_restore.c and xg_sr_restore_x86_*.c, Xen 4.17 and 4.20).

use serde::{Deserialize, Serialize};

/// The container of a domain, as the stream names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Container {
    /// A PV guest.
    Pv,
    /// An HVM or PVH guest.
    Hvm,
}

/// One more than the highest frame of any guest: 16 TiB, the most that Xen has on x86 (SUPPORT.md).
const MOST_FRAMES: u64 = 1 << 32;

/// What a guest's configuration bounds in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The last frame that the guest can have.
    pub(super) last_frame: u64,
    /// The number of its vCPUs.
    pub(super) vcpus: u32,
}

impl Bounds {
    /// The bounds of a guest with this last frame, of at most 16 TiB, and this number of vCPUs.
    #[must_use]
    pub fn new(last_frame: u64, vcpus: u32) -> Self {
        Self { last_frame: last_frame.min(MOST_FRAMES - 1), vcpus }
    }

    /// The bytes of a bit for each frame.
    pub(super) fn bitmap(self) -> u64 {
        self.last_frame / 8 + 8
    }
}

/// A record with this bit may be left out by a reader that does not know it.
pub(super) const OPTIONAL: u32 = 1 << 31;

/// Types of records (`REC_TYPE_*`, tools/libs/guest/xg_sr_stream_format.h).
pub(super) mod kind {
    pub(in crate::migration) const END: u32 = 0x0;
    pub(in crate::migration) const PAGE_DATA: u32 = 0x1;
    pub(in crate::migration) const X86_PV_INFO: u32 = 0x2;
    pub(in crate::migration) const X86_PV_P2M_FRAMES: u32 = 0x3;
    pub(in crate::migration) const X86_PV_VCPU_BASIC: u32 = 0x4;
    pub(in crate::migration) const X86_PV_VCPU_EXTENDED: u32 = 0x5;
    pub(in crate::migration) const X86_PV_VCPU_XSAVE: u32 = 0x6;
    pub(in crate::migration) const SHARED_INFO: u32 = 0x7;
    pub(in crate::migration) const X86_TSC_INFO: u32 = 0x8;
    pub(in crate::migration) const HVM_CONTEXT: u32 = 0x9;
    pub(in crate::migration) const HVM_PARAMS: u32 = 0xa;
    pub(in crate::migration) const X86_PV_VCPU_MSRS: u32 = 0xc;
    pub(in crate::migration) const VERIFY: u32 = 0xd;
    pub(in crate::migration) const STATIC_DATA_END: u32 = 0x10;
    pub(in crate::migration) const X86_CPUID_POLICY: u32 = 0x11;
    pub(in crate::migration) const X86_MSR_POLICY: u32 = 0x12;
}

/// The names of the types 0 to 0x12.
const NAMES: [&str; 19] = [
    "END",
    "PAGE_DATA",
    "X86_PV_INFO",
    "X86_PV_P2M_FRAMES",
    "X86_PV_VCPU_BASIC",
    "X86_PV_VCPU_EXTENDED",
    "X86_PV_VCPU_XSAVE",
    "SHARED_INFO",
    "X86_TSC_INFO",
    "HVM_CONTEXT",
    "HVM_PARAMS",
    "TOOLSTACK",
    "X86_PV_VCPU_MSRS",
    "VERIFY",
    "CHECKPOINT",
    "CHECKPOINT_DIRTY_PFN_LIST",
    "STATIC_DATA_END",
    "X86_CPUID_POLICY",
    "X86_MSR_POLICY",
];

/// The name of a record of a type that the format does not have.
const UNKNOWN: &str = "a record of an unknown type";

/// The name of a record that may be left out.
const OPTIONAL_RECORD: &str = "an optional record";

/// The name of a type.
#[must_use]
pub fn name(kind: u32) -> &'static str {
    let known = usize::try_from(kind).ok().and_then(|kind| NAMES.get(kind)).copied();
    known.unwrap_or(if kind & OPTIONAL == 0 { UNKNOWN } else { OPTIONAL_RECORD })
}

/// Where a record may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the end of what is fixed at the creation of a domain.
    Static,
    /// Behind it.
    Dynamic,
    /// Anywhere.
    Anywhere,
    /// Nowhere: in the other container, of an unknown type, or for checkpoints, which only a second host reads.
    Nowhere,
}

/// Where a record may stand in a stream of this container.
pub(super) fn place(kind: u32, container: Container) -> Place {
    let of = |owner, place| if container == owner { place } else { Place::Nowhere };
    match kind {
        kind::STATIC_DATA_END | kind::X86_CPUID_POLICY | kind::X86_MSR_POLICY => Place::Static,
        // Version 2 has it first as well, and no mark behind it.
        kind::X86_PV_INFO => of(Container::Pv, Place::Anywhere),
        kind::END | kind::PAGE_DATA | kind::X86_TSC_INFO | kind::VERIFY => Place::Dynamic,
        kind::HVM_CONTEXT | kind::HVM_PARAMS => of(Container::Hvm, Place::Dynamic),
        kind::X86_PV_P2M_FRAMES
        | kind::X86_PV_VCPU_BASIC
        | kind::X86_PV_VCPU_EXTENDED
        | kind::X86_PV_VCPU_XSAVE
        | kind::X86_PV_VCPU_MSRS
        | kind::SHARED_INFO => of(Container::Pv, Place::Dynamic),
        other if other & OPTIONAL != 0 => Place::Anywhere,
        _ => Place::Nowhere,
    }
}

/// The records that must have come before this one: libxenguest refuses it otherwise, or a guest without them does not run.
pub(super) fn needs(kind: u32, container: Container) -> &'static [u32] {
    match (kind, container) {
        (kind::PAGE_DATA, Container::Pv) => &[kind::X86_PV_INFO, kind::X86_PV_P2M_FRAMES],
        (
            kind::X86_PV_P2M_FRAMES
            | kind::SHARED_INFO
            | kind::X86_PV_VCPU_BASIC
            | kind::X86_PV_VCPU_EXTENDED
            | kind::X86_PV_VCPU_XSAVE
            | kind::X86_PV_VCPU_MSRS,
            Container::Pv,
        ) => &[kind::X86_PV_INFO],
        // Of X86_PV_VCPU_BASIC, that of vCPU 0.
        (kind::END, Container::Pv) => &[kind::X86_PV_P2M_FRAMES, kind::SHARED_INFO, kind::X86_PV_VCPU_BASIC],
        (kind::END, Container::Hvm) => &[kind::HVM_CONTEXT],
        _ => &[],
    }
}
