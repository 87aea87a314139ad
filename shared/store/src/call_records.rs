//! The rows of recorded calls: set-based, locked in id order, as settling does.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use deadpool_postgres::Transaction;
use trueup_domain::call_record::StoredCall;
use trueup_domain::crediting::{Estimate, Payee};
use trueup_postgres::statement::Result;
use uuid::Uuid;

use crate::assignments;
use crate::column_table::{ColumnText, Param, TableColumn, borrow_params, column_params, columns};
use crate::settlement::columns::call_money;
use crate::terms_columns::payee_of_row;
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

/// What a recording says of a call, besides its money.
fn call_facts<'a>() -> Vec<TableColumn<'a, &'a StoredCall>> {
    columns!(|row: &'a StoredCall|
        "ref_id": "text" = row.ref_id.as_deref();
        "caller": "text" = row.caller.as_deref();
        "caller_raw": "text" = row.caller_raw.as_deref();
        "tracking_number": "text" = row.tracking_number.as_deref();
        "duration_seconds": "int4" = row.duration_seconds;
        "started_at": "timestamptz" = row.started_at;
        "ended_at": "timestamptz" = row.ended_at;
        "buyer_id": "uuid" = row.buyer_id;
        "assignment_id": "uuid" = row.assignment_id;
        "estimate_value_cents": "int8" = row.estimate.value_cents;
        "estimate_qualified": "bool" = row.estimate.qualified;
    )
}

fn call_id<'a>() -> Vec<TableColumn<'a, &'a StoredCall>> {
    columns!(|row: &'a StoredCall| "id": "uuid" = row.id;)
}

/// What both statements are given.
fn recorded_call<'a>() -> Vec<TableColumn<'a, &'a StoredCall>> {
    let written = [call_id(), call_facts(), call_money()];
    written.into_iter().flatten().collect()
}

/// The account, and then the columns, as both statements take them.
fn call_params<'a>(account_id: &'a Uuid, calls: &[&'a StoredCall]) -> Vec<Param<'a>> {
    let mut params: Vec<Param<'a>> = vec![Box::new(account_id)];
    params.extend(column_params(&recorded_call(), calls));
    params
}

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let written = ColumnText::of(&recorded_call());
    format!(
        "/* recording.insert */
        INSERT INTO calls (account_id, {})
        SELECT $1, {} FROM {}
         ORDER BY row.id
            ON CONFLICT (account_id, id) DO NOTHING
        RETURNING id",
        written.names(),
        written.values(),
        written.unnest(2),
    )
});

static UPDATE: LazyLock<String> = LazyLock::new(|| {
    let given = ColumnText::of(&recorded_call());
    format!(
        "/* recording.update */
        UPDATE calls c SET {}, updated_at = now()
          FROM {}
         WHERE c.account_id = $1 AND {}",
        given.clone().without("id").assignments(),
        given.unnest(2),
        ColumnText::of(&call_id()).equalities("c"),
    )
});

/// Inserts what is not there yet; the answer holds the ids that were new. In id order, as every lock.
pub async fn insert_calls<'a>(
    tx: &Transaction<'_>,
    account_id: Uuid,
    calls: impl Iterator<Item = &'a StoredCall>,
) -> Result<HashSet<Uuid>> {
    let calls: Vec<&StoredCall> = calls.collect();
    let params = call_params(&account_id, &calls);
    let rows = statement::query_rows(tx, &INSERT, &borrow_params(&params)).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Writes calls that were there and are locked.
pub async fn update_calls<'a>(
    tx: &Transaction<'_>,
    account_id: Uuid,
    calls: impl Iterator<Item = &'a StoredCall>,
) -> Result<()> {
    let calls: Vec<&StoredCall> = calls.collect();
    let params = call_params(&account_id, &calls);
    statement::run(tx, &UPDATE, &borrow_params(&params)).await?;
    Ok(())
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
        Ok(StoredCall {
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
            terms: payee_of_row(row)?,
        })
    });
    calls.map(|call| call.map(|call| (call.id, call))).collect()
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
