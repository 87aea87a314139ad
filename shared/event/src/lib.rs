//! The wire between the gateway and the worker: raw events, the envelopes that carry them, and the
//! closed sets of words (statuses, reasons) that every process uses.
//!
//! It does no IO and decides nothing about money. Rule numbers (X3, V12 …) are those of
//! `deploy/docs/RULES.md`.

#![warn(clippy::cognitive_complexity)]
#![cfg_attr(
    not(test),
    deny(clippy::float_arithmetic, clippy::arithmetic_side_effects)
)]

pub mod amount;
pub mod batch;
pub mod envelope;
pub mod ids;
pub mod json_scanner;
pub mod limits;
pub mod raw_event;
pub mod reason;
mod stored_detail;
pub mod verdict;
