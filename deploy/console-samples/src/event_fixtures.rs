//! Fills a database with the events of one account, many and quickly, by the database itself: a year of
//! them, in the order of time, with the statuses and texts of a busy network.

use std::time::Instant;

use anyhow::Context;
use tokio_postgres::Client;
use trueup_testkit::builders::{self, WebhookSpec};
use uuid::Uuid;

/// The account and its webhooks have ids that follow from their numbers.
pub const ACCOUNT: Uuid = Uuid::from_u128(0xA1 << 64);
/// A slice that one statement fills (rows).
const SLICE: i64 = 1_000_000;
/// The rows are spread over so many days before now.
pub const DAYS: i64 = 365;

pub fn webhook(n: i64) -> Uuid {
    Uuid::from_u128((0xB1 << 64) | n.unsigned_abs() as u128)
}

/// The n-th row's ref_id; the first row is the oldest.
pub fn ref_id(n: i64) -> String {
    format!("ref-{:08x}", n.wrapping_mul(2_654_435_761) & 0xFFFF_FFFF)
}

/// The n-th row's caller: a person calls several times.
pub fn caller(n: i64) -> String {
    format!("+1{}", 2_002_000_000 + n.wrapping_mul(7_919) % 2_000_000)
}

pub async fn fill(client: &Client, events: i64, webhooks: i64) -> anyhow::Result<()> {
    settings(client, webhooks).await;
    client
        .batch_execute(&format!(
            "SET synchronous_commit = off; SET jit = off;
             SELECT trueup_make_partitions(now() - make_interval(months => m)) FROM generate_series(1, {DAYS} / 30 + 1) m;"
        ))
        .await?;
    let indexes = builders::drop_indexes(client, "events").await;
    let started = Instant::now();
    let mut from = 0;
    while from < events {
        let until = (from + SLICE).min(events);
        rows(client, from, until, events, webhooks).await?;
        println!(
            "{until} of {events} rows, {:.0} s",
            started.elapsed().as_secs_f64()
        );
        from = until;
    }
    builders::make_indexes(client, &indexes).await;
    println!("indexed, {:.0} s", started.elapsed().as_secs_f64());
    // Each by itself: together they would be a transaction, in which there is no vacuum.
    client.batch_execute("VACUUM (ANALYZE) events").await?;
    client.batch_execute("CHECKPOINT").await?;
    println!(
        "vacuumed and analysed, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn settings(client: &Client, webhooks: i64) {
    builders::account_as(client, ACCOUNT, "panel").await;
    for n in 0..webhooks {
        let spec = WebhookSpec {
            id: Some(webhook(n)),
            ..WebhookSpec::open()
        };
        builders::webhook(client, ACCOUNT, &spec).await;
    }
}

/// Nine rows in ten are on webhook 0. Of a thousand rows 880 are matched plainly, 60 duplicates, 35
/// unmatched by three reasons, 15 refused, 9 matched with a reason, and 1 is held.
async fn rows(
    client: &Client,
    from: i64,
    until: i64,
    events: i64,
    webhooks: i64,
) -> anyhow::Result<()> {
    let account = ACCOUNT;
    let prefix = webhook(0).to_string();
    let prefix = &prefix[..24];
    let script = format!(
        "INSERT INTO events (received_at, id, account_id, webhook_id, source_ip, caller, caller_raw, duration_seconds, ref_id,
                             payout_raw, payout_cents, status, reason, detail, strategy, matched_call_id, revenue_delta_cents,
                             credit_delta_cents, processed_at)
         SELECT t.at, (lpad(to_hex((extract(epoch FROM t.at) * 1000)::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid,
                '{account}', ('{prefix}' || lpad(to_hex(CASE WHEN n % 10 > 0 THEN 0 ELSE n / 10 % {webhooks} END), 12, '0'))::uuid,
                '203.0.113.7', '+1' || (2002000000 + n * 7919 % 2000000), '+1' || (2002000000 + n * 7919 % 2000000), 30 + n % 400,
                'ref-' || lpad(to_hex(n * 2654435761 & x'FFFFFFFF'::bigint), 8, '0'),
                (20 + n % 60) || '.' || lpad((n % 100)::text, 2, '0'), (20 + n % 60) * 100 + n % 100,
                CASE WHEN d < 880 OR d BETWEEN 990 AND 998 THEN 'matched' WHEN d < 940 THEN 'duplicate' WHEN d < 975 THEN 'unmatched'
                     WHEN d < 990 THEN 'refused' ELSE 'held' END,
                CASE WHEN d < 880 THEN NULL WHEN d < 940 THEN 'same_payout_within_15m' WHEN d < 955 THEN 'ref_id_not_found'
                     WHEN d < 970 THEN 'caller_not_found' WHEN d < 975 THEN 'duration_mismatch' WHEN d < 990 THEN 'secret_mismatch'
                     WHEN d < 999 THEN 'no_change' ELSE 'payout_over_cap' END,
                NULL, CASE WHEN d < 940 THEN 'ref_id' END, CASE WHEN d < 940 THEN md5(n::text)::uuid END,
                CASE WHEN d < 880 THEN 4500 ELSE 0 END, CASE WHEN d < 880 THEN 2700 ELSE 0 END, t.at + interval '20 ms'
           FROM generate_series({from}::bigint, {until} - 1) n
          CROSS JOIN LATERAL (SELECT now() - interval '{DAYS} days' + interval '1 microsecond' * ({DAYS}::bigint * 86400000000 / {events} * n) AS at,
                                     md5(n::text) AS h, n * 7 % 1000 AS d) t"
    );
    client
        .batch_execute(&script)
        .await
        .context("rows could not be made")
}
