//! Looks at the console's pages from outside: takes their pictures for the documents, and measures what
//! the panel costs the database when an account has many events. No part of the product.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to its user by printing"
)]

mod auto_explain;
mod event_fixtures;
mod event_search_bench;
mod sample_account;
mod sample_reports;
mod screenshots;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "trueup-console-samples", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Pictures of the main pages, of a console with a month of a sample network in it
    Screenshots {
        /// The folder for the PNG files
        #[arg(long, default_value = "deploy/docs/pictures")]
        to: PathBuf,
        /// The console's binary
        #[arg(long, default_value = "target/debug/trueup-console")]
        console: PathBuf,
        /// Also every page at 360 px and in the dark, to be looked at
        #[arg(long)]
        all: bool,
    },
    /// The panel's statements on many events of one account: time and plan of each
    Panel(event_search_bench::Plan),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Screenshots { to, console, all } => screenshots::run(&to, &console, all).await,
        What::Panel(plan) => event_search_bench::run(&plan).await,
    }
}
