//! What `check` prints of a configuration.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::checks::{Aim, Checks};
use super::document::Setting;
use super::flags::Flag;
use super::guest::{Outcome, Report, check};
use super::keys::{State, a_guest};
use super::source::{SECRET, Source};
use super::value::Value;
use super::xl_conf::XlConf;
use crate::config::on_end::EndActions;
use crate::error::Error;
use crate::memory::Plan;
use crate::os::one_line;
use crate::picture::text::render;

/// The most characters of a value in the table.
const WIDTH: usize = 40;

/// A configuration that can be used, for programs.
#[derive(Debug, Serialize)]
pub struct Checked {
    schema: u32,
    file: String,
    kind: &'static str,
    keys: Json,
    /// The flags of `create`, without passwords.
    flags: Vec<String>,
    problems: Json,
    plan: Option<Plan>,
    plan_notes: Vec<&'static str>,
    #[serde(skip)]
    text: String,
}

impl Checked {
    /// The same for people.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The text of a file and the arguments after it, each `KEY=VALUE`.
fn sources(name: &str, bytes: Vec<u8>, arguments: &[String]) -> Vec<Source> {
    let arguments = arguments.iter().zip(1_u32..);
    let arguments =
        arguments.map(|(text, number)| Source::new(format!("argument {number}"), text.clone().into_bytes()));
    std::iter::once(Source::new(name.to_owned(), bytes)).chain(arguments).collect()
}

/// Checks them.
///
/// # Errors
/// [`Error::BadConfigFile`] with every error and warning.
fn checked(name: &str, sources: &[Source], checks: &Checks) -> Result<Report, Error> {
    let report = check(sources, checks);
    if report.diagnostics.failed() {
        let text = format!("{}: {}\n{}", one_line(name), report.diagnostics.count(), report.diagnostics.text(sources));
        return Err(Error::BadConfigFile {
            text: text.trim_end().to_owned(),
            problems: report.diagnostics.json(sources),
        });
    }
    Ok(report)
}

/// The configuration that xl makes of a file with the arguments after it, and the warnings, as text for people.
///
/// # Errors
/// [`Error::BadConfigFile`] with every error and warning of the file.
pub fn libxl(
    name: &str,
    bytes: Vec<u8>,
    arguments: &[String],
    strict: bool,
    xl_conf: XlConf,
) -> Result<(Json, String), Error> {
    let sources = sources(name, bytes, arguments);
    let report = checked(name, &sources, &Checks { strict, aim: Aim::LibxlJson, xl_conf })?;
    Ok((report.libxl.unwrap_or_default(), report.diagnostics.text(&sources)))
}

/// Checks the text of a file with the arguments after it.
///
/// # Errors
/// [`Error::BadConfigFile`] with every error and warning.
pub fn of(name: &str, bytes: Vec<u8>, arguments: &[String], checks: &Checks) -> Result<Checked, Error> {
    let sources = sources(name, bytes, arguments);
    let report = checked(name, &sources, checks)?;
    let text = text(name, &report, &sources);
    Ok(Checked {
        schema: 1,
        file: name.to_owned(),
        kind: report.kind.name(),
        keys: report.outcomes.iter().map(|outcome| key(outcome, &report, &sources)).collect(),
        flags: report.flags.iter().map(Flag::shown).collect(),
        problems: report.diagnostics.json(&sources),
        plan: report.plan,
        plan_notes: report.plan_notes,
        text,
    })
}

/// A configuration as flags of `create`.
#[derive(Debug)]
pub struct Create {
    /// The flags, each one word.
    pub words: Vec<String>,
    /// The same without passwords, for the log.
    pub shown: Vec<String>,
    /// What happens when the guest ends.
    pub on_end: EndActions,
    /// Warnings, in the form that compilers use; empty without any.
    pub warnings: String,
}

/// The flags of `create` for a file with the arguments after it.
///
/// # Errors
/// [`Error::BadConfigFile`] with every error and warning, what `create` cannot carry out among them.
pub fn flags(name: &str, bytes: Vec<u8>, arguments: &[String], xl_conf: XlConf) -> Result<Create, Error> {
    let sources = sources(name, bytes, arguments);
    let report = checked(name, &sources, &Checks { strict: false, aim: Aim::Create, xl_conf })?;
    let shown = report.flags.iter().map(Flag::shown).collect();
    let words = report.flags.into_iter().map(|flag| flag.word).collect();
    Ok(Create { words, shown, on_end: report.on_end, warnings: report.diagnostics.text(&sources) })
}

fn is_secret(outcome: &Outcome) -> bool {
    outcome.setting.key.contains(SECRET)
}

fn key(outcome: &Outcome, report: &Report, sources: &[Source]) -> Json {
    let Outcome { setting, state, refused, .. } = outcome;
    let source = sources.get(setting.place.source);
    let position = source.map(|source| source.position(setting.place.start));
    json!({
        "key": setting.key,
        "source": source.map(Source::name),
        "line": position.map(|position| position.line),
        "column": position.map(|position| position.column),
        "value": if is_secret(outcome) { Json::Null } else { as_json(&setting.value) },
        "meaning": outcome.key.map(|key| key.meaning),
        "state": state.name(),
        "reason": state.reason(),
        "flags": flags_of(setting, report),
        "refused_by_create": refused,
    })
}

/// The flags that a key becomes.
fn flags_of(setting: &Setting, report: &Report) -> Vec<String> {
    report.flags.iter().filter(|flag| flag.key == Some(setting.key.as_str())).map(Flag::shown).collect()
}

/// Texts, and lists of them. A password in a text of `vfb` is left out, with the text.
fn as_json(value: &Value) -> Json {
    match value {
        Value::Text(text) => match String::from_utf8_lossy(&text.bytes()) {
            text if text.contains(SECRET) => Json::Null,
            text => text.into(),
        },
        Value::List(list) => list.items.iter().map(as_json).collect(),
    }
}

fn text(name: &str, report: &Report, sources: &[Source]) -> String {
    let mut text = format!("{}: {}", one_line(name), a_guest(report.kind));
    if !report.diagnostics.is_empty() {
        text.push_str(&format!(", with {}", report.diagnostics.count()));
    }
    text.push('\n');
    let rows: Vec<[String; 4]> = report.outcomes.iter().map(|outcome| row(outcome, report, sources)).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
    };
    let (place, key, value) = (width(0).max(4), width(1).max(3), width(2).max(5));
    if !rows.is_empty() {
        text.push_str(&format!("\n  {:>place$}  {:key$}  {:value$}  becomes\n", "line", "key", "value"));
    }
    for [line, name, shown, state] in &rows {
        text.push_str(&format!("  {line:>place$}  {name:key$}  {shown:value$}  {state}\n"));
    }
    if !report.diagnostics.is_empty() {
        text.push('\n');
        text.push_str(&report.diagnostics.text(sources));
    }
    for note in &report.plan_notes {
        text.push_str(&format!("\nNote: {note}.\n"));
    }
    if let Some(plan) = &report.plan {
        text.push('\n');
        text.push_str(&render(plan));
    }
    text
}

fn row(outcome: &Outcome, report: &Report, sources: &[Source]) -> [String; 4] {
    let Outcome { setting, state, refused, .. } = outcome;
    let line = match sources.get(setting.place.source) {
        Some(source) if setting.place.source == 0 => source.position(setting.place.start).line.to_string(),
        Some(source) => source.name().to_owned(),
        None => String::new(),
    };
    let value = if is_secret(outcome) { "...".to_owned() } else { shown(&setting.value) };
    let state = match (state, state.reason()) {
        (State::Ignored(_) | State::Refused(_), Some(reason)) => format!("{}: {reason}", state.name()),
        _ if refused.is_some() => "refused by create".to_owned(),
        _ => match flags_of(setting, report).join(" ") {
            none if none.is_empty() && setting.key.starts_with("on_") => "read by run".to_owned(),
            none if none.is_empty() => state.name().to_owned(),
            flags => short(&one_line(&flags)),
        },
    };
    [line, setting.key.clone(), value, state]
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => {
            let bytes = text.bytes();
            let text_of_it = String::from_utf8_lossy(&bytes);
            let plain = text.pieces.iter().all(|piece| !piece.quoted);
            let whole = one_line(&text_of_it).into_owned();
            let cut = short(&whole);
            if plain { cut } else { format!("\"{cut}\"") }
        }
        Value::List(list) => match &list.items[..] {
            [] => "[]".to_owned(),
            [Value::Text(_)] => "[1 text]".to_owned(),
            items => format!("[{} values]", items.len()),
        },
    }
}

/// The text, cut where it is too long for a column.
fn short(text: &str) -> String {
    match text.char_indices().nth(WIDTH.saturating_sub(2)) {
        Some((end, _)) => format!("{}...", text.get(..end.saturating_sub(3)).unwrap_or_default()),
        None => text.to_owned(),
    }
}
