//! Places a guest on NUMA nodes: which nodes have its memory, and on which CPUs its vCPUs run by preference.
//!
//! Xen allocates for a domain from the nodes of its node affinity in turn, which it computes from the affinities of the vCPUs
//! (`domain_update_node_affinity`, xen/common/sched/core.c, Xen 4.17), unless a request names a node. So while the guest is
//! built, its vCPUs prefer the CPUs of one node: paging pool, special pages and the device model's pages come from there. The
//! guest's RAM is populated range by range, each from its node. A claim knows no node: the journal has what each run is about
//! to take from each node, and the build locks keep two runs from choosing at once.

use std::collections::BTreeMap;

use crate::config::guest::Guest;
use crate::config::placement::PlacementPolicy;
use crate::config::platform::Platform;
use crate::context::Context;
use crate::error::host::HostError;
use crate::error::{Error, Failure};
use crate::memory::nodes::{choose, divide};
use crate::memory::{HostNode, Kib, Kind, NodePages, NodeRange, Pages};
use crate::payload::boot_files::BootFiles;
use crate::runs::journal;
use crate::stage::Stage;
use crate::xen::{Affinity, DomId, XenError};

/// Where a guest is placed. Empty: Xen deals its memory by the affinity that it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// The nodes of the frames that the builder populates. Empty where Xen chooses.
    pub(crate) ranges: Vec<NodeRange>,
    /// Memory of no other node will do.
    pub(crate) exact: bool,
    /// The pages that the domain will own, by node. Empty where it is not known.
    pub(crate) pages: BTreeMap<u32, Pages>,
    /// What the guest takes from each node, with its paging pool.
    pub(crate) taken: BTreeMap<u32, Pages>,
    /// The soft affinity of each vCPU that has none of its own, while the guest is built. Empty to leave them alone.
    building: Vec<u8>,
    /// The same once it is built, by vCPU, where it differs.
    running: Vec<(u32, Vec<u8>)>,
}

impl NodePlan {
    /// The pages that the domain will own, by node. Empty where the plan does not know.
    #[must_use]
    pub fn node_pages(&self) -> Vec<NodePages> {
        self.pages.iter().map(|(node, pages)| NodePages { node: *node, pages: *pages }).collect()
    }
}

/// Chooses the nodes of a guest in the CPU pool of this number. The caller holds the build locks until the journal has the result.
///
/// # Errors
/// [`HostError::NoNode`], [`HostError::NodesFull`]; an error of Xen.
pub(crate) fn plan_nodes(
    context: &Context<'_>,
    guest: &Guest,
    pool: impl FnOnce() -> Result<u32, Error>,
) -> Result<NodePlan, Error> {
    let (wanted, vnuma) = (&guest.placement, &guest.plan.vnuma);
    let explicit = !wanted.nodes.is_empty() || vnuma.is_some();
    if !explicit && (wanted.policy == PlacementPolicy::None || context.xen.node_count()? < 2) {
        return Ok(NodePlan::default());
    }
    let cpus = HostCpus::of(context, &guest.platform, guest.plan.vcpus, pool()?)?;
    let host = host_nodes(context, &cpus)?;
    let need = guest.plan.memory.footprint;
    let ranges = guest_frames(guest);
    let ram: u64 = ranges.iter().map(|(start, end)| end.saturating_sub(*start)).sum();
    let rest = Pages(need.to_pages_floor().0.saturating_sub(ram));
    let strict = wanted.policy == PlacementPolicy::Strict || vnuma.is_some();
    let named = |nodes: &mut dyn Iterator<Item = u32>| -> Result<Vec<HostNode>, Error> {
        let find = |node: u32| host.iter().copied().find(|host| host.node == node);
        let known = || host.iter().map(|host| host.node).collect();
        nodes.map(|node| find(node).ok_or_else(|| Error::from(HostError::NoNode { node, known: known() }))).collect()
    };
    let (chosen, parts): (Vec<HostNode>, Vec<NodeRange>) = match vnuma {
        Some(vnuma) => {
            let mut nodes = Vec::new();
            for pnode in &vnuma.pnodes {
                if !nodes.contains(pnode) {
                    nodes.push(*pnode);
                }
            }
            (named(&mut nodes.into_iter())?, vnuma.populated(&guest.plan.layout))
        }
        None => {
            let chosen = if wanted.nodes.is_empty() {
                choose(&host, need, guest.plan.vcpus)
            } else {
                let mut named = named(&mut wanted.nodes.iter().copied())?;
                named.sort_by_key(|node| (std::cmp::Reverse(node.free), node.node));
                named
            };
            let parts = divide(&ranges, &chosen, rest);
            (chosen, parts)
        }
    };
    let Some(home) = chosen.first().copied() else { return Ok(NodePlan::default()) };
    let mut taken: BTreeMap<u32, Pages> = BTreeMap::new();
    add(&mut taken, home.node, rest);
    parts.iter().for_each(|part| add(&mut taken, part.node, Pages(part.end - part.start)));
    if strict {
        check_room(&chosen, &taken)?;
    }
    log::info!("the guest's memory goes to {}", describe(&taken));
    // Populate on demand, libxenguest and a saved guest's stream name no node: there, Xen takes the chosen ones in turn.
    let by_range = ranged(guest, strict);
    let several = chosen.len() > 1;
    let owned = guest.plan.owned_pages_running.0;
    let mut pages = BTreeMap::new();
    if by_range {
        parts.iter().for_each(|part| add(&mut pages, part.node, Pages(part.end - part.start)));
        add(&mut pages, home.node, Pages(owned.saturating_sub(ram)));
    } else if !several {
        add(&mut pages, home.node, Pages(owned));
    }
    let all: Vec<u32> = chosen.iter().map(|node| node.node).collect();
    let building = if by_range { cpus.of_nodes(&[home.node]) } else { cpus.of_nodes(&all) };
    let running = match vnuma {
        Some(vnuma) => (0_u32..)
            .zip(&vnuma.vcpu_nodes)
            .filter_map(|(vcpu, vnode)| {
                let pnode = vnuma.pnodes.get(usize::try_from(*vnode).unwrap_or(usize::MAX))?;
                Some((vcpu, cpus.of_nodes(&[*pnode])))
            })
            .collect(),
        None if by_range && several => {
            let cpus = cpus.of_nodes(&all);
            (0..guest.plan.vcpus).map(|vcpu| (vcpu, cpus.clone())).collect()
        }
        None => Vec::new(),
    };
    let running =
        running.into_iter().filter(|(_, cpus): &(u32, Vec<u8>)| *cpus != building && has_cpus(cpus)).collect();
    Ok(NodePlan {
        ranges: if by_range { parts } else { Vec::new() },
        exact: strict,
        pages,
        taken,
        building: if has_cpus(&building) { building } else { Vec::new() },
        running,
    })
}

/// Checks that the host has the nodes that the guest names.
///
/// # Errors
/// [`HostError::NoNode`]; an error of Xen.
pub fn check_nodes(context: &Context<'_>, guest: &Guest) -> Result<(), Error> {
    let pnodes = guest.plan.vnuma.as_ref().map(|vnuma| &vnuma.pnodes[..]).unwrap_or_default();
    let mut named = guest.placement.nodes.iter().chain(pnodes).peekable();
    if named.peek().is_none() {
        return Ok(());
    }
    let known: Vec<u32> = context.xen.numa_nodes()?.iter().map(|node| node.node).collect();
    match named.find(|node| !known.contains(node)) {
        Some(node) => Err(HostError::NoNode { node: *node, known }.into()),
        None => Ok(()),
    }
}

/// Whether the builder populates the guest range by range.
fn ranged(guest: &Guest, strict: bool) -> bool {
    let saved = matches!(guest.boot_files, BootFiles::Saved { .. });
    let pv = guest.plan.request.kind == Kind::Pv;
    !saved && guest.plan.pod.is_none() && (!pv || strict)
}

/// The frames that are populated at the start. A PV guest starts with build start.
fn guest_frames(guest: &Guest) -> Vec<(u64, u64)> {
    let start = guest.plan.memory.build_start.to_pages_floor().0;
    if guest.plan.request.kind == Kind::Pv { vec![(0, start)] } else { guest.plan.layout.populated() }
}

fn add(pages: &mut BTreeMap<u32, Pages>, node: u32, more: Pages) {
    let sum = pages.entry(node).or_default();
    *sum = Pages(sum.0.saturating_add(more.0));
}

/// Checks that each node has what is taken from it.
fn check_room(nodes: &[HostNode], taken: &BTreeMap<u32, Pages>) -> Result<(), Error> {
    let lacks = |node: &HostNode| taken.get(&node.node).is_some_and(|pages| pages.to_kib() > node.free);
    if !nodes.iter().any(lacks) {
        return Ok(());
    }
    let each = nodes.iter().map(|node| {
        let needed = taken.get(&node.node).copied().unwrap_or_default().to_kib();
        format!("node {} has {} KiB free of the {} KiB that it needs", node.node, node.free.0, needed.0)
    });
    Err(HostError::NodesFull { each: each.collect::<Vec<_>>().join("; ") }.into())
}

fn describe(taken: &BTreeMap<u32, Pages>) -> String {
    let each = taken.iter().map(|(node, pages)| format!("node {node} ({} KiB)", pages.to_kib().0));
    each.collect::<Vec<_>>().join(", ")
}

/// The host's nodes as they are for a guest: what other runs are about to take is not free, and other domains' vCPUs belong to
/// the nodes of their affinity, unless that is all nodes.
fn host_nodes(context: &Context<'_>, cpus: &HostCpus) -> Result<Vec<HostNode>, Error> {
    let promised = promised(context)?;
    let mut nodes: Vec<HostNode> =
        context
            .xen
            .numa_nodes()?
            .iter()
            .map(|node| HostNode {
                node: node.node,
                free: Kib(
                    (node.free.0 / 1024).saturating_sub(promised.get(&node.node).map_or(0, |pages| pages.to_kib().0))
                ),
                cpus: cpus.count(node.node),
                load: 0,
            })
            .collect();
    if nodes.len() < 2 {
        return Ok(nodes);
    }
    for domain in context.xen.domains()? {
        // One that has gone since is no load.
        let Ok(map) = context.xen.node_affinity(domain.domid) else { continue };
        let on = |node: &HostNode| bit(&map, node.node);
        let several = nodes.iter().filter(|node| on(node)).count();
        if several == nodes.len() {
            continue;
        }
        let each = domain.existing_vcpus / u32::try_from(several).unwrap_or(1).max(1);
        nodes.iter_mut().filter(|node| on(node)).for_each(|node| node.load = node.load.saturating_add(each));
    }
    Ok(nodes)
}

/// What other living runs are about to take from each node: of what they have promised, the part that their domains lack.
fn promised(context: &Context<'_>) -> Result<BTreeMap<u32, Pages>, Error> {
    let mut sum = BTreeMap::new();
    for found in journal::others()? {
        let run = &found.run;
        let total: u64 = run.promised_nodes().values().sum();
        if !found.alive || total == 0 {
            continue;
        }
        let Some(domain) = run.domid().map(|domid| context.xen.domain(domid)).transpose()?.flatten() else { continue };
        if domain.uuid != run.uuid || domain.dying {
            continue;
        }
        let lacking = total.saturating_sub(domain.owned_pages.0);
        for (node, pages) in run.promised_nodes() {
            let part = u128::from(*pages) * u128::from(lacking) / u128::from(total);
            add(&mut sum, *node, Pages(u64::try_from(part).unwrap_or(u64::MAX)));
        }
    }
    Ok(sum)
}

/// The CPUs on which a guest's vCPUs may run, by node.
struct HostCpus {
    nodes: Vec<Option<u32>>,
    allowed: Vec<bool>,
}

impl HostCpus {
    /// By the hard affinity of its vCPUs, its CPU pool, and the soft affinity if each vCPU has one.
    fn of(context: &Context<'_>, platform: &Platform, vcpus: u32, pool: u32) -> Result<Self, Error> {
        let nodes = context.xen.cpu_nodes()?;
        let pool = context.xen.pool_cpus(pool)?.unwrap_or_default();
        let mut allowed: Vec<bool> = (0..nodes.len()).map(|cpu| bit_of(&pool, cpu)).collect();
        for maps in [&platform.affinity, &platform.soft_affinity] {
            if (0..vcpus).all(|vcpu| maps.contains_key(&vcpu)) {
                let in_any = |cpu: usize| maps.values().any(|map| bit_of(map.bytes(), cpu));
                let both: Vec<bool> = allowed.iter().enumerate().map(|(cpu, is)| *is && in_any(cpu)).collect();
                // Xen ignores a soft affinity that the hard one excludes.
                if both.contains(&true) {
                    allowed = both;
                }
            }
        }
        Ok(Self { nodes, allowed })
    }

    fn count(&self, node: u32) -> u32 {
        let on = self.nodes.iter().zip(&self.allowed).filter(|(of, allowed)| **of == Some(node) && **allowed);
        u32::try_from(on.count()).unwrap_or(u32::MAX)
    }

    /// The allowed CPUs of these nodes, one bit each.
    fn of_nodes(&self, wanted: &[u32]) -> Vec<u8> {
        let mut map = vec![0_u8; self.nodes.len().div_ceil(8)];
        for (cpu, (node, allowed)) in self.nodes.iter().zip(&self.allowed).enumerate() {
            if *allowed
                && node.is_some_and(|node| wanted.contains(&node))
                && let Some(byte) = map.get_mut(cpu / 8)
            {
                *byte |= 1 << (cpu % 8);
            }
        }
        map
    }
}

fn has_cpus(map: &[u8]) -> bool {
    map.iter().any(|byte| *byte != 0)
}

fn bit(map: &[u8], index: u32) -> bool {
    bit_of(map, usize::try_from(index).unwrap_or(usize::MAX))
}

fn bit_of(map: &[u8], index: usize) -> bool {
    map.get(index / 8).is_some_and(|byte| byte & 1 << (index % 8) != 0)
}

/// Lets the vCPUs prefer the node that the guest's memory comes from while it is built. vCPUs with a soft affinity of their own
/// keep it.
pub(super) fn prefer_node(context: &Context<'_>, domid: DomId, guest: &Guest, plan: &NodePlan) -> Result<(), XenError> {
    if plan.building.is_empty() {
        return Ok(());
    }
    let own = &guest.platform.soft_affinity;
    (0..guest.plan.vcpus)
        .filter(|vcpu| !own.contains_key(vcpu))
        .try_for_each(|vcpu| context.xen.set_vcpu_affinity(domid, vcpu, &plan.building, Affinity::Soft))
}

/// Lets each vCPU prefer the nodes that it runs on, once the guest has all its memory.
///
/// # Errors
/// The call that Xen refused.
pub fn settle(context: &Context<'_>, domid: DomId, guest: &Guest, plan: &NodePlan) -> Result<(), Failure> {
    if plan.running.is_empty() {
        return Ok(());
    }
    let own = &guest.platform.soft_affinity;
    context.step(Stage::Scheduling, || {
        plan.running
            .iter()
            .filter(|(vcpu, _)| !own.contains_key(vcpu))
            .try_for_each(|(vcpu, cpus)| context.xen.set_vcpu_affinity(domid, *vcpu, cpus, Affinity::Soft))
    })
}
