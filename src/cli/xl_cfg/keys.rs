//! The keys of a guest's configuration: one table, which `check` goes by and docs/xlcfg.md is made from.
//!
//! Source: `parse_config_data`, tools/xl/xl_parse.c, Xen 4.17 and 4.20.

mod boot;
mod devices;
mod domain;
mod qemu;

use std::fmt;

use super::fields::{Configuration, Field};
use super::reader::Read;
pub(super) use super::types::{INT_MAX, Type};
use crate::memory::Kind;

/// The kinds of guest that have the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds {
    hvm: bool,
    pvh: bool,
    pv: bool,
}

const ALL: Kinds = Kinds { hvm: true, pvh: true, pv: true };
const HVM: Kinds = Kinds { hvm: true, pvh: false, pv: false };
const PV: Kinds = Kinds { hvm: false, pvh: false, pv: true };
const PVH: Kinds = Kinds { hvm: false, pvh: true, pv: false };
const HVM_PVH: Kinds = Kinds { hvm: true, pvh: true, pv: false };
const PVH_PV: Kinds = Kinds { hvm: false, pvh: true, pv: true };
const HVM_PV: Kinds = Kinds { hvm: true, pvh: false, pv: true };

impl Kinds {
    pub(super) const fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Hvm => self.hvm,
            Kind::Pvh => self.pvh,
            Kind::Pv => self.pv,
        }
    }
}

impl Kinds {
    /// `HVM and PVH`.
    pub(super) fn words(self) -> String {
        let names = Kind::ALL.into_iter().filter(|kind| self.has(*kind)).map(|kind| kind.name().to_uppercase());
        names.collect::<Vec<_>>().join(" and ")
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Kind::ALL.into_iter().filter(|kind| self.has(*kind)).map(Kind::name).collect();
        f.write_str(&if names.len() == Kind::ALL.len() { "all".to_owned() } else { names.join(" ") })
    }
}

/// `an HVM guest`.
pub(super) const fn a_guest(kind: Kind) -> &'static str {
    match kind {
        Kind::Hvm => "an HVM guest",
        Kind::Pvh => "a PVH guest",
        Kind::Pv => "a PV guest",
    }
}

/// What `check` does with the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It verifies the value.
    Checked,
    /// It verifies the type of the value only.
    Read,
    /// It refuses the key, for this reason.
    Refused(&'static str),
    /// The key has no effect, for this reason.
    Ignored(&'static str),
}

impl State {
    /// The word for programs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Read => "read",
            Self::Refused(_) => "refused",
            Self::Ignored(_) => "ignored",
        }
    }

    /// Why it is refused or ignored.
    pub(super) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Checked | Self::Read => None,
            Self::Refused(reason) | Self::Ignored(reason) => Some(reason),
        }
    }
}

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) takes: Type,
    pub(super) kinds: Kinds,
    pub(super) state: State,
    pub(super) meaning: &'static str,
    /// What becomes of its value in libxl's configuration.
    pub(super) field: Field,
    /// The key that xl's manual has in its place today.
    pub(super) instead: Option<&'static str>,
    /// xl 4.20 knows it, xl 4.17 does not.
    pub(super) is_of_4_20: bool,
}

/// A key of both releases that has no newer name.
const fn key(name: &'static str, takes: Type, kinds: Kinds, state: State, meaning: &'static str) -> Key {
    Key { name, takes, kinds, state, meaning, field: Field::Nowhere, instead: None, is_of_4_20: false }
}

impl Key {
    const fn at(self, path: &'static str) -> Self {
        Self { field: Field::At(path), ..self }
    }

    const fn number(self, path: &'static str) -> Self {
        Self { field: Field::Number(path), ..self }
    }

    const fn kib(self, path: &'static str) -> Self {
        Self { field: Field::Kib(path), ..self }
    }

    const fn word(self, path: &'static str, names: &'static [(&'static str, &'static str)]) -> Self {
        Self { field: Field::Word(path, names), ..self }
    }

    const fn parts(self, parts: fn(&mut Configuration<'_>, &Read<'_>)) -> Self {
        Self { field: Field::Parts(parts), ..self }
    }

    const fn instead(self, name: &'static str) -> Self {
        Self { instead: Some(name), ..self }
    }

    const fn of_4_20(self) -> Self {
        Self { is_of_4_20: true, ..self }
    }
}

/// Every key.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    domain::KEYS.iter().chain(boot::KEYS).chain(devices::KEYS).chain(qemu::KEYS)
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// Keys of xend's time that files still have, and that xl has never had.
const OF_XEND: [&str; 11] =
    ["arch", "cpu", "dhcp", "gateway", "monitor", "netmask", "nic", "on_xend_start", "parallel", "vcpus_avail", "vhpt"];

/// Whether xend knew this key, which xl does not know.
pub(super) fn is_of_xend(name: &str) -> bool {
    OF_XEND.contains(&name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write;

    use super::*;
    use crate::config::tests::assert_page_has;

    /// The table for people, in Markdown.
    fn describe() -> String {
        let mut table = String::from("| key | takes | kinds | Xen | meaning | `check` |\n|---|---|---|---|---|---|\n");
        for key in all() {
            let Key { name, takes, kinds, meaning, .. } = key;
            let since = if key.is_of_4_20 { "4.20" } else { "4.17 4.20" };
            let meaning = match key.instead {
                Some(present) => format!("{meaning} Old; the present key is `{present}`."),
                None => (*meaning).to_owned(),
            };
            let state = match key.state.reason() {
                Some(reason) => format!("{}: {reason}", key.state.name()),
                None => key.state.name().to_owned(),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(table, "| `{name}` | {takes} | {kinds} | {since} | {meaning} | {state} |");
        }
        table
    }

    /// docs/xlcfg.md holds the table as it is. `DOMBUILD_WRITE_DOCS=1 cargo test` writes it there.
    #[test]
    fn the_page_has_this_table() {
        assert_page_has("docs/xlcfg.md", "keys", &describe());
    }

    /// The names were written down from xl's manual and source, without a look at the table.
    #[test]
    fn every_key_of_xl_is_there_once() {
        let listed: Vec<&str> = include_str!("../../../tests/xl_cfg/keys.txt").split_whitespace().collect();
        let names: Vec<&str> = all().map(|key| key.name).collect();
        let set = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(set(&names), set(&listed));
        assert_eq!(names.len(), set(&names).len(), "each once");
        assert!(OF_XEND.iter().all(|name| find(name).is_none()));
    }

    #[test]
    fn each_line_says_one_thing() {
        for key in all() {
            assert!(key.meaning.ends_with('.') && !key.meaning.contains('|'), "{}", key.name);
            assert!(key.instead.is_none_or(|name| find(name).is_some()), "{}", key.name);
        }
    }

    #[test]
    fn kinds_in_words() {
        assert_eq!((ALL.to_string(), PVH_PV.to_string()), ("all".to_owned(), "pvh pv".to_owned()));
    }
}
