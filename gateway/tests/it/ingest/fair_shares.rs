//! Nobody can hold up anybody else: places, heads, bodies and rows of refusals have fair shares.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use trueup_event::raw_event::RawEvent;
use trueup_testkit::builders::{Webhook, WebhookSpec};
use trueup_testkit::eventually;
use trueup_testkit::http::{self, Client};
use trueup_testkit::tcp_proxy::{FaultProxy, NetworkFault};

use super::{World, door, post};

const MIB: f64 = 1024.0 * 1024.0;
/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Refusals are told every 10 s.
const TOLD_WITHIN: Duration = Duration::from_secs(12);

/// This machine has the whole of 127/8: each of its addresses is a network of its own.
fn network(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 1, n))
}

async fn connect_from(network: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::new(network, 0))
        .expect("an address of this machine");
    socket.connect(to).await.expect("the kernel lets it in")
}

/// The status of the next answer; none if the connection ended without one.
async fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut said = Vec::new();
    let reading = async {
        while !said.contains(&b'\n') {
            let mut piece = [0_u8; 512];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => said.extend_from_slice(&piece[..n]),
            }
        }
        String::from_utf8_lossy(&said)
            .split(' ')
            .nth(1)?
            .parse()
            .ok()
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an answer or an end")
}

fn report(webhook: &Webhook, body: &str) -> String {
    format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        webhook.path(),
        body.len()
    )
}

/// A report on a connection of its own.
async fn send_from(network: IpAddr, to: SocketAddr, webhook: &Webhook) -> Option<u16> {
    let mut stream = connect_from(network, to).await;
    stream
        .write_all(report(webhook, "{\"payout\":1}").as_bytes())
        .await
        .ok()?;
    status(&mut stream).await
}

/// Networks that fill the door, and connections of each.
const CROWD: u8 = 20;
const EACH: u8 = 20;

#[tokio::test]
async fn networks_that_fill_the_door_with_half_requests_keep_no_newcomer_out() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let broker = FaultProxy::to(world.lease.amqp_server()).await;
    let url = world.lease.amqp_through(broker.address);
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", url)
        .env("TRUEUP_TRUSTED_PROXIES", "")
        .env("TRUEUP_MAX_CONNECTIONS", u32::from(CROWD) * u32::from(EACH))
        .env("TRUEUP_MAX_CONNECTIONS_PER_ADDRESS", EACH)
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    let half_head = "POST /x HTTP/1.1\r\nHost: ".to_owned();
    let half_body = report(&webhook, &"x".repeat(300)).replace("xxxx", "");
    let mut strangers = Vec::new();
    for from in 1..=CROWD {
        // The first network leaves one place.
        for n in u8::from(from == 1)..EACH {
            let mut stream = connect_from(network(from), door).await;
            let said = ["", &half_head, &half_body][usize::from(n % 3)];
            stream.write_all(said.as_bytes()).await.expect("writes");
            strangers.push(stream);
        }
    }
    // It is for one that waits for its answer.
    broker.set(NetworkFault::Hung);
    let mut waits = connect_from(network(1), door).await;
    waits
        .write_all(report(&webhook, "{\"payout\":1}").as_bytes())
        .await
        .expect("writes");
    let full = f64::from(u16::from(CROWD) * u16::from(EACH));
    eventually("all places are taken", PATIENCE, async || {
        (gateway.metric("trueup_gateway_connections").await >= full).then_some(())
    })
    .await;

    // As many newcomers as the first network has: each finds a place, and is read.
    let mut newcomers = Vec::new();
    for n in 0..EACH {
        let mut stream = connect_from(network(100 + n), door).await;
        stream
            .write_all(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("writes");
        assert_eq!(status(&mut stream).await, Some(404), "newcomer {n}");
        newcomers.push(stream);
    }
    broker.restore();
    assert_eq!(
        status(&mut waits).await,
        Some(200),
        "a complete request keeps its place"
    );
    eventually("the broker again", PATIENCE, async || {
        (gateway.readiness().await["dependencies"]["broker"]["state"] == "ok").then_some(())
    })
    .await;
    for n in 0..100 {
        assert_eq!(
            send_from(network(200), door, &webhook).await,
            Some(200),
            "report {n} of a newcomer"
        );
    }
    // Those who came with one connection each have kept it.
    for stream in &mut newcomers {
        stream
            .write_all(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("writes");
        assert_eq!(status(stream).await, Some(404), "it has kept its place");
    }
    drop(strangers);
}

/// Half-sent heads, three times as many as the budget has room for, and their size: just below where they
/// are refused.
const HALF_HEADS: usize = 4_000;
const HALF_HEAD_BYTES: usize = 24_000;
/// Without a budget these heads take 150 MiB beside everything else. With it more of them take no more,
/// apart from some 2 KiB for each connection.
const HEADS_RESIDENT: f64 = 128.0 * MIB;

#[tokio::test]
async fn half_sent_heads_have_one_budget() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_TRUSTED_PROXIES", "")
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let most = nix::sys::resource::getrlimit(files).expect("a limit").1;
    nix::sys::resource::setrlimit(files, most, most).expect("up to the hard limit");
    let wanted = usize::try_from(most.saturating_sub(500))
        .unwrap_or(HALF_HEADS)
        .min(HALF_HEADS);
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: x\r\nX-Long: {}",
        "y".repeat(HALF_HEAD_BYTES)
    );
    let mut half = Vec::new();
    let mut resident: f64 = 0.0;
    for n in 0..wanted {
        let from = network(u8::try_from(n % 10).expect("small") + 1);
        let mut stream = connect_from(from, door).await;
        // One that has made room already is told so while it writes.
        let _ = stream.write_all(head.as_bytes()).await;
        half.push(stream);
    }
    // A newcomer's report is read after what came before it.
    for _ in 0..20 {
        assert_eq!(send_from(network(200), door, &webhook).await, Some(200));
        resident = resident.max(gateway.metric("process_resident_memory_bytes").await);
    }
    println!("{wanted} half heads: {:.1} MiB resident", resident / MIB);
    assert!(
        resident < HEADS_RESIDENT,
        "{wanted} half heads: {resident} bytes"
    );
    let evicted = gateway
        .metric("trueup_gateway_connections_evicted_total{phase=\"head\"}")
        .await;
    assert!(evicted > 0.0, "the budget was reached");
}

#[tokio::test]
async fn a_connection_that_rested_goes_on_where_it_was() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut client = Client::connect(door).await.expect("connects");
    let whole = report(&webhook, "{\"payout\":1}");
    let (begin, rest) = whole.split_at(30);
    // A request and the beginning of the next in one piece, then nothing, then its rest byte by byte.
    client
        .write(format!("{whole}{begin}").as_bytes())
        .await
        .expect("writes");
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    for _ in 0..2 {
        // time passes: an idle connection gives back its buffers after a second.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for byte in rest.as_bytes() {
            client.write(&[*byte]).await.expect("writes");
            tokio::task::yield_now().await;
        }
        assert_eq!(client.answer(false).await.expect("an answer").status, 200);
        client.write(begin.as_bytes()).await.expect("writes");
    }
    client.write(rest.as_bytes()).await.expect("writes");
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    let answer = client.send("POST", &webhook.path(), &[], b"{}").await;
    assert_eq!(answer.expect("an answer").status, 200);
}

/// Slow senders at one webhook, and what each announces (bytes): together they would hold all the memory
/// that a process has for bodies, and more.
const SLOW: usize = 300;
const ANNOUNCED: usize = 512 * 1024;
const BODIES_RESIDENT: f64 = 256.0 * MIB;

/// A batch whose end does not come.
async fn trickle(door: SocketAddr, webhook: Webhook, from: String) -> Option<u16> {
    let mut stream = TcpStream::connect(door).await.expect("connects");
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {from}\r\nContent-Length: {ANNOUNCED}\r\n\r\n",
        webhook.path()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let (mut hears, mut says) = stream.split();
    let mut said = Vec::new();
    let talking = async {
        let mut piece = vec![b' '; ANNOUNCED - 100];
        piece[0] = b'[';
        if says.write_all(&piece).await.is_err() {
            return;
        }
        let mut drip = tokio::time::interval(Duration::from_millis(500));
        loop {
            drip.tick().await;
            if says.write_all(b" ").await.is_err() {
                return;
            }
        }
    };
    let hearing = async {
        let mut piece = [0_u8; 512];
        while !said.contains(&b'\n') {
            match hears.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => said.extend_from_slice(&piece[..n]),
            }
        }
    };
    tokio::select! {
        () = hearing => {}
        () = async { talking.await; std::future::pending().await } => {}
    }
    String::from_utf8_lossy(&said)
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

#[tokio::test]
async fn slow_bodies_of_one_webhook_leave_the_others_their_room() {
    let world = World::new().await;
    let slow = world.webhook(&WebhookSpec::open()).await;
    let quick = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.generous_gateway().ready().await;
    let door_of_slow = door(&mut gateway, &slow).await;
    let door = door(&mut gateway, &quick).await;
    let mut senders = tokio::task::JoinSet::new();
    for n in 0..SLOW {
        senders.spawn(trickle(
            door_of_slow,
            slow.clone(),
            format!("10.0.{}.1", n % 250),
        ));
    }
    eventually("slow ones are refused", PATIENCE, async || {
        let refused = "trueup_gateway_responses_total{result=\"unavailable\"}";
        (gateway.metric(refused).await > 0.0).then_some(())
    })
    .await;
    let body = format!("{{\"note\":\"{}\"}}", "n".repeat(2_000));
    for n in 0..300 {
        let answer = post(door, &quick, "198.51.100.7", &[], &body).await;
        assert_eq!(answer.status, 200, "report {n}: {}", answer.text());
    }
    let resident = gateway.metric("process_resident_memory_bytes").await;
    println!("{SLOW} slow bodies: {:.1} MiB resident", resident / MIB);
    assert!(resident < BODIES_RESIDENT, "{resident} bytes");
    // At the slow ones' own webhook a report that comes at once is taken, too.
    assert_eq!(
        post(door, &slow, "198.51.100.8", &[], &body).await.status,
        200
    );
    let told = senders.join_all().await;
    assert!(
        told.iter()
            .all(|told| matches!(told, Some(408 | 503) | None)),
        "{told:?}"
    );
    assert!(
        told.contains(&Some(408)),
        "those who had a share were cut off as too slow"
    );
}

#[tokio::test]
async fn a_body_that_cannot_end_in_time_is_cut_off_before_its_time_is_up() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let mut client = Client::connect(door).await.expect("connects");
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n",
        webhook.path()
    );
    client.write(head.as_bytes()).await.expect("writes");
    client.write(&[b' '; 1000]).await.expect("writes");
    let began = Instant::now();
    let answer = client.answer(false).await.expect("an answer");
    assert_eq!((answer.status, answer.json()["ok"] == false), (408, true));
    let took = began.elapsed().as_secs();
    assert!((5..15).contains(&took), "{took} s");
}

/// Addresses of a flood: more than there are rows for.
const FLOOD: usize = 1_500;

#[tokio::test]
async fn a_flood_of_refusals_leaves_other_webhooks_their_rows_and_a_64_is_one_source() {
    let world = World::new().await;
    let flooded = world.webhook(&WebhookSpec::with_secret("s3cret")).await;
    let other = world.webhook(&WebhookSpec::with_secret("s3cret")).await;
    let mut gateway = world.generous_gateway().ready().await;
    let public = door(&mut gateway, &flooded).await;
    door(&mut gateway, &other).await;
    let mut client = Client::connect(public).await.expect("connects");
    let mut refuse = async |webhook: &Webhook, from: &str| {
        let from = [("X-Forwarded-For", from)];
        let answer = client.send("POST", &webhook.path(), &from, b"{}").await;
        assert_eq!(answer.expect("an answer").status, 401);
    };
    world.events().await;
    for n in 0..FLOOD {
        refuse(&flooded, &format!("10.1.{}.{}", n / 250, n % 250)).await;
    }
    for n in 1..=60 {
        refuse(&other, &format!("2001:db8:0:7::{n:x}")).await;
        refuse(&other, &format!("2001:db8:0:7:{n:x}::1")).await;
    }
    refuse(&other, "198.51.100.7").await;

    let mut rows: Vec<RawEvent> = Vec::new();
    let of = |rows: &[RawEvent], webhook: &Webhook, source: &str| -> u32 {
        let counts = rows
            .iter()
            .filter(|row| row.webhook_id == webhook.id && row.source_ip.to_string() == source)
            .filter_map(|row| row.refusal.as_ref());
        counts.map(|refusal| refusal.count).sum()
    };
    eventually("all are told", TOLD_WITHIN * 2, async || {
        rows.extend(world.events().await);
        let all: u32 = rows
            .iter()
            .filter(|row| row.source_ip.to_string() != "203.0.113.254")
            .filter_map(|row| row.refusal.as_ref())
            .map(|refusal| refusal.count)
            .sum();
        (all as usize >= FLOOD + 121).then_some(())
    })
    .await;
    assert_eq!(of(&rows, &other, "198.51.100.7"), 1, "it has a name");
    assert_eq!(
        of(&rows, &other, "2001:db8:0:7::"),
        120,
        "a /64 is one source"
    );
    assert_eq!(of(&rows, &other, "::"), 0, "none of its rows is nameless");
}

#[tokio::test]
async fn a_64_has_its_share_at_a_webhook_that_limits_addresses_itself() {
    let world = World::new().await;
    let mut spec = WebhookSpec::with_secret("s3cret");
    spec.ip_limit_per_minute = Some(20);
    let webhook = world.webhook(&spec).await;
    for redis in [true, false] {
        let mut start = world.gateway();
        if !redis {
            start = start.env("TRUEUP_REDIS_URL", "redis://127.0.0.1:1/");
        }
        let mut gateway = start.ready().await;
        let public = door(&mut gateway, &webhook).await;
        let mut passed = 0;
        for n in 0..30 {
            let from = format!("2001:db8:{}:7::{n:x}", u8::from(redis));
            let head = [
                ("X-Forwarded-For", from.as_str()),
                ("X-Webhook-Secret", "s3cret"),
            ];
            let answer = http::send(public, "POST", &webhook.path(), &head, b"{}").await;
            passed += u32::from(answer.expect("an answer").status == 200);
        }
        assert_eq!(passed, 20, "counted by Redis: {redis}");
    }
}
