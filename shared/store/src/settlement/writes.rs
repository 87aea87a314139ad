//! What a batch writes: rows, calls, claims, what may match later, and last the publishers' balances
//! with the postings that explain them.

use std::sync::LazyLock;

use deadpool_postgres::Transaction;
use rand::RngExt;
use uuid::Uuid;

use crate::StoreError;
use crate::column_table::{ColumnText, TableColumn, column_params, columns};
use crate::request_blocks::{
    NUMBER_BITS, PackedRequests, RequestBlock, RequestText, pack_requests,
};
use crate::settlement::columns::{
    CallReportRow, EventRow, LockedRow, call_report_key, call_report_state, decided_event,
    event_key, inserted_call_report, inserted_event, is_told_to_wait, locked_call_key,
    locked_call_place, settled_call, updated_call, updated_call_report, updated_event,
};
use crate::settlement::loading::LockedCallSet;
use crate::settlement::pipelined_writes::{Write, box_param, run};
use crate::settlement::postings::{AdjustedRow, LedgerEntries, draft_entries, write_entries};
use trueup_domain::batch_decision::{BatchRow, freed_calls, wants_another_try};
use trueup_domain::crediting::ReceptionOrder;
use trueup_domain::decision::DisplacedReport;
use trueup_domain::locked_calls::ClaimState;
use trueup_domain::report::{Report, report_digest};
use trueup_event::reason::{Reason, Status};
use trueup_event::verdict::{Detail, OnCall, Verdict};

/// After how many seconds an unmatched report is tried again (M7); the last is also how long it is.
pub const RETRY_SECONDS: [i32; 6] = [10, 60, 900, 3_600, 21_600, 86_400];

/// Seconds of the last retry, as `make_interval` takes them.
const LAST_RETRY_SECONDS: f64 = 86_400.0;

pub async fn write_batch(
    tx: &Transaction<'_>,
    lines: &mut [BatchRow],
    books: &LockedCallSet,
) -> Result<(), StoreError> {
    let ledger = draft_entries(tx, lines).await?;
    let lines = &*lines;
    let requests = NewRequests::of_rows(lines)?;
    let mut writes: Vec<Write<'_>> = Vec::new();
    writes.extend(write_events(lines, &ledger, &requests, false));
    let changed_calls = books.calls.all_calls().filter(|c| c.changed).count();
    writes.extend(update_calls(books));
    writes.extend(report_writes(books));
    writes.extend(request_writes(lines, &requests));
    writes.extend(write_events(lines, &ledger, &requests, true));
    writes.extend(adjust_rows(&ledger));
    writes.extend(mark_displaced(lines));
    writes.extend(pending_writes(lines));
    writes.extend(open_row_writes(lines));
    writes.extend(wake_for_freed_calls(lines, books));
    let calls = writes
        .iter()
        .position(|(sql, _)| *sql == UPDATE_CALLS.as_str());
    let written = run(tx, writes).await?;
    if calls
        .and_then(|at| written.get(at))
        .is_some_and(|rows| *rows != changed_calls as u64)
    {
        // A locked row lay elsewhere than the lock said. It cannot be, so nothing is built upon it.
        return Err(StoreError::Raced);
    }
    write_entries(tx, ledger.postings, &ledger.balances).await
}

/// A write of rows; none, if there are none. The columns are those that the statement's text was made of.
fn write_rows<'a, R>(
    sql: &'static str,
    columns: &[TableColumn<'a, R>],
    rows: &[R],
) -> Option<Write<'a>> {
    (!rows.is_empty()).then(|| (sql, column_params(columns, rows)))
}

static INSERT_ROWS: LazyLock<String> = LazyLock::new(|| {
    let given = ColumnText::of(&inserted_event());
    let written = given.clone().without("waits");
    format!(
        "/* settle_insert_events */
    INSERT INTO events ({}, retry_until)
    SELECT {}, CASE WHEN row.waits THEN now() + make_interval(secs => ${}) END
      FROM {}",
        written.names(),
        written.values(),
        given.count() + 1,
        given.unnest(1),
    )
});

/// An update keeps who decided where nobody decides now, and until when a row is tried again.
pub static UPDATE_ROWS: LazyLock<String> = LazyLock::new(|| {
    let given = ColumnText::of(&updated_event());
    let decided = ColumnText::of(&decided_event());
    format!(
        "/* settle_update_events */
    UPDATE events e
       SET {}, decided_by = COALESCE(row.decided_by, e.decided_by),
           retry_until = CASE WHEN row.waits THEN COALESCE(e.retry_until, now() + make_interval(secs => ${})) END
      FROM {}
     WHERE {}",
        decided.without("decided_by").assignments(),
        given.count() + 1,
        given.unnest(1),
        ColumnText::of(&event_key()).equalities("e"),
    )
});

/// Rows of reports that have none yet, or those that are there.
///
/// The ids of new ones were looked for when the batch was loaded, so the insert needs no `ON CONFLICT`,
/// which would look again in every index and write a record more for each row: where another worker was
/// first meanwhile, the transaction fails and is run again ([`run`]).
fn write_events<'a>(
    lines: &'a [BatchRow],
    ledger: &LedgerEntries,
    requests: &NewRequests,
    exists: bool,
) -> Option<Write<'a>> {
    let meant = lines
        .iter()
        .zip(&requests.packed.places)
        .filter(|(line, _)| line.exists == exists && !line.is_as_before());
    let rows: Vec<EventRow<'a>> = meant
        .filter_map(|(line, request_place)| {
            let (revenue_delta_cents, credit_delta_cents) = ledger.figures_of(line);
            Some(EventRow {
                line,
                decision: line.decision.as_ref()?,
                revenue_delta_cents,
                credit_delta_cents,
                request_place: *request_place,
            })
        })
        .collect();
    let (sql, columns) = if exists {
        (&UPDATE_ROWS, updated_event())
    } else {
        (&INSERT_ROWS, inserted_event())
    };
    let (sql, mut params) = write_rows(sql, &columns, &rows)?;
    params.push(box_param(LAST_RETRY_SECONDS));
    Some((sql, params))
}

pub static ADJUST_ROWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "/* settle_adjust_events */
    UPDATE events e
       SET revenue_delta_cents = e.revenue_delta_cents + row.revenue, credit_delta_cents = e.credit_delta_cents + row.credit,
           status = CASE WHEN row.detail IS NULL THEN e.status ELSE 'matched' END,
           reason = CASE WHEN row.detail IS NULL OR e.status = 'matched' THEN e.reason END,
           detail = CASE WHEN row.detail IS NULL OR e.status = 'matched' THEN e.detail
                         ELSE jsonb_strip_nulls(row.detail::jsonb || jsonb_build_object('reading_notes', e.detail -> 'reading_notes'))::json END
      FROM (SELECT received_at, id, sum(revenue)::int8 AS revenue, sum(credit)::int8 AS credit, (array_agg(detail) FILTER (WHERE detail IS NOT NULL))[1] AS detail
              FROM {}
             GROUP BY received_at, id) AS row
     WHERE e.received_at = row.received_at AND e.id = row.id",
        ColumnText::of(&adjusted_row()).unnest(1),
    )
});

fn adjusted_row() -> Vec<TableColumn<'static, AdjustedRow>> {
    columns!(|row: AdjustedRow|
        "received_at": "timestamptz" = row.order.received_at;
        "id": "uuid" = row.order.event_id;
        "revenue": "int8" = row.revenue_delta_cents;
        "credit": "int8" = row.credit_delta_cents;
        "detail": "text" = row.brings.and_then(|change| Detail::from(Verdict::OnCall(OnCall::settled(change))).to_json());
    )
}

/// What moves under rows that are not decided now: those that left their call, and those that bring money
/// since another has left.
fn adjust_rows(ledger: &LedgerEntries) -> Option<Write<'static>> {
    write_rows(&ADJUST_ROWS, &adjusted_row(), &ledger.adjusted)
}

static INSERT_REQUESTS: LazyLock<String> = LazyLock::new(|| {
    let columns = ColumnText::of(&request_row());
    format!(
        "/* settle_insert_requests */
    INSERT INTO event_requests ({}) SELECT {} FROM {}",
        columns.names(),
        columns.values(),
        columns.unnest(1),
    )
});

static UPSERT_REQUESTS: LazyLock<String> = LazyLock::new(|| {
    let columns = ColumnText::of(&request_row());
    format!(
        "/* settle_upsert_requests */
    INSERT INTO event_requests ({}) SELECT {} FROM {}
        ON CONFLICT (received_at, id) DO UPDATE SET reading = EXCLUDED.reading",
        columns.names(),
        columns.values(),
        columns.unnest(1),
    )
});

static INSERT_BLOCKS: LazyLock<String> = LazyLock::new(|| {
    let columns = ColumnText::of(&request_block());
    format!(
        "/* settle_insert_request_blocks */
    INSERT INTO event_request_blocks ({}) SELECT {} FROM {}",
        columns.names(),
        columns.values(),
        columns.unnest(1),
    )
});

struct RequestRow<'a> {
    line: &'a BatchRow,
    text: &'a RequestText,
}

fn request_row<'a>() -> Vec<TableColumn<'a, RequestRow<'a>>> {
    columns!(|row: RequestRow<'a>|
        "received_at": "timestamptz" = row.line.order.received_at;
        "id": "uuid" = row.line.order.event_id;
        "request": "text" = row.text.request.as_str();
        "reading": "text" = row.text.reading.as_deref();
        "batch_of": "uuid" = row.text.batch_of;
    )
}

fn request_block<'a>() -> Vec<TableColumn<'a, &'a RequestBlock>> {
    columns!(|row: &'a RequestBlock|
        "received_at": "timestamptz" = row.received_at;
        "number": "int8" = row.number;
        "rows": "int2" = row.rows;
        "content": "bytea" = row.content.as_slice();
    )
}

/// The requests that a batch writes.
struct NewRequests {
    /// Row by row.
    texts: Vec<Option<RequestText>>,
    packed: PackedRequests,
}

impl NewRequests {
    /// Those of new rows go into blocks. What a row that is there says of its request now stands by itself: a
    /// block is written once.
    fn of_rows(lines: &[BatchRow]) -> Result<NewRequests, StoreError> {
        let is_written = |line: &BatchRow| line.decision.is_some() && !line.is_as_before();
        let text = |line: &BatchRow| {
            is_written(line)
                .then(|| RequestText::of_row(line))
                .flatten()
        };
        let texts: Vec<Option<RequestText>> = lines.iter().map(text).collect();
        let new = lines.iter().zip(&texts).map(|(line, text)| {
            let is_new = |_: &&RequestText| !line.exists;
            (line.order.received_at, text.as_ref().filter(is_new))
        });
        let packed = pack_requests(new, || rand::rng().random_range(0..1_i64 << NUMBER_BITS))
            .map_err(|e| StoreError::Corrupt(format!("requests that do not pack: {e}")))?;
        Ok(NewRequests { texts, packed })
    }
}

/// What is written of raw requests: blocks, then those that stand by themselves, new ones and others.
fn request_writes<'a>(lines: &'a [BatchRow], requests: &'a NewRequests) -> Vec<Write<'a>> {
    let blocks: Vec<&RequestBlock> = requests.packed.blocks.iter().collect();
    let mut writes: Vec<Write<'_>> = Vec::new();
    writes.extend(write_rows(&INSERT_BLOCKS, &request_block(), &blocks));
    for (sql, exists) in [(&INSERT_REQUESTS, false), (&UPSERT_REQUESTS, true)] {
        let alone = lines
            .iter()
            .zip(&requests.texts)
            .zip(&requests.packed.places)
            .filter(|((line, _), place)| line.exists == exists && place.is_none());
        let rows: Vec<RequestRow<'_>> = alone
            .filter_map(|((line, text), _)| {
                let text = text.as_ref()?;
                Some(RequestRow { line, text })
            })
            .collect();
        writes.extend(write_rows(sql, &request_row(), &rows));
    }
    writes
}

pub static UPDATE_CALLS: LazyLock<String> = LazyLock::new(|| {
    let key = ColumnText::of(&locked_call_key());
    let place = ColumnText::of(&locked_call_place());
    format!(
        "/* settle_update_calls */
    UPDATE calls c SET {}, updated_at = now()
      FROM {}
     WHERE c.ctid = {} AND {}",
        ColumnText::of(&settled_call()).assignments(),
        ColumnText::of(&updated_call()).unnest(1),
        place.values(),
        key.equalities("c"),
    )
});

fn update_calls(locked: &LockedCallSet) -> Option<Write<'_>> {
    let changed = locked.calls.all_calls().filter(|call| call.changed);
    let rows: Vec<LockedRow<'_>> = changed
        .map(|call| LockedRow {
            call,
            ctid: locked.ctids.get(&call.key).map(String::as_str),
        })
        .collect();
    write_rows(&UPDATE_CALLS, &updated_call(), &rows)
}

static INSERT_REPORTS: LazyLock<String> = LazyLock::new(|| {
    let written = ColumnText::of(&inserted_call_report());
    format!(
        "/* settle_insert_reports */
    INSERT INTO call_reports ({}) SELECT {} FROM {}",
        written.names(),
        written.values(),
        written.unnest(1),
    )
});

pub static UPDATE_REPORTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "/* settle_update_reports */
    UPDATE call_reports r SET {} FROM {} WHERE {}",
        ColumnText::of(&call_report_state()).assignments(),
        ColumnText::of(&updated_call_report()).unnest(1),
        ColumnText::of(&call_report_key()).equalities("r"),
    )
});

pub static DELETE_REPORTS: LazyLock<String> = LazyLock::new(|| {
    let key = ColumnText::of(&call_report_key());
    format!(
        "/* settle_delete_reports */
    DELETE FROM call_reports r USING {} WHERE {}",
        key.unnest(1),
        key.equalities("r"),
    )
});

/// What the lock on the calls showed to be there is updated; the rest cannot be there and is inserted.
fn report_writes(books: &LockedCallSet) -> Vec<Write<'_>> {
    let (mut new, mut there, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for call in books.calls.all_calls() {
        for report in call.reports.iter().filter(|report| report.dirty) {
            let is_stored = books.stored.contains(&(call.key, report.order));
            let has_left = report.role == ClaimState::Withdrawn;
            let rows = match (is_stored, has_left) {
                (true, true) => &mut gone,
                (true, false) => &mut there,
                (false, false) => &mut new,
                (false, true) => continue,
            };
            rows.push(CallReportRow { call, report });
        }
    }
    [
        (&INSERT_REPORTS, inserted_call_report(), new),
        (&UPDATE_REPORTS, updated_call_report(), there),
        (&DELETE_REPORTS, call_report_key(), gone),
    ]
    .into_iter()
    .filter_map(|(sql, columns, rows)| write_rows(sql, &columns, &rows))
    .collect()
}

pub static MARK_DISPLACED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "/* settle_mark_displaced */
    UPDATE events e SET status = row.status, reason = row.reason,
           detail = jsonb_strip_nulls(row.detail::jsonb || jsonb_build_object('reading_notes', e.detail -> 'reading_notes'))::json
      FROM {}
     WHERE e.received_at = row.received_at AND e.id = row.id AND e.status IN ('matched', 'held')",
        ColumnText::of(&displaced_row()).unnest(1),
    )
});

/// A row whose call was taken by a report that names it (M5).
struct DisplacedRow {
    report: DisplacedReport,
    by_event: Uuid,
}

impl DisplacedRow {
    fn detail(&self) -> Detail {
        let verdict = match self.report.repeats {
            None => Verdict::Displaced {
                by: Some(self.by_event),
            },
            repeats => Verdict::RepeatOfOpen { of: repeats },
        };
        verdict.into()
    }
}

fn displaced_row() -> Vec<TableColumn<'static, DisplacedRow>> {
    columns!(|row: DisplacedRow|
        "received_at": "timestamptz" = row.report.order.received_at;
        "id": "uuid" = row.report.order.event_id;
        "status": "text" = row.detail().status().code();
        "reason": "text" = row.detail().reason().map(Reason::code);
        "detail": "text" = row.detail().to_json();
    )
}

fn mark_displaced(lines: &[BatchRow]) -> Option<Write<'static>> {
    let of_line = |line: &BatchRow| {
        let by_event = line.order.event_id;
        let displaced = line.decision.iter().flat_map(|d| d.displaced.iter());
        let rows = displaced.map(|report| DisplacedRow {
            report: *report,
            by_event,
        });
        rows.collect::<Vec<_>>()
    };
    let rows: Vec<DisplacedRow> = lines.iter().flat_map(of_line).collect();
    write_rows(&MARK_DISPLACED, &displaced_row(), &rows)
}

static INSERT_PENDING: LazyLock<String> = LazyLock::new(|| {
    let columns = ColumnText::of(&pending_row());
    format!(
        "/* settle_insert_pending */
    INSERT INTO pending_reports ({}, next_try_at)
    SELECT {}, now() + make_interval(secs => ${})
      FROM {}
        ON CONFLICT (event_id) DO UPDATE SET ref_id = EXCLUDED.ref_id, call_id = EXCLUDED.call_id, caller = EXCLUDED.caller",
        columns.names(),
        columns.values(),
        columns.count() + 1,
        columns.unnest(1),
    )
});

fn pending_row<'a>() -> Vec<TableColumn<'a, &'a BatchRow>> {
    columns!(|row: &'a BatchRow|
        "event_id": "uuid" = row.order.event_id;
        "received_at": "timestamptz" = row.order.received_at;
        "account_id": "uuid" = row.account_id;
        "ref_id": "text" = row.report().and_then(|report| report.ref_id.as_deref());
        "call_id": "uuid" = row.report().and_then(Report::call_uuid);
        "caller": "text" = guessed_caller(row);
    )
}

/// One that has a call by a guess waits for its id alone (M9).
fn guessed_caller(line: &BatchRow) -> Option<&str> {
    let report = line.report().filter(|_| is_told_to_wait(line))?;
    report.duration_seconds.and(report.caller.as_deref())
}

pub const DELETE_PENDING: &str = "/* settle_delete_pending */
    DELETE FROM pending_reports WHERE event_id = ANY($1)";

fn pending_writes(lines: &[BatchRow]) -> Vec<Write<'_>> {
    let mut writes = Vec::new();
    let waiting: Vec<&BatchRow> = lines
        .iter()
        .filter(|l| wants_another_try(l) && !l.is_as_before())
        .collect();
    if let Some((sql, mut params)) = write_rows(&INSERT_PENDING, &pending_row(), &waiting) {
        params.push(box_param(f64::from(RETRY_SECONDS[0])));
        writes.push((sql, params));
    }
    let done: Vec<Uuid> = lines
        .iter()
        .filter(|l| l.exists && l.decision.is_some() && !wants_another_try(l))
        .map(|l| l.order.event_id)
        .collect();
    if !done.is_empty() {
        writes.push((DELETE_PENDING, vec![box_param(done)]));
    }
    writes
}

static UPSERT_OPEN: LazyLock<String> = LazyLock::new(|| {
    let columns = ColumnText::of(&open_row());
    format!(
        "/* settle_upsert_open_reports */
    INSERT INTO open_reports ({})
    SELECT DISTINCT ON (row.digest) {} FROM {}
        ON CONFLICT (digest) DO UPDATE
       SET event_id = EXCLUDED.event_id, received_at = EXCLUDED.received_at, position = EXCLUDED.position,
           reason = EXCLUDED.reason, ignored = false",
        columns.names(),
        columns.values(),
        columns.unnest(1),
    )
});

/// A row that waits for a person, by the digest of what it says (M11).
struct HeldRow {
    digest: Uuid,
    order: ReceptionOrder,
    reason: Option<Reason>,
}

fn open_row() -> Vec<TableColumn<'static, HeldRow>> {
    columns!(|row: HeldRow|
        "digest": "uuid" = row.digest;
        "event_id": "uuid" = row.order.event_id;
        "received_at": "timestamptz" = row.order.received_at;
        "position": "int4" = i32::from(row.order.position);
        "reason": "text" = row.reason.map(Reason::code);
    )
}

pub const DELETE_OPEN: &str = "/* settle_delete_open_reports */
    DELETE FROM open_reports o USING unnest($1::uuid[], $2::uuid[]) AS row (digest, event_id)
     WHERE o.digest = row.digest AND o.event_id = row.event_id";

/// Rows that wait for a person now, and those that do no longer (M11).
fn open_row_writes(lines: &[BatchRow]) -> Vec<Write<'_>> {
    let mut held: Vec<HeldRow> = Vec::new();
    let mut closed: Vec<(Uuid, Uuid)> = Vec::new();
    for line in lines {
        let (Some(decision), Some(report)) = (&line.decision, line.report()) else {
            continue;
        };
        let Some(digest) = report_digest(line.webhook_id, report) else {
            continue;
        };
        if decision.status() == Status::Held {
            held.push(HeldRow {
                digest,
                order: line.order,
                reason: decision.reason(),
            });
        } else if line.exists {
            closed.push((digest, line.order.event_id));
        }
    }
    // In the order of the key, as every lock.
    closed.sort_unstable();
    held.sort_by_key(|row| (row.digest, row.order));
    let mut writes: Vec<Write<'_>> = Vec::new();
    if !closed.is_empty() {
        let (digests, events): (Vec<Uuid>, Vec<Uuid>) = closed.into_iter().unzip();
        writes.push((DELETE_OPEN, vec![box_param(digests), box_param(events)]));
    }
    writes.extend(write_rows(&UPSERT_OPEN, &open_row(), &held));
    writes
}

pub const WAKE_FOR_CALLS: &str = "/* settle_wake_for_calls */
    INSERT INTO call_recorded_outbox (account_id, call_id, ref_id, caller)
    SELECT c.account_id, c.id, c.ref_id, c.caller
      FROM unnest($1::uuid[], $2::uuid[]) AS k (account_id, id)
     CROSS JOIN LATERAL (
           SELECT account_id, id, ref_id, caller FROM calls WHERE account_id = k.account_id AND id = k.id LIMIT 1) AS c";

/// What could not have these calls because they were claimed is tried again (M9).
fn wake_for_freed_calls(lines: &[BatchRow], books: &LockedCallSet) -> Option<Write<'static>> {
    let freed = freed_calls(lines, &books.calls);
    if freed.is_empty() {
        return None;
    }
    let (accounts, calls): (Vec<Uuid>, Vec<Uuid>) = freed
        .into_iter()
        .map(|key| (key.account_id, key.call_id))
        .unzip();
    Some((WAKE_FOR_CALLS, vec![box_param(accounts), box_param(calls)]))
}
