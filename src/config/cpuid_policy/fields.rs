//! The features and fields that have a name, and where they are in CPUID.

use crate::xen::cpu_features;

/// Where a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In this output of CPUID, counted from EAX.
    Leaf { leaf: u32, subleaf: Option<u32>, register: usize },
    /// In this MSR.
    Msr(u32),
}

/// A named field of one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) place: Place,
    /// The lowest bit and the number of bits of the field's lower part and of its higher one, which most fields lack.
    runs: [(usize, usize); 2],
}

impl Field {
    /// Its bits in the register, the lowest one first.
    pub(super) fn bits(&self) -> impl Iterator<Item = usize> {
        self.runs.into_iter().flat_map(|(lowest, count)| lowest..lowest.saturating_add(count))
    }

    /// Whether it is the family, which is the sum of its parts.
    pub(super) fn is_family(&self) -> bool {
        self.name == "family"
    }

    /// The largest number that it holds. libxl writes another family than it is given from 128 on.
    pub(super) fn most(&self) -> u64 {
        if self.is_family() { 127 } else { (1 << self.bits().count()) - 1 }
    }

    /// A number of it, as its bits hold it.
    pub(super) fn encode(&self, number: u64) -> u64 {
        if !self.is_family() {
            return number;
        }
        let base = number.min(15);
        base | (number - base) << 4
    }
}

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

const fn leaf(leaf: u32, register: usize) -> Place {
    Place::Leaf { leaf, subleaf: None, register }
}

const fn subleaf(leaf: u32, subleaf: u32, register: usize) -> Place {
    Place::Leaf { leaf, subleaf: Some(subleaf), register }
}

const fn bits(name: &'static str, place: Place, lowest: usize, count: usize) -> Field {
    Field { name, place, runs: [(lowest, count), (0, 0)] }
}

const fn bit(name: &'static str, place: Place, bit: usize) -> Field {
    bits(name, place, bit, 1)
}

/// The names that libxl has besides those of Xen's features; where both have one, libxl's counts (`cpuid_flags`, libxl_cpuid.c,
/// Xen 4.17; all that 4.20 removed are Xen's own names).
const FIELDS: &[Field] = &[
    bits("maxleaf", leaf(0, EAX), 0, 32),
    bits("stepping", leaf(1, EAX), 0, 4),
    Field { name: "model", place: leaf(1, EAX), runs: [(4, 4), (16, 4)] },
    Field { name: "family", place: leaf(1, EAX), runs: [(8, 4), (20, 8)] },
    bits("brandid", leaf(1, EBX), 0, 8),
    bits("clflush", leaf(1, EBX), 8, 8),
    bits("proccount", leaf(1, EBX), 16, 8),
    bits("localapicid", leaf(1, EBX), 24, 8),
    bit("est", leaf(1, ECX), 7),
    bit("cntxid", leaf(1, ECX), 10),
    bit("cmpxchg16", leaf(1, ECX), 13),
    bit("sse4_1", leaf(1, ECX), 19),
    bit("sse4.1", leaf(1, ECX), 19),
    bit("sse4_2", leaf(1, ECX), 20),
    bit("sse4.2", leaf(1, ECX), 20),
    bit("aes", leaf(1, ECX), 25),
    bit("cmpxchg8", leaf(1, EDX), 8),
    bit("sysenter", leaf(1, EDX), 11),
    bit("psn", leaf(1, EDX), 18),
    bit("clfsh", leaf(1, EDX), 19),
    bit("tm", leaf(1, EDX), 29),
    bit("ia64", leaf(1, EDX), 30),
    bit("arat", leaf(6, EAX), 2),
    bit("tsc_adjust", subleaf(7, 0, EBX), 1),
    bit("cmt", subleaf(7, 0, EBX), 12),
    bit("lahfsahf", leaf(0x8000_0001, ECX), 0),
    bit("cmplegacy", leaf(0x8000_0001, ECX), 1),
    bit("altmovcr8", leaf(0x8000_0001, ECX), 4),
    bit("nodeid", leaf(0x8000_0001, ECX), 19),
    bit("perfctr_core", leaf(0x8000_0001, ECX), 23),
    bit("perfctr_nb", leaf(0x8000_0001, ECX), 24),
    bits("procpkg", subleaf(4, 0, EAX), 26, 6),
    bit("invtsc", leaf(0x8000_0007, EDX), 8),
    bit("ppin", leaf(0x8000_0008, EBX), 23),
    bits("nc", leaf(0x8000_0008, ECX), 0, 8),
    bits("apicidsize", leaf(0x8000_0008, ECX), 12, 4),
    bit("svm_npt", leaf(0x8000_000a, EDX), 0),
    bit("svm_lbrv", leaf(0x8000_000a, EDX), 1),
    bit("svm_nrips", leaf(0x8000_000a, EDX), 3),
    bit("svm_tscrate", leaf(0x8000_000a, EDX), 4),
    bit("svm_vmcbclean", leaf(0x8000_000a, EDX), 5),
    bit("svm_decode", leaf(0x8000_000a, EDX), 7),
    bit("svm_pausefilt", leaf(0x8000_000a, EDX), 10),
    bit("lfence+", leaf(0x8000_0021, EAX), 2),
    bits("maxhvleaf", leaf(0x4000_0000, EAX), 0, 8),
];

/// IA32_ARCH_CAPABILITIES.
const ARCH_CAPS: u32 = 0x10a;

/// The place of each word of a featureset, with its lowest bit there (xen/include/public/arch-x86/cpufeatureset.h, Xen 4.20;
/// 4.17 has all but the last).
const WORDS: [(Place, usize); 19] = [
    (leaf(1, EDX), 0),
    (leaf(1, ECX), 0),
    (leaf(0x8000_0001, EDX), 0),
    (leaf(0x8000_0001, ECX), 0),
    (subleaf(0xd, 1, EAX), 0),
    (subleaf(7, 0, EBX), 0),
    (subleaf(7, 0, ECX), 0),
    (leaf(0x8000_0007, EDX), 0),
    (leaf(0x8000_0008, EBX), 0),
    (subleaf(7, 0, EDX), 0),
    (subleaf(7, 1, EAX), 0),
    (leaf(0x8000_0021, EAX), 0),
    (subleaf(7, 1, EBX), 0),
    (subleaf(7, 2, EDX), 0),
    (subleaf(7, 1, ECX), 0),
    (subleaf(7, 1, EDX), 0),
    (Place::Msr(ARCH_CAPS), 0),
    (Place::Msr(ARCH_CAPS), 32),
    (leaf(0x8000_0021, ECX), 0),
];

/// The field of this name.
pub(super) fn find(name: &str) -> Option<Field> {
    if let Some(field) = FIELDS.iter().find(|field| field.name == name) {
        return Some(*field);
    }
    let features = cpu_features();
    let index = features.binary_search_by_key(&name, |(name, _)| name).ok()?;
    let (name, number) = *features.get(index)?;
    let number = usize::try_from(number).ok()?;
    let (place, lowest) = *WORDS.get(number / 32)?;
    Some(bit(name, place, lowest.saturating_add(number % 32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new Xen with more words than the table fails here.
    #[test]
    fn every_feature_of_this_xen_has_a_place() {
        for (name, _) in cpu_features() {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn names_of_libxl_and_of_xen() {
        assert_eq!(find("sse3"), Some(bit("sse3", leaf(1, ECX), 0)));
        assert_eq!(find("btc-no"), Some(bit("btc-no", leaf(0x8000_0008, EBX), 29)));
        assert_eq!(find("rdcl-no").map(|field| field.place), Some(Place::Msr(0x10a)));
        // Xen's feature clflush is libxl's clfsh; libxl's clflush is the size of a line.
        assert_eq!(find("clflush").map(|field| field.most()), Some(255));
        assert_eq!([find("SSE3"), find("lahf_lm"), find("")], [None; 3]);
    }

    #[test]
    fn the_family_is_a_sum() {
        let family = find("family").expect("a field");
        assert_eq!(family.bits().collect::<Vec<_>>(), (8..12).chain(20..28).collect::<Vec<_>>());
        assert_eq!([0, 6, 15, 16, 25, 127].map(|number| family.encode(number)), [0, 6, 15, 0x1f, 0xaf, 0x70f]);
        let model = find("model").expect("a field");
        assert_eq!(
            (model.encode(0x5a), model.most(), find("maxleaf").map(|field| field.most())),
            (0x5a, 255, Some(0xffff_ffff))
        );
    }
}
