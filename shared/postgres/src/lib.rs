//! Postgres, as every Trueup process reaches it: a bounded pool with time-outs, TLS, transactions that
//! are run again where that helps, and fixed SQL through the statement cache.
//!
//! It holds no statement about money or settings: those stand in `trueup-store`, and the gateway's one
//! SELECT in the gateway.

#![warn(clippy::cognitive_complexity)]

pub mod error;
pub mod pool;
mod stale_statements;
pub mod statement;
mod tls;
pub mod transaction;

pub use error::StoreError;
pub use pool::{Client, Pool, PoolProfile, PoolSettings};
pub use transaction::{BoxFuture, run_tx};
pub use trueup_ops::metrics::TransactionName;
pub use trueup_ops::tls::TlsFiles;
