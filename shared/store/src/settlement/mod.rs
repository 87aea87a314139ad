//! What settling a batch asks of Postgres: the calls that may be meant, the rows and the locks, the
//! writes. It decides nothing; `trueup-settlement` says when and in what order.

pub mod attempts;
pub mod candidates;
pub(crate) mod columns;
pub mod loading;
pub mod manual_actions;
pub mod pending_reports;
pub(crate) mod pipelined_writes;
pub mod posting;
pub mod postings;
pub mod stored_events;
pub mod writes;

use std::collections::BTreeMap;

use uuid::Uuid;

/// Balance changes by publisher, in id order: the order in which everybody locks them.
pub type Balances = BTreeMap<Uuid, i64>;
