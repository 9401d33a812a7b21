//! Block Kit as Slack accepts it, and not a bit more: what this lets through, Slack shows.
//!
//! Limits are those of `slack_sdk/models` (Python SDK) and docs.slack.dev/reference/block-kit; the
//! undocumented total is from bolt-js#2509 and metabase#79908 (about 13,200 characters). The
//! messages have the shape of Slack's `response_metadata.messages`, with a JSON pointer.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::elements;

/// All characters of a message's blocks together.
const TOTAL: usize = 13_200;

/// Checks the `blocks` of a message: an array. Every problem is one line with its place.
pub fn validate_blocks(blocks: &Value) -> Result<(), Vec<String>> {
    let mut check = Check::default();
    check.blocks(blocks, "/blocks");
    if check.total > TOTAL {
        check.problems.push(format!(
            "[ERROR] msg_blocks_too_long: {} characters in all, {TOTAL} allowed [json-pointer:/blocks]",
            check.total
        ));
    }
    if check.problems.is_empty() { Ok(()) } else { Err(check.problems) }
}

/// Slack's error code for what [`validate_blocks`] found.
pub(super) fn error_code(problems: &[String]) -> &'static str {
    if problems.len() == 1 && problems.iter().any(|p| p.contains("msg_blocks_too_long")) {
        "msg_blocks_too_long"
    } else {
        "invalid_blocks"
    }
}

/// One walk over a message's blocks.
#[derive(Default)]
pub(super) struct Check {
    pub problems: Vec<String>,
    total: usize,
    block_ids: HashSet<String>,
    action_ids: HashSet<String>,
}

impl Check {
    pub fn problem(&mut self, at: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("[ERROR] {what} [json-pointer:{at}]"));
    }

    fn blocks(&mut self, blocks: &Value, at: &str) {
        let Some(list) = blocks.as_array() else {
            return self.problem(at, "must provide an array");
        };
        if list.len() > 50 {
            self.problem(at, "no more than 50 items allowed");
        }
        for (i, block) in list.iter().enumerate() {
            self.block(block, &format!("{at}/{i}"));
        }
    }

    fn block(&mut self, block: &Value, at: &str) {
        let Some(map) = self.object(block, at) else { return };
        if let Some(id) = map.get("block_id") {
            let here = format!("{at}/block_id");
            match id.as_str() {
                None => self.problem(&here, "must be a string"),
                Some(id) if id.chars().count() > 255 => {
                    self.problem(&here, "must be less than 256 characters");
                }
                Some("") => {}
                Some(id) if !self.block_ids.insert(id.to_owned()) => {
                    self.problem(&here, format!("`block_id` {id} already exists"));
                }
                Some(_) => {}
            }
        }
        match map.get("type").and_then(Value::as_str) {
            Some("section") => self.section(map, at),
            Some("divider") => self.members(map, at, &[]),
            Some("header") => {
                self.members(map, at, &["text", "level"]);
                self.text(map, "text", at, Text::Plain, 150, true);
            }
            Some("context") => {
                self.members(map, at, &["elements"]);
                for (element, at) in self.items(map, "elements", at, 10) {
                    match element.get("type").and_then(Value::as_str) {
                        Some("image") => elements::image(self, &element, &at),
                        Some("mrkdwn" | "plain_text") => self.text_object(&element, &at, Text::Any, 3_000),
                        other => self.unsupported(other, &at),
                    }
                }
            }
            Some("actions") => {
                self.members(map, at, &["elements"]);
                for (element, at) in self.items(map, "elements", at, 25) {
                    elements::interactive(self, &element, &at, elements::Place::Actions);
                }
            }
            Some("image") => {
                self.members(map, at, &["image_url", "slack_file", "alt_text", "title"]);
                elements::image_source(self, map, at);
                self.text(map, "title", at, Text::Plain, 2_000, false);
            }
            Some("rich_text") => {
                self.members(map, at, &["elements"]);
                for (element, at) in self.items(map, "elements", at, usize::MAX) {
                    elements::rich_text(self, &element, &at);
                }
            }
            Some("markdown") => {
                self.members(map, at, &["text"]);
                self.string(map, "text", at, 12_000, true);
                self.total += map.get("text").and_then(Value::as_str).map_or(0, |t| t.chars().count());
            }
            other => self.unsupported(other, at),
        }
    }

    fn section(&mut self, map: &Map<String, Value>, at: &str) {
        self.members(map, at, &["text", "fields", "accessory", "expand"]);
        if !map.contains_key("text") && !map.contains_key("fields") {
            self.problem(at, "missing required field: text");
        }
        self.text(map, "text", at, Text::Any, 3_000, false);
        if map.contains_key("fields") {
            for (field, at) in self.items(map, "fields", at, 10) {
                self.text_object(&field, &at, Text::Any, 2_000);
            }
        }
        if let Some(accessory) = map.get("accessory") {
            let at = format!("{at}/accessory");
            if accessory.get("type").and_then(Value::as_str) == Some("image") {
                elements::image(self, accessory, &at);
            } else {
                elements::interactive(self, accessory, &at, elements::Place::Accessory);
            }
        }
    }

    pub fn object<'v>(&mut self, value: &'v Value, at: &str) -> Option<&'v Map<String, Value>> {
        let map = value.as_object();
        if map.is_none() {
            self.problem(at, "must provide an object");
        }
        map
    }

    /// Slack refuses members it does not know.
    pub fn members(&mut self, map: &Map<String, Value>, at: &str, known: &[&str]) {
        for name in map.keys() {
            if name != "type" && name != "block_id" && !known.contains(&name.as_str()) {
                self.problem(at, format!("invalid additional property: {name}"));
            }
        }
    }

    pub fn unsupported(&mut self, kind: Option<&str>, at: &str) {
        match kind {
            Some(kind) => self.problem(&format!("{at}/type"), format!("unsupported type: {kind}")),
            None => self.problem(at, "missing required field: type"),
        }
    }

    /// The items of a required, non-empty array with their places.
    pub fn items(
        &mut self,
        map: &Map<String, Value>,
        name: &str,
        at: &str,
        most: usize,
    ) -> Vec<(Value, String)> {
        let here = format!("{at}/{name}");
        match map.get(name) {
            None => self.problem(at, format!("missing required field: {name}")),
            Some(Value::Array(list)) => {
                if list.is_empty() {
                    self.problem(&here, "must have at least 1 item");
                }
                if list.len() > most {
                    self.problem(&here, format!("no more than {most} items allowed"));
                }
                return list
                    .iter()
                    .enumerate()
                    .map(|(i, item)| (item.clone(), format!("{here}/{i}")))
                    .collect();
            }
            Some(_) => self.problem(&here, "must provide an array"),
        }
        Vec::new()
    }

    pub fn string(
        &mut self,
        map: &Map<String, Value>,
        name: &str,
        at: &str,
        most: usize,
        required: bool,
    ) -> Option<String> {
        let here = format!("{at}/{name}");
        match map.get(name) {
            None if required => self.problem(at, format!("missing required field: {name}")),
            None => {}
            Some(Value::String(text)) => {
                if text.chars().count() > most {
                    self.problem(&here, format!("must be less than {} characters", most + 1));
                }
                if text.is_empty() && required {
                    self.problem(&here, "must be more than 0 characters");
                }
                return Some(text.clone());
            }
            Some(_) => self.problem(&here, "must be a string"),
        }
        None
    }

    /// A member that is a text object.
    pub fn text(
        &mut self,
        map: &Map<String, Value>,
        name: &str,
        at: &str,
        kind: Text,
        most: usize,
        required: bool,
    ) {
        match map.get(name) {
            None if required => self.problem(at, format!("missing required field: {name}")),
            None => {}
            Some(value) => self.text_object(value, &format!("{at}/{name}"), kind, most),
        }
    }

    pub fn text_object(&mut self, value: &Value, at: &str, kind: Text, most: usize) {
        let Some(map) = self.object(value, at) else { return };
        match (map.get("type").and_then(Value::as_str), kind) {
            (Some("plain_text"), _) => self.members(map, at, &["text", "emoji"]),
            (Some("mrkdwn"), Text::Any) => self.members(map, at, &["text", "verbatim"]),
            (Some("mrkdwn"), Text::Plain) => self.problem(&format!("{at}/type"), "must be plain_text"),
            (other, _) => self.unsupported(other, at),
        }
        if let Some(text) = self.string(map, "text", at, most, true) {
            self.total += text.chars().count();
        }
    }

    /// Rich text counts towards the total like any other.
    pub fn count(&mut self, text: &str) {
        self.total += text.chars().count();
    }

    pub fn action_id(&mut self, map: &Map<String, Value>, at: &str) {
        if let Some(id) = self.string(map, "action_id", at, 255, false)
            && !id.is_empty()
            && !self.action_ids.insert(id.clone())
        {
            self.problem(&format!("{at}/action_id"), format!("`action_id` {id} already exists"));
        }
    }
}

/// Which kinds of text object a place takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Plain,
    Any,
}
