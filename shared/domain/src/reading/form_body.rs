//! The fields of a query or a form (X1): each a name and a text, and what senders wrap them in (X1b).
//!
//! A separator that is none by the book (`;`, a second `?`) counts only before `name=`, and a report inside a
//! field only under the names that senders use for it. Whatever else a text holds stays a text.

use std::borrow::Cow;

use crate::reading::charset::Charset;
use crate::reading::field_collection::FieldCollector;
use crate::reading::form_escapes::decode_form_text;
use crate::reading::form_field::{add_field, first_wrapping};
use crate::reading::json_body::{self, JsonText};
use crate::reading::multipart_body;
use crate::reading::text_origin::{Encoding, Origin};
use trueup_event::json_scanner::without_bom;
use trueup_event::reason::ReadingNote;

/// A body that is neither JSON nor XML.
pub(super) fn read_body<'a>(
    bytes: &'a [u8],
    content_type: Option<&str>,
    charset: Charset,
    gathered: &mut FieldCollector<'a, '_>,
) {
    let bytes = without_bom(bytes).trim_ascii();
    if charset == Charset::Windows1252 && bytes.contains(&b'%') {
        gathered.notes.add(ReadingNote::Windows1252);
    }
    if !multipart_body::read_parts(bytes, content_type, gathered) {
        read_urlencoded(bytes, charset, gathered);
    }
}

/// `a=1&b=2`.
pub(super) fn read_urlencoded<'a>(
    bytes: &'a [u8],
    charset: Charset,
    gathered: &mut FieldCollector<'a, '_>,
) {
    let may_be_a_key = match bytes.first() {
        Some(first) => matches!(first, b'%' | b'{'),
        None => return,
    };
    if may_be_a_key {
        match read_only_key(bytes, charset, gathered) {
            JsonText::Read => return,
            JsonText::Broken(place) => gathered.note_broken_field(place, first_wrapping().level),
            JsonText::NoReport => {}
        }
    }
    let is_odd = bytes
        .iter()
        .fold(false, |odd, b| odd | (*b == b';') | (*b == b'?'));
    let has_semicolons = is_odd && !bytes.contains(&b'&');
    for pair in bytes.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
        if is_odd {
            split_pair(pair, has_semicolons, charset, gathered);
        } else {
            read_pair(pair, charset, gathered);
        }
    }
}

/// A JSON report that a client sent as a form's only key, with a `=` behind it or not (X1b).
pub(super) fn read_only_key<'a>(
    bytes: &'a [u8],
    charset: Charset,
    gathered: &mut FieldCollector<'a, '_>,
) -> JsonText<'a> {
    let key = bytes.strip_suffix(b"=").unwrap_or(bytes);
    let origin = Origin::new(key, Encoding::FormEscapes(charset));
    let text = gathered.keep(decode_form_text(key, charset), origin);
    let read = json_body::read_text(text, &first_wrapping(), true, gathered);
    if read == JsonText::Read {
        gathered.notes.add(ReadingNote::JsonAsKey);
    }
    read
}

/// One pair of a source in which a `?`, and where there is no `&` a `;`, may stand between pairs.
fn split_pair<'a>(
    pair: &'a [u8],
    has_semicolons: bool,
    charset: Charset,
    gathered: &mut FieldCollector<'a, '_>,
) {
    let mut rest = pair;
    let mut at: usize = 0;
    let mut has_url = false;
    while let Some(byte) = rest.get(at) {
        has_url |= rest.get(at.saturating_sub(3)..at) == Some(&b"://"[..]);
        let is_separator = match byte {
            b';' => has_semicolons,
            // The query of a URL that is itself a value is not ours.
            b'?' => !has_url,
            _ => false,
        };
        let next = at.saturating_add(1);
        let tail = rest.get(next..).unwrap_or_default();
        if is_separator && begins_with_name(tail) {
            gathered.notes.add(if *byte == b';' {
                ReadingNote::Semicolons
            } else {
                ReadingNote::SecondQuestionMark
            });
            read_pair(rest.get(..at).unwrap_or_default(), charset, gathered);
            rest = tail;
            at = 0;
            has_url = false;
        } else {
            at = next;
        }
    }
    read_pair(rest, charset, gathered);
}

/// `name=`.
fn begins_with_name(text: &[u8]) -> bool {
    let is_name =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']' | b'%');
    let end = text.iter().position(|b| !is_name(b));
    matches!(text.first(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'_'))
        && end.and_then(|end| text.get(end)) == Some(&b'=')
}

fn read_pair<'a>(pair: &'a [u8], charset: Charset, gathered: &mut FieldCollector<'a, '_>) {
    if pair.is_empty() {
        return;
    }
    let mut halves = pair.splitn(2, |b| *b == b'=');
    let name = halves.next().unwrap_or_default();
    let value = halves.next().unwrap_or_default();
    // Nearly every name is its own plain text.
    let is_plain = |b: &u8| !matches!(b, b'+' | b'%' | 0 | b'[' | b';');
    if name.iter().all(is_plain) {
        let name = String::from_utf8_lossy(name);
        if json_body::is_wrapper_name(&name) {
            read_odd_pair(name, value, charset, gathered);
        } else {
            gathered.add_pair(&name, || decode_form_text(value, charset));
        }
    } else {
        let name = without_amp(decode_form_text(name, charset), gathered);
        read_odd_pair(name, value, charset, gathered);
    }
}

/// A pair whose name is not plain, or one of those under which a whole report may stand.
#[cold]
fn read_odd_pair<'a>(
    name: Cow<'a, str>,
    value: &'a [u8],
    charset: Charset,
    gathered: &mut FieldCollector<'a, '_>,
) {
    let holds_report = json_body::is_wrapper_name(&name);
    let origin = Origin::new(value, Encoding::FormEscapes(charset));
    let value = || decode_form_text(value, charset);
    add_field(name, value, origin, holds_report, gathered);
}

/// `&amp;` between parameters, as in a page's source.
fn without_amp<'a>(name: Cow<'a, str>, gathered: &mut FieldCollector<'a, '_>) -> Cow<'a, str> {
    let is_amp = |name: &str| crate::text::starts_with_ignoring_case(name, "amp;");
    if !is_amp(&name) {
        return name;
    }
    gathered.notes.add(ReadingNote::AmpNames);
    let mut bare = gathered.keep_name(name);
    while is_amp(bare) {
        bare = bare.get(4..).unwrap_or_default();
    }
    Cow::Borrowed(bare)
}
