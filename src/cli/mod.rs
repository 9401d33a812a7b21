//! What each `heal` command does, one file a command.

pub mod manifest;
