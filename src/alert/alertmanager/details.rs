//! The alerts that a message lists label by label, one block of lines each.
//!
//! Read are the widely copied "details" template (`*Alert:*`, `*Details:*`, `• *label:* `value``), the
//! `Labels:` / `Annotations:` lists of Alertmanager's own templates, and heal's template (see the
//! parent module). A label said twice with two values is forged or broken: neither is believed.

use std::collections::BTreeMap;

use super::subject::{Subject, undecorated};
use crate::alert::Status;

/// Labels of one alert and lines of one text that are read.
const MAX_LABELS: usize = 200;
const MAX_LINES: usize = 20_000;

/// What the lines of one alert say. Values are raw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed<'a> {
    pub status: Option<Status>,
    /// The name in the heading line, `*FIRING* Name — summary`.
    pub name: Option<&'a str>,
    pub summary: Option<&'a str>,
    /// The word behind the heading of the details template, `` - `critical` ``.
    pub severity: Option<&'a str>,
    /// `None` where the message says the label with two values.
    pub labels: BTreeMap<String, Option<&'a str>>,
    /// `description`, `summary` and other prose, by lower-case name.
    pub notes: BTreeMap<String, &'a str>,
}

impl<'a> Listed<'a> {
    /// A label that is said, and said once.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        self.labels.get(name).copied().flatten()
    }

    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.name.is_none()
    }

    /// Keeps the label as one whose value cannot be told.
    fn doubt(&mut self, name: &str) {
        if self.labels.len() < MAX_LABELS {
            self.labels.insert(name.to_owned(), None);
        }
    }

    pub(super) fn add(&mut self, name: &str, value: &'a str) {
        if self.labels.len() >= MAX_LABELS {
            return;
        }
        let entry = self.labels.entry(name.to_owned()).or_insert(Some(value));
        if *entry != Some(value) {
            *entry = None;
        }
    }
}

/// The alerts listed in `text`; those without a single label or name are left out.
pub(super) fn list(text: &str) -> Vec<Listed<'_>> {
    let mut scan = Scan::default();
    for line in text.lines().take(MAX_LINES) {
        scan.line(line);
    }
    scan.flush();
    scan.done
}

#[derive(Default)]
struct Scan<'a> {
    done: Vec<Listed<'a>>,
    current: Listed<'a>,
    /// The status that a heading gave to all alerts below it.
    section: Option<Status>,
    annotations: bool,
    gap: bool,
}

impl<'a> Scan<'a> {
    fn flush(&mut self) {
        let fresh = Listed { status: self.section, ..Listed::default() };
        let done = std::mem::replace(&mut self.current, fresh);
        if !done.is_empty() {
            self.done.push(done);
        }
        self.annotations = false;
    }

    fn line(&mut self, line: &'a str) {
        let bare = line.trim();
        if bare.is_empty() {
            self.gap = true;
            return;
        }
        if let Some(status) = section(bare) {
            self.section = Some(status);
            self.flush();
        } else if let Some((status, rest)) = heading(bare) {
            self.flush();
            self.current.status = Some(status);
            let (name, summary) = match rest.split_once(" — ").or_else(|| rest.split_once(" - ")) {
                Some((name, summary)) => (name, Some(summary.trim())),
                None => (rest, None),
            };
            self.current.name = Some(name.trim().trim_matches(['*', '`'])).filter(|name| !name.is_empty());
            self.current.summary = summary.filter(|summary| !summary.is_empty());
        } else if is_word(bare, "labels") {
            self.flush();
        } else if is_word(bare, "annotations") {
            self.annotations = true;
        } else if let Some(pair) = Pair::parse(bare) {
            self.pair(pair);
        }
        self.gap = false;
    }

    fn pair(&mut self, pair: Pair<'a>) {
        let lower = pair.name.to_ascii_lowercase();
        match lower.as_str() {
            "alert" if !pair.bullet => {
                self.flush();
                let (summary, severity) = with_severity(pair.value);
                self.current.summary = Some(summary).filter(|summary| !summary.is_empty());
                self.current.severity = severity;
                // A custom template may write the name here; the labels decide where there are any.
                return;
            }
            "status" | "state" if status_word(pair.value).is_some() => {
                self.current.status = status_word(pair.value);
                return;
            }
            _ => {}
        }
        if self.annotations || (!pair.quoted && PROSE.contains(&lower.as_str())) {
            if self.current.notes.len() < MAX_LABELS {
                self.current.notes.entry(lower).or_insert(pair.value);
            }
            return;
        }
        let name = if pair.bullet { pair.name.to_owned() } else { lower.replace(' ', "_") };
        let repeated = self.current.labels.contains_key(&name);
        if repeated && (name == "alertname" || self.gap) {
            self.flush();
        }
        if pair.quoted && pair.value.contains('`') {
            // Several labels on one line, or a value that poses as them: where it ends is anybody's guess.
            self.current.doubt(&name);
        } else {
            self.current.add(&name, pair.value);
        }
    }
}

/// Names of prose in the templates that people copy; what they hold is no label.
const PROSE: &[&str] = &[
    "alert",
    "annotations",
    "dashboard",
    "description",
    "details",
    "generator",
    "graph",
    "message",
    "panel",
    "query",
    "runbook",
    "runbook_url",
    "silence",
    "source",
    "summary",
    "title",
    "dashboard_url",
];

/// `• *name:* `value``, `- name = value`, `*Name:* value`.
struct Pair<'a> {
    name: &'a str,
    value: &'a str,
    /// Whether the line is a bullet; such names are labels as they stand.
    bullet: bool,
    /// Whether the value stands in backticks.
    quoted: bool,
}

impl<'a> Pair<'a> {
    fn parse(line: &'a str) -> Option<Pair<'a>> {
        let plain = line.strip_prefix(['•', '◦', '-', '–', '·']).or_else(|| line.strip_prefix("* "));
        let bullet = plain.is_some();
        let rest = plain.unwrap_or(line).trim_start();
        let (name, value) = if let Some(bold) = rest.strip_prefix('*') {
            let bold = bold.strip_prefix('*').unwrap_or(bold);
            // The name ends at whichever way of closing comes first.
            let colon = bold.find(":*").map(|at| (at, 2));
            let star = bold.find("*:").map(|at| (at, 2));
            let (at, len) = [colon, star].into_iter().flatten().min()?;
            (&bold[..at], bold[at + len..].trim_start_matches('*'))
        } else if bullet {
            let at = rest.find([':', '='])?;
            (&rest[..at], &rest[at + 1..])
        } else {
            return None;
        };
        let name = name.trim().trim_matches('`');
        let shaped = name.len() <= 100
            && name.starts_with(|ch: char| ch.is_ascii_alphabetic() || ch == '_')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || (!bullet && byte == b' '));
        let value = value.trim();
        let inner = value.strip_prefix('`').and_then(|value| value.strip_suffix('`'));
        let quoted = inner.is_some();
        let value = inner.unwrap_or(value).trim_matches('"');
        (shaped && !value.trim().is_empty()).then_some(Pair { name, value, bullet, quoted })
    }
}

/// `x - `critical`` → `x` and `critical`, the details template's heading.
fn with_severity(value: &str) -> (&str, Option<&str>) {
    let Some((summary, word)) = value.strip_suffix('`').and_then(|value| value.rsplit_once('`')) else {
        return (value, None);
    };
    match summary.trim_end().strip_suffix('-') {
        Some(summary) => (summary.trim(), Some(word.trim()).filter(|word| !word.is_empty())),
        None if summary.trim().is_empty() => (word, None),
        None => (value, None),
    }
}

/// `*Alerts Firing:*`, `Resolved (2):`, `🔥 *Firing*`: a heading for all alerts below it.
fn section(line: &str) -> Option<Status> {
    let words = line.split(|ch: char| !ch.is_alphabetic()).filter(|word| !word.is_empty());
    let mut status = None;
    for word in words.take(6) {
        match status_word(word) {
            Some(found) if status.is_none() => status = Some(found),
            Some(_) => return None,
            None if [
                "alert",
                "alerts",
                "currently",
                "fire",
                "white",
                "check",
                "mark",
                "rotating",
                "light",
                "red",
                "green",
                "circle",
                "large",
            ]
            .iter()
            .any(|known| word.eq_ignore_ascii_case(known)) => {}
            None => return None,
        }
    }
    // A line that begins like a subject has a name behind it and is none of these; but one
    // without a name, `[FIRING:1]`, is.
    status.filter(|_| Subject::parse(line).is_none_or(|subject| subject.words.is_empty()))
}

/// `*FIRING* Name — summary`, `[RESOLVED] Name`: the heading of one alert.
fn heading(line: &str) -> Option<(Status, &str)> {
    let bare = undecorated(line);
    let (word, rest) = match bare.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None if line.contains('*') => bare.split_once('*')?,
        None => return None,
    };
    // Template authors shout; a sentence that begins with "Resolved" is no heading.
    let shouted = word.trim_end_matches(':').trim();
    let status = status_word(shouted).filter(|_| shouted.bytes().all(|byte| byte.is_ascii_uppercase()))?;
    let rest = undecorated(rest.trim());
    (!rest.is_empty()).then_some((status, rest))
}

fn status_word(word: &str) -> Option<Status> {
    let word = word.trim();
    if word.eq_ignore_ascii_case("firing") {
        Some(Status::Firing)
    } else if word.eq_ignore_ascii_case("resolved") {
        Some(Status::Resolved)
    } else {
        None
    }
}

fn is_word(line: &str, word: &str) -> bool {
    line.trim_matches(['*', ':', ' ', '_']).eq_ignore_ascii_case(word)
}
