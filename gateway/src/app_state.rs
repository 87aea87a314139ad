//! What every request of the gateway shares.

use std::sync::Arc;

use trueup_ops::settings::Proxies;

use crate::limits::{Limits, Policy};
use crate::publish::DurablePublisher;
use crate::refusals::RefusalCounter;
use crate::secret_check::SecretUsage;
use crate::unsettled_reports::UnsettledReports;
use crate::webhook_cache::WebhookCache;

/// Everything that a request needs.
pub struct GatewayState {
    pub webhooks: Arc<WebhookCache>,
    pub limits: Limits,
    pub policy: Policy,
    pub durable: DurablePublisher,
    pub refusals: RefusalCounter,
    pub uses: SecretUsage,
    pub unsettled: Arc<UnsettledReports>,
    pub proxies: Proxies,
    pub max_connections: usize,
    pub max_connections_per_address: u32,
}
