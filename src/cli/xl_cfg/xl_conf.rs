//! What xl.conf says for every guest (`parse_global_config`, tools/xl/xl.c, Xen 4.17 and 4.20).

use std::path::Path;

use serde_json::Value;

use super::diagnostic::Diagnostics;
use super::document::Document;
use super::file;
use super::reader::{Read, Reader};
use super::source::Source;
use super::types::{INT_MAX, Type};
use crate::error::Error;

/// Where xl reads it.
const PATH: &str = "/etc/xen/xl.conf";

/// The defaults of guests. What is `None` is not said.
#[derive(Debug)]
pub struct XlConf {
    pub(super) run_hotplug_scripts: bool,
    pub(super) claim_mode: bool,
    pub(super) vif_script: Option<String>,
    pub(super) vif_bridge: Option<String>,
    pub(super) vif_gatewaydev: Option<String>,
    pub(super) vif_backend: Option<String>,
    pub(super) blkdev_start: Option<String>,
    pub(super) max_grant_frames: Option<i64>,
    pub(super) max_maptrack_frames: Option<i64>,
    pub(super) max_grant_version: Option<i64>,
    /// Whether dom0 is made smaller for guests, if it is said.
    pub(super) autoballoon: Option<bool>,
    /// Xen 4.20: it replaces what a guest's file says.
    pub(super) bootloader_restrict: Option<bool>,
}

impl Default for XlConf {
    fn default() -> Self {
        Self {
            run_hotplug_scripts: true,
            claim_mode: true,
            vif_script: None,
            vif_bridge: None,
            vif_gatewaydev: None,
            vif_backend: None,
            blkdev_start: None,
            max_grant_frames: None,
            max_maptrack_frames: None,
            max_grant_version: None,
            autoballoon: None,
            bootloader_restrict: None,
        }
    }
}

impl XlConf {
    /// Reads a host's xl.conf, from another place if it is given. Without one, there are no defaults.
    ///
    /// # Errors
    /// [`Error::BadConfigFile`] with what is wrong in it; a file that cannot be read.
    pub fn of_host(path: Option<&Path>) -> Result<Self, Error> {
        let path = match path {
            None if !Path::new(PATH).exists() => return Ok(Self::default()),
            path => path.unwrap_or(Path::new(PATH)),
        };
        let wrong = |text: String| Error::BadConfigFile {
            text: text.trim_end().to_owned(),
            problems: Value::Array(Vec::new()),
        };
        read(&path.to_string_lossy(), file::read(path)?).map_err(wrong)
    }

    /// The flags of `create` that every guest of the host has.
    pub(super) fn flags(&self) -> Vec<String> {
        let numbers = [
            ("--max-grant-frames", self.max_grant_frames),
            ("--max-maptrack-frames", self.max_maptrack_frames),
            ("--max-grant-version", self.max_grant_version),
        ];
        let numbers = numbers.into_iter().filter_map(|(flag, number)| Some(format!("{flag}={}", number?)));
        let autoballoon = self.autoballoon.map(|on| format!("--autoballoon={}", if on { "on" } else { "off" }));
        numbers.chain(autoballoon).chain((!self.claim_mode).then(|| "--no-claim".to_owned())).collect()
    }

    /// A network card with the words that it lacks.
    pub(super) fn complete_vif(&self, spec: &str) -> String {
        let has = |word: &str| {
            spec.split(',').any(|part| part.trim_start().strip_prefix(word).is_some_and(|rest| rest.starts_with('=')))
        };
        let words = [
            ("script", &self.vif_script),
            ("bridge", &self.vif_bridge),
            ("gatewaydev", &self.vif_gatewaydev),
            ("backend", &self.vif_backend),
        ];
        let lacking = words.into_iter().filter(|(word, _)| !has(word));
        let lacking = lacking.filter_map(|(word, value)| Some(format!("{word}={}", value.as_ref()?)));
        let own = Some(spec.to_owned()).filter(|spec| !spec.is_empty());
        own.into_iter().chain(lacking).collect::<Vec<_>>().join(",")
    }
}

/// Reads xl.conf. A key that no guest's configuration depends on is not looked at.
///
/// # Errors
/// What is wrong with it, as text for people.
fn read(name: &str, bytes: Vec<u8>) -> Result<XlConf, String> {
    let sources = [Source::new(name.to_owned(), bytes)];
    let mut diagnostics = Diagnostics::default();
    let document = Document::read(&sources, &mut diagnostics);
    let mut reader = Reader { sources: &sources, diagnostics };
    let mut value = |key: &str, takes| document.get(key).and_then(|setting| reader.read(setting, takes));
    let mut flag = |key| value(key, Type::Flag).as_ref().and_then(Read::flag);
    let defaults = XlConf::default();
    let run_hotplug_scripts = flag("run_hotplug_scripts").unwrap_or(defaults.run_hotplug_scripts);
    let claim_mode = flag("claim_mode").unwrap_or(defaults.claim_mode);
    let bootloader_restrict = flag("bootloader_restrict");
    let mut number = |key| value(key, Type::Number(0, INT_MAX)).as_ref().and_then(Read::number);
    let max_grant_frames = number("max_grant_frames");
    let max_maptrack_frames = number("max_maptrack_frames");
    let max_grant_version = number("max_grant_version");
    let mut text = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| value(key, Type::Text));
        found.and_then(|found| found.text().map(str::to_owned))
    };
    let autoballoon = match text(&["autoballoon"]).as_deref() {
        Some("on" | "1") => Some(true),
        Some("off" | "0") => Some(false),
        _ => None,
    };
    let read = XlConf {
        run_hotplug_scripts,
        claim_mode,
        vif_script: text(&["vif.default.script", "vifscript"]),
        vif_bridge: text(&["vif.default.bridge", "defaultbridge"]),
        vif_gatewaydev: text(&["vif.default.gatewaydev"]),
        vif_backend: text(&["vif.default.backend"]),
        blkdev_start: text(&["blkdev_start"]),
        max_grant_frames,
        max_maptrack_frames,
        max_grant_version,
        autoballoon,
        bootloader_restrict,
    };
    if reader.diagnostics.failed() { Err(reader.diagnostics.text(&sources)) } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_key_counts_before_the_old_one() {
        let text = b"vifscript='a'\nvif.default.script=\"b\" # x\ndefaultbridge='br0'\nclaim_mode=0\nautoballoon='auto'\nmax_grant_frames=64";
        let conf = read("xl.conf", text.to_vec()).expect("right");
        assert_eq!((conf.vif_script.as_deref(), conf.vif_bridge.as_deref()), (Some("b"), Some("br0")));
        assert_eq!((conf.claim_mode, conf.run_hotplug_scripts, conf.max_grant_frames), (false, true, Some(64)));
        assert_eq!(conf.flags(), ["--max-grant-frames=64", "--no-claim"]);
        assert_eq!(conf.complete_vif(""), "script=b,bridge=br0");
        assert_eq!(conf.complete_vif("model=e1000, bridge=x"), "model=e1000, bridge=x,script=b");
        assert_eq!(XlConf::default().complete_vif("model=e1000"), "model=e1000");
        let error = read("xl.conf", b"claim_mode=yes\n".to_vec()).expect_err("wrong");
        assert!(error.starts_with("xl.conf:1:12: error: yes is no value"), "{error}");
    }
}
