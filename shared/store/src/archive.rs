//! What an account no longer uses: buyers, publishers, campaigns and assignments. It leaves the lists that
//! something is chosen from, and stays wherever it was used.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use trueup_postgres::statement::{self, Result};

/// Ids that a list leaves out; no account has as many.
const MOST: i64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archivable {
    Buyer,
    Publisher,
    Campaign,
    Assignment,
}

macro_rules! statements {
    ($noun:literal) => {
        (
            concat!(
                "/* ",
                $noun,
                ".set_archived */ UPDATE ",
                $noun,
                " SET archived_at = CASE WHEN $3 THEN COALESCE(archived_at, now()) END
                  WHERE account_id = $1 AND id = $2"
            ),
            concat!(
                "/* ",
                $noun,
                ".archived */ SELECT id FROM ",
                $noun,
                " WHERE account_id = $1 AND archived_at IS NOT NULL ORDER BY id DESC LIMIT $2"
            ),
        )
    };
}

impl Archivable {
    /// The one that archives, and the one that lists.
    fn statements(self) -> (&'static str, &'static str) {
        match self {
            Archivable::Buyer => statements!("buyers"),
            Archivable::Publisher => statements!("publishers"),
            Archivable::Campaign => statements!("campaigns"),
            Archivable::Assignment => statements!("assignments"),
        }
    }
}

/// Archives it, or brings it back; false if the account has no such thing.
pub async fn set_archived(
    client: &impl GenericClient,
    what: Archivable,
    account_id: Uuid,
    id: Uuid,
    archived: bool,
) -> Result<bool> {
    let (set, _) = what.statements();
    Ok(statement::run(client, set, &[&account_id, &id, &archived]).await? > 0)
}

/// What is archived of these.
pub async fn archived_ids(
    client: &impl GenericClient,
    what: Archivable,
    account_id: Uuid,
) -> Result<HashSet<Uuid>> {
    let (_, list) = what.statements();
    let rows = statement::query_rows(client, list, &[&account_id, &MOST]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
