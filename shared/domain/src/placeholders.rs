//! A value that says nothing (X4): blank, a word for null, a macro that its sender never filled in, or a
//! placeholder that somebody forgot to replace.
//!
//! Absent is not unreadable: an absent payout means that nothing was said about money, an unreadable
//! one that something was said which must not be guessed at.

use crate::text::{is_blank_char, starts_with_ignoring_case, trim_text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    Blank,
    NullWord,
    Macro,
    Placeholder,
}

impl Absent {
    pub const fn why(self) -> &'static str {
        match self {
            Absent::Blank => "blank",
            Absent::NullWord => "null word",
            Absent::Macro => "unresolved macro",
            Absent::Placeholder => "template's placeholder",
        }
    }
}

/// Why `text` says nothing, if it says nothing.
pub(crate) fn find_placeholder(text: &str) -> Option<Absent> {
    let text = trim_text(text);
    if text.is_empty() {
        return Some(Absent::Blank);
    }
    // Nearly every value ends here: it opens like a number or an id, and bears no bracket.
    if is_null_word(text) {
        return Some(Absent::NullWord);
    }
    if is_placeholder(text) {
        return Some(Absent::Placeholder);
    }
    let suspicious = |b: u8| matches!(b, b'[' | b'{' | b'<' | b'#' | b'%' | b'-' | b'&');
    if text.bytes().any(suspicious) && (holds_macro(text) || holds_escaped_macro(text)) {
        return Some(Absent::Macro);
    }
    None
}

pub(crate) fn is_null_word(text: &str) -> bool {
    let is = |word| text.eq_ignore_ascii_case(word);
    match text.len() {
        1 => text == "-",
        3 => is("nan") || is("n/a"),
        4 => is("null") || is("none"),
        6 => is("(null)"),
        9 => is("undefined"),
        _ => false,
    }
}

fn is_placeholder(text: &str) -> bool {
    match text.len() {
        7 | 8 | 10.. => {
            text.eq_ignore_ascii_case("REPLACE")
                || text.eq_ignore_ascii_case("OPTIONAL")
                || text.eq_ignore_ascii_case("TRANSACTION_ID")
                || starts_with_ignoring_case(text, "REPLACE_ME")
        }
        _ => false,
    }
}

/// The text of a UUID in braces: an id, and no macro. More than one pair happens where a template put
/// its own around them.
pub(crate) fn without_braces(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    if is_uuid(inner) {
        return Some(inner);
    }
    let inner = inner.strip_prefix('{')?.strip_suffix('}')?;
    is_uuid(inner).then_some(inner)
}

fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && uuid::Uuid::try_parse(text).is_ok()
}

/// Any of the dialects' macros, anywhere in the text.
fn holds_macro(text: &str) -> bool {
    // `[x]`, `[tag:A:B]`, `[[x]]`
    is_between(text, '[', ']', |x| x.contains(char::is_alphabetic))
        // `{x}`, `${x}`, `{{x}}`
        || is_between(text, '{', '}', |x| !trim_text(x).is_empty() && !is_uuid(x))
        // `<x>`, but not the address in `Bob <sip:…>`
        || is_between(text, '<', '>', is_tag)
        || is_marked(text, '#')
        || (is_marked(text, '%') && !is_all_escapes(text))
        // `--A--x--B--`
        || text
            .split_once("--A--")
            .is_some_and(|(_, rest)| rest.contains("--B--"))
}

/// Whether any innermost pair of the brackets holds what `is_macro` accepts.
fn is_between(text: &str, open: char, close: char, is_macro: impl Fn(&str) -> bool) -> bool {
    let mut start = None;
    for (at, c) in text.char_indices() {
        if c == open {
            start = at.checked_add(1);
        } else if c == close {
            let inside = start.take().and_then(|start| text.get(start..at));
            if inside.is_some_and(&is_macro) {
                return true;
            }
        }
    }
    false
}

fn is_tag(x: &str) -> bool {
    let name = x.trim_matches(|c: char| is_blank_char(c) || c == '/');
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !name.contains(['@', '+'])
        && !["sip:", "sips:", "tel:"]
            .iter()
            .any(|scheme| starts_with_ignoring_case(name, scheme))
}

/// `#x#` and `%x%`: a name between two of the same mark.
fn is_marked(text: &str, mark: char) -> bool {
    let mut parts = text.split(mark);
    parts.next();
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let closed = parts.peek().is_some();
        let name = part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'));
        if closed && name {
            return true;
        }
    }
    false
}

/// Every `%` opens an escape that was left over: `%C3%A9` is an é and no macro.
fn is_all_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|part| {
        let hex = part.as_bytes().get(..2);
        hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    })
}

/// A macro whose brackets were escaped once more: `%5Bx%5D`, `&lt;x&gt;`.
fn holds_escaped_macro(text: &str) -> bool {
    if text.contains("&lt;") || text.contains("&#60;") {
        let plain = text
            .replace("&lt;", "<")
            .replace("&#60;", "<")
            .replace("&gt;", ">")
            .replace("&#62;", ">");
        return holds_macro(&plain);
    }
    text.contains('%') && is_all_escapes(text) && {
        let once = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        // What is left of the escapes after one round is a `%` of its own; only brackets count here.
        holds_macro(&once.replace(['%', '#'], ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x4_every_dialects_macros_are_absent() {
        for text in [
            "[Call:ConversionPayout]",
            "[tag:User:ref_id]",
            "[[payout]]",
            "[x]",
            "pre-[x]-post",
            "{payout}",
            "{click_id}_7",
            "{ payout }",
            "{0}",
            "${payout}",
            "{{payout}}",
            "{{1.payout}}",
            "{{ call.payout | default }}",
            "#payout#",
            "##payout##",
            "#s1.sub#",
            "%payout%",
            "%call_id%",
            "%date%",
            "a%sub_id%b",
            "--A--phone_number--B--",
            "x--A--y--B--z",
            "<payout>",
            "<call id>",
            "&lt;payout&gt;",
            "%5Bpayout%5D",
            "%7Bpayout%7D",
            "%7b%7bpayout%7d%7d",
            "%3Cpayout%3E",
        ] {
            assert_eq!(find_placeholder(text), Some(Absent::Macro), "{text}");
        }
    }

    #[test]
    fn x4_null_words_blanks_and_placeholders_are_absent() {
        for text in ["", "  ", "\t\r\n", "\u{200B}\u{FEFF}", "\u{A0}"] {
            assert_eq!(find_placeholder(text), Some(Absent::Blank), "{text:?}");
        }
        for text in [
            "null",
            "NULL",
            "undefined",
            "Undefined",
            "none",
            "None",
            "nan",
            "NaN",
            "(null)",
            "n/a",
            "N/A",
            "-",
            " null ",
        ] {
            assert_eq!(find_placeholder(text), Some(Absent::NullWord), "{text}");
        }
        for text in [
            "REPLACE",
            "OPTIONAL",
            "REPLACE_ME",
            "REPLACE_ME_WITH_PAYOUT",
            "TRANSACTION_ID",
        ] {
            assert_eq!(find_placeholder(text), Some(Absent::Placeholder), "{text}");
        }
    }

    #[test]
    fn x4_what_only_looks_like_one_is_present() {
        for text in [
            "0",
            "-25",
            "--",
            "nullable",
            "none of it",
            "abc[1]",
            "[50]",
            "a]b[c",
            "{}",
            "{0b8c2c3e-6a2e-4a4e-9d55-0d6a2f4f1c11}",
            "{0B8C2C3E6A2E4A4E9D550D6A2F4F1C11}",
            "50%",
            "5% of 50%",
            "%2B13055550142",
            "%C3%A9t%C3%A9",
            "AB#12",
            "a#1#2",
            "#",
            "--A--",
            "a--B--",
            "a<b",
            "Bob <sip:+13055550142@10.0.0.1>",
            "<tel:3055550142>",
            "<3055550142>",
            "a&b",
            "REPLACED",
            "OPTIONALLY",
            "transaction",
        ] {
            assert_eq!(find_placeholder(text), None, "{text}");
        }
    }

    #[test]
    fn x6_braces_come_off_a_uuid_and_nothing_else() {
        let id = "0b8c2c3e-6a2e-4a4e-9d55-0d6a2f4f1c11";
        assert_eq!(without_braces(&format!("{{{id}}}")), Some(id));
        assert_eq!(without_braces(&format!("{{{{{id}}}}}")), Some(id));
        assert_eq!(without_braces(id), None);
        assert_eq!(without_braces("{abc}"), None);
        assert_eq!(without_braces("{}"), None);
    }
}
