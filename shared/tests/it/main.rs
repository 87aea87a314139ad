//! The one integration-test binary of this crate; each module is a topic.

mod books_properties;
mod dice;
mod house_rules;
mod model;
mod reading;
mod simulation;
mod topology;
