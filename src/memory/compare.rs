//! Compares a running domain with its plan: every difference, with its likely cause.

use serde::Serialize;

use super::kind::Kind;
use super::layout::ACPI_PAGES;
use super::model::Model;
use super::nodes::NodePages;
use super::plan::Plan;
use super::units::{Kib, Pages};

/// The most pages of libxl's ACPI tables for a PVH guest, with RSDP and info page (measured: 9, xl 4.17).
const LIBXL_ACPI_PAGES: u64 = 16;

/// The memory of a domain, as Xen reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// The pages that the domain owns, including the PoD cache.
    pub owned_pages: Pages,
    /// The most pages that it may own.
    pub max_pages: Pages,
    /// The pages of the PoD cache.
    pub pod_cache_pages: Pages,
    /// The PoD entries: frames that are not populated yet.
    pub pod_entries: Pages,
    /// The size of the paging pool.
    pub paging_pool_kib: Kib,
    /// The pages that are claimed and not allocated yet.
    pub claimed_pages: Pages,
}

/// The pages of a domain on a NUMA node of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NodeFigure {
    /// The node.
    pub node: u32,
    /// The pages that were planned there. `None` without such a plan.
    pub planned: Option<Pages>,
    /// The pages that Xen counts, which the PoD cache is not among.
    pub xen: Pages,
}

/// Compares a domain's pages on each node with the plan's, if there is one. `cache` is the PoD cache, which is on the first
/// planned node.
#[must_use]
pub fn by_node(planned: &[NodePages], xen: &[NodePages], cache: Pages) -> Vec<NodeFigure> {
    let home = planned.iter().max_by_key(|planned| planned.pages.0).map(|planned| planned.node);
    let plan = |node: u32| {
        let pages = planned.iter().find(|planned| planned.node == node).map_or(0, |planned| planned.pages.0);
        Pages(pages.saturating_sub(if home == Some(node) { cache.0 } else { 0 }))
    };
    xen.iter()
        .map(|seen| NodeFigure {
            node: seen.node,
            planned: (!planned.is_empty()).then(|| plan(seen.node)),
            xen: seen.pages,
        })
        .collect()
}

/// A figure in which plan and domain differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The figure's name in JSON.
    pub what: &'static str,
    /// The planned value.
    pub plan: u64,
    /// The value that Xen reports.
    pub xen: u64,
    /// The likely cause.
    pub cause: String,
}

/// The PoD pages that the builder (hvmloader, firmware, kernel), QEMU or the guest has accessed. Each first access
/// lowers cache and entries by one. `None` if the two differ from the plan by different amounts, because the balloon
/// driver has given back untouched frames.
#[must_use]
pub fn touched(plan: &Plan, xen: &Measured) -> Option<Pages> {
    let pod = plan.pod?;
    let entries = pod.entries.0.checked_sub(xen.pod_entries.0)?;
    let cache = pod.cache.0.checked_sub(xen.pod_cache_pages.0)?;
    (entries == cache).then_some(Pages(entries))
}

/// Lists the differences between a plan and a domain. `memory_target` is the domain's xenstore key `memory/target`;
/// `ours` is whether dombuild built the domain. [`touched`] pages are not a difference.
#[must_use]
pub fn compare(plan: &Plan, xen: &Measured, memory_target: Option<Kib>, ours: bool) -> Vec<Difference> {
    let pod = plan.pod.unwrap_or_default();
    let mut found = Vec::new();
    let mut check = |what, plan: u64, xen: u64, cause: &dyn Fn() -> String| {
        if plan != xen {
            found.push(Difference { what, plan, xen, cause: cause() });
        }
    };
    check("owned_pages", plan.owned_pages_running.0, xen.owned_pages.0, &|| owned(plan, xen, memory_target, ours));
    check("max_pages", plan.max_pages.0, xen.max_pages.0, &|| {
        let how = if xen.max_pages < plan.max_pages { "lowered" } else { "raised" };
        format!("the limit was {how} after the build: by balloon, or by xl mem-set or mem-max")
    });
    if touched(plan, xen).is_none() {
        check("pod_entries", pod.entries.0, xen.pod_entries.0, &|| on_demand(pod.entries, pod.cache, xen));
        check("pod_cache_pages", pod.cache.0, xen.pod_cache_pages.0, &|| on_demand(pod.entries, pod.cache, xen));
    }
    check("paging_pool_kib", plan.paging_pool.0, xen.paging_pool_kib.0, &|| {
        "it was set by another formula than this model's".to_owned()
    });
    check("claimed_pages", 0, xen.claimed_pages.0, &|| {
        "a build is going on that has not populated these yet".to_owned()
    });
    found
}

fn owned(plan: &Plan, xen: &Measured, memory_target: Option<Kib>, ours: bool) -> String {
    let (planned, shown) = (plan.owned_pages_running, xen.owned_pages);
    let added = plan.owned_pages_running.0 - plan.owned_pages_built.0;
    let extra = plan.memory.extra_internal.to_pages_floor();
    let built_target = plan.memory.balloon_target();
    if plan.device_model && added > 0 && shown == plan.owned_pages_built {
        return format!("QEMU has not added its {added} pages of video RAM and ROM yet");
    }
    if let Some(more) = shown.0.checked_sub(planned.0) {
        let acpi = more + ACPI_PAGES.0;
        if !ours && plan.request.kind == Kind::Pvh && plan.request.model == Model::Libxl && acpi <= LIBXL_ACPI_PAGES {
            return format!("libxl's ACPI tables take {acpi} pages, dombuild's {}", ACPI_PAGES.0);
        }
        if more > extra.0 && memory_target.is_some_and(|target| target > built_target) {
            return format!(
                "ballooned up: its target is {} KiB more than it was built with",
                memory_target.unwrap_or_default().0 - built_target.0
            );
        }
        if plan.request.kind == Kind::Hvm {
            return "hvmloader's own pages (a dozen or so, with OVMF its whole image), option ROMs of QEMU's devices (16 to 128 \
                    each), and what memory these have of their own"
                .to_owned();
        }
        return "the guest or its device model took more than was planned, within Xen's limit".to_owned();
    }
    let less = planned.0 - shown.0;
    match memory_target {
        Some(target) if target < built_target => {
            format!("ballooned out: its target is {} KiB less than it was built with", built_target.0 - target.0)
        }
        _ if plan.memory.populate_on_demand && less <= 256 => {
            "ballooned out: under populate on demand memory/target is 1 MiB less than the guest may own".to_owned()
        }
        // Linux subtracts from its target the part of static max that it does not see (drivers/xen/xen-balloon.c).
        _ if plan.request.kind == Kind::Hvm && less <= plan.memory.video.to_pages_floor().0 + 256 => {
            "ballooned out: an HVM Linux goes below its target by its video RAM".to_owned()
        }
        _ => "ballooned out by the guest itself, or given back by it".to_owned(),
    }
}

/// Entries alone decrease while the balloon driver gives back untouched frames. The cache decreases with them once it
/// covers all remaining entries.
fn on_demand(planned_entries: Pages, planned_cache: Pages, xen: &Measured) -> String {
    let entries = planned_entries.0.saturating_sub(xen.pod_entries.0);
    let cache = planned_cache.0.saturating_sub(xen.pod_cache_pages.0);
    if xen.pod_entries.0 == 0 {
        "nothing is left to populate: touched, or given back by the balloon driver".to_owned()
    } else {
        format!("{cache} pages were touched or taken back, and {} given back untouched", entries.saturating_sub(cache))
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Request;
    use super::super::units::Mib;
    use super::*;

    fn measured(plan: &Plan) -> Measured {
        let pod = plan.pod.unwrap_or_default();
        Measured {
            owned_pages: plan.owned_pages_running,
            max_pages: plan.max_pages,
            pod_cache_pages: pod.cache,
            pod_entries: pod.entries,
            paging_pool_kib: plan.paging_pool,
            claimed_pages: Pages(0),
        }
    }

    fn causes(plan: &Plan, xen: &Measured, target: Option<u64>) -> Vec<String> {
        compare(plan, xen, target.map(Kib), false).into_iter().map(|difference| difference.cause).collect()
    }

    #[test]
    fn what_is_as_planned_is_no_difference() {
        for (kind, static_max) in [(Kind::Hvm, 256), (Kind::Hvm, 512), (Kind::Pvh, 512), (Kind::Pv, 512)] {
            let request =
                Request { kind, static_max: Some(Mib(static_max).to_kib()), ..Request::new(Mib(256).to_kib()) };
            let plan = Plan::new(&request).expect("a plan");
            assert_eq!(compare(&plan, &measured(&plan), None, true), []);
        }
    }

    #[test]
    fn every_cause_has_its_words() {
        let plan = Plan::new(&Request::new(Mib(256).to_kib())).expect("a plan");
        let as_planned = measured(&plan);
        let with = |owned: u64| Measured { owned_pages: Pages(owned), ..as_planned };
        let one = |xen: &Measured, target| causes(&plan, xen, target).concat();
        assert!(one(&with(plan.owned_pages_built.0), None).contains("video RAM"));
        assert!(one(&with(65_536 + 12), Some(240 << 10)).contains("hvmloader"));
        assert!(one(&with(65_536 + 2560), Some(250 << 10)).contains("ballooned up: its target is 10240 KiB more"));
        assert!(one(&with(60_000), Some(200 << 10)).contains("ballooned out: its target is 40960 KiB less"));
        assert!(one(&Measured { max_pages: Pages(1), ..as_planned }, None).contains("lowered"));
        assert!(one(&Measured { paging_pool_kib: Kib(1), ..as_planned }, None).contains("formula"));
        assert!(one(&Measured { claimed_pages: Pages(1), ..as_planned }, None).contains("build is going on"));

        let ballooned = Request { static_max: Some(Mib(512).to_kib()), ..Request::new(Mib(256).to_kib()) };
        let plan = Plan::new(&ballooned).expect("a plan");
        let pod = plan.pod.expect("on demand");
        let fallen = |entries: u64, cache: u64| Measured {
            pod_entries: Pages(pod.entries.0 - entries),
            pod_cache_pages: Pages(pod.cache.0 - cache),
            ..measured(&plan)
        };
        assert_eq!(
            (causes(&plan, &fallen(119, 119), None), touched(&plan, &fallen(119, 119))),
            (vec![], Some(Pages(119)))
        );
        assert_eq!(touched(&plan, &fallen(319, 119)), None);
        assert!(causes(&plan, &fallen(319, 119), None).concat().contains("200 given back untouched"));
        assert!(causes(&plan, &fallen(pod.entries.0, 100), None).concat().contains("nothing is left"));
    }

    #[test]
    fn libxls_acpi_pages_are_known() {
        let request = Request { kind: Kind::Pvh, model: Model::Libxl, ..Request::new(Mib(256).to_kib()) };
        let plan = Plan::new(&request).expect("a plan");
        let xen = Measured { owned_pages: Pages(plan.owned_pages_running.0 + 8), ..measured(&plan) };
        assert!(causes(&plan, &xen, Some(1 << 30)).concat().contains("ACPI tables take 9 pages"));
    }
}
