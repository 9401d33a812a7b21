//! Values that rules and config share: durations, Slack ids and handles, addresses, shell text.

use std::time::Duration;

use super::diagnostic::quoted;
use super::yaml::{Node, Problems, Span};
use crate::time::{parse_duration, say_duration, short_duration};

/// Longest single command, `confirm` or `verify`, in characters.
pub const MAX_COMMAND: usize = 8000;

impl Problems {
    /// A duration from `least` to `most`.
    pub fn duration(&mut self, what: &str, node: &Node, least: Duration, most: Duration) -> Option<Duration> {
        let text = self.text(what, node)?;
        let duration = match parse_duration(text) {
            Ok(duration) => duration,
            Err(_) => {
                let hint = if text.bytes().all(|byte| byte.is_ascii_digit()) {
                    format!("a duration needs a unit: `{text}s` or `{text}m`")
                } else {
                    "write a whole number and a unit: 0s, 30s, 5m, 2h, 7d".to_owned()
                };
                self.error(node.span, format!("{what} is not a duration: {}", quoted(text))).hint(hint);
                return None;
            }
        };
        if duration < least {
            let message = format!("{what} is too short");
            self.error(node.span, message).hint(format!("the least is {}", short_duration(least)));
            return None;
        }
        if duration > most {
            let message = format!("{what} is too long");
            self.error(node.span, message).hint(format!(
                "the most is {} ({})",
                short_duration(most),
                say_duration(most)
            ));
            return None;
        }
        Some(duration)
    }

    /// A list of texts; one text alone is a list of one.
    pub fn texts(&mut self, what: &str, node: &Node) -> Option<Vec<(String, Span)>> {
        if let super::yaml::Value::Scalar { .. } = &node.value {
            let text = self.text(what, node)?;
            return Some(vec![(text.to_owned(), node.span)]);
        }
        let items = self.list(what, node)?;
        let each = format!("an item of {what}");
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            texts.push((self.text(&each, item)?.to_owned(), item.span));
        }
        Some(texts)
    }

    /// Text without invisible characters on one line.
    pub fn line(&mut self, what: &str, node: &Node, most: usize) -> Option<String> {
        let text = self.text(what, node)?.trim();
        self.visible(what, node.span, text, false)?;
        if text.chars().count() > most {
            self.error(node.span, format!("{what} is longer than {most} characters")).hint("shorten it");
            return None;
        }
        Some(text.to_owned())
    }

    /// Refuses characters that nobody sees in the declaration and the shell or Slack still reads.
    pub fn visible(&mut self, what: &str, span: Span, text: &str, lines: bool) -> Option<()> {
        let odd = |ch: &char| crate::text::invisible(*ch) && !(lines && matches!(ch, '\n' | '\t'));
        let Some(ch) = text.chars().find(odd) else { return Some(()) };
        self.error(span, format!("{what} holds the invisible character U+{:04X}", u32::from(ch)))
            .hint("people approve what they see; type the text anew");
        None
    }

    /// People who may approve: user ids and user group handles, none twice.
    pub fn people(&mut self, what: &str, node: &Node) -> Option<Vec<String>> {
        let mut people: Vec<String> = Vec::new();
        let mut fine = true;
        for (text, span) in self.texts(what, node)? {
            if people.contains(&text) {
                self.error(span, format!("{} stands twice in {what}", quoted(&text)))
                    .hint("keep one of the two");
                fine = false;
            }
            fine &= self.person(what, span, &text);
            people.push(text);
        }
        if people.is_empty() {
            self.error(node.span, format!("{what} names nobody")).hint("name somebody, or remove the key");
            return None;
        }
        fine.then_some(people)
    }

    /// One user id or user group handle.
    pub fn person(&mut self, what: &str, span: Span, text: &str) -> bool {
        if is_user_id(text) {
            return true;
        }
        let hint = match text.strip_prefix('@') {
            Some("here" | "channel" | "everyone") => {
                "name the people: that would be everybody in the channel"
            }
            Some(handle)
                if !handle.is_empty()
                    && handle.len() <= 80
                    && handle.chars().all(|ch| ch.is_alphanumeric() || "._-".contains(ch)) =>
            {
                return true;
            }
            Some(_) => "a handle holds letters, digits, `.`, `_` and `-`",
            None if text.starts_with('S') && is_id(text, "S") => {
                "write the user group's handle (\"@sre\") instead of its id"
            }
            None => {
                "write a user id (U0123ABCD; in Slack: profile, ⋮, copy member ID) or a user group's handle (\"@sre\")"
            }
        };
        self.error(span, format!("{} in {what} is neither a user id nor a handle", quoted(text))).hint(hint);
        false
    }

    /// An `http` or `https` address.
    pub fn address(&mut self, what: &str, node: &Node) -> Option<String> {
        let text = self.line(what, node, 1000)?;
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let odd = |ch: char| ch.is_whitespace() || "<>|\"`\\^{}".contains(ch);
        if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) || text.contains(odd) {
            self.error(node.span, format!("{what} is not a web address")).hint("write https://…");
            return None;
        }
        Some(text)
    }

    /// Shell text that runs as it stands.
    pub fn shell(&mut self, what: &str, node: &Node) -> Option<String> {
        let text = self.text(what, node)?.trim_end();
        self.visible(what, node.span, text, true)?;
        if text.chars().count() > MAX_COMMAND {
            self.error(node.span, format!("{what} is longer than {MAX_COMMAND} characters"))
                .hint("put the script on the hosts, or into an SSM document");
            return None;
        }
        if let Some(error) = super::template::in_shell(text) {
            let span = self.within(node.span, &text[error.range]);
            self.error(span, error.message).label(format!("in {what}")).hint(error.hint);
            return None;
        }
        Some(text.to_owned())
    }

    /// Where `piece` stands within the source of `span`; the whole of it when quoting or folding hides it.
    pub fn within(&self, span: Span, piece: &str) -> Span {
        let range = span.range();
        match self.source.text.get(range.clone()).and_then(|text| text.find(piece)) {
            Some(at) if !piece.is_empty() => Span::new(range.start + at, range.start + at + piece.len()),
            _ => span,
        }
    }
}

/// Slack's ids: a letter for the kind, then capital letters and digits.
pub fn is_id(text: &str, kinds: &str) -> bool {
    text.len() >= 2
        && text.len() <= 40
        && text.starts_with(|ch| kinds.contains(ch))
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// `U…`, or `W…` in an Enterprise organisation.
pub fn is_user_id(text: &str) -> bool {
    is_id(text, "UW")
}
