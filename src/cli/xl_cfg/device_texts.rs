//! The texts of devices and resources that only xl's own parser knows, as `libxl_domain_config` has them (`parse_usbctrl_config`,
//! `parse_usbdev_config`, `parse_vkb_config` and `parse_config_data`, xl_parse.c, and `xlu_pci_parse_spec_string`,
//! libxlu_pci.c; Xen 4.17 and 4.20).
//!
//! Differences from xl: a value that is no number, of which xl takes the digits at its start or 0, is an error, and so is a key
//! that is given twice.

use std::ops::Range;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::config::bios_string::{BiosString, BiosStringError};
use crate::config::host_access::Irq;
use crate::domain::libxl_devices;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

/// The fields of a device.
pub(super) type Fields = Map<String, Value>;

/// A part of a text.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    start: usize,
    text: &'a str,
}

impl<'a> Part<'a> {
    const fn whole(text: &'a str) -> Self {
        Self { start: 0, text }
    }

    fn wrong(self, message: impl Into<String>) -> Wrong {
        Wrong { span: self.start..self.start.saturating_add(self.text.len()), message: message.into() }
    }

    fn split(self, separator: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(separator)?;
        let start = self.start.saturating_add(before.len()).saturating_add(separator.len_utf8());
        Some((Self { text: before, ..self }, Self { start, text: after }))
    }

    fn trim_start(self) -> Self {
        let text = self.text.trim_start_matches(' ');
        Self { start: self.start.saturating_add(self.text.len() - text.len()), text }
    }

    /// The parts between commas, without blanks before them. Empty ones do not count.
    fn words(self) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        let all = std::iter::from_fn(move || {
            let now = rest?;
            let cut = now.split(',');
            rest = cut.map(|(_, after)| after);
            Some(cut.map_or(now, |(word, _)| word))
        });
        all.map(Self::trim_start).filter(|word| !word.text.is_empty())
    }

    /// A number in this radix, without a sign or a prefix.
    fn digits(self, radix: u32) -> Option<u64> {
        let is_digits = !self.text.is_empty() && self.text.chars().all(|digit| digit.is_digit(radix));
        u64::from_str_radix(self.text, radix).ok().filter(|_| is_digits)
    }

    /// A decimal number of at most this size, without a leading 0: xl's functions do not agree on what that means.
    fn decimal(self, most: u64) -> Option<u64> {
        self.digits(10).filter(|number| *number <= most && (self.text == "0" || !self.text.starts_with('0')))
    }
}

/// What a key of a device takes.
enum Takes {
    Text,
    /// A number up to this; 0 is the field's initial value.
    Number(u64),
    /// A number up to this.
    Any(u64),
    Flag,
    /// One of these words; the first is the field's initial value.
    Word(&'static [&'static str]),
}

/// A key: its name, its field, and what it takes.
type Key = (&'static str, &'static str, Takes);

/// The fields of a text of `KEY=VALUE,...`.
fn keyed(text: &str, keys: &[Key]) -> Result<Fields, Wrong> {
    let mut fields = Fields::new();
    let mut given = Vec::new();
    for word in Part::whole(text).words() {
        let unknown = || {
            let names: Vec<&str> = keys.iter().map(|(name, ..)| *name).collect();
            word.wrong(format!("{:?} is unknown; the words are {}=", word.text, names.join("=, ")))
        };
        let (name, value) = word.split('=').ok_or_else(unknown)?;
        let (name, field, takes) = keys.iter().find(|(known, ..)| *known == name.text).ok_or_else(unknown)?;
        if given.contains(name) {
            return Err(word.wrong(format!("{name} is given twice")));
        }
        given.push(*name);
        let bad = |takes: &str| value.wrong(format!("{name} is {:?}; it takes {takes}", value.text));
        let found = match takes {
            Takes::Text => Some(value.text.into()),
            Takes::Number(most) | Takes::Any(most) => {
                let number = value.decimal(*most).ok_or_else(|| bad(&format!("a number from 0 to {most}")))?;
                Some(number).filter(|number| *number != 0 || matches!(takes, Takes::Any(_))).map(Value::from)
            }
            Takes::Flag => match value.text {
                "0" => None,
                "1" => Some(true.into()),
                _ => return Err(bad("0 or 1")),
            },
            Takes::Word(words) => {
                let index = words.iter().position(|word| *word == value.text).ok_or_else(|| bad(&words.join(", ")))?;
                Some(value.text.into()).filter(|_| index > 0)
            }
        };
        if let Some(found) = found {
            fields.insert((*field).to_owned(), found);
        }
    }
    Ok(fields)
}

const INT_MAX: u64 = 0x7fff_ffff;
const UINT_MAX: u64 = 0xffff_ffff;

/// A USB controller.
pub(super) fn usbctrl(text: &str) -> Result<Fields, Wrong> {
    keyed(
        text,
        &[
            ("type", "type", Takes::Word(&["auto", "pv", "devicemodel", "qusb"])),
            ("version", "version", Takes::Number(INT_MAX)),
            ("ports", "ports", Takes::Number(INT_MAX)),
        ],
    )
}

/// A USB device of the host. Without `type=hostdev`, `xl create -n` does not show which one.
pub(super) fn usbdev(text: &str) -> Result<Fields, Wrong> {
    let mut fields = keyed(
        text,
        &[
            ("type", "type", Takes::Word(&["", "hostdev"])),
            ("hostbus", "hostbus", Takes::Number(255)),
            ("hostaddr", "hostaddr", Takes::Number(255)),
            ("controller", "ctrl", Takes::Any(INT_MAX)),
            ("port", "port", Takes::Number(INT_MAX)),
        ],
    )?;
    let kind = fields.remove("type");
    let mut host = Fields::new();
    for name in ["hostbus", "hostaddr"] {
        host.extend(fields.remove(name).map(|value| (name.to_owned(), value)));
    }
    if kind.is_some() {
        fields.insert("type.hostdev".to_owned(), host.into());
    }
    Ok(fields)
}

/// A keyboard and pointer.
pub(super) fn vkb(text: &str) -> Result<Fields, Wrong> {
    const TOUCH: [&str; 3] = ["multi_touch_width", "multi_touch_height", "multi_touch_num_contacts"];
    let mut fields = keyed(
        text,
        &[
            ("backend", "backend_domname", Takes::Text),
            ("backend-type", "backend_type", Takes::Word(&["", "qemu", "linux"])),
            ("unique-id", "unique_id", Takes::Text),
            ("feature-disable-keyboard", "feature_disable_keyboard", Takes::Flag),
            ("feature-disable-pointer", "feature_disable_pointer", Takes::Flag),
            ("feature-abs-pointer", "feature_abs_pointer", Takes::Flag),
            ("feature-raw-pointer", "feature_raw_pointer", Takes::Flag),
            ("feature-multi-touch", "feature_multi_touch", Takes::Flag),
            ("multi-touch-width", TOUCH[0], Takes::Number(UINT_MAX)),
            ("multi-touch-height", TOUCH[1], Takes::Number(UINT_MAX)),
            ("multi-touch-num-contacts", TOUCH[2], Takes::Number(UINT_MAX)),
            ("width", "width", Takes::Number(UINT_MAX)),
            ("height", "height", Takes::Number(UINT_MAX)),
        ],
    )?;
    let whole = Part::whole(text);
    if !fields.contains_key("backend_type") {
        return Err(whole.wrong("there is no backend-type; give backend-type=qemu or backend-type=linux"));
    }
    if TOUCH.iter().any(|name| fields.contains_key(*name)) {
        fields.insert("feature_multi_touch".to_owned(), true.into());
    } else if fields.contains_key("feature_multi_touch") {
        return Err(
            whole.wrong("feature-multi-touch needs multi-touch-width, multi-touch-height or multi-touch-num-contacts")
        );
    }
    Ok(fields)
}

/// A PCI device: its address, and the words after it.
pub(super) fn pci(text: &str) -> Result<Fields, Wrong> {
    let whole = Part::whole(text);
    let bad = |part: Part<'_>| {
        part.wrong(format!(
            "{:?} is no PCI device; give [SSSS:]BB:DD.F[@SLOT] and, with commas between them, msitranslate=, power_mgmt=, \
             permissive=, seize=, rdm_policy= and name=",
            part.text
        ))
    };
    // xl takes no blanks here.
    let (address, rest) = whole.split(',').map_or((whole, None), |(first, rest)| (first, Some(rest)));
    let mut fields = Fields::new();
    let positional = !address.text.contains('=');
    if positional {
        put_address(&mut fields, address).ok_or_else(|| bad(address))?;
    }
    let words = if positional { rest.map_or("", |rest| rest.text) } else { text };
    let start = text.len() - words.len();
    let keys = [
        ("bdf", "bdf", Takes::Text),
        ("msitranslate", "msitranslate", Takes::Flag),
        ("power_mgmt", "power_mgmt", Takes::Flag),
        ("permissive", "permissive", Takes::Flag),
        ("seize", "seize", Takes::Flag),
        ("rdm_policy", "rdm_policy", Takes::Word(&["", "strict", "relaxed"])),
        ("name", "name", Takes::Text),
    ];
    if words.contains(' ') || words.split(',').any(|word| word.is_empty()) && !words.is_empty() {
        return Err(whole.wrong(format!("{text:?} has a blank or an empty word, and xl takes none in a PCI device")));
    }
    let found = keyed(words, &keys).map_err(|wrong| Wrong {
        span: wrong.span.start.saturating_add(start)..wrong.span.end.saturating_add(start),
        ..wrong
    })?;
    for (name, value) in found {
        if name == "bdf" {
            let address = value.as_str().unwrap_or_default();
            if positional || put_address(&mut fields, Part::whole(address)).is_none() {
                return Err(bad(whole));
            }
        } else {
            fields.insert(name, value);
        }
    }
    if fields.contains_key("name") == fields.contains_key("vfunc_mask") {
        return Err(whole.wrong("a PCI device has its address or, as name=, the name that it was given, and not both"));
    }
    // A flag that is 0 replaces the one of all devices.
    for name in ["msitranslate", "power_mgmt", "permissive", "seize"] {
        if text.split(',').any(|word| word.strip_prefix(name) == Some("=0")) {
            fields.insert(name.to_owned(), false.into());
        }
    }
    Ok(fields)
}

/// `[SSSS:]BB:DD.F[@SLOT]`, each in hexadecimal.
fn put_address(fields: &mut Fields, address: Part<'_>) -> Option<()> {
    let (address, slot) = address.split('@').map_or((address, None), |(address, slot)| (address, Some(slot)));
    let (bus, function) = address.split('.')?;
    let numbers: Vec<Part<'_>> = bus.text.split(':').map(Part::whole).collect();
    let (segment, bus, device) = match &numbers[..] {
        [segment, bus, device] => (segment.digits(16)?, bus.digits(16)?, device.digits(16)?),
        [bus, device] => (0, bus.digits(16)?, device.digits(16)?),
        _ => return None,
    };
    let (function, mask) = match function.text {
        "*" => (0, UINT_MAX),
        _ => (function.digits(16)?, 1),
    };
    let slot = slot.map_or(Some(0), |slot| slot.digits(16))?;
    if segment > 0xffff || bus > 0xff || device > 0x1f || function > 7 || slot > 0x1f {
        return None;
    }
    let numbers = [("func", function), ("dev", device), ("bus", bus), ("domain", segment), ("vdevfn", slot << 3)];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        fields.insert(name.to_owned(), number.into());
    }
    fields.insert("vfunc_mask".to_owned(), mask.into());
    Some(())
}

/// I/O ports: `FIRST` or `FIRST-LAST` in hexadecimal.
pub(super) fn ioports(text: &str) -> Result<Value, Wrong> {
    whole(text).map(libxl_devices::ports)
}

/// An interrupt.
pub(super) fn irq(text: &str) -> Result<Value, Wrong> {
    whole(text).map(|Irq(number)| number.into())
}

/// Pages of I/O memory: `START,COUNT[@GFN]` in hexadecimal.
pub(super) fn iomem(text: &str) -> Result<Value, Wrong> {
    whole(text).map(libxl_devices::io_memory)
}

/// A text that is right or wrong as a whole.
fn whole<T: FromStr<Err = String>>(text: &str) -> Result<T, Wrong> {
    text.parse().map_err(|message| Part::whole(text).wrong(message))
}

/// How memory is laid out around what the host reserves. xl's library refuses every text with `policy=`, and xl then goes on
/// without the key (`xlu_rdm_parse`, libxlu_pci.c, Xen 4.17 and 4.20).
pub(super) fn rdm(text: &str) -> Result<Value, Wrong> {
    match text {
        "strategy=host" => Ok(json!({ "strategy": "host" })),
        _ => Err(Part::whole(text).wrong(format!(
            "rdm is {text:?}; it takes strategy=host: xl ignores the key with anything else, policy= among that"
        ))),
    }
}

/// An SMBIOS string of Xen 4.20.
pub(super) fn smbios(text: &str) -> Result<Value, Wrong> {
    let whole = Part::whole(text);
    let key = whole.split('=').map_or(whole, |(key, _)| key);
    match text.parse::<BiosString>() {
        Ok(BiosString { name, text }) => Ok(json!({ "key": name, "value": text })),
        Err(error @ BiosStringError::Name(_)) => Err(key.wrong(error.to_string())),
        Err(error @ BiosStringError::Text { .. }) => Err(whole.wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span_and_message<T: std::fmt::Debug>(found: Result<T, Wrong>) -> (Range<usize>, String) {
        let Wrong { span, message } = found.expect_err("wrong");
        (span, message)
    }

    #[test]
    fn devices_as_xl_has_them() {
        let value = |found: Result<Fields, Wrong>| Value::from(found.expect("fields"));
        assert_eq!(value(usbctrl("type=qusb, version=2,,ports=6")), json!({"type": "qusb", "version": 2, "ports": 6}));
        assert_eq!(value(usbctrl("type=auto,version=0")), json!({}));
        assert_eq!(value(usbdev("hostbus=1,hostaddr=4,controller=0,port=2")), json!({"ctrl": 0, "port": 2}));
        assert_eq!(value(usbdev("type=hostdev,hostbus=1")), json!({"type.hostdev": {"hostbus": 1}}));
        assert_eq!(
            value(vkb("backend-type=linux, multi-touch-width=10,feature-disable-keyboard=1,unique-id=T:1")),
            json!({"backend_type": "linux", "multi_touch_width": 10, "feature_multi_touch": true,
                "feature_disable_keyboard": true, "unique_id": "T:1"})
        );
        assert_eq!(value(pci("01:00.0")), json!({"bus": 1, "vfunc_mask": 1}));
        assert_eq!(
            value(pci("0002:0a:1f.7@5,seize=1,permissive=0,rdm_policy=relaxed")),
            json!({"domain": 2, "bus": 10, "dev": 31, "func": 7, "vdevfn": 0x28, "vfunc_mask": 1, "seize": true,
                "permissive": false, "rdm_policy": "relaxed"})
        );
        assert_eq!(value(pci("bdf=01:00.*")), json!({"bus": 1, "vfunc_mask": 0xffff_ffff_u32}));
        assert_eq!(value(pci("name=gpu")), json!({"name": "gpu"}));
    }

    #[test]
    fn resources_as_xl_has_them() {
        assert_eq!(ioports("2f8-2ff"), Ok(json!({"first": 0x2f8, "number": 8})));
        assert_eq!(ioports("0"), Ok(json!({"number": 1})));
        assert_eq!(irq("017"), Ok(json!(17)));
        assert_eq!(iomem("0xfd010,1@0xfd000"), Ok(json!({"start": 0xfd010, "number": 1, "gfn": 0xfd000})));
        assert_eq!(iomem("a0,2@0"), Ok(json!({"start": 0xa0, "number": 2, "gfn": 0})));
        assert_eq!(rdm("strategy=host"), Ok(json!({"strategy": "host"})));
        assert_eq!(smbios("oem=a=b"), Ok(json!({"key": "oem", "value": "a=b"})));
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        for (found, span, message) in [
            (usbctrl("version=2, prots=6"), 11..18, "\"prots=6\" is unknown; the words are type=, version=, ports="),
            (usbctrl("version=08"), 8..10, "version is \"08\"; it takes a number from 0 to 2147483647"),
            (usbctrl("ports=1,ports=1"), 8..15, "ports is given twice"),
            (usbdev("hostbus=256"), 8..11, "hostbus is \"256\""),
            (vkb("unique-id=x"), 0..11, "there is no backend-type"),
            (vkb("backend-type=qemu,feature-multi-touch=1"), 0..39, "feature-multi-touch needs"),
            (pci("01:20.0"), 0..7, "\"01:20.0\" is no PCI device"),
            (pci("01:00.0,permissive=yes"), 19..22, "permissive is \"yes\"; it takes 0 or 1"),
            (pci("01:00.0, seize=1"), 0..16, "has a blank"),
            (pci("01:00.0,name=x"), 0..14, "and not both"),
            (pci("seize=1"), 0..7, "and not both"),
        ] {
            let (found, text) = span_and_message(found);
            assert_eq!(found, span, "{text}");
            assert!(text.contains(message), "{text}");
        }
        for (found, message) in [
            (ioports("2f8-2f7"), "are no I/O ports"),
            (ioports("10000"), "are no I/O ports"),
            (irq("0x10"), "is no interrupt"),
            (iomem("10"), "is no I/O memory"),
            (rdm("strategy=host,policy=strict"), "xl ignores the key"),
            (smbios("bios=x"), "is no SMBIOS string"),
            (smbios("oem="), "oem has no text"),
        ] {
            let (_, text) = span_and_message(found);
            assert!(text.contains(message), "{text}");
        }
    }
}
