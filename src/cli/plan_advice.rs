//! What to do about a refused memory request, in terms of the command line's flags.

use crate::memory::{BalloonError, PlanError, VnumaError};

/// What to do about a request that cannot become a plan.
pub(crate) fn advice(error: &PlanError) -> String {
    let text = match error {
        PlanError::TargetAboveStaticMax { .. } => "lower --memory or raise --maxmem",
        PlanError::VideoNotBelowTarget { .. } => "raise --memory or lower --video",
        PlanError::VideoNotPowerOfTwo { .. } => "use 0 for no VGA card, or 1, 2, 4, 8, 16 … MiB",
        PlanError::VideoTooLarge { .. } => "lower --video",
        PlanError::VideoPastHole { video, .. } => {
            // Half of the hole can go to the card.
            return format!("lower --video, or give --mmio-hole {}MiB", video.get().saturating_mul(2));
        }
        PlanError::Vnuma(error) => vnuma_advice(error),
        PlanError::NoVcpus => "give at least 1 with --vcpus",
        PlanError::TooManyVcpus { .. } => "lower --vcpus",
        PlanError::ExtraInternalTooSmall { .. } => "raise --extra-internal, or leave it out",
        PlanError::TooSmall { .. } => "raise --memory",
        PlanError::MmioHole { .. } => "give --mmio-hole a whole number of MiB from 256MiB to 2GiB",
        PlanError::TooLarge { .. } => "lower --memory or --maxmem",
        PlanError::PagingPoolTooLarge { .. } => "lower --shadow-multiplier",
        PlanError::VideoNotHvm { .. } => "leave --video out, or give --kind hvm",
        PlanError::HoleNotHvm { .. } => "leave --mmio-hole out, or give --kind hvm",
        PlanError::ReservedNotHvm { .. } => "give --kind hvm, or leave --pci and --vgpu out",
        PlanError::ReservedNotPages { .. }
        | PlanError::ReservedTooLow { .. }
        | PlanError::ReservedInFirmware { .. } => "leave that device out of --pci",
        PlanError::ReservedInHighRam { .. } => "lower --memory or --maxmem, or leave that device out of --pci",
        PlanError::TooManyRegions { .. } => "give fewer devices with --pci",
        PlanError::NoRoomForVram { .. } => "raise --mmio-hole, or give fewer devices with --pci",
        PlanError::ShimNotPvh { .. } => "give --kind pvh, or leave --shim out",
        PlanError::ShimUnknown { .. } => {
            "give --model xapi, which counts the shim's memory on top, or --model libxl, where the guest makes room for it"
        }
        PlanError::OnDemandUnderIommu { .. } => "give a --maxmem equal to --memory, or no --passthrough and no --pci",
        PlanError::CannotStartBalloonedDown { .. } => "give a --maxmem equal to --memory",
        PlanError::NotWholeMib { what, below, above, .. } => {
            let flag = if *what == "target" { "--memory" } else { "--maxmem" };
            return format!("give {flag} {below} or {above}");
        }
    };
    text.to_owned()
}

fn vnuma_advice(error: &VnumaError) -> &'static str {
    match error {
        VnumaError::Pv => "leave --vnode out, or give --kind hvm or pvh",
        VnumaError::OnDemand { .. } => "give a --maxmem equal to --memory, or leave --vnode out",
        VnumaError::Pnode { .. } => "`xl info -n` lists the nodes that there are; give one of them as pnode=",
        VnumaError::Empty { .. } | VnumaError::Video { .. } => "raise its size=",
        VnumaError::Sum { .. } => "give the --vnode a size= each that add up to --maxmem, or to --memory without one",
        VnumaError::Vcpu { .. } | VnumaError::NoVcpu { .. } => "name each vCPU in vcpus= of one --vnode",
        VnumaError::Tables { .. } => "give fewer --vnode, or --kind hvm",
        VnumaError::DistanceCount { .. } => "give one distance to each node, itself included, or leave distances= out",
        VnumaError::Distance { .. } => "correct distances=, or leave it out for 10 and 20",
    }
}

/// What to do about a size that a running guest cannot be moved to.
pub(crate) fn balloon_advice(error: &BalloonError) -> String {
    match error {
        BalloonError::AboveStaticMax { .. } => {
            "ask for less, or build the guest anew with a larger --maxmem".to_owned()
        }
        BalloonError::BelowFloor { .. } => "ask for more, or insist with --force".to_owned(),
        // The size is the request's target, and the other flags are those of the domain that is built already.
        BalloonError::Plan { .. } => "ask for another size".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Kib, Mib, Model};

    #[test]
    fn advice_names_the_flags_that_the_facts_do_not() {
        let (target, static_max) = (Kib(1 << 20), Kib(2 << 20));
        for (error, flag) in [
            (PlanError::TargetAboveStaticMax { target: static_max, static_max: target }, "--maxmem"),
            (PlanError::OnDemandUnderIommu { target, static_max }, "--passthrough"),
            (PlanError::ShimUnknown { model: Model::Xenops }, "--model xapi"),
            (PlanError::VideoPastHole { video: Mib(256), hole: Mib(256).to_bytes() }, "--mmio-hole 512MiB"),
            (
                PlanError::NotWholeMib { what: "static max", size: Kib(1025), below: Mib(1), above: Mib(2) },
                "--maxmem 1 MiB or 2 MiB",
            ),
        ] {
            assert!(advice(&error).contains(flag) && !error.to_string().contains("--"), "{error}: {}", advice(&error));
        }
        let above = BalloonError::AboveStaticMax { size: static_max, static_max: target };
        assert!(balloon_advice(&above).contains("--maxmem"));
        let below = BalloonError::BelowFloor { size: Kib(1), floor: target, static_max };
        assert!(balloon_advice(&below).contains("--force"));
    }
}
