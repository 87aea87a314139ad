//! `cargo xtask faults`: nothing lost, nothing twice, under random faults.
//!
//! The real binaries on real services, a TCP cutter on every link, senders that never stop, operators at
//! the console; faults come from a printed seed. Then all comes to rest, and the books are proven: the
//! invariants, one row for each id that was answered 200, and that settling everything once more, in
//! another order, moves nothing. A failing seed can be run again.

mod arguments;
mod checks;
mod failover;
mod fixtures;
mod hostile_senders;
mod operators;
mod plan;
mod resource_limits;
mod senders;
mod services;
mod topology;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::Mutex;
use trueup_testkit::output::print_line;

use arguments::Arguments;
use services::{Private, Services};

impl Arguments {
    async fn services(&self) -> anyhow::Result<Services> {
        let nodes = if self.broker_cluster { 3 } else { 1 };
        let own =
            self.private || self.broker_cluster || self.postgres_replica || self.broker_alarms;
        if !own {
            return Ok(None);
        }
        let started = Instant::now();
        let replica = self.postgres_replica;
        // It takes seconds, in which Ctrl-C is still heard.
        let starting = tokio::task::spawn_blocking(move || Private::start(nodes, replica));
        let private = starting.await??;
        print_line(format_args!(
            "private services in {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        Ok(Some(Arc::new(Mutex::new(private))))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let local = tokio::task::LocalSet::new();
    tokio::select! {
        outcome = local.run_until(all_runs(&arguments)) => match outcome {
            Ok(0) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                print_line(format_args!("the runs could not be made: {error:#}"));
                ExitCode::FAILURE
            }
        },
        // What was started ends with its guards.
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
    }
}

/// Returns how many failed.
async fn all_runs(arguments: &Arguments) -> anyhow::Result<u64> {
    let first = arguments
        .seed
        .unwrap_or_else(|| rand::random_range(1..1_000_000));
    let began = Instant::now();
    let mut services = arguments.services().await?;
    let mut failed = 0;
    for run in 0..arguments.runs {
        let seed = first + run;
        if arguments.postgres_replica && run > 0 {
            // A replica can be promoted once.
            services = None;
            services = arguments.services().await?.or(services);
        }
        let started = Instant::now();
        // In a task of its own: a test kit that panics fails this run and not the others.
        let running = tokio::task::spawn_local(one_run(arguments.clone(), services.clone(), seed));
        let outcome = running
            .await
            .unwrap_or_else(|panic| Err(anyhow::anyhow!("{panic}")));
        let took = started.elapsed().as_secs_f64();
        match outcome {
            Ok(summary) => print_line(format_args!("seed {seed}: ok in {took:.1} s · {summary}")),
            Err(error) => {
                failed += 1;
                print_line(format_args!(
                    "seed {seed}: FAILED in {took:.1} s · {error:#}"
                ));
                print_line(format_args!(
                    "  again with: cargo xtask faults --seed {seed} --seconds {}",
                    arguments.seconds
                ));
            }
        }
    }
    let passed = arguments.runs - failed;
    print_line(format_args!(
        "{passed} passed, {failed} failed in {:.0} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(failed)
}

async fn one_run(arguments: Arguments, services: Services, seed: u64) -> anyhow::Result<String> {
    if arguments.broker_cluster || arguments.postgres_replica {
        return failover::run(&arguments, services, seed).await;
    }
    if arguments.overload || arguments.broker_alarms {
        return resource_limits::run(&arguments, services, seed).await;
    }
    let spool = arguments.spool || seed % 2 == 1;
    let mut scene = topology::Cluster::set(&arguments, services, spool).await?;
    let hostile_webhook = match arguments.hostile {
        true => Some(hostile_senders::open_account(&scene).await),
        false => None,
    };
    scene.start_all().await;
    let senders = senders::Senders::start(&scene, seed);
    let hostile = hostile_webhook
        .map(|webhook| hostile_senders::HostileSenders::start(&scene, &webhook, seed));
    let operators = operators::SimulatedOperators::start(&scene, seed)?;
    let mut plan = plan::FaultSchedule::new(seed);
    let outcome = async {
        plan.play(&mut scene, Duration::from_secs(arguments.seconds))
            .await?;
        scene.heal_and_restart().await?;
        let (mut sent, done) = (senders.stop().await, operators.stop().await);
        let mut memory = String::new();
        if let Some(hostile) = hostile {
            hostile.stop(&mut sent).await;
            memory = hostile_senders::check_memory(&mut scene)?;
        }
        let summary = checks::at_rest(&mut scene, &sent, &done, seed).await?;
        anyhow::Ok(format!("{summary} · {memory}"))
    };
    let outcome = outcome.await;
    if outcome.is_err() {
        plan.print_plan();
    }
    let kept = if spool { "spool" } else { "no spool" };
    outcome.map(|summary| {
        format!(
            "{kept} · {} faults: {} · {summary}",
            plan.played().len(),
            kinds(plan.played())
        )
    })
}

/// The faults of a run by kind, for a line.
fn kinds(played: &[plan::Fault]) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for fault in played {
        *counts.entry(fault.kind()).or_default() += 1;
    }
    counts
        .iter()
        .map(|(kind, n)| format!("{n} {kind}"))
        .collect::<Vec<_>>()
        .join(", ")
}
