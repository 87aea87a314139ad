//! The worker on real services: scenarios of the rules, outages, two at once, kills.

mod backup;
mod bulk_replay;
mod commands;
mod crash;
mod exactly_once;
mod floods;
mod gateway_manual_actions;
mod gateway_sequences;
mod harness;
mod manual_actions;
mod money;
mod order;
mod outages;
mod poison;
mod running_system;
mod scenarios;
mod sequences;
mod sequences_of_manual_actions;
mod starts;
mod tls;
mod upgrade;
