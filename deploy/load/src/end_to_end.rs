//! Goals 4 and 5: all of it together, from a sender's request to the row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use trueup_testkit::http;
use trueup_testkit::process::Process;

use crate::environment::{Baseline, Testbed};
use crate::fixtures::ACCOUNTS;
use crate::gateway_throughput::{self, Spans};
use crate::goals::{Better, Goal};
use crate::process_stats::Cpu;
use crate::report::Report;
use crate::requests::{Kind, Sender};
use crate::traffic::{LoadModel, Plan};
use trueup_testkit::output::print_line;

/// Connections that the pace is sent over.
const CONNECTIONS: usize = 256;
/// How old a report may become before its row is there (goal 4).
const AGE: f64 = 1.0;
/// Paces that are tried, in parts of a hundred of hyper alone; the first that holds counts.
pub const PACES: [f64; 12] = [
    18.0, 14.0, 12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0,
];
pub const QUICK_PACES: [f64; 4] = [11.0, 9.0, 7.0, 5.0];
/// A pace that cannot be held is given up when this many seconds' worth is waiting.
const BEHIND: f64 = 2.0;
/// Everything that was sent is settled within this.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// Settled reports, and those that took longer than a second, as the workers count them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settled {
    pub all: f64,
    within_a_second: f64,
}

async fn settled(workers: &mut [Process]) -> anyhow::Result<Settled> {
    let mut sum = Settled::default();
    for worker in workers {
        let ops = worker.address("ops").await;
        let text = http::get(ops, "/metrics")
            .await
            .map_err(|e| anyhow::anyhow!("no metrics: {e}"))?
            .text();
        let sample = |name: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        sum.all += sample("trueup_worker_lag_seconds_count");
        sum.within_a_second += sample("trueup_worker_lag_seconds_bucket{le=\"1\"}");
    }
    Ok(sum)
}

pub async fn sustained(
    mut stage: Testbed,
    spans: Spans,
    paces: &[f64],
    span: Duration,
    report: &mut Report,
) -> anyhow::Result<Testbed> {
    let ceiling = Baseline::start().await?;
    let before = gateway_throughput::measure_bare_hyper(&ceiling, CONNECTIONS, spans).await?;
    let mut held = None;
    for &pace in paces {
        // Each pace on new books: none inherits what the ones before have left to Postgres.
        stage = stage.recreate().await?;
        let rate = before.per_second * pace / 100.0;
        print_line(format_args!(
            "  trying {:.1} k/s ({pace} % of hyper alone) for {} s …",
            rate / 1e3,
            span.as_secs()
        ));
        if let Some(outcome) = try_pace(&mut stage, rate, span, report).await? {
            held = Some((rate, outcome));
            break;
        }
    }
    let after = gateway_throughput::measure_bare_hyper(&ceiling, CONNECTIONS, spans).await?;
    let bare = f64::midpoint(before.per_second, after.per_second);
    let (rate, value) = match held {
        Some((rate, outcome)) => {
            report.curve("all together, the sender's answer", &outcome.times);
            (
                rate,
                format!("{:.1} k/s, lag {}", rate / 1e3, lag(&stage).await?),
            )
        }
        None => (0.0, "no pace was held".to_owned()),
    };
    report.judge(Goal {
        number: 4,
        what: format!(
            "all together, {} s, no row later than {AGE} s",
            span.as_secs()
        ),
        value,
        ceiling: format!("hyper {:.1} k/s", bare / 1e3),
        measured: 100.0 * rate / bare,
        unit: "% of it",
        better: Better::More,
        pass: 11.0,
        stretch: Some(18.0),
    });
    Ok(stage)
}

/// The outcome, if the pace was held and no row was late.
async fn try_pace(
    stage: &mut Testbed,
    rate: f64,
    span: Duration,
    report: &mut Report,
) -> anyhow::Result<Option<crate::traffic::Outcome>> {
    let start = settled(&mut stage.workers).await?;
    let cpu = Cpu::now();
    let began = Instant::now();
    let mut workers = std::mem::take(&mut stage.workers);
    let stop = Arc::new(AtomicBool::new(false));
    let sending = gateway_throughput::driven(
        Plan {
            doors: stage.doors.clone(),
            connections: CONNECTIONS,
            pace: LoadModel::PerSecond(rate),
            warm_up: Duration::ZERO,
            span,
            stop: Arc::clone(&stop),
        },
        Kind::Report,
        stage.books.calls,
    );
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let done = settled(&mut workers).await?.all - start.all;
            let sent = rate * began.elapsed().min(span).as_secs_f64();
            if sent - done > BEHIND * rate {
                return anyhow::Ok(sent - done);
            }
        }
    };
    let outcome = tokio::select! {
        outcome = sending => Ok(outcome?),
        behind = watching => Err(behind?),
    };
    let cores = Cpu::now().since(&cpu);
    stage.workers = workers;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(behind) => {
            print_line(format_args!(
                "  behind by {behind:.0} reports after {:.0} s",
                began.elapsed().as_secs_f64()
            ));
            stop.store(true, Ordering::Relaxed);
            all_settled(stage).await?;
            return Ok(None);
        }
    };
    let done = all_settled(stage).await?;
    let late = (done.all - start.all) - (done.within_a_second - start.within_a_second);
    print_line(format_args!(
        "  answers: {}; {} settled, {late:.0} of them later than {AGE} s",
        gateway_throughput::in_short(&outcome),
        done.all - start.all
    ));
    let held = late < 1.0 && outcome.expect_all(200).is_ok();
    if held {
        report.cpu(&format!("all together, {:.1} k/s", rate / 1e3), cores);
    }
    Ok(held.then_some(outcome))
}

/// Waits until the workers have nothing left to do.
pub async fn all_settled(stage: &mut Testbed) -> anyhow::Result<Settled> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let mut last = settled(&mut stage.workers).await?;
    let mut same = 0;
    while same < 4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = settled(&mut stage.workers).await?;
        same = if (now.all - last.all).abs() < 0.5 {
            same + 1
        } else {
            0
        };
        last = now;
        ensure!(
            Instant::now() < deadline,
            "the workers did not come to an end"
        );
    }
    Ok(last)
}

/// From a report's reception to its decision, of the last minutes, as the rows say.
async fn lag(stage: &Testbed) -> anyhow::Result<String> {
    let sql = "SELECT percentile_disc(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY (1000 * extract(epoch FROM processed_at - received_at))::float8)
                 FROM (SELECT processed_at, received_at FROM events ORDER BY received_at DESC LIMIT 200000) e";
    let row = stage.client.query_one(sql, &[]).await?;
    let marks: Vec<f64> = row.get(0);
    let mark = |n: usize| marks.get(n).copied().unwrap_or(0.0);
    Ok(format!(
        "p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        mark(0),
        mark(1),
        mark(2)
    ))
}

/// One report at a time, 50 a second: when can its row be read?
pub async fn one_at_a_time(
    stage: &mut Testbed,
    span: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    const PER_SECOND: u32 = 50;
    let key = stage.open_console().await;
    let console = stage
        .console
        .as_mut()
        .context("just opened")?
        .address("console")
        .await;
    let door = stage.doors[0];
    let (times, mut measured) = mpsc::channel::<anyhow::Result<Duration>>(1024);
    let mut sender = Sender::new(Kind::Report, stage.books.calls);
    sender.every = ACCOUNTS;
    let count = PER_SECOND * u32::try_from(span.as_secs())?;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let cpu = Cpu::now();
    // A few pairs of kept connections, so that a slow one delays none of the next.
    let (back, mut free) = mpsc::channel(16);
    for _ in 0..16 {
        let pair = (
            http::Client::connect(door).await?,
            http::Client::connect(console).await?,
        );
        back.send(pair).await.ok().context("there is room")?;
    }
    for _ in 0..count {
        tick.tick().await;
        let due = Instant::now();
        let mut request = Vec::new();
        sender.write(&mut request);
        let (mut at_door, mut at_console) = free.recv().await.context("connections")?;
        let (times, back) = (times.clone(), back.clone());
        tokio::spawn(async move {
            let took = until_readable(&mut at_door, &mut at_console, &request, key, due).await;
            let _ = times.send(took).await;
            let _ = back.send((at_door, at_console)).await;
        });
    }
    drop(times);
    let mut histogram: Histogram<u64> = Histogram::new_with_max(60_000_000, 3)?;
    while let Some(took) = measured.recv().await {
        histogram.saturating_record(u64::try_from(took?.as_micros())?.max(1));
    }
    report.cpu("one at a time, 50 a second", Cpu::now().since(&cpu));
    report.curve("one at a time, until the row is readable", &histogram);
    for (percentile, limit) in [(50.0, 15.0), (99.0, 60.0)] {
        let millis = histogram.value_at_percentile(percentile) as f64 / 1000.0;
        report.judge(Goal {
            number: 5,
            what: format!("50 a second, request to readable row, p{percentile}"),
            value: format!("{millis:.1} ms"),
            ceiling: String::new(),
            measured: millis,
            unit: "ms",
            better: Better::Less,
            pass: limit,
            stretch: None,
        });
    }
    Ok(())
}

async fn until_readable(
    door: &mut http::Client,
    console: &mut http::Client,
    request: &[u8],
    key: &str,
    due: Instant,
) -> anyhow::Result<Duration> {
    door.write(request).await?;
    let answer = door.answer(false).await?;
    ensure!(
        answer.status == 200,
        "the door said {}: {}",
        answer.status,
        answer.text()
    );
    let id = answer.json()["event_id"]
        .as_str()
        .context("an event's id")?
        .to_owned();
    let path = format!("/api/v1/events/{id}");
    let bearer = format!("Bearer {key}");
    loop {
        let answer = console
            .send("GET", &path, &[("Authorization", &bearer)], b"")
            .await?;
        if answer.status == 200 {
            return Ok(due.elapsed());
        }
        ensure!(
            answer.status == 404,
            "the console said {}: {}",
            answer.status,
            answer.text()
        );
        ensure!(due.elapsed() < Duration::from_secs(10), "no row after 10 s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
