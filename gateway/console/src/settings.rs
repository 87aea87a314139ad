//! The settings of `trueup-console`, and its commands.

use clap::Parser;
use trueup_ops::build;
use trueup_ops::settings::{ConsoleArgs, GraceArgs, LogArgs, PostgresArgs};

use crate::user_command::UserCommand;

/// Settings and pages of Trueup, for its operators.
#[derive(Debug, Parser)]
#[command(name = "trueup-console", version = build::describe_build())]
pub struct ConsoleSettings {
    #[command(subcommand)]
    pub command: Option<ConsoleCommand>,
    #[command(flatten)]
    pub postgres: PostgresArgs,
    #[command(flatten)]
    pub console: ConsoleArgs,
    #[command(flatten)]
    pub grace: GraceArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum ConsoleCommand {
    /// Users, who may sign in
    #[command(subcommand)]
    User(UserCommand),
    /// Check the settings and end
    CheckConfig,
}
