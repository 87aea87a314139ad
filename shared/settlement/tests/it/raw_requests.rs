//! Raw requests at rest, on a real Postgres: in blocks of a batch, in rows of their own as versions before
//! blocks wrote them, and damaged.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::json;
use trueup_domain::batch_decision::SettleJob;
use trueup_domain::decision::Trigger;
use trueup_event::ids;
use trueup_event::raw_event::{RawEvent, RawRequest};
use trueup_event::reason::Status;
use trueup_settlement::settle_batch;
use trueup_store::stored_requests::{KeptRequest, load_requests};
use trueup_store::{Pool, PoolSettings, events, webhook_activity};
use trueup_testkit::builders::{self, Call, WebhookSpec};
use trueup_testkit::database::TestDatabase;
use uuid::Uuid;

struct Books {
    database: TestDatabase,
    client: deadpool_postgres::tokio_postgres::Client,
    pool: Pool,
    account_id: Uuid,
    webhook_id: Uuid,
}

impl Books {
    async fn new() -> Books {
        let database = TestDatabase::fresh().await;
        let client = database.client().await;
        let account_id = builders::account(&client).await;
        let webhook = builders::webhook(&client, account_id, &WebhookSpec::open()).await;
        let settings = PoolSettings::for_application("trueup-test", 4);
        let pool = Pool::new(&database.url, &settings).expect("a good URL");
        Books {
            database,
            client,
            pool,
            account_id,
            webhook_id: webhook.id,
        }
    }

    /// The n-th report of a moment.
    fn report(&self, received_at: Timestamp, n: u8) -> RawEvent {
        RawEvent {
            id: ids::event_id(received_at, &[n; 10]),
            received_at,
            account_id: self.account_id,
            webhook_id: self.webhook_id,
            position: 0,
            source_ip: std::net::IpAddr::from([192, 0, 2, 1]),
            request: Some(RawRequest {
                method: "POST".into(),
                query: format!("n={n}").into(),
                content_type: Some("application/json".into()),
                body: json!({"ref_id": format!("R{n}"), "payout": "50"})
                    .to_string()
                    .into_bytes(),
                ..RawRequest::default()
            }),
            refusal: None,
        }
    }

    /// Elements of one batch: they share a query, and each has a body of its own (X3).
    fn batch(&self, received_at: Timestamp, count: u8) -> Vec<RawEvent> {
        let first = ids::event_id(received_at, &[0x40; 10]);
        let element = |n: u8| {
            let event = self.report(received_at, 0x40 + n);
            RawEvent {
                position: n.into(),
                request: event.request.map(|request| RawRequest {
                    query: "shared=by all".into(),
                    element: true,
                    batch_of: (n > 0).then_some(first),
                    ..request
                }),
                ..event
            }
        };
        (0..count).map(element).collect()
    }

    async fn settle(&self, jobs: Vec<SettleJob>) -> Vec<Status> {
        let mut client = self.pool.get().await.expect("a connection");
        let tx = client.transaction().await.expect("begins");
        let settled = settle_batch(&tx, jobs).await.expect("settles");
        tx.commit().await.expect("commits");
        let status = |decision: &trueup_domain::decision::Decision| decision.status();
        settled
            .iter()
            .filter_map(|s| s.decision.as_ref().map(status))
            .collect()
    }

    async fn settle_fresh(&self, events: &[RawEvent]) {
        let jobs = events.iter().cloned().map(SettleJob::Fresh).collect();
        assert_eq!(self.settle(jobs).await.len(), events.len());
    }

    async fn kept(&self, events: &[RawEvent]) -> HashMap<Uuid, KeptRequest> {
        let keys: Vec<_> = events.iter().map(|e| (e.received_at, e.id)).collect();
        let client = self.pool.get().await.expect("a connection");
        load_requests(&client, &keys).await.expect("loads")
    }

    async fn assert_kept(&self, events: &[RawEvent]) {
        let kept = self.kept(events).await;
        for event in events {
            let Some(KeptRequest::Whole(stored)) = kept.get(&event.id) else {
                panic!("{:?}", kept.get(&event.id));
            };
            assert_eq!(Some(&stored.request), event.request.as_ref());
            let raw = |text: &str| stored.slots.iter().any(|s| s.raw.as_deref() == Some(text));
            assert!(
                raw("50"),
                "how it was read is kept, too: {:?}",
                stored.slots
            );
        }
    }

    async fn count(&self, from_where: &str) -> i64 {
        let select = format!("SELECT count(*) FROM {from_where}");
        self.client
            .query_one(&select, &[])
            .await
            .expect("a count")
            .get(0)
    }

    async fn damage(&self, first_of: &RawEvent) {
        let damage = "UPDATE event_request_blocks b SET content = overlay(content placing '\\x00ff00ff' from 20)
              FROM events e WHERE e.id = $1 AND b.number = e.request_place >> 9";
        assert_eq!(
            self.client
                .execute(damage, &[&first_of.id])
                .await
                .expect("damages"),
            1
        );
    }
}

fn now() -> Timestamp {
    ids::to_microseconds(Timestamp::now())
}

#[tokio::test]
async fn requests_of_a_batch_lie_in_one_block_and_each_is_read_back() {
    let books = Books::new().await;
    let single: Vec<RawEvent> = (0..30).map(|n| books.report(now(), n)).collect();
    books.settle_fresh(&single).await;
    assert_eq!(
        (
            books.count("event_request_blocks").await,
            books.count("event_requests").await
        ),
        (1, 0)
    );
    books.assert_kept(&single).await;

    // Half of a batch in one block, the rest settled one by one: what it has in common lies with its first.
    let batch = books.batch(now(), 6);
    books.settle_fresh(&batch[..3]).await;
    for event in &batch[3..] {
        books.settle_fresh(std::slice::from_ref(event)).await;
    }
    assert_eq!(books.count("event_request_blocks").await, 5);
    books.assert_kept(&batch).await;
    books.assert_kept(&batch[4..]).await;
    assert_eq!(
        books.count("event_request_blocks_default").await,
        0,
        "each day's lie in a partition of their own, and go with it"
    );
    let client = books.pool.get().await.expect("a connection");
    let learnt = webhook_activity::unmatched_requests(
        &client,
        books.account_id,
        books.webhook_id,
        Timestamp::UNIX_EPOCH,
        100,
    )
    .await
    .expect("loads");
    assert_eq!(learnt.len(), 36, "the pages learn field names from them");
}

#[tokio::test]
async fn requests_of_the_version_before_stand_in_rows_of_their_own_and_are_read() {
    let books = Books::new().await;
    let batch = books.batch(now(), 3);
    books.settle_fresh(&batch).await;
    // As V0011 and the workers of its time keep them.
    for event in &batch {
        let request = event.request.as_ref().expect("a request");
        let insert = "INSERT INTO event_requests (received_at, id, request, reading, batch_of)
            VALUES ($1, $2, $3, '[{\"slot\":\"payout\",\"raw\":\"50\"}]', $4)";
        let stored = request.to_stored();
        books
            .client
            .execute(
                insert,
                &[&event.received_at, &event.id, &stored, &request.batch_of],
            )
            .await
            .expect("a row");
    }
    books
        .client
        .batch_execute("UPDATE events SET request_place = NULL; TRUNCATE event_request_blocks")
        .await
        .expect("as before blocks");
    books.assert_kept(&batch).await;
    // One element is read anew by this version, as a worker of either version does it.
    let again = SettleJob::Stored {
        id: batch[1].id,
        received_at: batch[1].received_at,
        course: Trigger::Replayed,
        actor: None,
    };
    assert_eq!(books.settle(vec![again]).await, [Status::Unmatched]);
    books.assert_kept(&batch).await;
}

#[tokio::test]
async fn what_is_read_anew_outranks_its_block() {
    let books = Books::new().await;
    let event = books.report(now(), 1);
    books.settle_fresh(std::slice::from_ref(&event)).await;
    books
        .client
        .batch_execute(r#"UPDATE webhooks SET field_names = '{"ref_id": "payout"}'"#)
        .await
        .expect("a field of another name");
    let again = SettleJob::Stored {
        id: event.id,
        received_at: event.received_at,
        course: Trigger::Replayed,
        actor: None,
    };
    books.settle(vec![again]).await;
    let kept = books.kept(std::slice::from_ref(&event)).await;
    let Some(KeptRequest::Whole(stored)) = kept.get(&event.id) else {
        panic!("{kept:?}");
    };
    assert_eq!(Some(&stored.request), event.request.as_ref());
    let ref_id = stored
        .slots
        .iter()
        .find(|s| s.name.as_deref() == Some("payout"));
    assert!(ref_id.is_some(), "{:?}", stored.slots);
    assert_eq!(books.count("event_requests").await, 1);
}

#[tokio::test]
async fn a_caller_as_it_was_sent_is_told_also_where_it_is_stored_once() {
    let books = Books::new().await;
    for (n, sent) in ["+13055550142", "305-555-0142", "anonymous"]
        .into_iter()
        .enumerate()
    {
        let event = books.report(now(), u8::try_from(n).expect("small"));
        let body = json!({"ref_id": "R1", "caller_id": sent, "payout": "50"});
        let request = event.request.map(|request| RawRequest {
            body: body.to_string().into_bytes(),
            ..request
        });
        let event = RawEvent { request, ..event };
        books.settle_fresh(std::slice::from_ref(&event)).await;
        let client = books.pool.get().await.expect("a connection");
        let row = events::get_event(&client, books.account_id, event.id)
            .await
            .expect("loads");
        assert_eq!(row.expect("a row").caller_raw.as_deref(), Some(sent));
    }
    assert_eq!(
        books.count("events WHERE caller_raw IS NULL").await,
        1,
        "stored once"
    );
}

#[tokio::test]
async fn a_damaged_block_costs_its_own_rows_their_raw_text_and_nothing_else() {
    let books = Books::new().await;
    let damaged: Vec<RawEvent> = (0..5).map(|n| books.report(now(), n)).collect();
    books.settle_fresh(&damaged).await;
    let whole: Vec<RawEvent> = (5..10).map(|n| books.report(now(), n)).collect();
    books.settle_fresh(&whole).await;
    books.damage(&damaged[0]).await;

    let kept = books.kept(&damaged).await;
    for event in &damaged {
        assert_eq!(kept.get(&event.id), Some(&KeptRequest::Unreadable));
    }
    books.assert_kept(&whole).await;

    // Such a report still finds its call: its row says what it said.
    let call = Call {
        ref_id: Some("R3"),
        ..Call::default()
    };
    builders::call(&books.client, books.account_id, &call).await;
    let again = |event: &RawEvent| SettleJob::Stored {
        id: event.id,
        received_at: event.received_at,
        course: Trigger::Again,
        actor: None,
    };
    let jobs = vec![again(&damaged[3]), again(&whole[0])];
    let mut settled = books.settle(jobs).await;
    settled.sort_by_key(|status| status.code());
    assert_eq!(settled, [Status::Matched, Status::Unmatched]);
    assert_eq!(
        books.count("event_requests").await,
        0,
        "nothing is made up for the request that is lost"
    );
    drop(books.database);
}
