//! Lists of CPUs in `cpus` and `cpus_soft` (`parse_range` and `update_cpumap_range`, tools/xl, Xen 4.17).

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

fn is_range(word: &str) -> bool {
    let word = word.strip_prefix('^').unwrap_or(word);
    let word = ["nodes:", "node:"].into_iter().find_map(|prefix| word.strip_prefix(prefix)).unwrap_or(word);
    let word = word.strip_prefix('^').unwrap_or(word);
    if word == "all" {
        return true;
    }
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match word.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => number(word).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        for list in ["all", "0", "0-3", "2, 3,5-6,^6", "nodes:0-3,node:^2", "nodes:1,2,^5", "^node:1"] {
            assert_eq!(check(list), Ok(()), "{list}");
        }
        for (list, span) in
            [("", 0..0), ("0,", 2..2), ("0,x", 2..3), ("3-1", 0..3), ("0, -1", 3..5), ("+1", 0..2), ("1 ", 0..2)]
        {
            assert_eq!(check(list).map_err(|(span, _)| span), Err(span), "{list}");
        }
    }
}
