//! `heal.yaml`: read with places and hints like the rules, checked whole before anything starts.

mod files;
mod load;
mod postgres;
mod read;
mod senders;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::alert::Sender;

pub use files::read_rules;
pub use load::{Loaded, agree, load};
pub use postgres::{Postgres, Trust};
pub use read::{check_store, parse};

/// How Slack reaches the bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Socket,
    Http,
}

#[derive(Clone, Debug)]
pub struct Slack {
    pub mode: Mode,
    /// Names (`#alerts`, kept with the `#`) or ids, as written.
    pub channels: Vec<String>,
    /// Socket Mode connections, 1 to 10 (Slack's limit); default 2.
    pub connections: u32,
}

#[derive(Clone, Debug)]
pub struct Aws {
    pub region: Option<String>,
    /// The tag of managed nodes that holds their role.
    pub role_tag: Option<String>,
    /// Where each run of a shell rule makes its folder on the host; an absolute path.
    pub fence_dir: String,
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Alerts older than this when they are read are held.
    pub max_age: Duration,
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub path: PathBuf,
    pub slack: Slack,
    pub senders: Vec<Arc<Sender>>,
    /// User ids and `@handles`.
    pub approvers: Vec<String>,
    /// Hold and pause are for everybody; they only ever make it safer.
    pub open_pause: bool,
    pub aws: Aws,
    /// The rules directory, relative to the working directory.
    pub rules: PathBuf,
    /// `sqlite:heal.db`, `sqlite:///absolute/path.db`, `postgres://…`.
    pub store: String,
    /// How long what is over stays in the store, from 1 day on; default 400 days.
    pub retention: Duration,
    /// Address of health, metrics and Slack's requests; default 127.0.0.1:8080.
    pub listen: std::net::SocketAddr,
    pub defaults: crate::rule::Defaults,
    pub limits: Limits,
}

#[cfg(test)]
mod tests;
