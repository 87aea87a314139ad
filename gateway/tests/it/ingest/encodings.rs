//! X1b at the door: encoded bodies, lines of JSON, a browser's preflight, and URLs with something copied
//! along.

use std::io::Write;
use std::net::SocketAddr;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use trueup_testkit::builders::{Webhook, WebhookSpec};
use trueup_testkit::http::{self, Answer};

use super::{World, door};

const BATCH: &[u8] = br#"[{"ref_id":"a1","payout":"12.50"},{"ref_id":"a2","payout":"13.50"}]"#;
/// [`BATCH`], and 400,000 blanks before `[]`, by the reference encoder.
const BATCH_AS_BROTLI: &str = "1b4200f88dd462cd19ee04d1ce69bff913649b24299489c420099d5e200945c212300cc263d5967a816c1066bee36c305679cd175b5c11";
const BLANKS_AS_BROTLI: &str = "5b811a865f1264abab24792c109823614003";

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("in memory");
    encoder.finish().expect("in memory")
}

fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd(body: &[u8]) -> Vec<u8> {
    compress_to_vec(body, CompressionLevel::Fastest)
}

async fn post(
    door: SocketAddr,
    webhook: &Webhook,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut all = vec![("X-Forwarded-For", "198.51.100.7")];
    all.extend_from_slice(headers);
    http::send(door, "POST", &webhook.path(), &all, body)
        .await
        .expect("an answer")
}

fn busy() -> WebhookSpec {
    WebhookSpec {
        limit_per_minute: Some(1000),
        ip_limit_per_minute: Some(1000),
        ..WebhookSpec::open()
    }
}

#[tokio::test]
async fn x1b_encoded_batches_are_decoded_and_split() {
    let world = World::new().await;
    let webhook = world.webhook(&busy()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let encoded: [(&str, Vec<u8>); 10] = [
        ("gzip", gzip(BATCH)),
        ("x-gzip", gzip(BATCH)),
        ("GZIP", [gzip(&BATCH[..20]), gzip(&BATCH[20..])].concat()),
        ("deflate", zlib(BATCH)),
        ("deflate", raw_deflate(BATCH)),
        ("br", from_hex(BATCH_AS_BROTLI)),
        ("zstd", zstd(BATCH)),
        ("zstd", [zstd(&BATCH[..20]), zstd(&BATCH[20..])].concat()),
        ("deflate, gzip", gzip(&zlib(BATCH))),
        // A proxy that has decoded the body and left the header.
        ("gzip", BATCH.to_vec()),
    ];
    for (encoding, body) in encoded {
        let headers = [
            ("Content-Type", "application/json"),
            ("Content-Encoding", encoding),
        ];
        let answer = post(door, &webhook, &headers, &body).await;
        assert_eq!(answer.status, 200, "{encoding}: {}", answer.text());
        assert!(answer.json()["event_ids"].is_array(), "{encoding}");
        let requests: Vec<_> = world
            .events()
            .await
            .into_iter()
            .map(|e| e.request.expect("a report"))
            .collect();
        let bodies: Vec<_> = requests.iter().map(|r| r.body.as_slice()).collect();
        assert_eq!(bodies, [&BATCH[1..33], &BATCH[34..66]], "{encoding}");
        let is_plain = body == BATCH;
        assert_eq!(
            requests[1].content_encoding.as_deref(),
            (!is_plain).then_some(encoding)
        );
    }
}

#[tokio::test]
async fn x1b_what_cannot_be_decoded_is_kept_and_what_is_not_known_is_answered_415() {
    let world = World::new().await;
    let webhook = world.webhook(&busy()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let damaged = [
        ("gzip", gzip(BATCH)[..30].to_vec()),
        ("gzip", [gzip(BATCH), b"\x01more".to_vec()].concat()),
        ("gzip", gzip(b"").repeat(33)),
        ("deflate", [zlib(BATCH), b"\x01more".to_vec()].concat()),
        ("zstd", [zstd(BATCH), b"\x01more".to_vec()].concat()),
        (
            "br",
            [from_hex(BATCH_AS_BROTLI), b"\x01more".to_vec()].concat(),
        ),
    ];
    for (encoding, body) in damaged {
        let answer = post(door, &webhook, &[("Content-Encoding", encoding)], &body).await;
        assert_eq!(answer.status, 200, "{encoding}: {}", answer.text());
        let events = world.events().await;
        let request = events[0].request.as_ref().expect("a report");
        assert_eq!(
            (&request.body, request.encoded),
            (&body, true),
            "{encoding}"
        );
    }

    for unknown in ["compress", "gzip, br, zstd", "aes128gcm"] {
        let answer = post(door, &webhook, &[("Content-Encoding", unknown)], BATCH).await;
        assert_eq!(answer.status, 415, "{unknown}");
        assert_eq!(
            answer.header("accept-encoding"),
            Some("gzip, deflate, br, zstd")
        );
        let reason = answer.json()["reason"]
            .as_str()
            .expect("a reason")
            .to_owned();
        assert!(reason.contains("gzip, deflate, br, zstd"), "{reason}");
    }
    assert_eq!(world.events().await, []);
}

#[tokio::test]
async fn x1b_what_a_few_bytes_can_become_is_bounded() {
    let world = World::new().await;
    let webhook = world.webhook(&busy()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let blanks = vec![b' '; 400_000];
    let large = |len: usize| {
        let noise: String = (0..len / 8)
            .map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761) as u32))
            .collect();
        format!("{{\"a\":\"{noise}\"}}").into_bytes()
    };
    let bombs = [
        ("gzip", gzip(&blanks)),
        ("deflate", raw_deflate(&blanks)),
        ("zstd", zstd(&blanks)),
        ("br", from_hex(BLANKS_AS_BROTLI)),
        ("gzip, gzip", gzip(&gzip(&blanks))),
        // One report has 64 KiB, decoded.
        ("gzip", gzip(&large(70_000))),
        ("zstd", gzip(b"")),
    ];
    let mut statuses = Vec::new();
    for (encoding, body) in bombs {
        let answer = post(door, &webhook, &[("Content-Encoding", encoding)], &body).await;
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [413, 413, 413, 413, 413, 413, 200]);
    let answer = post(
        door,
        &webhook,
        &[("Content-Encoding", "gzip")],
        &gzip(&large(60_000)),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn x1b_lines_of_objects_are_a_batch_with_a_batchs_limits() {
    let world = World::new().await;
    let webhook = world.webhook(&busy()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let json = ("Content-Type", "application/json");
    let lines = ("Content-Type", "application/x-ndjson");
    let answer = post(door, &webhook, &[json], b"{\"a\":1}\r\n{\"a\":2}\r\n").await;
    assert_eq!(answer.json()["event_ids"].as_array().map(Vec::len), Some(2));
    let answer = post(door, &webhook, &[lines], b"{\"a\":1}").await;
    assert_eq!(answer.json()["event_ids"].as_array().map(Vec::len), Some(1));
    let answer = post(door, &webhook, &[json], b"{\n\"a\":\n{\"b\":1}}\n").await;
    assert!(answer.json()["event_id"].is_string(), "{}", answer.text());
    let events = world.events().await;
    let bodies: Vec<_> = events
        .iter()
        .map(|e| e.request.as_ref().expect("a report").body.clone())
        .collect();
    assert_eq!(bodies[0], b"{\"a\":1}");
    assert_eq!(bodies[1], b"{\"a\":2}");

    let long = format!("{{\"pad\":\"{}\"}}\n", "x".repeat(1000));
    for content_type in [json, lines] {
        let answer = post(door, &webhook, &[content_type], long.repeat(400).as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(world.events().await.len(), 400);
    }
    let refused = [
        long.repeat(600).into_bytes(),
        b"{}\n".repeat(501),
        format!("{{\"pad\":\"{}\"}}", "x".repeat(70_000)).into_bytes(),
        format!("{{\n\"pad\":\"{}\"}}", "x".repeat(70_000)).into_bytes(),
    ];
    for body in refused {
        let answer = post(door, &webhook, &[json], &body).await;
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
    assert_eq!(world.events().await, []);
}

#[tokio::test]
async fn a_browsers_preflight_is_answered_and_counts_nothing() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1),
            ..WebhookSpec::with_secret("whsec-of-this-test")
        })
        .await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let asks = [
        ("Origin", "https://buyer.example"),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "content-type,x-webhook-secret",
        ),
        ("X-Forwarded-For", "198.51.100.7"),
    ];
    for _ in 0..60 {
        let answer = http::send(door, "OPTIONS", &webhook.path(), &asks, b"")
            .await
            .expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let methods = answer
            .header("access-control-allow-methods")
            .expect("methods");
        assert!(
            methods.contains("POST") && methods.contains("PATCH"),
            "{methods}"
        );
        let headers = answer
            .header("access-control-allow-headers")
            .expect("headers");
        assert!(
            headers.to_ascii_lowercase().contains("x-webhook-secret"),
            "{headers}"
        );
    }
    let none = format!("{}x", webhook.path());
    let answer = http::send(door, "OPTIONS", &none, &asks, b"")
        .await
        .expect("an answer");
    assert_eq!(answer.status, 404);
    let secret = [asks[0], asks[3], ("X-Webhook-Secret", "whsec-of-this-test")];
    for status in [200, 429] {
        let answer = http::send(door, "POST", &webhook.path(), &secret, b"payout=1")
            .await
            .expect("an answer");
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
}

#[tokio::test]
async fn x1b_what_was_copied_along_with_the_url_does_no_harm() {
    let world = World::new().await;
    let webhook = world.webhook(&busy()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let path = webhook.path();
    for copied in [
        format!("{path}%0A?payout=1"),
        format!("{path}%20?payout=1"),
        format!("{path}%0D%0A/?payout=1"),
        format!("{path}//?payout=1"),
        format!("/{path}?payout=1"),
        path.replace("/v1/", "//v1//") + "?payout=1",
        path.replace("inbound-webhooks/", "inbound-webhooks//"),
    ] {
        let answer = http::send(
            door,
            "GET",
            &copied,
            &[("X-Forwarded-For", "198.51.100.7")],
            b"",
        )
        .await
        .expect("an answer");
        assert_eq!(answer.status, 200, "{copied}: {}", answer.text());
    }
    for other in [
        format!("{path}/x"),
        path.replace("inbound-webhooks/", "inbound-webhooks/%20"),
    ] {
        let answer = http::send(door, "GET", &other, &[], b"")
            .await
            .expect("an answer");
        assert_eq!(answer.status, 404, "{other}");
    }
}
