//! Virtual NUMA: the nodes that a guest sees, and the physical nodes that have their memory.

use serde::{Deserialize, Serialize};

use super::kind::Kind;
use super::layout::{ACPI_PAGES, FOUR_GIB, Layout};
use super::limits::{LOCAL_DISTANCE, MAX_DISTANCE, MAX_PNODES, REMOTE_DISTANCE};
use super::model::Model;
use super::nodes::NodeRange;
use super::units::{Bytes, Kib, Mib, PAGE_SIZE};
use super::vnuma_error::VnumaError;

/// A virtual node, as it is requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vnode {
    /// The physical node that has its memory.
    pub pnode: u32,
    /// Its memory, in whole MiB: its part of the guest's static max, video RAM included.
    pub size: Mib,
    /// Its vCPUs.
    pub vcpus: Vec<u32>,
    /// Its distance to each virtual node; empty for 10 to itself and 20 to the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distances: Vec<u32>,
}

/// A range of guest-physical addresses in a virtual node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VnodeRange {
    /// The first address.
    #[serde(rename = "start_bytes")]
    pub start: Bytes,
    /// The address after the last.
    #[serde(rename = "end_bytes")]
    pub end: Bytes,
    /// The virtual node.
    pub vnode: u32,
    /// The physical node that has the memory.
    pub pnode: u32,
}

/// The virtual nodes of a guest: what Xen, the guest's firmware tables and the builder take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vnuma {
    /// The ranges of memory, by address, without overlaps. The hole below 4 GiB is in none.
    pub ranges: Vec<VnodeRange>,
    /// The physical node of each virtual node.
    pub pnodes: Vec<u32>,
    /// The virtual node of each vCPU.
    pub vcpu_nodes: Vec<u32>,
    /// The distance from each node to each node, row by row.
    pub distances: Vec<u32>,
}

/// The figures of a guest that its virtual nodes must fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) kind: Kind,
    pub(crate) model: Model,
    pub(crate) vcpus: u32,
    pub(crate) target: Kib,
    pub(crate) static_max: Kib,
    pub(crate) build_max: Kib,
}

impl Vnuma {
    /// Checks the nodes and lays them out: `None` without any.
    pub(crate) fn new(nodes: &[Vnode], whole: Whole, layout: &Layout) -> Result<Option<Self>, VnumaError> {
        if nodes.is_empty() {
            return Ok(None);
        }
        if whole.kind == Kind::Pv {
            return Err(VnumaError::Pv);
        }
        let Whole { target, static_max, .. } = whole;
        if target < static_max {
            return Err(VnumaError::OnDemand { target, static_max });
        }
        for (vnode, node) in nodes.iter().enumerate() {
            if node.pnode >= MAX_PNODES {
                return Err(VnumaError::Pnode { vnode, pnode: node.pnode });
            }
        }
        let sizes = sizes(nodes, whole)?;
        let ranges = ranges(nodes, &sizes, layout);
        if whole.kind == Kind::Pvh && pvh_tables(whole.vcpus, ranges.len(), nodes.len()) > ACPI_PAGES.0 * PAGE_SIZE {
            return Err(VnumaError::Tables { vcpus: whole.vcpus, nodes: nodes.len() });
        }
        Ok(Some(Self {
            ranges,
            pnodes: nodes.iter().map(|node| node.pnode).collect(),
            vcpu_nodes: vcpu_nodes(nodes, whole.vcpus)?,
            distances: distances(nodes)?,
        }))
    }

    /// The number of virtual nodes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pnodes.len()
    }

    /// The frames that the builder populates, by physical node.
    #[must_use]
    pub fn populated(&self, layout: &Layout) -> Vec<NodeRange> {
        let page = |address: Bytes| address.to_pages_floor().0;
        let parts = layout.populated().into_iter().flat_map(|(start, end)| {
            self.ranges.iter().map(move |range| NodeRange {
                start: start.max(page(range.start)),
                end: end.min(page(range.end)),
                node: range.pnode,
            })
        });
        parts.filter(|part| part.start < part.end).collect()
    }
}

/// The bytes of a PVH guest's ACPI tables: each begins at a multiple of 16.
fn pvh_tables(vcpus: u32, ranges: usize, nodes: usize) -> u64 {
    let (vcpus, ranges, nodes) = (u64::from(vcpus), ranges as u64, nodes as u64);
    // RSDP, DSDT, FADT and XSDT; MADT, SRAT and SLIT.
    [36, 36, 276, 68, 44 + 8 * vcpus, 48 + 16 * vcpus + 40 * ranges, 44 + nodes * nodes]
        .iter()
        .map(|length: &u64| length.next_multiple_of(16))
        .sum()
}

/// The RAM of each node. Its sizes add up to the static max, of which video RAM is no RAM: libxl takes that from the first
/// node; the other models take a part of it from each, by size.
fn sizes(nodes: &[Vnode], whole: Whole) -> Result<Vec<Mib>, VnumaError> {
    let sum: u64 = nodes.iter().map(|node| u64::from(node.size.0)).sum();
    if Kib(sum.saturating_mul(1024)) != whole.static_max {
        return Err(VnumaError::Sum { sum: Kib(sum.saturating_mul(1024)), static_max: whole.static_max });
    }
    let video = Kib(whole.static_max.0.saturating_sub(whole.build_max.0));
    let mut left = u32::try_from(video.0.div_ceil(1024)).unwrap_or(u32::MAX);
    let total = left;
    let mut cuts = vec![0_u32; nodes.len()];
    if whole.model != Model::Libxl {
        for (cut, node) in cuts.iter_mut().zip(nodes) {
            let part = u64::from(total) * u64::from(node.size.0) / sum.max(1);
            *cut = u32::try_from(part).unwrap_or(u32::MAX).min(left);
            left -= *cut;
        }
    }
    if let Some(first) = cuts.first_mut() {
        *first = first.saturating_add(left);
    }
    let rest = |(vnode, (node, cut)): (usize, (&Vnode, &u32))| {
        if node.size.0 == 0 {
            return Err(VnumaError::Empty { vnode });
        }
        let rest = node.size.0.checked_sub(*cut).filter(|rest| *rest > 0);
        rest.map(Mib).ok_or(VnumaError::Video { vnode, size: node.size, video })
    };
    nodes.iter().zip(&cuts).enumerate().map(rest).collect()
}

/// One range for each node, or two around the hole.
fn ranges(nodes: &[Vnode], sizes: &[Mib], layout: &Layout) -> Vec<VnodeRange> {
    let mut ranges = Vec::new();
    let mut at = Bytes::ZERO;
    for ((vnode, node), size) in (0_u32..).zip(nodes).zip(sizes) {
        let mut left = size.to_bytes().0;
        while left > 0 {
            // The hole, and a region that the host reserves, begin where low RAM ends.
            if at == layout.lowmem_end {
                at = FOUR_GIB;
            }
            let room = if at < layout.lowmem_end { layout.lowmem_end.0 - at.0 } else { u64::MAX };
            let end = Bytes(at.0.saturating_add(left.min(room)));
            ranges.push(VnodeRange { start: at, end, vnode, pnode: node.pnode });
            left -= end.0 - at.0;
            at = end;
        }
    }
    ranges
}

fn vcpu_nodes(nodes: &[Vnode], vcpus: u32) -> Result<Vec<u32>, VnumaError> {
    for (vnode, node) in nodes.iter().enumerate() {
        if let Some(vcpu) = node.vcpus.iter().copied().find(|vcpu| *vcpu >= vcpus) {
            return Err(VnumaError::NoVcpu { vnode, vcpu, vcpus });
        }
    }
    (0..vcpus)
        .map(|vcpu| {
            let mut of = (0_u32..).zip(nodes).filter(|(_, node)| node.vcpus.contains(&vcpu)).map(|(vnode, _)| vnode);
            match (of.next(), of.count()) {
                (Some(vnode), 0) => Ok(vnode),
                (first, more) => {
                    Err(VnumaError::Vcpu { vcpu, nodes: usize::from(first.is_some()).saturating_add(more), vcpus })
                }
            }
        })
        .collect()
}

fn distances(nodes: &[Vnode]) -> Result<Vec<u32>, VnumaError> {
    let mut all = Vec::new();
    for (from, node) in nodes.iter().enumerate() {
        let given = node.distances.len();
        if given != 0 && given != nodes.len() {
            return Err(VnumaError::DistanceCount { vnode: from, given, nodes: nodes.len() });
        }
        for to in 0..nodes.len() {
            let usual = if from == to { LOCAL_DISTANCE } else { REMOTE_DISTANCE };
            let distance = node.distances.get(to).copied().unwrap_or(usual);
            let allowed = if from == to { LOCAL_DISTANCE..=LOCAL_DISTANCE } else { LOCAL_DISTANCE + 1..=MAX_DISTANCE };
            if !allowed.contains(&distance) {
                return Err(VnumaError::Distance { from, to, distance });
            }
            all.push(distance);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, PlanError, Request};

    fn vnode(pnode: u32, mib: u32, vcpus: &[u32], distances: &[u32]) -> Vnode {
        Vnode { pnode, size: Mib(mib), vcpus: vcpus.to_vec(), distances: distances.to_vec() }
    }

    fn request(mib: u32, vnodes: Vec<Vnode>) -> Request {
        Request { vcpus: 2, vnodes, ..Request::new(Mib(mib).to_kib()) }
    }

    fn mib(ranges: &[VnodeRange]) -> Vec<(u64, u64, u32, u32)> {
        ranges.iter().map(|range| (range.start.0 >> 20, range.end.0 >> 20, range.vnode, range.pnode)).collect()
    }

    #[test]
    fn nodes_are_split_at_the_hole_and_share_the_video_memory() {
        let nodes = vec![vnode(1, 2048, &[0], &[]), vnode(0, 4096, &[1], &[10 + 11, 10])];
        let plan = Plan::new(&request(6144, nodes.clone())).expect("a plan");
        let vnuma = plan.vnuma.as_ref().expect("it has nodes");
        // 16 MiB of video: 5 and 10 by size, and the MiB that is left from the first.
        assert_eq!(mib(&vnuma.ranges), [(0, 2042, 0, 1), (2042, 3840, 1, 0), (4096, 6384, 1, 0)]);
        assert_eq!((&vnuma.vcpu_nodes[..], &vnuma.distances[..]), (&[0, 1][..], &[10, 20, 21, 10][..]));
        let parts = vnuma.populated(&plan.layout);
        let pages: u64 = parts.iter().map(|part| part.end - part.start).sum();
        assert_eq!(pages, (6144 - 16) * 256 - 32);
        assert_eq!(
            (parts[0], parts[1]),
            (NodeRange { start: 0, end: 0xa0, node: 1 }, NodeRange { start: 0xc0, end: 2042 << 8, node: 1 },)
        );
        let libxl = Request { model: Model::Libxl, ..request(6144, nodes) };
        let ranges = Plan::new(&libxl).expect("a plan").vnuma.expect("it has nodes").ranges;
        assert_eq!(mib(&ranges)[0], (0, 2032, 0, 1));
    }

    #[test]
    fn a_pvh_guest_has_all_its_memory_in_nodes() {
        let nodes = vec![vnode(0, 64, &[0, 1], &[]), vnode(1, 64, &[], &[])];
        let plan = Plan::new(&Request { kind: Kind::Pvh, ..request(128, nodes) }).expect("a plan");
        assert_eq!(mib(&plan.vnuma.expect("it has nodes").ranges), [(0, 64, 0, 0), (64, 128, 1, 1)]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let two = |one: Vnode, other: Vnode| vec![one, other];
        let good = || vnode(0, 64, &[0], &[]);
        for (nodes, error) in [
            (two(good(), vnode(64, 64, &[1], &[])), VnumaError::Pnode { vnode: 1, pnode: 64 }),
            (two(good(), vnode(0, 0, &[1], &[])), VnumaError::Sum { sum: Kib(65536), static_max: Kib(131_072) }),
            (two(vnode(0, 128, &[0], &[]), vnode(0, 0, &[1], &[])), VnumaError::Empty { vnode: 1 }),
            (
                two(vnode(0, 127, &[0], &[]), vnode(0, 1, &[0, 1], &[])),
                VnumaError::Vcpu { vcpu: 0, nodes: 2, vcpus: 2 },
            ),
            (two(good(), vnode(0, 64, &[], &[])), VnumaError::Vcpu { vcpu: 1, nodes: 0, vcpus: 2 }),
            (two(good(), vnode(0, 64, &[2], &[])), VnumaError::NoVcpu { vnode: 1, vcpu: 2, vcpus: 2 }),
            (two(good(), vnode(0, 64, &[1], &[10])), VnumaError::DistanceCount { vnode: 1, given: 1, nodes: 2 }),
            (two(good(), vnode(0, 64, &[1], &[20, 11])), VnumaError::Distance { from: 1, to: 1, distance: 11 }),
            (two(good(), vnode(0, 64, &[1], &[10, 10])), VnumaError::Distance { from: 1, to: 0, distance: 10 }),
            (two(good(), vnode(0, 64, &[1], &[255, 10])), VnumaError::Distance { from: 1, to: 0, distance: 255 }),
        ] {
            assert_eq!(Plan::new(&request(128, nodes)).expect_err("refused"), PlanError::Vnuma(error));
        }
        let nodes = two(good(), vnode(0, 64, &[1], &[]));
        let pv = Request { kind: Kind::Pv, ..request(128, nodes.clone()) };
        assert_eq!(Plan::new(&pv).expect_err("refused"), PlanError::Vnuma(VnumaError::Pv));
        let on_demand = Request { static_max: Some(Mib(128).to_kib()), ..request(64, nodes) };
        assert!(matches!(Plan::new(&on_demand), Err(PlanError::Vnuma(VnumaError::OnDemand { .. }))));
        let libxl = two(vnode(0, 16, &[0], &[]), vnode(0, 112, &[1], &[]));
        let libxl = Request { model: Model::Libxl, ..request(128, libxl) };
        assert!(matches!(Plan::new(&libxl), Err(PlanError::Vnuma(VnumaError::Video { vnode: 0, .. }))));
    }
}
