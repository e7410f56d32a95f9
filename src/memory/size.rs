//! Parses sizes from a command line: `4GiB`, `512M`, `1.5 GiB`, or a number of MiB.

use std::str::FromStr;

use super::units::{Bytes, Kib};

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The text is empty.
    #[error("the size is empty: write one like 4GiB, 512M or 256 (a bare number is MiB)")]
    Empty,
    /// The text does not begin with a decimal number.
    #[error("`{0}` is not a size: write a number and a unit, like 4GiB, 512M or 1.5GiB (a bare number is MiB)")]
    NotANumber(String),
    /// The unit is unknown.
    #[error("`{unit}` in `{input}` is not a unit of memory: use KiB, MiB, GiB or TiB (or K, M, G, T), like 4GiB")]
    UnknownUnit {
        /// The whole text.
        input: String,
        /// The text in place of the unit.
        unit: String,
    },
    /// The size is not a whole number of KiB.
    #[error("`{0}` is not a whole number of KiB: write a size like 1.5GiB or 1536MiB")]
    NotWholeKib(String),
    /// The size does not fit in 64 bits.
    #[error("`{0}` is larger than any machine's memory: write a size like 4GiB")]
    TooLarge(String),
}

/// The units in lower case, each with its size as a power of two in KiB.
const UNITS: [(&str, u32); 9] =
    [("", 10), ("k", 0), ("kib", 0), ("m", 10), ("mib", 10), ("g", 20), ("gib", 20), ("t", 30), ("tib", 30)];

/// Parses a size.
///
/// The text is a decimal number, at most one space, and a unit: `KiB MiB GiB TiB` or `K M G T`, in any case, always
/// powers of 1024. Without a unit the number is in MiB. A fraction is valid if the size is a whole number of KiB.
///
/// # Errors
/// A [`SizeError`], which quotes the text and gives an example.
pub fn parse(input: &str) -> Result<Kib, SizeError> {
    if input.is_empty() {
        return Err(SizeError::Empty);
    }
    let not_a_number = || SizeError::NotANumber(input.to_owned());
    let too_large = || SizeError::TooLarge(input.to_owned());

    let end = input.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(input.len());
    let (number, rest) = input.split_at(end);
    let unit = rest.strip_prefix(' ').filter(|unit| !unit.is_empty()).unwrap_or(rest);

    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(not_a_number());
    }
    let lower = unit.to_ascii_lowercase();
    let Some(&(_, shift)) = UNITS.iter().find(|(name, _)| *name == lower) else {
        return Err(SizeError::UnknownUnit { input: input.to_owned(), unit: unit.to_owned() });
    };

    // The text has digits only, so only an overflow can fail.
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let fraction = fraction_of(fraction, shift).ok_or_else(|| SizeError::NotWholeKib(input.to_owned()))?;
    let kib = whole.checked_mul(1 << shift).and_then(|kib| kib.checked_add(fraction)).ok_or_else(too_large)?;
    Ok(Kib(kib))
}

/// `0.<digits>` times 2^shift; `None` if that is no whole number.
///
/// n digits have the value d / 10^n = (d / 5^n) / 2^n. So 5^n must divide d, and 2^n must divide the quotient times
/// 2^shift. Without trailing zeros, at most `shift` digits satisfy that, and no shift exceeds 30.
fn fraction_of(digits: &str, shift: u32) -> Option<u64> {
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let places = u32::try_from(digits.len()).ok().filter(|n| *n <= 30)?;
    let value: u128 = digits.parse().ok()?;
    let fives = 5_u128.pow(places);
    let halves = value.checked_div(fives).filter(|_| value.is_multiple_of(fives))?;
    let scaled = halves << shift;
    if scaled.trailing_zeros() < places { None } else { u64::try_from(scaled >> places).ok() }
}

impl FromStr for Kib {
    type Err = SizeError;

    /// Reads a size; see [`parse`].
    fn from_str(input: &str) -> Result<Self, SizeError> {
        parse(input)
    }
}

impl FromStr for Bytes {
    type Err = SizeError;

    /// Parses a size, see [`parse`]. A number without a unit is in MiB.
    fn from_str(input: &str) -> Result<Self, SizeError> {
        parse(input)?.to_bytes().ok_or_else(|| SizeError::TooLarge(input.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_units() {
        for (input, kib) in [
            ("4GiB", 4 << 20),
            ("4 GiB", 4 << 20),
            ("512M", 512 << 10),
            ("512m", 512 << 10),
            ("256", 256 << 10),
            ("0", 0),
            ("0016", 16 << 10),
            ("1.5GiB", 1536 << 10),
            ("1.5", 1536),
            ("0.25t", 256 << 20),
            ("7K", 7),
            ("7.000 kib", 7),
            ("1TIB", 1 << 30),
            ("0.000000000931322574615478515625T", 1),
            ("0.999999999068677425384521484375T", (1 << 30) - 1),
        ] {
            assert_eq!(parse(input), Ok(Kib(kib)), "{input}");
        }
        assert_eq!("256".parse(), Ok(Bytes(256 << 20)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let unit = |input: &str, unit: &str| SizeError::UnknownUnit { input: input.into(), unit: unit.into() };
        for (input, error) in [
            ("", SizeError::Empty),
            ("big", SizeError::NotANumber("big".into())),
            (" 4G", SizeError::NotANumber(" 4G".into())),
            ("-4G", SizeError::NotANumber("-4G".into())),
            (".5G", SizeError::NotANumber(".5G".into())),
            ("5.G", SizeError::NotANumber("5.G".into())),
            ("1.2.3G", SizeError::NotANumber("1.2.3G".into())),
            ("4GB", unit("4GB", "GB")),
            ("4  G", unit("4  G", " G")),
            ("4 ", unit("4 ", " ")),
            ("4G ", unit("4G ", "G ")),
            ("1e3", unit("1e3", "e3")),
            ("4µ", unit("4µ", "µ")),
            ("0.3G", SizeError::NotWholeKib("0.3G".into())),
            ("1.5K", SizeError::NotWholeKib("1.5K".into())),
            ("18446744073709551615T", SizeError::TooLarge("18446744073709551615T".into())),
            ("99999999999999999999", SizeError::TooLarge("99999999999999999999".into())),
        ] {
            assert_eq!(parse(input), Err(error.clone()), "{input}");
            assert!(error.to_string().contains("4GiB") || error.to_string().contains("1.5GiB"), "{error}");
        }
        assert!("18446744073709551615K".parse::<Kib>().is_ok());
        assert!("18446744073709551615K".parse::<Bytes>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(input in "\\PC*") {
            let _ = parse(&input);
        }

        #[test]
        fn near_sizes_do_not_panic(input in "[0-9]{0,40}[.]?[0-9]{0,40} ?[kKmMgGtT]?(iB)?") {
            let _ = parse(&input);
        }

        #[test]
        fn what_is_printed_is_read_back(kib: u64) {
            prop_assert_eq!(parse(&Kib(kib).to_string()), Ok(Kib(kib)));
        }
    }
}
