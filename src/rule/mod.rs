//! Rule files: parsed with places, validated with hints, indexed, matched.
//!
//! A rule is immutable once loaded. What a file does not say comes from the config's `defaults`,
//! then from [`Rule::built_in`]'s values (contract: stage approve, approvals 1, grace 15s, timeout 5m,
//! cooldown 30m, attempts [3/1h, 7/7d], at_once 1, approve_within 30m, resolve_within 10m).

mod glob;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use glob::glob_match;

/// `ROLE:ALERT`; either side may hold `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleKey {
    pub role: String,
    pub alert: String,
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.role, self.alert)
    }
}

/// How far a rule is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Declare only.
    Observe,
    /// A person presses the button.
    Approve,
    /// It runs after `grace`.
    Auto,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Observe => "observe",
            Stage::Approve => "approve",
            Stage::Auto => "auto",
        }
    }
}

/// What the rule does; exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Shell lines, run in one shell through AWS-RunShellScript.
    Commands(Vec<String>),
    /// An SSM Command document with its parameters (values may hold `{{ … }}` templates).
    Document { name: String, parameters: BTreeMap<String, Vec<String>> },
    /// An SSM Automation runbook with its parameters.
    Automation { name: String, parameters: BTreeMap<String, Vec<String>> },
}

/// At most `count` runs within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    pub count: u32,
    pub window: Duration,
}

/// The permanent fix that a rule waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    pub ticket: String,
    /// `2027-01-31`.
    pub due: Option<jiff::civil::Date>,
}

/// Where something stands in a file; line and column count from 1, the column in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: std::sync::Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What to do for one `ROLE:ALERT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub key: RuleKey,
    pub place: Place,
    pub about: Option<String>,
    pub action: Action,
    /// Exit 0: the fault is really there. Only with [`Action::Commands`].
    pub confirm: Option<String>,
    /// Exit 0: the fault is gone. Only with [`Action::Commands`].
    pub verify: Option<String>,
    pub stage: Stage,
    pub grace: Duration,
    pub timeout: Duration,
    pub cooldown: Duration,
    /// Every window holds; empty means no limit.
    pub attempts: Vec<Attempts>,
    /// Instances of the role under remediation at a time; at least 1.
    pub at_once: u32,
    /// Labels the alert must have; values may hold `*`.
    pub when: BTreeMap<String, String>,
    /// Environment of the commands; values may hold `{{ … }}` templates.
    pub env: BTreeMap<String, String>,
    /// Who may approve instead of the config's approvers (`U…`, `W…` ids or `@handle`); empty: the config's.
    pub approvers: Vec<String>,
    pub approvals: u32,
    pub approve_within: Duration,
    pub resolve_within: Duration,
    pub runbook: Option<String>,
    /// `@handle` or a user id; mentioned when a remediation does not heal.
    pub owner: Option<String>,
    pub fix: Option<Fix>,
}

/// What the config's `defaults` say; `None` where they are silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    pub confirm: Option<String>,
    pub verify: Option<String>,
    pub stage: Option<Stage>,
    pub grace: Option<Duration>,
    pub timeout: Option<Duration>,
    pub cooldown: Option<Duration>,
    pub attempts: Option<Vec<Attempts>>,
    pub at_once: Option<u32>,
    pub when: Option<BTreeMap<String, String>>,
    pub env: Option<BTreeMap<String, String>>,
    pub approvers: Option<Vec<String>>,
    pub approvals: Option<u32>,
    pub approve_within: Option<Duration>,
    pub resolve_within: Option<Duration>,
    pub runbook: Option<String>,
    pub owner: Option<String>,
    pub about: Option<String>,
    pub fix: Option<Fix>,
}
