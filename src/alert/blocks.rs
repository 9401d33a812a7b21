//! The text of Block Kit blocks, as lines: sections, headers, contexts and rich text.
//!
//! Alert senders move from attachments to blocks; a reader wants their words, not their layout.

use serde_json::Value;

use super::markup;
use super::message::bounded;

/// Slack allows 50 blocks; what lies deeper than rich text nests is somebody's trick.
const MAX_BLOCKS: usize = 100;
const MAX_ELEMENTS: usize = 2_000;
const MAX_DEPTH: usize = 6;
const MAX_BYTES: usize = 200_000;

/// The blocks' text, one line for each text object; empty where there are none.
pub(super) fn text_of(blocks: Option<&Value>) -> String {
    let mut out = Lines { text: String::new(), elements: 0 };
    for block in blocks.and_then(Value::as_array).into_iter().flatten().take(MAX_BLOCKS) {
        match block.get("type").and_then(Value::as_str) {
            Some("section" | "header" | "context" | "markdown") => {
                out.object(block.get("text"));
                for name in ["fields", "elements"] {
                    for object in block.get(name).and_then(Value::as_array).into_iter().flatten() {
                        out.object(Some(object));
                    }
                }
            }
            Some("rich_text") => out.rich(block, 0),
            _ => {}
        }
    }
    out.text
}

struct Lines {
    text: String,
    elements: usize,
}

impl Lines {
    /// A text object (`{"type": "mrkdwn", "text": …}`), or a bare string where somebody sent one.
    fn object(&mut self, object: Option<&Value>) {
        let text = match object {
            Some(Value::String(text)) => Some(text.as_str()),
            Some(object) => object.get("text").and_then(Value::as_str),
            None => None,
        };
        if let Some(text) = text
            && self.room()
        {
            self.text.push_str(&markup::plain(bounded(text)).text);
            self.end_line();
        }
    }

    fn rich(&mut self, value: &Value, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        for element in value.get("elements").and_then(Value::as_array).into_iter().flatten() {
            if !self.room() {
                return;
            }
            let said = |name: &str| element.get(name).and_then(Value::as_str).unwrap_or_default();
            match element.get("type").and_then(Value::as_str) {
                Some("text") => self.text.push_str(&crate::text::unescape(bounded(said("text")))),
                Some("link") if said("text").is_empty() => self.text.push_str(bounded(said("url"))),
                Some("link") => self.text.push_str(bounded(said("text"))),
                Some("user") => self.mention('@', said("user_id")),
                Some("usergroup") => self.mention('@', said("usergroup_id")),
                Some("broadcast") => self.mention('@', said("range")),
                Some("channel") => self.mention('#', said("channel_id")),
                Some("emoji") => {
                    self.mention(':', said("name"));
                    self.text.push(':');
                }
                Some("date") => self.text.push_str(bounded(said("fallback"))),
                Some(kind) if kind.starts_with("rich_text_") => {
                    self.rich(element, depth + 1);
                    self.end_line();
                }
                _ => {}
            }
        }
    }

    fn mention(&mut self, mark: char, name: &str) {
        self.text.push(mark);
        self.text.push_str(bounded(name));
    }

    fn end_line(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    fn room(&mut self) -> bool {
        self.elements += 1;
        self.elements <= MAX_ELEMENTS && self.text.len() < MAX_BYTES
    }
}
