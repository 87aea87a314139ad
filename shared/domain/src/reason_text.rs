//! The sentence of each reason: what happened, with the figure, and what to do about it.
//!
//! Read by people who have never seen the code, often when money is missing. It names no caller, no
//! token and no body; those stand beside it.

use crate::locked_calls::MAX_FOLDED_REPORTS;
use crate::matching::CLOCK_SKEW_MICROS;
use crate::reading_notes::describe_notes;
use trueup_event::reason::{Detail, Reason, Status};

/// The text beside a row's status. `currency` is the account's (ISO 4217).
pub fn explain_reason(
    status: Status,
    reason: Option<Reason>,
    detail: &Detail,
    currency: &str,
) -> String {
    let mut text = explain_decision(status, reason, detail, currency);
    text.push_str(&describe_notes(&detail.reading_notes));
    text
}

fn explain_decision(
    status: Status,
    reason: Option<Reason>,
    detail: &Detail,
    currency: &str,
) -> String {
    let Some(reason) = reason else {
        return explain_settled(status, detail, currency);
    };
    match status {
        Status::Matched => explain_matched(reason, detail, currency),
        Status::Duplicate | Status::Superseded => explain_repeated(reason, detail, currency),
        Status::Held => explain_held(reason, detail, currency),
        Status::Unmatched => explain_unmatched(reason, detail),
        Status::Refused => explain_refused(reason).to_owned(),
    }
}

/// `$12.50`, `-$12.50`, `12.50 EUR`.
pub fn format_cents(cents: i64, currency: &str) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let (whole, rest) = (cents.unsigned_abs() / 100, cents.unsigned_abs() % 100);
    let mut digits = whole.to_string();
    let mut at = digits.len();
    while at > 3 {
        at = at.saturating_sub(3);
        digits.insert(at, ',');
    }
    match currency {
        "USD" => format!("{sign}${digits}.{rest:02}"),
        other => format!("{sign}{digits}.{rest:02} {other}"),
    }
}

fn format_money(cents: Option<i64>, currency: &str) -> String {
    cents.map_or_else(|| "nothing".to_owned(), |c| format_cents(c, currency))
}

fn describe_movement(detail: &Detail, currency: &str) -> String {
    let step = |before: Option<i64>, after: Option<i64>| match (before, after) {
        (before, after) if before == after => format!("stays at {}", format_money(after, currency)),
        (before, after) => format!(
            "went from {} to {}",
            format_money(before, currency),
            format_money(after, currency)
        ),
    };
    format!(
        "The call's value {} and the publisher's credit {}.",
        step(detail.value_before_cents, detail.value_after_cents),
        step(detail.credit_before_cents, detail.credit_after_cents),
    )
}

/// What is added to an unmatched row's sentence while its report still waits for a call (M7), in the zone
/// that it is read in.
pub fn waiting_until(until: &jiff::Zoned) -> String {
    format!(
        " It is tried again whenever such a call is recorded, until {}.",
        until.strftime("%Y-%m-%d %H:%M %Z")
    )
}

fn explain_settled(status: Status, detail: &Detail, currency: &str) -> String {
    match (status, detail.value_after_cents) {
        (Status::Matched, Some(0)) => {
            format!(
                "The buyer paid nothing: the call is unqualified. {}",
                describe_movement(detail, currency)
            )
        }
        (Status::Matched, _) => describe_movement(detail, currency),
        _ => "Nothing to do.".to_owned(),
    }
}

fn explain_matched(reason: Reason, detail: &Detail, currency: &str) -> String {
    match reason {
        Reason::NoChange => {
            let stands = format_money(detail.value_after_cents, currency);
            let others = describe_others(detail);
            let to_do = if others.is_empty() { " Nothing to do." } else { "" };
            format!("The report says what the call already stood at ({stands}), so no money moved.{to_do}{others}")
        }
        Reason::NoPayout => "The call was found, but the report names no payout that can be read (it is missing, blank, a macro that was \
             not filled in, or no amount), so no money moved. If the buyer owes for this call, check the payout field in their \
             postback, or apply the amount by hand."
            .to_owned(),
        Reason::MatchedLate => {
            format!("The report came before its call was recorded and was matched when the call arrived. {}", describe_movement(detail, currency))
        }
        Reason::Reversal => format!("The buyer took the whole payout back: the call is unqualified. {}", describe_movement(detail, currency)),
        Reason::NoAssignment => format!(
            "The call's value is set to {}, but the call was recorded without a campaign assignment, so no publisher \
             is credited. Record the call again with its assignment: the publisher is credited then.",
            format_money(detail.value_after_cents, currency)
        ),
        Reason::MovedToItsCall => format!(
            "The report had been matched to another call by a guess; its own call is known now, so it was moved here, and what it \
             had moved there was taken back. {}",
            describe_movement(detail, currency)
        ),
        Reason::ReplacedHeuristicMatch => format!(
            "This report names the call by its id and took the place of one that was matched by caller and duration only. \
             Look at that one: it may belong to another call. {}",
            describe_movement(detail, currency)
        ),
        _ => describe_movement(detail, currency),
    }
}

/// How many other calls a repeat may be about instead (M4).
fn describe_others(detail: &Detail) -> String {
    detail.other_candidates.map_or_else(String::new, |n| {
        let calls = if n == 1 { "call fits" } else { "calls fit" };
        format!(
            " {n} other {calls} it as well and nobody has reported on it: if this is about another call, assign it."
        )
    })
}

fn explain_repeated(reason: Reason, detail: &Detail, currency: &str) -> String {
    let changed = detail.value_changed_to_cents.map_or_else(String::new, |now| {
        format!(
            " The call has meanwhile been set to {}: if the buyer meant to set it back, apply this report by hand.",
            format_cents(now, currency)
        )
    });
    let others = describe_others(detail);
    let to_do = if changed.is_empty() && others.is_empty() {
        " Nothing to do."
    } else {
        ""
    };
    match reason {
        Reason::SamePayoutWithin15m => format!(
            "The same payout was reported for this call at most 15 minutes apart: a retry, which is counted once, so no money \
             moved.{to_do}{changed}{others}"
        ),
        Reason::RepeatOfMatchedReport => format!(
            "A report with the same caller, duration and payout had been matched to this call at most 15 minutes before: a retry, \
             which is counted once, so no money moved.{to_do}{changed}{others}"
        ),
        Reason::RepeatOfOpenReport => "The same report waits for a person already, or was closed by one: see the event that this one repeats. \
             What is decided there holds for this one, too. Nothing to do here."
            .to_owned(),
        Reason::Undone => {
            "A person applied this amount and took it back again, so it counts for nothing. Nothing to do.".to_owned()
        }
        _ => format!(
            "A report that was received later than this one has already set the call to {}, so this one changes nothing. Nothing to do.",
            format_money(detail.value_after_cents, currency)
        ),
    }
}

fn explain_ambiguous(detail: &Detail) -> String {
    let calls = detail.candidates.len().max(2);
    let why = match detail.other_candidates {
        _ if detail.shared_ref_id => {
            format!(
                "{calls} calls bear the reported ref_id, and caller and duration do not tell which is meant"
            )
        }
        Some(n) => format!(
            "A report with the same caller and duration but another payout was matched before, and {n} other {}: \
             this may correct the first report or be about another call",
            if n == 1 { "call fits" } else { "calls fit" }
        ),
        None => format!(
            "{calls} calls fit this report, and they would pay different publishers or on different terms"
        ),
    };
    format!(
        "{why}. Nobody was credited by a guess: choose the call among the candidates and assign it."
    )
}

fn explain_held(reason: Reason, detail: &Detail, currency: &str) -> String {
    let word = detail.word.as_deref().unwrap_or("another");
    match reason {
        Reason::Ambiguous => explain_ambiguous(detail),
        Reason::ReplacedHeuristicMatch => "Another report named this call by its id, so this one, which was matched by caller and \
             duration only, no longer counts on it. Find out which call it was about and assign it, or ignore it."
            .to_owned(),
        Reason::TooManyReports => format!(
            "This call has {MAX_FOLDED_REPORTS} reports already, which is as many as one call may have, so no money moved. \
             Find out why the buyer reports on it so often, and apply the right amount by hand."
        ),
        Reason::NegativePayout => format!(
            "The buyer reported a negative amount that is not the whole of what the call stands at ({}). \
             No money moved. Find out what they mean to pay in the end, and apply that amount.",
            format_money(detail.value_after_cents, currency)
        ),
        Reason::PayoutOverCap => format!(
            "The payout is over this webhook's cap of {}, so no money moved. If it is right, apply it, or raise the cap in the \
             webhook's settings and replay; if it is in cents, change the payout unit and replay.",
            format_money(detail.cap_cents, currency)
        ),
        Reason::CurrencyMismatch => format!(
            "The report is in {word}, this account is in {}, so no money moved. Apply the converted amount; or, if the figure is \
             right as it is, set the webhook to trust it and replay.",
            detail.currency.as_deref().unwrap_or(currency)
        ),
        Reason::StatusSaysRejected => format!(
            "The report names an amount and says \"{word}\" beside it, so no money moved. Ask the buyer which is meant and apply \
             the amount or 0; or set the webhook to trust the amount and replay."
        ),
        _ => "Processing this report failed five times, so it was set aside and nothing was moved. \
              It waits in the dead-letter queue: see the worker's log, then replay it here or run `trueup-worker redrive`."
            .to_owned(),
    }
}

fn format_span(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 if minutes == 0 => format!("{hours} h"),
        7_200..=172_799 => format!("{hours} h {minutes} min"),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn explain_unmatched(reason: Reason, detail: &Detail) -> String {
    match reason {
        Reason::RefIdNotFound => "No call of this account has the reported ref_id. Check that the buyer echoes the ref_id you sent, \
             in the field this webhook reads it from, and that the call has been recorded."
            .to_owned(),
        Reason::CallIdNotFound => "No call of this account has the reported call_id. It must be our call's UUID; a buyer's own call number is no match. \
             Have the buyer send our ref_id, or caller and duration."
            .to_owned(),
        Reason::CallerNotFound => "No call of this account came from the reported caller. Check that the buyer sends the caller's own number, \
             not a tracking number, and that the call has been recorded."
            .to_owned(),
        Reason::OutsideWindow => outside_window(detail),
        Reason::DurationMismatch => format!(
            "The caller has calls in the window, but the nearest was {} s off and this webhook allows {} s. \
             If that call is meant, assign it, or raise the match duration tolerance and replay.",
            detail.nearest_off_seconds.unwrap_or_default(),
            detail.tolerance_seconds.unwrap_or_default()
        ),
        Reason::NoCaller => "The report names no usable caller (missing, withheld or not a phone number) and no id that we know. \
             Check the caller field in the buyer's postback, or have them send our ref_id."
            .to_owned(),
        Reason::NoDuration => "The report names a caller but no usable duration, and no id that we know, so the call cannot be told from the caller's others. \
             Check the duration field in the buyer's postback, or have them send our ref_id."
            .to_owned(),
        Reason::AlreadyReported => format!(
            "{} already been claimed by another report, so no money moved. If this one is about a call all the same, assign it.",
            match detail.candidates.len() {
                0 | 1 => "The only call that fits has".to_owned(),
                n => format!("All {n} calls that fit have"),
            }
        ),
        Reason::OtherBuyer => "The call that fits was not sold to this webhook's buyer. Check the buyer set on the webhook and the buyer recorded with the call, then replay."
            .to_owned(),
        Reason::PayoutUnparseable => "The payout field holds something that is no amount of money, so nothing was taken from it or from any other field. \
             Have the buyer send a plain number such as 50 or 12.50, or assign the call and apply the amount by hand."
            .to_owned(),
        Reason::UnparseableBody => format!(
            "The body looks like JSON or XML but does not parse: the first error is at byte {}, and there is no single way to mend it. \
             Have the buyer fix their template; quotes and commas around macros are the usual cause.",
            detail.byte.unwrap_or_default()
        ),
        Reason::UnparseableElement => "This element of the batch is not an object with fields, so nothing could be read from it. \
             Each element must look like {\"ref_id\": …, \"payout\": …}."
            .to_owned(),
        Reason::EmptyBatch => "The batch was empty: it held no report. Nothing to do unless the buyer meant to send some.".to_owned(),
        _ => "The report holds neither an id nor a caller and duration under any name we know. \
              Compare the field names in the raw request with this webhook's field names and set the ones that differ."
            .to_owned(),
    }
}

fn outside_window(detail: &Detail) -> String {
    let seconds = detail.nearest_ended_seconds_before.unwrap_or_default();
    let hours = detail.window_hours.unwrap_or_default();
    if seconds < 0 {
        return format!(
            "The caller's nearest call ended {} after the report came, which is more than two clocks may differ ({} min). \
             If that call is meant, assign it, and check the times that calls are recorded with.",
            format_span(seconds),
            CLOCK_SKEW_MICROS / 60_000_000
        );
    }
    // A fraction of a second outside must not read as if it were inside.
    let just = if seconds == hours.saturating_mul(3_600) {
        "just over "
    } else {
        ""
    };
    format!(
        "The caller's nearest call ended {just}{} before the report came; this webhook looks back {hours} h. \
         If that call is meant, assign it, or widen the match window and replay.",
        format_span(seconds)
    )
}

fn explain_refused(reason: Reason) -> &'static str {
    match reason {
        Reason::EndpointDisabled => {
            "The webhook is paused, so this request did not become a report. Switch the webhook on and replay it."
        }
        Reason::SecretMissing => {
            "The webhook requires X-Webhook-Secret and the request carried none. Give the buyer the secret, or make a new one."
        }
        Reason::SecretMismatch => {
            "The X-Webhook-Secret did not match any valid secret. Rotate the secret and share it with the buyer again."
        }
        Reason::RateLimitedIp => {
            "Too many requests in 60 s from this address. Have the buyer batch or slow down, or raise this webhook's limit per address."
        }
        Reason::RateLimitedToken => {
            "Too many requests in 60 s on this webhook. Have the buyer batch or slow down, or raise the webhook's limit."
        }
        Reason::BodyTooLarge => {
            "The body, or the number of reports in the batch, was over the limit (64 KiB; 512 KiB and 500 reports in a batch). Have the buyer split it."
        }
        _ => "The request was refused and did not become a report.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_sentence_that_says_what_to_do() {
        for status in Status::ALL {
            for reason in Reason::ALL.iter().map(|r| Some(*r)).chain([None]) {
                let text = explain_reason(*status, reason, &Detail::default(), "USD");
                assert!(
                    text.len() > 10 && text.ends_with('.'),
                    "{status} {reason:?}: {text}"
                );
                assert!(!text.contains("  "), "{text}");
            }
        }
    }

    #[test]
    fn amounts_are_written_as_people_write_them() {
        let usd = [0, 5, 1_250, 123_456_789, -2_500].map(|c| format_cents(c, "USD"));
        assert_eq!(
            usd,
            ["$0.00", "$0.05", "$12.50", "$1,234,567.89", "-$25.00"]
        );
        assert_eq!(format_cents(1_250, "EUR"), "12.50 EUR");
    }

    #[test]
    fn m3_a_near_miss_gives_its_figure() {
        let detail = Detail {
            nearest_off_seconds: Some(74),
            tolerance_seconds: Some(60),
            ..Detail::default()
        };
        let text = explain_reason(
            Status::Unmatched,
            Some(Reason::DurationMismatch),
            &detail,
            "USD",
        );
        assert!(text.contains("nearest was 74 s off"), "{text}");
        let detail = Detail {
            nearest_ended_seconds_before: Some(31 * 3_600),
            window_hours: Some(24),
            ..Detail::default()
        };
        let text = explain_reason(
            Status::Unmatched,
            Some(Reason::OutsideWindow),
            &detail,
            "USD",
        );
        assert!(text.contains("nearest call ended 31 h before"), "{text}");
        let outside = |seconds| {
            let detail = Detail {
                nearest_ended_seconds_before: Some(seconds),
                window_hours: Some(24),
                ..Detail::default()
            };
            explain_reason(
                Status::Unmatched,
                Some(Reason::OutsideWindow),
                &detail,
                "USD",
            )
        };
        assert!(
            outside(24 * 3_600).contains("just over 24 h before"),
            "{}",
            outside(24 * 3_600)
        );
        assert!(
            outside(24 * 3_600 + 60).contains("ended 24 h 1 min before"),
            "{}",
            outside(24 * 3_600 + 60)
        );
        assert!(
            outside(-301).contains("ended 5 min after"),
            "{}",
            outside(-301)
        );
    }

    #[test]
    fn m1_m4_m6_each_doubt_is_told_by_its_name() {
        let told =
            |detail: Detail| explain_reason(Status::Held, Some(Reason::Ambiguous), &detail, "USD");
        assert!(
            told(Detail::default())
                .starts_with("2 calls fit this report, and they would pay different")
        );
        assert!(
            told(Detail {
                shared_ref_id: true,
                ..Detail::default()
            })
            .contains("bear the reported ref_id")
        );
        let correction = told(Detail {
            other_candidates: Some(1),
            ..Detail::default()
        });
        assert!(
            correction.contains("another payout was matched before, and 1 other call fits"),
            "{correction}"
        );
    }

    #[test]
    fn v2_a_retry_says_when_a_person_may_want_to_act() {
        let told = |detail: Detail| {
            explain_reason(
                Status::Duplicate,
                Some(Reason::SamePayoutWithin15m),
                &detail,
                "USD",
            )
        };
        assert!(told(Detail::default()).ends_with("no money moved. Nothing to do."));
        let changed = told(Detail {
            value_changed_to_cents: Some(7_000),
            ..Detail::default()
        });
        assert!(
            changed.contains("meanwhile been set to $70.00") && !changed.contains("Nothing to do"),
            "{changed}"
        );
        let others = told(Detail {
            other_candidates: Some(2),
            ..Detail::default()
        });
        assert!(others.contains("2 other calls fit it as well"), "{others}");
    }
}
