//! How a value of the wrong kind and a field that there is not are spoken of.

use serde_json::Value;

/// Names of at most this many letters' difference are offered as "did you mean".
const NEAREST_WITHIN: usize = 4;
/// Letters of an unknown name that are compared with the known ones.
const COMPARED_LETTERS: usize = 64;

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

/// What is said of a field that there is not.
pub fn unknown_field(name: &str, known: &[&'static str]) -> String {
    match nearest_name(name, known) {
        Some(near) => format!("is no field here; did you mean {near}?"),
        None => format!("is no field here; known are {}", known.join(", ")),
    }
}

fn nearest_name(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let lowered: String = name
        .chars()
        .take(COMPARED_LETTERS)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    known
        .iter()
        .map(|known| (strsim::levenshtein(&lowered, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= NEAREST_WITHIN.min(known.len() / 2))
        .map(|(_, known)| known)
}
