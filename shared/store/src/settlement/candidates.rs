//! Which calls may be meant: by the ids a report carries, by its caller, by its signature. No locks.
//!
//! A report that an id finds is not searched for by its caller: most reports carry a ref_id, and the
//! search by caller is the dearer one.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use futures_util::future::try_join;
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::StoreError;
use trueup_domain::batch_decision::BatchRow;
use trueup_domain::decision::CallCandidate;
use trueup_domain::matching::CLOCK_SKEW_MICROS;
use trueup_domain::webhook_settings::Webhook;

/// Calls looked at for one report, of each kind. More calls than this that fit one report to within
/// its tolerance are beyond telling apart anyway.
const FITTING_CALLS: i64 = 32;
/// Calls of one caller in the window that are weighed at all, the latest first.
const CALLS_OF_A_CALLER: i64 = 1_000;
/// Calls that share one ref_id.
const CALLS_OF_A_REF_ID: i64 = 16;

pub const BY_REF_ID: &str = "/* find_by_ref_id */
    SELECT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at
      FROM unnest($1::int4[], $2::uuid[], $3::text[]) AS q (line, account_id, ref_id)
     CROSS JOIN LATERAL (
           SELECT id, buyer_id, duration_seconds, ended_at FROM calls
            WHERE account_id = q.account_id AND ref_id = q.ref_id
            ORDER BY ended_at DESC, id LIMIT $4) AS c";

pub const BY_CALL_ID: &str = "/* find_by_call_id */
    SELECT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at
      FROM unnest($1::int4[], $2::uuid[], $3::uuid[]) AS q (line, account_id, call_id)
     CROSS JOIN LATERAL (
           SELECT id, buyer_id, duration_seconds, ended_at FROM calls
            WHERE account_id = q.account_id AND id = q.call_id LIMIT 1) AS c";

/// Those that fit (unclaimed and nearest first), then the nearest misses, which only tell a reason.
pub const BY_CALLER: &str = "/* find_by_caller */
    SELECT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at, false AS signed
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

pub const BY_SIGNATURE: &str = "/* find_by_signature */
    SELECT DISTINCT q.line, c.id, c.buyer_id, c.duration_seconds, c.ended_at, true AS signed
      FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::int4[], $5::uuid[], $6::timestamptz[], $7::timestamptz[])
           AS q (line, account_id, caller, duration, webhook_id, low, high)
     CROSS JOIN LATERAL (
           SELECT account_id, call_id FROM call_reports
            WHERE webhook_id = q.webhook_id AND caller = q.caller AND duration_seconds = q.duration
              AND received_at BETWEEN q.low AND q.high AND account_id = q.account_id AND role <> 'displaced' OFFSET 0) AS r
     CROSS JOIN LATERAL (
           SELECT id, buyer_id, duration_seconds, ended_at FROM calls
            WHERE account_id = r.account_id AND id = r.call_id LIMIT 1) AS c";

/// Fills each line's sightings.
pub async fn find_candidates(
    tx: &Transaction<'_>,
    lines: &mut [BatchRow],
    webhooks: &HashMap<Uuid, Webhook>,
) -> Result<(), StoreError> {
    by_ids(tx, lines).await?;
    by_caller(tx, lines, webhooks).await
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
            &[&ref_lines, &ref_accounts, &refs, &CALLS_OF_A_REF_ID],
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

/// The columns of the two searches by caller, line by line.
#[derive(Default)]
struct Searches {
    lines: Vec<i32>,
    accounts: Vec<Uuid>,
    callers: Vec<String>,
    durations: Vec<i32>,
    tolerances: Vec<i32>,
    low: Vec<Timestamp>,
    high: Vec<Timestamp>,
    webhooks: Vec<Uuid>,
    window_low: Vec<Timestamp>,
    window_high: Vec<Timestamp>,
}

fn shift_time(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

impl Searches {
    fn for_rows(lines: &[BatchRow], webhooks: &HashMap<Uuid, Webhook>) -> Searches {
        let mut s = Searches::default();
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
            s.webhooks.push(line.webhook_id);
            s.window_low.push(shift_time(received_at, -window));
            s.window_high.push(shift_time(received_at, window));
        }
        s
    }
}

fn found_by_id(line: &BatchRow, webhook: &Webhook) -> bool {
    let in_scope = |s: &CallCandidate| webhook.buyer_id.is_none() || webhook.buyer_id == s.buyer_id;
    line.candidates.by_ref_id.iter().any(in_scope)
        || line.candidates.by_call_id.iter().any(in_scope)
}

async fn by_caller(
    tx: &Transaction<'_>,
    lines: &mut [BatchRow],
    webhooks: &HashMap<Uuid, Webhook>,
) -> Result<(), StoreError> {
    let s = Searches::for_rows(lines, webhooks);
    if s.lines.is_empty() {
        return Ok(());
    }
    let by_caller = tx.prepare_cached(BY_CALLER).await?;
    let by_signature = tx.prepare_cached(BY_SIGNATURE).await?;
    let (near, signed) = try_join(
        tx.query(
            &by_caller,
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
        ),
        tx.query(
            &by_signature,
            &[
                &s.lines,
                &s.accounts,
                &s.callers,
                &s.durations,
                &s.webhooks,
                &s.window_low,
                &s.window_high,
            ],
        ),
    )
    .await?;
    for row in signed.iter().chain(&near) {
        let (n, sighting) = candidate_of_row(row, row.get(5));
        let Some(line) = lines.get_mut(n) else {
            continue;
        };
        // A call that is both signed and near is kept once, as signed.
        if line
            .candidates
            .by_caller
            .iter()
            .all(|s| s.call_id != sighting.call_id)
        {
            line.candidates.by_caller.push(sighting);
        }
    }
    Ok(())
}
