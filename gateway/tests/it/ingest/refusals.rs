//! Refused requests in Recent events: counted, told within 15 s, never a flood.

use std::collections::BTreeMap;
use std::time::Duration;

use trueup_event::raw_event::RawEvent;
use trueup_testkit::builders::WebhookSpec;
use trueup_testkit::eventually;

use super::{World, door, post};

/// The contract's 15 s, less what the worker needs.
const TOLD_WITHIN: Duration = Duration::from_secs(12);

#[tokio::test]
async fn each_reason_is_told_with_its_count_and_nothing_of_the_request() {
    let world = World::new().await;
    let mut spec = WebhookSpec::with_secret("s3cret");
    spec.limit_per_minute = Some(2);
    let webhook = world.webhook(&spec).await;
    let paused = world
        .webhook(&WebhookSpec {
            paused: true,
            ..WebhookSpec::with_secret("other")
        })
        .await;
    let mut gateway = world
        .gateway()
        .env("TRUEUP_LIMIT_IP_PER_MINUTE", 6)
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;

    let good = [("X-Webhook-Secret", "s3cret")];
    let send = async |from: &str, headers: &[(&str, &str)], body: &str| {
        post(door, &webhook, from, headers, body).await.status
    };
    assert_eq!(send("198.51.100.1", &[], "{\"payout\":1}").await, 401);
    assert_eq!(send("198.51.100.1", &[], "{\"payout\":1}").await, 401);
    assert_eq!(
        send("198.51.100.1", &[("X-Webhook-Secret", "no")], "{}").await,
        401
    );
    assert_eq!(send("198.51.100.2", &good, &"x".repeat(70_000)).await, 413);
    assert_eq!(send("198.51.100.2", &good, "{}").await, 200);
    for _ in 0..3 {
        assert_eq!(send("198.51.100.2", &good, "{}").await, 429);
    }
    for n in 0..10 {
        assert_eq!(
            send("198.51.100.3", &[], "{}").await,
            if n < 6 { 401 } else { 429 }
        );
    }
    assert_eq!(
        post(door, &paused, "198.51.100.4", &[], "{\"payout\":1}")
            .await
            .status,
        200
    );

    let mut rows: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut told: Vec<RawEvent> = Vec::new();
    let ours = |event: &RawEvent| {
        event.refusal.is_some() && event.source_ip.to_string() != "203.0.113.254"
    };
    eventually("six reasons", TOLD_WITHIN, async || {
        for event in world.events().await.into_iter().filter(ours) {
            let refusal = event.refusal.clone().expect("filtered");
            let key = (
                refusal.reason.code().to_owned(),
                event.source_ip.to_string(),
            );
            *rows.entry(key).or_default() += refusal.count;
            told.push(event);
        }
        (rows.len() >= 7).then_some(())
    })
    .await;
    let expected = [
        (("body_too_large", "198.51.100.2"), 1),
        (("endpoint_disabled", "198.51.100.4"), 1),
        (("rate_limited_ip", "198.51.100.3"), 4),
        (("rate_limited_token", "198.51.100.2"), 3),
        (("secret_mismatch", "198.51.100.1"), 1),
        (("secret_missing", "198.51.100.1"), 2),
        (("secret_missing", "198.51.100.3"), 6),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|((reason, ip), n)| ((reason.to_owned(), ip.to_owned()), n))
        .collect();
    assert_eq!(rows, expected);
    assert!(
        told.iter().all(|event| event.request.is_none()),
        "no body is kept"
    );
    assert!(
        told.iter()
            .all(|event| [webhook.id, paused.id].contains(&event.webhook_id))
    );
}

#[tokio::test]
async fn an_address_that_goes_on_knocking_has_one_row_in_ten_seconds() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::with_secret("s3cret")).await;
    let mut gateway = world.generous_gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut told: Vec<RawEvent> = Vec::new();
    let mut sent = 0;
    let mut knock = tokio::time::interval(Duration::from_millis(500));
    eventually("three rows", TOLD_WITHIN * 3, async || {
        knock.tick().await;
        assert_eq!(
            post(door, &webhook, "198.51.100.1", &[], "{}").await.status,
            401
        );
        sent += 1;
        told.extend(
            world
                .events()
                .await
                .into_iter()
                .filter(|event| event.source_ip.to_string() == "198.51.100.1"),
        );
        (told.len() >= 3).then_some(())
    })
    .await;
    for pair in told.windows(2) {
        let between = pair[1].received_at.duration_since(pair[0].received_at);
        assert!(between.as_millis() >= 9_900, "two rows within {between:?}");
    }
    let counted: u32 = told
        .iter()
        .filter_map(|event| event.refusal.as_ref())
        .map(|refusal| refusal.count)
        .sum();
    assert!(
        counted <= sent && counted >= sent - 3,
        "{counted} of {sent} were told so far"
    );
}
