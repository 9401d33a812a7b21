//! A Slack-like workspace on loopback: strict, stateful, and honest about Slack's quirks.
//!
//! The unchanged bot talks to it through `SLACK_API_URL`; tests and the sandbox's page act as the
//! people and the monitoring in it. What it does not know it refuses, so that a message it takes is
//! one Slack takes. One lock guards the state; whatever changes it wakes who waits for a condition.

mod api;
mod blocks;
mod control;
mod deliver;
mod elements;
mod fault;
mod interact;
mod limit;
mod message;
mod options;
mod posting;
mod server;
mod shared;
mod socket;
mod stored;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use anyhow::Context;

pub use blocks::validate_blocks;
pub use fault::Fault;
pub use interact::{Answer, ClickError};
pub use message::{Ephemeral, Message};
pub use options::{Bot, Channel, Delivery, Group, Options, SCOPES, Sender, User};
pub use posting::{Author, Posting};
pub use shared::WaitError;
pub use view::{Call, DeliveryRecord, File, View};

use shared::Shared;

/// A running workspace. Clones are the same one; it stops when the last is dropped.
#[derive(Clone)]
pub struct Workspace {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

/// Stops the server when the last clone goes.
struct Running {
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop();
        self.accepting.abort();
    }
}

impl Workspace {
    /// Binds 127.0.0.1 and begins to serve. Must be called inside a tokio runtime. Fails when the
    /// port is taken.
    pub fn start(options: Options) -> anyhow::Result<Workspace> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", options.port))
            .with_context(|| format!("the workspace cannot listen on 127.0.0.1:{}", options.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared::new(options, address));
        let accepting = tokio::spawn(server::accept(shared.clone(), listener));
        let running = Arc::new(Running { shared: shared.clone(), accepting });
        Ok(Workspace { shared, running })
    }

    /// What the bot's `SLACK_API_URL` is to be: `http://127.0.0.1:PORT/api`.
    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.shared.address)
    }

    /// Stops serving and closes every connection. Its state can still be read.
    pub fn stop(&self) {
        self.shared.stop();
        self.running.accepting.abort();
    }
}
