//! One WebSocket: hands payloads over as they come, sends acknowledgements as they are done, pings, and
//! notices silence.
//!
//! One task does it all, and nothing in its loop waits for the receiver: while the queue is full it only
//! stops reading. So a slow commit never starves the pings or the other acknowledgements.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::frame::{self, Frame};
use crate::slack::delivery::{Settled, excerpt};
use crate::slack::{Ack, Counters, Delivery};
use crate::text::clip;

/// What the owner of a connection is told, in this order: at most one hello, at most one leaving.
#[derive(Debug)]
pub(super) enum Signal {
    Hello,
    /// Slack will close the connection soon; it still works.
    Leaving {
        reason: String,
    },
}

/// Why a connection is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// We were told to.
    Retired,
    /// Slack closed it, or said that it does not want it.
    Refused {
        reason: String,
    },
    Broken {
        why: String,
    },
    /// Nobody takes deliveries any more.
    Abandoned,
}

impl Ended {
    /// Slack may not have known for a while, and what it handed over meanwhile is lost.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Ended::Broken { .. })
    }
}

/// What the owner wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Serve,
    /// A replacement is up: read what Slack sent meanwhile, send what acknowledgements are due, close.
    Retire,
    /// Take nothing new, send what acknowledgements are due, close.
    Stop,
}

/// How long a replaced connection reads on: what is on its way is read here, not redelivered seconds later.
const LINGER: Duration = Duration::from_millis(200);

pub(super) struct Connection {
    pub id: u64,
    pub ping_every: Duration,
    pub silence_limit: Duration,
    pub ack_grace: Duration,
    pub deliveries: mpsc::Sender<Delivery>,
    pub counters: Arc<Counters>,
    pub signals: mpsc::UnboundedSender<Signal>,
    pub order: watch::Receiver<Order>,
}

#[derive(Serialize)]
struct AckFrame<'a> {
    envelope_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Value>,
}

/// What a frame asks of the loop.
enum Next {
    Go,
    /// The queue is full: keep this and read no further.
    Hold(Delivery),
    End(Ended),
}

impl Connection {
    pub(super) async fn run<S>(mut self, mut socket: WebSocketStream<S>) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (acks, mut settled) = mpsc::unbounded_channel::<Settled>();
        let deliveries = self.deliveries.clone();
        let mut held: Option<Delivery> = None;
        let mut due: usize = 0; // acknowledgements still to come
        let mut heard = Instant::now();
        let mut next_ping = heard + self.ping_every;
        // Once told to go: when reading ends, and when waiting for acknowledgements ends.
        let mut going: Option<(Instant, Instant)> = None;
        let mut stopped = false;
        loop {
            let now = Instant::now();
            if going.is_some_and(|(quiet, by)| (due == 0 && now >= quiet) || now >= by) {
                // Best effort: the peer may be gone.
                let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
                return Ended::Retired;
            }
            // While we do not read, silence says nothing.
            let reading = held.is_none() && going.is_none_or(|(quiet, _)| now < quiet);
            let mut wake = next_ping;
            if reading {
                wake = wake.min(heard + self.silence_limit);
            }
            if let Some((quiet, by)) = going {
                wake = wake.min(if now < quiet { quiet } else { by });
            }
            tokio::select! {
                biased;
                changed = self.order.changed(), if !stopped => {
                    // An owner that is gone wants no more of us.
                    stopped = changed.is_err() || *self.order.borrow_and_update() == Order::Stop;
                    let now = Instant::now();
                    if stopped {
                        // Not handed over, so not acknowledged: Slack delivers it again.
                        held = None;
                        going = Some((now, now + self.ack_grace));
                    } else {
                        going = Some((now + LINGER, now + self.ack_grace));
                    }
                }
                Some(first) = settled.recv() => {
                    let sent = timeout(self.silence_limit, async {
                        let mut next = Some(first);
                        while let Some(one) = next {
                            due = due.saturating_sub(1);
                            if let Settled::Done { envelope_id, payload } = one {
                                let text = ack_frame(&envelope_id, payload.as_ref());
                                socket.feed(Message::text(text)).await?;
                            }
                            next = settled.try_recv().ok();
                        }
                        socket.flush().await
                    }).await;
                    if let Some(ended) = failed(sent) {
                        return ended;
                    }
                }
                permit = deliveries.reserve(), if held.is_some() => {
                    match (permit, held.take()) {
                        (Ok(permit), Some(delivery)) => {
                            permit.send(delivery);
                            heard = Instant::now();
                        }
                        _ => return Ended::Abandoned,
                    }
                }
                message = socket.next(), if reading => {
                    heard = Instant::now();
                    let text = match message {
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Binary(bytes))) => {
                            Counters::add(&self.counters.malformed);
                            tracing::warn!(connection = self.id, bytes = bytes.len(), "a binary frame from Slack is ignored");
                            continue;
                        }
                        Some(Ok(Message::Close(_))) | None => {
                            return Ended::Refused { reason: "closed by Slack".to_owned() };
                        }
                        Some(Ok(_)) => continue,
                        Some(Err(tungstenite::Error::Capacity(error))) => {
                            Counters::add(&self.counters.oversized);
                            tracing::warn!(connection = self.id, %error, "a frame from Slack is too long to be read");
                            return Ended::Broken { why: "a frame was too long".to_owned() };
                        }
                        Some(Err(error)) => return Ended::Broken { why: error.to_string() },
                    };
                    match self.take(text.as_str(), &acks, &mut due) {
                        Next::Go => {}
                        Next::Hold(delivery) => held = Some(delivery),
                        Next::End(ended) => return ended,
                    }
                }
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if reading && now >= heard + self.silence_limit {
                        return Ended::Broken {
                            why: format!("silent for {:.1} s", (now - heard).as_secs_f64()),
                        };
                    }
                    if now >= next_ping {
                        next_ping = now + self.ping_every;
                        let ping = socket.send(Message::Ping(Default::default()));
                        if let Some(ended) = failed(timeout(self.silence_limit, ping).await) {
                            return ended;
                        }
                    }
                }
            }
        }
    }

    /// Deals with one text frame.
    fn take(&self, text: &str, acks: &mpsc::UnboundedSender<Settled>, due: &mut usize) -> Next {
        match frame::read(text) {
            Frame::Hello => {
                let _ = self.signals.send(Signal::Hello);
                Next::Go
            }
            Frame::Disconnect { reason } => match reason.as_str() {
                "warning" | "refresh_requested" => {
                    let _ = self.signals.send(Signal::Leaving { reason });
                    Next::Go
                }
                _ => Next::End(Ended::Refused { reason: clip(&reason, 80) }),
            },
            Frame::Unknown { kind, envelope_id } => {
                Counters::add(&self.counters.unknown);
                tracing::warn!(
                    connection = self.id,
                    kind,
                    excerpt = excerpt(text),
                    "Slack sent a frame of unknown type"
                );
                if let Some(envelope_id) = envelope_id {
                    *due += 1;
                    let _ = acks.send(Settled::Done { envelope_id, payload: None });
                }
                Next::Go
            }
            Frame::Malformed { why } => {
                Counters::add(&self.counters.malformed);
                tracing::warn!(
                    connection = self.id,
                    why,
                    excerpt = excerpt(text),
                    "Slack sent a frame that cannot be read"
                );
                Next::Go
            }
            Frame::Envelope(envelope) => {
                Counters::add(&self.counters.delivered);
                if envelope.retry_attempt > 0 {
                    Counters::add(&self.counters.redelivered);
                }
                *due += 1;
                let ack = Ack::socket(envelope.envelope_id.clone(), acks.clone(), Arc::clone(&self.counters));
                let delivery = Delivery {
                    payload: envelope.payload,
                    raw: envelope.raw,
                    envelope_id: envelope.envelope_id,
                    retry_attempt: envelope.retry_attempt,
                    received: Instant::now(),
                    ack,
                };
                match self.deliveries.try_send(delivery) {
                    Ok(()) => Next::Go,
                    Err(TrySendError::Full(delivery)) => Next::Hold(delivery),
                    Err(TrySendError::Closed(_)) => Next::End(Ended::Abandoned),
                }
            }
        }
    }
}

fn ack_frame(envelope_id: &str, payload: Option<&Value>) -> String {
    serde_json::to_string(&AckFrame { envelope_id, payload }).unwrap_or_default()
}

fn failed(sent: Result<Result<(), tungstenite::Error>, tokio::time::error::Elapsed>) -> Option<Ended> {
    match sent {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Ended::Broken { why: error.to_string() }),
        Err(_) => Some(Ended::Broken { why: "the peer takes no data".to_owned() }),
    }
}
