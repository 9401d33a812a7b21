//! Socket Mode: several connections, each replaced before it goes, and every trouble said out loud.
//!
//! Slack hands a payload to any one of the open connections, so two of them bridge a reconnect. A
//! connection that Slack announces to close serves on until its replacement has said hello. One that
//! drops is opened again at once, and then with jitter at least every two seconds for some minutes: nobody
//! hears alerts meanwhile. Only connections that come and go are opened ever more slowly. A bad token or
//! a disabled Socket Mode is a person's business and is retried slowly. (docs.slack.dev, Using Socket Mode.)

mod connection;
mod frame;
mod line;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Client, Counters, Delivery, Secret};

/// How the connections behave. The defaults are for Slack itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// 1 to 10, Slack's limit for an app.
    pub connections: u32,
    pub ping_every: Duration,
    /// A peer that says nothing (not even a pong) for so long is gone.
    pub silence_limit: Duration,
    /// From connecting to hello.
    pub hello_limit: Duration,
    /// The first and the longest wait between tries; each is drawn from zero to twice the last.
    pub backoff: (Duration, Duration),
    /// The longest wait while Slack has not been away for `eager_for` yet: so soon after it is back, so are we.
    pub eager: Duration,
    pub eager_for: Duration,
    /// Between tries when only a person can mend it: a bad token, Socket Mode switched off.
    pub slow_retry: Duration,
    /// A connection that lasted so long was a good one: the next starts without a wait.
    pub steady: Duration,
    /// How long a connection that goes waits for acknowledgements still due; Slack waits 3 s itself.
    pub ack_grace: Duration,
    /// In bytes.
    pub max_frame: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connections: 2,
            ping_every: Duration::from_secs(5),
            silence_limit: Duration::from_secs(12),
            hello_limit: Duration::from_secs(15),
            backoff: (Duration::from_millis(200), Duration::from_secs(30)),
            eager: Duration::from_millis(1800),
            eager_for: Duration::from_secs(600),
            slow_retry: Duration::from_secs(60),
            steady: Duration::from_secs(10),
            ack_grace: Duration::from_secs(3),
            max_frame: 4 << 20,
        }
    }
}

/// How it stands, for `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Connections that have said hello and are open.
    pub connected: u32,
    pub wanted: u32,
    /// What is wrong, with a hint; None since the last hello.
    pub problem: Option<String>,
    /// How often something may have been lost on its way for good: the last open connection went, or one
    /// broke to which Slack was still handing things. A count, because a watcher may miss a state between
    /// two others.
    pub gaps: u64,
}

/// What all lines share.
struct Shared {
    client: Client,
    app_token: Secret,
    options: Options,
    deliveries: mpsc::Sender<Delivery>,
    status: watch::Sender<Status>,
    counters: Arc<Counters>,
    ids: AtomicU64,
}

impl Shared {
    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn connected(&self) {
        Counters::add(&self.counters.connects);
        self.status.send_modify(|status| {
            status.connected += 1;
            status.problem = None;
        });
    }

    /// A connection that had said hello is over. `broken`: without a word between it and Slack.
    fn disconnected(&self, broken: bool) {
        self.status.send_modify(|status| {
            status.connected = status.connected.saturating_sub(1);
            if status.connected == 0 || broken {
                status.gaps += 1;
            }
        });
    }

    fn problem(&self, problem: String) {
        self.status.send_modify(|status| status.problem = Some(problem));
    }
}

/// Listens until `shutdown` says true (or its sender is gone), or nobody takes deliveries any more.
///
/// Every payload goes through `deliveries`; while that is full, reading stops and pings go on. On
/// shutdown nothing new is read, acknowledgements still due are sent, and the connections are closed.
pub async fn listen(
    client: Client,
    app_token: Secret,
    options: Options,
    deliveries: mpsc::Sender<Delivery>,
    status: watch::Sender<Status>,
    counters: Arc<Counters>,
    shutdown: watch::Receiver<bool>,
) {
    let wanted = options.connections.clamp(1, 10);
    status.send_modify(|status| *status = Status { wanted, ..Status::default() });
    let shared =
        Arc::new(Shared { client, app_token, options, deliveries, status, counters, ids: AtomicU64::new(1) });
    let mut lines = JoinSet::new();
    for _ in 0..wanted {
        lines.spawn(line::keep(Arc::clone(&shared), shutdown.clone()));
    }
    while let Some(ended) = lines.join_next().await {
        if let Err(error) = ended {
            // A defect must not leave the bot deaf: the line starts anew.
            tracing::error!(%error, "a line to Slack stopped by a defect; starting it again");
            lines.spawn(line::keep(Arc::clone(&shared), shutdown.clone()));
        }
    }
}
