//! The command line of the fault runs.

use std::path::PathBuf;

use clap::Parser;

#[derive(Parser, Clone)]
#[command(name = "trueup-faults", version)]
pub struct Arguments {
    /// The first run's seed; the next runs count up from it [default: drawn]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Runs, one after the other
    #[arg(long, default_value_t = 1)]
    pub runs: u64,
    /// Seconds of faults in each run
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Gateways always keep a spool [default: those of odd seeds do]
    #[arg(long)]
    pub spool: bool,
    /// Senders of another account beside the others, which cost as much as they are let
    #[arg(long)]
    pub hostile: bool,
    /// Services of the runs' own, which are killed and restarted as well
    #[arg(long)]
    pub private: bool,
    /// Instead: a cluster of three RabbitMQ nodes, the leader killed under load
    #[arg(long, conflicts_with_all = ["postgres_replica", "overload", "broker_alarms"])]
    pub broker_cluster: bool,
    /// Instead: Postgres with a synchronous replica, the primary killed and the replica promoted
    #[arg(long, conflicts_with_all = ["overload", "broker_alarms"])]
    pub postgres_replica: bool,
    /// Instead: more load than the workers can settle, until the queue is at its bound
    #[arg(long, conflicts_with = "broker_alarms")]
    pub overload: bool,
    /// Instead: the broker's disk, then its memory, are full
    #[arg(long)]
    pub broker_alarms: bool,
    /// What the processes log: shown for a run that fails
    #[arg(long, default_value = "info")]
    pub log: String,
    /// Where the binaries are
    #[arg(long, default_value = "target/debug")]
    pub binaries: PathBuf,
}
