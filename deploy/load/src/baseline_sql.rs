//! The ceiling of the settling: the writes that a settled report needs at the least, set-based, under
//! one ordered lock, on one connection, with nothing decided. And the floor: the same, one transaction
//! a report and one statement after the other, as a program without batches would.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use trueup_event::ids;
use trueup_testkit::database::TestDatabase;
use uuid::Uuid;

use crate::fixtures::Dataset;

const BATCH: i64 = 200;
/// Connections of the floor.
const CONNECTIONS: usize = 16;

/// Numbers never come again, in this process, so that no row of the ceiling meets one of its own.
static NUMBER: AtomicI64 = AtomicI64::new(0);

const FIND: &str =
    "SELECT q.n, c.id FROM unnest($1::int4[], $2::uuid[], $3::text[]) AS q (n, account_id, ref_id)
                      JOIN calls c ON c.account_id = q.account_id AND c.ref_id = q.ref_id";
const LOCK: &str =
    "SELECT c.id, c.value_cents, c.publisher_payout_cents FROM unnest($1::uuid[], $2::uuid[]) AS k (account_id, id)
                      JOIN calls c ON c.account_id = k.account_id AND c.id = k.id
                     ORDER BY c.account_id, c.id FOR UPDATE OF c";
const UPDATE: &str = "UPDATE calls c SET value_cents = r.value, value_from_webhook = true, qualified = true, publisher_payout_cents = r.credit
                        FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int8[]) AS r (account_id, id, value, credit)
                       WHERE c.account_id = r.account_id AND c.id = r.id";
const EVENTS: &str = "INSERT INTO events (received_at, id, account_id, webhook_id, caller, duration_seconds, ref_id, payout_raw,
                             payout_cents, status, strategy, matched_call_id, revenue_delta_cents, credit_delta_cents)
                      SELECT t, id, account, webhook, caller, 90, ref, '50.00', value, 'matched', 'ref_id', call, value, credit
                        FROM unnest($1::timestamptz[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::int8[], $8::uuid[], $9::int8[])
                             AS r (t, id, account, webhook, caller, ref, value, call, credit)
                      ON CONFLICT DO NOTHING";
const BALANCE: &str = "UPDATE publishers p SET pending_balance_cents = pending_balance_cents + s.sum
                         FROM (SELECT publisher, sum(credit)::int8 AS sum FROM unnest($1::uuid[], $2::int8[]) AS r (publisher, credit)
                                GROUP BY publisher ORDER BY publisher) s
                        WHERE p.id = s.publisher";
const LEDGER: &str = "INSERT INTO postings (id, account_id, call_id, event_id, kind, revenue_delta_cents, credit_delta_cents, publisher_id)
                      SELECT event, account, call, event, 'report', value, credit, publisher
                        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int8[], $5::int8[], $6::uuid[])
                             AS r (event, account, call, value, credit, publisher)";

struct Statements {
    find: Statement,
    lock: Statement,
    update: Statement,
    events: Statement,
    balance: Statement,
    ledger: Statement,
}

impl Statements {
    async fn prepare(client: &Client) -> anyhow::Result<Statements> {
        client
            .batch_execute("SET enable_seqscan = off; SET jit = off; SET synchronous_commit = on")
            .await?;
        Ok(Statements {
            find: client.prepare(FIND).await?,
            lock: client.prepare(LOCK).await?,
            update: client.prepare(UPDATE).await?,
            events: client.prepare(EVENTS).await?,
            balance: client.prepare(BALANCE).await?,
            ledger: client.prepare(LEDGER).await?,
        })
    }
}

/// Reports a second that one connection settles in batches of 200, for about `span`.
pub async fn batches(client: &mut Client, books: Dataset, span: Duration) -> anyhow::Result<f64> {
    let statements = Statements::prepare(client).await?;
    let started = Instant::now();
    let mut done = 0_i64;
    while started.elapsed() < span {
        let from = NUMBER.fetch_add(BATCH, Ordering::Relaxed);
        let reports = Reports::of(books, from, BATCH);
        write_reports(client, &statements, &reports, true)
            .await
            .context("a batch of the ceiling")?;
        done += BATCH;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// Reports a second that 16 connections settle one by one, each statement waiting for the one before.
pub async fn one_by_one(
    database: &TestDatabase,
    books: Dataset,
    span: Duration,
) -> anyhow::Result<f64> {
    let mut tasks = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut client = database.client().await;
        let statements = Statements::prepare(&client).await?;
        tasks.push(tokio::spawn(async move {
            let started = Instant::now();
            let mut done = 0_i64;
            while started.elapsed() < span {
                let from = NUMBER.fetch_add(1, Ordering::Relaxed);
                write_reports(
                    &mut client,
                    &statements,
                    &Reports::of(books, from, 1),
                    false,
                )
                .await?;
                done += 1;
            }
            anyhow::Ok((done, started.elapsed()))
        }));
    }
    let mut rate = 0.0;
    for task in tasks {
        let (done, elapsed) = task.await?.context("a report of the floor")?;
        rate += done as f64 / elapsed.as_secs_f64();
    }
    Ok(rate)
}

/// What is written, column by column.
struct Reports {
    numbers: Vec<i32>,
    times: Vec<Timestamp>,
    events: Vec<Uuid>,
    accounts: Vec<Uuid>,
    webhooks: Vec<Uuid>,
    callers: Vec<String>,
    refs: Vec<String>,
    calls: Vec<Uuid>,
    publishers: Vec<Uuid>,
    values: Vec<i64>,
    credits: Vec<i64>,
}

impl Reports {
    fn of(books: Dataset, from: i64, count: i64) -> Reports {
        // Spread over the table, as reports are.
        let calls: Vec<i64> = (from..from + count).map(|n| books.spare_call(n)).collect();
        let now = ids::to_microseconds(Timestamp::now());
        let event = |n: i64| {
            let mut random = [0x5A; 10];
            random[2..].copy_from_slice(&n.to_be_bytes());
            ids::event_id(now, &random)
        };
        let values: Vec<i64> = (from..from + count).map(|n| 5_000 + n % 100).collect();
        Reports {
            numbers: (0..).zip(&calls).map(|(n, _)| n).collect(),
            times: vec![now; calls.len()],
            events: (from..from + count).map(event).collect(),
            accounts: calls.iter().map(|c| books.account(*c)).collect(),
            webhooks: calls.iter().map(|c| books.webhook(*c)).collect(),
            callers: calls.iter().map(|c| books.caller(*c)).collect(),
            refs: calls.iter().map(|c| books.ref_id(*c)).collect(),
            publishers: calls.iter().map(|c| books.publisher(*c)).collect(),
            credits: values.iter().map(|v| v * 6 / 10).collect(),
            calls: calls.iter().map(|c| books.call_id(*c)).collect(),
            values,
        }
    }
}

async fn write_reports(
    client: &mut Client,
    statements: &Statements,
    r: &Reports,
    pipelined: bool,
) -> anyhow::Result<()> {
    let tx = client.transaction().await?;
    tx.query(&statements.find, &[&r.numbers, &r.accounts, &r.refs])
        .await?;
    tx.query(&statements.lock, &[&r.accounts, &r.calls]).await?;
    let update: [&(dyn ToSql + Sync); 4] = [&r.accounts, &r.calls, &r.values, &r.credits];
    let row: [&(dyn ToSql + Sync); 9] = [
        &r.times,
        &r.events,
        &r.accounts,
        &r.webhooks,
        &r.callers,
        &r.refs,
        &r.values,
        &r.calls,
        &r.credits,
    ];
    let ledger: [&(dyn ToSql + Sync); 6] = [
        &r.events,
        &r.accounts,
        &r.calls,
        &r.values,
        &r.credits,
        &r.publishers,
    ];
    let balance: [&(dyn ToSql + Sync); 2] = [&r.publishers, &r.credits];
    if pipelined {
        tokio::try_join!(
            tx.execute(&statements.update, &update),
            tx.execute(&statements.events, &row),
            tx.execute(&statements.ledger, &ledger),
            tx.execute(&statements.balance, &balance),
        )?;
    } else {
        tx.execute(&statements.update, &update).await?;
        tx.execute(&statements.events, &row).await?;
        tx.execute(&statements.ledger, &ledger).await?;
        tx.execute(&statements.balance, &balance).await?;
    }
    tx.commit().await?;
    Ok(())
}
