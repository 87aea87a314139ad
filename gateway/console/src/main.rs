//! `trueup-console`: the operator API and the pages.

#![warn(clippy::cognitive_complexity)]

mod api;
mod app;
mod app_state;
mod auth_context;
mod ceilings;
mod client_network;
mod middleware;
mod operations;
mod pages;
mod passwords;
mod problem;
mod request_fields;
mod secrets;
mod server;
mod settings;
mod user_command;
mod work_shares;

use std::num::NonZeroU32;
use std::process::ExitCode;

use trueup_ops::metrics::ProcessName;
use trueup_ops::{logging, shutdown};

/// Two: one long list of calls that is being read must not keep everybody else waiting.
const THREADS: NonZeroU32 = NonZeroU32::new(2).expect("not 0");

fn main() -> ExitCode {
    let args: settings::ConsoleSettings = trueup_ops::settings::parse_settings();
    logging::init_logging(ProcessName::Console, &args.log);
    shutdown::run(THREADS, app::run(args))
}
