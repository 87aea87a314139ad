//! A detail as it is stored beside its row: every figure in one flat object. Which of them a reason has,
//! [`crate::verdict`] says; their names and their order are those of every version before.

use std::mem::take;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::reason::{ReadingNote, Reason, RefusalReason, Status};
use crate::verdict::{
    CallChange, CandidateNote, Contradiction, Detail, Doubt, NearMiss, NoCall, OnCall, OtherCalls,
    Outcome, Repeat, Verdict,
};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredDetail {
    /// The nearest call ended this many seconds before the report was received (negative: after).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest_ended_seconds_before: Option<i64>,
    /// The nearest call's duration differed by this many seconds (absolute).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest_off_seconds: Option<i64>,
    /// The webhook's tolerance or window, as it stood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_hours: Option<i64>,
    /// How many other calls would have fitted (M4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_candidates: Option<u32>,
    /// The calls that were considered, nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateNote>,
    /// The event that this one repeats, displaced, or was displaced by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_event: Option<Uuid>,
    /// A duplicate's call changed its value in between (V2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_changed_to_cents: Option<i64>,
    /// The call's value and publisher's credit before and after this report. Nearly every row has them, so that
    /// they are stored under short names; rows of versions before have the long ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "vb", alias = "value_before_cents")]
    pub value_before_cents: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "va", alias = "value_after_cents")]
    pub value_after_cents: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "cb", alias = "credit_before_cents")]
    pub credit_before_cents: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "ca", alias = "credit_after_cents")]
    pub credit_after_cents: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_cents: Option<i64>,
    /// The reported currency, or the word of rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word: Option<String>,
    /// The account's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// First bad byte of a body, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// That byte is one of the query.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_query: bool,
    /// The call that it was matched to before it was moved to this one (M9).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_call: Option<Uuid>,
    /// This report was the displaced one of `replaced_heuristic_match`, not the one that displaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub displaced: bool,
    /// The candidates of `ambiguous` are the calls that bear the reported ref_id (M1).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared_ref_id: bool,
    /// Found by a schedule or a later call, not at first sight (M7).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// How the request had to be read (X1b); in the order of [`ReadingNote::ALL`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reading_notes: Vec<ReadingNote>,
}

impl Detail {
    /// Of a row as it is stored. A figure that is missing is 0, one of another reason is not read.
    ///
    /// # Errors
    /// If `stored` is no detail's JSON.
    pub fn of_row(
        status: Status,
        reason: Option<Reason>,
        stored: Option<&str>,
    ) -> Result<Detail, serde_json::Error> {
        let stored = stored.map_or_else(|| Ok(StoredDetail::default()), serde_json::from_str)?;
        Ok(stored.into_detail(status, reason))
    }

    /// Of a row whose verdict is not asked for; none if `stored` is no detail's JSON.
    pub fn reading_notes_of_row(stored: &str) -> Vec<ReadingNote> {
        serde_json::from_str(stored)
            .map_or_else(|_| Vec::new(), |it: StoredDetail| it.reading_notes)
    }

    /// As it is stored; none if there is nothing to say.
    pub fn to_json(&self) -> Option<String> {
        let stored = StoredDetail::of(self);
        if stored == StoredDetail::default() {
            return None;
        }
        // Plain data of our own: it always serialises.
        serde_json::to_string(&stored).ok()
    }
}

impl StoredDetail {
    pub(crate) fn of(detail: &Detail) -> StoredDetail {
        let mut stored = StoredDetail {
            candidates: detail.candidates().to_vec(),
            other_event: detail.other_event(),
            left_call: detail.left_call(),
            reading_notes: detail.reading_notes.clone(),
            ..StoredDetail::default()
        };
        match &detail.verdict {
            Verdict::OnCall(on_call) => stored.add_call(on_call),
            Verdict::NoCall(no_call) => stored.add_near_miss(no_call),
            Verdict::Doubt(Doubt::SharedRefId(_)) => stored.shared_ref_id = true,
            Verdict::Doubt(Doubt::Correction(others)) => stored.other_candidates = others.count,
            Verdict::Displaced { .. } => stored.displaced = true,
            _ => {}
        }
        stored
    }

    fn add_call(&mut self, on_call: &OnCall) {
        self.other_candidates = on_call.others.count;
        self.late = on_call.late;
        if let Some(change) = on_call.change {
            self.value_before_cents = change.value_before_cents;
            self.value_after_cents = change.value_after_cents;
            self.credit_before_cents = Some(change.credit_before_cents);
            self.credit_after_cents = Some(change.credit_after_cents);
        }
        match &on_call.outcome {
            Outcome::SamePayoutWithin15m(repeat) | Outcome::RepeatOfMatchedReport(repeat) => {
                self.value_changed_to_cents = repeat.value_changed_to_cents;
            }
            Outcome::Held(held) | Outcome::TooManyReports(Some(held)) => {
                self.add_contradiction(held)
            }
            _ => {}
        }
    }

    fn add_contradiction(&mut self, held: &Contradiction) {
        match held {
            Contradiction::CurrencyMismatch { theirs, ours } => {
                self.word = Some(theirs.clone());
                self.currency.clone_from(ours);
            }
            Contradiction::StatusSaysRejected { word } => self.word = Some(word.clone()),
            Contradiction::PayoutOverCap { cap_cents } => self.cap_cents = Some(*cap_cents),
        }
    }

    fn add_near_miss(&mut self, no_call: &NoCall) {
        let near = match no_call {
            NoCall::OutsideWindow {
                ended_seconds_before,
                near,
            } => {
                self.nearest_ended_seconds_before = Some(*ended_seconds_before);
                near
            }
            NoCall::DurationMismatch { off_seconds, near } => {
                self.nearest_off_seconds = Some(*off_seconds);
                near
            }
            NoCall::UnparseableBody { byte } => {
                self.byte = Some(*byte);
                return;
            }
            NoCall::UnparseableQuery { byte } => {
                self.byte = Some(*byte);
                self.in_query = true;
                return;
            }
            _ => return,
        };
        self.tolerance_seconds = Some(near.tolerance_seconds);
        self.window_hours = Some(near.window_hours);
    }

    pub(crate) fn into_detail(mut self, status: Status, reason: Option<Reason>) -> Detail {
        let reading_notes = take(&mut self.reading_notes);
        let verdict = match reason {
            Some(Reason::ReplacedHeuristicMatch) if status == Status::Held => Verdict::Displaced {
                by: self.other_event,
            },
            Some(reason) => self.into_verdict(reason),
            None => self.take_call(Outcome::Settled),
        };
        Detail {
            verdict,
            reading_notes,
        }
    }

    fn into_verdict(mut self, reason: Reason) -> Verdict {
        match reason {
            Reason::NoChange => self.take_call(Outcome::NoChange),
            Reason::NoPayout => self.take_call(Outcome::NoPayout),
            Reason::MatchedLate => self.take_call(Outcome::MatchedLate),
            Reason::Reversal => self.take_call(Outcome::Reversal),
            Reason::NoAssignment => self.take_call(Outcome::NoAssignment),
            Reason::ReplacedHeuristicMatch => self.take_call(Outcome::ReplacedHeuristicMatch {
                of: self.other_event,
            }),
            Reason::MovedToItsCall => self.take_call(Outcome::MovedToItsCall {
                replaced: self.other_event,
            }),
            Reason::SamePayoutWithin15m => {
                self.take_call(Outcome::SamePayoutWithin15m(self.repeat()))
            }
            Reason::RepeatOfMatchedReport => {
                self.take_call(Outcome::RepeatOfMatchedReport(self.repeat()))
            }
            Reason::OlderThanApplied => self.take_call(Outcome::OlderThanApplied {
                later: self.other_event,
            }),
            Reason::NegativePayout => self.take_call(Outcome::NegativePayout),
            Reason::CurrencyMismatch => self.take_call(Outcome::Held(self.currency_mismatch())),
            Reason::StatusSaysRejected => {
                self.take_call(Outcome::Held(self.status_says_rejected()))
            }
            Reason::PayoutOverCap => self.take_call(Outcome::Held(self.payout_over_cap())),
            Reason::TooManyReports => self.take_call(Outcome::TooManyReports(self.contradiction())),
            Reason::RepeatOfOpenReport => Verdict::RepeatOfOpen {
                of: self.other_event,
            },
            Reason::Undone => Verdict::Undone,
            Reason::ProcessingFailed => Verdict::ProcessingFailed,
            Reason::Ambiguous => Verdict::Doubt(self.take_doubt()),
            Reason::RefIdNotFound => Verdict::NoCall(NoCall::RefIdNotFound),
            Reason::CallIdNotFound => Verdict::NoCall(NoCall::CallIdNotFound),
            Reason::CallerNotFound => Verdict::NoCall(NoCall::CallerNotFound),
            Reason::OutsideWindow => Verdict::NoCall(NoCall::OutsideWindow {
                ended_seconds_before: self.nearest_ended_seconds_before.unwrap_or_default(),
                near: self.take_near_miss(),
            }),
            Reason::DurationMismatch => Verdict::NoCall(NoCall::DurationMismatch {
                off_seconds: self.nearest_off_seconds.unwrap_or_default(),
                near: self.take_near_miss(),
            }),
            Reason::NoCaller => Verdict::NoCall(NoCall::NoCaller),
            Reason::NoDuration => Verdict::NoCall(NoCall::NoDuration),
            Reason::AlreadyReported => {
                Verdict::NoCall(NoCall::AlreadyReported(take(&mut self.candidates)))
            }
            Reason::OtherBuyer => Verdict::NoCall(NoCall::OtherBuyer),
            Reason::PayoutUnparseable => Verdict::NoCall(NoCall::PayoutUnparseable),
            Reason::UnparseableBody => {
                let byte = self.byte.unwrap_or_default();
                Verdict::NoCall(match self.in_query {
                    false => NoCall::UnparseableBody { byte },
                    true => NoCall::UnparseableQuery { byte },
                })
            }
            Reason::UnparseableElement => Verdict::NoCall(NoCall::UnparseableElement),
            Reason::EmptyBatch => Verdict::NoCall(NoCall::EmptyBatch),
            Reason::NothingToMatch => Verdict::NoCall(NoCall::NothingToMatch),
            Reason::EndpointDisabled => Verdict::Refused(RefusalReason::EndpointDisabled),
            Reason::SecretMissing => Verdict::Refused(RefusalReason::SecretMissing),
            Reason::SecretMismatch => Verdict::Refused(RefusalReason::SecretMismatch),
            Reason::RateLimitedIp => Verdict::Refused(RefusalReason::RateLimitedIp),
            Reason::RateLimitedToken => Verdict::Refused(RefusalReason::RateLimitedToken),
            Reason::BodyTooLarge => Verdict::Refused(RefusalReason::BodyTooLarge),
        }
    }

    fn take_call(&mut self, outcome: Outcome) -> Verdict {
        let was_folded = self.credit_before_cents.is_some() || self.value_after_cents.is_some();
        Verdict::OnCall(OnCall {
            change: was_folded.then(|| CallChange {
                value_before_cents: self.value_before_cents,
                value_after_cents: self.value_after_cents,
                credit_before_cents: self.credit_before_cents.unwrap_or_default(),
                credit_after_cents: self.credit_after_cents.unwrap_or_default(),
            }),
            left_call: self.left_call,
            late: self.late,
            others: OtherCalls {
                count: self.other_candidates,
                candidates: take(&mut self.candidates),
            },
            outcome,
        })
    }

    fn repeat(&self) -> Repeat {
        Repeat {
            of: self.other_event,
            value_changed_to_cents: self.value_changed_to_cents,
        }
    }

    fn currency_mismatch(&self) -> Contradiction {
        Contradiction::CurrencyMismatch {
            theirs: self.word.clone().unwrap_or_default(),
            ours: self.currency.clone(),
        }
    }

    fn status_says_rejected(&self) -> Contradiction {
        Contradiction::StatusSaysRejected {
            word: self.word.clone().unwrap_or_default(),
        }
    }

    fn payout_over_cap(&self) -> Contradiction {
        Contradiction::PayoutOverCap {
            cap_cents: self.cap_cents.unwrap_or_default(),
        }
    }

    /// By its figures, where the reason does not say which it is.
    fn contradiction(&self) -> Option<Contradiction> {
        if self.currency.is_some() {
            Some(self.currency_mismatch())
        } else if self.word.is_some() {
            Some(self.status_says_rejected())
        } else {
            self.cap_cents.is_some().then(|| self.payout_over_cap())
        }
    }

    fn take_doubt(&mut self) -> Doubt {
        if self.shared_ref_id {
            Doubt::SharedRefId(take(&mut self.candidates))
        } else if self.other_candidates.is_some() {
            Doubt::Correction(OtherCalls {
                count: self.other_candidates,
                candidates: take(&mut self.candidates),
            })
        } else {
            Doubt::Payees(take(&mut self.candidates))
        }
    }

    fn take_near_miss(&mut self) -> NearMiss {
        NearMiss {
            tolerance_seconds: self.tolerance_seconds.unwrap_or_default(),
            window_hours: self.window_hours.unwrap_or_default(),
            candidates: take(&mut self.candidates),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_read_and_written_again_byte_for_byte() {
        for line in include_str!("stored_details.tsv").lines() {
            let cells: Vec<&str> = line.split('\t').collect();
            let [status, reason, text] = cells[..] else {
                panic!("{line}");
            };
            let status = Status::from_code(status).expect(line);
            let reason = Reason::from_code(reason);
            let stored = Some(text).filter(|text| !text.is_empty());
            let detail = Detail::of_row(status, reason, stored).expect(line);
            assert_eq!(
                (detail.status(), detail.reason()),
                (status, reason),
                "{line}"
            );
            assert_eq!(detail.to_json().as_deref(), stored, "{line}");
        }
    }

    #[test]
    fn every_reason_is_read_as_itself() {
        let displaced = (Status::Held, Reason::ReplacedHeuristicMatch);
        let of_all = Reason::ALL.iter().map(|reason| (reason.status(), *reason));
        for (status, reason) in of_all.chain([displaced]) {
            let detail = Detail::of_row(status, Some(reason), None).expect("nothing is stored");
            assert_eq!((detail.status(), detail.reason()), (status, Some(reason)));
        }
    }

    #[test]
    fn a_detail_is_stored_in_short_and_read_in_the_long_form_of_versions_before() {
        let change = CallChange {
            value_before_cents: None,
            value_after_cents: Some(6_000),
            credit_before_cents: 0,
            credit_after_cents: 3_600,
        };
        let detail = Detail::from(Verdict::OnCall(OnCall::settled(change)));
        let stored = detail.to_json().expect("it says something");
        assert_eq!(stored, r#"{"va":6000,"cb":0,"ca":3600}"#);
        let long =
            r#"{"value_after_cents":6000,"credit_before_cents":0,"credit_after_cents":3600}"#;
        for text in [stored.as_str(), long] {
            let read = Detail::of_row(Status::Matched, None, Some(text));
            assert_eq!(read.ok().as_ref(), Some(&detail));
        }
    }
}
