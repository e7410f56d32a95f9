//! Finds a setting by its name, and describes all of them.

use std::fmt::Write;

use super::setting::Setting;
use super::settings::SETTINGS;

/// The setting that `--platform` means by `key`, and the vCPU's number where it has one.
pub(super) fn find(key: &str) -> Option<(&'static Setting, Option<u32>)> {
    let short = |name: &'static str| name.strip_prefix("platform/").unwrap_or(name);
    let key = key.strip_prefix("platform/").unwrap_or(key);
    SETTINGS.iter().find_map(|setting| {
        if let Some((before, after)) = short(setting.name).split_once('N') {
            let number = key.strip_prefix(before)?.strip_suffix(after)?;
            let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
            return Some((setting, Some(number)));
        }
        setting.names().any(|name| short(name) == key).then_some((setting, None))
    })
}

/// The table for people, in Markdown.
#[must_use]
pub fn describe() -> String {
    let mut table =
        String::from("| node | takes | missing | `create`, `build` | effect | seen in |\n|---|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let code = |text: &str| format!("`{text}`");
        let value = |text: &str| if text.is_empty() { String::new() } else { code(text) };
        let names: Vec<String> = setting.names().map(code).collect();
        let usual = setting.flag.map_or_else(|| value(setting.usual), code);
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {usual} | {} | {} |",
            names.join("<br>"),
            setting.values,
            value(setting.absent),
            setting.effect,
            setting.seen
        );
    }
    table
}
