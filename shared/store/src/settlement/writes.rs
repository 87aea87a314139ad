//! What a batch writes: rows, calls, claims, what may match later, and last the publishers' balances
//! with the postings that explain them.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Transaction;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use rand::RngExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::StoreError;
use crate::settlement::Balances;
use crate::settlement::loading::{LockedCallSet, role_code};
use trueup_domain::batch_decision::{BatchRow, wants_another_try};
use trueup_domain::crediting::{ReceptionOrder, Terms};
use trueup_domain::decision::{Decision, PostingDraft, Trigger};
use trueup_domain::locked_calls::{CallReport, LockedCall};
use trueup_domain::report::Report;
use trueup_event::ids;
use trueup_event::reason::{Detail, Reason, Strategy};

/// After how many seconds an unmatched report is tried again (M7); the last is also how long it is.
pub const RETRY_SECONDS: [i32; 6] = [10, 60, 900, 3_600, 21_600, 86_400];

/// One write of a batch; all of them go out in one flight.
type Write<'a> = (&'static str, Vec<Box<dyn ToSql + Sync + Send + 'a>>);

pub async fn write_batch(
    tx: &Transaction<'_>,
    lines: &[BatchRow],
    books: &LockedCallSet,
) -> Result<(), StoreError> {
    let balances = balance_changes(lines);
    let mut writes: Vec<Write<'_>> = Vec::new();
    writes.extend(insert_rows(lines));
    let changed_calls = books.calls.all_calls().filter(|c| c.changed).count();
    writes.extend(update_calls(books));
    writes.extend(report_writes(books));
    writes.extend(request_writes(lines));
    writes.extend(update_rows(lines));
    writes.extend(mark_displaced(lines));
    writes.extend(pending_writes(lines));
    let calls = writes.iter().position(|(sql, _)| *sql == UPDATE_CALLS);
    let written = run(tx, writes).await?;
    if calls
        .and_then(|at| written.get(at))
        .is_some_and(|rows| *rows != changed_calls as u64)
    {
        // A locked row lay elsewhere than the lock said. It cannot be, so nothing is built upon it.
        return Err(StoreError::Raced);
    }
    write_postings(tx, lines, &balances).await
}

/// How many rows each write wrote.
async fn run(tx: &Transaction<'_>, writes: Vec<Write<'_>>) -> Result<Vec<u64>, StoreError> {
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

fn box_param<'a, T: ToSql + Sync + Send + 'a>(value: T) -> Box<dyn ToSql + Sync + Send + 'a> {
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

    /// `$1`, `$2`: the key; `$3` … `$20`: what both the insert and the update write.
    fn shared_params(&self) -> Vec<Box<dyn ToSql + Sync + Send + 'a>> {
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
            box_param(
                self.map_rows(|_, d| own_postings(d).map(|p| p.revenue_delta_cents).sum::<i64>()),
            ),
            box_param(
                self.map_rows(|_, d| own_postings(d).map(|p| p.credit_delta_cents).sum::<i64>()),
            ),
        ]
    }
}

/// What the report itself moved; a posting by a move belongs to the person who moved it.
fn own_postings(decision: &Decision) -> impl Iterator<Item = &PostingDraft> {
    decision.postings.iter().filter(|p| !p.attributed_to_actor)
}

const INSERT_ROWS: &str = "/* settle_insert_events */
    INSERT INTO events (received_at, id, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
                        currency, rejection_word, status, reason, detail, strategy, matched_call_id, revenue_delta_cents,
                        credit_delta_cents, account_id, webhook_id, position, source_ip, count, applied_from, retry_until)
    SELECT received_at, id, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
           currency, rejection_word, status, reason, detail::json, strategy, matched_call_id, revenue_delta_cents,
           credit_delta_cents, account_id, webhook_id, position, source_ip, count, applied_from,
           CASE WHEN again THEN now() + make_interval(secs => $26) END
      FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::int4[], $6::text[], $7::text[], $8::text[],
                  $9::int8[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::uuid[],
                  $17::int8[], $18::int8[], $19::uuid[], $20::uuid[], $21::int4[], $22::inet[], $23::int4[], $24::uuid[],
                  $25::bool[])
           AS row (received_at, id, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
                   currency, rejection_word, status, reason, detail, strategy, matched_call_id, revenue_delta_cents,
                   credit_delta_cents, account_id, webhook_id, position, source_ip, count, applied_from, again)";

/// Seconds of the last retry, as `make_interval` takes them.
const LAST_RETRY_SECONDS: f64 = 86_400.0;

/// Rows of reports that have none yet. Their ids were looked for when the batch was loaded, so the insert
/// needs no `ON CONFLICT`, which would look again in every index and write a record more for each row:
/// where another worker was first meanwhile, the transaction fails and is run again ([`run`]).
fn insert_rows(lines: &[BatchRow]) -> Option<Write<'_>> {
    let columns = EventColumns::for_rows(lines, false);
    if columns.decisions.is_empty() {
        return None;
    }
    let mut params = columns.shared_params();
    params.push(box_param(columns.map_rows(|l, _| l.account_id)));
    params.push(box_param(columns.map_rows(|l, _| l.webhook_id)));
    params.push(box_param(
        columns.map_rows(|l, _| i32::from(l.order.position)),
    ));
    params.push(box_param(columns.map_rows(|l, _| l.source_ip)));
    params.push(box_param(columns.map_rows(|l, _| l.count)));
    params.push(box_param(columns.map_rows(|l, _| l.applied_from)));
    params.push(box_param(columns.map_rows(|l, _| wants_another_try(l))));
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
           retry_until = CASE WHEN row.again THEN COALESCE(e.retry_until, now() + make_interval(secs => $20)) END
      FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::int4[], $6::text[], $7::text[], $8::text[],
                  $9::int8[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::uuid[],
                  $17::int8[], $18::int8[], $19::bool[])
           AS row (received_at, id, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
                   currency, rejection_word, status, reason, detail, strategy, matched_call_id, revenue_delta_cents,
                   credit_delta_cents, again)
     WHERE e.received_at = row.received_at AND e.id = row.id";

fn update_rows(lines: &[BatchRow]) -> Option<Write<'_>> {
    let columns = EventColumns::for_rows(lines, true);
    if columns.decisions.is_empty() {
        return None;
    }
    let mut params = columns.shared_params();
    params.push(box_param(columns.map_rows(|l, _| wants_another_try(l))));
    params.push(box_param(LAST_RETRY_SECONDS));
    Some((UPDATE_ROWS, params))
}

const INSERT_REQUESTS: &str = "/* settle_insert_requests */
    INSERT INTO event_requests (received_at, id, request, reading)
    SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[])";

const UPSERT_REQUESTS: &str = "/* settle_upsert_requests */
    INSERT INTO event_requests (received_at, id, request, reading)
    SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[])
        ON CONFLICT (received_at, id) DO UPDATE SET reading = EXCLUDED.reading";

/// The requests of new rows are new; those of rows that were there may be there.
fn request_writes(lines: &[BatchRow]) -> impl Iterator<Item = Write<'_>> {
    [(INSERT_REQUESTS, false), (UPSERT_REQUESTS, true)]
        .into_iter()
        .filter_map(|(sql, exists)| {
            let (mut times, mut ids, mut requests, mut readings) =
                (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for line in lines
                .iter()
                .filter(|line| line.exists == exists && !line.is_as_before())
            {
                let Some(request) = &line.request else {
                    continue;
                };
                // Plain data of our own: it always serialises.
                let Ok(text) = serde_json::to_string(request) else {
                    continue;
                };
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
                              exempt_from_v2, by_person, payout_cents, caller, duration_seconds, ref_id, call_id_text)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::int4[], $5::uuid[], $6::uuid[], $7::text[],
                         $8::text[], $9::bool[], $10::bool[], $11::int8[], $12::text[], $13::int4[], $14::text[], $15::text[])";

pub const UPDATE_REPORTS: &str = "/* settle_update_reports */
    UPDATE call_reports r
       SET strategy = row.strategy, role = row.role, by_person = row.by_person, payout_cents = row.payout_cents,
           caller = row.caller, duration_seconds = row.duration_seconds, ref_id = row.ref_id, call_id_text = row.call_id_text
      FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::int4[], $5::uuid[], $6::uuid[], $7::text[],
                  $8::text[], $9::bool[], $10::bool[], $11::int8[], $12::text[], $13::int4[], $14::text[], $15::text[])
           AS row (account_id, call_id, received_at, position, event_id, webhook_id, strategy, role,
                   exempt_from_v2, by_person, payout_cents, caller, duration_seconds, ref_id, call_id_text)
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
    [(INSERT_REPORTS, new), (UPDATE_REPORTS, there)]
        .into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(sql, rows)| {
            let columns = vec![
                report_column(&rows, |c, _| c.key.account_id),
                report_column(&rows, |c, _| c.key.call_id),
                report_column(&rows, |_, r| r.order.received_at),
                report_column(&rows, |_, r| i32::from(r.order.position)),
                report_column(&rows, |_, r| r.order.event_id),
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
            ];
            (sql, columns)
        })
}

pub const MARK_DISPLACED: &str = "/* settle_mark_displaced */
    UPDATE events e SET reason = 'replaced_heuristic_match', detail = row.detail::json
      FROM unnest($1::timestamptz[], $2::uuid[], $3::text[]) AS row (received_at, id, detail)
     WHERE e.received_at = row.received_at AND e.id = row.id AND e.status = 'matched'";

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
        let caller = of(|r| r.duration_seconds.and(r.caller.as_deref()));
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
        .filter(|l| l.exists && !wants_another_try(l))
        .map(|l| l.order.event_id)
        .collect();
    if !done.is_empty() {
        writes.push((DELETE_PENDING, vec![box_param(done)]));
    }
    writes
}

fn balance_changes(lines: &[BatchRow]) -> Balances {
    let mut changes: BTreeMap<Uuid, i64> = BTreeMap::new();
    for posting in lines
        .iter()
        .filter_map(|l| l.decision.as_ref())
        .flat_map(|d| &d.postings)
    {
        if let Some(payee) = posting.payee {
            *changes.entry(payee.publisher_id).or_default() += posting.credit_delta_cents;
        }
    }
    changes
}

pub const LOCK_PUBLISHERS: &str = "/* settle_lock_publishers */
    SELECT id, pending_balance_cents FROM publishers WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";

pub const UPDATE_PUBLISHERS: &str = "/* settle_update_publishers */
    UPDATE publishers p SET pending_balance_cents = p.pending_balance_cents + row.delta
      FROM unnest($1::uuid[], $2::int8[]) AS row (id, delta) WHERE p.id = row.id";

const INSERT_POSTINGS: &str = "/* settle_insert_postings */
    INSERT INTO postings (id, account_id, call_id, publisher_id, event_id, actor, kind, revenue_delta_cents,
                          credit_delta_cents, balance_after_cents, terms_kind, terms_amount_cents, terms_percent_e4)
    SELECT id, account_id, call_id, publisher_id, event_id, actor, kind, revenue_delta_cents, credit_delta_cents,
           balance_after_cents, terms_kind, terms_amount_cents, terms_percent_e4
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::int8[],
                  $9::int8[], $10::int8[], $11::text[], $12::int8[], $13::int4[]) WITH ORDINALITY
           AS row (id, account_id, call_id, publisher_id, event_id, actor, kind, revenue_delta_cents, credit_delta_cents,
                   balance_after_cents, terms_kind, terms_amount_cents, terms_percent_e4, n)
     ORDER BY n";

/// One entry of the ledger, ready to be written.
pub struct NewPosting {
    pub call: trueup_domain::locked_calls::CallKey,
    pub publisher_id: Option<Uuid>,
    pub event_id: Option<Uuid>,
    pub actor: Option<String>,
    pub kind: &'static str,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    pub terms: Option<Terms>,
}

async fn write_postings(
    tx: &Transaction<'_>,
    lines: &[BatchRow],
    balances: &Balances,
) -> Result<(), StoreError> {
    let entries = lines.iter().flat_map(|line| {
        line.decision
            .iter()
            .flat_map(|d| &d.postings)
            .map(|p| NewPosting {
                call: p.call,
                publisher_id: p.payee.map(|payee| payee.publisher_id),
                event_id: if p.attributed_to_actor {
                    None
                } else {
                    Some(line.order.event_id)
                },
                actor: p
                    .attributed_to_actor
                    .then(|| format!("moved with event {}", line.order.event_id)),
                kind: if matches!(line.trigger, Trigger::Applied(_)) {
                    "apply"
                } else {
                    "report"
                },
                revenue_delta_cents: p.revenue_delta_cents,
                credit_delta_cents: p.credit_delta_cents,
                terms: p.payee.map(|payee| payee.terms),
            })
    });
    write_entries(tx, entries.collect(), balances).await
}

/// Locks the publishers in id order, moves their balances and writes the postings that explain it.
/// Whoever moves money calls this last in its transaction.
pub async fn write_entries(
    tx: &Transaction<'_>,
    entries: Vec<NewPosting>,
    balances: &Balances,
) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = balances.keys().copied().collect();
    let deltas: Vec<i64> = balances.values().copied().collect();
    let lock = tx.prepare_cached(LOCK_PUBLISHERS).await?;
    let mut running: HashMap<Uuid, i64> = tx
        .query(&lock, &[&ids])
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    if let Some(missing) = ids.iter().find(|id| !running.contains_key(id)) {
        return Err(StoreError::Corrupt(format!(
            "no publisher {missing}, whom a call's terms name"
        )));
    }
    let now = Timestamp::now();
    let terms: Vec<_> = entries.iter().map(|e| terms_columns(e.terms)).collect();
    let after: Vec<Option<i64>> = entries
        .iter()
        .map(|e| {
            let balance = running.get_mut(&e.publisher_id?)?;
            *balance += e.credit_delta_cents;
            Some(*balance)
        })
        .collect();
    let column_ids: Vec<Uuid> = entries
        .iter()
        .map(|_| ids::event_id(now, &rand::rng().random()))
        .collect();
    let writes: Vec<Write<'_>> = vec![
        (UPDATE_PUBLISHERS, vec![box_param(ids), box_param(deltas)]),
        (
            INSERT_POSTINGS,
            vec![
                box_param(column_ids),
                box_param(
                    entries
                        .iter()
                        .map(|e| e.call.account_id)
                        .collect::<Vec<_>>(),
                ),
                box_param(entries.iter().map(|e| e.call.call_id).collect::<Vec<_>>()),
                box_param(entries.iter().map(|e| e.publisher_id).collect::<Vec<_>>()),
                box_param(entries.iter().map(|e| e.event_id).collect::<Vec<_>>()),
                box_param(
                    entries
                        .iter()
                        .map(|e| e.actor.as_deref())
                        .collect::<Vec<_>>(),
                ),
                box_param(entries.iter().map(|e| e.kind).collect::<Vec<_>>()),
                box_param(
                    entries
                        .iter()
                        .map(|e| e.revenue_delta_cents)
                        .collect::<Vec<_>>(),
                ),
                box_param(
                    entries
                        .iter()
                        .map(|e| e.credit_delta_cents)
                        .collect::<Vec<_>>(),
                ),
                box_param(after),
                box_param(terms.iter().map(|t| t.0).collect::<Vec<_>>()),
                box_param(terms.iter().map(|t| t.1).collect::<Vec<_>>()),
                box_param(terms.iter().map(|t| t.2).collect::<Vec<_>>()),
            ],
        ),
    ];
    run(tx, writes).await?;
    Ok(())
}
