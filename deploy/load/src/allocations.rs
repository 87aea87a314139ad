//! What a report costs the allocator, in the gateway and in the worker: each runs under valgrind for a
//! shorter and a longer time, and the difference is the reports'. What is allocated at the start is in both.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use trueup_testkit::process::Process;

use crate::end_to_end::all_settled;
use crate::environment::Testbed;
use crate::gateway_throughput::sent;
use crate::requests::Kind;
use crate::traffic::LoadModel;
use trueup_testkit::output::print_line;

const CALLS: i64 = 20_000;
/// Senders that wait for their answers: messages and batches hold several reports, as on a busy day.
const CONNECTIONS: usize = 64;
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(13);
/// A process under valgrind takes its time to end.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Redis is no slower than else, but who waits for it is: no question is to be decided without it.
const REDIS_TIMEOUT_MS: u32 = 2_000;

/// So far, of one process.
#[derive(Debug, Clone, Copy)]
struct Heap {
    allocations: f64,
    bytes: f64,
}

pub async fn run(binaries: &Path) -> anyhow::Result<()> {
    let (few, gateway_before, worker_before) = counted(binaries, SHORT).await?;
    let (many, gateway_after, worker_after) = counted(binaries, LONG).await?;
    let reports = many - few;
    ensure!(
        reports > 1000.0,
        "only {reports} reports more in the longer run"
    );
    for (name, before, after) in [
        ("gateway", gateway_before, gateway_after),
        ("worker", worker_before, worker_after),
    ] {
        print_line(format_args!(
            "{name}: {:.1} allocations, {:.0} bytes a report (over {reports:.0} reports)",
            (after.allocations - before.allocations) / reports,
            (after.bytes - before.bytes) / reports
        ));
    }
    Ok(())
}

/// Reports that were taken and settled, and the heaps of both.
async fn counted(binaries: &Path, span: Duration) -> anyhow::Result<(f64, Heap, Heap)> {
    const VALGRIND: [&str; 3] = [
        "--leak-check=no",
        "--run-libc-freeres=no",
        "--fair-sched=yes",
    ];
    let mut stage = Testbed::set(binaries, CALLS).await?;
    let door = stage.start_under("valgrind", &VALGRIND, "trueup-gateway");
    stage
        .open_door(door.env("TRUEUP_LIMIT_REDIS_TIMEOUT_MS", REDIS_TIMEOUT_MS))
        .await;
    let outcome = sent(
        &stage,
        Kind::Report,
        CONNECTIONS,
        LoadModel::Flat,
        Duration::ZERO,
        span,
    )
    .await?;
    outcome.expect_all(200)?;
    let gateway = ended(stage.gateways.remove(0)).await?;
    stage.workers.push(
        stage
            .start_under("valgrind", &VALGRIND, "trueup-worker")
            .ready()
            .await,
    );
    let reports = all_settled(&mut stage).await?.all;
    let worker = ended(stage.workers.remove(0)).await?;
    Ok((reports, gateway, worker))
}

async fn ended(mut process: Process) -> anyhow::Result<Heap> {
    process.terminate();
    let code = process.exit_code(END_WITHIN).await;
    ensure!(code == 0, "it ended with {code}");
    heap(&process.log()).context("valgrind said nothing of the heap")
}

/// Of `==1== total heap usage: 1,234 allocs, 1,200 frees, 56,789 bytes allocated`.
fn heap(log: &str) -> Option<Heap> {
    let line = log.lines().find_map(|line| {
        line.split_once("total heap usage:")
            .map(|(_, figures)| figures)
    })?;
    let figure = |word: &str| {
        let before = line.split(word).next()?.split_whitespace().next_back()?;
        before.replace(',', "").parse().ok()
    };
    Some(Heap {
        allocations: figure(" allocs")?,
        bytes: figure(" bytes allocated")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_read_from_what_valgrind_says() {
        let log = "==7== HEAP SUMMARY:\n==7==   total heap usage: 1,234 allocs, 1,200 frees, 56,789 bytes allocated\n";
        let heap = heap(log).expect("figures");
        assert!(
            (heap.allocations - 1234.0).abs() < 0.1 && (heap.bytes - 56_789.0).abs() < 0.1,
            "{heap:?}"
        );
        assert!(super::heap("nothing").is_none());
    }
}
