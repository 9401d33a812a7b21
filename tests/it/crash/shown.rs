//! What people see of remediations, read from the workspace by the metadata of the bot's messages.

use std::collections::HashSet;
use std::fmt::Write as _;

use heal::sandbox::workspace::{Message, View};

use super::world::World;
use crate::story::CHANNEL;

/// A remediation, as its messages show it.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub id: String,
    pub declaration: Option<Message>,
    pub report: Option<Message>,
    pub why_not: Option<Message>,
}

impl Shown {
    pub fn declares(&self, text: &str) -> bool {
        self.declaration.as_ref().is_some_and(|message| message.read().contains(text))
    }

    pub fn reports(&self, text: &str) -> bool {
        self.report.as_ref().is_some_and(|message| message.read().contains(text))
    }
}

/// Which part of which remediation a message of the bot is; empty where it is none.
fn part_of(message: &Message) -> (String, String) {
    let payload = &message.raw["metadata"]["event_payload"];
    let text = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
    (text("remediation"), text("part"))
}

/// The message and its replies.
fn thread(view: &View, ts: &str) -> Vec<Message> {
    view.message(CHANNEL, ts).into_iter().chain(view.thread(CHANNEL, ts)).collect()
}

/// The remediations of a thread, in the order of their first messages.
pub fn remediations(view: &View, ts: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for message in thread(view, ts) {
        let (id, part) = part_of(&message);
        if id.is_empty() {
            continue;
        }
        if !all.iter().any(|one| one.id == id) {
            all.push(Shown { id: id.clone(), ..Shown::default() });
        }
        let Some(one) = all.iter_mut().find(|one| one.id == id) else { continue };
        match part.as_str() {
            "declaration" => one.declaration = Some(message),
            "report" => one.report = Some(message),
            _ => one.why_not = Some(message),
        }
    }
    all
}

/// The newest remediation of a thread whose declaration holds `place`.
pub fn newest(view: &View, ts: &str, place: &str) -> Option<Shown> {
    remediations(view, ts).into_iter().rfind(|one| one.declares(place))
}

/// Whether this part of some remediation reads so.
pub fn has(view: &View, ts: &str, part: &str, text: &str) -> bool {
    thread(view, ts).iter().any(|message| part_of(message).1 == part && message.read().contains(text))
}

/// The newest message of a thread with this button and text.
pub fn with_button(view: &View, ts: &str, button: &str, text: &str) -> Option<Message> {
    let shows = |message: &Message| {
        message.buttons().iter().any(|one| one == button) && message.read().contains(text)
    };
    thread(view, ts).into_iter().rfind(shows)
}

/// All messages of the bot in the watched channel.
pub fn own(view: &View) -> Vec<Message> {
    let top = view.messages(CHANNEL);
    let replies = top.iter().flat_map(|message| view.thread(CHANNEL, &message.ts));
    let all = top.iter().cloned().chain(replies);
    all.filter(|message| message.bot_id.as_deref() == Some("B0HEAL")).collect()
}

/// What stands in the channel more than once.
pub fn said_twice(view: &View) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut twice = Vec::new();
    for message in own(view) {
        let payload = &message.raw["metadata"]["event_payload"];
        let files = message.raw["files"].as_array();
        let what = match files.and_then(|files| files.first()) {
            Some(file) => format!("{:?} {}", message.thread_ts, file["name"]),
            None if payload.is_object() => payload.to_string(),
            None => continue,
        };
        if !seen.insert(what.clone()) {
            twice.push(what);
        }
    }
    twice
}

/// All that happened, for whoever reads a failure.
pub fn transcript(world: &World) -> String {
    let indent = |text: &str| text.replace('\n', "\n        ");
    let mut out = String::from("--- the channel\n");
    world.workspace.view(|view| {
        for message in view.messages(CHANNEL) {
            let who = message.bot_id.clone().or(message.user.clone()).unwrap_or_default();
            let reactions = view.reactions(CHANNEL, &message.ts);
            let _ = writeln!(out, "{} {who} {reactions:?}: {}", message.ts, indent(&message.read()));
            for reply in view.thread(CHANNEL, &message.ts) {
                let _ = writeln!(out, "    {}: {}", reply.ts, indent(&reply.read()));
            }
        }
    });
    let _ = writeln!(out, "--- the steps\n{:?}", world.cut.steps());
    let _ = writeln!(out, "--- the log\n{}", world.log.text());
    out
}
