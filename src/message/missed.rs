//! What heal could not hear in time: one message for all of it, in the channel.
//!
//! A thread under each would wake people for what is over; silence would hide what still burns.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{Timestamp, say_duration};

use super::line::Line;
use super::{Context, Said};

/// Alerts that are named; the rest is counted.
pub const NAMED: usize = 20;

/// An alert that a rule would have answered, had heal heard it in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The rule's key.
    pub key: String,
    /// As the alert names it; may be empty.
    pub host: String,
    pub why: WhyMissed,
    /// When it was posted, by Slack's clock.
    pub at: Timestamp,
    /// Its message in the channel.
    pub ts: String,
}

/// Why it was not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyMissed {
    /// It was over by then.
    Resolved,
    /// Older than `limits.max_age`.
    Old,
    /// The message was edited since; what it said at first cannot be known.
    Edited,
}

impl WhyMissed {
    /// For the journal.
    pub fn name(self) -> &'static str {
        match self {
            WhyMissed::Resolved => "resolved",
            WhyMissed::Old => "too old",
            WhyMissed::Edited => "edited",
        }
    }
}

/// The message. `more`: how many are not among `named`; `cut`: the history was longer than heal reads;
/// `link` gives the address of a message by its `ts`.
pub fn missed(
    named: &[Missed],
    more: usize,
    cut: bool,
    link: impl Fn(&str) -> String,
    context: &Context,
) -> Said {
    let count = named.len() + more;
    let mut lines = Vec::new();
    if count > 0 {
        let noun = if count == 1 { "alert" } else { "alerts" };
        let head = Line::new().ours(":zzz: ").bold(&format!("{count} {noun} missed, not acted on"));
        lines.push(head.ours(": heal was not running or not connected to Slack."));
    }
    for one in named {
        let mut line = Line::new().ours("• ").code(&one.key);
        if !one.host.is_empty() {
            line = line.ours(" on ").code(&one.host);
        }
        line = line.ours(", ").link(&link(&one.ts), "posted").ours(" ").time(one.at, context.now);
        lines.push(match one.why {
            WhyMissed::Resolved => line.ours(": resolved"),
            WhyMissed::Old => {
                let minutes = context.now.since(one.at).as_secs() / 60;
                let age = say_duration(Duration::from_secs(minutes.max(1) * 60));
                line.said(format_args!(": {age} old, may still fire"))
            }
            WhyMissed::Edited => line.ours(": edited since, may still fire"),
        });
    }
    if more > 0 {
        lines.push(Line::new().said(format_args!("and {more} more.")));
    }
    if cut {
        let line = Line::new().ours(":zzz: More was posted meanwhile than heal reads afterwards; ");
        lines.push(line.ours("the oldest of it was not looked at."));
    }
    super::answer::said(lines)
}
