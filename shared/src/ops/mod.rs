//! What every Trueup process needs to be operated: settings, logs, figures, health, a clean end.
//!
//! It knows nothing of payouts, and it keeps the only copy of three sets of names: settings
//! ([`config`]), metrics ([`metrics`]) and exit codes ([`shutdown::Exit`]).

pub mod config;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod shutdown;
