//! How many objects there are of a kind that an operator bounds, counted so that two who make one at
//! once cannot both have the last place.

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use trueup_postgres::statement::{self, Result};

/// What is counted: only what is in use. What was archived, revoked or disabled leaves its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedKind {
    /// All there are, whosever.
    Accounts,
    /// The others are counted for one account.
    ApiKeys,
    Assignments,
    Buyers,
    Campaigns,
    Publishers,
    Users,
    Webhooks,
}

impl CountedKind {
    /// What its lock is named after.
    fn code(self) -> &'static str {
        match self {
            CountedKind::Accounts => "accounts",
            CountedKind::ApiKeys => "api_keys",
            CountedKind::Assignments => "assignments",
            CountedKind::Buyers => "buyers",
            CountedKind::Campaigns => "campaigns",
            CountedKind::Publishers => "publishers",
            CountedKind::Users => "users",
            CountedKind::Webhooks => "webhooks",
        }
    }

    /// `$1` account, `$2` where the counting may stop.
    fn count_statement(self) -> &'static str {
        macro_rules! count {
            ($table:literal, $which:literal) => {
                concat!(
                    "/* ceilings.count_",
                    $table,
                    " */ SELECT count(*) FROM (SELECT 1 FROM ",
                    $table,
                    " WHERE ",
                    $which,
                    " LIMIT $2) AS counted"
                )
            };
        }
        match self {
            CountedKind::Accounts => count!("accounts", "$1::uuid IS NOT NULL"),
            CountedKind::ApiKeys => count!("api_keys", "account_id = $1 AND revoked_at IS NULL"),
            CountedKind::Assignments => count!("assignments", "account_id = $1"),
            CountedKind::Buyers => count!("buyers", "account_id = $1"),
            CountedKind::Campaigns => count!("campaigns", "account_id = $1"),
            CountedKind::Publishers => count!("publishers", "account_id = $1"),
            CountedKind::Users => count!("users", "account_id = $1 AND disabled_at IS NULL"),
            CountedKind::Webhooks => count!("webhooks", "account_id = $1 AND archived_at IS NULL"),
        }
    }
}

/// Are there fewer than `most`? Whoever else asks for this kind and account waits until the transaction
/// ends, so that what is made in it is counted.
pub async fn lock_has_room(
    client: &impl GenericClient,
    account_id: Uuid,
    kind: CountedKind,
    most: i64,
) -> Result<bool> {
    const LOCK: &str = "/* ceilings.lock */
        SELECT pg_advisory_xact_lock(hashtextextended('ceiling ' || $1, 0))";
    let name = match kind {
        CountedKind::Accounts => kind.code().to_owned(),
        _ => format!("{} {account_id}", kind.code()),
    };
    statement::query_one(client, LOCK, &[&name]).await?;
    // A new statement: waiting for a lock does not refresh a statement's snapshot.
    let row = statement::query_one(client, kind.count_statement(), &[&account_id, &most]).await?;
    Ok(row.get::<_, i64>(0) < most)
}
