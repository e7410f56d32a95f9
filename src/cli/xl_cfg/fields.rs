//! libxl's configuration of a guest as it is put together: `libxl_domain_config` as JSON (libxl_types.idl, Xen 4.17 and 4.20), as
//! far as xl's parser fills it. `xl create -n` prints it. What has its initial value is left out, but the parts that have fields
//! of their own are there, also empty ones.

use serde_json::{Map, Value};

use super::reader::{Read, Values};
use super::xl_conf::XlConf;
use crate::memory::Kind;

/// What becomes of the value of a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    /// It has no field: xl ignores the key, refuses it, or looks at it itself.
    Nowhere,
    /// The value is the field at this path, between dots. A number of 0 and an empty list are the field's initial value.
    At(&'static str),
    /// A number, of which 0 is not the initial value.
    Number(&'static str),
    /// A number of MiB, which the field has in KiB.
    Kib(&'static str),
    /// A word, by libxl's name where that is another one; an empty name is the initial value.
    Word(&'static str, &'static [(&'static str, &'static str)]),
    /// It makes several fields, or part of one.
    Parts(fn(&mut Configuration<'_>, &Read<'_>)),
}

/// A `libxl_defbool`.
pub(super) fn truth(value: bool) -> Value {
    (if value { "True" } else { "False" }).into()
}

/// The configuration, and what it is made from.
pub(super) struct Configuration<'a> {
    json: Value,
    pub(super) kind: Kind,
    pub(super) values: &'a Values<'a>,
    pub(super) xl_conf: &'a XlConf,
    notes: Vec<(&'static str, String)>,
}

impl<'a> Configuration<'a> {
    /// An empty one.
    pub(super) fn new(kind: Kind, values: &'a Values<'a>, xl_conf: &'a XlConf) -> Self {
        Self { json: Value::Object(Map::new()), kind, values, xl_conf, notes: Vec::new() }
    }

    /// Sets the field at a path. A field of another kind of guest is not there.
    pub(super) fn put(&mut self, path: &str, value: impl Into<Value>) {
        if let Some(place) = self.place(path) {
            *place = value.into();
        }
    }

    /// Sets the field at a path where it has no value.
    pub(super) fn put_default(&mut self, path: &str, value: impl Into<Value>) {
        if let Some(place) = self.place(path).filter(|place| place.is_null()) {
            *place = value.into();
        }
    }

    pub(super) fn put_some(&mut self, path: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(path, value);
        }
    }

    /// The place of a field, which is null if it has no value. `type` is a part of its own name: `type.hvm`.
    fn place(&mut self, path: &str) -> Option<&mut Value> {
        let own = format!("type.{}", self.kind);
        let mut place = &mut self.json;
        let mut names = path.split('.');
        while let Some(name) = names.next() {
            let name = match name {
                "type" => match names.next() {
                    // c_info.type.
                    None => "type",
                    Some(kind) if kind == self.kind.name() => &own,
                    Some(_) => return None,
                },
                name => name,
            };
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
            place = place.as_object_mut()?.entry(name).or_insert(Value::Null);
        }
        Some(place)
    }

    /// Puts the value of a key where it belongs.
    pub(super) fn add(&mut self, field: Field, value: &Read<'_>) {
        match (field, value) {
            (Field::Parts(parts), value) => parts(self, value),
            (Field::At(path), Read::Number(number)) => self.put_some(path, Some(*number).filter(|number| *number != 0)),
            (Field::Number(path), Read::Number(number)) => self.put(path, *number),
            (Field::Kib(path), Read::Number(mib)) => self.put(path, mib.saturating_mul(1024)),
            (Field::At(path), Read::Flag(flag)) => self.put(path, truth(*flag)),
            (Field::At(path), Read::Text(text)) => self.put(path, text.as_str()),
            (Field::At(path), Read::Texts(texts)) if !texts.is_empty() => self.put(path, strings(texts)),
            (Field::Word(path, names), Read::Text(word)) => {
                let name = names.iter().find(|(known, _)| known == word).map_or(word.as_str(), |(_, name)| name);
                self.put_some(path, Some(name).filter(|name| !name.is_empty()));
            }
            _ => {}
        }
    }

    /// The text that a key has.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.values.get(key).and_then(Read::text)
    }

    /// The texts of a list.
    pub(super) fn texts(&self, key: &str) -> Vec<&'a str> {
        match self.values.get(key) {
            Some(Read::Texts(items)) => items.iter().map(|(text, _)| text.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// The number that a key has.
    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.values.get(key).and_then(Read::number)
    }

    /// Says something of a key.
    pub(super) fn note(&mut self, key: &'static str, message: String) {
        self.notes.push((key, message));
    }

    /// The whole, and what was said of keys.
    pub(super) fn finish(self) -> (Value, Vec<(&'static str, String)>) {
        (without_nulls(self.json), self.notes)
    }
}

/// The texts of a list, without their places.
pub(super) fn strings(texts: &[(String, &super::value::Text)]) -> Value {
    texts.iter().map(|(text, _)| text.as_str()).collect()
}

/// Places that were looked at and got no value.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}
