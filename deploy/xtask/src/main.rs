//! `cargo xtask`: the project's own commands, from a running system to the checks of a change.
//!
//! It starts and stops processes, prints, and asks the running system over its public interfaces.
//! It refuses to know anything of the trade: no rule of a report or of money is repeated in here.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to its user by printing"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "blocking sleeps between polls, and the environment, are this tool's business"
)]

mod alerts;
mod child_process;
mod ci;
mod clock;
mod demo_account;
mod demo_requests;
mod faults;
mod fuzz;
mod http;
mod layout;
mod licences;
mod load;
mod operator_client;
mod pages;
mod progress;
mod services;
mod state;
mod suite;
mod system;
mod unused_dependencies;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use layout::Layout;
use services::{Purpose, ServiceMode};
use system::Build;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Trueup's own commands",
    version
)]
struct Cli {
    /// Start private Postgres, Redis and RabbitMQ under target/, even where some are running already
    #[arg(long, global = true, env = "XTASK_PRIVATE", value_parser = clap::builder::FalseyValueParser::new())]
    private: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build and start everything, with a demo account in it, and print how to reach it
    Up {
        /// Run unoptimised programs, which are built faster: for working on Trueup itself
        #[arg(long)]
        dev: bool,
    },
    /// Send reports to the running system and show what each one did
    Demo,
    /// Find or start Postgres, Redis and RabbitMQ, and print where they are
    Services,
    /// Run every test of the workspace against real services, starting them if need be
    Test {
        /// Handed on to `cargo test` (a name to filter by, or `-p crate`)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Everything that a change must pass: format, lints, licences, the pure domain, the tests
    Ci,
    /// Prove that nothing is lost and nothing paid twice while processes die and links break
    Faults(faults::Options),
    /// Measure speed beside the ceilings of the parts, and write tables and plots to deploy/perf/
    Load(load::Options),
    /// Run each committed fuzz target for a bounded time (needs cargo-fuzz and a C++ compiler)
    Fuzz(fuzz::Options),
    /// Take the pictures of the console's pages for the documents
    Screenshots,
    /// Ask Recent events of an account with ten million of them: time and plan of each statement
    Panel(pages::PanelOptions),
    /// Stop what `up` (and nobody else) started
    Down,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let layout = Layout::find()?;
    let choice = ServiceMode::from_flag(cli.private);
    match cli.command {
        Command::Up { dev } => up::run(
            &layout,
            choice,
            if dev { Build::Dev } else { Build::Release },
        ),
        Command::Demo => demo_requests::run(&layout),
        Command::Services => {
            services::print_settings(&services::ensure(&layout, choice, Purpose::System)?)
        }
        Command::Test { args } => suite::run(&layout, choice, &args),
        Command::Ci => ci::run(&layout, choice),
        Command::Faults(options) => faults::run(&layout, choice, &options),
        Command::Load(options) => load::run(&layout, choice, &options),
        Command::Fuzz(options) => fuzz::run(&layout, &options),
        Command::Screenshots => pages::screenshots(&layout, choice),
        Command::Panel(options) => pages::panel(&layout, choice, &options),
        Command::Down => system::down(&layout),
    }
}
