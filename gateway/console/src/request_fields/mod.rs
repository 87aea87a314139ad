//! What a request says, read into the struct that also describes it: one struct for each body.
//!
//! A body forgives nothing: an unknown field is refused with the nearest known name, since a misspelt
//! `payout_cap_cents` that is silently ignored is found out when it hurts. All faults are told at once.

mod deserializer;
mod messages;
mod values;

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Deserialize, DeserializeOwned, Visitor};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use utoipa::PartialSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::problem::{FieldError, Problem};
use deserializer::{FieldFault, NOT_NULL, ValueReader};
pub use messages::kind_of;
use messages::unknown_field;
pub use values::{BoundedText, Cents, MAX_CENTS, Name, Time, Whole};

/// Unknown fields that are told one by one; each answer is many times its field's bytes.
const MAX_UNKNOWN: usize = 10;

/// A request's fields: JSON, or the text of a form or a query string.
#[derive(Debug, Default)]
pub struct RequestFields {
    values: Map<String, Value>,
    /// Numbers and the like are read out of text, and a blank text is as good as null.
    from_text: bool,
    /// What was wrong before any field was read.
    faults: Vec<FieldError>,
    /// Fields that somebody else reads.
    beside: &'static [&'static str],
}

/// Why fields are not as they must be.
#[derive(Debug, Default)]
pub struct BadFields {
    pub faults: Vec<FieldError>,
    /// How many of the faults, at their end, are of unknown fields.
    unknown: usize,
    /// The fields that there are; empty unless there was an unknown one.
    known: Vec<&'static str>,
}

impl BadFields {
    /// The faults of both.
    pub fn and(mut self, other: BadFields) -> BadFields {
        self.faults.extend(other.faults);
        self.known.extend(other.known);
        self
    }
}

impl From<BadFields> for Problem {
    fn from(bad: BadFields) -> Self {
        Problem::invalid_fields(bad.faults, bad.known)
    }
}

impl RequestFields {
    /// A JSON object; an empty body counts as `{}`.
    pub fn of_body(body: &[u8]) -> Result<Self, Problem> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(RequestFields::default());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(values)) => Ok(RequestFields::of_object(values)),
            Ok(other) => Err(Problem::malformed(format!(
                "the body must be a JSON object, not {}",
                kind_of(&other)
            ))),
            Err(e) => Err(Problem::malformed(format!("the body is not JSON: {e}"))),
        }
    }

    pub fn of_object(values: Map<String, Value>) -> Self {
        RequestFields {
            values,
            ..RequestFields::default()
        }
    }

    /// Fields of a form, by the names that they have in a body; dotted where they are inside an object.
    pub fn of_texts<N: AsRef<str>, V: Into<String>>(
        texts: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut fields = RequestFields {
            from_text: true,
            ..RequestFields::default()
        };
        for (name, text) in texts {
            fields.insert_text(name.as_ref(), text.into());
        }
        fields
    }

    /// The parameters of a query string. One that is given twice is a fault; a blank one is absent.
    pub fn of_query(query: Option<&str>) -> Self {
        let mut fields = RequestFields {
            from_text: true,
            ..RequestFields::default()
        };
        for (name, text) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let text = Value::from(text.into_owned());
            if fields.values.insert(name.to_string(), text).is_some() {
                fields.faults.push(FieldError::new(name, "is given twice"));
            }
        }
        fields
    }

    /// Takes these fields away, to be read for themselves.
    pub fn split_off(&mut self, names: &'static [&'static str]) -> Self {
        self.beside = names;
        let values = names
            .iter()
            .filter_map(|name| self.values.remove_entry(*name))
            .collect();
        RequestFields {
            values,
            from_text: self.from_text,
            ..RequestFields::default()
        }
    }

    fn insert_text(&mut self, name: &str, text: String) {
        let Some((object, name)) = name.split_once('.') else {
            self.values.insert(name.to_owned(), Value::from(text));
            return;
        };
        let inside = self
            .values
            .entry(object)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(inside) = inside {
            inside.insert(name.to_owned(), Value::from(text));
        }
    }

    /// Reads all fields, or says of each that is wrong what it must be.
    pub fn read<T: DeserializeOwned + PartialSchema>(self) -> Result<T, BadFields> {
        let given: Vec<String> = self.values.keys().cloned().collect();
        self.read_params().map_err(|mut bad: BadFields| {
            let unknown = bad.faults.split_off(bad.faults.len() - bad.unknown);
            let mut missing = missing_fields::<T>(&given);
            missing.retain(|fault| !bad.faults.contains(fault));
            bad.faults.extend(missing);
            bad.faults.extend(unknown);
            bad
        })
    }

    /// As [`RequestFields::read`], where no field is required.
    pub fn read_params<T: DeserializeOwned>(mut self) -> Result<T, BadFields> {
        let mut bad = BadFields {
            faults: std::mem::take(&mut self.faults),
            ..BadFields::default()
        };
        let given = self.values.len();
        let mut unknown: Vec<FieldError> = Vec::new();
        // Each round takes the field away that was wrong, so that the next one finds the next fault.
        loop {
            let reader = ValueReader::of_object(&self.values, self.from_text);
            let (path, fault) = match serde_path_to_error::deserialize(reader) {
                Ok(value) if bad.faults.is_empty() && unknown.is_empty() => return Ok(value),
                Ok(_) => break,
                Err(e) => (e.path().clone(), e.into_inner()),
            };
            match (path.iter().next(), fault) {
                (Some(Segment::Map { key }), FieldFault::Unknown(known))
                    if !known.contains(&key.as_str()) && path.iter().len() == 1 =>
                {
                    bad.known = [known, self.beside].concat();
                    unknown = self.take_unknown(&bad.known);
                }
                (Some(Segment::Map { key }), fault) => {
                    bad.faults.push(fault.at(&path.to_string()));
                    self.values.remove(key);
                }
                // What is missing is found last, and one field at a time: the description knows all of them.
                (_, FieldFault::Missing(name)) => {
                    if self.values.len() == given {
                        bad.faults.push(FieldError::new(name, "is required"));
                    }
                    break;
                }
                (_, fault) => {
                    bad.faults.push(fault.at(""));
                    break;
                }
            }
        }
        bad.unknown = unknown.len();
        bad.faults.extend(unknown);
        Err(bad)
    }

    /// Takes away what is no field here, and says so of the first few.
    fn take_unknown(&mut self, known: &[&'static str]) -> Vec<FieldError> {
        let names: Vec<String> = self
            .values
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .cloned()
            .collect();
        self.values.retain(|name, _| known.contains(&name.as_str()));
        let mut faults: Vec<FieldError> = names
            .iter()
            .take(MAX_UNKNOWN)
            .map(|name| FieldError::new(name, unknown_field(name, known)))
            .collect();
        if let Some(next) = names.get(MAX_UNKNOWN) {
            let more = names.len() - MAX_UNKNOWN;
            let message = format!("and {more} fields from here on are none here");
            faults.push(FieldError::new(next, message));
        }
        faults
    }
}

/// The fields that the struct's description requires and that were not given.
fn missing_fields<T: PartialSchema>(given: &[String]) -> Vec<FieldError> {
    let RefOr::T(Schema::Object(object)) = T::schema() else {
        return Vec::new();
    };
    object
        .required
        .iter()
        .filter(|name| !given.contains(name))
        .map(|name| FieldError::new(name, "is required"))
        .collect()
}

/// A field that may be left out, but is never empty; a form's blank field is wrong as what it is.
pub fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    struct ReadGiven<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for ReadGiven<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a value")
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(
            self,
            deserializer: D,
        ) -> Result<Option<T>, D::Error> {
            T::deserialize(deserializer).map(Some)
        }
    }
    deserializer.deserialize_newtype_struct(NOT_NULL, ReadGiven(PhantomData))
}

/// A field that is left as it is where it is absent, and emptied by null.
pub fn clearable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
