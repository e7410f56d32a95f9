//! Ballooning: how far a guest may be moved, what has to be set for that, and when it has arrived.

use super::error::PlanError;
use super::kind::Kind;
use super::plan::Plan;
use super::request::Request;
use super::units::{Kib, Pages};

/// How far from its goal a guest may stay and have arrived all the same: 1 MiB. Guests count what they hold in different
/// ways (XSA-153), and hvmloader adds pages of its own.
pub const TOLERANCE: Pages = Pages(256);

/// Why a guest cannot be moved to a size.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BalloonError {
    /// It would need more than it was built to see.
    #[error("{size} is more than the static max of {static_max}, which is fixed when a guest is built")]
    AboveStaticMax {
        /// What was asked for.
        size: Kib,
        /// The most.
        static_max: Kib,
    },
    /// It would die of it.
    #[error("{size} is less than the {floor} that a guest built to see {static_max} needs to live")]
    BelowFloor {
        /// What was asked for.
        size: Kib,
        /// The least.
        floor: Kib,
        /// The most, from which the least follows.
        static_max: Kib,
    },
    /// The model has no plan for this size.
    #[error("a guest of {size} cannot be: {error}")]
    Plan {
        /// What was asked for.
        size: Kib,
        /// Why not.
        error: PlanError,
    },
}

/// What a guest is at before it is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Pages that it owns.
    pub owned: Pages,
    /// The present target of its balloon driver: `memory/target`.
    pub memory_target: Kib,
    /// Something is left of it to be populated on demand.
    pub on_demand: bool,
}

/// What to set to move a guest, and where it is to end.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// Whether it is to grow.
    pub up: bool,
    /// The limit that the guest's model has for the new size: `xc_domain_setmaxmem`.
    pub max_memory: Kib,
    /// What it may own in all while it is populated on demand: `xc_domain_set_pod_target`. `None` where there is nothing to
    /// set: Xen takes back by itself what a shrinking guest gives back.
    pub pod_target: Option<Pages>,
    /// The new target of its balloon driver: `memory/target`.
    pub memory_target: Kib,
    /// What it owns when it has arrived by the plan, give or take [`TOLERANCE`].
    pub goal: Pages,
    /// The pages that it owns at its new target. Where it was before is not always where the plan has it: an HVM
    /// Linux holds less by its video RAM, for it takes what it does not see of static max off its target
    /// (drivers/xen/xen-balloon.c), and a guest with OVMF more by its image.
    pub moved: Pages,
}

/// The least that leaves a guest alive: video RAM, and of the rest of static max the share that the balloon driver of
/// XenLinux kept at least (its `minimum_target`): 1/2 of what is above 32 MiB, 1/4 above 128 MiB, 1/8 above 512 MiB, 1/32
/// above 2 GiB. A kernel keeps books of all the memory that it sees, whether it holds it or not.
#[must_use]
pub fn floor(static_max: Kib, video: Kib) -> Kib {
    /// From so many MiB on, so many are kept, and one of so many more.
    const CURVE: [(u64, u64, u64); 5] = [(2048, 360, 32), (512, 168, 8), (128, 72, 4), (32, 24, 2), (0, 0, 1)];
    let ram = static_max.0.saturating_sub(video.0) / 1024;
    let kept =
        CURVE.iter().find(|(from, ..)| ram >= *from).map_or(0, |(from, kept, one_of)| kept + (ram - from) / one_of);
    Kib(video.0.saturating_add(kept.saturating_mul(1024)))
}

impl Move {
    /// What moves a guest that was built as `request` says to `size`, video RAM included. While anything is left of it to be
    /// populated on demand, its target is 1 MiB less than that, as when it is built (XSA-153).
    ///
    /// # Errors
    /// Where `size` is above static max, or below [`floor`] unless forced; where the model has no plan for it.
    pub fn new(request: &Request, now: Present, size: Kib, force: bool) -> Result<Self, BalloonError> {
        let no_plan = |error| BalloonError::Plan { size, error };
        // The rounding is the model's: what it makes of static max is the bound, and so is what it makes of the size.
        let whole = Plan::new(&Request { target: request.static_max.unwrap_or(request.target), ..built(request) })
            .map_err(no_plan)?;
        let static_max = whole.memory.static_max;
        if size > static_max {
            return Err(BalloonError::AboveStaticMax { size, static_max });
        }
        let floor = floor(static_max, whole.memory.video);
        if size < floor && !force {
            return Err(BalloonError::BelowFloor { size, floor, static_max });
        }
        // Whole MiB are for building alone.
        let target = if request.kind == Kind::Pv { Kib(size.0.next_multiple_of(1024)) } else { size };
        let plan = Plan::new(&Request { target, static_max: Some(static_max), ..built(request) }).map_err(no_plan)?;
        let guest = plan.memory.guest;
        let memory_target = if now.on_demand { plan.memory.balloon_target() } else { guest };
        let told_less = Kib(guest.0.saturating_sub(memory_target.0)).to_pages_floor();
        let up = memory_target > now.memory_target;
        let by = Kib(memory_target.0.abs_diff(now.memory_target.0)).to_pages_floor().0;
        let moved = Pages(if up { now.owned.0.saturating_add(by) } else { now.owned.0.saturating_sub(by) });
        let max_memory = plan.memory.xen_max;
        Ok(Self {
            up,
            max_memory,
            pod_target: (up && now.on_demand).then(|| moved.min(max_memory.to_pages_floor())),
            memory_target,
            goal: Pages(plan.owned_pages_running.0.saturating_sub(told_less.0)),
            moved,
        })
    }

    /// Whether a guest that owns so much, with so many entries to be populated on demand and so much kept for them, is
    /// where it was sent. Entries that nothing is kept for are memory which it has yet to give back.
    #[must_use]
    pub fn has_arrived(&self, owned: Pages, cache: Pages, entries: Pages) -> bool {
        let near = |goal: Pages| owned.0.abs_diff(goal.0) <= TOLERANCE.0;
        (near(self.goal) || near(self.moved)) && entries.0.saturating_sub(cache.0) <= TOLERANCE.0
    }
}

/// The request, for a guest that exists: that populate on demand and passthrough exclude each other is about building.
fn built(request: &Request) -> Request {
    Request { passthrough: false, ..request.clone() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Model;
    use super::super::units::Mib;
    use super::*;

    fn request(target: u32, static_max: u32, kind: Kind, model: Model) -> Request {
        Request { static_max: Some(Mib(static_max).to_kib()), kind, model, ..Request::new(Mib(target).to_kib()) }
    }

    #[test]
    fn the_floor_is_a_curve_without_steps() {
        let mib = |mib: u32| Mib(mib).to_kib();
        for (static_max, least) in
            [(16, 16), (32, 24), (128, 72), (512, 168), (2048, 360), (8192, 552), (131_072, 4392)]
        {
            assert_eq!(floor(mib(static_max), Kib(0)), mib(least), "{static_max}");
        }
        assert_eq!(floor(mib(528), mib(16)), mib(184));
    }

    fn at(mib: u32, target: u32, on_demand: bool) -> Present {
        Present { owned: Mib(mib).to_pages(), memory_target: Mib(target).to_kib(), on_demand }
    }

    #[test]
    fn down_and_up() {
        let hvm = request(512, 512, Kind::Hvm, Model::Xenops);
        let down = Move::new(&hvm, at(512, 496, true), Mib(256).to_kib(), false).expect("a move");
        assert_eq!((down.up, down.max_memory, down.pod_target), (false, Mib(513).to_kib(), None));
        assert_eq!(down.memory_target, Mib(256 - 16 - 1).to_kib());
        assert_eq!((down.goal, down.moved), (Pages(65_536 - 256), Pages(65_536 - 256)));
        let exact = Move::new(&hvm, at(512, 496, false), Mib(256).to_kib(), false).expect("a move");
        assert_eq!((exact.memory_target, exact.goal), (Mib(256 - 16).to_kib(), Pages(65_536)));
        let up = Move::new(&hvm, at(256, 239, true), Mib(512).to_kib(), false).expect("a move");
        assert_eq!((up.up, up.memory_target, up.goal), (true, Mib(496).to_kib(), Pages(131_072)));
        assert_eq!(up.pod_target, Some(Mib(513).to_pages()));

        let pvh = request(512, 512, Kind::Pvh, Model::Libxl);
        let tight = Move::new(&pvh, at(512, 512, false), Mib(200).to_kib(), false).expect("a move");
        assert_eq!(tight.max_memory, Mib(201).to_kib());
        let pv = request(512, 512, Kind::Pv, Model::Libxl);
        let pv = Move::new(&pv, at(512, 512, false), Kib(200 * 1024 - 1), false).expect("a move");
        assert_eq!((pv.memory_target, pv.goal), (Mib(200).to_kib(), Pages(51_200)));
    }

    #[test]
    fn where_it_cannot_go() {
        let hvm = request(256, 512, Kind::Hvm, Model::Xenops);
        let to = |mib: u32, force| Move::new(&hvm, at(256, 240, false), Mib(mib).to_kib(), force);
        let above = to(513, true).expect_err("above");
        assert_eq!(above, BalloonError::AboveStaticMax { size: Mib(513).to_kib(), static_max: Mib(512).to_kib() });
        let below = to(100, false).expect_err("below");
        assert!(matches!(below, BalloonError::BelowFloor { .. }), "{below}");
        assert!(to(100, true).is_ok());
        assert!(to(16, true).expect_err("no plan").to_string().starts_with("a guest of 16 MiB cannot be"));
    }

    #[test]
    fn arrived_is_what_is_held_and_nothing_owed() {
        let pvh = request(512, 512, Kind::Pvh, Model::Xenops);
        let there = Move::new(&pvh, at(490, 512, false), Mib(256).to_kib(), false).expect("a move");
        let owned = |mib: u32, more: u64| Pages(Mib(mib).to_pages().0 + more);
        assert_eq!((there.goal, there.moved), (owned(256, 9), owned(234, 0)));
        for (pages, arrived) in [
            (owned(257, 9), true),
            (owned(257, 10), false),
            (owned(256, 0), true),
            (owned(234, 256), true),
            (owned(240, 0), false),
        ] {
            assert_eq!(there.has_arrived(pages, Pages(5), Pages(9)), arrived, "{pages:?}");
        }
        assert!(!there.has_arrived(owned(256, 9), Pages(100), Pages(400)), "300 pages are still to be given back");
    }

    proptest! {
        #[test]
        fn a_move_ends_within_its_limit(guest in 64_u32..1 << 20, part in 1_u32..=8) {
            for kind in [Kind::Hvm, Kind::Pvh, Kind::Pv] {
                for model in [Model::Xenops, Model::Xapi, Model::Libxl] {
                    let static_max = guest + 16;
                    let size = Mib(static_max / part + 18).to_kib();
                    let now = at(static_max, static_max, part % 2 == 0);
                    if let Ok(there) = Move::new(&request(static_max, static_max, kind, model), now, size, true) {
                        prop_assert!(there.goal <= there.max_memory.to_pages_floor());
                        prop_assert!(there.pod_target <= Some(there.max_memory.to_pages_floor()));
                        prop_assert!(there.goal.0 <= size.to_pages_floor().0 + 256);
                    }
                }
            }
        }
    }
}
