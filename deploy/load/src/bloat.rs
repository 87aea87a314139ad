//! Hot rows and dead tuples: a few calls that are corrected again and again, and what their tables and
//! indexes grow to meanwhile. A second half that grows no further than the first is what one wants to see.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::Client;
use trueup_event::envelope;
use trueup_event::raw_event::Envelope;
use trueup_queue::topology::{self, QueueBounds};
use trueup_testkit::broker_and_redis::Lease;
use trueup_testkit::database::TestDatabase;

use crate::backlog_drain::{ENVELOPE, depth, event, start_worker};
use crate::fixtures::Dataset;
use trueup_testkit::output::print_line;

#[derive(Debug, Clone)]
pub struct Plan {
    pub calls: i64,
    pub corrected: i64,
    /// Corrections a second.
    pub rate: usize,
    pub span: Duration,
    pub worker: PathBuf,
}

/// Envelopes are sent this often.
const TICK: Duration = Duration::from_millis(100);

pub async fn run(plan: &Plan) -> anyhow::Result<()> {
    let database = TestDatabase::fresh().await;
    let lease = Lease::acquire().await;
    let client = database.client().await;
    let books = Dataset::make(&client, plan.calls, false).await?;
    let autovacuum: String = client.query_one("SHOW autovacuum", &[]).await?.get(0);
    print_line(format_args!(
        "  {} calls, {} corrected, autovacuum is {autovacuum}",
        plan.calls, plan.corrected
    ));
    let broker = lease.broker().await;
    topology::declare_topology(broker.connection(), QueueBounds::UNBOUNDED).await?;
    let channel = broker.confirm_channel().await?;
    let _worker = start_worker(&plan.worker, &database, &lease);
    sizes(&client, "at the start").await?;
    let started = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    let mut sent = 0_i64;
    let mut half_told = false;
    while started.elapsed() < plan.span {
        ticks.tick().await;
        let due = started.elapsed().as_millis() as i64 * plan.rate as i64 / 1_000;
        let numbers: Vec<i64> = (sent..due).collect();
        let messages: Vec<Vec<u8>> = numbers
            .chunks(ENVELOPE)
            .map(|some| {
                let events = some.iter().map(|n| {
                    let call = books.reported_call(n % plan.corrected);
                    // Another amount in each round.
                    let payout = format!("{}.00", 10 + (n / plan.corrected) % 90);
                    event(
                        *n,
                        call,
                        &json!({"ref_id": books.ref_id(call), "payout": payout}),
                        books,
                    )
                });
                envelope::encode_envelope(&Envelope::from_events(events.collect()))
            })
            .collect();
        futures_util::future::try_join_all(
            messages
                .iter()
                .map(|m| topology::publish_event(&channel, None, m)),
        )
        .await?;
        sent = due;
        if !half_told && started.elapsed() > plan.span / 2 {
            half_told = true;
            sizes(
                &client,
                &format!(
                    "after {} s and {sent} corrections",
                    started.elapsed().as_secs()
                ),
            )
            .await?;
        }
    }
    let behind = depth(&broker).await?;
    while depth(&broker).await? > 0 {
        tokio::time::sleep(TICK).await;
    }
    sizes(
        &client,
        &format!(
            "after {} s and {sent} corrections ({behind} messages behind)",
            plan.span.as_secs()
        ),
    )
    .await
}

async fn sizes(client: &Client, when: &str) -> anyhow::Result<()> {
    print_line(format_args!("  {when}:"));
    // Counters of what was done are sent to the collector at most once a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let statement = "SELECT relname::text, pg_relation_size(relid) / 1024, pg_indexes_size(relid) / 1024, n_live_tup, n_dead_tup,
                            n_tup_upd, n_tup_hot_upd, autovacuum_count
                       FROM pg_stat_user_tables
                      WHERE relname IN ('calls', 'publishers', 'call_reports', 'pending_reports', 'call_recorded_outbox', 'event_attempts')
                      ORDER BY 1";
    for row in client.query(statement, &[]).await? {
        let number = |at: usize| row.get::<_, i64>(at);
        print_line(format_args!(
            "    {:<16} table {:>7} KiB, indexes {:>7} KiB, {:>8} live, {:>7} dead, {:>8} updates of which {:>8} HOT, {} autovacuums",
            row.get::<_, &str>(0),
            number(1),
            number(2),
            number(3),
            number(4),
            number(5),
            number(6),
            number(7),
        ));
    }
    Ok(())
}
