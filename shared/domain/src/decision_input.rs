//! What is asked about one report: the calls that may be meant, and how the question came up.

use jiff::Timestamp;
use uuid::Uuid;

use crate::crediting::ReceptionOrder;
use crate::decision_outcome::LeaveCause;
use crate::locked_calls::Fingerprint;
use crate::report::Report;
use crate::webhook_settings::WebhookRules;

/// A call that the search came upon, before any lock.
#[derive(Debug, Clone, PartialEq)]
pub struct CallCandidate {
    pub call_id: Uuid,
    pub buyer_id: Option<Uuid>,
    pub duration_seconds: i64,
    pub ended_at: Timestamp,
    /// A report with the same signature was matched to it (M4), wherever its window lies.
    pub same_fingerprint: bool,
}

/// What the search came upon for one report.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CallCandidates {
    pub by_ref_id: Vec<CallCandidate>,
    pub by_call_id: Option<CallCandidate>,
    pub by_caller: Vec<CallCandidate>,
}

/// How the report came to be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// From the broker, for the first time.
    Fresh,
    /// Tried again by a schedule, or because the same report was found (M7, M9).
    Again,
    /// Tried again because a call was recorded that it may be about (M7, M9, M14).
    Recorded,
    /// Looked at again because a copy has changed the call that it was placed on by a guess (M14).
    Changed,
    /// A person has it decided again, by the rules as they stand (M8).
    Replayed,
    /// A person says which call it is about (M8).
    Assigned(Uuid),
    /// A person's own report about a call, in place of the buyer's (M8).
    Applied(Uuid),
    /// A person's assign is taken back: the rules find the call again (M8).
    Undone,
    /// A person's apply is taken back: there is no report any more (M8).
    Revoked,
    /// A person closes the row: it lets go of its claim and stays as it is (M8).
    Ignored,
    /// A person's apply takes its place: the same, but nothing else moves for it (M8).
    Closed,
}

impl Trigger {
    /// The rules find the call; no person has said which it is.
    pub fn searches(self) -> bool {
        matches!(
            self,
            Trigger::Fresh
                | Trigger::Again
                | Trigger::Recorded
                | Trigger::Changed
                | Trigger::Replayed
                | Trigger::Undone
        )
    }

    /// Nobody asked for it.
    pub fn is_automatic(self) -> bool {
        self == Trigger::Fresh || self.is_retry()
    }

    /// The row is there already, and the product itself tries it again.
    pub fn is_retry(self) -> bool {
        matches!(self, Trigger::Again | Trigger::Recorded | Trigger::Changed)
    }

    /// A person closes the row; nothing is decided about it.
    pub fn only_leaves(self) -> bool {
        matches!(self, Trigger::Ignored | Trigger::Closed)
    }

    /// Why a report that stood somewhere leaves it now (M13).
    pub fn leave_cause(self) -> LeaveCause {
        match self {
            Trigger::Undone | Trigger::Revoked | Trigger::Ignored | Trigger::Closed => {
                LeaveCause::Undone
            }
            _ => LeaveCause::Moved,
        }
    }
}

#[derive(Debug, Clone)]
pub struct DecisionInput<'a> {
    pub order: ReceptionOrder,
    pub webhook: &'a WebhookRules,
    pub report: &'a Report,
    pub candidates: &'a CallCandidates,
    pub trigger: Trigger,
    /// The call that its row names as yet.
    pub stands_on: Option<Uuid>,
    /// The call that it stood on until now (M9).
    pub left_call: Option<Uuid>,
}

impl DecisionInput<'_> {
    /// What its retries are known by; nothing without a caller and a duration (M4).
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        Fingerprint::of_report(self.webhook.id, self.report)
    }
}
