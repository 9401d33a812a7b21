//! Socket Mode: the WebSockets the bot opens, with Slack's hello, pings and disconnects
//! (docs.slack.dev/apis/events-api/using-socket-mode).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message as Frame, WebSocket};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::shared::Shared;

/// Slack allows an app so many sockets at once.
const SOCKETS: usize = 10;

/// An open socket.
pub(super) struct Connection {
    pub id: u64,
    /// A socket that was told to go gets no further envelopes.
    pub leaving: bool,
    pub order: mpsc::UnboundedSender<Order>,
}

/// What a socket is told to do.
pub(super) enum Order {
    Send(String),
    /// Closes properly after this time.
    CloseAfter(Duration),
    /// Drops the TCP connection without a word.
    Cut,
}

/// Serves one socket until it ends.
pub(super) async fn run(shared: Arc<Shared>, mut stream: WebSocket) {
    let (order, mut orders) = mpsc::unbounded_channel();
    let id = shared.next();
    let host = format!("applink-sandbox-{id}");
    let open = {
        let mut wire = shared.wire();
        let open = wire.connections.len();
        if open < SOCKETS {
            wire.connections.push(Connection { id, leaving: false, order });
        }
        open
    };
    if open >= SOCKETS {
        // The bot sees why and the socket ends; nothing can be done about a failed farewell.
        let _ = stream.send(Frame::text(farewell("too_many_websockets", &host))).await;
        let _ = stream.send(Frame::Close(None)).await;
        return;
    }
    let hello = json!({"type": "hello", "num_connections": open + 1,
        "debug_info": {"host": host, "build_number": 1, "approximate_connection_time": 18_060},
        "connection_info": {"app_id": shared.options.bot.app_id}});
    let greeted = stream.send(Frame::text(hello.to_string())).await.is_ok();
    count(&shared);
    if greeted {
        converse(&shared, stream, &mut orders, &host).await;
    }
    shared.wire().connections.retain(|c| c.id != id);
    count(&shared);
}

fn count(shared: &Arc<Shared>) {
    // Counted within the update: of two that come at once the later count must stand.
    shared.update(|view| view.connections = shared.wire().connections.len());
}

async fn converse(
    shared: &Arc<Shared>,
    mut stream: WebSocket,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    host: &str,
) {
    let (every, life) = (shared.options.ping_every, shared.life());
    let mut ping = tokio::time::interval_at(Instant::now() + every, every);
    let mut heard = Instant::now();
    let mut closing: Option<Instant> = None;
    loop {
        let close_at = closing.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
        tokio::select! {
            frame = stream.next() => match frame {
                Some(Ok(Frame::Text(text))) => {
                    heard = Instant::now();
                    if acknowledge(shared, &text).is_err() {
                        return;
                    }
                }
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => heard = Instant::now(),
            },
            order = orders.recv() => match order {
                Some(Order::Send(text)) => {
                    if stream.send(Frame::text(text)).await.is_err() {
                        return;
                    }
                }
                Some(Order::CloseAfter(grace)) => closing = Some(Instant::now() + grace),
                Some(Order::Cut) | None => return,
            },
            _ = ping.tick() => {
                // A peer that answers none of four pings is gone.
                if heard.elapsed() > every * 4 {
                    return;
                }
                let note = format!("Ping from {host}");
                if stream.send(Frame::Ping(note.into_bytes().into())).await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(close_at), if closing.is_some() => {
                let _ = stream.send(Frame::Close(None)).await;
                let _ = stream.close().await;
                return;
            }
            () = shared.until_stopped() => return,
            () = shared.until_end_of(life) => return,
        }
    }
}

/// An acknowledgement: `{"envelope_id": …, "payload": …}`. Anything else is ignored, as Slack does.
/// An error when the bot ends here.
fn acknowledge(shared: &Arc<Shared>, text: &str) -> io::Result<()> {
    let Ok(ack) = serde_json::from_str::<Value>(text) else { return Ok(()) };
    let Some(id) = ack["envelope_id"].as_str() else { return Ok(()) };
    let step = shared.begin("acknowledge")?;
    let awaited = shared.wire().awaited.remove(id);
    if let Some(awaited) = awaited {
        // The waiting side may have given up already.
        let _ = awaited.send(ack.get("payload").cloned().unwrap_or_default());
    }
    shared.finish(step)
}

pub(super) fn farewell(reason: &str, host: &str) -> String {
    json!({"type": "disconnect", "reason": reason, "debug_info": {"host": host}}).to_string()
}

impl Shared {
    /// Sends a text over the socket whose turn it is. `false` when none is open.
    pub fn send_on_a_socket(&self, text: String) -> bool {
        let mut wire = self.wire();
        let open = wire.connections.len();
        for _ in 0..open {
            wire.turn = (wire.turn + 1) % open;
            let turn = wire.turn;
            if let Some(connection) = wire.connections.get(turn)
                && !connection.leaving
                && connection.order.send(Order::Send(text.clone())).is_ok()
            {
                return true;
            }
        }
        false
    }

    /// Says `disconnect` on every socket and closes it as Slack does for this reason.
    pub fn disconnect_sockets(&self, reason: &str) {
        let grace = if reason == "warning" { self.options.disconnect_grace } else { Duration::ZERO };
        for connection in &mut self.wire().connections {
            connection.leaving = true;
            let host = format!("applink-sandbox-{}", connection.id);
            // A socket that is gone needs no farewell.
            let _ = connection.order.send(Order::Send(farewell(reason, &host)));
            let _ = connection.order.send(Order::CloseAfter(grace));
        }
    }

    /// Drops every socket's TCP connection.
    pub fn cut_sockets(&self) {
        for connection in &mut self.wire().connections {
            connection.leaving = true;
            let _ = connection.order.send(Order::Cut);
        }
    }
}
