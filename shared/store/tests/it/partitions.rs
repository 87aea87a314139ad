//! The event table's partitions: made ahead, dropped by retention, and nobody waits for it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use trueup_store::{Pool, PoolSettings, partitions};
use trueup_testkit::database::TestDatabase;

/// A settling transaction that stands behind the upkeep for longer than this has been stopped by it.
const NOBODY_WAITS: Duration = Duration::from_millis(1_500);

fn days(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not 0")
}

async fn partitions(client: &Client, parent: &str) -> Vec<String> {
    let select = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                   WHERE i.inhparent = $1::text::regclass AND c.relname NOT LIKE '%default' ORDER BY 1";
    client
        .query(select, &[&parent])
        .await
        .expect("partitions")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

async fn count(client: &Client, from_where: &str) -> i64 {
    client
        .query_one(&format!("SELECT count(*) FROM {from_where}"), &[])
        .await
        .expect("a count")
        .get(0)
}

/// A row and its request in either form, so many days ago; in the DEFAULT partition if there is none for that day.
async fn event(client: &Client, days_ago: i32) {
    let insert = "WITH e AS (
            INSERT INTO events (received_at, id, account_id, webhook_id, status)
            VALUES (now() - make_interval(days => $1), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'unmatched')
            RETURNING received_at, id),
        q AS (INSERT INTO event_requests (received_at, id, request) SELECT received_at, id, '{}' FROM e)
        INSERT INTO event_request_blocks (received_at, number, rows, content) SELECT received_at, 7, 1, '' FROM e";
    client.execute(insert, &[&days_ago]).await.expect("a row");
}

async fn old_partitions(client: &Client) {
    for days_ago in [560, 530, 500, 470, 60, 50, 40] {
        let make = "SELECT trueup_make_partitions(now() - make_interval(days => $1))";
        client
            .query_one(make, &[&days_ago])
            .await
            .expect("partitions of the past");
        event(client, days_ago).await;
    }
}

#[tokio::test]
async fn partitions_are_made_ahead() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let pool =
        Pool::new(&database.url, &PoolSettings::for_application("test", 2)).expect("a good URL");
    assert_eq!(
        partitions::make_partitions(&pool).await.expect("made"),
        0,
        "migrate has made them"
    );
    let last = "SELECT to_char(date_trunc('month', now(), 'UTC') + interval '3 months', '\"events_\"YYYYMM')";
    let last: String = client.query_one(last, &[]).await.expect("a name").get(0);
    assert_eq!(
        partitions(&client, "events").await.last(),
        Some(&last),
        "three months ahead"
    );
    client
        .batch_execute(&format!("DROP TABLE {last}"))
        .await
        .expect("dropped");
    assert_eq!(
        partitions::make_partitions(&pool).await.expect("made"),
        1,
        "and again when one is missing"
    );
    event(&client, 0).await;
    assert_eq!(
        count(&client, "ONLY events_default").await,
        0,
        "today has a partition of its own"
    );
}

/// A range that is summarised makes each of its rows rewrite a filter of kilobytes.
#[tokio::test]
async fn the_first_rows_of_a_partition_are_as_cheap_as_later_ones() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    client
        .query_one(
            "SELECT trueup_make_partitions(now() - interval '90 days')",
            &[],
        )
        .await
        .expect("partitions");
    client
        .batch_execute("VACUUM events")
        .await
        .expect("vacuumed");
    let part = "SELECT tableoid::regclass::text FROM events WHERE received_at < now() - interval '80 days' OR position = $1";
    for days_ago in [90, 0] {
        event(&client, days_ago).await;
    }
    let parts = client.query(part, &[&0]).await.expect("rows");
    assert_eq!(parts.len(), 2, "two rows in partitions of their own");
    let summarised_only_now = "SELECT sum(brin_summarize_new_values(indexrelid)) FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
        WHERE indrelid = $1::text::regclass AND amname = 'brin'";
    for part in parts.iter().map(|row| row.get::<_, String>(0)) {
        assert_ne!(part, "events_default");
        let ranges: i64 = client
            .query_one(summarised_only_now, &[&part])
            .await
            .expect("a count")
            .get(0);
        assert_eq!(
            ranges, 3,
            "{part}: the first range of caller, ref_id and call_id had no summary"
        );
    }
}

#[tokio::test]
async fn what_is_past_its_retention_goes_and_the_ledger_stays() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let pool =
        Pool::new(&database.url, &PoolSettings::for_application("test", 2)).expect("a good URL");
    event(&client, 2_000).await; // into the DEFAULT partitions
    old_partitions(&client).await;
    for days_ago in [399, 29, 0] {
        event(&client, days_ago).await;
    }
    let posting = "INSERT INTO postings (id, account_id, call_id, event_id, kind, revenue_delta_cents, credit_delta_cents, created_at)
        VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'report', 5, 0, now() - interval '10 years')";
    client.batch_execute(posting).await.expect("a posting");
    let dropped = partitions::drop_partitions(&pool, days(400), days(30))
        .await
        .expect("dropped");
    assert!(dropped > 10, "{dropped}");
    assert_eq!(
        count(
            &client,
            "events WHERE received_at < now() - interval '460 days'"
        )
        .await,
        0
    );
    assert_eq!(
        count(
            &client,
            "events WHERE received_at > now() - interval '400 days'"
        )
        .await,
        6,
        "rows: 400 days"
    );
    for requests in ["event_requests", "event_request_blocks"] {
        let old = format!("{requests} WHERE received_at < now() - interval '32 days'");
        assert_eq!(count(&client, &old).await, 0, "{requests}");
        let new = format!("{requests} WHERE received_at > now() - interval '30 days'");
        assert_eq!(count(&client, &new).await, 2, "{requests}: 30 days");
    }
    assert_eq!(
        count(&client, "postings").await,
        1,
        "the ledger is kept for ever"
    );
    assert_eq!(
        partitions::drop_partitions(&pool, days(400), days(30))
            .await
            .expect("dropped"),
        0
    );
}

/// What the worker does all the time; returns its longest wait.
async fn settle_meanwhile(client: Client, stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        event(&client, 0).await;
        longest = longest.max(began.elapsed());
        tokio::task::yield_now().await;
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_does_not_stop_the_settling_even_behind_a_long_reader() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let pool =
        Pool::new(&database.url, &PoolSettings::for_application("test", 2)).expect("a good URL");
    old_partitions(&client).await;
    let there = partitions(&client, "events").await.len();

    // Somebody reads all of it, for long: a proof, a backup.
    let mut reader = database.client().await;
    let reading = reader.transaction().await.expect("begins");
    reading
        .query("SELECT count(*) FROM events", &[])
        .await
        .expect("reads");
    let stop = Arc::new(AtomicBool::new(false));
    let settling = tokio::spawn(settle_meanwhile(database.client().await, Arc::clone(&stop)));
    let began = Instant::now();
    for _ in 0..3 {
        partitions::make_partitions(&pool)
            .await
            .expect("looked after");
        partitions::drop_partitions(&pool, days(400), days(30))
            .await
            .expect("looked after");
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "it gives up soon: {:?}",
        began.elapsed()
    );
    assert_eq!(
        partitions(&client, "events").await.len(),
        there,
        "what is read is not dropped"
    );
    reading.rollback().await.expect("ends");
    partitions::drop_partitions(&pool, days(400), days(30))
        .await
        .expect("dropped");
    assert!(
        partitions(&client, "events").await.len() < there,
        "and later it is"
    );
    stop.store(true, Ordering::Relaxed);
    let longest = settling.await.expect("it settles");
    assert!(longest < NOBODY_WAITS, "the settling stood for {longest:?}");
}
