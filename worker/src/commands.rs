//! The commands that keep house; each says what it did on standard output.

use std::io::Write as _;
use std::time::{Duration, Instant};

use lapin::options::{BasicAckOptions, BasicGetOptions};
use secrecy::ExposeSecret;
use trueup_event::envelope;
use trueup_ops::backoff::Backoff;
use trueup_ops::shutdown::{Exit, Failure};
use trueup_queue::connection::Session;
use trueup_queue::{QueueError, topology};
use trueup_store::settlement::attempts;
use trueup_store::{Pool, PoolSettings, migrate as schema, reconcile as books};
use uuid::Uuid;

use crate::consumer::TOLD_WITHIN;
use crate::settings::Settings;

/// A proof over all calls takes longer than a report (milliseconds; 30 min).
const RECONCILE_STATEMENT_TIMEOUT_MS: u32 = 1_800_000;

fn say(line: impl std::fmt::Display) {
    // A closed pipe is no failure of the command.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Unavailable, error)
}

fn pool(settings: &Settings) -> Result<Pool, Failure> {
    let pool = PoolSettings {
        statement_timeout_ms: RECONCILE_STATEMENT_TIMEOUT_MS,
        idle_in_transaction_timeout_ms: RECONCILE_STATEMENT_TIMEOUT_MS,
        ..PoolSettings::of("trueup-worker", 2)
    };
    Pool::new(settings.postgres.postgres_url.expose_secret(), &pool)
        .map_err(|e| Failure::setting("TRUEUP_POSTGRES_URL", e))
}

/// Postgres and the broker may be starting together with us: `migrate` waits this long for each.
const DEPENDENCIES_WITHIN: Duration = Duration::from_secs(30);

/// Tries until it works or [`DEPENDENCIES_WITHIN`] is over; then the last error stands.
async fn patiently<T, E, F>(mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut backoff = Backoff::new();
    loop {
        match attempt().await {
            Err(_) if started.elapsed() < DEPENDENCIES_WITHIN => backoff.wait().await,
            outcome => return outcome,
        }
    }
}

pub async fn migrate(settings: &Settings) -> Result<Exit, Failure> {
    let url = settings.postgres.postgres_url.expose_secret();
    let pool = pool(settings)?;
    patiently(|| pool.ping()).await.map_err(unavailable)?;
    let done = schema::run(url).await.map_err(unavailable)?;
    match done.applied.as_slice() {
        [] => say("schema: up to date"),
        applied => say(format_args!("schema: applied {}", applied.join(", "))),
    }
    match done.roles.as_slice() {
        [] => say(
            "roles: none of trueup_ingest, trueup_worker, trueup_console exists; no rights to give",
        ),
        roles => say(format_args!("roles: rights given to {}", roles.join(", "))),
    }
    let session = patiently(|| Session::connect(&settings.amqp.amqp_url, "trueup-migrate"))
        .await
        .map_err(unavailable)?;
    topology::declare(session.connection(), settings.amqp.queue_max_length)
        .await
        .map_err(unavailable)?;
    session.close().await;
    say("broker: exchanges and queues declared");
    Ok(Exit::Drained)
}

/// Dead letters go back one by one, each confirmed before it is taken from the dead.
pub async fn redrive(settings: &Settings, limit: u32) -> Result<Exit, Failure> {
    let pool = pool(settings)?;
    let session = Session::connect(&settings.amqp.amqp_url, "trueup-redrive")
        .await
        .map_err(unavailable)?;
    let taking = session.channel().await.map_err(unavailable)?;
    let giving = session.confirm_channel().await.map_err(unavailable)?;
    let mut back = 0;
    let mut left = 0;
    // Letters that stay are not acked, so that each is met once; closing the channel returns them.
    while back + left < limit {
        let got = taking
            .basic_get(topology::DEAD_QUEUE.into(), BasicGetOptions::default())
            .await
            .map_err(QueueError::doing("take a dead letter"))
            .map_err(unavailable)?;
        let Some(letter) = got else { break };
        match envelope::decode(&letter.data) {
            Ok(envelope) => {
                let ids: Vec<Uuid> = envelope.events.iter().map(|e| e.id).collect();
                attempts::forget_attempts(&pool, &ids)
                    .await
                    .map_err(unavailable)?;
                topology::publish_event(&giving, &letter.data)
                    .await
                    .map_err(unavailable)?;
                // The client's own promise may stay open for ever if the connection ends just then.
                tokio::time::timeout(TOLD_WITHIN, letter.ack(BasicAckOptions::default()))
                    .await
                    .map_err(|_| unavailable(QueueError::TimedOut(TOLD_WITHIN)))?
                    .map_err(unavailable)?;
                back += 1;
            }
            Err(error) => {
                say(format_args!("left where it is: {error}"));
                left += 1;
            }
        }
    }
    session.close().await;
    say(format_args!("redriven: {back} envelopes; left: {left}"));
    Ok(Exit::Drained)
}

pub async fn reconcile(settings: &Settings, replay: bool) -> Result<Exit, Failure> {
    let pool = pool(settings)?;
    let client = pool.get().await.map_err(unavailable)?;
    let mut breaches = 0;
    for check in books::CHECKS {
        let (listed, count) = books::run(&client, check).await.map_err(unavailable)?;
        report(check.name, &listed, count);
        breaches += count;
    }
    if replay {
        let (found, calls) = books::replay(&client).await.map_err(unavailable)?;
        report(
            &format!("the reports of {calls} calls, folded anew, give the books"),
            &found,
            found.len(),
        );
        breaches += found.len();
    }
    if breaches == 0 {
        say("reconciled: the books are true");
        Ok(Exit::Drained)
    } else {
        say(format_args!(
            "BREACHED: {breaches} places; see the runbook: reconcile"
        ));
        Ok(Exit::Breach)
    }
}

fn report(name: &str, listed: &[String], count: usize) {
    say(format_args!(
        "{} {name}",
        if count == 0 { "ok    " } else { "BREACH" }
    ));
    for line in listed.iter().take(books::LISTED) {
        say(format_args!("       {line}"));
    }
    if count > books::LISTED {
        say(format_args!("       … and {} more", count - books::LISTED));
    }
}

pub fn check_config(settings: &Settings) -> Result<Exit, Failure> {
    Pool::new(
        settings.postgres.postgres_url.expose_secret(),
        &PoolSettings::of("trueup-worker", 1),
    )
    .map_err(|e| Failure::setting("TRUEUP_POSTGRES_URL", e))?;
    say("the settings are good");
    Ok(Exit::Drained)
}
