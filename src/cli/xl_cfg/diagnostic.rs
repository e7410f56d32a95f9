//! What is wrong in a configuration: errors and warnings, each with its place.

use serde_json::{Value, json};

use super::source::{Place, Source};
use crate::os::one_line;

/// Whether a guest could still be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// No.
    Error,
    /// Yes, though it may not be the guest that was meant.
    Warning,
}

impl Severity {
    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One error or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnostic {
    pub(super) severity: Severity,
    /// Where; `None` if something is missing.
    pub(super) place: Option<Place>,
    /// What is wrong, and what to do about it.
    pub(super) message: String,
}

/// The most that are shown of one configuration.
const MOST: usize = 50;

/// All errors and warnings of one configuration.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    found: Vec<Diagnostic>,
    /// Those beyond the ones that are kept.
    more: usize,
    errors: usize,
}

impl Diagnostics {
    pub(super) fn error(&mut self, place: impl Into<Option<Place>>, message: impl Into<String>) {
        self.add(Severity::Error, place.into(), message.into());
    }

    pub(super) fn warn(&mut self, place: impl Into<Option<Place>>, message: impl Into<String>) {
        self.add(Severity::Warning, place.into(), message.into());
    }

    fn add(&mut self, severity: Severity, place: Option<Place>, message: String) {
        if severity == Severity::Error {
            self.errors = self.errors.saturating_add(1);
        }
        if self.found.len() < MOST {
            self.found.push(Diagnostic { severity, place, message });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Whether there is an error.
    pub(super) fn failed(&self) -> bool {
        self.errors > 0
    }

    /// Whether one more would be shown.
    pub(super) fn has_room(&self) -> bool {
        self.found.len() < MOST
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// `2 errors and 1 warning`.
    pub(super) fn count(&self) -> String {
        let all = self.found.len().saturating_add(self.more);
        let several = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        match (self.errors, all.saturating_sub(self.errors)) {
            (0, warnings) => several(warnings, "warning"),
            (errors, 0) => several(errors, "error"),
            (errors, warnings) => format!("{} and {}", several(errors, "error"), several(warnings, "warning")),
        }
    }

    /// In the order of their places; what is missing comes last.
    fn sorted(&self) -> Vec<&Diagnostic> {
        let mut all: Vec<_> = self.found.iter().collect();
        all.sort_by(|one, other| match (one.place, other.place) {
            (Some(one), Some(other)) => one.order(&other),
            (one, other) => one.is_none().cmp(&other.is_none()),
        });
        all
    }

    /// For people: three lines each, in the form that compilers use, so that editors find the place.
    pub(super) fn text(&self, sources: &[Source]) -> String {
        let mut text = String::new();
        for diagnostic in self.sorted() {
            let (severity, message) = (diagnostic.severity.name(), one_line(&diagnostic.message));
            let source = diagnostic.place.and_then(|place| Some((place, sources.get(place.source)?)));
            let Some((place, source)) = source else {
                let name = sources.first().map(|source| one_line(source.name())).unwrap_or_default();
                text.push_str(&format!("{name}: {severity}: {message}\n"));
                continue;
            };
            let (position, [line, mark]) = (source.position(place.start), source.excerpt(place));
            let name = one_line(source.name());
            text.push_str(&format!("{name}:{}:{}: {severity}: {message}\n", position.line, position.column));
            text.push_str(&format!("    {line}\n"));
            if !mark.is_empty() {
                text.push_str(&format!("    {mark}\n"));
            }
        }
        if self.more > 0 {
            text.push_str(&format!("... and {} more\n", self.more));
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self, sources: &[Source]) -> Value {
        let one = |diagnostic: &Diagnostic| {
            let source = diagnostic.place.and_then(|place| Some((place, sources.get(place.source)?)));
            let position = source.map(|(place, source)| source.position(place.start));
            json!({
                "severity": diagnostic.severity.name(),
                "source": source.or(sources.first().map(|source| (Place { source: 0, start: 0, end: 0 }, source))).map(|(_, source)| source.name()),
                "line": position.map(|position| position.line),
                "column": position.map(|position| position.column),
                "message": diagnostic.message,
            })
        };
        self.sorted().into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_the_order_of_their_places() {
        let sources = [
            Source::new("a\u{1b}.cfg".to_owned(), b"a = 1\nb = 2\n".to_vec()),
            Source::new("argument 1".to_owned(), b"c = 3".to_vec()),
        ];
        let place = |source, start, end| Place { source, start, end };
        let mut diagnostics = Diagnostics::default();
        diagnostics.error(None, "there is no name");
        diagnostics.warn(place(1, 4, 5), "c\n");
        diagnostics.error(place(0, 10, 11), "two");
        let text = "a\\u{1b}.cfg:2:5: error: two\n    b = 2\n        ^\nargument 1:1:5: warning: c\\n\n    c = 3\n        ^\n\
                    a\\u{1b}.cfg: error: there is no name\n";
        assert_eq!(diagnostics.text(&sources), text);
        assert_eq!(diagnostics.count(), "2 errors and 1 warning");
        let json = diagnostics.json(&sources);
        assert_eq!(
            (&json[0]["line"], &json[0]["column"], &json[1]["source"]),
            (&2.into(), &5.into(), &"argument 1".into())
        );
        assert!(json[2]["line"].is_null() && json[2]["source"] == "a\u{1b}.cfg");
    }

    #[test]
    fn many_are_counted() {
        let mut diagnostics = Diagnostics::default();
        (0..1000).for_each(|_| diagnostics.error(None, "x"));
        assert_eq!((diagnostics.count().as_str(), diagnostics.text(&[]).lines().count()), ("1000 errors", 51));
    }
}
