//! Values: texts and lists, with the place of each. What type a value has is up to the key.

use std::borrow::Cow;

use super::lexer::escape_of;
use super::source::{Place, Source};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A number, or a text in quotes: xl makes no difference between them.
    Text(Text),
    /// A list.
    List(List),
}

/// A list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    /// With its brackets; of a list that was appended to, the last part.
    pub(super) place: Place,
    /// What stands in it.
    pub(super) items: Vec<Value>,
}

/// A text, which has several pieces if it was appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) pieces: Vec<Piece>,
    /// It was set by `+=`. xl reads no number from such a text.
    pub(super) appended: bool,
}

/// A text as it stands in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// With its quotes.
    pub(super) place: Place,
    /// Without them, and without escapes.
    pub(super) bytes: Vec<u8>,
    pub(super) quoted: bool,
}

impl Value {
    /// Where it stands; of a value that was appended to, the last part.
    pub(super) fn place(&self) -> Option<Place> {
        match self {
            Self::Text(text) => text.place(),
            Self::List(list) => Some(list.place),
        }
    }

    /// What it is, for messages.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
        }
    }

    /// Appends as `+=` does. `false`, with no change: one of them is a list, and the other is not.
    pub(super) fn append(&mut self, more: Self) -> bool {
        match (self, more) {
            (Self::Text(text), Self::Text(more)) => {
                text.pieces.extend(more.pieces);
                text.appended = true;
            }
            (Self::List(list), Self::List(more)) => {
                list.items.extend(more.items);
                list.place = more.place;
            }
            _ => return false,
        }
        true
    }
}

impl Text {
    /// Where its last piece stands.
    pub(super) fn place(&self) -> Option<Place> {
        self.pieces.last().map(|piece| piece.place)
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.pieces[..] {
            [piece] => (&piece.bytes[..]).into(),
            pieces => pieces.iter().flat_map(|piece| &piece.bytes).copied().collect::<Vec<_>>().into(),
        }
    }

    /// The place in the source of some of its bytes.
    pub(super) fn place_of(&self, sources: &[Source], start: usize, end: usize) -> Option<Place> {
        let (mut start, mut length) = (start, end.saturating_sub(start));
        let last = self.pieces.len().saturating_sub(1);
        for (index, piece) in self.pieces.iter().enumerate() {
            let after = start >= piece.bytes.len() && index < last;
            if after {
                start = start.saturating_sub(piece.bytes.len());
                continue;
            }
            length = length.min(piece.bytes.len().saturating_sub(start));
            let source = sources.get(piece.place.source)?;
            let end = start.saturating_add(length);
            return Some(Place {
                start: piece.offset(source, start),
                end: piece.offset(source, end).max(piece.offset(source, start)),
                ..piece.place
            });
        }
        None
    }
}

impl Piece {
    /// Where byte `wanted` of it stands in the source.
    fn offset(&self, source: &Source, wanted: usize) -> usize {
        if !self.quoted {
            return self.place.start.saturating_add(wanted).min(self.place.end);
        }
        let raw = source.get(self.place.start..self.place.end);
        let mut at = 1_usize;
        for _ in 0..wanted.min(self.bytes.len()) {
            let escaped = raw.get(at) == Some(&b'\\')
                && raw.get(at.saturating_add(1)).is_some_and(|byte| escape_of(*byte).is_ok());
            at = at.saturating_add(if escaped { 2 } else { 1 });
        }
        self.place.start.saturating_add(at).min(self.place.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_text_have_their_place_in_the_source() {
        let raw = br#"a = 'x\ty\'z'"#;
        let sources = [Source::new("f".to_owned(), raw.to_vec()), Source::new("g".to_owned(), b"a+=12".to_vec())];
        let first = Piece { place: Place { source: 0, start: 4, end: 13 }, bytes: b"x\ty'z".to_vec(), quoted: true };
        let second = Piece { place: Place { source: 1, start: 3, end: 5 }, bytes: b"12".to_vec(), quoted: false };
        let text = Text { pieces: vec![first, second], appended: true };
        assert_eq!(text.bytes(), &b"x\ty'z12"[..]);
        let place = |start, end| {
            let place = text.place_of(&sources, start, end).expect("a place");
            (place.source, place.start, place.end)
        };
        assert_eq!((place(0, 1), place(1, 2), place(3, 5)), ((0, 5, 6), (0, 6, 8), (0, 9, 12)));
        assert_eq!(
            (place(4, 7), place(5, 6), place(6, 7), place(7, 7)),
            ((0, 11, 12), (1, 3, 4), (1, 4, 5), (1, 5, 5))
        );
    }
}
