//! The ceiling of the settling: the same writes as a batch needs at the least, set-based, under one
//! ordered lock, on one connection, with nothing decided. And the floor: one transaction a report.

use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use tokio_postgres::{Client, Statement};
use trueup_shared::domain::ids;
use uuid::Uuid;

use crate::books::{ACCOUNT, ACCOUNTS, Books, CALL, WEBHOOK, account_of, id, ref_id};

const BATCH: i64 = 200;

const FIND: &str = "SELECT q.n, c.id FROM unnest($1::int4[], $2::uuid[], $3::text[]) AS q (n, account_id, ref_id)
                      JOIN calls c ON c.account_id = q.account_id AND c.ref_id = q.ref_id";
const LOCK: &str = "SELECT c.id, c.value_cents FROM unnest($1::uuid[], $2::uuid[]) AS k (account_id, id)
                      JOIN calls c ON c.account_id = k.account_id AND c.id = k.id
                     ORDER BY c.account_id, c.id FOR UPDATE OF c";
const UPDATE: &str = "UPDATE calls c SET value_cents = r.value, value_from_webhook = true, qualified = true, publisher_payout_cents = r.credit
                        FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int8[]) AS r (account_id, id, value, credit)
                       WHERE c.account_id = r.account_id AND c.id = r.id";
const EVENTS: &str = "INSERT INTO events (received_at, id, account_id, webhook_id, ref_id, payout_cents, status, matched_call_id)
                      SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::int8[], $7::text[], $8::uuid[])
                      ON CONFLICT DO NOTHING";
const BALANCE: &str = "UPDATE publishers p SET pending_balance_cents = pending_balance_cents + s.sum
                         FROM (SELECT a.publisher_id, sum(r.credit)::int8 AS sum FROM unnest($1::uuid[], $2::uuid[], $3::int8[]) AS r (account_id, id, credit)
                                 JOIN calls c ON c.account_id = r.account_id AND c.id = r.id JOIN assignments a ON a.id = c.assignment_id
                                GROUP BY a.publisher_id ORDER BY a.publisher_id) s
                        WHERE p.id = s.publisher_id";
const LEDGER: &str = "INSERT INTO postings (id, account_id, call_id, event_id, kind, revenue_delta_cents, credit_delta_cents, publisher_id)
                      SELECT r.event_id, r.account_id, r.id, r.event_id, 'report', r.value, r.credit, a.publisher_id
                        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int8[], $5::int8[]) AS r (event_id, account_id, id, value, credit)
                        JOIN calls c ON c.account_id = r.account_id AND c.id = r.id JOIN assignments a ON a.id = c.assignment_id";

struct Statements {
    find: Statement,
    lock: Statement,
    update: Statement,
    events: Statement,
    balance: Statement,
    ledger: Statement,
}

/// Reports a second that one connection settles in batches of 200, for about `span`.
pub async fn batches(client: &mut Client, books: &Books, span: Duration) -> anyhow::Result<f64> {
    client.batch_execute("SET enable_seqscan = off; SET jit = off").await?;
    let statements = Statements {
        find: client.prepare(FIND).await?,
        lock: client.prepare(LOCK).await?,
        update: client.prepare(UPDATE).await?,
        events: client.prepare(EVENTS).await?,
        balance: client.prepare(BALANCE).await?,
        ledger: client.prepare(LEDGER).await?,
    };
    let started = Instant::now();
    let mut done = 0_i64;
    while started.elapsed() < span {
        batch(client, &statements, books, done).await.context("a batch of the ceiling")?;
        done += BATCH;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

async fn batch(client: &mut Client, statements: &Statements, books: &Books, from: i64) -> anyhow::Result<()> {
    // Spread over the table, as reports are.
    let calls: Vec<i64> = (0..BATCH).map(|n| (from + n).wrapping_mul(7_919).rem_euclid(books.calls)).collect();
    let numbers: Vec<i32> = (0..BATCH).map(|n| i32::try_from(n).expect("a small batch")).collect();
    let accounts: Vec<Uuid> = calls.iter().map(|c| id(ACCOUNT, account_of(*c))).collect();
    let refs: Vec<String> = calls.iter().map(|c| ref_id(*c)).collect();
    let ids_: Vec<Uuid> = calls.iter().map(|c| id(CALL, *c)).collect();
    let values: Vec<i64> = (0..BATCH).map(|n| 5_000 + (from + n) % 100).collect();
    let credits: Vec<i64> = values.iter().map(|v| v * 6 / 10).collect();
    let tx = client.transaction().await?;
    tx.query(&statements.find, &[&numbers, &accounts, &refs]).await?;
    tx.query(&statements.lock, &[&accounts, &ids_]).await?;
    let now = Timestamp::now();
    let events: Vec<Uuid> = (0..BATCH)
        .map(|n| {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&(from + n).to_be_bytes());
            ids::event_id(now, &random)
        })
        .collect();
    let times = vec![ids::to_microseconds(now); events.len()];
    let webhooks: Vec<Uuid> = calls.iter().map(|c| id(WEBHOOK, c % ACCOUNTS)).collect();
    let statuses = vec!["matched"; events.len()];
    let update: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [&accounts, &ids_, &values, &credits];
    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
        [&times, &events, &accounts, &webhooks, &refs, &values, &statuses, &ids_];
    let balance: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&accounts, &ids_, &credits];
    let ledger: [&(dyn tokio_postgres::types::ToSql + Sync); 5] = [&events, &accounts, &ids_, &values, &credits];
    tokio::try_join!(
        tx.execute(&statements.update, &update),
        tx.execute(&statements.events, &row),
        tx.execute(&statements.balance, &balance),
        tx.execute(&statements.ledger, &ledger),
    )?;
    tx.commit().await?;
    Ok(())
}
