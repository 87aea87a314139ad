//! What the worker is told at its start.

use clap::{Parser, Subcommand};
use trueup_ops::build;
use trueup_ops::settings::{AmqpArgs, GraceArgs, LogArgs, PostgresArgs, StartArgs, WorkerArgs};
use trueup_queue::topology::QueueBounds;

/// Matches payout reports with their calls and credits publishers.
#[derive(Debug, Clone, Parser)]
#[command(name = "trueup-worker", version = build::describe_build())]
pub struct WorkerSettings {
    #[command(subcommand)]
    pub command: Option<WorkerCommand>,
    #[command(flatten)]
    pub postgres: PostgresArgs,
    #[command(flatten)]
    pub amqp: AmqpArgs,
    #[command(flatten)]
    pub worker: WorkerArgs,
    #[command(flatten)]
    pub log: LogArgs,
    #[command(flatten)]
    pub grace: GraceArgs,
    #[command(flatten)]
    pub start: StartArgs,
}

impl WorkerSettings {
    pub fn queue_bounds(&self) -> QueueBounds {
        QueueBounds {
            messages: self.amqp.queue_max_length,
            bytes: self.amqp.queue_max_bytes,
        }
    }
}

#[derive(Debug, Clone, Subcommand)]
pub enum WorkerCommand {
    /// Consume and settle until told to stop (the default)
    Run,
    /// Bring the schema up to date and declare the broker's topology
    Migrate,
    /// Put dead letters back on the queue; what is settled already is skipped
    Redrive {
        /// Envelopes at most
        #[arg(long, default_value_t = 10_000)]
        limit: u32,
    },
    /// Prove the invariants over the stored books; exits with 1 on a breach
    Reconcile {
        /// Also fold every call's reports into an empty ledger and compare
        #[arg(long)]
        replay: bool,
    },
    /// Check the settings and end
    CheckConfig,
}
