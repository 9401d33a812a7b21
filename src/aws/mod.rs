//! SSM as heal uses it: send once, watch many with one poll, know the managed nodes.
//!
//! `SendCommand` has no idempotency token, so the client that sends never retries by itself, and an
//! answer that was lost is looked up by the run's id in the Comment before anything is said. Look-ups
//! are retried by the SDK; the poll is not, for it comes round again and slows down as a whole when SSM
//! throttles it. Nothing is asked of the network or the credentials before the first call.

mod ask;
mod check;
mod client;
mod fault;
mod list;
mod node;
mod send;
mod status;
mod targets;
#[cfg(test)]
mod tests;
mod watch;

pub use check::{Finding, check, nodes_tagged};
pub use client::Ssm;
pub use send::{Copy, Sent};
pub use targets::Targets;
pub use watch::{Kind, Pace, Seen, Sight, Watched};
