//! The one integration-test binary of this crate; each module is a topic.

mod foreign_keys;
mod online_indexes;
mod open_rows;
mod partitions;
mod stale_statements;
