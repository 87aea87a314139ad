//! Bytes at the door: whole requests, mutated, cut, glued and stretched. Whatever comes, the process
//! lives, every connection ends, and the next sender is served.
//!
//! The same bytes every time, from a seed that is written here; a failure prints the bytes.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trueup_testkit::builders::WebhookSpec;
use trueup_testkit::services::seeded_rng::SeededRng;

use super::{World, door, post};

/// Connections; each carries one to three mutated requests.
const CONNECTIONS: u64 = 3_000;
/// At once.
const CROWD: u64 = 50;
/// The sender closes its side, so nothing has to wait for a time-out of the door's.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

fn seeds(path: &str) -> Vec<Vec<u8>> {
    let big = "x".repeat(20_000);
    [
        format!("GET {path}?caller_id=%2B13055551234&duration=90&payout=50 HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{{\"payout\":50}}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1,2]\r\n0\r\n\r\n"),
        format!("PUT {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"),
        format!("HEAD {path}/ HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, 10.0.0.1\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{{}}"),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-Webhook-Secret: {big}\r\nContent-Length: 0\r\n\r\n"),
        format!("PATCH http://a{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n{big}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect()
}

fn mutate(dice: &mut SeededRng, bytes: &mut Vec<u8>) {
    const PIECES: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"\0",
        b"\xFF\xFE",
        b": ",
        b"Content-Length: -1\r\n",
        b"0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"ffffffffffffffff\r\n",
        b"%",
        b" HTTP/1.1\r\n",
    ];
    for _ in 0..dice.below(5) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(6) {
            0 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).expect("a byte"),
            1 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, PIECES[dice.below(PIECES.len())].iter().copied())),
            4 if at < bytes.len() => {
                drop(bytes.drain(at..(at + 1 + dice.below(40)).min(bytes.len())))
            }
            _ => {
                let piece = bytes[at..(at + dice.below(60)).min(bytes.len())].to_vec();
                let times = 1 + dice.below(40);
                bytes.splice(at..at, piece.repeat(times));
            }
        }
    }
}

#[tokio::test]
async fn no_bytes_end_or_hang_the_door() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.generous_gateway().ready().await;
    let public = door(&mut gateway, &webhook).await;
    for first in (0..CONNECTIONS).step_by(usize::try_from(CROWD).expect("small")) {
        let mut crowd = tokio::task::JoinSet::new();
        for number in first..first + CROWD {
            let seeds = seeds(&webhook.path());
            crowd.spawn(async move {
                let mut dice = SeededRng::new(number);
                let mut bytes = Vec::new();
                for _ in 0..=dice.below(3) {
                    let mut request = seeds[dice.below(seeds.len())].clone();
                    mutate(&mut dice, &mut request);
                    bytes.extend_from_slice(&request);
                }
                let mut stream = TcpStream::connect(public).await.expect("the door is open");
                let talk = async {
                    // In two pieces: a head may arrive in any.
                    let (one, other) = bytes.split_at(dice.below(bytes.len() + 1));
                    for piece in [one, other] {
                        if stream.write_all(piece).await.is_err() {
                            break;
                        }
                    }
                    let _ = stream.shutdown().await;
                    let mut answer = Vec::new();
                    let _ = stream.read_to_end(&mut answer).await;
                    answer
                };
                let text = || String::from_utf8_lossy(&bytes).into_owned();
                let Ok(answer) = tokio::time::timeout(ENDS_WITHIN, talk).await else {
                    panic!("connection {number} did not end: {:?}", text());
                };
                assert!(
                    answer.is_empty() || answer.starts_with(b"HTTP/1."),
                    "{number}: {:?}",
                    text()
                );
                let status = answer
                    .get(9..12)
                    .map(|s| String::from_utf8_lossy(s).into_owned());
                assert!(status.is_none_or(|s| s != "500"), "{number}: {:?}", text());
            });
        }
        while let Some(one) = crowd.join_next().await {
            one.expect("no connection failed");
        }
        assert!(gateway.is_running(), "{}", gateway.log());
    }
    assert_eq!(
        post(public, &webhook, "198.51.100.7", &[], "{}")
            .await
            .status,
        200
    );
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    gateway.terminate();
    assert_eq!(
        gateway.exit_code(Duration::from_secs(10)).await,
        0,
        "no connection was left behind"
    );
}
