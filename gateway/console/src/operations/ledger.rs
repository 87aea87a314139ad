//! What is shown of the ledger.

use jiff::Timestamp;
use serde::Serialize;
use trueup_store::ledger;
use utoipa::ToSchema;
use uuid::Uuid;

use super::assignments::ShownTerms;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Posting)]
pub struct PostingResponse {
    pub id: Uuid,
    pub call_id: Uuid,
    /// Null: a call without an assignment, which credits nobody.
    pub publisher_id: Option<Uuid>,
    /// The report that caused it; null where `actor` did.
    pub event_id: Option<Uuid>,
    /// The person or key that asked for it; also where a report is named.
    pub actor: Option<String>,
    /// `estimate`, `report`, `apply`; `displaced`, `moved`, `undone`: taken back, because the report left the
    /// call; `refolded`: what the report that sets the value since then brings; `assignment`: the credit of a
    /// call that was given its first assignment after it was reported.
    pub kind: String,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    /// The publisher's balance after it.
    pub balance_after_cents: Option<i64>,
    /// The terms that it was reckoned on.
    pub terms: Option<ShownTerms>,
    pub created_at: Timestamp,
}

impl From<ledger::Posting> for PostingResponse {
    fn from(it: ledger::Posting) -> Self {
        PostingResponse {
            id: it.id,
            call_id: it.call_id,
            publisher_id: it.publisher_id,
            event_id: it.event_id,
            actor: it.actor,
            kind: it.kind,
            revenue_delta_cents: it.revenue_delta_cents,
            credit_delta_cents: it.credit_delta_cents,
            balance_after_cents: it.balance_after_cents,
            terms: it.terms.map(Into::into),
            created_at: it.created_at,
        }
    }
}
