//! A reported payout's text, as whole cents (X7).
//!
//! It reads what senders really write and refuses, with a reason, whatever could mean two amounts:
//! another currency, a percentage, words, groups that are none. No float touches an amount; it is
//! rounded once, half away from zero.

use std::borrow::Cow;

use crate::decimal::Decimal;
use crate::digits::in_ascii_form;
use crate::report::PayoutUnit;
use crate::text::{is_blank_char, starts_with_ignoring_case};

/// Amounts from here on are unreadable: ten thousand million is no payout for a call, and sums of
/// what is below it stay far inside 64 bits.
pub const CENTS_BOUND: i64 = 1_000_000_000_000;

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoneyParseError {
    /// No digits, or words, or signs that do not belong to an amount.
    NotANumber,
    /// Points, commas or digits that could be read in more than one way, or in none.
    Groups,
    /// A percentage.
    Percent,
    /// The symbol or code of another currency than the account's.
    OtherCurrency,
    /// [`CENTS_BOUND`] or more.
    TooLarge,
}

impl MoneyParseError {
    pub const fn why(self) -> &'static str {
        match self {
            MoneyParseError::NotANumber => "not an amount",
            MoneyParseError::Groups => "points or commas that fit no amount",
            MoneyParseError::Percent => "a percentage",
            MoneyParseError::OtherCurrency => "another currency",
            MoneyParseError::TooLarge => "ten thousand million or more",
        }
    }
}

/// The cents that `text` means for an account of `currency` (ISO 4217). `json_number`: the text is a
/// number's written digits in JSON, where `1e2` is allowed. `unit` governs bare numbers; a text with a
/// symbol or code of the currency is in its main unit.
pub fn parse_cents(
    text: &str,
    json_number: bool,
    unit: PayoutUnit,
    currency: &str,
) -> Result<i64, MoneyParseError> {
    let text = text.trim_matches(is_blank_char);
    if json_number {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let amount = Decimal::parse_json(digits).ok_or(MoneyParseError::NotANumber)?;
        return whole_cents(amount, negative, unit_shift(unit));
    }
    // Nearly every amount is bare digits with a point.
    if let Some(amount) = Decimal::parse_plain(text) {
        return whole_cents(amount, false, unit_shift(unit));
    }
    let text = in_ascii_form(text);
    let bare = strip_sign_and_currency(&text, currency)?;
    let digits = without_space_groups(bare.digits)?;
    let amount = parse_grouped(&digits)?;
    let shift = if bare.marked { 2 } else { unit_shift(unit) };
    whole_cents(amount, bare.negative, shift)
}

const fn unit_shift(unit: PayoutUnit) -> i64 {
    match unit {
        PayoutUnit::Dollars => 2,
        PayoutUnit::Cents => 0,
    }
}

fn whole_cents(amount: Decimal<'_>, negative: bool, shift: i64) -> Result<i64, MoneyParseError> {
    let cents = amount
        .round_to(shift)
        .and_then(|c| i64::try_from(c).ok())
        .filter(|c| *c < CENTS_BOUND)
        .ok_or(MoneyParseError::TooLarge)?;
    if negative {
        cents.checked_neg().ok_or(MoneyParseError::TooLarge)
    } else {
        Ok(cents)
    }
}

/// An amount without its sign and its currency.
struct StrippedAmount<'a> {
    digits: &'a str,
    negative: bool,
    /// It bore a symbol or code of the account's currency.
    marked: bool,
}

/// Takes off one sign and the currency's marks, in whatever order they were put on.
fn strip_sign_and_currency<'a>(
    text: &'a str,
    currency: &str,
) -> Result<StrippedAmount<'a>, MoneyParseError> {
    let mut rest = text;
    let mut negative = false;
    let mut signs: u8 = 0;
    let (mut symbol, mut code) = (false, false);
    loop {
        rest = rest.trim_matches(is_blank_char);
        if let Some(inner) = rest.strip_prefix('(').and_then(|r| r.strip_suffix(')')) {
            negative = true;
            signs = signs.saturating_add(1);
            rest = inner;
        } else if let Some(inner) = rest.strip_prefix(['-', '\u{2212}']) {
            negative = true;
            signs = signs.saturating_add(1);
            rest = inner;
        } else if let Some(inner) = rest.strip_prefix('+') {
            signs = signs.saturating_add(1);
            rest = inner;
        // A symbol and a code (`$50 USD`) are seen together; two of a kind are no amount.
        } else if let Some(inner) = without_symbol(rest, currency).filter(|_| !symbol) {
            symbol = true;
            rest = inner;
        } else if let Some(inner) = without_code(rest, currency).filter(|_| !code) {
            code = true;
            rest = inner;
        } else {
            break;
        }
        if signs > 1 {
            return Err(MoneyParseError::NotANumber);
        }
    }
    let plain = |c: char| c.is_ascii_digit() || c == '.' || c == ',' || is_group_space(c);
    if rest.is_empty() || !rest.chars().all(plain) {
        return Err(what_it_is_instead(rest));
    }
    Ok(StrippedAmount {
        digits: rest,
        negative,
        marked: symbol || code,
    })
}

/// The marks of a currency beside its code: those that cannot be taken for another one's by an account
/// that keeps its books in it.
const fn symbols_of(currency: &[u8]) -> &'static [&'static str] {
    match currency {
        b"USD" => &["US$", "$"],
        b"CAD" => &["CA$", "C$", "$"],
        b"AUD" => &["AU$", "A$", "$"],
        b"NZD" => &["NZ$", "$"],
        b"MXN" => &["MX$", "$"],
        b"SGD" => &["S$", "$"],
        b"HKD" => &["HK$", "$"],
        b"EUR" => &["\u{20AC}"],
        b"GBP" => &["\u{A3}"],
        b"JPY" | b"CNY" => &["\u{A5}"],
        b"INR" => &["\u{20B9}"],
        b"BRL" => &["R$"],
        _ => &[],
    }
}

/// Whether `text` is nothing but a mark of `currency`: `$`, `us$`, `usd`.
pub(crate) fn is_own_mark(text: &str, currency: &str) -> bool {
    text.eq_ignore_ascii_case(currency)
        || symbols_of(currency.as_bytes())
            .iter()
            .any(|symbol| text.eq_ignore_ascii_case(symbol))
}

fn without_symbol<'a>(text: &'a str, currency: &str) -> Option<&'a str> {
    symbols_of(currency.as_bytes())
        .iter()
        .find_map(|symbol| strip_mark(text, symbol))
}

fn without_code<'a>(text: &'a str, currency: &str) -> Option<&'a str> {
    if currency.is_empty() {
        return None;
    }
    strip_mark(text, currency).filter(|rest| {
        !rest.starts_with(char::is_alphabetic) && !rest.ends_with(char::is_alphabetic)
    })
}

/// Without `mark` in front, or else behind.
fn strip_mark<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    if starts_with_ignoring_case(text, mark) {
        return text.get(mark.len()..);
    }
    let at = text.len().checked_sub(mark.len())?;
    let (rest, tail) = (text.get(..at)?, text.get(at..)?);
    tail.eq_ignore_ascii_case(mark).then_some(rest)
}

fn what_it_is_instead(rest: &str) -> MoneyParseError {
    let others =
        "$\u{20AC}\u{A3}\u{A5}\u{A2}\u{20B9}\u{20BD}\u{20A9}\u{20AA}\u{20BA}\u{20BF}\u{E3F}";
    let letters = rest.chars().filter(|c| c.is_alphabetic()).count();
    let digits = rest.contains(|c: char| c.is_ascii_digit());
    if rest.contains('%') {
        MoneyParseError::Percent
    } else if rest.contains(|c| others.contains(c)) || (digits && letters == 3) {
        MoneyParseError::OtherCurrency
    } else {
        MoneyParseError::NotANumber
    }
}

/// A space between groups of three: an ordinary one, no-break, narrow, thin or figure.
fn is_group_space(c: char) -> bool {
    matches!(c, ' ' | '\u{A0}' | '\u{202F}' | '\u{2009}' | '\u{2007}')
}

/// `1 250,00` without its spaces, which must part groups of three. A comma before three digits beside them
/// could be either a group or a fraction.
fn without_space_groups(text: &str) -> Result<Cow<'_, str>, MoneyParseError> {
    if !text.contains(is_group_space) {
        return Ok(Cow::Borrowed(text));
    }
    let end = text.find(['.', ',']).unwrap_or(text.len());
    let (whole, fraction) = text.split_at(end);
    let mut groups = whole.split(is_group_space);
    let head = groups.next().unwrap_or_default();
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let is_grouped = (1..=3).contains(&head.len())
        && !head.starts_with('0')
        && is_digits(head)
        && groups.all(|g| g.len() == 3 && is_digits(g));
    let digits = fraction.get(1..).unwrap_or_default();
    let is_fraction = is_digits(digits) && !(fraction.starts_with(',') && digits.len() == 3);
    if is_grouped && is_fraction {
        Ok(Cow::Owned(
            text.replace(is_group_space, "").replace(',', "."),
        ))
    } else {
        Err(MoneyParseError::Groups)
    }
}

/// Digits with points and commas: `1,250.00`, `12,50`, `1.250,00`; `text` holds nothing else.
fn parse_grouped(text: &str) -> Result<Decimal<'_>, MoneyParseError> {
    let points = text.matches('.').count();
    let commas = text.matches(',').count();
    let (whole, fraction, separator) = match (points, commas) {
        (0 | 1, 0) => return Decimal::parse_plain(text).ok_or(MoneyParseError::Groups),
        (0, 1) => {
            let (whole, fraction) = text.split_once(',').ok_or(MoneyParseError::Groups)?;
            if is_groups(text, ',') {
                (text, "", ',')
            // A comma before three digits marks thousands; after a lone zero it cannot.
            } else if fraction.is_empty() || (fraction.len() == 3 && whole != "0") {
                return Err(MoneyParseError::Groups);
            } else {
                (whole, fraction, '.')
            }
        }
        (0, _) => (text, "", ','),
        (1, _) => {
            let point = text.find('.').ok_or(MoneyParseError::Groups)?;
            let comma = text.find(',').ok_or(MoneyParseError::Groups)?;
            if comma < point {
                let (whole, fraction) = text.split_once('.').ok_or(MoneyParseError::Groups)?;
                (whole, fraction, ',')
            } else {
                let (whole, fraction) = text.split_once(',').ok_or(MoneyParseError::Groups)?;
                (whole, fraction, '.')
            }
        }
        // Two points are no amount (X7), even where a comma follows them.
        _ => return Err(MoneyParseError::Groups),
    };
    let whole_stands = if whole.contains(separator) {
        is_groups(whole, separator)
    } else {
        whole.bytes().all(|b| b.is_ascii_digit())
    };
    if !whole_stands || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(MoneyParseError::Groups);
    }
    Ok(Decimal {
        whole: whole.as_bytes(),
        fraction: fraction.as_bytes(),
        exponent: 0,
    })
}

/// `1,250` and `1,250,000`: one to three digits that do not open with a zero, then threes.
fn is_groups(text: &str, separator: char) -> bool {
    let mut groups = text.split(separator);
    let head = groups.next().unwrap_or_default();
    (1..=3).contains(&head.len())
        && !head.starts_with('0')
        && head.bytes().all(|b| b.is_ascii_digit())
        && groups.all(|g| g.len() == 3 && g.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Result<i64, MoneyParseError> {
        parse_cents(text, false, PayoutUnit::Dollars, "USD")
    }

    fn json(text: &str) -> Result<i64, MoneyParseError> {
        parse_cents(text, true, PayoutUnit::Dollars, "USD")
    }

    #[test]
    fn x7_amounts_as_senders_write_them() {
        for (text, cents) in [
            ("50", 5000),
            ("0", 0),
            ("0.00", 0),
            ("-0", 0),
            ("12.5", 1250),
            ("27.50000", 2750),
            ("0.19949999999999998", 20),
            (".40", 40),
            ("50.", 5000),
            ("007.50", 750),
            ("12.345", 1235),
            ("12.344999", 1234),
            ("-12.345", -1235),
            ("0.004", 0),
            ("-0.004", 0),
            ("0.005", 1),
            ("-0.005", -1),
            ("  25 \t", 2500),
            ("\u{FEFF}25\u{200B}", 2500),
            ("$42.50", 4250),
            ("$ 42.50", 4250),
            ("42.50$", 4250),
            ("US$ 1,250.00", 125_000),
            ("us$5", 500),
            ("USD 12.50", 1250),
            ("usd12.50", 1250),
            ("12.50 USD", 1250),
            ("12.50usd", 1250),
            ("$50 USD", 5000),
            ("USD $50", 5000),
            ("50 US$", 5000),
            ("-25", -2500),
            ("\u{2212}25", -2500),
            ("- 25", -2500),
            ("(25.00)", -2500),
            ("($25.00)", -2500),
            ("$(25.00)", -2500),
            ("-$25.00", -2500),
            ("$-25.00", -2500),
            ("(25.00) USD", -2500),
            ("+25", 2500),
            ("1,250", 125_000),
            ("1,250.00", 125_000),
            ("1,250,000", 125_000_000),
            ("1,250,000.5", 125_000_050),
            ("12,50", 1250),
            ("12,5", 1250),
            ("12,5000", 1250),
            ("0,50", 50),
            ("0,250", 25),
            (",50", 50),
            ("1250,00", 125_000),
            ("1.250,00", 125_000),
            ("1.250,5", 125_050),
            ("1.250", 125),
            ("$1,250.00\u{A0}", 125_000),
            ("1\u{A0}250,00", 125_000),
            ("1\u{202F}250,00", 125_000),
            ("1\u{2009}250.5 USD", 125_050),
            ("$1\u{A0}250\u{A0}000", 125_000_000),
            ("\u{661}\u{662}", 1200),
            ("\u{661}\u{662}\u{66B}\u{665}", 1250),
            ("\u{661}\u{66C}\u{662}\u{665}\u{660}", 125_000),
            ("\u{FF04}\u{FF15}\u{FF10}\u{FF0E}\u{FF15}", 5050),
            ("\u{FF0D}\u{FF15}", -500),
            ("\u{967}\u{968}.\u{969}", 1230),
            ("9999999999.99", 999_999_999_999),
            ("-9999999999.99", -999_999_999_999),
        ] {
            assert_eq!(usd(text), Ok(cents), "{text}");
        }
    }

    #[test]
    fn x7_what_could_mean_two_amounts_or_none_is_unreadable() {
        use MoneyParseError::*;
        for (text, why) in [
            ("", NotANumber),
            ("free", NotANumber),
            ("$", NotANumber),
            ("-", NotANumber),
            ("--5", NotANumber),
            ("-(5)", NotANumber),
            ("(-5)", NotANumber),
            ("5-", NotANumber),
            ("(5", NotANumber),
            ("1e2", NotANumber),
            ("5 0", Groups),
            ("1 25", Groups),
            ("$$5", OtherCurrency),
            ("5/2", NotANumber),
            ("0x10", NotANumber),
            ("50 dollars", NotANumber),
            ("\u{B2}5", NotANumber),
            ("1\u{A0}25", Groups),
            ("1250\u{A0}000", Groups),
            ("1\u{A0}250,000", Groups),
            ("1\u{A0}250.00.0", Groups),
            ("0\u{A0}250", Groups),
            ("1\u{A0},250", Groups),
            ("1,250\u{A0}000", Groups),
            ("12\u{66C}5", Groups),
            ("50%", Percent),
            ("\u{20AC}50", OtherCurrency),
            ("50 \u{20AC}", OtherCurrency),
            ("\u{A3}5", OtherCurrency),
            ("EUR 50", OtherCurrency),
            ("50 CAD", OtherCurrency),
            ("CA$50", OtherCurrency),
            ("50$ 50$", OtherCurrency),
            (".", Groups),
            ("1.2.3", Groups),
            ("1..2", Groups),
            ("1,25,000", Groups),
            ("1,250,00", Groups),
            ("1250,000", Groups),
            ("00,250", Groups),
            ("0,250,000", Groups),
            ("50,", Groups),
            ("1,,250", Groups),
            ("1,250.00.00", Groups),
            ("1.250.000", Groups),
            ("1.250.000,00", Groups),
            ("12.50,00", Groups),
            ("1,2.50", Groups),
            (",.", Groups),
            ("10000000000", TooLarge),
            ("9999999999.995", TooLarge),
            ("-10000000000.00", TooLarge),
            ("99999999999999999999999999999999", TooLarge),
        ] {
            assert_eq!(usd(text), Err(why), "{text}");
        }
    }

    #[test]
    fn x7_a_json_number_is_read_by_its_written_digits() {
        for (text, cents) in [
            ("50", Ok(5000)),
            ("1e2", Ok(10_000)),
            ("1E+2", Ok(10_000)),
            ("1250e-2", Ok(1250)),
            ("-12.5", Ok(-1250)),
            ("0.19949999999999998", Ok(20)),
            ("1.005", Ok(101)),
            ("1e400", Err(MoneyParseError::TooLarge)),
            ("-1e400", Err(MoneyParseError::TooLarge)),
            ("1e-400", Ok(0)),
            (
                "123456789012345678901234567890",
                Err(MoneyParseError::TooLarge),
            ),
        ] {
            assert_eq!(json(text), cents, "{text}");
        }
    }

    #[test]
    fn x7_the_account_says_which_currency_is_its_own() {
        let read = |text, currency| parse_cents(text, false, PayoutUnit::Dollars, currency);
        assert_eq!(read("\u{20AC}1.250,00", "EUR"), Ok(125_000));
        assert_eq!(read("50 eur", "EUR"), Ok(5000));
        assert_eq!(read("$50", "EUR"), Err(MoneyParseError::OtherCurrency));
        assert_eq!(read("50 USD", "EUR"), Err(MoneyParseError::OtherCurrency));
        assert_eq!(read("\u{A3}50", "GBP"), Ok(5000));
        assert_eq!(read("US$50", "CAD"), Err(MoneyParseError::OtherCurrency));
        assert_eq!(read("CA$50", "CAD"), Ok(5000));
    }

    #[test]
    fn x7_cents_are_a_setting_for_bare_numbers_only() {
        let read = |text, json| parse_cents(text, json, PayoutUnit::Cents, "USD");
        assert_eq!(read("1250", false), Ok(1250));
        assert_eq!(read("1250.5", true), Ok(1251));
        assert_eq!(read("1,250", false), Ok(1250));
        assert_eq!(read("-1250", false), Ok(-1250));
        assert_eq!(read("$12.50", false), Ok(1250));
        assert_eq!(read("1000000000000", false), Err(MoneyParseError::TooLarge));
        assert_eq!(read("999999999999", false), Ok(999_999_999_999));
    }
}
