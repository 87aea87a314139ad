//! The fields of a query, a form or a `multipart/form-data` body (X1): each a name and a text.
//!
//! A part of a multipart body that is a file is no field, and neither is one whose end is missing: a
//! text that was cut off may be half an amount.

use std::borrow::Cow;

use crate::reading::field_collection::FieldCollector;
use crate::text::starts_with_ignoring_case;
use trueup_event::json_scanner::{readable_text, without_bom};

/// Bytes of a boundary (RFC 2046 allows 70).
const BOUNDARY_BYTES: usize = 200;

/// A body that is not JSON.
pub(super) fn read_body<'a>(
    bytes: &'a [u8],
    content_type: Option<&str>,
    gathered: &mut FieldCollector<'a, '_>,
) {
    let bytes = without_bom(bytes).trim_ascii();
    let declared = content_type.and_then(declared_boundary);
    let is_multipart = match declared.as_deref().or_else(|| opening_boundary(bytes)) {
        Some(boundary) => read_multipart(bytes, boundary, gathered),
        None => false,
    };
    if !is_multipart {
        read_urlencoded(bytes, gathered);
    }
}

/// `a=1&b=2`.
pub(super) fn read_urlencoded<'a>(bytes: &'a [u8], gathered: &mut FieldCollector<'a, '_>) {
    for pair in bytes.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
        let mut halves = pair.splitn(2, |b| *b == b'=');
        let name = halves.next().unwrap_or_default();
        let value = halves.next().unwrap_or_default();
        gathered.add_pair(decode_bytes(name), || decode_bytes(value));
    }
}

/// A `+` is a space, `%41` an A, and what is no UTF-8 becomes U+FFFD.
fn decode_bytes(bytes: &[u8]) -> Cow<'_, str> {
    let is_plain = |b: &u8| !matches!(b, b'+' | b'%' | 0);
    if bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes);
    }
    let spaced: Vec<u8> = bytes
        .iter()
        .map(|b| if *b == b'+' { b' ' } else { *b })
        .collect();
    let decoded: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
    Cow::Owned(readable_text(&decoded).into_owned())
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
            if let Some((name, value)) = part.and_then(read_field) {
                gathered.add_pair(readable_text(name), || readable_text(value));
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

/// A part's name and text: the headers, an empty line, the text, a line's end.
fn read_field(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut name = None;
    let mut at: usize = 0;
    for line in part.split_inclusive(|b| *b == b'\n') {
        at = at.saturating_add(line.len());
        let header = line.trim_ascii();
        if header.is_empty() {
            let text = part.get(at..)?;
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            return Some((name?, without_return(text)));
        }
        if let Some(disposition) = header_value(header, b"content-disposition:") {
            if quoted_value(disposition, b"filename=").is_some() {
                return None;
            }
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
