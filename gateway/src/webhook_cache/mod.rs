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

use crate::webhook_cache::query::{ChangedWebhooks, FROM_THE_START, IngestWebhook, changed_since};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Dependency;
use trueup_ops::metrics::{self, AttemptOutcome};
use trueup_ops::shutdown::spawn_vital;
use trueup_postgres::{Pool, StoreError};
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

pub struct WebhookCache(ArcSwap<Table>);

#[derive(Default)]
struct Table {
    /// False until a first read: nobody knows yet what there is.
    known: bool,
    by_id: HashMap<Uuid, Arc<IngestWebhook>>,
    by_token: HashMap<String, Arc<IngestWebhook>>,
}

pub enum WebhookLookup {
    Webhook(Arc<IngestWebhook>),
    NoSuchToken,
    /// Nothing was read yet, neither from the database nor from a copy.
    NotKnownYet,
}

/// Why the webhooks are served as they were known; the next read may succeed.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("no answer within {} s", READ_WITHIN.as_secs())]
    Late,
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// What the reader of the database needs.
pub struct CacheSource {
    pub pool: Pool,
    pub file: Option<PathBuf>,
    pub postgres: Dependency,
    pub cache: Dependency,
}

impl WebhookCache {
    /// Starts with the saved copy if there is one, and goes on reading until `stop`.
    pub fn start_refreshing(source: CacheSource, stop: CancellationToken) -> Arc<WebhookCache> {
        let webhooks = Arc::new(WebhookCache(ArcSwap::default()));
        if let Some(saved) = source.file.as_deref().and_then(load_file) {
            let age = Timestamp::now().duration_since(saved.at).as_secs();
            source
                .cache
                .set_degraded(format!("from the saved copy, {age} s old"));
            webhooks
                .0
                .store(Arc::new(Table::from_webhooks(saved.webhooks)));
        }
        let mine = Arc::clone(&webhooks);
        spawn_vital("webhook cache", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = mine.keep_fresh(source) => {}
            }
        });
        webhooks
    }

    /// One that never changes.
    pub fn from_webhooks(webhooks: Vec<IngestWebhook>) -> Arc<WebhookCache> {
        Arc::new(WebhookCache(ArcSwap::new(Arc::new(Table::from_webhooks(
            webhooks,
        )))))
    }

    pub fn find(&self, token: &str) -> WebhookLookup {
        let table = self.0.load();
        match table.by_token.get(token) {
            Some(webhook) => WebhookLookup::Webhook(Arc::clone(webhook)),
            None if table.known => WebhookLookup::NoSuchToken,
            None => WebhookLookup::NotKnownYet,
        }
    }

    pub fn is_known(&self) -> bool {
        self.0.load().known
    }

    async fn keep_fresh(&self, source: CacheSource) {
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
            match read_changes(&source.pool, from).await {
                Ok(changes) => {
                    figures.snapshot_reads.inc(AttemptOutcome::Ok);
                    if from == FROM_THE_START {
                        all_read = Some(Instant::now());
                    } else if changes.horizon < horizon {
                        // Transactions are numbered upwards: this is another database than before.
                        all_read = None;
                    }
                    horizon = changes.horizon;
                    figures.clock_skew_seconds.set(changes.clock_skew.as_secs());
                    unsaved |= self.apply_changes(changes, from == FROM_THE_START);
                    fresh_at = Some(Instant::now());
                    source.postgres.ok();
                    source.cache.ok();
                }
                Err(error) => self.mark_stale(&source, &error),
            }
            match fresh_at {
                Some(at) => figures.snapshot_age_seconds.set(at.elapsed().as_secs()),
                None => figures.snapshot_age_seconds.set(-1),
            }
            if let Some(file) = source.file.as_ref().filter(|_| unsaved)
                && saved.is_none_or(|at| at.elapsed() >= SAVE_EVERY)
            {
                unsaved = !self.save_file(file.clone()).await;
                saved = Some(Instant::now());
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn mark_stale(&self, source: &CacheSource, why: &RefreshError) {
        metrics::gateway()
            .snapshot_reads
            .inc(AttemptOutcome::Failed);
        source
            .postgres
            .set_degraded(format!("webhooks are served as they were known: {why}"));
        if !self.is_known() {
            source
                .cache
                .set_down("no webhooks are known yet, and there is no saved copy");
        }
    }

    /// True if anything is different now.
    fn apply_changes(&self, changes: ChangedWebhooks, all: bool) -> bool {
        let now = self.0.load();
        let next = if all {
            Table::from_webhooks(changes.webhooks)
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
            Table::from_index(by_id)
        };
        metrics::gateway()
            .snapshot_webhooks
            .set(next.by_token.len());
        self.0.store(Arc::new(next));
        true
    }

    async fn save_file(&self, file: PathBuf) -> bool {
        let table = self.0.load_full();
        let written = tokio::task::spawn_blocking(move || {
            let webhooks = table
                .by_id
                .values()
                .map(|webhook| IngestWebhook::clone(webhook))
                .collect();
            store_file(
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

async fn read_changes(pool: &Pool, from: i64) -> Result<ChangedWebhooks, RefreshError> {
    let read = tokio::time::timeout(READ_WITHIN, changed_since(pool, from)).await;
    Ok(read.map_err(|_| RefreshError::Late)??)
}

impl Table {
    fn from_webhooks(webhooks: Vec<IngestWebhook>) -> Table {
        Table::from_index(
            webhooks
                .into_iter()
                .map(|webhook| (webhook.webhook_id, Arc::new(webhook)))
                .collect(),
        )
    }

    fn from_index(by_id: HashMap<Uuid, Arc<IngestWebhook>>) -> Table {
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

fn load_file(file: &Path) -> Option<Saved> {
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
fn store_file(file: &Path, saved: &Saved) -> std::io::Result<()> {
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
