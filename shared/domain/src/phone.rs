//! A caller's number, as E.164 (X9): the one way in which a reported caller and our own calls' callers
//! are written.
//!
//! It refuses what is nobody's number, above all the many spellings of a withheld one: without that all
//! withheld callers would become one person. It does not ask whether a number is in service, since new
//! area codes outrun any table. Nearly all traffic has the shape of the North American plan and never
//! leaves the fast path; the crate's tables say which country codes exist and what a national number
//! means elsewhere. A number with a `+` is never given to the crate with a region: it would strip
//! foreign digits (+4915123456789 becomes +495123456789 and is called valid).

use std::borrow::Cow;
use std::sync::LazyLock;

use phonenumber::country;
use phonenumber::metadata::DATABASE;

use crate::digits::ascii_form;
use crate::text::{is_blank_char, starts_with_ignoring_case};

/// Digits of the longest number (E.164), country code included.
const DIGITS_MAX: usize = 15;
/// Digits of the shortest number with its country code: Niue's are seven. Shorter ones are services.
const DIGITS_MIN: usize = 7;
/// Bytes of a text that may hold a number: a SIP address with its display name.
const TEXT_BYTES_MAX: usize = 1024;
/// Digits of an extension.
const EXTENSION_DIGITS_MAX: usize = 7;

/// Why a text is no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhoneError {
    Blank,
    /// `anonymous` and the like, also as the keypad spells them.
    Withheld,
    /// Letters, `*` or `#`: masked digits, a name, a service code.
    Letters,
    /// A second `+`, or one that is not in front.
    Plus,
    /// Characters that belong to no number.
    Characters,
    TooShort,
    TooLong,
    /// No country has these first digits, or the account's region knows no such number.
    NoSuchCountry,
}

impl PhoneError {
    pub const fn why(self) -> &'static str {
        match self {
            PhoneError::Blank => "blank",
            PhoneError::Withheld => "withheld",
            PhoneError::Letters => "letters, * or #",
            PhoneError::Plus => "a plus in the wrong place",
            PhoneError::Characters => "characters of no number",
            PhoneError::TooShort => "too few digits",
            PhoneError::TooLong => "too many digits",
            PhoneError::NoSuchCountry => "no such country code",
        }
    }
}

/// The number that `raw` means, for an account whose region (ISO 3166) governs numbers without a `+`.
pub fn normalise_caller(raw: &str, default_region: &str) -> Result<String, PhoneError> {
    let american = is_north_american(default_region);
    match normalise_fast(raw.as_bytes(), american) {
        Some(number) => Ok(number),
        None => normalise_slow(raw, default_region, american),
    }
}

/// Regions that share the country code 1.
fn is_north_american(region: &str) -> bool {
    matches!(
        region.as_bytes(),
        b"US"
            | b"CA"
            | b"PR"
            | b"AG"
            | b"AI"
            | b"AS"
            | b"BB"
            | b"BM"
            | b"BS"
            | b"DM"
            | b"DO"
            | b"GD"
            | b"GU"
            | b"JM"
            | b"KN"
            | b"KY"
            | b"LC"
            | b"MP"
            | b"MS"
            | b"SX"
            | b"TC"
            | b"TT"
            | b"VC"
            | b"VG"
            | b"VI"
    )
}

/// `[2-9]dd[2-9]dddddd`.
fn has_american_shape(ten: &[u8]) -> bool {
    ten.len() == 10
        && matches!(ten.first(), Some(b'2'..=b'9'))
        && matches!(ten.get(3), Some(b'2'..=b'9'))
}

/// What withheld callers' words spell on a keypad, where networks put a `+` before them.
fn is_keypad_word(digits: &[u8]) -> bool {
    matches!(
        digits,
        // anonymous, restricted, unavailable, unknown, blocked, private
        b"266696687" | b"7378742833" | b"86282452253" | b"8656696" | b"2562533" | b"7748483"
    )
}

/// Numbers of American shape with nothing but common punctuation; anything else is `None`.
fn normalise_fast(raw: &[u8], american: bool) -> Option<String> {
    let mut digits = [0_u8; 11];
    let mut count: usize = 0;
    let mut plus = false;
    for &byte in raw {
        match byte {
            b'0'..=b'9' => {
                *digits.get_mut(count)? = byte;
                count = count.checked_add(1)?;
            }
            b' ' | b'-' | b'(' | b')' => {}
            b'+' if !plus && count == 0 => plus = true,
            _ => return None,
        }
    }
    let digits = digits.get(..count)?;
    let ten = match (digits, plus) {
        (&[b'1', ref ten @ ..], _) if plus || american => ten,
        (ten, false) if american && !is_keypad_word(ten) => ten,
        _ => return None,
    };
    if !has_american_shape(ten) {
        return None;
    }
    let mut number = String::with_capacity(12);
    number.push_str("+1");
    number.push_str(std::str::from_utf8(ten).ok()?);
    Some(number)
}

fn normalise_slow(raw: &str, region: &str, american: bool) -> Result<String, PhoneError> {
    if raw.len() > TEXT_BYTES_MAX {
        return Err(PhoneError::TooLong);
    }
    let text = undo_escaping(raw);
    // Where a `+` was not escaped, a space stands in its place.
    let plus_was_lost = text.starts_with(' ');
    let text: String = text
        .chars()
        .filter(|c| !is_blank_char(*c))
        .map(ascii_form)
        .collect();
    let text = user_part(&text).trim_matches(['"', '\'', '`']);
    if text.is_empty() {
        return Err(PhoneError::Blank);
    }
    if is_withheld_word(text) {
        return Err(PhoneError::Withheld);
    }
    let text = without_extension(text);
    let (digits, plus) = digits_of(text)?;
    if digits.len() > DIGITS_MAX.saturating_add(3) {
        return Err(PhoneError::TooLong);
    }
    if plus {
        return with_plus(&digits);
    }
    if plus_was_lost && is_keypad_word(digits.as_bytes()) {
        return Err(PhoneError::Withheld);
    }
    if american {
        without_plus_american(&digits)
    } else {
        without_plus_elsewhere(&digits, region)
    }
}

/// Undoes escaping that was left over (`%2B1305…`), once or twice.
fn undo_escaping(raw: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(raw);
    for _ in 0..2 {
        if !text.contains('%') {
            break;
        }
        let once = percent_encoding::percent_decode_str(&text)
            .decode_utf8_lossy()
            .into_owned();
        text = Cow::Owned(once);
    }
    text
}

/// The user part of `tel:` and `sip:`, with a display name around it or not.
fn user_part(text: &str) -> &str {
    let inner = match (text.find('<'), text.rfind('>')) {
        (Some(open), Some(close)) => text.get(open.saturating_add(1)..close).unwrap_or_default(),
        _ => text,
    };
    for (scheme, ends) in [
        ("tel:", &[';', '?'][..]),
        ("sip:", &['@', ';', '?', ':']),
        ("sips:", &['@', ';', '?', ':']),
    ] {
        if starts_with_ignoring_case(inner, scheme) {
            let user = inner.get(scheme.len()..).unwrap_or_default();
            return user.split(ends).next().unwrap_or_default();
        }
    }
    inner
}

fn is_withheld_word(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return false;
    }
    let lower = text.to_ascii_lowercase();
    [
        "anonymous",
        "restricted",
        "private",
        "unavailable",
        "unknown",
        "blocked",
    ]
    .iter()
    .any(|word| lower.contains(word))
}

/// `…x12`, `…ext.12`, `…;ext=12`, `…,12`; where no number stands before it, the text as it is.
fn without_extension(text: &str) -> &str {
    let text = text.split([';', ',']).next().unwrap_or_default();
    let Some(at) = text.find(|c: char| c.is_ascii_alphabetic()) else {
        return text;
    };
    let (number, tail) = text.split_at(at);
    let tail = ["extension", "extn", "ext", "x"]
        .iter()
        .find(|word| starts_with_ignoring_case(tail, word))
        .and_then(|word| tail.get(word.len()..))
        .map(|tail| tail.trim_start_matches(['.', ':', '=', '-']));
    let digits_before = number.bytes().filter(u8::is_ascii_digit).count();
    match tail {
        Some(extension)
            if digits_before >= DIGITS_MIN
                && (1..=EXTENSION_DIGITS_MAX).contains(&extension.len())
                && extension.bytes().all(|b| b.is_ascii_digit()) =>
        {
            number
        }
        _ => text,
    }
}

/// The digits, and whether a `+` stands before them.
fn digits_of(text: &str) -> Result<(String, bool), PhoneError> {
    // A spreadsheet's number: `3055550142.0`. Its last zero would make it a Greek one.
    let text = match text.rsplit_once('.') {
        Some((whole, zeros))
            if !zeros.is_empty()
                && zeros.bytes().all(|b| b == b'0')
                && whole.bytes().all(|b| b.is_ascii_digit()) =>
        {
            whole
        }
        _ => text,
    };
    let mut digits = String::with_capacity(DIGITS_MAX);
    let mut plus = false;
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '+' if !plus && digits.is_empty() => plus = true,
            '+' => return Err(PhoneError::Plus),
            '-' | '(' | ')' | '.' | '/' | '[' | ']' | '_' | '~' => {}
            '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{30FC}' | '\u{B7}' => {}
            '*' | '#' => return Err(PhoneError::Letters),
            c if c.is_alphabetic() => return Err(PhoneError::Letters),
            _ => return Err(PhoneError::Characters),
        }
    }
    if digits.is_empty() {
        return Err(PhoneError::TooShort);
    }
    // `+44 (0)20 …`: the zero is dialled only at home.
    if plus && text.contains("(0)") {
        let before = text.split("(0)").next().unwrap_or_default();
        let at = before.bytes().filter(u8::is_ascii_digit).count();
        if (1..=3).contains(&at) {
            digits.remove(at);
        }
    }
    Ok((digits, plus))
}

/// Which of 0 to 999 are country codes; the crate's tables are asked once.
static COUNTRY_CODES: LazyLock<[bool; 1000]> = LazyLock::new(|| {
    std::array::from_fn(|code| {
        u16::try_from(code).is_ok_and(|code| code > 0 && DATABASE.by_code(&code).is_some())
    })
});

fn has_country_code(digits: &str) -> bool {
    (1..=3_usize).any(|len| {
        digits
            .get(..len)
            .filter(|head| !head.starts_with('0'))
            .and_then(|head| head.parse::<usize>().ok())
            .and_then(|code| COUNTRY_CODES.get(code))
            .is_some_and(|exists| *exists)
    })
}

/// The digits stand if their country code exists.
fn with_plus(digits: &str) -> Result<String, PhoneError> {
    if is_keypad_word(digits.as_bytes()) {
        return Err(PhoneError::Withheld);
    }
    if digits.len() < DIGITS_MIN {
        return Err(PhoneError::TooShort);
    }
    if digits.len() > DIGITS_MAX {
        return Err(PhoneError::TooLong);
    }
    if !has_country_code(digits) {
        return Err(PhoneError::NoSuchCountry);
    }
    Ok(format!("+{digits}"))
}

fn without_plus_american(digits: &str) -> Result<String, PhoneError> {
    if has_american_shape(digits.as_bytes()) {
        return Ok(format!("+1{digits}"));
    }
    if digits.len() == 11 && digits.starts_with('1') {
        return Ok(format!("+{digits}"));
    }
    if let Some(rest) = digits
        .strip_prefix("011")
        .or_else(|| digits.strip_prefix("00"))
    {
        return with_plus(rest);
    }
    bare_international(digits)
}

/// 11 to 15 digits that do not open with 0 or 1 have lost their `+`.
fn bare_international(digits: &str) -> Result<String, PhoneError> {
    match digits.len() {
        ..11 => Err(PhoneError::TooShort),
        11..=DIGITS_MAX if !digits.starts_with(['0', '1']) => with_plus(digits),
        11..=DIGITS_MAX => Err(PhoneError::NoSuchCountry),
        _ => Err(PhoneError::TooLong),
    }
}

fn without_plus_elsewhere(digits: &str, region: &str) -> Result<String, PhoneError> {
    if let Some(number) = normalise_national(digits, region) {
        return Ok(number);
    }
    if let Some(rest) = digits.strip_prefix("00") {
        return with_plus(rest);
    }
    if digits
        .strip_prefix('1')
        .is_some_and(|ten| has_american_shape(ten.as_bytes()))
    {
        return Ok(format!("+{digits}"));
    }
    bare_international(digits)
}

/// What the region's own plan makes of the digits; here a number must be one that the plan knows, or
/// every number would be one.
fn normalise_national(digits: &str, region: &str) -> Option<String> {
    let id: country::Id = region.parse().ok()?;
    // The crate takes a known id's table for granted.
    DATABASE.by_id(id.as_ref())?;
    let number = phonenumber::parse(Some(id), digits).ok()?;
    if !number.is_valid() {
        return None;
    }
    let text = format!("+{}{}", number.country().code(), number.national());
    let digits = text.len().checked_sub(1)?;
    (DIGITS_MIN..=DIGITS_MAX).contains(&digits).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(raw: &str) -> Result<String, PhoneError> {
        normalise_caller(raw, "US")
    }

    #[test]
    fn x9_callers_as_senders_write_them() {
        for (raw, want) in [
            ("+13055550142", "+13055550142"),
            ("13055550142", "+13055550142"),
            (" 13055550142", "+13055550142"),
            ("3055550142", "+13055550142"),
            (" 3055550142 ", "+13055550142"),
            ("(305) 555-0142", "+13055550142"),
            ("305.555.0142", "+13055550142"),
            ("305/555/0142", "+13055550142"),
            ("1-305-555-0142", "+13055550142"),
            ("+1 (305) 555-0142", "+13055550142"),
            ("(+1) 305 555 0142", "+13055550142"),
            ("305\u{2011}555\u{2013}0142", "+13055550142"),
            ("\u{202A}+1 305 555 0142\u{202C}", "+13055550142"),
            ("\u{FEFF}305\u{A0}555\u{200B}0142\u{7}\r\n", "+13055550142"),
            ("\u{FF0B}\u{FF11}3055550142", "+13055550142"),
            ("%2B13055550142", "+13055550142"),
            ("%2b1%20305%20555%200142", "+13055550142"),
            ("%252B13055550142", "+13055550142"),
            ("tel:+13055550142", "+13055550142"),
            ("tel:+1-305-555-0142;ext=22", "+13055550142"),
            ("TEL:3055550142", "+13055550142"),
            (
                "sip:+13055550142@10.0.0.1:5060;transport=udp",
                "+13055550142",
            ),
            ("sips:13055550142@example.com", "+13055550142"),
            ("\"Bob\" <sip:+13055550142@10.0.0.1>;tag=x", "+13055550142"),
            ("3055550142x12", "+13055550142"),
            ("305-555-0142 ext. 12", "+13055550142"),
            ("305-555-0142 Extension 12", "+13055550142"),
            ("+13055550142;ext=12", "+13055550142"),
            ("3055550142,,12", "+13055550142"),
            ("'+13055550142", "+13055550142"),
            ("3055550142.0", "+13055550142"),
            ("13055550142.00", "+13055550142"),
            ("01113055550142", "+13055550142"),
            ("0013055550142", "+13055550142"),
            ("00491512345678", "+491512345678"),
            ("011 49 1512 3456789", "+4915123456789"),
            // A country's own digits stay as they are.
            ("+4915123456789", "+4915123456789"),
            ("+8613812345678", "+8613812345678"),
            ("4915123456789", "+4915123456789"),
            (" 4915123456789", "+4915123456789"),
            ("+3055550142", "+3055550142"),
            ("+390612345678", "+390612345678"),
            ("+44 (0)20 7946 0018", "+442079460018"),
            ("+442079460018", "+442079460018"),
            ("+6834000", "+6834000"),
            // Validity is not asked: new area codes outrun any table.
            ("+12999550142", "+12999550142"),
            ("2999550142", "+12999550142"),
            ("10000000000", "+10000000000"),
            ("+1305555014", "+1305555014"),
            // No one's keypad word unless a plus (or the space that it became) stands before it.
            ("7378742833", "+17378742833"),
            ("+17378742833", "+17378742833"),
        ] {
            assert_eq!(us(raw).as_deref(), Ok(want), "{raw:?}");
        }
    }

    #[test]
    fn x9_what_is_no_caller() {
        use PhoneError::*;
        for (raw, why) in [
            ("", Blank),
            (" \u{200B}", Blank),
            ("anonymous", Withheld),
            ("Anonymous", Withheld),
            ("RESTRICTED", Withheld),
            ("Private Number", Withheld),
            ("unavailable", Withheld),
            ("Unknown Caller", Withheld),
            ("blocked", Withheld),
            ("sip:anonymous@anonymous.invalid", Withheld),
            ("+266696687", Withheld),
            ("+7378742833", Withheld),
            (" 7378742833", Withheld),
            ("+86282452253", Withheld),
            ("86282452253", Withheld),
            ("+8656696", Withheld),
            ("+2562533", Withheld),
            ("+7748483", Withheld),
            ("%2B266696687", Withheld),
            ("+2 666-96687", Withheld),
            ("tel:+266696687", Withheld),
            ("305555XXXX", Letters),
            ("+1305555XXXX", Letters),
            ("1-800-FLOWERS", Letters),
            ("305555xx12", Letters),
            ("Bob", Letters),
            ("305555****", Letters),
            ("*67", Letters),
            ("#3055550142", Letters),
            ("true", Letters),
            ("++13055550142", Plus),
            ("+%2B13055550142", Plus),
            ("1+3055550142", Plus),
            ("+1305+5550142", Plus),
            ("3055550142 \u{1F600}", Characters),
            ("305@5550142", Characters),
            ("+", TooShort),
            ("-", TooShort),
            ("5550142", TooShort),
            ("0", TooShort),
            ("911", TooShort),
            ("+911", TooShort),
            ("266696687", TooShort),
            ("1055550142", TooShort),
            ("3051550142", TooShort),
            ("130555501420", NoSuchCountry),
            ("+0123456789", NoSuchCountry),
            ("+2105551234567", NoSuchCountry),
            ("1234567890123456", TooLong),
            ("+1234567890123456", TooLong),
        ] {
            assert_eq!(us(raw), Err(why), "{raw:?}");
        }
        assert_eq!(us(&"3".repeat(100_000)), Err(TooLong));
    }

    #[test]
    fn x9_the_accounts_region_governs_numbers_without_a_plus() {
        for (region, raw, want) in [
            ("GB", "020 7946 0018", Some("+442079460018")),
            ("GB", "442079460018", Some("+442079460018")),
            ("GB", "00 49 30 901820", Some("+4930901820")),
            ("GB", "13055550142", Some("+13055550142")),
            ("GB", "+13055550142", Some("+13055550142")),
            ("GB", "4915123456789", Some("+4915123456789")),
            ("GB", "5550142", None),
            ("IT", "06 1234 5678", Some("+390612345678")),
            ("DE", "0151 23456789", Some("+4915123456789")),
            ("AU", "0011 44 20 7946 0018", Some("+442079460018")),
            ("CA", "3055550142", Some("+13055550142")),
            ("ZZ", "3055550142", None),
            ("", "3055550142", None),
            ("AC", "3055550142", None),
            ("", "+13055550142", Some("+13055550142")),
            ("not a region", "00442079460018", Some("+442079460018")),
        ] {
            assert_eq!(
                normalise_caller(raw, region).ok().as_deref(),
                want,
                "{raw} in {region}"
            );
        }
    }

    /// Whatever is a number is written the same once it has been written.
    #[test]
    fn x9_what_was_normalised_stays_as_it_is() {
        for raw in [
            "3055550142",
            "+4915123456789",
            "011390612345678",
            "+6834000",
        ] {
            let once = us(raw).expect(raw);
            assert_eq!(us(&once).as_ref(), Ok(&once));
            assert_eq!(normalise_caller(&once, "DE").as_ref(), Ok(&once));
        }
    }

    /// The fast path is the crate's own reading, only faster, wherever the crate can be trusted: on
    /// numbers that it calls valid.
    #[test]
    fn x9_the_fast_path_and_the_crate_agree() {
        let mut compared = 0;
        for area in (200..1000).step_by(7) {
            for line in ["2345678", "5550142", "9999999"] {
                let ten = format!("{area}{line}");
                let parsed = phonenumber::parse(Some(country::US), &ten).expect("ten digits");
                let theirs = parsed.format().mode(phonenumber::Mode::E164).to_string();
                for written in [ten.clone(), format!("1{ten}"), format!("+1{ten}")] {
                    assert_eq!(
                        normalise_fast(written.as_bytes(), true).as_ref(),
                        Some(&theirs)
                    );
                    assert_eq!(normalise_slow(&written, "US", true).as_ref(), Ok(&theirs));
                }
                compared += 1;
            }
        }
        assert!(compared > 300);
    }

    #[test]
    fn x9_the_crate_still_corrupts_foreign_numbers_given_a_region() {
        let parsed = phonenumber::parse(Some(country::US), "+4915123456789").expect("a number");
        let theirs = parsed.format().mode(phonenumber::Mode::E164).to_string();
        assert_ne!(
            theirs, "+4915123456789",
            "then the crate may be trusted again"
        );
    }
}
