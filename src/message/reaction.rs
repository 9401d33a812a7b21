//! The one reaction on an alert that shows where it stands.

use crate::lifecycle::{Outcome, Remediation, State};

/// The emoji's name, without colons.
pub fn reaction(this: &Remediation) -> &'static str {
    match &this.state {
        State::Resolving { .. } | State::Declaring { .. } => "eyes",
        State::AwaitingApproval { .. } => "raised_hand",
        State::Counting { .. } | State::Waiting { .. } => "hourglass_flowing_sand",
        State::Sending { .. } | State::Running { .. } => "gear",
        State::Settling { .. } => "hourglass",
        State::Observed { .. } => "mag",
        State::Ended { outcome, .. } => of_outcome(*outcome),
    }
}

/// The emoji of an outcome.
pub fn of_outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Healed => "white_check_mark",
        Outcome::NotNeeded => "ok",
        Outcome::Failed => "x",
        Outcome::TimedOut => "alarm_clock",
        Outcome::Unresolved => "warning",
        Outcome::Rejected => "no_entry_sign",
        Outcome::Expired => "zzz",
        Outcome::Held => "double_vertical_bar",
        Outcome::Cancelled => "leftwards_arrow_with_hook",
        Outcome::Unknown => "question",
    }
}

/// One message may carry many alerts. The most urgent is shown: first what a person must look at
/// (unknown, failed, timed out, unresolved), then what waits for a person, then what is under way,
/// then what was left undone, then what is well.
const URGENCY: &[&str] = &[
    "question",
    "x",
    "alarm_clock",
    "warning",
    "raised_hand",
    "gear",
    "hourglass_flowing_sand",
    "hourglass",
    "eyes",
    "zzz",
    "double_vertical_bar",
    "no_entry_sign",
    "mag",
    "white_check_mark",
    "ok",
    "leftwards_arrow_with_hook",
];

/// The reaction for all remediations of one message; see [`URGENCY`]'s order. `eyes` where there are none.
pub fn reaction_for<'a>(all: impl Iterator<Item = &'a Remediation>) -> &'static str {
    let rank = |name: &&'static str| URGENCY.iter().position(|one| one == name).unwrap_or(usize::MAX);
    all.map(reaction).min_by_key(rank).unwrap_or("eyes")
}
