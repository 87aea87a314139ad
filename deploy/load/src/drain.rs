//! Goal 3: how fast a worker drains a full queue of mixed reports, beside the ceiling of its database.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;
use trueup_shared::domain::event::{Envelope, RawEvent, RawRequest};
use trueup_shared::domain::ids;
use trueup_shared::queue::{envelope, topology};
use trueup_shared::testkit::database::TestDatabase;
use trueup_shared::testkit::lease::Lease;

use crate::books::{ACCOUNT, ACCOUNTS, Books, CALL, WEBHOOK, account_of, caller, duration, id, ref_id};
use crate::{say, settle_ceiling};

pub struct Plan {
    pub calls: i64,
    pub reports: usize,
    pub hot: bool,
    pub workers: usize,
    pub worker: PathBuf,
}

/// Reports in one envelope, as a busy gateway makes them.
const ENVELOPE: usize = 100;
/// How long the ceiling is measured, before and after the drain.
const CEILING_SPAN: Duration = Duration::from_secs(8);

pub async fn run(plan: &Plan) -> anyhow::Result<()> {
    let database = TestDatabase::fresh().await;
    let lease = Lease::take().await;
    let mut client = database.client().await;
    say(format_args!("making books of {} calls …", plan.calls));
    let books = Books::make(&client, plan.calls, plan.hot).await?;
    client.batch_execute("CHECKPOINT").await?;
    let before = settle_ceiling::batches(&mut client, &books, CEILING_SPAN).await?;
    say(format_args!("ceiling (locked batches of 200, one connection): {before:.0} reports/s"));

    say(format_args!("filling the queue with {} reports …", plan.reports));
    fill(&lease, plan).await?;
    let rows_before = rows(&client).await?;
    let started = Instant::now();
    let workers =
        (0..plan.workers).map(|_| Worker::start(plan, &database, &lease)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut first_row = None;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let done = rows(&client).await? - rows_before;
        if done > 0 && first_row.is_none() {
            first_row = Some(Instant::now());
        }
        if done as usize >= plan.reports {
            break;
        }
        anyhow::ensure!(
            started.elapsed() < Duration::from_secs(600),
            "the queue was not drained in 10 minutes: {done} rows"
        );
    }
    let span = first_row.unwrap_or(started).elapsed().as_secs_f64();
    let rate = plan.reports as f64 / span;
    let cpu: f64 = workers.iter().map(|w| w.cpu_seconds()).sum();
    drop(workers);
    let after = settle_ceiling::batches(&mut client, &books, CEILING_SPAN).await?;
    let ceiling = f64::midpoint(before, after);
    say(format_args!("ceiling again: {after:.0} reports/s"));
    say(format_args!(
        "drained {} reports in {span:.1} s: {rate:.0} reports/s, {:.0} % of the ceiling ({ceiling:.0}); worker CPU {:.2} cores",
        plan.reports,
        100.0 * rate / ceiling,
        cpu / span,
    ));
    for row in client.query("SELECT status, COALESCE(reason, '-'), count(*) FROM events WHERE processed_at > now() - interval '1 hour' GROUP BY 1, 2 ORDER BY 3 DESC", &[]).await? {
        say(format_args!("  {} {}: {}", row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, i64>(2)));
    }
    Ok(())
}

async fn rows(client: &tokio_postgres::Client) -> anyhow::Result<i64> {
    // Planner's counters would lag; the sequence of the primary key's partitions is short enough to count.
    Ok(client.query_one("SELECT count(*) FROM events", &[]).await?.get(0))
}

/// 70 % by ref_id, 10 % by call_id, 15 % by caller and duration, 5 % of no call.
fn report(n: usize, plan: &Plan) -> RawEvent {
    let number = i64::try_from(n).expect("reports are few");
    let call = number.wrapping_mul(104_729).rem_euclid(plan.calls);
    let payout = format!("{}.{:02}", 20 + number % 60, number % 100);
    let fields = match n % 20 {
        0..14 => {
            json!({"ref_id": ref_id(call), "caller_id": caller(call), "duration": duration(call) - 30, "payout": payout})
        }
        14..16 => json!({"call_id": id(CALL, call), "payout": payout}),
        16..19 => json!({"caller_id": caller(call), "duration": duration(call) - 20, "payout": payout}),
        _ => json!({"ref_id": format!("none-{n}"), "payout": payout}),
    };
    let received_at = ids::to_microseconds(Timestamp::now());
    let mut random = [0xA5; 10];
    random[2..].copy_from_slice(&(n as u64).to_be_bytes());
    RawEvent {
        id: ids::event_id(received_at, &random),
        received_at,
        account_id: id(ACCOUNT, account_of(call)),
        webhook_id: id(WEBHOOK, account_of(call) % ACCOUNTS),
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

async fn fill(lease: &Lease, plan: &Plan) -> anyhow::Result<()> {
    let session = lease.broker().await;
    topology::declare(session.connection(), 10_000_000.try_into().expect("not 0")).await?;
    let channel = session.confirm_channel().await?;
    let numbers: Vec<usize> = (0..plan.reports).collect();
    let messages: Vec<Vec<u8>> = numbers
        .chunks(ENVELOPE)
        .map(|chunk| envelope::encode(&Envelope::of(chunk.iter().map(|n| report(*n, plan)).collect())))
        .collect();
    for group in messages.chunks(50) {
        futures_util::future::try_join_all(group.iter().map(|message| topology::publish_event(&channel, message)))
            .await?;
    }
    Ok(())
}

struct Worker {
    child: Child,
}

impl Worker {
    fn start(plan: &Plan, database: &TestDatabase, lease: &Lease) -> anyhow::Result<Worker> {
        let child = Command::new(&plan.worker)
            .env("TRUEUP_POSTGRES_URL", &database.url)
            .env("TRUEUP_AMQP_URL", &lease.amqp_url)
            .env("TRUEUP_WORKER_OPS_LISTEN", "127.0.0.1:0")
            .env("TRUEUP_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| {
                format!("{} cannot be started; build it with `cargo build --release`", plan.worker.display())
            })?;
        Ok(Worker { child })
    }

    /// User and system time so far, from /proc (clock ticks of 10 ms).
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
