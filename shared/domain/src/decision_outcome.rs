//! What a decision says: the report's status, what moves in the ledger, whose place it took.

use uuid::Uuid;

use crate::crediting::{Payee, ReceptionOrder};
use crate::locked_calls::CallKey;
use trueup_event::reason::{Detail, Reason, Status, Strategy};

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

/// A call's value and its publisher's credit, before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallChange {
    pub value_before_cents: Option<i64>,
    pub value_after_cents: Option<i64>,
    pub credit_before_cents: i64,
    pub credit_after_cents: i64,
}

impl CallChange {
    /// What a row says that brings money since another report has left its call: it is `matched` now.
    pub fn to_detail(self) -> Detail {
        Detail {
            value_before_cents: self.value_before_cents,
            value_after_cents: self.value_after_cents,
            credit_before_cents: Some(self.credit_before_cents),
            credit_after_cents: Some(self.credit_after_cents),
            ..Detail::default()
        }
    }
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
    pub status: Status,
    pub reason: Option<Reason>,
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
    /// A status and a reason, and nothing else to say.
    pub fn without_detail(status: Status, reason: Reason) -> Self {
        Decision {
            status,
            ..Decision::unmatched(reason, Detail::default())
        }
    }

    pub(crate) fn unmatched(reason: Reason, detail: Detail) -> Self {
        Decision {
            status: Status::Unmatched,
            reason: Some(reason),
            detail,
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
        let detail = Detail {
            other_event: Some(of),
            ..Detail::default()
        };
        Decision {
            status: Status::Duplicate,
            strategy,
            call_id,
            ..Decision::unmatched(Reason::RepeatOfOpenReport, detail)
        }
    }
}
