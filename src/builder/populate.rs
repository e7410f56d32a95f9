//! Populates the memory of an HVM or PVH guest in as few calls as its frames allow, with progress, and with cancellation
//! between any two calls.
//!
//! libxenguest does the same (`meminit_hvm`, tools/libs/guest/xg_dom_x86.c, Xen 4.17 and 4.20) in pieces of 8 MiB and without
//! progress, and drops the domain's claim at the end.

use std::time::{Duration, Instant};

use super::numa_placement::NodePlan;
use crate::context::Context;
use crate::error::Error;
use crate::error::host::HostError;
use crate::memory::layout::{Extents, ORDERS};
use crate::memory::{Kind, Pages, Plan};
use crate::observer::{Progress, Unit};
use crate::xen::{DomId, FromNode, PopulateMode, XenError};

/// Interval between two progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Guests up to this size start their device model at once, without a measurement of the pace: 2 GiB.
const EARLY_QEMU_MAX: Pages = Pages(2 << 18);

/// Whether part of the guest is populated before its device model starts. On demand, filling the cache takes longest. That is
/// one call, and the device model starts during it.
#[must_use]
pub fn populates_before(plan: &Plan) -> bool {
    plan.request.kind != Kind::Pv && plan.pod.is_none() && total(plan) > EARLY_QEMU_MAX
}

fn total(plan: &Plan) -> Pages {
    Pages(plan.layout.populated().iter().map(|(start, end)| end.saturating_sub(*start)).sum())
}

/// Frames that are not populated yet: half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    at: u64,
    end: u64,
    /// The NUMA node that its memory comes from; `None` for any.
    node: Option<u32>,
    /// The node has no more: the rest comes from the others.
    full: bool,
}

impl Part {
    fn mode(&self, pod: bool) -> PopulateMode {
        match self.node {
            _ if pod => PopulateMode::OnDemand,
            None => PopulateMode::AnyNode,
            Some(node) => PopulateMode::Node(FromNode { node, exact: !self.full }),
        }
    }
}

/// The RAM of an HVM or PVH guest, and how much of it is populated.
#[derive(Debug)]
pub(crate) struct Populating<'a> {
    plan: &'a Plan,
    parts: Vec<Part>,
    /// A node that runs out is an error.
    exact: bool,
    /// The pages for which their node had no room.
    elsewhere: Pages,
    total: Pages,
    left: Pages,
    /// Time spent on populating so far.
    taken: Duration,
}

impl<'a> Populating<'a> {
    pub(crate) fn new(plan: &'a Plan, nodes: &NodePlan) -> Self {
        let part = |at, end, node| Part { at, end, node, full: false };
        let parts: Vec<Part> = if nodes.ranges.is_empty() {
            plan.layout.populated().into_iter().map(|(at, end)| part(at, end, None)).collect()
        } else {
            nodes.ranges.iter().map(|range| part(range.start, range.end, Some(range.node))).collect()
        };
        let total = Pages(parts.iter().map(|part| part.end.saturating_sub(part.at)).sum());
        Self { plan, parts, exact: nodes.exact, elsewhere: Pages(0), total, left: total, taken: Duration::ZERO }
    }

    /// The number of pages that are not populated yet.
    pub(crate) fn left(&self) -> Pages {
        self.left
    }

    /// The number of pages that are on another NUMA node than planned.
    pub(crate) fn elsewhere(&self) -> Pages {
        self.elsewhere
    }

    /// Whether work that takes `time` should start later, by the pace so far. It can only start between two calls, so it
    /// starts before the last one at the latest.
    pub(crate) fn is_long(&self, time: Duration) -> bool {
        let done = self.total.0.saturating_sub(self.left.0);
        if done == 0 {
            return populates_before(self.plan);
        }
        let next = self.parts.first().map(|part| Extents::next(part.at, part.end, ORDERS[0]));
        let is_last = next.is_none_or(|next| next.pages(next.count) >= self.left);
        let left = self.taken.as_nanos().saturating_mul(self.left.0.into());
        !is_last && left > time.as_nanos().saturating_mul(done.into())
    }

    /// Populates the remaining frames, on demand if the plan says so; Xen then fills its PoD cache first. If the device model
    /// has yet to start, stops when the rest takes no longer than `start_device_model`.
    ///
    /// `explain` finds the cause of a refusal by Xen.
    ///
    /// # Errors
    /// [`Error::NotEnoughMemory`], [`Error::LimitTooLow`], [`HostError::NodeRanOut`], or the call that Xen refused;
    /// [`Error::Interrupted`].
    pub(crate) fn populate(
        &mut self,
        context: &Context<'_>,
        domid: DomId,
        explain: impl Fn(XenError) -> Error,
        start_device_model: Option<Duration>,
    ) -> Result<(), Error> {
        if let Some(pod) = &self.plan.pod {
            context.xen.set_pod_target(domid, pod.cache).map_err(&explain)?;
        }
        let mut reported = Instant::now();
        let mut most = ORDERS[0];
        while let Some(part) = self.parts.first().copied()
            && start_device_model.is_none_or(|time| self.is_long(time))
        {
            context.cancel.check()?;
            let began = Instant::now();
            let extents = Extents::next(part.at, part.end, most);
            let smaller = extents.smaller();
            let mode = part.mode(self.plan.pod.is_some());
            let done = match (context.xen.populate(domid, extents, mode), smaller) {
                (Ok(done), _) => done,
                // A failure that only concerns large extents disappears with smaller ones.
                (Err(_), Some(_)) => 0,
                (Err(error), None) => return Err(explain(error)),
            };
            // The host has no more extents of that size here: continue with smaller ones up to the next boundary of a large one.
            most = smaller.filter(|_| done < extents.count).unwrap_or(ORDERS[0]);
            let is_out = done < extents.count && smaller.is_none();
            self.took(extents.pages(done), began.elapsed());
            if is_out {
                self.node_is_full()?;
            }
            if self.left.0 == 0 || reported.elapsed() >= PROGRESS_INTERVAL {
                tell(context, Pages(self.total.0.saturating_sub(self.left.0)), self.total);
                reported = Instant::now();
            }
        }
        Ok(())
    }

    /// The node of the first part has not one page more.
    fn node_is_full(&mut self) -> Result<(), HostError> {
        let Some((part, node)) = self.parts.first_mut().and_then(|part| part.node.map(|node| (part, node))) else {
            return Ok(());
        };
        let missing = Pages(part.end.saturating_sub(part.at));
        if self.exact {
            return Err(HostError::NodeRanOut { node, missing });
        }
        log::warn!("NUMA node {node} is full: {} KiB of the guest's memory are on other nodes", missing.to_kib().0);
        part.full = true;
        self.elsewhere = Pages(self.elsewhere.0.saturating_add(missing.0));
        Ok(())
    }

    /// Records that the first `pages` of the remaining frames are populated.
    fn took(&mut self, pages: Pages, time: Duration) {
        if let Some(part) = self.parts.first_mut() {
            part.at = part.at.saturating_add(pages.0);
            if part.at >= part.end {
                self.parts.remove(0);
            }
        }
        self.left = Pages(self.left.0.saturating_sub(pages.0));
        self.taken = self.taken.saturating_add(time);
    }
}

fn tell(context: &Context<'_>, done: Pages, total: Pages) {
    let (done, total) = (done.to_kib().0, total.to_kib().0);
    let text = format!("{} of {} MiB are populated", done / 1024, total / 1024);
    context.observer.progress(&Progress { what: "populate", done, total, unit: Unit::Kib, text: &text });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Mib, Request};

    const TIME: Duration = Duration::from_millis(100);

    fn plan(mib: u32, most_mib: u32) -> Plan {
        let most = (most_mib > mib).then_some(Mib(most_mib).to_kib());
        Plan::new(&Request { static_max: most, ..Request::new(Mib(mib).to_kib()) }).expect("a plan")
    }

    /// The first frame and the size of the next call.
    fn next(memory: &Populating<'_>) -> Option<(u64, Pages)> {
        let part = memory.parts.first().copied()?;
        let extents = Extents::next(part.at, part.end, ORDERS[0]);
        Some((part.at, extents.pages(extents.count)))
    }

    /// The MiB that remain when the device model starts, if each GiB takes `milliseconds`.
    fn left(mib: u32, most_mib: u32, milliseconds: u64) -> u64 {
        let plan = plan(mib, most_mib);
        let mut memory = Populating::new(&plan, &NodePlan::default());
        while memory.is_long(TIME) {
            let (_, pages) = next(&memory).expect("some are left");
            memory.took(pages, Duration::from_nanos((milliseconds * 1_000_000 * pages.0) >> 18));
        }
        memory.left.0 >> 8
    }

    #[test]
    fn what_is_beside_begins_when_the_rest_takes_as_long() {
        assert_eq!(left(8192, 8192, 40), 2288, "89 ms");
        assert_eq!(left(65536, 65536, 8), 12528, "98 ms");
        assert_eq!(left(8192, 8192, 1), 8175, "as soon as it is known to take no time");
        assert_eq!(left(8192, 8192, 300), 240, "before the last call at the latest");
        assert_eq!(left(4880, 4880, 300), 1024, "the last call is as large as any");
    }

    #[test]
    fn what_is_beside_little_memory_or_memory_on_demand_begins_at_once() {
        assert_eq!(left(1024, 1024, 300), 1007);
        assert_eq!(left(2048, 2048, 300), 2031);
        assert_eq!(left(4096, 8192, 300), 8175);
    }

    #[test]
    fn every_frame_is_populated_once() {
        let plan = plan(8192, 8192);
        let mut memory = Populating::new(&plan, &NodePlan::default());
        let mut seen = Vec::new();
        while let Some((at, pages)) = next(&memory) {
            seen.push((at, at + pages.0));
            memory.took(pages, Duration::from_millis(1));
        }
        assert_eq!(memory.left, Pages(0));
        let reported: u64 = seen.iter().map(|(at, end)| end - at).sum();
        assert_eq!(Pages(reported), memory.total);
        assert!(seen.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{seen:x?}");
    }
}
