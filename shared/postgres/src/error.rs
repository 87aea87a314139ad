//! What goes wrong with Postgres, sorted by what the caller can do about it.

use trueup_ops::tls;

use crate::stale_statements;

/// What went wrong with the database, sorted by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection: Postgres is down, full or out of reach. Nothing was done; come again later.
    #[error("Postgres is not reachable: {0}")]
    Unreachable(String),
    /// Postgres refused a statement.
    #[error("{}", describe_error(.0))]
    Statement(tokio_postgres::Error),
    /// Another transaction settled one of the same reports meanwhile: the same work passes when run again.
    #[error("another worker settled the same report meanwhile")]
    Raced,
    /// The transaction was given up on purpose, nothing was written; whoever began it says why.
    #[error("given up; nothing was written")]
    Abandoned,
    /// Somebody else holds a lock for too long; nothing was done.
    #[error("somebody holds a lock: {0}")]
    Locked(String),
    /// A row that our own code cannot have written.
    #[error("the books hold something this version does not understand: {0}")]
    Corrupt(String),
}

/// What Postgres said, without the values that it quotes.
pub fn describe_error(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        // Not the DETAIL: it quotes values, and a value may be a caller's number.
        Some(db) => format!("Postgres said {}: {}", db.code().code(), db.message()),
        None => error.to_string(),
    }
}

/// What to do about a server whose TLS is not what the URL asks for.
fn advise(error: &str) -> Option<String> {
    const NO_TLS: &str = "server does not support TLS";
    if error.contains(NO_TLS) {
        return Some(
            "switch TLS on there, or say sslmode=disable in TRUEUP_POSTGRES_URL if nobody is in between"
                .to_owned(),
        );
    }
    tls::advise(error, "TRUEUP_POSTGRES_CA_FILE")
}

impl StoreError {
    /// True if the connection is what failed, and not what was asked of it.
    pub fn is_unreachable(&self) -> bool {
        match self {
            StoreError::Unreachable(_) => true,
            StoreError::Statement(e) => match e.code() {
                None => e.is_closed() || e.to_string().contains("communicating with the server"),
                // Class 08 connection, 53 out of resources, 57P0x shutting down, 25006 read-only (a
                // demoted primary), 58 trouble with its files.
                Some(code) => {
                    let code = code.code();
                    ["08", "53", "57P", "58"]
                        .iter()
                        .any(|class| code.starts_with(class))
                        || code == "25006"
                }
            },
            StoreError::Raced
            | StoreError::Abandoned
            | StoreError::Locked(_)
            | StoreError::Corrupt(_) => false,
        }
    }

    /// True if no report can be to blame: Postgres is out of reach, or its schema and rights are not
    /// those of this program (`migrate` has not run yet).
    pub fn is_environment_error(&self) -> bool {
        self.is_unreachable()
            || self.is_stale_statement()
            || matches!(self.sqlstate(), Some("42P01" | "42703" | "42501"))
    }

    /// True if a prepared statement has gone: a migration, or a pooler, under a session that goes on.
    pub fn is_stale_statement(&self) -> bool {
        matches!(self, StoreError::Statement(e) if stale_statements::is_stale(e))
    }

    /// True for a serialisation failure, a deadlock or a stale statement: the same transaction may pass when run again.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Raced)
            || self.is_stale_statement()
            || matches!(self.sqlstate(), Some("40001" | "40P01"))
    }

    /// True if somebody else holds a lock for too long: nobody's failure, to be tried again later (V12).
    pub fn is_busy(&self) -> bool {
        matches!(self, StoreError::Locked(_)) || self.sqlstate() == Some("55P03")
    }

    /// The SQLSTATE, if Postgres gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            StoreError::Statement(e) => e.code().map(|c| c.code()),
            _ => None,
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        if stale_statements::is_stale(&error) {
            stale_statements::report_stale();
        }
        StoreError::Statement(error)
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(e) if e.as_db_error().is_some() => {
                StoreError::Statement(e)
            }
            deadpool_postgres::PoolError::Backend(e) => {
                use std::error::Error;
                let cause = e.source().map(ToString::to_string).unwrap_or_default();
                let mut text = format!("{e} {cause}").trim().to_owned();
                if let Some(advice) = advise(&text) {
                    text = format!("{text}; {advice}");
                }
                StoreError::Unreachable(text)
            }
            other => StoreError::Unreachable(other.to_string()),
        }
    }
}
