//! NUMA: the host's nodes, the nodes of a domain's memory, and the nodes that a guest sees.

use std::os::raw::{c_char, c_int, c_uint};

use serde::Serialize;
use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, Interface};
use dombuild_memory::{Bytes, Vnuma};

/// A NUMA node of the host (`XEN_SYSCTL_numainfo`).
#[derive(Debug, Clone, Serialize)]
pub struct NumaNode {
    /// Its number.
    pub node: u32,
    /// Its span of addresses, which may have holes.
    pub size: Bytes,
    /// Its free memory, including claimed memory: a claim knows no node.
    pub free: Bytes,
    /// Its distance to each node, by number; `None` where the firmware gives none.
    pub distances: Vec<Option<u32>>,
}

/// The node from which memory is populated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromNode {
    /// The node's number, 0 to 254.
    pub node: u32,
    /// Memory of no other node will do (`XENMEMF_exact_node`).
    pub exact: bool,
}

impl FromNode {
    /// The flags of `XENMEM_populate_physmap` (`XENMEMF_node`, xen/include/public/memory.h).
    pub(super) fn flags(self) -> u32 {
        let exact = if self.exact { sys::XENMEMF_exact_node_request } else { 0 };
        (self.node.saturating_add(1) & 0xff) << 8 | exact
    }
}

impl Interface {
    /// The host's NUMA nodes that have memory. A host without NUMA has node 0.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn numa_nodes(&self) -> Result<Vec<NumaNode>, XenError> {
        const CALL: &str = "xc_numainfo";
        /// `XEN_INVALID_MEM_SZ` and `XEN_INVALID_NODE_DIST` (xen/include/public/sysctl.h).
        const NONE: u32 = u32::MAX;
        let count = self.node_count()?;
        let length = usize::try_from(count).unwrap_or(0);
        let mut memory = vec![sys::xc_meminfo_t::default(); length];
        let mut distances = vec![0_u32; length.saturating_mul(length)];
        let mut filled: c_uint = count;
        // SAFETY: the arrays have `filled` and its square entries, of the types that the call fills.
        let returned =
            unsafe { sys::xc_numainfo(self.as_raw(), &raw mut filled, memory.as_mut_ptr(), distances.as_mut_ptr()) };
        error::minus_one(CALL, format_args!("{count} nodes"), returned)?;
        let rows = distances.chunks(length.max(1));
        let known = |distance: &u32| Some(*distance).filter(|distance| *distance != NONE);
        Ok((0_u32..)
            .zip(memory.iter().zip(rows))
            .take(usize::try_from(filled).unwrap_or(0))
            .filter(|(_, (memory, _))| memory.memsize != u64::from(NONE))
            .map(|(node, (memory, row))| NumaNode {
                node,
                size: Bytes(memory.memsize),
                free: Bytes(memory.memfree),
                distances: row.iter().map(known).collect(),
            })
            .collect())
    }

    /// The highest number of a NUMA node of the host plus one: 1 on a host without NUMA.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn node_count(&self) -> Result<u32, XenError> {
        let mut count: c_uint = 0;
        // SAFETY: without arrays, the call returns the number of nodes; `count` is live.
        let returned =
            unsafe { sys::xc_numainfo(self.as_raw(), &raw mut count, std::ptr::null_mut(), std::ptr::null_mut()) };
        error::minus_one("xc_numainfo", format_args!("number of nodes"), returned)?;
        Ok(count)
    }

    /// The nodes from which Xen allocates a domain's memory by preference, one bit each (`XEN_DOMCTL_getnodeaffinity`). All by
    /// default; the nodes of its vCPUs' affinities once it has vCPUs.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn node_affinity(&self, domid: DomId) -> Result<Vec<u8>, XenError> {
        let mut map = vec![0_u8; self.node_map_size()?];
        // SAFETY: the map has as many bytes as libxc writes.
        let returned = unsafe { sys::xc_domain_node_getaffinity(self.as_raw(), domid.get(), map.as_mut_ptr()) };
        error::minus_one("xc_domain_node_getaffinity", format_args!("domid {domid}"), returned)?;
        Ok(map)
    }

    /// Sets the NUMA node from which Xen prefers to allocate a domain's memory (`XEN_DOMCTL_setnodeaffinity`).
    ///
    /// # Errors
    /// `EINVAL` if there is no such node.
    pub fn set_node_affinity(&self, domid: DomId, node: u32) -> Result<(), XenError> {
        const CALL: &str = "xc_domain_node_setaffinity";
        let mut map = vec![0_u8; self.node_map_size()?];
        let byte = usize::try_from(node / 8).ok().and_then(|index| map.get_mut(index));
        let Some(byte) = byte else {
            let detail = format!("this host has no NUMA node {node}");
            return Err(XenError::unexpected(CALL, format!("domid {domid}, node {node}"), detail));
        };
        *byte = 1 << (node % 8);
        // SAFETY: the map has as many bytes as libxc reads.
        let returned = unsafe { sys::xc_domain_node_setaffinity(self.as_raw(), domid.get(), map.as_mut_ptr()) };
        error::minus_one(CALL, format_args!("domid {domid}, node {node}"), returned).map(drop)
    }

    fn node_map_size(&self) -> Result<usize, XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let size = unsafe { sys::xc_get_nodemap_size(self.as_raw()) };
        Ok(usize::try_from(error::minus_one("xc_get_nodemap_size", format_args!(""), size)?).unwrap_or(0))
    }

    /// Sets the NUMA nodes that a guest sees (`XEN_DOMCTL_setvnumainfo`). The vCPUs must exist.
    ///
    /// # Errors
    /// `EINVAL` if the number of vCPUs is not the domain's.
    pub fn set_vnuma(&self, domid: DomId, vnuma: &Vnuma) -> Result<(), XenError> {
        let mut ranges: Vec<_> = vnuma
            .ranges
            .iter()
            .map(|range| sys::xen_vmemrange_t { start: range.start.0, end: range.end.0, flags: 0, nid: range.vnode })
            .collect();
        let (mut distances, mut vcpus, mut pnodes) =
            (vnuma.distances.clone(), vnuma.vcpu_nodes.clone(), vnuma.pnodes.clone());
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        // SAFETY: each array lives through the call and has the length that it is given with; the distances are the square of
        // the nodes (`Vnuma`). The call reads them.
        let returned = unsafe {
            sys::xc_domain_setvnuma(
                self.as_raw(),
                domid.get(),
                count(pnodes.len()),
                count(ranges.len()),
                count(vcpus.len()),
                ranges.as_mut_ptr(),
                distances.as_mut_ptr(),
                vcpus.as_mut_ptr(),
                pnodes.as_mut_ptr(),
            )
        };
        let arguments = format_args!("domid {domid}, {} nodes, {} ranges", vnuma.pnodes.len(), vnuma.ranges.len());
        error::minus_one("xc_domain_setvnuma", arguments, returned).map(drop)
    }

    /// Sends debug keys to Xen, which prints what they ask for to its console.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn send_debug_keys(&self, keys: &std::ffi::CStr) -> Result<(), XenError> {
        // SAFETY: the text ends with a NUL, and the call only reads it.
        let returned = unsafe { sys::xc_send_debug_keys(self.as_raw(), keys.as_ptr()) };
        error::minus_one("xc_send_debug_keys", format_args!("{keys:?}"), returned).map(drop)
    }

    /// Reads what Xen's console has behind `index`, which then is its end. Earlier text may be overwritten already.
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn read_console(&self, index: &mut u32) -> Result<Vec<u8>, XenError> {
        /// Read at once.
        const CHUNK: usize = 16 * 1024;
        let mut text = Vec::new();
        loop {
            let mut chunk = vec![0_u8; CHUNK];
            let mut length = u32::try_from(CHUNK).unwrap_or(0);
            let (keep, incremental): (c_int, c_int) = (0, 1);
            // SAFETY: the buffer has `length` bytes, and both numbers are live.
            let returned = unsafe {
                sys::xc_readconsolering(
                    self.as_raw(),
                    chunk.as_mut_ptr().cast::<c_char>(),
                    &raw mut length,
                    keep,
                    incremental,
                    index,
                )
            };
            error::minus_one("xc_readconsolering", format_args!("from {index}"), returned)?;
            chunk.truncate(usize::try_from(length).unwrap_or(0));
            if chunk.is_empty() {
                return Ok(text);
            }
            text.append(&mut chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_a_node() {
        assert_eq!(FromNode { node: 0, exact: false }.flags(), 0x100);
        assert_eq!(FromNode { node: 1, exact: true }.flags(), 0x2_0200);
    }
}
