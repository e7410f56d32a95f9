//! The fields of libxl's JSON, read once each: what is left at the end has not been read.

use serde_json::{Map, Value};

use crate::error::migration::FileProblem;
use crate::os::Untrusted;

/// The longest value that an error shows.
const LONGEST_SHOWN: usize = 200;

/// The fields of an object.
pub(super) struct Fields {
    /// The object's own name, with those around it and a dot behind it.
    prefix: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// The fields of an object; of none, if there is none.
    pub(super) fn of(prefix: &str, value: Option<Value>) -> Result<Self, FileProblem> {
        let fields = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(fields)) => fields,
            Some(other) => return Err(unknown(prefix.trim_end_matches('.'), &other)),
        };
        Ok(Self { prefix: prefix.to_owned(), fields })
    }

    /// The fields of an object that is one of these.
    pub(super) fn object(&mut self, name: &str) -> Result<Self, FileProblem> {
        let prefix = format!("{}{name}.", self.prefix);
        Self::of(&prefix, self.take(name))
    }

    /// The object's own name.
    pub(super) fn name(&self) -> &str {
        self.prefix.trim_end_matches('.')
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// A field of a type; an error if it has another.
    fn typed<T>(&mut self, name: &str, convert: impl FnOnce(&Value) -> Option<T>) -> Result<Option<T>, FileProblem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        convert(&value).map(Some).ok_or_else(|| self.unknown(name, &value))
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, FileProblem> {
        self.typed(name, |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, FileProblem> {
        self.typed(name, Value::as_u64)
    }

    /// A number that fits.
    pub(super) fn small<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, FileProblem> {
        self.typed(name, |value| T::try_from(value.as_u64()?).ok())
    }

    /// A `libxl_defbool`, or a boolean as JSON or libxl's integers have it.
    pub(super) fn truth(&mut self, name: &str) -> Result<Option<bool>, FileProblem> {
        let default = |value: &Value| value.as_str() == Some("<default>");
        self.fields.retain(|field, value| field != name || !default(value));
        self.typed(name, |value| match value {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) => match text.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            },
            number => number.as_u64().filter(|number| *number <= 1).map(|number| number == 1),
        })
    }

    /// A list.
    pub(super) fn list(&mut self, name: &str) -> Result<Vec<Value>, FileProblem> {
        Ok(self.typed(name, |value| value.as_array().cloned())?.unwrap_or_default())
    }

    /// A list of words.
    pub(super) fn words(&mut self, name: &str) -> Result<Vec<String>, FileProblem> {
        let words = self.typed(name, |value| {
            value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        Ok(words?.unwrap_or_default())
    }

    /// A bitmap, which is a list of numbers.
    pub(super) fn bits(&mut self, name: &str) -> Result<Vec<u32>, FileProblem> {
        let value = self.take(name);
        value.map_or(Ok(Vec::new()), |value| bits(&value).ok_or_else(|| self.unknown(name, &value)))
    }

    /// Fails if one of these is there with another value than those that stand for nothing: false, 0, and what is empty.
    pub(super) fn absent(&mut self, names: &[&str]) -> Result<(), FileProblem> {
        for name in names {
            if let Some(value) = self.take(name).filter(|value| !is_nothing(value)) {
                return Err(self.unknown(name, &value));
            }
        }
        Ok(())
    }

    /// Fails unless the field is missing, or has one of these values.
    pub(super) fn one_of(&mut self, name: &str, values: &[&str]) -> Result<(), FileProblem> {
        match self.take(name) {
            Some(value) if !value.as_str().is_some_and(|text| values.contains(&text)) => {
                Err(self.unknown(name, &value))
            }
            _ => Ok(()),
        }
    }

    /// Passes over fields that mean nothing for a guest whose state is there.
    pub(super) fn pass(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(*name);
        }
    }

    /// Fails if a field has not been read.
    pub(super) fn end(self) -> Result<(), FileProblem> {
        match self.fields.iter().find(|(_, value)| !is_nothing(value)) {
            Some((name, value)) => Err(self.unknown(name, value)),
            None => Ok(()),
        }
    }

    pub(super) fn unknown(&self, name: &str, value: &Value) -> FileProblem {
        unknown(&format!("{}{name}", self.prefix), value)
    }

    pub(super) fn missing(&self, name: &str) -> FileProblem {
        FileProblem::Missing(format!("{}{name}", self.prefix))
    }
}

fn unknown(name: &str, value: &Value) -> FileProblem {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = Untrusted::from(text).shortened(LONGEST_SHOWN).to_string();
    FileProblem::Unknown { name: Untrusted::from(name).shortened(LONGEST_SHOWN).to_string(), value: text.into() }
}

/// Whether a value asks for nothing, as libxl's defaults do.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty() || text == "False" || text == "<default>",
        Value::Array(list) => list.iter().all(is_nothing),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

/// The numbers of a bitmap.
pub(super) fn bits(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|bit| u32::try_from(bit.as_u64()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of("b_info.", Some(value)).expect("an object")
    }

    #[test]
    fn what_nobody_has_read_is_named() {
        let mut all =
            fields(json!({ "a": 1, "b": "True", "c": { "d": [1, 2] }, "e": "<default>", "f": {}, "g": null }));
        assert_eq!((all.number("a"), all.truth("b"), all.truth("e")), (Ok(Some(1)), Ok(Some(true)), Ok(None)));
        let mut inner = all.object("c").expect("an object");
        let refused = FileProblem::Unknown { name: "b_info.c.d".to_owned(), value: "[1,2]".into() };
        assert_eq!(inner.words("d"), Err(refused.clone()));
        assert_eq!(
            fields(json!({ "c": { "d": [1] } })).end().expect_err("unread").to_string(),
            "its configuration has b_info.c = \"{\"d\":[1]}\", which dombuild cannot give the guest"
        );
        assert_eq!(all.end(), Ok(()), "the rest asks for nothing");
    }

    #[test]
    fn values_of_nothing_and_others() {
        let mut all = fields(json!({ "a": 0, "b": [], "c": "False", "d": "x", "e": "std", "f": [0, 3] }));
        assert_eq!(all.absent(&["a", "b", "c", "none"]), Ok(()));
        assert!(all.absent(&["d"]).is_err());
        assert_eq!(all.one_of("e", &["std"]), Ok(()));
        assert_eq!(all.bits("f"), Ok(vec![0, 3]));
        assert!(fields(json!({ "e": "qxl" })).one_of("e", &["std"]).is_err());
        assert!(fields(json!({ "a": -1 })).small::<u32>("a").is_err());
        assert!(Fields::of("x.", Some(json!([]))).is_err());
    }
}
