//! What tests stand on: real services, kept apart from each other's tests. No part of the product.
//!
//! * [`database`]: an empty migrated database for each test, cloned from a template.
//! * [`lease`]: a vhost of the broker and a database of Redis, nobody else's while the test runs.
//! * [`process`]: one of our binaries, started on free ports and ended with its guard.
//! * [`cutter`]: a TCP proxy that can break, hang and slow down what goes through it.
//! * [`crash`]: dying at a named point, for the proof that it does no harm.
//! * [`http`]: a client that shows what a sender sees, byte by byte if need be.
//! * [`fixtures`]: accounts and webhooks.
//! * [`rabbitmq`]: a broker of a test's own, that it may stop.
//! * [`browser`]: a real browser, for the console's pages.
//!
//! Where the services are: `TRUEUP_TEST_POSTGRES_URL` (a superuser), `TRUEUP_TEST_REDIS_URL`,
//! `TRUEUP_TEST_AMQP_URL`, and `TRUEUP_TEST_RABBITMQCTL` for a `rabbitmqctl` of one's own.

pub mod browser;
#[cfg(all(feature = "crash-points", debug_assertions))]
pub mod crash;
pub mod cutter;
pub mod database;
pub mod fixtures;
pub mod http;
pub mod lease;
pub mod process;
pub mod rabbitmq;

use std::time::{Duration, Instant};

/// Polls until `look` gives something, or panics with `what` after `within`. Tests wait for a state
/// with this, never for a time.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    eventually_or(what, within, async || look().await.ok_or("not yet")).await
}

/// The same, where a failure should say what was there instead.
pub async fn eventually_or<T, E: std::fmt::Display>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) => assert!(
                Instant::now() < deadline,
                "not within {within:?}: {what}: {instead}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where a service is: the variable, or the port that its package uses.
#[allow(
    clippy::disallowed_methods,
    reason = "the tests' own variables, not the product's"
)]
fn service(variable: &str, default: &str) -> String {
    std::env::var(variable)
        .ok()
        .filter(|url| !url.is_empty())
        .unwrap_or_else(|| default.to_owned())
}
