//! The one integration-test binary of this crate; each module is a topic.

mod ingest;
#[path = "../../fuzz/standalone_server.rs"]
mod standalone_server;
mod starts;
