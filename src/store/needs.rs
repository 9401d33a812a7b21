//! What a transaction will probably look at, told before its turn. A database over a network reads it for
//! all transactions of a commit at once; what was not named is read when it is asked for, one by one.

use crate::alert::{Alert, Origin};
use crate::lifecycle::RemediationId;
use crate::rule::RuleKey;

/// Names only; what is wrong or missing costs time and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Deliveries to be taken.
    pub(super) deliveries: Vec<String>,
    pub(super) notes: Vec<String>,
    /// With all that the gates look at for them.
    pub(super) remediations: Vec<RemediationId>,
    /// Channel and `ts` of messages whose remediations are asked for.
    pub(super) threads: Vec<(String, String)>,
    pub(super) alerts: Vec<Coming>,
    pub(super) standings: Vec<Stand>,
}

/// An alert that is to be kept.
#[derive(Clone, Debug)]
pub(super) struct Coming {
    pub(super) channel: String,
    pub(super) ts: String,
    pub(super) sender: String,
    pub(super) identity: String,
}

/// A rule on an instance of a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stand {
    pub(super) rule: String,
    pub(super) instance: String,
    pub(super) role: String,
}

impl Needs {
    pub fn delivery(mut self, id: String) -> Needs {
        self.deliveries.push(id);
        self
    }

    pub fn note(mut self, name: String) -> Needs {
        self.notes.push(name);
        self
    }

    pub fn remediation(mut self, id: &RemediationId) -> Needs {
        self.remediations.push(id.clone());
        self
    }

    pub fn remediations<'a>(mut self, ids: impl IntoIterator<Item = &'a RemediationId>) -> Needs {
        self.remediations.extend(ids.into_iter().cloned());
        self
    }

    /// All remediations in the thread of this message.
    pub fn thread(mut self, channel: &str, ts: &str) -> Needs {
        self.threads.push((channel.to_owned(), ts.to_owned()));
        self
    }

    /// An alert that is to be kept.
    pub fn alert(mut self, origin: &Origin, alert: &Alert) -> Needs {
        self.alerts.push(Coming {
            channel: origin.channel.clone(),
            ts: origin.ts.clone(),
            sender: origin.sender.clone(),
            identity: alert.identity(),
        });
        self
    }

    /// How a rule stands on an instance of a role.
    pub fn standing(mut self, rule: &RuleKey, instance: &str, role: &str) -> Needs {
        self.standings.push(Stand {
            rule: rule.to_string(),
            instance: instance.to_owned(),
            role: role.to_owned(),
        });
        self
    }

    pub(super) fn append(&mut self, more: &Needs) {
        self.deliveries.extend_from_slice(&more.deliveries);
        self.notes.extend_from_slice(&more.notes);
        self.remediations.extend_from_slice(&more.remediations);
        self.threads.extend_from_slice(&more.threads);
        self.alerts.extend_from_slice(&more.alerts);
        self.standings.extend_from_slice(&more.standings);
    }
}
