//! Every status and reason of a row, and the sentence that says what happened and what to do.
//!
//! A closed set: the console, the API and the metrics read this file and no other. A row that moved
//! no money always carries a reason; people fear nothing more than "200 and nothing happened".

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $code)] $variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// In the order of [`Self::ALL`], which is that of the discriminants.
            pub const CODES: &'static [&'static str] = &[$($code),+];

            pub const fn code(self) -> &'static str {
                match self { $($name::$variant => $code),+ }
            }

            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.code())
            }
        }
    };
}

codes! {
    /// What became of a report.
    Status {
        Matched = "matched",
        Duplicate = "duplicate",
        Superseded = "superseded",
        Held = "held",
        Unmatched = "unmatched",
        Refused = "refused",
    }
}

codes! {
    /// Which of the seed's three strategies found the call, or a person.
    Strategy {
        RefId = "ref_id",
        CallId = "call_id",
        CallerDuration = "caller_duration",
        Person = "person",
    }
}

codes! {
    /// Why a row stands as it does.
    Reason {
        // matched
        NoChange = "no_change",
        NoPayout = "no_payout",
        MatchedLate = "matched_late",
        Reversal = "reversal",
        NoAssignment = "no_assignment",
        /// Of the report that took a guess's place; and, `held`, of the one whose place was taken.
        ReplacedHeuristicMatch = "replaced_heuristic_match",
        MovedToItsCall = "moved_to_its_call",
        // duplicate
        SamePayoutWithin15m = "same_payout_within_15m",
        RepeatOfMatchedReport = "repeat_of_matched_report",
        RepeatOfOpenReport = "repeat_of_open_report",
        // superseded
        OlderThanApplied = "older_than_applied",
        Undone = "undone",
        // held
        Ambiguous = "ambiguous",
        NegativePayout = "negative_payout",
        PayoutOverCap = "payout_over_cap",
        CurrencyMismatch = "currency_mismatch",
        StatusSaysRejected = "status_says_rejected",
        TooManyReports = "too_many_reports",
        ProcessingFailed = "processing_failed",
        // unmatched
        RefIdNotFound = "ref_id_not_found",
        CallIdNotFound = "call_id_not_found",
        CallerNotFound = "caller_not_found",
        OutsideWindow = "outside_window",
        DurationMismatch = "duration_mismatch",
        NoCaller = "no_caller",
        NoDuration = "no_duration",
        AlreadyReported = "already_reported",
        OtherBuyer = "other_buyer",
        PayoutUnparseable = "payout_unparseable",
        UnparseableBody = "unparseable_body",
        UnparseableElement = "unparseable_element",
        EmptyBatch = "empty_batch",
        NothingToMatch = "nothing_to_match",
        // refused
        EndpointDisabled = "endpoint_disabled",
        SecretMissing = "secret_missing",
        SecretMismatch = "secret_mismatch",
        RateLimitedIp = "rate_limited_ip",
        RateLimitedToken = "rate_limited_token",
        BodyTooLarge = "body_too_large",
    }
}

impl Reason {
    /// True if a row of that status may have this reason. A report that was displaced is `held`, and says
    /// `replaced_heuristic_match` like the one that displaced it (M1, M14).
    pub fn occurs_with(self, status: Status) -> bool {
        self.status() == status
            || (self == Reason::ReplacedHeuristicMatch && status == Status::Held)
    }

    /// The status of the rows that have this reason, but for those of [`Reason::occurs_with`].
    pub const fn status(self) -> Status {
        match self {
            Reason::NoChange
            | Reason::NoPayout
            | Reason::MatchedLate
            | Reason::Reversal
            | Reason::NoAssignment
            | Reason::ReplacedHeuristicMatch
            | Reason::MovedToItsCall => Status::Matched,
            Reason::SamePayoutWithin15m
            | Reason::RepeatOfMatchedReport
            | Reason::RepeatOfOpenReport => Status::Duplicate,
            Reason::OlderThanApplied | Reason::Undone => Status::Superseded,
            Reason::Ambiguous
            | Reason::NegativePayout
            | Reason::PayoutOverCap
            | Reason::CurrencyMismatch
            | Reason::StatusSaysRejected
            | Reason::TooManyReports
            | Reason::ProcessingFailed => Status::Held,
            Reason::RefIdNotFound
            | Reason::CallIdNotFound
            | Reason::CallerNotFound
            | Reason::OutsideWindow
            | Reason::DurationMismatch
            | Reason::NoCaller
            | Reason::NoDuration
            | Reason::AlreadyReported
            | Reason::OtherBuyer
            | Reason::PayoutUnparseable
            | Reason::UnparseableBody
            | Reason::UnparseableElement
            | Reason::EmptyBatch
            | Reason::NothingToMatch => Status::Unmatched,
            Reason::EndpointDisabled
            | Reason::SecretMissing
            | Reason::SecretMismatch
            | Reason::RateLimitedIp
            | Reason::RateLimitedToken
            | Reason::BodyTooLarge => Status::Refused,
        }
    }
}

macro_rules! refusal_reasons {
    ($($variant:ident),+ $(,)?) => {
        /// Why the door refused a request: those of a row's reasons that it gives.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RefusalReason { $($variant),+ }

        impl RefusalReason {
            /// In the order of the discriminants.
            pub const CODES: &'static [&'static str] = &[$(Reason::$variant.code()),+];
        }

        impl From<RefusalReason> for Reason {
            fn from(refusal: RefusalReason) -> Reason {
                match refusal { $(RefusalReason::$variant => Reason::$variant),+ }
            }
        }

        $(const _: () = assert!(matches!(Reason::$variant.status(), Status::Refused));)+
    };
}

refusal_reasons! {
    EndpointDisabled,
    SecretMissing,
    SecretMismatch,
    RateLimitedIp,
    RateLimitedToken,
    BodyTooLarge,
}

codes! {
    /// What was taken off, mended or decoded before a report could be read (X1b): what its sender is to be
    /// told.
    ReadingNote {
        /// JSON that did not parse was mended; what was mended follows.
        Mended = "mended",
        EmptyValue = "empty_value",
        BareMacro = "bare_macro",
        BareWord = "bare_word",
        PlusSign = "plus_sign",
        TrailingComma = "trailing_comma",
        SingleQuotes = "single_quotes",
        BareName = "bare_name",
        JsonInString = "json_in_string",
        JsonInField = "json_in_field",
        JsonAsKey = "json_as_key",
        BracketNames = "bracket_names",
        AmpNames = "amp_names",
        SecondQuestionMark = "second_question_mark",
        Semicolons = "semicolons",
        FilePart = "file_part",
        Xml = "xml",
        Utf16 = "utf_16",
        Windows1252 = "windows_1252",
        /// The gateway decoded its `Content-Encoding`.
        Compressed = "compressed",
        /// The gateway could not: the body is kept as it came.
        NotDecoded = "not_decoded",
    }
}

/// The figures of a reason's sentence; kept with the row, so that the sentence can be made again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
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
    /// As it is stored; none if there is nothing to say.
    pub fn to_json(&self) -> Option<String> {
        if *self == Detail::default() {
            return None;
        }
        // Plain data of our own: it always serialises.
        serde_json::to_string(self).ok()
    }
}

/// One call that a report was weighed against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateNote {
    pub call_id: Uuid,
    /// Our duration minus theirs, in seconds.
    pub off_seconds: i64,
    /// How long before the report was received the call had ended, in seconds.
    pub ended_seconds_before: i64,
    /// Already claimed by another report (M5).
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub claimed: bool,
    /// Held by another buyer (or none) than the webhook's.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub other_buyer: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_stored_in_short_and_read_in_the_long_form_of_versions_before() {
        let detail = Detail {
            value_after_cents: Some(6_000),
            credit_before_cents: Some(0),
            credit_after_cents: Some(3_600),
            ..Detail::default()
        };
        let stored = detail.to_json().expect("it says something");
        assert_eq!(stored, r#"{"va":6000,"cb":0,"ca":3600}"#);
        let long =
            r#"{"value_after_cents":6000,"credit_before_cents":0,"credit_after_cents":3600}"#;
        for text in [stored.as_str(), long] {
            assert_eq!(
                serde_json::from_str::<Detail>(text).ok().as_ref(),
                Some(&detail)
            );
        }
    }

    #[test]
    fn what_was_stored_is_read_and_written_again_byte_for_byte() {
        for line in include_str!("stored_details.tsv").lines() {
            let text = line.rsplit('\t').next().unwrap_or_default();
            let stored = if text.is_empty() { "{}" } else { text };
            let detail: Detail = serde_json::from_str(stored).expect(line);
            assert_eq!(detail.to_json().unwrap_or_default(), text, "{line}");
        }
    }
}
