//! `trueup-worker`: takes raw events from the broker and makes the books true.
//!
//! `run` (the default) consumes; the other commands keep house: `migrate`, `redrive`, `reconcile`,
//! `check-config`.

mod consumer;
mod house;
mod lanes;
mod late;
mod process;
mod settings;
mod settle;
mod source;
mod upkeep;

use std::num::NonZeroU32;
use std::process::ExitCode;

use trueup_shared::ops::{config, logging, shutdown};

use settings::{Command, Settings};

fn main() -> ExitCode {
    let settings: Settings = config::parse();
    logging::init(&settings.log);
    let main = async {
        match settings.command.clone().unwrap_or(Command::Run) {
            Command::Run => consumer::run(settings).await,
            Command::Migrate => house::migrate(&settings).await,
            Command::Redrive { limit } => house::redrive(&settings, limit).await,
            Command::Reconcile { replay } => house::reconcile(&settings, replay).await,
            Command::CheckConfig => house::check_config(&settings),
        }
    };
    // The settling waits for Postgres nearly all of the time: one thread carries it.
    shutdown::run(NonZeroU32::MIN, main)
}
