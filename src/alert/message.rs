//! What the bot needs of a Slack message event, read leniently from its raw JSON.
//!
//! A member of an odd type costs that member only. Work is bounded whatever the message holds: texts,
//! attachments, fields and blocks are counted, and attachments inside attachments (quotations of
//! somebody else's message) are never followed.

use std::fmt;

use serde_json::Value;

use super::blocks;
use super::markup::{self, Plain};
use crate::time::Timestamp;

/// Slack cuts `text` at 40,000 characters; this is room for any script.
const MAX_TEXT_BYTES: usize = 200_000;
/// Slack's own limits are 100 attachments and about as many fields.
const MAX_ATTACHMENTS: usize = 100;
const MAX_FIELDS: usize = 100;

/// What happened to a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A new message; also a reply, see [`Message::is_top_level`].
    Posted(Message),
    /// `message_changed`: the message as it is now, and as it was where Slack says so. Link
    /// previews cause these too. An edit may resolve an alert; it never raises one.
    Edited { message: Message, previous: Option<Box<Message>> },
    /// `message_deleted`: the `ts` of the message that is gone.
    Deleted { channel: String, ts: String },
    /// Joins, topics, reminders and whatever else Slack invents; never an alert.
    Other { subtype: String },
}

/// Why an event is no message at all; for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// One message. Texts are without Slack's markup and escaping, but not yet cleaned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub channel: String,
    /// The message's id and its time, `"1795133413.007919"`.
    pub ts: String,
    /// `ts` as a moment.
    pub at: Timestamp,
    pub thread_ts: Option<String>,
    pub subtype: Option<String>,
    pub bot_id: Option<String>,
    /// The event's, or its `bot_profile`'s; none where the two disagree.
    pub app_id: Option<String>,
    pub user: Option<String>,
    /// The workspace of who posted; differs from the bot's own over Slack Connect.
    pub team: Option<String>,
    /// Whether the message was edited since it was posted.
    pub edited: bool,
    pub text: String,
    /// Addresses linked in `text`; without those Slack made of bare host names.
    pub links: Vec<String>,
    pub attachments: Vec<Attachment>,
    /// The text of the message's blocks, line by line.
    pub blocks: String,
}

/// One attachment of a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    pub title: String,
    pub title_link: Option<String>,
    pub pretext: String,
    pub text: String,
    pub fallback: String,
    pub footer: String,
    /// Hex without `#`, or one of `good`, `warning`, `danger`; as Slack stored it.
    pub color: Option<String>,
    pub author_name: String,
    /// Unix seconds, as written.
    pub ts: Option<String>,
    pub from_url: Option<String>,
    pub fields: Vec<Field>,
    /// The text of the attachment's own blocks.
    pub blocks: String,
    /// A shared message or a link's preview: somebody else's words, never the sender's.
    pub quoted: bool,
}

/// A title and a value of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    pub title: String,
    pub value: String,
}

impl Message {
    /// Reads the inner event of an `event_callback`. Errs when it is no message, or has no channel or `ts`.
    pub fn from_event(event: &Value) -> Result<Event, Malformed> {
        let channel = id(event, "channel").ok_or(Malformed("the event names no channel"))?;
        Message::from_history(&channel, event)
    }

    /// Reads a message as `conversations.history` lists it: without its channel.
    pub fn from_history(channel: &str, event: &Value) -> Result<Event, Malformed> {
        if event.get("type").and_then(Value::as_str) != Some("message") {
            return Err(Malformed("the event is no message"));
        }
        match event.get("subtype") {
            None | Some(Value::Null) => Message::read(channel, event).map(Event::Posted),
            Some(Value::String(subtype)) => match subtype.as_str() {
                "bot_message" | "file_share" | "me_message" | "thread_broadcast" => {
                    Message::read(channel, event).map(Event::Posted)
                }
                "message_changed" => {
                    let now = event.get("message").ok_or(Malformed("an edit without the edited message"))?;
                    let mut message = Message::read(channel, now)?;
                    message.edited = true;
                    let before = event.get("previous_message");
                    let previous =
                        before.and_then(|before| Message::read(channel, before).ok()).map(Box::new);
                    Ok(Event::Edited { message, previous })
                }
                "message_deleted" => {
                    let before = event.get("previous_message").and_then(|before| id(before, "ts"));
                    let ts = id(event, "deleted_ts").or(before);
                    let ts = ts.ok_or(Malformed("a deletion that names no message"))?;
                    Ok(Event::Deleted { channel: channel.to_owned(), ts })
                }
                other => Ok(Event::Other { subtype: crate::text::clean(other, 80) }),
            },
            Some(_) => Err(Malformed("the subtype is no text")),
        }
    }

    /// Whether it stands in the channel itself; a reply in a thread does not, also when it is
    /// broadcast to the channel.
    pub fn is_top_level(&self) -> bool {
        self.thread_ts.as_ref().is_none_or(|thread| *thread == self.ts)
    }

    fn read(channel: &str, event: &Value) -> Result<Message, Malformed> {
        if !event.is_object() {
            return Err(Malformed("the message is no object"));
        }
        let ts = id(event, "ts").ok_or(Malformed("the message has no ts"))?;
        let at = Timestamp::from_slack_ts(&ts).ok_or(Malformed("the message's ts is no time"))?;
        let profile = event.get("bot_profile").unwrap_or(&Value::Null);
        let app_id = match (id(event, "app_id"), id(profile, "app_id")) {
            (Some(own), Some(profiles)) if own != profiles => None,
            (own, profiles) => own.or(profiles),
        };
        let team = ["source_team", "user_team", "team"].iter().find_map(|name| id(event, name));
        let Plain { text, links } = text(event, "text");
        Ok(Message {
            channel: channel.to_owned(),
            ts,
            at,
            thread_ts: id(event, "thread_ts"),
            subtype: id(event, "subtype"),
            bot_id: id(event, "bot_id"),
            app_id,
            user: id(event, "user"),
            team: team.or_else(|| id(profile, "team_id")),
            edited: event.get("edited").is_some_and(Value::is_object),
            text,
            links,
            attachments: list(event, "attachments")
                .take(MAX_ATTACHMENTS)
                .filter_map(Attachment::read)
                .collect(),
            blocks: blocks::text_of(event.get("blocks")),
        })
    }
}

impl Attachment {
    fn read(value: &Value) -> Option<Attachment> {
        value.is_object().then(|| Attachment {
            title: text(value, "title").text,
            title_link: value.get("title_link").and_then(Value::as_str).and_then(markup::web_link),
            pretext: text(value, "pretext").text,
            text: text(value, "text").text,
            fallback: text(value, "fallback").text,
            footer: text(value, "footer").text,
            color: id(value, "color"),
            author_name: text(value, "author_name").text,
            ts: word(value, "ts"),
            from_url: value.get("from_url").and_then(Value::as_str).and_then(markup::web_link),
            fields: list(value, "fields").take(MAX_FIELDS).filter_map(Field::read).collect(),
            blocks: blocks::text_of(value.get("blocks")),
            quoted: ["from_url", "original_url", "message_blocks", "attachments"]
                .iter()
                .any(|name| value.get(name).is_some_and(|member| !member.is_null()))
                || ["is_share", "is_msg_unfurl", "is_app_unfurl", "is_reply_unfurl"]
                    .iter()
                    .any(|name| value.get(name).and_then(Value::as_bool) == Some(true)),
        })
    }
}

impl Field {
    fn read(value: &Value) -> Option<Field> {
        let field = Field { title: text(value, "title").text, value: text(value, "value").text };
        (!field.title.is_empty() || !field.value.is_empty()).then_some(field)
    }
}

/// A list's entries; none where the member is something else.
fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// An id, a `ts` or another short word that Slack writes; nothing where it is not one.
fn id(value: &Value, name: &str) -> Option<String> {
    let text = value.get(name)?.as_str()?;
    let fits = !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

/// A short text or number, as text.
fn word(value: &Value, name: &str) -> Option<String> {
    match value.get(name)? {
        Value::Number(number) => Some(number.to_string()),
        _ => id(value, name),
    }
}

/// A text member without markup; a number is what it looks like, anything else is empty.
fn text(value: &Value, name: &str) -> Plain {
    match value.get(name) {
        Some(Value::String(raw)) => markup::plain(bounded(raw)),
        Some(Value::Number(number)) => Plain { text: number.to_string(), links: Vec::new() },
        _ => Plain::default(),
    }
}

/// The start of a text that somebody made far longer than Slack stores.
pub(super) fn bounded(raw: &str) -> &str {
    let mut end = raw.len().min(MAX_TEXT_BYTES);
    while !raw.is_char_boundary(end) {
        end -= 1;
    }
    &raw[..end]
}
