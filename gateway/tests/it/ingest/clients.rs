//! Senders as they are: slow, broken, hostile, in a hurry.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use trueup_testkit::builders::WebhookSpec;
use trueup_testkit::eventually;
use trueup_testkit::http::{self, Client};

use super::{World, door, post};

#[tokio::test]
async fn what_is_no_http_is_400_and_what_is_too_large_says_so() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let path = webhook.path();
    let long = "x".repeat(9 * 1024);
    let longer = "x".repeat(80 * 1024);
    let few: String = (0..101).map(|n| format!("X-{n}: y\r\n")).collect();
    let lines: String = (0..400)
        .map(|n| format!("X-Header-{n}: {}\r\n", "y".repeat(50)))
        .collect();
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        (format!("GET {path} HTTP/9.9\r\nHost: x\r\n\r\n"), 400),
        (format!("GET {path}?a=<b> HTTP/1.1\r\nHost: x\r\n\r\n"), 400),
        (
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n"),
            400,
        ),
        (format!("GET {path} HTTP/1.1\r\nno colon here\r\n\r\n"), 400),
        (
            format!("GET {path}?{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            414,
        ),
        (
            format!("GET {path}?{longer} HTTP/1.1\r\nHost: x\r\n\r\n"),
            414,
        ),
        (
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Long: {longer}\r\n\r\n"),
            431,
        ),
        (
            format!("GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n"),
            431,
        ),
        (format!("GET {path} HTTP/1.1\r\nHost: x\r\n{few}\r\n"), 431),
        (
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n"),
            400,
        ),
        (
            format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"
            ),
            400,
        ),
        (
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            400,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        (
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n".to_owned(),
            400,
        ),
    ] {
        let mut client = Client::connect(door).await.expect("connects");
        client.write(request.as_bytes()).await.expect("writes");
        let answer = client
            .answer(false)
            .await
            .unwrap_or_else(|e| panic!("{status}: {e}"));
        let told = &request[..request.len().min(60)];
        assert_eq!(answer.status, status, "{told}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{told}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{told}");
        let body = answer.json();
        assert!(
            body["ok"] == false && body["reason"].is_string(),
            "{told}: {body}"
        );
        // Told once, and the end.
        let mut more = Vec::new();
        client
            .stream()
            .read_to_end(&mut more)
            .await
            .unwrap_or_else(|e| panic!("{told}: {e}"));
        assert!(
            more.is_empty(),
            "{told}: {}",
            String::from_utf8_lossy(&more)
        );
    }
    let count = gateway
        .metric("trueup_gateway_responses_total{result=\"malformed\"}")
        .await;
    assert_eq!(count, 10.0, "each was counted once");
    // The door is as good as before.
    assert_eq!(http::get(door, &path).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_head_that_dribbles_is_408_after_ten_seconds_and_a_body_after_twenty() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let begin = |n: u64, start: String, within: u64| async move {
        let mut client = Client::connect(door).await.expect("connects");
        client.write(start.as_bytes()).await.expect("writes");
        let began = Instant::now();
        let mut drip = tokio::time::interval(Duration::from_millis(700));
        let answer = loop {
            tokio::select! {
                answer = client.answer(false) => break answer.expect("an answer"),
                // Losing the rest of a half-read answer would fail below.
                _ = drip.tick(), if n == 0 => {}
            }
        };
        let took = began.elapsed();
        assert_eq!(answer.status, 408);
        assert_eq!(answer.json()["ok"], false);
        assert!((within..within + 3).contains(&took.as_secs()), "{took:?}");
    };
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\n", webhook.path());
    let body = format!("{head}Content-Length: 10\r\n\r\n{{\"a\"");
    tokio::join!(begin(1, head, 10), begin(1, body, 20));
}

#[tokio::test]
async fn an_idle_connection_outlives_a_load_balancers_and_a_sender_that_never_reads_is_cut_off() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let idle = async {
        let mut client = Client::connect(door).await.expect("connects");
        for _ in 0..2 {
            assert_eq!(
                client
                    .send("GET", "/elsewhere", &[], b"")
                    .await
                    .expect("an answer")
                    .status,
                404
            );
            // time passes: balancers keep an idle connection for 60 to 75 s.
            tokio::time::sleep(Duration::from_secs(76)).await;
        }
        let rest =
            tokio::time::timeout(Duration::from_secs(20), client.stream().read(&mut [0])).await;
        assert_eq!(rest.expect("it ends some time").expect("in order"), 0);
    };
    let deaf = async {
        let mut client = Client::connect(door).await.expect("connects");
        let many = "GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
        let began = Instant::now();
        while client.write(many.as_bytes()).await.is_ok() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it is served for ever"
            );
        }
        let took = began.elapsed().as_secs();
        assert!((20..45).contains(&took), "{took} s");
    };
    tokio::join!(idle, deaf);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut client = Client::connect(door).await.expect("connects");
    let good = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}",
        webhook.path()
    );
    let other = "GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n";
    client
        .write(format!("{good}{other}{good}nonsense\r\n\r\n").as_bytes())
        .await
        .expect("writes");
    for status in [200, 404, 200, 400] {
        let answer = client.answer(false).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["ok"].as_bool()),
            (status, Some(status == 200))
        );
    }
}

#[tokio::test]
async fn a_sender_that_has_closed_its_side_still_gets_its_answer() {
    use tokio::io::AsyncWriteExt;
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut client = Client::connect(door).await.expect("connects");
    let request = format!(
        "GET {}?payout=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        webhook.path()
    );
    client.write(request.as_bytes()).await.expect("writes");
    client.stream().shutdown().await.expect("closes");
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_event() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let mut client = Client::connect(door).await.expect("connects");
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{{\"payout\"",
        webhook.path()
    );
    client.write(request.as_bytes()).await.expect("writes");
    drop(client);
    assert_eq!(
        post(door, &webhook, "198.51.100.7", &[], "{}").await.status,
        200
    );
    assert_eq!(world.events().await.len(), 1);
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_for_each_address() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    for (variable, proxies, why) in [
        ("TRUEUP_MAX_CONNECTIONS", "127.0.0.1/32", "total"),
        ("TRUEUP_MAX_CONNECTIONS_PER_ADDRESS", "", "address"),
    ] {
        let start = world
            .gateway()
            .env(variable, 20)
            .env("TRUEUP_TRUSTED_PROXIES", proxies);
        let mut gateway = start.ready().await;
        let door = door(&mut gateway, &webhook).await;
        let mut kept = Vec::new();
        for _ in 0..20 {
            let mut client = Client::connect(door).await.expect("connects");
            // A place may still be held by the connection of the probe.
            eventually("a place", Duration::from_secs(5), async || {
                if client
                    .send("GET", "/elsewhere", &[], b"")
                    .await
                    .is_ok_and(|a| a.status == 404)
                {
                    return Some(());
                }
                client = Client::connect(door).await.expect("connects");
                None
            })
            .await;
            kept.push(client);
        }
        let mut over = Client::connect(door).await.expect("the kernel lets it in");
        let told = over.answer(false).await.expect("who is sent away is told");
        assert_eq!(
            (told.status, told.json()["ok"].as_bool()),
            (503, Some(false))
        );
        assert!(told.header("retry-after").is_some());
        // Also one that speaks at once.
        assert_eq!(
            http::get(door, "/elsewhere")
                .await
                .expect("an answer")
                .status,
            503
        );
        let refused = format!("trueup_gateway_connections_refused_total{{reason=\"{why}\"}}");
        assert!(gateway.metric(&refused).await >= 1.0);
        assert_eq!(
            kept[0]
                .send("GET", "/elsewhere", &[], b"")
                .await
                .expect("an answer")
                .status,
            404
        );
        drop(kept);
        eventually("places again", Duration::from_secs(5), || async {
            http::get(door, "/elsewhere")
                .await
                .ok()
                .filter(|a| a.status == 404)
        })
        .await;
    }
}

/// Of 300 reports, one after the other.
async fn p99(door: std::net::SocketAddr, webhook: &trueup_testkit::builders::Webhook) -> Duration {
    let mut times = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        assert_eq!(
            post(door, webhook, "198.51.100.7", &[], "{}").await.status,
            200
        );
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[297]
}

#[tokio::test]
async fn slow_heads_by_the_thousand_do_not_slow_the_others() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(100_000),
            ..WebhookSpec::open()
        })
        .await;
    let mut gateway = world
        .gateway()
        .env("TRUEUP_LIMIT_IP_PER_MINUTE", 100_000)
        .env("TRUEUP_MAX_CONNECTIONS", 6000)
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    let before = gateway.metric("process_resident_memory_bytes").await;
    let alone = p99(door, &webhook).await;
    let mut slow = Vec::new();
    // As many as the test's own descriptors allow, up to 5,000.
    let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let most = nix::sys::resource::getrlimit(files).expect("a limit").1;
    nix::sys::resource::setrlimit(files, most, most).expect("up to the hard limit");
    for _ in 0..usize::try_from(most.saturating_sub(200))
        .unwrap_or(5000)
        .min(5000)
    {
        let mut client = Client::connect(door).await.expect("connects");
        client
            .write(b"POST /api/v1/ppc/inbound-webhooks/x HTTP/1.1\r\nHost: ")
            .await
            .expect("writes");
        slow.push(client);
    }
    let with = p99(door, &webhook).await;
    let grown = gateway.metric("process_resident_memory_bytes").await - before;
    assert!(
        grown < 20_000.0 * slow.len() as f64 + 16e6,
        "{grown} bytes for {}",
        slow.len()
    );
    // Each is told before it is closed.
    let answer = slow[0].answer(false).await.expect("an answer");
    assert_eq!(answer.status, 408);
    // Against the same machine before and after: it may be busy with other tests.
    drop(slow);
    let alone = alone.max(p99(door, &webhook).await);
    let most = (alone * 3).max(Duration::from_millis(50));
    assert!(
        with < most,
        "p99 {with:?} with the slow ones, {alone:?} alone"
    );
}
