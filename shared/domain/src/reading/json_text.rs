//! JSON texts, wherever they stand (X1b): the body, a string inside JSON, a field of a form, a form's only key.
//!
//! A text is first scanned as a whole and only then read, so that nothing of one that does not parse is
//! gathered. What does not parse is mended where that has one reading only; a string under any name at all
//! is not mended, since it may be a person's words.

use crate::reading::field_collection::{FieldCollector, Surroundings};
use crate::reading::{json_body, mending};
use trueup_event::batch::{self, BatchSplit};
use trueup_event::json_scanner::{JsonError, Scanner, check_value};
use trueup_event::limits::JSON_DEPTH;

/// Strings with JSON inside one another that are entered, besides what the whole report is wrapped in.
pub(super) const WRAPPINGS: u8 = 4;

/// The names of form fields in which senders put a whole JSON report.
const WRAPPER_NAMES: [&str; 6] = ["payload", "data", "json", "body", "event", "message"];

pub(super) fn is_wrapper_name(name: &str) -> bool {
    matches!(name.len(), 4..=7) && WRAPPER_NAMES.iter().any(|w| w.eq_ignore_ascii_case(name))
}

/// What became of a text that might be JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonText {
    /// Its fields were gathered.
    Read,
    /// It is no JSON, or not of a report.
    NoReport,
    /// It begins as a report does, and does not parse.
    Broken(JsonError),
}

/// Reads `text` if it is one JSON object, or a list of one (X2). `mend`: whether one that does not parse is
/// mended.
pub(super) fn read_text<'a>(
    text: &'a str,
    around: &Surroundings<'a>,
    mend: bool,
    gathered: &mut FieldCollector<'a, '_>,
) -> JsonText {
    let room = JSON_DEPTH.saturating_sub(around.depth);
    let bytes = text.as_bytes();
    let fault = match check_value(bytes, room) {
        Ok(()) => return read_checked(bytes, around, gathered),
        Err(fault) => fault,
    };
    if mend
        && let Ok(mended) = mending::mend_json(bytes)
        && check_value(mended.text.as_bytes(), room).is_ok()
    {
        let kept = gathered.keep(mended.text.into());
        let read = read_checked(kept.as_bytes(), around, gathered);
        if read == JsonText::Read {
            gathered.notes.add_all(mended.notes);
        }
        return read;
    }
    if begins_like_a_report(bytes) {
        JsonText::Broken(fault)
    } else {
        JsonText::NoReport
    }
}

/// `{"`: no macro looks like this.
fn begins_like_a_report(bytes: &[u8]) -> bool {
    let mut scanner = Scanner::new(bytes);
    scanner.take(b'[');
    scanner.take(b'{') && scanner.peek() == Some(b'"')
}

/// `bytes` are JSON and within the depth.
fn read_checked<'a>(
    bytes: &'a [u8],
    around: &Surroundings<'a>,
    gathered: &mut FieldCollector<'a, '_>,
) -> JsonText {
    let object = match batch::first_significant(bytes) {
        Some(b'{') => bytes,
        Some(b'[') => match only_object(bytes) {
            Some(object) => object,
            None => return JsonText::NoReport,
        },
        _ => return JsonText::NoReport,
    };
    match json_body::read_report(object, around, gathered) {
        Ok(()) => JsonText::Read,
        Err(fault) => JsonText::Broken(fault),
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
