//! What people read in Slack: pure functions from what is known to a message.
//!
//! Every message is a [`Said`]: blocks, and the same in one escaped text for notifications. Foreign
//! text passes through [`line::Line`] or a `rich_text_preformatted` element and nothing else, so that
//! no value of an alert, a rule or a host can become markup, a mention or a link. What is shown of a
//! plan is never clipped: a plan that one message cannot hold does not fit, see [`plan::fits`].

pub mod answer;
pub mod command;
pub mod declaration;
mod kit;
pub mod line;
pub mod missed;
mod plan;
pub mod reaction;
pub mod report;
#[cfg(test)]
mod tests;
pub mod why;

use std::collections::BTreeMap;
use std::sync::Arc;

use slack_morphism::prelude::SlackBlock;

use crate::lifecycle::Remediation;
use crate::time::Timestamp;

pub use declaration::declaration;
pub use kit::{AGAIN, APPROVE, HOLD, PAUSE, REJECT};
pub use missed::{Missed, WhyMissed};
pub use plan::fits;
pub use reaction::{reaction, reaction_for};
pub use report::{File, attachment, report};
pub use why::{not_an_approver, refused, resolved_itself, why_not, why_not_here};

/// A message: blocks, and the text that notifications and clients without blocks show.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Slack markup, escaped. Never empty.
    pub text: String,
    /// At most 50, at most 12,000 characters together (facts.md); may be empty: then `text` is all.
    pub blocks: Vec<SlackBlock>,
}

/// What a message needs to know besides its subject.
#[derive(Clone, Debug, Default)]
pub struct Context {
    pub now: Timestamp,
    /// The config's approvers as written there: user ids and `@handle`s.
    pub approvers: Vec<String>,
    /// User group ids by handle without `@`; a handle that is not here is shown as plain text.
    pub groups: Arc<BTreeMap<String, String>>,
}

impl Context {
    /// Who may approve: the rule's own approvers, else the config's.
    fn approvers_of<'a>(&'a self, this: &'a Remediation) -> &'a [String] {
        if this.policy.approvers.is_empty() { &self.approvers } else { &this.policy.approvers }
    }

    /// A line that names somebody and notifies nobody of a group; used where nobody is needed.
    fn name(&self, line: line::Line, who: &str) -> line::Line {
        if is_user_id(who) { line.user(who) } else { line.plain(who) }
    }

    /// A line that notifies: a user, or a group where its id is known.
    fn mention(&self, line: line::Line, who: &str) -> line::Line {
        match self.groups.get(who.trim_start_matches('@')) {
            Some(id) if !is_user_id(who) => line.group(id, who),
            _ => self.name(line, who),
        }
    }

    /// `@sre, <@U1> or @lead`.
    fn names(&self, mut line: line::Line, who: &[String], last: &str) -> line::Line {
        for (i, one) in who.iter().enumerate() {
            if i > 0 {
                line = line.plain(if i + 1 == who.len() { last } else { ", " });
            }
            line = self.name(line, one);
        }
        line
    }
}

/// Slack's user ids begin with U or W (docs.slack.dev, "Mentioning users").
fn is_user_id(who: &str) -> bool {
    who.len() > 2
        && who.starts_with(['U', 'W'])
        && who.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
