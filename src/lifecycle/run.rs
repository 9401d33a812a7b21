//! What came of a run, as SSM and the script tell it, and which outcome that is.

use serde::{Deserialize, Serialize};

use crate::plan::StepKind;
pub use crate::plan::StepRan;
use crate::time::Timestamp;

/// How SSM says a run ended. Unknown words are kept, and are never success
/// (SSM API model: `CommandInvocation.StatusDetails`, `AutomationExecutionStatus`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Final {
    Success,
    /// A script or document ended with another exit code than 0.
    Failed,
    /// It ran longer than `timeout` and SSM ended it.
    ExecutionTimedOut,
    /// It did not reach the host in time.
    DeliveryTimedOut,
    /// `TimedOut` without saying which of the two.
    TimedOut,
    /// The host could not be reached at all.
    Undeliverable,
    /// Somebody cancelled it in SSM.
    Cancelled,
    /// SSM ended it because its parent had too many errors; it did not run.
    Terminated,
    AccessDenied,
    InvalidPlatform,
    /// The host says that it came after its deadline, or not at all, and that nothing ran.
    Late,
    /// The host could not make the run's fence, so nothing ran.
    Unfenced,
    /// The host says that a copy of the run began and ended half-way.
    Interrupted,
    /// The host says that another copy of the run was still at work.
    AtWork,
    /// A word this version does not know.
    Other(String),
}

impl Final {
    /// With what the host itself says: how its script says it ended, and the exit code. Finished
    /// runs were seen as DeliveryTimedOut (amazon-ssm-agent issues 316 and 430), and a run whose agent
    /// is restarted ends as Failed whatever it goes on to do, so the host is believed.
    pub fn corrected(self, end: Option<&str>, exit: Option<i32>) -> Final {
        let why_half_way = matches!(self, Final::ExecutionTimedOut | Final::Cancelled);
        match (end, exit) {
            (Some("late"), _) => Final::Late,
            // Where SSM has ended it for good, it says more of why nothing came to the host.
            (Some("nothing"), _) if self.is_given_up() => Final::Late,
            (Some("unfenced"), _) => Final::Unfenced,
            (Some("interrupted"), _) if !why_half_way => Final::Interrupted,
            (Some("working"), _) => Final::AtWork,
            (Some("done" | "early" | "unprepared"), Some(0)) => Final::Success,
            (Some("done" | "early" | "unprepared"), Some(_)) => Final::Failed,
            // What ends a run by a signal is mostly SSM itself; then it says why.
            (Some("terminated"), Some(_)) if self.is_given_up() => Final::Failed,
            _ => self,
        }
    }

    /// Whether SSM gave it up without knowing what the host does.
    pub fn is_given_up(&self) -> bool {
        matches!(self, Final::DeliveryTimedOut | Final::TimedOut | Final::Other(_))
    }

    /// What it means, for the person on call.
    pub fn sentence(&self) -> String {
        let words = match self {
            Final::Success => "It ran to its end and reported success.",
            Final::Failed => "It ran and failed: a step ended with an error.",
            Final::ExecutionTimedOut => {
                "It ran longer than its timeout, and SSM ended it; it may have done half of its work."
            }
            Final::DeliveryTimedOut => {
                "The host did not take it in time. SSM gave it up, but an agent that comes back may still run it."
            }
            Final::TimedOut => "SSM says it timed out, and not whether that was on the way or while it ran.",
            Final::Undeliverable => "SSM could not reach the host, so nothing ran.",
            Final::Cancelled => "Somebody cancelled it in SSM; what had begun may have run on.",
            Final::Terminated => "SSM withdrew it before it reached the host, so nothing ran.",
            Final::AccessDenied => {
                "The host was denied access to the command, so nothing ran; its role lacks a permission."
            }
            Final::InvalidPlatform => "The command does not fit the host's platform, so nothing ran.",
            Final::Late => "It did not come to the host in time, so nothing ran there, and nothing will.",
            Final::Unfenced => "The host could not make sure that it runs once, so nothing ran.",
            Final::Interrupted => {
                "It began on the host and was ended half-way; it may have done half of its work."
            }
            Final::AtWork => "Another copy of it was still at work on the host.",
            Final::Other(word) => {
                let word = crate::text::clip(&crate::text::clean(word, 100), 100);
                return format!(
                    "SSM ended it as \u{201c}{word}\u{201d}, which heal does not know; look at the host."
                );
            }
        };
        words.to_owned()
    }
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    pub ended_as: Final,
    /// The exit code that SSM tells of the whole script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRan>,
    /// Output that belongs to no step, redacted (a document's; a script that was ended).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// SSM keeps only the head of long output; whether some was lost there.
    #[serde(default)]
    pub output_cut: bool,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}

/// How a remediation ended; the words of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Healed,
    NotNeeded,
    Failed,
    TimedOut,
    Unresolved,
    Rejected,
    Expired,
    Held,
    Cancelled,
    Unknown,
}

impl Outcome {
    pub const ALL: [Outcome; 10] = [
        Outcome::Healed,
        Outcome::NotNeeded,
        Outcome::Failed,
        Outcome::TimedOut,
        Outcome::Unresolved,
        Outcome::Rejected,
        Outcome::Expired,
        Outcome::Held,
        Outcome::Cancelled,
        Outcome::Unknown,
    ];

    /// The word as reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Healed => "healed",
            Outcome::NotNeeded => "not needed",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed out",
            Outcome::Unresolved => "unresolved",
            Outcome::Rejected => "rejected",
            Outcome::Expired => "expired",
            Outcome::Held => "held",
            Outcome::Cancelled => "cancelled",
            Outcome::Unknown => "unknown",
        }
    }
}

impl Ran {
    /// The outcome where the run alone decides it; `None` after a good run, where the alert decides.
    ///
    /// A delivery that timed out is *unknown*: agents were seen to run what SSM had given up on
    /// (amazon-ssm-agent issues 316 and 430), so only the host could tell.
    pub fn outcome(&self) -> Option<Outcome> {
        let confirm_failed = self
            .steps
            .iter()
            .any(|step| step.kind == Some(StepKind::Confirm) && step.exit.is_some_and(|exit| exit != 0));
        match &self.ended_as {
            // The script turns a confirm that failed into success: nothing was wrong.
            Final::Success | Final::Failed if confirm_failed => Some(Outcome::NotNeeded),
            Final::Success => None,
            Final::Failed
            | Final::Undeliverable
            | Final::Terminated
            | Final::AccessDenied
            | Final::InvalidPlatform
            | Final::Unfenced => Some(Outcome::Failed),
            Final::ExecutionTimedOut | Final::Late => Some(Outcome::TimedOut),
            Final::Cancelled => Some(Outcome::Cancelled),
            Final::DeliveryTimedOut
            | Final::TimedOut
            | Final::Interrupted
            | Final::AtWork
            | Final::Other(_) => Some(Outcome::Unknown),
        }
    }

    /// Whether something of the rule's commands may have run, so that cooldown applies.
    pub fn commands_ran(&self) -> bool {
        match self.ended_as {
            Final::Undeliverable
            | Final::Terminated
            | Final::AccessDenied
            | Final::InvalidPlatform
            | Final::Late
            | Final::Unfenced => false,
            _ => self.outcome() != Some(Outcome::NotNeeded),
        }
    }
}
