//! Requests as senders send them, and what a right reader takes from each (X1 to X9).
//!
//! `postbacks.jsonl` holds shapes seen in the field, `cases.jsonl` the rules' own corners. An `expect`
//! is whole: what it does not name must not be read.

mod places;
mod properties;
mod shapes;
mod table;
