//! The text of a form's or a query's bytes: `+` and `%41` undone, in the charset of the body.

use std::borrow::Cow;

use crate::reading::charset::Charset;
use trueup_event::json_scanner::{
    Piece, lossy_text, place_before_decoding, place_in_unreadable, readable_text,
};

fn is_plain(byte: u8) -> bool {
    !matches!(byte, b'+' | b'%' | 0)
}

/// A `+` is a space, `%41` an A, and what is no character becomes U+FFFD.
pub(super) fn decode_form_text(bytes: &[u8], charset: Charset) -> Cow<'_, str> {
    if bytes.iter().all(|b| is_plain(*b)) {
        return lossy_text(bytes);
    }
    let decoded = undo_escapes(bytes);
    if charset == Charset::Windows1252
        && let Some(text) = charset.decode(&decoded)
    {
        return Cow::Owned(text.replace('\0', ""));
    }
    match String::from_utf8(decoded) {
        Ok(text) if !text.contains('\0') => Cow::Owned(text),
        Ok(text) => Cow::Owned(text.replace('\0', "")),
        Err(e) => Cow::Owned(readable_text(e.as_bytes()).into_owned()),
    }
}

fn undo_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    for (n, words) in bytes.split(|b| *b == b'+').enumerate() {
        if n > 0 {
            decoded.push(b' ');
        }
        decoded.extend(percent_encoding::percent_decode(words));
    }
    decoded
}

/// The place in `bytes` of the `byte`th of their [`decode_form_text`].
pub(super) fn place_in_form_text(bytes: &[u8], charset: Charset, byte: usize) -> usize {
    if bytes.iter().all(|b| is_plain(*b)) {
        return place_in_unreadable(bytes, byte);
    }
    let decoded = undo_escapes(bytes);
    let place = match charset.decode(&decoded) {
        Some(text) => {
            let pieces = text.chars().map(|c| match c {
                '\0' => (1, 0),
                c => (1, c.len_utf8()),
            });
            place_before_decoding(pieces, byte)
        }
        None => place_in_unreadable(&decoded, byte),
    };
    place_before_decoding(escapes(bytes), place)
}

/// A byte, or an escape that stands for one.
fn escapes(bytes: &[u8]) -> impl Iterator<Item = Piece> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let taken = match rest {
            [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => 3,
            [_, ..] => 1,
            [] => return None,
        };
        rest = rest.get(taken..).unwrap_or_default();
        Some((taken, 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x1b_a_place_in_a_forms_text_is_one_in_the_form() {
        for (bytes, charset, places) in [
            (
                &b"a%20+%c3%A9%4x%00b"[..],
                Charset::Utf8,
                &[0, 1, 4, 5, 11, 12, 13, 17][..],
            ),
            (b"\xFFa%FFb", Charset::Utf8, &[0, 1, 2, 5]),
            (b"%80a%E9%00b", Charset::Windows1252, &[0, 3, 4, 10]),
            (b"ab", Charset::Windows1252, &[0, 1]),
        ] {
            let text = decode_form_text(bytes, charset);
            let found: Vec<usize> = text
                .char_indices()
                .map(|(at, _)| place_in_form_text(bytes, charset, at))
                .collect();
            assert_eq!(found, places, "{text}");
            let end = place_in_form_text(bytes, charset, text.len());
            assert_eq!(end, bytes.len(), "{text}");
        }
    }
}
