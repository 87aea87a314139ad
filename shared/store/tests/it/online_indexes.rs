//! Books of the version before, with their wide indexes and rows in them: `migrate` exchanges these while others
//! go on writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use trueup_postgres::TlsFiles;
use trueup_store::migrate;
use trueup_testkit::database::TestDatabase;

/// As V0008 left them, and rows enough for an index to take a while.
const AS_BEFORE: &str = "
    DROP INDEX call_reports_by_call, postings_of_call, postings_once_of_event, postings_of_publisher;
    ALTER TABLE postings ADD PRIMARY KEY (seq);
    CREATE INDEX postings_by_publisher ON postings (publisher_id, seq) WHERE publisher_id IS NOT NULL;
    ALTER TABLE call_reports ADD PRIMARY KEY (account_id, call_id, received_at, position, event_id);
    CREATE INDEX postings_by_call ON postings (account_id, call_id);
    CREATE UNIQUE INDEX postings_once ON postings (account_id, event_id, call_id, kind, round) WHERE event_id IS NOT NULL;
    INSERT INTO call_reports (account_id, call_id, received_at, position, event_id, webhook_id, strategy, role, payout_cents)
        SELECT md5('a')::uuid, md5('c' || n)::uuid, now(), 0, md5('e' || n)::uuid, md5('w')::uuid, 'ref_id', 'folded', 100
          FROM generate_series(1, 100000) n;
    INSERT INTO postings (id, account_id, call_id, event_id, kind, revenue_delta_cents, credit_delta_cents)
        SELECT event_id, account_id, call_id, event_id, 'report', 1, 0 FROM call_reports;";

/// A claim and its posting, as settling writes them.
const SETTLE: &str = "
    WITH r AS (
        INSERT INTO call_reports (account_id, call_id, received_at, position, event_id, webhook_id, strategy, role, payout_cents)
        VALUES (md5('a')::uuid, gen_random_uuid(), now(), 0, gen_random_uuid(), md5('w')::uuid, 'ref_id', 'folded', 100)
        RETURNING account_id, call_id, event_id)
    INSERT INTO postings (id, account_id, call_id, event_id, kind, revenue_delta_cents, credit_delta_cents)
    SELECT event_id, account_id, call_id, event_id, 'report', 1, 0 FROM r";

/// A settling transaction that stands behind the exchange for longer than this has been stopped by it.
const NOBODY_WAITS: Duration = Duration::from_millis(1_500);

async fn indexes(client: &Client) -> Vec<String> {
    let names = "SELECT indexrelid::regclass::text FROM pg_index
                  WHERE indrelid IN ('call_reports'::regclass, 'postings'::regclass) AND indisvalid ORDER BY 1";
    let rows = client.query(names, &[]).await.expect("indexes");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns the longest wait, and how often it settled.
async fn settle_meanwhile(client: Client, stop: Arc<AtomicBool>) -> (Duration, u32) {
    let (mut longest, mut settled) = (Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.execute(SETTLE, &[]).await.expect("settles");
        longest = longest.max(began.elapsed());
        settled += 1;
    }
    (longest, settled)
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_indexes_are_exchanged_while_the_settling_goes_on() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let narrow = indexes(&client).await;
    client.batch_execute(AS_BEFORE).await.expect("as before");
    assert_ne!(indexes(&client).await, narrow);
    // One that was cut off in the midst has left this behind.
    client
        .batch_execute("CREATE INDEX postings_of_call ON postings (call_id)")
        .await
        .expect("an index");
    client
        .batch_execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'postings_of_call'::regclass")
        .await
        .expect("half made");

    let stop = Arc::new(AtomicBool::new(false));
    let settling = tokio::spawn(settle_meanwhile(database.client().await, Arc::clone(&stop)));
    // Two at once: the second waits for the first, and finds nothing left to do.
    let tls = TlsFiles::default();
    let (first, second) = tokio::join!(
        migrate::run(&database.url, &tls),
        migrate::run(&database.url, &tls)
    );
    first.expect("migrates");
    second.expect("migrates");
    stop.store(true, Ordering::Relaxed);
    let (longest, settled) = settling.await.expect("it settles");
    assert_eq!(indexes(&client).await, narrow);
    assert!(
        settled > 0 && longest < NOBODY_WAITS,
        "{settled} settled, one stood for {longest:?}"
    );

    // The ledger refuses what it refused before.
    let again = "INSERT INTO postings (id, account_id, call_id, event_id, kind, revenue_delta_cents, credit_delta_cents)
        SELECT id, account_id, call_id, event_id, kind, 1, 0 FROM postings LIMIT 1";
    let refused = client
        .execute(again, &[])
        .await
        .expect_err("twice for one cause");
    assert_eq!(refused.code(), Some(&SqlState::UNIQUE_VIOLATION));
}
