//! A Slack that answers at once: the Web API methods that the bot calls, and Socket Mode.
//!
//! It knows of each alert when it was delivered, acknowledged, declared, reported and said to be healed,
//! and how often: that is what the benchmark reads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::http::{Handler, Reply, Request};

pub const CHANNEL: &str = "C0ALERTS01";

/// What became of one alert.
#[derive(Clone, Debug, Default)]
pub struct Alert {
    pub delivered: Option<Instant>,
    pub declared: Option<Instant>,
    pub declarations: u32,
    pub reported: Option<Instant>,
    pub reports: u32,
    /// Its declaration, and its report, say so.
    pub healed: (bool, bool),
}

/// A delivery and its acknowledgement.
struct Sent {
    at: Instant,
    acked: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Declaration,
    Report,
    Other,
}

/// The workspace.
pub struct Slack {
    /// The second of all alerts' `ts`; the fraction is the alert's number.
    pub second: u64,
    pub address: String,
    pub alerts: RefCell<Vec<Alert>>,
    sent: RefCell<Vec<Sent>>,
    /// Of each message of the bot: the alert it is about.
    posts: RefCell<Vec<(usize, Part)>>,
    /// The open connections.
    lines: RefCell<Vec<mpsc::UnboundedSender<String>>>,
    next_line: Cell<usize>,
    pub calls: Cell<u64>,
    pub last_call: Cell<Option<Instant>>,
    /// Posts that are neither a declaration nor a report.
    pub others: Cell<u32>,
}

impl Slack {
    pub fn new(address: String, alerts: usize) -> Slack {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Slack {
            second: now.map_or(0, |now| now.as_secs()),
            address,
            alerts: RefCell::new(vec![Alert::default(); alerts]),
            sent: RefCell::default(),
            posts: RefCell::default(),
            lines: RefCell::default(),
            next_line: Cell::new(0),
            calls: Cell::new(0),
            last_call: Cell::new(None),
            others: Cell::new(0),
        }
    }

    pub fn connections(&self) -> usize {
        self.lines.borrow_mut().retain(|line| !line.is_closed());
        self.lines.borrow().len()
    }

    /// Delivers a message event about alert `of` over the next connection in turn.
    pub fn deliver(&self, of: usize, message: &str, event_id: &str, retry: u32) {
        let mut sent = self.sent.borrow_mut();
        let second = self.second;
        let text = format!(
            r#"{{"envelope_id":"e{}","type":"events_api","accepts_response_payload":false,"retry_attempt":{retry},"retry_reason":"","payload":{{"token":"t","team_id":"T0BENCH","api_app_id":"A0HEAL","event":{message},"type":"event_callback","event_id":"{event_id}","event_time":{second},"is_ext_shared_channel":false}}}}"#,
            sent.len()
        );
        let mut lines = self.lines.borrow_mut();
        lines.retain(|line| !line.is_closed());
        if lines.is_empty() {
            return; // Nobody listens: it is counted as lost.
        }
        let turn = self.next_line.get();
        self.next_line.set(turn + 1);
        let at = Instant::now();
        sent.push(Sent { at, acked: None });
        if let Some(alert) = self.alerts.borrow_mut().get_mut(of) {
            alert.delivered.get_or_insert(at);
        }
        drop(lines[turn % lines.len()].send(text));
    }

    fn acknowledged(&self, number: Option<usize>) {
        let mut sent = self.sent.borrow_mut();
        if let Some(sent) = number.and_then(|number| sent.get_mut(number)) {
            sent.acked.get_or_insert(sent.at.elapsed());
        }
    }

    /// How long each delivery's acknowledgement took, in the order of delivery; `None` where it is owed.
    pub fn acknowledgements(&self) -> Vec<Option<Duration>> {
        self.sent.borrow().iter().map(|sent| sent.acked).collect()
    }

    fn posted(&self, body: &str) -> String {
        let of = text_of(body, "\"thread_ts\":\"").and_then(|ts| ts.split('.').nth(1)?.parse::<usize>().ok());
        let part = match body.rfind("\"part\":\"").map(|at| &body[at + 8..]) {
            Some(rest) if rest.starts_with("declaration") => Part::Declaration,
            Some(rest) if rest.starts_with("report") => Part::Report,
            _ => Part::Other,
        };
        let mut alerts = self.alerts.borrow_mut();
        match of.and_then(|of| alerts.get_mut(of)) {
            Some(alert) if part == Part::Declaration => {
                alert.declared.get_or_insert_with(Instant::now);
                alert.declarations += 1;
            }
            Some(alert) if part == Part::Report => {
                alert.reported.get_or_insert_with(Instant::now);
                alert.reports += 1;
                alert.healed.1 |= says_healed(body);
            }
            _ => self.others.set(self.others.get() + 1),
        }
        let mut posts = self.posts.borrow_mut();
        posts.push((of.unwrap_or(usize::MAX), part));
        format!(
            r#"{{"ok":true,"channel":"{CHANNEL}","ts":"{}.{:06}","message":{{"type":"message"}}}}"#,
            self.second + 1,
            posts.len() - 1
        )
    }

    fn updated(&self, body: &str) {
        let number = text_of(body, "\"ts\":\"").and_then(|ts| ts.split('.').nth(1)?.parse::<usize>().ok());
        let posts = self.posts.borrow();
        let Some((of, part)) = number.and_then(|number| posts.get(number)) else { return };
        if let Some(alert) = self.alerts.borrow_mut().get_mut(*of)
            && says_healed(body)
        {
            match part {
                Part::Declaration => alert.healed.0 = true,
                Part::Report => alert.healed.1 = true,
                Part::Other => {}
            }
        }
    }
}

fn says_healed(body: &str) -> bool {
    text_of(body, "\"text\":\"").is_some_and(|text| text.contains("*healed*"))
}

/// The text after `before`, up to the next quote.
pub fn text_of<'a>(body: &'a str, before: &str) -> Option<&'a str> {
    let from = body.find(before)? + before.len();
    body[from..].split('"').next()
}

impl Handler for Slack {
    fn answer(&self, request: &Request<'_>) -> Reply {
        self.calls.set(self.calls.get() + 1);
        self.last_call.set(Some(Instant::now()));
        let path = request.target.split('?').next().unwrap_or_default();
        let method = path.rsplit('/').next().unwrap_or_default();
        Reply::Json(match method {
            "socket" => return Reply::WebSocket,
            "chat.postMessage" => self.posted(request.body),
            "chat.update" => {
                self.updated(request.body);
                r#"{"ok":true}"#.to_owned()
            }
            "auth.test" => r#"{"ok":true,"url":"https://bench.slack.com/","team":"bench","user":"heal","team_id":"T0BENCH","user_id":"U0HEAL","bot_id":"B0HEAL"}"#.to_owned(),
            "apps.connections.open" => {
                format!(r#"{{"ok":true,"url":"ws://{}/socket?ticket=1"}}"#, self.address)
            }
            "conversations.list" => format!(
                r#"{{"ok":true,"channels":[{{"id":"{CHANNEL}","name":"alerts","is_channel":true,"is_member":true,"is_archived":false}}],"response_metadata":{{"next_cursor":""}}}}"#
            ),
            "conversations.info" => format!(
                r#"{{"ok":true,"channel":{{"id":"{CHANNEL}","name":"alerts","is_channel":true,"is_member":true,"is_archived":false}}}}"#
            ),
            "conversations.history" | "conversations.replies" => {
                r#"{"ok":true,"messages":[],"has_more":false}"#.to_owned()
            }
            "usergroups.list" => r#"{"ok":true,"usergroups":[]}"#.to_owned(),
            "usergroups.users.list" => r#"{"ok":true,"users":[]}"#.to_owned(),
            _ => r#"{"ok":true}"#.to_owned(),
        })
    }

    fn upgraded(self: Rc<Self>, stream: TcpStream) {
        let (line, mut texts) = mpsc::unbounded_channel::<String>();
        spawn_local(async move {
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            let hello = r#"{"type":"hello","num_connections":1,"connection_info":{"app_id":"A0HEAL"},"debug_info":{"host":"bench"}}"#;
            if socket.send(Message::text(hello)).await.is_err() {
                return;
            }
            self.lines.borrow_mut().push(line);
            loop {
                tokio::select! {
                    text = texts.recv() => {
                        let mut next = text;
                        while let Some(text) = next {
                            if socket.feed(Message::text(text)).await.is_err() {
                                return;
                            }
                            next = texts.try_recv().ok();
                        }
                        if socket.flush().await.is_err() {
                            return;
                        }
                    }
                    message = socket.next() => match message {
                        Some(Ok(Message::Text(text))) => {
                            let number = text_of(text.as_str(), "\"envelope_id\":\"e");
                            let number = number.and_then(|number| number.parse::<usize>().ok());
                            self.acknowledged(number);
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    },
                }
            }
        });
    }
}
