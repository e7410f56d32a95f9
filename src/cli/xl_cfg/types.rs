//! The types of values.

use std::fmt;

/// What some numbers are at most: xl keeps them in an `int`.
pub(super) const INT_MAX: i64 = 0x7fff_ffff;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number in these bounds.
    Number(i64, i64),
    /// A number: 0 is no, any other is yes.
    Flag,
    /// One of these words; in old files its place in the list, counted from 0.
    WordOrNumber(&'static [&'static str]),
    /// A flag, or one of these words.
    FlagOrWord(&'static [&'static str]),
    /// A flag, or a list of texts.
    FlagOrTexts,
    /// A list of texts.
    Texts,
    /// A list of texts, or one text.
    TextOrTexts,
    /// A list of lists of texts.
    Lists,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::Word(words) => f.write_str(&either(words)),
            Self::Number(least, i64::MAX) => write!(f, "a whole number from {least} on"),
            Self::Number(least, most) => write!(f, "a whole number from {least} to {most}"),
            Self::Flag => f.write_str("1 or 0"),
            Self::WordOrNumber(words) => f.write_str(&either(words)),
            Self::FlagOrWord(words) => f.write_str(&either(&[&["1", "0"], *words].concat())),
            Self::FlagOrTexts => f.write_str("1, 0 or a list of texts"),
            Self::Texts => f.write_str("a list of texts"),
            Self::TextOrTexts => f.write_str("a list of texts, or one text"),
            Self::Lists => f.write_str("a list of lists of texts"),
        }
    }
}

fn either(words: &[&str]) -> String {
    match words {
        [before @ .., other, last] => [before, &[&format!("{other} or {last}")]].concat().join(", "),
        words => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_in_words() {
        assert_eq!(Type::Word(&["a", "b", "c"]).to_string(), "a, b or c");
        assert_eq!(Type::FlagOrWord(&["igd"]).to_string(), "1, 0 or igd");
    }
}
