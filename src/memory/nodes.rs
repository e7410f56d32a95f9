//! The physical NUMA nodes of a guest's memory: which ones it goes to, and how much goes to each.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::units::{Kib, Pages};

/// Parts of a guest end at multiples of this many pages, so that large pages are kept: 2 MiB.
const GRANULE: u64 = 512;

/// A node of the host, as it is for one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostNode {
    /// Its number.
    pub node: u32,
    /// Its free memory, outside what other runs of this program are about to take.
    pub free: Kib,
    /// Its CPUs on which the guest's vCPUs may run.
    pub cpus: u32,
    /// The vCPUs of other domains that belong to it.
    pub load: u32,
}

/// Frames of a guest that are populated from one node: half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRange {
    /// The first frame.
    pub start: u64,
    /// The frame after the last.
    pub end: u64,
    /// The physical node.
    pub node: u32,
}

/// The pages of a guest on a node of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePages {
    /// The node.
    pub node: u32,
    /// The pages.
    pub pages: Pages,
}

/// The nodes for a guest that needs so much memory and has so many vCPUs: the fewest that have the memory and as many CPUs as it
/// has vCPUs. Of several choices, the one with the fewest vCPUs to a CPU, then the one with the most free memory. If no choice
/// has the CPUs, those that have the memory; if none has the memory, all nodes that have CPUs for it. Most free memory first.
#[must_use]
pub fn choose(nodes: &[HostNode], need: Kib, vcpus: u32) -> Vec<HostNode> {
    let mut usable: Vec<HostNode> = nodes.iter().copied().filter(|node| node.cpus > 0).collect();
    usable.sort_by_key(|node| (Reverse(node.free), node.node));
    let all: u32 = usable.iter().map(|node| node.cpus).fold(0, u32::saturating_add);
    let fitting = |cpus: u32| {
        let candidates = usable.iter().filter_map(|seed| {
            let others = usable.iter().filter(|node| node.node != seed.node);
            let mut chosen: Vec<HostNode> = Vec::new();
            let fits = [seed].into_iter().chain(others).any(|node| {
                chosen.push(*node);
                total(&chosen, |node| node.free.0) >= need.0 && total(&chosen, |node| node.cpus.into()) >= cpus.into()
            });
            fits.then_some(chosen)
        });
        candidates.min_by(|one, other| {
            let (first, second) = (load_and_cpus(one), load_and_cpus(other));
            let load = first.0.saturating_mul(second.1).cmp(&second.0.saturating_mul(first.1));
            let free = |of: &[HostNode]| Reverse(total(of, |node| node.free.0));
            one.len().cmp(&other.len()).then(load).then(free(one).cmp(&free(other)))
        })
    };
    let mut chosen = fitting(vcpus.min(all)).or_else(|| fitting(0)).unwrap_or_else(|| usable.clone());
    chosen.sort_by_key(|node| (Reverse(node.free), node.node));
    chosen
}

fn total(nodes: &[HostNode], of: impl Fn(&HostNode) -> u64) -> u64 {
    nodes.iter().map(of).fold(0, u64::saturating_add)
}

fn load_and_cpus(nodes: &[HostNode]) -> (u64, u64) {
    (total(nodes, |node| node.load.into()), total(nodes, |node| node.cpus.into()))
}

/// Divides a guest's frames, half-open ranges, among these nodes, of which the first has its first frames: in equal parts, as far as each node has
/// room for one. `rest` is what the first node holds besides the guest's RAM: its paging pool and special pages. What exceeds the
/// room of all is in the part of the node with the most.
#[must_use]
pub fn divide(ranges: &[(u64, u64)], nodes: &[HostNode], rest: Pages) -> Vec<NodeRange> {
    let pages: u64 = ranges.iter().map(|(start, end)| end.saturating_sub(*start)).sum();
    let mut room: Vec<(usize, u64)> = nodes.iter().map(|node| node.free.to_pages_floor().0).enumerate().collect();
    if let Some((_, first)) = room.first_mut() {
        *first = first.saturating_sub(rest.0);
    }
    // Those with little room first: the others take what is left.
    room.sort_by_key(|(_, pages)| *pages);
    let mut parts = vec![0_u64; nodes.len()];
    let mut left = pages;
    let mut takers = u64::try_from(room.len()).unwrap_or(u64::MAX);
    for (index, room) in room {
        let even = left.div_ceil(takers.max(1)).next_multiple_of(GRANULE);
        let part = if takers == 1 { left } else { even.min(room - room % GRANULE).min(left) };
        if let Some(slot) = parts.get_mut(index) {
            *slot = part;
        }
        left -= part;
        takers -= 1;
    }
    cut(ranges, nodes.iter().map(|node| node.node).zip(parts))
}

/// Cuts ranges into consecutive parts of about so many pages. A part ends at a multiple of the granule; the last takes the rest.
fn cut(ranges: &[(u64, u64)], parts: impl Iterator<Item = (u32, u64)>) -> Vec<NodeRange> {
    let parts: Vec<(u32, u64)> = parts.filter(|(_, pages)| *pages > 0).collect();
    let mut cut = Vec::new();
    let (mut from, mut pages) = (0, 0_u64);
    for (index, (node, size)) in parts.iter().enumerate() {
        pages = pages.saturating_add(*size);
        let is_last = index + 1 == parts.len();
        let to = if is_last { u64::MAX } else { frame_of(ranges, pages).max(from) };
        let inside =
            ranges.iter().map(|(start, end)| NodeRange { start: from.max(*start), end: to.min(*end), node: *node });
        cut.extend(inside.filter(|part| part.start < part.end));
        from = to;
    }
    cut
}

/// The multiple of the granule at or below the frame that follows the first `pages` pages of these ranges.
fn frame_of(ranges: &[(u64, u64)], pages: u64) -> u64 {
    let mut left = pages;
    for (start, end) in ranges {
        let size = end.saturating_sub(*start);
        if left <= size {
            let frame = start.saturating_add(left);
            return frame - frame % GRANULE;
        }
        left -= size;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Kind, Mib, Plan, Request};

    fn node(node: u32, mib: u32, cpus: u32, load: u32) -> HostNode {
        HostNode { node, free: Mib(mib).to_kib(), cpus, load }
    }

    fn numbers(nodes: &[HostNode]) -> Vec<u32> {
        nodes.iter().map(|node| node.node).collect()
    }

    #[test]
    fn the_fewest_nodes_that_fit_best() {
        let two = [node(0, 1000, 2, 4), node(1, 800, 2, 0)];
        for (nodes, mib, vcpus, chosen) in [
            (&two[..], 500, 1, &[1][..]),                              // less load
            (&two, 900, 1, &[0]),                                      // the only one with the memory
            (&two, 1500, 1, &[0, 1]),                                  // both have it
            (&two, 500, 3, &[0, 1]),                                   // the CPUs
            (&two, 500, 9, &[0, 1]),                                   // more vCPUs than CPUs
            (&two, 5000, 1, &[0, 1]),                                  // nowhere
            (&[node(0, 900, 0, 0), node(1, 100, 2, 9)], 500, 1, &[1]), // no CPU that it may run on
            (&[node(0, 900, 1, 0), node(1, 800, 8, 4)], 700, 2, &[1]),
            (&[node(0, 300, 1, 0), node(1, 300, 1, 0), node(2, 500, 1, 3)], 700, 1, &[2, 0]),
            (&[node(0, 500, 2, 2), node(1, 500, 4, 3)], 100, 1, &[1]), // by the CPU
            (&[node(0, 500, 2, 0), node(1, 600, 2, 0)], 100, 1, &[1]), // the most memory
        ] {
            assert_eq!(numbers(&choose(nodes, Mib(mib).to_kib(), vcpus)), chosen, "{nodes:?} {mib} {vcpus}");
        }
        assert_eq!(choose(&[], Kib(1), 1), []);
    }

    fn of_nodes(ranges: &[NodeRange]) -> Vec<(u32, u64)> {
        let mut pages: Vec<(u32, u64)> = Vec::new();
        for range in ranges {
            match pages.iter_mut().find(|(node, _)| *node == range.node) {
                Some((_, sum)) => *sum += range.end - range.start,
                None => pages.push((range.node, range.end - range.start)),
            }
        }
        pages
    }

    #[test]
    fn equal_parts_where_there_is_room() {
        let plan = Plan::new(&Request { kind: Kind::Pvh, ..Request::new(Mib(1024).to_kib()) }).expect("a plan");
        let divided = |nodes: &[HostNode], rest| of_nodes(&divide(&plan.layout.populated(), nodes, Pages(rest)));
        assert_eq!(divided(&[node(1, 4096, 1, 0)], 9), [(1, 262_144)]);
        assert_eq!(divided(&[node(1, 4096, 1, 0), node(0, 2048, 1, 0)], 9), [(1, 131_072), (0, 131_072)]);
        assert_eq!(divided(&[node(1, 4096, 1, 0), node(0, 101, 1, 0)], 9), [(1, 262_144 - 25_600), (0, 25_600)]);
        assert_eq!(divided(&[node(1, 601, 1, 0), node(0, 600, 1, 0)], 51_200), [(1, 102_400), (0, 159_744)]);
        // More than there is: the last one runs out.
        assert_eq!(
            divided(&[node(1, 100, 1, 0), node(0, 100, 1, 0)], 0).iter().map(|(_, pages)| pages).sum::<u64>(),
            262_144
        );
    }

    proptest! {
        #[test]
        fn every_frame_has_one_node(
            mib in 16_u32..20_000,
            rooms in prop::collection::vec(0_u32..20_000, 1..5),
            rest in 0_u64..100_000,
            hvm: bool,
        ) {
            let kind = if hvm { Kind::Hvm } else { Kind::Pvh };
            let plan = Plan::new(&Request { kind, ..Request::new(Mib(mib.max(32)).to_kib()) }).expect("a plan");
            let nodes: Vec<_> = (0..).zip(&rooms).map(|(index, room)| node(index, *room, 1, 0)).collect();
            let parts = divide(&plan.layout.populated(), &nodes, Pages(rest));
            let mut joined: Vec<(u64, u64)> = Vec::new();
            for part in &parts {
                prop_assert!(part.start < part.end);
                match joined.last_mut() {
                    Some((_, end)) if *end == part.start => *end = part.end,
                    _ => joined.push((part.start, part.end)),
                }
            }
            prop_assert_eq!(joined, plan.layout.populated());
            let inner = parts.windows(2).filter(|pair| pair[0].end == pair[1].start);
            for pair in inner {
                prop_assert_eq!(pair[0].end % GRANULE, 0);
            }
        }
    }
}
