//! `trueup-console`: the operator API and the pages.

use std::num::NonZeroU32;
use std::process::ExitCode;

use trueup_shared::ops::{config, logging, shutdown};

#[path = "../console/mod.rs"]
mod console;

/// Two: one long list of calls that is being read must not keep everybody else waiting.
const THREADS: NonZeroU32 = NonZeroU32::new(2).expect("not 0");

fn main() -> ExitCode {
    let args: console::Args = config::parse();
    logging::init(&args.log);
    shutdown::run(THREADS, console::run(args))
}
