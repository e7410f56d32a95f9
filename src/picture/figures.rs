//! The page counts that Xen will report, as a table with their formulas.

use super::stack::short;
use crate::memory::kind::Kind;
use crate::memory::layout::{ACPI_PAGES, IOREQ_SERVER_PAGES, SPECIAL_PAGES, VGA_HOLE_PAGES};
use crate::memory::multiplier::ShadowMultiplier;
use crate::memory::plan::{Plan, VGA_ROM};

/// A figure: its name, its value and its formula.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) origin: String,
}

/// The figures of a plan.
pub(super) fn figures(plan: &Plan) -> Vec<Figure> {
    let figure = |name, value: String, origin: String| Figure { name, value, origin };
    let running = if plan.owned_pages_running > plan.owned_pages_built {
        let video = plan.memory.video.to_pages_floor().get();
        format!("+ {video} of video RAM + {} of its ROM", VGA_ROM.get())
    } else if plan.device_model {
        "the same: no VGA card".to_owned()
    } else {
        "the same: no device model".to_owned()
    };
    let mut all = vec![
        figure("max pages", plan.max_pages.get().to_string(), "xen max".to_owned()),
        figure("owned pages, built", plan.owned_pages_built.get().to_string(), built(plan.request.kind)),
        figure("owned pages, running", plan.owned_pages_running.get().to_string(), running),
    ];
    if let Some(pod) = plan.pod {
        let hole = if plan.request.kind == Kind::Hvm {
            format!(" − {} of VGA hole", VGA_HOLE_PAGES.get())
        } else {
            String::new()
        };
        all.push(figure("on demand, entries", pod.entries.get().to_string(), format!("build max{hole}, untouched")));
        let origin = format!("build start{hole}, untouched");
        all.push(figure("on demand, cache", pod.cache.get().to_string(), origin));
    }
    all.extend(pool(plan));
    all
}

/// The formula of the pages that a domain owns after the build.
fn built(kind: Kind) -> String {
    match kind {
        Kind::Hvm => {
            let special = SPECIAL_PAGES.get() + IOREQ_SERVER_PAGES.get();
            format!("build start − {} of VGA hole + {special} special", VGA_HOLE_PAGES.get())
        }
        Kind::Pvh => format!("build start + {} special + {} of ACPI", SPECIAL_PAGES.get(), ACPI_PAGES.get()),
        Kind::Pv => "build start".to_owned(),
    }
}

fn pool(plan: &Plan) -> Vec<Figure> {
    let figure = |name, value, origin| Figure { name, value, origin };
    let value = short(plan.paging_pool);
    if plan.paging_pool.is_zero() {
        return vec![figure("paging pool", value, "none: a PV guest's page tables are its own".to_owned())];
    }
    let paging = plan.request.model.rules().paging;
    let per_mib = (paging.per_mib)(plan.request.kind);
    let origin = format!("{} pages a vCPU + {per_mib} a MiB of static max", paging.per_vcpu);
    let mut all = vec![figure("paging pool", value, origin)];
    let multiplier = plan.request.shadow_multiplier;
    if multiplier != ShadowMultiplier::ONE {
        all.push(figure("", String::new(), format!("× {multiplier}")));
    }
    all
}

/// Draws the table.
pub(super) fn draw(plan: &Plan) -> String {
    let all = figures(plan);
    let width = all.iter().map(|figure| figure.value.len()).max().unwrap_or(0);
    let line = |figure: &Figure| format!(" {:<20}  {:>width$}  {}\n", figure.name, figure.value, figure.origin);
    all.iter().map(line).collect()
}
