//! The factor for the paging pool, and its arithmetic.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A factor for the paging pool: above 0, and at most [`ShadowMultiplier::MAX`].
///
/// It serializes as text, which preserves every digit.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ShadowMultiplier(f64);

/// A number that cannot be a shadow multiplier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a shadow multiplier: write a number above 0 and up to 100, like 1.5")]
pub struct ShadowMultiplierError(String);

impl ShadowMultiplier {
    /// Factor 1: the model's own pool.
    pub const ONE: Self = Self(1.0);
    /// The largest factor: 100.
    pub const MAX: Self = Self(100.0);

    /// Checks a factor.
    ///
    /// # Errors
    /// If `value` is not a number, not above 0, or more than 100.
    pub fn new(value: f64) -> Result<Self, ShadowMultiplierError> {
        if value > 0.0 && value <= Self::MAX.0 {
            Ok(Self(value))
        } else {
            Err(ShadowMultiplierError(value.to_string()))
        }
    }

    /// The factor.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// `count` times the factor, rounded down as OCaml's `Int64.of_float` does; `None` if it does not fit.
    pub(super) fn scale(self, count: u32) -> Option<u32> {
        truncate(f64::from(count) * self.0)
    }
}

impl Default for ShadowMultiplier {
    fn default() -> Self {
        Self::ONE
    }
}

impl fmt::Display for ShadowMultiplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<ShadowMultiplier> for String {
    fn from(multiplier: ShadowMultiplier) -> Self {
        multiplier.to_string()
    }
}

impl TryFrom<String> for ShadowMultiplier {
    type Error = ShadowMultiplierError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for ShadowMultiplier {
    type Err = ShadowMultiplierError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        let error = || ShadowMultiplierError(input.to_owned());
        input.parse().map_err(|_| error()).and_then(|value| Self::new(value).map_err(|_| error()))
    }
}

/// The integer part of a number that is not negative; `None` if it does not fit. The standard library offers only an
/// `as` cast.
fn truncate(value: f64) -> Option<u32> {
    const FRACTION_BITS: u64 = 52;
    const BIAS: u64 = 1023;
    if !(value >= 0.0 && value <= f64::from(u32::MAX)) {
        return None;
    }
    let bits = value.abs().to_bits();
    let Some(exponent) = (bits >> FRACTION_BITS).checked_sub(BIAS) else { return Some(0) };
    let significand = (bits & ((1 << FRACTION_BITS) - 1)) | (1 << FRACTION_BITS);
    u32::try_from(significand >> FRACTION_BITS.checked_sub(exponent)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn multiplier(value: f64) -> ShadowMultiplier {
        ShadowMultiplier::new(value).expect("a valid multiplier")
    }

    #[test]
    fn multipliers() {
        for good in ["1", "1.5", "0.01", "100", "1e2"] {
            assert!(good.parse::<ShadowMultiplier>().is_ok(), "{good}");
        }
        for bad in ["", "0", "-0", "-1", "100.1", "inf", "NaN", "two", " 1"] {
            let error = bad.parse::<ShadowMultiplier>().expect_err(bad);
            assert!(error.to_string().starts_with(&format!("`{bad}` is not")), "{error}");
        }
        assert!(serde_json::from_str::<ShadowMultiplier>("\"101\"").is_err());
        // As in OCaml, the product is a double: 10 * 0.7 is 7, though the double 0.7 is slightly less than 0.7.
        assert_eq!(multiplier(0.7).scale(10), Some(7));
        assert_eq!(multiplier(0.29).scale(100), Some(28));
        assert_eq!(multiplier(100.0).scale(u32::MAX), None);
        assert_eq!(truncate(f64::from(u32::MAX)), Some(u32::MAX));
        assert_eq!((truncate(-1.0), truncate(f64::NAN), truncate(-0.0)), (None, None, Some(0)));
    }

    proptest! {
        #[test]
        fn truncation_is_truncation(value in 0.0..f64::from(u32::MAX)) {
            let digits = format!("{:.0}", value.trunc());
            prop_assert_eq!(truncate(value), digits.parse().ok());
        }

        #[test]
        fn what_is_written_is_read_back(value in f64::MIN_POSITIVE..=100.0) {
            let json = serde_json::to_string(&multiplier(value)).expect("json");
            prop_assert_eq!(serde_json::from_str::<ShadowMultiplier>(&json).expect("a multiplier"), multiplier(value));
        }
    }
}
