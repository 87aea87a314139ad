//! What a request says: X1 to X6, over the readers of money (X7), durations (X8) and callers (X9).
//!
//! Reading never fails and never guesses: a request that holds no report says why, a slot that could
//! not be read says which value was in the way. Nothing is scraped from a body that does not parse, not
//! even the query beside it: half a report may be half an amount.

mod charset;
mod field_collection;
mod form_body;
mod form_field;
mod json_body;
mod mending;
mod multipart_body;
mod note_list;
mod slot_choice;
mod text_store;
mod xml_body;

use crate::report::{ParsedRequest, ReadError, ReadSettings};
use crate::text::find_ignoring_case;
use charset::Charset;
use field_collection::{FieldCollector, Surroundings};
use json_body::{JsonText, WRAPPINGS};
use text_store::TextStore;
use trueup_event::batch::{self, BatchSplit};
use trueup_event::json_scanner::{
    JsonError, Scanner, bom_len, check_value, readable_text, without_bom,
};
use trueup_event::raw_event::RawRequest;
use trueup_event::reason::ReadingNote;

/// The reading of one request, or of one element of a batch. Linear in the request's length.
pub fn read_request(request: &RawRequest, settings: &ReadSettings) -> ParsedRequest {
    let store = TextStore::default();
    let mut gathered = FieldCollector::new(settings, &store);
    if let Err(no_report) = read_body(request, &mut gathered) {
        return ParsedRequest {
            report: Err(no_report),
            slots: Vec::new(),
            notes: gathered.notes.into_sorted(),
        };
    }
    gathered.begin_query();
    form_body::read_urlencoded(request.query.as_bytes(), Charset::Utf8, &mut gathered);
    slot_choice::choose_slots(gathered, settings)
}

/// The body in UTF-8; a place that it names is one in the bytes that were sent (X1, X1b).
fn read_body<'a>(
    request: &'a RawRequest,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), ReadError> {
    if request.encoded {
        gathered.notes.add(ReadingNote::NotDecoded);
        return Err(ReadError::UnparseableBody { byte: 0 });
    }
    if request.content_encoding.is_some() {
        gathered.notes.add(ReadingNote::Compressed);
    }
    let sent = request.body.as_slice();
    let charset = Charset::of_body(sent, request.content_type.as_deref());
    let Some(text) = charset.decode(sent) else {
        return read_bytes(sent, request, charset, gathered);
    };
    let text = gathered.keep(text.into());
    if let Some(note) = charset.note() {
        gathered.notes.add(note);
    }
    let read = read_bytes(text.as_bytes(), request, Charset::Utf8, gathered);
    let place = |byte| charset.place_in_bytes(sent, text, byte);
    gathered.broken_field = gathered.broken_field.map(place);
    read.map_err(|fault| match fault {
        ReadError::UnparseableBody { byte } => ReadError::UnparseableBody { byte: place(byte) },
        other => other,
    })
}

/// X1: what the body is, its first significant byte says, whatever the content type.
fn read_bytes<'a>(
    bytes: &'a [u8],
    request: &'a RawRequest,
    charset: Charset,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), ReadError> {
    let content_type = request.content_type.as_deref();
    let read = match batch::first_significant(bytes) {
        Some(b'{') => return read_object(bytes, gathered),
        Some(b'"' | b'\'') => read_quoted(bytes, gathered)?,
        Some(b'<') if !request.element => read_markup(bytes, content_type, gathered)?,
        Some(b'[') if !request.element => return read_array(bytes, gathered),
        Some(_) => false,
        None => true,
    };
    match (read, request.element) {
        (true, _) => Ok(()),
        (false, true) => Err(ReadError::UnparseableElement),
        (false, false) => {
            form_body::read_body(bytes, content_type, charset, gathered);
            Ok(())
        }
    }
}

fn unparseable_at(at: JsonError) -> ReadError {
    ReadError::UnparseableBody { byte: at.byte }
}

fn read_object<'a>(
    bytes: &'a [u8],
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), ReadError> {
    let Err(fault) = json_body::read_report(bytes, &Surroundings::default(), gathered) else {
        return Ok(());
    };
    gathered.forget_fields();
    if read_mended(bytes, gathered) || read_as_key(bytes, gathered) {
        return Ok(());
    }
    Err(unparseable_at(fault))
}

/// Whether the body says something once it is mended (X1b).
fn read_mended<'a>(bytes: &'a [u8], gathered: &mut FieldCollector<'a, '_>) -> bool {
    let text = keep_readable(bytes, gathered);
    json_body::read_text(text, &Surroundings::default(), true, gathered) == JsonText::Read
}

fn keep_readable<'a>(bytes: &'a [u8], gathered: &FieldCollector<'a, '_>) -> &'a str {
    gathered.keep(readable_text(without_bom(bytes)))
}

/// A form's only key: a report with a `=` behind it, or with its quotes escaped (X1b).
fn read_as_key<'a>(bytes: &'a [u8], gathered: &mut FieldCollector<'a, '_>) -> bool {
    let bytes = without_bom(bytes).trim_ascii();
    let is_escaped = bytes
        .get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case(b"{%22"));
    if is_escaped {
        return form_body::read_only_key(bytes, Charset::Utf8, gathered);
    }
    let Some(key) = bytes.strip_suffix(b"=") else {
        return false;
    };
    let is_read = read_mended(key, gathered);
    if is_read {
        gathered.notes.add(ReadingNote::JsonAsKey);
    }
    is_read
}

/// A JSON text inside a string, as often as [`WRAPPINGS`]; or inside the single quotes of a shell that knows
/// none. `false`: the body is only a text.
fn read_quoted<'a>(
    bytes: &'a [u8],
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<bool, ReadError> {
    let mut text = keep_readable(bytes, gathered).trim_ascii();
    for _ in 0..WRAPPINGS {
        text = match unquote(text, gathered) {
            Ok(Some(inner)) => inner,
            Ok(None) => return Ok(false),
            Err(fault) => return Err(unparseable_at(fault)),
        };
        if text.trim_ascii_start().starts_with('"') {
            continue;
        }
        return match json_body::read_text(text, &Surroundings::default(), true, gathered) {
            JsonText::Read => {
                gathered.notes.add(ReadingNote::JsonInString);
                Ok(true)
            }
            // How far the escapes have moved it is not said: the string begins there.
            JsonText::Broken(_) => Err(ReadError::UnparseableBody {
                byte: bytes.len().saturating_sub(bytes.trim_ascii_start().len()),
            }),
            JsonText::NoReport => Ok(false),
        };
    }
    Ok(false)
}

/// The text between the quotes; an error if a report begins there and the string does not end.
fn unquote<'a>(
    text: &'a str,
    gathered: &FieldCollector<'a, '_>,
) -> Result<Option<&'a str>, JsonError> {
    let text = text.trim_ascii();
    if let Some(rest) = text.strip_prefix('\'') {
        return Ok(rest.strip_suffix('\'').filter(|rest| rest.starts_with('{')));
    }
    let mut scanner = Scanner::new(text.as_bytes());
    let inner = scanner.text();
    match inner.and_then(|inner| scanner.expect_end().map(|()| inner)) {
        Ok(inner) => Ok(Some(gathered.keep(inner.to_text()))),
        Err(fault) if text.starts_with("\"{") => Err(fault),
        Err(_) => Ok(None),
    }
}

/// XML, where it is said to be or parses as such; `false` for what is only a text with a `<` before it.
fn read_markup<'a>(
    bytes: &'a [u8],
    content_type: Option<&str>,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<bool, ReadError> {
    let text = without_bom(bytes).trim_ascii_start();
    let is_declared = content_type.is_some_and(|kind| find_ignoring_case(kind, "xml").is_some())
        || text.starts_with(b"<?xml")
        || text.starts_with(b"<!DOCTYPE");
    match xml_body::read_report(keep_readable(bytes, gathered), gathered) {
        Ok(()) => {
            gathered.notes.add(ReadingNote::Xml);
            Ok(true)
        }
        Err(byte) if is_declared => Err(ReadError::UnparseableBody {
            byte: byte.saturating_add(bom_len(bytes)),
        }),
        Err(_) => Ok(false),
    }
}

/// An array that the door left whole. One object in it is read (X2); several belong to as many events.
fn read_array<'a>(bytes: &'a [u8], gathered: &mut FieldCollector<'a, '_>) -> Result<(), ReadError> {
    match batch::split_batch(bytes, None) {
        BatchSplit::Empty => Err(ReadError::EmptyBatch),
        BatchSplit::Elements(ranges) if ranges.len() == 1 => {
            let range = ranges.into_iter().next().unwrap_or_default();
            let start = range.start;
            let element = bytes.get(range).unwrap_or_default();
            if batch::first_significant(element) != Some(b'{') {
                return Err(ReadError::UnparseableElement);
            }
            let read = json_body::read_report(element, &Surroundings::default(), gathered);
            read.map_err(|at| ReadError::UnparseableBody {
                byte: start.saturating_add(at.byte),
            })
        }
        BatchSplit::Elements(_) | BatchSplit::TooMany | BatchSplit::NotABatch => {
            Err(ReadError::UnparseableElement)
        }
        BatchSplit::Unparseable if read_mended(bytes, gathered) => Ok(()),
        BatchSplit::Unparseable => {
            let fault = check_value(bytes, usize::MAX);
            Err(fault.map_or_else(unparseable_at, |()| ReadError::UnparseableElement))
        }
    }
}
