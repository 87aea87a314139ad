//! How far an account is on its way to the first credited report.

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use trueup_postgres::statement::{self, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstSteps {
    pub webhook: bool,
    pub assignment: bool,
    /// Its newest call.
    pub call: Option<Uuid>,
    /// A report has posted money.
    pub credited: bool,
}

/// A report's posting is looked for among so many; an account with more of them is under way.
const LOOKED_AT: i64 = 1_000;

pub async fn load_steps(client: &impl GenericClient, account_id: Uuid) -> Result<FirstSteps> {
    const STEPS: &str = "/* first_steps.load */
        SELECT EXISTS (SELECT 1 FROM webhooks WHERE account_id = $1) AS webhook,
               EXISTS (SELECT 1 FROM assignments WHERE account_id = $1) AS assignment,
               (SELECT id FROM calls WHERE account_id = $1 ORDER BY started_at DESC, id DESC LIMIT 1) AS call,
               (SELECT count(*) >= $2 OR count(event_id) > 0
                  FROM (SELECT event_id FROM postings WHERE account_id = $1 LIMIT $2) p) AS credited";
    let row = statement::query_one(client, STEPS, &[&account_id, &LOOKED_AT]).await?;
    Ok(FirstSteps {
        webhook: row.get("webhook"),
        assignment: row.get("assignment"),
        call: row.get("call"),
        credited: row.get("credited"),
    })
}
