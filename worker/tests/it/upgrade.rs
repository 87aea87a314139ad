//! Books that the version before has written, carried over: `books_v0007.sql.gz` is a dump of all scenarios
//! and some persons' actions as schema V0007 kept them.

use std::process::Command;

use trueup_store::stored_requests::{KeptRequest, load_requests};
use trueup_store::{Pool, PoolSettings, events};
use trueup_testkit::broker_and_redis::Lease;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::process::{Process, Start};
use uuid::Uuid;

use crate::harness::{PATIENCE, WORKER};

const DUMP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/books_v0007.sql.gz");

fn start(database: &TestDatabase, lease: &Lease) -> Start {
    Start::new(WORKER)
        .env("TRUEUP_POSTGRES_URL", &database.url)
        .env("TRUEUP_AMQP_URL", &lease.amqp_url)
        .env("TRUEUP_RECONCILE_EVERY_HOURS", "0")
}

async fn succeeds(mut process: Process) -> String {
    let code = process.exit_code(PATIENCE).await;
    assert_eq!(code, 0, "{}", process.log());
    process.log()
}

/// Every balance and every call's money, as one text.
async fn money(client: &tokio_postgres::Client) -> String {
    const MONEY: &str = "SELECT json_build_object(
            'publishers', (SELECT json_agg(json_build_array(id, pending_balance_cents) ORDER BY id) FROM publishers),
            'calls', (SELECT json_agg(json_build_array(id, value_cents, value_from_webhook, qualified, publisher_payout_cents)
                                      ORDER BY account_id, id) FROM calls))::text";
    client.query_one(MONEY, &[]).await.expect("money").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn books_of_the_version_before_are_carried_over_and_stay_true() {
    let database = TestDatabase::empty().await;
    let lease = Lease::acquire().await;
    let dump = Command::new("gzip")
        .args(["-dc", DUMP])
        .output()
        .expect("gzip");
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    let dump = String::from_utf8(dump.stdout).expect("SQL");
    database
        .client()
        .await
        .batch_execute(&dump)
        .await
        .expect("the dump is restored");
    // The dump empties its session's search path.
    let client = database.client().await;
    let count = |from_where: &str| {
        let select = format!("SELECT count(*) FROM {from_where}");
        let client = &client;
        async move {
            client
                .query_one(&select, &[])
                .await
                .expect("a count")
                .get::<_, i64>(0)
        }
    };
    let displaced =
        "events WHERE reason = 'replaced_heuristic_match' AND detail ->> 'displaced' = 'true'";
    assert!(
        count(&format!("{displaced} AND status = 'matched'")).await > 0,
        "as V0007 kept them"
    );
    let before = money(&client).await;

    let said = succeeds(start(&database, &lease).arg("migrate").spawn()).await;
    assert!(said.contains("guesses_give_way"), "{said}");
    assert_eq!(
        money(&client).await,
        before,
        "no balance and no call has changed"
    );
    assert_eq!(count(&format!("{displaced} AND status <> 'held'")).await, 0);
    assert!(count("postings WHERE actor = 'migration V0008'").await > 0);
    assert!(count("call_reports WHERE guess").await > 0);
    assert_eq!(
        count("pg_index WHERE indexrelid = 'events_open'::regclass AND indisvalid").await,
        1,
        "V0010 on the books that V0009 kept"
    );
    assert_eq!(count("buyers WHERE archived_at IS NOT NULL").await, 0);
    succeeds(
        start(&database, &lease)
            .arg("reconcile")
            .arg("--replay")
            .spawn(),
    )
    .await;

    // Raw requests that stand in rows of their own are read as before (V0012), and so are the rows.
    let settings = PoolSettings::for_application("trueup-test", 1);
    let pool = Pool::new(&database.url, &settings).expect("a good URL");
    let settled = pool.get().await.expect("a connection");
    let stored = "SELECT received_at, id, account_id FROM events JOIN event_requests USING (received_at, id)";
    let rows = client.query(stored, &[]).await.expect("rows");
    let keys: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let kept = load_requests(&settled, &keys).await.expect("loads");
    assert!(keys.len() > 100, "{}", keys.len());
    for row in &rows {
        let id: Uuid = row.get(1);
        assert!(
            matches!(kept.get(&id), Some(KeptRequest::Whole(_))),
            "{:?}",
            kept.get(&id)
        );
        let event = events::get_event(&settled, row.get(2), id)
            .await
            .expect("reads");
        let event = event.expect("a row");
        let moved = event.credit_delta_cents != 0;
        assert!(
            !moved || event.detail.change().is_some(),
            "{:?}",
            event.detail
        );
    }

    // A worker takes them up.
    start(&database, &lease).ready().await;
}
