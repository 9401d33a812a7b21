//! (to come)
pub mod page;
pub mod workspace;
