//! What a batch writes: rows, calls, claims, what may match later, and last the publishers' balances
//! with the postings that explain them.

use deadpool_postgres::Transaction;
use futures_util::future::try_join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::StoreError;
use crate::settlement::loading::{LockedCallSet, role_code};
use crate::settlement::postings::{AdjustedRow, LedgerEntries, draft_entries, write_entries};
use trueup_domain::batch_decision::{BatchRow, freed_calls, wants_another_try};
use trueup_domain::crediting::{ReceptionOrder, Terms};
use trueup_domain::decision::Decision;
use trueup_domain::locked_calls::{CallReport, ClaimState, LockedCall};
use trueup_domain::report::{Report, report_digest};
use trueup_event::reason::{Detail, Reason, Status, Strategy};

/// After how many seconds an unmatched report is tried again (M7); the last is also how long it is.
pub const RETRY_SECONDS: [i32; 6] = [10, 60, 900, 3_600, 21_600, 86_400];

/// One write of a batch; all of them go out in one flight.
pub(super) type Write<'a> = (&'static str, Vec<Box<dyn ToSql + Sync + Send + 'a>>);

pub async fn write_batch(
    tx: &Transaction<'_>,
    lines: &mut [BatchRow],
    books: &LockedCallSet,
) -> Result<(), StoreError> {
    let ledger = draft_entries(tx, lines).await?;
    let lines = &*lines;
    let mut writes: Vec<Write<'_>> = Vec::new();
    writes.extend(insert_rows(lines, &ledger));
    let changed_calls = books.calls.all_calls().filter(|c| c.changed).count();
    writes.extend(update_calls(books));
    writes.extend(report_writes(books));
    writes.extend(request_writes(lines));
    writes.extend(update_rows(lines, &ledger));
    writes.extend(adjust_rows(&ledger));
    writes.extend(mark_displaced(lines));
    writes.extend(pending_writes(lines));
    writes.extend(open_row_writes(lines));
    writes.extend(wake_for_freed_calls(lines, books));
    let calls = writes.iter().position(|(sql, _)| *sql == UPDATE_CALLS);
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

/// How many rows each write wrote.
pub(super) async fn run(
    tx: &Transaction<'_>,
    writes: Vec<Write<'_>>,
) -> Result<Vec<u64>, StoreError> {
    let mut prepared = Vec::with_capacity(writes.len());
    for (sql, params) in writes {
        prepared.push((tx.prepare_cached(sql).await?, params));
    }
    // Polled together they are pipelined: one round trip for all.
    try_join_all(prepared.iter().map(|(statement, params)| async move {
        let params: Vec<&(dyn ToSql + Sync)> = params
            .iter()
            .map(|p| p.as_ref() as &(dyn ToSql + Sync))
            .collect();
        tx.execute(statement, &params).await
    }))
    .await
    .map_err(raced_or_failed)
}

/// Another worker made the same report's row since we looked: run again, it will be skipped.
fn raced_or_failed(error: tokio_postgres::Error) -> StoreError {
    let twice = error.as_db_error().is_some_and(|db| {
        *db.code() == SqlState::UNIQUE_VIOLATION
            && db.table().is_some_and(|table| table.starts_with("event"))
    });
    if twice {
        StoreError::Raced
    } else {
        error.into()
    }
}

pub(super) fn box_param<'a, T: ToSql + Sync + Send + 'a>(
    value: T,
) -> Box<dyn ToSql + Sync + Send + 'a> {
    Box::new(value)
}

fn signed_seconds(duration: Option<u32>) -> Option<i32> {
    duration.and_then(|d| i32::try_from(d).ok())
}

/// The columns of a row that reading and deciding fill, in the order of the statements below.
struct EventColumns<'a> {
    decisions: Vec<(&'a BatchRow, &'a Decision)>,
}

impl<'a> EventColumns<'a> {
    fn for_rows(lines: &'a [BatchRow], exists: bool) -> Self {
        let meant = lines
            .iter()
            .filter(|l| l.exists == exists && !l.is_as_before());
        EventColumns {
            decisions: meant
                .filter_map(|l| Some((l, l.decision.as_ref()?)))
                .collect(),
        }
    }

    fn map_rows<T>(&self, f: impl Fn(&'a BatchRow, &'a Decision) -> T) -> Vec<T> {
        self.decisions
            .iter()
            .map(|(line, decision)| f(line, decision))
            .collect()
    }

    /// `$1`, `$2`: the key; `$3` … `$19`: what both the insert and the update write.
    fn shared_params(&self, ledger: &LedgerEntries) -> Vec<Box<dyn ToSql + Sync + Send + 'a>> {
        vec![
            box_param(self.map_rows(|l, _| l.order.received_at)),
            box_param(self.map_rows(|l, _| l.order.event_id)),
            box_param(self.map_rows(|l, _| l.report().and_then(|r| r.caller.as_deref()))),
            box_param(self.map_rows(|l, _| l.report().and_then(|r| r.caller_raw.as_deref()))),
            box_param(
                self.map_rows(|l, _| l.report().and_then(|r| signed_seconds(r.duration_seconds))),
            ),
            box_param(self.map_rows(|l, _| l.report().and_then(|r| r.ref_id.as_deref()))),
            box_param(self.map_rows(|l, _| l.report().and_then(|r| r.call_id.as_deref()))),
            box_param(self.map_rows(|l, _| l.report().and_then(|r| r.payout_raw.as_deref()))),
            box_param(self.map_rows(|l, _| l.report().and_then(|r| r.payout.cents()))),
            box_param(self.map_rows(|l, _| l.report().and_then(|r| r.currency.as_deref()))),
            box_param(self.map_rows(|l, _| l.report().and_then(|r| r.rejection_word.as_deref()))),
            box_param(self.map_rows(|_, d| d.status.code())),
            box_param(self.map_rows(|_, d| d.reason.map(Reason::code))),
            box_param(self.map_rows(|_, d| d.detail.to_json())),
            box_param(self.map_rows(|_, d| d.strategy.map(Strategy::code))),
            box_param(self.map_rows(|_, d| d.call_id)),
            box_param(self.map_rows(|l, _| ledger.figures_of(l).0)),
            box_param(self.map_rows(|l, _| ledger.figures_of(l).1)),
            box_param(self.map_rows(|l, _| l.actor.as_deref())),
        ]
    }
}

const INSERT_ROWS: &str = "/* settle_insert_events */
    INSERT INTO events (received_at, id, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
                        currency, rejection_word, status, reason, detail, strategy, matched_call_id, revenue_delta_cents,
                        credit_delta_cents, decided_by, account_id, webhook_id, position, source_ip, count, applied_from,
                        retry_until)
    SELECT received_at, id, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
           currency, rejection_word, status, reason, detail::json, strategy, matched_call_id, revenue_delta_cents,
           credit_delta_cents, decided_by, account_id, webhook_id, position, source_ip, count, applied_from,
           CASE WHEN again THEN now() + make_interval(secs => $27) END
      FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::int4[], $6::text[], $7::text[], $8::text[],
                  $9::int8[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::uuid[],
                  $17::int8[], $18::int8[], $19::text[], $20::uuid[], $21::uuid[], $22::int4[], $23::inet[], $24::int4[],
                  $25::uuid[], $26::bool[])
           AS row (received_at, id, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
                   currency, rejection_word, status, reason, detail, strategy, matched_call_id, revenue_delta_cents,
                   credit_delta_cents, decided_by, account_id, webhook_id, position, source_ip, count, applied_from, again)";

/// Seconds of the last retry, as `make_interval` takes them.
const LAST_RETRY_SECONDS: f64 = 86_400.0;

/// Rows of reports that have none yet. Their ids were looked for when the batch was loaded, so the insert
/// needs no `ON CONFLICT`, which would look again in every index and write a record more for each row:
/// where another worker was first meanwhile, the transaction fails and is run again ([`run`]).
fn insert_rows<'a>(lines: &'a [BatchRow], ledger: &LedgerEntries) -> Option<Write<'a>> {
    let columns = EventColumns::for_rows(lines, false);
    if columns.decisions.is_empty() {
        return None;
    }
    let mut params = columns.shared_params(ledger);
    params.push(box_param(columns.map_rows(|l, _| l.account_id)));
    params.push(box_param(columns.map_rows(|l, _| l.webhook_id)));
    params.push(box_param(
        columns.map_rows(|l, _| i32::from(l.order.position)),
    ));
    params.push(box_param(columns.map_rows(|l, _| l.source_ip)));
    params.push(box_param(columns.map_rows(|l, _| l.count)));
    params.push(box_param(columns.map_rows(|l, _| l.applied_from)));
    params.push(box_param(columns.map_rows(|l, _| is_told_to_wait(l))));
    params.push(box_param(LAST_RETRY_SECONDS));
    Some((INSERT_ROWS, params))
}

pub const UPDATE_ROWS: &str = "/* settle_update_events */
    UPDATE events e
       SET caller = row.caller, caller_raw = row.caller_raw, duration_seconds = row.duration_seconds, ref_id = row.ref_id,
           call_id = row.call_id, payout_raw = row.payout_raw, payout_cents = row.payout_cents, currency = row.currency,
           rejection_word = row.rejection_word, status = row.status, reason = row.reason, detail = row.detail::json,
           strategy = row.strategy, matched_call_id = row.matched_call_id,
           revenue_delta_cents = row.revenue_delta_cents, credit_delta_cents = row.credit_delta_cents,
           decided_by = COALESCE(row.decided_by, e.decided_by),
           retry_until = CASE WHEN row.again THEN COALESCE(e.retry_until, now() + make_interval(secs => $21)) END
      FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::int4[], $6::text[], $7::text[], $8::text[],
                  $9::int8[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::uuid[],
                  $17::int8[], $18::int8[], $19::text[], $20::bool[])
           AS row (received_at, id, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
                   currency, rejection_word, status, reason, detail, strategy, matched_call_id, revenue_delta_cents,
                   credit_delta_cents, decided_by, again)
     WHERE e.received_at = row.received_at AND e.id = row.id";

fn update_rows<'a>(lines: &'a [BatchRow], ledger: &LedgerEntries) -> Option<Write<'a>> {
    let columns = EventColumns::for_rows(lines, true);
    if columns.decisions.is_empty() {
        return None;
    }
    let mut params = columns.shared_params(ledger);
    params.push(box_param(columns.map_rows(|l, _| is_told_to_wait(l))));
    params.push(box_param(LAST_RETRY_SECONDS));
    Some((UPDATE_ROWS, params))
}

/// A row without a call says until when it is tried again; one that has a call by a guess waits as well,
/// but nothing is missing.
fn is_told_to_wait(line: &BatchRow) -> bool {
    let unmatched = |d: &Decision| d.status == Status::Unmatched;
    line.decision.as_ref().is_some_and(unmatched) && wants_another_try(line)
}

pub const ADJUST_ROWS: &str = "/* settle_adjust_events */
    UPDATE events e
       SET revenue_delta_cents = e.revenue_delta_cents + row.revenue, credit_delta_cents = e.credit_delta_cents + row.credit,
           status = CASE WHEN row.detail IS NULL THEN e.status ELSE 'matched' END,
           reason = CASE WHEN row.detail IS NULL OR e.status = 'matched' THEN e.reason END,
           detail = CASE WHEN row.detail IS NULL OR e.status = 'matched' THEN e.detail ELSE row.detail::json END
      FROM (SELECT received_at, id, sum(revenue)::int8 AS revenue, sum(credit)::int8 AS credit, (array_agg(detail) FILTER (WHERE detail IS NOT NULL))[1] AS detail
              FROM unnest($1::timestamptz[], $2::uuid[], $3::int8[], $4::int8[], $5::text[])
                   AS row (received_at, id, revenue, credit, detail)
             GROUP BY received_at, id) AS row
     WHERE e.received_at = row.received_at AND e.id = row.id";

/// What moves under rows that are not decided now: those that left their call, and those that bring money
/// since another has left.
fn adjust_rows(ledger: &LedgerEntries) -> Option<Write<'static>> {
    let rows = &ledger.adjusted;
    if rows.is_empty() {
        return None;
    }
    let of = |f: fn(&AdjustedRow) -> i64| rows.iter().map(f).collect::<Vec<i64>>();
    let detail = |row: &AdjustedRow| row.brings.and_then(|change| change.to_detail().to_json());
    Some((
        ADJUST_ROWS,
        vec![
            box_param(rows.iter().map(|r| r.order.received_at).collect::<Vec<_>>()),
            box_param(rows.iter().map(|r| r.order.event_id).collect::<Vec<_>>()),
            box_param(of(|r| r.revenue_delta_cents)),
            box_param(of(|r| r.credit_delta_cents)),
            box_param(rows.iter().map(detail).collect::<Vec<_>>()),
        ],
    ))
}

const INSERT_REQUESTS: &str = "/* settle_insert_requests */
    INSERT INTO event_requests (received_at, id, request, reading, batch_of)
    SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::uuid[])";

const UPSERT_REQUESTS: &str = "/* settle_upsert_requests */
    INSERT INTO event_requests (received_at, id, request, reading, batch_of)
    SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::uuid[])
        ON CONFLICT (received_at, id) DO UPDATE SET reading = EXCLUDED.reading";

/// The requests of new rows are new; those of rows that were there may be there.
fn request_writes(lines: &[BatchRow]) -> impl Iterator<Item = Write<'_>> {
    [(INSERT_REQUESTS, false), (UPSERT_REQUESTS, true)]
        .into_iter()
        .filter_map(|(sql, exists)| {
            let (mut times, mut ids, mut requests, mut readings) =
                (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let mut batches = Vec::new();
            for line in lines.iter().filter(|line| {
                line.exists == exists && line.decision.is_some() && !line.is_as_before()
            }) {
                let Some(request) = &line.request else {
                    continue;
                };
                let Some(text) = request.to_stored() else {
                    continue;
                };
                batches.push(request.batch_of);
                times.push(line.order.received_at);
                ids.push(line.order.event_id);
                requests.push(text);
                let slots = &line.reading.slots;
                readings.push(if slots.is_empty() {
                    None
                } else {
                    serde_json::to_string(slots).ok()
                });
            }
            (!times.is_empty()).then(|| {
                (
                    sql,
                    vec![
                        box_param(times),
                        box_param(ids),
                        box_param(requests),
                        box_param(readings),
                        box_param(batches),
                    ],
                )
            })
        })
}

pub const UPDATE_CALLS: &str = "/* settle_update_calls */
    UPDATE calls c
       SET value_cents = row.value_cents, value_from_webhook = row.value_from_webhook, qualified = row.qualified,
           publisher_payout_cents = row.credit_cents, terms_publisher_id = row.publisher_id, terms_kind = row.kind,
           terms_amount_cents = row.amount_cents, terms_percent_e4 = row.percent_e4,
           reported_by_webhook_id = row.reported_by, updated_at = now()
      FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::bool[], $5::bool[], $6::int8[], $7::uuid[], $8::text[],
                  $9::int8[], $10::int4[], $11::uuid[], $12::text[])
           AS row (account_id, id, value_cents, value_from_webhook, qualified, credit_cents, publisher_id, kind,
                   amount_cents, percent_e4, reported_by, at)
     WHERE c.ctid = row.at::tid AND c.account_id = row.account_id AND c.id = row.id";

fn update_calls(locked: &LockedCallSet) -> Option<Write<'_>> {
    let changed: Vec<&LockedCall> = locked.calls.all_calls().filter(|c| c.changed).collect();
    if changed.is_empty() {
        return None;
    }
    let terms: Vec<_> = changed
        .iter()
        .map(|c| terms_columns(c.posted_terms.map(|p| p.terms)))
        .collect();
    Some((
        UPDATE_CALLS,
        vec![
            box_param(changed.iter().map(|c| c.key.account_id).collect::<Vec<_>>()),
            box_param(changed.iter().map(|c| c.key.call_id).collect::<Vec<_>>()),
            box_param(changed.iter().map(|c| c.value_cents).collect::<Vec<_>>()),
            box_param(
                changed
                    .iter()
                    .map(|c| c.value_from_webhook)
                    .collect::<Vec<_>>(),
            ),
            box_param(changed.iter().map(|c| c.qualified).collect::<Vec<_>>()),
            box_param(changed.iter().map(|c| c.credit_cents).collect::<Vec<_>>()),
            box_param(
                changed
                    .iter()
                    .map(|c| c.posted_terms.map(|p| p.publisher_id))
                    .collect::<Vec<_>>(),
            ),
            box_param(terms.iter().map(|t| t.0).collect::<Vec<_>>()),
            box_param(terms.iter().map(|t| t.1).collect::<Vec<_>>()),
            box_param(terms.iter().map(|t| t.2).collect::<Vec<_>>()),
            box_param(changed.iter().map(|c| c.reported_by).collect::<Vec<_>>()),
            box_param(
                changed
                    .iter()
                    .map(|c| locked.ctids.get(&c.key).map(String::as_str))
                    .collect::<Vec<_>>(),
            ),
        ],
    ))
}

/// Kind, amount and percent, as the tables keep terms.
pub fn terms_columns(terms: Option<Terms>) -> (Option<&'static str>, Option<i64>, Option<i32>) {
    match terms {
        None => (None, None, None),
        Some(Terms::Flat { amount_cents }) => (Some("flat"), Some(amount_cents), None),
        Some(Terms::RevShare { percent_e4 }) => (Some("rev_share"), None, Some(percent_e4)),
    }
}

const INSERT_REPORTS: &str = "/* settle_insert_reports */
    INSERT INTO call_reports (account_id, call_id, received_at, position, event_id, webhook_id, strategy, role,
                              exempt_from_v2, by_person, payout_cents, caller, duration_seconds, ref_id, call_id_text, guess)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::int4[], $5::uuid[], $6::uuid[], $7::text[],
                         $8::text[], $9::bool[], $10::bool[], $11::int8[], $12::text[], $13::int4[], $14::text[], $15::text[],
                         $16::bool[])";

pub const UPDATE_REPORTS: &str = "/* settle_update_reports */
    UPDATE call_reports r
       SET strategy = row.strategy, role = row.role, by_person = row.by_person, payout_cents = row.payout_cents,
           caller = row.caller, duration_seconds = row.duration_seconds, ref_id = row.ref_id, call_id_text = row.call_id_text,
           guess = row.guess
      FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::int4[], $5::uuid[], $6::uuid[], $7::text[],
                  $8::text[], $9::bool[], $10::bool[], $11::int8[], $12::text[], $13::int4[], $14::text[], $15::text[],
                  $16::bool[])
           AS row (account_id, call_id, received_at, position, event_id, webhook_id, strategy, role,
                   exempt_from_v2, by_person, payout_cents, caller, duration_seconds, ref_id, call_id_text, guess)
     WHERE r.account_id = row.account_id AND r.call_id = row.call_id AND r.received_at = row.received_at
       AND r.position = row.position AND r.event_id = row.event_id";

pub const DELETE_REPORTS: &str = "/* settle_delete_reports */
    DELETE FROM call_reports r
     USING unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::int4[], $5::uuid[])
           AS row (account_id, call_id, received_at, position, event_id)
     WHERE r.account_id = row.account_id AND r.call_id = row.call_id AND r.received_at = row.received_at
       AND r.position = row.position AND r.event_id = row.event_id";

/// What the lock on the calls showed to be there is updated; the rest cannot be there and is inserted.
fn report_writes(books: &LockedCallSet) -> impl Iterator<Item = Write<'_>> {
    fn report_column<'a, T: ToSql + Sync + Send + 'a>(
        rows: &[(&'a LockedCall, &'a CallReport)],
        f: impl Fn(&'a LockedCall, &'a CallReport) -> T,
    ) -> Box<dyn ToSql + Sync + Send + 'a> {
        box_param(rows.iter().map(|(c, r)| f(c, r)).collect::<Vec<T>>())
    }
    let unsaved = || {
        books
            .calls
            .all_calls()
            .flat_map(|c| c.reports.iter().filter(|r| r.dirty).map(move |r| (c, r)))
    };
    let (there, new): (Vec<_>, Vec<_>) =
        unsaved().partition(|(c, r)| books.stored.contains(&(c.key, r.order)));
    let has_left = |(_, r): &(&LockedCall, &CallReport)| r.role == ClaimState::Withdrawn;
    let (gone, there): (Vec<_>, Vec<_>) = there.into_iter().partition(has_left);
    let new: Vec<_> = new.into_iter().filter(|row| !has_left(row)).collect();
    [
        (INSERT_REPORTS, new),
        (UPDATE_REPORTS, there),
        (DELETE_REPORTS, gone),
    ]
    .into_iter()
    .filter(|(_, rows)| !rows.is_empty())
    .map(|(sql, rows)| {
        let key = vec![
            report_column(&rows, |c, _| c.key.account_id),
            report_column(&rows, |c, _| c.key.call_id),
            report_column(&rows, |_, r| r.order.received_at),
            report_column(&rows, |_, r| i32::from(r.order.position)),
            report_column(&rows, |_, r| r.order.event_id),
        ];
        if sql == DELETE_REPORTS {
            return (sql, key);
        }
        let rest = vec![
            report_column(&rows, |_, r| r.webhook_id),
            report_column(&rows, |_, r| r.strategy.code()),
            report_column(&rows, |_, r| role_code(r.role)),
            report_column(&rows, |_, r| r.exempt_from_v2),
            report_column(&rows, |_, r| r.by_person),
            report_column(&rows, |_, r| r.payout_cents),
            report_column(&rows, |_, r| r.caller.as_deref()),
            report_column(&rows, |_, r| {
                r.duration_seconds.and_then(|d| i32::try_from(d).ok())
            }),
            report_column(&rows, |_, r| r.ref_id.as_deref()),
            report_column(&rows, |_, r| r.call_id_text.as_deref()),
            report_column(&rows, |_, r| r.guess),
        ];
        (sql, key.into_iter().chain(rest).collect())
    })
}

pub const MARK_DISPLACED: &str = "/* settle_mark_displaced */
    UPDATE events e SET status = 'held', reason = 'replaced_heuristic_match', detail = row.detail::json
      FROM unnest($1::timestamptz[], $2::uuid[], $3::text[]) AS row (received_at, id, detail)
     WHERE e.received_at = row.received_at AND e.id = row.id AND e.status IN ('matched', 'held')";

fn mark_displaced(lines: &[BatchRow]) -> Option<Write<'_>> {
    let displaced: Vec<(ReceptionOrder, Option<String>)> = lines
        .iter()
        .flat_map(|line| {
            let by = line.order.event_id;
            let places = line
                .decision
                .iter()
                .flat_map(|d| d.displaced.iter().copied());
            places.map(move |place| {
                (
                    place,
                    Detail {
                        displaced: true,
                        other_event: Some(by),
                        ..Detail::default()
                    }
                    .to_json(),
                )
            })
        })
        .collect();
    if displaced.is_empty() {
        return None;
    }
    Some((
        MARK_DISPLACED,
        vec![
            box_param(
                displaced
                    .iter()
                    .map(|(p, _)| p.received_at)
                    .collect::<Vec<_>>(),
            ),
            box_param(
                displaced
                    .iter()
                    .map(|(p, _)| p.event_id)
                    .collect::<Vec<_>>(),
            ),
            box_param(displaced.into_iter().map(|(_, d)| d).collect::<Vec<_>>()),
        ],
    ))
}

const INSERT_PENDING: &str = "/* settle_insert_pending */
    INSERT INTO pending_reports (event_id, received_at, account_id, ref_id, call_id, caller, next_try_at)
    SELECT event_id, received_at, account_id, ref_id, call_id, caller, now() + make_interval(secs => $7)
      FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::uuid[], $6::text[])
           AS row (event_id, received_at, account_id, ref_id, call_id, caller)
        ON CONFLICT (event_id) DO UPDATE SET ref_id = EXCLUDED.ref_id, call_id = EXCLUDED.call_id, caller = EXCLUDED.caller";

pub const DELETE_PENDING: &str = "/* settle_delete_pending */
    DELETE FROM pending_reports WHERE event_id = ANY($1)";

fn pending_writes(lines: &[BatchRow]) -> Vec<Write<'_>> {
    let mut writes = Vec::new();
    let waiting: Vec<&BatchRow> = lines
        .iter()
        .filter(|l| wants_another_try(l) && !l.is_as_before())
        .collect();
    if !waiting.is_empty() {
        let of = |f: fn(&Report) -> Option<&str>| -> Vec<Option<&str>> {
            waiting.iter().map(|l| l.report().and_then(f)).collect()
        };
        // One that has a call by a guess waits for its id alone (M9).
        let caller: Vec<Option<&str>> = waiting
            .iter()
            .map(|l| {
                let report = l.report().filter(|_| is_told_to_wait(l))?;
                report.duration_seconds.and(report.caller.as_deref())
            })
            .collect();
        let call_ids: Vec<Option<Uuid>> = waiting
            .iter()
            .map(|l| l.report().and_then(Report::call_uuid))
            .collect();
        writes.push((
            INSERT_PENDING,
            vec![
                box_param(waiting.iter().map(|l| l.order.event_id).collect::<Vec<_>>()),
                box_param(
                    waiting
                        .iter()
                        .map(|l| l.order.received_at)
                        .collect::<Vec<_>>(),
                ),
                box_param(waiting.iter().map(|l| l.account_id).collect::<Vec<_>>()),
                box_param(of(|r| r.ref_id.as_deref())),
                box_param(call_ids),
                box_param(caller),
                box_param(f64::from(RETRY_SECONDS[0])),
            ],
        ));
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

const UPSERT_OPEN: &str = "/* settle_upsert_open_reports */
    INSERT INTO open_reports (digest, event_id, received_at, position, reason)
    SELECT DISTINCT ON (digest) * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::int4[], $5::text[])
           AS row (digest, event_id, received_at, position, reason)
        ON CONFLICT (digest) DO UPDATE
       SET event_id = EXCLUDED.event_id, received_at = EXCLUDED.received_at, position = EXCLUDED.position,
           reason = EXCLUDED.reason, ignored = false";

pub const DELETE_OPEN: &str = "/* settle_delete_open_reports */
    DELETE FROM open_reports o USING unnest($1::uuid[], $2::uuid[]) AS row (digest, event_id)
     WHERE o.digest = row.digest AND o.event_id = row.event_id";

/// Rows that wait for a person now, and those that do no longer (M11).
fn open_row_writes(lines: &[BatchRow]) -> Vec<Write<'_>> {
    let mut held: Vec<(Uuid, &BatchRow, Option<&'static str>)> = Vec::new();
    let mut closed: Vec<(Uuid, Uuid)> = Vec::new();
    for line in lines {
        let (Some(decision), Some(report)) = (&line.decision, line.report()) else {
            continue;
        };
        let digest = report_digest(line.webhook_id, report);
        if decision.status == Status::Held {
            held.push((digest, line, decision.reason.map(Reason::code)));
        } else if line.exists {
            closed.push((digest, line.order.event_id));
        }
    }
    // In the order of the key, as every lock.
    closed.sort_unstable();
    held.sort_by_key(|(digest, line, _)| (*digest, line.order));
    let mut writes: Vec<Write<'_>> = Vec::new();
    if !closed.is_empty() {
        let (digests, events): (Vec<Uuid>, Vec<Uuid>) = closed.into_iter().unzip();
        writes.push((DELETE_OPEN, vec![box_param(digests), box_param(events)]));
    }
    if !held.is_empty() {
        let order = |f: fn(&ReceptionOrder) -> Uuid| -> Vec<Uuid> {
            held.iter().map(|(_, l, _)| f(&l.order)).collect()
        };
        writes.push((
            UPSERT_OPEN,
            vec![
                box_param(
                    held.iter()
                        .map(|(digest, _, _)| *digest)
                        .collect::<Vec<_>>(),
                ),
                box_param(order(|o| o.event_id)),
                box_param(
                    held.iter()
                        .map(|(_, l, _)| l.order.received_at)
                        .collect::<Vec<_>>(),
                ),
                box_param(
                    held.iter()
                        .map(|(_, l, _)| i32::from(l.order.position))
                        .collect::<Vec<_>>(),
                ),
                box_param(
                    held.iter()
                        .map(|(_, _, reason)| *reason)
                        .collect::<Vec<_>>(),
                ),
            ],
        ));
    }
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
