//! Measures Trueup beside the ceilings of its parts, in one run on one machine (`cargo xtask load`).
//!
//! Every figure is a ratio against a ceiling of the same minute: these machines are noisy, and an
//! absolute figure says more about the neighbour than about the program.

mod books;
mod ceiling;
mod door;
mod drain;
mod goals;
mod plot;
mod requests;
mod run;
mod settle_ceiling;
mod stage;
mod traffic;
mod watch;
mod whole;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "trueup-load", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure goals and write the report
    Run(run::Options),
    /// Hyper alone, serving until it is killed
    Ceiling,
    /// A worker that drains a full queue, beside the locked one-connection ceiling
    Drain {
        /// Calls in the books
        #[arg(long, default_value_t = 1_000_000)]
        calls: i64,
        /// Reports in the queue
        #[arg(long, default_value_t = 300_000)]
        reports: usize,
        /// All reports on one publisher
        #[arg(long)]
        hot: bool,
        /// Workers at once
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// The worker's binary
        #[arg(long, default_value = "target/release/trueup-worker")]
        worker: std::path::PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Ceiling => ceiling::run(),
        What::Run(options) => runtime()?.block_on(run::run(&options)),
        What::Drain { calls, reports, hot, workers, worker } => {
            runtime()?.block_on(drain::run(&drain::Plan { calls, reports, hot, workers, worker }))
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// A line for whoever watches.
pub fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    // A closed pipe is no failure of the run.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
