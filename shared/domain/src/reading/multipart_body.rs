//! The fields of a `multipart/form-data` body (X1): each a part with a name and a text, a file's too.
//!
//! A part whose end is missing is no field: a text that was cut off may be half an amount.

use std::borrow::Cow;

use crate::reading::field_collection::FieldCollector;
use crate::reading::form_field::add_field;
use crate::reading::json_body;
use crate::reading::text_origin::{Encoding, Origin};
use crate::text::starts_with_ignoring_case;
use trueup_event::json_scanner::readable_text;
use trueup_event::reason::ReadingNote;

/// Bytes of a boundary (RFC 2046 allows 70).
const BOUNDARY_BYTES: usize = 200;

/// False if the body is not made of parts at all.
pub(super) fn read_parts<'a>(
    bytes: &'a [u8],
    content_type: Option<&str>,
    gathered: &mut FieldCollector<'a, '_>,
) -> bool {
    let declared = content_type.and_then(declared_boundary);
    match declared.as_deref().or_else(|| opening_boundary(bytes)) {
        Some(boundary) => read_multipart(bytes, boundary, gathered),
        None => false,
    }
}

/// The boundary of a `multipart/form-data` content type.
fn declared_boundary(content_type: &str) -> Option<Cow<'_, [u8]>> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    find_parameter(parameters, "boundary")
        .filter(|b| (1..=BOUNDARY_BYTES).contains(&b.len()))
        .map(|b| Cow::Owned(b.into_bytes()))
}

/// The boundary that a body of parts opens with, where the content type has lost it.
fn opening_boundary(bytes: &[u8]) -> Option<&[u8]> {
    let mut lines = bytes.split(|b| *b == b'\n').map(without_return);
    let boundary = lines.next()?.strip_prefix(b"--")?;
    let header = String::from_utf8_lossy(lines.next()?);
    let plausible = (1..=BOUNDARY_BYTES).contains(&boundary.len());
    let is_part = starts_with_ignoring_case(&header, "content-");
    (plausible && is_part).then_some(boundary)
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// One of the parameters `a=b; c="d"`.
fn find_parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
        let (name, after) = rest.split_once('=')?;
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let end = quoted.find('"')?;
            (quoted.get(..end)?, quoted.get(end.checked_add(1)?..)?)
        } else {
            let end = after.find(';').unwrap_or(after.len());
            (after.get(..end)?.trim(), after.get(end..)?)
        };
        // A parameter without a value may stand before the name.
        let name = name.rsplit(';').next().unwrap_or_default();
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value.to_owned());
        }
        rest = tail;
    }
}

/// Whether the body was made of parts at all.
fn read_multipart<'a>(
    bytes: &'a [u8],
    boundary: &[u8],
    gathered: &mut FieldCollector<'a, '_>,
) -> bool {
    let mut any = false;
    // Where the current part begins; `None` outside of parts.
    let mut part_start: Option<usize> = None;
    let mut at: usize = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let next = at.saturating_add(line.len());
        if let Some(is_last) = read_delimiter(line, boundary) {
            any = true;
            let part = part_start.and_then(|start| bytes.get(start..at));
            if let Some(part) = part.and_then(read_field) {
                add_part(&part, gathered);
            }
            part_start = (!is_last).then_some(next);
        }
        at = next;
    }
    any
}

/// `--boundary`, or `--boundary--` after the last part.
fn read_delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    match rest.trim_ascii() {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// What a part says of itself, and its text.
struct Part<'a> {
    name: &'a [u8],
    text: &'a [u8],
    is_file: bool,
}

/// A file may be the whole report (X1b), whatever its field is called.
fn add_part<'a>(part: &Part<'a>, gathered: &mut FieldCollector<'a, '_>) {
    let name = readable_text(part.name);
    let origin = Origin::new(part.text, Encoding::Unreadable);
    let holds_report = json_body::is_wrapper_name(&name) || part.is_file;
    let before = gathered.field_count();
    let value = || readable_text(part.text);
    add_field(name, value, origin, holds_report, gathered);
    if part.is_file && gathered.field_count() > before {
        gathered.notes.add(ReadingNote::FilePart);
    }
}

/// The headers, an empty line, the text, a line's end.
fn read_field(part: &[u8]) -> Option<Part<'_>> {
    let mut name = None;
    let mut is_file = false;
    let mut at: usize = 0;
    for line in part.split_inclusive(|b| *b == b'\n') {
        at = at.saturating_add(line.len());
        let header = line.trim_ascii();
        if header.is_empty() {
            let text = part.get(at..)?;
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            return Some(Part {
                name: name?,
                text: without_return(text),
                is_file,
            });
        }
        if let Some(disposition) = header_value(header, b"content-disposition:") {
            is_file |= quoted_value(disposition, b"filename=").is_some()
                || quoted_value(disposition, b"filename*=").is_some();
            name = quoted_value(disposition, b"name=");
        }
    }
    None
}

fn header_value<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = header.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then_some(value)
}

/// The value of `; name="…"` or `; name=…`.
fn quoted_value<'a>(disposition: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = disposition;
    loop {
        let at = rest.iter().position(|b| *b == b';')?;
        rest = rest.get(at.checked_add(1)?..)?.trim_ascii_start();
        let Some(value) = header_value(rest, name) else {
            continue;
        };
        return match value.strip_prefix(b"\"") {
            Some(text) => text.split(|b| *b == b'"').next(),
            None => value.split(|b| *b == b';').next().map(<[u8]>::trim_ascii),
        };
    }
}
