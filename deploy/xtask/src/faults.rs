//! `faults`: builds the real binaries and has them run under random faults; the proof itself is the
//! program `trueup-faults`. With `--iterations` it also runs the simulation of the books for longer.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::child_process;
use crate::layout::Layout;
use crate::services::{self, Purpose, ServiceMode, Services};

/// Runs in one `ci`, and the seconds of faults in each: enough to meet most kinds of fault.
pub const CI_RUNS: u64 = 5;
const CI_SECONDS: u64 = 5;

#[derive(Args, Clone, Default)]
pub struct Options {
    /// The first run's seed; the next count up from it [default: drawn and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Runs, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Seconds of faults in each run
    #[arg(long, default_value_t = CI_SECONDS)]
    seconds: u64,
    /// Gateways always keep a spool [default: those of odd seeds do]
    #[arg(long)]
    spool: bool,
    /// Senders of another account beside the others, which cost as much as they are let
    #[arg(long)]
    hostile: bool,
    /// Optimised binaries: more reports in the same time
    #[arg(long)]
    release: bool,
    /// Instead: a cluster of three RabbitMQ nodes on loopback, the queue's leader killed under load
    #[arg(long, group = "instead")]
    broker_cluster: bool,
    /// Instead: Postgres with a synchronous replica, the primary killed and the replica promoted
    #[arg(long, group = "instead")]
    postgres_replica: bool,
    /// Instead: more load than the workers can settle, until the queue is at its bound
    #[arg(long, group = "instead")]
    overload: bool,
    /// Instead: the broker's disk, then its memory, are full
    #[arg(long, group = "instead")]
    broker_alarms: bool,
    /// What the processes log, shown for a run that fails
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Steps of the simulation of the books (no process, no network) to run beforehand
    #[arg(long)]
    iterations: Option<u64>,
}

impl Options {
    pub fn of_ci() -> Self {
        Options {
            runs: CI_RUNS,
            seconds: CI_SECONDS,
            ..Options::default()
        }
    }

    /// A queue at its bound: the door says 503, and what it took is settled.
    pub fn overload_of_ci() -> Self {
        Options {
            runs: 1,
            seconds: 1,
            overload: true,
            ..Options::default()
        }
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--runs={}", self.runs),
            format!("--seconds={}", self.seconds),
        ];
        flags.extend(self.seed.map(|seed| format!("--seed={seed}")));
        flags.extend(self.log.as_ref().map(|log| format!("--log={log}")));
        let switches = [
            (self.spool, "--spool"),
            (self.hostile, "--hostile"),
            (self.broker_cluster, "--broker-cluster"),
            (self.postgres_replica, "--postgres-replica"),
            (self.overload, "--overload"),
            (self.broker_alarms, "--broker-alarms"),
        ];
        flags.extend(
            switches
                .into_iter()
                .filter(|(on, _)| *on)
                .map(|(_, flag)| flag.to_owned()),
        );
        flags
    }
}

/// With private services (`--private`) the runs have their own, which are killed as well.
pub fn run(layout: &Layout, choice: ServiceMode, options: &Options) -> Result<()> {
    if choice == ServiceMode::Private
        || options.broker_cluster
        || options.postgres_replica
        || options.broker_alarms
    {
        services::ensure_programs(layout)?;
        return prove(layout, options, |faults| {
            faults.arg("--private");
        });
    }
    let services = services::ensure(layout, choice, Purpose::Tests)?;
    let outcome = with_services(layout, &services, options);
    services::stop(layout, &services.started)?;
    outcome
}

pub fn with_services(layout: &Layout, services: &Services, options: &Options) -> Result<()> {
    prove(layout, options, |faults| services.pass_to_tests(faults))
}

fn prove(layout: &Layout, options: &Options, prepare: impl FnOnce(&mut Command)) -> Result<()> {
    if let Some(steps) = options.iterations {
        let mut simulation = layout.cargo();
        simulation
            .args([
                "test",
                "-p",
                "trueup-domain",
                "--test",
                "it",
                "simulation",
                "--",
                "--nocapture",
            ])
            .env("TRUEUP_TEST_SIM_STEPS", steps.to_string());
        if let Some(seed) = options.seed {
            simulation.env("TRUEUP_TEST_SIM_SEED", seed.to_string());
        }
        child_process::run_shown(simulation, "the simulation")?;
    }
    if let Err(error) = services::clock_shifter(layout) {
        println!("no gateway's clock will be wrong in these runs: {error:#}");
    }
    let mut build = layout.cargo();
    build.args([
        "build",
        "--locked",
        "-p",
        "trueup-gateway",
        "-p",
        "trueup-console",
        "-p",
        "trueup-worker",
        "-p",
        "trueup-faults",
    ]);
    let binaries = if options.release {
        build.arg("--release");
        layout.target.join("release")
    } else {
        layout.target.join("debug")
    };
    child_process::run_shown(build, "the build")?;
    let mut faults = Command::new(binaries.join("trueup-faults"));
    faults
        .arg("--binaries")
        .arg(&binaries)
        .args(options.flags());
    prepare(&mut faults);
    child_process::run_shown(faults, "a fault run")
}
