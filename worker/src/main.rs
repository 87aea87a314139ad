//! `trueup-worker`: takes raw events from the broker and makes the books true.
//!
//! `run` (the default) consumes; the other commands keep house: `migrate`, `redrive`, `reconcile`,
//! `check-config`.

#![warn(clippy::cognitive_complexity)]

mod acknowledgement;
mod batch_settlement;
mod bulk_replay;
mod commands;
mod consumer;
mod fair_queue;
mod late_matching;
mod maintenance;
mod overflow;
mod periodic_jobs;
mod queue_consumer;
mod queue_depths;
mod reconciliation;
mod scheduler;
mod settings;

use std::num::NonZeroU32;
use std::process::ExitCode;

use trueup_ops::metrics::ProcessName;
use trueup_ops::{logging, shutdown};

use settings::{WorkerCommand, WorkerSettings};

fn main() -> ExitCode {
    let settings: WorkerSettings = trueup_ops::settings::parse_settings();
    logging::init_logging(ProcessName::Worker, &settings.log);
    let main = async {
        match settings.command.clone().unwrap_or(WorkerCommand::Run) {
            WorkerCommand::Run => consumer::run(settings).await,
            WorkerCommand::Migrate => commands::migrate(&settings).await,
            WorkerCommand::Redrive { limit } => commands::redrive(&settings, limit).await,
            WorkerCommand::Reconcile { replay } => commands::reconcile(&settings, replay).await,
            WorkerCommand::CheckConfig => commands::check_config(&settings),
        }
    };
    // The settling waits for Postgres nearly all of the time: one thread carries it.
    shutdown::run(NonZeroU32::MIN, main)
}
