//! Rule + alert + target → exactly what will run. All quoting of values lives here.
//!
//! A [`Plan`] is what the declaration shows and what an approval is bound to: it is stored with the
//! remediation, and what is sent to SSM is derived from it and from nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod make;
mod output;
mod script;
mod template;
#[cfg(test)]
mod tests;

pub use make::plan;
pub use output::{ReadOutput, StepRan, read_output};
pub use script::{
    BEGINS_WITHIN, ENDED_EARLY, FENCE_DIR, FENCE_DIR_MAX, LATE, STDOUT_KEPT, UNFENCED, UNPREPARED, UNTOLD,
    ask_script,
};

/// Names one remediation everywhere: in the store, in message metadata, as the run's id in SSM's
/// Comment and on the host. Short, lower case letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RemediationId(pub String);

impl fmt::Display for RemediationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One SSM-managed node, found for an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `i-…` or `mi-…`.
    pub instance_id: String,
    /// The node's computer name, or its id where SSM knows none.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub platform: Platform,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    Linux,
    MacOs,
    Windows,
    Unknown,
}

/// Why no node can be acted on. None of these is ever widened to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Unusable {
    /// The alert names no host.
    NotNamed,
    /// No managed node has this name, address or id.
    NotFound { host: String },
    /// Several managed nodes have this name or address; their ids.
    Several { host: String, instance_ids: Vec<String> },
    /// SSM has lost the node; its ping status as SSM says it (`ConnectionLost`, `Inactive`).
    Offline { target: Target, ping: String },
    /// The node is not tagged with the alert's role.
    WrongRole { target: Target, tag: String, role: String },
    /// The node cannot run shell scripts.
    Platform { target: Target },
    /// The alert names an instance id and a host, and they are two nodes.
    Disagree { host: String, host_is: String, instance_id: String },
    /// SSM could not be asked.
    LookupFailed { why: String },
    /// A value that the plan needs is missing or unfit (`{{ labels.mountpoint }}`).
    Unfit { why: String },
}

/// What a step of a shell rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Confirm,
    Command,
    Verify,
}

/// One line of a shell rule, as written in the rule file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    pub kind: StepKind,
    pub text: String,
}

/// What is done on the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    Shell { steps: Vec<Step>, env: BTreeMap<String, String> },
    Document { name: String, parameters: BTreeMap<String, Vec<String>> },
    Automation { name: String, parameters: BTreeMap<String, Vec<String>> },
}

/// Exactly what will run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub work: Work,
    /// Of the whole run on the host.
    pub timeout: Duration,
}

impl Plan {
    /// The steps of a shell rule.
    pub fn steps(&self) -> Option<&[Step]> {
        match &self.work {
            Work::Shell { steps, .. } => Some(steps),
            Work::Document { .. } | Work::Automation { .. } => None,
        }
    }
}

/// Where and until when a run may begin on the host. No part of the plan: it is not what was
/// declared, and a copy that is sent again has a deadline of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The directory in which every run makes its folder; an absolute path.
    pub dir: String,
    /// Seconds since 1970 by the host's clock; a copy that comes later runs nothing.
    pub deadline: i64,
}

impl Fence {
    /// Of the copy that was sent then, as it is kept with the remediation: so whoever asks the host
    /// later knows to the second until when that copy may begin.
    pub fn of_copy(dir: &str, sent_at: crate::time::Timestamp) -> Fence {
        Fence { dir: dir.to_owned(), deadline: sent_at.plus(BEGINS_WITHIN).as_secs() }
    }
}
