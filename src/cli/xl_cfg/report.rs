//! What `check` prints of a configuration.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::guest::{Outcome, Report, check};
use super::keys::{State, a_guest};
use super::source::{SECRET, Source};
use super::value::Value;
use super::xl_conf::{self, XlConf};
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

/// The file, which is the first text, and the arguments after it.
fn sources(name: &str, bytes: Vec<u8>, arguments: &[String]) -> Vec<Source> {
    let arguments = arguments.iter().zip(1_u32..);
    let arguments =
        arguments.map(|(text, number)| Source::new(format!("argument {number}"), text.clone().into_bytes()));
    std::iter::once(Source::new(name.to_owned(), bytes)).chain(arguments).collect()
}

/// The report of a configuration without an error.
fn checked(name: &str, sources: &[Source], strict: bool, xl_conf: Option<&XlConf>) -> Result<Report, Error> {
    let report = check(sources, strict, xl_conf);
    if report.diagnostics.failed() {
        let text = format!("{}: {}\n{}", one_line(name), report.diagnostics.count(), report.diagnostics.text(sources));
        return Err(Error::BadConfigFile {
            text: text.trim_end().to_owned(),
            problems: report.diagnostics.json(sources),
        });
    }
    Ok(report)
}

/// The configuration that xl makes of a file with the arguments after it, and the warnings, as text for people. `xl_conf` is the
/// name of xl.conf, and its text.
///
/// # Errors
/// [`Error::BadConfigFile`] with every error and warning of the file, or of xl.conf.
pub fn libxl(
    name: &str,
    bytes: Vec<u8>,
    arguments: &[String],
    strict: bool,
    xl_conf: (&str, Vec<u8>),
) -> Result<(Json, String), Error> {
    let xl_conf = xl_conf::read(xl_conf.0, xl_conf.1)
        .map_err(|text| Error::BadConfigFile { text: text.trim_end().to_owned(), problems: Json::Array(Vec::new()) })?;
    let sources = sources(name, bytes, arguments);
    let report = checked(name, &sources, strict, Some(&xl_conf))?;
    Ok((report.libxl.unwrap_or_default(), report.diagnostics.text(&sources)))
}

/// Checks the text of a file with the arguments after it, each `KEY=VALUE`. An unknown key is an error if `strict`.
///
/// # Errors
/// [`Error::BadConfigFile`] with every error and warning.
pub fn of(name: &str, bytes: Vec<u8>, arguments: &[String], strict: bool) -> Result<Checked, Error> {
    let sources = sources(name, bytes, arguments);
    let report = checked(name, &sources, strict, None)?;
    let text = text(name, &report, &sources);
    Ok(Checked {
        schema: 1,
        file: name.to_owned(),
        kind: report.kind.name(),
        keys: report.outcomes.iter().map(|outcome| key(outcome, &sources)).collect(),
        problems: report.diagnostics.json(&sources),
        plan: report.plan,
        plan_notes: report.plan_notes,
        text,
    })
}

fn is_secret(outcome: &Outcome) -> bool {
    outcome.setting.key.contains(SECRET)
}

fn key(outcome: &Outcome, sources: &[Source]) -> Json {
    let Outcome { setting, state, .. } = outcome;
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
    })
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
    let rows: Vec<[String; 4]> = report.outcomes.iter().map(|outcome| row(outcome, sources)).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
    };
    let (place, key, value) = (width(0).max(4), width(1).max(3), width(2).max(5));
    if !rows.is_empty() {
        text.push_str(&format!("\n  {:>place$}  {:key$}  {:value$}  check\n", "line", "key", "value"));
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

fn row(outcome: &Outcome, sources: &[Source]) -> [String; 4] {
    let Outcome { setting, state, .. } = outcome;
    let line = match sources.get(setting.place.source) {
        Some(source) if setting.place.source == 0 => source.position(setting.place.start).line.to_string(),
        Some(source) => source.name().to_owned(),
        None => String::new(),
    };
    let value = if is_secret(outcome) { "...".to_owned() } else { shown(&setting.value) };
    let state = match (state, state.reason()) {
        (State::Ignored(_) | State::Refused(_), Some(reason)) => format!("{}: {reason}", state.name()),
        _ => state.name().to_owned(),
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
            let cut = match whole.char_indices().nth(WIDTH.saturating_sub(2)) {
                Some((end, _)) => format!("{}...", whole.get(..end.saturating_sub(3)).unwrap_or_default()),
                None => whole,
            };
            if plain { cut } else { format!("\"{cut}\"") }
        }
        Value::List(list) => match &list.items[..] {
            [] => "[]".to_owned(),
            [Value::Text(_)] => "[1 text]".to_owned(),
            items => format!("[{} values]", items.len()),
        },
    }
}
