//! Names of guests.

use std::fmt::{self, Write};
use std::str::FromStr;

use crate::os::is_hidden;

/// The longest name, in bytes. A file name has at most 255 on Linux: [`DomainName::file_name`] makes three of one, and
/// `qemu-dm-` and `.log.1` stand around it.
const LONGEST: usize = 80;

/// A guest's name: any printable text that xl, xenstore and file systems cannot confuse with anything else.
///
/// It has 1 to 80 bytes of UTF-8 and no `/`, does not start with `-` or `.`, and is no number, which tools take for a domid.
/// Control characters, invisible characters and characters that reorder text are not printable, and neither is blank space
/// other than U+0020 between two other characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainName(String);

impl DomainName {
    /// The name, as xenstore has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a part of a file's name, with `%` and two hexadecimal digits for each byte that is no ASCII letter or digit
    /// and none of `. _ + -`. No two names become the same.
    #[must_use]
    pub fn file_name(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"._+-".contains(&byte) {
                text.push(char::from(byte));
            } else {
                // Writing into a string does not fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    }

    /// The name as the value of QEMU's `-name`: QEMU ends a value at a comma, and reads two as one (`get_opt_value`,
    /// util/qemu-option.c, QEMU 7.2). The key in front keeps a `=` in the name from being read as one.
    #[must_use]
    pub fn qemu_option(&self) -> String {
        format!("guest={}", self.0.replace(',', ",,"))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for DomainName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(format!("a name has 1 to {LONGEST} bytes; this has {}", text.len()));
        }
        let bad = |character: &char| {
            is_hidden(*character) || *character == '/' || (character.is_whitespace() && *character != ' ')
        };
        if let Some(bad) = text.chars().find(bad) {
            return Err(format!("{bad:?} cannot be part of a name; printable characters other than / can"));
        }
        if text.starts_with(['.', '-']) {
            return Err("a name does not start with . or -".to_owned());
        }
        if text.trim() != text {
            return Err("a name does not start or end with a space".to_owned());
        }
        if text.strip_prefix('+').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("a number is no name: it would be taken for a domid".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn names_that_could_be_misread_are_refused() {
        for good in [
            "web",
            "win10-x64",
            "a.b_c+d",
            "7up",
            "a ~&=,b",
            "größe",
            "漢字",
            "%41",
            "+a",
            "1.5",
            "a\"'$`\\",
            &"x".repeat(80),
        ] {
            assert_eq!(name(good).as_str(), good);
        }
        let long = "ö".repeat(41);
        for bad in [
            "",
            "7",
            "+7",
            "../x",
            "a/b",
            "a\nb",
            "a\0b",
            "a\x1bb",
            "-a",
            ".a",
            " a",
            "a ",
            " ",
            "a\u{a0}b",
            "a\u{3000}b",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{2028}b",
            "a\u{85}b",
            "\u{feff}a",
            &"x".repeat(81),
            &long,
        ] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_encoded_where_it_is_more_than_text() {
        let odd = name("a ~&=,b");
        assert_eq!((odd.file_name(), odd.qemu_option()), ("a%20%7E%26%3D%2Cb".to_owned(), "guest=a ~&=,,b".to_owned()));
        assert_eq!(name("größe%").file_name(), "gr%C3%B6%C3%9Fe%25");
        assert_eq!(name("web-1.a_b+c").file_name(), "web-1.a_b+c");
    }

    proptest! {
        #[test]
        fn every_name_is_a_file_name_of_its_own(texts in proptest::collection::btree_set("\\PC{1,30}", 1..20)) {
            let names: Vec<DomainName> = texts.iter().filter_map(|text| text.parse().ok()).collect();
            let files: BTreeSet<String> = names.iter().map(DomainName::file_name).collect();
            prop_assert_eq!(files.len(), names.len());
            for name in &names {
                let (file, option) = (format!("qemu-dm-{}.log.1", name.file_name()), name.qemu_option());
                prop_assert!(file.len() <= 255 && file.is_ascii() && !file.contains(['/', ' ', ',']));
                // What QEMU reads.
                let value = option.strip_prefix("guest=").unwrap_or_default().replace(",,", "\0");
                prop_assert!(!value.contains(','));
                prop_assert_eq!(value.replace('\0', ","), name.as_str());
            }
        }
    }
}
