//! The rules of the trade, as plain functions: what a report says, whose call it is, what it moves.
//!
//! Nothing in here does IO, reads a clock or draws a random number; the compiler checks it
//! (`trueup-domain` has no runtime and no driver among its dependencies). Rule numbers (X7, M4, V3 …) are those of
//! `deploy/docs/RULES.md`.

#![warn(clippy::cognitive_complexity)]
#![cfg_attr(
    not(test),
    deny(clippy::float_arithmetic, clippy::arithmetic_side_effects)
)]

pub mod batch_decision;
pub mod call_application;
pub mod call_record;
pub mod crediting;
mod decimal;
pub mod decision;
pub mod decision_input;
pub mod decision_outcome;
mod digits;
pub mod duration;
pub mod field_aliases;
pub mod locked_calls;
pub mod matching;
pub mod money;
pub mod percent;
pub mod phone;
mod placeholders;
pub mod reading;
pub mod reading_notes;
pub mod reason_text;
pub mod region;
pub mod repeats;
pub mod report;
mod text;
pub mod webhook_settings;
