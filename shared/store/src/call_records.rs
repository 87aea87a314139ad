//! The rows of recorded calls: set-based, locked in id order, as settling does.

use std::collections::{BTreeSet, HashMap, HashSet};

use deadpool_postgres::Transaction;
use trueup_domain::call_record::StoredCall;
use trueup_domain::crediting::{Estimate, Payee};
use trueup_postgres::statement::Result;
use uuid::Uuid;

use crate::assignments;
use crate::settlement::writes::terms_columns;
use trueup_postgres::statement;

/// Those of the assignments that the account has, with whom they pay.
pub async fn load_payees(
    tx: &Transaction<'_>,
    account_id: Uuid,
    ids: &BTreeSet<Uuid>,
) -> Result<HashMap<Uuid, Payee>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = ids.iter().copied().collect();
    let found = assignments::get_many(tx, account_id, &ids).await?;
    Ok(found
        .into_iter()
        .map(|a| {
            (
                a.id,
                Payee {
                    publisher_id: a.publisher_id,
                    terms: a.terms,
                },
            )
        })
        .collect())
}

/// Inserts what is not there yet; the answer holds the ids that were new. In id order, as every lock.
pub async fn insert_calls<'a>(
    tx: &Transaction<'_>,
    account_id: Uuid,
    calls: impl Iterator<Item = &'a StoredCall>,
) -> Result<HashSet<Uuid>> {
    const INSERT: &str = "/* recording.insert */
        INSERT INTO calls (account_id, id, ref_id, caller, caller_raw, tracking_number, duration_seconds, started_at,
               ended_at, buyer_id, assignment_id, value_cents, qualified, publisher_payout_cents, estimate_value_cents,
               estimate_qualified, terms_publisher_id, terms_kind, terms_amount_cents, terms_percent_e4)
        SELECT $1, id, ref_id, caller, caller_raw, tracking_number, duration_seconds, started_at,
               ended_at, buyer_id, assignment_id, value_cents, qualified, publisher_payout_cents, estimate_value_cents,
               estimate_qualified, terms_publisher_id, terms_kind, terms_amount_cents, terms_percent_e4
          FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int4[], $8::timestamptz[],
                      $9::timestamptz[], $10::uuid[], $11::uuid[], $12::int8[], $13::bool[], $14::int8[], $15::int8[],
                      $16::bool[], $17::uuid[], $18::text[], $19::int8[], $20::int4[])
               AS row (id, ref_id, caller, caller_raw, tracking_number, duration_seconds, started_at,
                       ended_at, buyer_id, assignment_id, value_cents, qualified, publisher_payout_cents,
                       estimate_value_cents, estimate_qualified, terms_publisher_id, terms_kind, terms_amount_cents,
                       terms_percent_e4)
         ORDER BY id
            ON CONFLICT (account_id, id) DO NOTHING
        RETURNING id";
    let columns = CallColumns::from_calls(calls);
    let rows = statement::query_rows(tx, INSERT, &columns.as_params(&account_id)).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Writes calls that were there and are locked.
pub async fn update_calls<'a>(
    tx: &Transaction<'_>,
    account_id: Uuid,
    calls: impl Iterator<Item = &'a StoredCall>,
) -> Result<()> {
    const UPDATE: &str = "/* recording.update */
        UPDATE calls c
           SET ref_id = row.ref_id, caller = row.caller, caller_raw = row.caller_raw,
               tracking_number = row.tracking_number, duration_seconds = row.duration_seconds,
               started_at = row.started_at, ended_at = row.ended_at, buyer_id = row.buyer_id,
               assignment_id = row.assignment_id, value_cents = row.value_cents, qualified = row.qualified,
               publisher_payout_cents = row.publisher_payout_cents, estimate_value_cents = row.estimate_value_cents,
               estimate_qualified = row.estimate_qualified, terms_publisher_id = row.terms_publisher_id,
               terms_kind = row.terms_kind, terms_amount_cents = row.terms_amount_cents,
               terms_percent_e4 = row.terms_percent_e4, updated_at = now()
          FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int4[], $8::timestamptz[],
                      $9::timestamptz[], $10::uuid[], $11::uuid[], $12::int8[], $13::bool[], $14::int8[], $15::int8[],
                      $16::bool[], $17::uuid[], $18::text[], $19::int8[], $20::int4[])
               AS row (id, ref_id, caller, caller_raw, tracking_number, duration_seconds, started_at,
                       ended_at, buyer_id, assignment_id, value_cents, qualified, publisher_payout_cents,
                       estimate_value_cents, estimate_qualified, terms_publisher_id, terms_kind, terms_amount_cents,
                       terms_percent_e4)
         WHERE c.account_id = $1 AND c.id = row.id";
    let columns = CallColumns::from_calls(calls);
    statement::run(tx, UPDATE, &columns.as_params(&account_id)).await?;
    Ok(())
}

/// Calls turned into one array for each column, as `unnest` takes them.
#[derive(Default)]
struct CallColumns {
    id: Vec<Uuid>,
    ref_id: Vec<Option<String>>,
    caller: Vec<Option<String>>,
    caller_raw: Vec<Option<String>>,
    tracking_number: Vec<Option<String>>,
    duration_seconds: Vec<i32>,
    started_at: Vec<jiff::Timestamp>,
    ended_at: Vec<jiff::Timestamp>,
    buyer_id: Vec<Option<Uuid>>,
    assignment_id: Vec<Option<Uuid>>,
    value_cents: Vec<Option<i64>>,
    qualified: Vec<Option<bool>>,
    publisher_payout_cents: Vec<i64>,
    estimate_value_cents: Vec<Option<i64>>,
    estimate_qualified: Vec<Option<bool>>,
    terms_publisher_id: Vec<Option<Uuid>>,
    terms_kind: Vec<Option<&'static str>>,
    terms_amount_cents: Vec<Option<i64>>,
    terms_percent_e4: Vec<Option<i32>>,
}

impl CallColumns {
    fn from_calls<'a>(calls: impl Iterator<Item = &'a StoredCall>) -> Self {
        let mut columns = CallColumns::default();
        for call in calls {
            let (kind, amount_cents, percent_e4) = terms_columns(call.terms.map(|p| p.terms));
            columns.id.push(call.id);
            columns.ref_id.push(call.ref_id.clone());
            columns.caller.push(call.caller.clone());
            columns.caller_raw.push(call.caller_raw.clone());
            columns.tracking_number.push(call.tracking_number.clone());
            columns.duration_seconds.push(call.duration_seconds);
            columns.started_at.push(call.started_at);
            columns.ended_at.push(call.ended_at);
            columns.buyer_id.push(call.buyer_id);
            columns.assignment_id.push(call.assignment_id);
            columns.value_cents.push(call.value_cents);
            columns.qualified.push(call.qualified);
            columns.publisher_payout_cents.push(call.credit_cents);
            columns.estimate_value_cents.push(call.estimate.value_cents);
            columns.estimate_qualified.push(call.estimate.qualified);
            columns
                .terms_publisher_id
                .push(call.terms.map(|p| p.publisher_id));
            columns.terms_kind.push(kind);
            columns.terms_amount_cents.push(amount_cents);
            columns.terms_percent_e4.push(percent_e4);
        }
        columns
    }

    fn as_params<'a>(
        &'a self,
        account_id: &'a Uuid,
    ) -> Vec<&'a (dyn tokio_postgres::types::ToSql + Sync)> {
        vec![
            account_id,
            &self.id,
            &self.ref_id,
            &self.caller,
            &self.caller_raw,
            &self.tracking_number,
            &self.duration_seconds,
            &self.started_at,
            &self.ended_at,
            &self.buyer_id,
            &self.assignment_id,
            &self.value_cents,
            &self.qualified,
            &self.publisher_payout_cents,
            &self.estimate_value_cents,
            &self.estimate_qualified,
            &self.terms_publisher_id,
            &self.terms_kind,
            &self.terms_amount_cents,
            &self.terms_percent_e4,
        ]
    }
}

/// Locks the calls in id order and reads them.
pub async fn lock_calls(
    tx: &Transaction<'_>,
    account_id: Uuid,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, StoredCall>> {
    const LOCK: &str = "/* recording.lock */
        SELECT id, ref_id, caller, caller_raw, tracking_number, duration_seconds, started_at, ended_at, buyer_id,
               assignment_id, value_cents, value_from_webhook, qualified, publisher_payout_cents,
               estimate_value_cents, estimate_qualified, terms_publisher_id, terms_kind, terms_amount_cents,
               terms_percent_e4
          FROM calls WHERE account_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE";
    let rows = statement::query_rows(tx, LOCK, &[&account_id, &ids]).await?;
    let calls = rows.iter().map(|row| {
        let publisher_id: Option<Uuid> = row.get("terms_publisher_id");
        let terms = assignments::terms_of(
            row.get("terms_kind"),
            row.get("terms_amount_cents"),
            row.get("terms_percent_e4"),
        );
        StoredCall {
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
            reported: false,
            qualified: row.get("qualified"),
            credit_cents: row.get("publisher_payout_cents"),
            estimate: Estimate {
                value_cents: row.get("estimate_value_cents"),
                qualified: row.get("estimate_qualified"),
            },
            terms: publisher_id.zip(terms).map(|(publisher_id, terms)| Payee {
                publisher_id,
                terms,
            }),
        }
    });
    Ok(calls.map(|call| (call.id, call)).collect())
}

/// Which of these calls the ledger holds a posting for.
pub async fn calls_with_postings(
    tx: &Transaction<'_>,
    account_id: Uuid,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>> {
    const POSTED: &str = "/* recording.posted */
        SELECT DISTINCT call_id FROM postings WHERE account_id = $1 AND call_id = ANY($2)";
    let rows = statement::query_rows(tx, POSTED, &[&account_id, &ids]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Which of these calls have a report folded into their money.
pub async fn calls_with_reports(
    tx: &Transaction<'_>,
    account_id: Uuid,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>> {
    const REPORTED: &str = "/* recording.reported */
        SELECT DISTINCT call_id FROM call_reports WHERE account_id = $1 AND call_id = ANY($2) AND role = 'folded'";
    let rows = statement::query_rows(tx, REPORTED, &[&account_id, &ids]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A note for each recorded call, which a worker takes to look for reports that wait for it (M7).
pub async fn insert_into_outbox<'a>(
    tx: &Transaction<'_>,
    account_id: Uuid,
    calls: impl Iterator<Item = &'a StoredCall>,
) -> Result<()> {
    const LEAVE: &str = "/* recording.leave_notes */
        INSERT INTO call_recorded_outbox (account_id, call_id, ref_id, caller)
        SELECT $1, call_id, ref_id, caller
          FROM unnest($2::uuid[], $3::text[], $4::text[]) AS row (call_id, ref_id, caller)";
    let (mut ids, mut ref_ids, mut callers) = (Vec::new(), Vec::new(), Vec::new());
    for call in calls {
        ids.push(call.id);
        ref_ids.push(call.ref_id.as_deref());
        callers.push(call.caller.as_deref());
    }
    statement::run(tx, LEAVE, &[&account_id, &ids, &ref_ids, &callers]).await?;
    Ok(())
}
