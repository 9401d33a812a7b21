//! The end of a story: everything is read, nothing happened twice, nothing leaked.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use heal::sandbox::workspace::{Message, View};

use super::{BOUND, CHANNEL, LEAD, Story};

/// Slack's answers that tell of a race and not of a mistake.
const HARMLESS: &[&str] = &["already_reacted", "no_reaction"];

impl Story {
    /// Awaits that the bot has taken all that was sent to it, and decided it.
    pub async fn settled(&mut self) {
        let taken =
            |view: &View| view.deliveries().iter().all(|one| one.lost || one.acknowledged_after.is_some());
        if self.workspace.wait_until(BOUND, taken).await.is_err() {
            panic!("something was never acknowledged.\n{}", self.transcript());
        }
        // Answered through the store, behind everything that came before.
        self.slash(LEAD, "status").await;
    }

    /// Ends the story; see the module above for what it fails on.
    pub async fn finish(mut self) {
        self.settled().await;
        self.stop_bot().await;
        let mut found: Vec<String> = Vec::new();
        for channel in [CHANNEL, "C0OPS"] {
            for message in all_of(&self, channel) {
                if message.bot_id.as_deref() == Some("B0HEAL") && !self.seen.contains(&message.ts) {
                    found.push(format!("unread in {channel}: {}", message.read()));
                }
            }
        }
        let users = self.workspace.view(|view| view.options().users.clone());
        for user in users {
            for whisper in self.workspace.ephemerals(&user.id) {
                if !self.seen.contains(&whisper.ts) {
                    found.push(format!("unread by {}: {}", user.name, whisper.read()));
                }
            }
        }
        found.extend(self.said_twice());
        found.extend(self.ran_twice());
        for call in self.workspace.calls() {
            let code = call.answer["error"].as_str().unwrap_or_default();
            let allowed = self.refusals.iter().any(|allowed| allowed == code);
            if call.answer["ok"] == false && call.status == 200 && !allowed && !HARMLESS.contains(&code) {
                found.push(format!("Slack refused {}: {} for {}", call.method, call.answer, call.body));
            }
        }
        found.extend(self.workspace.view(|view| view.too_soon().to_vec()));
        let log = self.log();
        for line in log.lines().filter(|line| line.contains("ERROR")) {
            if !self.errors.iter().any(|allowed| line.contains(allowed.as_str())) {
                found.push(format!("logged: {line}"));
            }
        }
        let secrets = self.workspace.view(|view| {
            let options = view.options();
            [options.bot_token.clone(), options.app_token.clone(), options.signing_secret.clone()]
        });
        found.extend(
            secrets
                .iter()
                .filter(|secret| log.contains(secret.as_str()))
                .map(|secret| format!("the log holds the secret {secret}")),
        );
        assert!(found.is_empty(), "{}\n{}", found.join("\n"), self.transcript());
        self.fleet.stop();
        self.workspace.stop();
    }

    /// Parts of remediations that stand in the workspace more than once.
    fn said_twice(&self) -> Vec<String> {
        let mut seen: HashSet<String> = HashSet::new();
        let payloads = all_of(self, CHANNEL).into_iter().filter_map(|message| {
            let payload = message.raw["metadata"]["event_payload"].clone();
            payload.is_object().then(|| payload.to_string())
        });
        payloads
            .filter(|payload| !seen.insert(payload.clone()))
            .map(|one| format!("said twice: {one}"))
            .collect()
    }

    /// Commands that were executed more than once on a host.
    fn ran_twice(&self) -> Vec<String> {
        let mut counts: HashMap<(String, String), usize> = HashMap::new();
        for run in self.fleet.runs() {
            *counts.entry((format!("{} {}", run.comment, run.command_id), run.host)).or_default() += 1;
        }
        counts
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(what, count)| format!("{what:?} ran {count} times"))
            .collect()
    }

    /// All that happened, for whoever reads the failure.
    pub fn transcript(&self) -> String {
        let mut out = String::from("--- the channel\n");
        for message in self.workspace.messages(CHANNEL) {
            let who = message.bot_id.clone().or(message.user.clone()).unwrap_or_default();
            let reactions = self.workspace.reactions(CHANNEL, &message.ts);
            let _ = writeln!(out, "{} {who} {reactions:?}: {}", message.ts, indent(&message.read()));
            for reply in self.workspace.thread(CHANNEL, &message.ts) {
                let who = reply.bot_id.clone().or(reply.user.clone()).unwrap_or_default();
                let _ = writeln!(out, "    {} {who}: {}", reply.ts, indent(&reply.read()));
            }
        }
        let _ = writeln!(out, "--- the log\n{}", self.log());
        out
    }
}

fn indent(text: &str) -> String {
    text.replace('\n', "\n        ")
}

fn all_of(story: &Story, channel: &str) -> Vec<Message> {
    let top = story.workspace.messages(channel);
    let threads = top.iter().flat_map(|message| story.workspace.thread(channel, &message.ts));
    let threads: Vec<Message> = threads.collect();
    top.into_iter().chain(threads).collect()
}
