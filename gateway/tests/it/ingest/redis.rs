//! Redis fails in its ways; limits go on being kept, or requests are refused, as the setting says.

use std::time::{Duration, Instant};

use trueup_testkit::builders::WebhookSpec;
use trueup_testkit::eventually;
use trueup_testkit::services::redis::Redis;
use trueup_testkit::tcp_proxy::{FaultProxy, NetworkFault};

use super::outages::{assert_unavailable, state};
use super::{World, door, post};

#[tokio::test]
async fn without_redis_the_same_limits_hold_in_the_process() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let cutter = FaultProxy::to(world.lease.redis_server()).await;
    let url = world.lease.redis_through(cutter.address);
    let start = world
        .gateway()
        .env("TRUEUP_REDIS_URL", &url)
        .env("TRUEUP_LIMIT_REDIS_TIMEOUT_MS", 50);
    let mut gateway = start.ready().await;
    let door = door(&mut gateway, &webhook).await;
    eventually("Redis is used", Duration::from_secs(5), || async {
        (post(door, &webhook, "198.51.100.250", &[], "{}")
            .await
            .status
            == 200)
            .then_some(())
    })
    .await;

    for (n, network_fault) in [
        NetworkFault::Cut,
        NetworkFault::Hung,
        NetworkFault::Slow(Duration::from_millis(200)),
    ]
    .into_iter()
    .enumerate()
    {
        cutter.set(network_fault);
        let (mut passed, mut slowest) = (0, Duration::ZERO);
        let from = format!("198.51.100.{n}");
        for _ in 0..60 {
            let began = Instant::now();
            passed += u32::from(post(door, &webhook, &from, &[], "{}").await.status == 200);
            slowest = slowest.max(began.elapsed());
        }
        assert_eq!(passed, 50, "{network_fault:?}");
        assert!(
            slowest < Duration::from_secs(1),
            "{slowest:?} with {network_fault:?}"
        );
        assert_eq!(state(&mut gateway, "redis").await, "degraded");
        cutter.restore();
        let before = gateway
            .metric("trueup_gateway_rate_limit_checks_total{decided_by=\"redis\"}")
            .await;
        for at in 0.. {
            post(
                door,
                &webhook,
                &format!("203.0.113.{}", at % 200),
                &[],
                "{}",
            )
            .await;
            if gateway
                .metric("trueup_gateway_rate_limit_checks_total{decided_by=\"redis\"}")
                .await
                > before
            {
                break;
            }
            assert!(at < 1000, "Redis is not used again");
        }
        assert_eq!(state(&mut gateway, "redis").await, "ok");
    }
    assert!(
        gateway
            .metric("trueup_gateway_rate_limit_checks_total{decided_by=\"local\"}")
            .await
            >= 100.0
    );
}

#[tokio::test]
async fn without_redis_it_can_be_told_to_refuse() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let cutter = FaultProxy::to(world.lease.redis_server()).await;
    let url = world.lease.redis_through(cutter.address);
    let start = world
        .generous_gateway()
        .env("TRUEUP_REDIS_URL", &url)
        .env("TRUEUP_LIMIT_REDIS_DOWN", "refuse");
    let mut gateway = start.ready().await;
    let door = door(&mut gateway, &webhook).await;
    eventually("Redis is used", Duration::from_secs(5), || async {
        (post(door, &webhook, "198.51.100.1", &[], "{}").await.status == 200).then_some(())
    })
    .await;
    cutter.cut();
    let began = Instant::now();
    assert_unavailable(
        &post(door, &webhook, "198.51.100.1", &[], "{}").await,
        began,
    );
    cutter.restore();
    eventually("Redis is used again", Duration::from_secs(5), || async {
        (post(door, &webhook, "198.51.100.1", &[], "{}").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_was_replaced_learns_the_script() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    assert_eq!(
        post(door, &webhook, "198.51.100.1", &[], "{}").await.status,
        200
    );
    world.lease.redis(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(
        post(door, &webhook, "198.51.100.1", &[], "{}").await.status,
        200
    );
    assert_eq!(
        gateway
            .metric("trueup_gateway_rate_limit_checks_total{decided_by=\"local\"}")
            .await,
        0.0
    );
}

/// The first line of the answer.
async fn say(redis: &Redis, command: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", redis.port))
        .await
        .expect("it runs");
    stream
        .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
        .await
        .expect("writes");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_redis_that_answers_but_cannot_count_is_no_redis_and_the_ready_page_says_so() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let own = Redis::start().expect("tests need redis-server");
    let url = own.url();
    let mut gateway = world.gateway().env("TRUEUP_REDIS_URL", url).ready().await;
    let public = door(&mut gateway, &webhook).await;
    assert_eq!(state(&mut gateway, "redis").await, "ok");
    let illnesses = [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    ];
    for (n, (ill, well)) in illnesses.into_iter().enumerate() {
        assert_eq!(say(&own, ill).await, "+OK");
        let from = format!("198.51.100.{n}");
        let mut passed = 0;
        for _ in 0..60 {
            passed += u32::from(post(public, &webhook, &from, &[], "{}").await.status == 200);
        }
        assert_eq!(passed, 50, "{ill}: the same limit holds");
        let tried = gateway
            .metric("trueup_gateway_rate_limit_redis_calls_total{outcome=\"error\"}")
            .await;
        assert!(tried <= 10.0, "{ill}: {tried} calls that could not help");
        assert_eq!(state(&mut gateway, "redis").await, "degraded", "{ill}");
        assert_eq!(say(&own, well).await, "+OK");
        eventually("Redis is used again", Duration::from_secs(5), async || {
            (state(&mut gateway, "redis").await == "ok").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_redis_that_dies_and_one_that_comes_up_empty_in_its_place_let_nobody_through_twice() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let mut own = Redis::start().expect("tests need redis-server");
    let port = own.port;
    let mut gateway = world
        .gateway()
        .env("TRUEUP_REDIS_URL", format!("redis://127.0.0.1:{port}"))
        .ready()
        .await;
    let public = door(&mut gateway, &webhook).await;
    let passes = async |n: u32| {
        let mut passed = 0;
        for _ in 0..n {
            passed += u32::from(
                post(public, &webhook, "198.51.100.1", &[], "{}")
                    .await
                    .status
                    == 200,
            );
        }
        passed
    };
    assert_eq!(passes(20).await, 20);
    own.kill();
    assert_eq!(passes(20).await, 20);
    assert_eq!(state(&mut gateway, "redis").await, "degraded");
    own.restart().expect("tests need redis-server");
    eventually("the new one is used", Duration::from_secs(5), async || {
        (state(&mut gateway, "redis").await == "ok").then_some(())
    })
    .await;
    assert_eq!(
        passes(30).await,
        10,
        "what passed before the new one's time still counts"
    );
    assert!(
        gateway
            .metric("trueup_gateway_rate_limit_checks_total{decided_by=\"local\"}")
            .await
            >= 20.0
    );
}
