//! Whole numbers, as xl reads them (`strtol` with base 0).

/// Why a text is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadNumber {
    /// It is none, or has something behind it.
    NotOne,
    /// A leading 0 makes it octal, and it has an 8 or a 9.
    NotOctal,
    /// It does not fit into 64 bits.
    TooLarge,
}

/// A number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: i64,
    /// A leading 0 makes it octal.
    pub(super) octal: bool,
}

/// Reads a number: decimal, with `0x` hexadecimal, with a leading 0 octal; blanks and a sign may come before it.
pub(super) fn parse(text: &[u8]) -> Result<Number, BadNumber> {
    let blanks = text.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 11).count();
    let text = text.get(blanks..).unwrap_or_default();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (radix, digits) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest),
        [b'0', rest @ ..] if !rest.is_empty() => (8, rest),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.iter().all(|byte| char::from(*byte).is_digit(radix)) {
        let is_decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        return Err(if radix == 8 && is_decimal { BadNumber::NotOctal } else { BadNumber::NotOne });
    }
    let digits = std::str::from_utf8(digits).map_err(|_| BadNumber::NotOne)?;
    let signed = if negative { format!("-{digits}") } else { digits.to_owned() };
    let value = i64::from_str_radix(&signed, radix).map_err(|_| BadNumber::TooLarge)?;
    Ok(Number { value, octal: radix == 8 && value != 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_as_strtol_reads_them() {
        for (text, value, octal) in [
            ("0", 0, false),
            ("00", 0, false),
            ("256", 256, false),
            ("0x10", 16, false),
            ("0XfF", 255, false),
            ("010", 8, true),
            ("-1", -1, false),
            ("+7", 7, false),
            (" \t\n\x0b256", 256, false),
            ("-0x8000000000000000", i64::MIN, false),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(Number { value, octal }), "{text:?}");
        }
        for (text, error) in [
            ("", BadNumber::NotOne),
            ("256 ", BadNumber::NotOne),
            ("12abc", BadNumber::NotOne),
            ("1f", BadNumber::NotOne),
            ("0x", BadNumber::NotOne),
            ("x", BadNumber::NotOne),
            ("--1", BadNumber::NotOne),
            ("- 1", BadNumber::NotOne),
            ("1.5", BadNumber::NotOne),
            ("08", BadNumber::NotOctal),
            ("9223372036854775808", BadNumber::TooLarge),
            ("99999999999999999999", BadNumber::TooLarge),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read_back(value: i64) {
            prop_assert_eq!(parse(value.to_string().as_bytes()).map(|number| number.value), Ok(value));
        }
    }
}
