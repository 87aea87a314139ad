//! The kinds of value that a body has, each with its bounds, which its description states.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A name of anything (characters).
pub const MAX_NAME: usize = 200;
/// Just under 10^12 cents; an amount at or above it is a mistake (X7).
pub const MAX_CENTS: i64 = 999_999_999_999;

/// A whole number from `MIN` to `MAX`, both of them included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Whole<const MIN: i64, const MAX: i64>(i64);

/// An amount that may be zero.
pub type Cents = Whole<0, MAX_CENTS>;

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    pub fn new(number: i64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&number) {
            Ok(Whole(number))
        } else {
            Err(Self::out_of_range())
        }
    }

    pub fn get(self) -> i64 {
        self.0
    }

    fn out_of_range() -> String {
        format!("must be from {MIN} to {MAX}")
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReadWhole<const MIN: i64, const MAX: i64>;
        impl<const MIN: i64, const MAX: i64> Visitor<'_> for ReadWhole<MIN, MAX> {
            type Value = Whole<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Whole::new(number).map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                i64::try_from(number)
                    .map_err(|_| Self::Value::out_of_range())
                    .and_then(Whole::new)
                    .map_err(E::custom)
            }
        }
        deserializer.deserialize_i64(ReadWhole)
    }
}

impl<const MIN: i64, const MAX: i64> PartialSchema for Whole<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(MIN))
            .maximum(Some(MAX))
            .into()
    }
}

impl<const MIN: i64, const MAX: i64> ToSchema for Whole<MIN, MAX> {}

/// Text of at most `MAX` characters, without blanks around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundedText<const MAX: usize>(String);

impl<const MAX: usize> BoundedText<MAX> {
    fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.chars().count() > MAX {
            return Err(format!("is too long; at most {MAX} characters"));
        }
        if text.contains('\0') {
            return Err("holds a NUL character".to_owned());
        }
        Ok(BoundedText(text.to_owned()))
    }

    pub fn into_text(self) -> String {
        self.0
    }

    /// A blank text is as good as none.
    pub fn into_option(self) -> Option<String> {
        Some(self.0).filter(|text| !text.is_empty())
    }
}

/// Text that is not blank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Name<const MAX: usize = MAX_NAME>(String);

impl<const MAX: usize> Name<MAX> {
    fn new(text: &str) -> Result<Self, String> {
        let BoundedText(text) = BoundedText::<MAX>::new(text)?;
        if text.is_empty() {
            return Err("must not be blank".to_owned());
        }
        Ok(Name(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What must not be blank has a character that is no blank.
fn text_schema(max_length: usize, may_be_blank: bool) -> RefOr<Schema> {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(max_length));
    if may_be_blank {
        text.into()
    } else {
        text.min_length(Some(1)).pattern(Some(r"\S")).into()
    }
}

macro_rules! read_as_text {
    ($($type:ident),*) => {$(
        impl<'de, const MAX: usize> Deserialize<'de> for $type<MAX> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $type::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }

        impl<const MAX: usize> PartialSchema for $type<MAX> {
            fn schema() -> RefOr<Schema> {
                text_schema(MAX, stringify!($type) != "Name")
            }
        }

        impl<const MAX: usize> ToSchema for $type<MAX> {}
    )*};
}

read_as_text!(BoundedText, Name);

/// A time with its offset (RFC 3339), cut to microseconds, which is what Postgres keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReadTime;
        impl Visitor<'_> for ReadTime {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a time as text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                let time: Timestamp = text.parse().map_err(|_| {
                    E::custom(
                        "must be a time with its offset (RFC 3339), such as 2026-03-14T12:02:10Z",
                    )
                })?;
                // Further away it is a mistake of units, and Postgres could not keep it.
                if !(0..=253_402_300_799).contains(&time.as_second()) {
                    return Err(E::custom("must be a time between 1970 and 9999"));
                }
                Ok(Time(trueup_event::ids::to_microseconds(time)))
            }
        }
        deserializer.deserialize_str(ReadTime)
    }
}
