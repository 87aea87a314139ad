//! More than can be settled, for a while: every process's memory must stay flat, and every answer be
//! honest. Senders ask again as soon as they are answered, so the door is full all the time.

use std::time::{Duration, Instant};

use trueup_testkit::http;

use crate::environment::Testbed;
use crate::gateway_throughput::{in_short, sent};
use crate::goals::Memory;
use crate::process_stats::{Cpu, pids_of, resident};
use crate::report::Report;
use crate::requests::Kind;
use crate::traffic::LoadModel;

const CONNECTIONS: usize = 1000;
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub async fn run(stage: &mut Testbed, span: Duration, report: &mut Report) -> anyhow::Result<()> {
    let mut watched: Vec<(String, Vec<u32>)> = Vec::new();
    let mut name =
        |kind: &str, n: usize, pid: u32| watched.push((format!("{kind} {}", n + 1), vec![pid]));
    stage
        .gateways
        .iter()
        .enumerate()
        .for_each(|(n, gateway)| name("gateway", n, gateway.id()));
    stage
        .workers
        .iter()
        .enumerate()
        .for_each(|(n, worker)| name("worker", n, worker.id()));
    watched.push(("RabbitMQ".into(), pids_of("beam.smp")));
    watched.push(("Redis".into(), pids_of("redis-server")));
    let mut memory = Memory {
        title: format!(
            "Memory during {} s of overload, {CONNECTIONS} connections",
            span.as_secs()
        ),
        lines: watched
            .iter()
            .map(|(name, _)| (name.clone(), Vec::new()))
            .collect(),
    };
    let ops = stage.gateways[0].address("ops").await;
    let began = Instant::now();
    let cpu = Cpu::now();
    let sending = sent(
        stage,
        Kind::Report,
        CONNECTIONS,
        LoadModel::Flat,
        Duration::ZERO,
        span,
    );
    let mut in_flight: f64 = 0.0;
    let watching = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let at = began.elapsed().as_secs_f64();
            for ((_, pids), (_, points)) in watched.iter().zip(&mut memory.lines) {
                points.push((
                    at,
                    pids.iter().map(|pid| resident(*pid)).sum::<u64>() as f64,
                ));
            }
            if let Ok(answer) = http::get(ops, "/metrics").await {
                let text = answer.text();
                let value = text.lines().find_map(|l| {
                    l.strip_prefix("trueup_gateway_in_flight_events ")?
                        .parse()
                        .ok()
                });
                in_flight = in_flight.max(value.unwrap_or(0.0));
            }
        }
    };
    let outcome = tokio::select! {
        outcome = sending => outcome?,
        () = watching => unreachable!("watches until the sending is over"),
    };
    report.cpu("overload", Cpu::now().since(&cpu));
    report.memory.push(memory);
    report.add_note(format!(
        "Overload: {}; most events in flight in a gateway: {in_flight:.0} (senders that wait: {CONNECTIONS}).",
        in_short(&outcome)
    ));
    Ok(())
}
