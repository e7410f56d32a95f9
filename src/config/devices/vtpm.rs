//! A virtual TPM, which a domain of its own serves: the text that xl takes in `vtpm=[...]` (xl.cfg.5; `parse_config_data`,
//! xl_parse.c, Xen 4.17).
//!
//! Differences from xl: xl stops reading at a word without `=`; here it is an error.

use std::str::FromStr;

use uuid::Uuid;

use super::error::{DeviceSpecError, SpecProblem};
use super::text::{missing, words};

/// The words of a virtual TPM.
pub(super) const WORDS: &str = "backend= and uuid=";

/// A virtual TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vtpm {
    /// The name or number of the domain that serves it; `None`: dom0.
    pub backend_domain: Option<String>,
    /// The TPM in that domain. `None`: a random one, which [`Devices::complete`](super::set::Devices::complete) sets.
    pub uuid: Option<Uuid>,
}

impl FromStr for Vtpm {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let (mut backend, mut uuid) = (None, None);
        for (key, value) in words(spec) {
            let unknown = || key.error(SpecProblem::UnknownWord { word: key.text.to_owned(), takes: WORDS });
            let value = value.ok_or_else(unknown)?;
            match key.text {
                "backend" => key.once(&mut backend, "backend", value.backend_domain()?)?,
                "uuid" => {
                    let parsed = Uuid::try_parse(value.text).ok().filter(|uuid| !uuid.is_nil());
                    let parsed = parsed.ok_or_else(|| value.bad_value("uuid", "a UUID other than zero"))?;
                    key.once(&mut uuid, "uuid", parsed)?;
                }
                _ => return Err(unknown()),
            }
        }
        let backend_domain = backend.ok_or_else(|| missing(spec, "backend", "backend=DOMAIN, which serves the TPM"))?;
        Ok(Self { backend_domain, uuid })
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::assert_documented;
    use super::*;

    #[test]
    fn a_tpm_has_a_backend_and_maybe_a_uuid() {
        let tpm: Vtpm = "backend=tpm-web, uuid=69B92C70-99c7-4502-9334-6cf87ad556ee".parse().expect("a TPM");
        assert_eq!(tpm.backend_domain.as_deref(), Some("tpm-web"));
        assert_eq!(tpm.uuid.map(|uuid| uuid.to_string()).as_deref(), Some("69b92c70-99c7-4502-9334-6cf87ad556ee"));
        for dom0 in ["backend=0", "backend=Domain-0"] {
            assert_eq!(dom0.parse::<Vtpm>().expect("a TPM"), Vtpm { backend_domain: None, uuid: None });
        }
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (spec, at, text) in [
            ("", 0, "there is no backend; give backend=DOMAIN"),
            ("uuid=69b92c70-99c7-4502-9334-6cf87ad556ee", 41, "there is no backend"),
            ("backend=", 8, "the name or the number of a domain"),
            ("backend=32752", 8, "the name or the number of a domain"),
            ("backend=a,uuid=7", 15, "uuid is \"7\"; it takes a UUID"),
            ("backend=a,uuid=00000000-0000-0000-0000-000000000000", 15, "other than zero"),
            ("backend=a,backend=b", 10, "backend is given twice"),
            ("backend=a,uuid", 10, "\"uuid\" is unknown; the words are backend= and uuid="),
            ("backend=a,resume=1", 10, "\"resume\" is unknown"),
        ] {
            let error = spec.parse::<Vtpm>().expect_err(spec);
            assert!(error.span.start == at && error.to_string().contains(text), "{spec}: {error:?} {error}");
        }
    }

    #[test]
    fn the_page_has_every_word() {
        assert_documented(WORDS);
    }
}
