//! Indexes that are made, or exchanged for narrower ones, while the settling goes on (ADR 0037).
//!
//! A migration runs in a transaction, where an index can only be made under a lock that stops every writer for
//! as long as the table is large. So these are made after the migrations, outside of any transaction, and only
//! then is the wide one dropped. Each narrow index answers all that the wide one did, in the statements of the
//! version before as well, so that its processes go on beside it. A run that was cut off is made good by the next.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::StoreError;

/// A migration waits for a table no longer than this: whoever comes after it waits behind it, and a worker does so
/// for 2 s (V12). Longer than deadlock_timeout (1 s), after which an autovacuum goes out of the way.
pub(crate) const LOCK_TIMEOUT: &str = "/* migrate_lock_timeout */ SET lock_timeout = '1300ms'";

#[derive(Debug)]
struct OnlineIndex {
    name: &'static str,
    make: &'static str,
    /// What it makes superfluous.
    replaces: &'static [WideIndex],
}

#[derive(Debug)]
enum WideIndex {
    Index(&'static str),
    /// A table's key.
    Key {
        table: &'static str,
        name: &'static str,
    },
}

/// An id that was minted by us or chosen for a call is as good as unique: whoever has the same one in another
/// account has a few rows under it, which the statements tell apart by their account.
const INDEXES: [OnlineIndex; 6] = [
    // A call is looked for by the beginning of its ref_id, in any case.
    OnlineIndex {
        name: "calls_by_ref_id_start",
        make: "/* online_calls_by_ref_id_start */
            CREATE INDEX CONCURRENTLY calls_by_ref_id_start ON calls (account_id, lower(ref_id) text_pattern_ops)
             WHERE ref_id IS NOT NULL",
        replaces: &[],
    },
    // Of the calls that share a ref_id and a caller the latest are looked at, without sorting all of them (V13).
    OnlineIndex {
        name: "calls_by_ref_id_caller_and_end",
        make: "/* online_calls_by_ref_id_caller_and_end */
            CREATE INDEX CONCURRENTLY calls_by_ref_id_caller_and_end ON calls (account_id, ref_id, caller, ended_at DESC)
             WHERE ref_id IS NOT NULL",
        replaces: &[WideIndex::Index("calls_by_ref_id_and_caller")],
    },
    // The claims of a call, which is locked while they are written: nothing is found twice by it. `reconcile`
    // counts them.
    OnlineIndex {
        name: "call_reports_by_call",
        make: "/* online_claims_by_call */
            CREATE INDEX CONCURRENTLY call_reports_by_call ON call_reports (call_id)",
        replaces: &[WideIndex::Key {
            table: "call_reports",
            name: "call_reports_pkey",
        }],
    },
    OnlineIndex {
        name: "postings_of_call",
        make: "/* online_postings_of_call */
            CREATE INDEX CONCURRENTLY postings_of_call ON postings (call_id)",
        replaces: &[WideIndex::Index("postings_by_call")],
    },
    // One event posts at most once on one call for one cause (invariant 4). Ids of events grow with the time,
    // so that its pages are filled one after the other.
    OnlineIndex {
        name: "postings_once_of_event",
        make: "/* online_postings_once */
            CREATE UNIQUE INDEX CONCURRENTLY postings_once_of_event ON postings (event_id, call_id, kind, round)
             WHERE event_id IS NOT NULL",
        replaces: &[WideIndex::Index("postings_once")],
    },
    // The order of a publisher's postings, by which its balance runs, is what must be beyond doubt about `seq`;
    // that order is unique, and the key over all of them, by which nothing is looked up, goes.
    OnlineIndex {
        name: "postings_of_publisher",
        make: "/* online_postings_of_publisher */
            CREATE UNIQUE INDEX CONCURRENTLY postings_of_publisher ON postings (publisher_id, seq)
             WHERE publisher_id IS NOT NULL",
        replaces: &[
            WideIndex::Index("postings_by_publisher"),
            WideIndex::Key {
                table: "postings",
                name: "postings_pkey",
            },
        ],
    },
];

/// How often a table's key, once it is of no use, is asked to go: each time it waits as briefly as a migration
/// does, and lets those behind it pass.
const TURNS: u32 = 300;
const BETWEEN_TURNS: Duration = Duration::from_secs(1);

/// An index of a large table takes as long as it takes.
const NO_TIMEOUT: &str = "/* online_no_timeout */ SET statement_timeout = 0; SET lock_timeout = 0";

/// A number that changes with any of them.
pub fn checksum() -> u64 {
    format!("{INDEXES:?}").bytes().fold(0, |sum: u64, byte| {
        sum.rotate_left(7).wrapping_add(u64::from(byte))
    })
}

/// Exchanges what is not exchanged yet. The session is outside of a transaction, and its time-outs are gone
/// afterwards.
pub async fn exchange_indexes(client: &Client) -> Result<(), StoreError> {
    client.batch_execute(NO_TIMEOUT).await?;
    for index in &INDEXES {
        make_index(client, index).await?;
        for wide in index.replaces {
            drop_wide(client, wide).await?;
        }
    }
    Ok(())
}

async fn make_index(client: &Client, index: &OnlineIndex) -> Result<(), StoreError> {
    let valid = is_valid(client, index.name).await?;
    if valid == Some(true) {
        return Ok(());
    }
    if valid.is_some() {
        drop_index(client, index.name).await?;
    }
    Ok(client.batch_execute(index.make).await?)
}

async fn drop_wide(client: &Client, wide: &WideIndex) -> Result<(), StoreError> {
    let (WideIndex::Index(name) | WideIndex::Key { name, .. }) = wide;
    if is_valid(client, name).await?.is_none() {
        return Ok(());
    }
    match wide {
        WideIndex::Index(name) => drop_index(client, name).await,
        WideIndex::Key { table, name } => drop_key(client, table, name).await,
    }
}

/// Whether an index is there, and whole: one whose making was cut off is not.
async fn is_valid(client: &Client, index: &str) -> Result<Option<bool>, StoreError> {
    const VALID: &str = "/* online_is_valid */
        SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('public.' || $1)";
    let row = client.query_opt(VALID, &[&index]).await?;
    Ok(row.map(|row| row.get(0)))
}

async fn drop_index(client: &Client, index: &str) -> Result<(), StoreError> {
    let drop = format!("/* online_drop_index */ DROP INDEX CONCURRENTLY {index}");
    Ok(client.batch_execute(&drop).await?)
}

/// Takes the table's lock for an instant; in short turns, so that no long reader stops the settling with it.
async fn drop_key(client: &Client, table: &str, key: &str) -> Result<(), StoreError> {
    let drop = format!("/* online_drop_key */ ALTER TABLE {table} DROP CONSTRAINT {key}");
    client.batch_execute(LOCK_TIMEOUT).await?;
    for _ in 1..TURNS {
        match client.batch_execute(&drop).await {
            Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
            done => {
                client.batch_execute(NO_TIMEOUT).await?;
                return Ok(done?);
            }
        }
        tokio::time::sleep(BETWEEN_TURNS).await;
    }
    Err(StoreError::Locked(format!(
        "somebody has been reading {table} for ten minutes and more; run `trueup-worker migrate` again later"
    )))
}
