//! Which calls may be meant: by the ids a report carries, by its caller, by its signature. No locks.
//!
//! A report that an id finds is not searched for by its caller: most reports carry a ref_id, and the
//! search by caller is the dearer one.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Transaction;
use futures_util::future::try_join;
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::StoreError;
use crate::settlement::loading::order_of_row;
use trueup_domain::batch_decision::BatchRow;
use trueup_domain::decision::{CallCandidate, Trigger};
use trueup_domain::locked_calls::{Fingerprint, MAX_FOLDED_REPORTS};
use trueup_domain::matching::{CALLS_OF_A_REF_ID, CLOCK_SKEW_MICROS};
use trueup_domain::repeats::{StandingReport, rows_to_follow};
use trueup_domain::webhook_settings::WebhookRules;

/// Calls looked at for one report, of each kind. More calls than this that fit one report to within
/// its tolerance are beyond telling apart anyway.
const FITTING_CALLS: i64 = 32;
/// Calls of one caller in the window that are weighed at all, the latest first.
const CALLS_OF_A_CALLER: i64 = 1_000;
/// Calls that share a ref_id and a caller; more cannot be told apart by their length anyway.
const CALLS_OF_A_CALLER_AND_REF_ID: i64 = 100;
/// Reports of one webhook, caller and duration in the window that are weighed, the latest first.
const REPORTS_OF_A_FINGERPRINT: i64 = MAX_FOLDED_REPORTS as i64;

pub const BY_REF_ID: &str = "/* find_by_ref_id */
    SELECT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at
      FROM unnest($1::int4[], $2::uuid[], $3::text[]) AS q (line, account_id, ref_id)
     CROSS JOIN LATERAL (
           SELECT id, buyer_id, duration_seconds, ended_at FROM calls
            WHERE account_id = q.account_id AND ref_id = q.ref_id
            ORDER BY caller LIMIT $4) AS c";

/// Of a ref_id that several calls share: those of the reported caller, and the one that the report's
/// call_id names (M1), however many others there are.
pub const BY_SHARED_REF_ID: &str = "/* find_by_shared_ref_id */
    SELECT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at
      FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::text[], $5::uuid[]) AS q (line, account_id, ref_id, caller, call_id)
     CROSS JOIN LATERAL (
           (SELECT id, buyer_id, duration_seconds, ended_at FROM calls
             WHERE account_id = q.account_id AND ref_id = q.ref_id AND caller = q.caller
             ORDER BY ended_at DESC LIMIT $6)
           UNION ALL
           (SELECT id, buyer_id, duration_seconds, ended_at FROM calls
             WHERE account_id = q.account_id AND id = q.call_id AND ref_id = q.ref_id LIMIT 1)) AS c";

pub const BY_CALL_ID: &str = "/* find_by_call_id */
    SELECT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at
      FROM unnest($1::int4[], $2::uuid[], $3::uuid[]) AS q (line, account_id, call_id)
     CROSS JOIN LATERAL (
           SELECT id, buyer_id, duration_seconds, ended_at FROM calls
            WHERE account_id = q.account_id AND id = q.call_id LIMIT 1) AS c";

/// Those that fit (unclaimed and nearest first), then the nearest misses, which only tell a reason.
pub const BY_CALLER: &str = "/* find_by_caller */
    SELECT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at
      FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::int4[], $5::int4[], $6::timestamptz[], $7::timestamptz[])
           AS q (line, account_id, caller, duration, tolerance, low, high)
     CROSS JOIN LATERAL (
           (WITH recent AS (
                SELECT id, buyer_id, duration_seconds, ended_at, value_from_webhook FROM calls
                 WHERE account_id = q.account_id AND caller = q.caller AND ended_at BETWEEN q.low AND q.high
                 ORDER BY ended_at DESC LIMIT $9)
            (SELECT id, buyer_id, duration_seconds, ended_at FROM recent
              WHERE abs(duration_seconds - q.duration) <= q.tolerance
              ORDER BY value_from_webhook, abs(duration_seconds - q.duration), ended_at, id LIMIT $8)
            UNION ALL
            (SELECT id, buyer_id, duration_seconds, ended_at FROM recent
              WHERE abs(duration_seconds - q.duration) > q.tolerance
              ORDER BY abs(duration_seconds - q.duration), ended_at, id LIMIT 3))
           UNION ALL
           (SELECT id, buyer_id, duration_seconds, ended_at FROM calls
             WHERE account_id = q.account_id AND caller = q.caller AND ended_at < q.low
             ORDER BY ended_at DESC LIMIT 1)
           UNION ALL
           (SELECT id, buyer_id, duration_seconds, ended_at FROM calls
             WHERE account_id = q.account_id AND caller = q.caller AND ended_at > q.high
             ORDER BY ended_at LIMIT 1)) AS c";

/// The reports of one fingerprint and the calls that they stand on, or stood on until they were displaced.
pub const BY_SIGNATURE: &str = "/* find_by_signature */
    SELECT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at, r.received_at, r.position, r.event_id, r.role, r.guess,
           r.by_person, r.ref_id, r.call_id_text
      FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::int4[], $5::uuid[], $6::timestamptz[], $7::timestamptz[])
           AS q (line, account_id, caller, duration, webhook_id, low, high)
     CROSS JOIN LATERAL (
           SELECT account_id, call_id, received_at, position, event_id, role, guess, by_person, ref_id, call_id_text
             FROM call_reports
            WHERE webhook_id = q.webhook_id AND caller = q.caller AND duration_seconds = q.duration
              AND received_at BETWEEN q.low AND q.high AND account_id = q.account_id
            ORDER BY received_at DESC LIMIT $8) AS r
     CROSS JOIN LATERAL (
           SELECT id, buyer_id, duration_seconds, ended_at FROM calls
            WHERE account_id = r.account_id AND id = r.call_id LIMIT 1) AS c";

/// Fills each line's sightings. Returns the rows that may have to follow one of them (M12).
pub async fn find_candidates(
    tx: &Transaction<'_>,
    lines: &mut [BatchRow],
    webhooks: &HashMap<Uuid, WebhookRules>,
) -> Result<BTreeMap<(Timestamp, Uuid), bool>, StoreError> {
    by_ids(tx, lines).await?;
    by_shared_ref_id(tx, lines).await?;
    let standing = by_signature(tx, lines, webhooks).await?;
    by_caller(tx, lines, webhooks).await?;
    Ok(rows_to_follow(lines, &standing))
}

fn row_index(line: usize) -> i32 {
    // A batch is a few hundred lines.
    i32::try_from(line).unwrap_or(i32::MAX)
}

fn candidate_of_row(row: &Row, signed: bool) -> (usize, CallCandidate) {
    let line = usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX);
    let sighting = CallCandidate {
        call_id: row.get(1),
        buyer_id: row.get(2),
        duration_seconds: row.get::<_, i32>(3).into(),
        ended_at: row.get(4),
        same_fingerprint: signed,
    };
    (line, sighting)
}

/// Where one ref_id hit several calls, those that the report may mean are looked for by themselves.
async fn by_shared_ref_id(tx: &Transaction<'_>, lines: &mut [BatchRow]) -> Result<(), StoreError> {
    let (mut numbers, mut accounts, mut refs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut callers, mut call_ids) = (Vec::new(), Vec::new());
    for (n, line) in lines.iter().enumerate() {
        let Some(report) = line.report() else {
            continue;
        };
        if line.candidates.by_ref_id.len() > 1 {
            numbers.push(row_index(n));
            accounts.push(line.account_id);
            refs.push(report.ref_id.clone());
            callers.push(report.caller.clone());
            call_ids.push(report.call_uuid());
        }
    }
    if numbers.is_empty() {
        return Ok(());
    }
    let statement = tx.prepare_cached(BY_SHARED_REF_ID).await?;
    let rows = tx
        .query(
            &statement,
            &[
                &numbers,
                &accounts,
                &refs,
                &callers,
                &call_ids,
                &CALLS_OF_A_CALLER_AND_REF_ID,
            ],
        )
        .await?;
    for row in &rows {
        let (n, sighting) = candidate_of_row(row, false);
        if let Some(line) = lines.get_mut(n) {
            add_once(&mut line.candidates.by_ref_id, sighting);
        }
    }
    Ok(())
}

/// A call that was sighted twice is kept as it was sighted first.
fn add_once(sightings: &mut Vec<CallCandidate>, sighting: CallCandidate) {
    if sightings.iter().all(|s| s.call_id != sighting.call_id) {
        sightings.push(sighting);
    }
}

async fn by_ids(tx: &Transaction<'_>, lines: &mut [BatchRow]) -> Result<(), StoreError> {
    let (mut ref_lines, mut ref_accounts, mut refs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut id_lines, mut id_accounts, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for (n, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.trigger.searches())
    {
        let Some(report) = line.report() else {
            continue;
        };
        if let Some(ref_id) = &report.ref_id {
            ref_lines.push(row_index(n));
            ref_accounts.push(line.account_id);
            refs.push(ref_id.clone());
        }
        if let Some(call_id) = report.call_uuid() {
            id_lines.push(row_index(n));
            id_accounts.push(line.account_id);
            ids.push(call_id);
        }
    }
    let by_ref = tx.prepare_cached(BY_REF_ID).await?;
    let by_id = tx.prepare_cached(BY_CALL_ID).await?;
    let (ref_rows, id_rows) = try_join(
        tx.query(
            &by_ref,
            &[
                &ref_lines,
                &ref_accounts,
                &refs,
                &(CALLS_OF_A_REF_ID as i64),
            ],
        ),
        tx.query(&by_id, &[&id_lines, &id_accounts, &ids]),
    )
    .await?;
    for row in &ref_rows {
        let (n, sighting) = candidate_of_row(row, false);
        if let Some(line) = lines.get_mut(n) {
            line.candidates.by_ref_id.push(sighting);
        }
    }
    for row in &id_rows {
        let (n, sighting) = candidate_of_row(row, false);
        if let Some(line) = lines.get_mut(n) {
            line.candidates.by_call_id = Some(sighting);
        }
    }
    Ok(())
}

fn shift_time(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

/// The columns of the search by fingerprint, one for each that the batch holds.
#[derive(Default)]
struct SignatureSearch {
    fingerprints: Vec<Fingerprint>,
    /// Which lines have it.
    lines: Vec<Vec<usize>>,
    accounts: Vec<Uuid>,
    low: Vec<Timestamp>,
    high: Vec<Timestamp>,
}

impl SignatureSearch {
    fn for_rows(lines: &[BatchRow], webhooks: &HashMap<Uuid, WebhookRules>) -> SignatureSearch {
        let mut search = SignatureSearch::default();
        let mut known: HashMap<Fingerprint, usize> = HashMap::new();
        let looked_for = |line: &BatchRow| !matches!(line.trigger, Trigger::Applied(_));
        for (n, line) in lines.iter().enumerate().filter(|(_, l)| looked_for(l)) {
            let (Some(fingerprint), Some(webhook)) =
                (line.fingerprint(), webhooks.get(&line.webhook_id))
            else {
                continue;
            };
            let window = SignedDuration::from_hours(webhook.match_window_hours);
            let low = shift_time(line.order.received_at, -window);
            let high = shift_time(line.order.received_at, window);
            let at = *known.entry(fingerprint.clone()).or_insert_with(|| {
                search.fingerprints.push(fingerprint);
                search.lines.push(Vec::new());
                search.accounts.push(line.account_id);
                search.low.push(low);
                search.high.push(high);
                search.lines.len() - 1
            });
            search.lines[at].push(n);
            search.low[at] = search.low[at].min(low);
            search.high[at] = search.high[at].max(high);
        }
        search
    }
}

async fn by_signature(
    tx: &Transaction<'_>,
    lines: &mut [BatchRow],
    webhooks: &HashMap<Uuid, WebhookRules>,
) -> Result<Vec<StandingReport>, StoreError> {
    let search = SignatureSearch::for_rows(lines, webhooks);
    if search.fingerprints.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i32> = (0..search.fingerprints.len()).map(row_index).collect();
    let of = |f: fn(&Fingerprint) -> String| -> Vec<String> {
        search.fingerprints.iter().map(f).collect()
    };
    let callers = of(|f| f.caller.clone());
    let durations: Vec<i32> = search
        .fingerprints
        .iter()
        .map(|f| i32::try_from(f.duration_seconds).unwrap_or(i32::MAX))
        .collect();
    let webhook_ids: Vec<Uuid> = search.fingerprints.iter().map(|f| f.webhook_id).collect();
    let statement = tx.prepare_cached(BY_SIGNATURE).await?;
    let rows = tx
        .query(
            &statement,
            &[
                &numbers,
                &search.accounts,
                &callers,
                &durations,
                &webhook_ids,
                &search.low,
                &search.high,
                &REPORTS_OF_A_FINGERPRINT,
            ],
        )
        .await?;
    let mut standing = Vec::new();
    for row in &rows {
        let (at, sighting) = candidate_of_row(row, true);
        let (Some(fingerprint), Some(numbers)) =
            (search.fingerprints.get(at), search.lines.get(at))
        else {
            continue;
        };
        for n in numbers {
            if let Some(line) = lines.get_mut(*n) {
                add_once(&mut line.candidates.by_caller, sighting.clone());
            }
        }
        standing.push(StandingReport {
            fingerprint: fingerprint.clone(),
            order: order_of_row(row)?,
            call_id: sighting.call_id,
            guess: row.get("guess"),
            by_person: row.get("by_person"),
            displaced: row.get::<_, &str>("role") == "displaced",
            ref_id: row.get("ref_id"),
            call_id_text: row.get("call_id_text"),
        });
    }
    Ok(standing)
}

/// The columns of the search by caller, line by line.
#[derive(Default)]
struct CallerSearch {
    lines: Vec<i32>,
    accounts: Vec<Uuid>,
    callers: Vec<String>,
    durations: Vec<i32>,
    tolerances: Vec<i32>,
    low: Vec<Timestamp>,
    high: Vec<Timestamp>,
}

impl CallerSearch {
    fn for_rows(lines: &[BatchRow], webhooks: &HashMap<Uuid, WebhookRules>) -> CallerSearch {
        let mut s = CallerSearch::default();
        for (n, line) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.trigger.searches())
        {
            let (Some(report), Some(webhook)) = (line.report(), webhooks.get(&line.webhook_id))
            else {
                continue;
            };
            let (Some(caller), Some(duration)) = (&report.caller, report.duration_seconds) else {
                continue;
            };
            if found_by_id(line, webhook) {
                continue;
            }
            let window = SignedDuration::from_hours(webhook.match_window_hours);
            let received_at = line.order.received_at;
            s.lines.push(row_index(n));
            s.accounts.push(line.account_id);
            s.callers.push(caller.clone());
            s.durations
                .push(i32::try_from(duration).unwrap_or(i32::MAX));
            s.tolerances
                .push(i32::try_from(webhook.duration_tolerance_seconds).unwrap_or(i32::MAX));
            s.low.push(shift_time(received_at, -window));
            s.high.push(shift_time(
                received_at,
                SignedDuration::from_micros(CLOCK_SKEW_MICROS),
            ));
        }
        s
    }
}

fn found_by_id(line: &BatchRow, webhook: &WebhookRules) -> bool {
    let in_scope = |s: &CallCandidate| webhook.buyer_id.is_none() || webhook.buyer_id == s.buyer_id;
    line.candidates.by_ref_id.iter().any(in_scope)
        || line.candidates.by_call_id.iter().any(in_scope)
}

async fn by_caller(
    tx: &Transaction<'_>,
    lines: &mut [BatchRow],
    webhooks: &HashMap<Uuid, WebhookRules>,
) -> Result<(), StoreError> {
    let s = CallerSearch::for_rows(lines, webhooks);
    if s.lines.is_empty() {
        return Ok(());
    }
    let statement = tx.prepare_cached(BY_CALLER).await?;
    let near = tx
        .query(
            &statement,
            &[
                &s.lines,
                &s.accounts,
                &s.callers,
                &s.durations,
                &s.tolerances,
                &s.low,
                &s.high,
                &FITTING_CALLS,
                &CALLS_OF_A_CALLER,
            ],
        )
        .await?;
    for row in &near {
        let (n, sighting) = candidate_of_row(row, false);
        if let Some(line) = lines.get_mut(n) {
            add_once(&mut line.candidates.by_caller, sighting);
        }
    }
    Ok(())
}
