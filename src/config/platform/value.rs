//! The values that settings take.

use super::cpu_list::CpuList;

/// Host CPUs, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuMap {
    bytes: Vec<u8>,
    /// The list that names them, until the host's CPUs are known; there are no bits before that.
    list: Option<CpuList>,
}

impl CpuMap {
    /// The bits, the lowest CPU in the lowest bit of the first byte. Of a list, there are none before [`Self::resolve`], and
    /// Xen refuses a map without one.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is a list that depends on the host.
    #[must_use]
    pub const fn is_list(&self) -> bool {
        self.list.is_some()
    }

    /// Finds the CPUs of a list; `nodes` has the NUMA node of each of the host's CPUs.
    ///
    /// # Errors
    /// Why the list cannot be used on this host.
    pub fn resolve(&mut self, nodes: &[Option<u32>]) -> Result<(), String> {
        if let Some(list) = &self.list {
            *self = Self::of(&list.cpus(nodes)?);
        }
        Ok(())
    }

    fn of(cpus: &[bool]) -> Self {
        let mut bytes = vec![0_u8; cpus.len().div_ceil(8)];
        for (index, _) in cpus.iter().enumerate().filter(|(_, is_in)| **is_in) {
            bytes[index / 8] |= 1 << (index % 8);
        }
        Self { bytes, list: None }
    }
}

/// The most CPUs that a map may name: more than Xen can be built for (`CONFIG_NR_CPUS`, xen/arch/Kconfig, Xen 4.20: 16383).
const MOST_CPUS: usize = 16_384;

/// A string of one `0` or `1` for each of the host's CPUs, CPU 0 first; or `list:` and a list in xl's words.
pub(super) fn cpu_map(text: &str) -> Result<CpuMap, String> {
    if let Some(list) = text.strip_prefix("list:") {
        return Ok(CpuMap { bytes: Vec::new(), list: Some(list.parse()?) });
    }
    if text.len() > MOST_CPUS {
        return Err(format!("{} CPUs are more than Xen can have", text.len()));
    }
    let bit = |digit: u8| match digit {
        b'0' => Ok(false),
        b'1' => Ok(true),
        _ => Err(format!("{:?} is neither 0 nor 1", char::from(digit))),
    };
    let cpus = text.bytes().map(bit).collect::<Result<Vec<_>, _>>()?;
    if !cpus.contains(&true) {
        return Err("it names no CPU at all".to_owned());
    }
    Ok(CpuMap::of(&cpus))
}

/// `true` or `false` in any case, or a number, of which 0 alone is false.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    if text.eq_ignore_ascii_case("true") {
        return Ok(true);
    }
    if text.eq_ignore_ascii_case("false") {
        return Ok(false);
    }
    number(text).map(|number| number != 0).map_err(|_| "it is neither true nor false".to_owned())
}

/// A number as C's strtoull takes it with base 0: decimal, octal with a leading 0, hexadecimal with 0x.
///
/// # Errors
/// A description of the fault.
pub fn number(text: &str) -> Result<u64, String> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // from_str_radix would take a sign.
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err("it is no number".to_owned());
    }
    u64::from_str_radix(digits, radix).map_err(|error| match error.kind() {
        std::num::IntErrorKind::PosOverflow => "it is too large".to_owned(),
        _ => "it is no number".to_owned(),
    })
}

/// A number within bounds.
pub(super) fn number_within<T: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<T, String> {
    let beyond = || format!("it is not within {least} and {most}");
    number(text).and_then(|number| {
        Some(number)
            .filter(|number| (least..=most).contains(number))
            .and_then(|n| T::try_from(n).ok())
            .ok_or_else(beyond)
    })
}

/// Words of a featureset in hexadecimal, with `-` or `:` between them.
pub(super) fn featureset(text: &str) -> Result<Vec<u32>, String> {
    /// Many times what any Xen has: 22 in Xen 4.20.
    const MOST: usize = 256;
    let words: Vec<&str> = text.split(['-', ':']).collect();
    // One separator at the end has always been accepted.
    let words = match words.split_last() {
        Some((&"", rest)) if !rest.is_empty() => rest,
        _ => &words[..],
    };
    if words.len() > MOST {
        return Err(format!("{} words are more than any Xen has", words.len()));
    }
    let parse = |word: &&str| {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let plain = digits.chars().all(|digit| digit.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| plain).ok_or_else(|| format!("{word:?} is no 32-bit word"))
    };
    words.iter().map(parse).collect()
}
