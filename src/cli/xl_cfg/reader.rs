//! Reads values by their types. Where xl prints a warning and goes on as if the key were not there, this is an error.

use std::collections::BTreeMap;

use super::diagnostic::Diagnostics;
use super::document::Setting;
use super::number::{self, BadNumber};
use super::source::{Place, SECRET, Source};
use super::types::Type;
use super::value::{Text, Value};

/// Reads values, and collects what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) sources: &'a [Source],
    pub(super) diagnostics: Diagnostics,
}

/// A value of the right type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read<'a> {
    Text(String),
    Number(i64),
    Flag(bool),
    /// Each with what it stands for in the source.
    Texts(Vec<(String, &'a Text)>),
    /// A list of lists.
    Lists(Vec<Vec<(String, &'a Text)>>),
}

/// The values by their keys.
pub(super) type Values<'a> = BTreeMap<&'a str, Read<'a>>;

impl Read<'_> {
    /// A flag's value.
    pub(super) const fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    pub(super) const fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Reader<'_> {
    /// The value of a setting, if it has this type.
    pub(super) fn read<'s>(&mut self, setting: &'s Setting, takes: Type) -> Option<Read<'s>> {
        match (takes, &setting.value) {
            (Type::Text | Type::TextOrTexts, Value::Text(text)) => self.string(&setting.key, text).map(Read::Text),
            (Type::Word(words), Value::Text(text)) => {
                let word = self.string(&setting.key, text)?;
                if !words.contains(&word.as_str()) {
                    self.wrong(setting, takes);
                    return None;
                }
                Some(Read::Text(word))
            }
            (Type::Number(least, most), Value::Text(text)) => {
                self.number(&setting.key, text, takes, least, most).map(Read::Number)
            }
            (Type::Flag, Value::Text(text)) => self.flag(&setting.key, text, takes),
            (Type::FlagOrTexts, Value::Text(text)) => self.flag(&setting.key, text, takes),
            (Type::FlagOrWord(words), Value::Text(text)) => {
                match words.iter().find(|word| *text.bytes() == *word.as_bytes()) {
                    Some(word) => Some(Read::Text((*word).to_owned())),
                    None => self.flag(&setting.key, text, takes),
                }
            }
            (Type::WordOrNumber(words), Value::Text(text)) => self.word_or_number(setting, text, words, takes),
            (Type::Texts | Type::TextOrTexts | Type::FlagOrTexts, Value::List(list)) => {
                let items = list.items.iter().map(|item| self.item(&setting.key, item)).collect::<Vec<_>>();
                items.into_iter().collect::<Option<_>>().map(Read::Texts)
            }
            (Type::Lists, Value::List(list)) => {
                let mut lists = Vec::new();
                for item in &list.items {
                    let Value::List(inner) = item else {
                        self.diagnostics.error(item.place(), format!("{} takes {takes}; this is a text", setting.key));
                        return None;
                    };
                    let texts = inner.items.iter().map(|text| self.item(&setting.key, text));
                    lists.push(texts.collect::<Option<Vec<_>>>()?);
                }
                Some(Read::Lists(lists))
            }
            (_, value) => {
                let brackets = if takes == Type::Texts { ": put it into [ ]" } else { "" };
                let message = format!("{} takes {takes}; this is {}{brackets}", setting.key, value.what());
                self.diagnostics.error(value.place(), message);
                None
            }
        }
    }

    /// The value is not one of those that the key takes.
    pub(super) fn wrong(&mut self, setting: &Setting, takes: Type) {
        let shown = setting.text().map(|text| String::from_utf8_lossy(&text.bytes()).into_owned()).unwrap_or_default();
        let message = if setting.key.contains(SECRET) {
            format!("{} takes {takes}", setting.key)
        } else {
            format!("{} is {shown:?}; it takes {takes}", setting.key)
        };
        self.diagnostics.error(setting.value.place(), message);
    }

    fn item<'s>(&mut self, key: &str, item: &'s Value) -> Option<(String, &'s Text)> {
        match item {
            Value::Text(text) => Some((self.string(key, text)?, text)),
            Value::List(list) => {
                self.diagnostics.error(list.place, format!("{key} has a list in its list; it takes texts there"));
                None
            }
        }
    }

    /// A text in UTF-8.
    fn string(&mut self, key: &str, text: &Text) -> Option<String> {
        match String::from_utf8(text.bytes().into_owned()) {
            Ok(string) => Some(string),
            Err(error) => {
                let start = error.utf8_error().valid_up_to();
                let place = text.place_of(self.sources, start, start.saturating_add(1));
                self.diagnostics.error(place, format!("{key} is not UTF-8 here: save the file as UTF-8"));
                None
            }
        }
    }

    fn flag<'s>(&mut self, key: &str, text: &Text, takes: Type) -> Option<Read<'s>> {
        let number = self.number(key, text, takes, i64::MIN, i64::MAX)?;
        if number != 0 && number != 1 {
            self.diagnostics.warn(text.place(), format!("{key} is {number}, which counts as 1"));
        }
        Some(Read::Flag(number != 0))
    }

    fn word_or_number<'s>(&mut self, setting: &Setting, text: &Text, words: &[&str], takes: Type) -> Option<Read<'s>> {
        let bytes = text.bytes();
        if let Some(word) = words.iter().find(|word| *bytes == *word.as_bytes()) {
            return Some(Read::Text((*word).to_owned()));
        }
        if number::parse(&bytes).is_err() {
            self.wrong(setting, takes);
            return None;
        }
        let most = i64::try_from(words.len()).unwrap_or(i64::MAX).saturating_sub(1);
        let number = self.number(&setting.key, text, Type::Number(0, most), 0, most)?;
        let word = usize::try_from(number).ok().and_then(|number| words.get(number))?;
        self.diagnostics.warn(text.place(), format!("{} = {number} is an old form: write \"{word}\"", setting.key));
        Some(Read::Text((*word).to_owned()))
    }

    fn number(&mut self, key: &str, text: &Text, takes: Type, least: i64, most: i64) -> Option<i64> {
        let bytes = text.bytes();
        let shown = String::from_utf8_lossy(&bytes);
        let mut refuse = |message: String| self.diagnostics.error(text.place(), message);
        if text.appended {
            refuse(format!("{key} is a number, and xl reads none that was set by +=: use ="));
            return None;
        }
        let number = match number::parse(&bytes) {
            Ok(number) => number,
            Err(BadNumber::NotOne) => {
                refuse(format!("{key} is {shown:?}; it takes {takes}"));
                return None;
            }
            Err(BadNumber::NotOctal) => {
                refuse(format!("{key} is {shown:?}: a number that begins with 0 is octal; leave the 0 out"));
                return None;
            }
            Err(BadNumber::TooLarge) => {
                refuse(format!("{key} is {shown}, which no number of 64 bits is; it takes {takes}"));
                return None;
            }
        };
        if !(least..=most).contains(&number.value) {
            refuse(format!("{key} is {}; it takes {takes}", number.value));
            return None;
        }
        if number.octal {
            let message = format!("{key} = {shown} is octal, because it begins with 0: it counts as {}", number.value);
            self.diagnostics.warn(text.place(), message);
        }
        Some(number.value)
    }

    /// An error in some bytes of a text. What is missing at the end of the text is shown at its last character.
    pub(super) fn error_in(&mut self, text: &Text, span: std::ops::Range<usize>, message: String) {
        let bytes = text.bytes();
        let last = String::from_utf8_lossy(&bytes).chars().next_back().map_or(0, char::len_utf8);
        let start = if span.start >= bytes.len() { bytes.len().saturating_sub(last) } else { span.start };
        let place: Option<Place> = text.place_of(self.sources, start, span.end.max(start));
        self.diagnostics.error(place, message);
    }
}
