//! (to come)
pub mod fleet;
