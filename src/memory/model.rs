//! The breakdown of a domain's memory, by the numbers of one of several toolstacks.
//!
//! Static max, target and video come in; everything else follows from them, the vCPUs and the shadow multiplier. The
//! toolstacks agree on the words and on most of the sums, and differ in some numbers. What is a model's own stands in its
//! file as a constant of `Rules`; the sums are done here, once. The drawing in [`picture`](crate::UP::picture) shows how the
//! parts add up.

mod libxl;
mod rules;
#[cfg(test)]
mod tests;
mod xapi;
mod xenops;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::PlanError;
use super::kind::Kind;
use super::multiplier::ShadowMultiplier;
use super::request::{Asked, MAX_COUNTED, MAX_STATIC_MAX, Request};
use super::units::{KIB_PER_MIB, Kib, Pages};

pub use rules::{Extras, Limit, Paging, Rules};

/// By whose numbers a domain's memory is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// OpenXT's xenops: Xen's limit is counted from static max.
    #[default]
    Xenops,
    /// xapi's xenopsd: the same, with terms for vCPUs and for the PV shim.
    Xapi,
    /// libxl, as under `xl`: Xen's limit is counted from the target, and nothing is rounded to MiB but the footprint.
    Libxl,
}

/// A word that is no [`Model`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a memory model: use xenops, xapi or libxl")]
pub struct ModelError(String);

impl Model {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Xenops, Self::Xapi, Self::Libxl];

    /// Its word on the command line, in JSON and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xenops => "xenops",
            Self::Xapi => "xapi",
            Self::Libxl => "libxl",
        }
    }

    /// Its data.
    #[must_use]
    pub const fn rules(self) -> &'static Rules {
        match self {
            Self::Xenops => &xenops::RULES,
            Self::Xapi => &xapi::RULES,
            Self::Libxl => &libxl::RULES,
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Model {
    type Err = ModelError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|model| model.name() == input).ok_or_else(|| ModelError(input.to_owned()))
    }
}

/// The breakdown of a domain's memory. Under xenops and xapi each size is whole MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The most that the guest can balloon up to: guest + balloon + video.
    pub static_max: Kib,
    /// What the guest runs with: guest + video.
    pub target: Kib,
    /// Video RAM, which QEMU adds to the guest, in whole MiB; 0 for no VGA card.
    pub video: Kib,
    /// The RAM that the guest is built to see, in whole MiB: static max - video + shim. QEMU's `-m` is this too.
    pub build_max: Kib,
    /// The RAM that the guest is built to hold: target - video + what the shim needs for a guest of the target's size.
    pub build_start: Kib,
    /// The guest's own part of the target: target - video.
    pub guest: Kib,
    /// What the guest may have but does not hold: static max - target.
    pub balloon: Kib,
    /// The limit set with `xc_domain_setmaxmem`: extra internal + shim + static max, or under libxl the target.
    pub xen_max: Kib,
    /// The model's size for the paging pool (shadow or HAP), which Xen holds for the domain but does not count as its own. It
    /// is counted for a PV guest as well, which is given no pool: see [`Plan::paging_pool`](super::Plan::paging_pool).
    pub shadow: Kib,
    /// Room under the limit for pages that a device model adds.
    pub extra_internal: Kib,
    /// What Xen allocates for the domain outside its limit and its paging pool.
    pub extra_external: Kib,
    /// What the vCPUs add, under xapi.
    pub vcpu_overhead: Kib,
    /// What Xen's PV shim needs for a guest of static max, under xapi.
    pub shim: Kib,
    /// What rounds the footprint up, under libxl.
    pub rounding: Kib,
    /// All that comes on top of the target: shadow + extra internal + extra external + vCPU overhead + shim + rounding.
    pub overhead: Kib,
    /// What the host must have free to build and run the domain: target + overhead.
    pub footprint: Kib,
    /// Whether the guest is built holding less than it sees, the rest to be filled in as it is touched. A PV guest with a
    /// balloon is not: it starts ballooned down, and its kernel knows which frames are not there.
    pub populate_on_demand: bool,
}

impl Memory {
    /// The breakdown for a request.
    ///
    /// # Errors
    /// Where the request cannot be built: see [`PlanError`]. The MMIO hole's size is [`Layout`](super::Layout)'s to check.
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

        let shadow = paging(rules.paging, kind, static_max, vcpus, multiplier)
            .filter(|pool| *pool <= MAX_COUNTED.to_kib())
            .ok_or(PlanError::PagingPoolTooLarge { multiplier })?;
        // Every part is below 2^34 KiB, so none of these can overflow; the error is for the day that a limit moves.
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
        if xen_max > MAX_COUNTED.to_kib() {
            return Err(PlanError::TooLarge { what: "xen max", size: xen_max, limit: MAX_COUNTED });
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

    /// What belongs in the guest's xenstore key `memory/target`, by which its balloon driver goes: build start without the
    /// shim's part, and under populate on demand 1 MiB less.
    ///
    /// Guests count what they were given in different ways; the MiB keeps one that counts short from touching more than
    /// it was granted (XSA-153; `libxl__get_targetmem_fudge`, `tools/libs/light/libxl_internal.h`, Xen 4.17, where it is for
    /// HVM alone: a PVH guest can count short too).
    #[must_use]
    pub fn balloon_target(&self) -> Kib {
        let granted = self.guest;
        if self.populate_on_demand { granted.checked_sub(Kib(1024)).unwrap_or(granted) } else { granted }
    }
}

/// The paging pool: its pages rounded up to the model's unit, times the multiplier, rounded down to it.
fn paging(rule: Paging, kind: Kind, static_max: Kib, vcpus: u32, multiplier: ShadowMultiplier) -> Option<Kib> {
    let for_vcpus = rule.per_vcpu.checked_mul(u64::from(vcpus))?;
    let for_memory = (rule.per_mib)(kind).checked_mul(static_max.get() / KIB_PER_MIB)?;
    let plain = Pages(for_vcpus.checked_add(for_memory)?).to_kib().round_up(rule.unit)?;
    let units = u32::try_from(plain.get().checked_div(rule.unit.get())?).ok()?;
    let scaled = multiplier.scale(units)?.max(1);
    u64::from(scaled).checked_mul(rule.unit.get()).map(Kib)
}
