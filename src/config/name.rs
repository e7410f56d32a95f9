//! Names of guests.

use std::fmt;
use std::str::FromStr;

/// A guest's name: 1 to 64 ASCII letters, digits and `. _ + -`, not starting with a dot or a dash, and not a number.
///
/// The name becomes part of xenstore values, of a file name under /var/log/xen and of QEMU's arguments, and tools take
/// a number for a domid; what could be misread in one of these places is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainName(String);

impl DomainName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
        if text.is_empty() || text.len() > 64 {
            return Err(format!("a name has 1 to 64 characters; this has {}", text.len()));
        }
        if let Some(bad) = text.chars().find(|char| !(char.is_ascii_alphanumeric() || "._+-".contains(*char))) {
            return Err(format!("{bad:?} cannot be part of a name; letters, digits and . _ + - can"));
        }
        if text.starts_with(['.', '-', '+']) {
            return Err("a name starts with a letter, a digit or _".to_owned());
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("a name of digits alone would be taken for a domid".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_misread_are_refused() {
        for good in ["web", "win10-x64", "a.b_c+d", "7up", &"x".repeat(64)] {
            assert!(good.parse::<DomainName>().is_ok(), "{good}");
        }
        for bad in ["", "7", "../x", "a/b", "a b", "a,b", "a\nb", "-a", ".a", "é", "a%n", &"x".repeat(65)] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }
}
