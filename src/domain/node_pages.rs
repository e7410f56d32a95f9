//! The pages of a domain by NUMA node of the host. Xen has no call that counts them: its debug key u does, and prints the counts
//! of all domains to its console, from whose ring they are read.

use std::thread;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::error::{Error, Wait};
use crate::memory::{NodePages, Pages};
use crate::xen::{DomId, Interface};

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// The key is sent again after this long: the ring may have lost lines, and a line of another CPU may have been put into one of them.
const AGAIN: Duration = Duration::from_secs(3);

/// Has Xen count a domain's pages by node. The cache of populate on demand is not among them.
///
/// Xen holds the lock of each domain's memory while it counts, and prints some lines for each domain, also to a serial line.
///
/// # Errors
/// [`Error::TimedOut`] if the counts do not appear, as in a ring that is too small for all domains; an error of Xen.
pub fn count_by_node(xen: &Interface, cancel: &Cancel, domid: DomId) -> Result<Vec<NodePages>, Error> {
    let nodes = xen.numa_nodes()?.len();
    let mut index = 0;
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        xen.read_console(&mut index)?;
        xen.send_debug_keys(c"u")?;
        let again = Instant::now() + AGAIN;
        let mut text = Vec::new();
        while Instant::now() < again {
            text.append(&mut xen.read_console(&mut index)?);
            if let Some(found) = parse(&String::from_utf8_lossy(&text), domid, nodes) {
                return Ok(found);
            }
            cancel.check()?;
            thread::sleep(POLL);
        }
    }
    let what = format!("Xen has not printed the pages of domain {domid} by node to its console");
    Err(Error::TimedOut { what, after: DEADLINE, wait: Wait::Console })
}

/// What Xen itself says in a line of its console. Lines of a guest begin with `(dN)`.
fn said_by_xen(line: &str) -> Option<&str> {
    let said = line.strip_prefix("(XEN) ")?;
    Some(if said.starts_with('[') { said.split_once("] ")?.1 } else { said })
}

/// The counts of a domain in Xen's text (`dump_numa`, xen/arch/x86/numa.c, Xen 4.17, xen/common/numa.c, Xen 4.20): a line
/// `Domain N (total: PAGES):`, of Xen 4.20 `dN (total: PAGES):`, then `Node N: PAGES` for each node. Other CPUs and guests may print between
/// these lines. `None` while they are not complete.
fn parse(text: &str, domid: DomId, nodes: usize) -> Option<Vec<NodePages>> {
    let wanted = [format!("Domain {domid} (total: "), format!("d{domid} (total: ")];
    // The last line may not be complete yet.
    let complete = &text[..=text.rfind('\n')?];
    let counts: Vec<NodePages> = complete
        .lines()
        .filter_map(said_by_xen)
        .skip_while(|said| !wanted.iter().any(|wanted| said.starts_with(wanted)))
        .skip(1)
        .take_while(|said| !said.contains(" (total: "))
        .filter_map(|said| {
            let (node, pages) = said.trim_start().strip_prefix("Node ")?.split_once(": ")?;
            Some(NodePages { node: node.parse().ok()?, pages: Pages(pages.trim_end().parse().ok()?) })
        })
        .take(nodes)
        .collect();
    (counts.len() == nodes).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_once_they_are_complete() {
        let text = "(XEN) Memory location of each domain:\n(XEN) Domain 0 (total: 262144):\n(XEN)     Node 0: 131072\n(XEN)     \
                    Node 1: 131072\n(d10) (XEN) Domain 10 (total: 0):\n(XEN) [2026-12-01 00:16:30] Domain 10 (total: 12272):\n\
                    (d10)     Node 0: 5\n(XEN)     Node 0: 12200\n(XEN) d10v0 Triple fault\n(XEN)     Node 1: 72\n";
        let of = |domid: u32, text: &str| {
            let found = parse(text, DomId::new(domid).expect("a guest's number"), 2)?;
            Some(found.iter().map(|count| (count.node, count.pages.0)).collect::<Vec<_>>())
        };
        assert_eq!(of(10, text), Some(vec![(0, 12_200), (1, 72)]));
        assert_eq!(of(1, text), None);
        let of_4_20 = text.replace("Domain ", "d");
        assert_eq!(of(10, &of_4_20), Some(vec![(0, 12_200), (1, 72)]));
        assert_eq!(
            of(10, "(XEN) d10 (total: 2):\n(XEN)     Node 0: 1\n(XEN) d11 (total: 2):\n(XEN)     Node 1: 1\n"),
            None
        );
        for end in 0..text.len() {
            assert_eq!(of(10, &text[..end]), None, "{:?}", &text[..end]);
        }
    }
}
