//! Rows that wait for somebody to decide them, however old they are: held, unmatched, or matched without a
//! payout while nobody has reported one for the call since. Ignored rows are closed.
//!
//! Bounded: a page looks at the newest open rows below its cursor, a count at some of them, through an index
//! that holds no others; both say when there may be more.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use uuid::Uuid;

use crate::event_search::SearchKey;
use crate::events::{self, Event};
use trueup_event::reason::Status;
use trueup_postgres::statement::{self, Result};

/// Rows that a page looks at for its own; more than a page, for some have a payout by now.
pub const LOOKED_AT: i64 = 500;

/// As the index has it; a row that was matched stands in it only if it has no payout.
macro_rules! is_open {
    () => {
        "e.ignored_at IS NULL AND (e.status IN ('held', 'unmatched') OR (e.status = 'matched' AND e.reason = 'no_payout'))"
    };
}

/// Whether a payout has been reported for the row's call since, by a buyer or a person.
macro_rules! reported_since {
    () => {
        " LEFT JOIN LATERAL (
                SELECT true AS has_payout FROM call_reports r
                 WHERE r.account_id = $1 AND r.call_id = o.matched_call_id AND r.role = 'folded' LIMIT 1) c
            ON o.status = 'matched'"
    };
}

/// How many rows are open, by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenCounts {
    pub held: i64,
    pub unmatched: i64,
    pub no_payout: i64,
    /// There were more rows than were looked at.
    pub more: bool,
}

impl OpenCounts {
    pub fn total(&self) -> i64 {
        self.held
            .saturating_add(self.unmatched)
            .saturating_add(self.no_payout)
    }

    pub fn of_status(&self, status: Status) -> i64 {
        match status {
            Status::Held => self.held,
            Status::Unmatched => self.unmatched,
            Status::Matched => self.no_payout,
            Status::Duplicate | Status::Superseded | Status::Refused => 0,
        }
    }
}

pub const COUNT: &str = concat!(
    "/* open_events.count */
    SELECT o.webhook_id, count(*) AS seen, count(*) FILTER (WHERE o.status = 'held') AS held,
           count(*) FILTER (WHERE o.status = 'unmatched') AS unmatched,
           count(*) FILTER (WHERE o.status = 'matched' AND c.has_payout IS NULL) AS no_payout
      FROM unnest($2::uuid[]) AS k (webhook_id) CROSS JOIN LATERAL (
           SELECT e.webhook_id, e.status, e.matched_call_id FROM events e
            WHERE e.account_id = $1 AND e.webhook_id = k.webhook_id AND ",
    is_open!(),
    " LIMIT $3) o",
    reported_since!(),
    " GROUP BY o.webhook_id"
);

/// Of each of these webhooks, looking at so many rows of each.
pub async fn count_by_webhook(
    client: &impl GenericClient,
    account_id: Uuid,
    webhooks: &[Uuid],
    look_at: i64,
) -> Result<HashMap<Uuid, OpenCounts>> {
    let rows = statement::query_rows(client, COUNT, &[&account_id, &webhooks, &look_at]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let counts = OpenCounts {
                held: row.get("held"),
                unmatched: row.get("unmatched"),
                no_payout: row.get("no_payout"),
                more: row.get::<_, i64>("seen") >= look_at,
            };
            (row.get("webhook_id"), counts)
        })
        .collect())
}

pub const COUNT_ALL: &str = concat!(
    "/* open_events.count_all */
    SELECT count(*) AS seen,
           count(*) FILTER (WHERE o.status <> 'matched' OR c.has_payout IS NULL) AS open
      FROM (SELECT e.status, e.matched_call_id FROM events e WHERE e.account_id = $1 AND ",
    is_open!(),
    " LIMIT $2) o",
    reported_since!()
);

/// Of all the account's webhooks, looking at so many rows; and whether there may be more.
pub async fn count_all(
    client: &impl GenericClient,
    account_id: Uuid,
    look_at: i64,
) -> Result<(i64, bool)> {
    let row = statement::query_one(client, COUNT_ALL, &[&account_id, &look_at]).await?;
    Ok((row.get("open"), row.get::<_, i64>("seen") >= look_at))
}

pub const PAGE: &str = concat!(
    "/* open_events.page */
    WITH seen AS MATERIALIZED (
         SELECT e.received_at, e.id, e.status, e.matched_call_id
           FROM unnest($2::uuid[]) AS k (webhook_id) CROSS JOIN LATERAL (
                SELECT e.received_at, e.id, e.status, e.matched_call_id FROM events e
                 WHERE e.account_id = $1 AND e.webhook_id = k.webhook_id AND ",
    is_open!(),
    "              AND e.received_at <= $3 AND (e.received_at, e.id) < ($3, $4)
                   AND ($5::text IS NULL OR e.status = $5)
                 ORDER BY e.received_at DESC, e.id DESC LIMIT $6) e
          ORDER BY e.received_at DESC, e.id DESC LIMIT $6)
    SELECT o.received_at, o.id, o.status <> 'matched' OR c.has_payout IS NULL AS open
      FROM seen o",
    reported_since!(),
    " ORDER BY o.received_at DESC, o.id DESC"
);

/// The open rows of these webhooks, newest first, and where the next page begins if there may be more.
pub async fn list_open(
    client: &impl GenericClient,
    account_id: Uuid,
    webhooks: &[Uuid],
    status: Option<Status>,
    below: Option<SearchKey>,
    limit: usize,
) -> Result<(Vec<Event>, Option<SearchKey>)> {
    let (at, id) = below.unwrap_or((crate::event_search::last_time(), Uuid::max()));
    let status = status.map(Status::code);
    let params: statement::Params<'_> = &[&account_id, &webhooks, &at, &id, &status, &LOOKED_AT];
    let rows = statement::query_rows(client, PAGE, params).await?;
    let mut keys: Vec<SearchKey> = Vec::new();
    let mut next = None;
    for row in &rows {
        if keys.len() == limit {
            next = keys.last().copied();
            break;
        }
        if row.get("open") {
            keys.push((row.get("received_at"), row.get("id")));
        }
    }
    if next.is_none() && i64::try_from(rows.len()).is_ok_and(|seen| seen >= LOOKED_AT) {
        next = rows
            .last()
            .map(|row| (row.get("received_at"), row.get("id")));
    }
    let (times, ids): (Vec<Timestamp>, Vec<Uuid>) = keys.into_iter().unzip();
    Ok((
        events::by_keys(client, account_id, &times, &ids).await?,
        next,
    ))
}
