//! The rules of the trade, as plain functions: what a report says, whose call it is, what it moves.
//!
//! Nothing in here does IO, reads a clock or draws a random number; the compiler checks it
//! (`cargo check -p trueup-shared --no-default-features`). Rule numbers (X7, M4, V3 …) are those of
//! `deploy/docs/RULES.md`.

#![cfg_attr(
    not(test),
    deny(clippy::float_arithmetic, clippy::arithmetic_side_effects)
)]

mod absent;
pub mod batch;
pub mod books;
pub mod crediting;
pub mod decide;
mod decimal;
pub mod duration;
pub mod event;
pub mod fields;
pub mod ids;
mod json;
pub mod limits;
pub mod matching;
pub mod money;
pub mod percent;
pub mod phone;
pub mod read;
pub mod reason;
pub mod recording;
pub mod region;
pub mod report;
pub mod sentence;
mod text;
pub mod webhook;
