//! heal reads alert messages in Slack, declares in the alert's thread what it will do, does it
//! through AWS Systems Manager once it may, and reports back in the thread.
//!
//! The core is pure: no tokio, database, AWS, network, clock or randomness. The shell is thin.
//! Dependencies run one way, in the order of this list; `tests/it/architecture.rs` holds it to that.

// The core.
pub mod alert;
pub mod gate;
pub mod lifecycle;
pub mod message;
pub mod plan;
pub mod rule;
pub mod text;
pub mod time;

// The shell.
pub mod app;
pub mod aws;
pub mod cli;
pub mod config;
pub mod engine;
pub mod sandbox;
pub mod slack;
pub mod store;
pub mod web;
