//! Finds the rows of the Recent events, for one webhook or for all of an account, by any of their
//! filters, always within a bound: what the panel, its export and the operator API show.
//!
//! A filter that an index answers (a status, a reason, one caller, one id) looks as far back as there
//! are rows. Any other (an amount, a part of a text) looks at the newest rows below the cursor, at most
//! [`SCANNED`] of them, and says how far it came: the next page goes on from there. So every page costs
//! about the same, whether the account has ten rows or ten million. One caller or id is looked for among
//! the newest rows first: somebody who fills a page from those would be a heap of rows to the index.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::calls;
use crate::events::{self, Event};
use trueup_event::reason::{Reason, Status};
use trueup_postgres::statement::{self, Result};

/// Rows that a filter without an index looks at in one page: some 30 ms.
pub const SCANNED: i64 = 10_000;
/// Rows of one caller or one id that are sorted. Whoever has more fills a page from the newest rows alone.
const OF_ONE: i64 = 50_000;
/// Calls that a text speaks of; whoever has more is found by the newest rows.
const CALLS_OF_TEXT: i64 = 200;

/// Which rows are wanted; what is absent does not matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Search {
    /// Of the account; an empty list finds nothing.
    pub webhooks: Vec<Uuid>,
    /// Any of these; empty: all.
    pub statuses: Vec<Status>,
    pub reasons: Vec<Reason>,
    /// E.164.
    pub caller: Option<String>,
    pub ref_id: Option<String>,
    pub amount_cents: Option<i64>,
    /// A caller, an id, or a part of one.
    pub text: Option<String>,
    /// The text as E.164, if it can be read so.
    pub text_as_caller: Option<String>,
    /// The text as an amount, if it can be read so.
    pub text_as_cents: Option<i64>,
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
        self.statuses.is_empty() && self.reasons.is_empty() && !self.needs_looking()
    }

    /// What only a look at the row itself can tell.
    fn needs_looking(&self) -> bool {
        self.amount_cents.is_some() || self.text.is_some() || self.names_one()
    }

    /// The reasons under which the index holds every row that is wanted; none: not by reason.
    fn indexed_reasons(&self) -> Option<Vec<&'static str>> {
        // A plainly matched row has no reason; any other status always has one.
        let always = !self.statuses.is_empty() && !self.statuses.contains(&Status::Matched);
        match (self.reasons.is_empty(), always) {
            (false, _) => self.reason_codes(),
            (true, true) => {
                // To walk the rows of other reasons would be to read them for nothing.
                let of_these = |r: &&Reason| self.statuses.iter().any(|s| r.occurs_with(*s));
                Some(
                    Reason::ALL
                        .iter()
                        .filter(of_these)
                        .map(|r| r.code())
                        .collect(),
                )
            }
            (true, false) => None,
        }
    }

    fn status_codes(&self) -> Option<Vec<&'static str>> {
        Some(self.statuses.iter().map(|s| s.code()).collect())
            .filter(|codes: &Vec<_>| !codes.is_empty())
    }

    fn reason_codes(&self) -> Option<Vec<&'static str>> {
        Some(self.reasons.iter().map(|r| r.code()).collect())
            .filter(|codes: &Vec<_>| !codes.is_empty())
    }
}

pub type SearchKey = (Timestamp, Uuid);

/// A page of rows, newest first.
#[derive(Debug)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// Where the next page begins, if there may be more.
    pub next: Option<SearchKey>,
    /// The search came only this far back: there may be rows beyond.
    pub looked_back_to: Option<Timestamp>,
}

/// `$11` is for [`PAGE_BY_REASON`]; here it only keeps the parameters alike.
const PAGE_BY_TIME: &str = "/* pages.events_by_time */
    SELECT e.received_at, e.id FROM unnest($1::uuid[]) AS k (webhook_id) CROSS JOIN LATERAL (
           SELECT e.received_at, e.id FROM events e
            WHERE e.webhook_id = k.webhook_id AND e.account_id = $2
              AND e.received_at >= $3 AND e.received_at < $4 AND e.received_at <= $5 AND (e.received_at, e.id) < ($5, $6)
              AND ($11::text[] IS NULL OR e.reason = ANY($11))
              AND ($7::text[] IS NULL OR e.status = ANY($7)) AND ($8::int8 IS NULL OR e.payout_cents = $8)
              AND ($12::text IS NULL OR e.caller = $12) AND ($13::text IS NULL OR e.ref_id = $13)
              AND ($9::text IS NULL OR position(lower($9) IN lower(concat_ws(' ', e.caller, e.caller_raw, e.ref_id,
                   e.call_id, e.payout_raw, e.matched_call_id::text, e.id::text))) > 0
                   OR e.caller = $14 OR e.payout_cents = $15 OR e.matched_call_id = ANY($16::uuid[]))
            ORDER BY e.received_at DESC, e.id DESC LIMIT $10) e
     ORDER BY 1 DESC, 2 DESC LIMIT $10";

const PAGE_BY_REASON: &str = "/* pages.events_by_reason */
    SELECT e.received_at, e.id FROM unnest($1::uuid[]) AS k (webhook_id) CROSS JOIN unnest($11::text[]) AS r (reason)
     CROSS JOIN LATERAL (
           SELECT e.received_at, e.id FROM events e
            WHERE e.webhook_id = k.webhook_id AND e.reason = r.reason AND e.account_id = $2
              AND e.received_at >= $3 AND e.received_at < $4 AND e.received_at <= $5 AND (e.received_at, e.id) < ($5, $6)
              AND ($7::text[] IS NULL OR e.status = ANY($7)) AND ($8::int8 IS NULL OR e.payout_cents = $8)
              AND ($12::text IS NULL OR e.caller = $12) AND ($13::text IS NULL OR e.ref_id = $13)
              AND ($9::text IS NULL OR position(lower($9) IN lower(concat_ws(' ', e.caller, e.caller_raw, e.ref_id,
                   e.call_id, e.payout_raw, e.matched_call_id::text, e.id::text))) > 0
                   OR e.caller = $14 OR e.payout_cents = $15 OR e.matched_call_id = ANY($16::uuid[]))
            ORDER BY e.received_at DESC, e.id DESC LIMIT $10) e
     ORDER BY 1 DESC, 2 DESC LIMIT $10";

/// The rows of one text, or of some calls, are looked up first, by themselves: left to choose, the planner walks the time.
macro_rules! of_one {
    ($name:literal, $rows:literal) => {
        concat!(
            "/* ",
            $name,
            " */
    WITH hit AS MATERIALIZED (
         SELECT e.received_at, e.id, e.webhook_id, e.status, e.reason, e.payout_cents, e.caller, e.ref_id
           FROM ",
            $rows,
            " LIMIT $4)
    SELECT received_at, id FROM hit
     WHERE webhook_id = ANY($1) AND received_at >= $5 AND received_at < $6 AND (received_at, id) < ($7, $8)
       AND ($9::text[] IS NULL OR status = ANY($9)) AND ($10::text[] IS NULL OR reason = ANY($10))
       AND ($11::text IS NULL OR caller = $11) AND ($12::int8 IS NULL OR payout_cents = $12)
     ORDER BY 1 DESC, 2 DESC LIMIT $13"
        )
    };
}

const PAGE_OF_CALLER: &str = of_one!(
    "pages.events_of_caller",
    "events e WHERE e.caller = $3 AND e.account_id = $2"
);
const PAGE_OF_REF_ID: &str = of_one!(
    "pages.events_of_ref_id",
    "events e WHERE e.ref_id = $3 AND e.account_id = $2"
);
const PAGE_OF_CALL_ID: &str = of_one!(
    "pages.events_of_call_id",
    "events e WHERE e.call_id = $3 AND e.account_id = $2"
);

/// The reports about some calls.
const PAGE_OF_CALLS: &str = of_one!(
    "pages.events_of_calls",
    "call_reports r JOIN events e ON e.received_at = r.received_at AND e.id = r.event_id AND e.account_id = $2
          WHERE r.account_id = $2 AND r.call_id = ANY($3::uuid[])"
);

/// How far back a webhook's next rows reach, by the index alone.
const FLOOR: &str = "/* pages.events_floor */
    SELECT max(f.received_at) FROM unnest($1::uuid[]) AS k (webhook_id) CROSS JOIN LATERAL (
           SELECT e.received_at FROM events e
            WHERE e.webhook_id = k.webhook_id AND e.received_at <= $2 AND (e.received_at, e.id) < ($2, $3)
            ORDER BY e.received_at DESC, e.id DESC OFFSET $4 LIMIT 1) f";

/// The first moment that the table can hold, and the last (Postgres' own infinities are no timestamps).
const FIRST: Timestamp = Timestamp::UNIX_EPOCH;

/// Behind every row's.
pub fn last_time() -> Timestamp {
    // The year 9000: far behind every clock.
    Timestamp::from_second(221_845_392_000).unwrap_or(Timestamp::MAX)
}

pub async fn search_page(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
    below: Option<SearchKey>,
    limit: i64,
) -> Result<EventPage> {
    let start = below.unwrap_or((last_time(), Uuid::max()));
    let fetch = limit + 1;
    let floor =
        if search.is_plain() || (search.indexed_reasons().is_some() && !search.needs_looking()) {
            None
        } else {
            floor_of(client, search, start).await?
        };
    // Where the newest rows are not all of them, what an index can find is found however old it is.
    let is_long = floor.is_some();
    let calls = calls_of_text(client, account_id, search).await?;
    let mut exact = None;
    if is_long && let Some(text) = &search.text {
        exact = of_text(client, account_id, search, text, &calls, start, fetch).await?;
    }
    let (keys, floor) = match exact {
        Some(keys) => (keys, None),
        None => {
            let newest =
                scan_newest(client, account_id, search, &calls, start, floor, fetch).await?;
            if is_long && !is_full(&newest, fetch) {
                of_name_or(client, account_id, search, start, fetch, (newest, floor)).await?
            } else {
                (newest, floor)
            }
        }
    };
    cut_page(client, account_id, keys, floor, limit).await
}

/// The rows of the one caller or id that is wanted, however old they are; without one, what was found.
async fn of_name_or(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
    start: SearchKey,
    fetch: i64,
    found: (Vec<SearchKey>, Option<Timestamp>),
) -> Result<(Vec<SearchKey>, Option<Timestamp>)> {
    let Some((statement, name)) = of_name(search) else {
        return Ok(found);
    };
    let keys = of_one(client, account_id, search, statement, &name, start, fetch).await?;
    Ok((keys, None))
}

/// The page that these keys begin, one more than it holds among them if there are as many.
async fn cut_page(
    client: &impl GenericClient,
    account_id: Uuid,
    mut keys: Vec<SearchKey>,
    floor: Option<Timestamp>,
    limit: i64,
) -> Result<EventPage> {
    let more = keys.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    keys.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if more {
        keys.last().copied()
    } else {
        floor.map(|at| (at, Uuid::nil()))
    };
    let (times, ids): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    let events = events::by_keys(client, account_id, &times, &ids).await?;
    Ok(EventPage {
        events,
        next,
        looked_back_to: if more { None } else { floor },
    })
}

async fn floor_of(
    client: &impl GenericClient,
    search: &Search,
    (at, id): SearchKey,
) -> Result<Option<Timestamp>> {
    let webhooks = i64::try_from(search.webhooks.len())
        .unwrap_or(i64::MAX)
        .max(1);
    let each = (SCANNED / webhooks).max(200);
    let row = statement::query_one(client, FLOOR, &[&search.webhooks, &at, &id, &each]).await?;
    let floor: Option<Timestamp> = row.get(0);
    Ok(floor.filter(|floor| search.since.is_none_or(|since| *floor > since)))
}

/// The calls that the text speaks of by their caller or the beginning of their ref_id.
async fn calls_of_text(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
) -> Result<Vec<Uuid>> {
    let Some(text) = &search.text else {
        return Ok(Vec::new());
    };
    match &search.text_as_caller {
        Some(caller) => calls::ids_of_caller(client, account_id, caller, CALLS_OF_TEXT).await,
        None => calls::ids_by_ref_id_start(client, account_id, text, CALLS_OF_TEXT).await,
    }
}

async fn scan_newest(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
    calls: &[Uuid],
    (at, id): SearchKey,
    floor: Option<Timestamp>,
    fetch: i64,
) -> Result<Vec<SearchKey>> {
    let from = floor.max(search.since).unwrap_or(FIRST);
    let until = search.until.unwrap_or_else(last_time);
    let statuses = search.status_codes();
    let rows = match search.indexed_reasons() {
        None => {
            statement::query_rows(
                client,
                PAGE_BY_TIME,
                &[
                    &search.webhooks,
                    &account_id,
                    &from,
                    &until,
                    &at,
                    &id,
                    &statuses,
                    &search.amount_cents,
                    &search.text,
                    &fetch,
                    &search.reason_codes(),
                    &search.caller,
                    &search.ref_id,
                    &search.text_as_caller,
                    &search.text_as_cents,
                    &calls,
                ],
            )
            .await?
        }
        Some(reasons) => {
            statement::query_rows(
                client,
                PAGE_BY_REASON,
                &[
                    &search.webhooks,
                    &account_id,
                    &from,
                    &until,
                    &at,
                    &id,
                    &statuses,
                    &search.amount_cents,
                    &search.text,
                    &fetch,
                    &reasons,
                    &search.caller,
                    &search.ref_id,
                    &search.text_as_caller,
                    &search.text_as_cents,
                    &calls,
                ],
            )
            .await?
        }
    };
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn is_full(keys: &[SearchKey], fetch: i64) -> bool {
    i64::try_from(keys.len()).is_ok_and(|found| found >= fetch)
}

/// The index that finds the one caller or id that is wanted.
fn of_name(search: &Search) -> Option<(&'static str, &str)> {
    let by_ref_id = search
        .ref_id
        .as_deref()
        .map(|ref_id| (PAGE_OF_REF_ID, ref_id));
    by_ref_id.or(search
        .caller
        .as_deref()
        .map(|caller| (PAGE_OF_CALLER, caller)))
}

/// The rows whose caller or id is this whole text, and those about its calls, if there are any.
async fn of_text(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
    text: &str,
    calls: &[Uuid],
    start: SearchKey,
    fetch: i64,
) -> Result<Option<Vec<SearchKey>>> {
    let as_caller = search
        .text_as_caller
        .as_deref()
        .map(|caller| (PAGE_OF_CALLER, caller));
    let ways = as_caller
        .into_iter()
        .chain([(PAGE_OF_REF_ID, text), (PAGE_OF_CALL_ID, text)]);
    let mut keys = Vec::new();
    for (statement, name) in ways {
        keys.extend(of_one(client, account_id, search, statement, &name, start, fetch).await?);
    }
    let named = Uuid::try_parse(text).ok();
    let calls: Vec<Uuid> = calls.iter().copied().chain(named).collect();
    keys.extend(
        of_one(
            client,
            account_id,
            search,
            PAGE_OF_CALLS,
            &calls,
            start,
            fetch,
        )
        .await?,
    );
    if let Some(id) = named
        && let Some(event) = events::get_event(client, account_id, id).await?
        && search.webhooks.contains(&event.webhook_id)
        && (event.received_at, id) < start
    {
        keys.push((event.received_at, id));
    }
    keys.sort_unstable_by(|a, b| b.cmp(a));
    keys.dedup();
    keys.truncate(usize::try_from(fetch).unwrap_or(usize::MAX));
    Ok((!keys.is_empty()).then_some(keys))
}

async fn of_one(
    client: &impl GenericClient,
    account_id: Uuid,
    search: &Search,
    statement: &'static str,
    name: &(dyn ToSql + Sync),
    (at, id): SearchKey,
    fetch: i64,
) -> Result<Vec<SearchKey>> {
    let from = search.since.unwrap_or(FIRST);
    let until = search.until.unwrap_or_else(last_time);
    let rows = statement::query_rows(
        client,
        statement,
        &[
            &search.webhooks,
            &account_id,
            name,
            &OF_ONE,
            &from,
            &until,
            &at,
            &id,
            &search.status_codes(),
            &search.reason_codes(),
            &search.caller,
            &search.amount_cents,
            &fetch,
        ],
    )
    .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The time of the oldest row of these webhooks that is still kept.
pub async fn oldest_event(
    client: &impl GenericClient,
    webhooks: &[Uuid],
) -> Result<Option<Timestamp>> {
    const OLDEST: &str = "/* pages.oldest */
        SELECT min(f.received_at) FROM unnest($1::uuid[]) AS k (webhook_id) CROSS JOIN LATERAL (
               SELECT e.received_at FROM events e WHERE e.webhook_id = k.webhook_id
                ORDER BY e.received_at, e.id LIMIT 1) f";
    Ok(statement::query_one(client, OLDEST, &[&webhooks])
        .await?
        .get(0))
}

/// The webhooks of an account, archived ones too: whose rows its panel shows.
pub async fn webhooks_of(client: &impl GenericClient, account_id: Uuid) -> Result<Vec<Uuid>> {
    const OF: &str = "/* pages.webhooks_of */ SELECT id FROM webhooks WHERE account_id = $1 ORDER BY id DESC LIMIT 1000";
    Ok(statement::query_rows(client, OF, &[&account_id])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect())
}
