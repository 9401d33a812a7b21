//! Posts that belong to no remediation: announcements, and what was missed. Owed in the transaction
//! that has something to announce, posted after it, and looked for before they are posted again.

use serde::{Deserialize, Serialize};

use super::decide::Decided;
use super::later::is_out_of_time;
use super::{Engine, fresh_id};
use crate::message::Said;
use crate::slack::send::{Call, Done, Job, Priority};
use crate::slack::{Metadata, Post, Text};
use crate::store::{self, Needs, Notice, Tx};
use crate::time::Timestamp;

/// A notice's body in the store.
#[derive(Serialize, Deserialize)]
struct Body {
    text: String,
    blocks: Vec<slack_morphism::prelude::SlackBlock>,
}

/// Owes `said` to these channels.
pub(super) fn owe(
    tx: &mut dyn Tx,
    channels: &[String],
    said: &Said,
    now: Timestamp,
    out: &mut Decided,
) -> store::Result<()> {
    let body = serde_json::to_string(&Body { text: said.text.clone(), blocks: said.blocks.clone() })
        .map_err(|error| store::Error::Corrupt { what: "notice", why: error.to_string() })?;
    for channel in channels {
        let (channel, body) = (channel.clone(), body.clone());
        let notice = Notice { id: fresh_id().0, owed_at: now, channel, body };
        tx.owe_notice(&notice)?;
        out.notices.push(notice);
    }
    Ok(())
}

impl Engine {
    /// Posts a notice that is in hand. `again`: it may have been posted by a process that is gone.
    pub(super) fn announce(&self, notice: Notice, again: bool) {
        let Ok(body) = serde_json::from_str::<Body>(&notice.body) else {
            tracing::error!(notice = notice.id, "a stored notice cannot be read and is passed over");
            return;
        };
        let post = Post {
            channel: notice.channel.clone(),
            thread_ts: None,
            text: Text { text: body.text, blocks: body.blocks.into() },
            metadata: Some(Metadata {
                event_type: "heal".to_owned(),
                payload: serde_json::json!({ "announcement": notice.id }),
            }),
        };
        let job = Job::new(Call::Post(post), Priority::Declaration);
        let job = if again { job.maybe_done() } else { job };
        let done = self.parts().queue.submit(job);
        let engine = self.clone();
        tokio::spawn(async move {
            let channel = &notice.channel;
            match done.await {
                Done::Sent { .. } | Done::Superseded => {}
                Done::GaveUp(error) if is_out_of_time(&error, notice.owed_at, engine.clock().now()) => {
                    engine.metrics().slack_given_up.inc();
                    let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
                    tracing::error!(channel, %error, "an announcement could not be posted in {channel}: {error}{hint}");
                }
                Done::GaveUp(error) => {
                    let failures = engine.0.later.failed(&notice.id);
                    engine.until_again(channel, &error, failures).await;
                    return engine.announce(notice, true);
                }
            }
            let id = notice.id.clone();
            engine
                .persist("keeping that an announcement was posted", Needs::default(), move |tx, _| {
                    tx.settle_notice(&id).map(|()| Decided::default())
                })
                .await;
            engine.0.in_hand.end_notice(&notice.id);
        });
    }
}
