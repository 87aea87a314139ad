//! The spool: reports on this gateway's own disk while the broker is away.
//!
//! Many senders never send twice, so a door that only says 503 loses their reports for good. With a
//! directory given, a report that the broker does not take is written there, fsynced before its 200,
//! and goes to the broker when that is back, behind the new ones. It survives a kill: what was half
//! written is rolled back by the store, and what was sent but not yet removed is sent again, which does
//! no harm, for an event's id is unique in the books.
//!
//! The store (redb) is a crate's; here is only what goes in and out. It lives on a thread of its own,
//! because a disk may take its time.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};
use tokio::sync::{Notify, mpsc, oneshot};
use trueup_ops::health::Dependency;
use trueup_ops::metrics::{self, SpoolOperation};

use super::encoded_events::{EncodedEvents, PublishError};
use trueup_event::raw_event::EventPart;

const FILE: &str = "reports.redb";
/// Events in the order in which they were written.
const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
/// What a row costs besides its event (bytes), about.
const ROW: u64 = 32;
/// The store rounds large rows up to whole pages, keeps those of the last commit and doubles its file
/// as it grows: with rows of a third, the file stays within the setting (but for its first page).
const ROWS_SHARE: u64 = 3;
/// The store's own cache (bytes); its default would be a gigabyte.
const CACHE: usize = 8 * 1024 * 1024;
/// Requests that may wait for the disk.
const WAITING: usize = 4096;
/// What is written with one fsync at most.
const GROUP_EVENTS: usize = 2_000;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// What goes back to the broker in one message at most.
const BATCH_EVENTS: usize = 200;
const BATCH_BYTES: usize = 512 * 1024;
/// While another process (the one that is being replaced) still has the file.
const OPEN_WITHIN: Duration = Duration::from_secs(25);
const OPEN_AGAIN: Duration = Duration::from_millis(200);
/// After an error of the disk, before the next attempt.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

pub struct Spool {
    commands: mpsc::Sender<SpoolCommand>,
    counts: Arc<SpoolStats>,
}

#[derive(Default)]
struct SpoolStats {
    events: AtomicU64,
    bytes: AtomicU64,
    /// Rung when something was written.
    filled: Notify,
}

enum SpoolCommand {
    Append(
        Arc<EncodedEvents>,
        oneshot::Sender<Result<(), PublishError>>,
    ),
    Read(oneshot::Sender<Option<Batch>>),
    /// Everything up to this key is on the broker.
    Remove(u64, oneshot::Sender<bool>),
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// This user may not read and write there: give the rights, or another directory.
    #[error("{}: {source}", path.display())]
    NoAccess {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The store cannot use its file: it is damaged, or the disk is.
    #[error("{}: {source}", file.display())]
    Unusable { file: PathBuf, source: redb::Error },
    /// Another process has had it for all of [`OPEN_WITHIN`].
    #[error("{}: another gateway uses it; give each its own", .0.display())]
    InUse(PathBuf),
    #[error("no thread for the spool: {0}")]
    NoThread(std::io::Error),
}

impl SpoolError {
    fn no_access(path: &Path) -> impl FnOnce(std::io::Error) -> SpoolError {
        let path = path.to_owned();
        |source| SpoolError::NoAccess { path, source }
    }

    fn unusable(file: &Path) -> impl FnOnce(redb::Error) -> SpoolError {
        let file = file.to_owned();
        |source| SpoolError::Unusable { file, source }
    }
}

/// The oldest events of the spool.
pub struct Batch {
    pub events: Arc<EncodedEvents>,
    pub last: u64,
}

impl Spool {
    /// Opens the store, or says why it cannot be used; called before anything is started.
    pub async fn open_file(directory: &Path, max_bytes: u64) -> Result<OpenSpool, SpoolError> {
        std::fs::create_dir_all(directory).map_err(SpoolError::no_access(directory))?;
        let file = directory.join(FILE);
        keep_private(&file).map_err(SpoolError::no_access(&file))?;
        let since = Instant::now();
        let database = loop {
            match open_file(&file) {
                Ok(database) => break database,
                Err(DatabaseError::DatabaseAlreadyOpen) if since.elapsed() < OPEN_WITHIN => {
                    tokio::time::sleep(OPEN_AGAIN).await;
                }
                Err(DatabaseError::DatabaseAlreadyOpen) => {
                    return Err(SpoolError::InUse(directory.to_owned()));
                }
                Err(e) => return Err(SpoolError::unusable(&file)(e.into())),
            }
        };
        let (rows, bytes, next) = measure_file(&database).map_err(SpoolError::unusable(&file))?;
        Ok(OpenSpool {
            file,
            max_bytes,
            database,
            rows,
            bytes,
            next,
        })
    }

    /// On this disk, fsynced, when it is `Ok`.
    pub async fn append_group(&self, events: Arc<EncodedEvents>) -> Result<(), PublishError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .try_send(SpoolCommand::Append(events, reply))
            .map_err(|_| PublishError::Full)?;
        answer.await.unwrap_or(Err(PublishError::Away))
    }

    pub fn is_empty(&self) -> bool {
        self.counts.events.load(Ordering::Relaxed) == 0
    }

    pub async fn wait_non_empty(&self) {
        self.counts.filled.notified().await;
    }

    pub async fn oldest_batch(&self) -> Option<Batch> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(SpoolCommand::Read(reply)).await.ok()?;
        answer.await.ok().flatten()
    }

    /// True if they are off the disk.
    pub async fn remove_through(&self, last: u64) -> bool {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(SpoolCommand::Remove(last, reply))
            .await
            .is_ok()
            && answer.await.unwrap_or(false)
    }
}

/// Whole reports are in it, callers' numbers among them: for this user's eyes only.
fn keep_private(file: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(file)?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
}

fn open_file(file: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE).create(file)
}

/// Rows, their bytes, and the next free key.
fn measure_file(database: &Database) -> Result<(u64, u64, u64), redb::Error> {
    let writing = database.begin_write()?;
    // Made if it is not there, so that reading never finds nothing.
    writing.open_table(TABLE)?;
    writing.commit()?;
    let table = database.begin_read()?.open_table(TABLE)?;
    let next = table
        .last()?
        .map_or(0, |(key, _)| key.value().saturating_add(1));
    let rows = table.len()?;
    let bytes = table.stats()?.stored_bytes();
    Ok((rows, bytes.saturating_add(rows.saturating_mul(ROW)), next))
}

/// A store that can be used, not yet at work.
pub struct OpenSpool {
    file: PathBuf,
    max_bytes: u64,
    database: Database,
    rows: u64,
    bytes: u64,
    next: u64,
}

impl OpenSpool {
    pub fn start(self, health: Dependency) -> Result<Spool, SpoolError> {
        let counts = Arc::new(SpoolStats::default());
        let (commands, waiting) = mpsc::channel(WAITING);
        let keeper = SpoolThread {
            file: self.file,
            max_rows_bytes: self.max_bytes / ROWS_SHARE,
            database: Some(self.database),
            rows: self.rows,
            bytes: self.bytes,
            next: self.next,
            failed_at: None,
            counts: Arc::clone(&counts),
            health,
        };
        keeper.report_size();
        std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || keeper.run(waiting))
            .map_err(SpoolError::NoThread)?;
        Ok(Spool { commands, counts })
    }
}

/// The thread's own state.
struct SpoolThread {
    file: PathBuf,
    max_rows_bytes: u64,
    /// None after an error, until it could be opened again.
    database: Option<Database>,
    rows: u64,
    bytes: u64,
    next: u64,
    failed_at: Option<Instant>,
    counts: Arc<SpoolStats>,
    health: Dependency,
}

type Appending = (
    Arc<EncodedEvents>,
    oneshot::Sender<Result<(), PublishError>>,
);

impl SpoolThread {
    fn run(mut self, mut waiting: mpsc::Receiver<SpoolCommand>) {
        let mut left_over = None;
        while let Some(command) = left_over.take().or_else(|| waiting.blocking_recv()) {
            match command {
                SpoolCommand::Append(events, reply) => {
                    let (mut count, mut bytes) = (events.event_count(), events.amount.bytes);
                    let mut group = vec![(events, reply)];
                    while count < GROUP_EVENTS && bytes < GROUP_BYTES {
                        match waiting.try_recv() {
                            Ok(SpoolCommand::Append(events, reply)) => {
                                count += events.event_count();
                                bytes += events.amount.bytes;
                                group.push((events, reply));
                            }
                            Ok(other) => {
                                left_over = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append_group(group);
                }
                SpoolCommand::Read(reply) => {
                    let batch = self.attempt_on_file(oldest_batch).flatten();
                    self.report_size();
                    let _ = reply.send(batch);
                }
                SpoolCommand::Remove(last, reply) => {
                    let removed = self.remove_through(last);
                    self.report_size();
                    let _ = reply.send(removed);
                }
            }
        }
    }

    fn append_group(&mut self, group: Vec<Appending>) {
        let figures = &metrics::gateway().spooled;
        let mut accepted: Vec<Appending> = Vec::with_capacity(group.len());
        let mut bytes = 0_u64;
        for (events, reply) in group {
            // A part is a row, however many elements of a batch it holds.
            let size = events.amount.bytes as u64 + events.parts.len() as u64 * ROW;
            if self.bytes + bytes + size > self.max_rows_bytes {
                figures.add(SpoolOperation::Full, events.event_count());
                let _ = reply.send(Err(PublishError::Full));
            } else {
                bytes += size;
                accepted.push((events, reply));
            }
        }
        let first = self.next;
        let parts = || accepted.iter().flat_map(|(events, _)| events.parts.iter());
        let count = parts().count() as u64;
        let written = self.attempt_on_file(|database| write_rows(database, first, parts()));
        if written.is_some() {
            self.next = first + count;
            self.rows += count;
            self.bytes += bytes;
        }
        // The figures first: who has its answer finds them true.
        self.report_size();
        for (events, reply) in accepted {
            let label = if written.is_some() {
                SpoolOperation::Written
            } else {
                SpoolOperation::Failed
            };
            figures.add(label, events.event_count());
            let _ = reply.send(written.ok_or(PublishError::Away));
        }
        if written.is_some() {
            self.counts.filled.notify_one();
        }
    }

    fn remove_through(&mut self, last: u64) -> bool {
        let Some((rows, bytes)) = self.attempt_on_file(|database| erase_rows(database, last))
        else {
            return false;
        };
        metrics::gateway()
            .spooled
            .add(SpoolOperation::Drained, rows);
        self.rows = self.rows.saturating_sub(rows);
        self.bytes = if self.rows == 0 {
            0
        } else {
            self.bytes.saturating_sub(bytes + rows * ROW)
        };
        if self.rows == 0
            && let Some(database) = &mut self.database
        {
            // Gives the disk its room back; if it cannot, the pages are used again.
            let _ = database.compact();
        }
        true
    }

    /// Does something with the store; after an error it is opened anew, not more than once a second.
    fn attempt_on_file<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Option<T> {
        if self.database.is_none() && self.failed_at.is_none_or(|at| at.elapsed() >= FAILED_PAUSE) {
            self.failed_at = Some(Instant::now());
            if let Ok(database) = open_file(&self.file)
                && let Ok((rows, bytes, next)) = measure_file(&database)
            {
                // A key is never given twice: what is sent and waits to be removed goes by its key.
                (self.rows, self.bytes, self.next) = (rows, bytes, next.max(self.next));
                self.database = Some(database);
            }
        }
        match work(self.database.as_ref()?) {
            Ok(done) => Some(done),
            Err(e) => {
                tracing::error!(error = %e, "the spool failed");
                self.failed_at = Some(Instant::now());
                self.database = None;
                None
            }
        }
    }

    fn report_size(&self) {
        self.counts.events.store(self.rows, Ordering::Relaxed);
        self.counts.bytes.store(self.bytes, Ordering::Relaxed);
        let figures = metrics::gateway();
        figures.spool_events.set(self.rows);
        figures.spool_bytes.set(self.bytes);
        match (&self.database, self.rows) {
            (None, _) => self
                .health
                .set_degraded("the disk failed; without the broker, reports are answered 503"),
            (Some(_), 0) => self.health.ok(),
            (Some(_), _) => self
                .health
                .set_degraded("reports wait on this disk for the broker"),
        }
    }
}

fn write_rows<'a>(
    database: &Database,
    first: u64,
    parts: impl Iterator<Item = &'a EventPart>,
) -> Result<(), redb::Error> {
    // Durability::Immediate is the default: commit returns after the fsync.
    let writing = database.begin_write()?;
    {
        let mut table = writing.open_table(TABLE)?;
        for (key, part) in (first..).zip(parts) {
            table.insert(key, part.bytes.as_slice())?;
        }
    }
    writing.commit()?;
    Ok(())
}

fn oldest_batch(database: &Database) -> Result<Option<Batch>, redb::Error> {
    let table = database.begin_read()?.open_table(TABLE)?;
    let (mut parts, mut bytes, mut last) = (Vec::new(), 0, None);
    for row in table.iter()? {
        let (key, part) = row?;
        bytes += part.value().len();
        parts.push(part.value().to_vec());
        last = Some(key.value());
        if parts.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES {
            break;
        }
    }
    Ok(last.map(|last| Batch {
        events: EncodedEvents::from_parts(parts),
        last,
    }))
}

/// How many rows went, and their bytes.
fn erase_rows(database: &Database, last: u64) -> Result<(u64, u64), redb::Error> {
    let writing = database.begin_write()?;
    let (mut rows, mut bytes) = (0, 0);
    {
        let mut table = writing.open_table(TABLE)?;
        while table.first()?.is_some_and(|(key, _)| key.value() <= last) {
            if let Some((_, part)) = table.pop_first()? {
                rows += 1;
                bytes += part.value().len() as u64;
            }
        }
    }
    writing.commit()?;
    Ok((rows, bytes))
}

#[cfg(test)]
mod tests {
    use trueup_ops::health::Readiness;
    use trueup_ops::metrics::DependencyName;

    use super::*;

    fn events(n: usize, size: usize) -> Arc<EncodedEvents> {
        EncodedEvents::from_parts(
            (0..n)
                .map(|at| vec![u8::try_from(at % 251).expect("small"); size])
                .collect(),
        )
    }

    async fn start(directory: &Path, max: u64) -> Spool {
        let health = Readiness::new("test").add_dependency(DependencyName::Spool);
        Spool::open_file(directory, max)
            .await
            .expect("opens")
            .start(health)
            .expect("starts")
    }

    #[tokio::test]
    async fn what_was_taken_is_there_after_a_restart_in_its_order_until_it_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = start(directory.path(), 64 << 20).await;
        spool.append_group(events(300, 100)).await.expect("taken");
        spool.append_group(events(1, 7)).await.expect("taken");
        let batch = spool.oldest_batch().await.expect("some");
        assert_eq!(batch.events.parts.len(), BATCH_EVENTS);
        drop(spool);

        let spool = start(directory.path(), 64 << 20).await;
        let mut found = Vec::new();
        while let Some(batch) = spool.oldest_batch().await {
            found.extend(batch.events.parts.clone());
            assert!(spool.remove_through(batch.last).await);
        }
        let mut expected = events(300, 100).parts.clone();
        expected.extend(events(1, 7).parts.clone());
        assert_eq!(found, expected);
        assert!(spool.is_empty());
        assert_eq!(spool.counts.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn it_is_bounded_and_its_file_too_and_it_can_be_filled_again() {
        const MAX: u64 = 8 << 20;
        let directory = tempfile::tempdir().expect("a directory");
        let spool = start(directory.path(), MAX).await;
        for _round in 0..3 {
            let mut taken = 0;
            while spool.append_group(events(50, 1000)).await.is_ok() {
                taken += 50;
            }
            assert!(taken * 1000 > MAX / 4, "{taken}");
            let length = std::fs::metadata(directory.path().join(FILE))
                .expect("a file")
                .len();
            assert!(length <= MAX + 4096, "{length} bytes");
            let mut drained = 0;
            while let Some(batch) = spool.oldest_batch().await {
                drained += batch.events.event_count() as u64;
                assert!(spool.remove_through(batch.last).await);
            }
            assert_eq!(drained, taken);
        }
        let length = std::fs::metadata(directory.path().join(FILE))
            .expect("a file")
            .len();
        assert!(length <= MAX / 2, "{length} bytes when empty");
    }
    /// A part of as many elements as a batch may have.
    fn batch() -> Arc<EncodedEvents> {
        Arc::new(EncodedEvents::of_account(uuid::Uuid::nil(), 500))
    }

    #[tokio::test]
    async fn what_batches_took_of_its_room_they_give_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = start(directory.path(), 1 << 20).await;
        spool.append_group(batch()).await.expect("taken");
        spool.append_group(events(1, 7)).await.expect("taken");
        assert!(spool.remove_through(0).await, "the batch is one row");
        let left = spool.counts.bytes.load(Ordering::Relaxed);
        assert_eq!(left, 7 + ROW);
    }
}
