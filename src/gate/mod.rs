//! May it run: each gate is a small pure function that answers go, wait or hold with a named reason.
//!
//! Gates look at [`Facts`], which the store reads in the transaction that decides, so two alerts
//! two seconds apart cannot both pass on the same count.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::{RemediationId, Unusable};
use crate::rule::Attempts;
use crate::time::Timestamp;

/// A person's order that matching rules do not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub id: i64,
    /// A rule key, possibly with `*`; `*` alone is everything.
    pub pattern: String,
    /// Slack user id.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why something does not run (now).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "gate")]
pub enum Reason {
    Paused {
        pause: Pause,
    },
    /// The alert is older than `limits.max_age`.
    Stale {
        age: Duration,
        max_age: Duration,
    },
    Unusable {
        unusable: Unusable,
    },
    /// The same rule is at work on the same instance already.
    UnderWay {
        other: RemediationId,
    },
    CoolingDown {
        until: Timestamp,
    },
    /// `used` of `count` attempts within `window`; the next is free at `free_at`.
    TooManyAttempts {
        used: u32,
        count: u32,
        window: Duration,
        free_at: Timestamp,
    },
    /// Another remediation has the instance.
    InstanceTaken {
        other: RemediationId,
        key: String,
    },
    /// `running` instances of the role are being worked on, `at_once` may be.
    RoleFull {
        running: u32,
        at_once: u32,
    },
    /// SSM asked to come back later.
    Throttled {
        until: Timestamp,
    },
    /// heal has no line to Slack, or has not read yet what was posted while it had none: who or what
    /// would stop this may not have been heard.
    Deaf,
    /// A person pressed Hold.
    HeldBy {
        user: String,
    },
    /// The declaration could not be posted.
    Undeclared {
        why: String,
    },
    /// The rule was changed or removed after the declaration.
    RuleChanged,
}

impl Reason {
    /// What has to become free: `instance:i-…`, `role:web`; `None` where only time helps.
    pub fn waits_for(&self, instance: &str, role: &str) -> Option<String> {
        match self {
            Reason::InstanceTaken { .. } => Some(format!("instance:{instance}")),
            Reason::RoleFull { .. } => Some(format!("role:{role}")),
            _ => None,
        }
    }

    /// The gate's name for metrics and the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Reason::Paused { .. } => "paused",
            Reason::Stale { .. } => "stale",
            Reason::Unusable { .. } => "target",
            Reason::UnderWay { .. } => "under_way",
            Reason::CoolingDown { .. } => "cooldown",
            Reason::TooManyAttempts { .. } => "attempts",
            Reason::InstanceTaken { .. } => "instance_taken",
            Reason::RoleFull { .. } => "at_once",
            Reason::Throttled { .. } => "throttled",
            Reason::Deaf => "deaf",
            Reason::HeldBy { .. } => "hold",
            Reason::Undeclared { .. } => "undeclared",
            Reason::RuleChanged => "rule_changed",
        }
    }
}

/// A gate's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    Wait(Reason),
    Hold(Reason),
}

/// How often a rule ran on an instance within one of its windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub allowed: Attempts,
    pub used: u32,
    /// When the oldest of them leaves the window.
    pub free_at: Timestamp,
}

/// What the gates look at, read in the claiming transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub now: Timestamp,
    /// When the alert's own "resolved" was read, if it was.
    pub resolved_at: Option<Timestamp>,
    /// When the alert was posted, or a person asked.
    pub raised_at: Timestamp,
    pub max_age: Duration,
    pub pause: Option<Pause>,
    /// An open remediation of the same rule on the same instance, other than this one.
    pub under_way: Option<RemediationId>,
    /// Cooldown of this rule on this instance ends then.
    pub cooldown_until: Option<Timestamp>,
    pub attempts: Vec<Used>,
    /// Another remediation between its sending and its outcome on the instance, and its rule key.
    pub instance_taken: Option<(RemediationId, String)>,
    /// Instances of the role between sending and the host's answer.
    pub role_running: u32,
    pub at_once: u32,
    /// Something may have been said in Slack that did not reach heal yet.
    pub deaf: bool,
    /// The rule in force makes another plan than the declared one, or is gone. Before a `Run again` has
    /// its own plan: than the declaration whose button was pressed, or for another node.
    pub rule_changed: bool,
    /// A person ordered it: cooldown, attempts and the alert's age are that person's to judge.
    pub ordered: bool,
}

/// A person's pause comes first of all.
pub fn paused(facts: &Facts) -> Verdict {
    match &facts.pause {
        Some(pause) => Verdict::Hold(Reason::Paused { pause: pause.clone() }),
        None => Verdict::Go,
    }
}

/// An old alert may tell of another outage than today's.
pub fn stale(facts: &Facts) -> Verdict {
    let age = facts.now.since(facts.raised_at);
    if !facts.ordered && age > facts.max_age {
        return Verdict::Hold(Reason::Stale { age, max_age: facts.max_age });
    }
    Verdict::Go
}

/// The same rule twice on one instance heals nothing more.
pub fn under_way(facts: &Facts) -> Verdict {
    match &facts.under_way {
        Some(other) => Verdict::Hold(Reason::UnderWay { other: other.clone() }),
        None => Verdict::Go,
    }
}

pub fn cooldown(facts: &Facts) -> Verdict {
    match facts.cooldown_until {
        Some(until) if !facts.ordered && until > facts.now => Verdict::Hold(Reason::CoolingDown { until }),
        _ => Verdict::Go,
    }
}

/// Every window holds; the one that frees last is named.
pub fn attempts(facts: &Facts) -> Verdict {
    if facts.ordered {
        return Verdict::Go;
    }
    let full = facts.attempts.iter().filter(|window| window.used >= window.allowed.count);
    match full.max_by_key(|window| window.free_at) {
        Some(window) => Verdict::Hold(Reason::TooManyAttempts {
            used: window.used,
            count: window.allowed.count,
            window: window.allowed.window,
            free_at: window.free_at,
        }),
        None => Verdict::Go,
    }
}

/// One remediation at a time per instance, from its sending to its outcome.
pub fn instance(facts: &Facts) -> Verdict {
    match &facts.instance_taken {
        Some((other, key)) => wait(facts, Reason::InstanceTaken { other: other.clone(), key: key.clone() }),
        None => Verdict::Go,
    }
}

/// `at_once`, counted from the sending to the host's answer.
pub fn at_once(facts: &Facts) -> Verdict {
    if facts.role_running >= facts.at_once {
        return wait(facts, Reason::RoleFull { running: facts.role_running, at_once: facts.at_once });
    }
    Verdict::Go
}

/// Nothing runs by itself while "resolved", a pause or a Hold could not be heard.
pub fn hearing(facts: &Facts) -> Verdict {
    if facts.deaf { wait(facts, Reason::Deaf) } else { Verdict::Go }
}

/// A declaration binds rule and commands; a rule changed since then was never declared.
pub fn rule_unchanged(facts: &Facts) -> Verdict {
    if facts.rule_changed { Verdict::Hold(Reason::RuleChanged) } else { Verdict::Go }
}

/// Waiting ends when the alert is older than `max_age`: a late cure answers another outage.
fn wait(facts: &Facts, reason: Reason) -> Verdict {
    if facts.now.since(facts.raised_at) > facts.max_age {
        Verdict::Hold(reason)
    } else {
        Verdict::Wait(reason)
    }
}

/// The first gate that does not say go, in the order given.
fn first(gates: &[fn(&Facts) -> Verdict], facts: &Facts) -> Verdict {
    gates.iter().map(|gate| gate(facts)).find(|verdict| *verdict != Verdict::Go).unwrap_or(Verdict::Go)
}

/// What can be judged before the target is known.
pub fn on_arrival(facts: &Facts) -> Verdict {
    first(&[paused, stale], facts)
}

/// Before anything is declared.
pub fn before_declaring(facts: &Facts) -> Verdict {
    first(&[paused, stale, under_way, cooldown, attempts], facts)
}

/// Before the command is sent; everything once more, and the gates that make it wait.
pub fn before_sending(facts: &Facts) -> Verdict {
    first(&[paused, rule_unchanged, under_way, cooldown, attempts, instance, at_once, hearing], facts)
}
