//! More connections than there is room for: descriptors run out, memory does not.

use std::time::Duration;

use trueup_testkit::builders::WebhookSpec;
use trueup_testkit::eventually;
use trueup_testkit::http::{self, Client};
use trueup_testkit::process::Process;
use trueup_testkit::tcp_proxy::FaultProxy;

use super::{World, door, post};

/// Opens connections that say half a head, until one cannot be had.
async fn half_heads(public: std::net::SocketAddr, n: usize) -> Vec<Client> {
    let mut all = Vec::new();
    for _ in 0..n {
        let Ok(mut client) = Client::connect(public).await else {
            break;
        };
        if client
            .write(b"POST /api/v1/ppc/inbound-webhooks/x HTTP/1.1\r\nHost: ")
            .await
            .is_ok()
        {
            all.push(client);
        }
    }
    all
}

fn limit_files(gateway: &Process, files: usize) {
    let status = std::process::Command::new("prlimit")
        .args([
            "--pid",
            &gateway.id().to_string(),
            &format!("--nofile={files}:4096"),
        ])
        .status()
        .expect("prlimit (package util-linux)");
    assert!(status.success());
}

#[tokio::test]
async fn a_door_full_of_strangers_still_reaches_its_neighbours_and_answers_a_probe() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let broker = FaultProxy::to(world.lease.amqp_server()).await;
    let url = world.lease.amqp_through(broker.address);
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", url)
        .files(300)
        .ready()
        .await;
    let public = door(&mut gateway, &webhook).await;
    let strangers = half_heads(public, 400).await;
    // The page of figures has a thread of its own: it may answer before the door has seen all of them.
    let refused = "trueup_gateway_connections_refused_total{reason=\"total\"}";
    eventually(
        "strangers are refused",
        Duration::from_secs(10),
        async || (gateway.metric(refused).await > 0.0).then_some(()),
    )
    .await;

    // The broker's connection is lost meanwhile, and can be had again.
    broker.cut();
    eventually("the loss is seen", Duration::from_secs(10), async || {
        (gateway.readiness().await["dependencies"]["broker"]["state"] == "degraded").then_some(())
    })
    .await;
    broker.restore();
    eventually("the broker again", Duration::from_secs(15), async || {
        (gateway.readiness().await["dependencies"]["broker"]["state"] == "ok").then_some(())
    })
    .await;
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    drop(strangers);
    eventually("reports are taken", Duration::from_secs(10), async || {
        let from = [("X-Forwarded-For", "198.51.100.7")];
        let answer = http::send(public, "POST", &webhook.path(), &from, b"{}")
            .await
            .ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_descriptors_it_waits_for_one_and_does_not_spin() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.generous_gateway().ready().await;
    let public = door(&mut gateway, &webhook).await;
    let ops = gateway.address("ops").await;
    // One connection to ask for the figures by, since no other can be had soon.
    let mut probe = Client::connect(ops).await.expect("connects");
    let mut refused = async || {
        let answer = probe
            .send("GET", "/metrics", &[], b"")
            .await
            .expect("/metrics answers");
        let sample = "trueup_gateway_connections_refused_total{reason=\"descriptors\"}";
        answer
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok())
            .expect("a sample")
    };
    // Whatever it closes in this moment, the numbers below the limit are its input and outputs.
    limit_files(&gateway, 3);
    let mut waiting = Client::connect(public)
        .await
        .expect("the kernel lets it in");
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}",
        webhook.path()
    );
    waiting.write(request.as_bytes()).await.expect("writes");
    eventually(
        "descriptors have run out",
        Duration::from_secs(10),
        async || (refused().await > 2.0).then_some(()),
    )
    .await;
    let before = refused().await;
    // time passes: how often in a second is the question.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        refused().await - before <= 25.0,
        "it looks again 20 times a second, not more"
    );

    limit_files(&gateway, 4096);
    assert_eq!(
        waiting.answer(false).await.expect("an answer").status,
        200,
        "who waited is served"
    );
    assert_eq!(
        post(public, &webhook, "198.51.100.7", &[], "{}")
            .await
            .status,
        200
    );
}

/// speed.md's figure for idle connections.
const IDLE: usize = 10_000;
const IDLE_BYTES: f64 = 256.0 * 1024.0 * 1024.0;

#[tokio::test]
async fn ten_thousand_idle_connections_take_less_than_256_mib() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.generous_gateway().ready().await;
    let public = door(&mut gateway, &webhook).await;
    let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let most = nix::sys::resource::getrlimit(files).expect("a limit").1;
    nix::sys::resource::setrlimit(files, most, most).expect("up to the hard limit");
    // As many as the descriptors of both sides allow.
    let wanted = usize::try_from(most.saturating_sub(500))
        .unwrap_or(IDLE)
        .min(IDLE);
    let mut idle = Vec::new();
    for _ in 0..wanted {
        let mut client = Client::connect(public).await.expect("connects");
        // Each has been used: a connection that never spoke costs less.
        assert_eq!(
            client
                .send("POST", "/elsewhere", &[], b"{}")
                .await
                .expect("an answer")
                .status,
            404
        );
        idle.push(client);
    }
    let bytes = gateway.metric("process_resident_memory_bytes").await;
    println!(
        "{} idle connections: {:.1} MiB resident",
        idle.len(),
        bytes / 1024.0 / 1024.0
    );
    assert!(
        bytes < IDLE_BYTES,
        "{bytes} bytes with {} idle connections",
        idle.len()
    );
    assert_eq!(
        post(public, &webhook, "198.51.100.7", &[], "{}")
            .await
            .status,
        200
    );
}
