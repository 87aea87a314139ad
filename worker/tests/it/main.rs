//! The worker on real services: scenarios of the rules, outages, two at once, kills.

mod backup;
mod crash;
mod house;
mod money;
mod order;
mod outages;
mod persons;
mod poison;
mod scenarios;
mod settling;
mod starts;
mod world;
