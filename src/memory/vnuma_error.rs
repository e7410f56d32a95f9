//! Why a guest cannot have the virtual NUMA nodes that were requested.

use super::limits::{LOCAL_DISTANCE, MAX_DISTANCE, MAX_PNODES};
use super::units::{Kib, Mib};

/// Why a guest cannot have these virtual nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VnumaError {
    /// Xen tells a PV guest about nodes, but no PV kernel of today asks.
    #[error("a pv guest cannot have virtual nodes")]
    Pv,
    /// Xen fills the cache of populate on demand from any node.
    #[error(
        "a guest with virtual nodes has all its memory from the start; its target of {target} is less than its static max of {static_max}"
    )]
    OnDemand {
        /// The target.
        target: Kib,
        /// The static max.
        static_max: Kib,
    },
    /// Xen has no such node.
    #[error("virtual node {vnode}: there is no physical node {pnode}; Xen has at most {MAX_PNODES}")]
    Pnode {
        /// The virtual node.
        vnode: usize,
        /// The physical node.
        pnode: u32,
    },
    /// A node without memory has no range.
    #[error("virtual node {vnode} has no memory")]
    Empty {
        /// The virtual node.
        vnode: usize,
    },
    /// The parts are not the whole.
    #[error("the virtual nodes have {sum} together, and the guest has {static_max}")]
    Sum {
        /// Their sizes together.
        sum: Kib,
        /// The guest's static max.
        static_max: Kib,
    },
    /// The video RAM is taken from the nodes.
    #[error("the video RAM of {video} leaves virtual node {vnode} of {size} no memory")]
    Video {
        /// The virtual node.
        vnode: usize,
        /// Its size.
        size: Mib,
        /// The guest's video RAM.
        video: Kib,
    },
    /// Each vCPU is in one node.
    #[error("vCPU {vcpu} is in {nodes} virtual nodes; each of the guest's {vcpus} vCPUs is in one")]
    Vcpu {
        /// The vCPU.
        vcpu: u32,
        /// The number of nodes that name it.
        nodes: usize,
        /// The number of the guest's vCPUs.
        vcpus: u32,
    },
    /// The guest has no such vCPU.
    #[error("virtual node {vnode} names vCPU {vcpu}; the guest's vCPUs are 0 to {}", vcpus - 1)]
    NoVcpu {
        /// The virtual node.
        vnode: usize,
        /// The vCPU.
        vcpu: u32,
        /// The number of the guest's vCPUs.
        vcpus: u32,
    },
    /// One distance to each node.
    #[error("virtual node {vnode} has {given} distances; there are {nodes} virtual nodes")]
    DistanceCount {
        /// The virtual node.
        vnode: usize,
        /// The number of distances.
        given: usize,
        /// The number of nodes.
        nodes: usize,
    },
    /// The tables of a PVH guest have one page.
    #[error("the ACPI tables of a pvh guest with {vcpus} vCPUs and {nodes} virtual nodes do not fit into their page")]
    Tables {
        /// The number of vCPUs.
        vcpus: u32,
        /// The number of virtual nodes.
        nodes: usize,
    },
    /// A guest would ignore the whole table.
    #[error(
        "the distance from virtual node {from} to {to} is {distance}; it is {LOCAL_DISTANCE} from a node to itself, and {} to {MAX_DISTANCE} to another",
        LOCAL_DISTANCE + 1
    )]
    Distance {
        /// The node.
        from: usize,
        /// The other node, or itself.
        to: usize,
        /// The distance.
        distance: u32,
    },
}
