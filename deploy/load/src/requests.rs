//! What the senders say: whole requests, made as cheaply as they are many.
//!
//! Addresses (in `X-Forwarded-For`, which a trusted proxy may set) and webhooks take turns, so that
//! the seed's own limits, 50 a minute for an address and 200 for a webhook, are never met: every
//! request is checked in Redis, and passes.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fixtures::{self, ACCOUNTS, CALL};

/// All webhooks have the same one: what it costs to check does not depend on it.
pub const SECRET: &str = "whsec-for-the-load-bench-only-0123456789";
/// Addresses that take turns: with 50 a minute each, room for 66 thousand requests a second.
const ADDRESSES: u32 = 80_000;
/// Webhooks that take turns: with 200 a minute each, as much.
pub const WEBHOOKS: i64 = 20_000;
/// Numbers go on from sender to sender: no phase of a run reports again what an earlier one reported.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Apart from `books`' own: these require a secret.
const TOKEN_PREFIX: &str = "load-secret-token-0123456789-";

/// The n-th webhook's token.
pub fn token(n: i64) -> String {
    format!("{TOKEN_PREFIX}{n}")
}

/// A sender of requests of one kind.
pub struct Sender {
    pub kind: Kind,
    /// Calls that are reported about.
    pub calls: i64,
    /// Every n-th webhook and call only: with the number of accounts, those of the first account.
    pub every: i64,
    next: u64,
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A good report, with its secret.
    Report,
    /// As a report, but each from the same address, which is over its limit.
    SameAddress,
    /// To a webhook that there is not.
    NoSuchToken,
    /// With a wrong secret.
    WrongSecret,
}

impl Sender {
    pub fn new(kind: Kind, calls: i64) -> Sender {
        Sender {
            kind,
            calls,
            every: 1,
            next: NEXT.load(Ordering::Relaxed),
            body: Vec::with_capacity(512),
        }
    }

    /// Of the webhook's own account; every call has its turn before one comes again.
    fn call(&self, number: i64, webhook: i64) -> i64 {
        let turn = number * self.every / ACCOUNTS;
        turn.wrapping_mul(104_729).rem_euclid(self.calls / ACCOUNTS) * ACCOUNTS + webhook % ACCOUNTS
    }

    /// Writes the next request.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        let n = self.next;
        self.next += 1;
        let number = i64::try_from(n & 0x7FFF_FFFF).unwrap_or(0);
        let webhook = (number * self.every).rem_euclid(WEBHOOKS);
        let call = self.call(number, webhook);
        self.body.clear();
        report(&mut self.body, number, call);
        let address = match self.kind {
            Kind::SameAddress => Ipv4Addr::new(198, 51, 100, 7),
            // 20.0.0.0 and up.
            _ => Ipv4Addr::from((20 << 24) + u32::try_from(n % u64::from(ADDRESSES)).unwrap_or(0)),
        };
        let prefix = if self.kind == Kind::NoSuchToken {
            "no-such-webhook-token-0123456789-"
        } else {
            TOKEN_PREFIX
        };
        let secret = if self.kind == Kind::WrongSecret {
            "whsec-of-somebody-else-0123456789012345678"
        } else {
            SECRET
        };
        // A Vec takes whatever is written.
        let _ = write!(
            out,
            "POST /api/v1/ppc/inbound-webhooks/{prefix}{webhook} HTTP/1.1\r\nHost: door.test\r\nX-Forwarded-For: {address}\r\n\
             X-Webhook-Secret: {secret}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.body.len()
        );
        out.extend_from_slice(&self.body);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        NEXT.fetch_max(self.next, Ordering::Relaxed);
    }
}

/// About 200 bytes of JSON: 70 % by ref_id, 10 % by call_id, 15 % by caller and duration, 5 % about no call.
fn report(out: &mut Vec<u8>, n: i64, call: i64) {
    let (dollars, cents) = (20 + n % 60, n % 100);
    let (caller, duration) = (2_002_000_000 + call, fixtures::duration(call) - 20);
    // So that no account has reports of one kind only.
    let _ = match (n + n / ACCOUNTS) % 20 {
        0..14 => write!(
            out,
            "{{\"ref_id\":\"ref-{call}\",\"caller_id\":\"+1{caller}\",\"duration\":{duration},"
        ),
        14..16 => write!(out, "{{\"call_id\":\"{}\",", fixtures::id(CALL, call)),
        16..19 => write!(
            out,
            "{{\"caller_id\":\"+1{caller}\",\"duration\":{duration},"
        ),
        _ => write!(out, "{{\"ref_id\":\"none-{n}\",\"duration\":{duration},"),
    };
    let _ = write!(
        out,
        "\"payout\":\"{dollars}.{cents:02}\",\"campaign\":\"hvac-national\",\"buyer\":\"Acme Home Services\",\
         \"connected_at\":\"2026-03-14T12:02:10Z\",\"city\":\"Tampa\",\"state\":\"FL\"}}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_of_the_webhooks_account_has_its_turn() {
        for (every, expected) in [(1, 1000), (ACCOUNTS, 1000 / ACCOUNTS)] {
            let mut sender = Sender::new(Kind::Report, 1000);
            sender.every = every;
            let calls: std::collections::BTreeSet<i64> = (7_000..7_000 + expected)
                .map(|n| {
                    let webhook = (n * every) % WEBHOOKS;
                    let call = sender.call(n, webhook);
                    assert_eq!(call % ACCOUNTS, webhook % ACCOUNTS);
                    call
                })
                .collect();
            assert_eq!(calls.len() as i64, expected, "every {every}");
            assert!(calls.iter().all(|call| (0..1000).contains(call)));
        }
    }

    #[test]
    fn requests_are_whole_and_of_the_size_that_the_goals_speak_of() {
        let mut sender = Sender::new(Kind::Report, 1000);
        for _ in 0..100 {
            let mut out = Vec::new();
            sender.write(&mut out);
            let text = String::from_utf8(out).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            assert!(
                head.ends_with(&format!("Content-Length: {}", body.len())),
                "{head}"
            );
            assert!((150..280).contains(&body.len()), "{}: {body}", body.len());
            serde_json::from_str::<serde_json::Value>(body).expect("JSON");
        }
    }
}
