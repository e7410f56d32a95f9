//! The texts that a configuration is read from, and places in them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use crate::os::one_line;

/// The most characters of a line that are shown.
const WIDTH: usize = 100;

/// The characters that are shown before a place in a line that is longer.
const BEFORE: usize = 60;

/// What the name of every secret has: `vncpasswd`, `spicepasswd`, and what is meant to be one of them.
pub(super) const SECRET: &str = "passw";

/// The mark that some editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Some bytes of one of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The text, counted from 0.
    pub(super) source: usize,
    /// Its first byte.
    pub(super) start: usize,
    /// The byte after its last one.
    pub(super) end: usize,
}

impl Place {
    /// From the start of this place to the end of another in the same text.
    pub(super) fn to(self, last: Self) -> Self {
        Self { end: last.end.max(self.start), ..self }
    }

    /// Texts come in their order, places by their first byte.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        (self.source, self.start).cmp(&(other.source, other.start))
    }
}

/// Line and column of a place, counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The line.
    pub(super) line: usize,
    /// The column.
    pub(super) column: usize,
}

/// A text: the file, or an argument.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    bytes: Vec<u8>,
    /// The first byte of each line.
    lines: Vec<usize>,
}

impl Source {
    /// A text, and what messages call it.
    pub(super) fn new(name: String, bytes: Vec<u8>) -> Self {
        let after_breaks = memchr::memchr_iter(b'\n', &bytes).map(|at| at.saturating_add(1));
        let lines = std::iter::once(0).chain(after_breaks).collect();
        Self { name, bytes, lines }
    }

    /// What messages call it; it may have any character.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of a mark before the text.
    pub(super) fn mark(&self) -> usize {
        if self.bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
    }

    /// Some of it.
    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    fn line_at(&self, byte: usize) -> usize {
        self.lines.partition_point(|start| *start <= byte).saturating_sub(1)
    }

    /// The bytes of a line, without the break at its end.
    fn line(&self, line: usize) -> Range<usize> {
        let start = self.lines.get(line).copied().unwrap_or(self.bytes.len());
        let start = if line == 0 { self.mark() } else { start };
        let end = self.lines.get(line.saturating_add(1)).map_or(self.bytes.len(), |next| next.saturating_sub(1));
        let end = end.max(start);
        if self.get(start..end).ends_with(b"\r") { start..end - 1 } else { start..end }
    }

    /// Line and column of a byte.
    pub(super) fn position(&self, byte: usize) -> Position {
        let line = self.line_at(byte);
        let start = self.line(line).start;
        let before = String::from_utf8_lossy(self.get(start..byte.max(start)));
        Position { line: line.saturating_add(1), column: before.chars().count().saturating_add(1) }
    }

    /// The line of a place, and below it a mark under the place. Every character is shown that a terminal does not obey, the
    /// others as escapes. A line with a password is not shown.
    pub(super) fn excerpt(&self, place: Place) -> [String; 2] {
        let line = self.line(self.line_at(place.start));
        if memchr::memmem::find(self.get(line.clone()), SECRET.as_bytes()).is_some() {
            return ["(the line has a password and is not shown)".to_owned(), String::new()];
        }
        let place = place.start.clamp(line.start, line.end)..place.end.clamp(line.start, line.end);
        let before = String::from_utf8_lossy(self.get(line.start..place.start));
        let marked = String::from_utf8_lossy(self.get(place.start..place.end));
        let after = String::from_utf8_lossy(self.get(place.end..line.end));
        let cut = before.char_indices().rev().nth(BEFORE.saturating_sub(1)).map_or(0, |(at, _)| at);
        let (before, dots) = match before.get(cut..) {
            Some(rest) if cut > 0 => (visible(rest), "..."),
            _ => (visible(&before), ""),
        };
        let width = WIDTH.saturating_sub(before.chars().count());
        let marked = first(visible(&marked), width.max(1));
        let rest = first(visible(&after), width.saturating_sub(marked.chars().count()));
        let blanks = " ".repeat(dots.len().saturating_add(before.chars().count()));
        let mark = format!("^{}", "~".repeat(marked.chars().count().saturating_sub(1)));
        [format!("{dots}{before}{marked}{rest}").trim_end().to_owned(), format!("{blanks}{mark}")]
    }
}

/// A text for a terminal. A tab is a blank: its escape would not look like one.
fn visible(text: &str) -> String {
    let text: Cow<'_, str> = if text.contains('\t') { text.replace('\t', " ").into() } else { text.into() };
    one_line(&text).into_owned()
}

/// At most so many characters of a text.
fn first(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn excerpt(text: &[u8], range: Range<usize>) -> [String; 2] {
        let place = Place { source: 0, start: range.start, end: range.end };
        Source::new("x".to_owned(), text.to_vec()).excerpt(place)
    }

    #[test]
    fn places_have_lines_and_columns() {
        let source = Source::new("x".to_owned(), b"\xef\xbb\xbfa=1\r\n\xc3\xa9\xff=2\n".to_vec());
        let position = |byte| {
            let Position { line, column } = source.position(byte);
            (line, column)
        };
        assert_eq!((position(0), position(3), position(5)), ((1, 1), (1, 1), (1, 3)));
        assert_eq!(
            (position(8), position(10), position(11), position(13), position(14)),
            ((2, 1), (2, 2), (2, 3), (2, 5), (3, 1))
        );
    }

    #[test]
    fn a_line_is_shown_with_a_mark() {
        assert_eq!(excerpt(b"a = 1\nb = 'x'\n", 10..13), ["b = 'x'", "    ^~~"]);
        assert_eq!(excerpt(b"\tb\t= 'x'\r\n", 5..8), [" b = 'x'", "     ^~~"]);
        assert_eq!(excerpt(b"a = \x1b[2J", 4..5), ["a = \\u{1b}[2J", "    ^~~~~~"]);
        assert_eq!(excerpt(b"a = ", 4..4), ["a =", "    ^"]);
        // Only the first line of a place.
        assert_eq!(excerpt(b"a = [\n1\n]", 4..9), ["a = [", "    ^"]);
        let [line, mark] = excerpt(format!("{}b{}", "a".repeat(5000), "c".repeat(5000)).as_bytes(), 5000..5001);
        assert_eq!((line.len(), mark.find('^')), (103, line.find('b')));
    }

    #[test]
    fn passwords_are_not_shown() {
        for line in
            ["vncpasswd = 'secret'", "vfb = [ 'vnc=1,vncpasswd=secret' ]", "spicepasswd=secret x", "vncpassword=secret"]
        {
            assert!(!excerpt(line.as_bytes(), 0..3)[0].contains("secret"), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_place_can_be_shown(bytes: Vec<u8>, start in 0_usize..200, length in 0_usize..200) {
            let start = start.min(bytes.len());
            let end = start.saturating_add(length).min(bytes.len());
            for line in excerpt(&bytes, start..end) {
                prop_assert!(!line.contains(crate::os::is_hidden), "{line:?}");
            }
        }
    }
}
