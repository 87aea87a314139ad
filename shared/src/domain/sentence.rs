//! The sentence of each reason: what happened, with the figure, and what to do about it.
//!
//! Read by people who have never seen the code, often when money is missing. It names no caller, no
//! token and no body; those stand beside it.

use jiff::Timestamp;

use super::reason::{Detail, Reason, Status};

/// The text beside a row's status. `currency` is the account's (ISO 4217).
pub fn sentence(status: Status, reason: Option<Reason>, detail: &Detail, currency: &str) -> String {
    let Some(reason) = reason else {
        return settled(status, detail, currency);
    };
    match status {
        Status::Matched => matched(reason, detail, currency),
        Status::Duplicate | Status::Superseded => repeated(reason, detail, currency),
        Status::Held => held(reason, detail, currency),
        Status::Unmatched => unmatched(reason, detail),
        Status::Refused => refused(reason).to_owned(),
    }
}

/// The sentence of a row, and until when it is tried again if it waits for its call (M7).
pub fn row_sentence(
    status: Status,
    reason: Option<Reason>,
    detail: &Detail,
    currency: &str,
    retry_until: Option<Timestamp>,
) -> String {
    let text = sentence(status, reason, detail, currency);
    match retry_until {
        Some(until) if status == Status::Unmatched => {
            format!(
                "{text} It is tried again until {}, and as soon as such a call is recorded.",
                until.strftime("%Y-%m-%d %H:%M UTC")
            )
        }
        _ => text,
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

fn money(cents: Option<i64>, currency: &str) -> String {
    cents.map_or_else(|| "nothing".to_owned(), |c| format_cents(c, currency))
}

fn movement(detail: &Detail, currency: &str) -> String {
    format!(
        "The call's value went from {} to {} and the publisher's credit from {} to {}.",
        money(detail.value_before_cents, currency),
        money(detail.value_after_cents, currency),
        money(detail.credit_before_cents, currency),
        money(detail.credit_after_cents, currency),
    )
}

fn settled(status: Status, detail: &Detail, currency: &str) -> String {
    match (status, detail.value_after_cents) {
        (Status::Matched, Some(0)) => {
            format!("The buyer paid nothing: the call is unqualified. {}", movement(detail, currency))
        }
        (Status::Matched, _) => movement(detail, currency),
        _ => "Nothing to do.".to_owned(),
    }
}

fn matched(reason: Reason, detail: &Detail, currency: &str) -> String {
    match reason {
        Reason::NoChange => format!(
            "The call already stands at {}: no money moved. Nothing to do.",
            money(detail.value_after_cents, currency)
        ),
        Reason::NoPayout => "The call was found, but the report names no payout (it is missing, blank or a macro that was not filled in), \
             so no money moved. If the buyer owes for this call, check the payout field in their postback, or apply the amount by hand."
            .to_owned(),
        Reason::MatchedLate => {
            format!("The report came before its call was recorded and was matched when the call arrived. {}", movement(detail, currency))
        }
        Reason::Reversal => format!("The buyer took the whole payout back: the call is unqualified. {}", movement(detail, currency)),
        Reason::NoAssignment => format!(
            "The call's value is set to {}, but the call has no campaign assignment, so no publisher is credited. \
             Record calls with an assignment if a publisher should earn from them.",
            money(detail.value_after_cents, currency)
        ),
        Reason::ReplacedHeuristicMatch if detail.displaced => {
            "A later report named this call by its id, so this one, which was matched by caller and duration only, \
             no longer counts. Find out which call it was about and assign it, or ignore it."
                .to_owned()
        }
        Reason::ReplacedHeuristicMatch => format!(
            "This report names the call by its id and took the place of one that was matched by caller and duration only. \
             Look at that one: it may belong to another call. {}",
            movement(detail, currency)
        ),
        _ => movement(detail, currency),
    }
}

fn repeated(reason: Reason, detail: &Detail, currency: &str) -> String {
    let changed = detail.value_changed_to_cents.map_or_else(String::new, |now| {
        format!(
            " The call has meanwhile been set to {}: if the buyer meant to set it back, apply this report by hand.",
            format_cents(now, currency)
        )
    });
    let others = detail.other_candidates.map_or_else(String::new, |n| {
        format!(
            " {n} other {} would have fitted: if this is about another one, assign it.",
            if n == 1 { "call" } else { "calls" }
        )
    });
    match reason {
        Reason::SamePayoutWithin15m => {
            format!(
                "The same payout was reported for this call within the 15 minutes before: a retry, counted once.{changed}{others}"
            )
        }
        Reason::RepeatOfMatchedReport => format!(
            "A report with the same caller, duration and payout was matched to this call within the 15 minutes before: a retry, counted once.{changed}{others}"
        ),
        _ => format!(
            "A report received later than this one already set the call to {}, so this one changes nothing. Nothing to do.",
            money(detail.value_after_cents, currency)
        ),
    }
}

fn held(reason: Reason, detail: &Detail, currency: &str) -> String {
    let word = detail.word.as_deref().unwrap_or("another");
    match reason {
        Reason::Ambiguous => format!(
            "{} calls fit this report and they would pay different publishers, so nobody was credited by a guess. \
             Choose the call among the candidates and assign it.",
            detail.candidates.len().max(2)
        ),
        Reason::NegativePayout => format!(
            "The buyer reported a negative amount that is not the whole of what the call stands at ({}). \
             Find out what they mean to pay in the end, and apply that amount.",
            money(detail.value_after_cents, currency)
        ),
        Reason::PayoutOverCap => format!(
            "The payout is over this webhook's cap of {}. If it is right, apply it, or raise the cap in the webhook's settings and replay; \
             if it is in cents, change the payout unit.",
            money(detail.cap_cents, currency)
        ),
        Reason::CurrencyMismatch => format!(
            "The report is in {word}, this account is in {}. Apply the converted amount, or set the webhook to trust the figure.",
            detail.currency.as_deref().unwrap_or(currency)
        ),
        Reason::StatusSaysRejected => format!(
            "The report names an amount and says \"{word}\" beside it. Ask the buyer which is meant: apply the amount, apply 0, \
             or set the webhook to trust the amount."
        ),
        _ => "Processing this report failed five times, so it was set aside and nothing was moved. \
              It waits in the dead-letter queue: see the worker's log, then replay it here or run `trueup-worker redrive`."
            .to_owned(),
    }
}

fn span(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn unmatched(reason: Reason, detail: &Detail) -> String {
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
             If that call is meant, assign it, or raise the match duration tolerance.",
            detail.nearest_off_seconds.unwrap_or_default(),
            detail.tolerance_seconds.unwrap_or_default()
        ),
        Reason::NoCaller => "The report names no usable caller (missing, withheld or not a phone number) and no id that we know. \
             Check the caller field in the buyer's postback, or have them send our ref_id."
            .to_owned(),
        Reason::NoDuration => "The report names a caller but no usable duration, so the call cannot be told from the caller's others. \
             Check the duration field in the buyer's postback, or have them send our ref_id."
            .to_owned(),
        Reason::AlreadyReported => "Every call that fits has already been claimed by another report. If one of those was wrong, \
             assign this report to the right call."
            .to_owned(),
        Reason::OtherBuyer => "The call that fits was not sold to this webhook's buyer. Check the buyer set on the webhook and the buyer recorded with the call."
            .to_owned(),
        Reason::PayoutUnparseable => "The payout field holds something that is no amount of money, so nothing was taken from it or from any other field. \
             Have the buyer send a plain number such as 50 or 12.50, or assign the call and apply the amount by hand."
            .to_owned(),
        Reason::UnparseableBody => format!(
            "The body looks like JSON but does not parse: the first error is at byte {}. Have the buyer fix their template; \
             quotes and commas around macros are the usual cause.",
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
    let when = if seconds >= 0 { "before the report came" } else { "after the report came" };
    format!(
        "The caller's nearest call ended {} {when}; this webhook looks back {hours} h. \
         If that call is meant, assign it, or widen the match window.",
        span(seconds)
    )
}

fn refused(reason: Reason) -> &'static str {
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
                let text = sentence(*status, reason, &Detail::default(), "USD");
                assert!(text.len() > 10 && text.ends_with('.'), "{status} {reason:?}: {text}");
                assert!(!text.contains("  "), "{text}");
            }
        }
    }

    #[test]
    fn amounts_are_written_as_people_write_them() {
        let usd = [0, 5, 1_250, 123_456_789, -2_500].map(|c| format_cents(c, "USD"));
        assert_eq!(usd, ["$0.00", "$0.05", "$12.50", "$1,234,567.89", "-$25.00"]);
        assert_eq!(format_cents(1_250, "EUR"), "12.50 EUR");
    }

    #[test]
    fn m3_a_near_miss_gives_its_figure() {
        let detail = Detail { nearest_off_seconds: Some(74), tolerance_seconds: Some(60), ..Detail::default() };
        let text = sentence(Status::Unmatched, Some(Reason::DurationMismatch), &detail, "USD");
        assert!(text.contains("nearest was 74 s off"), "{text}");
        let detail =
            Detail { nearest_ended_seconds_before: Some(31 * 3_600), window_hours: Some(24), ..Detail::default() };
        let text = sentence(Status::Unmatched, Some(Reason::OutsideWindow), &detail, "USD");
        assert!(text.contains("nearest call ended 31 h before"), "{text}");
    }
}
