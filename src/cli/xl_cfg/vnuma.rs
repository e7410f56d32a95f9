//! The NUMA nodes that a guest sees: xl's `vnuma` (`parse_vnuma_config`, xl_parse.c, Xen 4.17 and 4.20).
//!
//! Differences from xl: a word that xl does not know, and leaves out, is an error, and so is a number with something behind it.

use serde_json::{Map, Value};

use super::value::Text;

/// The highest vCPU.
const LAST_VCPU: u64 = 127;

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) pnode: Option<u64>,
    pub(super) memory_mib: Option<u64>,
    pub(super) vcpus: Vec<u64>,
    distances: Vec<u64>,
}

impl Node {
    /// The value of `--vnode`. xl's nodes are on physical node 0 where none is named.
    pub(super) fn flag(&self) -> String {
        let joined = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(":");
        let mut flag = format!("pnode={},size={}MiB", self.pnode.unwrap_or(0), self.memory_mib.unwrap_or(0));
        for (key, numbers) in [("vcpus", &self.vcpus), ("distances", &self.distances)] {
            if !numbers.is_empty() {
                flag.push_str(&format!(",{key}={}", joined(numbers)));
            }
        }
        flag
    }
}

/// The nodes, each a list of `pnode=`, `size=`, `vcpus=` and `vdistances=`.
///
/// # Errors
/// The text that is wrong, and why.
pub(super) fn nodes<'a>(lists: &'a [Vec<(String, &'a Text)>]) -> Result<Vec<Node>, (&'a Text, String)> {
    let node = |words: &'a Vec<(String, &'a Text)>| {
        let mut node = Node::default();
        for (word, text) in words {
            read(&mut node, word, lists.len()).map_err(|message| (*text, message))?;
        }
        Ok(node)
    };
    lists.iter().map(node).collect()
}

fn read(node: &mut Node, word: &str, nodes: usize) -> Result<(), String> {
    let unknown = || format!("vnuma: {word:?} is unknown; a node has pnode=, size=, vcpus= and vdistances=");
    let (key, value) = word.split_once('=').ok_or_else(unknown)?;
    let (key, value) = (key.trim(), value.trim());
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>()
            .ok()
            .filter(|_| digits)
            .map(u64::from)
            .ok_or_else(|| format!("vnuma: {text:?} is no number"))
    };
    match key {
        "pnode" => node.pnode = Some(number(value)?),
        "size" => node.memory_mib = Some(number(value)?),
        "vcpus" => {
            for range in value.split(',').filter(|range| !range.is_empty()) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (number(first)?, number(last)?);
                if first > last || last > LAST_VCPU {
                    return Err(format!("vnuma: {range:?} are no vCPUs; a guest has 0 to {LAST_VCPU} at most"));
                }
                node.vcpus.extend(first..=last);
            }
        }
        "vdistances" => {
            node.distances = value.split(',').filter(|text| !text.is_empty()).map(number).collect::<Result<_, _>>()?;
            if node.distances.len() > nodes {
                return Err(format!("vnuma: there are {} distances to {nodes} nodes", node.distances.len()));
            }
        }
        _ => return Err(unknown()),
    }
    Ok(())
}

/// The nodes as `libxl_vnode_info`.
pub(super) fn json(nodes: &[Node]) -> Value {
    let node = |node: &Node| {
        let mut fields = Map::new();
        if let Some(mib) = node.memory_mib {
            fields.insert("memkb".to_owned(), (mib * 1024).into());
        }
        let distance = |index: usize| node.distances.get(index).copied().unwrap_or(0);
        fields.insert("distances".to_owned(), (0..nodes.len()).map(distance).collect());
        if let Some(pnode) = node.pnode.filter(|pnode| *pnode != 0) {
            fields.insert("pnode".to_owned(), pnode.into());
        }
        let mut vcpus = node.vcpus.clone();
        vcpus.sort_unstable();
        vcpus.dedup();
        if !vcpus.is_empty() {
            fields.insert("vcpus".to_owned(), vcpus.into());
        }
        Value::from(fields)
    };
    nodes.iter().map(node).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;

    #[test]
    fn a_node_has_what_its_words_say() {
        let mut node = Node::default();
        for word in ["pnode=1", "size = 512", "vcpus=0,2-3,", "vdistances=10,20"] {
            read(&mut node, word, 2).expect(word);
        }
        assert_eq!((node.pnode, node.memory_mib, &node.vcpus[..]), (Some(1), Some(512), &[0, 2, 3][..]));
        assert_eq!(
            json(&[node, Node::default()]),
            value!([{"memkb": 524_288, "distances": [10, 20], "pnode": 1, "vcpus": [0, 2, 3]}, {"distances": [0, 0]}])
        );
        for (word, message) in [
            ("size", "is unknown"),
            ("nodes=1", "is unknown"),
            ("size=1M", "\"1M\" is no number"),
            ("vcpus=3-1", "are no vCPUs"),
            ("vcpus=0-128", "are no vCPUs"),
            ("vdistances=1,2,3", "there are 3 distances to 2 nodes"),
        ] {
            let error = read(&mut Node::default(), word, 2).expect_err(word);
            assert!(error.contains(message), "{word}: {error}");
        }
    }
}
