//! Hands a request's values to serde, and puts what serde finds wrong into our words.

use std::fmt::{self, Display};

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Number, Value};

use super::messages::{kind_of, unknown_field};
use crate::problem::FieldError;

/// How [`super::not_null`] tells the deserializer what null means to it.
pub const NOT_NULL: &str = "NotNull";

/// What is wrong with one field.
#[derive(Debug)]
pub enum FieldFault {
    /// It is none of the fields that there are.
    Unknown(&'static [&'static str]),
    /// It is required; its name, since it is told of the object that it is missing in.
    Missing(&'static str),
    Wrong(String),
}

impl FieldFault {
    /// Of the field at `path`, dotted where it is inside an object.
    pub fn at(&self, path: &str) -> FieldError {
        let name = path.rsplit('.').next().unwrap_or(path);
        match self {
            FieldFault::Unknown(known) => FieldError::new(path, unknown_field(name, known)),
            FieldFault::Missing(name) => FieldError::new(format!("{path}.{name}"), "is required"),
            FieldFault::Wrong(message) => FieldError::new(path, message),
        }
    }
}

impl Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            FieldFault::Unknown(_) => f.write_str("is no field here"),
            FieldFault::Missing(name) => write!(f, "{name} is required"),
            FieldFault::Wrong(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for FieldFault {}

impl de::Error for FieldFault {
    fn custom<T: Display>(message: T) -> Self {
        let message = message.to_string();
        if message.starts_with("UUID parsing failed") {
            return FieldFault::Wrong("must be a UUID".to_owned());
        }
        FieldFault::Wrong(message)
    }

    fn invalid_type(given: Unexpected, wanted: &dyn Expected) -> Self {
        let wanted = in_our_words(&wanted.to_string());
        FieldFault::Wrong(match given {
            Unexpected::Unit | Unexpected::Option => "is required and cannot be null".to_owned(),
            given => format!("must be {wanted}, not {}", kind_of_unexpected(given)),
        })
    }

    fn invalid_value(_: Unexpected, wanted: &dyn Expected) -> Self {
        FieldFault::Wrong(format!("must be {}", in_our_words(&wanted.to_string())))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        FieldFault::Wrong(format!("must be one of {}", known.join(", ")))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        FieldFault::Unknown(known)
    }

    fn missing_field(name: &'static str) -> Self {
        FieldFault::Missing(name)
    }
}

/// A fraction is not taken for a whole number, even if nothing is behind its point.
fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, FieldFault> {
    match (number.as_i64(), number.as_u64()) {
        (Some(number), _) => visitor.visit_i64(number),
        (None, Some(number)) => visitor.visit_u64(number),
        (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// What serde's and other crates' own types call themselves; ours say it in our words already.
fn in_our_words(wanted: &str) -> String {
    match wanted {
        "a string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a formatted UUID string" => "a UUID as text".to_owned(),
        "a map" => "an object".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}

fn kind_of_unexpected(given: Unexpected) -> &'static str {
    match given {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        _ => "text",
    }
}

/// One value of a request.
#[derive(Debug, Clone, Copy)]
pub struct ValueReader<'a> {
    value: Given<'a>,
    from_text: bool,
}

#[derive(Debug, Clone, Copy)]
enum Given<'a> {
    Fields(&'a Map<String, Value>),
    Value(&'a Value),
}

impl<'a> ValueReader<'a> {
    pub fn of_object(values: &'a Map<String, Value>, from_text: bool) -> Self {
        ValueReader {
            value: Given::Fields(values),
            from_text,
        }
    }

    fn of_value(value: &'a Value, from_text: bool) -> Self {
        match value {
            Value::Object(values) => ValueReader::of_object(values, from_text),
            value => ValueReader {
                value: Given::Value(value),
                from_text,
            },
        }
    }

    fn text(&self) -> Option<&'a str> {
        match self.value {
            Given::Value(Value::String(text)) => Some(text.trim()),
            _ => None,
        }
    }

    /// The text of a form, where another kind of value is asked for.
    fn text_to_read(&self) -> Option<&'a str> {
        self.text().filter(|_| self.from_text)
    }
}

impl<'de> IntoDeserializer<'de, FieldFault> for ValueReader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for ValueReader<'de> {
    type Error = FieldFault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        let from_text = self.from_text;
        match self.value {
            Given::Fields(values) => {
                visitor.visit_map(MapDeserializer::new(values.iter().map(|(name, value)| {
                    (name.as_str(), ValueReader::of_value(value, from_text))
                })))
            }
            Given::Value(Value::Array(values)) => visitor.visit_seq(SeqDeserializer::new(
                values
                    .iter()
                    .map(|value| ValueReader::of_value(value, from_text)),
            )),
            Given::Value(Value::String(text)) => visitor.visit_borrowed_str(text),
            Given::Value(Value::Bool(yes)) => visitor.visit_bool(*yes),
            Given::Value(Value::Number(number)) => visit_number(number, visitor),
            Given::Value(_) => visitor.visit_unit(),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        match self.value {
            Given::Value(Value::Null) => visitor.visit_none(),
            _ if self.text_to_read() == Some("") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        match self.text_to_read() {
            None => self.deserialize_any(visitor),
            Some(text) => match text.parse() {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => Err(FieldFault::Wrong("must be a whole number".to_owned())),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        match self.text_to_read() {
            None => self.deserialize_any(visitor),
            Some(text) => match text.parse() {
                Ok(yes) => visitor.visit_bool(yes),
                Err(_) => Err(FieldFault::Wrong("must be true or false".to_owned())),
            },
        }
    }

    /// Without blanks around it, as every text but a sample's body is taken.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        match self.text() {
            Some(text) => visitor.visit_borrowed_str(text),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldFault> {
        if name == NOT_NULL && matches!(self.value, Given::Value(Value::Null)) {
            let message = "cannot be null; leave it out to keep it as it is";
            return Err(FieldFault::Wrong(message.to_owned()));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldFault> {
        match self.text() {
            Some(text) => {
                let text: de::value::StrDeserializer<FieldFault> = text.into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            None => Err(FieldFault::Wrong(format!(
                "must be one of {}",
                variants.join(", ")
            ))),
        }
    }

    /// By its fields' names alone: serde would also take an array, by position.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldFault> {
        match self.value {
            Given::Value(value) if !value.is_object() => Err(FieldFault::Wrong(format!(
                "must be an object, not {}",
                kind_of(value)
            ))),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}
