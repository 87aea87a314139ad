//! Finds the rows of the Recent events panel, for one webhook or for all of an account, by any of its
//! filters, always within a bound.
//!
//! A filter that an index answers (a status, a reason, one caller, one id) looks as far back as there
//! are rows. Any other (an amount, a part of a text) looks at the newest rows below the cursor, at most
//! [`SCANNED`] of them, and says how far it came: the next page goes on from there. So every page costs
//! about the same, whether the account has ten rows or ten million.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use uuid::Uuid;

use super::events::{self, Event};
use super::sql::{self, Result};
use crate::domain::reason::{Reason, Status};

/// Rows that a filter without an index looks at in one page: some 40 ms.
pub const SCANNED: i64 = 20_000;
/// Rows of one caller or one id that are sorted; nobody has more in earnest.
const OF_ONE: i64 = 5_000;

/// Which rows are wanted; what is absent does not matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Search {
    /// Of the account; an empty list finds nothing.
    pub webhooks: Vec<Uuid>,
    pub status: Option<Status>,
    pub reason: Option<Reason>,
    /// E.164.
    pub caller: Option<String>,
    pub ref_id: Option<String>,
    pub amount_cents: Option<i64>,
    /// A caller, an id, or a part of one.
    pub text: Option<String>,
    /// The text as E.164, if it can be read so.
    pub text_as_caller: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl Search {
    /// One caller or one id: rare in the table, found by its text.
    fn names_one(&self) -> bool {
        self.caller.is_some() || self.ref_id.is_some()
    }

    /// Answered by the time alone.
    fn is_plain(&self) -> bool {
        self.status.is_none() && self.reason.is_none() && !self.needs_looking()
    }

    /// What only a look at the row itself can tell.
    fn needs_looking(&self) -> bool {
        self.amount_cents.is_some() || self.text.is_some()
    }

    /// The reasons under which the index holds every row that is wanted; none: not by reason.
    fn reasons(&self) -> Option<Vec<&'static str>> {
        match (self.reason, self.status) {
            (Some(reason), _) => Some(vec![reason.code()]),
            // A plainly matched row has no reason; any other status always has one.
            (None, None | Some(Status::Matched)) => None,
            (None, Some(_)) => Some(Reason::ALL.iter().map(|r| r.code()).collect()),
        }
    }
}

pub type Key = (Timestamp, Uuid);

/// A page of rows, newest first.
#[derive(Debug)]
pub struct Found {
    pub events: Vec<Event>,
    /// Where the next page begins, if there may be more.
    pub next: Option<Key>,
    /// The search came only this far back: there may be rows beyond.
    pub looked_back_to: Option<Timestamp>,
}

const PAGE_BY_TIME: &str = "/* pages.events_by_time */
    SELECT e.received_at, e.id FROM unnest($1::uuid[]) AS k (webhook_id) CROSS JOIN LATERAL (
           SELECT e.received_at, e.id FROM events e
            WHERE e.webhook_id = k.webhook_id AND e.account_id = $2
              AND e.received_at >= $3 AND e.received_at < $4 AND e.received_at <= $5 AND (e.received_at, e.id) < ($5, $6)
              AND ($7::text IS NULL OR e.status = $7) AND ($8::int8 IS NULL OR e.payout_cents = $8)
              AND ($9::text IS NULL OR position(lower($9) IN lower(concat_ws(' ', e.caller, e.caller_raw, e.ref_id,
                   e.call_id, e.payout_raw, e.matched_call_id::text, e.id::text))) > 0)
            ORDER BY e.received_at DESC, e.id DESC LIMIT $10) e
     ORDER BY 1 DESC, 2 DESC LIMIT $10";

const PAGE_BY_REASON: &str = "/* pages.events_by_reason */
    SELECT e.received_at, e.id FROM unnest($1::uuid[]) AS k (webhook_id) CROSS JOIN unnest($11::text[]) AS r (reason)
     CROSS JOIN LATERAL (
           SELECT e.received_at, e.id FROM events e
            WHERE e.webhook_id = k.webhook_id AND e.reason = r.reason AND e.account_id = $2
              AND e.received_at >= $3 AND e.received_at < $4 AND e.received_at <= $5 AND (e.received_at, e.id) < ($5, $6)
              AND ($7::text IS NULL OR e.status = $7) AND ($8::int8 IS NULL OR e.payout_cents = $8)
              AND ($9::text IS NULL OR position(lower($9) IN lower(concat_ws(' ', e.caller, e.caller_raw, e.ref_id,
                   e.call_id, e.payout_raw, e.matched_call_id::text, e.id::text))) > 0)
            ORDER BY e.received_at DESC, e.id DESC LIMIT $10) e
     ORDER BY 1 DESC, 2 DESC LIMIT $10";

/// The texts are looked up first, by themselves: left to choose, the planner walks the time.
const PAGE_OF_ONE: &str = "/* pages.events_of_one */
    WITH hit AS MATERIALIZED (
         SELECT e.received_at, e.id, e.webhook_id, e.status, e.reason, e.payout_cents, e.caller, e.ref_id FROM events e
          WHERE e.account_id = $2 AND ($3::text IS NULL OR e.caller = $3) AND ($4::text IS NULL OR e.ref_id = $4)
            AND ($11::text IS NULL OR e.caller = $12 OR e.ref_id = $11 OR e.call_id = $11)
          LIMIT $13)
    SELECT received_at, id FROM hit
     WHERE webhook_id = ANY($1) AND received_at >= $5 AND received_at < $6 AND (received_at, id) < ($7, $8)
       AND ($9::text IS NULL OR status = $9) AND ($10::text IS NULL OR reason = $10)
     ORDER BY 1 DESC, 2 DESC LIMIT $14";

/// How far back a webhook's next rows reach, by the index alone.
const FLOOR: &str = "/* pages.events_floor */
    SELECT max(f.received_at) FROM unnest($1::uuid[]) AS k (webhook_id) CROSS JOIN LATERAL (
           SELECT e.received_at FROM events e
            WHERE e.webhook_id = k.webhook_id AND e.received_at <= $2 AND (e.received_at, e.id) < ($2, $3)
            ORDER BY e.received_at DESC, e.id DESC OFFSET $4 LIMIT 1) f";

/// The first moment that the table can hold, and the last (Postgres' own infinities are no timestamps).
const FIRST: Timestamp = Timestamp::UNIX_EPOCH;

fn last() -> Timestamp {
    // The year 9000: far behind every clock.
    Timestamp::from_second(221_845_392_000).unwrap_or(Timestamp::MAX)
}

pub async fn page(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
    below: Option<Key>,
    limit: i64,
) -> Result<Found> {
    let (at, id) = below.unwrap_or((last(), Uuid::max()));
    let fetch = limit + 1;
    let mut floor = None;
    let mut keys = if search.names_one() {
        of_one(client, account_id, search, (at, id), fetch).await?
    } else {
        let exact = match &search.text {
            // A whole id or caller is found however old it is; a part of one among the newest.
            Some(_) if search.status.is_none() && search.amount_cents.is_none() => {
                of_one(client, account_id, search, (at, id), fetch).await?
            }
            _ => Vec::new(),
        };
        if exact.is_empty() {
            if !search.is_plain() && (search.needs_looking() || search.reasons().is_none()) {
                floor = floor_of(client, search, (at, id)).await?;
            }
            scan(client, account_id, search, (at, id), floor, fetch).await?
        } else {
            exact
        }
    };
    let more = keys.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    keys.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if more { keys.last().copied() } else { floor.map(|at| (at, Uuid::nil())) };
    let (times, ids): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    let events = events::by_keys(client, account_id, &times, &ids).await?;
    Ok(Found { events, next, looked_back_to: if more { None } else { floor } })
}

async fn floor_of(client: &impl GenericClient, search: &Search, (at, id): Key) -> Result<Option<Timestamp>> {
    let webhooks = i64::try_from(search.webhooks.len()).unwrap_or(i64::MAX).max(1);
    let each = (SCANNED / webhooks).max(200);
    let row = sql::one(client, FLOOR, &[&search.webhooks, &at, &id, &each]).await?;
    let floor: Option<Timestamp> = row.get(0);
    Ok(floor.filter(|floor| search.since.is_none_or(|since| *floor > since)))
}

async fn scan(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
    (at, id): Key,
    floor: Option<Timestamp>,
    fetch: i64,
) -> Result<Vec<Key>> {
    let from = floor.max(search.since).unwrap_or(FIRST);
    let until = search.until.unwrap_or_else(last);
    let status = search.status.map(Status::code);
    let rows = match search.reasons() {
        None => {
            sql::rows(
                client,
                PAGE_BY_TIME,
                &[
                    &search.webhooks,
                    &account_id,
                    &from,
                    &until,
                    &at,
                    &id,
                    &status,
                    &search.amount_cents,
                    &search.text,
                    &fetch,
                ],
            )
            .await?
        }
        Some(reasons) => {
            sql::rows(
                client,
                PAGE_BY_REASON,
                &[
                    &search.webhooks,
                    &account_id,
                    &from,
                    &until,
                    &at,
                    &id,
                    &status,
                    &search.amount_cents,
                    &search.text,
                    &fetch,
                    &reasons,
                ],
            )
            .await?
        }
    };
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn of_one(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
    (at, id): Key,
    fetch: i64,
) -> Result<Vec<Key>> {
    let from = search.since.unwrap_or(FIRST);
    let until = search.until.unwrap_or_else(last);
    let rows = sql::rows(
        client,
        PAGE_OF_ONE,
        &[
            &search.webhooks,
            &account_id,
            &search.caller,
            &search.ref_id,
            &from,
            &until,
            &at,
            &id,
            &search.status.map(Status::code),
            &search.reason.map(Reason::code),
            &search.text,
            &search.text_as_caller,
            &OF_ONE,
            &fetch,
        ],
    )
    .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The webhooks of an account, archived ones too: whose rows its panel shows.
pub async fn webhooks_of(client: &impl GenericClient, account_id: Uuid) -> Result<Vec<Uuid>> {
    const OF: &str =
        "/* pages.webhooks_of */ SELECT id FROM webhooks WHERE account_id = $1 ORDER BY id DESC LIMIT 1000";
    Ok(sql::rows(client, OF, &[&account_id]).await?.iter().map(|row| row.get(0)).collect())
}

/// A replay of many rows.
#[derive(Debug, Clone)]
pub struct BulkReplay {
    pub id: Uuid,
    pub filter: String,
    pub actor: String,
    pub total: i32,
    pub done: i32,
    pub matched: i32,
    pub refused: i32,
    pub failed: i32,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// Nothing happened for a minute though it is not finished: the console that ran it is gone.
    pub stalled: bool,
}

pub async fn begin_replay(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    actor: &str,
    filter: &str,
    total: i32,
) -> Result<()> {
    const BEGIN: &str = "/* pages.begin_replay */
        INSERT INTO bulk_replays (id, account_id, actor, filter, total) VALUES ($1, $2, $3, $4, $5)";
    sql::run(client, BEGIN, &[&id, &account_id, &actor, &filter, &total]).await?;
    Ok(())
}

/// How far it is: `[done, matched, refused, failed]`.
pub async fn advance_replay(client: &impl GenericClient, id: Uuid, counts: [i32; 4], over: bool) -> Result<()> {
    const ADVANCE: &str = "/* pages.advance_replay */
        UPDATE bulk_replays SET done = $2, matched = $3, refused = $4, failed = $5, advanced_at = now(),
               finished_at = CASE WHEN $6 THEN now() END
         WHERE id = $1";
    let [done, matched, refused, failed] = counts;
    sql::run(client, ADVANCE, &[&id, &done, &matched, &refused, &failed, &over]).await?;
    Ok(())
}

pub async fn replay(client: &impl GenericClient, account_id: Uuid, id: Uuid) -> Result<Option<BulkReplay>> {
    const GET: &str = "/* pages.bulk_replay */
        SELECT id, filter, actor, total, done, matched, refused, failed, created_at, finished_at,
               finished_at IS NULL AND advanced_at < now() - interval '1 minute' AS stalled
          FROM bulk_replays WHERE account_id = $1 AND id = $2";
    let row = sql::maybe(client, GET, &[&account_id, &id]).await?;
    Ok(row.map(|row| BulkReplay {
        id: row.get("id"),
        filter: row.get("filter"),
        actor: row.get("actor"),
        total: row.get("total"),
        done: row.get("done"),
        matched: row.get("matched"),
        refused: row.get("refused"),
        failed: row.get("failed"),
        created_at: row.get("created_at"),
        finished_at: row.get("finished_at"),
        stalled: row.get("stalled"),
    }))
}
