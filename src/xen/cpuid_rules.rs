//! Changes of a guest's CPUID policy, bit by bit, as libxc takes them (`struct xc_xend_cpuid` and `struct xc_msr`, xenctrl.h).

use std::ffi::{CString, c_char};
use std::fmt;

use xen_sys as sys;

/// The features of x86 CPUs that Xen knows (xen/include/public/arch-x86/cpufeatureset.h), in the order of their names, which are
/// libxl's: each with its bit in a featureset, counted from bit 0 of word 0.
#[must_use]
pub fn cpu_features() -> &'static [(&'static str, u32)] {
    sys::CPU_FEATURES
}

/// What a bit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitRule {
    /// `0`.
    Clear,
    /// `1`.
    Set,
    /// `x`: as in Xen's default policy for this kind of guest.
    Default,
    /// `k`: as in the host.
    Host,
    /// `s`: the same, in xend's time also after a migration.
    HostOfOld,
}

impl BitRule {
    /// The rule of a letter.
    #[must_use]
    pub const fn of_letter(letter: u8) -> Option<Self> {
        match letter {
            b'0' => Some(Self::Clear),
            b'1' => Some(Self::Set),
            b'x' => Some(Self::Default),
            b'k' => Some(Self::Host),
            b's' => Some(Self::HostOfOld),
            _ => None,
        }
    }

    const fn letter(self) -> u8 {
        match self {
            Self::Clear => b'0',
            Self::Set => b'1',
            Self::Default => b'x',
            Self::Host => b'k',
            Self::HostOfOld => b's',
        }
    }
}

/// The rules of the `N` bits of a register, by their letters, the highest bit first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BitRules<const N: usize>([u8; N]);

impl<const N: usize> BitRules<N> {
    /// Every bit as in Xen's default policy.
    pub const DEFAULT: Self = Self([b'x'; N]);

    /// The rules of `N` letters.
    ///
    /// # Errors
    /// The index of the first byte that is no letter of a rule; `None` if the length is another one.
    pub fn of_letters(text: &str) -> Result<Self, Option<usize>> {
        let letters: [u8; N] = text.as_bytes().try_into().map_err(|_| None)?;
        match letters.iter().position(|letter| BitRule::of_letter(*letter).is_none()) {
            Some(index) => Err(Some(index)),
            None => Ok(Self(letters)),
        }
    }

    /// Sets the rule of a bit, which is less than `N`.
    pub fn put(&mut self, bit: usize, rule: BitRule) {
        if let Some(place) = self.0.iter_mut().rev().nth(bit) {
            *place = rule.letter();
        }
    }

    /// The letters.
    #[must_use]
    pub fn letters(&self) -> &str {
        // They are ASCII: all that is put in are letters of rules.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for BitRules<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letters())
    }
}

/// The rules of a leaf of CPUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRules {
    /// The input in EAX.
    pub leaf: u32,
    /// The input in ECX; `None` for a leaf without subleaves.
    pub subleaf: Option<u32>,
    /// The output in EAX, EBX, ECX and EDX; `None` leaves a register alone.
    pub registers: [Option<BitRules<32>>; 4],
}

/// The rules of an MSR that describes features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MsrRules {
    /// Its number.
    pub index: u32,
    /// Its bits. libxc does not know `s` here.
    pub bits: BitRules<64>,
}

/// Changes of a guest's CPUID policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuidRules {
    /// Leaves, each pair of inputs once.
    pub leaves: Vec<LeafRules>,
    /// MSRs, each once.
    pub msrs: Vec<MsrRules>,
}

impl CpuidRules {
    /// Whether they change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && self.msrs.is_empty()
    }

    /// The rules of a leaf, which are made if there are none.
    pub fn leaf(&mut self, leaf: u32, subleaf: Option<u32>) -> &mut LeafRules {
        let is_it = |rules: &LeafRules| (rules.leaf, rules.subleaf) == (leaf, subleaf);
        let index = self.leaves.iter().position(is_it).unwrap_or_else(|| {
            self.leaves.push(LeafRules { leaf, subleaf, registers: [None; 4] });
            self.leaves.len() - 1
        });
        &mut self.leaves[index]
    }

    /// The rules of an MSR, which are made if there are none.
    pub fn msr(&mut self, index: u32) -> &mut MsrRules {
        let place = self.msrs.iter().position(|rules| rules.index == index).unwrap_or_else(|| {
            self.msrs.push(MsrRules { index, bits: BitRules::DEFAULT });
            self.msrs.len() - 1
        });
        &mut self.msrs[place]
    }
}

/// The rules in libxc's form.
pub(super) struct RawRules {
    /// What the pointers in `leaves` point to.
    _texts: Vec<CString>,
    leaves: Vec<sys::xc_xend_cpuid>,
    msrs: Vec<sys::xc_msr>,
}

impl RawRules {
    pub(super) fn new(rules: &CpuidRules) -> Self {
        let mut texts = Vec::new();
        let mut leaves: Vec<sys::xc_xend_cpuid> = Vec::new();
        for rule in &rules.leaves {
            let mut raw = sys::xc_xend_cpuid::default();
            raw.__bindgen_anon_1.input = [rule.leaf, rule.subleaf.unwrap_or(sys::XEN_CPUID_INPUT_UNUSED)];
            for (place, bits) in raw.policy.iter_mut().zip(&rule.registers) {
                let Some(bits) = bits else { continue };
                // The letters of rules are no NUL.
                let text = CString::new(bits.letters()).unwrap_or_default();
                // A CString keeps its place when it is moved.
                *place = text.as_ptr().cast_mut();
                texts.push(text);
            }
            leaves.push(raw);
        }
        let mut end = sys::xc_xend_cpuid::default();
        end.__bindgen_anon_1.input = [sys::XEN_CPUID_INPUT_UNUSED; 2];
        leaves.push(end);
        let raw_msr = |rule: &MsrRules| {
            let mut raw = sys::xc_msr { index: rule.index, ..sys::xc_msr::default() };
            for (place, letter) in raw.policy.iter_mut().zip(rule.bits.letters().bytes()) {
                *place = c_char::from_ne_bytes([if letter == b's' { b'k' } else { letter }]);
            }
            raw
        };
        let end = sys::xc_msr { index: sys::XC_MSR_INPUT_UNUSED, ..sys::xc_msr::default() };
        let msrs = rules.msrs.iter().map(raw_msr).chain([end]).collect();
        Self { _texts: texts, leaves, msrs }
    }

    /// The leaves, with an unused one at the end; null if there are none.
    pub(super) fn leaves(&self) -> *const sys::xc_xend_cpuid {
        if self.leaves.len() > 1 { self.leaves.as_ptr() } else { std::ptr::null() }
    }

    /// The MSRs, with an unused one at the end; null if there are none.
    pub(super) fn msrs(&self) -> *const sys::xc_msr {
        if self.msrs.len() > 1 { self.msrs.as_ptr() } else { std::ptr::null() }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn features_have_libxls_names_and_xens_bits() {
        let bit = |name: &str| cpu_features().iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit);
        assert_eq!((bit("fpu"), bit("lahf-lm"), bit("avx512-vpopcntdq")), (Some(0), Some(3 * 32), Some(6 * 32 + 14)));
        assert_eq!((bit("3dnow"), bit("LM"), bit("lahf_lm")), (Some(2 * 32 + 31), None, None));
        assert!(cpu_features().is_sorted() && cpu_features().len() > 200, "{}", cpu_features().len());
    }

    #[test]
    fn libxc_gets_each_rule_and_an_end() {
        let mut rules = CpuidRules::default();
        assert!(rules.is_empty() && RawRules::new(&rules).leaves().is_null() && RawRules::new(&rules).msrs().is_null());
        let mut bits = BitRules::DEFAULT;
        bits.put(0, BitRule::Set);
        bits.put(31, BitRule::HostOfOld);
        bits.put(32, BitRule::Clear);
        rules.leaf(7, Some(0)).registers[1] = Some(bits);
        rules.leaf(1, None).registers[3] = Some(BitRules::DEFAULT);
        rules.leaf(7, Some(0)).registers[2] = Some(BitRules::DEFAULT);
        rules.msr(0x10a).bits.put(63, BitRule::HostOfOld);
        assert_eq!((rules.leaves.len(), rules.msrs.len()), (2, 1));
        let raw = RawRules::new(&rules);
        // SAFETY: the lists have the rules and an end; the texts live as long as `raw`.
        unsafe {
            let leaves = std::slice::from_raw_parts(raw.leaves(), 3);
            assert_eq!(leaves[0].__bindgen_anon_1.input, [7, 0]);
            assert_eq!(leaves[1].__bindgen_anon_1.input, [1, u32::MAX]);
            assert_eq!(leaves[2].__bindgen_anon_1.input[0], u32::MAX);
            assert!(leaves[0].policy[0].is_null() && leaves[0].policy[3].is_null());
            let text = CStr::from_ptr(leaves[0].policy[1]).to_str();
            assert_eq!(text, Ok(&*format!("s{}1", "x".repeat(30))));
            let msrs = std::slice::from_raw_parts(raw.msrs(), 2);
            assert_eq!((msrs[0].index, msrs[1].index), (0x10a, u32::MAX));
            let text = CStr::from_ptr(msrs[0].policy.as_ptr()).to_str();
            assert_eq!(text, Ok(&*format!("k{}", "x".repeat(63))));
        }
    }

    #[test]
    fn letters() {
        assert_eq!(BitRules::<4>::of_letters("01xk").map(|rules| rules.letters().to_owned()), Ok("01xk".to_owned()));
        assert_eq!(BitRules::<4>::of_letters("01x"), Err(None));
        assert_eq!(BitRules::<4>::of_letters("s0X1"), Err(Some(2)));
    }
}
