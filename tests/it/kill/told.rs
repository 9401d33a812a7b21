//! What heal has told about one alert message so far, read from the workspace as people read it.

use std::collections::BTreeMap;

use heal::sandbox::workspace::{Message as Said, View};
use serde_json::Value;

use super::stream::Message;
use crate::story::CHANNEL;

/// As the words stand in declarations and reports.
const OUTCOMES: [&str; 10] = [
    "healed",
    "not needed",
    "failed",
    "timed out",
    "unresolved",
    "rejected",
    "expired",
    "held",
    "cancelled",
    "unknown",
];

/// All that stands in the thread about one remediation.
#[derive(Clone, Debug, Default)]
pub struct Remediation {
    pub declarations: Vec<String>,
    pub reports: Vec<String>,
    pub why_nots: Vec<String>,
    /// Any other part of a thread.
    pub others: Vec<String>,
}

/// What is told about one alert message.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// By the remediation's id.
    pub remediations: BTreeMap<String, Remediation>,
    /// Lines in lists of missed alerts that link to this message.
    pub missed: usize,
    /// Messages of the thread that show the button Approve now.
    pub buttons: Vec<String>,
    /// The bot's reactions.
    pub reactions: Vec<String>,
}

/// Reads all of it. `missed`: the lists of missed alerts, see [`missed_since`].
pub fn told(view: &View, message: &Message, missed: &[String]) -> Told {
    let mut told = Told::default();
    for said in view.thread(CHANNEL, &message.ts) {
        let payload = &said.raw["metadata"]["event_payload"];
        let (Some(id), Some(part)) = (payload["remediation"].as_str(), payload["part"].as_str()) else {
            continue;
        };
        let one = told.remediations.entry(id.to_owned()).or_default();
        match part {
            "declaration" => one.declarations.push(said.read()),
            "report" => one.reports.push(said.read()),
            "why_not" => one.why_nots.push(said.read()),
            _ => one.others.push(said.read()),
        }
        if said.buttons().iter().any(|button| button == "Approve") {
            told.buttons.push(said.ts);
        }
    }
    told.reactions = view.reactions(CHANNEL, &message.ts).into_iter().map(|(name, _)| name).collect();
    let link = format!("p{}", message.ts.replace('.', ""));
    told.missed = missed.iter().flat_map(|list| list.lines()).filter(|line| line.contains(&link)).count();
    told
}

/// Lists of missed alerts that were posted by calls from number `from` on. Found by the calls, and each call
/// looked at once: reading a channel of thousands, or thousands of calls, again and again takes the
/// machine from the bots.
pub fn missed_since(view: &View, from: usize) -> Vec<String> {
    let calls = view.calls().iter().skip(from).filter(|call| call.method == "chat.postMessage");
    let lists = calls.filter(|call| is_list(&call.body));
    let found = lists.filter_map(|call| view.message(CHANNEL, call.answer["ts"].as_str()?));
    found.map(|said| said.read()).collect()
}

/// The same at the end, out of everything that stands in the channel.
pub fn missed_lists(top: &[Said]) -> Vec<String> {
    top.iter().filter(|said| is_list(&said.raw)).map(Said::read).collect()
}

fn is_list(message: &Value) -> bool {
    message["metadata"]["event_payload"]["announcement"].is_string()
}

impl Remediation {
    /// The outcome that the declaration shows.
    pub fn outcome(&self) -> Option<&'static str> {
        outcome_in(self.declarations.first()?)
    }

    /// Whether all that is to be told about it is told, and all of it says the same.
    fn is_over(&self) -> bool {
        match self.outcome() {
            Some(outcome) => self.reports.iter().all(|report| outcome_in(report) == Some(outcome)),
            None => self.declarations.is_empty() && !self.why_nots.is_empty(),
        }
    }

    fn has_run(&self) -> bool {
        !self.reports.is_empty() || self.is_over()
    }
}

impl Told {
    /// Alerts of the message of which something is told.
    pub fn count(&self) -> usize {
        self.remediations.len() + self.missed
    }

    /// Every alert of the message has its run behind it, or will have none.
    pub fn has_run(&self, message: &Message) -> bool {
        self.count() >= message.hosts.len() && self.remediations.values().all(Remediation::has_run)
    }

    /// Every alert of the message has its end, and it is shown.
    pub fn is_over(&self, message: &Message) -> bool {
        self.count() >= message.hosts.len()
            && self.remediations.values().all(Remediation::is_over)
            && (self.remediations.is_empty() || self.reactions.iter().any(|name| is_final(name)))
    }
}

/// The first bold word of a message is its outcome, once there is one.
fn outcome_in(text: &str) -> Option<&'static str> {
    let bold = text.split('*').nth(1)?;
    OUTCOMES.into_iter().find(|outcome| *outcome == bold)
}

/// Reactions of outcomes (`message::reaction`).
fn is_final(name: &str) -> bool {
    matches!(
        name,
        "white_check_mark"
            | "ok"
            | "x"
            | "alarm_clock"
            | "warning"
            | "no_entry_sign"
            | "zzz"
            | "double_vertical_bar"
            | "leftwards_arrow_with_hook"
            | "question"
    )
}
