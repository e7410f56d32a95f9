//! Changes of a guest's CPUID policy in xl's two languages (xl.cfg.5; `libxl_cpuid_parse_config` and
//! `libxl_cpuid_parse_config_xend`, libxl_cpuid.c, Xen 4.17 and 4.20): features by name, `host,tm=0,sse3=0`, and the registers
//! of a leaf, as xend had them, `1:ecx=xxxx...`.
//!
//! Differences from xl: xl prints what it does not understand, and goes on without it; here it is an error. So are a number that
//! does not fit into its field, and letters behind a value or a register's name, which xl leaves out; a bit that is no bit, on
//! which libxc fails later; and what xl misreads: a family from 128 on, and a letter for a family.

mod fields;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::fields::{Field, Place};
use super::platform::number;
use crate::xen::{BitRule, BitRules, CpuidRules};

/// A text that describes no CPUID policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct CpuidSpecError {
    /// The bytes of the text that are wrong. It is empty and at the end of the text if something is missing.
    pub span: Range<usize>,
    /// What is wrong with them.
    pub problem: CpuidProblem,
}

/// What is wrong with a part of the text of a CPUID policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuidProblem {
    /// The first word is another one.
    #[error("it begins with {0:?}; the first word is host, as in host,tm=0")]
    NotHost(String),
    /// A word without a value.
    #[error("{0:?} has no value; give FEATURE=VALUE")]
    NoValue(String),
    /// A name that neither libxl nor Xen knows.
    #[error("{0:?} is no CPU feature; xl.cfg(5) and Xen's cpufeatureset.h have their names, in lower case and with -")]
    UnknownFeature(String),
    /// A value that the feature cannot have.
    #[error("{feature} is {value:?}; it takes {takes}")]
    BadValue {
        /// The feature.
        feature: &'static str,
        /// Its value.
        value: String,
        /// The values that it takes.
        takes: String,
    },
    /// A leaf or a subleaf that is no number.
    #[error(
        "{0:?} is no number of 32 bits; give LEAF:REGISTER=BITS or LEAF,SUBLEAF:REGISTER=BITS, or host,FEATURE=VALUE"
    )]
    BadLeaf(String),
    /// No colon comes after the leaf.
    #[error("there is no colon after the leaf; give LEAF:REGISTER=BITS, as in 1:ecx=xxxx..., or host,FEATURE=VALUE")]
    NoColon,
    /// A register that is none of the four, or has no bits.
    #[error("{0:?} is no register with its bits; give eax=, ebx=, ecx= or edx= and 32 bits")]
    BadRegister(String),
    /// A register has more or less than 32 bits.
    #[error("{register} has {length} bits; it takes 32")]
    Length {
        /// The register.
        register: &'static str,
        /// The number of its bits.
        length: usize,
    },
    /// A letter that is no bit.
    #[error("{0:?} is no bit; a bit is 0, 1, x (Xen's default), k or s (the host's)")]
    BadBit(char),
}

/// The registers in the order of CPUID's output.
const REGISTERS: [&str; 4] = ["eax", "ebx", "ecx", "edx"];

/// A part of a text.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    /// Its first byte in the whole.
    start: usize,
}

impl<'a> Part<'a> {
    const fn whole(text: &'a str) -> Self {
        Self { text, start: 0 }
    }

    fn error(self, problem: CpuidProblem) -> CpuidSpecError {
        CpuidSpecError { span: self.start..self.start.saturating_add(self.text.len()), problem }
    }

    /// What stands before the first of these separators, and after it.
    fn split(self, separator: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(separator)?;
        let start = self.start.saturating_add(before.len()).saturating_add(separator.len_utf8());
        Some((Self { text: before, ..self }, Self { text: after, start }))
    }

    /// The parts between commas.
    fn words(self) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let now = rest?;
            let cut = now.split(',');
            rest = cut.map(|(_, after)| after);
            Some(cut.map_or(now, |(word, _)| word))
        })
    }

    fn trim_start(self) -> Self {
        let text = self.text.trim_start_matches([' ', '\n']);
        Self { text, start: self.start.saturating_add(self.text.len() - text.len()) }
    }
}

/// Adds the rules of a text in either language. A rule replaces an earlier one for the same bits.
///
/// # Errors
/// What is wrong, and where; the rules are as before then.
pub fn add(rules: &mut CpuidRules, text: &str) -> Result<(), CpuidSpecError> {
    match Part::whole(text).words().next() {
        Some(Part { text: "host", .. }) => add_features(rules, text),
        _ => add_registers(rules, text),
    }
}

/// Adds the rules of `host,FEATURE=VALUE,...`.
///
/// # Errors
/// What is wrong, and where; the rules are as before then.
pub fn add_features(rules: &mut CpuidRules, text: &str) -> Result<(), CpuidSpecError> {
    let mut added = rules.clone();
    // xl takes several commas for one.
    let mut words = Part::whole(text).words().filter(|word| !word.text.is_empty());
    let first = words.next().unwrap_or(Part::whole(""));
    if first.text != "host" {
        return Err(first.error(CpuidProblem::NotHost(first.text.to_owned())));
    }
    for word in words {
        let missing = || word.error(CpuidProblem::NoValue(word.text.to_owned()));
        let (name, value) = word.split('=').ok_or_else(missing)?;
        let unknown = || name.error(CpuidProblem::UnknownFeature(name.text.to_owned()));
        add_feature(&mut added, &fields::find(name.text).ok_or_else(unknown)?, value)?;
    }
    *rules = added;
    Ok(())
}

/// What the bits of a field are.
enum Value {
    Number(u64),
    /// The same for all.
    Letter(BitRule),
}

fn add_feature(rules: &mut CpuidRules, field: &Field, value: Part<'_>) -> Result<(), CpuidSpecError> {
    let bad = || {
        let numbers = match field.most() {
            1 => "0, 1".to_owned(),
            most => format!("a number from 0 to {most}"),
        };
        let takes = if field.is_family() { numbers } else { format!("{numbers}, x, k or s") };
        value.error(CpuidProblem::BadValue { feature: field.name, value: value.text.to_owned(), takes })
    };
    let found = match value.text {
        "x" => Value::Letter(BitRule::Default),
        "k" => Value::Letter(BitRule::Host),
        "s" => Value::Letter(BitRule::HostOfOld),
        text => Value::Number(number(text).ok().filter(|number| *number <= field.most()).ok_or_else(bad)?),
    };
    let rule = |bit: usize| match found {
        Value::Number(number) if field.encode(number) >> bit & 1 == 1 => BitRule::Set,
        Value::Number(_) => BitRule::Clear,
        Value::Letter(rule) => rule,
    };
    match field.place {
        Place::Leaf { leaf, subleaf, register } => {
            if field.is_family() && matches!(found, Value::Letter(_)) {
                return Err(bad());
            }
            let bits = rules.leaf(leaf, subleaf).registers[register].get_or_insert(BitRules::DEFAULT);
            field.bits().enumerate().for_each(|(index, bit)| bits.put(bit, rule(index)));
        }
        Place::Msr(index) => {
            // xl takes one character here.
            if value.text.len() != 1 {
                return Err(bad());
            }
            let rule = if let BitRule::HostOfOld = rule(0) { BitRule::Host } else { rule(0) };
            field.bits().for_each(|bit| rules.msr(index).bits.put(bit, rule));
        }
    }
    Ok(())
}

/// Adds the rules of `LEAF:REGISTER=BITS,...` or `LEAF,SUBLEAF:REGISTER=BITS,...`.
///
/// # Errors
/// What is wrong, and where; the rules are as before then.
pub fn add_registers(rules: &mut CpuidRules, text: &str) -> Result<(), CpuidSpecError> {
    let end = Part { text: "", start: text.len() };
    let (inputs, registers) = Part::whole(text).split(':').ok_or_else(|| end.error(CpuidProblem::NoColon))?;
    let input = |part: Part<'_>| {
        // All ones stand for the end of libxc's list, and for a leaf without subleaves.
        let number = number(part.text).ok().and_then(|number| u32::try_from(number).ok());
        number
            .filter(|number| *number != u32::MAX)
            .ok_or_else(|| part.error(CpuidProblem::BadLeaf(part.text.to_owned())))
    };
    let (leaf, subleaf) = match inputs.split(',') {
        Some((leaf, subleaf)) => (input(leaf)?, Some(input(subleaf)?)),
        None => (input(inputs)?, None),
    };
    let mut added = rules.clone();
    let mut words = registers.words().map(Part::trim_start).peekable();
    while let Some(word) = words.next() {
        // xl accepts a comma at the end.
        if word.text.is_empty() && word.start > registers.start && words.peek().is_none() {
            break;
        }
        let bad = || word.error(CpuidProblem::BadRegister(word.text.to_owned()));
        let (name, bits) = word.split('=').ok_or_else(bad)?;
        let index = REGISTERS.iter().position(|register| *register == name.text).ok_or_else(bad)?;
        let parsed = BitRules::of_letters(bits.text).map_err(|place| {
            let letter = place.and_then(|place| bits.text.char_indices().find(|(index, _)| *index >= place));
            match letter {
                Some((at, letter)) => {
                    let start = bits.start.saturating_add(at);
                    let span = start..start.saturating_add(letter.len_utf8());
                    CpuidSpecError { span, problem: CpuidProblem::BadBit(letter) }
                }
                None => {
                    let length = bits.text.chars().count();
                    bits.error(CpuidProblem::Length { register: REGISTERS[index], length })
                }
            }
        })?;
        added.leaf(leaf, subleaf).registers[index] = Some(parsed);
    }
    *rules = added;
    Ok(())
}
