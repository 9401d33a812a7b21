//! A small Slack for these tests, over real sockets: scripted answers, recorded calls, and each
//! WebSocket in the test's hands.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Client, Options, Secret};

/// What a method answers next; without a script it does its work.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Json(Value),
    Status(u16),
    Limited(u64),
    /// Done, and the answer breaks off.
    Lost,
    /// Done, and the answer never comes.
    Hangs,
    /// Done so much later, and the answer never comes.
    Lands(Duration),
}

#[derive(Clone, Debug)]
pub(super) struct Called {
    pub method: String,
    pub body: Value,
    pub headers: axum::http::HeaderMap,
    pub at: Instant,
}

#[derive(Default)]
struct Inner {
    calls: Vec<Called>,
    script: HashMap<String, VecDeque<Reply>>,
    messages: Vec<Value>,
    says_hello: bool,
    under_way: usize,
    most_under_way: usize,
    delay: Duration,
    strict: HashMap<String, Strict>,
    away: bool,
}

/// A method that takes one call in each period, and remembers who did not wait.
struct Strict {
    every: Duration,
    free_at: Instant,
    /// When "wait" was said, and until when.
    told: Option<(Instant, Instant)>,
    too_soon: usize,
    refused: usize,
}

/// A call that was on its way when "wait" was said is not to blame.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

impl Strict {
    /// `Retry-After`, where it has to wait.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|(at, until)| now < until && now > at + ON_ITS_WAY) {
            self.too_soon += 1;
        }
        if now >= self.free_at {
            self.free_at = now + self.every;
            return None;
        }
        self.refused += 1;
        let wait = (self.free_at - now).as_secs_f64().ceil().max(1.0) as u64;
        let until = now + Duration::from_secs(wait);
        self.told = Some(self.told.filter(|(_, known)| *known > now).unwrap_or((now, until)));
        Some(wait)
    }
}

#[derive(Clone)]
struct Shared {
    inner: Arc<Mutex<Inner>>,
    peers: mpsc::UnboundedSender<Peer>,
    base: String,
}

pub(super) struct Fake {
    shared: Shared,
    pub peers: mpsc::UnboundedReceiver<Peer>,
    server: tokio::task::JoinHandle<()>,
}

/// Slack's end of one WebSocket.
#[derive(Debug)]
pub(super) struct Peer {
    to: mpsc::UnboundedSender<Option<Message>>,
    from: mpsc::UnboundedReceiver<String>,
}

impl Peer {
    pub(super) fn say(&self, value: Value) {
        self.raw(Message::Text(value.to_string().into()));
    }

    pub(super) fn raw(&self, message: Message) {
        let _ = self.to.send(Some(message));
    }

    /// Neither reads nor writes any more, and keeps the connection.
    pub(super) fn fall_silent(&self) {
        let _ = self.to.send(None);
    }

    pub(super) fn event(&self, id: &str) {
        self.say(json!({"type": "events_api", "envelope_id": id, "accepts_response_payload": false,
            "retry_attempt": 0, "payload": {"type": "event_callback", "event_id": id, "event": {"type": "message"}}}));
    }

    /// The next text from the bot; None when it closed.
    pub(super) async fn heard(&mut self) -> Option<Value> {
        let text = within(self.from.recv()).await?;
        Some(serde_json::from_str(&text).unwrap())
    }

    pub(super) fn heard_nothing(&mut self) -> bool {
        self.from.try_recv().is_err()
    }
}

/// Awaits with a bound, so that a fault fails and does not hang.
pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("it took too long")
}

impl Fake {
    pub(super) async fn start() -> Fake {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (peers_out, peers) = mpsc::unbounded_channel();
        let inner = Inner { says_hello: true, ..Inner::default() };
        let shared = Shared { inner: Arc::new(Mutex::new(inner)), peers: peers_out, base };
        let app = Router::new()
            .route("/api/{method}", any(method))
            .route("/upload/{id}", any(upload))
            .route("/respond", any(respond))
            .route("/ws", get(socket))
            .with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Fake { shared, peers, server }
    }

    pub(super) fn base(&self) -> &str {
        &self.shared.base
    }

    pub(super) fn client(&self) -> Client {
        let options = Options {
            api_url: Some(format!("{}/api", self.base())),
            time_out: Duration::from_millis(1500),
            ..Options::default()
        };
        Client::new(&Secret::new("xoxb-test"), &options).unwrap()
    }

    pub(super) fn script(&self, method: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut inner = self.shared.inner.lock().unwrap();
        inner.script.entry(method.to_owned()).or_default().extend(replies);
    }

    pub(super) fn without_hello(&self) {
        self.shared.inner.lock().unwrap().says_hello = false;
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.shared.inner.lock().unwrap().delay = delay;
    }

    /// From now on this method takes one call in each period.
    pub(super) fn be_strict(&self, method: &str, every: Duration) {
        let strict = Strict { every, free_at: Instant::now(), told: None, too_soon: 0, refused: 0 };
        self.shared.inner.lock().unwrap().strict.insert(method.to_owned(), strict);
    }

    /// Of a strict method: calls made although "wait" had been said, and calls that were told to wait.
    pub(super) fn impatience(&self, method: &str) -> (usize, usize) {
        let inner = self.shared.inner.lock().unwrap();
        let strict = &inner.strict[method];
        (strict.too_soon, strict.refused)
    }

    /// While away every method fails and does nothing.
    pub(super) fn away(&self, away: bool) {
        self.shared.inner.lock().unwrap().away = away;
    }

    pub(super) fn most_under_way(&self) -> usize {
        self.shared.inner.lock().unwrap().most_under_way
    }

    pub(super) fn calls(&self, method: &str) -> Vec<Called> {
        let inner = self.shared.inner.lock().unwrap();
        inner.calls.iter().filter(|call| call.method == method).cloned().collect()
    }

    pub(super) fn messages(&self) -> Vec<Value> {
        self.shared.inner.lock().unwrap().messages.clone()
    }

    pub(super) async fn peer(&mut self) -> Peer {
        within(self.peers.recv()).await.unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn method(
    State(shared): State<Shared>,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = if body.is_empty() {
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    let (reply, done, delay) = {
        let mut inner = shared.inner.lock().unwrap();
        inner.under_way += 1;
        inner.most_under_way = inner.most_under_way.max(inner.under_way);
        inner.calls.push(Called { method: method.clone(), body: body.clone(), headers, at: Instant::now() });
        let limited = inner.strict.get_mut(&method).and_then(|strict| strict.take(Instant::now()));
        let away = inner.away.then_some(Reply::Status(503));
        let reply = away
            .or(limited.map(Reply::Limited))
            .or_else(|| inner.script.get_mut(&method).and_then(VecDeque::pop_front));
        let does = matches!(reply, None | Some(Reply::Lost | Reply::Hangs));
        let done = if does { inner.work(&shared.base, &method, &body) } else { Value::Null };
        (reply, done, inner.delay)
    };
    tokio::time::sleep(delay).await;
    shared.inner.lock().unwrap().under_way -= 1;
    match reply {
        None => ([("x-oauth-scopes", "chat:write, channels:history")], axum::Json(done)).into_response(),
        Some(Reply::Json(value)) => axum::Json(value).into_response(),
        Some(Reply::Status(status)) => {
            (axum::http::StatusCode::from_u16(status).unwrap(), "trouble").into_response()
        }
        Some(Reply::Limited(seconds)) => {
            let body = axum::Json(json!({"ok": false, "error": "ratelimited"}));
            (axum::http::StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())], body)
                .into_response()
        }
        Some(Reply::Lost) => {
            let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            Response::new(Body::from_stream(broken))
        }
        Some(Reply::Hangs) => std::future::pending().await,
        Some(Reply::Lands(later)) => {
            // On a task of its own: the caller will have hung up by then.
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                let mut inner = shared.inner.lock().unwrap();
                inner.work(&shared.base, &method, &body);
            });
            std::future::pending().await
        }
    }
}

impl Inner {
    fn work(&mut self, base: &str, method: &str, body: &Value) -> Value {
        match method {
            "apps.connections.open" => json!({"ok": true, "url": base.replace("http", "ws") + "/ws"}),
            "auth.test" => {
                json!({"ok": true, "team_id": "T1", "user_id": "U1", "bot_id": "B1", "url": "https://x/"})
            }
            "chat.postMessage" => {
                let ts = format!("1795133413.{:06}", self.messages.len() + 1);
                let mut message = body.clone();
                message["ts"] = json!(ts);
                self.messages.push(message);
                // An answer with an odd field, as other people's answers have them.
                json!({"ok": true, "ts": ts, "message": {"attachments": [{"id": "odd"}]}})
            }
            "conversations.replies" | "conversations.history" => {
                let offset: usize = body["cursor"].as_str().unwrap_or("0").parse().unwrap();
                // Small pages, as long as they are not hundreds.
                let size = if self.messages.len() > 20 { 100 } else { 2 };
                let page: Vec<Value> = self.messages.iter().skip(offset).take(size).cloned().collect();
                let next = offset + size;
                let cursor = if next < self.messages.len() { next.to_string() } else { String::new() };
                json!({"ok": true, "messages": page, "response_metadata": {"next_cursor": cursor}})
            }
            "files.getUploadURLExternal" => {
                json!({"ok": true, "upload_url": format!("{base}/upload/F1"), "file_id": "F1"})
            }
            _ => json!({"ok": true}),
        }
    }
}

async fn upload(State(shared): State<Shared>, body: Bytes) -> &'static str {
    let body = json!(String::from_utf8_lossy(&body));
    record(&shared, "upload", body);
    "OK - 5"
}

async fn respond(State(shared): State<Shared>, body: Bytes) -> &'static str {
    record(&shared, "respond", serde_json::from_slice(&body).unwrap());
    "ok"
}

fn record(shared: &Shared, method: &str, body: Value) {
    let called = Called { method: method.to_owned(), body, headers: Default::default(), at: Instant::now() };
    shared.inner.lock().unwrap().calls.push(called);
}

async fn socket(State(shared): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| serve(shared, socket))
}

async fn serve(shared: Shared, mut socket: WebSocket) {
    let (to, mut orders) = mpsc::unbounded_channel();
    let (heard, from) = mpsc::unbounded_channel();
    if shared.inner.lock().unwrap().says_hello {
        let hello = json!({"type": "hello", "num_connections": 1}).to_string();
        socket.send(Message::Text(hello.into())).await.unwrap();
    }
    let _ = shared.peers.send(Peer { to, from });
    let mut open = true;
    loop {
        tokio::select! {
            order = orders.recv(), if open => match order {
                Some(Some(message)) => {
                    if socket.send(message).await.is_err() { return }
                }
                Some(None) => std::future::pending::<()>().await,
                None => open = false,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => { let _ = heard.send(text.to_string()); }
                Some(Ok(_)) => {}
                _ => return,
            },
        }
    }
}
