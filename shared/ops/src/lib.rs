//! What every Trueup process needs to be operated: settings, logs, figures, health, a clean end.
//!
//! It knows nothing of payouts, and it keeps the only copy of three sets of names: settings
//! ([`settings`]), metrics ([`metrics`]) and exit codes ([`exit::ExitReason`]).

#![warn(clippy::cognitive_complexity)]

pub mod backoff;
pub mod bounded_file;
pub mod build;
pub mod connections;
pub mod crash_points;
pub mod exit;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod network;
pub mod private_listener;
pub mod settings;
pub mod shutdown;
pub mod tls;
