//! The sentence of each reason: what happened, with the figure, and what to do about it.
//!
//! Read by people who have never seen the code, often when money is missing. It names no caller, no
//! token and no body; those stand beside it.

use crate::locked_calls::MAX_FOLDED_REPORTS;
use crate::matching::CLOCK_SKEW_MICROS;
use crate::reading_notes::describe_notes;
use trueup_event::reason::RefusalReason;
use trueup_event::verdict::{
    CallChange, CandidateNote, Contradiction, Detail, Doubt, NearMiss, NoCall, OnCall, OtherCalls,
    Outcome, Repeat, Verdict,
};

/// The text beside a row's status. `currency` is the account's (ISO 4217).
pub fn explain_reason(detail: &Detail, currency: &str) -> String {
    let mut text = explain_verdict(&detail.verdict, currency);
    text.push_str(&describe_notes(&detail.reading_notes));
    text
}

fn explain_verdict(verdict: &Verdict, currency: &str) -> String {
    let text = match verdict {
        Verdict::OnCall(on_call) => return explain_on_call(on_call, currency),
        Verdict::NoCall(no_call) => return explain_no_call(no_call),
        Verdict::Doubt(doubt) => return explain_doubt(doubt),
        Verdict::Refused(reason) => explain_refused(*reason),
        Verdict::RepeatOfOpen { .. } => {
            "The same report waits for a person already, or was closed by one: see the event that this one repeats. \
             What is decided there holds for this one, too. Nothing to do here."
        }
        Verdict::Displaced { .. } => {
            "Another report named this call by its id, so this one, which was matched by caller and \
             duration only, no longer counts on it. Find out which call it was about and assign it, or ignore it."
        }
        Verdict::Undone => {
            "A person applied this amount and took it back again, so it counts for nothing. Nothing to do."
        }
        Verdict::ProcessingFailed => {
            "Processing this report failed five times, so it was set aside and nothing was moved. \
             It waits in the dead-letter queue: see the worker's log, then replay it here or run `trueup-worker redrive`."
        }
    };
    text.to_owned()
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

fn describe_movement(change: CallChange, currency: &str) -> String {
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
        step(change.value_before_cents, change.value_after_cents),
        step(
            Some(change.credit_before_cents),
            Some(change.credit_after_cents)
        ),
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

fn explain_on_call(on_call: &OnCall, currency: &str) -> String {
    let change = on_call.change.unwrap_or_default();
    let movement = || describe_movement(change, currency);
    let stands = || format_money(change.value_after_cents, currency);
    match &on_call.outcome {
        Outcome::Settled if change.value_after_cents == Some(0) => {
            format!("The buyer paid nothing: the call is unqualified. {}", movement())
        }
        Outcome::Settled => movement(),
        Outcome::NoChange => {
            let others = describe_others(&on_call.others);
            let to_do = if others.is_empty() { " Nothing to do." } else { "" };
            format!("The report says what the call already stood at ({}), so no money moved.{to_do}{others}", stands())
        }
        Outcome::NoPayout => "The call was found, but the report names no payout that can be read (it is missing, blank, a macro that was \
             not filled in, or no amount), so no money moved. If the buyer owes for this call, check the payout field in their \
             postback, or apply the amount by hand."
            .to_owned(),
        Outcome::MatchedLate => {
            format!("The report came before its call was recorded and was matched when the call arrived. {}", movement())
        }
        Outcome::Reversal => format!("The buyer took the whole payout back: the call is unqualified. {}", movement()),
        Outcome::NoAssignment => format!(
            "The call's value is set to {}, but the call was recorded without a campaign assignment, so no publisher \
             is credited. Give it one on its page, or record it again with one: the publisher is credited then.",
            stands()
        ),
        Outcome::MovedToItsCall { .. } => format!(
            "The report had been matched to another call by a guess; its own call is known now, so it was moved here, and what it \
             had moved there was taken back. {}",
            movement()
        ),
        Outcome::ReplacedHeuristicMatch { .. } => format!(
            "This report names the call by its id and took the place of one that was matched by caller and duration only. \
             Look at that one: it may belong to another call. {}",
            movement()
        ),
        Outcome::SamePayoutWithin15m(repeat) => format!(
            "The same payout was reported for this call at most 15 minutes apart: a retry, which is counted once, so no money \
             moved.{}",
            advise_on_repeat(*repeat, &on_call.others, currency)
        ),
        Outcome::RepeatOfMatchedReport(repeat) => format!(
            "A report with the same caller, duration and payout had been matched to this call at most 15 minutes before: a retry, \
             which is counted once, so no money moved.{}",
            advise_on_repeat(*repeat, &on_call.others, currency)
        ),
        Outcome::OlderThanApplied { .. } => format!(
            "A report that was received later than this one has already set the call to {}, so this one changes nothing. Nothing to do.",
            stands()
        ),
        Outcome::NegativePayout => format!(
            "The buyer reported a negative amount that is not the whole of what the call stands at ({}). \
             No money moved. Find out what they mean to pay in the end, and apply that amount.",
            stands()
        ),
        Outcome::Held(contradiction) => explain_contradiction(contradiction, currency),
        Outcome::TooManyReports(_) => format!(
            "This call has {MAX_FOLDED_REPORTS} reports already, which is as many as one call may have, so no money moved. \
             Find out why the buyer reports on it so often, and apply the right amount by hand."
        ),
    }
}

/// How many other calls a repeat may be about instead (M4).
fn describe_others(others: &OtherCalls) -> String {
    others.count.map_or_else(String::new, |n| {
        let calls = if n == 1 { "call fits" } else { "calls fit" };
        format!(
            " {n} other {calls} it as well and nobody has reported on it: if this is about another call, assign it."
        )
    })
}

fn advise_on_repeat(repeat: Repeat, others: &OtherCalls, currency: &str) -> String {
    let changed = repeat.value_changed_to_cents.map_or_else(String::new, |now| {
        format!(
            " The call has meanwhile been set to {}: if the buyer meant to set it back, apply this report by hand.",
            format_cents(now, currency)
        )
    });
    let advice = changed + &describe_others(others);
    if advice.is_empty() {
        " Nothing to do.".to_owned()
    } else {
        advice
    }
}

fn explain_doubt(doubt: &Doubt) -> String {
    let count = |candidates: &[CandidateNote]| candidates.len().max(2);
    let why = match doubt {
        Doubt::SharedRefId(candidates) => format!(
            "{} calls bear the reported ref_id, and caller and duration do not tell which is meant",
            count(candidates)
        ),
        Doubt::Correction(others) => {
            let n = others.count.unwrap_or(1);
            format!(
                "A report with the same caller and duration but another payout was matched before, and {n} other {}: \
                 this may correct the first report or be about another call",
                if n == 1 { "call fits" } else { "calls fit" }
            )
        }
        Doubt::Payees(candidates) => format!(
            "{} calls fit this report, and they would pay different publishers or on different terms",
            count(candidates)
        ),
    };
    format!(
        "{why}. Nobody was credited by a guess: choose the call among the candidates and assign it."
    )
}

fn explain_contradiction(contradiction: &Contradiction, currency: &str) -> String {
    match contradiction {
        Contradiction::PayoutOverCap { cap_cents } => format!(
            "The payout is over this webhook's cap of {}, so no money moved. If it is right, apply it, or raise the cap in the \
             webhook's settings and replay; if it is in cents, change the payout unit and replay.",
            format_cents(*cap_cents, currency)
        ),
        Contradiction::CurrencyMismatch { theirs, ours } => format!(
            "The report is in {theirs}, this account is in {}, so no money moved. Apply the converted amount; or, if the figure is \
             right as it is, set the webhook to trust it and replay.",
            ours.as_deref().unwrap_or(currency)
        ),
        Contradiction::StatusSaysRejected { word } => format!(
            "The report names an amount and says \"{word}\" beside it, so no money moved. Ask the buyer which is meant and apply \
             the amount or 0; or set the webhook to trust the amount and replay."
        ),
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

fn explain_no_call(no_call: &NoCall) -> String {
    match no_call {
        NoCall::RefIdNotFound => "No call of this account has the reported ref_id. Check that the buyer echoes the ref_id you sent, \
             in the field this webhook reads it from, and that the call has been recorded."
            .to_owned(),
        NoCall::CallIdNotFound => "No call of this account has the reported call_id. It must be our call's UUID; a buyer's own call number is no match. \
             Have the buyer send our ref_id, or caller and duration."
            .to_owned(),
        NoCall::CallerNotFound => "No call of this account came from the reported caller. Check that the buyer sends the caller's own number, \
             not a tracking number, and that the call has been recorded."
            .to_owned(),
        NoCall::OutsideWindow { ended_seconds_before, near } => outside_window(*ended_seconds_before, near),
        NoCall::DurationMismatch { off_seconds, near } => format!(
            "The caller has calls in the window, but the nearest was {off_seconds} s off and this webhook allows {} s. \
             If that call is meant, assign it, or raise the match duration tolerance and replay.",
            near.tolerance_seconds
        ),
        NoCall::NoCaller => "The report names no usable caller (missing, withheld or not a phone number) and no id that we know. \
             Check the caller field in the buyer's postback, or have them send our ref_id."
            .to_owned(),
        NoCall::NoDuration => "The report names a caller but no usable duration, and no id that we know, so the call cannot be told from the caller's others. \
             Check the duration field in the buyer's postback, or have them send our ref_id."
            .to_owned(),
        NoCall::AlreadyReported(claimed) => format!(
            "{} already been claimed by another report, so no money moved. If this one is about a call all the same, assign it.",
            match claimed.len() {
                0 | 1 => "The only call that fits has".to_owned(),
                n => format!("All {n} calls that fit have"),
            }
        ),
        NoCall::OtherBuyer => "The call that fits was not sold to this webhook's buyer. Check the buyer set on the webhook and the buyer recorded with the call, then replay."
            .to_owned(),
        NoCall::PayoutUnparseable => "The payout field holds something that is no amount of money, so nothing was taken from it or from any other field. \
             Have the buyer send a plain number such as 50 or 12.50, or assign the call and apply the amount by hand."
            .to_owned(),
        NoCall::UnparseableBody { byte } => format!(
            "The body looks like JSON or XML but does not parse: the first error is at byte {byte}, and there is no single way to mend it. \
             Have the buyer fix their template; quotes and commas around macros are the usual cause."
        ),
        NoCall::UnparseableQuery { byte } => format!(
            "A field of the URL's query looks like JSON but does not parse: the first error is at byte {byte} of the query, and there is no single way to mend it. \
             Have the buyer fix their template; quotes and commas around macros are the usual cause."
        ),
        NoCall::UnparseableElement => "This element of the batch is not an object with fields, so nothing could be read from it. \
             Each element must look like {\"ref_id\": …, \"payout\": …}."
            .to_owned(),
        NoCall::EmptyBatch => "The batch was empty: it held no report. Nothing to do unless the buyer meant to send some.".to_owned(),
        NoCall::NothingToMatch => "The report holds neither an id nor a caller and duration under any name we know. \
              Compare the field names in the raw request with this webhook's field names and set the ones that differ."
            .to_owned(),
    }
}

/// `seconds`: how long before the report the nearest call ended (negative: after).
fn outside_window(seconds: i64, near: &NearMiss) -> String {
    let hours = near.window_hours;
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

fn explain_refused(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::EndpointDisabled => {
            "The webhook is paused, so this request did not become a report. Switch the webhook on and replay it."
        }
        RefusalReason::SecretMissing => {
            "The webhook requires X-Webhook-Secret and the request carried none. Give the buyer the secret, or make a new one."
        }
        RefusalReason::SecretMismatch => {
            "The X-Webhook-Secret did not match any valid secret. Rotate the secret and share it with the buyer again."
        }
        RefusalReason::RateLimitedIp => {
            "Too many requests in 60 s from this address. Have the buyer batch or slow down, or raise this webhook's limit per address."
        }
        RefusalReason::RateLimitedToken => {
            "Too many requests in 60 s on this webhook. Have the buyer batch or slow down, or raise the webhook's limit."
        }
        RefusalReason::BodyTooLarge => {
            "The body, or the number of reports in the batch, was over the limit (64 KiB; 512 KiB and 500 reports in a batch). Have the buyer split it."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueup_event::reason::{Reason, Status};

    /// Every reason's stored texts, as versions before have left them, with the sentence they are told by.
    #[test]
    fn every_stored_detail_is_told_as_it_always_was() {
        let stored = include_str!("../../event/src/stored_details.tsv").lines();
        let sentences = include_str!("sentences_of_details.txt").lines();
        assert_eq!(stored.clone().count(), sentences.clone().count());
        for (line, sentence) in stored.zip(sentences) {
            let cells: Vec<&str> = line.split('\t').collect();
            let [status, reason, text] = cells[..] else {
                panic!("{line}");
            };
            let status = Status::from_code(status).expect(line);
            let text = Some(text).filter(|text| !text.is_empty());
            let detail = Detail::of_row(status, Reason::from_code(reason), text).expect(line);
            assert_eq!(explain_reason(&detail, "USD"), sentence, "{line}");
        }
    }

    #[test]
    fn every_reason_has_a_sentence_that_says_what_to_do() {
        for reason in Reason::ALL {
            for status in [reason.status(), Status::Held] {
                let detail = Detail::of_row(status, Some(*reason), None).expect("a detail");
                let text = explain_reason(&detail, "USD");
                assert!(
                    text.len() > 10 && text.ends_with('.'),
                    "{status} {reason}: {text}"
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

    fn told(verdict: Verdict) -> String {
        explain_reason(&verdict.into(), "USD")
    }

    #[test]
    fn m3_a_near_miss_gives_its_figure() {
        let near = || NearMiss {
            tolerance_seconds: 60,
            window_hours: 24,
            candidates: Vec::new(),
        };
        let text = told(Verdict::NoCall(NoCall::DurationMismatch {
            off_seconds: 74,
            near: near(),
        }));
        assert!(text.contains("nearest was 74 s off"), "{text}");
        let outside = |ended_seconds_before| {
            told(Verdict::NoCall(NoCall::OutsideWindow {
                ended_seconds_before,
                near: near(),
            }))
        };
        for (seconds, says) in [
            (31 * 3_600, "nearest call ended 31 h before"),
            (24 * 3_600, "just over 24 h before"),
            (24 * 3_600 + 60, "ended 24 h 1 min before"),
            (-301, "ended 5 min after"),
        ] {
            let text = outside(seconds);
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn m1_m4_m6_each_doubt_is_told_by_its_name() {
        let told = |doubt| told(Verdict::Doubt(doubt));
        assert!(
            told(Doubt::Payees(Vec::new()))
                .starts_with("2 calls fit this report, and they would pay different")
        );
        assert!(told(Doubt::SharedRefId(Vec::new())).contains("bear the reported ref_id"));
        let correction = told(Doubt::Correction(OtherCalls {
            count: Some(1),
            candidates: Vec::new(),
        }));
        assert!(
            correction.contains("another payout was matched before, and 1 other call fits"),
            "{correction}"
        );
    }

    #[test]
    fn v2_a_retry_says_when_a_person_may_want_to_act() {
        let told = |value_changed_to_cents, count| {
            let repeat = Repeat {
                of: None,
                value_changed_to_cents,
            };
            let candidates = Vec::new();
            told(Verdict::OnCall(OnCall {
                others: OtherCalls { count, candidates },
                outcome: Outcome::SamePayoutWithin15m(repeat),
                ..OnCall::settled(CallChange::default())
            }))
        };
        assert!(told(None, None).ends_with("no money moved. Nothing to do."));
        let changed = told(Some(7_000), None);
        assert!(
            changed.contains("meanwhile been set to $70.00") && !changed.contains("Nothing to do"),
            "{changed}"
        );
        let others = told(None, Some(2));
        assert!(others.contains("2 other calls fit it as well"), "{others}");
    }
}
