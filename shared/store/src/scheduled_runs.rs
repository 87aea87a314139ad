//! What one worker does for all of them now and then: it is begun by whoever claims it first, and all tell
//! how it last ended.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use trueup_postgres::statement::{self, Result};

/// How a run last ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    pub succeeded_at: Timestamp,
    pub breaches: i32,
}

/// True for one caller in all of `every_hours`. A run that was begun and never ended may be claimed again
/// after an hour.
pub async fn claim_run(client: &impl GenericClient, name: &str, every_hours: u32) -> Result<bool> {
    const CLAIM: &str = "/* scheduled_runs.claim */
        INSERT INTO scheduled_runs AS r (name, started_at) VALUES ($1, now())
            ON CONFLICT (name) DO UPDATE SET started_at = now()
         WHERE r.started_at < now() - make_interval(hours => $2)
            OR (r.started_at < now() - interval '1 hour' AND (r.succeeded_at IS NULL OR r.succeeded_at < r.started_at))
        RETURNING 1";
    let hours = i32::try_from(every_hours).unwrap_or(i32::MAX);
    Ok(statement::query_opt(client, CLAIM, &[&name, &hours])
        .await?
        .is_some())
}

pub async fn finish_run(client: &impl GenericClient, name: &str, breaches: i32) -> Result<()> {
    const FINISH: &str = "/* scheduled_runs.finish */
        UPDATE scheduled_runs SET succeeded_at = now(), breaches = $2 WHERE name = $1";
    statement::run(client, FINISH, &[&name, &breaches]).await?;
    Ok(())
}

/// Nothing if it has never ended.
pub async fn last_run(client: &impl GenericClient, name: &str) -> Result<Option<LastRun>> {
    const LAST: &str = "/* scheduled_runs.last */
        SELECT succeeded_at, breaches FROM scheduled_runs WHERE name = $1 AND succeeded_at IS NOT NULL";
    let row = statement::query_opt(client, LAST, &[&name]).await?;
    Ok(row.map(|row| LastRun {
        succeeded_at: row.get(0),
        breaches: row.get(1),
    }))
}
