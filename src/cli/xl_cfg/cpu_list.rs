//! Lists of CPUs in `cpus` and `cpus_soft` (`parse_range` and `update_cpumap_range`, tools/xl, Xen 4.17).

use std::collections::BTreeSet;
use std::ops::Range;

use crate::config::platform::cpu_list::{CpuList, CpuWord};

/// What a list takes.
const TAKES: &str = "it takes all, or numbers and ranges with commas between them, such as 0-3,^1 and node:0";

/// Checks a list of CPUs. The bytes that are wrong, and why.
pub(super) fn check(list: &str) -> Result<(), (Range<usize>, String)> {
    let mut start = 0_usize;
    for word in list.split(',') {
        let end = start.saturating_add(word.len());
        let trimmed = word.trim_start();
        if CpuWord::read(trimmed).is_none() {
            let from = end.saturating_sub(trimmed.len());
            return Err((from..end, format!("{trimmed:?} is no CPU; {TAKES}")));
        }
        start = end.saturating_add(1);
    }
    Ok(())
}

/// The CPUs of a list that [`check`] has passed. `None` if they depend on the host: all, or those of a node.
pub(super) fn cpus(list: &str) -> Option<BTreeSet<u32>> {
    /// More than Xen can be built for (`CONFIG_NR_CPUS`, xen/arch/Kconfig, Xen 4.20: 16383).
    const MOST: u32 = 16_384;
    let mut cpus = BTreeSet::new();
    for word in list.split(',').map(str::trim_start) {
        let (excluded, CpuWord::Cpus(numbers)) = CpuWord::read(word)? else { return None };
        if *numbers.end() >= MOST {
            return None;
        }
        for cpu in numbers {
            if excluded {
                cpus.remove(&cpu)
            } else {
                cpus.insert(cpu)
            };
        }
    }
    Some(cpus)
}

/// The value of an affinity for a list that is right; `None` if it names all CPUs. A list that does not depend on the host's
/// nodes becomes one digit for each CPU.
///
/// # Errors
/// Why the list cannot be used.
pub(super) fn map(list: &str) -> Result<Option<String>, String> {
    /// Xen ignores CPUs that the host does not have (`CONFIG_NR_CPUS`, xen/arch/Kconfig, Xen 4.20: at most 16383).
    const MOST: usize = 16_384;
    let list: CpuList = list.parse()?;
    if list.names_nodes() {
        return Ok(Some(format!("list:{list}")));
    }
    let cpus = list.cpus(&[None; MOST])?;
    let end = cpus.iter().rposition(|is_in| *is_in).unwrap_or(0);
    let digits = |cpus: &[bool]| cpus.iter().map(|is_in| if *is_in { '1' } else { '0' }).collect();
    Ok(cpus.contains(&false).then(|| digits(cpus.get(..=end).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_cpus() {
        for (list, expected) in [("0", "1"), ("1-3,^2", "0101"), ("2,0", "101")] {
            assert_eq!(map(list), Ok(Some(expected.to_owned())), "{list}");
        }
        assert_eq!(map("all"), Ok(None));
        assert!(map("all,^1").is_ok_and(|map| map.is_some_and(|map| map.starts_with("1011111"))));
        assert_eq!(map("node:0,^3"), Ok(Some("list:node:0,^3".to_owned())));
        for bad in ["^1", "1,^1", "20000"] {
            assert!(map(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_of_a_list() {
        assert_eq!(cpus("0-3, 7,^2,^9"), Some([0, 1, 3, 7].into()));
        assert_eq!([cpus("all"), cpus("node:0"), cpus("0-16384")], [None, None, None]);
    }

    #[test]
    fn lists_of_cpus() {
        for list in ["all", "0", "0-3", "2, 3,5-6,^6", "nodes:0-3,^node:2", "nodes:1,2,^5", "^node:1"] {
            assert_eq!(check(list), Ok(()), "{list}");
        }
        for (list, span) in [
            ("", 0..0),
            ("0,", 2..2),
            ("^all", 0..4),
            ("node:^2", 0..7),
            ("0,x", 2..3),
            ("3-1", 0..3),
            ("0, -1", 3..5),
            ("+1", 0..2),
            ("1 ", 0..2),
        ] {
            assert_eq!(check(list).map_err(|(span, _)| span), Err(span), "{list}");
        }
    }
}
