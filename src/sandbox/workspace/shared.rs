//! What all tasks of a workspace share: the state behind one lock, the wire to the bot, and the
//! signal that something changed.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::options::Options;
use super::socket::Connection;
use super::view::View;
use crate::sandbox::{Cut, Step};

/// The shared part of a workspace.
pub(super) struct Shared {
    pub options: Arc<Options>,
    pub address: String,
    view: Mutex<View>,
    wire: Mutex<Wire>,
    changed: watch::Sender<u64>,
    pub stopped: watch::Sender<bool>,
    /// Connections are refused until then.
    pub refusing_until: Mutex<Option<Instant>>,
    pub sequence: AtomicU64,
    pub http: Client<HttpConnector, Full<Bytes>>,
}

/// Open sockets and the envelopes whose acknowledgement is awaited.
#[derive(Default)]
pub(super) struct Wire {
    pub connections: Vec<Connection>,
    /// The connection the next envelope goes to.
    pub turn: usize,
    pub awaited: HashMap<String, oneshot::Sender<Value>>,
}

/// A condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("what was awaited in the workspace did not happen within {0:?}")]
pub struct WaitError(pub Duration);

impl Shared {
    pub fn new(options: Options, address: String) -> Self {
        let options = Arc::new(options);
        Shared {
            view: Mutex::new(View::new(options.clone(), address.clone())),
            options,
            address,
            wire: Mutex::default(),
            changed: watch::Sender::new(0),
            stopped: watch::Sender::new(false),
            refusing_until: Mutex::new(None),
            sequence: AtomicU64::new(1),
            http: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub fn stop(&self) {
        self.stopped.send_replace(true);
        self.wire().connections.clear();
    }

    /// Resolves when the workspace stops.
    pub async fn until_stopped(&self) {
        let mut stopped = self.stopped.subscribe();
        // An error means that the sender is gone, which cannot be: it lives in `self`.
        let _ = stopped.wait_for(|s| *s).await;
    }

    /// Resolves when a test ends the bot of that life.
    pub async fn until_end_of(&self, life: u64) {
        match &self.options.cut {
            Some(cut) => cut.end_of(life).await,
            None => std::future::pending().await,
        }
    }

    pub fn life(&self) -> u64 {
        self.options.cut.as_ref().map_or(0, Cut::life)
    }

    pub fn has_ended(&self) -> bool {
        self.options.cut.as_ref().is_some_and(Cut::has_ended)
    }

    /// A step of the bot begins; an error when it must not take effect.
    pub fn begin(&self, what: &str) -> io::Result<Option<Step>> {
        self.options.cut.as_ref().map(|cut| cut.begin(what)).transpose().map_err(io::Error::other)
    }

    /// It has taken effect; an error when nobody is to be told.
    pub fn finish(&self, step: Option<Step>) -> io::Result<()> {
        let (Some(cut), Some(step)) = (&self.options.cut, step) else { return Ok(()) };
        cut.finish(step).map_err(io::Error::other)
    }

    pub fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads the state.
    pub fn read<R>(&self, f: impl FnOnce(&View) -> R) -> R {
        f(&self.lock())
    }

    /// Changes the state, sends the bot the events owed by that, and wakes who waits.
    pub fn update<R>(self: &Arc<Self>, f: impl FnOnce(&mut View) -> R) -> R {
        let mut view = self.lock();
        let result = f(&mut view);
        // Sent under the lock, so that events leave in the order of the changes.
        for event in std::mem::take(&mut view.outgoing) {
            self.send_event(&mut view, event);
        }
        drop(view);
        self.changed.send_modify(|n| *n += 1);
        result
    }

    pub fn lock(&self) -> MutexGuard<'_, View> {
        // A panic in a test's predicate must not take the workspace down with it.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Awaits a condition over the state.
    pub async fn wait_for<T>(
        &self,
        bound: Duration,
        mut condition: impl FnMut(&View) -> Option<T>,
    ) -> Result<T, WaitError> {
        let mut changes = self.changes();
        let look = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = self.read(&mut condition) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(bound, look).await.ok().flatten().ok_or(WaitError(bound))
    }
}
