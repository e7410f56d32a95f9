//! The defaults that a host has for its guests: xl.conf (`parse_global_config`, tools/xl/xl.c, Xen 4.17).

use std::path::Path;

use super::diagnostic::Diagnostics;
use super::document::Document;
use super::file;
use super::source::Source;
use crate::error::Error;
use crate::os::one_line;
use crate::payload::error::FileError;

/// Where xl reads it.
pub const PATH: &str = "/etc/xen/xl.conf";

/// What the keys are called that a word of a network card replaces, the older one first.
const VIF: [(&str, &str); 6] = [
    ("vifscript", "script"),
    ("vif.default.script", "script"),
    ("defaultbridge", "bridge"),
    ("vif.default.bridge", "bridge"),
    ("vif.default.gatewaydev", "gatewaydev"),
    ("vif.default.backend", "backend"),
];

/// Numbers that are flags of `create`.
const NUMBERS: [(&str, &str); 3] = [
    ("max_grant_frames", "--max-grant-frames"),
    ("max_maptrack_frames", "--max-maptrack-frames"),
    ("max_grant_version", "--max-grant-version"),
];

/// What dombuild does in its own way, whatever xl.conf says.
const NOT_APPLIED: [&str; 5] = ["vm.cpumask", "vm.hvm.cpumask", "vm.pv.cpumask", "run_hotplug_scripts", "lockfile"];

/// The defaults of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostDefaults {
    /// Words of network cards that do not have them.
    vif: Vec<(&'static str, String)>,
    /// Flags of `create`.
    pub(super) flags: Vec<String>,
}

impl HostDefaults {
    /// Reads the file. Without one, there are no defaults.
    ///
    /// # Errors
    /// [`Error::BadConfigFile`] if it is not in xl's language; a file that cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = match file::read(path) {
            Err(FileError::Unusable { .. }) if !path.exists() => return Ok(Self::default()),
            read => read?,
        };
        Self::of(&path.to_string_lossy(), bytes)
    }

    fn of(name: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        let sources = [Source::new(name.to_owned(), bytes)];
        let mut diagnostics = Diagnostics::default();
        let document = Document::read(&sources, &mut diagnostics);
        if diagnostics.failed() {
            let text = format!("{}: {}\n{}", one_line(name), diagnostics.count(), diagnostics.text(&sources));
            return Err(Error::BadConfigFile {
                text: text.trim_end().to_owned(),
                problems: diagnostics.json(&sources),
            });
        }
        let text = |key: &str| {
            let value = document.get(key)?.text()?.bytes().into_owned();
            String::from_utf8(value).ok().filter(|text| !text.is_empty())
        };
        let mut defaults = Self::default();
        for (key, word) in VIF {
            if let Some(value) = text(key) {
                defaults.vif.retain(|(other, _)| *other != word);
                defaults.vif.push((word, value));
            }
        }
        for (key, flag) in NUMBERS {
            if let Some(number) = text(key).filter(|number| number != "0") {
                defaults.flags.push(format!("{flag}={number}"));
            }
        }
        match text("autoballoon").as_deref() {
            Some("on" | "1") => defaults.flags.push("--autoballoon=on".to_owned()),
            Some("off" | "0") => defaults.flags.push("--autoballoon=off".to_owned()),
            _ => {}
        }
        if text("claim_mode").as_deref() == Some("0") {
            defaults.flags.push("--no-claim".to_owned());
        }
        for key in NOT_APPLIED.into_iter().filter(|key| text(key).is_some()) {
            log::warn!("{}: {key} has no effect on guests of dombuild", one_line(name));
        }
        Ok(defaults)
    }

    /// A network card with the words that it lacks.
    pub(super) fn complete_vif(&self, spec: &str) -> String {
        let has = |word: &str| {
            spec.split(',').any(|part| part.trim_start().strip_prefix(word).is_some_and(|rest| rest.starts_with('=')))
        };
        let lacking = self.vif.iter().filter(|(word, _)| !has(word)).map(|(word, value)| format!("{word}={value}"));
        let words: Vec<String> =
            Some(spec.to_owned()).filter(|spec| !spec.is_empty()).into_iter().chain(lacking).collect();
        words.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_defaults() {
        let text = b"vifscript = 'old'\nvif.default.script=\"vif-route\"\nvif.default.bridge='br0'\nautoballoon=\"off\"\nclaim_mode=0\n\
                     max_grant_frames=128\nmax_maptrack_frames=0\noutput_format='json'\n";
        let defaults = HostDefaults::of("xl.conf", text.to_vec()).expect("right");
        assert_eq!(defaults.flags, ["--max-grant-frames=128", "--autoballoon=off", "--no-claim"]);
        assert_eq!(defaults.complete_vif(""), "script=vif-route,bridge=br0");
        assert_eq!(
            defaults.complete_vif("mac=00:16:3e:00:00:01, bridge=x"),
            "mac=00:16:3e:00:00:01, bridge=x,script=vif-route"
        );
        assert_eq!(HostDefaults::default().complete_vif("model=e1000"), "model=e1000");
        assert_eq!(HostDefaults::read(Path::new("/no/xl.conf")).expect("none"), HostDefaults::default());
        assert!(HostDefaults::of("xl.conf", b"a = \n".to_vec()).is_err());
    }
}
