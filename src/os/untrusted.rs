//! Text from an untrusted source: another process, a guest, or the owner of a file.
//!
//! Such text can contain terminal escape sequences, line breaks that forge log records, and characters that reorder or
//! hide text. [`Untrusted`] displays it escaped only.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Untrusted text. `Display` and `Debug` escape it. Serialization does not: JSON has its own escapes (see [`json`]).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Untrusted(String);

impl Untrusted {
    /// Decodes UTF-8; each invalid sequence becomes U+FFFD.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The unescaped text, for comparison and parsing. Never print or log it.
    #[must_use]
    pub fn raw_for_comparison(&self) -> &str {
        &self.0
    }

    /// Truncates the text to `most` characters.
    #[must_use]
    pub fn shortened(self, most: usize) -> Self {
        match self.0.char_indices().nth(most) {
            Some((end, _)) => Self(self.0.get(..end).unwrap_or_default().to_owned()),
            None => self,
        }
    }
}

impl From<String> for Untrusted {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Untrusted {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&one_line(&self.0))
    }
}

impl fmt::Debug for Untrusted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", one_line(&self.0))
    }
}

impl Serialize for Untrusted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Untrusted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Escapes text for one line: control characters, line separators, and invisible or bidirectional format characters.
/// Applying it twice changes nothing more.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |character| character.escape_default().to_string())
}

/// As [`one_line`], but keeps line breaks.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| character != '\n' && is_hidden(character),
        |character| character.escape_default().to_string(),
    )
}

/// As [`one_line`], for a JSON document, by JSON escapes: the document keeps its value. The serializer has already
/// escaped the characters below U+0020 in strings; the remaining line breaks are between tokens.
#[must_use]
pub fn json(document: &str) -> Cow<'_, str> {
    escaped(
        document,
        |character| character != '\n' && is_hidden(character),
        |character| character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    )
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if hidden(character) {
            shown.push_str(&escape(character));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal interprets the character or shows nothing for it: control characters, `Bidi_Control`, line and
/// paragraph separators, `Default_Ignorable_Code_Point` and the other invisible format characters (Unicode 15,
/// `PropList.txt` and `DerivedCoreProperties.txt`).
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{70f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_as_its_escape() {
        for (raw, shown) in [
            ("plain äß€ 漢", "plain äß€ 漢"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\u{0}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("exe\u{202e}gpj", "exe\\u{202e}gpj"),
            ("\u{2066}a\u{2069}\u{200b}\u{feff}\u{ad}", "\\u{2066}a\\u{2069}\\u{200b}\\u{feff}\\u{ad}"),
            ("a\u{2028}b\u{2029}c\u{85}d", "a\\u{2028}b\\u{2029}c\\u{85}d"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
        ] {
            let text = Untrusted::from(raw);
            assert_eq!(text.to_string(), shown);
            assert_eq!(format!("{text:?}"), format!("\"{shown}\""));
            assert_eq!(text.raw_for_comparison(), raw);
            assert_eq!(serde_json::to_value(&text).expect("JSON"), raw);
        }
        assert_eq!(lines("a\nb\x1b"), "a\nb\\u{1b}");
    }

    #[test]
    fn bytes_that_are_no_text_and_text_that_is_too_long() {
        assert_eq!(Untrusted::from_bytes(b"a\xff\x1b").to_string(), "a\u{fffd}\\u{1b}");
        assert_eq!(Untrusted::from("äöü").shortened(2).to_string(), "äö");
        assert_eq!(Untrusted::from("ä").shortened(2).to_string(), "ä");
    }

    proptest! {
        #[test]
        fn visible_text_stays_as_it_is(text in "[ -~äß€]*") {
            prop_assert_eq!(one_line(&text), text.as_str());
        }

        #[test]
        fn no_text_makes_two_lines_or_a_control_character(text in any::<String>()) {
            let line = one_line(&text).into_owned();
            prop_assert_eq!(line.lines().count(), usize::from(!text.is_empty()));
            prop_assert!(!line.contains(is_hidden));
            prop_assert_eq!(one_line(&line), line.as_str());
        }

        #[test]
        fn json_says_what_it_said(text in any::<String>()) {
            let document = serde_json::to_string_pretty(&[format!("{text}\u{9b}\u{202e}\u{e0041}\x1b")]).expect("JSON");
            let shown = json(&document);
            prop_assert!(!shown.contains(|character| character != '\n' && is_hidden(character)));
            let (before, after): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(&document).expect("JSON"), serde_json::from_str(&shown).expect("JSON"));
            prop_assert_eq!(before, after);
        }
    }
}
