//! The limits: exact in any rolling minute, over two gateways, and never the buyer's loss.

use std::net::SocketAddr;

use trueup_testkit::builders::{Webhook, WebhookSpec};

use super::{World, door, post};

impl World {
    /// As if so many seconds had gone by since everything that Redis has counted.
    async fn age(&self, seconds: u32) {
        const AGE: &str = "for _, k in ipairs(redis.call('KEYS', '*:l:*')) do \
             local t = redis.call('LRANGE', k, 0, -1) \
             for i, v in ipairs(t) do redis.call('LSET', k, i - 1, string.format('%.0f', tonumber(v) - ARGV[1] * 1000000)) end \
             end return 1";
        let answer = self
            .lease
            .redis(&["EVAL", AGE, "0", &seconds.to_string()])
            .await;
        assert!(answer.starts_with(":1"), "{answer}");
    }
}

/// How many of so many pass, sent to two gateways in turn.
async fn passes(doors: &[SocketAddr; 2], webhook: &Webhook, from: &str, n: usize) -> usize {
    let mut passed = 0;
    for at in 0..n {
        let answer = post(doors[at % 2], webhook, from, &[], "{}").await;
        match answer.status {
            200 => passed += 1,
            429 => {}
            other => panic!("{other}: {}", answer.text()),
        }
    }
    passed
}

#[tokio::test]
async fn fifty_from_one_address_in_any_minute_over_two_gateways() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    // A gateway remembers what it refused; those of the next step have to ask Redis.
    let fresh = async || {
        let start = world.gateway();
        let (mut one, mut other) = tokio::join!(start.ready(), start.ready());
        let doors = [
            door(&mut one, &webhook).await,
            door(&mut other, &webhook).await,
        ];
        (one, other, doors)
    };
    for (address, phase) in [
        ("198.51.100.1", 0),
        ("198.51.100.2", 17),
        ("198.51.100.3", 31),
        ("2001:db8::7", 45),
    ] {
        let (_one, _other, doors) = fresh().await;
        assert_eq!(passes(&doors, &webhook, address, 20).await, 20);
        world.age(phase).await;
        assert_eq!(
            passes(&doors, &webhook, address, 40).await,
            30,
            "{address}: the 51st of a minute is refused"
        );

        // Some 50 s after the first: nothing has fallen out of the minute yet.
        let (_one, _other, doors) = fresh().await;
        world.age(50 - phase).await;
        assert_eq!(passes(&doors, &webhook, address, 4).await, 0, "{address}");

        // 61 s after the first: as many may pass again as came then.
        let (_one, _other, doors) = fresh().await;
        world.age(11).await;
        let again = if phase == 0 { 50 } else { 20 };
        assert_eq!(
            passes(&doors, &webhook, address, again + 10).await,
            again,
            "{address}"
        );
    }
}

#[tokio::test]
async fn an_ipv6_customer_is_one_sender_and_an_untrusted_hop_speaks_for_nobody_else() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    for (from, other) in [
        // One customer has a /64 of addresses.
        (
            ["2001:db8:0:7::1", "2001:db8:0:7:ffff::2"],
            "2001:db8:0:8::1",
        ),
        // Left of the hop that our proxy saw, a sender may write what it likes.
        (
            ["1.1.1.1, 198.51.100.1", "2.2.2.2,198.51.100.1"],
            "198.51.100.1, 198.51.100.2",
        ),
    ] {
        let mut passed = 0;
        for n in 0..60 {
            passed += usize::from(post(door, &webhook, from[n % 2], &[], "{}").await.status == 200);
        }
        assert_eq!(passed, 50, "{from:?}");
        assert_eq!(
            post(door, &webhook, other, &[], "{}").await.status,
            200,
            "{other}"
        );
    }

    // Without a trusted proxy nobody's header is believed.
    let mut gateway = world
        .gateway()
        .env("TRUEUP_TRUSTED_PROXIES", "")
        .ready()
        .await;
    let door = gateway.address("public").await;
    let mut passed = 0;
    for n in 0..60 {
        passed += usize::from(
            post(door, &webhook, &format!("198.51.100.{n}"), &[], "{}")
                .await
                .status
                == 200,
        );
    }
    assert_eq!(passed, 50, "all came from here");
}

#[tokio::test]
async fn a_crowd_at_two_gateways_at_once_gets_exactly_its_limit() {
    let world = World::new().await;
    for (limit, exactly) in [(37, true), (1200, false)] {
        let webhook = world
            .webhook(&WebhookSpec {
                limit_per_minute: Some(limit),
                ..WebhookSpec::open()
            })
            .await;
        let start = world.gateway();
        let (mut one, mut other) = tokio::join!(start.ready(), start.ready());
        let doors = [
            door(&mut one, &webhook).await,
            door(&mut other, &webhook).await,
        ];
        // The probes for the webhook have been counted, too.
        let used = 2;
        let mut senders = tokio::task::JoinSet::new();
        for n in 0..40_usize {
            let webhook = webhook.clone();
            senders.spawn(async move {
                let mut passed = 0;
                for m in 0..40 {
                    let from = format!("10.{n}.{m}.1");
                    passed += usize::from(
                        post(doors[(n + m) % 2], &webhook, &from, &[], "{}")
                            .await
                            .status
                            == 200,
                    );
                }
                passed
            });
        }
        let passed: usize = senders.join_all().await.into_iter().sum();
        let limit = usize::try_from(limit).expect("small");
        assert!(passed + used <= limit, "{passed} passed of {limit}");
        assert!(
            !exactly || passed + used >= limit,
            "{passed} passed of {limit}"
        );
    }
}

#[tokio::test]
async fn what_a_webhook_refuses_is_not_counted_at_the_address() {
    let world = World::new().await;
    let tight = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(6),
            ..WebhookSpec::open()
        })
        .await;
    let wide = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let start = world.gateway();
    let (mut one, mut other) = tokio::join!(start.ready(), start.ready());
    let doors = [door(&mut one, &tight).await, door(&mut other, &tight).await];
    let _ = (door(&mut one, &wide).await, door(&mut other, &wide).await);
    let from = "198.51.100.11";
    let passed = passes(&doors, &tight, from, 20).await;
    assert!((1..=6).contains(&passed), "{passed}");
    assert_eq!(
        passes(&doors, &wide, from, 60).await,
        50 - passed,
        "both gateways were refused once by Redis"
    );
}

#[tokio::test]
async fn an_answer_429_says_when_to_come_again() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(3),
            ..WebhookSpec::open()
        })
        .await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut last = None;
    for _ in 0..3 {
        last = Some(post(door, &webhook, "198.51.100.7", &[], "{}").await);
    }
    let answer = last.expect("three answers");
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .expect("seconds");
    assert!((1..=60).contains(&seconds));
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some("\"webhook\";q=3;w=60")
    );
    assert_eq!(
        answer.header("ratelimit"),
        Some(format!("\"webhook\";r=0;t={seconds}").as_str())
    );
    assert_eq!(answer.json()["ok"], false);
}

#[tokio::test]
async fn a_stranger_without_the_secret_cannot_use_up_the_buyers_limit() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::with_secret("s3cret")).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut strangers = tokio::task::JoinSet::new();
    for n in 0..20 {
        let webhook = webhook.clone();
        strangers.spawn(async move {
            for m in 0..50 {
                let answer = post(door, &webhook, &format!("10.0.{n}.{m}"), &[], "{}").await;
                assert_eq!(answer.status, 401);
            }
        });
    }
    let mut passed = 0;
    for n in 0..205 {
        let from = format!("192.0.2.{}", n % 10);
        let answer = post(
            door,
            &webhook,
            &from,
            &[("X-Webhook-Secret", "s3cret")],
            "{}",
        )
        .await;
        passed += usize::from(answer.status == 200);
    }
    assert_eq!(passed, 200, "the whole limit is the buyer's");
    strangers.join_all().await;
}

#[tokio::test]
async fn a_webhooks_own_limit_for_addresses_counts_when_the_secret_is_right() {
    let world = World::new().await;
    let mut spec = WebhookSpec::with_secret("s3cret");
    spec.ip_limit_per_minute = Some(70);
    let webhook = world.webhook(&spec).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let count = async |headers: &[(&str, &str)], status: u16| {
        let mut n = 0;
        for _ in 0..80 {
            n += u32::from(
                post(door, &webhook, "198.51.100.7", headers, "{}")
                    .await
                    .status
                    == status,
            );
        }
        n
    };
    assert_eq!(count(&[], 401).await, 50, "a stranger has the door's limit");
    assert_eq!(
        count(&[("X-Webhook-Secret", "s3cret")], 200).await,
        70,
        "and does not use up the other"
    );
}

/// Requests of each of the flood's 16 connections: 100,000 in all.
const EACH: u32 = 6_250;

#[tokio::test]
async fn a_flood_that_is_being_refused_costs_no_redis() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let webhook = webhook.clone();
        flood.spawn(async move {
            let mut client = trueup_testkit::http::Client::connect(door)
                .await
                .expect("connects");
            let from = [("X-Forwarded-For", "198.51.100.7")];
            let mut refused = 0;
            for _ in 0..EACH {
                let answer = client
                    .send("POST", &webhook.path(), &from, b"{}")
                    .await
                    .expect("an answer");
                refused += u32::from(answer.status == 429);
            }
            refused
        });
    }
    let refused: u32 = flood.join_all().await.into_iter().sum();
    assert_eq!(refused, 16 * EACH - 50);
    let calls = gateway
        .metric("trueup_gateway_rate_limit_redis_calls_total{outcome=\"ok\"}")
        .await;
    assert!(calls < 100.0, "{calls} calls");
    let remembered = gateway
        .metric("trueup_gateway_rate_limit_checks_total{decided_by=\"remembered\"}")
        .await;
    assert!(remembered >= f64::from(16 * EACH - 1000), "{remembered}");
}
