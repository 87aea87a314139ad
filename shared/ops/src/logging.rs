//! Logs: text for a person at a terminal, else one JSON object a line, on the error stream.
//!
//! What is never logged: secrets, tokens, callers' numbers, bodies. An error is logged once, where
//! it is handled.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::build;
use crate::metrics::{self, ProcessName};
use crate::settings::{self, LogArgs, LogFormat};

/// The broker's client reports each lost connection several times; the supervisor says it once.
const QUIETER: &str = "lapin=off,async_rs=off";

/// Call once, before the first log line: it says what this is and how it is set, without any secret.
pub fn init_logging(process: ProcessName, args: &LogArgs) {
    open_log(args);
    metrics::describe_process(process);
    tracing::info!(
        process = process.code(),
        version = build::VERSION,
        commit = build::COMMIT,
        settings = settings::given(),
        "starting"
    );
}

fn open_log(args: &LogArgs) {
    let filter = EnvFilter::new(format!("{QUIETER},{}", args.log));
    let terminal = std::io::stderr().is_terminal();
    let format = args.log_format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call (in tests) leaves the first subscriber in place.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(terminal).try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
}
