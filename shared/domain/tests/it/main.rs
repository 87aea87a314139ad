//! The one integration-test binary of this crate; each module is a topic.

mod books_from_rows;
mod fold_properties;
mod fuzz_seeds;
mod guesses_and_money;
mod invariants;
mod model;
mod one_report_one_call;
mod reading;
mod shrinking;
mod simulated_persons;
mod simulation;
mod simulation_runs;
mod stored_details;
mod stories;
mod words_of_persons;
