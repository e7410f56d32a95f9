//! The text of a network card, as xl takes it (xl-network-configuration.5; `parse_nic_config`, xl_parse.c, Xen 4.17).
//!
//! Differences from xl: xl prints what it does not understand and goes on without it; here it is an error, and so are a key
//! with two values and an empty value.

use std::str::FromStr;

use super::error::{DeviceSpecError, SpecProblem};
use super::nic::Nic;
use super::text::{Word, decimal, words};
use crate::os::is_hidden;

/// The words of a network card.
const WORDS: &str = "mac=, bridge=, script=, ip=, vifname=, rate=, mtu=, type=, model=, devid=, gatewaydev=, backend=, trusted \
    and untrusted";

/// The highest number of a card: `vifDOMID.DEVID-emu` is then a name of at most 15 bytes for every domain.
const LAST_DEVID: u64 = 99;

/// The longest name of a network interface, in bytes (`IFNAMSIZ`, with the NUL at its end).
const LONGEST_INTERFACE: usize = 15;

/// What an interface's name takes.
const TAKES_INTERFACE: &str = "the name of a network interface: 1 to 15 bytes, without blanks and without / : %";

impl Nic {
    /// The end of the name of an emulated card's interface, which is that of the card with this text behind it.
    pub const EMULATED_SUFFIX: &str = "-emu";

    /// The longest name of the card's interface, in bytes; an emulated card has a second interface with a longer name.
    #[must_use]
    pub const fn longest_vifname(emulated: bool) -> usize {
        if emulated { LONGEST_INTERFACE - Self::EMULATED_SUFFIX.len() } else { LONGEST_INTERFACE }
    }
}

/// Whether the kernel takes this name for an interface (`dev_valid_name`, net/core/dev.c, Linux 6.1) as it is: it puts a number
/// for `%d`. A `-` at the start would be an option of `ip`.
fn is_interface(name: &str) -> bool {
    let odd = |character: char| is_hidden(character) || character.is_whitespace() || "/:%".contains(character);
    (1..=LONGEST_INTERFACE).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.starts_with('-')
        && !name.contains(odd)
}

/// Whether vif-openvswitch takes this bridge: `NAME[.VLAN][:TRUNK[:TRUNK]...]`.
fn is_openvswitch(bridge: &str) -> bool {
    let vlan = |text: &str| decimal(text, 0, 4095).is_some();
    let (bridge, trunks) = bridge.split_once(':').map_or((bridge, None), |(bridge, trunks)| (bridge, Some(trunks)));
    let (name, tag) = bridge.split_once('.').map_or((bridge, None), |(name, tag)| (name, Some(tag)));
    is_interface(name) && tag.is_none_or(vlan) && trunks.is_none_or(|trunks| trunks.split(':').all(vlan))
}

/// A name of letters, digits and `punctuation`, as the value of `key`.
fn plain(
    value: Word<'_>,
    key: &'static str,
    punctuation: &str,
    takes: &'static str,
) -> Result<String, DeviceSpecError> {
    let text = value.value(key)?;
    let fits = |character: char| character.is_ascii_alphanumeric() || punctuation.contains(character);
    if !text.chars().all(fits) || text.starts_with('-') {
        return Err(value.bad_value(key, takes));
    }
    Ok(text)
}

fn interface(value: Word<'_>, key: &'static str) -> Result<String, DeviceSpecError> {
    let text = value.printable()?;
    if is_interface(text) { Ok(text.to_owned()) } else { Err(value.bad_value(key, TAKES_INTERFACE)) }
}

fn number(
    value: Word<'_>,
    key: &'static str,
    least: u64,
    most: u64,
    takes: &'static str,
) -> Result<u32, DeviceSpecError> {
    let number = decimal(value.text, least, most).and_then(|number| number.try_into().ok());
    number.ok_or_else(|| value.bad_value(key, takes))
}

impl Nic {
    fn set(&mut self, key: Word<'_>, value: Word<'_>) -> Result<(), DeviceSpecError> {
        match key.text {
            "mac" => key.once(&mut self.mac, "mac", value.parse()?),
            "rate" => key.once(&mut self.rate, "rate", value.parse()?),
            "bridge" => {
                let text = value.printable()?;
                if !is_interface(text) && !is_openvswitch(text) {
                    let takes = "a bridge's name of 1 to 15 bytes; for vif-openvswitch NAME[.VLAN][:TRUNK[:TRUNK]...]";
                    return Err(value.bad_value("bridge", takes));
                }
                key.once(&mut self.bridge, "bridge", text.to_owned())
            }
            "vifname" => key.once(&mut self.vifname, "vifname", interface(value, "vifname")?),
            "gatewaydev" | "netdev" => key.once(&mut self.gatewaydev, "gatewaydev", interface(value, "gatewaydev")?),
            "ip" => key.once(&mut self.ip, "ip", plain(value, "ip", ".:/_- ", "addresses with blanks between them")?),
            "script" => key.once(&mut self.script, "script", value.value("script")?),
            "model" => key.once(
                &mut self.model,
                "model",
                plain(value, "model", "._-", "the name of one of QEMU's network cards, such as e1000")?,
            ),
            "type" => {
                let emulated = match value.text {
                    "vif" => false,
                    "ioemu" => true,
                    _ => return Err(value.bad_value("type", "vif, or ioemu for an emulated card as well")),
                };
                key.once(&mut self.emulated, "type", emulated)
            }
            "devid" => {
                key.once(&mut self.devid, "devid", number(value, "devid", 0, LAST_DEVID, "a number from 0 to 99")?)
            }
            "mtu" => key.once(&mut self.mtu, "mtu", number(value, "mtu", 68, 65535, "68 to 65535 bytes")?),
            "accel" => {
                log::warn!("a network card's accel= has no effect, as in xl");
                Ok(())
            }
            "vlan" => Err(key.error(SpecProblem::Unsupported {
                word: "vlan".to_owned(),
                reason: "the scripts of Xen before 4.20 ignore it; vif-openvswitch takes bridge=NAME.VLAN",
            })),
            word if word == "forwarddev" || word.starts_with("colo") => Err(key.error(SpecProblem::Unsupported {
                word: word.to_owned(),
                reason: "it is for COLO, which keeps a second copy of a running guest and which dombuild does not do",
            })),
            word => Err(key.error(SpecProblem::UnknownWord { word: word.to_owned(), takes: WORDS })),
        }
    }
}

impl FromStr for Nic {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let mut nic = Self {
            devid: None,
            mac: None,
            bridge: None,
            script: None,
            ip: None,
            vifname: None,
            rate: None,
            mtu: None,
            gatewaydev: None,
            model: None,
            emulated: None,
            backend_domain: None,
            trusted: None,
        };
        let mut backend_domain = None;
        for (word, value) in words(spec) {
            match (word.text, value) {
                ("backend", Some(value)) => word.once(&mut backend_domain, "backend", value.backend_domain()?)?,
                (_, Some(value)) => nic.set(word, value)?,
                ("trusted", None) => word.once(&mut nic.trusted, "trusted", true)?,
                ("untrusted", None) => word.once(&mut nic.trusted, "trusted", false)?,
                (text, None) => {
                    return Err(word.error(SpecProblem::UnknownWord { word: text.to_owned(), takes: WORDS }));
                }
            }
        }
        nic.backend_domain = backend_domain.flatten();
        Ok(nic)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::nic::{MacAddress, Rate};
    use super::*;

    fn nic(spec: &str) -> Nic {
        spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"))
    }

    #[test]
    fn an_empty_text_is_a_card_with_defaults() {
        for spec in ["", " ", ",", ", ,"] {
            let nic = nic(spec);
            assert_eq!((nic.mac, nic.bridge, nic.devid, nic.emulated, nic.trusted), (None, None, None, None, None));
        }
    }

    #[test]
    fn every_word_has_its_place() {
        let expected = Nic {
            devid: Some(3),
            mac: Some(MacAddress([0, 0x16, 0x3e, 0, 0, 1])),
            bridge: Some("xenbr0".to_owned()),
            script: Some("vif-bridge".to_owned()),
            ip: Some("10.0.0.1 fe80::1/64".to_owned()),
            vifname: Some("guest-eth0".to_owned()),
            rate: Some(Rate { bytes: 62_500, interval_us: 50_000 }),
            mtu: Some(9000),
            gatewaydev: Some("eth0".to_owned()),
            model: Some("e1000".to_owned()),
            emulated: Some(true),
            backend_domain: Some("net-dom".to_owned()),
            trusted: Some(false),
        };
        let spec = " mac=00-16-3e-00-00-01 , bridge=xenbr0,script=vif-bridge,ip=10.0.0.1 fe80::1/64,vifname=guest-eth0,\
            rate=10Mb/s,mtu=9000,gatewaydev=eth0,model=e1000,type=ioemu,devid=3,backend=net-dom,untrusted,accel=1,";
        assert_eq!(nic(spec), expected);
        assert_eq!(nic("netdev=eth1,trusted,type=vif").gatewaydev.as_deref(), Some("eth1"));
        for dom0 in ["backend=0", "backend=Domain-0"] {
            assert_eq!(nic(dom0).backend_domain, None);
        }
        assert_eq!(nic("backend=5").backend_domain.as_deref(), Some("5"));
    }

    #[test]
    fn a_bridge_is_an_interface_or_what_openvswitch_takes() {
        for bridge in ["xenbr0", "br0.100", "a23456789012345", "ovsbr0.4095", "ovsbridge-12345.100:1:2:4095", "br:1"] {
            assert_eq!(nic(&format!("bridge={bridge}")).bridge.as_deref(), Some(bridge));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (spec, span, text) in [
            ("type=netfront", 5..13, "type is \"netfront\"; it takes vif, or ioemu"),
            ("bridge=xenbr0, mac=00:16:3e:00:00", 19..33, "mac is \"00:16:3e:00:00\"; it takes six pairs"),
            ("mac=01:00:5e:00:00:01", 4..21, "a group"),
            ("mac=00:00:00:00:00:00", 4..21, "other than zero"),
            ("brigde=xenbr0", 0..6, "\"brigde\" is unknown; the words are mac="),
            ("mac = 00:16:3e:00:00:01", 0..4, "\"mac \" is unknown"),
            ("xenbr0", 0..6, "\"xenbr0\" is unknown"),
            ("type=vif,type=ioemu", 9..13, "type is given twice"),
            ("trusted,untrusted", 8..17, "trusted is given twice"),
            ("gatewaydev=a,netdev=b", 13..19, "gatewaydev is given twice"),
            ("bridge=", 7..7, "bridge is \"\"; it takes"),
            ("bridge=a234567890123456", 7..23, "1 to 15 bytes"),
            ("bridge=a b", 7..10, "bridge is \"a b\""),
            ("bridge=br0:x", 7..12, "bridge is"),
            ("bridge=br0:", 7..11, "bridge is"),
            ("bridge=br0.4096:1", 7..17, "bridge is"),
            ("bridge=../br", 7..12, "bridge is"),
            ("vifname=a234567890123456", 8..24, "1 to 15 bytes"),
            ("vifname=a/b", 8..11, "vifname is"),
            ("vifname=vif%d", 8..13, "vifname is"),
            ("vifname=..", 8..10, "vifname is"),
            ("vifname=-x", 8..10, "vifname is"),
            ("vifname=a:b", 8..11, "vifname is"),
            ("vifname=a\u{a0}b", 8..12, "vifname is"),
            ("vifname=a\u{202e}b", 8..13, "vifname is \"a\\u{202e}b\""),
            ("vifname=a\x07b", 9..10, "control character"),
            ("script=a\0b", 8..9, "control character"),
            ("script=", 7..7, "1 to 3072 bytes"),
            ("ip=$(reboot)", 3..12, "ip is"),
            ("model=e1000;x", 6..13, "model is"),
            ("model=-x", 6..8, "model is"),
            ("rate=10MB", 5..9, "rate is \"10MB\"; it takes a rate such as"),
            ("mtu=67", 4..6, "68 to 65535"),
            ("mtu=65536", 4..9, "68 to 65535"),
            ("mtu=0x5dc", 4..9, "68 to 65535"),
            ("devid=100", 6..9, "0 to 99"),
            ("devid=-1", 6..8, "0 to 99"),
            ("backend=a/b", 8..11, "backend is \"a/b\"; it takes the name or the number"),
            ("backend=", 8..8, "backend is"),
            ("backend=32752", 8..13, "backend is"),
            ("vlan=5", 0..4, "\"vlan\" cannot be used"),
            ("forwarddev=eth0", 0..10, "COLO"),
            ("colo_compare_out=x", 0..16, "COLO"),
        ] {
            let error = spec.parse::<Nic>().expect_err(spec);
            assert_eq!(error.span, span, "{spec}: {error}");
            assert!(error.to_string().contains(text), "{spec}: {error}");
        }
    }

    #[test]
    fn the_page_has_every_word() {
        super::super::text::assert_documented(WORDS);
    }

    #[test]
    fn an_emulated_card_has_a_shorter_name() {
        assert_eq!((Nic::longest_vifname(false), Nic::longest_vifname(true)), (15, 11));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_a_place_is_in_the_text(text in "\\PC{0,40}|([a-z]{2,10}=?[a-z0-9:./@ ]{0,12},?){0,4}|(mac|mtu|vifname|ip)=.{0,9}") {
            if let Err(error) = text.parse::<Nic>() {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error.span);
            }
        }

        #[test]
        fn words_have_no_order(words in Just(["mac=00:16:3e:00:00:02", "bridge=br1", "mtu=1400", "devid=7", "trusted", "type=vif"].map(str::to_owned).to_vec()).prop_shuffle()) {
            prop_assert_eq!(nic(&words.join(",")), nic("mac=00:16:3e:00:00:02,bridge=br1,mtu=1400,devid=7,trusted,type=vif"));
        }
    }
}
