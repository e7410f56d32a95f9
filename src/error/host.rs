//! What this host lacks or refuses.

use std::io;
use std::path::PathBuf;

use crate::memory::{Bytes, Kib, Pages};
use crate::xen::{DomId, PciAddress};

/// What this host lacks or refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// This Xen runs no 32-bit PV guests.
    #[error(
        "kernel {kernel} is for 32-bit PV guests ({wanted}), and this Xen runs no 32-bit PV guests (it runs {}): take a 64-bit \
         kernel, or boot Xen with pv=32 where it was built with CONFIG_PV32", runs.join(", ")
    )]
    No32BitPv {
        /// The kernel.
        kernel: PathBuf,
        /// The type of guest, as Xen names it.
        wanted: &'static str,
        /// The types that this Xen runs.
        runs: Vec<String>,
    },
    /// The featureset is longer than this Xen's.
    #[error("word {word} of the featureset has features, but this Xen knows {known} words alone")]
    Featureset {
        /// The first word that is too much.
        word: usize,
        /// The words that Xen knows.
        known: usize,
    },
    /// A leaf of CPUID that Xen does not give to guests of this kind on this host.
    #[error("Xen gives this guest no CPUID leaf {}: {}", leaf_name(*leaf, *subleaf), leaf_reason(subleaves))]
    CpuidLeaf {
        /// The leaf.
        leaf: u32,
        /// The subleaf that was named.
        subleaf: Option<u32>,
        /// The subleaves that the leaf has, if it has any; all ones if it has none.
        subleaves: Vec<u32>,
    },
    /// There is no such PCI device.
    #[error("this host has no PCI device {address} (no {directory}); `lspci -D` lists those that there are")]
    NoPciDevice {
        /// The address.
        address: PciAddress,
        /// Where sysfs would have it.
        directory: PathBuf,
    },
    /// A PCI device is named twice.
    #[error("the PCI device {0} is named twice")]
    PciDeviceTwice(PciAddress),
    /// The host's reserved regions leave too little low memory for the firmware.
    #[error(
        "what the host reserves for the PCI devices leaves the guest {lowmem_end} of low memory, and its firmware needs {needed}"
    )]
    ReservedTooMuch {
        /// The low memory that is left.
        lowmem_end: Bytes,
        /// The low memory that the firmware needs.
        needed: Bytes,
    },
    /// The MMIO hole that was asked for is too small.
    #[error("an MMIO hole of {chosen} is too small for the PCI devices, which need one of {needed}")]
    HoleTooSmall {
        /// The hole that was asked for.
        chosen: Bytes,
        /// The hole that the devices need.
        needed: Bytes,
    },
    /// No journal takes the log.
    #[error(
        "the log cannot go to the journal: there is no listener at /run/systemd/journal/socket ({0}); is systemd-journald running?"
    )]
    NoJournal(#[source] io::Error),
    /// No syslog daemon takes the log.
    #[error("the log cannot go to syslog: there is no listener at {path} ({source}); is a syslog daemon running?")]
    NoSyslog {
        /// The daemon's socket.
        path: PathBuf,
        /// The error of the connection.
        source: io::Error,
    },
    /// The host has no such NUMA node.
    #[error("this host has no NUMA node {node} with memory; it has {}", list(known))]
    NoNode {
        /// The node.
        node: u32,
        /// The nodes that it has.
        known: Vec<u32>,
    },
    /// The guest must have memory of nodes that have too little.
    #[error("the guest does not fit on its NUMA nodes: {each}")]
    NodesFull {
        /// What each node has and needs.
        each: String,
    },
    /// A node ran out of memory while the guest was populated.
    #[error("NUMA node {node} ran out of memory while the guest was populated; {} KiB of it were missing", missing.to_kib().0)]
    NodeRanOut {
        /// The node.
        node: u32,
        /// The pages that it lacked.
        missing: Pages,
    },
    /// A key in xenstore that should be a domid.
    #[error("{path} in xenstore is {text:?}, which is no domid")]
    NotADomid {
        /// The key.
        path: &'static str,
        /// Its value.
        text: String,
    },
    /// libxl's user data file of a domain cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Userdata {
        /// What failed: `lock`, `make`, `read` or `write`.
        action: &'static str,
        /// The file, or its directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Xen made a smaller paging pool, and reported success.
    #[error("the paging pool of domain {domid} has {} KiB after {} were set", got.0, set.0)]
    PagingPool {
        /// The domain.
        domid: DomId,
        /// The size of the pool.
        got: Kib,
        /// The size that was set.
        set: Kib,
    },
}

fn list(nodes: &[u32]) -> String {
    nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn leaf_name(leaf: u32, subleaf: Option<u32>) -> String {
    subleaf.map_or_else(|| format!("{leaf:#x}"), |subleaf| format!("{leaf:#x} with subleaf {subleaf:#x}"))
}

fn leaf_reason(subleaves: &[u32]) -> String {
    match subleaves {
        [] => "neither this host's CPU nor Xen's default policy has it".to_owned(),
        [u32::MAX] => "the leaf has no subleaves".to_owned(),
        several => format!("its subleaves are {several:?}"),
    }
}
