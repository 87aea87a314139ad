//! The worker on real services: scenarios of the rules, outages, two at once, kills.

mod backup;
mod bulk_replay;
mod commands;
mod crash;
mod exactly_once;
mod floods;
mod harness;
mod house;
mod manual_actions;
mod money;
mod order;
mod outages;
mod poison;
mod public_door;
mod public_door_persons;
mod scenarios;
mod sequences;
mod sequences_of_persons;
mod starts;
mod tls;
mod upgrade;
