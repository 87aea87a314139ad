//! `faults`: builds the real binaries and has them run under random faults; the proof itself is the
//! program `trueup-faults`. With `--iterations` it also runs the simulation of the books for longer.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::layout::Layout;
use crate::services::{self, Choice, Need, Services};

/// Runs in one `ci`, and the seconds of faults in each: enough to meet every kind of fault.
pub const CI_RUNS: u64 = 5;
const CI_SECONDS: u64 = 8;

#[derive(Args, Clone)]
pub struct Options {
    /// The first run's seed; the next count up from it [default: drawn and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Runs, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Seconds of faults in each run
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Gateways keep a spool
    #[arg(long)]
    spool: bool,
    /// Steps of the simulation of the books (no process, no network) to run beforehand
    #[arg(long)]
    iterations: Option<u64>,
}

impl Options {
    pub fn of_ci() -> Self {
        Options { seed: None, runs: CI_RUNS, seconds: CI_SECONDS, spool: false, iterations: None }
    }
}

pub fn run(layout: &Layout, choice: Choice, options: &Options) -> Result<()> {
    let services = services::ensure(layout, choice, Need::Tests)?;
    let outcome = with_services(layout, &services, options);
    services::stop(layout, &services.started)?;
    outcome
}

pub fn with_services(layout: &Layout, services: &Services, options: &Options) -> Result<()> {
    if let Some(steps) = options.iterations {
        let mut simulation = layout.cargo();
        simulation
            .args(["test", "-p", "trueup-shared", "--test", "it", "simulation", "--", "--nocapture"])
            .env("TRUEUP_TEST_SIM_STEPS", steps.to_string());
        if let Some(seed) = options.seed {
            simulation.env("TRUEUP_TEST_SIM_SEED", seed.to_string());
        }
        shown(simulation, "the simulation")?;
    }
    let mut build = layout.cargo();
    build.args(["build", "--locked", "-p", "trueup-gateway", "-p", "trueup-worker", "-p", "trueup-faults"]);
    shown(build, "the build")?;
    let mut faults = Command::new(layout.target.join("debug/trueup-faults"));
    faults.arg("--binaries").arg(layout.target.join("debug")).args([
        "--runs",
        &options.runs.to_string(),
        "--seconds",
        &options.seconds.to_string(),
    ]);
    services.tell_tests(&mut faults);
    if let Some(seed) = options.seed {
        faults.args(["--seed", &seed.to_string()]);
    }
    if options.spool {
        faults.arg("--spool");
    }
    shown(faults, "a fault run")
}

fn shown(mut command: Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{what} cannot be started"))?;
    if status.success() {
        return Ok(());
    }
    bail!("{what} failed ({status})")
}
