//! What a decision says: the report's status, what moves in the ledger, whose place it took.

use uuid::Uuid;

use crate::crediting::{Payee, ReceptionOrder};
use crate::locked_calls::CallKey;
use trueup_event::reason::{Reason, Status, Strategy};
use trueup_event::verdict::{CallChange, Detail, Verdict};

/// Why a report leaves a call (M13); the ledger's word for what is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveCause {
    Displaced,
    Moved,
    Undone,
}

/// What brings an entry about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostingCause {
    /// What the report itself brings.
    Report,
    /// A report leaves the call. All that the ledger holds under it there is taken back under it (M13); what
    /// the call moves by beyond that is posted under `rest`, the report that then sets the value, or, without
    /// one, as the estimate that stands again.
    Left {
        report: ReceptionOrder,
        cause: LeaveCause,
        rest: Option<ReceptionOrder>,
        change: CallChange,
    },
}

/// One movement of a call that a decision calls for. A [`PostingCause::Left`] one may move nothing in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostingDraft {
    pub call: CallKey,
    pub payee: Option<Payee>,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    pub cause: PostingCause,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub detail: Detail,
    pub strategy: Option<Strategy>,
    pub call_id: Option<Uuid>,
    /// Its call was not named beyond doubt (M9, M14).
    pub guess: bool,
    /// In the order in which they happen.
    pub postings: Vec<PostingDraft>,
    /// Events whose match by a guess this one took over (M5).
    pub displaced: Vec<DisplacedReport>,
}

/// A report whose place on its call was taken (M5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisplacedReport {
    pub order: ReceptionOrder,
    /// The event that was displaced with it and says the same: it is that row which waits for a person (M11).
    pub repeats: Option<Uuid>,
}

impl Decision {
    pub fn status(&self) -> Status {
        self.detail.status()
    }

    /// None of a match that needs none.
    pub fn reason(&self) -> Option<Reason> {
        self.detail.reason()
    }

    /// A decision that is about no call.
    pub fn without_call(verdict: Verdict) -> Self {
        Decision {
            detail: verdict.into(),
            strategy: None,
            call_id: None,
            guess: false,
            postings: Vec::new(),
            displaced: Vec::new(),
        }
    }

    /// The same report waits for a person already, or was closed by one (M11).
    pub(crate) fn repeat_of_open(
        of: Uuid,
        call_id: Option<Uuid>,
        strategy: Option<Strategy>,
    ) -> Self {
        Decision {
            strategy,
            call_id,
            ..Decision::without_call(Verdict::RepeatOfOpen { of: Some(of) })
        }
    }
}
