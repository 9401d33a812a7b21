//! Messages as people see them: what can be read in one, and what can be pressed.

use serde_json::Value;

/// A message, as somebody in the channel sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub channel: String,
    pub ts: String,
    pub user: Option<String>,
    pub bot_id: Option<String>,
    pub text: String,
    pub thread_ts: Option<String>,
    pub edited: bool,
    /// As `conversations.history` gives it with metadata.
    pub raw: Value,
}

/// A message that only one person sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Ephemeral {
    pub user: String,
    pub channel: String,
    pub ts: String,
    pub thread_ts: Option<String>,
    pub text: String,
    pub raw: Value,
}

impl Message {
    pub(super) fn new(channel: &str, raw: &Value) -> Self {
        Message {
            channel: channel.to_owned(),
            ts: string(raw, "ts").unwrap_or_default(),
            user: string(raw, "user"),
            bot_id: string(raw, "bot_id"),
            text: string(raw, "text").unwrap_or_default(),
            thread_ts: string(raw, "thread_ts"),
            edited: raw.get("edited").is_some(),
            raw: raw.clone(),
        }
    }

    /// All that a person can read in it: text where there are no blocks, blocks, attachments; a line
    /// each. Buttons are given as `[text]`.
    pub fn read(&self) -> String {
        readable(&self.raw)
    }

    /// The texts of its buttons (and menu options), in order.
    pub fn buttons(&self) -> Vec<String> {
        actions(&self.raw).iter().map(|a| a.label.clone()).collect()
    }
}

impl Ephemeral {
    /// All that its reader can read, as [`Message::read`].
    pub fn read(&self) -> String {
        readable(&self.raw)
    }
}

/// Something in a message that can be pressed.
pub(super) struct Pressable {
    pub label: String,
    pub block_id: String,
    pub element: Value,
    /// Of an overflow menu or a select: the option meant.
    pub option: Option<Value>,
}

/// Everything in a message that can be pressed.
pub(super) fn actions(message: &Value) -> Vec<Pressable> {
    let mut found = Vec::new();
    let own = message["blocks"].as_array().into_iter().flatten();
    let attached = message["attachments"].as_array().into_iter().flatten();
    let attached = attached.flat_map(|a| a["blocks"].as_array().into_iter().flatten());
    for block in own.chain(attached) {
        let block_id = string(block, "block_id").unwrap_or_default();
        let elements = block["elements"].as_array().into_iter().flatten();
        for element in elements.chain(block.get("accessory")) {
            if element["type"] == "button" {
                let label = string(&element["text"], "text").unwrap_or_default();
                found.push(Pressable {
                    label,
                    block_id: block_id.clone(),
                    element: element.clone(),
                    option: None,
                });
            }
            for option in element["options"].as_array().into_iter().flatten() {
                found.push(Pressable {
                    label: string(&option["text"], "text").unwrap_or_default(),
                    block_id: block_id.clone(),
                    element: element.clone(),
                    option: Some(option.clone()),
                });
            }
        }
    }
    found
}

fn readable(message: &Value) -> String {
    let mut lines = Vec::new();
    let blocks = message["blocks"].as_array().filter(|b| !b.is_empty());
    match blocks {
        Some(blocks) => blocks.iter().for_each(|b| read_into(b, &mut lines)),
        None => lines.extend(string(message, "text").filter(|t| !t.is_empty())),
    }
    for attachment in message["attachments"].as_array().into_iter().flatten() {
        for name in ["pretext", "title", "text"] {
            lines.extend(string(attachment, name));
        }
        for field in attachment["fields"].as_array().into_iter().flatten() {
            let title = string(field, "title").unwrap_or_default();
            lines.push(format!("{title}: {}", string(field, "value").unwrap_or_default()));
        }
        attachment["blocks"].as_array().into_iter().flatten().for_each(|b| read_into(b, &mut lines));
    }
    for file in message["files"].as_array().into_iter().flatten() {
        lines.push(format!("file: {}", string(file, "name").unwrap_or_default()));
    }
    lines.join("\n")
}

fn read_into(value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(map) => match map.get("type").and_then(Value::as_str) {
            Some("button") => {
                lines.push(format!("[{}]", string(&value["text"], "text").unwrap_or_default()));
            }
            Some("rich_text_section" | "rich_text_preformatted" | "rich_text_quote") => {
                let pieces = value["elements"].as_array().cloned().unwrap_or_default();
                let text = |p: &Value| string(p, "text").or_else(|| string(p, "url"));
                lines.push(pieces.iter().filter_map(text).collect());
            }
            Some("divider") => {}
            _ => match map.get("text") {
                Some(Value::String(text)) => lines.push(text.clone()),
                _ => {
                    for name in ["text", "fields", "elements", "accessory"] {
                        if let Some(member) = map.get(name) {
                            read_into(member, lines);
                        }
                    }
                }
            },
        },
        Value::Array(list) => list.iter().for_each(|v| read_into(v, lines)),
        _ => {}
    }
}

pub(super) fn is_reply(message: &Value) -> bool {
    message["thread_ts"].as_str().is_some_and(|t| message["ts"].as_str() != Some(t))
}

pub(super) fn string(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}
