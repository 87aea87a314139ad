//! One account sends all that its limits allow, in the shapes that cost most; ten others send a report a
//! second each. What do the others feel, beside what they feel alone?
//!
//! Each shape has new books and new processes, so that none inherits what the one before has left.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use trueup_testkit::http;
use uuid::Uuid;

use crate::environment::Testbed;
use crate::fixtures::{self, ACCOUNT, ACCOUNTS};
use crate::process_stats::{Cpu, resident};
use crate::requests::{SECRET, token};
use trueup_testkit::output::print_line;

/// Calls in the books.
const CALLS: i64 = 40_000;
/// Accounts that send a report a second each: those from the second on.
const QUIET_ACCOUNTS: i64 = 10;
/// Connections that the hostile account sends over, each as fast as it is answered.
const HOSTILE_CONNECTIONS: usize = 8;
/// Addresses that it sends from, in turn: 50 requests a minute each.
const HOSTILE_ADDRESSES: u32 = 4_000;
/// Elements of its batches (X3).
const ELEMENTS: usize = 500;
/// The door's largest batch, less the brackets (bytes).
const BATCH_BYTES: usize = 512 * 1024 - 64;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// No shape may make the others' p99 lag worse than this (milliseconds).
const MOST_LAG_MS: u64 = 2_000;
/// What a gateway and a worker may hold at most (bytes): the limits of docker-compose.yml and Kubernetes.
const MOST_GATEWAY_BYTES: u64 = 256 << 20;
const MOST_WORKER_BYTES: u64 = 384 << 20;
/// The quiet accounts' reports must have their rows after this; else nothing is measured.
const SETTLED_WITHIN: Duration = Duration::from_secs(300);

#[derive(Args)]
pub struct Options {
    /// Only these shapes [default: all]
    #[arg(long = "shape", value_enum, value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// Seconds for which each is sent
    #[arg(long, default_value_t = 30)]
    span: u64,
    /// Webhooks of the hostile account: 200 requests a minute each
    #[arg(long, default_value_t = 10)]
    webhooks: i64,
    /// Where the binaries are
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// Where the table goes
    #[arg(long, default_value = "deploy/perf/neighbour.md")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Nobody but the quiet accounts
    Alone,
    /// Batches of 500 reports about as many calls
    Batches,
    /// Batches of 500 different payouts for one call (V13)
    HotCall,
    /// Batches of 500 guesses of one caller and one length (M4, M15)
    OneCaller,
    /// Batches of 500 reports about calls that never come (M7)
    NeverRecorded,
    /// Batches of half a megabyte, 250 fields in each element
    ManyFields,
    /// Half a megabyte that is no JSON, with every byte escaped
    NoJson,
    /// Single reports, as many as the limits let in
    Singles,
}

impl Shape {
    /// The body of its n-th request.
    fn write_body(self, n: u64, out: &mut Vec<u8>) {
        match self {
            Shape::Alone => {}
            Shape::Singles => write_report(out, n, &call_of(n)),
            Shape::Batches => write_batch(out, |out, at| {
                write_report(out, n, &call_of(n * ELEMENTS as u64 + at));
            }),
            Shape::HotCall => write_batch(out, |out, at| {
                write_report(out, n * ELEMENTS as u64 + at, "\"ref_id\":\"ref-0\"");
            }),
            Shape::OneCaller => write_batch(out, |out, at| {
                let length = fixtures::duration(0) - 20;
                let who = format!("\"caller_id\":\"+12002000000\",\"duration\":{length}");
                write_report(out, n * ELEMENTS as u64 + at, &who);
            }),
            Shape::NeverRecorded => write_batch(out, |out, at| {
                write_report(out, at, &format!("\"ref_id\":\"never-{n}-{at}\""));
            }),
            Shape::ManyFields => write_batch(out, |out, at| {
                let ends = out.len() + (BATCH_BYTES - out.len()) / (ELEMENTS - at as usize) - 8;
                let _ = write!(out, "{{\"payout\":\"1.{:02}\"", at % 100);
                let mut field = 0;
                while out.len() + 10 < ends && field < 250 {
                    let _ = write!(out, ",\"f{field}\":1");
                    field += 1;
                }
                out.push(b'}');
            }),
            Shape::NoJson => {
                out.push(b'[');
                out.resize(BATCH_BYTES, b'"');
            }
        }
    }
}

/// A batch; `element` writes the n-th of its elements.
fn write_batch(out: &mut Vec<u8>, mut element: impl FnMut(&mut Vec<u8>, u64)) {
    out.push(b'[');
    for at in 0..ELEMENTS as u64 {
        if at > 0 {
            out.push(b',');
        }
        element(out, at);
    }
    out.push(b']');
}

/// A report of its own payout. A Vec takes whatever is written.
fn write_report(out: &mut Vec<u8>, n: u64, who: &str) {
    let (dollars, cents) = (1 + n / 100 % 9_000, n % 100);
    let _ = write!(out, "{{{who},\"payout\":\"{dollars}.{cents:02}\"}}");
}

/// The n-th call of the hostile account.
fn call_of(n: u64) -> String {
    let call = n % (CALLS / ACCOUNTS).unsigned_abs() * ACCOUNTS.unsigned_abs();
    format!("\"ref_id\":\"ref-{call}\"")
}

/// What one shape did.
struct Measured {
    shape: Shape,
    requests: u64,
    accepted: u64,
    sent_bytes: u64,
    /// From a quiet account's report's reception to its decision (milliseconds).
    lag: Histogram<u64>,
    /// From a quiet account's request to its answer (microseconds).
    answers: Histogram<u64>,
    quiet_refused: u64,
    gateway_peak: u64,
    worker_peak: u64,
    cores: Vec<(&'static str, f64)>,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let mut shapes = options.shapes.clone();
    if shapes.is_empty() {
        shapes = Shape::value_variants().to_vec();
    }
    let mut table = String::from(
        "| One account sends | Requests, taken | MiB sent | Others: p99 and longest lag | Others: p99 of their answers | Others refused | Gateway, worker at most | Cores |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mut too_much = Vec::new();
    for shape in shapes {
        let measured = measure(options, shape).await?;
        too_much.extend(measured.is_too_much().then_some(shape));
        let line = measured.to_row();
        print_line(&line);
        table.push_str(&line);
        table.push('\n');
    }
    let text = format!(
        "# One account sends all that its limits allow\n\n\
         Written by `cargo xtask load --neighbour`. {} s each; {QUIET_ACCOUNTS} other accounts send a report a second each. The\n\
         one account has {} webhooks at 200 requests a minute and sends from {HOSTILE_ADDRESSES} addresses over {HOSTILE_CONNECTIONS} connections.\n\n{table}",
        options.span, options.webhooks
    );
    std::fs::write(&options.out, text).with_context(|| options.out.display().to_string())?;
    ensure!(
        too_much.is_empty(),
        "{too_much:?}: the others waited more than {MOST_LAG_MS} ms, or a process was too large"
    );
    Ok(())
}

async fn measure(options: &Options, shape: Shape) -> anyhow::Result<Measured> {
    let mut stage = Testbed::set(&options.binaries, CALLS).await?;
    stage.open_doors(1).await?;
    stage.start_workers(1).await;
    let span = Duration::from_secs(options.span);
    let hostile = Arc::new(Hostile {
        shape,
        webhooks: options.webhooks,
        door: stage.doors[0],
        next: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        sent_bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let mut senders = JoinSet::new();
    if shape != Shape::Alone {
        for _ in 0..HOSTILE_CONNECTIONS {
            senders.spawn(Arc::clone(&hostile).send_until_stopped());
        }
    }
    let cpu = Cpu::now();
    let mut quiet = JoinSet::new();
    for account in 1..=QUIET_ACCOUNTS {
        quiet.spawn(send_each_second(stage.doors[0], account, span));
    }
    let (mut gateway_peak, mut worker_peak) = (0, 0);
    let pids = (stage.gateways[0].id(), stage.workers[0].id());
    let mut look = || {
        gateway_peak = resident(pids.0).max(gateway_peak);
        worker_peak = resident(pids.1).max(worker_peak);
    };
    let mut answers = Histogram::new_with_max(600_000_000, 3)?;
    let (mut quiet_ids, mut quiet_refused) = (Vec::new(), 0);
    loop {
        tokio::select! {
            joined = quiet.join_next() => match joined {
                Some(sent) => {
                    let sent = sent??;
                    answers.add(&sent.answers)?;
                    quiet_ids.extend(sent.ids);
                    quiet_refused += sent.refused;
                }
                None => break,
            },
            () = tokio::time::sleep(LOOK_EVERY) => look(),
        }
    }
    hostile.stop.store(true, Ordering::Relaxed);
    let cores = Cpu::now().since(&cpu);
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    let lag = lag_of(&stage, &quiet_ids, &mut look).await?;
    Ok(Measured {
        shape,
        requests: hostile.next.load(Ordering::Relaxed),
        accepted: hostile.accepted.load(Ordering::Relaxed),
        sent_bytes: hostile.sent_bytes.load(Ordering::Relaxed),
        lag,
        answers,
        quiet_refused,
        gateway_peak,
        worker_peak,
        cores,
    })
}

struct Hostile {
    shape: Shape,
    webhooks: i64,
    door: SocketAddr,
    next: AtomicU64,
    accepted: AtomicU64,
    sent_bytes: AtomicU64,
    stop: AtomicBool,
}

impl Measured {
    fn is_too_much(&self) -> bool {
        self.lag.value_at_quantile(0.99) > MOST_LAG_MS
            || self.gateway_peak > MOST_GATEWAY_BYTES
            || self.worker_peak > MOST_WORKER_BYTES
    }
}

impl Hostile {
    async fn send_until_stopped(self: Arc<Self>) -> anyhow::Result<()> {
        let (mut body, mut request) = (Vec::new(), Vec::new());
        let mut client = http::Client::connect(self.door).await?;
        while !self.stop.load(Ordering::Relaxed) {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            body.clear();
            request.clear();
            self.shape.write_body(n, &mut body);
            // The account's webhooks are those whose number its own number divides.
            let webhook = i64::try_from(n)? % self.webhooks * ACCOUNTS;
            let address = Ipv4Addr::from((20 << 24) + u32::try_from(n)? % HOSTILE_ADDRESSES);
            write_request(&mut request, webhook, address, &body);
            self.sent_bytes
                .fetch_add(request.len() as u64, Ordering::Relaxed);
            let status = match client.write(&request).await {
                Ok(()) => client.answer(false).await.map(|answer| answer.status),
                Err(error) => Err(error),
            };
            match status {
                Ok(200) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                }
                // Over its limit: it asks again soon, as a bad client does.
                Ok(429) => tokio::time::sleep(Duration::from_millis(5)).await,
                Ok(_) => {}
                Err(_) => client = http::Client::connect(self.door).await?,
            }
        }
        Ok(())
    }
}

fn write_request(out: &mut Vec<u8>, webhook: i64, address: Ipv4Addr, body: &[u8]) {
    let _ = write!(
        out,
        "POST /api/v1/ppc/inbound-webhooks/{} HTTP/1.1\r\nHost: door.test\r\nX-Forwarded-For: {address}\r\n\
         X-Webhook-Secret: {SECRET}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        token(webhook),
        body.len()
    );
    out.extend_from_slice(body);
}

struct QuietSender {
    ids: Vec<Uuid>,
    answers: Histogram<u64>,
    refused: u64,
}

/// A report a second, each about another call of its account.
async fn send_each_second(
    door: SocketAddr,
    account: i64,
    span: Duration,
) -> anyhow::Result<QuietSender> {
    let mut sent = QuietSender {
        ids: Vec::new(),
        answers: Histogram::new_with_max(600_000_000, 3)?,
        refused: 0,
    };
    let mut client = http::Client::connect(door).await?;
    // Not all in the same moment.
    tokio::time::sleep(Duration::from_millis(97 * account.unsigned_abs())).await;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for n in 0..i64::try_from(span.as_secs())? {
        tick.tick().await;
        let mut body = Vec::new();
        let call = n * ACCOUNTS + account;
        write_report(
            &mut body,
            n.unsigned_abs(),
            &format!("\"ref_id\":\"ref-{call}\""),
        );
        let mut request = Vec::new();
        let address = Ipv4Addr::new(30, 0, 0, u8::try_from(account)?);
        write_request(&mut request, account, address, &body);
        let due = Instant::now();
        client.write(&request).await?;
        let answer = client.answer(false).await?;
        sent.answers
            .saturating_record(u64::try_from(due.elapsed().as_micros())?.max(1));
        if answer.status != 200 {
            sent.refused += 1;
            continue;
        }
        let id = answer.json()["event_id"].as_str().context("an id")?.parse();
        sent.ids.push(id?);
    }
    Ok(sent)
}

/// Waits for the rows of the quiet accounts' reports.
async fn lag_of(
    stage: &Testbed,
    ids: &[Uuid],
    look: &mut impl FnMut(),
) -> anyhow::Result<Histogram<u64>> {
    const LAGS: &str = "SELECT (1000 * extract(epoch FROM processed_at - received_at))::bigint
                          FROM events WHERE account_id = ANY($1) AND id = ANY($2)";
    let accounts: Vec<Uuid> = (1..=QUIET_ACCOUNTS)
        .map(|n| fixtures::id(ACCOUNT, n))
        .collect();
    let began = Instant::now();
    loop {
        look();
        let rows = stage.client.query(LAGS, &[&accounts, &ids]).await?;
        if rows.len() >= ids.len() {
            let mut lag = Histogram::new_with_max(600_000, 3)?;
            for row in rows {
                let millis: i64 = row.get(0);
                lag.saturating_record(millis.max(1).unsigned_abs());
            }
            return Ok(lag);
        }
        ensure!(
            began.elapsed() < SETTLED_WITHIN,
            "{} of the quiet accounts' {} reports have no row after {} s",
            ids.len() - rows.len(),
            ids.len(),
            SETTLED_WITHIN.as_secs()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Measured {
    fn to_row(&self) -> String {
        let name = self.shape.to_possible_value();
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let cores: Vec<String> = self
            .cores
            .iter()
            .map(|(name, cores)| format!("{name} {cores:.2}"))
            .collect();
        format!(
            "| {} | {}, {} | {} | {} and {} ms | {:.1} ms | {} | {}, {} MiB | {} |",
            name.as_ref().map_or("", |value| value.get_name()),
            self.requests,
            self.accepted,
            mib(self.sent_bytes),
            self.lag.value_at_quantile(0.99),
            self.lag.max(),
            self.answers.value_at_quantile(0.99) as f64 / 1000.0,
            self.quiet_refused,
            mib(self.gateway_peak),
            mib(self.worker_peak),
            cores.join(", ")
        )
    }
}
