//! (to come)
pub mod fleet;
pub mod monitor;
