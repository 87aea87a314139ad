//! Every statement about money and settings, one file per noun; nobody else speaks to Postgres about
//! them. It finds, locks and writes, and decides nothing.
//!
//! Every statement opens with a comment that is its own name, so that `pg_stat_statements`, a log and
//! a flame graph call it what the code does.

#![warn(clippy::cognitive_complexity)]

pub mod accounts;
pub mod api_keys;
pub mod archive;
pub mod assignments;
pub mod audit_log;
pub mod bulk_replays;
pub mod buyers;
pub mod call_records;
pub mod calls;
pub mod campaigns;
pub mod ceilings;
mod column_table;
pub mod event_search;
pub mod events;
pub mod first_steps;
mod id_page;
pub mod ledger;
pub mod migrate;
mod online_indexes;
pub mod open_events;
pub mod partitions;
pub mod publishers;
pub mod reconcile;
pub mod request_blocks;
pub mod revenue;
pub mod scheduled_runs;
pub mod settlement;
pub mod stored_requests;
mod terms_columns;
pub mod users;
pub mod webhook_activity;
pub mod webhooks;

pub use id_page::IdPage;
pub use trueup_postgres::{
    BoxFuture, Client, Pool, PoolProfile, PoolSettings, StoreError, TransactionName, run_tx,
};
