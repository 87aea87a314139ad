//! Bodies that are not UTF-8 (X1b): UTF-16 by its byte order mark or its name, Windows-1252 and Latin-1 by
//! their names.
//!
//! A name is believed only as far as the bytes allow: "UTF-16" over bytes of one each is a sender's
//! mistake. Nothing is guessed from the bytes alone, and no other encoding is read.

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::text::find_ignoring_case;
use trueup_event::json_scanner::bom_len;
use trueup_event::reason::ReadingNote;

/// Bytes of an XML declaration in which its encoding is looked for.
const DECLARATION_BYTES: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Charset {
    #[default]
    Utf8,
    Utf16Le,
    Utf16Be,
    Windows1252,
}

impl Charset {
    /// What a body is written in. Nearly every one has no mark and names nothing.
    pub fn of_body(bytes: &[u8], content_type: Option<&str>) -> Charset {
        match bytes {
            [0xFF, 0xFE, ..] => return Charset::Utf16Le,
            [0xFE, 0xFF, ..] => return Charset::Utf16Be,
            [0xEF, 0xBB, 0xBF, ..] => return Charset::Utf8,
            _ => {}
        }
        let named = content_type
            .filter(|text| text.contains('='))
            .and_then(|text| label_after(text, "charset"));
        match named {
            Some(label) => Charset::of_label(label, bytes),
            None if bytes.starts_with(b"<?xml") => {
                let head = bytes.get(..DECLARATION_BYTES).unwrap_or(bytes);
                let head = head.split(|b| *b == b'>').next().unwrap_or_default();
                let head = std::str::from_utf8(head).unwrap_or_default();
                label_after(head, "encoding").map_or(Charset::Utf8, |l| Charset::of_label(l, bytes))
            }
            None => Charset::Utf8,
        }
    }

    fn of_label(label: &str, bytes: &[u8]) -> Charset {
        // The web's list takes ASCII for Windows-1252; senders who say ASCII mean UTF-8 or know nothing.
        if find_ignoring_case(label, "ascii").is_some() {
            return Charset::Utf8;
        }
        match Encoding::for_label(label.as_bytes()) {
            Some(encoding) if encoding == WINDOWS_1252 => Charset::Windows1252,
            Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => match bytes {
                [0, ..] => Charset::Utf16Be,
                [_, 0, ..] => Charset::Utf16Le,
                _ => Charset::Utf8,
            },
            _ => Charset::Utf8,
        }
    }

    fn encoding(self) -> Option<&'static Encoding> {
        match self {
            Charset::Utf8 => None,
            Charset::Utf16Le => Some(UTF_16LE),
            Charset::Utf16Be => Some(UTF_16BE),
            Charset::Windows1252 => Some(WINDOWS_1252),
        }
    }

    /// The text, if it is not as good as UTF-8 as it stands. What is no character becomes U+FFFD.
    pub fn decode(self, bytes: &[u8]) -> Option<String> {
        let encoding = self.encoding()?;
        if self == Charset::Windows1252 && bytes.is_ascii() {
            return None;
        }
        let (text, _) = encoding.decode_with_bom_removal(bytes);
        let mut text = text.into_owned();
        // An element that was cut out of a batch ends at its bracket's first byte.
        if bytes.len() % 2 == 1 && self == Charset::Utf16Le && text.ends_with('\u{FFFD}') {
            text.pop();
            text.extend(bytes.last().map(|b| char::from(*b)));
        }
        Some(text)
    }

    pub fn note(self) -> Option<ReadingNote> {
        match self {
            Charset::Utf8 => None,
            Charset::Utf16Le | Charset::Utf16Be => Some(ReadingNote::Utf16),
            Charset::Windows1252 => Some(ReadingNote::Windows1252),
        }
    }

    /// The place in the bytes that were sent of the `byte`th of the decoded text.
    pub fn place_in_bytes(self, sent: &[u8], text: &str, byte: usize) -> usize {
        let before = text.get(..byte).unwrap_or(text);
        let place = match self {
            Charset::Utf8 => byte,
            Charset::Windows1252 => before.chars().count(),
            Charset::Utf16Le | Charset::Utf16Be => before
                .encode_utf16()
                .count()
                .saturating_mul(2)
                .saturating_add(bom_len(sent)),
        };
        place.min(sent.len())
    }
}

/// The value of `name=value` or `name="value"`.
fn label_after<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let at = find_ignoring_case(text, name)?;
    let rest = text.get(at.checked_add(name.len())?..)?;
    let value = rest.trim_start().strip_prefix('=')?.trim_start();
    let quotes = ['"', '\''];
    let value = value.trim_start_matches(quotes);
    value
        .split(|c: char| quotes.contains(&c) || c == ';' || c.is_whitespace())
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x1b_a_name_is_believed_as_far_as_the_bytes_allow() {
        let of = |bytes: &[u8], content_type| Charset::of_body(bytes, Some(content_type));
        for (bytes, content_type, want) in [
            (&b"{"[..], "application/json", Charset::Utf8),
            (b"{", "application/json; charset=UTF-8", Charset::Utf8),
            (
                b"{",
                "text/plain; Charset=\"Windows-1252\"",
                Charset::Windows1252,
            ),
            (
                b"{",
                "text/plain;charset=ISO-8859-1; x=y",
                Charset::Windows1252,
            ),
            (b"{", "text/plain; charset=latin1", Charset::Windows1252),
            (b"{", "text/plain; charset=us-ascii", Charset::Utf8),
            (b"{", "text/plain; charset=koi8-r", Charset::Utf8),
            (b"{}", "text/plain; charset=utf-16", Charset::Utf8),
            (b"{\0}\0", "text/plain; charset=utf-16", Charset::Utf16Le),
            (b"\0{\0}", "text/plain; charset=utf-16", Charset::Utf16Be),
            (
                b"\xEF\xBB\xBF{",
                "text/plain; charset=latin1",
                Charset::Utf8,
            ),
            (
                b"\xFE\xFF\0{",
                "text/plain; charset=latin1",
                Charset::Utf16Be,
            ),
            (
                b"<?xml version='1.0' encoding='ISO-8859-1'?>",
                "text/xml",
                Charset::Windows1252,
            ),
            (
                b"<?xml version='1.0' encoding='utf-16'?>",
                "text/xml",
                Charset::Utf8,
            ),
        ] {
            assert_eq!(of(bytes, content_type), want, "{content_type}");
        }
    }

    #[test]
    fn x1b_a_place_is_told_in_the_bytes_that_were_sent() {
        let sent = b"\xFF\xFE{\0\xE9\0x\0";
        let charset = Charset::of_body(sent, None);
        let text = charset.decode(sent).expect("no UTF-8");
        assert_eq!(text, "{\u{E9}x");
        assert_eq!(charset.place_in_bytes(sent, &text, 3), 6);
        assert_eq!(charset.place_in_bytes(sent, &text, 4), 8);
        let text = Charset::Windows1252.decode(b"\x80\xE9x").expect("no UTF-8");
        assert_eq!(text, "\u{20AC}\u{E9}x");
        assert_eq!(
            Charset::Windows1252.place_in_bytes(b"\x80\xE9x", &text, 5),
            2
        );
    }
}
