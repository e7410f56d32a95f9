//! How much of a long walk a run does: all of it with DOMBUILD_TEST_FULL=1 (`tests/nested.sh test --full`), else a sample,
//! which DOMBUILD_TEST_SEED (`--seed N`) repeats. Several runs with one seed share the long tests between them
//! (DOMBUILD_TEST_SHARE, `--share I/N`): each is in one of them, and the middling ones in every second.

use std::collections::BTreeSet;
use std::env;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Whether everything is asked for; or of everything, what DOMBUILD_TEST_CALLS names.
pub(crate) fn full() -> bool {
    env::var("DOMBUILD_TEST_FULL").is_ok_and(|value| value == "1") || calls().is_some()
}

/// `whole` in a full run, else `sampled`.
pub(crate) fn count(sampled: u32, whole: u32) -> u32 {
    if full() { whole } else { sampled }
}

/// The calls that DOMBUILD_TEST_CALLS names (`--calls 7,300-310`), where it does: of a walk of faults, these alone.
pub(crate) fn calls() -> Option<Vec<RangeInclusive<usize>>> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("DOMBUILD_TEST_CALLS: {text:?} is no number"));
    let text = env::var("DOMBUILD_TEST_CALLS").ok()?;
    let ranges = text.split(',').map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        number(from)..=number(to)
    });
    Some(ranges.collect())
}

/// The seed of this run, printed once so that it can be repeated.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given =
            env::var("DOMBUILD_TEST_SEED").ok().map(|text| text.parse().expect("DOMBUILD_TEST_SEED is a number"));
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            u64::from(now.subsec_nanos()).max(1)
        });
        println!("samples by --seed {seed}");
        seed
    })
}

/// Which of how many runs this one is, counted from 1.
fn share() -> (u64, u64) {
    static SHARE: OnceLock<(u64, u64)> = OnceLock::new();
    *SHARE.get_or_init(|| {
        let Ok(text) = env::var("DOMBUILD_TEST_SHARE") else { return (1, 1) };
        let numbers = text.split_once('/').and_then(|(own, all)| Some((own.parse().ok()?, all.parse().ok()?)));
        let fits = |(own, all): &(u64, u64)| (1..=*all).contains(own);
        numbers.filter(fits).unwrap_or_else(|| panic!("DOMBUILD_TEST_SHARE is I/N, not {text:?}"))
    })
}

/// Of these tests, those that only other runs have.
pub(crate) fn left_to_others(tests: &[&'static str], parts: Parts) -> BTreeSet<&'static str> {
    let (own, all) = share();
    let parts = match parts {
        Parts::One => all,
        Parts::EverySecond => all.min(2),
    };
    // In all runs the same.
    let mut random = Random::of(seed(), "shares");
    // One after the other in turn, from a random one on: the list is in the order of time.
    let mut next = random.below(parts);
    let others = tests.iter().filter(|_| {
        next = (next + 1) % parts;
        next != (own - 1) % parts
    });
    others.copied().collect()
}

/// Which of the runs that share the tests have one of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parts {
    /// One alone.
    One,
    /// Each second one.
    EverySecond,
}

/// Random numbers (SplitMix64), the same ones for the same seed and purpose.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(purpose: &str) -> Self {
        // Runs with one seed take different samples.
        Self::of(seed().wrapping_add(share().0), purpose)
    }

    fn of(seed: u64, purpose: &str) -> Self {
        // FNV-1a, so that two walks do not take the same steps.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self(seed ^ hash)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// A part of something, in thousandths.
    pub(crate) fn permille(&mut self) -> u32 {
        u32::try_from(self.below(1000)).expect("below 1000")
    }

    /// `wanted` different numbers below `total`, in order; all of them in a full run, and where there are no more.
    pub(crate) fn sample(&mut self, total: u64, wanted: u64) -> Vec<u64> {
        self.choose(total, if full() { total } else { wanted })
    }

    /// The same in a full run as in others.
    pub(crate) fn choose(&mut self, total: u64, wanted: u64) -> Vec<u64> {
        if wanted >= total {
            return (0..total).collect();
        }
        let mut chosen = BTreeSet::new();
        while u64::try_from(chosen.len()).expect("a count") < wanted {
            chosen.insert(self.below(total));
        }
        chosen.into_iter().collect()
    }
}
