//! What tests stand on: real services, kept apart from each other's tests. No part of the product.
//!
//! * [`database`]: an empty migrated database for each test, cloned from a template.
//! * [`broker_and_redis`]: a vhost of the broker and a database of Redis, nobody else's while the test runs.
//! * [`process`]: one of our binaries, started on free ports and ended with its guard.
//! * [`tcp_proxy`]: a TCP proxy that can break, hang and slow down what goes through it.
//! * [`http`]: a client that shows what a sender sees, byte by byte if need be.
//! * [`builders`]: accounts, and what belongs to them.
//! * [`output`]: lines of a long run, for those who watch it.
//! * [`private_rabbitmq`]: a broker of a test's own, that it may stop.
//! * [`webdriver`]: a real browser, for the console's pages.
//! * [`services`]: services that a test or a tool may kill, processes, ports, chance that can be repeated.
//!
//! Where the services are: `TRUEUP_TEST_POSTGRES_URL` (a superuser), `TRUEUP_TEST_REDIS_URL`,
//! `TRUEUP_TEST_AMQP_URL`, and `TRUEUP_TEST_RABBITMQCTL` for a `rabbitmqctl` of one's own.

pub mod broker_and_redis;
pub mod builders;
pub mod database;
pub mod http;
pub mod output;
pub mod private_rabbitmq;
pub mod process;
pub mod query_plans;
pub mod tcp_proxy;
pub mod webdriver;

use std::time::{Duration, Instant};

pub use trueup_services as services;

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

/// Runs to its end on a thread and a runtime of its own: a guard's own runtime may be on its way out.
fn run_apart(work: impl Future<Output = ()> + Send + 'static) {
    let running = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            runtime.block_on(work);
        }
    });
    let _ = running.join();
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
