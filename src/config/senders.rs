//! `senders`: who may raise alerts, and how their messages are read.

use std::sync::Arc;

use super::read::section;
use crate::alert::{Format, Sender};
use crate::rule::Diagnostic;
use crate::rule::diagnostic::quoted;
use crate::rule::values::is_id;
use crate::rule::yaml::{Fields, Node, Problems, Span, closest};

const KEYS: &[&str] = &[
    "name", "format", "bot_id", "app_id", "user_id", "role", "instance", "pattern", "firing", "resolved",
    "resolves",
];
/// Formats of later.
const LATER: &[&str] = &[
    "grafana",
    "datadog",
    "cloudwatch",
    "aws_chatbot",
    "mackerel",
    "zabbix",
    "sentry",
    "nagios",
    "icinga2",
    "sensu",
    "netdata",
    "uptime_kuma",
    "opsgenie",
    "pagerduty",
    "robusta",
    "botkube",
    "healthchecks",
    "newrelic",
    "prometheus",
];
/// A compiled pattern's most memory, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// Reads the list; a sender with a problem is reported and left out.
pub fn read(node: &Node, problems: &mut Problems) -> Vec<Arc<Sender>> {
    let mut senders: Vec<(Arc<Sender>, Span, Span)> = Vec::new();
    for item in problems.list("`senders`", node).unwrap_or_default() {
        let Some((sender, name, ids)) = sender(item, problems) else { continue };
        if let Some((_, other, _)) = senders.iter().find(|(other, _, _)| other.name == sender.name) {
            twice(problems, name, *other, format!("two senders have the name {}", quoted(&sender.name)));
        } else if let Some((other, _, span)) = senders.iter().find(|(other, _, _)| same_ids(other, &sender)) {
            let message =
                format!("one message could come from {} and {}", quoted(&other.name), quoted(&sender.name));
            twice(problems, ids, *span, message);
        }
        senders.push((Arc::new(sender), name, ids));
    }
    if senders.is_empty() && matches!(&node.value, crate::rule::yaml::Value::List(items) if items.is_empty())
    {
        problems.warning(node.span, "`senders` is empty: no message can raise an alert");
    }
    senders.into_iter().map(|(sender, _, _)| sender).collect()
}

fn twice(problems: &mut Problems, span: Span, first: Span, message: String) {
    let source = Arc::clone(&problems.source);
    problems.found.push(
        Diagnostic::error(&source, span, message)
            .with_label("again here")
            .with_related(&source, first, "first here")
            .with_hint("every sender needs its own name and ids"),
    );
}

/// They share an id, and none of the others tells them apart.
fn same_ids(a: &Sender, b: &Sender) -> bool {
    let pairs = [(&a.bot_id, &b.bot_id), (&a.app_id, &b.app_id), (&a.user_id, &b.user_id)];
    let shared = pairs.iter().any(|(x, y)| x.is_some() && x == y);
    let apart = pairs.iter().any(|(x, y)| x.is_some() && y.is_some() && x != y);
    shared && !apart
}

/// One sender, with the places of its name and of its first id.
fn sender(node: &Node, problems: &mut Problems) -> Option<(Sender, Span, Span)> {
    let before = problems.found.iter().filter(|problem| problem.is_error()).count();
    let start = match &node.value {
        crate::rule::yaml::Value::Map(entries) => entries.first().map_or(node.span, |entry| entry.key_span),
        _ => node.span,
    };
    let fields = section("a sender", "senders.", node, start, KEYS, &[], problems)?;
    let (name, name_span) = match fields.get("name") {
        Some(node) => (problems.line("`name`", node, 80), node.span),
        None => {
            problems.error(start, "a sender has no name").hint("write `- name: prometheus`");
            (None, start)
        }
    };
    let mut id = |key: &str, kinds: &str, example: &str| {
        let node = fields.get(key)?;
        let text = problems.line(&format!("`{key}`"), node, 40)?;
        if !is_id(&text, kinds) {
            problems
                .error(node.span, format!("{} is not a `{key}`", quoted(&text)))
                .hint(format!("Slack's ids are capital letters and digits: {example}"));
            return None;
        }
        Some(text)
    };
    let bot_id = id("bot_id", "B", "B0123ABCD");
    let app_id = id("app_id", "A", "A0123ABCD");
    let user_id = id("user_id", "UW", "U0123ABCD");
    let ids = ["bot_id", "app_id", "user_id"].iter().find_map(|key| fields.get(key));
    if ids.is_none() {
        problems
            .error(name_span, "a sender without an id could be anybody")
            .hint("write its bot_id, app_id or user_id: names and icons prove nothing");
    }
    let role = fields.get("role").and_then(|node| problems.line("`role`", node, 200));
    let instance = fields.get("instance").and_then(|node| problems.line("`instance`", node, 200));
    let resolves = fields.entry("resolves").and_then(|entry| problems.flag("`resolves`", &entry.value));
    let format = format(&fields, start, problems);
    let says_resolved = match &format {
        Some(Format::Pattern { resolved, .. }) => !resolved.is_empty(),
        Some(Format::Alertmanager) | None => true,
    };
    if resolves == Some(true) && !says_resolved {
        let span = fields.get("resolves").map_or(start, |node| node.span);
        problems
            .error(span, "`resolves: true`, and no word means resolved")
            .hint("write a (?<status>…) group and `resolved: [OK, …]`, or resolves: false");
    }
    let sender = Sender {
        name: name?,
        format: format?,
        bot_id,
        app_id,
        user_id,
        role,
        instance,
        resolves: resolves.unwrap_or(says_resolved),
    };
    let fine = problems.found.iter().filter(|problem| problem.is_error()).count() == before;
    fine.then_some((sender, name_span, ids.map_or(start, |node| node.span)))
}

fn format(fields: &Fields<'_>, start: Span, problems: &mut Problems) -> Option<Format> {
    match (fields.get("format"), fields.entry("pattern")) {
        (None, Some(_)) => pattern(fields, problems),
        (Some(_), Some(entry)) => {
            problems
                .error(entry.key_span, "a sender has a `format` or a `pattern`, not both")
                .hint("keep one of the two");
            None
        }
        (None, None) => {
            problems
                .error(start, "how this sender's messages are read is not said")
                .hint("write `format: alertmanager`, or a `pattern`");
            None
        }
        (Some(node), None) => {
            for key in ["firing", "resolved"] {
                if let Some(entry) = fields.entry(key) {
                    problems
                        .error(entry.key_span, format!("`{key}` belongs to `pattern`"))
                        .hint("a built-in format knows its own words; remove it");
                }
            }
            let text = problems.text("`format`", node)?;
            if text == "alertmanager" {
                return Some(Format::Alertmanager);
            }
            if LATER.contains(&text) {
                problems
                    .error(node.span, format!("the format {} is not supported yet", quoted(text)))
                    .hint("read its messages with a `pattern` meanwhile");
                return None;
            }
            let hint = match closest(text, LATER.iter().copied().chain(["alertmanager"])) {
                Some("alertmanager") => "did you mean `alertmanager`?",
                _ => "write `alertmanager`, or a `pattern` instead of a format",
            };
            problems.error(node.span, format!("there is no format {}", quoted(text))).hint(hint);
            None
        }
    }
}

/// With a `status` group its words decide what fires and what is resolved; without one every message that
/// fits fires, and none resolves.
fn pattern(fields: &Fields<'_>, problems: &mut Problems) -> Option<Format> {
    let node = fields.get("pattern")?;
    let text = problems.text("`pattern`", node)?;
    let pattern = match regex::RegexBuilder::new(text).size_limit(MAX_PATTERN).build() {
        Ok(pattern) => pattern,
        Err(error) => {
            let (message, hint) = match &error {
                regex::Error::CompiledTooBig(_) => {
                    ("the pattern is too large".to_owned(), "write fewer or smaller repetitions")
                }
                other => {
                    let said = other.to_string();
                    let last = said.lines().last().unwrap_or_default();
                    let last = last.strip_prefix("error: ").unwrap_or(last);
                    (
                        format!("the pattern cannot be read: {}", crate::text::clean(last, 200)),
                        "the syntax is that of https://docs.rs/regex, without look-around and back-references; \
                         within double quotes YAML needs every backslash twice, within single quotes once",
                    )
                }
            };
            problems.error(node.span, message).hint(hint);
            return None;
        }
    };
    let groups: Vec<&str> = pattern.capture_names().flatten().collect();
    if !groups.contains(&"alert") {
        problems
            .error(node.span, "the pattern does not say which part is the alert's name")
            .hint("write a group named alert: (?<alert>[\\w-]+)");
        return None;
    }
    let status = groups.contains(&"status");
    let mut words = |key: &str| -> Option<Vec<String>> {
        let Some(entry) = fields.entry(key) else { return Some(Vec::new()) };
        if !status {
            problems
                .error(entry.key_span, format!("`{key}` needs a group named status in the pattern"))
                .hint("write (?<status>\\w+); without it every message that fits is firing");
            return None;
        }
        let words = problems.texts(&format!("`{key}`"), &entry.value)?;
        Some(words.into_iter().map(|(word, _)| word).collect())
    };
    let (firing, resolved) = (words("firing")?, words("resolved")?);
    if status && firing.is_empty() {
        problems
            .error(node.span, "the pattern has a status, and no word means firing")
            .hint("write firing: [CRITICAL, …], and resolved: [OK, …]");
        return None;
    }
    if let Some(word) =
        resolved.iter().find(|word| firing.iter().any(|other| other.eq_ignore_ascii_case(word)))
    {
        let span = fields.get("resolved").map_or(node.span, |node| node.span);
        problems
            .error(span, format!("{} means firing and resolved", quoted(word)))
            .hint("keep it in one of the two");
        return None;
    }
    Some(Format::Pattern { pattern, firing, resolved })
}
