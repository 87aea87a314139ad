//! Digits of any script, and full-width signs, as those of ASCII (X7, X8, X9).
//!
//! It maps one character to one and decides nothing about what a text means. Ids never come through here:
//! they are kept as they were sent (X6).

use std::borrow::Cow;

/// The zero of each script beside ASCII's (Unicode 16, `Nd`); its other nine digits follow it.
const ZEROS: [u32; 75] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6,
    0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50,
    0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
    0x104A0, 0x10D30, 0x10D40, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0,
    0x11650, 0x116C0, 0x116D0, 0x116DA, 0x11730, 0x118E0, 0x11950, 0x11BF0, 0x11C50, 0x11D50,
    0x11DA0, 0x11F50, 0x16130, 0x16A60, 0x16AC0, 0x16B50, 0x16D70, 0x1CCF0, 0x1D7CE, 0x1D7D8,
    0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E4F0, 0x1E5F1, 0x1E950, 0x1FBF0,
];

/// Full-width `!` to `~`, which stand for ASCII's.
const FULL_WIDTH: std::ops::RangeInclusive<u32> = 0xFF01..=0xFF5E;
const FULL_WIDTH_OFFSET: u32 = 0xFEE0;

/// `c`, or the ASCII character that it is another form of. Arabic's separators are a point, and a space
/// between groups.
pub(crate) fn ascii_form(c: char) -> char {
    let code = u32::from(c);
    if code < 0x80 {
        return c;
    }
    if FULL_WIDTH.contains(&code) {
        return code
            .checked_sub(FULL_WIDTH_OFFSET)
            .and_then(char::from_u32)
            .unwrap_or(c);
    }
    match c {
        '\u{66B}' => return '.',
        '\u{66C}' => return '\u{A0}',
        _ => {}
    }
    let below = ZEROS.partition_point(|zero| *zero <= code);
    below
        .checked_sub(1)
        .and_then(|at| ZEROS.get(at))
        .and_then(|zero| code.checked_sub(*zero))
        .and_then(|digit| char::from_digit(digit, 10))
        .unwrap_or(c)
}

/// `text` in the forms of ASCII; nearly every text is so already.
pub(crate) fn in_ascii_form(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().map(ascii_form).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x7_every_scripts_digits_are_digits() {
        assert!(ZEROS.is_sorted());
        for zero in ZEROS {
            for digit in 0..10 {
                let c = char::from_u32(zero + digit).expect("a character");
                let want = char::from_digit(digit, 10).expect("a digit");
                assert!(c.is_numeric() || zero > 0x1_0D00, "{c:?}");
                assert_eq!(ascii_form(c), want, "{c:?}");
            }
        }
        assert_eq!(
            in_ascii_form("\u{661}\u{6F2}\u{967}\u{FF14}\u{1D7D9}\u{66B}5"),
            "12141.5"
        );
    }

    #[test]
    fn x7_nothing_else_is_a_digit() {
        for text in [
            "\u{B2}", "\u{2160}", "\u{2460}", "\u{4E00}", "\u{BD}", "\u{E9}", "x",
        ] {
            assert_eq!(in_ascii_form(text), text);
        }
    }
}
