<<<<<<< HEAD
//! The commands, one file each.

pub mod check;
=======
//! What each `heal` command does, one file a command.

pub mod manifest;
>>>>>>> message
