//! Prepared statements that are gone, or no longer fit their tables, under a session that goes on: a migration did
//! it, or a pooler in between. Every pool forgets its statements before it lends a session again.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_postgres::error::SqlState;

/// How often a statement was found to be stale, in this process.
static STALE: AtomicU64 = AtomicU64::new(0);

/// "Cached plan must not change result type", or "prepared statement does not exist".
pub fn is_stale(error: &tokio_postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::FEATURE_NOT_SUPPORTED | &SqlState::INVALID_SQL_STATEMENT_NAME)
    )
}

pub fn report_stale() {
    STALE.fetch_add(1, Ordering::AcqRel);
}

/// What one pool has heeded of the reports.
#[derive(Debug, Default)]
pub struct HeededReports(AtomicU64);

impl HeededReports {
    /// True once after each time that something was reported.
    pub fn take_news(&self) -> bool {
        let reported = STALE.load(Ordering::Acquire);
        self.0.swap(reported, Ordering::AcqRel) != reported
    }
}
