//! SIGTERM: everything that was accepted is answered, every 200 is on the broker, the exit code says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trueup_testkit::builders::WebhookSpec;
use trueup_testkit::http::Client;
use trueup_testkit::process::Process;

use super::{World, door, post};

fn unlimited() -> WebhookSpec {
    WebhookSpec {
        limit_per_minute: Some(1_000_000),
        ..WebhookSpec::open()
    }
}

#[tokio::test]
async fn an_idle_door_ends_at_once_and_with_0() {
    let world = World::new().await;
    let webhook = world.webhook(&unlimited()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut idle = Client::connect(door).await.expect("connects");
    assert_eq!(
        idle.send("GET", &webhook.path(), &[], b"")
            .await
            .expect("an answer")
            .status,
        200
    );
    gateway.terminate();
    assert_eq!(gateway.exit_code(Duration::from_secs(5)).await, 0);
    assert!(Client::connect(door).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_and_the_exit_code_says_so() {
    let world = World::new().await;
    let webhook = world.webhook(&unlimited()).await;
    let mut gateway = world.gateway().env("TRUEUP_GRACE_SECONDS", 1).ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut slow = Client::connect(door).await.expect("connects");
    let half = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{{\"payout\"",
        webhook.path()
    );
    slow.write(half.as_bytes()).await.expect("writes");
    // Until it is in the handler's hands.
    assert_eq!(
        post(door, &webhook, "198.51.100.7", &[], "{}").await.status,
        200
    );
    gateway.terminate();
    assert_eq!(gateway.exit_code(Duration::from_secs(10)).await, 75);
}

#[tokio::test]
async fn what_was_refused_is_told_before_the_end() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::with_secret("s3cret")).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    assert_eq!(
        post(door, &webhook, "198.51.100.7", &[], "{}").await.status,
        401
    );
    gateway.terminate();
    assert_eq!(gateway.exit_code(Duration::from_secs(5)).await, 0);
    let told = world.events().await;
    assert!(
        told.iter()
            .any(|e| e.source_ip.to_string() == "198.51.100.7" && e.refusal.is_some())
    );
}

/// Sends until told to stop; reconnects to the other gateway when one goes away. Answers the ids that
/// were accepted, and how many requests failed although the client came again.
async fn keep_sending(
    doors: Arc<[std::net::SocketAddr]>,
    path: String,
    n: usize,
    stop: Arc<AtomicBool>,
) -> (Vec<String>, u32) {
    let from = format!("10.1.{}.{}", n / 250, n % 250);
    let headers = [("X-Forwarded-For", from.as_str())];
    let (mut accepted, mut failed, mut at) = (Vec::new(), 0, n);
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut answered = false;
        for _try in 0..4 {
            let mut mine = match client.take() {
                Some(client) => client,
                None => {
                    at += 1;
                    match Client::connect(doors[at % doors.len()]).await {
                        Ok(client) => client,
                        Err(_) => continue,
                    }
                }
            };
            let Ok(answer) = mine.send("POST", &path, &headers, b"{\"payout\":1}").await else {
                continue;
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
            accepted.push(
                answer.json()["event_id"]
                    .as_str()
                    .expect("an id")
                    .to_owned(),
            );
            if answer.header("connection") != Some("close") {
                client = Some(mine);
            }
            answered = true;
            break;
        }
        failed += u32::from(!answered);
    }
    (accepted, failed)
}

/// A sender that keeps its connection and never sends twice.
async fn never_twice(door: std::net::SocketAddr, path: String, n: usize) -> Vec<String> {
    let from = format!("10.2.0.{n}");
    let headers = [("X-Forwarded-For", from.as_str())];
    let mut client = Client::connect(door).await.expect("connects");
    let mut accepted = Vec::new();
    loop {
        let answer = client
            .send("POST", &path, &headers, b"{\"payout\":1}")
            .await;
        let answer = answer.expect("a request on an open connection is answered");
        assert_eq!(answer.status, 200, "{}", answer.text());
        accepted.push(
            answer.json()["event_id"]
                .as_str()
                .expect("an id")
                .to_owned(),
        );
        if answer.header("connection") == Some("close") {
            return accepted;
        }
    }
}

#[tokio::test]
async fn a_stop_under_load_tells_each_sender_which_answer_is_the_last() {
    let world = World::new().await;
    let webhook = world.webhook(&unlimited()).await;
    let mut gateway = world.generous_gateway().ready().await;
    let public = door(&mut gateway, &webhook).await;
    world.events().await;
    let mut senders = tokio::task::JoinSet::new();
    for n in 0..16 {
        senders.spawn(never_twice(public, webhook.path(), n));
    }
    trueup_testkit::eventually("load", Duration::from_secs(20), async || {
        (gateway
            .metric("trueup_gateway_responses_total{result=\"accepted\"}")
            .await
            > 300.0)
            .then_some(())
    })
    .await;
    // One that is let in but has not yet spoken may still say what it came for.
    let mut late = Client::connect(public).await.expect("connects");
    gateway.terminate();
    let answer = late
        .send("POST", &webhook.path(), &[], b"{\"payout\":1}")
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200);
    let accepted: BTreeSet<String> = senders.join_all().await.into_iter().flatten().collect();
    assert_eq!(gateway.exit_code(Duration::from_secs(10)).await, 0);
    let events: BTreeSet<String> = world
        .events()
        .await
        .into_iter()
        .map(|e| e.id.to_string())
        .collect();
    assert!(
        accepted.len() > 300 && accepted.is_subset(&events),
        "every 200 is on the broker"
    );
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_no_request_and_no_report() {
    let world = World::new().await;
    let webhook = world.webhook(&unlimited()).await;
    let start = |port: u16| {
        world
            .gateway()
            .env("TRUEUP_LIMIT_IP_PER_MINUTE", 1_000_000)
            .env("TRUEUP_GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
    };
    let mut gateways: Vec<Process> = vec![start(0).ready().await, start(0).ready().await];
    let mut doors = Vec::new();
    for gateway in &mut gateways {
        doors.push(door(gateway, &webhook).await);
    }
    let doors: Arc<[_]> = doors.into();
    world.events().await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = tokio::task::JoinSet::new();
    for n in 0..16 {
        senders.spawn(keep_sending(
            Arc::clone(&doors),
            webhook.path(),
            n,
            Arc::clone(&stop),
        ));
    }
    for at in 0..2 {
        let before = gateways[1 - at]
            .metric("trueup_gateway_responses_total{result=\"accepted\"}")
            .await;
        gateways[at].terminate();
        assert_eq!(gateways[at].exit_code(Duration::from_secs(10)).await, 0);
        gateways[at] = start(doors[at].port()).ready().await;
        let other = &mut gateways[1 - at];
        while other
            .metric("trueup_gateway_responses_total{result=\"accepted\"}")
            .await
            < before + 200.0
        {
            tokio::task::yield_now().await;
        }
        // The new one takes part before the other goes.
        let mine = door(&mut gateways[at], &webhook).await;
        assert_eq!(mine, doors[at]);
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = BTreeSet::new();
    for (ids, failed) in senders.join_all().await {
        assert_eq!(failed, 0);
        accepted.extend(ids);
    }
    assert!(accepted.len() > 400);
    let events: BTreeSet<String> = world
        .events()
        .await
        .into_iter()
        .map(|e| e.id.to_string())
        .collect();
    assert!(accepted.is_subset(&events), "every 200 is on the broker");
}
