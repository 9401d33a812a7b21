//! Rule files: parsed with places, validated with hints, indexed, matched.
//!
//! The most specific key that fits an alert, and whose `when` fits, answers it: on each side an exact text
//! beats a pattern, and a pattern with more characters one with fewer ([`RuleKey::compare`]). Case counts.
//! A rule is immutable once loaded. What a file does not say comes from the config's `defaults`,
//! then from [`Rule::assemble`]'s own values (contract: stage approve, approvals 1, grace 15s, timeout 5m,
//! cooldown 30m, attempts [3/1h, 7/7d], at_once 1, approve_within 30m, resolve_within 10m).

mod ambiguity;
pub mod diagnostic;
mod environment;
mod glob;
mod index;
mod key;
mod load;
pub mod settings;
mod sides;
pub mod template;
pub mod values;
pub mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use diagnostic::{Diagnostic, Severity};
pub use glob::glob_match;
pub use index::RuleSet;
pub use load::load;
pub use template::Template;

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

impl Rule {
    /// A rule of what it says itself, then of what `defaults` say, then of the built-in values
    /// (contract, "What a rule does not say"). A key that the rule has replaces the default's as a whole.
    /// `confirm`, `verify` and `env` of `defaults` are for shell rules.
    pub fn assemble(key: RuleKey, place: Place, action: Action, own: Defaults, defaults: &Defaults) -> Rule {
        let shell = matches!(action, Action::Commands(_));
        let built_in = Rule::built_in();
        let inherited = |value: &Option<String>| value.clone().filter(|_| shell);
        let approvers = own.approvers.or_else(|| defaults.approvers.clone()).unwrap_or_default();
        Rule {
            key,
            place,
            about: own.about.or_else(|| defaults.about.clone()),
            confirm: own.confirm.or_else(|| inherited(&defaults.confirm)),
            verify: own.verify.or_else(|| inherited(&defaults.verify)),
            stage: own.stage.or(defaults.stage).unwrap_or(Stage::Approve),
            grace: own.grace.or(defaults.grace).unwrap_or(built_in.grace),
            timeout: own.timeout.or(defaults.timeout).unwrap_or(built_in.timeout),
            cooldown: own.cooldown.or(defaults.cooldown).unwrap_or(built_in.cooldown),
            attempts: own.attempts.or_else(|| defaults.attempts.clone()).unwrap_or(built_in.attempts),
            at_once: own.at_once.or(defaults.at_once).unwrap_or(1),
            when: own.when.or_else(|| defaults.when.clone()).unwrap_or_default(),
            env: own.env.or_else(|| defaults.env.clone().filter(|_| shell)).unwrap_or_default(),
            approvers,
            approvals: own.approvals.or(defaults.approvals).unwrap_or(1),
            approve_within: own.approve_within.or(defaults.approve_within).unwrap_or(built_in.approve_within),
            resolve_within: own.resolve_within.or(defaults.resolve_within).unwrap_or(built_in.resolve_within),
            runbook: own.runbook.or_else(|| defaults.runbook.clone()),
            owner: own.owner.or_else(|| defaults.owner.clone()),
            fix: own.fix.or_else(|| defaults.fix.clone()),
            action,
        }
    }

    /// How far back decisions about this rule look: its cooldown and the longest of its `attempts`
    /// windows, and no less than the life of one remediation from its declaration to its outcome.
    pub fn looks_back(&self) -> Duration {
        let windows = self.attempts.iter().map(|attempts| attempts.window).max().unwrap_or_default();
        let life = [self.approve_within, self.timeout, self.resolve_within];
        let life = life.into_iter().fold(self.grace, Duration::saturating_add);
        self.cooldown.max(windows).max(life)
    }

    fn built_in() -> BuiltIn {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        BuiltIn {
            grace: Duration::from_secs(15),
            timeout: minutes(5),
            cooldown: minutes(30),
            attempts: vec![
                Attempts { count: 3, window: minutes(60) },
                Attempts { count: 7, window: minutes(7 * 24 * 60) },
            ],
            approve_within: minutes(30),
            resolve_within: minutes(10),
        }
    }
}

/// What holds where neither the rule nor the config says it.
struct BuiltIn {
    grace: Duration,
    timeout: Duration,
    cooldown: Duration,
    attempts: Vec<Attempts>,
    approve_within: Duration,
    resolve_within: Duration,
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

#[cfg(test)]
mod tests;
