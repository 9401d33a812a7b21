//! What an alert is, and how one is read from a sender's message; one file per format.
//!
//! Messages are read from their raw JSON: a field of an odd type costs that field and never the
//! alert. What a reader cannot make an alert of is [`Reading::Unreadable`] with the reason, so
//! that it can be counted and shown; nothing vanishes.

mod alertmanager;
mod blocks;
mod host;
mod markup;
mod message;
mod pattern;
mod read;
mod sender;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

pub use alertmanager::TEMPLATE as ALERTMANAGER_TEMPLATE;
pub use message::{Attachment, Event, Field, Malformed, Message};
pub use read::read;
pub use sender::{Format, Sender, trusted};

/// Whether the condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Firing,
    Resolved,
}

/// One condition on one instance, as a sender's message tells it. All texts are unescaped,
/// cleaned of invisible characters and bounded (see [`crate::text::clean`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The alert's name, the right side of a rule key. Never empty.
    pub name: String,
    pub status: Status,
    /// The service group, the left side of a rule key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The host as the alert names it, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The label that names the host, as it stands (may carry a port).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// An `i-…` or `mi-…` id, where the message says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The sender's own id of this alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// When it began, as the sender wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Everything the message says by name; what `when` and `{{ labels.x }}` look at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a message turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// At least one alert, in the message's order.
    Alerts(Vec<Alert>),
    /// Certainly not about an alert (an empty notice, a status the sender calls neither firing nor resolved).
    NotAnAlert(String),
    /// It should be an alert and cannot be read; the reason, for people.
    Unreadable(String),
}

/// The label under which values stand that a message says without their names (Alertmanager's default
/// title), in the message's order, separated by spaces.
pub const VALUES: &str = "values";

impl Alert {
    /// What identifies this condition among its sender's: the sender's fingerprint, or its name, role,
    /// host and all labels that do not change between firing and resolved: a mount point, a device or
    /// a job tells two conditions of one name on one host apart.
    ///
    /// Firing, repeated and resolved messages of one condition have the same identity. Where values
    /// stand without names, they are the identity: role and host are then guesses, which change with
    /// the rules.
    pub fn identity(&self) -> String {
        if let Some(fingerprint) = &self.fingerprint {
            return format!("fp\u{1f}{fingerprint}");
        }
        let guessed = self.labels.contains_key(VALUES);
        let host = self.instance_id.as_deref().or(self.host.as_deref()).filter(|_| !guessed);
        let role = self.role.as_deref().filter(|_| !guessed);
        let mut parts = vec![role.unwrap_or(""), &self.name, host.unwrap_or("")];
        for (name, value) in &self.labels {
            if !VOLATILE_LABELS.iter().any(|volatile| name.eq_ignore_ascii_case(volatile)) {
                parts.push(name);
                parts.push(value);
            }
        }
        parts.join("\u{1f}")
    }
}

/// Labels that may differ between the firing and the resolved message of one condition: prose,
/// measures, times, and which replica of Prometheus said it.
const VOLATILE_LABELS: &[&str] = &[
    "severity",
    "value",
    "current",
    "current_value",
    "threshold",
    "percent",
    "duration",
    "since",
    "start",
    "startsat",
    "starts_at",
    "started",
    "end",
    "endsat",
    "time",
    "timestamp",
    "date",
    "summary",
    "description",
    "message",
    "title",
    "text",
    "output",
    "link",
    "url",
    "runbook_url",
    "status",
    "state",
    "replica",
    "prometheus_replica",
    "__replica__",
];

/// An alert together with where it stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The sender's name in the config.
    pub sender: String,
    /// Channel id and `ts` of the alert message; the thread that declarations go to.
    pub channel: String,
    pub ts: String,
    /// When the message was posted, by Slack's clock.
    pub at: Timestamp,
}
