//! `load`: builds the real binaries, optimised, and has them measured beside the ceilings of their
//! parts; the measuring itself is the program `trueup-load`.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::child_process;
use crate::layout::Layout;
use crate::services::{self, Purpose, ServiceMode};

#[derive(Args, Clone)]
pub struct Options {
    /// Short measurements, small books and few paces: under two minutes
    #[arg(long)]
    quick: bool,
    /// Only these goals, with commas between [default: all but 6, which makes 5 M calls and must be asked for]
    #[arg(long = "goal", value_name = "N")]
    goals: Option<String>,
    /// So many seconds of overload at the end, watching the memory of each process
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    overload: u64,
    /// Gateways at once
    #[arg(long, default_value_t = 1)]
    gateways: usize,
    /// Workers at once
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Instead: what ten accounts feel while another sends all that its limits allow (deploy/perf/neighbour.md)
    #[arg(long)]
    neighbour: bool,
    /// The report's file name under deploy/perf/ [default: by the kind of run]
    #[arg(long)]
    name: Option<String>,
}

pub fn run(layout: &Layout, choice: ServiceMode, options: &Options) -> Result<()> {
    let services = services::ensure(layout, choice, Purpose::Load)?;
    let outcome = measure(layout, &services, options);
    services::stop(layout, &services.started)?;
    outcome
}

fn measure(layout: &Layout, services: &services::Services, options: &Options) -> Result<()> {
    println!("...  building the programs (some minutes the first time)");
    let mut build = layout.cargo();
    build.args([
        "build",
        "--locked",
        "--release",
        "-p",
        "trueup-gateway",
        "-p",
        "trueup-console",
        "-p",
        "trueup-worker",
        "-p",
        "trueup-load",
    ]);
    child_process::run_shown(build, "the build")?;
    let release = layout.target.join("release");
    let mut load = Command::new(release.join("trueup-load"));
    load.current_dir(&layout.root);
    if options.neighbour {
        load.arg("neighbour").arg("--binaries").arg(&release);
        services.pass_to_tests(&mut load);
        return child_process::run_shown(load, "the measuring");
    }
    load.arg("run")
        .arg("--binaries")
        .arg(&release)
        .args(["--out", "deploy/perf"]);
    load.args([
        "--gateways",
        &options.gateways.to_string(),
        "--workers",
        &options.workers.to_string(),
    ]);
    load.args(["--overload", &options.overload.to_string()]);
    if options.quick {
        load.arg("--quick");
    }
    for (flag, value) in [("--goal", &options.goals), ("--name", &options.name)] {
        if let Some(value) = value {
            load.args([flag, value]);
        }
    }
    services.pass_to_tests(&mut load);
    child_process::run_shown(load, "the measuring")
}
