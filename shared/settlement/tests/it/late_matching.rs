//! M7 on a real Postgres: a report that is settled in the very moment in which its call is recorded.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use trueup_domain::batch_decision::SettleJob;
use trueup_event::ids;
use trueup_event::raw_event::{RawEvent, RawRequest};
use trueup_event::reason::Status;
use trueup_settlement::{late_matching, settle_batch};
use trueup_store::settlement::pending_reports::wake_guesses;
use trueup_store::{Pool, PoolSettings};
use trueup_testkit::builders::{self, Call, WebhookSpec};
use trueup_testkit::database::TestDatabase;
use trueup_testkit::eventually;
use uuid::Uuid;

/// Below the first of the schedule's times (10 s): what is due before that is due because of the note.
const PATIENCE: Duration = Duration::from_secs(8);

fn report(account_id: Uuid, webhook_id: Uuid) -> RawEvent {
    let received_at = ids::to_microseconds(Timestamp::now());
    RawEvent {
        id: ids::event_id(received_at, &[7; 10]),
        received_at,
        account_id,
        webhook_id,
        position: 0,
        source_ip: std::net::IpAddr::from([192, 0, 2, 1]),
        request: Some(RawRequest {
            method: "POST".into(),
            body: json!({"ref_id": "R1", "payout": "50"})
                .to_string()
                .into_bytes(),
            ..RawRequest::default()
        }),
        refusal: None,
    }
}

#[tokio::test]
async fn m7_a_report_in_settling_while_its_call_is_recorded_is_due_at_once() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let account_id = builders::account(&client).await;
    let webhook = builders::webhook(&client, account_id, &WebhookSpec::open()).await;
    let pool = Pool::new(
        &database.url,
        &PoolSettings::for_application("trueup-test", 4),
    )
    .expect("a good URL");
    let event = report(account_id, webhook.id);
    let due = async || {
        let count = "SELECT count(*) FROM pending_reports WHERE next_try_at <= now()";
        client
            .query_one(count, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0)
    };

    // A worker has looked for the call, and has not committed yet.
    let mut settling = pool.get().await.expect("a connection");
    let tx = settling.transaction().await.expect("begins");
    let settled = settle_batch(&tx, vec![SettleJob::Fresh(event)])
        .await
        .expect("settles");
    assert_eq!(
        settled[0].decision.as_ref().map(|d| d.status()),
        Some(Status::Unmatched)
    );
    // Meanwhile the call is recorded, and another worker reads the note of it.
    let call = Call {
        ref_id: Some("R1"),
        duration_seconds: 90,
        noted: true,
        ..Call::default()
    };
    builders::call(&client, account_id, &call).await;
    for _ in 0..3 {
        late_matching::wake_pending(&pool).await.expect("wakes");
    }
    tx.commit().await.expect("commits");
    assert_eq!(due().await, 0, "it waits for its schedule so far");
    // Transactions of other tests on this server may hold the note's mark back for a moment.
    eventually(
        "the report is due: the note was still there",
        PATIENCE,
        || async {
            late_matching::wake_pending(&pool).await.expect("wakes");
            (due().await == 1).then_some(())
        },
    )
    .await;

    let settled = late_matching::settle_due(&pool, 10).await.expect("settles");
    assert_eq!(
        settled[0].decision.as_ref().map(|d| d.status()),
        Some(Status::Matched)
    );
    let notes = "SELECT count(*) FROM call_recorded_outbox";
    assert_eq!(
        client
            .query_one(notes, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0),
        0,
        "the note has done its work"
    );
}

#[tokio::test]
async fn m7_a_report_tried_again_in_vain_is_rewritten_only_if_it_reads_otherwise_now() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let account_id = builders::account(&client).await;
    let webhook = builders::webhook(&client, account_id, &WebhookSpec::open()).await;
    let pool = Pool::new(
        &database.url,
        &PoolSettings::for_application("trueup-test", 2),
    )
    .expect("a good URL");
    let mut settling = pool.get().await.expect("a connection");
    let tx = settling.transaction().await.expect("begins");
    settle_batch(&tx, vec![SettleJob::Fresh(report(account_id, webhook.id))])
        .await
        .expect("settles");
    tx.commit().await.expect("commits");
    // Which version of the rows it is, and when the report is due.
    let versions = async || {
        let versions = "SELECT e.xmin::text, COALESCE(q.xmin::text, 'in its block'), e.reason, e.retry_until, p.next_try_at > now()
                          FROM events e LEFT JOIN event_requests q USING (id) JOIN pending_reports p ON p.event_id = e.id";
        let row = client
            .query_one(versions, &[])
            .await
            .expect("a row that waits");
        let text = |n: usize| row.get::<_, String>(n);
        (
            text(0),
            text(1),
            text(2),
            row.get::<_, Option<Timestamp>>(3),
            row.get::<_, bool>(4),
        )
    };
    let try_again = async || {
        let due =
            "UPDATE pending_reports SET since = now() - interval '11 seconds', next_try_at = now()";
        client.execute(due, &[]).await.expect("due");
        let settled = late_matching::settle_due(&pool, 10).await.expect("settles");
        assert_eq!(settled.len(), 1, "it was tried");
        assert_eq!(
            settled[0].decision.as_ref().map(|d| d.status()),
            Some(Status::Unmatched)
        );
    };

    let first = versions().await;
    try_again().await;
    assert_eq!(
        versions().await,
        first,
        "nothing has changed, nothing was written, and it is tried again"
    );

    let names = r#"UPDATE webhooks SET field_names = '{"ref_id": "payout"}'"#;
    client
        .batch_execute(names)
        .await
        .expect("a field of another name");
    try_again().await;
    let now = versions().await;
    assert_ne!(
        (&now.0, &now.1),
        (&first.0, &first.1),
        "the row and its reading say what is true now: {now:?}"
    );
    assert_eq!(
        (now.3, now.4),
        (first.3, true),
        "and it waits as long as before"
    );
}

/// M14, V12: a guess that a copy has changed is looked at again for that cause, also after it stepped aside.
#[tokio::test]
async fn m14_a_changed_guess_that_stepped_aside_is_tried_again_as_a_changed_one() {
    const CALLER: &str = "+13055550142";
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let account_id = builders::account(&client).await;
    let webhook = builders::webhook(&client, account_id, &WebhookSpec::open()).await;
    let pool = Pool::new(
        &database.url,
        &PoolSettings::for_application("trueup-test", 5),
    )
    .expect("a good URL");
    let call = Call {
        caller: Some(CALLER),
        duration_seconds: 90,
        ended_at: Some(Timestamp::now()),
        ..Call::default()
    };
    let call_id = builders::call(&client, account_id, &call).await;
    let mut event = report(account_id, webhook.id);
    let said = json!({"caller_id": CALLER, "duration": 60, "payout": "50"});
    event.request.as_mut().expect("a request").body = said.to_string().into_bytes();
    let mut settling = pool.get().await.expect("a connection");
    let tx = settling.transaction().await.expect("begins");
    settle_batch(&tx, vec![SettleJob::Fresh(event.clone())])
        .await
        .expect("settles");
    tx.commit().await.expect("commits");
    // As recording a copy with another duration does.
    client
        .execute(
            "UPDATE calls SET duration_seconds = 600 WHERE id = $1",
            &[&call_id],
        )
        .await
        .expect("changed");
    let mut recording = pool.get().await.expect("a connection");
    let tx = recording.transaction().await.expect("begins");
    wake_guesses(&tx, account_id, &[call_id])
        .await
        .expect("wakes");
    tx.commit().await.expect("commits");

    let mut holding = pool.get().await.expect("a connection");
    let tx = holding.transaction().await.expect("begins");
    tx.execute(
        "SELECT 1 FROM calls WHERE id = $1 FOR NO KEY UPDATE",
        &[&call_id],
    )
    .await
    .expect("held");
    let settled = late_matching::settle_due(&pool, 10).await.expect("settles");
    assert!(settled.is_empty(), "it stepped aside: {settled:?}");
    tx.rollback().await.expect("let go");

    let soon = "UPDATE pending_reports SET next_try_at = now()";
    client.execute(soon, &[]).await.expect("due");
    let settled = late_matching::settle_due(&pool, 10).await.expect("settles");
    let status = settled[0].decision.as_ref().map(|d| d.status());
    assert_eq!(status, Some(Status::Unmatched), "it has left: {settled:?}");
}
