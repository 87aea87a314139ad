//! Measures Trueup beside the ceilings of its parts, in one run on one machine (`cargo xtask load`).
//!
//! Every figure is a ratio against a ceiling of the same minute: these machines are noisy, and an
//! absolute figure says more about the neighbour than about the program.

mod allocations;
mod backlog_drain;
mod baseline_http;
mod baseline_sql;
mod bloat;
mod end_to_end;
mod environment;
mod fixtures;
mod gateway_throughput;
mod goals;
mod neighbour;
mod overload_memory;
mod plot;
mod process_stats;
mod report;
mod requests;
mod run;
mod stored_bytes;
mod traffic;

use std::time::Duration;

use clap::{Parser, Subcommand};
use trueup_testkit::output::print_line;

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
    /// One account sends all that its limits allow; what do the others feel?
    Neighbour(neighbour::Options),
    /// Hyper alone, serving until it is killed
    Ceiling,
    /// A worker that drains a full queue, beside the locked one-connection ceiling
    Drain {
        /// Calls in the books
        #[arg(long, default_value_t = 1_000_000)]
        calls: i64,
        /// Rows of earlier reports
        #[arg(long, default_value_t = 0)]
        events: i64,
        /// Reports in the queue
        #[arg(long, default_value_t = 300_000)]
        reports: usize,
        /// All reports on one account's one publisher
        #[arg(long)]
        hot: bool,
        /// Workers at once
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// Seconds for which each ceiling is measured
        #[arg(long, default_value_t = 6)]
        span: u64,
        /// Wait for a line on standard input once the books are made
        #[arg(long)]
        wait: bool,
        /// The worker's binary
        #[arg(long, default_value = "target/release/trueup-worker")]
        worker: std::path::PathBuf,
    },
    /// Bytes on disk and in the log for one report, by table
    Bytes {
        /// The worker's binary
        #[arg(long, default_value = "target/release/trueup-worker")]
        worker: std::path::PathBuf,
    },
    /// Allocations and bytes for one report, in the gateway and in the worker, as valgrind counts them
    Allocations {
        /// Where the binaries are
        #[arg(long, default_value = "target/release")]
        binaries: std::path::PathBuf,
    },
    /// Corrections of the same calls again and again: what tables and indexes grow to
    Bloat {
        /// Calls in the books
        #[arg(long, default_value_t = 100_000)]
        calls: i64,
        /// Calls that are corrected
        #[arg(long, default_value_t = 5_000)]
        corrected: i64,
        /// Corrections a second
        #[arg(long, default_value_t = 1_000)]
        rate: usize,
        /// Seconds for which they come
        #[arg(long, default_value_t = 60)]
        span: u64,
        /// The worker's binary
        #[arg(long, default_value = "target/release/trueup-worker")]
        worker: std::path::PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Ceiling => baseline_http::run(),
        What::Neighbour(options) => runtime()?.block_on(neighbour::run(&options)),
        What::Run(options) => runtime()?.block_on(run::run(&options)),
        What::Drain {
            calls,
            events,
            reports,
            hot,
            workers,
            span,
            wait,
            worker,
        } => {
            let span = Duration::from_secs(span);
            let plan = backlog_drain::Plan {
                calls,
                events,
                reports,
                hot,
                workers,
                span,
                wait,
                worker,
            };
            let outcome = runtime()?.block_on(backlog_drain::run(&plan))?;
            for (status, rows) in outcome.rows {
                print_line(format_args!("  {status}: {rows}"));
            }
            Ok(())
        }
        What::Bytes { worker } => {
            let plan = stored_bytes::Plan::with_worker(worker);
            let outcome = runtime()?.block_on(stored_bytes::run(&plan))?;
            for line in stored_bytes::lines(&outcome) {
                print_line(format_args!("  {line}"));
            }
            print_line(format_args!(
                "  in all: {:.0} bytes stored, {:.0} of the log, {:.0} more for images of whole pages",
                outcome.stored(),
                outcome.log,
                outcome.page_images
            ));
            Ok(())
        }
        What::Allocations { binaries } => runtime()?.block_on(allocations::run(&binaries)),
        What::Bloat {
            calls,
            corrected,
            rate,
            span,
            worker,
        } => {
            let span = Duration::from_secs(span);
            runtime()?.block_on(bloat::run(&bloat::Plan {
                calls,
                corrected,
                rate,
                span,
                worker,
            }))
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}
