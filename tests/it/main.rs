//! One binary for all integration tests: linking heal takes seconds, so it is done once.
//!
//! Most are stories: a workspace, a fleet and the bot between them over real sockets, told once with
//! Socket Mode and once with HTTP. See [`story`].

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod architecture;
#[macro_use]
mod story;

mod binary;
mod browser;
mod catch_up;
mod crash;
mod doctor;
mod faults;
mod gates;
mod hearing;
mod kill;
mod late;
mod lost;
mod orders;
mod outage;
mod people;
mod postgres;
mod readme;
mod refused;
mod replicas;
mod runs;
mod sandbox;
mod senders;
mod trouble;
mod unheard;
mod way;
