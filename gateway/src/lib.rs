//! The gateway as a library, for its binary, its tests and the fuzzer. It links nothing that knows
//! money, and no part of the console: what the public process does not link, nobody can reach through it.

#![warn(clippy::cognitive_complexity)]

pub mod app_state;
pub mod body;
pub mod body_shares;
pub mod connection_io;
mod content_encoding;
mod group_commit;
pub mod handler;
pub mod limits;
pub mod listener;
pub mod publish;
pub mod refusals;
pub mod request_head;
pub mod responses;
pub mod secret_check;
pub mod server;
pub mod unsettled_reports;
pub mod webhook_cache;
