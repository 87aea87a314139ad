//! How old the oldest report is that has no row yet, told by the gateways: they live when no worker does,
//! and they alone know what was answered 200 (ADR 0032).
//!
//! One report in a second is remembered, and Postgres is asked again and again which of them have a row.
//! It counts nothing in the database, never touches the queue and keeps a bounded number of ids. When
//! Postgres is away no row can be made, so the age goes on growing: that is the truth.

mod query;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trueup_ops::metrics;
use trueup_postgres::Pool;
use uuid::Uuid;

/// Between two questions to Postgres.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// An answer that takes longer is as good as none: the next question asks the same.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);
/// Of the reports of one such span one is remembered.
const ONE_IN: Duration = Duration::from_secs(1);
/// Reports remembered. Are there more, every second one of the later is forgotten: the oldest stays, and
/// hours of standstill fit in.
const REMEMBERED: usize = 512;

#[derive(Debug, Clone, Copy)]
struct RememberedReport {
    id: Uuid,
    /// Of a clock that nobody sets.
    accepted_at: Instant,
}

#[derive(Debug, Default)]
pub struct UnsettledReports(Mutex<RememberedReports>);

#[derive(Debug, Default)]
struct RememberedReports {
    /// In order of their acceptance.
    reports: Vec<RememberedReport>,
    /// When the last was remembered, whether it has a row by now or not.
    newest: Option<Instant>,
}

impl UnsettledReports {
    /// A report was answered 200.
    pub fn record_accepted(&self, id: Uuid, now: Instant) {
        let mut known = self.0.lock();
        if known
            .newest
            .is_some_and(|newest| now.saturating_duration_since(newest) < ONE_IN)
        {
            return;
        }
        known.newest = Some(now);
        known.reports.push(RememberedReport {
            id,
            accepted_at: now,
        });
        if known.reports.len() > REMEMBERED {
            let mut place = 0_usize;
            known.reports.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
    }

    fn oldest_age(&self, now: Instant) -> Duration {
        let known = self.0.lock();
        known.reports.first().map_or(Duration::ZERO, |oldest| {
            now.saturating_duration_since(oldest.accepted_at)
        })
    }

    fn ids(&self) -> Vec<Uuid> {
        self.0.lock().reports.iter().map(|known| known.id).collect()
    }

    /// Of those that were asked about, these have no row. What came meanwhile stays.
    fn forget_settled(&self, asked: &[Uuid], unsettled: &[Uuid]) {
        let reports = &mut self.0.lock().reports;
        reports.retain(|known| unsettled.contains(&known.id) || !asked.contains(&known.id));
    }

    /// Asks and tells, until the end.
    pub async fn watch(self: Arc<Self>, pool: Pool, end: CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            let asked = self.ids();
            if !asked.is_empty() {
                match tokio::time::timeout(ANSWERED_WITHIN, query::unsettled_of(&pool, &asked))
                    .await
                {
                    Ok(Ok(unsettled)) => self.forget_settled(&asked, &unsettled),
                    // The snapshot's own reads tell what is wrong with Postgres, once.
                    Ok(Err(error)) => tracing::debug!(%error, "unsettled reports are not known"),
                    Err(_) => tracing::debug!("Postgres did not say in time what is unsettled"),
                }
            }
            let age = self.oldest_age(Instant::now()).as_secs();
            metrics::gateway().oldest_unsettled.set(age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_stays_remembered_and_their_number_is_bounded() {
        let reports = UnsettledReports::default();
        let began = Instant::now();
        let hours = 4 * 3_600_u64;
        let mut first = None;
        for second in 0..hours {
            let id = Uuid::new_v4();
            first.get_or_insert(id);
            reports.record_accepted(id, began + Duration::from_secs(second));
            reports.record_accepted(Uuid::new_v4(), began + Duration::from_secs(second));
        }
        let ids = reports.ids();
        assert!(ids.len() <= REMEMBERED && ids.first().copied() == first);
        let now = began + Duration::from_secs(hours);
        assert_eq!(reports.oldest_age(now).as_secs(), hours);
        reports.forget_settled(&ids, &ids[1..]);
        assert_eq!(reports.ids(), &ids[1..]);
        let late = Uuid::new_v4();
        reports.record_accepted(late, now);
        reports.forget_settled(&ids, &[]);
        assert_eq!(reports.ids(), [late], "nobody asked about it");
    }
}
