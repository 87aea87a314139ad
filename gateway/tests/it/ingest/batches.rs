//! X1, X3: bodies, their limits, and batches.

use std::time::Duration;

use trueup_testkit::builders::{self, Webhook, WebhookSpec};
use trueup_testkit::eventually;
use trueup_testkit::http::Client;
use trueup_testkit::tcp_proxy::FaultProxy;

use super::{World, door, post};

#[tokio::test]
async fn x3_a_batch_is_one_event_for_each_element_in_order() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let answer = post(
        door,
        &webhook,
        "198.51.100.7",
        &[],
        "[{\"payout\":1}, 7 ,{\"payout\":3}]",
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ids: Vec<String> = answer.json()["event_ids"]
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| id.as_str().expect("text").to_owned())
        .collect();
    let events = world.events().await;
    let found: Vec<_> = events
        .iter()
        .map(|e| (e.id.to_string(), e.position))
        .collect();
    assert_eq!(
        found,
        [
            (ids[0].clone(), 0),
            (ids[1].clone(), 1),
            (ids[2].clone(), 2)
        ]
    );
    let bodies: Vec<_> = events
        .iter()
        .map(|e| e.request.clone().expect("a report"))
        .collect();
    assert_eq!(bodies[1].body, b"7");
    assert!(bodies.iter().all(|r| r.element));

    for (body, element) in [("[]", false), ("[{", false)] {
        let answer = post(door, &webhook, "198.51.100.7", &[], body).await;
        assert!(answer.json()["event_id"].is_string(), "{}", answer.text());
        let events = world.events().await;
        let request = events[0].request.as_ref().expect("a report");
        assert_eq!(
            (request.body.as_slice(), request.element),
            (body.as_bytes(), element)
        );
    }
    let many = format!("[{}]", vec!["{}"; 501].join(","));
    let answer = post(door, &webhook, "198.51.100.7", &[], &many).await;
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("500"), "{}", answer.text());
    assert_eq!(world.events().await, []);
}

#[tokio::test]
async fn x1_a_body_has_64_kib_and_a_batch_512() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let status = async |body: String| {
        post(door, &webhook, "198.51.100.7", &[], &body)
            .await
            .status
    };
    assert_eq!(
        status(format!("a={}", "x".repeat(64 * 1024 - 2))).await,
        200
    );
    assert_eq!(
        status(format!("a={}", "x".repeat(64 * 1024 - 1))).await,
        413
    );
    assert_eq!(
        status(format!("[\"{}\"]", "x".repeat(512 * 1024 - 4))).await,
        200
    );
    assert_eq!(
        status(format!("[\"{}\"]", "x".repeat(512 * 1024 - 3))).await,
        413
    );
    assert_eq!(
        status(format!("{{\"a\":\"{}\"}}", "x".repeat(100 * 1024))).await,
        413
    );
}

#[tokio::test]
async fn a_chunked_body_has_the_same_limits() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        webhook.path()
    );

    let mut client = Client::connect(door).await.expect("connects");
    client.write(head.as_bytes()).await.expect("writes");
    for piece in ["4\r\n{\"a\"\r\n", "3\r\n:1}\r\n", "0\r\n\r\n"] {
        client.write(piece.as_bytes()).await.expect("writes");
    }
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    assert_eq!(
        world.events().await[0]
            .request
            .as_ref()
            .expect("a report")
            .body,
        b"{\"a\":1}"
    );

    let mut client = Client::connect(door).await.expect("connects");
    client.write(head.as_bytes()).await.expect("writes");
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    for _ in 0..6 {
        // The answer may come before all is written.
        let _ = client.write(chunk.as_bytes()).await;
    }
    let answer = client.answer(false).await.expect("an answer");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (413, Some("close"))
    );
    assert_eq!(world.events().await, []);
}

/// As many blanks, one in a chunk, as a body may have: each is looked at once, in however many pieces they come.
/// Looked at again for each piece they took more than 10 s of a debug build, and were not taken.
#[tokio::test]
async fn x1_blanks_that_come_one_by_one_cost_as_much_as_they_are() {
    const BLANKS: usize = 65_000;
    const PROCESSOR_SECONDS: f64 = 4.0;
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        webhook.path()
    );
    let before = gateway.metric("process_cpu_seconds_total").await;
    let mut client = Client::connect(door).await.expect("connects");
    client.write(head.as_bytes()).await.expect("writes");
    let chunks = "1\r\n \r\n".repeat(BLANKS);
    client.write(chunks.as_bytes()).await.expect("writes");
    client
        .write(b"7\r\n{\"a\":1}\r\n0\r\n\r\n")
        .await
        .expect("writes");
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    let spent = gateway.metric("process_cpu_seconds_total").await - before;
    assert!(spent < PROCESSOR_SECONDS, "{spent} s for {BLANKS} blanks");
}

#[tokio::test]
async fn a_sender_that_is_still_writing_gets_to_read_its_413() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut client = Client::connect(door).await.expect("connects");
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        webhook.path(),
        4 * 1024 * 1024
    );
    client.write(head.as_bytes()).await.expect("writes");
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..64 {
        client
            .write(&piece)
            .await
            .expect("the door reads on until the sender is done");
    }
    assert_eq!(client.answer(false).await.expect("an answer").status, 413);
}

#[tokio::test]
async fn expect_100_continue_is_met_only_for_a_body_that_is_wanted() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let head = |length: usize| {
        format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n",
            webhook.path()
        )
    };
    let first_line = async |client: &mut Client| {
        use tokio::io::AsyncReadExt;
        let mut line = [0_u8; 12];
        client
            .stream()
            .read_exact(&mut line)
            .await
            .expect("an answer");
        String::from_utf8_lossy(&line).into_owned()
    };
    let mut wanted = Client::connect(door).await.expect("connects");
    wanted.write(head(2).as_bytes()).await.expect("writes");
    assert_eq!(first_line(&mut wanted).await, "HTTP/1.1 100");
    let mut unwanted = Client::connect(door).await.expect("connects");
    unwanted
        .write(head(10_000_000).as_bytes())
        .await
        .expect("writes");
    assert_eq!(first_line(&mut unwanted).await, "HTTP/1.1 413");
}

#[tokio::test]
async fn an_accounts_batches_have_an_allowance_and_nobody_elses_reports_wait_for_it() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let another_account = builders::account(&world.sql).await;
    let another = builders::webhook(&world.sql, another_account, &WebhookSpec::open()).await;
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_BATCH_EVENTS_BURST", 1_100)
        .env("TRUEUP_BATCH_EVENTS_PER_SECOND", 1)
        .ready()
        .await;
    let door = door(&mut gateway, &another).await;
    let batch = format!("[{}7]", "7,".repeat(499));
    let send =
        async |webhook: &Webhook, body: &str| post(door, webhook, "198.51.100.7", &[], body).await;
    let taken = [send(&webhook, &batch).await, send(&webhook, &batch).await];
    assert!(taken.iter().all(|answer| answer.status == 200));
    let refused = send(&webhook, &batch).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(send(&webhook, "{\"payout\":1}").await.status, 200);
    assert_eq!(send(&another, &batch).await.status, 200);
}

#[tokio::test]
async fn a_batch_that_the_broker_did_not_take_uses_up_no_allowance() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let cutter = FaultProxy::to(world.lease.amqp_server()).await;
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", world.lease.amqp_through(cutter.address))
        .env("TRUEUP_BATCH_EVENTS_BURST", 500)
        .env("TRUEUP_BATCH_EVENTS_PER_SECOND", 1)
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    let batch = format!("[{}7]", "7,".repeat(499));
    let send = async |body: &str| post(door, &webhook, "198.51.100.7", &[], body).await;
    cutter.cut();
    for _ in 0..3 {
        let refused = send(&batch).await;
        assert_eq!(refused.status, 503);
        assert!(!refused.text().contains("too many"), "{}", refused.text());
    }
    cutter.restore();
    eventually(
        "the broker takes reports",
        Duration::from_secs(15),
        async || (send("{\"payout\":1}").await.status == 200).then_some(()),
    )
    .await;
    let taken = send(&batch).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert_eq!(send(&batch).await.status, 503, "the burst is used up now");
}

#[tokio::test]
async fn x3_a_large_batch_is_the_same_batch_in_several_messages() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let element = format!("{{\"note\":\"{}\"}}", "x".repeat(1_000));
    let batch = format!("[{}]", vec![element; 500].join(","));
    let answer = post(door, &webhook, "198.51.100.7", &[], &batch).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let envelopes = world.envelopes().await;
    assert!(envelopes.len() > 1, "{} message", envelopes.len());
    let events: Vec<_> = envelopes.into_iter().flat_map(|e| e.events).collect();
    let positions: Vec<u16> = events.iter().map(|event| event.position).collect();
    assert_eq!(positions, (0..500).collect::<Vec<u16>>());
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(answer.json()["event_ids"], serde_json::json!(ids));
    let head = events[0].id;
    let of_batch = events.iter().skip(1).map(|event| &event.request);
    assert!(
        of_batch
            .flatten()
            .all(|request| request.batch_of == Some(head))
    );
}
