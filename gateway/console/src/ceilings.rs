//! The operator's ceilings: what an account may have at most, and what it may set. Checked where an
//! object is made or a value changes, so that lowering one takes nothing away.

use std::num::NonZeroU32;

use deadpool_postgres::Transaction;
use trueup_ops::settings::CeilingArgs;
use trueup_store::StoreError;
use trueup_store::ceilings::{CountedKind, lock_has_room};
use trueup_store::webhooks::{self, StoredSettings};
use uuid::Uuid;

use crate::problem::{FieldError, Problem};

/// A ceiling as whoever meets it is told of it.
struct Ceiling {
    /// What is bounded; the problem's field.
    field: &'static str,
    most: NonZeroU32,
    /// What raises it.
    setting: &'static str,
    /// What can be done without the operator.
    way_out: &'static str,
}

impl Ceiling {
    fn problem(&self) -> Problem {
        let Ceiling {
            field,
            most,
            setting,
            way_out,
        } = self;
        let message = format!(
            "there are as many as there may be ({most}); {way_out}the operator of this server can raise {setting}"
        );
        Problem::invalid_field(*field, message)
    }
}

/// The ceilings that the console was started with.
#[derive(Debug, Clone)]
pub struct Ceilings(CeilingArgs);

impl Ceilings {
    pub fn new(settings: CeilingArgs) -> Self {
        Ceilings(settings)
    }

    fn of_kind(&self, kind: CountedKind) -> Ceiling {
        let records = |field| Ceiling {
            field,
            most: self.0.max_records_per_account,
            setting: "TRUEUP_MAX_RECORDS_PER_ACCOUNT",
            way_out: "",
        };
        match kind {
            CountedKind::Accounts => Ceiling {
                field: "accounts",
                most: self.0.max_accounts,
                setting: "TRUEUP_MAX_ACCOUNTS",
                way_out: "",
            },
            CountedKind::ApiKeys => Ceiling {
                field: "api_keys",
                most: self.0.max_api_keys_per_account,
                setting: "TRUEUP_MAX_API_KEYS_PER_ACCOUNT",
                way_out: "revoke one, or ",
            },
            CountedKind::Users => Ceiling {
                field: "users",
                most: self.0.max_users_per_account,
                setting: "TRUEUP_MAX_USERS_PER_ACCOUNT",
                way_out: "revoke somebody's access, or ",
            },
            CountedKind::Webhooks => Ceiling {
                field: "webhooks",
                most: self.0.max_webhooks_per_account,
                setting: "TRUEUP_MAX_WEBHOOKS_PER_ACCOUNT",
                way_out: "archive one, or ",
            },
            CountedKind::Assignments => records("assignments"),
            CountedKind::Buyers => records("buyers"),
            CountedKind::Campaigns => records("campaigns"),
            CountedKind::Publishers => records("publishers"),
        }
    }

    /// Is there room for one more? Nobody else makes one until the transaction ends.
    pub async fn check_room(
        &self,
        tx: &Transaction<'_>,
        account_id: Uuid,
        kind: CountedKind,
    ) -> Result<Result<(), Problem>, StoreError> {
        let ceiling = self.of_kind(kind);
        let most = i64::from(ceiling.most.get());
        let has_room = lock_has_room(tx, account_id, kind, most).await?;
        Ok(if has_room {
            Ok(())
        } else {
            Err(ceiling.problem())
        })
    }

    /// May the webhook have one more secret beside those that stay valid? The caller has locked it.
    pub async fn check_secrets(
        &self,
        tx: &Transaction<'_>,
        webhook_id: Uuid,
        overlap_seconds: i64,
    ) -> Result<Result<(), Problem>, StoreError> {
        let valid = webhooks::valid_secrets(tx, &[webhook_id]).await?.len();
        let most = self.0.max_secrets_per_webhook;
        let is_full = usize::try_from(most.get()).is_ok_and(|most| valid >= most);
        if overlap_seconds == 0 || !is_full {
            return Ok(Ok(()));
        }
        let ceiling = Ceiling {
            field: "overlap_seconds",
            most,
            setting: "TRUEUP_MAX_SECRETS_PER_WEBHOOK",
            way_out: "without an overlap (0) those before end at once, or wait until one expires, or ",
        };
        Ok(Err(ceiling.problem()))
    }

    /// What a webhook may let through in a minute; a value that is not changed stays.
    pub fn check_limits(
        &self,
        before: &StoredSettings,
        after: &StoredSettings,
    ) -> Result<(), Problem> {
        let most = self.0.max_webhook_limit_per_minute.get();
        let limits = [
            (
                "limit_per_minute",
                before.limit_per_minute,
                after.limit_per_minute,
            ),
            (
                "ip_limit_per_minute",
                before.ip_limit_per_minute,
                after.ip_limit_per_minute,
            ),
        ];
        let faults: Vec<FieldError> = limits
            .into_iter()
            .filter(|(_, before, after)| before != after)
            .filter(|(_, _, after)| after.is_some_and(|limit| i64::from(limit) > i64::from(most)))
            .map(|(field, _, _)| FieldError {
                field: field.to_owned(),
                message: format!(
                    "must be at most {most} on this server; its operator can raise TRUEUP_MAX_WEBHOOK_LIMIT_PER_MINUTE"
                ),
            })
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(Problem::invalid_fields(faults, Vec::new()))
    }
}
