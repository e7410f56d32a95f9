//! A paravirtual display, which a program in dom0 or another domain serves: the text that xl takes in `vdispl=[...]` (xl.cfg.5;
//! `parse_vdispl_config`, xl_parse.c, Xen 4.17).
//!
//! Differences from xl: `be-alloc` is 0 or 1; a width, height or identifier that is none is an error.

use std::str::FromStr;

use super::error::{DeviceSpecError, SpecProblem};
use super::text::{Word, decimal, missing, words};

/// The words of a display.
pub(super) const WORDS: &str = "backend=, be-alloc= and connectors=";

/// What a connector is.
const CONNECTORS: &str =
    "ID:WIDTHxHEIGHT, several with ; between them: an identifier without blanks, and pixels from 1 to 65535";

/// The most pixels of a side.
const MOST_PIXELS: u64 = 65535;

/// A display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vdispl {
    /// The name or number of the domain that serves it; `None`: dom0.
    pub backend_domain: Option<String>,
    /// The backend may allocate the buffers.
    pub backend_allocates: bool,
    /// The connectors: one or more.
    pub connectors: Vec<Connector>,
}

/// A connector of a display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connector {
    /// How the backend names it.
    pub unique_id: String,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
}

impl FromStr for Vdispl {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let (mut backend, mut allocates, mut connectors) = (None, None, None);
        for (key, value) in words(spec) {
            let unknown = || key.error(SpecProblem::UnknownWord { word: key.text.to_owned(), takes: WORDS });
            let value = value.ok_or_else(unknown)?;
            match key.text {
                "backend" => key.once(&mut backend, "backend", value.backend_domain()?)?,
                "be-alloc" => {
                    let set = match value.text {
                        "0" => false,
                        "1" => true,
                        _ => return Err(value.bad_value("be-alloc", "0 or 1")),
                    };
                    key.once(&mut allocates, "be-alloc", set)?;
                }
                "connectors" => key.once(&mut connectors, "connectors", read_connectors(value)?)?,
                _ => return Err(unknown()),
            }
        }
        Ok(Self {
            backend_domain: backend.flatten(),
            backend_allocates: allocates.unwrap_or(false),
            connectors: connectors.ok_or_else(|| missing(spec, "connectors", "connectors=screen:1024x768"))?,
        })
    }
}

/// One or more connectors, each with an identifier of its own.
fn read_connectors(value: Word<'_>) -> Result<Vec<Connector>, DeviceSpecError> {
    let mut found: Vec<Connector> = Vec::new();
    for part in value.parts(';') {
        let connector = connector(part.text).ok_or_else(|| part.bad_value("connectors", CONNECTORS))?;
        part.printable()?;
        if found.iter().any(|other| other.unique_id == connector.unique_id) {
            return Err(part.bad_value("connectors", "an identifier of its own for each connector"));
        }
        found.push(connector);
    }
    Ok(found)
}

fn connector(text: &str) -> Option<Connector> {
    let (unique_id, resolution) = text.split_once(':')?;
    let (width, height) = resolution.split_once('x')?;
    let pixels = |text| decimal(text, 1, MOST_PIXELS).and_then(|pixels| pixels.try_into().ok());
    let is_id = !unique_id.is_empty() && !unique_id.contains(char::is_whitespace);
    is_id.then_some(())?;
    Some(Connector { unique_id: unique_id.to_owned(), width: pixels(width)?, height: pixels(height)? })
}

#[cfg(test)]
mod tests {
    use super::super::text::assert_documented;
    use super::*;

    #[test]
    fn a_display_has_connectors() {
        let display: Vdispl = "backend=gpu,be-alloc=1,connectors=id0:1920x1080;id1:800x600".parse().expect("a display");
        let connector = |unique_id: &str, width, height| Connector { unique_id: unique_id.to_owned(), width, height };
        let expected = Vdispl {
            backend_domain: Some("gpu".to_owned()),
            backend_allocates: true,
            connectors: vec![connector("id0", 1920, 1080), connector("id1", 800, 600)],
        };
        assert_eq!(display, expected);
        let plain: Vdispl = "connectors=a:1x65535".parse().expect("a display");
        assert_eq!((plain.backend_domain, plain.backend_allocates), (None, false));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (spec, at, text) in [
            ("", 0, "there is no connectors; give connectors=screen:1024x768"),
            ("connectors=", 11, "ID:WIDTHxHEIGHT"),
            ("connectors=a:1x1;", 17, "ID:WIDTHxHEIGHT"),
            ("connectors=a:1x1;b:2", 17, "ID:WIDTHxHEIGHT"),
            ("connectors=1920x1080", 11, "ID:WIDTHxHEIGHT"),
            ("connectors=a:0x1", 11, "from 1 to 65535"),
            ("connectors=a:65536x1", 11, "from 1 to 65535"),
            ("connectors=a b:1x1", 11, "without blanks"),
            ("connectors=:1x1", 11, "ID:WIDTHxHEIGHT"),
            ("connectors=a:1x1;a:2x2", 17, "an identifier of its own"),
            ("connectors=a\u{7}:1x1", 12, "is a control character"),
            ("connectors=a:1x1,be-alloc=yes", 26, "be-alloc is \"yes\"; it takes 0 or 1"),
            ("connectors=a:1x1,connectors=b:1x1", 17, "connectors is given twice"),
            ("connectors=a:1x1,x", 17, "\"x\" is unknown; the words are backend="),
        ] {
            let error = spec.parse::<Vdispl>().expect_err(spec);
            assert!(error.span.start == at && error.to_string().contains(text), "{spec}: {error:?} {error}");
        }
    }

    #[test]
    fn the_page_has_every_word() {
        assert_documented(WORDS);
    }
}
