//! The breakdown of a domain's memory, by the figures of a toolstack.
//!
//! The input is static max, target, video, vCPUs and shadow multiplier. The toolstacks use the same terms and most of
//! the same sums, but different figures. Each model's figures are a constant of `Rules` in its own file; the sums are
//! here, once.

mod libxl;
mod rules;
#[cfg(test)]
mod tests;
mod xapi;
mod xenops;

use super::error::PlanError;
use super::kind::Kind;
use super::limits::{MAX_COUNTABLE_SIZE, MAX_STATIC_MAX};
use super::model::Model;
use super::multiplier::ShadowMultiplier;
use super::request::{Asked, Request};
use super::units::{KIB_PER_MIB, Kib, Pages};

pub use rules::{Extras, Limit, Paging, Rules};

impl Model {
    /// Its figures.
    #[must_use]
    pub const fn rules(self) -> &'static Rules {
        match self {
            Self::Xenops => &xenops::RULES,
            Self::Xapi => &xapi::RULES,
            Self::Libxl => &libxl::RULES,
        }
    }
}

/// The breakdown of a domain's memory. Under xenops and xapi each size is a whole number of MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The most that the guest can balloon up to: guest + balloon + video.
    pub static_max: Kib,
    /// The memory of the running guest: guest + video.
    pub target: Kib,
    /// Video RAM, which QEMU adds to the guest, in whole MiB; 0 without a VGA card.
    pub video: Kib,
    /// The RAM that the guest sees, in whole MiB: static max - video + shim. It is also QEMU's `-m`.
    pub build_max: Kib,
    /// The RAM that the guest owns after the build: target - video + the shim's part for a guest of the target's size.
    pub build_start: Kib,
    /// The target without video RAM: target - video.
    pub guest: Kib,
    /// What the guest may balloon up by: static max - target.
    pub balloon: Kib,
    /// The limit for `xc_domain_setmaxmem`: extra internal + shim + static max; under libxl
    /// extra internal + target.
    pub xen_max: Kib,
    /// The model's size of the paging pool (shadow or HAP), which Xen does not count as the domain's. The model counts
    /// it for PV guests too, which have no pool: see [`Plan::paging_pool`](super::Plan::paging_pool).
    pub shadow: Kib,
    /// Room under the limit for pages that a device model adds.
    pub extra_internal: Kib,
    /// What Xen allocates for the domain outside its limit and its paging pool.
    pub extra_external: Kib,
    /// xapi: the part of the vCPUs.
    pub vcpu_overhead: Kib,
    /// xapi: what Xen's PV shim needs for a guest of static max.
    pub shim: Kib,
    /// libxl: what the footprint is rounded up by.
    pub rounding: Kib,
    /// The memory in addition to the target: shadow + extra internal + extra external + vCPU overhead + shim +
    /// rounding.
    pub overhead: Kib,
    /// The free memory that the host needs to build and run the domain: target + overhead.
    pub footprint: Kib,
    /// Whether the guest sees more RAM than it owns, and Xen populates frames on first access. A PV guest with a
    /// balloon starts ballooned down instead: its kernel knows which frames are missing.
    pub populate_on_demand: bool,
}

impl Memory {
    /// Computes the breakdown for a request.
    ///
    /// # Errors
    /// If the request cannot be built: see [`PlanError`]. [`Layout`](super::Layout) checks the MMIO hole's size.
    pub fn new(request: &Request) -> Result<Self, PlanError> {
        Self::by_rules(request, request.model.rules())
    }

    fn by_rules(request: &Request, rules: &Rules) -> Result<Self, PlanError> {
        let Request { kind, model, vcpus, shadow_multiplier: multiplier, .. } = *request;
        let Asked { target, static_max, video } = request.check(rules.input)?;
        let extras = (rules.extras)(kind);
        let too_small = |asked| PlanError::ExtraInternalTooSmall { asked, least: extras.internal, kind, model };
        let internal = match request.extra_internal {
            None => extras.internal,
            Some(asked) => {
                asked.round_up(rules.input).filter(|size| *size >= extras.internal).ok_or(too_small(asked))?
            }
        };
        if target < static_max && !extras.can_start_ballooned_down {
            return Err(PlanError::CannotStartBalloonedDown { kind, model });
        }

        let pool = match request.shadow_memory {
            Some(size) if kind.is_translated() => size.round_up(Kib(KIB_PER_MIB)),
            _ => paging(rules.paging, kind, static_max, vcpus, multiplier),
        };
        let shadow = pool
            .filter(|pool| *pool <= MAX_COUNTABLE_SIZE.to_kib())
            .ok_or(PlanError::PagingPoolTooLarge { multiplier })?;
        // Every part is below 2^34 KiB, so no sum overflows unless a limit is raised.
        let too_large = PlanError::TooLarge { what: "static max", size: static_max, limit: MAX_STATIC_MAX };
        let fits = |size: Option<Kib>| size.ok_or_else(|| too_large.clone());
        let sum = |parts: &[Kib]| fits(parts.iter().try_fold(Kib::ZERO, |sum, part| sum.checked_add(*part)));

        let (shim, shim_of_target) = match (request.shim, rules.shim) {
            (false, _) => (Kib::ZERO, Kib::ZERO),
            (true, Some(shim)) => (fits(shim(static_max))?, fits(shim(target))?),
            (true, None) => return Err(PlanError::ShimUnknown { model }),
        };
        let vcpu_overhead = fits((rules.vcpu_overhead)(vcpus))?;
        let limited = match rules.limit {
            Limit::StaticMax => static_max,
            Limit::Target => target,
        };
        let xen_max = sum(&[limited, internal, shim])?;
        if xen_max > MAX_COUNTABLE_SIZE.to_kib() {
            return Err(PlanError::TooLarge { what: "xen max", size: xen_max, limit: MAX_COUNTABLE_SIZE });
        }

        let guest = fits(target.checked_sub(video))?;
        let balloon = fits(static_max.checked_sub(target))?;
        let unrounded = sum(&[internal, extras.external, shadow, vcpu_overhead, shim])?;
        let needed = sum(&[target, unrounded])?;
        let footprint = fits(needed.round_up(rules.footprint))?;
        let rounding = fits(footprint.checked_sub(needed))?;
        Ok(Self {
            static_max,
            target,
            video,
            build_max: sum(&[guest, balloon, shim])?,
            build_start: sum(&[guest, shim_of_target])?,
            guest,
            balloon,
            xen_max,
            shadow,
            extra_internal: internal,
            extra_external: extras.external,
            vcpu_overhead,
            shim,
            rounding,
            overhead: sum(&[unrounded, rounding])?,
            footprint,
            populate_on_demand: !balloon.is_zero() && kind.is_translated(),
        })
    }

    /// The value for the guest's xenstore key `memory/target`, which its balloon driver follows: build start without
    /// the shim's part, less 1 MiB under populate on demand.
    ///
    /// Guests count their own memory in different ways. The MiB keeps a guest from accessing more frames than Xen has
    /// pages for (XSA-153; `libxl__get_targetmem_fudge`, `tools/libs/light/libxl_internal.h`, Xen 4.17). libxl
    /// subtracts it for HVM only, but PVH guests need it too.
    #[must_use]
    pub fn balloon_target(&self) -> Kib {
        let granted = self.guest;
        if self.populate_on_demand { granted.checked_sub(Kib(1024)).unwrap_or(granted) } else { granted }
    }
}

/// The paging pool: its pages rounded up to the model's unit, times the multiplier, rounded down to the unit.
fn paging(rule: Paging, kind: Kind, static_max: Kib, vcpus: u32, multiplier: ShadowMultiplier) -> Option<Kib> {
    let for_vcpus = rule.per_vcpu.checked_mul(u64::from(vcpus))?;
    let for_memory = (rule.per_mib)(kind).checked_mul(static_max.get() / KIB_PER_MIB)?;
    let plain = Pages(for_vcpus.checked_add(for_memory)?).to_kib().round_up(rule.unit)?;
    let units = u32::try_from(plain.get().checked_div(rule.unit.get())?).ok()?;
    let scaled = multiplier.scale(units)?.max(1);
    u64::from(scaled).checked_mul(rule.unit.get()).map(Kib)
}
