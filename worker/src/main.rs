//! `trueup-worker`: takes raw events from the broker and makes the books true.
//!
//! `run` (the default) consumes; the other commands keep house: `migrate`, `redrive`, `reconcile`,
//! `check-config`.

mod acknowledgement;
mod batch_settlement;
mod commands;
mod consumer;
mod late_matching;
mod maintenance;
mod queue_consumer;
mod scheduler;
mod settings;

use std::num::NonZeroU32;
use std::process::ExitCode;

use trueup_ops::{logging, shutdown};

use settings::{Command, Settings};

fn main() -> ExitCode {
    let settings: Settings = trueup_ops::settings::parse();
    logging::init(&settings.log);
    let main = async {
        match settings.command.clone().unwrap_or(Command::Run) {
            Command::Run => consumer::run(settings).await,
            Command::Migrate => commands::migrate(&settings).await,
            Command::Redrive { limit } => commands::redrive(&settings, limit).await,
            Command::Reconcile { replay } => commands::reconcile(&settings, replay).await,
            Command::CheckConfig => commands::check_config(&settings),
        }
    };
    // The settling waits for Postgres nearly all of the time: one thread carries it.
    shutdown::run(NonZeroU32::MIN, main)
}
