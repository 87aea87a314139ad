//! What a request says: X1 to X6, over the readers of money (X7), durations (X8) and callers (X9).
//!
//! Reading never fails and never guesses: a request that holds no report says why, a slot that could
//! not be read says which value was in the way. Nothing is scraped from a body that does not parse, not
//! even the query beside it: half a report may be half an amount.

mod charset;
mod field_collection;
mod form_body;
mod form_escapes;
mod form_field;
mod json_body;
mod mending;
mod multipart_body;
mod note_list;
mod slot_choice;
mod text_origin;
mod text_store;
mod xml_body;

use crate::report::{ParsedRequest, ReadError, ReadSettings};
use crate::text::find_ignoring_case;
use charset::Charset;
use field_collection::{FieldCollector, Surroundings};
use json_body::{JsonText, WRAPPINGS};
use text_origin::{Encoding, Origin, Place};
use text_store::TextStore;
use trueup_event::batch::{self, BatchSplit};
use trueup_event::json_scanner::{JsonError, Scanner, check_value, readable_text, without_bom};
use trueup_event::raw_event::RawRequest;
use trueup_event::reason::ReadingNote;

/// Why a request holds no report.
enum Fault<'a> {
    Unparseable(Place<'a>),
    NoObject,
    EmptyBatch,
}

/// The reading of one request, or of one element of a batch. Linear in the request's length.
pub fn read_request(request: &RawRequest, settings: &ReadSettings) -> ParsedRequest {
    let store = TextStore::default();
    let mut gathered = FieldCollector::new(settings, &store);
    match read_sources(request, settings, &mut gathered) {
        Ok(parsed) => parsed,
        Err(fault) => ParsedRequest {
            report: Err(read_error(fault, request, &gathered)),
            slots: Vec::new(),
            notes: gathered.notes.into_sorted(),
        },
    }
}

fn read_sources<'a>(
    request: &'a RawRequest,
    settings: &ReadSettings,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<ParsedRequest, Fault<'a>> {
    read_body(request, gathered)?;
    gathered.begin_query();
    form_body::read_urlencoded(request.query.as_bytes(), Charset::Utf8, gathered);
    slot_choice::choose_slots(gathered, settings).map_err(Fault::Unparseable)
}

/// A place is told in the bytes that were sent, of the body or of the query (X1, X1b).
#[cold]
fn read_error<'a>(
    fault: Fault<'a>,
    request: &RawRequest,
    gathered: &FieldCollector<'a, '_>,
) -> ReadError {
    let place = match fault {
        Fault::Unparseable(place) => place,
        Fault::NoObject => return ReadError::UnparseableElement,
        Fault::EmptyBatch => return ReadError::EmptyBatch,
    };
    if let Some(byte) = gathered.place_in_sent(request.query.as_bytes(), place) {
        return ReadError::UnparseableQuery { byte };
    }
    let byte = gathered.place_in_sent(&request.body, place);
    ReadError::UnparseableBody {
        byte: byte.unwrap_or_default(),
    }
}

/// The body in UTF-8.
fn read_body<'a>(
    request: &'a RawRequest,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), Fault<'a>> {
    let sent = request.body.as_slice();
    if request.encoded {
        gathered.notes.add(ReadingNote::NotDecoded);
        return Err(Fault::Unparseable(Place {
            bytes: sent,
            byte: 0,
        }));
    }
    if request.content_encoding.is_some() {
        gathered.notes.add(ReadingNote::Compressed);
    }
    let charset = Charset::of_body(sent, request.content_type.as_deref());
    let Some(text) = charset.decode(sent) else {
        return read_bytes(sent, request, charset, gathered);
    };
    let origin = Origin::new(sent, Encoding::Charset(charset));
    let text = gathered.keep(text.into(), origin);
    if let Some(note) = charset.note() {
        gathered.notes.add(note);
    }
    read_bytes(text.as_bytes(), request, Charset::Utf8, gathered)
}

/// X1: what the body is, its first significant byte says, whatever the content type.
fn read_bytes<'a>(
    bytes: &'a [u8],
    request: &'a RawRequest,
    charset: Charset,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), Fault<'a>> {
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
        (false, true) => Err(Fault::NoObject),
        (false, false) => {
            form_body::read_body(bytes, content_type, charset, gathered);
            Ok(())
        }
    }
}

fn unparseable_at(bytes: &[u8], fault: JsonError) -> Fault<'_> {
    Fault::Unparseable(Place::of_fault(bytes, fault))
}

fn read_object<'a>(
    bytes: &'a [u8],
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), Fault<'a>> {
    let Err(fault) = json_body::read_report(bytes, &Surroundings::default(), gathered) else {
        return Ok(());
    };
    gathered.forget_fields();
    if read_mended(bytes, gathered) == JsonText::Read {
        return Ok(());
    }
    match read_as_key(bytes, gathered) {
        JsonText::Read => Ok(()),
        JsonText::Broken(place) => Err(Fault::Unparseable(place)),
        JsonText::NoReport => Err(unparseable_at(bytes, fault)),
    }
}

/// What the body says once it is mended (X1b).
fn read_mended<'a>(bytes: &'a [u8], gathered: &mut FieldCollector<'a, '_>) -> JsonText<'a> {
    let text = keep_readable(bytes, gathered);
    json_body::read_text(text, &Surroundings::default(), true, gathered)
}

fn keep_readable<'a>(bytes: &'a [u8], gathered: &FieldCollector<'a, '_>) -> &'a str {
    let bytes = without_bom(bytes);
    gathered.keep(
        readable_text(bytes),
        Origin::new(bytes, Encoding::Unreadable),
    )
}

/// A form's only key: a report with a `=` behind it, or with its quotes escaped (X1b).
fn read_as_key<'a>(bytes: &'a [u8], gathered: &mut FieldCollector<'a, '_>) -> JsonText<'a> {
    let bytes = without_bom(bytes).trim_ascii();
    let is_escaped = bytes
        .get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case(b"{%22"));
    if is_escaped {
        return form_body::read_only_key(bytes, Charset::Utf8, gathered);
    }
    let Some(key) = bytes.strip_suffix(b"=") else {
        return JsonText::NoReport;
    };
    let read = read_mended(key, gathered);
    if read == JsonText::Read {
        gathered.notes.add(ReadingNote::JsonAsKey);
    }
    read
}

/// A JSON text inside a string, as often as [`WRAPPINGS`]; or inside the single quotes of a shell that knows
/// none. `false`: the body is only a text.
fn read_quoted<'a>(
    bytes: &'a [u8],
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<bool, Fault<'a>> {
    let mut text = keep_readable(bytes, gathered);
    for _ in 0..WRAPPINGS {
        text = match unquote(text.trim_ascii(), gathered)? {
            Some(inner) => inner,
            None => return Ok(false),
        };
        if text.trim_ascii_start().starts_with('"') {
            continue;
        }
        return match json_body::read_text(text, &Surroundings::default(), true, gathered) {
            JsonText::Read => {
                gathered.notes.add(ReadingNote::JsonInString);
                Ok(true)
            }
            JsonText::Broken(place) => Err(Fault::Unparseable(place)),
            JsonText::NoReport => Ok(false),
        };
    }
    Ok(false)
}

/// The text between the quotes; an error if a report begins there and the string does not end.
fn unquote<'a>(
    text: &'a str,
    gathered: &FieldCollector<'a, '_>,
) -> Result<Option<&'a str>, Fault<'a>> {
    if let Some(rest) = text.strip_prefix('\'') {
        return Ok(rest.strip_suffix('\'').filter(|rest| rest.starts_with('{')));
    }
    let mut scanner = Scanner::new(text.as_bytes());
    let inner = scanner.text();
    match inner.and_then(|inner| scanner.expect_end().map(|()| inner)) {
        Ok(inner) => {
            let origin = Origin::new(inner.bytes(), Encoding::JsonEscapes);
            Ok(Some(gathered.keep(inner.to_text(), origin)))
        }
        Err(fault) if text.starts_with("\"{") => Err(unparseable_at(text.as_bytes(), fault)),
        Err(_) => Ok(None),
    }
}

/// XML, where it is said to be or parses as such; `false` for what is only a text with a `<` before it.
fn read_markup<'a>(
    bytes: &'a [u8],
    content_type: Option<&str>,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<bool, Fault<'a>> {
    let text = without_bom(bytes).trim_ascii_start();
    let is_declared = content_type.is_some_and(|kind| find_ignoring_case(kind, "xml").is_some())
        || text.starts_with(b"<?xml")
        || text.starts_with(b"<!DOCTYPE");
    let readable = keep_readable(bytes, gathered);
    match xml_body::read_report(readable, gathered) {
        Ok(()) => {
            gathered.notes.add(ReadingNote::Xml);
            Ok(true)
        }
        Err(byte) if is_declared => Err(Fault::Unparseable(Place {
            bytes: readable.as_bytes(),
            byte,
        })),
        Err(_) => Ok(false),
    }
}

/// An array that the door left whole. One object in it is read (X2); several belong to as many events.
fn read_array<'a>(bytes: &'a [u8], gathered: &mut FieldCollector<'a, '_>) -> Result<(), Fault<'a>> {
    match batch::split_batch(bytes, None) {
        BatchSplit::Empty => Err(Fault::EmptyBatch),
        BatchSplit::Elements(ranges) if ranges.len() == 1 => {
            let range = ranges.into_iter().next().unwrap_or_default();
            let element = bytes.get(range).unwrap_or_default();
            if batch::first_significant(element) != Some(b'{') {
                return Err(Fault::NoObject);
            }
            json_body::read_report(element, &Surroundings::default(), gathered)
                .map_err(|fault| unparseable_at(element, fault))
        }
        BatchSplit::Elements(_) | BatchSplit::TooMany | BatchSplit::NotABatch => {
            Err(Fault::NoObject)
        }
        // Nothing but objects is ever read of a list, so that another one is not mended.
        BatchSplit::Unparseable
            if json_body::begins_with_object(bytes)
                && read_mended(bytes, gathered) == JsonText::Read =>
        {
            Ok(())
        }
        BatchSplit::Unparseable => {
            let fault = check_value(bytes, usize::MAX);
            Err(fault.map_or_else(|at| unparseable_at(bytes, at), |()| Fault::NoObject))
        }
    }
}
