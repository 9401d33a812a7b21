//! What was missed, said in its channel once: gathered in a note while history is read, closed with
//! the reading, posted with metadata to find it by, and gone from the store when Slack has it.

use serde::{Deserialize, Serialize};

use super::catch_up::Trouble;
use super::{Engine, fresh_id, perform};
use crate::message::{self, Missed};
use crate::slack::send::{Call, Done, Job, Priority};
use crate::slack::{Metadata, Post};
use crate::store::{self, Tx};

/// What was missed in a channel and is to be said there, kept until Slack has it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Untold {
    /// By which the message is found when the answer to its posting was lost.
    id: String,
    /// It may have been posted: nothing is added any more.
    closed: bool,
    named: Vec<Missed>,
    more: usize,
    cut: bool,
}

impl Engine {
    /// As [`Engine::tell_missed`]; what fails is tried again with the next reading, or in a while.
    pub(super) async fn try_to_tell(&self, channel: &str, again: bool) {
        match self.tell_missed(channel, again).await {
            Ok(()) | Err(Trouble::Store(store::Error::Stopped)) => {}
            Err(Trouble::Store(error)) => self.store_failed("saying what was missed", &error),
            Err(Trouble::Slack(error)) => {
                tracing::warn!(channel, %error, "what was missed could not be said in {channel} yet");
            }
        }
    }

    /// Says in the channel what was missed there, where that is still to be said. `again`: it may
    /// have been said before a restart.
    pub(super) async fn tell_missed(&self, channel: &str, again: bool) -> Result<(), Trouble> {
        let name = untold(channel);
        let found = self.store().transact(move |tx| untold_in(tx, &name)).await?;
        let Some(untold) = found.filter(|untold| untold.closed) else { return Ok(()) };
        let base = self.parts().identity.url.trim_end_matches('/');
        let link = |ts: &str| format!("{base}/archives/{channel}/p{}", ts.replace('.', ""));
        let said = message::missed::missed(&untold.named, untold.more, untold.cut, link, &self.words());
        let post = Post {
            channel: channel.to_owned(),
            thread_ts: None,
            text: perform::text(said),
            metadata: Some(Metadata {
                event_type: "heal".to_owned(),
                payload: serde_json::json!({ "part": "missed", "missed": untold.id }),
            }),
        };
        let job = Job::new(Call::Post(post), Priority::Declaration);
        let job = if again { job.maybe_done() } else { job };
        match self.parts().queue.submit(job).await {
            Done::Sent { .. } | Done::Superseded => {}
            Done::GaveUp(error) if error.is_permanent() => {
                self.metrics().slack_given_up.inc();
                let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
                tracing::error!(channel, %error, "what was missed could not be said in {channel}: {error}{hint}");
            }
            Done::GaveUp(error) => return Err(error.into()),
        }
        let name = self::untold(channel);
        Ok(self.store().transact(move |tx| tx.set_note(&name, "")).await?)
    }
}

/// What one message of the past tells of is added to what is to be said.
pub(super) fn add_missed(tx: &mut dyn Tx, channel: &str, missed: Vec<Missed>) -> store::Result<()> {
    if missed.is_empty() {
        return Ok(());
    }
    let name = untold(channel);
    let mut untold =
        untold_in(tx, &name)?.unwrap_or_else(|| Untold { id: fresh_id().0, ..Untold::default() });
    for one in missed {
        if untold.named.len() < message::missed::NAMED {
            untold.named.push(one);
        } else {
            untold.more += 1;
        }
    }
    keep_untold(tx, &name, &untold)
}

/// The reading is over: what it missed is said from now on, and nothing is added to it. How many.
pub(super) fn close_missed(tx: &mut dyn Tx, channel: &str, cut: bool) -> store::Result<usize> {
    let name = untold(channel);
    let found = untold_in(tx, &name)?;
    if found.is_none() && !cut {
        return Ok(0);
    }
    let mut untold = found.unwrap_or_else(|| Untold { id: fresh_id().0, ..Untold::default() });
    untold.cut |= cut;
    untold.closed = true;
    keep_untold(tx, &name, &untold)?;
    Ok(untold.named.len() + untold.more)
}

/// What is kept under this name; a note that cannot be read is none.
fn untold_in(tx: &mut dyn Tx, name: &str) -> store::Result<Option<Untold>> {
    Ok(tx.note(name)?.and_then(|body| serde_json::from_str(&body).ok()))
}

fn keep_untold(tx: &mut dyn Tx, name: &str, untold: &Untold) -> store::Result<()> {
    let body = serde_json::to_string(untold)
        .map_err(|error| store::Error::Corrupt { what: "note", why: error.to_string() })?;
    tx.set_note(name, &body)
}

/// Where it is kept what is still to be said in a channel.
fn untold(channel: &str) -> String {
    format!("missed:{channel}")
}
