//! Every status and reason of a row, and the sentence that says what happened and what to do.
//!
//! A closed set: the console, the API and the metrics read this file and no other. A row that moved
//! no money always carries a reason; people fear nothing more than "200 and nothing happened".

use serde::{Deserialize, Serialize};

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

            /// None for a reason that the door does not give.
            pub const fn of_reason(reason: Reason) -> Option<Self> {
                match reason { $(Reason::$variant => Some(RefusalReason::$variant),)+ _ => None }
            }
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
