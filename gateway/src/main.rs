//! `trueup-gateway`: the public door.
//!
//! It knows nothing of payouts, balances or calls, and does not link the console: what it has in memory
//! is all that someone who took it over could read.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trueup_gateway::server;
use trueup_ops::metrics::ProcessName;
use trueup_ops::settings::{
    self, AmqpArgs, GatewayArgs, GraceArgs, LogArgs, PostgresArgs, RedisArgs, StartArgs,
};
use trueup_ops::{build, logging, shutdown};

/// Takes payout reports from buyers, checks who may send them and how often, and puts them on the
/// broker before it says that it has them.
#[derive(Debug, Parser)]
#[command(name = "trueup-gateway", version = build::describe_build())]
struct GatewaySettings {
    #[command(subcommand)]
    command: Option<GatewayCommand>,
    #[command(flatten)]
    postgres: PostgresArgs,
    #[command(flatten)]
    amqp: AmqpArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    grace: GraceArgs,
    #[command(flatten)]
    start: StartArgs,
}

#[derive(Debug, Clone, Subcommand)]
enum GatewayCommand {
    /// Take reports until told to stop (the default)
    Run,
    /// Check the settings and end
    CheckConfig,
}

fn main() -> ExitCode {
    let settings: GatewaySettings = settings::parse_settings();
    logging::init_logging(ProcessName::Gateway, &settings.log);
    let threads = settings.gateway.gateway_threads;
    let command = settings.command.unwrap_or(GatewayCommand::Run);
    let settings = server::ServerSettings {
        postgres: settings.postgres,
        amqp: settings.amqp,
        redis: settings.redis,
        gateway: settings.gateway,
        grace: settings.grace.grace,
        start: settings.start.within,
    };
    shutdown::run(threads, async {
        match command {
            GatewayCommand::Run => server::run(settings).await,
            GatewayCommand::CheckConfig => server::check_config(&settings),
        }
    })
}
