//! Lists of CPUs in `cpus` and `cpus_soft` (`parse_range` and `update_cpumap_range`, tools/xl, Xen 4.17).

use std::collections::BTreeSet;
use std::ops::Range;

/// What a list takes.
const TAKES: &str = "it takes all, or numbers and ranges with commas between them, such as 0-3,^1 and node:0";

/// Checks a list of CPUs. The bytes that are wrong, and why.
pub(super) fn check(list: &str) -> Result<(), (Range<usize>, String)> {
    let mut start = 0_usize;
    for word in list.split(',') {
        let end = start.saturating_add(word.len());
        let trimmed = word.trim_start();
        if !is_range(trimmed) {
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
        let (excluded, word) = word.strip_prefix('^').map_or((false, word), |rest| (true, rest));
        let (first, last) = range(word).filter(|(_, last)| *last < MOST)?;
        for cpu in first..=last {
            if excluded {
                cpus.remove(&cpu)
            } else {
                cpus.insert(cpu)
            };
        }
    }
    Some(cpus)
}

/// `N` or `N-M`.
fn range(word: &str) -> Option<(u32, u32)> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    number(first).zip(number(last)).filter(|(first, last)| first <= last)
}

fn is_range(word: &str) -> bool {
    let (excluded, word) = word.strip_prefix('^').map_or((false, word), |rest| (true, rest));
    let word = ["nodes:", "node:"].into_iter().find_map(|prefix| word.strip_prefix(prefix)).unwrap_or(word);
    word == "all" && !excluded || range(word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

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
