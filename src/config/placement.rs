//! Which NUMA nodes of the host a guest's memory and vCPUs go to.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::memory::limits::MAX_PNODES;
use crate::memory::{Kib, Mib, Vnode};

/// How strictly nodes are chosen and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum PlacementPolicy {
    /// Memory goes to the fewest nodes that fit, and to others when these are full.
    #[default]
    Auto,
    /// Xen deals the memory to all nodes of the vCPUs' affinity in turn.
    None,
    /// Memory goes to these nodes, or the guest is not built.
    Strict,
}

/// Where a guest is placed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// How strictly.
    pub policy: PlacementPolicy,
    /// The nodes; empty to have them chosen.
    pub nodes: BTreeSet<u32>,
}

impl Placement {
    /// No placement: Xen deals the memory by the affinity that the domain has.
    pub const NONE: Self = Self { policy: PlacementPolicy::None, nodes: BTreeSet::new() };
}

/// A list of nodes: numbers and ranges, with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeList(pub BTreeSet<u32>);

impl FromStr for NodeList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let nodes = numbers(text, ',').ok_or_else(|| format!("{text:?} names no nodes; they are like 0,2-3"))?;
        match nodes.iter().find(|node| **node >= MAX_PNODES) {
            Some(node) => Err(format!("there is no node {node}; Xen has at most {MAX_PNODES}")),
            None => Ok(Self(nodes.into_iter().collect())),
        }
    }
}

/// `N` and `N-M` with separators between them. Nothing twice.
fn numbers(text: &str, separator: char) -> Option<Vec<u32>> {
    /// No list of nodes or vCPUs is longer.
    const MOST: u32 = 4096;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| digits(text) && *number < MOST);
    let mut all = Vec::new();
    for word in text.split(separator) {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || (first..=last).any(|number| all.contains(&number)) {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// A virtual node: `pnode=N,size=SIZE,vcpus=N-M[:N],distances=N:N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VnodeSpec(pub Vnode);

impl FromStr for VnodeSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut pnode, mut size, mut vcpus, mut distances) = (None, None, None, None);
        for word in text.split(',') {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let no_list = || format!("{word:?} is no list; it is like {key}=0-1:3");
            let twice = match key {
                "pnode" => {
                    let number = numbers(value, ',').and_then(|all| <[u32; 1]>::try_from(all).ok());
                    pnode
                        .replace(number.ok_or_else(|| format!("{word:?} is no node; it is like pnode=0"))?[0])
                        .is_some()
                }
                "size" => size.replace(mib(value).map_err(|reason| format!("{word:?}: {reason}"))?).is_some(),
                "vcpus" => vcpus.replace(numbers(value, ':').ok_or_else(no_list)?).is_some(),
                "distances" => {
                    let each = value.split(':').map(|text| text.parse::<u32>().ok());
                    distances.replace(each.collect::<Option<Vec<u32>>>().ok_or_else(no_list)?).is_some()
                }
                _ => return Err(format!("{word:?} is unknown; a node has pnode=, size=, vcpus= and distances=")),
            };
            if twice {
                return Err(format!("{key}= is there twice"));
            }
        }
        let missing = |key: &str| format!("{key}= is missing");
        Ok(Self(Vnode {
            pnode: pnode.ok_or_else(|| missing("pnode"))?,
            size: size.ok_or_else(|| missing("size"))?,
            vcpus: vcpus.unwrap_or_default(),
            distances: distances.unwrap_or_default(),
        }))
    }
}

fn mib(text: &str) -> Result<Mib, String> {
    let size: Kib = text.parse().map_err(|error| format!("{error}"))?;
    size.to_mib_exact().ok_or_else(|| "the size is not in whole MiB".to_owned())
}

impl fmt::Display for VnodeSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(":");
        let Vnode { pnode, size, vcpus, distances } = &self.0;
        write!(formatter, "pnode={pnode},size={}MiB", size.0)?;
        for (key, numbers) in [("vcpus", vcpus), ("distances", distances)] {
            if !numbers.is_empty() {
                write!(formatter, ",{key}={}", joined(numbers))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_nodes() {
        let of = |text: &str| text.parse::<NodeList>().map(|list| list.0.into_iter().collect::<Vec<_>>());
        assert_eq!(of("1"), Ok(vec![1]));
        assert_eq!(of("3,0-1"), Ok(vec![0, 1, 3]));
        for bad in ["", "1,", "a", "1-0", "+1", "64", "0,0", "0-4294967295"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn virtual_nodes() {
        let node: VnodeSpec = "pnode=1,size=2GiB,vcpus=0-1:3,distances=10:21".parse().expect("a node");
        let expected = Vnode { pnode: 1, size: Mib(2048), vcpus: vec![0, 1, 3], distances: vec![10, 21] };
        assert_eq!(node.0, expected);
        assert_eq!(node.to_string().parse(), Ok(node));
        for (bad, message) in [
            ("", "\"\" is unknown"),
            ("size=1GiB", "pnode= is missing"),
            ("pnode=0", "size= is missing"),
            ("pnode=0,size=1GiB,pnode=1", "pnode= is there twice"),
            ("pnode=0-1,size=1GiB", "is no node"),
            ("pnode=0,size=1KiB", "not in whole MiB"),
            ("pnode=0,size=many", "\"size=many\""),
            ("pnode=0,size=1GiB,vcpus=1-0", "is no list"),
            ("pnode=0,size=1GiB,distances=10:x", "is no list"),
            ("pnode=0,size=1GiB,mem=1", "\"mem=1\" is unknown"),
        ] {
            let error = bad.parse::<VnodeSpec>().expect_err(bad);
            assert!(error.contains(message), "{bad}: {error}");
        }
    }
}
