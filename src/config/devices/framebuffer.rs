//! A framebuffer that VNC shows, with a keyboard and a pointer; the text that xl takes in `vfb=[...]` (xl.cfg.5;
//! `parse_config_data`, xl_parse.c, Xen 4.17). PV and PVH guests get paravirtual devices, an HVM guest's VNC shows its graphics
//! card.

use std::net::IpAddr;
use std::str::FromStr;

use super::error::{DeviceSpecError, SpecProblem};
use super::text::{decimal, words};

/// The words of a framebuffer.
pub(super) const WORDS: &str =
    "vnc=, vnclisten=, vncdisplay=, vncunused=, vncpasswd=, keymap=, sdl=, opengl=, display= and xauthority=";

/// The highest display: its port is 65535.
const LAST_DISPLAY: u64 = 65535 - 5900;

/// The longest password that VNC's own protocol compares, in bytes (RFC 6143, 7.2.2).
const LONGEST_PASSWORD: usize = 8;

/// A framebuffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Framebuffer {
    /// The address on which VNC listens.
    pub listen: IpAddr,
    /// The display: the port is 5900 more.
    pub display: u32,
    /// The next free display is taken where this one is in use.
    pub unused: bool,
    /// The password, of 1 to 8 bytes.
    pub password: Option<String>,
    /// The keyboard's layout, as in `de`.
    pub keymap: Option<String>,
}

/// Without the password.
impl std::fmt::Debug for Framebuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { listen, display, unused, password, keymap } = self;
        let password = password.as_ref().map(|_| "...");
        write!(f, "Framebuffer {{ {listen}:{display}, unused {unused}, password {password:?}, keymap {keymap:?} }}")
    }
}

impl Framebuffer {
    /// The display in QEMU's form, as in `127.0.0.1:0`.
    #[must_use]
    pub fn address(&self) -> String {
        match self.listen {
            IpAddr::V4(address) => format!("{address}:{}", self.display),
            IpAddr::V6(address) => format!("[{address}]:{}", self.display),
        }
    }
}

impl FromStr for Framebuffer {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let (mut vnc, mut listen, mut display, mut unused) = (None, None, None, None);
        let (mut password, mut keymap) = (None, None);
        for (key, value) in words(spec) {
            let unknown = || key.error(SpecProblem::UnknownWord { word: key.text.to_owned(), takes: WORDS });
            let unsupported = |reason| Err(key.error(SpecProblem::Unsupported { word: key.text.to_owned(), reason }));
            let value = value.ok_or_else(unknown)?;
            let flag = |name| match value.text {
                "0" => Ok(false),
                "1" => Ok(true),
                _ => Err(value.bad_value(name, "0 or 1")),
            };
            match key.text {
                "vnc" => {
                    if !flag("vnc")? {
                        return unsupported("a framebuffer without VNC shows itself nowhere: leave it out");
                    }
                    key.once(&mut vnc, "vnc", ())?;
                }
                "vnclisten" => {
                    // xl takes a display behind the address, too.
                    let (address, number) = match value.text.rsplit_once(':') {
                        Some((address, number)) if !address.contains(':') => (address, Some(number)),
                        _ => (value.text, None),
                    };
                    let address = address
                        .parse::<IpAddr>()
                        .map_err(|_| value.bad_value("vnclisten", "an IP address, such as 127.0.0.1 or 0.0.0.0"))?;
                    key.once(&mut listen, "vnclisten", address)?;
                    if let Some(number) = number {
                        let number = decimal(number, 0, LAST_DISPLAY).and_then(|number| number.try_into().ok());
                        let number =
                            number.ok_or_else(|| value.bad_value("vnclisten", "ADDRESS or ADDRESS:DISPLAY"))?;
                        key.once(&mut display, "vncdisplay", number)?;
                    }
                }
                "vncdisplay" => {
                    let number = decimal(value.text, 0, LAST_DISPLAY).and_then(|number| number.try_into().ok());
                    let number =
                        number.ok_or_else(|| value.bad_value("vncdisplay", "0 to 59635, the port less 5900"))?;
                    key.once(&mut display, "vncdisplay", number)?;
                }
                "vncunused" => key.once(&mut unused, "vncunused", flag("vncunused")?)?,
                "vncpasswd" => {
                    // The value does not appear in a message.
                    if value.text.len() > LONGEST_PASSWORD || value.printable().is_err() {
                        return unsupported("VNC compares 8 bytes: give a password of 1 to 8 printable bytes");
                    }
                    let chosen = (!value.text.is_empty()).then(|| value.text.to_owned());
                    key.once(&mut password, "vncpasswd", chosen)?;
                }
                "keymap" => {
                    let plain = |text: &str| {
                        !text.is_empty()
                            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
                    };
                    if !plain(value.text) {
                        return Err(value.bad_value("keymap", "the name of one of QEMU's keyboards, such as de"));
                    }
                    key.once(&mut keymap, "keymap", value.text.to_owned())?;
                }
                "sdl" | "opengl" => {
                    if flag(if key.text == "sdl" { "sdl" } else { "opengl" })? {
                        return unsupported("SDL needs a desktop in dom0; VNC shows the framebuffer");
                    }
                }
                "display" | "xauthority" => return unsupported("it is for SDL, which dombuild does not use"),
                _ => return Err(unknown()),
            }
        }
        Ok(Self {
            listen: listen.unwrap_or(IpAddr::from([127, 0, 0, 1])),
            display: display.unwrap_or(0),
            unused: unused.unwrap_or(true),
            password: password.flatten(),
            keymap,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::assert_documented;
    use super::*;

    fn framebuffer(spec: &str) -> Framebuffer {
        spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"))
    }

    #[test]
    fn the_defaults_are_those_of_xl() {
        let usual = framebuffer("");
        assert_eq!((usual.address().as_str(), usual.unused), ("127.0.0.1:0", true));
        assert_eq!(framebuffer("vnc=1,sdl=0"), usual);
        let chosen = framebuffer("vncunused=0,vnclisten=0.0.0.0,vncdisplay=7,vncpasswd=secret,keymap=de");
        assert_eq!((chosen.address().as_str(), chosen.unused), ("0.0.0.0:7", false));
        assert_eq!((chosen.password.as_deref(), chosen.keymap.as_deref()), (Some("secret"), Some("de")));
        assert!(!format!("{chosen:?}").contains("secret"));
        assert!(framebuffer("vncdisplay=7").unused);
        assert_eq!(framebuffer("vnclisten=::1").address(), "[::1]:0");
        assert_eq!(framebuffer("vnclisten=127.0.0.1:3").address(), "127.0.0.1:3");
        assert_eq!(framebuffer("vncpasswd=").password, None);
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (spec, at, text) in [
            ("vnc=0", 0, "shows itself nowhere"),
            ("vnc=yes", 4, "it takes 0 or 1"),
            ("vnclisten=localhost", 10, "an IP address"),
            ("vnclisten=127.0.0.1:x", 10, "ADDRESS:DISPLAY"),
            ("vncdisplay=59636", 11, "0 to 59635"),
            ("vncdisplay=1,vncdisplay=2", 13, "given twice"),
            ("vncpasswd=123456789", 0, "8 bytes"),
            ("sdl=1", 0, "VNC shows the framebuffer"),
            ("xauthority=/x", 0, "for SDL"),
            ("keymap=../x", 7, "keyboards"),
            ("vncviewer=1", 0, "\"vncviewer\" is unknown"),
        ] {
            let error = spec.parse::<Framebuffer>().expect_err(spec);
            assert!(error.span.start == at && error.to_string().contains(text), "{spec}: {error:?} {error}");
            assert!(!error.to_string().contains("123456789"));
        }
    }

    #[test]
    fn the_page_has_every_word() {
        assert_documented(WORDS);
    }
}
