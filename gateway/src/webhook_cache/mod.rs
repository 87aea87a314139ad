//! The webhooks, in memory: fresh within half a second of a change, and still there when Postgres is
//! not.
//!
//! With a file given, a copy is kept on disk, so that a gateway can also *start* without Postgres. The
//! copy holds tokens and digests of secrets, never a secret; only this user may read it.

pub mod query;

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::webhook_cache::query::{Changes, FROM_THE_START, IngestWebhook, changed_since};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Dependency;
use trueup_ops::metrics;
use trueup_ops::shutdown::spawn_vital;
use trueup_postgres::Pool;
use uuid::Uuid;

/// A change must be everywhere within 2 s.
const EVERY: Duration = Duration::from_millis(500);
/// A read that takes longer has failed.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// Everything is read again this often, in case that a change escaped (a restored database).
const ALL_EVERY: Duration = Duration::from_secs(300);
/// The copy is written at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(2);
const SAVED_VERSION: u8 = 1;

pub struct Snapshot(ArcSwap<Table>);

#[derive(Default)]
struct Table {
    /// False until a first read: nobody knows yet what there is.
    known: bool,
    by_id: HashMap<Uuid, Arc<IngestWebhook>>,
    by_token: HashMap<String, Arc<IngestWebhook>>,
}

pub enum Found {
    Webhook(Arc<IngestWebhook>),
    NoSuchToken,
    /// Nothing was read yet, neither from the database nor from a copy.
    NotKnownYet,
}

/// What the reader of the database needs.
pub struct Source {
    pub pool: Pool,
    pub file: Option<PathBuf>,
    pub postgres: Dependency,
    pub snapshot: Dependency,
}

impl Snapshot {
    /// Starts with the saved copy if there is one, and goes on reading until `stop`.
    pub fn start(source: Source, stop: CancellationToken) -> Arc<Snapshot> {
        let snapshot = Arc::new(Snapshot(ArcSwap::default()));
        if let Some(saved) = source.file.as_deref().and_then(load) {
            let age = Timestamp::now().duration_since(saved.at).as_secs();
            source
                .snapshot
                .degraded(format!("from the saved copy, {age} s old"));
            snapshot.0.store(Arc::new(Table::of(saved.webhooks)));
        }
        let mine = Arc::clone(&snapshot);
        spawn_vital("snapshot", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = mine.keep_fresh(source) => {}
            }
        });
        snapshot
    }

    /// One that never changes.
    pub fn of(webhooks: Vec<IngestWebhook>) -> Arc<Snapshot> {
        Arc::new(Snapshot(ArcSwap::new(Arc::new(Table::of(webhooks)))))
    }

    pub fn find(&self, token: &str) -> Found {
        let table = self.0.load();
        match table.by_token.get(token) {
            Some(webhook) => Found::Webhook(Arc::clone(webhook)),
            None if table.known => Found::NoSuchToken,
            None => Found::NotKnownYet,
        }
    }

    pub fn is_known(&self) -> bool {
        self.0.load().known
    }

    async fn keep_fresh(&self, source: Source) {
        let figures = metrics::gateway();
        let mut horizon = FROM_THE_START;
        let mut all_read: Option<Instant> = None;
        let mut fresh_at: Option<Instant> = None;
        let mut unsaved = false;
        let mut saved: Option<Instant> = None;
        loop {
            let from = match all_read {
                Some(at) if at.elapsed() < ALL_EVERY => horizon,
                _ => FROM_THE_START,
            };
            let read = tokio::time::timeout(READ_WITHIN, changed_since(&source.pool, from)).await;
            match read.map_err(|_| format!("no answer within {} s", READ_WITHIN.as_secs())) {
                Ok(Ok(changes)) => {
                    figures.snapshot_reads.inc(&["ok"]);
                    if from == FROM_THE_START {
                        all_read = Some(Instant::now());
                    } else if changes.horizon < horizon {
                        // Transactions are numbered upwards: this is another database than before.
                        all_read = None;
                    }
                    horizon = changes.horizon;
                    unsaved |= self.apply(changes, from == FROM_THE_START);
                    fresh_at = Some(Instant::now());
                    source.postgres.ok();
                    source.snapshot.ok();
                }
                Ok(Err(e)) => self.stale(&source, &e.to_string()),
                Err(e) => self.stale(&source, &e),
            }
            let age = fresh_at.map_or(-1, |at| {
                i64::try_from(at.elapsed().as_secs()).unwrap_or(i64::MAX)
            });
            figures.snapshot_age_seconds.set(&[], age);
            if let Some(file) = source.file.as_ref().filter(|_| unsaved)
                && saved.is_none_or(|at| at.elapsed() >= SAVE_EVERY)
            {
                unsaved = !self.save(file.clone()).await;
                saved = Some(Instant::now());
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn stale(&self, source: &Source, why: &str) {
        metrics::gateway().snapshot_reads.inc(&["failed"]);
        source
            .postgres
            .degraded(format!("webhooks are served as they were known: {why}"));
        if !self.is_known() {
            source
                .snapshot
                .down("no webhooks are known yet, and there is no saved copy");
        }
    }

    /// True if anything is different now.
    fn apply(&self, changes: Changes, all: bool) -> bool {
        let now = self.0.load();
        let next = if all {
            Table::of(changes.webhooks)
        } else {
            let differs = |w: &IngestWebhook| {
                now.by_id
                    .get(&w.webhook_id)
                    .is_none_or(|known| **known != *w)
            };
            if !changes.webhooks.iter().any(differs) {
                return false;
            }
            let mut by_id = now.by_id.clone();
            for webhook in changes.webhooks {
                by_id.insert(webhook.webhook_id, Arc::new(webhook));
            }
            Table::index(by_id)
        };
        metrics::gateway()
            .snapshot_webhooks
            .set(&[], i64::try_from(next.by_token.len()).unwrap_or(i64::MAX));
        self.0.store(Arc::new(next));
        true
    }

    async fn save(&self, file: PathBuf) -> bool {
        let table = self.0.load_full();
        let written = tokio::task::spawn_blocking(move || {
            let webhooks = table
                .by_id
                .values()
                .map(|webhook| IngestWebhook::clone(webhook))
                .collect();
            store(
                &file,
                &Saved {
                    v: SAVED_VERSION,
                    at: Timestamp::now(),
                    webhooks,
                },
            )
        });
        match written.await {
            Ok(Ok(())) => true,
            Ok(Err(e)) => {
                tracing::warn!(error = %e, "the copy of the webhooks could not be saved");
                false
            }
            Err(_) => false,
        }
    }
}

impl Table {
    fn of(webhooks: Vec<IngestWebhook>) -> Table {
        Table::index(
            webhooks
                .into_iter()
                .map(|webhook| (webhook.webhook_id, Arc::new(webhook)))
                .collect(),
        )
    }

    fn index(by_id: HashMap<Uuid, Arc<IngestWebhook>>) -> Table {
        let live = by_id.values().filter(|webhook| !webhook.archived);
        let by_token = live
            .map(|webhook| (webhook.token.clone(), Arc::clone(webhook)))
            .collect();
        Table {
            known: true,
            by_id,
            by_token,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    v: u8,
    at: Timestamp,
    webhooks: Vec<IngestWebhook>,
}

fn load(file: &Path) -> Option<Saved> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => {
            tracing::warn!(error = %e, "the saved copy of the webhooks cannot be read");
            return None;
        }
    };
    match serde_json::from_slice::<Saved>(&text) {
        Ok(saved) if saved.v == SAVED_VERSION => Some(saved),
        Ok(saved) => {
            tracing::warn!(
                version = saved.v,
                "the saved copy of the webhooks is of another version"
            );
            None
        }
        Err(e) => {
            tracing::warn!(error = %e, "the saved copy of the webhooks is damaged");
            None
        }
    }
}

/// Whole or not at all: written beside it, then renamed.
fn store(file: &Path, saved: &Saved) -> std::io::Result<()> {
    let beside = file.with_extension("new");
    let text = serde_json::to_vec(saved)?;
    let mut open = std::fs::OpenOptions::new();
    let mut out = open
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    out.write_all(&text)?;
    out.sync_all()?;
    std::fs::rename(&beside, file)
}
