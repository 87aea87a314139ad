//! The fields of a JSON report (X1, X2): objects to depth 3, a list of one object entered, the last of a
//! repeated key. Recursion is bounded by the depth that a report may have.
//!
//! A report's text may stand anywhere (X1b): the body, a string inside JSON, a field of a form, a form's only
//! key. It is first scanned as a whole and only then read, so that nothing of one that does not parse is
//! gathered. What does not parse is mended where that has one reading only; a string under any name at all
//! is not mended, since it may be a person's words.

#![expect(
    clippy::ptr_arg,
    reason = "a name that is borrowed from the request is kept without a copy"
)]

use std::borrow::Cow;

use crate::reading::field_collection::{FieldCollector, FieldKey, FieldPath, Surroundings, Value};
use crate::reading::mending;
use crate::reading::text_origin::{Encoding, Origin, Place};
use trueup_event::batch::{self, BatchSplit};
use trueup_event::json_scanner::{JsonError, Scanner, Text, Token, check_value, without_bom};
use trueup_event::limits::{FLAT_DEPTH, JSON_DEPTH};
use trueup_event::reason::ReadingNote;

/// Strings with JSON inside one another that are entered, besides what the whole report is wrapped in.
pub(super) const WRAPPINGS: u8 = 4;

/// The names of form fields in which senders put a whole JSON report.
const WRAPPER_NAMES: [&str; 6] = ["payload", "data", "json", "body", "event", "message"];

pub(super) fn is_wrapper_name(name: &str) -> bool {
    matches!(name.len(), 4..=7) && WRAPPER_NAMES.iter().any(|w| w.eq_ignore_ascii_case(name))
}

/// What became of a text that might be JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonText<'a> {
    /// Its fields were gathered.
    Read,
    /// It is no JSON, or not of a report.
    NoReport,
    /// It begins as a report does, and does not parse at this place.
    Broken(Place<'a>),
}

/// Reads `text` if it is one JSON object, or a list of one (X2). `mend`: whether one that does not parse is
/// mended.
pub(super) fn read_text<'a>(
    text: &'a str,
    around: &Surroundings<'a>,
    mend: bool,
    gathered: &mut FieldCollector<'a, '_>,
) -> JsonText<'a> {
    let room = JSON_DEPTH.saturating_sub(around.depth);
    let bytes = without_bom(text.as_bytes());
    if !begins_with_object(bytes) {
        return JsonText::NoReport;
    }
    let fault = match check_value(bytes, room) {
        Ok(()) => return read_checked(bytes, around, gathered),
        Err(fault) => fault,
    };
    if mend
        && let Ok(mended) = mending::mend_json(bytes)
        && check_value(mended.text.as_bytes(), room).is_ok()
    {
        let origin = Origin::new(bytes, Encoding::Unmended);
        let kept = gathered.keep(mended.text.into(), origin);
        let read = read_checked(kept.as_bytes(), around, gathered);
        if read == JsonText::Read {
            gathered.notes.add_all(mended.notes);
        }
        return read;
    }
    if begins_like_a_report(bytes) {
        JsonText::Broken(Place::of_fault(bytes, fault))
    } else {
        JsonText::NoReport
    }
}

/// Whether `bytes` begin with an object, or with a list whose first element is one.
pub(super) fn begins_with_object(bytes: &[u8]) -> bool {
    let mut scanner = Scanner::new(bytes);
    scanner.consume(b'[');
    scanner.peek() == Some(b'{')
}

/// `{"`: no macro looks like this.
fn begins_like_a_report(bytes: &[u8]) -> bool {
    let mut scanner = Scanner::new(bytes);
    scanner.consume(b'[');
    scanner.consume(b'{') && scanner.peek() == Some(b'"')
}

/// `bytes` are JSON and within the depth.
fn read_checked<'a>(
    bytes: &'a [u8],
    around: &Surroundings<'a>,
    gathered: &mut FieldCollector<'a, '_>,
) -> JsonText<'a> {
    let object = match batch::first_significant(bytes) {
        Some(b'{') => bytes,
        Some(b'[') => match only_object(bytes) {
            Some(object) => object,
            None => return JsonText::NoReport,
        },
        _ => return JsonText::NoReport,
    };
    match read_report(object, around, gathered) {
        Ok(()) => JsonText::Read,
        Err(fault) => JsonText::Broken(Place::of_fault(object, fault)),
    }
}

/// The object of a list that holds one object and nothing else.
fn only_object(bytes: &[u8]) -> Option<&[u8]> {
    let BatchSplit::Elements(ranges) = batch::split_batch(bytes, None) else {
        return None;
    };
    let [range] = ranges.as_slice() else {
        return None;
    };
    bytes
        .get(range.clone())
        .filter(|element| batch::first_significant(element) == Some(b'{'))
}

/// Gathers the fields of the object that `bytes` hold; they must hold nothing else.
pub(super) fn read_report<'a>(
    bytes: &'a [u8],
    around: &Surroundings<'a>,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), JsonError> {
    let mut walk = Walk {
        scanner: Scanner::new(bytes),
        gathered,
        outer: around.outer.clone(),
        path_start: around.outer.len(),
        level_start: around.level,
        wraps: around.wraps,
    };
    walk.scanner.expect(b'{')?;
    walk.read_object(
        around.depth.saturating_add(1),
        around.level.saturating_add(1),
    )?;
    walk.scanner.expect_end()
}

struct Walk<'a, 'g, 's> {
    scanner: Scanner<'a>,
    gathered: &'g mut FieldCollector<'a, 's>,
    /// The names of the objects around, kept only where a dotted path is configured.
    outer: Vec<Cow<'a, str>>,
    /// How many of `outer`, and of the levels, are outside of this text.
    path_start: usize,
    level_start: usize,
    wraps: u8,
}

impl<'a> Walk<'a, '_, '_> {
    /// The rest of an object whose bracket, the `depth`th, was consumed; `level` counts objects alone.
    fn read_object(&mut self, depth: usize, level: usize) -> Result<(), JsonError> {
        let object = self.gathered.begin_object();
        if self.scanner.consume(b'}') {
            return Ok(());
        }
        loop {
            let name = self.scanner.name()?.to_text();
            let key = self.gathered.begin_field(object, &name);
            let mark = self.gathered.field_count();
            if let Some(value) = self.read_value(depth, level, &name)? {
                self.read_member(key, level, &name, value);
            } else {
                self.gathered.add_span(key, &name, mark);
            }
            if self.scanner.consume(b'}') {
                return Ok(());
            }
            self.scanner.expect(b',')?;
        }
    }

    fn read_member(&mut self, key: FieldKey, level: usize, name: &Cow<'a, str>, token: Token<'a>) {
        let flat = self.level_within(level) <= FLAT_DEPTH;
        // A field has at most `JSON_DEPTH` objects around it.
        let place = u8::try_from(level).unwrap_or(u8::MAX);
        let path = FieldPath {
            outer: &self.outer,
            start: self.path_start,
        };
        self.gathered
            .add_member(key, place, path, name, flat, || match token {
                Token::Null => Value::Null,
                Token::Bool(is) => Value::Bool(is),
                Token::Number(digits) => Value::Number(digits),
                Token::Text(text) => Value::Text(text.to_text()),
                Token::Object | Token::Array => Value::List,
            });
    }

    /// A field's value: a scalar, [`Token::Array`] for a list, `None` for what was entered or passed
    /// over as an object.
    fn read_value(
        &mut self,
        depth: usize,
        level: usize,
        name: &Cow<'a, str>,
    ) -> Result<Option<Token<'a>>, JsonError> {
        let room = JSON_DEPTH.saturating_sub(depth);
        match self.scanner.peek() {
            Some(b'{') => self.enter_object(depth, level, name).map(|()| None),
            Some(b'[') if room > 0 => {
                self.scanner.expect(b'[')?;
                self.read_list(depth.saturating_add(1), level, name)
            }
            Some(b'[') => self.scanner.skip_value(room).map(|()| None),
            Some(b'"') => {
                let text = self.scanner.text()?;
                if text.may_hold_json() && self.enter_text(text, depth, level, name) {
                    return Ok(None);
                }
                Ok(Some(Token::Text(text)))
            }
            _ => self.scanner.token().map(Some),
        }
    }

    /// `level` counted from this text's own object, which is 1.
    fn level_within(&self, level: usize) -> usize {
        level.saturating_sub(self.level_start)
    }

    /// A JSON text inside a string is entered as if it stood there itself (X1b); false if it is only a text.
    #[cold]
    fn enter_text(
        &mut self,
        text: Text<'a>,
        depth: usize,
        level: usize,
        name: &Cow<'a, str>,
    ) -> bool {
        // One that stands too deep to be read by its fields' names is not entered for a path either.
        let is_deep = self.level_within(level) > FLAT_DEPTH;
        if is_deep || self.wraps >= WRAPPINGS || !self.gathered.is_within_limit() {
            return false;
        }
        let origin = Origin::new(text.bytes(), Encoding::JsonEscapes);
        let inner = self.gathered.keep(text.to_text(), origin);
        let mut outer = Vec::new();
        if self.gathered.has_paths() {
            outer.clone_from(&self.outer);
            outer.push(name.clone());
        }
        let around = Surroundings {
            depth,
            level,
            wraps: self.wraps.saturating_add(1),
            outer,
        };
        let is_wrapper = is_wrapper_name(name);
        match read_text(inner, &around, is_wrapper, self.gathered) {
            JsonText::Read => {
                self.gathered.count_field();
                self.gathered.notes.add(ReadingNote::JsonInString);
                true
            }
            JsonText::Broken(place) if is_wrapper => {
                self.gathered.note_broken_field(place, level);
                false
            }
            JsonText::Broken(_) | JsonText::NoReport => false,
        }
    }

    /// The object that comes next, inside `depth` brackets and as many as `level` objects.
    fn enter_object(
        &mut self,
        depth: usize,
        level: usize,
        name: &Cow<'a, str>,
    ) -> Result<(), JsonError> {
        let room = JSON_DEPTH.saturating_sub(depth);
        let is_deep = self.level_within(level) >= FLAT_DEPTH;
        if room == 0 || (is_deep && !self.gathered.has_paths()) {
            return self.scanner.skip_value(room);
        }
        self.scanner.expect(b'{')?;
        let with_path = self.gathered.has_paths();
        if with_path {
            self.outer.push(name.clone());
        }
        self.read_object(depth.saturating_add(1), level.saturating_add(1))?;
        if with_path {
            self.outer.pop();
        }
        Ok(())
    }

    /// The rest of a list whose bracket, the `depth`th, was consumed.
    fn read_list(
        &mut self,
        depth: usize,
        level: usize,
        name: &Cow<'a, str>,
    ) -> Result<Option<Token<'a>>, JsonError> {
        if self.scanner.consume(b']') {
            return Ok(Some(Token::Array));
        }
        let room = JSON_DEPTH.saturating_sub(depth);
        let mark = self.gathered.field_count();
        let one_object = self.scanner.peek() == Some(b'{');
        if one_object {
            self.enter_object(depth, level, name)?;
            if self.scanner.consume(b']') {
                return Ok(None);
            }
            self.gathered.drop_since(mark);
        } else {
            self.scanner.skip_value(room)?;
        }
        while !self.scanner.consume(b']') {
            self.scanner.expect(b',')?;
            self.scanner.skip_value(room)?;
        }
        Ok(Some(Token::Array))
    }
}
