//! A webhook's settings, as far as the rules ask for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::report::{DurationUnit, PayoutUnit, ReadSettings, Slot};

/// Seconds that our duration and the buyer's may differ (seed).
pub const DEFAULT_TOLERANCE_SECONDS: i64 = 60;
/// Hours back from a report in which its call is looked for (seed).
pub const DEFAULT_WINDOW_HOURS: i64 = 24;
/// $10,000.00: a larger report is held for a person (V8).
pub const DEFAULT_PAYOUT_CAP_CENTS: i64 = 1_000_000;

/// What to do with a report that contradicts itself (V8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictPolicy {
    #[default]
    Hold,
    Trust,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WebhookRules {
    pub id: Uuid,
    pub account_id: Uuid,
    pub buyer_id: Option<Uuid>,
    pub duration_tolerance_seconds: i64,
    pub match_window_hours: i64,
    pub payout_cap_cents: i64,
    pub on_currency_mismatch: ConflictPolicy,
    pub on_rejection_word: ConflictPolicy,
    pub read: ReadSettings,
}

impl WebhookRules {
    /// A webhook as a new one is, before anybody changes a setting.
    pub fn with_defaults(id: Uuid, account_id: Uuid) -> Self {
        WebhookRules {
            id,
            account_id,
            buyer_id: None,
            duration_tolerance_seconds: DEFAULT_TOLERANCE_SECONDS,
            match_window_hours: DEFAULT_WINDOW_HOURS,
            payout_cap_cents: DEFAULT_PAYOUT_CAP_CENTS,
            on_currency_mismatch: ConflictPolicy::Hold,
            on_rejection_word: ConflictPolicy::Hold,
            read: ReadSettings {
                field_names: BTreeMap::<Slot, String>::new(),
                default_region: "US".to_owned(),
                currency: "USD".to_owned(),
                duration_unit: DurationUnit::Seconds,
                payout_unit: PayoutUnit::Dollars,
            },
        }
    }
}
