//! A configuration as flags of `create`: what each key becomes.
//!
//! A file means to dombuild what it means to xl, so the flags begin with libxl's memory model and libxl's machine. Flags on the
//! command line come after them, and change them.

mod boot;
mod devices;
mod domain;

use std::collections::{BTreeMap, BTreeSet};

use super::checks::{Aim, Checks};
use super::document::Document;
use super::keys;
use super::reader::{Read, Reader, Values};
use super::source::SECRET;
use super::xl_conf::XlConf;
use crate::memory::Kind;

/// A flag, and the key that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flag {
    /// `None` if xl's default is the reason.
    pub(super) key: Option<&'static str>,
    /// `--flag` or `--flag=value`, one word of the command line.
    pub(super) word: String,
}

impl Flag {
    /// The word for people, without a password.
    pub(super) fn shown(&self) -> String {
        match (self.word.contains(SECRET), self.word.split_once('=')) {
            (true, Some((flag, _))) => format!("{flag}=..."),
            _ => self.word.clone(),
        }
    }
}

/// The flags of a guest, and what `create` cannot carry out.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) all: Vec<Flag>,
    /// Keys whose values `create` refuses, each with the reason.
    pub(super) refused: BTreeMap<&'static str, String>,
}

/// Collects the flags.
struct Mapper<'a> {
    read: &'a Values<'a>,
    kind: Kind,
    xl_conf: &'a XlConf,
    flags: Flags,
    /// Keys that have become flags, or that their values leave as they are.
    done: BTreeSet<&'static str>,
}

/// The flags of a configuration that has no error. What `create` cannot carry out is an error if `create` is meant, and
/// otherwise a warning.
pub(super) fn of(
    reader: &mut Reader<'_>,
    document: &Document,
    read: &Values<'_>,
    kind: Kind,
    checks: &Checks,
) -> Flags {
    let mut mapper = Mapper { read, kind, xl_conf: &checks.xl_conf, flags: Flags::default(), done: BTreeSet::new() };
    mapper.usual(format!("--kind={kind}"));
    mapper.usual("--model=libxl".to_owned());
    checks.xl_conf.flags().into_iter().for_each(|flag| mapper.usual(flag));
    mapper.domain();
    mapper.boot();
    mapper.devices();
    mapper.rest();
    let Mapper { flags, .. } = mapper;
    for (key, reason) in &flags.refused {
        let place = document.get(key).and_then(|setting| setting.value.place());
        let message = format!("create cannot carry out {key}: {reason}");
        if checks.aim == Aim::Create {
            reader.diagnostics.error(place, message);
        } else {
            reader.diagnostics.warn(place, message);
        }
    }
    flags
}

/// Keys that say nothing for `create`: what they ask for is what it does, or `run` reads them.
const SAID: [&str; 13] = [
    "type",
    "builder",
    "hap",
    "dm_restrict",
    "device_model_version",
    "device_model_stubdomain_override",
    "bootloader_restrict",
    "on_poweroff",
    "on_reboot",
    "on_watchdog",
    "on_crash",
    "on_soft_reset",
    "vkb_device",
];

impl<'a> Mapper<'a> {
    /// The value of a key that the guest has.
    fn take(&mut self, key: &'static str) -> Option<&'a Read<'a>> {
        self.done.insert(key);
        self.read.get(key)
    }

    fn text(&mut self, key: &'static str) -> Option<&'a str> {
        self.take(key).and_then(Read::text)
    }

    /// A text that is not empty.
    fn word(&mut self, key: &'static str) -> Option<&'a str> {
        self.text(key).filter(|text| !text.is_empty())
    }

    fn number(&mut self, key: &'static str) -> Option<i64> {
        self.take(key).and_then(Read::number)
    }

    fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.take(key).and_then(Read::flag)
    }

    /// The texts of a list, or the only one.
    fn texts(&mut self, key: &'static str) -> Vec<&'a str> {
        match self.take(key) {
            Some(Read::Texts(items)) => items.iter().map(|(text, _)| text.as_str()).collect(),
            Some(Read::Text(text)) if !text.is_empty() => vec![text.as_str()],
            _ => Vec::new(),
        }
    }

    /// A flag that comes from no key.
    fn usual(&mut self, word: String) {
        self.flags.all.push(Flag { key: None, word });
    }

    fn add(&mut self, key: &'static str, word: impl Into<String>) {
        self.flags.all.push(Flag { key: Some(key), word: word.into() });
    }

    fn platform(&mut self, key: &'static str, setting: &str) {
        self.add(key, format!("--platform={setting}"));
    }

    fn refuse(&mut self, key: &'static str, reason: impl Into<String>) {
        self.flags.refused.insert(key, reason.into());
    }

    /// Keys whose values are those of a flag of the same meaning.
    fn same(&mut self, key: &'static str, flag: &str) {
        match self.take(key) {
            Some(Read::Number(number)) => self.add(key, format!("{flag}={number}")),
            Some(Read::Text(text)) if !text.is_empty() => self.add(key, format!("{flag}={text}")),
            Some(Read::Flag(true)) => self.add(key, flag),
            Some(Read::Texts(items)) => items.iter().for_each(|(text, _)| self.add(key, format!("{flag}={text}"))),
            _ => {}
        }
    }

    /// Keys that nothing has taken: their values ask for something that `create` does not do, unless they turn it off.
    fn rest(&mut self) {
        for key in keys::all() {
            if self.done.contains(key.name) || SAID.contains(&key.name) {
                continue;
            }
            let Some(value) = self.read.get(key.name) else { continue };
            let is_off = match value {
                Read::Flag(on) => !on,
                Read::Text(text) => text.is_empty() || text == "none" || text == "disabled",
                Read::Texts(items) => items.is_empty(),
                Read::Number(number) => *number == 0,
                Read::Lists(lists) => lists.is_empty(),
            };
            if !is_off && matches!(key.state, keys::State::Checked | keys::State::Read) {
                self.refuse(key.name, "dombuild does not have it yet; leave it out, or keep the guest under xl");
            }
        }
    }
}
