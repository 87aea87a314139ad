//! JSON that does not parse, mended where that has one reading only (X1b).
//!
//! What is mended is what templates and other languages' printers leave behind: a value left empty, a macro
//! or a number with a plus without its quotes, a comma at the end, single quotes, names without quotes, NaN and
//! its like. What could be read in two ways is refused: a text without quotes (`12,50` may be an amount
//! or two values), a comment, a quote or comma that is missing, a body that ends too early. Nothing here makes up
//! a value: an empty one, a macro and a word for nothing become null, and the rest keeps its characters.
//!
//! It is one pass over the text, with no more recursion than brackets a report may have, and writes at most a
//! few bytes for one.

use crate::placeholders::{Absent, find_placeholder, is_null_word};
use crate::reading::note_list::NoteList;
use trueup_event::limits::JSON_DEPTH;
use trueup_event::reason::ReadingNote;

/// Bytes of a macro without quotes; a longer run is a text that lost its quotes.
const MACRO_BYTES: usize = 200;

/// JSON in place of what was no JSON, and what was done.
#[derive(Debug, PartialEq)]
pub(super) struct Mended {
    pub text: String,
    pub notes: NoteList,
}

/// There is no single reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotMendable;

/// `bytes` are UTF-8.
pub(super) fn mend_json(bytes: &[u8]) -> Result<Mended, NotMendable> {
    let text = std::str::from_utf8(bytes).map_err(|_| NotMendable)?;
    let mut mender = Mender::new(text, 0);
    mender.mend_text()?;
    if mender.notes != NoteList::default() {
        mender.notes.add(ReadingNote::Mended);
    }
    Ok(Mended {
        text: mender.out,
        notes: mender.notes,
    })
}

/// The place in `bytes` of the `byte`th of what [`mend_json`] makes of them: in a string, which is where a
/// report may stand, or else the beginning of the piece.
pub(super) fn place_in_unmended(bytes: &[u8], byte: usize) -> usize {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let mut mender = Mender::new(text, byte);
    let is_mended = mender.mend_text().is_ok();
    let (before, given_before) = mender.mark;
    let place = before.saturating_add(byte.saturating_sub(given_before));
    if is_mended { place.min(bytes.len()) } else { 0 }
}

struct Mender<'t> {
    text: &'t str,
    rest: &'t str,
    out: String,
    notes: NoteList,
    /// The brackets that are to be closed.
    open: Vec<char>,
    /// The byte of the mended text whose place is wanted, and the last place before it from which on the text is
    /// copied, with the mended text's length there.
    wanted: usize,
    mark: (usize, usize),
}

impl<'t> Mender<'t> {
    fn new(text: &'t str, wanted: usize) -> Self {
        Mender {
            text,
            rest: text,
            out: String::with_capacity(text.len()),
            notes: NoteList::default(),
            open: Vec::new(),
            wanted,
            mark: (0, 0),
        }
    }

    fn mend_text(&mut self) -> Result<(), NotMendable> {
        self.mend_value()?;
        while let Some(&close) = self.open.last() {
            self.mend_next(close)?;
        }
        self.skip_blanks();
        match self.rest {
            "" => Ok(()),
            _ => Err(NotMendable),
        }
    }

    /// What stands `ahead` bytes on is next.
    fn mark_place(&mut self, ahead: usize) {
        if self.out.len() <= self.wanted {
            let before = self.text.len().saturating_sub(self.rest.len());
            self.mark = (before.saturating_add(ahead), self.out.len());
        }
    }

    fn skip_blanks(&mut self) {
        let is_blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
        let blanks = self.rest.as_bytes().iter().take_while(|b| is_blank(b));
        self.rest = self.rest.get(blanks.count()..).unwrap_or_default();
    }

    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.rest.chars().next()
    }

    fn consume(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = self.rest.strip_prefix(wanted).unwrap_or_default();
        }
        found
    }

    /// The first `len` bytes of what is left.
    fn take_bytes(&mut self, len: usize) -> Result<&'t str, NotMendable> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(NotMendable)?;
        self.rest = tail;
        Ok(head)
    }

    /// What follows a value inside the bracket that `close` closes.
    fn mend_next(&mut self, close: char) -> Result<(), NotMendable> {
        if self.consume(close) {
            self.close_bracket(close);
            return Ok(());
        }
        if !self.consume(',') {
            return Err(NotMendable);
        }
        if self.consume(close) {
            self.notes.add(ReadingNote::TrailingComma);
            self.close_bracket(close);
            return Ok(());
        }
        self.out.push(',');
        self.mend_item(close)
    }

    fn close_bracket(&mut self, close: char) {
        self.out.push(close);
        self.open.pop();
    }

    /// An element of a list, or a name and its value.
    fn mend_item(&mut self, close: char) -> Result<(), NotMendable> {
        if close == '}' {
            self.mend_name()?;
            if !self.consume(':') {
                return Err(NotMendable);
            }
            self.out.push(':');
            // What a template left empty (`"payout": ,`).
            if matches!(self.peek(), Some(',' | '}')) {
                self.notes.add(ReadingNote::EmptyValue);
                self.out.push_str("null");
                return Ok(());
            }
        }
        self.mend_value()
    }

    fn mend_name(&mut self) -> Result<(), NotMendable> {
        match self.peek() {
            Some('"') => self.copy_string(),
            Some('\'') => self.requote_string(),
            Some(c) if is_name_start(c) => {
                let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
                let end = self.rest.find(|c| !is_part(c)).ok_or(NotMendable)?;
                let name = self.take_bytes(end)?;
                self.notes.add(ReadingNote::BareName);
                self.out.push('"');
                self.out.push_str(name);
                self.out.push('"');
                Ok(())
            }
            _ => Err(NotMendable),
        }
    }

    /// A value; of a container only the beginning.
    fn mend_value(&mut self) -> Result<(), NotMendable> {
        let first = self.peek().ok_or(NotMendable)?;
        self.mark_place(0);
        match first {
            '"' => self.copy_string(),
            '\'' => self.requote_string(),
            '{' | '[' | '$' | '#' | '%' | '<' | '-' if self.take_macro() => Ok(()),
            '{' => self.open_bracket('{', '}'),
            '[' => self.open_bracket('[', ']'),
            '-' | '0'..='9' => self.copy_number(),
            '+' => self.quote_plus_number(),
            _ => self.mend_word(),
        }
    }

    fn open_bracket(&mut self, open: char, close: char) -> Result<(), NotMendable> {
        if self.open.len() >= JSON_DEPTH {
            return Err(NotMendable);
        }
        self.consume(open);
        self.out.push(open);
        self.open.push(close);
        if self.consume(close) {
            self.close_bracket(close);
            return Ok(());
        }
        self.mend_item(close)
    }

    /// A macro that stands where a value should (`"payout": [payout]`): nothing was filled in (X4).
    fn take_macro(&mut self) -> bool {
        let Some(len) = macro_len(self.rest) else {
            return false;
        };
        let (found, tail) = self.rest.split_at_checked(len).unwrap_or_default();
        let ends = tail.trim_start().starts_with([',', '}', ']']);
        let is_list = matches!(found, "[true]" | "[false]" | "[null]");
        if !ends || is_list || find_placeholder(found) != Some(Absent::Macro) {
            return false;
        }
        self.rest = tail;
        self.notes.add(ReadingNote::BareMacro);
        self.out.push_str("null");
        true
    }

    /// A string in double quotes stands as it is.
    fn copy_string(&mut self) -> Result<(), NotMendable> {
        let mut escaped = false;
        for (at, b) in self.rest.bytes().enumerate().skip(1) {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    let text = self.take_bytes(at.saturating_add(1))?;
                    self.out.push_str(text);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(NotMendable)
    }

    /// `'text'`, in which a double quote gets its escape and a single one loses it. An apostrophe in it ends
    /// it, and what then follows fits nothing.
    fn requote_string(&mut self) -> Result<(), NotMendable> {
        self.notes.add(ReadingNote::SingleQuotes);
        self.out.push('"');
        let mut at: usize = 1;
        loop {
            let rest = self.rest.get(at..).ok_or(NotMendable)?;
            let is_special = |b: u8| matches!(b, b'\'' | b'"' | b'\\');
            let run = rest.bytes().position(is_special).ok_or(NotMendable)?;
            let (plain, special) = rest.split_at(run);
            self.out.push_str(plain);
            at = at.saturating_add(run);
            match special.as_bytes() {
                [b'\'', ..] => {
                    self.take_bytes(at.saturating_add(1))?;
                    self.out.push('"');
                    return Ok(());
                }
                [b'"', ..] => {
                    self.out.push_str("\\\"");
                    at = at.saturating_add(1);
                    self.mark_place(at);
                }
                [_, b'\'', ..] => {
                    self.out.push('\'');
                    at = at.saturating_add(2);
                    self.mark_place(at);
                }
                _ => {
                    let escape = special.chars().nth(1).ok_or(NotMendable)?;
                    self.out.extend(['\\', escape]);
                    at = at.saturating_add(escape.len_utf8()).saturating_add(1);
                }
            }
        }
    }

    /// The run of characters that could be a number's. Whether they are one, the scanner says afterwards.
    fn copy_number(&mut self) -> Result<(), NotMendable> {
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_part(c)).ok_or(NotMendable)?;
        if self.rest.get(..end) == Some("-") {
            return self.mend_word();
        }
        let number = self.take_bytes(end)?;
        self.out.push_str(number);
        Ok(())
    }

    /// `+1305…`: digits with a plus, which a caller needs, so they become a text.
    fn quote_plus_number(&mut self) -> Result<(), NotMendable> {
        let digits = self.rest.get(1..).unwrap_or_default();
        let is_part = |c: char| c.is_ascii_digit() || c == '.';
        let end = digits.find(|c| !is_part(c)).ok_or(NotMendable)?;
        let number = digits.get(..end).unwrap_or_default();
        let has_digits = number.starts_with(|c: char| c.is_ascii_digit())
            && number.ends_with(|c: char| c.is_ascii_digit())
            && number.matches('.').count() <= 1;
        if !has_digits {
            return Err(NotMendable);
        }
        let text = self.take_bytes(end.saturating_add(1))?;
        self.notes.add(ReadingNote::PlusSign);
        self.out.push('"');
        self.out.push_str(text);
        self.out.push('"');
        Ok(())
    }

    /// JSON's own words, those of other languages, and the words for nothing (X4). Any other is a text without
    /// its quotes.
    fn mend_word(&mut self) -> Result<(), NotMendable> {
        let end = self.rest.find([',', '}', ']']).ok_or(NotMendable)?;
        let word = self.rest.get(..end).unwrap_or_default();
        let word = word.trim_end_matches([' ', '\t', '\r', '\n']);
        let json = match word {
            "true" | "false" | "null" => word,
            "True" | "TRUE" => "true",
            "False" | "FALSE" => "false",
            _ if is_null_word(word) || is_infinity(word) => "null",
            _ => return Err(NotMendable),
        };
        if json != word {
            self.notes.add(ReadingNote::BareWord);
        }
        self.out.push_str(json);
        self.take_bytes(word.len()).map(|_| ())
    }
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$')
}

/// What a division by zero leaves.
fn is_infinity(word: &str) -> bool {
    let word = word.strip_prefix(['-', '+']).unwrap_or(word);
    word == "Infinity"
}

/// The length of the macro that `text` begins with, in whatever dialect; it holds no quote, comma or line's
/// end.
fn macro_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let bytes = bytes.get(..MACRO_BYTES).unwrap_or(bytes);
    let rest = match bytes {
        [b'$', rest @ ..] => rest,
        all => all,
    };
    let sign = bytes.len().saturating_sub(rest.len());
    let end = match rest {
        [b'{', b'{', ..] => end_of(rest, b"}}"),
        [b'[', b'[', ..] => end_of(rest, b"]]"),
        // A colon could part a name from a value.
        [b'{', inner @ ..] => end_of(rest, b"}").filter(|end| {
            let inner = inner.get(..end.saturating_sub(2)).unwrap_or_default();
            !inner.contains(&b':')
        }),
        [b'[', ..] => end_of(rest, b"]"),
        [b'<', ..] => end_of(rest, b">"),
        [b'-', b'-', b'A', b'-', b'-', ..] => end_of(rest, b"--B--"),
        [b'#', b'#', inner @ ..] => end_of(inner, b"##").and_then(|end| end.checked_add(2)),
        [mark @ (b'#' | b'%'), inner @ ..] if sign == 0 => {
            end_of(inner, &[*mark]).and_then(|end| end.checked_add(1))
        }
        _ => None,
    }?;
    let len = end.checked_add(sign)?;
    let is_plain = |b: &u8| !matches!(b, b'"' | b'\'' | b',' | b'\n' | b'\r' | b'\\');
    bytes.get(..len)?.iter().all(is_plain).then_some(len)
}

/// Where `close` ends.
fn end_of(bytes: &[u8], close: &[u8]) -> Option<usize> {
    bytes
        .windows(close.len())
        .position(|part| part == close)
        .and_then(|at| at.checked_add(close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(text: &str) -> Option<String> {
        mend_json(text.as_bytes()).ok().map(|mended| mended.text)
    }

    #[test]
    fn x1b_what_has_one_reading_is_mended() {
        for (text, want) in [
            ("{\"a\": ,\"b\":}", "{\"a\":null,\"b\":null}"),
            ("{\"a\": [a], \"b\": {b} }", "{\"a\":null,\"b\":null}"),
            ("{\"a\":[[a]],\"b\":{{ b }}}", "{\"a\":null,\"b\":null}"),
            (
                "{\"a\":${a},\"b\":#b#,\"c\":##c##}",
                "{\"a\":null,\"b\":null,\"c\":null}",
            ),
            (
                "{\"a\":%a%,\"b\":<b>,\"c\":--A--c--B--}",
                "{\"a\":null,\"b\":null,\"c\":null}",
            ),
            (
                "{\"a\":[tag:User:a],\"b\":{{1.b}}}",
                "{\"a\":null,\"b\":null}",
            ),
            (
                "{\"a\":+1305,\"b\":+1.5}",
                "{\"a\":\"+1305\",\"b\":\"+1.5\"}",
            ),
            ("{\"a\":1,}", "{\"a\":1}"),
            ("[{\"a\":[1,2,],},]", "[{\"a\":[1,2]}]"),
            ("{'a':'b \"c\" \\'d\\''}", "{\"a\":\"b \\\"c\\\" 'd'\"}"),
            ("{a:1,b-c:\"d\",$e:2}", "{\"a\":1,\"b-c\":\"d\",\"$e\":2}"),
            (
                "{\"a\":NaN,\"b\":-Infinity,\"c\":undefined,\"d\":None}",
                "{\"a\":null,\"b\":null,\"c\":null,\"d\":null}",
            ),
            (
                "{'a': True, 'b': FALSE, 'c': -}",
                "{\"a\":true,\"b\":false,\"c\":null}",
            ),
        ] {
            assert_eq!(mend(text).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn x1b_a_place_in_the_mended_text_is_one_in_the_other() {
        let text = "{ a: +1, 'b' : 'c\\'d\"e' , \"f\": [x], g: \"h\",}";
        let mended = mend(text).expect("one reading");
        assert_eq!(mended, r#"{"a":"+1","b":"c'd\"e","f":null,"g":"h"}"#);
        for (piece, place) in [
            ("c", 16),
            ("'d", 17),
            ("d", 19),
            ("\\\"e", 20),
            ("e", 21),
            ("null", 31),
            ("h", 40),
        ] {
            let byte = mended.find(piece).expect(piece);
            assert_eq!(place_in_unmended(text.as_bytes(), byte), place, "{piece}");
        }
        assert_eq!(place_in_unmended(b"{\"a\" 1}", 3), 0);
    }

    #[test]
    fn x1b_what_could_be_read_in_two_ways_is_left() {
        for text in [
            // A text without quotes, or an amount and something.
            "{payout: 12,50}",
            "{\"payout\": 1,250.00}",
            "{\"payout\": 12.50 USD}",
            "{\"payout\": $50}",
            "{\"ref_id\": abc}",
            "{\"caller\": +1 305 555 0142}",
            "{\"caller\": +1305-555}",
            "{\"call_id\": {0b8c2c3e-6a2e-4a4e-9d55-0d6a2f4f1c11}}",
            "{a:b}",
            "{\"a\":{b:c}}",
            "{\"a\":[b,c]}",
            "{\"a\":[b]x}",
            "{\"a\":50{{b}}}",
            // A quote, a comma or a colon that is missing, and one too many.
            "{'a':'it's','b':1}",
            "{\"a\":\"b \"c\" d\"}",
            "{\"a\":1 \"b\":2}",
            "{\"a\" 1}",
            "{\"a\":1,,\"b\":2}",
            "{,\"a\":1}",
            "{\"a\":\"b}",
            "{'a':'b}",
            // Comments, two texts, a text that ends too early.
            "{\"a\":1 // b\n}",
            "{\"a\":1 /* b */}",
            "{\"a\":1}{\"a\":2}",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":",
            "[{\"a\":1}",
            "",
            "{",
        ] {
            assert_eq!(mend(text), None, "{text}");
        }
    }
}
