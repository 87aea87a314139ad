//! The commands that keep house; each says what it did on standard output.

use std::io::Write as _;
use std::time::{Duration, Instant};

use lapin::options::{BasicAckOptions, BasicGetOptions};
use secrecy::ExposeSecret;
use trueup_event::envelope;
use trueup_ops::backoff::Backoff;
use trueup_ops::settings::print_good;
use trueup_ops::shutdown::{ExitReason, Failure};
use trueup_queue::connection::BrokerConnection;
use trueup_queue::{QueueError, topology};
use trueup_store::settlement::attempts;
use trueup_store::{Pool, PoolSettings, StoreError, migrate as schema, reconcile as books};
use uuid::Uuid;

use crate::consumer::TOLD_WITHIN;
use crate::reconciliation::STATEMENT_TIMEOUT_MS;
use crate::settings::WorkerSettings;

fn print_line(line: impl std::fmt::Display) {
    // A closed pipe is no failure of the command.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn dependency_failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(ExitReason::Unavailable, error)
}

fn open_pool(settings: &WorkerSettings) -> Result<Pool, Failure> {
    let pool = PoolSettings {
        statement_timeout_ms: STATEMENT_TIMEOUT_MS,
        idle_in_transaction_timeout_ms: STATEMENT_TIMEOUT_MS,
        tls: settings.postgres.tls(),
        ..PoolSettings::for_application("trueup-worker", 2)
    };
    Pool::new(settings.postgres.postgres_url.expose_secret(), &pool)
        .map_err(|e| Failure::bad_setting("TRUEUP_POSTGRES_URL", e))
}

async fn connect_broker(
    settings: &WorkerSettings,
    name: &str,
) -> Result<BrokerConnection, QueueError> {
    BrokerConnection::connect_over(&settings.amqp.amqp_url, &settings.amqp.tls(), name).await
}

/// A lock that lasts longer than this is somebody's to end.
const LOCKED_FOR_AT_MOST: Duration = Duration::from_secs(600);
/// Postgres and the broker may be starting together with us: `migrate` waits this long for each.
const DEPENDENCIES_WITHIN: Duration = Duration::from_secs(30);

/// Tries until it works, fails for good, or `within` is over; then the last error stands.
async fn retry<T, E, F>(
    within: Duration,
    may_pass: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut backoff = Backoff::new();
    loop {
        match attempt().await {
            Err(error) if started.elapsed() < within && may_pass(&error) => backoff.wait().await,
            outcome => return outcome,
        }
    }
}

async fn retry_until_available<T, E, F>(attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    retry(DEPENDENCIES_WITHIN, |_| true, attempt).await
}

/// A dump or a long report holds its tables for minutes. A migration that waited for it would have everybody
/// wait behind itself: it gives up after 1.3 s and comes again.
async fn migrate_when_unlocked<T, F>(attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let is_locked = |error: &StoreError| {
        let is_busy = error.is_busy();
        if is_busy {
            tracing::warn!(%error, "a migration gave way to somebody's lock; it comes again");
        }
        is_busy
    };
    retry(LOCKED_FOR_AT_MOST, is_locked, attempt).await
}

pub async fn migrate(settings: &WorkerSettings) -> Result<ExitReason, Failure> {
    let (url, tls) = (&settings.postgres.postgres_url, settings.postgres.tls());
    let pool = open_pool(settings)?;
    retry_until_available(|| pool.ping())
        .await
        .map_err(dependency_failure)?;
    let done = migrate_when_unlocked(|| schema::run(url.expose_secret(), &tls))
        .await
        .map_err(dependency_failure)?;
    match done.applied.as_slice() {
        [] => print_line("schema: up to date"),
        applied => print_line(format_args!("schema: applied {}", applied.join(", "))),
    }
    match done.roles.as_slice() {
        [] => print_line(
            "roles: none of trueup_ingest, trueup_worker, trueup_console exists; no rights to give",
        ),
        roles => print_line(format_args!("roles: rights given to {}", roles.join(", "))),
    }
    let session = retry_until_available(|| connect_broker(settings, "trueup-migrate"))
        .await
        .map_err(dependency_failure)?;
    topology::declare_topology(session.connection(), settings.queue_bounds())
        .await
        .map_err(dependency_failure)?;
    session.close().await;
    print_line("broker: exchanges and queues declared");
    Ok(ExitReason::Drained)
}

/// Dead letters go back one by one, each confirmed before it is taken from the dead.
pub async fn redrive(settings: &WorkerSettings, limit: u32) -> Result<ExitReason, Failure> {
    let pool = open_pool(settings)?;
    let session = connect_broker(settings, "trueup-redrive")
        .await
        .map_err(dependency_failure)?;
    let taking = session.open_channel().await.map_err(dependency_failure)?;
    let giving = session
        .confirm_channel()
        .await
        .map_err(dependency_failure)?;
    let mut back = 0;
    let mut left = 0;
    // Letters that stay are not acked, so that each is met once; closing the channel returns them.
    while back + left < limit {
        let got = taking
            .basic_get(topology::DEAD_QUEUE.into(), BasicGetOptions::default())
            .await
            .map_err(QueueError::while_doing("take a dead letter"))
            .map_err(dependency_failure)?;
        let Some(letter) = got else { break };
        match envelope::decode_envelope(&letter.data) {
            Ok(envelope) => {
                let ids: Vec<Uuid> = envelope.events.iter().map(|e| e.id).collect();
                attempts::forget_attempts(&pool, &ids)
                    .await
                    .map_err(dependency_failure)?;
                let account = topology::account_of(&letter.properties);
                topology::publish_event(&giving, account, &letter.data)
                    .await
                    .map_err(dependency_failure)?;
                // The client's own promise may stay open for ever if the connection ends just then.
                tokio::time::timeout(TOLD_WITHIN, letter.ack(BasicAckOptions::default()))
                    .await
                    .map_err(|_| dependency_failure(QueueError::TimedOut(TOLD_WITHIN)))?
                    .map_err(dependency_failure)?;
                back += 1;
            }
            Err(error) => {
                print_line(format_args!("left where it is: {error}"));
                left += 1;
            }
        }
    }
    session.close().await;
    print_line(format_args!("redriven: {back} envelopes; left: {left}"));
    Ok(ExitReason::Drained)
}

pub async fn reconcile(settings: &WorkerSettings, replay: bool) -> Result<ExitReason, Failure> {
    let pool = open_pool(settings)?;
    let mut client = pool.get().await.map_err(dependency_failure)?;
    let results = books::prove_books(&mut client, replay)
        .await
        .map_err(dependency_failure)?;
    results.iter().for_each(print_check);
    match results.iter().map(|result| result.count).sum::<usize>() {
        0 => {
            print_line("reconciled: the books are true");
            Ok(ExitReason::Drained)
        }
        breaches => {
            print_line(format_args!(
                "BREACHED: {breaches} places; see the runbook: reconcile"
            ));
            Ok(ExitReason::Breach)
        }
    }
}

fn print_check(result: &books::CheckResult) {
    print_line(format_args!(
        "{} {}",
        if result.count == 0 {
            "ok    "
        } else {
            "BREACH"
        },
        result.name
    ));
    for line in &result.listed {
        print_line(format_args!("       {line}"));
    }
    if result.count > result.listed.len() {
        print_line(format_args!(
            "       … and {} more",
            result.count - result.listed.len()
        ));
    }
}

pub fn check_config(settings: &WorkerSettings) -> Result<ExitReason, Failure> {
    open_pool(settings)?;
    print_good();
    Ok(ExitReason::Drained)
}
