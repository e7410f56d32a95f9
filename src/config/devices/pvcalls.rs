//! PV calls: a guest makes the socket calls of another domain. The text that xl takes in `pvcalls=[...]` (xl.cfg.5;
//! `parse_config_data`, xl_parse.c, Xen 4.17).
//!
//! Differences from xl: xl stops reading at a word without `=`; here it is an error.

use std::str::FromStr;

use super::error::{DeviceSpecError, SpecProblem};
use super::text::words;

/// The words of PV calls.
pub(super) const WORDS: &str = "backend=";

/// A connection for PV calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PvCalls {
    /// The name or number of the domain that makes the calls; `None`: dom0.
    pub backend_domain: Option<String>,
}

impl FromStr for PvCalls {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let mut backend = None;
        for (key, value) in words(spec) {
            match (key.text, value) {
                ("backend", Some(value)) => key.once(&mut backend, "backend", value.backend_domain()?)?,
                _ => return Err(key.error(SpecProblem::UnknownWord { word: key.text.to_owned(), takes: WORDS })),
            }
        }
        Ok(Self { backend_domain: backend.flatten() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::assert_documented;
    use super::*;

    #[test]
    fn a_connection_has_a_backend() {
        for dom0 in ["", "backend=Domain-0", " backend=0 "] {
            assert_eq!(dom0.parse::<PvCalls>().expect("a connection").backend_domain, None);
        }
        let other: PvCalls = "backend=net".parse().expect("a connection");
        assert_eq!(other.backend_domain.as_deref(), Some("net"));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (spec, at, text) in [
            ("net", 0, "\"net\" is unknown; the words are backend="),
            ("backend=a,uuid=1", 10, "\"uuid\" is unknown"),
            ("backend=a,backend=b", 10, "backend is given twice"),
            ("backend=a/b", 8, "the name or the number of a domain"),
        ] {
            let error = spec.parse::<PvCalls>().expect_err(spec);
            assert!(error.span.start == at && error.to_string().contains(text), "{spec}: {error:?} {error}");
        }
    }

    #[test]
    fn the_page_has_every_word() {
        assert_documented(WORDS);
    }
}
