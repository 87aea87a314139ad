//! Reads a request's fields one by one and says of each fault which field it is and what it must be.
//!
//! It forgives nothing: an unknown field is refused with the nearest known name, since a misspelt
//! `payout_cap_cents` that is silently ignored is found out when it hurts. All faults are told at once.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::problem::{FieldError, Problem};

/// Names of at most this many letters' difference are offered as "did you mean".
const NEAREST_WITHIN: usize = 4;
/// Unknown fields that are told one by one; each answer is many times its field's bytes.
const MAX_UNKNOWN: usize = 10;

/// What a request says of one field. A value that is wrong is noted as a fault and counts as absent.
#[derive(Debug, Clone, PartialEq)]
pub enum MaybeField<T> {
    Absent,
    Null,
    Is(T),
}

impl<T> MaybeField<T> {
    /// The value; null is as good as absent.
    pub fn value(self) -> Option<T> {
        match self {
            MaybeField::Is(value) => Some(value),
            MaybeField::Absent | MaybeField::Null => None,
        }
    }

    /// For settings that may be cleared: absent leaves `slot` as it is, null empties it.
    pub fn set(self, slot: &mut Option<T>) {
        match self {
            MaybeField::Absent => {}
            MaybeField::Null => *slot = None,
            MaybeField::Is(value) => *slot = Some(value),
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> MaybeField<U> {
        match self {
            MaybeField::Absent => MaybeField::Absent,
            MaybeField::Null => MaybeField::Null,
            MaybeField::Is(value) => MaybeField::Is(f(value)),
        }
    }
}

#[derive(Debug)]
pub struct FieldReader {
    values: Map<String, Value>,
    /// The names that were asked for, whether given or not.
    known: Vec<&'static str>,
    faults: Vec<FieldError>,
    /// `payout.` for the fields inside of `payout`.
    prefix: String,
    /// Values are text of a query string, and numbers are read out of it.
    from_text: bool,
}

impl FieldReader {
    fn new(values: Map<String, Value>, prefix: String, from_text: bool) -> Self {
        FieldReader {
            values,
            known: Vec::new(),
            faults: Vec::new(),
            prefix,
            from_text,
        }
    }

    /// A JSON object; an empty body counts as `{}`.
    pub fn of_body(body: &[u8]) -> Result<Self, Problem> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(FieldReader::new(Map::new(), String::new(), false));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(values)) => Ok(FieldReader::new(values, String::new(), false)),
            Ok(other) => Err(Problem::malformed(format!(
                "the body must be a JSON object, not {}",
                kind_of(&other)
            ))),
            Err(e) => Err(Problem::malformed(format!("the body is not JSON: {e}"))),
        }
    }

    pub fn of_object(values: Map<String, Value>) -> Self {
        FieldReader::new(values, String::new(), false)
    }

    /// The parameters of a query string. One that is given twice is a fault; a blank one is absent.
    pub fn of_query(query: Option<&str>) -> Self {
        let mut fields = FieldReader::new(Map::new(), String::new(), true);
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if fields
                .values
                .insert(name.clone().into_owned(), Value::String(value.into_owned()))
                .is_some()
            {
                fields.add_fault(&name, "is given twice");
            }
        }
        fields
    }

    pub fn add_fault(&mut self, field: &str, message: impl Into<String>) {
        let field = format!("{}{field}", self.prefix);
        self.faults.push(FieldError {
            field,
            message: message.into(),
        });
    }

    fn take_field(&mut self, name: &'static str) -> MaybeField<Value> {
        self.known.push(name);
        match self.values.remove(name) {
            None => MaybeField::Absent,
            Some(Value::Null) => MaybeField::Null,
            Some(Value::String(text)) if self.from_text && text.trim().is_empty() => {
                MaybeField::Absent
            }
            Some(value) => MaybeField::Is(value),
        }
    }

    /// Takes a field and reads it; `read` says what is wrong with it.
    pub fn read_with<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> MaybeField<T> {
        match self.take_field(name) {
            MaybeField::Absent => MaybeField::Absent,
            MaybeField::Null => MaybeField::Null,
            MaybeField::Is(value) => match read(value) {
                Ok(value) => MaybeField::Is(value),
                Err(message) => {
                    self.add_fault(name, message);
                    MaybeField::Absent
                }
            },
        }
    }

    /// A field that must be given, and not as null.
    pub fn require_given<T: Default>(&mut self, name: &'static str, given: MaybeField<T>) -> T {
        let already_faulty = self.has_fault(name);
        match given {
            MaybeField::Is(value) => value,
            MaybeField::Null => {
                self.add_fault(name, "is required and cannot be null");
                T::default()
            }
            MaybeField::Absent => {
                if !already_faulty {
                    self.add_fault(name, "is required");
                }
                T::default()
            }
        }
    }

    /// A field that may be left out, but is never empty.
    pub fn not_null<T>(&mut self, name: &'static str, given: MaybeField<T>) -> Option<T> {
        if matches!(given, MaybeField::Null) {
            self.add_fault(name, "cannot be null; leave it out to keep it as it is");
        }
        given.value()
    }

    /// Text of at most `max` characters, without blanks around it.
    pub fn text(&mut self, name: &'static str, max: usize) -> MaybeField<String> {
        self.read_with(name, |value| {
            let Value::String(text) = value else {
                return Err(wrong_type("text", &value));
            };
            let text = text.trim();
            if text.chars().count() > max {
                return Err(format!("is too long; at most {max} characters"));
            }
            if text.contains('\0') {
                return Err("holds a NUL character".to_owned());
            }
            Ok(text.to_owned())
        })
    }

    /// As [`FieldReader::text`], and it must not be blank.
    pub fn name(&mut self, name: &'static str, max: usize) -> MaybeField<String> {
        match self.text(name, max) {
            MaybeField::Is(text) if text.is_empty() => {
                self.add_fault(name, "must not be blank");
                MaybeField::Absent
            }
            given => given,
        }
    }

    pub fn read_integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<i64>,
    ) -> MaybeField<i64> {
        let from_text = self.from_text;
        self.read_with(name, |value| {
            let number = match &value {
                Value::Number(number) if number.is_i64() || number.is_u64() => number.as_i64(),
                Value::String(text) if from_text => Some(
                    text.trim()
                        .parse()
                        .map_err(|_| "must be a whole number".to_owned())?,
                ),
                other => return Err(wrong_type("a whole number", other)),
            };
            number
                .filter(|n| range.contains(n))
                .ok_or_else(|| format!("must be from {} to {}", range.start(), range.end()))
        })
    }

    pub fn read_boolean(&mut self, name: &'static str) -> MaybeField<bool> {
        let from_text = self.from_text;
        self.read_with(name, |value| match &value {
            Value::Bool(b) => Ok(*b),
            Value::String(text) if from_text => text
                .trim()
                .parse()
                .map_err(|_| "must be true or false".to_owned()),
            other => Err(wrong_type("true or false", other)),
        })
    }

    pub fn read_uuid(&mut self, name: &'static str) -> MaybeField<Uuid> {
        self.read_with(name, |value| match &value {
            Value::String(text) => {
                Uuid::try_parse(text.trim()).map_err(|_| "must be a UUID".to_owned())
            }
            other => Err(wrong_type("a UUID as text", other)),
        })
    }

    /// RFC 3339; cut to microseconds, which is what Postgres keeps.
    pub fn read_time(&mut self, name: &'static str) -> MaybeField<Timestamp> {
        self.read_with(name, |value| match &value {
            Value::String(text) => read_time(text.trim()),
            other => Err(wrong_type("a time as text", other)),
        })
    }

    pub fn read_choice(
        &mut self,
        name: &'static str,
        of: &[&'static str],
    ) -> MaybeField<&'static str> {
        self.read_with(name, |value| {
            let Value::String(text) = &value else {
                return Err(wrong_type("text", &value));
            };
            of.iter()
                .find(|c| **c == text.trim())
                .copied()
                .ok_or_else(|| format!("must be one of {}", of.join(", ")))
        })
    }

    /// The fields of an object inside; give it back to [`FieldReader::absorb_faults`] when read.
    pub fn read_object(&mut self, name: &'static str) -> MaybeField<FieldReader> {
        let prefix = format!("{}{name}.", self.prefix);
        let given = self.read_with(name, |value| match value {
            Value::Object(values) => Ok(values),
            other => Err(wrong_type("an object", &other)),
        });
        given.map(|values| FieldReader::new(values, prefix, false))
    }

    pub fn absorb_faults(&mut self, inner: FieldReader) {
        let (faults, _) = inner.into_faults();
        self.faults.extend(faults);
    }

    pub fn has_fault(&self, name: &str) -> bool {
        self.faults
            .iter()
            .any(|f| f.field.strip_prefix(&self.prefix) == Some(name))
    }

    /// All faults, those of unknown fields last, the first few of them; and the known names, if there were
    /// unknown ones.
    pub fn into_faults(mut self) -> (Vec<FieldError>, Vec<&'static str>) {
        let unknown: Vec<String> = std::mem::take(&mut self.values)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for name in unknown.iter().take(MAX_UNKNOWN) {
            let message = match nearest_name(name, &self.known) {
                Some(known) => format!("is no field here; did you mean {known}?"),
                None => format!("is no field here; known are {}", self.known.join(", ")),
            };
            self.add_fault(name, message);
        }
        if unknown.len() > MAX_UNKNOWN {
            let more = unknown.len() - MAX_UNKNOWN;
            self.add_fault(
                &unknown[MAX_UNKNOWN],
                format!("and {more} fields from here on are none here"),
            );
        }
        let known = if unknown.is_empty() {
            Vec::new()
        } else {
            self.known
        };
        (self.faults, known)
    }

    /// Ends the reading: an error if anything was wrong.
    pub fn finish_reading(self) -> Result<(), Problem> {
        let (faults, known) = self.into_faults();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid_fields(faults, known))
        }
    }
}

fn read_time(text: &str) -> Result<Timestamp, String> {
    let time: Timestamp = text.parse().map_err(|_| {
        "must be a time with its offset (RFC 3339), such as 2026-03-14T12:02:10Z".to_owned()
    })?;
    // Further away it is a mistake of units, and Postgres could not keep it.
    if !(0..=253_402_300_799).contains(&time.as_second()) {
        return Err("must be a time between 1970 and 9999".to_owned());
    }
    Ok(trueup_event::ids::to_microseconds(time))
}

fn wrong_type(wanted: &str, got: &Value) -> String {
    format!("must be {wanted}, not {}", kind_of(got))
}

/// What a JSON value is, in words.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_i64() || n.is_u64() => "a whole number",
        Value::Number(_) => "a number with a fraction",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn nearest_name(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let lowered = name.to_ascii_lowercase();
    known
        .iter()
        .map(|known| (edit_distance(&lowered, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= NEAREST_WITHIN.min(known.len() / 2))
        .map(|(_, known)| known)
}

/// How many letters differ (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> (String, Vec<FieldError>) {
        let mut fields = FieldReader::of_body(body.as_bytes()).expect("an object");
        let given = fields.name("name", 5);
        let name = fields.require_given("name", given);
        let _ = fields.read_integer("payout_cap_cents", 1..=10);
        (name, fields.into_faults().0)
    }

    #[test]
    fn all_faults_are_told_at_once_each_with_its_field() {
        assert_eq!(read(r#"{"name":" Ann "}"#), ("Ann".to_owned(), vec![]));
        let (_, faults) =
            read(r#"{"name":7,"payout_cap_cents":1.5,"payout_cap_cnets":1,"zebra":0}"#);
        let told: Vec<_> = faults
            .iter()
            .map(|f| (f.field.as_str(), f.message.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("name", "must be text, not a whole number"),
                (
                    "payout_cap_cents",
                    "must be a whole number, not a number with a fraction"
                ),
                (
                    "payout_cap_cnets",
                    "is no field here; did you mean payout_cap_cents?"
                ),
                (
                    "zebra",
                    "is no field here; known are name, payout_cap_cents"
                ),
            ]
        );
        assert_eq!(read("{}").1[0].message, "is required");
        assert_eq!(read(r#"{"name":"  "}"#).1[0].message, "must not be blank");
        assert_eq!(read(r#"{"name":"abcdef"}"#).1.len(), 1);
        assert_eq!(
            read(r#"{"name":"a","payout_cap_cents":11}"#).1[0].message,
            "must be from 1 to 10"
        );
    }
}
