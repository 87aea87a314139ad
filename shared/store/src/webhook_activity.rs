//! What the pages say of a webhook at a glance: today's figures, the last 24 hours, why rows failed,
//! and which field names its senders really use.
//!
//! Bounded: each question looks at a webhook's newest rows up to a limit, through the index by
//! webhook and time, and says whether it saw them all. Nothing here counts a table.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use uuid::Uuid;

use crate::stored_requests::load_requests;
use trueup_event::raw_event::RawRequest;
use trueup_event::reason::{Reason, Status};
use trueup_postgres::statement::{self, Result};

/// Rows of one webhook that a glance looks at: some 30 ms for the busiest.
pub const GLANCE_ROWS: i64 = 20_000;
pub const HOURS: usize = 24;

/// What a webhook did lately.
#[derive(Debug, Clone, Default)]
pub struct Activity {
    /// Today, in the account's zone, by status; refused ones count the requests they stand for.
    pub today: HashMap<Status, i64>,
    /// By hour, the latest last: rows that moved or kept money as they should, and the others.
    pub hours: [(i64, i64); HOURS],
    /// There were more rows than a glance looks at.
    pub more: bool,
}

impl Activity {
    pub fn count_today(&self, status: Status) -> i64 {
        self.today.get(&status).copied().unwrap_or(0)
    }

    /// Needs no person: matched, or known already.
    fn is_fine(status: Status) -> bool {
        matches!(
            status,
            Status::Matched | Status::Duplicate | Status::Superseded
        )
    }
}

/// The activity of some webhooks of one account.
pub async fn load_activity(
    client: &impl GenericClient,
    account_id: Uuid,
    webhooks: &[Uuid],
    now: Timestamp,
    today: Timestamp,
) -> Result<HashMap<Uuid, Activity>> {
    const ACTIVITY: &str = "/* pages.activity */
        SELECT e.webhook_id, e.status, e.received_at >= $4 AS today,
               LEAST(23, GREATEST(0, floor(extract(epoch FROM $3::timestamptz - e.received_at) / 3600)))::int4 AS hours_ago,
               e.received_at >= $3::timestamptz - interval '24 hours' AS recent, sum(e.count)::int8 AS requests, count(*) AS seen
          FROM webhooks w CROSS JOIN LATERAL (
               SELECT e.webhook_id, e.status, e.received_at, e.count FROM events e
                WHERE e.webhook_id = w.id AND e.received_at >= LEAST($4::timestamptz, $3::timestamptz - interval '24 hours')
                      AND e.ignored_at IS NULL
                ORDER BY e.received_at DESC LIMIT $5) e
         WHERE w.account_id = $1 AND w.id = ANY($2)
         GROUP BY 1, 2, 3, 4, 5";
    let mut found: HashMap<Uuid, Activity> = HashMap::new();
    let mut seen: HashMap<Uuid, i64> = HashMap::new();
    for row in statement::query_rows(
        client,
        ACTIVITY,
        &[&account_id, &webhooks, &now, &today, &GLANCE_ROWS],
    )
    .await?
    {
        let webhook: Uuid = row.get("webhook_id");
        let Some(status) = Status::from_code(row.get("status")) else {
            continue;
        };
        let requests: i64 = row.get("requests");
        let activity = found.entry(webhook).or_default();
        if row.get("today") {
            *activity.today.entry(status).or_default() += requests;
        }
        if row.get("recent") {
            let ago = usize::try_from(row.get::<_, i32>("hours_ago")).unwrap_or(0);
            let hour = &mut activity.hours[HOURS - 1 - ago.min(HOURS - 1)];
            if Activity::is_fine(status) {
                hour.0 += requests;
            } else {
                hour.1 += requests;
            }
        }
        let rows = seen.entry(webhook).or_default();
        *rows += row.get::<_, i64>("seen");
        activity.more = *rows >= GLANCE_ROWS;
    }
    Ok(found)
}

/// Rows of one reason in the last 24 hours.
#[derive(Debug, Clone)]
pub struct ReasonGroup {
    pub status: Status,
    pub reason: Reason,
    pub requests: i64,
    pub last_at: Timestamp,
    /// The newest of them, as an example.
    pub example: Uuid,
    pub example_detail: Option<String>,
}

/// Why rows moved no money, by reason, most frequent first; one that matched without a payout is such a row,
/// too. Ignored rows are closed and not counted.
pub async fn count_reasons(
    client: &impl GenericClient,
    account_id: Uuid,
    webhook_id: Uuid,
    since: Timestamp,
) -> Result<Vec<ReasonGroup>> {
    const REASONS: &str = "/* pages.reasons */
        SELECT e.status, e.reason, sum(e.count)::int8 AS requests, max(e.received_at) AS last_at,
               (array_agg(e.id ORDER BY e.received_at DESC))[1] AS example,
               (array_agg(e.detail::text ORDER BY e.received_at DESC))[1] AS example_detail
          FROM webhooks w
         CROSS JOIN unnest($4::text[]) AS r (reason)
         CROSS JOIN LATERAL (
               SELECT e.* FROM events e
                WHERE e.webhook_id = w.id AND e.reason = r.reason AND e.received_at >= $3 AND e.ignored_at IS NULL
                ORDER BY e.received_at DESC LIMIT $5) e
         WHERE w.account_id = $1 AND w.id = $2 AND (e.status IN ('unmatched', 'held', 'refused') OR (e.status = 'matched' AND e.reason = 'no_payout'))
         GROUP BY e.status, e.reason ORDER BY requests DESC, e.reason";
    let reasons: Vec<&str> = Reason::ALL.iter().map(|r| r.code()).collect();
    let rows = statement::query_rows(
        client,
        REASONS,
        &[&account_id, &webhook_id, &since, &reasons, &GLANCE_ROWS],
    )
    .await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            Some(ReasonGroup {
                status: Status::from_code(row.get("status"))?,
                reason: Reason::from_code(row.get("reason"))?,
                requests: row.get("requests"),
                last_at: row.get("last_at"),
                example: row.get("example"),
                example_detail: row.get("example_detail"),
            })
        })
        .collect())
}

/// The newest raw requests of rows that found no call or no payout, to learn from.
pub async fn unmatched_requests(
    client: &impl GenericClient,
    account_id: Uuid,
    webhook_id: Uuid,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<RawRequest>> {
    const REQUESTS: &str = "/* pages.unmatched_requests */
        SELECT e.received_at, e.id FROM webhooks w
         CROSS JOIN unnest($4::text[]) AS r (reason)
         CROSS JOIN LATERAL (
               SELECT e.received_at, e.id FROM events e
                WHERE e.webhook_id = w.id AND e.reason = r.reason AND e.received_at >= $3
                  AND e.status IN ('unmatched', 'matched') AND e.ignored_at IS NULL
                ORDER BY e.received_at DESC LIMIT $5) e
         WHERE w.account_id = $1 AND w.id = $2
         ORDER BY e.received_at DESC LIMIT $5";
    let reasons = [
        Reason::NothingToMatch,
        Reason::NoCaller,
        Reason::NoDuration,
        Reason::RefIdNotFound,
        Reason::CallIdNotFound,
        Reason::CallerNotFound,
        Reason::NoPayout,
    ]
    .map(Reason::code);
    let rows = statement::query_rows(
        client,
        REQUESTS,
        &[
            &account_id,
            &webhook_id,
            &since,
            &reasons.as_slice(),
            &limit,
        ],
    )
    .await?;
    let keys: Vec<(Timestamp, Uuid)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut kept = load_requests(client, &keys).await?;
    Ok(keys
        .iter()
        .filter_map(|(_, id)| Some(kept.remove(id)?.whole()?.request))
        .collect())
}

/// Which of these texts are ref_ids of calls of the account: how many hits a field's values have.
pub async fn known_ref_ids(
    client: &impl GenericClient,
    account_id: Uuid,
    texts: &[String],
) -> Result<Vec<String>> {
    const KNOWN: &str = "/* pages.known_ref_ids */
        SELECT DISTINCT k.ref_id FROM unnest($2::text[]) AS k (ref_id)
         WHERE EXISTS (SELECT 1 FROM calls c WHERE c.account_id = $1 AND c.ref_id = k.ref_id)";
    let rows = statement::query_rows(client, KNOWN, &[&account_id, &texts]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Names by id, for lists that show them: of one account's buyers, publishers, campaigns or webhooks.
pub async fn load_names(
    client: &impl GenericClient,
    account_id: Uuid,
    what: NamedEntity,
) -> Result<Vec<(Uuid, String)>> {
    const BUYERS: &str = "/* pages.buyer_names */
        SELECT id, name FROM buyers WHERE account_id = $1 ORDER BY lower(name), id LIMIT 1000";
    const PUBLISHERS: &str = "/* pages.publisher_names */
        SELECT id, name FROM publishers WHERE account_id = $1 ORDER BY lower(name), id LIMIT 1000";
    const CAMPAIGNS: &str = "/* pages.campaign_names */
        SELECT id, name FROM campaigns WHERE account_id = $1 ORDER BY lower(name), id LIMIT 1000";
    const WEBHOOKS: &str = "/* pages.webhook_names */
        SELECT id, name FROM webhooks WHERE account_id = $1 ORDER BY archived_at IS NOT NULL, lower(name), id LIMIT 1000";
    let statement = match what {
        NamedEntity::Buyers => BUYERS,
        NamedEntity::Publishers => PUBLISHERS,
        NamedEntity::Campaigns => CAMPAIGNS,
        NamedEntity::Webhooks => WEBHOOKS,
    };
    let rows = statement::query_rows(client, statement, &[&account_id]).await?;
    Ok(rows
        .iter()
        .map(|row| (row.get("id"), row.get("name")))
        .collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedEntity {
    Buyers,
    Publishers,
    Campaigns,
    Webhooks,
}
