//! A part of the text of a device, and the checks of values that several classes of device have.

use std::ops::Range;

use super::error::{DeviceSpecError, SpecProblem};
use crate::config::name::DomainName;

/// The longest value, in bytes. A message to xenstore has at most 4096, the node's path included
/// (`XENSTORE_PAYLOAD_MAX`, xs_wire.h).
const LONGEST: usize = 3072;

/// Domain numbers from this one on are Xen's own (`DOMID_FIRST_RESERVED`).
const FIRST_RESERVED: u32 = 0x7ff0;

/// A part of the text of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'a> {
    /// The part.
    pub(super) text: &'a str,
    /// Its first byte in the whole.
    pub(super) offset: usize,
}

impl<'a> Word<'a> {
    /// The bytes of the whole that it has.
    pub(super) const fn span(self) -> Range<usize> {
        self.offset..self.offset.saturating_add(self.text.len())
    }

    /// Its first `bytes` bytes, and the rest. The cut is at a character that was found in it.
    pub(super) fn split(self, bytes: usize) -> (Self, Self) {
        let (text, rest) = self.text.split_at_checked(bytes).unwrap_or((self.text, ""));
        (Self { text, ..self }, Self { text: rest, offset: self.offset.saturating_add(text.len()) })
    }

    /// Without blanks at its start.
    pub(super) fn trim_start(self) -> Self {
        self.split(self.text.len() - self.text.trim_start_matches([' ', '\t', '\n']).len()).1
    }

    /// Without blanks at both ends.
    pub(super) fn trim(self) -> Self {
        let start = self.trim_start();
        Self { text: start.text.trim_end_matches([' ', '\t', '\n']), ..start }
    }

    /// The parts between the characters `separator`, also empty ones.
    pub(super) fn parts(self, separator: char) -> impl Iterator<Item = Word<'a>> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let now = rest?;
            let end = now.text.find(separator);
            let (part, after) = now.split(end.unwrap_or(now.text.len()));
            rest = end.map(|_| after.split(separator.len_utf8()).1);
            Some(part)
        })
    }

    /// The error that this part has.
    pub(super) fn error(self, problem: SpecProblem) -> DeviceSpecError {
        DeviceSpecError { span: self.span(), problem }
    }

    /// The error that `key` cannot have this value.
    pub(super) fn bad_value(self, key: &'static str, takes: &'static str) -> DeviceSpecError {
        DeviceSpecError::bad_value(key, self.text, takes).at(self.offset)
    }

    /// The error that `key` is given once more here.
    pub(super) fn repeated(self, key: &'static str) -> DeviceSpecError {
        self.error(SpecProblem::Repeated { key })
    }

    /// Puts the value of `key` into its place.
    ///
    /// # Errors
    /// Where it has one.
    pub(super) fn once<T>(self, place: &mut Option<T>, key: &'static str, value: T) -> Result<(), DeviceSpecError> {
        if place.is_some() {
            return Err(self.repeated(key));
        }
        *place = Some(value);
        Ok(())
    }

    /// The value that this part is.
    ///
    /// # Errors
    /// Where it is none; the place is the one in the whole text.
    pub(super) fn parse<T: std::str::FromStr<Err = DeviceSpecError>>(self) -> Result<T, DeviceSpecError> {
        self.text.parse().map_err(|error: DeviceSpecError| error.at(self.offset))
    }

    /// Refuses control characters.
    pub(super) fn printable(self) -> Result<&'a str, DeviceSpecError> {
        match self.text.char_indices().find(|(_, character)| character.is_control()) {
            Some((at, character)) => {
                let start = self.offset.saturating_add(at);
                let span = start..start.saturating_add(character.len_utf8());
                Err(DeviceSpecError { span, problem: SpecProblem::Control(character) })
            }
            None => Ok(self.text),
        }
    }

    /// A text for xenstore, of 1 to 3072 bytes, as the value of `key`.
    pub(super) fn value(self, key: &'static str) -> Result<String, DeviceSpecError> {
        let text = self.printable()?;
        if text.is_empty() || text.len() > LONGEST {
            return Err(self.bad_value(key, "1 to 3072 bytes"));
        }
        Ok(text.to_owned())
    }

    /// The domain that serves a device: a name or a number. `None`: dom0.
    pub(super) fn backend_domain(self) -> Result<Option<String>, DeviceSpecError> {
        let is_number = !self.text.is_empty() && self.text.bytes().all(|byte| byte.is_ascii_digit());
        let valid = if is_number {
            self.text.parse::<u32>().is_ok_and(|domid| domid < FIRST_RESERVED)
        } else {
            self.text.parse::<DomainName>().is_ok()
        };
        if !valid {
            return Err(self.bad_value("backend", "the name or the number of a domain"));
        }
        let is_dom0 = self.text == "Domain-0" || self.text.parse() == Ok(0_u32);
        Ok((!is_dom0).then(|| self.text.to_owned()))
    }

    /// Takes `backend=` with the domain `value` for a device that only dom0 can serve, for this reason.
    ///
    /// # Errors
    /// Where the domain is another one, where it is none, and where `place` has one already.
    pub(super) fn only_dom0(
        self,
        value: Word<'_>,
        place: &mut Option<()>,
        reason: &'static str,
    ) -> Result<(), DeviceSpecError> {
        if value.backend_domain()?.is_some() {
            return Err(self.error(SpecProblem::Unsupported { word: self.text.to_owned(), reason }));
        }
        self.once(place, "backend", ())
    }
}

/// The error that the text of a device lacks `key`, which is given as in `example`. Its place is the end of the text.
pub(super) fn missing(text: &str, key: &'static str, example: &'static str) -> DeviceSpecError {
    DeviceSpecError { span: text.len()..text.len(), problem: SpecProblem::Missing { key, example } }
}

/// The parts of a text between commas, without blanks around them: each is a word, or a key with its value. Empty parts are
/// left out.
pub(super) fn words(text: &str) -> impl Iterator<Item = (Word<'_>, Option<Word<'_>>)> {
    let mut rest = Word { text, offset: 0 };
    std::iter::from_fn(move || {
        while !rest.text.is_empty() {
            let (word, after) = rest.split(rest.text.find(',').unwrap_or(rest.text.len()));
            rest = after.split(1).1;
            let word = word.trim();
            if word.text.is_empty() {
                continue;
            }
            return Some(match word.text.find('=') {
                Some(equals) => {
                    let (key, value) = word.split(equals);
                    (key, Some(value.split(1).1))
                }
                None => (word, None),
            });
        }
        None
    })
}

/// A whole number from `least` to `most`: decimal digits without a leading zero, which xl would read as octal.
pub(super) fn decimal(text: &str, least: u64, most: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| canonical && (least..=most).contains(number))
}

/// Checks that docs/devices.md has each of these words.
#[cfg(test)]
pub(super) fn assert_documented(words: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/devices.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let words: Vec<&str> =
        words.split([' ', ',']).filter(|word| word.ends_with('=') || word.contains("trusted")).collect();
    assert!(!words.is_empty());
    for word in words {
        assert!(page.contains(&format!("`{word}")), "{word} is missing in docs/devices.md");
    }
}
