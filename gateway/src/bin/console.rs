//! `trueup-console`: the operator API and the pages.

use std::num::NonZeroU32;
use std::process::ExitCode;

use trueup_shared::ops::{config, logging, shutdown};

#[path = "../console/mod.rs"]
mod console;

fn main() -> ExitCode {
    let args: console::Args = config::parse();
    logging::init(&args.log);
    shutdown::run(NonZeroU32::MIN, console::run(args))
}
