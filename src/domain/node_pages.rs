//! The pages of a domain by NUMA node of the host. Xen has no call that counts them: its debug key u does, and prints the counts
//! of all domains to its console, from whose ring they are read.

use std::thread;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::error::{Error, Wait};
use crate::memory::{NodePages, Pages};
use crate::xen::{DomId, Interface};

/// Xen prints from a task that it runs soon.
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Has Xen count a domain's pages by node. The cache of populate on demand is not among them.
///
/// Xen holds the lock of each domain's memory while it counts, and prints some lines for each domain, also to a serial line.
///
/// # Errors
/// [`Error::TimedOut`] if the counts do not appear, as in a ring that is too small for all domains; an error of Xen.
pub fn count_by_node(xen: &Interface, cancel: &Cancel, domid: DomId) -> Result<Vec<NodePages>, Error> {
    let nodes = xen.numa_nodes()?.len();
    let mut index = 0;
    xen.read_console(&mut index)?;
    xen.send_debug_keys(c"u")?;
    let end = Instant::now() + DEADLINE;
    let mut text = Vec::new();
    loop {
        text.append(&mut xen.read_console(&mut index)?);
        if let Some(found) = parse(&String::from_utf8_lossy(&text), domid, nodes) {
            return Ok(found);
        }
        cancel.check()?;
        if Instant::now() >= end {
            let what = format!("Xen has not printed the pages of domain {domid} by node to its console");
            return Err(Error::TimedOut { what, after: DEADLINE, wait: Wait::Console });
        }
        thread::sleep(POLL);
    }
}

/// The counts of a domain in Xen's text (`dump_numa`, xen/arch/x86/numa.c, Xen 4.17, xen/common/numa.c, Xen 4.20): a line
/// `Domain N (total: PAGES):`, of Xen 4.20 `dN (total: PAGES):`, then `Node N: PAGES` for each node. `None` while they are not complete.
fn parse(text: &str, domid: DomId, nodes: usize) -> Option<Vec<NodePages>> {
    let wanted = [format!("Domain {domid} (total: "), format!(" d{domid} (total: ")];
    let is_it = |line: &str| wanted.iter().any(|wanted| line.contains(wanted));
    let mut lines = text.lines().skip_while(|line| !is_it(line)).skip(1);
    // The last line may not be complete yet.
    let complete = text.ends_with('\n');
    let counts: Vec<NodePages> = lines
        .by_ref()
        .map_while(|line| {
            let (node, pages) = line.split_once("Node ")?.1.split_once(": ")?;
            Some(NodePages { node: node.trim().parse().ok()?, pages: Pages(pages.trim().parse().ok()?) })
        })
        .take(nodes)
        .collect();
    (counts.len() == nodes && (complete || lines.next().is_some())).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_once_they_are_complete() {
        let text = "(XEN) Memory location of each domain:\n(XEN) Domain 0 (total: 262144):\n(XEN)     Node 0: 131072\n(XEN)     \
                    Node 1: 131072\n(XEN) [2026-12-01 00:16:30] Domain 10 (total: 12272):\n(XEN)     Node 0: 12200\n(XEN)     Node 1: \
                    72\n";
        let of = |domid: u32, text: &str| {
            let found = parse(text, DomId::new(domid).expect("a guest's number"), 2)?;
            Some(found.iter().map(|count| (count.node, count.pages.0)).collect::<Vec<_>>())
        };
        assert_eq!(of(10, text), Some(vec![(0, 12_200), (1, 72)]));
        assert_eq!(of(1, text), None);
        assert_eq!(of(10, &text.replace("Domain ", "d")), Some(vec![(0, 12_200), (1, 72)]));
        for end in 0..text.len() {
            assert_eq!(of(10, &text[..end]), None, "{:?}", &text[..end]);
        }
    }
}
