//! Strings in an HVM guest's SMBIOS tables, in the words of xl's `smbios` (`libxl_smbios_type`, libxl_types.idl, Xen 4.20).

use std::str::FromStr;

/// The names of libxl. hvmloader's nodes have a dash for each underscore (xen/include/public/hvm/hvm_xs_strings.h).
const NAMES: [&str; 18] = [
    "bios_vendor",
    "bios_version",
    "system_manufacturer",
    "system_product_name",
    "system_version",
    "system_serial_number",
    "baseboard_manufacturer",
    "baseboard_product_name",
    "baseboard_version",
    "baseboard_serial_number",
    "baseboard_asset_tag",
    "baseboard_location_in_chassis",
    "enclosure_manufacturer",
    "enclosure_serial_number",
    "enclosure_asset_tag",
    "battery_manufacturer",
    "battery_device_name",
    OEM,
];

/// The only name that may be given several times.
const OEM: &str = "oem";

/// How many strings of an OEM hvmloader reads (as above).
pub const MOST_OEM_STRINGS: usize = 99;

/// The longest text: with its node, it must fit into one request to xenstored (`XENSTORE_PAYLOAD_MAX` is 4096).
const LONGEST: usize = 3072;

/// A string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BiosString {
    /// libxl's name for it.
    pub name: &'static str,
    /// The text: one line, and not empty.
    pub text: String,
}

/// Why a text is no such string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BiosStringError {
    /// There is no such name.
    #[error("{0:?} is no SMBIOS string; it is one of {names}", names = NAMES.join(", "))]
    Name(String),
    /// The text cannot be.
    #[error("{name} {reason}")]
    Text {
        /// The name.
        name: &'static str,
        /// What is wrong with the text.
        reason: &'static str,
    },
}

impl FromStr for BiosString {
    type Err = BiosStringError;

    fn from_str(text: &str) -> Result<Self, BiosStringError> {
        let (name, text) = text.split_once('=').unwrap_or((text, ""));
        let known = NAMES.into_iter().find(|known| *known == name);
        let name = known.ok_or_else(|| BiosStringError::Name(name.to_owned()))?;
        let reason = if text.is_empty() {
            "has no text"
        } else if text.chars().any(char::is_control) {
            "has a control character in its text"
        } else if text.len() > LONGEST {
            "has more than 3072 bytes of text, which xenstore cannot hold"
        } else {
            return Ok(Self { name, text: text.to_owned() });
        };
        Err(BiosStringError::Text { name, reason })
    }
}

/// The nodes of strings below `bios-strings`, with their texts. Those of an OEM are numbered from 1 on.
#[must_use]
pub fn nodes(strings: &[BiosString]) -> Vec<(String, &str)> {
    let mut oem = 0;
    let mut node = |name: &str| {
        if name == OEM {
            oem += 1;
            return format!("{OEM}-{oem}");
        }
        name.replace('_', "-")
    };
    strings.iter().map(|string| (node(string.name), string.text.as_str())).collect()
}

/// Whether hvmloader reads them all.
#[must_use]
pub fn fit(strings: &[BiosString]) -> bool {
    strings.iter().filter(|string| string.name == OEM).count() <= MOST_OEM_STRINGS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_their_nodes() {
        let read = |text: &str| text.parse::<BiosString>();
        let strings: Vec<BiosString> =
            ["oem=a=b", "system_product_name=x y", "oem=c"].iter().map(|text| read(text).expect("right")).collect();
        let shown = nodes(&strings);
        let shown: Vec<(&str, &str)> = shown.iter().map(|(node, text)| (node.as_str(), *text)).collect();
        assert_eq!(shown, [("oem-1", "a=b"), ("system-product-name", "x y"), ("oem-2", "c")]);
        assert!(fit(&strings) && !fit(&vec![strings[0].clone(); 100]));
        for bad in ["", "bios-vendor=x", "oem", "oem=", "oem=a\nb"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(&format!("oem={}", "x".repeat(3073))).is_err());
    }
}
