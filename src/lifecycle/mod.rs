//! The lifecycle of a remediation as an explicit state machine.
//!
//! [`step`] gets a remediation, an input and the facts and answers the next remediation and the
//! effects now owed; it knows no clock, network or database. Inputs are hints: what decides is read
//! from the facts, so a lost or repeated input costs a delay and never an outcome. A stale input is
//! [`Refused`] with a reason that people can be told.
//!
//! Kept here: nothing is sent that was not declared and then approved, or in stage auto not held
//! during its grace; one remediation is one run, of which a second copy is sent only where the first
//! may be lost, the host's fence makes it harmless, and the cure is still wanted.

mod run;
mod sent;
mod step;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Origin};
use crate::gate::Reason;
use crate::plan::{Plan, Target, Unusable, Work};
use crate::rule::{Rule, RuleKey, Stage};
use crate::time::Timestamp;

pub use crate::plan::RemediationId;
pub use run::{Final, Outcome, Ran, StepRan};
pub use step::{open, step};

/// Who or what began it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Trigger {
    Alert,
    /// `/heal run KEY HOST`; there is no alert that could resolve.
    Person {
        user: String,
    },
    /// `Run again` on an earlier one. The press is an order and the first approval: the alert raised
    /// it, so nobody approves a wish of one's own.
    Again {
        user: String,
        of: RemediationId,
    },
}

/// What of the rule the remediation was opened under; kept with it, as files change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub stage: Stage,
    pub grace: Duration,
    pub approvals: u32,
    pub approve_within: Duration,
    pub resolve_within: Duration,
    pub cooldown: Duration,
    pub at_once: u32,
    /// The rule's own approvers; empty means the config's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix_ticket: Option<String>,
    /// `2027-01-31`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix_due: Option<String>,
    /// Whether the alert's sender says when it is over; where not, the run decides.
    pub resolves: bool,
}

impl Policy {
    pub fn new(rule: &Rule, resolves: bool) -> Policy {
        Policy {
            stage: rule.stage,
            grace: rule.grace,
            approvals: rule.approvals,
            approve_within: rule.approve_within,
            resolve_within: rule.resolve_within,
            cooldown: rule.cooldown,
            at_once: rule.at_once,
            approvers: rule.approvers.clone(),
            about: rule.about.clone(),
            runbook: rule.runbook.clone(),
            owner: rule.owner.clone(),
            fix_ticket: rule.fix.as_ref().map(|fix| fix.ticket.clone()),
            fix_due: rule.fix.as_ref().and_then(|fix| fix.due).map(|due| due.to_string()),
            resolves,
        }
    }
}

/// One person's yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Slack user id.
    pub user: String,
    pub at: Timestamp,
}

/// One application of one rule to one alert on one instance, from declaration to outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remediation {
    pub id: RemediationId,
    pub rule_key: RuleKey,
    pub policy: Policy,
    pub trigger: Trigger,
    pub alert: Alert,
    /// Where the alert stands; its thread is where everything is said. For `/heal run` the `ts` is
    /// empty until the declaration, which then begins a thread of its own, is posted.
    pub origin: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    pub opened_at: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// `ts` of the declaration, once Slack took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declaration: Option<String>,
    /// `ts` of the report, once Slack took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// When the command went to SSM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// When further copies of the same run went to SSM, as the answer to the one before was lost.
    /// Shell rules only: the host's fence runs one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent_again: Vec<Timestamp>,
    /// Where its fence is made on the host, kept with the sending: every copy of one run, and whoever asks
    /// for it, has to go to the same. `None` of what an older heal sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_dir: Option<String>,
    /// SSM's id of the command or Automation execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// What the run came to, once the host or SSM answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Ran>,
    pub state: State,
}

impl Remediation {
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Observed { .. } | State::Ended { .. })
    }

    pub fn outcome(&self) -> Option<Outcome> {
        match &self.state {
            State::Ended { outcome, .. } => Some(*outcome),
            _ => None,
        }
    }

    /// The service group that `at_once` counts in: the alert's, else the rule's.
    pub fn role(&self) -> &str {
        self.alert.role.as_deref().unwrap_or(&self.rule_key.role)
    }

    /// When the newest copy of the run was sent: what any copy does not begin in time after this
    /// ([`crate::plan::BEGINS_WITHIN`]) never begins.
    pub fn last_sent_at(&self) -> Option<Timestamp> {
        self.sent_again.last().copied().or(self.sent_at)
    }

    /// Something may have been given to SSM, and nobody knows yet whether it was. It can still be
    /// stopped, as far as it has not happened, so that pauses and the alert's end are looked at.
    pub fn is_in_doubt(&self) -> bool {
        self.command_id.is_none() && matches!(self.state, State::Sending { .. } | State::Running { .. })
    }

    /// Its work is shell lines: a second copy is harmless, and the host can be asked what it did.
    pub fn is_fenced(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| matches!(plan.work, Work::Shell { .. }))
    }

    /// Whether a person ordered it, so that cooldown, attempts and age are not asked.
    pub fn is_ordered(&self) -> bool {
        !matches!(self.trigger, Trigger::Alert)
    }
}

/// Where a remediation stands, with what that state knows. Every state but the last two has a deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum State {
    /// Its node is being looked up among SSM's managed nodes.
    Resolving {
        until: Timestamp,
    },
    /// Its declaration is owed to Slack.
    Declaring {
        until: Timestamp,
    },
    /// Declared; people have yet to press Approve.
    AwaitingApproval {
        until: Timestamp,
    },
    /// Declared, stage auto; people may press Hold until then.
    Counting {
        until: Timestamp,
    },
    /// Allowed; a gate makes it wait. `again_at`: when to look again if nothing wakes it.
    Waiting {
        reason: Reason,
        since: Timestamp,
        again_at: Timestamp,
    },
    /// The command is owed to SSM or on its way.
    Sending {
        until: Timestamp,
    },
    /// SSM has it, or (while the remediation has no command id) may have it. `steps` as seen so far.
    Running {
        until: Timestamp,
        steps: Vec<StepRan>,
        /// SSM's answer was lost, or does not come: the host itself is asked. Shell rules only.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        asking: bool,
    },
    /// It ran well; the alert has to resolve by then.
    Settling {
        until: Timestamp,
    },
    /// Stage observe: declared, and over.
    Observed {
        at: Timestamp,
    },
    Ended {
        outcome: Outcome,
        why: Ending,
        at: Timestamp,
    },
}

impl State {
    /// The state's name in the store, in metrics and in the journal.
    pub fn name(&self) -> &'static str {
        match self {
            State::Resolving { .. } => "resolving",
            State::Declaring { .. } => "declaring",
            State::AwaitingApproval { .. } => "awaiting_approval",
            State::Counting { .. } => "counting",
            State::Waiting { .. } => "waiting",
            State::Sending { .. } => "sending",
            State::Running { .. } => "running",
            State::Settling { .. } => "settling",
            State::Observed { .. } => "observed",
            State::Ended { .. } => "ended",
        }
    }

    /// When [`Input::Woken`] is due if nothing else happens. Timers are data.
    pub fn due_at(&self) -> Option<Timestamp> {
        match self {
            State::Resolving { until }
            | State::Declaring { until }
            | State::AwaitingApproval { until }
            | State::Counting { until }
            | State::Sending { until }
            | State::Running { until, .. }
            | State::Settling { until } => Some(*until),
            State::Waiting { again_at, .. } => Some(*again_at),
            State::Observed { .. } | State::Ended { .. } => None,
        }
    }

    /// Nobody looked for a while (a restart): what waits for an answer of the world gets the time to
    /// hear it before its deadline ends it. `answers` for what AWS has to say, `messages` for what was
    /// posted meanwhile.
    pub fn not_due_before(&mut self, answers: Timestamp, messages: Timestamp) {
        match self {
            State::Resolving { until } | State::Sending { until } | State::Running { until, .. } => {
                *until = (*until).max(answers);
            }
            State::Settling { until } => *until = (*until).max(messages),
            State::Declaring { .. }
            | State::AwaitingApproval { .. }
            | State::Counting { .. }
            | State::Waiting { .. }
            | State::Observed { .. }
            | State::Ended { .. } => {}
        }
    }

    /// Nothing was given to SSM yet: a pause, a Hold or "resolved" still stops it.
    pub fn is_before_sending(&self) -> bool {
        matches!(
            self,
            State::Resolving { .. }
                | State::Declaring { .. }
                | State::AwaitingApproval { .. }
                | State::Counting { .. }
                | State::Waiting { .. }
        )
    }

    /// From the sending to the outcome the instance is taken.
    pub fn takes_instance(&self) -> bool {
        matches!(self, State::Sending { .. } | State::Running { .. } | State::Settling { .. })
    }

    /// From the sending to the host's answer it counts for `at_once`.
    pub fn takes_role_slot(&self) -> bool {
        matches!(self, State::Sending { .. } | State::Running { .. })
    }
}

/// Why it ended as it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "because")]
pub enum Ending {
    /// A gate held it.
    Gate { reason: Reason },
    /// A person pressed Reject.
    RejectedBy { user: String },
    /// Nobody (or too few) approved in time.
    NotApproved { approvals: u32, needed: u32, within: Duration },
    /// The alert resolved before anything was sent.
    ResolvedItself,
    /// The rule changed after the declaration; a new declaration is made under the new rule.
    RuleChanged,
    /// The run decided it; see `Remediation::ran`.
    Run,
    /// The run went well and then the alert resolved.
    Resolved,
    /// The run went well and the alert did not resolve in time.
    DidNotResolve { within: Duration },
    /// The run went well and nothing else can tell (no alert, or a sender without resolved messages).
    RunAlone,
    /// SSM refused the command; nothing ran.
    SendRefused { why: String },
    /// Whether SSM took the command could not be found out.
    SendUnclear { why: String },
    /// heal's own deadline behind SSM's passed without an answer.
    NoAnswer { within: Duration },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The node was looked up, and the plan made for it.
    TargetResolved(Result<(Target, Plan), Unusable>),
    DeclarationPosted {
        ts: String,
    },
    /// Slack will never take the declaration (not in the channel, …).
    DeclarationRefused {
        why: String,
    },
    /// An authorised person pressed Approve, Reject or Hold.
    Approved {
        user: String,
    },
    Rejected {
        user: String,
    },
    Held {
        user: String,
    },
    /// Look at the facts again: time came, a pause began or ended, the alert resolved, an instance
    /// became free, the rules changed.
    Woken,
    SendAccepted {
        command_id: String,
    },
    /// Definitely not accepted, and it will not be.
    SendRefused {
        why: String,
    },
    /// Definitely not accepted; SSM may take it later.
    SendThrottled {
        retry_after: Duration,
    },
    /// Its answer was lost, and SSM shows nothing of it: a shell run, so it may be sent again.
    SendLost {
        why: String,
    },
    /// Looked up and not found within the bound: it may or may not run.
    SendUnclear {
        why: String,
    },
    RunSeen {
        steps: Vec<StepRan>,
    },
    /// AWS could not be asked, for now.
    RunUnseen {
        why: String,
    },
    /// The host was asked what became of the run, and cannot tell.
    HostSilent {
        why: String,
    },
    RunEnded {
        ran: Ran,
    },
    ReportPosted {
        ts: String,
    },
}

impl Input {
    pub fn name(&self) -> &'static str {
        match self {
            Input::TargetResolved(_) => "target_resolved",
            Input::DeclarationPosted { .. } => "declaration_posted",
            Input::DeclarationRefused { .. } => "declaration_refused",
            Input::Approved { .. } => "approved",
            Input::Rejected { .. } => "rejected",
            Input::Held { .. } => "held",
            Input::Woken => "woken",
            Input::SendAccepted { .. } => "send_accepted",
            Input::SendRefused { .. } => "send_refused",
            Input::SendThrottled { .. } => "send_throttled",
            Input::SendLost { .. } => "send_lost",
            Input::SendUnclear { .. } => "send_unclear",
            Input::RunSeen { .. } => "run_seen",
            Input::RunUnseen { .. } => "run_unseen",
            Input::HostSilent { .. } => "host_silent",
            Input::RunEnded { .. } => "run_ended",
            Input::ReportPosted { .. } => "report_posted",
        }
    }
}

/// What is owed to the world after a step. Texts are rendered from the remediation when an effect
/// is performed, so that of several owed updates only the newest is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Look the node up.
    Resolve,
    /// Post the declaration.
    Declare,
    UpdateDeclaration,
    /// One line in the thread: which gate holds it, and until when.
    SayWhyNot,
    /// Give the plan to SSM. Owed anew only where nothing of it was taken for certain, or where the
    /// fence makes another copy of the same run harmless.
    Send,
    /// Post the report.
    Report,
    UpdateReport,
    /// Upload the output as a file, where the report shows only its end.
    Attach,
    /// Set the one reaction on the alert that shows where it stands.
    React,
    /// Open a remediation of the same alert under the rule in force.
    Reopen,
}

impl Effect {
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Resolve => "resolve",
            Effect::Declare => "declare",
            Effect::UpdateDeclaration => "update_declaration",
            Effect::SayWhyNot => "say_why_not",
            Effect::Send => "send",
            Effect::Report => "report",
            Effect::UpdateReport => "update_report",
            Effect::Attach => "attach",
            Effect::React => "react",
            Effect::Reopen => "reopen",
        }
    }
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub next: Remediation,
    pub effects: Vec<Effect>,
}

/// An input that changes nothing, and why; recorded, and told where a person waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is over already.
    Over { outcome: Option<Outcome> },
    /// It does not wait for this (any more); the state's name.
    NotWaiting { state: &'static str },
    /// This person approved already.
    ApprovedAlready,
    /// A person cannot approve what the same person asked for.
    OwnRequest,
    /// The time to approve is over.
    TooLate,
    /// Nothing to do: the facts say so.
    Nothing,
}
