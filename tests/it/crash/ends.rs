//! What a story's end is held to: the outcome is shown in every place, each message stands once, the
//! cure did its work as often as it should, and nothing is left to do.

use std::time::Duration;

use heal::sandbox::workspace::View;

use super::shown::{self, Shown};
use super::world::{BOUND, Told, World};
use crate::story::{Alert, CHANNEL};

/// The bot is done when it has made no step for so long; reactions are gathered for a quarter of a second.
const QUIET: Duration = Duration::from_millis(400);

/// How a remediation ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// With this word in its declaration and in its report.
    Ran(&'static str),
    /// With this word in its declaration; there is no report.
    Declared(&'static str),
    /// Nothing was declared, and one line says why, with this text.
    Not(&'static str),
}

impl End {
    fn is_shown(self, this: &Shown) -> bool {
        let quiet = |message: &heal::sandbox::workspace::Message| {
            !message.buttons().iter().any(|button| ["Approve", "Reject", "Hold"].contains(&button.as_str()))
        };
        let declared = this.declaration.as_ref();
        match self {
            End::Ran(word) => this.declares(word) && this.reports(word) && declared.is_some_and(quiet),
            End::Declared(word) => {
                this.declares(word) && this.report.is_none() && declared.is_some_and(quiet)
            }
            End::Not(text) => {
                declared.is_none()
                    && this.report.is_none()
                    && this.why_not.as_ref().is_some_and(|message| message.read().contains(text))
            }
        }
    }
}

impl World {
    /// Awaits that the alert shows this reaction alone, and the newest remediation of each of these
    /// hosts this end. The host of what was never declared is not told, so it is empty.
    pub async fn ends(&mut self, alert: &Alert, reaction: &str, ends: &[(&str, End)]) -> Told {
        let ts = alert.ts.clone();
        let as_it_should = |view: &View| {
            let all = view.reactions(CHANNEL, &ts);
            let alone = all.len() == 1 && all[0].0 == reaction && all[0].1 == ["U0HEAL"];
            alone
                && ends.iter().all(|(host, end)| {
                    let remediations = shown::remediations(view, &ts);
                    let newest = match host.is_empty() {
                        true => remediations.into_iter().next_back(),
                        false => shown::newest(view, &ts, &format!("`{host}`")),
                    };
                    newest.is_some_and(|this| end.is_shown(&this))
                })
        };
        self.until(&format!("the end {reaction} {ends:?}"), as_it_should).await
    }

    /// Ends the replay: the cure did its work so often on each host, and nothing is left or double.
    pub async fn finish(mut self, cures: &[(&str, usize)]) -> Told {
        self.settled().await?;
        // A busy machine may need longer than the rest lasted. What stays owed is told below.
        let since = std::time::Instant::now();
        while !self.database.owed().is_empty() && since.elapsed() < BOUND {
            self.quiet().await?;
        }
        self.cut.disarm();
        self.leave().await?;
        let mut found = self.workspace.view(shown::said_twice);
        for (host, count) in cures {
            let did = self.cures(host);
            if did != *count {
                found.push(format!("the cure did its work {did} times on {host}, not {count}"));
            }
        }
        for host in self.fleet.all_hosts() {
            let name = &host.spec.name;
            if !cures.iter().any(|(host, _)| host == name) && self.cures(name) > 0 {
                found.push(format!("the cure did its work on {name}"));
            }
        }
        found.extend(self.database.left_over());
        if found.is_empty() { Ok(()) } else { Err(self.fault(&found.join("\n"))) }
    }

    /// Awaits that every event was taken and the bot makes no more steps.
    pub async fn settled(&mut self) -> Told {
        let forgotten = self.forgotten;
        let heard = move |view: &View| {
            let mut all = view.deliveries().iter().skip(forgotten);
            all.all(|one| one.acknowledged_after.is_some() || one.lost && one.kind != "events_api")
        };
        self.until("the acknowledgement of every event", heard).await?;
        self.quiet().await
    }

    /// Slack gives up the events that nobody has taken; only the history has them.
    pub async fn forget(&mut self) -> Told {
        self.workspace.give_up();
        let given_up =
            |view: &View| view.deliveries().iter().all(|one| one.acknowledged_after.is_some() || one.lost);
        self.until("the end of all deliveries", given_up).await?;
        self.forgotten = self.workspace.view(|view| view.deliveries().len());
        Ok(())
    }

    /// Awaits that the bot makes no more steps.
    async fn quiet(&mut self) -> Told {
        let settled = async {
            let mut count = self.cut.steps().len();
            loop {
                tokio::time::sleep(QUIET).await;
                let now = self.cut.steps().len();
                if now == count && !self.cut.has_ended() {
                    return;
                }
                count = now;
            }
        };
        if tokio::time::timeout(BOUND, settled).await.is_err() {
            return Err(self.fault("the bot does not come to rest"));
        }
        self.lives().await
    }
}
