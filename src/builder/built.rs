//! A built guest: its rings, its plan, and the page counts that Xen reports.

use std::fmt;

use serde::Serialize;

use super::image::BuildResult;
use super::pre::Ports;
use crate::memory::{Measured, NodePages, Plan};
use crate::xen::DomId;

/// A built guest.
#[derive(Debug, Serialize)]
pub struct Built {
    /// The domain.
    pub domid: DomId,
    /// The frames of the rings, and the places of hvmloader's modules.
    #[serde(flatten)]
    pub rings: BuildResult,
    /// The event channels of the rings.
    #[serde(flatten)]
    pub ports: Ports,
    /// What Xen reports at the end of the build. `None` if a device model allocated its own memory during the build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_built: Option<Measured>,
    /// What Xen reports once the device model is ready. `None` without a device model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_running: Option<Measured>,
    /// The pages that it owns then, by NUMA node of the host. Empty where Xen deals them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodePages>,
    /// The plan.
    pub plan: Plan,
}

impl fmt::Display for Built {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |formatter: &mut fmt::Formatter<'_>, what: &str, planned: u64, xen: u64| {
            let verdict = if planned == xen { "" } else { "  differs" };
            writeln!(formatter, "  {what:<22} {planned:>12} {xen:>12}{verdict}")
        };
        writeln!(formatter, "  {:<22} {:>12} {:>12}", "", "planned", "Xen shows")?;
        let plan = &self.plan;
        let measured = [
            (&self.measured_built, "owned pages, built", plan.owned_pages_built),
            (&self.measured_running, "owned pages, running", plan.owned_pages_running),
        ];
        for (seen, what, planned) in measured {
            let Some(seen) = seen else { continue };
            row(formatter, "max pages", plan.max_pages.0, seen.max_pages.0)?;
            row(formatter, what, planned.0, seen.owned_pages.0)?;
            row(formatter, "paging pool, KiB", plan.paging_pool.0, seen.paging_pool_kib.0)?;
        }
        for NodePages { node, pages } in &self.nodes {
            writeln!(formatter, "  {:<22} {:>12}", format!("pages on node {node}"), pages.0)?;
        }
        if self.rings.elsewhere.0 > 0 {
            writeln!(formatter, "  of which on other nodes, since theirs was full: {}", self.rings.elsewhere.0)?;
        }
        write!(
            formatter,
            "  store ring gfn {:#x} port {}, console ring gfn {:#x} port {}",
            self.rings.store_gfn.0, self.ports.store, self.rings.console_gfn.0, self.ports.console
        )
    }
}
