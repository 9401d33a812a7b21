//! What people and monitoring post, with the shape Slack gives it: a webhook's `bot_message`, an
//! app's message, a person's with its `rich_text`.

use serde_json::{Map, Value, json};

use super::blocks::validate_blocks;
use super::stored;
use super::view::View;

/// Who posts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// A person, by id or name.
    User(String),
    /// A configured sender, by bot id.
    Sender(String),
}

/// A message to be posted by somebody who is not the bot under test.
#[derive(Debug, Clone)]
pub struct Posting {
    /// Id or name.
    pub channel: String,
    pub author: Author,
    /// As typed or sent; stored as Slack stores it.
    pub text: String,
    pub attachments: Option<Value>,
    pub blocks: Option<Value>,
    pub thread_ts: Option<String>,
    /// Members that replace what would be stored, for odd messages.
    pub raw: Map<String, Value>,
}

impl Posting {
    /// A message of a person.
    pub fn of_user(user: &str, channel: &str, text: &str) -> Self {
        Posting::new(Author::User(user.to_owned()), channel, text)
    }

    /// A message of a sender, by its bot id.
    pub fn of_sender(bot_id: &str, channel: &str, text: &str) -> Self {
        Posting::new(Author::Sender(bot_id.to_owned()), channel, text)
    }

    fn new(author: Author, channel: &str, text: &str) -> Self {
        Posting {
            channel: channel.to_owned(),
            author,
            text: text.to_owned(),
            attachments: None,
            blocks: None,
            thread_ts: None,
            raw: Map::new(),
        }
    }

    /// With attachments: an array.
    #[must_use]
    pub fn attachments(self, attachments: Value) -> Self {
        Posting { attachments: Some(attachments), ..self }
    }

    /// With blocks: an array.
    #[must_use]
    pub fn blocks(self, blocks: Value) -> Self {
        Posting { blocks: Some(blocks), ..self }
    }

    /// As a reply.
    #[must_use]
    pub fn in_thread(self, ts: &str) -> Self {
        Posting { thread_ts: Some(ts.to_owned()), ..self }
    }

    /// With a member of the stored message replaced.
    #[must_use]
    pub fn with_raw(mut self, name: &str, value: Value) -> Self {
        self.raw.insert(name.to_owned(), value);
        self
    }
}

/// Posts it; the error is a sentence.
pub(super) fn post(view: &mut View, posting: Posting) -> Result<(String, String), String> {
    let channel = view.room(&posting.channel).map(|r| r.id.clone());
    let channel = channel.ok_or_else(|| format!("there is no channel {}", posting.channel))?;
    if let Some(blocks) = &posting.blocks {
        validate_blocks(blocks).map_err(|p| p.join("; "))?;
    }
    let text = stored::text(&posting.text);
    let mut message = Map::new();
    message.insert("text".to_owned(), text.clone().into());
    match &posting.author {
        Author::User(user) => {
            let id = view.user_id(user).ok_or_else(|| format!("there is no user {user}"))?;
            let known = view.options.users.iter().find(|u| u.id == id);
            let team = known.and_then(|u| u.team_id.clone()).unwrap_or_else(|| view.options.team_id.clone());
            message.insert("user".to_owned(), id.into());
            message.insert("team".to_owned(), team.into());
            message.insert("client_msg_id".to_owned(), view.make_id("msg-").into());
            let block_id = view.make_id("b");
            message.insert(
                "blocks".to_owned(),
                json!([{"type": "rich_text", "block_id": block_id, "elements": [
                    {"type": "rich_text_section", "elements": [{"type": "text", "text": posting.text}]}]}]),
            );
        }
        Author::Sender(bot_id) => {
            let sender = view.options.senders.iter().find(|s| s.bot_id == *bot_id).cloned();
            let sender = sender.ok_or_else(|| format!("there is no sender {bot_id}"))?;
            message.insert("subtype".to_owned(), "bot_message".into());
            message.insert("username".to_owned(), sender.name.clone().into());
            message.insert("bot_id".to_owned(), sender.bot_id.clone().into());
            if let Some(app_id) = sender.app_id {
                message.insert("app_id".to_owned(), app_id.clone().into());
                message.insert(
                    "bot_profile".to_owned(),
                    json!({"id": sender.bot_id, "deleted": false, "name": sender.name, "updated": 1_761_955_200,
                        "app_id": app_id, "icons": {}, "team_id": view.options.team_id}),
                );
            }
        }
    }
    content(view, &mut message, posting.blocks, posting.attachments);
    if let Some(thread_ts) = posting.thread_ts {
        message.insert("thread_ts".to_owned(), thread_ts.into());
    }
    message.extend(posting.raw);
    let mention = format!("<@{}>", view.options.bot.user_id);
    let mentioned = message.contains_key("client_msg_id")
        && message.get("text").and_then(Value::as_str).is_some_and(|t| t.contains(&mention));
    let ts = view.store(&channel, message);
    if mentioned {
        let stored = view.message(&channel, &ts).map(|m| m.raw).unwrap_or_default();
        let mut event = json!({"type": "app_mention", "channel": channel, "event_ts": ts});
        for name in ["user", "text", "ts", "team", "thread_ts", "blocks", "client_msg_id"] {
            if let Some(value) = stored.get(name) {
                event[name] = value.clone();
            }
        }
        view.owe(&channel, event);
    }
    Ok((channel, ts))
}

/// Puts in blocks and attachments as Slack stores them.
pub(super) fn content(
    view: &mut View,
    message: &mut Map<String, Value>,
    blocks: Option<Value>,
    attachments: Option<Value>,
) {
    if let Some(blocks) = blocks {
        let stored = stored::blocks(&blocks, &mut || view.make_id("b"));
        message.insert("blocks".to_owned(), stored);
    }
    if let Some(attachments) = attachments {
        let stored = stored::attachments(&attachments, &mut || view.make_id("b"));
        message.insert("attachments".to_owned(), stored);
    }
}
