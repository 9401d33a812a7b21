//! Reading a map's fields: unknown keys get a suggestion, wrong types say what was expected, and
//! every problem is kept, so that one run shows them all.

use std::sync::Arc;

use super::{Entry, Node, Source, Span, Value};
use crate::rule::Diagnostic;
use crate::rule::diagnostic::quoted;

/// The problems of one file as they are found.
pub struct Problems {
    pub source: Arc<Source>,
    pub found: Vec<Diagnostic>,
}

impl Problems {
    pub fn new(source: Arc<Source>) -> Problems {
        Problems { source, found: Vec::new() }
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Diagnostic::error(&self.source, span, message))
    }

    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Diagnostic::warning(&self.source, span, message))
    }

    fn add(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        let at = self.found.len();
        self.found.push(diagnostic);
        &mut self.found[at]
    }

    pub fn not_yet(&mut self, span: Span, what: &str) {
        self.error(span, format!("{what} is not supported yet"))
            .hint("remove it: heal does not accept what it would not do");
    }

    /// The text of a scalar as written; an error for anything else and for nothing.
    pub fn text<'n>(&mut self, what: &str, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            _ if node.is_null() => {
                self.error(node.span, format!("{what} is empty")).hint("write a value, or remove the key");
                None
            }
            Value::Scalar { text, .. } if text.trim().is_empty() => {
                self.error(node.span, format!("{what} is empty")).hint("write a value, or remove the key");
                None
            }
            Value::Scalar { text, .. } => Some(text),
            Value::Map(_) | Value::List(_) => {
                self.wrong_type(what, "text", node);
                None
            }
        }
    }

    /// The items of a list; an error for anything else.
    pub fn list<'n>(&mut self, what: &str, node: &'n Node) -> Option<&'n [Node]> {
        if let Value::List(items) = &node.value {
            return Some(items);
        }
        self.wrong_type(what, "a list", node);
        None
    }

    /// The entries of a map; an error for anything else.
    pub fn map<'n>(&mut self, what: &str, node: &'n Node) -> Option<&'n [Entry]> {
        if let Value::Map(entries) = &node.value {
            return Some(entries);
        }
        self.wrong_type(what, "a map", node);
        None
    }

    pub fn wrong_type(&mut self, what: &str, expected: &str, node: &Node) {
        let hint = match (expected, &node.value) {
            ("text", Value::Map(_)) => {
                Some("a `: ` within it, or a `{` before it, makes YAML read a map; quote the text")
            }
            ("text", Value::List(_)) => {
                Some("write one text; a text that begins with `[` or `-` needs quotes")
            }
            ("a list", Value::Scalar { .. } | Value::Map(_)) => Some("write `[…]`, or one `- …` a line"),
            ("a map", Value::Scalar { .. } | Value::List(_)) => {
                Some("write `key: value` lines, indented below it")
            }
            _ => None,
        };
        let problem = self.error(node.span, format!("{what} must be {expected}"));
        problem.label(format!("this is {}", node.kind()));
        if let Some(hint) = hint {
            problem.hint(hint);
        }
    }

    /// A number from `least` to `most`.
    pub fn number(&mut self, what: &str, node: &Node, least: u32, most: u32) -> Option<u32> {
        let text = self.text(what, node)?;
        match text.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            Ok(_) => {
                self.error(node.span, format!("{what} is out of bounds"))
                    .hint(format!("write a whole number from {least} to {most}"));
                None
            }
            Err(_) => {
                self.error(node.span, format!("{what} is not a number"))
                    .hint(format!("write a whole number from {least} to {most}"));
                None
            }
        }
    }

    pub fn flag(&mut self, what: &str, node: &Node) -> Option<bool> {
        match self.text(what, node)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.error(node.span, format!("{what} is neither true nor false"))
                    .hint("write true or false");
                None
            }
        }
    }

    /// One of `words`, with a suggestion for a slip.
    pub fn word(&mut self, what: &str, node: &Node, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text(what, node)?;
        if let Some(word) = words.iter().find(|word| **word == text) {
            return Some(word);
        }
        let hint = match closest(text, words.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("write one of {}", words.join(", ")),
        };
        self.error(node.span, format!("{what} cannot be {}", quoted(text))).hint(hint);
        None
    }
}

/// A map with known keys.
pub struct Fields<'n> {
    entries: &'n [Entry],
    pub span: Span,
}

impl<'n> Fields<'n> {
    /// Takes the map of `what` and complains about every key that is neither in `known` nor, with
    /// other words, in `later`.
    pub fn of(
        what: &str,
        node: &'n Node,
        span: Span,
        known: &[&'static str],
        later: &[&'static str],
        problems: &mut Problems,
    ) -> Option<Fields<'n>> {
        let entries = problems.map(what, node)?;
        for entry in entries {
            let key = entry.key.as_str();
            if known.contains(&key) {
                continue;
            }
            if later.contains(&key) {
                problems.not_yet(entry.key_span, &format!("`{key}`"));
                continue;
            }
            let hint = match closest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if key.contains(':') => {
                    "a rule begins at the left margin; look at the indentation".to_owned()
                }
                None => format!("known keys: {}", known.join(", ")),
            };
            problems
                .error(entry.key_span, format!("unknown key {}", quoted(key)))
                .label(format!("not a key of {what}"))
                .hint(hint);
        }
        Some(Fields { entries, span })
    }

    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// All keys as they stand, also unknown ones.
    pub fn keys(&self) -> impl Iterator<Item = &'n str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    pub fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// The word nearest to `text`, where one is near enough to be meant.
pub fn closest<'w>(text: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let length = text.chars().count();
    if length > 200 {
        return None;
    }
    let lower = text.to_lowercase().replace('-', "_");
    let allowed = (length / 3).clamp(1, 4);
    words
        .into_iter()
        .filter(|word| word.len().abs_diff(text.len()) <= 4 * allowed)
        .map(|word| (strsim::damerau_levenshtein(&lower, &word.to_lowercase().replace('-', "_")), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
