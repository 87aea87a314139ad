//! What a batch needs to know before it can decide: rows, settings, and the locked books.

use std::collections::{BTreeSet, HashMap, HashSet};

use deadpool_postgres::Transaction;
use futures_util::future::{try_join, try_join3};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::StoreError;
use crate::settlement::stored_events::{reason_of, stored_lines};
use crate::terms_columns::{payee_of_row, terms_of_assignment};
use trueup_domain::batch_decision::{BatchRow, SettleJob, SettleResult};
use trueup_domain::crediting::{Estimate, Payee, ReceptionOrder};
use trueup_domain::decision::Trigger;
use trueup_domain::locked_calls::{
    CallKey, CallReport, ClaimState, LockedCall, LockedCalls, OpenRow,
};
use trueup_domain::report::{DurationUnit, PayoutUnit, ReadSettings, Slot, repeat_keys};
use trueup_domain::webhook_settings::{ConflictPolicy, WebhookRules};
use trueup_event::raw_event::RawEvent;
use trueup_event::reason::Strategy;

/// What a batch begins with.
pub struct Loaded {
    pub lines: Vec<BatchRow>,
    /// Fresh events that turned out to be settled already.
    pub skipped: Vec<SettleResult>,
    pub webhooks: HashMap<Uuid, WebhookRules>,
}

/// Gives the transaction its number before it looks for any call: a report that finds none may have
/// looked a moment too early, and by the number a recorded call's note is kept until we are through (M7).
const BEGIN: &str = "/* settle_begin */ SELECT pg_current_xact_id()::text";

/// One round trip for what comes from the broker.
pub async fn load_batch(tx: &Transaction<'_>, work: Vec<SettleJob>) -> Result<Loaded, StoreError> {
    let begin = tx.prepare_cached(BEGIN).await?;
    let named: BTreeSet<Uuid> = work
        .iter()
        .filter_map(|item| match item {
            SettleJob::Fresh(event) => Some(event.webhook_id),
            SettleJob::Stored { .. } | SettleJob::Apply { .. } => None,
        })
        .collect();
    let begun = async { Ok(tx.query_one(&begin, &[]).await?) };
    let (_, mut webhooks, (lines, skipped)) =
        try_join3(begun, load_webhooks(tx, &named), load_rows(tx, work)).await?;
    let others: BTreeSet<Uuid> = lines
        .iter()
        .map(|l| l.webhook_id)
        .filter(|id| !named.contains(id))
        .collect();
    webhooks.extend(self::load_webhooks(tx, &others).await?);
    Ok(Loaded {
        lines,
        skipped,
        webhooks,
    })
}

/// The lines of a batch, and the fresh events that turned out to be settled already.
async fn load_rows(
    tx: &Transaction<'_>,
    work: Vec<SettleJob>,
) -> Result<(Vec<BatchRow>, Vec<SettleResult>), StoreError> {
    let mut fresh = Vec::new();
    let mut stored = Vec::new();
    for item in work {
        match item {
            SettleJob::Fresh(event) => fresh.push(event),
            other => stored.push(other),
        }
    }
    let (mut lines, skipped) = fresh_lines(tx, fresh).await?;
    if !stored.is_empty() {
        lines.extend(stored_lines(tx, stored).await?);
    }
    Ok((lines, skipped))
}

/// Rows that are there already are rare: a redelivery, or one that was parked, which is settled again unless a
/// person has closed it. They are locked, so that a redriven event and a person who replays it take turns; in
/// the order of the arrays.
///
/// Here and below the look-up is a subquery of its own: a plan made while a table was empty would
/// otherwise read all of it first, and go on doing so when it is large.
pub const SETTLED_IDS: &str = "/* settled_ids */
    SELECT e.id, e.failed
      FROM unnest($1::timestamptz[], $2::uuid[]) AS k (received_at, id)
     CROSS JOIN LATERAL (
           SELECT id, status = 'held' AND reason = 'processing_failed' AND ignored_at IS NULL AS failed FROM events
            WHERE received_at = k.received_at AND id = k.id FOR NO KEY UPDATE) AS e";

async fn fresh_lines(
    tx: &Transaction<'_>,
    events: Vec<RawEvent>,
) -> Result<(Vec<BatchRow>, Vec<SettleResult>), StoreError> {
    if events.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut keys: Vec<(Timestamp, Uuid)> = events.iter().map(|e| (e.received_at, e.id)).collect();
    keys.sort_unstable();
    let (times, ids): (Vec<Timestamp>, Vec<Uuid>) = keys.into_iter().unzip();
    let statement = tx.prepare_cached(SETTLED_IDS).await?;
    let known: HashMap<Uuid, bool> = tx
        .query(&statement, &[&times, &ids])
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let mut lines = Vec::with_capacity(events.len());
    let mut skipped = Vec::new();
    let mut seen = HashSet::new();
    for event in events {
        let settled_before = known.get(&event.id).is_some_and(|failed| !failed);
        if settled_before || !seen.insert(event.id) {
            skipped.push(SettleResult::settled_before(&event));
        } else {
            let exists = known.contains_key(&event.id);
            lines.push(BatchRow::of_event(event, exists));
        }
    }
    Ok((lines, skipped))
}

pub const WEBHOOKS: &str = "/* settle_webhooks */
    SELECT w.id, w.account_id, w.buyer_id, w.duration_tolerance_seconds, w.match_window_hours, w.payout_cap_cents,
           w.on_currency_mismatch, w.on_rejection_word, w.field_names, w.duration_unit, w.payout_unit,
           a.default_region, a.currency
      FROM webhooks w JOIN accounts a ON a.id = w.account_id
     WHERE w.id = ANY($1)";

async fn load_webhooks(
    tx: &Transaction<'_>,
    ids: &BTreeSet<Uuid>,
) -> Result<HashMap<Uuid, WebhookRules>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = ids.iter().copied().collect();
    let statement = tx.prepare_cached(WEBHOOKS).await?;
    let rows = tx.query(&statement, &[&ids]).await?;
    rows.iter()
        .map(|row| webhook_of_row(row).map(|w| (w.id, w)))
        .collect()
}

fn webhook_of_row(row: &Row) -> Result<WebhookRules, StoreError> {
    fn parse_word<T: serde::de::DeserializeOwned>(
        row: &Row,
        column: &str,
    ) -> Result<T, StoreError> {
        let text: String = row.get(column);
        serde_json::from_value(serde_json::Value::String(text))
            .map_err(|e| StoreError::Corrupt(format!("webhooks.{column}: {e}")))
    }
    let field_names: serde_json::Value = row.get("field_names");
    Ok(WebhookRules {
        id: row.get("id"),
        account_id: row.get("account_id"),
        buyer_id: row.get("buyer_id"),
        duration_tolerance_seconds: row.get::<_, i32>("duration_tolerance_seconds").into(),
        match_window_hours: row.get::<_, i32>("match_window_hours").into(),
        payout_cap_cents: row.get("payout_cap_cents"),
        on_currency_mismatch: parse_word::<ConflictPolicy>(row, "on_currency_mismatch")?,
        on_rejection_word: parse_word::<ConflictPolicy>(row, "on_rejection_word")?,
        read: ReadSettings {
            field_names: serde_json::from_value::<std::collections::BTreeMap<Slot, String>>(
                field_names,
            )
            .map_err(|e| StoreError::Corrupt(format!("webhooks.field_names: {e}")))?,
            default_region: row.get("default_region"),
            currency: row.get("currency"),
            duration_unit: parse_word::<DurationUnit>(row, "duration_unit")?,
            payout_unit: parse_word::<PayoutUnit>(row, "payout_unit")?,
        },
    })
}

/// The one statement that locks: every call of the batch, in the order of the arrays, which is that of
/// their ids: the look-ups follow one another, and each locks what it finds.
pub const LOCK_CALLS: &str = "/* settle_lock_calls */
    SELECT c.* FROM unnest($1::uuid[], $2::uuid[]) AS k (account_id, id)
     CROSS JOIN LATERAL (
           SELECT account_id, id, buyer_id, caller, duration_seconds, ended_at, value_cents, value_from_webhook,
                  qualified, publisher_payout_cents, estimate_value_cents, estimate_qualified, terms_publisher_id,
                  terms_kind, terms_amount_cents, terms_percent_e4, reported_by_webhook_id, assignment_id,
                  ctid::text AS at
             FROM calls WHERE account_id = k.account_id AND id = k.id FOR NO KEY UPDATE) AS c";

pub const REPORTS: &str = "/* settle_call_reports */
    SELECT r.* FROM unnest($1::uuid[], $2::uuid[]) AS k (account_id, id)
     CROSS JOIN LATERAL (
           SELECT account_id, call_id, received_at, position, event_id, webhook_id, strategy, role, exempt_from_v2,
                  by_person, guess, payout_cents, caller, duration_seconds, ref_id, call_id_text
             FROM call_reports WHERE account_id = k.account_id AND call_id = k.id
            ORDER BY received_at, position, event_id) AS r";

pub const ASSIGNMENTS: &str = "/* settle_assignments */
    SELECT id, publisher_id, kind, amount_cents, percent_e4 FROM assignments WHERE id = ANY($1)";

/// The calls under lock, and which of their reports the database holds.
#[derive(Default)]
pub struct LockedCallSet {
    pub calls: LockedCalls,
    pub stored: HashSet<(CallKey, ReceptionOrder)>,
    /// Where the locked rows lie: until we commit they stay there, and are updated without a search.
    pub ctids: HashMap<CallKey, String>,
}

/// M15: guesses of one caller are decided one after the other, whichever worker has them: a guess and its
/// retry on two workers would take a call each. In the order of the keys; they go with the transaction.
pub const LOCK_CALLERS: &str = "/* settle_lock_callers */
    SELECT pg_advisory_xact_lock(k.key) FROM (
           SELECT DISTINCT hashtextextended(account_id::text || caller, 0) AS key
             FROM unnest($1::uuid[], $2::text[]) AS row (account_id, caller) ORDER BY 1) AS k";

const TRY_LOCK_CALLERS: &str = "/* settle_try_lock_callers */
    SELECT account_id, caller FROM (
           SELECT DISTINCT account_id, caller, hashtextextended(account_id::text || caller, 0) AS key
             FROM unnest($1::uuid[], $2::text[]) AS row (account_id, caller)) AS k
     WHERE NOT pg_try_advisory_xact_lock(k.key)";

/// Whether a batch waits for what somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// For two seconds; then it fails, and its reports step aside (V12).
    Wait,
    /// Not at all: what is held is left out.
    SkipBusy,
}

/// Locks the callers of the rows. What stands on their calls is read after it. Returns those that
/// somebody else holds, if it does not wait for them.
pub async fn lock_callers(
    tx: &Transaction<'_>,
    lines: &[BatchRow],
    mode: LockMode,
) -> Result<BTreeSet<(Uuid, String)>, StoreError> {
    let callers = |line: &BatchRow| {
        let guesses = !matches!(line.trigger, Trigger::Applied(_));
        let caller = line.report().and_then(|report| report.caller.clone());
        caller
            .filter(|_| guesses)
            .map(|caller| (line.account_id, caller))
    };
    let (accounts, callers): (Vec<Uuid>, Vec<String>) = lines.iter().filter_map(callers).unzip();
    if callers.is_empty() {
        return Ok(BTreeSet::new());
    }
    match mode {
        LockMode::Wait => {
            let statement = tx.prepare_cached(LOCK_CALLERS).await?;
            tx.execute(&statement, &[&accounts, &callers]).await?;
            Ok(BTreeSet::new())
        }
        LockMode::SkipBusy => {
            let statement = tx.prepare_cached(TRY_LOCK_CALLERS).await?;
            let busy = tx.query(&statement, &[&accounts, &callers]).await?;
            Ok(busy.iter().map(|row| (row.get(0), row.get(1))).collect())
        }
    }
}

const TRY_LOCK_CALLS: &str = "/* settle_try_lock_calls */
    SELECT c.account_id, c.id FROM unnest($1::uuid[], $2::uuid[]) AS k (account_id, id)
     CROSS JOIN LATERAL (
           SELECT account_id, id FROM calls WHERE account_id = k.account_id AND id = k.id
              FOR NO KEY UPDATE SKIP LOCKED) AS c";

/// Those of the calls that somebody else holds; the others are locked now.
pub async fn busy_calls(
    tx: &Transaction<'_>,
    keys: &BTreeSet<CallKey>,
) -> Result<BTreeSet<CallKey>, StoreError> {
    let accounts: Vec<Uuid> = keys.iter().map(|k| k.account_id).collect();
    let ids: Vec<Uuid> = keys.iter().map(|k| k.call_id).collect();
    let statement = tx.prepare_cached(TRY_LOCK_CALLS).await?;
    let locked: BTreeSet<CallKey> = tx
        .query(&statement, &[&accounts, &ids])
        .await?
        .iter()
        .map(|row| CallKey {
            account_id: row.get(0),
            call_id: row.get(1),
        })
        .collect();
    Ok(keys.difference(&locked).copied().collect())
}

/// The rows that wait for a person, or were closed by one, and say what rows of the batch say (M11).
pub const OPEN_ROWS: &str = "/* settle_open_rows */
    SELECT o.* FROM unnest($1::uuid[]) AS k (digest)
     CROSS JOIN LATERAL (
           SELECT digest, event_id, received_at, position, reason, ignored FROM open_reports
            WHERE digest = k.digest LIMIT 1) AS o";

pub async fn load_open_rows(
    tx: &Transaction<'_>,
    lines: &[BatchRow],
) -> Result<HashMap<Uuid, OpenRow>, StoreError> {
    let digests: BTreeSet<Uuid> = lines
        .iter()
        .filter(|line| line.trigger.is_automatic())
        .filter_map(|line| Some(repeat_keys(line.webhook_id, line.report()?)))
        .flatten()
        .collect();
    let digests: Vec<Uuid> = digests.into_iter().collect();
    if digests.is_empty() {
        return Ok(HashMap::new());
    }
    let statement = tx.prepare_cached(OPEN_ROWS).await?;
    let rows = tx.query(&statement, &[&digests]).await?;
    rows.iter()
        .map(|row| {
            let open = OpenRow {
                order: order_of_row(row)?,
                reason: reason_of(row.get("reason"))?,
                ignored: row.get("ignored"),
            };
            Ok((row.get("digest"), open))
        })
        .collect()
}

/// The three columns of a place in the order of reception.
pub fn order_of_row(row: &Row) -> Result<ReceptionOrder, StoreError> {
    Ok(ReceptionOrder {
        received_at: row.get("received_at"),
        position: u16::try_from(row.get::<_, i32>("position"))
            .map_err(|_| StoreError::Corrupt("a position beyond 65,535".to_owned()))?,
        event_id: row.get("event_id"),
    })
}

pub async fn lock_calls(
    tx: &Transaction<'_>,
    keys: BTreeSet<CallKey>,
) -> Result<LockedCallSet, StoreError> {
    if keys.is_empty() {
        return Ok(LockedCallSet::default());
    }
    let accounts: Vec<Uuid> = keys.iter().map(|k| k.account_id).collect();
    let ids: Vec<Uuid> = keys.iter().map(|k| k.call_id).collect();
    let lock = tx.prepare_cached(LOCK_CALLS).await?;
    let locked = tx.query(&lock, &[&accounts, &ids]).await?;
    let assignment_ids: BTreeSet<Uuid> = locked
        .iter()
        .filter_map(|row| row.get("assignment_id"))
        .collect();
    let assignment_ids: Vec<Uuid> = assignment_ids.into_iter().collect();
    let reports = tx.prepare_cached(REPORTS).await?;
    let assignments = tx.prepare_cached(ASSIGNMENTS).await?;
    let (report_rows, assignment_rows) = try_join(
        tx.query(&reports, &[&accounts, &ids]),
        tx.query(&assignments, &[&assignment_ids]),
    )
    .await?;
    let payees: HashMap<Uuid, Payee> = assignment_rows
        .iter()
        .map(|row| Ok((row.get("id"), payee_of_assignment(row)?)))
        .collect::<Result<_, StoreError>>()?;
    let mut by_call: HashMap<CallKey, Vec<CallReport>> = HashMap::new();
    let mut stored = HashSet::with_capacity(report_rows.len());
    for row in &report_rows {
        let key = CallKey {
            account_id: row.get("account_id"),
            call_id: row.get("call_id"),
        };
        let report = call_report(row)?;
        stored.insert((key, report.order));
        by_call.entry(key).or_default().push(report);
    }
    let calls = locked
        .iter()
        .map(|row| call_of_row(row, &payees, &mut by_call))
        .collect::<Result<Vec<_>, _>>()?;
    let ctids = calls
        .iter()
        .zip(&locked)
        .map(|(call, row)| (call.key, row.get("at")))
        .collect();
    Ok(LockedCallSet {
        calls: LockedCalls::new(calls),
        stored,
        ctids,
    })
}

fn payee_of_assignment(row: &Row) -> Result<Payee, StoreError> {
    Ok(Payee {
        publisher_id: row.get("publisher_id"),
        terms: terms_of_assignment(row)?,
    })
}

fn call_of_row(
    row: &Row,
    payees: &HashMap<Uuid, Payee>,
    reports: &mut HashMap<CallKey, Vec<CallReport>>,
) -> Result<LockedCall, StoreError> {
    let key = CallKey {
        account_id: row.get("account_id"),
        call_id: row.get("id"),
    };
    Ok(LockedCall {
        key,
        buyer_id: row.get("buyer_id"),
        caller: row.get("caller"),
        duration_seconds: row.get::<_, i32>("duration_seconds").into(),
        ended_at: row.get("ended_at"),
        value_cents: row.get("value_cents"),
        value_from_webhook: row.get("value_from_webhook"),
        qualified: row.get("qualified"),
        credit_cents: row.get("publisher_payout_cents"),
        estimate: Estimate {
            value_cents: row.get("estimate_value_cents"),
            qualified: row.get("estimate_qualified"),
        },
        current_terms: row
            .get::<_, Option<Uuid>>("assignment_id")
            .and_then(|id| payees.get(&id).copied()),
        posted_terms: payee_of_row(row)?,
        released_terms: None,
        reported_by: row.get("reported_by_webhook_id"),
        reports: reports.remove(&key).unwrap_or_default(),
        changed: false,
    })
}

fn call_report(row: &Row) -> Result<CallReport, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("call_reports.{what}"));
    Ok(CallReport {
        order: order_of_row(row)?,
        webhook_id: row.get("webhook_id"),
        strategy: Strategy::from_code(row.get("strategy")).ok_or_else(|| corrupt("strategy"))?,
        role: parse_role(row.get("role")).ok_or_else(|| corrupt("role"))?,
        exempt_from_v2: row.get("exempt_from_v2"),
        by_person: row.get("by_person"),
        guess: row.get("guess"),
        payout_cents: row.get("payout_cents"),
        caller: row.get("caller"),
        duration_seconds: row.get::<_, Option<i32>>("duration_seconds").map(i64::from),
        ref_id: row.get("ref_id"),
        call_id_text: row.get("call_id_text"),
        dirty: false,
    })
}

fn parse_role(code: &str) -> Option<ClaimState> {
    match code {
        "folded" => Some(ClaimState::Folded),
        "held" => Some(ClaimState::Held),
        "displaced" => Some(ClaimState::Displaced),
        _ => None,
    }
}
