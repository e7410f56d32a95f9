//! A directory of the host that the guest mounts by 9pfs: the text that xl takes in `p9=[...]` (xl.cfg.5; `parse_config_data`,
//! xl_parse.c, Xen 4.17).
//!
//! Differences from xl: `security_model` has a default; what is unknown or given twice is an error.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::{DeviceSpecError, SpecProblem};
use super::text::{Word, missing, words};

/// The words of a share.
pub(super) const WORDS: &str = "tag=, path=, security_model= and backend=";

/// The longest tag, in bytes: that of Linux' 9p over virtio, so that a guest mounts it by the same name elsewhere.
const LONGEST_TAG: usize = 31;

/// A directory that the guest mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The name by which the guest mounts it: 1 to 31 bytes.
    pub tag: String,
    /// The directory: an absolute path.
    pub path: PathBuf,
    /// How owners and permissions are kept.
    pub security_model: SecurityModel,
}

/// How QEMU keeps owners, permissions and special files of a share (`-fsdev`'s `security_model`, QEMU 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityModel {
    /// In extended attributes. The files of the host belong to QEMU's user: the guest makes no setuid file of root's there.
    #[default]
    MappedXattr,
    /// In files in hidden directories of the share.
    MappedFile,
    /// In the files themselves; a change of owner that fails is an error.
    Passthrough,
    /// In the files themselves; a change of owner that fails is ignored.
    None,
}

impl SecurityModel {
    /// The word for QEMU.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MappedXattr => "mapped-xattr",
            Self::MappedFile => "mapped-file",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }

    fn of(word: &str) -> Option<Self> {
        // QEMU takes the short word, too.
        let word = if word == "mapped" { "mapped-xattr" } else { word };
        [Self::MappedXattr, Self::MappedFile, Self::Passthrough, Self::None]
            .into_iter()
            .find(|model| model.as_str() == word)
    }
}

impl FromStr for Share {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let (mut tag, mut path, mut security_model, mut backend) = (None, None, None, None);
        for (key, value) in words(spec) {
            let unknown = || key.error(SpecProblem::UnknownWord { word: key.text.to_owned(), takes: WORDS });
            let value = value.ok_or_else(unknown)?;
            match key.text {
                "tag" => {
                    let fits = value.text.len() <= LONGEST_TAG && !value.text.contains('/');
                    let text = value.value("tag")?;
                    if !fits {
                        return Err(value.bad_value("tag", "a name of 1 to 31 bytes, without /"));
                    }
                    key.once(&mut tag, "tag", text)?;
                }
                "path" => key.once(&mut path, "path", absolute_path(value, "path")?)?,
                "security_model" => {
                    let model = SecurityModel::of(value.text).ok_or_else(|| {
                        value.bad_value("security_model", "mapped-xattr, mapped-file, passthrough or none")
                    })?;
                    key.once(&mut security_model, "security_model", model)?;
                }
                "backend" => key.only_dom0(value, &mut backend, "the guest's QEMU in dom0 serves a share")?,
                _ => return Err(unknown()),
            }
        }
        Ok(Self {
            tag: tag.ok_or_else(|| missing(spec, "tag", "tag=share"))?,
            path: path.ok_or_else(|| missing(spec, "path", "path=/srv/share"))?,
            security_model: security_model.unwrap_or_default(),
        })
    }
}

/// An absolute path, as the value of `key`.
pub(super) fn absolute_path(value: Word<'_>, key: &'static str) -> Result<PathBuf, DeviceSpecError> {
    let text = value.value(key)?;
    if !Path::new(&text).is_absolute() {
        return Err(value.bad_value(key, "an absolute path"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::super::text::assert_documented;
    use super::*;

    fn refusal(spec: &str) -> (usize, String) {
        let error = spec.parse::<Share>().expect_err(spec);
        (error.span.start, error.to_string())
    }

    #[test]
    fn a_share_has_a_tag_and_a_path() {
        let share: Share = "tag=share, path=/srv/a b".parse().expect("a share");
        let expected =
            Share { tag: "share".to_owned(), path: "/srv/a b".into(), security_model: SecurityModel::MappedXattr };
        assert_eq!(share, expected);
        for (word, model) in [
            ("none", SecurityModel::None),
            ("mapped", SecurityModel::MappedXattr),
            ("mapped-file", SecurityModel::MappedFile),
            ("passthrough", SecurityModel::Passthrough),
        ] {
            let spec = format!("tag=t,path=/p,security_model={word},backend=0");
            assert_eq!(spec.parse::<Share>().expect("a share").security_model, model);
        }
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (spec, at, text) in [
            ("", 0, "there is no tag; give tag=share"),
            ("tag=t", 5, "there is no path"),
            ("path=/p", 7, "there is no tag"),
            ("tag=t,path=p", 11, "path is \"p\"; it takes an absolute path"),
            ("tag=,path=/p", 4, "tag is \"\""),
            ("tag=a/b,path=/p", 4, "without /"),
            ("tag=t,tag=u,path=/p", 6, "tag is given twice"),
            ("tag=t,path=/p,ro", 14, "\"ro\" is unknown; the words are tag="),
            ("tag=t,path=/p,mode=ro", 14, "\"mode\" is unknown"),
            ("tag=t,path=/p,security_model=strict", 29, "mapped-xattr, mapped-file, passthrough or none"),
            ("tag=t,path=/p,backend=7", 14, "the guest's QEMU in dom0 serves a share"),
            ("tag=t\u{7},path=/p", 5, "is a control character"),
        ] {
            let (start, message) = refusal(spec);
            assert!(start == at && message.contains(text), "{spec}: {start} {message}");
        }
        let long = format!("tag={},path=/p", "t".repeat(32));
        assert!(refusal(&long).1.contains("1 to 31 bytes"));
    }

    #[test]
    fn the_page_has_every_word() {
        assert_documented(WORDS);
    }
}
