//! Why a request cannot become a plan.

use super::model::{HVM_MAX_VCPUS, MAX_VIDEO, MIN_BUILD_START};
use super::multiplier::ShadowMultiplier;
use super::units::{Bytes, Kib, Mib};

/// Why a request cannot become a plan. Each message names the numbers involved and says what to do about them.
///
/// All of these are found before Xen is asked for anything.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The guest would have to run with more than it may ever have.
    #[error("the target of {target} is more than the static max of {static_max}: lower --memory or raise --maxmem")]
    TargetAboveStaticMax {
        /// The target, rounded up.
        target: Mib,
        /// The static max, rounded up.
        static_max: Mib,
    },
    /// Video RAM is part of the target, and would leave the guest nothing.
    #[error(
        "video RAM of {video} leaves nothing of the target of {target}, which it is part of: raise --memory or lower --video"
    )]
    VideoNotBelowTarget {
        /// The video RAM.
        video: Mib,
        /// The target, rounded up.
        target: Mib,
    },
    /// A video card's memory is a power of two.
    #[error("video RAM of {video} is not a power of two of MiB: use 0 for no VGA card, or 1, 2, 4, 8, 16 … MiB")]
    VideoNotPowerOfTwo {
        /// The video RAM as it was asked for.
        video: Kib,
    },
    /// QEMU would silently make the card smaller, and the domain would be short of the difference.
    #[error("video RAM of {video} is more than the {MAX_VIDEO} that QEMU's VGA card takes: lower --video")]
    VideoTooLarge {
        /// The video RAM.
        video: Mib,
    },
    /// hvmloader would find no place for the card's memory.
    #[error(
        "video RAM of {video} does not fit the MMIO hole of {hole}, half of which at most can go to it: lower --video, or give --mmio-hole {needed}MiB",
        needed = video.get().saturating_mul(2)
    )]
    VideoPastHole {
        /// The video RAM.
        video: Mib,
        /// The MMIO hole.
        hole: Bytes,
    },
    /// A domain without vCPUs cannot run.
    #[error("a domain with 0 vCPUs cannot run: give at least 1 with --vcpus")]
    NoVcpus,
    /// More vCPUs than the guest's hvm_info table has room for.
    #[error("{vcpus} vCPUs are more than the {HVM_MAX_VCPUS} that an HVM guest can have: lower --vcpus")]
    TooManyVcpus {
        /// The number of vCPUs that was asked for.
        vcpus: u32,
    },
    /// Too little to place hvmloader and the pages below 1 MiB.
    #[error(
        "a target of {target} less {video} of video RAM leaves less than the {MIN_BUILD_START} that a guest is built with at least: raise --memory"
    )]
    TooSmall {
        /// The target, rounded up.
        target: Mib,
        /// The video RAM.
        video: Mib,
    },
    /// The hole below 4 GiB is too small, too large or not whole MiB.
    #[error("an MMIO hole of {hole} cannot be made: give --mmio-hole a whole number of MiB from 256MiB to 2GiB")]
    MmioHole {
        /// The hole that was asked for.
        hole: Bytes,
    },
    /// A size whose pages Xen or hvmloader would count in 32 bits, and silently cut.
    #[error(
        "a {what} of {size} is past what Xen can hold in its 32-bit page counts, {limit} here: lower --memory or --maxmem"
    )]
    TooLarge {
        /// The word of the model for what is too large.
        what: &'static str,
        /// Its size.
        size: Kib,
        /// The largest that would do.
        limit: Mib,
    },
    /// The paging pool is past what `XEN_DOMCTL_shadow_op` carries.
    #[error("a shadow multiplier of {multiplier} makes the paging pool too large for Xen: lower --shadow-multiplier")]
    PagingPoolTooLarge {
        /// The multiplier that was asked for.
        multiplier: ShadowMultiplier,
    },
}
