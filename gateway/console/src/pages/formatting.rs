//! How money, times, statuses and spans are written on every page. Everything that comes from outside
//! is text and is escaped by the templates; only what is built here from closed sets is markup.

use std::fmt;

use askama::filters::HtmlSafe;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use trueup_domain::crediting::Terms;
use trueup_domain::money::parse_cents;
use trueup_domain::percent;
use trueup_domain::reason_text::format_cents;
use trueup_domain::report::PayoutUnit;
use trueup_event::reason::Status;
use trueup_store::webhook_activity::Activity;

/// A moment, in the zone of its page.
#[derive(Debug, Clone)]
pub struct LocalTime {
    at: Timestamp,
    text: String,
    exact: String,
}

impl HtmlSafe for LocalTime {}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<time class=\"nowrap\" datetime=\"{}\" title=\"{}\">{}</time>",
            self.at, self.exact, self.text
        )
    }
}

/// The one clock of a page: every time, day, hour and sentence on it is in this zone, which the page names. It
/// is the account's unless the user has chosen another.
#[derive(Debug, Clone)]
pub struct PageClock {
    zone: TimeZone,
    name: String,
}

impl PageClock {
    /// What is chosen is a browser's word; an unknown name is none. The account's cannot be unknown.
    pub fn choose(chosen: Option<&str>, account: &str) -> PageClock {
        let known = |name: &str| {
            let zone = TimeZone::get(name).ok()?;
            Some(PageClock {
                name: zone.iana_name()?.to_owned(),
                zone,
            })
        };
        let utc = || PageClock {
            zone: TimeZone::UTC,
            name: "UTC".to_owned(),
        };
        chosen
            .and_then(known)
            .or_else(|| known(account))
            .unwrap_or_else(utc)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn time_zone(&self) -> TimeZone {
        self.zone.clone()
    }

    pub fn today(&self) -> Date {
        Timestamp::now().to_zoned(self.zone.clone()).date()
    }

    /// With its date where it is not today, and its year where it is not this one.
    pub fn local_time(&self, at: Timestamp) -> LocalTime {
        let (zoned, today) = (at.to_zoned(self.zone.clone()), self.today());
        let format = match zoned.date() {
            date if date == today => "%H:%M:%S",
            date if date.year() == today.year() => "%b %-d, %H:%M:%S",
            _ => "%b %-d %Y, %H:%M:%S",
        };
        LocalTime {
            at,
            text: zoned.strftime(format).to_string(),
            exact: zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        }
    }

    /// The hour of the day, so many hours before `now`: `14:00`.
    pub fn hour_label(&self, now: Timestamp, ago: i64) -> String {
        let at = now
            .checked_sub(jiff::SignedDuration::from_hours(ago))
            .unwrap_or(now);
        at.to_zoned(self.zone.clone()).strftime("%H:00").to_string()
    }

    /// The first moment of the day that `at` lies in.
    pub fn day_start(&self, at: Timestamp) -> Timestamp {
        at.to_zoned(self.zone.clone())
            .start_of_day()
            .map_or(at, |zoned| zoned.timestamp())
    }
}

/// A status as a pill: its word, and a colour that repeats it.
#[derive(Debug, Clone)]
pub struct StatusBadge {
    kind: &'static str,
    word: &'static str,
}

impl HtmlSafe for StatusBadge {}

impl fmt::Display for StatusBadge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<span class=\"pill pill-{}\">{}</span>",
            self.kind, self.word
        )
    }
}

impl StatusBadge {
    pub const fn of(kind: &'static str, word: &'static str) -> StatusBadge {
        StatusBadge { kind, word }
    }

    pub fn for_status(status: trueup_event::reason::Status) -> StatusBadge {
        StatusBadge {
            kind: status.code(),
            word: status.code(),
        }
    }
}

/// Markup that was built from numbers and closed sets alone.
#[derive(Debug, Clone, Default)]
pub struct Markup(pub String);

impl HtmlSafe for Markup {}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `$12.50`, or a dash where there is none.
pub fn format_money(cents: Option<i64>, currency: &str) -> String {
    cents.map_or_else(|| "–".to_owned(), |cents| format_cents(cents, currency))
}

/// What a slot was read as: whole cents as an amount, anything else as it is.
pub fn read_as(value: String, currency: &str) -> String {
    let cents = value
        .strip_suffix(" cents")
        .and_then(|cents| cents.parse().ok());
    cents.map_or(value, |cents| format_cents(cents, currency))
}

/// A change of money, with its sign; a dash where nothing moved.
pub fn format_signed_money(cents: i64, currency: &str) -> String {
    match cents {
        0 => "–".to_owned(),
        1.. => format!("+{}", format_cents(cents, currency)),
        _ => format_cents(cents, currency),
    }
}

/// `1:30`; hours only where there are any.
pub fn format_duration(seconds: Option<i32>) -> String {
    match seconds {
        None => "–".to_owned(),
        Some(s) if s >= 3_600 => format!("{}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60),
        Some(s) => format!("{}:{:02}", s / 60, s % 60),
    }
}

/// What a publisher earns, in words.
pub fn format_terms(terms: Terms, currency: &str) -> String {
    match terms {
        Terms::Flat { amount_cents } => {
            format!("{} a qualified call", format_cents(amount_cents, currency))
        }
        Terms::RevShare { percent_e4 } => {
            format!("{} % of the payout", percent::to_text(percent_e4))
        }
    }
}

/// `12,345`.
pub fn format_count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if n < 0 { format!("-{text}") } else { text }
}

/// How many rows are open, as the links to them say it.
pub fn count_text(count: i64, more: bool) -> String {
    format!("{}{}", format_count(count), if more { "+" } else { "" })
}

/// Today's requests of this status.
pub fn format_figure(activity: &Activity, status: Status) -> String {
    count_text(activity.count_today(status), activity.more)
}

/// The whole cents that a form's text means: read as a reported payout is (X7), so that `12,50` is $12.50
/// here, too.
pub fn parse_amount(text: &str, currency: &str) -> Result<i64, String> {
    parse_cents(text, false, PayoutUnit::Dollars, currency).map_err(|why| {
        format!(
            "must be an amount such as 50 or 12.50; this is {}",
            why.why()
        )
    })
}

/// Whole cents as a form's text: `12.50`.
pub fn plain_amount(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!(
        "{sign}{}.{:02}",
        cents.unsigned_abs() / 100,
        cents.unsigned_abs() % 100
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x7_an_amount_of_a_form_is_read_as_a_reported_one() {
        for (text, cents) in [
            ("50", 5_000),
            ("12.5", 1_250),
            ("12,50", 1_250),
            ("$1,250.00", 125_000),
            ("1.250,00", 125_000),
            ("-3.01", -301),
            (".5", 50),
            ("0", 0),
        ] {
            assert_eq!(parse_amount(text, "USD"), Ok(cents), "{text}");
        }
        for bad in ["", "abc", "1e2", "--1", "12,5.0.0", "99999999999", "€5"] {
            assert!(parse_amount(bad, "USD").is_err(), "{bad}");
        }
        assert_eq!(
            [
                read_as("7200 cents".into(), "USD"),
                read_as("90 s".into(), "USD")
            ],
            ["$72.00", "90 s"]
        );
        assert_eq!(plain_amount(-301), "-3.01");
        assert_eq!(
            [
                format_count(0),
                format_count(999),
                format_count(1_000),
                format_count(-1_234_567)
            ],
            ["0", "999", "1,000", "-1,234,567"]
        );
        assert_eq!(
            [
                format_duration(Some(90)),
                format_duration(Some(3_661)),
                format_duration(None)
            ],
            ["1:30", "1:01:01", "–"]
        );
    }
}
