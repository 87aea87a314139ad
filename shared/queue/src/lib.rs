//! The broker, as Trueup uses it: where events wait, how they are written, how a connection is kept.
//!
//! A publisher and a consumer each have a connection of their own: the broker blocks the connections
//! that publish when it is short of memory, and a consumer must go on emptying it then.
//!
//! * [`topology`]: exchanges, queues, dead letters, with their arguments; [`topology::declare_topology`].
//! * [`connection`]: one connection, whether it lives and whether it is blocked.

#![warn(clippy::cognitive_complexity)]

pub mod connection;
pub mod topology;

/// What went wrong with the broker, sorted by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No connection: the broker is down, full or out of reach. Come again later.
    #[error("the broker is not reachable: {0}")]
    Unreachable(String),
    /// The broker refused what was asked.
    #[error("the broker refused to {what}: {source}")]
    Refused { what: String, source: lapin::Error },
    /// The broker did not answer in time.
    #[error("the broker did not answer within {0:?}")]
    TimedOut(std::time::Duration),
}

impl QueueError {
    /// For `map_err`: `channel.basic_qos(…).await.map_err(QueueError::doing("set the prefetch"))`.
    pub fn while_doing(what: impl Into<String>) -> impl FnOnce(lapin::Error) -> QueueError {
        move |source| QueueError::Refused {
            what: what.into(),
            source,
        }
    }

    /// The broker's own code (404, 406 …), if it gave one.
    pub fn code(&self) -> Option<u16> {
        match self {
            QueueError::Refused { source, .. } => code_of(source),
            QueueError::Unreachable(_) | QueueError::TimedOut(_) => None,
        }
    }
}

fn code_of(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}
