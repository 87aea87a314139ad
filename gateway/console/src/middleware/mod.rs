//! What every request of the console goes through.

pub mod metrics;
pub mod timeout;
