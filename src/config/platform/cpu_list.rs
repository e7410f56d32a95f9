//! Lists of CPUs in xl's words: `all`, numbers and ranges, those of NUMA nodes, and what is taken out again (`parse_range` and
//! `update_cpumap_range`, tools/xl/xl_parse.c, Xen 4.17).

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// CPUs that a word names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuWord {
    /// All of them.
    All,
    /// Those of these numbers.
    Cpus(RangeInclusive<u32>),
    /// Those of the NUMA nodes of these numbers.
    Nodes(RangeInclusive<u32>),
}

impl CpuWord {
    /// A word, and whether it takes CPUs out; `None` if it is wrong.
    #[must_use]
    pub fn read(word: &str) -> Option<(bool, Self)> {
        let (excluded, word) = word.strip_prefix('^').map_or((false, word), |rest| (true, rest));
        if word == "all" && !excluded {
            return Some((false, Self::All));
        }
        let nodes = ["nodes:", "node:"].into_iter().find_map(|prefix| word.strip_prefix(prefix));
        let numbers = range(nodes.unwrap_or(word))?;
        Some((excluded, if nodes.is_some() { Self::Nodes(numbers) } else { Self::Cpus(numbers) }))
    }
}

/// `N` or `N-M`.
fn range(word: &str) -> Option<RangeInclusive<u32>> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    number(first).zip(number(last)).filter(|(first, last)| first <= last).map(|(first, last)| first..=last)
}

/// A list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList {
    text: String,
    words: Vec<(bool, CpuWord)>,
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |word: &str| CpuWord::read(word.trim_start()).ok_or_else(|| format!("{word:?} names no CPU"));
        Ok(Self { text: text.to_owned(), words: text.split(',').map(read).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl CpuList {
    /// Whether the CPUs depend on the host's NUMA nodes.
    #[must_use]
    pub fn names_nodes(&self) -> bool {
        self.words.iter().any(|(_, word)| matches!(word, CpuWord::Nodes(_)))
    }

    /// Which of a host's CPUs it names; `nodes` has the NUMA node of each, `None` for a number without a CPU. CPUs that the
    /// host does not have are not there.
    ///
    /// # Errors
    /// Why the list cannot be used on such a host.
    pub fn cpus(&self, nodes: &[Option<u32>]) -> Result<Vec<bool>, String> {
        let mut cpus = vec![false; nodes.len()];
        for (excluded, word) in &self.words {
            if let CpuWord::Nodes(wanted) = word
                && let Some(absent) = wanted.clone().find(|node| !nodes.contains(&Some(*node)))
            {
                return Err(format!("the host has no NUMA node {absent} with CPUs; `xl info -n` shows which it has"));
            }
            for ((cpu, is_in), node) in (0_u32..).zip(&mut cpus).zip(nodes) {
                let named = match word {
                    CpuWord::All => true,
                    CpuWord::Cpus(numbers) => numbers.contains(&cpu),
                    CpuWord::Nodes(numbers) => node.is_some_and(|node| numbers.contains(&node)),
                };
                if named {
                    *is_in = !excluded;
                }
            }
        }
        if cpus.contains(&true) { Ok(cpus) } else { Err(format!("{:?} names no CPU", self.text)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes with two CPUs each, and a number without a CPU.
    const HOST: [Option<u32>; 5] = [Some(0), Some(0), Some(1), None, Some(1)];

    #[test]
    fn cpus_of_nodes() {
        let of = |text: &str| text.parse::<CpuList>().expect(text).cpus(&HOST);
        let bits = |digits: &str| Ok(digits.chars().map(|digit| digit == '1').collect());
        for (text, digits) in [
            ("node:0", "11000"),
            ("nodes:0-1", "11101"),
            ("all,^node:1", "11010"),
            ("nodes:1,0, ^4", "10100"),
            ("0-3,^node:0,0", "10110"),
        ] {
            assert_eq!(of(text), bits(digits), "{text}");
        }
        assert!(of("node:2").expect_err("absent").contains("no NUMA node 2"));
        assert!(of("nodes:0-4294967295").expect_err("absent").contains("no NUMA node 2"));
        assert!(of("node:0,^nodes:0").expect_err("none").contains("names no CPU"));
        assert!("node:0".parse::<CpuList>().is_ok_and(|list| list.names_nodes()));
        assert!("all,^3".parse::<CpuList>().is_ok_and(|list| !list.names_nodes()));
    }
}
