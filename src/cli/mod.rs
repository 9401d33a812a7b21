//! What each `heal` command does, one file a command.

pub mod check;
pub mod manifest;
