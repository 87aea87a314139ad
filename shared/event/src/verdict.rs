//! Why a row stands as it does, with the figures of its sentence: each reason has its own and no others.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::reason::{ReadingNote, Reason, RefusalReason, Status};

/// What a row says beside its report: why it stands as it does, and how its request was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Detail {
    pub verdict: Verdict,
    /// How the request had to be read (X1b); in the order of [`ReadingNote::ALL`].
    pub reading_notes: Vec<ReadingNote>,
}

/// Why a row stands as it does: the families of reasons, by what there is to say of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    OnCall(OnCall),
    NoCall(NoCall),
    /// Several calls fit and they would pay different people: `ambiguous`.
    Doubt(Doubt),
    /// The same report waits for a person already, or was closed by one (M11): `repeat_of_open_report`.
    RepeatOfOpen {
        of: Option<Uuid>,
    },
    /// Another report took its place on its call (M5): `replaced_heuristic_match`, held.
    Displaced {
        by: Option<Uuid>,
    },
    Undone,
    ProcessingFailed,
    Refused(RefusalReason),
}

/// No call was found, or there is no report: `unmatched`.
#[derive(Debug, Clone, PartialEq)]
pub enum NoCall {
    RefIdNotFound,
    CallIdNotFound,
    CallerNotFound,
    OutsideWindow {
        /// The nearest call ended this many seconds before the report was received (negative: after).
        ended_seconds_before: i64,
        near: NearMiss,
    },
    DurationMismatch {
        /// The nearest call's duration differed by this many seconds (absolute).
        off_seconds: i64,
        near: NearMiss,
    },
    NoCaller,
    NoDuration,
    AlreadyReported(Vec<CandidateNote>),
    OtherBuyer,
    PayoutUnparseable,
    /// First bad byte of the body, from 0.
    UnparseableBody {
        byte: u64,
    },
    /// A field of the query that should hold a report does not parse: its first bad byte in the query, from 0.
    UnparseableQuery {
        byte: u64,
    },
    UnparseableElement,
    EmptyBatch,
    NothingToMatch,
}

/// What a near miss was weighed by (M3).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NearMiss {
    /// The webhook's tolerance and window, as they stood.
    pub tolerance_seconds: i64,
    pub window_hours: i64,
    /// Nearest first.
    pub candidates: Vec<CandidateNote>,
}

/// Why choosing among calls would be a guess about whom to pay; the calls nearest first.
#[derive(Debug, Clone, PartialEq)]
pub enum Doubt {
    /// All of them bear the reported ref_id (M1).
    SharedRefId(Vec<CandidateNote>),
    /// It may correct an earlier report or be about one of so many other calls (M4).
    Correction(OtherCalls),
    /// They would pay different publishers or on different terms (M6).
    Payees(Vec<CandidateNote>),
}

/// Other calls than the one that was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OtherCalls {
    /// How many would have fitted (M4).
    pub count: Option<u32>,
    /// The calls that were considered, nearest first.
    pub candidates: Vec<CandidateNote>,
}

/// A report whose call was found, whatever became of it there.
#[derive(Debug, Clone, PartialEq)]
pub struct OnCall {
    pub others: OtherCalls,
    /// The call that it was matched to before it was moved to this one (M9).
    pub left_call: Option<Uuid>,
    /// Found by a schedule or a later call, not at first sight (M7).
    pub late: bool,
    /// None if the report was not folded into the call.
    pub change: Option<CallChange>,
    pub outcome: Outcome,
}

/// A call's value and its publisher's credit, before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallChange {
    pub value_before_cents: Option<i64>,
    pub value_after_cents: Option<i64>,
    pub credit_before_cents: i64,
    pub credit_after_cents: i64,
}

/// What became of a report on its call.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It set the call's value, and there is nothing else to say.
    Settled,
    NoChange,
    NoPayout,
    MatchedLate,
    Reversal,
    NoAssignment,
    /// It took the place of that event, which had been matched by a guess (M5).
    ReplacedHeuristicMatch {
        of: Option<Uuid>,
    },
    /// It may have taken an event's place there.
    MovedToItsCall {
        replaced: Option<Uuid>,
    },
    SamePayoutWithin15m(Repeat),
    RepeatOfMatchedReport(Repeat),
    OlderThanApplied {
        later: Option<Uuid>,
    },
    NegativePayout,
    Held(Contradiction),
    /// It may contradict itself besides.
    TooManyReports(Option<Contradiction>),
}

/// A report that repeats another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repeat {
    pub of: Option<Uuid>,
    /// The call changed its value in between (V2).
    pub value_changed_to_cents: Option<i64>,
}

/// What a report is held for that its webhook does not let pass (V8).
#[derive(Debug, Clone, PartialEq)]
pub enum Contradiction {
    CurrencyMismatch {
        theirs: String,
        ours: Option<String>,
    },
    StatusSaysRejected {
        word: String,
    },
    PayoutOverCap {
        cap_cents: i64,
    },
}

impl From<Verdict> for Detail {
    fn from(verdict: Verdict) -> Detail {
        Detail {
            verdict,
            reading_notes: Vec::new(),
        }
    }
}

impl Detail {
    pub fn status(&self) -> Status {
        match &self.verdict {
            // The one reason of rows of two statuses: this is the row that was displaced.
            Verdict::Displaced { .. } => Status::Held,
            _ => self.reason().map_or(Status::Matched, Reason::status),
        }
    }

    /// None of a match that needs none.
    pub fn reason(&self) -> Option<Reason> {
        Some(match &self.verdict {
            Verdict::OnCall(on_call) => return on_call.outcome.reason(),
            Verdict::NoCall(no_call) => no_call.reason(),
            Verdict::Doubt(_) => Reason::Ambiguous,
            Verdict::RepeatOfOpen { .. } => Reason::RepeatOfOpenReport,
            Verdict::Displaced { .. } => Reason::ReplacedHeuristicMatch,
            Verdict::Undone => Reason::Undone,
            Verdict::ProcessingFailed => Reason::ProcessingFailed,
            Verdict::Refused(refusal) => (*refusal).into(),
        })
    }

    /// The calls that were considered, nearest first.
    pub fn candidates(&self) -> &[CandidateNote] {
        match &self.verdict {
            Verdict::OnCall(on_call) => &on_call.others.candidates,
            Verdict::NoCall(NoCall::AlreadyReported(candidates)) => candidates,
            Verdict::NoCall(
                NoCall::OutsideWindow { near, .. } | NoCall::DurationMismatch { near, .. },
            ) => &near.candidates,
            Verdict::Doubt(Doubt::SharedRefId(candidates) | Doubt::Payees(candidates)) => {
                candidates
            }
            Verdict::Doubt(Doubt::Correction(others)) => &others.candidates,
            _ => &[],
        }
    }

    /// The event that this one repeats, displaced, or was displaced by.
    pub fn other_event(&self) -> Option<Uuid> {
        match &self.verdict {
            Verdict::RepeatOfOpen { of: other } | Verdict::Displaced { by: other } => *other,
            Verdict::OnCall(on_call) => on_call.outcome.other_event(),
            _ => None,
        }
    }

    pub fn left_call(&self) -> Option<Uuid> {
        match &self.verdict {
            Verdict::OnCall(on_call) => on_call.left_call,
            _ => None,
        }
    }

    /// What it moved its call by; none if it was not folded into one.
    pub fn change(&self) -> Option<CallChange> {
        match &self.verdict {
            Verdict::OnCall(on_call) => on_call.change,
            _ => None,
        }
    }
}

impl OnCall {
    /// Matched, with nothing else to say: what a row becomes that brings money since another report has left
    /// its call.
    pub fn settled(change: CallChange) -> OnCall {
        OnCall {
            others: OtherCalls::default(),
            left_call: None,
            late: false,
            change: Some(change),
            outcome: Outcome::Settled,
        }
    }
}

impl NoCall {
    pub fn reason(&self) -> Reason {
        match self {
            NoCall::RefIdNotFound => Reason::RefIdNotFound,
            NoCall::CallIdNotFound => Reason::CallIdNotFound,
            NoCall::CallerNotFound => Reason::CallerNotFound,
            NoCall::OutsideWindow { .. } => Reason::OutsideWindow,
            NoCall::DurationMismatch { .. } => Reason::DurationMismatch,
            NoCall::NoCaller => Reason::NoCaller,
            NoCall::NoDuration => Reason::NoDuration,
            NoCall::AlreadyReported(_) => Reason::AlreadyReported,
            NoCall::OtherBuyer => Reason::OtherBuyer,
            NoCall::PayoutUnparseable => Reason::PayoutUnparseable,
            NoCall::UnparseableBody { .. } | NoCall::UnparseableQuery { .. } => {
                Reason::UnparseableBody
            }
            NoCall::UnparseableElement => Reason::UnparseableElement,
            NoCall::EmptyBatch => Reason::EmptyBatch,
            NoCall::NothingToMatch => Reason::NothingToMatch,
        }
    }
}

impl Outcome {
    pub fn reason(&self) -> Option<Reason> {
        Some(match self {
            Outcome::Settled => return None,
            Outcome::NoChange => Reason::NoChange,
            Outcome::NoPayout => Reason::NoPayout,
            Outcome::MatchedLate => Reason::MatchedLate,
            Outcome::Reversal => Reason::Reversal,
            Outcome::NoAssignment => Reason::NoAssignment,
            Outcome::ReplacedHeuristicMatch { .. } => Reason::ReplacedHeuristicMatch,
            Outcome::MovedToItsCall { .. } => Reason::MovedToItsCall,
            Outcome::SamePayoutWithin15m(_) => Reason::SamePayoutWithin15m,
            Outcome::RepeatOfMatchedReport(_) => Reason::RepeatOfMatchedReport,
            Outcome::OlderThanApplied { .. } => Reason::OlderThanApplied,
            Outcome::NegativePayout => Reason::NegativePayout,
            Outcome::Held(Contradiction::CurrencyMismatch { .. }) => Reason::CurrencyMismatch,
            Outcome::Held(Contradiction::StatusSaysRejected { .. }) => Reason::StatusSaysRejected,
            Outcome::Held(Contradiction::PayoutOverCap { .. }) => Reason::PayoutOverCap,
            Outcome::TooManyReports(_) => Reason::TooManyReports,
        })
    }

    fn other_event(&self) -> Option<Uuid> {
        match self {
            Outcome::ReplacedHeuristicMatch { of: other }
            | Outcome::MovedToItsCall { replaced: other }
            | Outcome::OlderThanApplied { later: other } => *other,
            Outcome::SamePayoutWithin15m(repeat) | Outcome::RepeatOfMatchedReport(repeat) => {
                repeat.of
            }
            _ => None,
        }
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
