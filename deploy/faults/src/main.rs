//! `cargo xtask faults`: nothing lost, nothing twice, under random faults.
//!
//! The real binaries on real services, a TCP cutter on every link, senders that never stop; faults
//! come from a printed seed. Then all comes to rest, and the books are proven: the invariants, and
//! one row for each id that was answered 200. A failing seed can be run again.

mod plan;
mod scene;
mod senders;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

#[derive(Parser, Clone)]
#[command(name = "trueup-faults", version)]
struct Arguments {
    /// The first run's seed; the next runs count up from it [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// Runs, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Seconds of faults in each run
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Gateways keep a spool, and are killed as well
    #[arg(long)]
    spool: bool,
    /// Where the binaries are
    #[arg(long, default_value = "target/debug")]
    binaries: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let first = arguments.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    let mut failed = 0;
    for run in 0..arguments.runs {
        let seed = first + run;
        match one_run(&arguments, seed).await {
            Ok(summary) => say(format_args!("seed {seed}: ok · {summary}")),
            Err(error) => {
                failed += 1;
                say(format_args!("seed {seed}: FAILED · {error:#}"));
                say(format_args!("  again with: cargo xtask faults --seed {seed} --seconds {}", arguments.seconds));
            }
        }
    }
    say(format_args!("{} passed, {failed} failed", arguments.runs - failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn one_run(arguments: &Arguments, seed: u64) -> anyhow::Result<String> {
    let mut scene = scene::Scene::set(&arguments.binaries, arguments.spool).await?;
    let senders = senders::Senders::start(&scene, seed);
    let faults = plan::Plan::new(seed).play(&mut scene, Duration::from_secs(arguments.seconds)).await?;
    scene.fair_weather().await?;
    let sent = senders.stop().await;
    let verdict = verdict::at_rest(&mut scene, &sent).await;
    match verdict {
        Ok(summary) => Ok(format!("{} faults · {summary}", faults.len())),
        Err(error) => {
            for fault in &faults {
                say(format_args!("  {fault}"));
            }
            Err(error)
        }
    }
}

fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    // A closed pipe is no failure of the run.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
