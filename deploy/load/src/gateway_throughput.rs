//! Goals 1 and 2: what the door accepts, and what it refuses, beside hyper alone.

use std::sync::Arc;
use std::time::Duration;

use trueup_testkit::http;

use crate::environment::{Baseline, Testbed};
use crate::goals::{Better, Goal};
use crate::process_stats::{Cpu, resident};
use crate::report::Report;
use crate::requests::{Kind, Sender};
use crate::traffic::{LoadModel, Outcome, Plan, drive};
use trueup_testkit::output::print_line;

/// How long each measurement takes.
#[derive(Debug, Clone, Copy)]
pub struct Spans {
    pub warm_up: Duration,
    pub ceiling: Duration,
    pub door: Duration,
}

pub async fn accepting(
    stage: &mut Testbed,
    spans: Spans,
    report: &mut Report,
) -> anyhow::Result<()> {
    let ceiling = Baseline::start().await?;
    let mut bare_p99 = None;
    for (connections, pass, stretch) in [(64, 20.0, 24.0), (256, 36.0, 42.0)] {
        let before = measure_bare_hyper(&ceiling, connections, spans).await?;
        let cpu = Cpu::now();
        let inside = GatewayMetricsDelta::of(stage).await?;
        let door = sent(
            stage,
            Kind::Report,
            connections,
            LoadModel::Flat,
            spans.warm_up,
            spans.door,
        )
        .await?;
        report.cpu(
            &format!("door, {connections} connections"),
            Cpu::now().since(&cpu),
        );
        report.add_note(format!(
            "Door, {connections} connections: {}.",
            GatewayMetricsDelta::of(stage).await?.since(&inside)
        ));
        door.expect_all(200)?;
        let memory = stage
            .gateways
            .iter()
            .map(|g| resident(g.id()))
            .max()
            .unwrap_or(0);
        let after = measure_bare_hyper(&ceiling, connections, spans).await?;
        let bare = f64::midpoint(before.per_second, after.per_second);
        report.judge(Goal {
            number: 1,
            what: format!("door, {connections} connections: accepted and durable"),
            value: format!("{:.1} k/s", door.per_second / 1e3),
            ceiling: format!("hyper {:.1} k/s", bare / 1e3),
            measured: 100.0 * door.per_second / bare,
            unit: "% of it",
            better: Better::More,
            pass,
            stretch: Some(stretch),
        });
        let bare_p99 =
            *bare_p99.get_or_insert(f64::midpoint(before.millis(99.0), after.millis(99.0)));
        if connections == 64 {
            report.judge(Goal {
                number: 1,
                what: "p99 at 64 connections".into(),
                value: format!("{:.2} ms (p50 {:.2})", door.millis(99.0), door.millis(50.0)),
                ceiling: format!("hyper {bare_p99:.2} ms"),
                measured: door.millis(99.0) / bare_p99,
                unit: "times it",
                better: Better::Less,
                pass: 6.0,
                stretch: Some(4.0),
            });
        } else {
            report.judge(memory_goal(
                format!("gateway's memory at {connections} connections"),
                memory,
                64.0,
            ));
        }
        report.curve(&format!("door, {connections} connections"), &door.times);
        report.curve(
            &format!("hyper alone, {connections} connections"),
            &after.times,
        );
    }
    Ok(())
}

/// Sums and counts of what gateways tell of their own work.
struct GatewayMetricsDelta([(f64, f64); 3]);

impl GatewayMetricsDelta {
    async fn of(stage: &mut Testbed) -> anyhow::Result<GatewayMetricsDelta> {
        let mut sums = [(0.0, 0.0); 3];
        for gateway in &mut stage.gateways {
            let ops = gateway.address("ops").await;
            let text = http::get(ops, "/metrics")
                .await
                .map_err(|e| anyhow::anyhow!("no metrics: {e}"))?
                .text();
            let sample = |name: String| {
                text.lines()
                    .find_map(|l| l.strip_prefix(name.as_str())?.trim().parse::<f64>().ok())
                    .unwrap_or(0.0)
            };
            let names = ["limit_seconds", "confirm_seconds", "envelope_events"];
            for (name, (sum, count)) in names.into_iter().zip(&mut sums) {
                *sum += sample(format!("trueup_gateway_{name}_sum "));
                *count += sample(format!("trueup_gateway_{name}_count "));
            }
        }
        Ok(GatewayMetricsDelta(sums))
    }

    fn since(&self, before: &GatewayMetricsDelta) -> String {
        let [redis, confirm, envelope] = [0, 1, 2]
            .map(|n| (self.0[n].0 - before.0[n].0) / (self.0[n].1 - before.0[n].1).max(1.0));
        format!(
            "a call to Redis took {:.2} ms, a confirm {:.2} ms, a message held {envelope:.1} events, on average",
            1e3 * redis,
            1e3 * confirm
        )
    }
}

pub fn memory_goal(what: String, bytes: u64, limit: f64) -> Goal {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    Goal {
        number: 1,
        what,
        value: format!("{mebibytes:.1} MiB"),
        ceiling: String::new(),
        measured: mebibytes,
        unit: "MiB",
        better: Better::Less,
        pass: limit,
        stretch: None,
    }
}

/// Many connections that say nothing (each was answered once).
pub async fn idling(
    stage: &Testbed,
    connections: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let doors = stage.doors.clone();
    let held = tokio::task::spawn_blocking(move || hold(&doors[0], connections)).await??;
    let memory = resident(stage.gateways[0].id());
    report.judge(memory_goal(
        format!("gateway's memory with {connections} idle connections"),
        memory,
        256.0,
    ));
    drop(held);
    Ok(())
}

/// Each connection asks once for what there is not.
fn hold(
    door: &std::net::SocketAddr,
    connections: usize,
) -> anyhow::Result<Vec<std::net::TcpStream>> {
    use std::io::{Read as _, Write as _};
    let mut held = Vec::with_capacity(connections);
    let mut piece = [0; 4096];
    for _ in 0..connections {
        let mut stream = std::net::TcpStream::connect(door)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: door.test\r\n\r\n")?;
        let _ = stream.read(&mut piece)?;
        held.push(stream);
    }
    Ok(held)
}

pub async fn refusing(
    stage: &mut Testbed,
    spans: Spans,
    report: &mut Report,
) -> anyhow::Result<()> {
    let ceiling = Baseline::start().await?;
    let kinds = [
        (Kind::NoSuchToken, 404, 75.0),
        (Kind::SameAddress, 429, 75.0),
        (Kind::WrongSecret, 401, 40.0),
    ];
    let connections = 64;
    let mut before = measure_bare_hyper(&ceiling, connections, spans).await?;
    for (kind, status, pass) in kinds {
        let cpu = Cpu::now();
        if kind == Kind::SameAddress {
            // Until the address has used up its minute.
            sent(
                stage,
                kind,
                1,
                LoadModel::Flat,
                Duration::ZERO,
                Duration::from_millis(300),
            )
            .await?;
        }
        let door = sent(
            stage,
            kind,
            connections,
            LoadModel::Flat,
            spans.warm_up,
            spans.door,
        )
        .await?;
        report.cpu(&format!("refusing {status}"), Cpu::now().since(&cpu));
        door.expect_all(status)?;
        let after = measure_bare_hyper(&ceiling, connections, spans).await?;
        let bare = f64::midpoint(before.per_second, after.per_second);
        report.judge(Goal {
            number: 2,
            what: format!("refusing: {status}, {connections} connections"),
            value: format!(
                "{:.1} k/s, p99 {:.2} ms",
                door.per_second / 1e3,
                door.millis(99.0)
            ),
            ceiling: format!("hyper {:.1} k/s", bare / 1e3),
            measured: 100.0 * door.per_second / bare,
            unit: "% of it",
            better: Better::More,
            pass,
            stretch: None,
        });
        before = after;
    }
    Ok(())
}

/// Hyper alone, with the same requests.
pub async fn measure_bare_hyper(
    ceiling: &Baseline,
    connections: usize,
    spans: Spans,
) -> anyhow::Result<Outcome> {
    let plan = Plan {
        doors: vec![ceiling.address],
        connections,
        pace: LoadModel::Flat,
        warm_up: spans.warm_up / 2,
        span: spans.ceiling,
        stop: Arc::default(),
    };
    let outcome = driven(plan, Kind::Report, 1_000_000).await?;
    print_line(format_args!(
        "  hyper alone, {connections} connections: {}",
        in_short(&outcome)
    ));
    Ok(outcome)
}

/// Through the doors of the stage.
pub async fn sent(
    stage: &Testbed,
    kind: Kind,
    connections: usize,
    pace: LoadModel,
    warm_up: Duration,
    span: Duration,
) -> anyhow::Result<Outcome> {
    let stop = Arc::default();
    let plan = Plan {
        doors: stage.doors.clone(),
        connections,
        pace,
        warm_up,
        span,
        stop,
    };
    let outcome = driven(plan, kind, stage.books.calls).await?;
    print_line(format_args!(
        "  door, {kind:?}, {connections} connections: {}",
        in_short(&outcome)
    ));
    Ok(outcome)
}

pub async fn driven(plan: Plan, kind: Kind, calls: i64) -> anyhow::Result<Outcome> {
    let driving = tokio::task::spawn_blocking(move || {
        let mut sender = Sender::new(kind, calls);
        drive(&plan, &mut |out| sender.write(out))
    });
    driving.await?
}

pub fn in_short(outcome: &Outcome) -> String {
    format!(
        "{:.1} k/s, p50 {:.2} ms, p99 {:.2} ms, {:?}",
        outcome.per_second / 1e3,
        outcome.millis(50.0),
        outcome.millis(99.0),
        outcome.statuses
    )
}
