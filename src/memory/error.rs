//! Why a request cannot become a plan.

use super::kind::Kind;
use super::limits::{
    HVM_MAX_VCPUS, MAX_E820_ENTRIES, MAX_VIDEO, MIN_BUILD_START, MIN_LOWMEM, PVH_MMIO_HOLE, VGPU_VRAM,
};
use super::model::Model;
use super::multiplier::ShadowMultiplier;
use super::reserved::Reserved;
use super::units::{Bytes, Kib, Mib};
use super::vnuma_error::VnumaError;

/// Why a request cannot become a plan. Each message states the fact and its numbers. What to do about it depends on the
/// caller's own interface.
///
/// All of these are found before Xen is asked for anything.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The guest would have to run with more than it may ever have.
    #[error("the target of {target} is more than the static max of {static_max}")]
    TargetAboveStaticMax {
        /// The target, as the model rounds it.
        target: Kib,
        /// The static max, as the model rounds it.
        static_max: Kib,
    },
    /// Video RAM is part of the target, and would leave the guest nothing.
    #[error("video RAM of {video} leaves nothing of the target of {target}, which it is part of")]
    VideoNotBelowTarget {
        /// The video RAM.
        video: Mib,
        /// The target, as the model rounds it.
        target: Kib,
    },
    /// A video card's memory is a power of two.
    #[error("video RAM of {video} is not a power of two of MiB")]
    VideoNotPowerOfTwo {
        /// The video RAM as it was asked for.
        video: Kib,
    },
    /// QEMU would silently make the card smaller, and the domain would be short of the difference.
    #[error("video RAM of {video} is more than the {MAX_VIDEO} that QEMU's VGA card takes")]
    VideoTooLarge {
        /// The video RAM.
        video: Mib,
    },
    /// hvmloader would find no place for the card's memory.
    #[error("video RAM of {video} does not fit the MMIO hole of {hole}, half of which at most can go to it")]
    VideoPastHole {
        /// The video RAM.
        video: Mib,
        /// The MMIO hole.
        hole: Bytes,
    },
    /// The virtual NUMA nodes do not fit the guest.
    #[error(transparent)]
    Vnuma(#[from] VnumaError),
    /// A domain without vCPUs cannot run.
    #[error("a domain with 0 vCPUs cannot run")]
    NoVcpus,
    /// More vCPUs than an HVM guest's hvm_info table has room for.
    #[error("{vcpus} vCPUs are more than the {HVM_MAX_VCPUS} that a guest can have")]
    TooManyVcpus {
        /// The number of vCPUs that was asked for.
        vcpus: u32,
    },
    /// The model itself needs that room.
    #[error(
        "an extra internal of {asked} is less than the {least} that a {kind} guest has by the {model} model anyway"
    )]
    ExtraInternalTooSmall {
        /// What was asked for.
        asked: Kib,
        /// The model's figure.
        least: Kib,
        /// The kind that was asked for.
        kind: Kind,
        /// The model that was asked for.
        model: Model,
    },
    /// Too little to place hvmloader and the pages below 1 MiB.
    #[error("a target of {target}{} is less than the {MIN_BUILD_START} that a guest is built with at least", less(*video))]
    TooSmall {
        /// The target, as the model rounds it.
        target: Kib,
        /// The video RAM.
        video: Mib,
    },
    /// An HVM guest's hole below 4 GiB is too small, too large or not whole MiB.
    #[error("an MMIO hole of {hole} cannot be made")]
    MmioHole {
        /// The hole that was asked for.
        hole: Bytes,
    },
    /// A size whose pages Xen or hvmloader would count in 32 bits, and silently cut.
    #[error("a {what} of {size} is past what Xen can hold in its 32-bit page counts, {limit} here")]
    TooLarge {
        /// The word of the model for what is too large.
        what: &'static str,
        /// Its size.
        size: Kib,
        /// The largest that would do.
        limit: Mib,
    },
    /// The paging pool is past what `XEN_DOMCTL_shadow_op` carries.
    #[error("a shadow multiplier of {multiplier} makes the paging pool too large for Xen")]
    PagingPoolTooLarge {
        /// The multiplier that was asked for.
        multiplier: ShadowMultiplier,
    },
    /// Only HVM guests have an emulated card.
    #[error("a {kind} guest has no VGA card that {video} of video RAM could be for")]
    VideoNotHvm {
        /// The kind that was asked for.
        kind: Kind,
        /// The video RAM.
        video: Kib,
    },
    /// Only an HVM guest's hole can be chosen.
    #[error("{}", no_hole(*kind))]
    HoleNotHvm {
        /// The kind that was asked for.
        kind: Kind,
    },
    /// Only HVM guests are laid out around reserved regions.
    #[error("a {kind} guest cannot be laid out around the host's PCI devices")]
    ReservedNotHvm {
        /// The kind that was asked for.
        kind: Kind,
    },
    /// A region that no hypervisor would tell of.
    #[error("the reserved region {region} is not one or more whole pages of 4 KiB")]
    ReservedNotPages {
        /// The region.
        region: Reserved,
    },
    /// A region that leaves too little low RAM.
    #[error(
        "the host reserves {region} for a device, and the guest's low memory, which has to end there, needs {MIN_LOWMEM} at least"
    )]
    ReservedTooLow {
        /// The region.
        region: Reserved,
    },
    /// A region where the guest has what cannot be elsewhere.
    #[error(
        "the host reserves {region} for a device, but every guest has hvmloader's tables, APICs and special pages from 0xfc000000 to 4 GiB"
    )]
    ReservedInFirmware {
        /// The region.
        region: Reserved,
    },
    /// A region in the RAM above 4 GiB.
    #[error(
        "the host reserves {region} for a device, and the guest's memory above 4 GiB reaches up to {:#x}",
        end.get()
    )]
    ReservedInHighRam {
        /// The region.
        region: Reserved,
        /// Where the guest's memory ends.
        end: Bytes,
    },
    /// More regions than the memory map has room for.
    #[error(
        "the host reserves so many regions for these devices that the guest's memory map has {entries} entries, more than the {MAX_E820_ENTRIES} that hvmloader reads"
    )]
    TooManyRegions {
        /// The entries of the memory map.
        entries: usize,
    },
    /// The hole has no place for a vGPU's video RAM.
    #[error("the MMIO hole of {hole} has no {VGPU_VRAM} left for the vGPU's video memory")]
    NoRoomForVram {
        /// The MMIO hole.
        hole: Bytes,
    },
    /// The shim runs as a PVH guest.
    #[error("Xen's PV shim is the kernel of a pvh guest, not of a {kind} one")]
    ShimNotPvh {
        /// The kind that was asked for.
        kind: Kind,
    },
    /// The model has no number for what the shim takes.
    #[error("the {model} model has no figure for Xen's PV shim, and the guest would be too small for it")]
    ShimUnknown {
        /// The model that was asked for.
        model: Model,
    },
    /// Pages that are not there yet have no address that an IOMMU could know.
    #[error(
        "a guest with PCI devices cannot start with {target} of {static_max}: Xen cannot populate on demand under an IOMMU"
    )]
    OnDemandUnderIommu {
        /// The target, as the model rounds it.
        target: Kib,
        /// The static max, as the model rounds it.
        static_max: Kib,
    },
    /// The model wants a guest to start with all that it may have.
    #[error("by the {model} model a {kind} guest cannot start with less than it may balloon up to")]
    CannotStartBalloonedDown {
        /// The kind that was asked for.
        kind: Kind,
        /// The model that was asked for.
        model: Model,
    },
    /// libxenguest counts in MiB what it builds, and the model does not round up.
    #[error("a {what} of {size} is not whole MiB, in which a guest is built, and the libxl model does not round")]
    NotWholeMib {
        /// Which size it is: `target` or `static max`.
        what: &'static str,
        /// The size that was asked for.
        size: Kib,
        /// The next smaller size that would do.
        below: Mib,
        /// The next larger one.
        above: Mib,
    },
}

/// What is taken off a target, in words.
fn less(video: Mib) -> String {
    if video.is_zero() { String::new() } else { format!(" less {video} of video RAM") }
}

fn no_hole(kind: Kind) -> String {
    match kind {
        Kind::Pvh => format!("the MMIO hole of a pvh guest is always {PVH_MMIO_HOLE}"),
        _ => format!("a {kind} guest has no MMIO hole"),
    }
}
