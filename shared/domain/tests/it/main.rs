//! The one integration-test binary of this crate; each module is a topic.

mod fold_properties;
mod fuzz_seeds;
mod guesses_and_money;
mod invariants;
mod ledger_from_rows;
mod manual_assignments;
mod model;
mod one_report_one_call;
mod reading;
mod shrinking;
mod simulated_operators;
mod simulation;
mod simulation_runs;
mod stored_details;
mod stories;
