//! What Slack delivered, and the acknowledgement that is owed for it.
//!
//! An [`Ack`] is done by whoever put the delivery on disk, and not before. One that is dropped
//! acknowledges nothing: Slack delivers again, which is what should happen when the commit failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use crate::text::{clip, redact};

/// One payload, the same by Socket Mode and by HTTP.
#[derive(Debug)]
pub struct Delivery {
    pub payload: Payload,
    /// The payload's JSON as text, for keeping it without writing it anew.
    pub raw: Box<str>,
    /// Socket Mode's envelope id; empty by HTTP. Not unique: a redelivery may have the same one.
    pub envelope_id: String,
    /// 0 for the first try.
    pub retry_attempt: u32,
    pub received: Instant,
    pub ack: Ack,
}

/// What kind of payload it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// The whole `event_callback` envelope: `event_id`, `team_id`, `event`, …
    Event(Value),
    /// `block_actions`, `view_submission`, …
    Interaction(Value),
    /// A slash command: `command`, `text`, `user_id`, `channel_id`, `response_url`, `trigger_id`, …
    Command(Value),
}

/// What has been seen, for metrics. Shared by both ways of delivery.
#[derive(Debug, Default)]
pub struct Counters {
    /// Payloads handed over.
    pub delivered: AtomicU64,
    /// Of them, those that Slack had sent before.
    pub redelivered: AtomicU64,
    /// Frames and bodies that could not be read, or lack what they must have.
    pub malformed: AtomicU64,
    /// Envelopes of a type that heal does not know.
    pub unknown: AtomicU64,
    /// Frames and bodies over the size limit.
    pub oversized: AtomicU64,
    /// HTTP requests without a valid, fresh signature.
    pub forged: AtomicU64,
    /// Acknowledgements sent.
    pub acknowledged: AtomicU64,
    /// Deliveries dropped without an acknowledgement, or whose connection was gone by then.
    pub unacknowledged: AtomicU64,
    /// Connections that said hello.
    pub connects: AtomicU64,
    /// Connections that broke or fell silent.
    pub breaks: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The acknowledgement of one delivery, sent on the connection it came by.
#[derive(Debug)]
pub struct Ack {
    /// None once it was done.
    way: Option<Way>,
    counters: Arc<Counters>,
    /// Whose room it takes until it is done or dropped.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Way {
    Socket { envelope_id: String, acks: mpsc::UnboundedSender<Settled> },
    Http(oneshot::Sender<Option<Value>>),
}

/// What became of a delivery, told to the connection it came by.
#[derive(Debug)]
pub(crate) enum Settled {
    Done { envelope_id: String, payload: Option<Value> },
    Dropped,
}

impl Ack {
    pub(crate) fn socket(
        envelope_id: String,
        acks: mpsc::UnboundedSender<Settled>,
        counters: Arc<Counters>,
    ) -> Ack {
        Ack { way: Some(Way::Socket { envelope_id, acks }), counters, _place: None }
    }

    pub(crate) fn http(counters: Arc<Counters>) -> (Ack, oneshot::Receiver<Option<Value>>) {
        let (way, answer) = oneshot::channel();
        (Ack { way: Some(Way::Http(way)), counters, _place: None }, answer)
    }

    /// Gives a place back once this is done or dropped, so that only so many are in hand.
    pub(crate) fn holding(&mut self, place: Option<OwnedSemaphorePermit>) {
        self._place = place;
    }

    /// Acknowledges, with an answer for the person where the payload takes one (a slash command).
    /// False when the connection is gone; Slack will then deliver again.
    pub fn done(mut self, answer: Option<Value>) -> bool {
        let sent = match self.way.take() {
            Some(Way::Socket { envelope_id, acks }) => {
                acks.send(Settled::Done { envelope_id, payload: answer }).is_ok()
            }
            Some(Way::Http(way)) => way.send(answer).is_ok(),
            None => false,
        };
        Counters::add(if sent { &self.counters.acknowledged } else { &self.counters.unacknowledged });
        sent
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        let Some(way) = self.way.take() else { return };
        Counters::add(&self.counters.unacknowledged);
        let envelope = match &way {
            Way::Socket { envelope_id, acks } => {
                // The connection may be gone; then nobody counts what is outstanding.
                let _ = acks.send(Settled::Dropped);
                envelope_id.as_str()
            }
            Way::Http(_) => "by http",
        };
        tracing::warn!(envelope, "a delivery was not acknowledged; Slack will deliver it again");
    }
}

/// A bounded piece of a payload for the log, without what would let its reader act in its place.
pub(crate) fn excerpt(text: &str) -> String {
    let head = clip(text, 200);
    let head = head.split("response_url").next().unwrap_or_default();
    redact(head)
}
