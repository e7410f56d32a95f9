//! The CPU pool of a guest.

use std::fmt;
use std::str::FromStr;

/// A CPU pool, by its number or by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuPool {
    /// Its number in Xen; 0 is the default pool.
    Number(u32),
    /// Its name, which the toolstack that made it has written to xenstore.
    Name(String),
}

/// The default pool.
impl Default for CpuPool {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl fmt::Display for CpuPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for CpuPool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
            return Err("it is neither a number nor the name of a CPU pool".to_owned());
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Number).map_err(|_| "no CPU pool has such a number".to_owned());
        }
        Ok(Self::Name(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        assert_eq!("7".parse(), Ok(CpuPool::Number(7)));
        assert_eq!("Pool-0".parse(), Ok(CpuPool::Name("Pool-0".to_owned())));
        for bad in ["", "-1", "99999999999", "a\n"] {
            assert!(bad.parse::<CpuPool>().is_err(), "{bad:?}");
        }
    }
}
