//! Slack, and only Slack: what is heard ([`socket`], [`http`]), what is said ([`Client`], [`send`]).
//!
//! Payloads are handed on as raw JSON, so that no odd field can make an alert vanish, and they are
//! acknowledged by whoever received them ([`Delivery::ack`]), after the commit. Every call says what
//! became of it: done, definitely not done, refused, or unclear ([`Error`]). This module knows
//! nothing of rules, the store or AWS.

mod client;
mod delivery;
mod directory;
mod error;
mod files;
mod find;
mod history;
pub mod http;
mod limits;
mod secret;
pub mod send;
pub mod socket;
mod wire;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use client::{Client, Identity, Metadata, Options, Post, Respond, Text};
pub use delivery::{Ack, Counters, Delivery, Payload};
pub use directory::{Channel, Group, User};
pub use error::Error;
pub use files::Upload;
pub use history::History;
pub use limits::Limited;
pub use secret::Secret;
