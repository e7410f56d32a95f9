//! Texts of values that only a network card has: the Ethernet address and the limit of what the guest sends.

use std::str::FromStr;

use super::error::DeviceSpecError;
use super::nic::{MacAddress, Rate};
use super::text::decimal;

/// The interval without `@`, in microseconds.
const DEFAULT_INTERVAL: u32 = 50_000;

impl FromStr for MacAddress {
    type Err = DeviceSpecError;

    /// Reads the address of one card: six pairs of hexadecimal digits with `:` or `-` between them. xl also takes other
    /// characters between the bytes, single digits and addresses that no card can have.
    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        let bad = |takes| DeviceSpecError::bad_value("mac", text, takes);
        let malformed = || bad("six pairs of hexadecimal digits, such as 00:16:3e:12:34:56");
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0_u8; 6];
        let mut pairs = text.split(separator);
        for byte in &mut bytes {
            let pair =
                pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(malformed)?;
        }
        if pairs.next().is_some() {
            return Err(malformed());
        }
        if bytes[0] & 1 != 0 {
            return Err(bad("the address of one card; a first byte that is odd stands for a group"));
        }
        if bytes == [0; 6] {
            return Err(bad("an address other than zero"));
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Rate {
    type Err = DeviceSpecError;

    /// Reads `N[GMK]B/s` or, in bits, `N[GMK]b/s`, and the interval behind `@`: `Ns`, `Nms` or `Nus`; K is 1000
    /// (`xlu_vif_parse_rate`, libxlu_vif.c, Xen 4.17).
    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        let bad = |takes| DeviceSpecError::bad_value("rate", text, takes);
        let form = || bad("a rate such as 10Mb/s (bits) or 250KB/s@20ms (bytes, and the interval)");
        let (speed, interval) = match text.split_once('@') {
            Some((speed, interval)) => (speed, Some(interval)),
            None => (text, None),
        };
        let (number, unit) = split_number(speed);
        let number = decimal(number, 1, u32::MAX.into()).ok_or_else(form)?;
        let (prefix, divisor) = if let Some(prefix) = unit.strip_suffix("B/s") {
            (prefix, 1)
        } else {
            (unit.strip_suffix("b/s").ok_or_else(form)?, 8)
        };
        let factor = match prefix {
            "" => 1,
            "K" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(form()),
        };
        // 32 bits and 30 bits.
        let bytes_per_second = number * factor / divisor;
        let interval_us = interval
            .map_or(Some(DEFAULT_INTERVAL), interval_us)
            .ok_or_else(|| bad("an interval of up to 4294 seconds behind @, such as 20ms"))?;
        let bytes =
            bytes_per_second.checked_mul(interval_us.into()).ok_or_else(|| bad("less in each interval"))? / 1_000_000;
        if bytes == 0 {
            return Err(bad("at least one byte in each interval"));
        }
        Ok(Self { bytes, interval_us })
    }
}

fn interval_us(text: &str) -> Option<u32> {
    let (number, unit) = split_number(text);
    let factor = match unit {
        "" | "s" => 1_000_000,
        "m" | "ms" => 1_000,
        "u" | "us" => 1,
        _ => return None,
    };
    decimal(number, 1, u32::MAX.into())?.checked_mul(factor)?.try_into().ok()
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_what_libxlutil_makes_of_it() {
        for (text, bytes, interval_us) in [
            ("10MB/s", 500_000, 50_000),
            ("1MB/s@20ms", 20_000, 20_000),
            ("250KB/s", 12_500, 50_000),
            ("10Mb/s", 62_500, 50_000),
            ("1GB/s", 50_000_000, 50_000),
            ("100B/s", 5, 50_000),
            ("1MB/s@1s", 1_000_000, 1_000_000),
            ("1MB/s@1", 1_000_000, 1_000_000),
            ("2048Kb/s@20us", 5, 20),
            ("5GB/s@10s", 50_000_000_000, 10_000_000),
            ("4294967295B/s@4294s", 18_442_589_564_730, 4_294_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Rate { bytes, interval_us }), "{text}");
        }
    }

    #[test]
    fn other_rates_are_refused() {
        for text in [
            "",
            "10MB",
            "0MB/s",
            "10mb/s",
            "1MB/s@",
            "1MB/s@0s",
            "1MB/s@4295s",
            "1MB/s@1h",
            "4294967296B/s",
            "4294967295GB/s@4294s",
            "99999999999999999999B/s",
            "1b/s",
            "010MB/s",
            "-1MB/s",
            "+1MB/s",
            "1 MB/s",
            "1MB/s ",
            "1MB/s@1s@1s",
            "1\u{e4}B/s",
        ] {
            let error = text.parse::<Rate>().expect_err(text);
            assert_eq!(error.span, 0..text.len());
        }
    }

    #[test]
    fn an_address_is_that_of_one_card() {
        let expected = MacAddress([0, 0x16, 0x3e, 0xab, 0xcd, 0xef]);
        for text in ["00:16:3e:ab:cd:ef", "00-16-3E-AB-CD-EF", "00:16:3E:ab:CD:ef"] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "00:16:3e:ab:cd",
            "00:16:3e:ab:cd:ef:00",
            "00:16:3e:ab:cd:ef:",
            "00-16:3e:ab:cd:ef",
            "00:16:3e:ab:cd:e",
            "00:16:3e:ab:cd:+f",
            "00:16:3e:ab:cd:0xf",
            "0:16:3e:ab:cd:ef",
            "00163eabcdef",
            "00.16.3e.ab.cd.ef",
            " 00:16:3e:ab:cd:ef",
            "00:16:3e:ab:cd:\u{e4}",
            "01:16:3e:ab:cd:ef",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
        let group = "01:00:5e:00:00:01".parse::<MacAddress>().expect_err("a group");
        assert!(group.to_string().contains("stands for a group"), "{group}");
    }

    proptest! {
        #[test]
        fn a_printed_address_is_read_again(mut bytes: [u8; 6]) {
            bytes[0] &= 0xfe;
            bytes[5] |= 1;
            prop_assert_eq!(MacAddress(bytes).to_string().parse(), Ok(MacAddress(bytes)));
        }

        #[test]
        fn no_text_makes_them_panic(text in "\\PC{0,20}|[0-9]{0,22}[GMK]?[Bb]/s(@[0-9]{0,22}[mu]?s?)?") {
            let _ = text.parse::<Rate>();
            let _ = text.parse::<MacAddress>();
        }

        #[test]
        fn a_rate_is_never_above_the_one_asked(number in 1_u32.., unit in "[GMK]?B", us in 1_u32..) {
            if let Ok(rate) = format!("{number}{unit}/s@{us}us").parse::<Rate>() {
                let factor = match unit.as_str() { "GB" => 1_000_000_000, "MB" => 1_000_000, "KB" => 1_000, _ => 1_u128 };
                let asked = u128::from(number) * factor * u128::from(us);
                let given = u128::from(rate.bytes) * 1_000_000;
                prop_assert!(given <= asked && asked < given + 1_000_000);
            }
        }
    }
}
