//! Measures Trueup beside the ceilings of its parts, in one run on one machine (`cargo xtask load`).
//!
//! Every figure is a ratio against a ceiling of the same minute: these machines are noisy, and an
//! absolute figure says more about the neighbour than about the program.

mod books;
mod drain;
mod settle_ceiling;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "trueup-load", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Drain { calls, reports, hot, workers, worker } => {
            drain::run(&drain::Plan { calls, reports, hot, workers, worker }).await
        }
    }
}
