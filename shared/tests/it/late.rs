//! M7 on a real Postgres: a report that is settled in the very moment in which its call is recorded.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use trueup_shared::domain::event::{RawEvent, RawRequest};
use trueup_shared::domain::ids;
use trueup_shared::domain::reason::Status;
use trueup_shared::store::settle::{Work, late, settle};
use trueup_shared::store::{Pool, PoolSettings};
use trueup_shared::testkit::database::TestDatabase;
use trueup_shared::testkit::eventually;
use trueup_shared::testkit::fixtures::{self, WebhookSpec};
use uuid::Uuid;

/// Below the first of the schedule's times (10 s): what is due before that is due because of the note.
const PATIENCE: Duration = Duration::from_secs(8);

#[tokio::test]
async fn m7_a_report_in_settling_while_its_call_is_recorded_is_due_at_once() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let account_id = fixtures::account(&client).await;
    let webhook = fixtures::webhook(&client, account_id, &WebhookSpec::open()).await;
    let pool = Pool::new(&database.url, &PoolSettings::of("trueup-test", 4)).expect("a good URL");
    let received_at = ids::to_microseconds(Timestamp::now());
    let event = RawEvent {
        id: ids::event_id(received_at, &[7; 10]),
        received_at,
        account_id,
        webhook_id: webhook.id,
        position: 0,
        source_ip: std::net::IpAddr::from([192, 0, 2, 1]),
        request: Some(RawRequest {
            method: "POST".into(),
            body: json!({"ref_id": "R1", "payout": "50"}).to_string().into_bytes(),
            ..RawRequest::default()
        }),
        refusal: None,
    };
    let due = async || {
        let count = "SELECT count(*) FROM pending_reports WHERE next_try_at <= now()";
        client.query_one(count, &[]).await.expect("a count").get::<_, i64>(0)
    };

    // A worker has looked for the call, and has not committed yet.
    let mut settling = pool.get().await.expect("a connection");
    let tx = settling.transaction().await.expect("begins");
    let settled = settle(&tx, vec![Work::Fresh(event)]).await.expect("settles");
    assert_eq!(settled[0].decision.as_ref().map(|d| d.status), Some(Status::Unmatched));
    // Meanwhile the call is recorded, and another worker reads the note of it.
    let call = "WITH call AS (INSERT INTO calls (account_id, id, ref_id, duration_seconds, started_at, ended_at)
                                   VALUES ($1, $2, 'R1', 90, now(), now()) RETURNING account_id, id, ref_id)
                INSERT INTO call_notes (account_id, call_id, ref_id) SELECT * FROM call";
    client.execute(call, &[&account_id, &Uuid::new_v4()]).await.expect("a call");
    for _ in 0..3 {
        late::wake(&pool).await.expect("wakes");
    }
    tx.commit().await.expect("commits");
    assert_eq!(due().await, 0, "it waits for its schedule so far");
    // Transactions of other tests on this server may hold the note's mark back for a moment.
    eventually("the report is due: the note was still there", PATIENCE, || async {
        late::wake(&pool).await.expect("wakes");
        (due().await == 1).then_some(())
    })
    .await;

    let settled = late::settle_due(&pool, 10).await.expect("settles");
    assert_eq!(settled[0].decision.as_ref().map(|d| d.status), Some(Status::Matched));
    let notes = "SELECT count(*) FROM call_notes";
    assert_eq!(client.query_one(notes, &[]).await.expect("a count").get::<_, i64>(0), 0, "the note has done its work");
}
