//! Reads calls, with the reports that were found to be about them. Writing them is `recording`'s.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::terms_columns::payee_of_row;
use trueup_domain::crediting::{Estimate, Payee};
use trueup_postgres::statement::{self, Result};

/// A call as the books hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub id: Uuid,
    pub ref_id: Option<String>,
    pub caller: Option<String>,
    pub caller_raw: Option<String>,
    pub tracking_number: Option<String>,
    pub duration_seconds: i32,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub buyer_id: Option<Uuid>,
    pub assignment_id: Option<Uuid>,
    pub value_cents: Option<i64>,
    pub value_from_webhook: bool,
    pub qualified: Option<bool>,
    pub publisher_payout_cents: i64,
    pub estimate: Estimate,
    /// The terms of its last posting.
    pub terms: Option<Payee>,
    pub reported_by_webhook_id: Option<Uuid>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// In order of reception.
    pub reports: Vec<ReportOfCall>,
}

/// A report about a call.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportOfCall {
    pub event_id: Uuid,
    pub received_at: Timestamp,
    pub webhook_id: Uuid,
    pub strategy: String,
    pub role: String,
    pub payout_cents: i64,
    /// Absent once retention has dropped the row.
    pub status: Option<String>,
    pub reason: Option<String>,
    /// The person who applied it, or assigned it to this call.
    pub decided_by: Option<String>,
}

/// Which calls are wanted. A caller is E.164.
#[derive(Debug, Clone, Default)]
pub struct CallFilter {
    pub caller: Option<String>,
    pub ref_id: Option<String>,
    /// How the ref_id begins, in any case.
    pub ref_id_start: Option<String>,
    pub value_cents: Option<i64>,
    pub buyer_id: Option<Uuid>,
    pub assignment_id: Option<Uuid>,
    pub value_from_webhook: Option<bool>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

/// Where a page by descending time and id begins.
#[derive(Debug, Clone, Copy)]
pub struct TimePage {
    /// The last row of the page before.
    pub below: Option<(Timestamp, Uuid)>,
    pub limit: i64,
}

impl TimePage {
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.below.map(|(at, _)| at)
    }

    pub(super) fn id(&self) -> Option<Uuid> {
        self.below.map(|(_, id)| id)
    }
}

macro_rules! columns {
    () => {
        "c.id, c.ref_id, c.caller, c.caller_raw, c.tracking_number, c.duration_seconds, c.started_at, c.ended_at,
         c.buyer_id, c.assignment_id, c.value_cents, c.value_from_webhook, c.qualified, c.publisher_payout_cents,
         c.estimate_value_cents, c.estimate_qualified, c.terms_publisher_id, c.terms_kind, c.terms_amount_cents,
         c.terms_percent_e4, c.reported_by_webhook_id, c.created_at, c.updated_at"
    };
}

/// What narrows a list further, whatever it is found by; the parameters are the same in all of them.
macro_rules! narrowed {
    () => {
        " WHERE ($2::text IS NULL OR c.caller = $2) AND ($3::text IS NULL OR c.ref_id = $3)
            AND ($4::uuid IS NULL OR c.buyer_id = $4) AND ($5::uuid IS NULL OR c.assignment_id = $5)
            AND ($6::bool IS NULL OR c.value_from_webhook = $6)
            AND c.started_at >= COALESCE($7, '-infinity'::timestamptz)
            AND c.started_at < COALESCE($8, 'infinity'::timestamptz)
            AND (c.started_at, c.id) < (COALESCE($9, 'infinity'::timestamptz),
                                        COALESCE($10, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
            AND ($12::text IS NULL OR (lower(c.ref_id) ~>=~ $12 AND lower(c.ref_id) ~<~ $13))
            AND ($14::int8 IS NULL OR c.value_cents = $14)
          ORDER BY c.started_at DESC, c.id DESC LIMIT $11"
    };
}

impl Call {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Call {
            id: row.get("id"),
            ref_id: row.get("ref_id"),
            caller: row.get("caller"),
            caller_raw: row.get("caller_raw"),
            tracking_number: row.get("tracking_number"),
            duration_seconds: row.get("duration_seconds"),
            started_at: row.get("started_at"),
            ended_at: row.get("ended_at"),
            buyer_id: row.get("buyer_id"),
            assignment_id: row.get("assignment_id"),
            value_cents: row.get("value_cents"),
            value_from_webhook: row.get("value_from_webhook"),
            qualified: row.get("qualified"),
            publisher_payout_cents: row.get("publisher_payout_cents"),
            estimate: Estimate {
                value_cents: row.get("estimate_value_cents"),
                qualified: row.get("estimate_qualified"),
            },
            terms: payee_of_row(row)?,
            reported_by_webhook_id: row.get("reported_by_webhook_id"),
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
            reports: Vec::new(),
        })
    }
}

pub async fn get_call(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    reports: i64,
) -> Result<Option<Call>> {
    const GET: &str = concat!(
        "/* calls.get */ SELECT ",
        columns!(),
        " FROM calls c WHERE c.account_id = $1 AND c.id = $2"
    );
    let row = statement::query_opt(client, GET, &[&account_id, &id]).await?;
    let mut calls: Vec<Call> = row.iter().map(Call::from_row).collect::<Result<_>>()?;
    attach_reports(client, account_id, &mut calls, reports).await?;
    Ok(calls.pop())
}

/// What begins with this text, in any case, lies from the one to below the other: the last character that
/// there is stands for all that may follow.
fn ref_id_range(start: &str) -> (String, String) {
    let lowest = start.to_lowercase();
    let above = format!("{lowest}{}", char::MAX);
    (lowest, above)
}

/// Calls whose ref_id begins so, in any case.
pub async fn ids_by_ref_id_start(
    client: &impl GenericClient,
    account_id: Uuid,
    start: &str,
    limit: i64,
) -> Result<Vec<Uuid>> {
    const IDS: &str = "/* calls.ids_by_ref_id_start */
        SELECT id FROM calls
         WHERE account_id = $1 AND ref_id IS NOT NULL AND lower(ref_id) ~>=~ $2 AND lower(ref_id) ~<~ $3 LIMIT $4";
    let (lowest, above) = ref_id_range(start);
    let rows = statement::query_rows(client, IDS, &[&account_id, &lowest, &above, &limit]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Calls of one caller, who is E.164; the last first.
pub async fn ids_of_caller(
    client: &impl GenericClient,
    account_id: Uuid,
    caller: &str,
    limit: i64,
) -> Result<Vec<Uuid>> {
    const IDS: &str = "/* calls.ids_of_caller */
        SELECT id FROM calls WHERE account_id = $1 AND caller = $2 ORDER BY ended_at DESC LIMIT $3";
    let rows = statement::query_rows(client, IDS, &[&account_id, &caller, &limit]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What a line about a call says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallBrief {
    pub caller: Option<String>,
    pub ref_id: Option<String>,
    pub campaign: Option<String>,
}

/// Caller, ref_id and campaign of these calls.
pub async fn load_briefs(
    client: &impl GenericClient,
    account_id: Uuid,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, CallBrief>> {
    const BRIEFS: &str = "/* calls.briefs */
        SELECT c.id, COALESCE(c.caller, c.caller_raw) AS caller, c.ref_id, g.name AS campaign
          FROM unnest($2::uuid[]) AS k (id)
          JOIN calls c ON c.account_id = $1 AND c.id = k.id
          LEFT JOIN assignments a ON a.id = c.assignment_id
          LEFT JOIN campaigns g ON g.id = a.campaign_id";
    let rows = statement::query_rows(client, BRIEFS, &[&account_id, &ids]).await?;
    let brief = |row: &Row| CallBrief {
        caller: row.get("caller"),
        ref_id: row.get("ref_id"),
        campaign: row.get("campaign"),
    };
    Ok(rows.iter().map(|row| (row.get("id"), brief(row))).collect())
}

/// When the call started that so many newer ones stand before, if there are as many.
pub async fn start_of_nth(
    client: &impl GenericClient,
    account_id: Uuid,
    below: Option<Timestamp>,
    nth: i64,
) -> Result<Option<Timestamp>> {
    const NTH: &str = "/* calls.start_of_nth */
        SELECT started_at FROM calls
         WHERE account_id = $1 AND started_at <= COALESCE($2, 'infinity'::timestamptz)
         ORDER BY started_at DESC, id DESC OFFSET $3 LIMIT 1";
    let row = statement::query_opt(client, NTH, &[&account_id, &below, &nth]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Newest first, each with its last `reports` reports.
pub async fn list_calls(
    client: &impl GenericClient,
    account_id: Uuid,
    filter: &CallFilter,
    page: TimePage,
    reports: i64,
) -> Result<Vec<Call>> {
    // What a caller or a ref_id finds is little and is fetched first: left to choose, the planner may
    // walk the whole account by time in search of it.
    const BY_CALLER: &str = concat!(
        "/* calls.list_by_caller */ WITH c AS MATERIALIZED (SELECT * FROM calls WHERE account_id = $1 AND caller = $2)
         SELECT ",
        columns!(),
        " FROM c",
        narrowed!()
    );
    const BY_REF_ID: &str = concat!(
        "/* calls.list_by_ref_id */ WITH c AS MATERIALIZED (SELECT * FROM calls WHERE account_id = $1 AND ref_id = $3)
         SELECT ",
        columns!(),
        " FROM c",
        narrowed!()
    );
    const BY_REF_ID_START: &str = concat!(
        "/* calls.list_by_ref_id_start */ WITH c AS MATERIALIZED (
            SELECT * FROM calls WHERE account_id = $1 AND lower(ref_id) ~>=~ $12 AND lower(ref_id) ~<~ $13 LIMIT 1000)
         SELECT ",
        columns!(),
        " FROM c",
        narrowed!()
    );
    const BY_TIME: &str = concat!(
        "/* calls.list_by_time */ SELECT ",
        columns!(),
        " FROM (SELECT * FROM calls WHERE account_id = $1) c",
        narrowed!()
    );
    let statement = match (&filter.ref_id, &filter.caller, &filter.ref_id_start) {
        (Some(_), _, _) => BY_REF_ID,
        (None, Some(_), _) => BY_CALLER,
        (None, None, Some(_)) => BY_REF_ID_START,
        (None, None, None) => BY_TIME,
    };
    let start = filter.ref_id_start.as_deref().map(ref_id_range);
    let (lowest, above) = start.unzip();
    let rows = statement::rows_planned(
        client,
        statement,
        &[
            &account_id,
            &filter.caller,
            &filter.ref_id,
            &filter.buyer_id,
            &filter.assignment_id,
            &filter.value_from_webhook,
            &filter.from,
            &filter.to,
            &page.time(),
            &page.id(),
            &page.limit,
            &lowest,
            &above,
            &filter.value_cents,
        ],
    )
    .await?;
    let mut calls: Vec<Call> = rows.iter().map(Call::from_row).collect::<Result<_>>()?;
    attach_reports(client, account_id, &mut calls, reports).await?;
    Ok(calls)
}

async fn attach_reports(
    client: &impl GenericClient,
    account_id: Uuid,
    calls: &mut [Call],
    each: i64,
) -> Result<()> {
    const REPORTS: &str = "/* calls.reports */
        SELECT k.call_id, r.event_id, r.received_at, r.webhook_id, r.strategy, r.role, r.payout_cents, e.status, e.reason,
               CASE WHEN r.by_person THEN e.decided_by END AS decided_by
          FROM unnest($2::uuid[]) AS k (call_id)
         CROSS JOIN LATERAL (
               SELECT * FROM call_reports r WHERE r.account_id = $1 AND r.call_id = k.call_id
                ORDER BY r.received_at DESC, r.position DESC, r.event_id DESC LIMIT $3) r
          LEFT JOIN events e ON e.received_at = r.received_at AND e.id = r.event_id
         ORDER BY r.received_at, r.position, r.event_id";
    if calls.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = calls.iter().map(|c| c.id).collect();
    for row in statement::query_rows(client, REPORTS, &[&account_id, &ids, &each]).await? {
        let call_id: Uuid = row.get("call_id");
        let report = ReportOfCall {
            event_id: row.get("event_id"),
            received_at: row.get("received_at"),
            webhook_id: row.get("webhook_id"),
            strategy: row.get("strategy"),
            role: row.get("role"),
            payout_cents: row.get("payout_cents"),
            status: row.get("status"),
            reason: row.get("reason"),
            decided_by: row.get("decided_by"),
        };
        if let Some(call) = calls.iter_mut().find(|c| c.id == call_id) {
            call.reports.push(report);
        }
    }
    Ok(())
}
