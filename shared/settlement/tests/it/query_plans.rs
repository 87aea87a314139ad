//! How Postgres means to run the statements of settling: through an index, on an empty database as on
//! one with rows (`trueup-load plans` asks the same on millions), and in spite of a plan made too early.

use std::time::Duration;

use trueup_store::settlement::candidates;
use trueup_store::{Pool, PoolProfile, PoolSettings};
use trueup_testkit::builders::ManyCalls;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::eventually;
use trueup_testkit::query_plans::unindexed;

/// As a worker opens its own.
fn settling(database: &TestDatabase) -> Pool {
    let settings = PoolSettings {
        profile: PoolProfile::Settlement,
        ..PoolSettings::for_application("trueup-test", 2)
    };
    Pool::new(&database.url, &settings).expect("a good URL")
}

/// Accounts, publishers and calls of some size, then what settling left behind of each call.
fn rows() -> String {
    let calls = ManyCalls {
        count: 20_000,
        account_id: "md5('a' || 1 + n % 5)::uuid",
        id: "md5('c' || n)::uuid",
        ref_id: "'ref-' || n",
        caller: "'+1' || 2002000000 + n",
        duration_seconds: "90",
        assignment_id: "NULL",
    };
    format!("{OWNERS}{}{SETTLED}", calls.to_sql())
}

const OWNERS: &str = "
    INSERT INTO accounts (id, name) SELECT md5('a' || n)::uuid, 'a' FROM generate_series(1, 5) n;
    INSERT INTO publishers (id, account_id, name)
        SELECT md5('p' || n)::uuid, md5('a' || 1 + n % 5)::uuid, 'p' FROM generate_series(1, 2000) n;
    ";
const SETTLED: &str = "
    INSERT INTO call_reports (account_id, call_id, received_at, position, event_id, webhook_id, strategy, role, payout_cents,
                              caller, duration_seconds)
        SELECT account_id, id, now(), 0, id, account_id, 'ref_id', 'folded', 100, caller, 90 FROM calls;
    INSERT INTO events (received_at, id, account_id, webhook_id, status)
        SELECT now() + (n % 7 - 2) * interval '1 month' - n * interval '1 minute', md5('e' || n)::uuid, md5('a')::uuid,
               md5('w' || n % 3)::uuid, 'matched' FROM generate_series(1, 20000) n;
    INSERT INTO event_requests (received_at, id, request) SELECT received_at, id, '{}' FROM events;
    INSERT INTO event_request_blocks (received_at, number, rows, content)
        SELECT received_at, row_number() OVER (), 1, '' FROM events;
    INSERT INTO postings (id, account_id, call_id, publisher_id, event_id, kind, revenue_delta_cents, credit_delta_cents)
        SELECT id, account_id, call_id, md5('p' || 1 + position % 2000)::uuid, event_id, 'report', 1, 0
          FROM (SELECT gen_random_uuid() AS id, * FROM call_reports) r;
    INSERT INTO pending_reports (event_id, received_at, account_id, ref_id, next_try_at)
        SELECT id, received_at, account_id, 'none', now() + interval '1 hour' FROM events;
    ANALYZE;";

#[tokio::test]
async fn every_hot_statement_uses_its_index_on_empty_tables_and_on_full_ones() {
    let database = TestDatabase::fresh().await;
    let pool = settling(&database);
    let client = pool.get().await.expect("a connection");
    let none: [String; 0] = [];
    assert_eq!(
        unindexed(&client).await.expect("explains"),
        none,
        "never analysed"
    );
    // The trap: statistics that say "nothing in there", and plans that are kept while the tables grow.
    client.batch_execute("ANALYZE").await.expect("analyses");
    assert_eq!(
        unindexed(&client).await.expect("explains"),
        none,
        "analysed while empty"
    );
    client.batch_execute(&rows()).await.expect("rows");
    assert_eq!(
        unindexed(&client).await.expect("explains"),
        none,
        "with rows that nobody analysed"
    );
    client.batch_execute("ANALYZE").await.expect("analyses");
    assert_eq!(
        unindexed(&client).await.expect("explains"),
        none,
        "with rows"
    );
}

/// V13: of the calls that share a ref_id and a caller the latest are read, and the others are not.
#[tokio::test]
async fn v13_the_calls_of_a_shared_ref_id_are_not_sorted() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let calls = ManyCalls {
        count: 5_000,
        account_id: "md5('a1')::uuid",
        id: "md5('c' || n)::uuid",
        ref_id: "'campaign'",
        caller: "'+12002000000'",
        duration_seconds: "90",
        assignment_id: "NULL",
    };
    let made = format!("{OWNERS}{}ANALYZE calls;", calls.to_sql());
    client.batch_execute(&made).await.expect("calls");
    let sql = candidates::BY_SHARED_REF_ID
        .replace("$1", "'{0}'")
        .replace("$2", "ARRAY[md5('a1')]")
        .replace("$3", "'{campaign}'")
        .replace("$4", "'{+12002000000}'")
        .replace("$5", "'{NULL}'")
        .replace("$6", "100");
    let plan: Vec<String> = client
        .query(&format!("EXPLAIN {sql}"), &[])
        .await
        .expect("a plan")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let sorts = plan.iter().any(|line| line.contains("Sort"));
    assert!(!sorts, "{}", plan.join("\n"));
}

#[tokio::test]
async fn a_settling_session_makes_its_plans_anew_now_and_then() {
    let database = TestDatabase::fresh().await;
    let pool = settling(&database);
    let onlooker = database.client().await;
    let last = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%DISCARD PLANS'";
    eventually("plans are discarded", Duration::from_secs(30), || async {
        drop(pool.get().await.expect("a connection"));
        (onlooker
            .query_one(last, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0)
            == 1)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_check_sees_a_missing_index() {
    let database = TestDatabase::fresh().await;
    let pool = settling(&database);
    let client = pool.get().await.expect("a connection");
    client
        .batch_execute("DROP INDEX calls_by_ref_id_caller_and_end")
        .await
        .expect("drops");
    let wrong = unindexed(&client).await.expect("explains");
    assert!(
        wrong.iter().any(|line| line.contains("find_by_ref_id")),
        "{wrong:?}"
    );
}
