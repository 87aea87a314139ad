//! Reads the rows of reports: the Recent events of a webhook, and one event with all that is known of it.
//!
//! An event's id is a UUID v7 of the millisecond in which it was received, so an id finds its partition
//! by its own time.

use std::net::IpAddr;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::StoreError;
use crate::settlement::columns::caller_raw_of_row;
use trueup_event::ids;
use trueup_event::reason::{Reason, Status};
use trueup_event::verdict::Detail;
use trueup_postgres::statement::{self, Result};

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: Uuid,
    pub received_at: Timestamp,
    pub webhook_id: Uuid,
    pub position: i32,
    pub source_ip: Option<IpAddr>,
    pub caller: Option<String>,
    pub caller_raw: Option<String>,
    pub duration_seconds: Option<i32>,
    pub ref_id: Option<String>,
    /// As reported, never the match's.
    pub call_id: Option<String>,
    pub payout_raw: Option<String>,
    pub payout_cents: Option<i64>,
    pub currency: Option<String>,
    pub rejection_word: Option<String>,
    pub status: Status,
    pub reason: Option<Reason>,
    pub detail: Detail,
    pub strategy: Option<String>,
    pub matched_call: Option<MatchedCall>,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    pub count: i32,
    pub retry_until: Option<Timestamp>,
    pub applied_from: Option<Uuid>,
    pub ignored_at: Option<Timestamp>,
    pub ignored_by: Option<String>,
    /// The person who last decided about it.
    pub decided_by: Option<String>,
    pub processed_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MatchedCall {
    pub id: Uuid,
    pub caller: Option<String>,
    pub tracking_number: Option<String>,
}

/// What a person did with a row (M8).
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    pub id: Uuid,
    pub action: String,
    pub actor: String,
    /// JSON.
    pub detail: Option<String>,
    pub outcome: Option<String>,
    pub created_at: Timestamp,
}

macro_rules! columns {
    () => {
        "e.id, e.received_at, e.webhook_id, e.position, e.source_ip, e.caller, e.caller_raw, e.duration_seconds,
         e.ref_id, e.call_id, e.payout_raw, e.payout_cents, e.currency, e.rejection_word, e.status, e.reason,
         e.detail::text AS detail, e.strategy, e.matched_call_id, e.revenue_delta_cents, e.credit_delta_cents, e.count,
         e.retry_until, e.applied_from, e.ignored_at, e.ignored_by, e.decided_by, e.processed_at,
         c.caller AS matched_caller, c.tracking_number AS matched_tracking_number"
    };
}

impl Event {
    fn from_row(row: &Row) -> Result<Self> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("an event's {what}"));
        let reason: Option<&str> = row.get("reason");
        let reason = reason
            .map(|code| Reason::from_code(code).ok_or_else(|| corrupt("reason")))
            .transpose()?;
        let status = Status::from_code(row.get("status")).ok_or_else(|| corrupt("status"))?;
        Ok(Event {
            id: row.get("id"),
            received_at: row.get("received_at"),
            webhook_id: row.get("webhook_id"),
            position: row.get("position"),
            source_ip: row.get("source_ip"),
            caller: row.get("caller"),
            caller_raw: caller_raw_of_row(row),
            duration_seconds: row.get("duration_seconds"),
            ref_id: row.get("ref_id"),
            call_id: row.get("call_id"),
            payout_raw: row.get("payout_raw"),
            payout_cents: row.get("payout_cents"),
            currency: row.get("currency"),
            rejection_word: row.get("rejection_word"),
            status,
            reason,
            detail: Detail::of_row(status, reason, row.get("detail"))
                .map_err(|_| corrupt("detail"))?,
            strategy: row.get("strategy"),
            matched_call: row
                .get::<_, Option<Uuid>>("matched_call_id")
                .map(|id| MatchedCall {
                    id,
                    caller: row.get("matched_caller"),
                    tracking_number: row.get("matched_tracking_number"),
                }),
            revenue_delta_cents: row.get("revenue_delta_cents"),
            credit_delta_cents: row.get("credit_delta_cents"),
            count: row.get("count"),
            retry_until: row.get("retry_until"),
            applied_from: row.get("applied_from"),
            ignored_at: row.get("ignored_at"),
            ignored_by: row.get("ignored_by"),
            decided_by: row.get("decided_by"),
            processed_at: row.get("processed_at"),
        })
    }
}

/// These rows, newest first; those of another account are not among them.
pub async fn by_keys(
    client: &impl GenericClient,
    account_id: Uuid,
    times: &[Timestamp],
    ids: &[Uuid],
) -> Result<Vec<Event>> {
    const BY_KEYS: &str = concat!(
        "/* events.by_keys */ SELECT ",
        columns!(),
        " FROM unnest($2::timestamptz[], $3::uuid[]) AS k (received_at, id)
          JOIN events e ON e.received_at = k.received_at AND e.id = k.id AND e.account_id = $1
          LEFT JOIN calls c ON c.account_id = e.account_id AND c.id = e.matched_call_id
         ORDER BY e.received_at DESC, e.id DESC"
    );
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    statement::query_rows(client, BY_KEYS, &[&account_id, &times, &ids])
        .await?
        .iter()
        .map(Event::from_row)
        .collect()
}

pub async fn get_event(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<Event>> {
    const GET: &str = concat!(
        "/* events.get */ SELECT ",
        columns!(),
        " FROM events e LEFT JOIN calls c ON c.account_id = e.account_id AND c.id = e.matched_call_id
         WHERE e.received_at >= $2 AND e.received_at < $3 AND e.id = $4 AND e.account_id = $1"
    );
    let Some((low, high)) = ids::time_of_event_id(id) else {
        return Ok(None);
    };
    let row = statement::query_opt(client, GET, &[&account_id, &low, &high, &id]).await?;
    row.as_ref().map(Event::from_row).transpose()
}

/// The rows of the webhook that came right after and right before.
pub async fn neighbours(
    client: &impl GenericClient,
    account_id: Uuid,
    webhook_id: Uuid,
    received_at: Timestamp,
    id: Uuid,
) -> Result<(Option<Uuid>, Option<Uuid>)> {
    const NEIGHBOURS: &str = "/* events.neighbours */
        SELECT (SELECT e.id FROM events e
                 WHERE e.webhook_id = $2 AND e.account_id = $1 AND e.received_at >= $3 AND (e.received_at, e.id) > ($3, $4)
                 ORDER BY e.received_at, e.id LIMIT 1) AS newer,
               (SELECT e.id FROM events e
                 WHERE e.webhook_id = $2 AND e.account_id = $1 AND e.received_at <= $3 AND (e.received_at, e.id) < ($3, $4)
                 ORDER BY e.received_at DESC, e.id DESC LIMIT 1) AS older";
    let params: statement::Params<'_> = &[&account_id, &webhook_id, &received_at, &id];
    let row = statement::query_one(client, NEIGHBOURS, params).await?;
    Ok((row.get("newer"), row.get("older")))
}

/// What persons did with a row, oldest first.
pub async fn list_actions(
    client: &impl GenericClient,
    account_id: Uuid,
    event_id: Uuid,
) -> Result<Vec<Action>> {
    const ACTIONS: &str = "/* events.actions */
        SELECT id, action, actor, detail::text AS detail, outcome, created_at FROM event_actions
         WHERE account_id = $1 AND event_id = $2 ORDER BY created_at, id";
    let rows = statement::query_rows(client, ACTIONS, &[&account_id, &event_id]).await?;
    Ok(rows
        .iter()
        .map(|row| Action {
            id: row.get("id"),
            action: row.get("action"),
            actor: row.get("actor"),
            detail: row.get("detail"),
            outcome: row.get("outcome"),
            created_at: row.get("created_at"),
        })
        .collect())
}
