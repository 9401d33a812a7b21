//! A workspace, a fleet and one bot as a process of its own between them.

use std::path::Path;
use std::time::Duration;

use heal::sandbox::fleet::{Fleet, Options as Hosts};
use heal::sandbox::workspace::{DeliveryRecord, Message, Options, Posting, View, Workspace};

use super::replica::Replica;
use crate::story::alert::attachments;
use crate::story::{BOUND, CHANNEL};

/// Writes `heal.yaml` and the rules into a folder. `store` is a URL; `more` are lines of `heal.yaml`.
pub fn furnish(folder: &Path, store: &str, rules: &str, more: &str) {
    let config = format!(
        "senders: [{{name: prometheus, format: alertmanager, bot_id: B0PROM}}]\n\
         approvers: [\"@sre\"]\n\
         aws: {{region: ap-northeast-1}}\n\
         store: \"{store}\"\n\
         listen: 127.0.0.1:0\n\
         {more}\n"
    );
    std::fs::write(folder.join("heal.yaml"), config).unwrap();
    std::fs::create_dir(folder.join("rules")).unwrap();
    std::fs::write(folder.join("rules/rules.yaml"), rules).unwrap();
}

/// The three of them. The bot is not started yet.
pub struct Place {
    pub workspace: Workspace,
    pub fleet: Fleet,
    pub bot: Replica,
    pub folder: tempfile::TempDir,
}

impl Place {
    /// `db` is the file of the store, within the place's folder; `slack` are the members of `slack:`.
    pub async fn new(rules: &str, db: &str, slack: &str, workspace: Options, fleet: Hosts) -> Place {
        let workspace = Workspace::start(workspace).unwrap();
        let fleet = Fleet::start(fleet).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", folder.path().join(db).display());
        let slack = format!("slack: {{{slack}}}");
        furnish(folder.path(), &store, rules, &slack);
        let bot = Replica::new("heal", folder.path(), &workspace, &fleet);
        Place { workspace, fleet, bot, folder }
    }

    /// The monitoring says that this fires on (or is over at) this host; the message's stamp.
    pub fn post(&self, firing: bool, name: &str, host: &str) -> String {
        self.post_in(CHANNEL, firing, name, host)
    }

    pub fn post_in(&self, channel: &str, firing: bool, name: &str, host: &str) -> String {
        let posting = Posting::of_sender("B0PROM", channel, "");
        self.workspace.post_message(posting.attachments(attachments(firing, "web", name, &[host]))).unwrap()
    }

    /// Awaits that something can be found in the workspace.
    pub async fn find<T>(&self, what: &str, look: impl FnMut(&View) -> Option<T>) -> T {
        match self.workspace.wait_for(BOUND, look).await {
            Ok(found) => found,
            Err(_) => {
                let top = self.workspace.messages(CHANNEL);
                let threads: Vec<Vec<String>> = top
                    .iter()
                    .map(|one| self.workspace.thread(CHANNEL, &one.ts).iter().map(Message::read).collect())
                    .collect();
                panic!("{what} did not come: {threads:#?}\n{}", self.bot.tail())
            }
        }
    }

    /// Awaits a message in the alert's thread that can be read so.
    pub async fn said(&self, alert: &str, text: &str) -> Message {
        let look = |view: &View| {
            view.thread(CHANNEL, alert).into_iter().find(|message| message.read().contains(text))
        };
        self.find(&format!("{text:?}"), look).await
    }

    /// Awaits that `/readyz` answers with this status; the rest of the answer.
    pub async fn readyz(&mut self, status: u16) -> String {
        let asked = async {
            loop {
                let (got, text) = self.bot.probe().await;
                if got == status {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let asked = tokio::time::timeout(BOUND, asked).await;
        asked.unwrap_or_else(|_| panic!("/readyz is never {status}:\n{}", self.bot.tail()))
    }

    /// What became of the newest event.
    pub fn newest_delivery(&self) -> DeliveryRecord {
        self.workspace.view(|view| view.deliveries().last().unwrap().clone())
    }

    /// Parts of threads that stand there more than once, by their metadata.
    pub fn said_twice(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let top = self.workspace.messages(CHANNEL);
        let threads = top.iter().flat_map(|message| self.workspace.thread(CHANNEL, &message.ts));
        let payloads = top.iter().cloned().chain(threads).map(|message| message.raw["metadata"].to_string());
        payloads.filter(|payload| payload != "null" && !seen.insert(payload.clone())).collect()
    }
}
