//! Goal 3: how fast a worker drains a full queue of mixed reports, beside the ceiling of its database
//! and the floor of settling one by one. Goal 6: the same on books that have grown.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::json;
use trueup_event::raw_event::{Envelope, RawEvent, RawRequest};
use trueup_event::{envelope, ids};
use trueup_queue::connection::BrokerConnection;
use trueup_queue::topology::{self, QueueBounds};
use trueup_store::{Pool, PoolProfile, PoolSettings};
use trueup_testkit::broker_and_redis::Lease;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::process::{Process, Start};
use trueup_testkit::query_plans;

use crate::baseline_sql;
use crate::environment::on_services;
use crate::fixtures::{self, Dataset};
use crate::goals::{Better, Goal};
use crate::report::Report;
use trueup_testkit::output::print_line;

#[derive(Debug, Clone)]
pub struct Plan {
    /// Calls in the books.
    pub calls: i64,
    /// Rows of earlier reports.
    pub events: i64,
    /// Reports in the queue.
    pub reports: usize,
    /// One account with one publisher.
    pub hot: bool,
    pub workers: usize,
    /// How long the ceiling is measured before and again after the drain, and the floor once.
    pub span: Duration,
    /// Wait for a line on standard input once the books are made: making large ones takes minutes, measuring
    /// wants a quiet machine.
    pub wait: bool,
    /// The worker's binary.
    pub worker: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Outcome {
    /// Reports a second: the drain's, the ceiling's (the mean of before and after), the floor's.
    pub rate: f64,
    pub ceiling: f64,
    pub floor: f64,
    /// Processor time for one report, in microseconds: the workers', and that of their Postgres sessions.
    pub worker_micros: f64,
    pub postgres_micros: f64,
    /// And of the ceiling's one session.
    pub ceiling_micros: f64,
    /// Rows by status and reason, most first.
    pub rows: Vec<(String, i64)>,
}

/// Reports in one envelope, as a busy gateway makes them.
pub const ENVELOPE: usize = 100;
/// Messages that are filled in between two waits for the broker's confirms.
const CONFIRMS_AT_ONCE: usize = 50;
const LOOK_EVERY: Duration = Duration::from_millis(10);
const DRAINED_WITHIN: Duration = Duration::from_secs(600);

pub async fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let database = TestDatabase::fresh().await;
    let lease = Lease::acquire().await;
    let client = database.client().await;
    print_line(format_args!(
        "  making books of {} calls and {} event rows …",
        plan.calls, plan.events
    ));
    let books = Dataset::make(&client, plan.calls, plan.hot).await?;
    books.add_events(&client, plan.events).await?;
    check_plans(&database).await?;
    if plan.wait {
        print_line("  the books are made; a line on standard input begins the measurement");
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    }
    print_line(format_args!(
        "  filling the queue with {} reports …",
        plan.reports
    ));
    let broker = lease.broker().await;
    fill(&broker, plan.reports, |n| report(n, books)).await?;

    client.batch_execute("CHECKPOINT").await?;
    let mut session = database.client().await;
    let before = baseline_sql::batches(&mut session, books, plan.span).await?;
    print_line(format_args!(
        "  ceiling (locked batches of 200, one connection): {before:.0} reports/s"
    ));
    let ceiling_micros =
        sessions_cpu(&session, MINE).await? * 1e6 / (before * plan.span.as_secs_f64());
    client.batch_execute("CHECKPOINT").await?;
    let Drained {
        rate,
        worker_seconds,
        postgres_seconds,
    } = drain(plan, &database, &lease, &broker, &client).await?;
    print_line(format_args!("  drained: {rate:.0} reports/s"));
    client.batch_execute("CHECKPOINT").await?;
    let after = baseline_sql::batches(&mut session, books, plan.span).await?;
    print_line(format_args!("  ceiling again: {after:.0} reports/s"));
    let floor = baseline_sql::one_by_one(&database, books, plan.span).await?;
    print_line(format_args!(
        "  floor (one transaction a report, unpipelined, 16 connections): {floor:.0} reports/s"
    ));
    let each = |seconds: f64| seconds * 1e6 / plan.reports as f64;
    let outcome = Outcome {
        rate,
        ceiling: f64::midpoint(before, after),
        floor,
        worker_micros: each(worker_seconds),
        postgres_micros: each(postgres_seconds),
        ceiling_micros,
        rows: statuses(&client).await?,
    };
    print_line(format_args!(
        "  {:.0} % of the ceiling, {:.1} times the floor",
        100.0 * outcome.rate / outcome.ceiling,
        outcome.rate / outcome.floor,
    ));
    print_line(format_args!(
        "  processor time a report: Postgres {:.0} µs, worker {:.0} µs; the ceiling's session {:.0} µs",
        outcome.postgres_micros, outcome.worker_micros, outcome.ceiling_micros
    ));
    Ok(outcome)
}

/// Goal 3: one worker's rate, beside both.
pub async fn drained(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    print_line(format_args!(
        "draining a full queue of {} reports with {} worker(s) …",
        plan.reports, plan.workers
    ));
    let outcome = run(plan).await?;
    let what = |measured_against: &str| {
        let hot = if plan.hot { ", one publisher" } else { "" };
        format!("draining{hot}, against {measured_against}")
    };
    let value = format!("{:.1} k/s", outcome.rate / 1e3);
    report.judge(Goal {
        number: 3,
        what: what("the locked ceiling"),
        value: value.clone(),
        ceiling: format!("{:.1} k/s", outcome.ceiling / 1e3),
        measured: 100.0 * outcome.rate / outcome.ceiling,
        unit: "%",
        better: Better::More,
        pass: 60.0,
        stretch: None,
    });
    report.judge(Goal {
        number: 3,
        what: what("one transaction a report"),
        value: value.clone(),
        ceiling: format!("{:.1} k/s", outcome.floor / 1e3),
        measured: outcome.rate / outcome.floor,
        unit: "times",
        better: Better::More,
        pass: 3.0,
        stretch: None,
    });
    report.judge(Goal {
        number: 3,
        what: "draining, in absolute figures".to_owned(),
        value,
        ceiling: String::new(),
        measured: outcome.rate / 1e3,
        unit: "k/s",
        better: Better::More,
        pass: 0.6 * outcome.ceiling / 1e3,
        stretch: Some(25.0),
    });
    Ok(())
}

/// Goal 6: the rate on books of 1 million calls, and of 5 with 10 million rows of reports.
pub async fn grown(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let small = run(&Plan {
        calls: 1_000_000,
        events: 0,
        ..plan.clone()
    })
    .await?;
    let large = run(&Plan {
        calls: 5_000_000,
        events: 10_000_000,
        ..plan.clone()
    })
    .await?;
    report.judge(Goal {
        number: 6,
        what: "settling on 5 M calls and 10 M event rows, against 1 M calls; every hot plan through an index".into(),
        value: format!("{:.1} k/s", large.rate / 1e3),
        ceiling: format!("{:.1} k/s", small.rate / 1e3),
        measured: 100.0 - 100.0 * large.rate / small.rate,
        unit: "% slower",
        better: Better::Less,
        pass: 20.0,
        stretch: None,
    });
    report.notes.push(format!(
        "The locked ceiling on the same books: {:.1} k/s on 1 M calls, {:.1} k/s on 5 M calls and 10 M event rows.",
        small.ceiling / 1e3,
        large.ceiling / 1e3
    ));
    Ok(())
}

/// Every hot statement must go through an index (goal 6).
async fn check_plans(database: &TestDatabase) -> anyhow::Result<()> {
    let settings = PoolSettings {
        profile: PoolProfile::Settlement,
        ..PoolSettings::for_application("trueup-load", 1)
    };
    let pool = Pool::new(&database.url, &settings)?;
    let client = pool.get().await?;
    let wrong = query_plans::unindexed(&client).await?;
    anyhow::ensure!(
        wrong.is_empty(),
        "hot statements without an index:\n{}",
        wrong.join("\n")
    );
    print_line("  every hot statement goes through an index");
    Ok(())
}

struct Drained {
    rate: f64,
    /// Processor time, from the first message taken to the last row.
    worker_seconds: f64,
    postgres_seconds: f64,
}

async fn drain(
    plan: &Plan,
    database: &TestDatabase,
    lease: &Lease,
    broker: &BrokerConnection,
    client: &tokio_postgres::Client,
) -> anyhow::Result<Drained> {
    let rows_before = rows(client).await?;
    let messages = u32::try_from(plan.reports.div_ceil(ENVELOPE)).context("too many reports")?;
    let mut workers: Vec<Process> = (0..plan.workers)
        .map(|_| start_worker(&plan.worker, database, lease))
        .collect();
    let begun = Instant::now();
    let in_time = |workers: &mut [Process]| {
        ensure!(
            begun.elapsed() < DRAINED_WITHIN,
            "not drained in {DRAINED_WITHIN:?}"
        );
        for worker in workers {
            ensure!(worker.is_running(), "a worker has ended:\n{}", worker.log());
        }
        anyhow::Ok(())
    };
    // Messages leave the queue when a worker takes them, moments before it settles the first.
    while depth(broker).await? == messages {
        in_time(&mut workers)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let started = Instant::now();
    let used = |workers: &[Process]| {
        let pids = workers.iter().map(|worker| worker.id().into());
        pids.map(cpu_seconds).sum::<f64>()
    };
    let (used_before, postgres_before) = (used(&workers), sessions_cpu(client, WORKERS).await?);
    while depth(broker).await? > 0 {
        in_time(&mut workers)?;
        tokio::time::sleep(LOOK_EVERY * 5).await;
    }
    // Counting is dear for the database, so only the last moments are watched by it.
    while rows(client).await? - rows_before < i64::try_from(plan.reports)? {
        in_time(&mut workers)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(Drained {
        rate: plan.reports as f64 / started.elapsed().as_secs_f64(),
        worker_seconds: used(&workers) - used_before,
        postgres_seconds: sessions_cpu(client, WORKERS).await? - postgres_before,
    })
}

/// Which sessions of Postgres are meant, in `pg_stat_activity`.
const WORKERS: &str = "application_name = 'trueup-worker' AND datname = current_database()";
const MINE: &str = "pid = pg_backend_pid()";

/// Processor time of sessions since they began; 0 where Postgres is not on this machine.
async fn sessions_cpu(client: &tokio_postgres::Client, which: &str) -> anyhow::Result<f64> {
    let rows = client
        .query(
            &format!("SELECT pid FROM pg_stat_activity WHERE {which}"),
            &[],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| cpu_seconds(row.get::<_, i32>(0).into()))
        .sum())
}

/// User and system time of a process so far, from /proc (clock ticks of 10 ms).
fn cpu_seconds(pid: i64) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |n: usize| {
        fields
            .get(n)
            .and_then(|t| t.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

pub async fn depth(broker: &BrokerConnection) -> anyhow::Result<u32> {
    topology::queue_depth(broker.connection(), topology::QUEUE)
        .await?
        .context("the queue is gone")
}

/// Rows of today's reports, not of those that were there as ballast.
pub async fn rows(client: &tokio_postgres::Client) -> anyhow::Result<i64> {
    let count = "SELECT count(*) FROM events WHERE received_at > now() - interval '1 hour'";
    Ok(client.query_one(count, &[]).await?.get(0))
}

async fn statuses(client: &tokio_postgres::Client) -> anyhow::Result<Vec<(String, i64)>> {
    // The ceiling's rows have a payout text of their own.
    let count = "SELECT concat_ws(' ', status, reason), count(*) FROM events
                  WHERE received_at > now() - interval '1 hour' AND payout_raw <> '50.00' GROUP BY 1 ORDER BY 2 DESC";
    Ok(client
        .query(count, &[])
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect())
}

/// 70 % by ref_id, 10 % by call_id, 15 % by caller and duration, 5 % of no call.
fn report(n: usize, books: Dataset) -> RawEvent {
    let number = i64::try_from(n).expect("reports are few");
    let call = books.reported_call(number);
    let payout = format!("{}.{:02}", 60 + number % 60, number % 100);
    let fields = match n % 20 {
        0..14 => json!({
            "ref_id": books.ref_id(call), "caller_id": books.caller(call), "duration": fixtures::duration(call) - 30, "payout": payout
        }),
        14..16 => json!({"call_id": books.call_id(call), "payout": payout}),
        16..19 => {
            json!({"caller_id": books.caller(call), "duration": fixtures::duration(call) - 20, "payout": payout})
        }
        _ => json!({"ref_id": format!("none-{n}"), "payout": payout}),
    };
    event(number, call, &fields, books)
}

/// A report about a call, received now.
pub fn event(number: i64, call: i64, fields: &serde_json::Value, books: Dataset) -> RawEvent {
    let received_at = ids::to_microseconds(Timestamp::now());
    let mut random = [0xA5; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    RawEvent {
        id: ids::event_id(received_at, &random),
        received_at,
        account_id: books.account(call),
        webhook_id: books.webhook(call),
        position: 0,
        source_ip: std::net::IpAddr::from([192, 0, 2, 1]),
        request: Some(RawRequest {
            method: "POST".into(),
            content_type: Some("application/json".into()),
            body: fields.to_string().into_bytes(),
            ..RawRequest::default()
        }),
        refusal: None,
    }
}

/// Fills the queue with so many reports.
pub async fn fill(
    broker: &BrokerConnection,
    reports: usize,
    make: impl Fn(usize) -> RawEvent,
) -> anyhow::Result<()> {
    topology::declare_topology(broker.connection(), QueueBounds::UNBOUNDED).await?;
    let channel = broker.confirm_channel().await?;
    let numbers: Vec<usize> = (0..reports).collect();
    for some in numbers.chunks(ENVELOPE * CONFIRMS_AT_ONCE) {
        let messages: Vec<Vec<u8>> = some
            .chunks(ENVELOPE)
            .map(|chunk| {
                envelope::encode_envelope(&Envelope::from_events(
                    chunk.iter().map(|n| make(*n)).collect(),
                ))
            })
            .collect();
        futures_util::future::try_join_all(
            messages
                .iter()
                .map(|message| topology::publish_event(&channel, None, message)),
        )
        .await?;
    }
    Ok(())
}

/// Starts one and waits for nothing.
pub fn start_worker(binary: &Path, database: &TestDatabase, lease: &Lease) -> Process {
    on_services(Start::new(&binary.to_string_lossy()), database, lease)
        .env("TRUEUP_LOG", "warn")
        .spawn()
}
