//! One entry of the ledger as it is written, and what it is for.

use trueup_domain::crediting::Terms;
use trueup_domain::decision::LeaveCause;
use trueup_domain::locked_calls::CallKey;
use uuid::Uuid;

/// What an entry of the ledger is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PostingKind {
    Estimate,
    Report,
    Apply,
    /// Taken back, because another report named the call by its id (M5).
    Displaced,
    /// Taken back, because the report was moved to its own call (M9).
    Moved,
    /// Taken back, because a person took an action back (M8).
    Undone,
    /// What the report that sets the value now brings, since another has left.
    Refolded,
    /// The credit of a call that was given its first assignment after it was reported (V9).
    Assignment,
}

impl PostingKind {
    pub const fn code(self) -> &'static str {
        match self {
            PostingKind::Estimate => "estimate",
            PostingKind::Report => "report",
            PostingKind::Apply => "apply",
            PostingKind::Displaced => "displaced",
            PostingKind::Moved => "moved",
            PostingKind::Undone => "undone",
            PostingKind::Refolded => "refolded",
            PostingKind::Assignment => "assignment",
        }
    }

    pub const fn of_leaving(cause: LeaveCause) -> PostingKind {
        match cause {
            LeaveCause::Displaced => PostingKind::Displaced,
            LeaveCause::Moved => PostingKind::Moved,
            LeaveCause::Undone => PostingKind::Undone,
        }
    }
}

/// One entry of the ledger, ready to be written.
pub struct NewPosting {
    pub call: CallKey,
    pub publisher_id: Option<Uuid>,
    pub event_id: Option<Uuid>,
    pub actor: Option<String>,
    pub kind: PostingKind,
    /// Counts what one event posts on one call for one cause: 0 but where persons do and undo (M8).
    pub round: i16,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    pub terms: Option<Terms>,
}
