//! The state of the workspace, and how people and tests read it.
//!
//! Messages are kept as the JSON that `conversations.history` gives (no `channel` in them): what
//! Slack would store is the truth here, and everything typed is read out of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::limit::{Pacing, Patience};
use super::message::{Ephemeral, Message, is_reply, string};
use super::options::{Channel, Delivery, Options};

/// Everything in the workspace at one moment.
pub struct View {
    pub(super) options: Arc<Options>,
    pub(super) address: String,
    pub(super) rooms: BTreeMap<String, Room>,
    pub(super) ephemerals: Vec<Ephemeral>,
    pub(super) files: Vec<File>,
    pub(super) uploads: HashMap<String, File>,
    pub(super) calls: Vec<Call>,
    pub(super) deliveries: Vec<DeliveryRecord>,
    pub(super) delivery: Delivery,
    pub(super) connections: usize,
    pub(super) http_reached: bool,
    pub(super) response_urls: HashMap<String, ResponseUrl>,
    pub(super) tickets: BTreeSet<String>,
    pub(super) faults: HashMap<String, VecDeque<Fault>>,
    pub(super) pacing: Pacing,
    pub(super) patience: Patience,
    pub(super) outgoing: Vec<Value>,
    pub(super) double_every: usize,
    last_ts: u64,
    made: u64,
}

/// A channel with its messages.
pub(super) struct Room {
    pub id: String,
    pub name: String,
    pub is_member: bool,
    /// By `ts`; Slack's stamps have one width, so their order is that of time.
    pub messages: BTreeMap<String, Value>,
    /// Parent `ts` to the stamps of its replies.
    pub replies: HashMap<String, BTreeSet<String>>,
}

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub id: String,
    pub name: String,
    pub title: String,
    pub bytes: Vec<u8>,
    /// Where it was shared; `None` until `files.completeUploadExternal`.
    pub channel: Option<String>,
    pub thread_ts: Option<String>,
}

/// One Web API call the bot made.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub body: Value,
    pub at: SystemTime,
    /// HTTP status; 0 when the connection was cut instead of an answer.
    pub status: u16,
    /// Of a 429: the seconds to wait.
    pub retry_after: Option<u64>,
    pub answer: Value,
}

/// What became of one envelope.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// `events_api`, `interactive` or `slash_commands`.
    pub kind: &'static str,
    /// The `event_id`; empty for the other kinds.
    pub event_id: String,
    pub sent: SystemTime,
    /// From the first sending to the acknowledgement; `None` while there is none.
    pub acknowledged_after: Option<Duration>,
    pub attempts: u32,
    /// Given up.
    pub lost: bool,
}

/// A `response_url`: five uses in 30 minutes.
pub(super) struct ResponseUrl {
    pub channel: String,
    pub user: String,
    /// The clicked message: its stamp, and whether it was an ephemeral one.
    pub message: Option<(String, bool)>,
    pub thread_ts: Option<String>,
    pub uses: u32,
    pub made: SystemTime,
}

impl View {
    pub(super) fn new(options: Arc<Options>, address: String) -> Self {
        let rooms = options.channels.iter().map(|c| (c.id.clone(), Room::new(c))).collect();
        let delivery = options.delivery.clone();
        View {
            options,
            address,
            rooms,
            delivery,
            ephemerals: Vec::new(),
            files: Vec::new(),
            uploads: HashMap::new(),
            calls: Vec::new(),
            deliveries: Vec::new(),
            connections: 0,
            http_reached: false,
            response_urls: HashMap::new(),
            tickets: BTreeSet::new(),
            faults: HashMap::new(),
            pacing: Pacing::default(),
            patience: Patience::default(),
            outgoing: Vec::new(),
            double_every: 0,
            last_ts: 0,
            made: 0,
        }
    }

    /// The messages of a channel (id or name) at the top level, oldest first.
    pub fn messages(&self, channel: &str) -> Vec<Message> {
        let Some(room) = self.room(channel) else { return Vec::new() };
        room.messages
            .values()
            .filter(|m| !is_reply(m) || m["subtype"] == "thread_broadcast")
            .map(|m| Message::new(&room.id, m))
            .collect()
    }

    /// The replies under a message, oldest first, without the message itself.
    pub fn thread(&self, channel: &str, ts: &str) -> Vec<Message> {
        let Some(room) = self.room(channel) else { return Vec::new() };
        let Some(stamps) = room.replies.get(ts) else { return Vec::new() };
        stamps.iter().filter_map(|ts| room.messages.get(ts)).map(|m| Message::new(&room.id, m)).collect()
    }

    /// The stamp of a channel's newest message at the top level.
    pub fn latest(&self, channel: &str) -> Option<String> {
        let room = self.room(channel)?;
        room.messages.iter().rev().find(|(_, m)| !is_reply(m)).map(|(ts, _)| ts.clone())
    }

    /// One message, reply or not.
    pub fn message(&self, channel: &str, ts: &str) -> Option<Message> {
        let room = self.room(channel)?;
        room.messages.get(ts).map(|m| Message::new(&room.id, m))
    }

    /// What only this person (id or name) was shown, oldest first.
    pub fn ephemerals(&self, user: &str) -> Vec<Ephemeral> {
        let id = self.user_id(user).unwrap_or_else(|| user.to_owned());
        self.ephemerals.iter().filter(|e| e.user == id).cloned().collect()
    }

    /// The reactions on a message: name and who.
    pub fn reactions(&self, channel: &str, ts: &str) -> Vec<(String, Vec<String>)> {
        let Some(message) = self.message(channel, ts) else { return Vec::new() };
        let list = message.raw["reactions"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|r| {
                let users = r["users"].as_array().cloned().unwrap_or_default();
                let users = users.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                (string(r, "name").unwrap_or_default(), users)
            })
            .collect()
    }

    /// Every file that was shared.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Every Web API call, oldest first.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The calls of one method.
    pub fn calls_of<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(move |c| c.method == method)
    }

    /// Calls that came although a 429 had asked to wait longer; a sentence for each.
    pub fn too_soon(&self) -> &[String] {
        &self.patience.too_soon
    }

    /// What became of every event, click and command sent to the bot, oldest first.
    pub fn deliveries(&self) -> &[DeliveryRecord] {
        &self.deliveries
    }

    /// Open Socket Mode connections.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Whether events reach the bot: a socket is open, or the last POST was answered.
    pub fn connected(&self) -> bool {
        match self.delivery {
            Delivery::Socket => self.connections > 0,
            Delivery::Http { .. } => self.http_reached,
        }
    }

    /// Channels as id, name and whether the bot is in them.
    pub fn channels(&self) -> Vec<Channel> {
        self.rooms
            .values()
            .map(|r| Channel { id: r.id.clone(), name: r.name.clone(), is_member: r.is_member })
            .collect()
    }

    /// The options the workspace was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn room(&self, channel: &str) -> Option<&Room> {
        let name = channel.trim_start_matches('#');
        self.rooms.get(channel).or_else(|| self.rooms.values().find(|r| r.name == name))
    }

    pub(super) fn room_mut(&mut self, channel: &str) -> Option<&mut Room> {
        let id = self.room(channel)?.id.clone();
        self.rooms.get_mut(&id)
    }

    pub(super) fn user_id(&self, user: &str) -> Option<String> {
        let name = user.trim_start_matches('@');
        self.options.users.iter().find(|u| u.id == user || u.name == name).map(|u| u.id.clone())
    }

    /// A fresh stamp: seconds and microseconds, later than every one before.
    pub(super) fn stamp(&mut self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX).max(self.last_ts + 1);
        self.last_ts = now;
        format!("{}.{:06}", now / 1_000_000, now % 1_000_000)
    }

    /// A fresh id with this prefix.
    pub(super) fn make_id(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}{:05X}{:05X}", self.made, fastrand::u32(..0x10_0000))
    }

    /// Stores a message and owes the bot its event. Fills in `ts` unless it is there; one that another
    /// message of the channel has moves on to the next that is free, as it is what tells them apart.
    pub(super) fn store(&mut self, channel: &str, mut message: Map<String, Value>) -> String {
        let mut ts = match message.get("ts").and_then(Value::as_str) {
            Some(ts) => ts.to_owned(),
            None => self.stamp(),
        };
        while self.rooms.get(channel).is_some_and(|room| room.messages.contains_key(&ts)) {
            ts = next_stamp(&ts).unwrap_or_else(|| self.stamp());
        }
        message.insert("type".to_owned(), "message".into());
        message.insert("ts".to_owned(), ts.clone().into());
        let Some(room) = self.rooms.get_mut(channel) else { return ts };
        if let Some(parent_ts) = message.get("thread_ts").and_then(Value::as_str).map(str::to_owned)
            && parent_ts != ts
        {
            let replies = room.replies.entry(parent_ts.clone()).or_default();
            replies.insert(ts.clone());
            let count = replies.len();
            let author = message.get("user").or(message.get("bot_id")).cloned().unwrap_or_default();
            if let Some(parent) = room.messages.get_mut(&parent_ts) {
                if let Some(user) = parent.get("user").cloned() {
                    message.insert("parent_user_id".to_owned(), user);
                }
                parent["thread_ts"] = parent_ts.into();
                parent["reply_count"] = count.into();
                parent["latest_reply"] = ts.clone().into();
                if !parent["reply_users"].is_array() {
                    parent["reply_users"] = json!([]);
                }
                if let Some(users) = parent["reply_users"].as_array_mut()
                    && !users.contains(&author)
                {
                    users.push(author);
                }
                parent["reply_users_count"] = parent["reply_users"].as_array().map_or(0, Vec::len).into();
            }
        }
        let message = Value::Object(message);
        room.messages.insert(ts.clone(), message.clone());
        self.owe_message(channel, message);
        ts
    }

    /// Replaces a stored message and owes the bot `message_changed`.
    pub(super) fn replace(&mut self, channel: &str, ts: &str, message: Value) {
        let Some(room) = self.rooms.get_mut(channel) else { return };
        let previous = room.messages.insert(ts.to_owned(), message.clone()).unwrap_or_default();
        self.owe_message(
            channel,
            json!({"type": "message", "subtype": "message_changed", "hidden": true,
                "message": message, "previous_message": previous}),
        );
    }

    /// Removes a message and owes the bot `message_deleted`. A message with replies stays as a
    /// tombstone that keeps the thread together, as in Slack.
    pub(super) fn remove(&mut self, channel: &str, ts: &str) {
        let Some(room) = self.rooms.get_mut(channel) else { return };
        if room.replies.get(ts).is_some_and(|r| !r.is_empty()) {
            let mut message = room.messages.get(ts).cloned().unwrap_or_default();
            if let Some(map) = message.as_object_mut() {
                let kept = [
                    "type",
                    "ts",
                    "thread_ts",
                    "reply_count",
                    "reply_users",
                    "reply_users_count",
                    "latest_reply",
                ];
                map.retain(|name, _| kept.contains(&name.as_str()));
                map.insert("subtype".to_owned(), "tombstone".into());
                map.insert("user".to_owned(), "USLACKBOT".into());
                map.insert("text".to_owned(), "This message was deleted.".into());
                map.insert("hidden".to_owned(), true.into());
            }
            return self.replace(channel, ts, message);
        }
        let Some(previous) = room.messages.remove(ts) else { return };
        if let Some(parent_ts) = string(&previous, "thread_ts").filter(|p| p != ts)
            && let Some(replies) = room.replies.get_mut(&parent_ts)
        {
            replies.remove(ts);
            let count = replies.len();
            if let Some(parent) = room.messages.get_mut(&parent_ts) {
                parent["reply_count"] = count.into();
            }
        }
        self.owe_message(
            channel,
            json!({"type": "message", "subtype": "message_deleted", "hidden": true,
                "deleted_ts": ts, "previous_message": previous}),
        );
    }

    fn owe_message(&mut self, channel: &str, mut event: Value) {
        let hidden = event.get("hidden").is_some();
        let event_ts = if hidden { self.stamp() } else { string(&event, "ts").unwrap_or_default() };
        if hidden {
            event["ts"] = event_ts.clone().into();
        }
        event["channel"] = channel.into();
        event["event_ts"] = event_ts.into();
        event["channel_type"] = "channel".into();
        self.owe(channel, event);
    }

    /// Owes the bot an event of this channel, if it is in there and subscribed to such events.
    pub(super) fn owe(&mut self, channel: &str, event: Value) {
        let member = self.rooms.get(channel).is_none_or(|r| r.is_member);
        let kind = event["type"].as_str().unwrap_or_default();
        if member && self.options.subscriptions.iter().any(|s| s == kind) {
            self.outgoing.push(event);
        }
    }
}

impl Room {
    fn new(channel: &Channel) -> Self {
        Room {
            id: channel.id.clone(),
            name: channel.name.clone(),
            is_member: channel.is_member,
            messages: BTreeMap::new(),
            replies: HashMap::new(),
        }
    }
}

/// The stamp a microsecond later.
fn next_stamp(ts: &str) -> Option<String> {
    let (seconds, micros) = ts.split_once('.')?;
    let next = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()? + 1;
    Some(format!("{}.{:06}", next / 1_000_000, next % 1_000_000))
}
