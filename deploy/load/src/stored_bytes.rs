//! Goal 7: bytes on disk and in the log for one settled report, by table.
//!
//! Bytes do not depend on how busy the machine is, nor on how the worker was compiled: a debug build tells
//! the same. Images of whole pages, which Postgres writes into its log once a page after each checkpoint,
//! depend on the checkpoints alone and are told apart.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio_postgres::Client;
use trueup_event::raw_event::RawEvent;
use trueup_testkit::broker_and_redis::Lease;
use trueup_testkit::database::TestDatabase;

use crate::backlog_drain::{fill, rows, start_worker};
use crate::fixtures::{self, Dataset};
use crate::goals::{Better, Goal};
use crate::report::Report;
use trueup_testkit::output::print_line;

#[derive(Debug, Clone)]
pub struct Plan {
    /// Calls in the books.
    pub calls: i64,
    /// Reports that are settled, each of a call of its own.
    pub reports: usize,
    /// The worker's binary.
    pub worker: PathBuf,
}

impl Plan {
    pub fn with_worker(worker: PathBuf) -> Plan {
        Plan {
            calls: 100_000,
            reports: 40_000,
            worker,
        }
    }
}

/// Bytes a report of one table, with its partitions and the texts that lie apart.
#[derive(Debug, Clone)]
pub struct TableBytes {
    pub table: String,
    pub rows: f64,
    pub indexes: f64,
    /// Of the log, without images of whole pages.
    pub log: f64,
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub tables: Vec<TableBytes>,
    pub indexes: Vec<(String, f64)>,
    /// Of the log: all of it without images of whole pages, and those images.
    pub log: f64,
    pub page_images: f64,
}

impl Outcome {
    pub fn stored(&self) -> f64 {
        self.tables.iter().map(|t| t.rows + t.indexes).sum()
    }
}

const DRAINED_WITHIN: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The size of each table and index of ours, under the name of the table that it belongs to.
const RELATIONS: &str = "
    WITH RECURSIVE owned AS (
        SELECT c.oid, c.relname::text AS table, false AS is_index FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        UNION ALL
        SELECT i.inhrelid, o.table, o.is_index FROM owned o JOIN pg_inherits i ON i.inhparent = o.oid AND NOT o.is_index),
    parts AS (
        SELECT oid, \"table\", is_index FROM owned
        UNION ALL SELECT x.indexrelid, o.table, true FROM owned o JOIN pg_index x ON x.indrelid = o.oid
        UNION ALL SELECT c.reltoastrelid, o.table, false FROM owned o JOIN pg_class c ON c.oid = o.oid WHERE c.reltoastrelid <> 0
        UNION ALL SELECT x.indexrelid, o.table, false
          FROM owned o JOIN pg_class c ON c.oid = o.oid JOIN pg_index x ON x.indrelid = c.reltoastrelid)
    SELECT p.table, p.is_index, sum(pg_relation_size(p.oid))::int8, array_agg(pg_relation_filenode(p.oid)::int8)
      FROM parts p GROUP BY 1, 2 ORDER BY 1, 2";

/// Each index that has grown, under its own name or that of the index that it is a partition of.
const INDEXES: &str = "
    SELECT COALESCE(h.inhparent, c.oid)::regclass::text, sum(pg_relation_size(c.oid))::int8
      FROM pg_class c LEFT JOIN pg_inherits h ON h.inhrelid = c.oid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'i' GROUP BY 1 ORDER BY 1";

async fn index_sizes(client: &Client) -> anyhow::Result<Vec<(String, i64)>> {
    let found = client.query(INDEXES, &[]).await?;
    Ok(found.iter().map(|row| (row.get(0), row.get(1))).collect())
}

struct Relation {
    table: String,
    is_index: bool,
    bytes: i64,
    files: Vec<i64>,
}

async fn relations(client: &Client) -> anyhow::Result<Vec<Relation>> {
    let found = client.query(RELATIONS, &[]).await?;
    Ok(found
        .iter()
        .map(|row| Relation {
            table: row.get(0),
            is_index: row.get(1),
            bytes: row.get(2),
            files: row
                .get::<_, Vec<Option<i64>>>(3)
                .into_iter()
                .flatten()
                .collect(),
        })
        .collect())
}

pub async fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let database = TestDatabase::fresh().await;
    let lease = Lease::acquire().await;
    let client = database.client().await;
    client
        .batch_execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        .await?;
    let books = Dataset::make(&client, plan.calls, false).await?;
    let broker = lease.broker().await;
    fill(&broker, plan.reports, |n| report(n, books)).await?;
    client.batch_execute("CHECKPOINT").await?;
    client.query(KEEP_LOG, &[]).await?;
    let before = relations(&client).await?;
    let indexes_before = index_sizes(&client).await?;
    let begun_at = log_position(&client).await?;
    let begun = Instant::now();
    let mut worker = start_worker(&plan.worker, &database, &lease);
    while rows(&client).await? < i64::try_from(plan.reports)? {
        ensure!(
            begun.elapsed() < DRAINED_WITHIN && worker.is_running(),
            "not settled:\n{}",
            worker.log()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let ended_at = log_position(&client).await?;
    let after = relations(&client).await?;
    let indexes_after = index_sizes(&client).await?;
    let keep = KEEP_RECORDS
        .replace("{from}", &begun_at)
        .replace("{to}", &ended_at);
    client.batch_execute(&keep).await?;
    let logged = logged_by_file(&client).await?;
    let each = |bytes: i64| bytes as f64 / plan.reports as f64;
    let mut tables: Vec<TableBytes> = Vec::new();
    for now in &after {
        let same = |r: &&Relation| r.table == now.table && r.is_index == now.is_index;
        let grown = now.bytes - before.iter().find(same).map_or(0, |r| r.bytes);
        let log: i64 = now.files.iter().filter_map(|file| logged.get(file)).sum();
        if tables.last().is_none_or(|t| t.table != now.table) {
            tables.push(TableBytes {
                table: now.table.clone(),
                rows: 0.0,
                indexes: 0.0,
                log: 0.0,
            });
        }
        if let Some(table) = tables.last_mut() {
            table.log += each(log);
            if now.is_index {
                table.indexes += each(grown);
            } else {
                table.rows += each(grown);
            }
        }
    }
    tables.retain(|t| t.rows + t.indexes + t.log >= 1.0);
    let grown = indexes_before.into_iter().zip(indexes_after);
    let indexes = grown
        .map(|((name, before), (_, after))| (name, each(after - before)))
        .filter(|(_, bytes)| *bytes >= 1.0)
        .collect();
    let (log, page_images) = log_totals(&client).await?;
    Ok(Outcome {
        tables,
        indexes,
        log: each(log),
        page_images: each(page_images),
    })
}

/// A report by ref_id, of a call of its own.
fn report(n: usize, books: Dataset) -> RawEvent {
    let number = i64::try_from(n).expect("reports are few");
    let call = books.reported_call(number);
    let payout = format!("{}.{:02}", 60 + number % 60, number % 100);
    let fields = json!({
        "ref_id": books.ref_id(call), "caller_id": books.caller(call), "duration": fixtures::duration(call) - 30, "payout": payout
    });
    crate::backlog_drain::event(number, call, &fields, books)
}

async fn log_position(client: &Client) -> anyhow::Result<String> {
    let position = "SELECT pg_current_wal_flush_lsn()::text";
    Ok(client.query_one(position, &[]).await?.get(0))
}

/// The records of our transactions and about our files, without those of other databases of the server.
const KEEP_RECORDS: &str = "
    CREATE TEMP TABLE logged AS
        SELECT xid::text AS xid, (regexp_match(block_ref, 'rel \\d+/(\\d+)/\\d+'))[1] AS database,
               (regexp_match(block_ref, 'rel \\d+/\\d+/(\\d+)'))[1]::int8 AS file,
               record_length - fpi_length AS bytes, fpi_length AS page_image
          FROM pg_get_wal_records_info('{from}', '{to}');
    DELETE FROM logged WHERE database IS DISTINCT FROM (SELECT oid::text FROM pg_database WHERE datname = current_database())
       AND (xid = '0' OR xid NOT IN (
            SELECT xid FROM logged WHERE database = (SELECT oid::text FROM pg_database WHERE datname = current_database())))";

/// So that no checkpoint removes what is to be read; it goes with the session.
const KEEP_LOG: &str =
    "SELECT pg_create_physical_replication_slot('trueup_load_' || pg_backend_pid(), true, true)";

/// Bytes of the log's records by the file that each is about, without images of whole pages.
async fn logged_by_file(client: &Client) -> anyhow::Result<std::collections::HashMap<i64, i64>> {
    let by_file = "SELECT file, sum(bytes)::int8 FROM logged WHERE file IS NOT NULL GROUP BY 1";
    let found = client.query(by_file, &[]).await?;
    Ok(found.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn log_totals(client: &Client) -> anyhow::Result<(i64, i64)> {
    let totals = "SELECT sum(bytes)::int8, sum(page_image)::int8 FROM logged";
    let row = client.query_one(totals, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// The table by table sum, for whoever watches and for the report.
pub fn lines(outcome: &Outcome) -> Vec<String> {
    let of_table = |t: &TableBytes| {
        format!(
            "{}: {:.0} rows + {:.0} indexes, {:.0} of the log",
            t.table, t.rows, t.indexes, t.log
        )
    };
    let of_index = |(name, bytes): &(String, f64)| format!("{name} {bytes:.0}");
    let indexes: Vec<String> = outcome.indexes.iter().map(of_index).collect();
    let tables = outcome.tables.iter().map(of_table);
    tables
        .chain([format!("by index: {}", indexes.join(", "))])
        .collect()
}

/// Goal 7, in a run.
pub async fn measured(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    print_line(format_args!(
        "settling {} JSON reports by ref_id, for their bytes …",
        plan.reports
    ));
    let outcome = run(plan).await?;
    let goal = |what: &str, measured: f64, pass: f64, stretch: f64| Goal {
        number: 7,
        what: what.to_owned(),
        value: format!("{measured:.0} bytes"),
        ceiling: String::new(),
        measured,
        unit: "bytes",
        better: Better::Less,
        pass,
        stretch: Some(stretch),
    };
    report.judge(goal("stored for a report", outcome.stored(), 900.0, 600.0));
    report.judge(goal(
        "log for a report, without images of whole pages",
        outcome.log,
        1_500.0,
        1_000.0,
    ));
    report.add_note(format!(
        "Bytes for a report: {}; images of whole pages after a checkpoint {:.0} more of the log.",
        lines(&outcome).join(" · "),
        outcome.page_images
    ));
    Ok(())
}
