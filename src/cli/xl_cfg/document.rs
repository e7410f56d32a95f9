//! A configuration: the settings that count, out of the file and the arguments after it.

use std::collections::HashMap;

use super::diagnostic::Diagnostics;
use super::parser::{Assignment, parse};
use super::source::{Place, Source};
use super::value::{Text, Value};

/// What counts for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    /// Where the key stands that counts.
    pub(super) place: Place,
    pub(super) value: Value,
}

/// All settings, each key once, in the order of what counts.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) settings: Vec<Setting>,
}

impl Document {
    /// Reads the file, which is the first text, and then each argument. As in xl the last one of several settings counts;
    /// xl says nothing of the others.
    pub(super) fn read(sources: &[Source], diagnostics: &mut Diagnostics) -> Self {
        let mut slots: Vec<Option<Setting>> = Vec::new();
        let mut of_key: HashMap<String, usize> = HashMap::new();
        for (number, source) in sources.iter().enumerate() {
            for assignment in parse(source, number, diagnostics) {
                let before = of_key.insert(assignment.key.clone(), slots.len());
                let before = before.and_then(|slot| slots.get_mut(slot)).and_then(Option::take);
                slots.push(counts(before, assignment, sources, diagnostics));
            }
        }
        Self { settings: slots.into_iter().flatten().collect() }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }
}

/// What counts after an assignment.
fn counts(
    before: Option<Setting>,
    assignment: Assignment,
    sources: &[Source],
    diagnostics: &mut Diagnostics,
) -> Option<Setting> {
    let Assignment { key, key_place: place, append, mut value } = assignment;
    if append {
        let Some(mut whole) = before else {
            if let Value::Text(text) = &mut value {
                text.appended = true;
            }
            return Some(Setting { key, place, value });
        };
        let kinds = (whole.value.what(), value.what());
        let at = value.place();
        if !whole.value.append(value) {
            diagnostics.error(at, format!("{key} is {} so far, and {} cannot be appended to it", kinds.0, kinds.1));
        }
        return Some(Setting { place, ..whole });
    }
    if let Some(before) = before
        // An argument is there to replace what the file says.
        && (before.place.source > 0 || place.source == 0)
        && let (Some(source), Some(here)) = (sources.get(before.place.source), sources.get(place.source))
    {
        let (first, second) = (source.position(before.place.start).line, here.position(place.start).line);
        let message = if place.source == 0 {
            format!("{key} is set twice: line {second} counts, line {first} does not")
        } else {
            format!("{key} is set twice: {} counts, {} does not", here.name(), source.name())
        };
        diagnostics.warn(place, message);
    }
    Some(Setting { key, place, value })
}

impl Setting {
    /// The text that it is, if it is one.
    pub(super) fn text(&self) -> Option<&Text> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::List(_) => None,
        }
    }
}
