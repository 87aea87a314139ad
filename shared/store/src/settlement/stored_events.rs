//! Rows that are there already, on their way through settling again.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Transaction;
use futures_util::future::try_join;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::StoreError;
use crate::settlement::columns::caller_raw_of_row;
use crate::stored_requests::{KeptRequest, load_requests};
use trueup_domain::batch_decision::{BatchRow, PreviousRow, SettleJob};
use trueup_domain::crediting::ReceptionOrder;
use trueup_domain::decision::{CallCandidates, Trigger};
use trueup_domain::report::{ParsedRequest, Payout, ReadError, Report};
use trueup_event::raw_event::RawRequest;
use trueup_event::reason::{ReadingNote, Reason, Status, Strategy};
use trueup_event::verdict::Detail;

/// Locked, so that two persons, or a person and a schedule, take turns on one row; in the arrays' order.
pub const STORED_ROWS: &str = "/* settle_stored_rows */
    SELECT e.*
      FROM unnest($1::timestamptz[], $2::uuid[]) AS k (received_at, id)
     CROSS JOIN LATERAL (
           SELECT received_at, id, account_id, webhook_id, position, host(source_ip) AS source_ip, caller, caller_raw,
                  duration_seconds, ref_id, call_id, payout_raw, payout_cents, currency, rejection_word, status, reason,
                  detail::text AS detail, strategy, matched_call_id, count
             FROM events WHERE received_at = k.received_at AND id = k.id FOR NO KEY UPDATE) AS e";

pub async fn row_lines(
    tx: &Transaction<'_>,
    keys: &[(Timestamp, Uuid)],
) -> Result<Vec<BatchRow>, StoreError> {
    let (times, ids): (Vec<Timestamp>, Vec<Uuid>) = keys.iter().copied().unzip();
    let statement = tx.prepare_cached(STORED_ROWS).await?;
    let rows = async { Ok(tx.query(&statement, &[&times, &ids]).await?) };
    // What is asked for first is locked first; a request is not written again.
    let (rows, mut requests) = try_join(rows, load_requests(tx, keys)).await?;
    rows.iter()
        .map(|row| {
            // One that is damaged is as one past its retention: the row's columns say what it said.
            let kept = requests.remove(&row.get("id")).and_then(KeptRequest::whole);
            line_of_row(row, kept.map(|stored| stored.request))
        })
        .collect()
}

/// Rows that follow others of the batch to their call (M12).
pub async fn load_followers(
    tx: &Transaction<'_>,
    keys: &BTreeMap<(Timestamp, Uuid), bool>,
) -> Result<Vec<BatchRow>, StoreError> {
    let rows: Vec<(Timestamp, Uuid)> = keys.keys().copied().collect();
    let mut lines = row_lines(tx, &rows).await?;
    for line in &mut lines {
        let key = (line.order.received_at, line.order.event_id);
        line.must_leave = keys.get(&key).copied().unwrap_or_default();
        line.trigger = Trigger::Changed;
    }
    Ok(lines)
}

pub async fn stored_lines(
    tx: &Transaction<'_>,
    work: Vec<SettleJob>,
) -> Result<Vec<BatchRow>, StoreError> {
    let mut keys: Vec<(Timestamp, Uuid)> = work
        .iter()
        .map(|item| match item {
            SettleJob::Stored {
                id, received_at, ..
            } => (*received_at, *id),
            SettleJob::Apply {
                from_id,
                from_received_at,
                ..
            } => (*from_received_at, *from_id),
            SettleJob::Fresh(event) => (event.received_at, event.id),
        })
        .collect();
    keys.sort_unstable();
    let mut rows: HashMap<Uuid, BatchRow> = row_lines(tx, &keys)
        .await?
        .into_iter()
        .map(|line| (line.order.event_id, line))
        .collect();
    let mut lines = Vec::with_capacity(work.len());
    for item in work {
        match item {
            SettleJob::Stored {
                id, course, actor, ..
            } => lines.extend(rows.remove(&id).map(|line| BatchRow {
                trigger: course,
                actor,
                ..line
            })),
            SettleJob::Apply {
                id,
                received_at,
                from_id,
                payout_cents,
                call_id,
                actor,
                ..
            } => {
                lines.extend(rows.remove(&from_id).map(|from| BatchRow {
                    actor: Some(actor),
                    ..from.with_manual_amount(id, received_at, payout_cents, call_id)
                }));
            }
            SettleJob::Fresh(_) => {}
        }
    }
    Ok(lines)
}

fn line_of_row(row: &Row, request: Option<RawRequest>) -> Result<BatchRow, StoreError> {
    let status: &str = row.get("status");
    let reason = reason_of(row.get("reason"))?;
    // A request to a paused webhook was kept whole, so that it can become a report now (statuses).
    let refused = if status == Status::Refused.code() && reason != Some(Reason::EndpointDisabled) {
        reason
    } else {
        None
    };
    let report = report_of_row(row, reason);
    let before = PreviousRow {
        status: status.to_owned(),
        reason,
        detail: row.get("detail"),
        strategy: row
            .get::<_, Option<&str>>("strategy")
            .and_then(Strategy::from_code),
        report: report.clone(),
    };
    Ok(BatchRow {
        order: ReceptionOrder {
            received_at: row.get("received_at"),
            position: u16::try_from(row.get::<_, i32>("position")).unwrap_or(0),
            event_id: row.get("id"),
        },
        account_id: row.get("account_id"),
        webhook_id: row.get("webhook_id"),
        trigger: Trigger::Again,
        exists: true,
        request,
        source_ip: row
            .get::<_, Option<&str>>("source_ip")
            .and_then(|ip| ip.parse().ok()),
        applied_from: None,
        earlier_call: row.get("matched_call_id"),
        count: row.get("count"),
        refused,
        reading: ParsedRequest {
            report,
            slots: Vec::new(),
            notes: notes_of_detail(row.get("detail")),
        },
        candidates: CallCandidates::default(),
        decision: None,
        before: Some(Box::new(before)),
        actor: None,
        must_leave: false,
        left_call: None,
        withdrawal: None,
    })
}

/// How the request had to be read (X1b), which what is decided later does not change.
fn notes_of_detail(detail: Option<&str>) -> Vec<ReadingNote> {
    detail
        .filter(|text| text.contains("reading_notes"))
        .map_or_else(Vec::new, Detail::reading_notes_of_row)
}

/// The report as the row's columns still say it, for rows whose raw request is past its retention.
pub fn report_of_row(row: &Row, reason: Option<Reason>) -> Result<Report, ReadError> {
    match reason {
        Some(Reason::UnparseableBody) => return Err(ReadError::UnparseableBody { byte: 0 }),
        Some(Reason::UnparseableElement) => return Err(ReadError::UnparseableElement),
        Some(Reason::EmptyBatch) => return Err(ReadError::EmptyBatch),
        _ => {}
    }
    let payout = match (row.get::<_, Option<i64>>("payout_cents"), reason) {
        (Some(cents), _) => Payout::Cents(cents),
        (None, Some(Reason::PayoutUnparseable)) => Payout::Unparseable,
        (None, _) => Payout::Absent,
    };
    Ok(Report {
        ref_id: row.get("ref_id"),
        call_id: row.get("call_id"),
        caller: row.get("caller"),
        caller_raw: caller_raw_of_row(row),
        duration_seconds: row
            .get::<_, Option<i32>>("duration_seconds")
            .and_then(|d| u32::try_from(d).ok()),
        payout,
        payout_raw: row.get("payout_raw"),
        currency: row.get("currency"),
        rejection_word: row.get("rejection_word"),
    })
}

pub fn reason_of(code: Option<&str>) -> Result<Option<Reason>, StoreError> {
    code.map(|c| {
        Reason::from_code(c).ok_or_else(|| StoreError::Corrupt(format!("events.reason {c}")))
    })
    .transpose()
}
