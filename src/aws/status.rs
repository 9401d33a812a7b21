//! SSM's words for how a run stands, with and without spaces, as [`Final`] or "not over yet".

use crate::lifecycle::Final;

/// A word of `Status`, `StatusDetails` or an Automation's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not with the host yet.
    Waiting,
    /// At work, or being cancelled.
    Working,
    Over(Final),
}

/// Of a Run Command's invocation. `details` says more than `status` where both are there (SSM API
/// model: `CommandInvocation.StatusDetails`; `CommandFilter.value` adds AccessDenied and InvalidPlatform).
pub(super) fn of_invocation(status: Option<&str>, details: Option<&str>) -> Standing {
    let word = details.filter(|word| !word.trim().is_empty()).or(status).unwrap_or_default();
    match folded(word).as_str() {
        "pending" | "delayed" | "" => Standing::Waiting,
        "inprogress" | "cancelling" => Standing::Working,
        "success" => Standing::Over(Final::Success),
        "failed" => Standing::Over(Final::Failed),
        "timedout" => Standing::Over(Final::TimedOut),
        "executiontimedout" => Standing::Over(Final::ExecutionTimedOut),
        "deliverytimedout" => Standing::Over(Final::DeliveryTimedOut),
        "undeliverable" => Standing::Over(Final::Undeliverable),
        "cancelled" | "canceled" => Standing::Over(Final::Cancelled),
        "terminated" => Standing::Over(Final::Terminated),
        "accessdenied" => Standing::Over(Final::AccessDenied),
        "invalidplatform" => Standing::Over(Final::InvalidPlatform),
        // A detail that is new says nothing of the end; the status may.
        _ if details.is_some() => match of_invocation(status, None) {
            Standing::Over(_) => Standing::Over(Final::Other(word.trim().to_owned())),
            standing => standing,
        },
        _ => Standing::Over(Final::Other(word.trim().to_owned())),
    }
}

/// Of an Automation (SSM API model: `AutomationExecutionStatus`).
pub(super) fn of_automation(status: &str) -> Standing {
    match folded(status).as_str() {
        "" | "pending" | "scheduled" | "pendingchangecalendaroverride" => Standing::Waiting,
        "inprogress"
        | "runbookinprogress"
        | "waiting"
        | "cancelling"
        | "pendingapproval"
        | "approved"
        | "changecalendaroverrideapproved" => Standing::Working,
        "success" | "completedwithsuccess" => Standing::Over(Final::Success),
        "failed" | "completedwithfailure" | "rejected" | "changecalendaroverriderejected" => {
            Standing::Over(Final::Failed)
        }
        // An Automation has no delivery: what timed out is one of its steps.
        "timedout" => Standing::Over(Final::ExecutionTimedOut),
        "cancelled" | "canceled" => Standing::Over(Final::Cancelled),
        _ => Standing::Over(Final::Other(status.trim().to_owned())),
    }
}

fn folded(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).map(|ch| ch.to_ascii_lowercase()).collect()
}
