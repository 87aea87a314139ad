//! What every request of the gateway shares.

use std::sync::Arc;

use trueup_ops::settings::Proxies;

use crate::limits::{Limits, Policy};
use crate::publish::Durable;
use crate::refusals::Refusals;
use crate::secret_check::Uses;
use crate::webhook_cache::Snapshot;

/// Everything that a request needs.
pub struct Door {
    pub snapshot: Arc<Snapshot>,
    pub limits: Limits,
    pub policy: Policy,
    pub durable: Durable,
    pub refusals: Refusals,
    pub uses: Uses,
    pub proxies: Proxies,
    pub max_connections: usize,
    pub max_connections_per_address: u32,
}
