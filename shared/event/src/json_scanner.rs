//! A scanner over JSON text: where each value begins and ends, and the digits of a number as written.
//!
//! It exists because the reader needs what a general parser hides: the byte at which a body stops
//! being JSON (X1), a number's written digits (X6, X7: no float ever sees an amount), the bytes of an
//! element of a batch (X3), invalid UTF-8 and U+0000 taken in stride (X1). It builds no tree, does not
//! recurse, and takes time linear in the text. What it accepts is what `serde_json` accepts; a
//! property test holds the two together.

use std::borrow::Cow;

/// The first byte, from 0, that cannot stand where it stands; the text's length if it ends too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    pub byte: usize,
}

/// The value at the scanner's place. Scalars are consumed, containers only entered.
#[derive(Debug, Clone, PartialEq)]
pub enum Token<'a> {
    Null,
    Bool(bool),
    /// The digits as written.
    Number(Cow<'a, str>),
    Text(Text<'a>),
    /// `{` was consumed.
    Object,
    /// `[` was consumed.
    Array,
}

/// A string's bytes between its quotes, not yet unescaped: most strings are never looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Text<'a> {
    bytes: &'a [u8],
    /// No escape, no U+0000, no byte above ASCII: the bytes are the text.
    plain: bool,
}

pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The length of the byte order mark that `bytes` open with. Those of UTF-16 count too: with its
/// U+0000 bytes dropped, UTF-16 text of ASCII characters is readable.
pub fn bom_len(bytes: &[u8]) -> usize {
    if bytes.starts_with(&[0xEF, 0xBB, 0xBF]) {
        3
    } else if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        2
    } else {
        0
    }
}

/// Without its byte order mark (X1).
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.get(bom_len(bytes)..).unwrap_or_default()
}

/// `bytes` must be one value, with at most `depth` brackets in one another, and nothing else.
pub fn check_value(bytes: &[u8], depth: usize) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(bytes);
    scanner.skip_value(depth)?;
    scanner.expect_end()
}

impl<'a> Scanner<'a> {
    /// At the start of `bytes`, after a byte order mark.
    pub fn new(bytes: &'a [u8]) -> Self {
        Scanner {
            bytes,
            at: bom_len(bytes),
        }
    }

    /// The place of the next byte to be looked at.
    pub fn position(&self) -> usize {
        self.at
    }

    fn fail_here<T>(&self) -> Result<T, JsonError> {
        Err(JsonError { byte: self.at })
    }

    fn step_byte(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// The next byte that is no U+0000 (X1: they are dropped).
    #[inline]
    fn next_byte(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(0) => self.step_byte(),
                found => return found.copied(),
            }
        }
    }

    /// The next byte that is no white space.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r' | 0) => self.step_byte(),
                found => return found.copied(),
            }
        }
    }

    /// Consumes `wanted`, which must be the next significant byte.
    pub fn expect(&mut self, wanted: u8) -> Result<(), JsonError> {
        if self.peek() == Some(wanted) {
            self.step_byte();
            Ok(())
        } else {
            self.fail_here()
        }
    }

    /// Consumes `wanted` if it is the next significant byte.
    pub fn consume(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.step_byte();
        }
        found
    }

    /// Nothing but white space may be left.
    pub fn expect_end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fail_here(),
        }
    }

    /// The value that comes next.
    pub fn token(&mut self) -> Result<Token<'a>, JsonError> {
        match self.peek() {
            Some(b'{') => {
                self.step_byte();
                Ok(Token::Object)
            }
            Some(b'[') => {
                self.step_byte();
                Ok(Token::Array)
            }
            Some(b'"') => self.text().map(Token::Text),
            Some(b'-' | b'0'..=b'9') => self.read_number().map(Token::Number),
            Some(b't') => self.expect_word(b"true").map(|()| Token::Bool(true)),
            Some(b'f') => self.expect_word(b"false").map(|()| Token::Bool(false)),
            Some(b'n') => self.expect_word(b"null").map(|()| Token::Null),
            _ => self.fail_here(),
        }
    }

    /// A string, which must come next.
    pub fn text(&mut self) -> Result<Text<'a>, JsonError> {
        self.expect(b'"')?;
        let start = self.at;
        let mut plain = true;
        loop {
            // Most of a string is plain; this run is where the scanner's time goes.
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let run = rest
                .iter()
                .position(|b| !matches!(b, b' ' | b'!' | b'#'..=b'[' | b']'..=0x7F));
            self.at = self.at.saturating_add(run.unwrap_or(rest.len()));
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let bytes = self.bytes.get(start..self.at).unwrap_or_default();
                    self.step_byte();
                    return Ok(Text { bytes, plain });
                }
                Some(b'\\') => {
                    plain = false;
                    self.step_byte();
                    self.skip_escape()?;
                }
                Some(0 | 0x80..) => {
                    plain = false;
                    self.step_byte();
                }
                Some(0x20..) => self.step_byte(),
                Some(_) | None => return self.fail_here(),
            }
        }
    }

    /// What may follow a backslash.
    fn skip_escape(&mut self) -> Result<(), JsonError> {
        match self.next_byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.step_byte(),
            Some(b'u') => {
                self.step_byte();
                for _ in 0..4 {
                    match self.next_byte() {
                        Some(b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.step_byte(),
                        _ => return self.fail_here(),
                    }
                }
            }
            _ => return self.fail_here(),
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.next_byte(), Some(b'0'..=b'9')) {
            return self.fail_here();
        }
        while matches!(self.next_byte(), Some(b'0'..=b'9')) {
            self.step_byte();
        }
        Ok(())
    }

    fn read_number(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.at;
        if self.next_byte() == Some(b'-') {
            self.step_byte();
        }
        if self.next_byte() == Some(b'0') {
            self.step_byte();
            if matches!(self.next_byte(), Some(b'0'..=b'9')) {
                return self.fail_here();
            }
        } else {
            self.skip_digits()?;
        }
        if self.next_byte() == Some(b'.') {
            self.step_byte();
            self.skip_digits()?;
        }
        if matches!(self.next_byte(), Some(b'e' | b'E')) {
            self.step_byte();
            if matches!(self.next_byte(), Some(b'+' | b'-')) {
                self.step_byte();
            }
            self.skip_digits()?;
        }
        Ok(readable_text(
            self.bytes.get(start..self.at).unwrap_or_default(),
        ))
    }

    fn expect_word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        for &wanted in word {
            if self.next_byte() != Some(wanted) {
                return self.fail_here();
            }
            self.step_byte();
        }
        Ok(())
    }

    /// Passes over the value that comes next, which may hold at most `depth` brackets in one another;
    /// the bracket that is one too many is the byte at fault.
    pub fn skip_value(&mut self, depth: usize) -> Result<(), JsonError> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.peek();
            let place = self.at;
            let token = self.token()?;
            if matches!(token, Token::Object | Token::Array) {
                if open.len() >= depth {
                    return Err(JsonError { byte: place });
                }
                let is_object = token == Token::Object;
                let close = if is_object { b'}' } else { b']' };
                if !self.consume(close) {
                    open.push(close);
                    if is_object {
                        self.name()?;
                    }
                    continue;
                }
            }
            loop {
                let Some(&close) = open.last() else {
                    return Ok(());
                };
                if self.consume(close) {
                    open.pop();
                    continue;
                }
                self.expect(b',')?;
                if close == b'}' {
                    self.name()?;
                }
                break;
            }
        }
    }

    /// A field's name with its colon.
    pub fn name(&mut self) -> Result<Text<'a>, JsonError> {
        let name = self.text()?;
        self.expect(b':')?;
        Ok(name)
    }
}

/// UTF-8 as far as it goes: much the faster way through what is UTF-8.
pub fn lossy_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// UTF-8 as far as it goes, without U+0000 (X1).
pub fn readable_text(bytes: &[u8]) -> Cow<'_, str> {
    let text = lossy_text(bytes);
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', ""))
    } else {
        text
    }
}

/// A part of an encoded text: the bytes that it takes there, and those that it gives to the decoded one.
pub type Piece = (usize, usize);

/// The place in the encoded text of what gives the `byte`th of the decoded one; the encoded text's end if
/// none does. Linear, and only for texts that turn out not to parse.
pub fn place_before_decoding(pieces: impl Iterator<Item = Piece>, byte: usize) -> usize {
    let (mut place, mut given_before) = (0_usize, 0_usize);
    for (taken, given) in pieces {
        let given_after = given_before.saturating_add(given);
        if given_after > byte {
            break;
        }
        given_before = given_after;
        place = place.saturating_add(taken);
    }
    place
}

/// The place in `bytes` of the `byte`th of their [`readable_text`].
pub fn place_in_unreadable(bytes: &[u8], byte: usize) -> usize {
    let pieces = bytes.utf8_chunks().flat_map(|chunk| {
        let good = chunk.valid().bytes().map(|b| (1, usize::from(b != 0)));
        let bad = match chunk.invalid().len() {
            0 => None,
            taken => Some((taken, char::REPLACEMENT_CHARACTER.len_utf8())),
        };
        good.chain(bad)
    });
    place_before_decoding(pieces, byte)
}

impl<'a> Text<'a> {
    /// The bytes between the quotes.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the text opens with a bracket, and so may be JSON itself.
    #[inline]
    pub fn may_hold_json(self) -> bool {
        match self.bytes.first() {
            Some(b'{' | b'[') => true,
            Some(b' ' | b'\\' | b'\r' | b'\n' | b'\t') => {
                let opens = |b: &&u8| !matches!(b, b' ' | b'\\' | b'n' | b'r' | b't');
                matches!(self.bytes.iter().find(opens), Some(b'{' | b'['))
            }
            _ => false,
        }
    }

    /// The text that the string stands for. A lone surrogate becomes U+FFFD.
    pub fn to_text(self) -> Cow<'a, str> {
        if self.plain
            && let Ok(text) = std::str::from_utf8(self.bytes)
        {
            return Cow::Borrowed(text);
        }
        let text = readable_text(self.bytes);
        if !text.contains('\\') {
            return text;
        }
        Cow::Owned(unescape_text(&text))
    }
}

/// `text` was scanned: every escape in it is whole.
fn unescape_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut units: Vec<u16> = Vec::new();
    let mut rest = text;
    while let Some(run) = rest.bytes().position(|b| b == b'\\') {
        let (before, after) = rest.split_at(run);
        let after = after.get(1..).unwrap_or_default();
        if !before.is_empty() {
            flush_surrogates(&mut units, &mut out);
            out.push_str(before);
        }
        let mut chars = after.chars();
        let plain = match chars.next() {
            Some('u') => {
                let hex = after.get(1..5).unwrap_or_default();
                units.push(u16::from_str_radix(hex, 16).unwrap_or(0xFFFD));
                rest = after.get(5..).unwrap_or_default();
                continue;
            }
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(itself) => itself,
            None => break,
        };
        flush_surrogates(&mut units, &mut out);
        out.push(plain);
        rest = chars.as_str();
    }
    flush_surrogates(&mut units, &mut out);
    out.push_str(rest);
    out
}

/// The place in `bytes`, a string's that was scanned, of the `byte`th of the text that it stands for.
pub fn place_in_escaped(bytes: &[u8], byte: usize) -> usize {
    let text = readable_text(bytes);
    let mut rest = text.as_ref();
    let pieces = std::iter::from_fn(|| {
        let piece = first_piece(rest)?;
        rest = rest.get(piece.0..).unwrap_or_default();
        Some(piece)
    });
    place_in_unreadable(bytes, place_before_decoding(pieces, byte))
}

/// The character or escape that `text` begins with; a pair of surrogates is one.
fn first_piece(text: &str) -> Option<Piece> {
    let first = text.chars().next()?;
    let Some(unit) = escaped_unit(text) else {
        // What a short escape stands for is one of ASCII.
        return Some(match first {
            '\\' => (2, 1),
            _ => (first.len_utf8(), first.len_utf8()),
        });
    };
    let next = text.get(6..).and_then(escaped_unit);
    let units = std::iter::once(unit).chain(next);
    Some(match char::decode_utf16(units).next() {
        Some(Ok('\0')) => (6, 0),
        Some(Ok(c)) => (c.len_utf16().saturating_mul(6), c.len_utf8()),
        _ => (6, char::REPLACEMENT_CHARACTER.len_utf8()),
    })
}

/// `\u0041`.
fn escaped_unit(text: &str) -> Option<u16> {
    let hex = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(hex, 16).ok()
}

/// Escaped UTF-16 units become characters once it is known that no other half follows.
fn flush_surrogates(units: &mut Vec<u16>, out: &mut String) {
    if units.is_empty() {
        return;
    }
    for found in char::decode_utf16(units.drain(..)) {
        match found {
            Ok('\0') => {}
            Ok(char) => out.push(char),
            Err(_) => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) -> Result<(), usize> {
        check_value(bytes, usize::MAX).map_err(|e| e.byte)
    }

    fn read(bytes: &[u8]) -> String {
        Scanner::new(bytes)
            .text()
            .expect("a string")
            .to_text()
            .into()
    }

    #[test]
    fn x1_the_first_bad_byte_is_named() {
        for (text, byte) in [
            (&b"{\"a\":1"[..], 6),
            (b"{\"a\" 1}", 5),
            (b"{\"a\":01}", 6),
            (b"{\"a\":1,}", 7),
            (b"{a:1}", 1),
            (b"{\"a\":.5}", 5),
            (b"{\"a\":NaN}", 5),
            (b"{\"a\":nul}", 8),
            (b"{\"a\":\"\n\"}", 6),
            (b"{\"a\":\"\\x\"}", 7),
            (b"{} {}", 3),
            (b"\xEF\xBB\xBF{]", 4),
            (b"[1 2]", 3),
            (b"{\"a\":[}]}", 6),
            (b"", 0),
            (b"[", 1),
            (b"-", 1),
            (b"1.", 2),
            (b"1e+", 3),
        ] {
            assert_eq!(check(text), Err(byte), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn x1_marks_and_nulls_are_dropped_and_bad_utf8_is_borne() {
        assert_eq!(
            check(b"\xEF\xBB\xBF \0{\"a\0\":\0 1\x002, \"b\xFF\":tr\0ue}\0"),
            Ok(())
        );
        assert_eq!(check(b"\xFF\xFE{\0\"\0a\0\"\0:\x001\0}\0"), Ok(()));
        assert_eq!(read(b"\"a\0b\xFFc\""), "ab\u{FFFD}c");
    }

    #[test]
    fn escapes_are_read_and_a_lone_surrogate_is_replaced() {
        assert_eq!(read(br#""\u002B1\t\"\\\/""#), "+1\t\"\\/");
        assert_eq!(read(br#""\ud83d\ude00!""#), "\u{1F600}!");
        assert_eq!(read(br#""\ud83dx\ude00""#), "\u{FFFD}x\u{FFFD}");
        assert_eq!(read(br#""a\u0000b""#), "ab");
        assert_eq!(read(br#""a\\u0041""#), "a\\u0041");
    }

    #[test]
    fn x1_a_place_in_a_text_is_one_in_the_string() {
        let string = b"{\0\\\"a\\u00e9\\u\0d83d\\ude00\\ud83dx\\u0000\xFF\\n\xC3\xA9}";
        let text = read(&[b"\"", &string[..], b"\""].concat());
        assert_eq!(text, "{\"a\u{E9}\u{1F600}\u{FFFD}x\u{FFFD}\n\u{E9}}");
        let places: Vec<usize> = text
            .char_indices()
            .map(|(at, _)| place_in_escaped(string, at))
            .collect();
        assert_eq!(places, [0, 2, 4, 5, 11, 24, 30, 37, 38, 40, 42]);
        assert_eq!(place_in_escaped(string, text.len()), string.len());
    }

    #[test]
    fn x6_a_number_keeps_its_written_digits() {
        for digits in ["0", "-0.10", "1e400", "123456789012345678901234567890.5E+7"] {
            assert_eq!(
                Scanner::new(digits.as_bytes()).token(),
                Ok(Token::Number(digits.into()))
            );
        }
    }

    #[test]
    fn x1_depth_is_bounded_by_the_bracket_that_is_one_too_many() {
        assert_eq!(Scanner::new(b"[[1]]").skip_value(2), Ok(()));
        assert_eq!(
            Scanner::new(b"[ [1]]").skip_value(1),
            Err(JsonError { byte: 2 })
        );
        let deep = "[".repeat(400_000);
        assert_eq!(check(deep.as_bytes()), Err(400_000));
    }
}
