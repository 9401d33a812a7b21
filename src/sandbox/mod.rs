//! The emulators that `heal sandbox` and the tests run the unchanged bot against: a Slack-like
//! workspace, an SSM-like fleet, a monitor that watches it, and the page to watch and play in; and a
//! real PostgreSQL for tests.

mod cut;
pub mod fleet;
pub mod monitor;
pub mod page;
pub mod postgres;
pub mod workspace;

pub use cut::{Cut, Ended, Moment, Step};
