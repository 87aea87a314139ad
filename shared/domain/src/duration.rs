//! A reported duration's text, as whole seconds (X8).
//!
//! The unit of a bare number is a setting of the webhook and never guessed from the number's size:
//! 90000 with the unit "seconds" is refused, not taken for milliseconds.

use crate::decimal::Decimal;
use crate::digits::in_ascii_form;
use crate::report::DurationUnit;
use crate::text::is_blank_char;

/// A day. A call that lasts longer is a wrong unit or a broken clock.
pub const SECONDS_MAX: u32 = 86_400;

/// Fractions are carried as whole billionths of a second; what is smaller is cut off.
const NANO_DIGITS: i64 = 9;
const NANOS: u64 = 1_000_000_000;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationParseError {
    /// None of the forms that are read.
    Form,
    Negative,
    /// Over [`SECONDS_MAX`].
    OverADay,
}

impl DurationParseError {
    pub const fn reason(self) -> &'static str {
        match self {
            DurationParseError::Form => "not a duration",
            DurationParseError::Negative => "negative",
            DurationParseError::OverADay => "over 24 hours",
        }
    }
}

/// The seconds that `text` means, rounded half up. `json_number`: the text is a number's written
/// digits in JSON, where an exponent is allowed.
pub fn parse_duration(
    text: &str,
    json_number: bool,
    unit: DurationUnit,
) -> Result<u32, DurationParseError> {
    let text = text.trim_matches(is_blank_char);
    let bare = if json_number {
        Decimal::parse_json(text)
    } else {
        Decimal::parse_plain(text)
    };
    if let Some(number) = bare {
        return bare_number(number, unit);
    }
    // A plus says nothing (X1b); a sign after it would.
    if let Some(rest) = text.strip_prefix('+')
        && let Some(number) = Decimal::parse_plain(rest)
    {
        return bare_number(number, unit);
    }
    let plain = in_ascii_form(text);
    if plain != text {
        return parse_duration(&plain, json_number, unit);
    }
    if let Some(rest) = text.strip_prefix(['-', '\u{2212}']) {
        let number = if json_number {
            Decimal::parse_json(rest)
        } else {
            Decimal::parse_plain(rest)
        };
        return Err(match number {
            Some(_) => DurationParseError::Negative,
            None => DurationParseError::Form,
        });
    }
    let nanos = if text.contains(':') {
        parse_clock(text)
    } else {
        parse_units(text)
    };
    whole_seconds(nanos?)
}

fn bare_number(number: Decimal<'_>, unit: DurationUnit) -> Result<u32, DurationParseError> {
    let (shift, times) = match unit {
        DurationUnit::Seconds => (0, 1),
        DurationUnit::Milliseconds => (-3, 1),
        DurationUnit::Minutes => (0, 60),
    };
    if times == 1 {
        return within_a_day(number.round_to(shift));
    }
    whole_seconds(scale_number(number, times)?)
}

fn within_a_day(seconds: Option<u64>) -> Result<u32, DurationParseError> {
    seconds
        .and_then(|s| u32::try_from(s).ok())
        .filter(|s| *s <= SECONDS_MAX)
        .ok_or(DurationParseError::OverADay)
}

/// Whole seconds, rounded half up.
fn whole_seconds(nanos: u64) -> Result<u32, DurationParseError> {
    let half = NANOS / 2;
    within_a_day(nanos.checked_add(half).map(|n| n / NANOS))
}

/// A number of units of `times` seconds.
fn scale_number(number: Decimal<'_>, times: u64) -> Result<u64, DurationParseError> {
    number
        .cut(NANO_DIGITS)
        .and_then(|(nanos, _)| nanos.checked_mul(times))
        .ok_or(DurationParseError::OverADay)
}

fn add_nanos(sum: u64, nanos: u64) -> Result<u64, DurationParseError> {
    sum.checked_add(nanos).ok_or(DurationParseError::OverADay)
}

/// `h:mm:ss` and `m:ss`, the seconds with a fraction or not. `00:90` is 90 seconds.
fn parse_clock(text: &str) -> Result<u64, DurationParseError> {
    let mut sum: u64 = 0;
    let mut weight: u64 = 1;
    let mut parts = text.rsplit(':').peekable();
    let mut place = 0_u8;
    while let Some(part) = parts.next() {
        let first = parts.peek().is_none();
        let whole = part.split('.').next().unwrap_or_default();
        let number = Decimal::parse_plain(part).ok_or(DurationParseError::Form)?;
        let fraction_allowed = place == 0;
        let width = if first { 1..=6 } else { 2..=2 };
        if place > 2 || !width.contains(&whole.len()) || (!fraction_allowed && part.contains('.')) {
            return Err(DurationParseError::Form);
        }
        sum = add_nanos(sum, scale_number(number, weight)?)?;
        weight = weight.saturating_mul(60);
        place = place.saturating_add(1);
    }
    Ok(sum)
}

/// `90s`, `3m 3s`, `1 hour 2 minutes`, `PT1M30S`: each unit at most once, the larger first.
fn parse_units(text: &str) -> Result<u64, DurationParseError> {
    let bytes = text.as_bytes();
    let iso = matches!(bytes.first(), Some(b'p' | b'P'));
    let mut rest = if iso {
        text.get(1..).unwrap_or_default()
    } else {
        text
    };
    let mut sum: u64 = 0;
    let mut smaller_than = u64::MAX;
    let mut in_time = !iso;
    let mut any = false;
    while !rest.is_empty() {
        if iso
            && !in_time
            && let Some(time) = rest.strip_prefix(['t', 'T'])
        {
            in_time = true;
            rest = time;
            continue;
        }
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(DurationParseError::Form)?;
        let (number, tail) = rest.split_at(number_len);
        let tail = if iso {
            tail
        } else {
            tail.trim_start_matches(is_blank_char)
        };
        let name_len = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        // In the ISO form a unit is one letter.
        let (name, tail) = tail.split_at(if iso { name_len.min(1) } else { name_len });
        let nanos_per_unit = unit_nanos(name, iso, in_time).ok_or(DurationParseError::Form)?;
        if nanos_per_unit >= smaller_than {
            return Err(DurationParseError::Form);
        }
        smaller_than = nanos_per_unit;
        let number = Decimal::parse_plain(number).ok_or(DurationParseError::Form)?;
        sum = add_nanos(sum, of_unit(number, nanos_per_unit)?)?;
        any = true;
        rest = if iso {
            tail
        } else {
            tail.trim_start_matches(|c| is_blank_char(c) || c == ',')
        };
    }
    if any {
        Ok(sum)
    } else {
        Err(DurationParseError::Form)
    }
}

fn of_unit(number: Decimal<'_>, nanos_per_unit: u64) -> Result<u64, DurationParseError> {
    match nanos_per_unit.checked_div(NANOS) {
        Some(0) | None => number
            .cut(NANO_DIGITS.saturating_sub(3))
            .map(|(nanos, _)| nanos)
            .ok_or(DurationParseError::OverADay),
        Some(seconds) => scale_number(number, seconds),
    }
}

fn unit_nanos(name: &str, iso: bool, in_time: bool) -> Option<u64> {
    let is = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n));
    let seconds: u64 = if iso {
        match (in_time, name) {
            (false, "d" | "D") => 86_400,
            (true, "h" | "H") => 3_600,
            (true, "m" | "M") => 60,
            (true, "s" | "S") => 1,
            _ => return None,
        }
    } else if is(&["h", "hr", "hrs", "hour", "hours"]) {
        3_600
    } else if is(&["m", "min", "mins", "minute", "minutes"]) {
        60
    } else if is(&["s", "sec", "secs", "second", "seconds"]) {
        1
    } else if is(&["ms", "msec", "millisecond", "milliseconds"]) {
        return Some(NANOS / 1_000);
    } else {
        return None;
    };
    seconds.checked_mul(NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(text: &str) -> Result<u32, DurationParseError> {
        parse_duration(text, false, DurationUnit::Seconds)
    }

    #[test]
    fn x8_durations_as_senders_write_them() {
        for (text, seconds) in [
            ("90", 90),
            ("0", 0),
            ("090", 90),
            (" 90 ", 90),
            ("90.0", 90),
            ("90.4", 90),
            ("90.5", 91),
            ("0.5", 1),
            ("0.4999999999999999999", 0),
            (".5", 1),
            ("90.", 90),
            ("86400", 86_400),
            ("86400.4", 86_400),
            ("00:01:30", 90),
            ("0:01:30", 90),
            ("1:02:03", 3_723),
            ("01:30", 90),
            ("1:30", 90),
            ("00:90", 90),
            ("00:00:90", 90),
            ("90:00", 5_400),
            ("00:01:30.5", 91),
            ("24:00:00", 86_400),
            ("\u{FF19}\u{FF10}", 90),
            ("\u{669}\u{660}", 90),
            ("\u{FF11}\u{FF1A}\u{FF13}\u{FF10}", 90),
            ("\u{967}m\u{A0}\u{969}\u{966}s", 90),
            ("+90", 90),
            ("90s", 90),
            ("90 s", 90),
            ("90S", 90),
            ("90sec", 90),
            ("90 seconds", 90),
            ("1 second", 1),
            ("3m 3s", 183),
            ("3m3s", 183),
            ("3 min 3 sec", 183),
            ("1h 2m 3s", 3_723),
            ("1 hour, 2 minutes", 3_720),
            ("2m", 120),
            ("1.5m", 90),
            ("90000ms", 90),
            ("1h", 3_600),
            ("PT1M30S", 90),
            ("pt90s", 90),
            ("PT1H", 3_600),
            ("PT0S", 0),
            ("P0DT0H1M30.4S", 90),
            ("P1D", 86_400),
        ] {
            assert_eq!(secs(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn x8_what_is_no_duration_is_unreadable() {
        use DurationParseError::*;
        for (text, why) in [
            ("", Form),
            (".", Form),
            ("abc", Form),
            ("1,234", Form),
            ("1e2", Form),
            ("90x", Form),
            ("s", Form),
            ("3s 3m", Form),
            ("3s 3s", Form),
            ("3m 3", Form),
            (":30", Form),
            ("1:", Form),
            ("1:5", Form),
            ("1:2:3", Form),
            ("1:30.5:00", Form),
            ("0:00:01:30", Form),
            ("1:-30", Form),
            ("--90", Form),
            ("+-90", Form),
            ("P", Form),
            ("PT", Form),
            ("PT90", Form),
            ("P1M", Form),
            ("PT1M1M", Form),
            ("90 90", Form),
            ("-90", Negative),
            ("-0.5", Negative),
            ("86401", OverADay),
            ("86400.5", OverADay),
            ("90000", OverADay),
            ("24:00:01", OverADay),
            ("25h", OverADay),
            ("P2D", OverADay),
            ("99999999999999999999999999", OverADay),
        ] {
            assert_eq!(secs(text), Err(why), "{text}");
        }
    }

    #[test]
    fn x8_the_unit_is_a_setting_for_bare_numbers_only() {
        let ms = |text| parse_duration(text, false, DurationUnit::Milliseconds);
        let min = |text| parse_duration(text, false, DurationUnit::Minutes);
        assert_eq!(ms("90000"), Ok(90));
        assert_eq!(ms("90499.9"), Ok(90));
        assert_eq!(ms("90500"), Ok(91));
        assert_eq!(ms("86400499"), Ok(86_400));
        assert_eq!(ms("86400500"), Err(DurationParseError::OverADay));
        assert_eq!(ms("90s"), Ok(90));
        assert_eq!(ms("00:01:30"), Ok(90));
        assert_eq!(min("1.5"), Ok(90));
        assert_eq!(min("1440"), Ok(86_400));
        assert_eq!(min("1441"), Err(DurationParseError::OverADay));
        assert_eq!(min("2m"), Ok(120));
    }

    #[test]
    fn x8_a_json_number_may_have_an_exponent() {
        let json = |text| parse_duration(text, true, DurationUnit::Seconds);
        assert_eq!(json("60.0"), Ok(60));
        assert_eq!(json("9e1"), Ok(90));
        assert_eq!(json("9E-1"), Ok(1));
        assert_eq!(json("1e400"), Err(DurationParseError::OverADay));
        assert_eq!(json("-5"), Err(DurationParseError::Negative));
    }
}
