//! The schema, brought up to date by `trueup-worker migrate` and by nobody else.
//!
//! Migrations are add-only and embedded. They run under an advisory lock, so that two that start at
//! once do not meet. Rights are given afterwards to those of the four roles that exist, each time
//! anew, so that a role made later gets its rights with the next `migrate`.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::{Pool, PoolSettings, StoreError, online_indexes};
use trueup_postgres::error::describe_error;
use trueup_postgres::{TlsFiles, pool};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Any number will do as long as nobody else takes it: "trueup" read as a number in base 36.
const ADVISORY_LOCK: i64 = 1_797_823_321;

/// How often it is looked whether another migration has ended.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Migrating may rewrite a table; it gets ten minutes a statement.
const STATEMENT_TIMEOUT_MS: u32 = 600_000;

pub struct MigrationReport {
    /// Names of the migrations that were applied now.
    pub applied: Vec<String>,
    /// Roles that got their rights, of the four.
    pub roles: Vec<String>,
}

pub async fn run(url: &str, tls: &TlsFiles) -> Result<MigrationReport, StoreError> {
    let settings = PoolSettings {
        tls: tls.clone(),
        statement_timeout_ms: STATEMENT_TIMEOUT_MS,
        idle_in_transaction_timeout_ms: STATEMENT_TIMEOUT_MS,
        ..PoolSettings::for_application("trueup-migrate", 1)
    };
    let mut client = pool::connect_once(url, &settings).await?;
    wait_for_turn(&client).await?;
    client.batch_execute(online_indexes::LOCK_TIMEOUT).await?;
    // Each migration is a transaction of its own: one that met a lock has left nothing, those before it stay.
    let report = embedded::migrations::runner()
        .run_async(&mut client)
        .await
        .map_err(describe_failure)?;
    let applied = report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect();
    client
        .query(
            "/* migrate_partitions */ SELECT trueup_make_partitions()",
            &[],
        )
        .await?;
    let roles = grant_rights(&client).await?;
    online_indexes::exchange_indexes(&client).await?;
    client
        .query(
            "/* migrate_unlock */ SELECT pg_advisory_unlock($1)",
            &[&ADVISORY_LOCK],
        )
        .await?;
    Ok(MigrationReport { applied, roles })
}

/// Until no other migration runs. Asked again and again: one statement that waited would be a transaction that
/// an index, made while others write, waits for in its turn.
async fn wait_for_turn(client: &tokio_postgres::Client) -> Result<(), StoreError> {
    const TRY_LOCK: &str = "/* migrate_lock */ SELECT pg_try_advisory_lock($1)";
    while !client
        .query_one(TRY_LOCK, &[&ADVISORY_LOCK])
        .await?
        .get::<_, bool>(0)
    {
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    Ok(())
}

fn describe_failure(failed: refinery::Error) -> StoreError {
    let Some(refused) = postgres_error_of(&failed) else {
        return StoreError::Corrupt(format!("a migration failed: {failed}"));
    };
    if refused.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
        return StoreError::Locked(failed.to_string());
    }
    // Postgres' own error says only that there was one.
    let why = describe_error(refused);
    StoreError::Corrupt(format!("a migration failed: {failed}: {why}"))
}

fn postgres_error_of(error: &refinery::Error) -> Option<&tokio_postgres::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(postgres) = error.downcast_ref() {
            return Some(postgres);
        }
        source = error.source();
    }
    None
}

/// Why a process of this version must not work on this database yet; `None` when it may. (A newer
/// schema is fine: migrations suit the old processes, too.)
pub async fn pending_migration(pool: &Pool) -> Result<Option<String>, StoreError> {
    const HISTORY: &str = "/* migrate_history */ SELECT version FROM refinery_schema_history";
    const WAY_OUT: &str = "run `trueup-worker migrate`";
    let client = pool.get().await?;
    let rows = match client.query(HISTORY, &[]).await {
        Ok(rows) => rows,
        Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            return Ok(Some(format!("there is no schema; {WAY_OUT}")));
        }
        Err(e) if e.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            return Ok(Some(format!(
                "this role has no rights yet; {WAY_OUT}, which gives them"
            )));
        }
        Err(e) => return Err(e.into()),
    };
    let applied: Vec<i32> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let runner = embedded::migrations::runner();
    let missing: Vec<String> = runner
        .get_migrations()
        .iter()
        .filter(|m| {
            !applied
                .iter()
                .any(|version| i64::from(*version) == i64::from(m.version()))
        })
        .map(ToString::to_string)
        .collect();
    Ok(
        (!missing.is_empty())
            .then(|| format!("the schema lacks {}; {WAY_OUT}", missing.join(", "))),
    )
}

/// A number that changes with any migration and any exchange of an index: names the tests' template database.
pub fn schema_fingerprint() -> u64 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .fold(online_indexes::checksum(), |sum: u64, migration| {
            sum.rotate_left(7) ^ migration.checksum()
        })
}

/// What each role may do. The owner is whoever migrates.
const GRANTS: [(&str, &str); 3] = [
    (
        "trueup_ingest",
        "GRANT USAGE ON SCHEMA public TO trueup_ingest;
         GRANT SELECT ON webhook_ingest TO trueup_ingest;
         GRANT EXECUTE ON FUNCTION trueup_unsettled_reports TO trueup_ingest;",
    ),
    (
        "trueup_worker",
        "GRANT USAGE ON SCHEMA public TO trueup_worker;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO trueup_worker;
         GRANT USAGE ON SEQUENCE wake_rounds TO trueup_worker;
         REVOKE ALL ON users, sessions, known_browsers FROM trueup_worker;
         GRANT INSERT ON scheduled_runs, events, event_requests, event_request_blocks, postings, call_reports, pending_reports, open_reports, call_recorded_outbox, event_attempts, event_actions, audit_log TO trueup_worker;
         GRANT UPDATE ON scheduled_runs, events, event_requests, calls, call_reports, publishers, pending_reports, open_reports, call_recorded_outbox, event_attempts, webhook_secrets, bulk_replays TO trueup_worker;
         GRANT DELETE ON call_reports, pending_reports, open_reports, call_recorded_outbox, event_attempts TO trueup_worker;
         GRANT EXECUTE ON FUNCTION trueup_make_partitions, trueup_drop_partitions, trueup_trim_default_partitions TO trueup_worker;",
    ),
    (
        "trueup_console",
        "GRANT USAGE ON SCHEMA public TO trueup_console;
         GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO trueup_console;
         GRANT UPDATE ON accounts, api_keys, buyers, publishers, campaigns, assignments, webhooks, webhook_secrets, calls, call_reports, events, event_requests, pending_reports, open_reports, users, sessions, known_browsers, bulk_replays TO trueup_console;
         GRANT DELETE ON webhook_secrets, call_reports, pending_reports, open_reports, sessions, known_browsers TO trueup_console;",
    ),
];

/// A function is everybody's unless told otherwise, and these run with the owner's rights.
const REVOKE: &str = "/* migrate_revoke */
    REVOKE ALL ON FUNCTION trueup_make_partitions, trueup_drop_partitions, trueup_trim_default_partitions, trueup_unsettled_reports FROM PUBLIC";

/// A right that this version does not give any more is taken away: in the same transaction, so that no
/// statement of a running process meets the moment in between.
fn replace_rights(role: &str, grants: &str) -> String {
    format!(
        "/* migrate_rights */ BEGIN;
         REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role};
         REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role};
         REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM {role};
         {grants}
         COMMIT"
    )
}

async fn grant_rights(client: &tokio_postgres::Client) -> Result<Vec<String>, StoreError> {
    client.batch_execute(REVOKE).await?;
    let mut granted = Vec::new();
    for (role, statements) in GRANTS {
        let exists = client
            .query_opt(
                "/* migrate_role_exists */ SELECT 1 FROM pg_roles WHERE rolname = $1",
                &[&role],
            )
            .await?;
        if exists.is_some() {
            client
                .batch_execute(&replace_rights(role, statements))
                .await?;
            granted.push(role.to_owned());
        }
    }
    Ok(granted)
}

#[cfg(test)]
mod tests {
    #[test]
    fn migrations_are_numbered_without_a_gap() {
        let mut versions: Vec<_> = super::embedded::migrations::runner()
            .get_migrations()
            .iter()
            .map(|m| m.version())
            .collect();
        versions.sort_unstable();
        assert_eq!(versions, (1..).take(versions.len()).collect::<Vec<_>>());
    }
}
