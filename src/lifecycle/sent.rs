//! After the sending was decided: it is on its way, it runs, it ran well.
//!
//! What was lost on the way is found out before anybody is told *unknown*. A shell run is sent again
//! under its own id while it is wanted, for the host's fence runs one copy of a run; where it is not
//! wanted any more, or SSM has no answer, the host itself is asked. Nobody asks for a document's run.

use std::time::Duration;

use super::step::{Outcomes, SEND_WITHIN, end, hold, is_late, not_waiting, report_posted, stopped};
use super::{Effect, Ending, Final, Input, Outcome, Ran, Refused, Remediation, State, Step, Trigger};
use crate::gate::{Facts, Reason};
use crate::plan::BEGINS_WITHIN;
use crate::time::Timestamp;

/// SSM's least time to deliver a command (API model: TimeoutSeconds ≥ 30), added to `timeout`, and
/// a margin for its own bookkeeping: after that heal stops waiting for SSM's answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(90);
/// Copies of one run beside the first.
const SENT_AGAIN_AT_MOST: usize = 3;
/// How long the host is asked once no copy can be at work there any more.
const ASK_MARGIN: Duration = Duration::from_secs(180);
/// While AWS itself cannot be asked, a deadline that is nearer than this is put off by so much …
const UNSEEN: Duration = Duration::from_secs(60);
/// … until this long after it; then nobody waits for AWS any more.
const AWAY_AT_MOST: Duration = Duration::from_secs(2 * 3600);

pub(super) fn sending(this: &Remediation, until: Timestamp, input: &Input, facts: &Facts) -> Outcomes {
    // Of what was sent before nobody knows; what SSM says now, it says of the newest copy alone.
    let doubtful = !this.sent_again.is_empty();
    match input {
        Input::SendAccepted { command_id } => {
            let mut next = this.clone();
            next.command_id = Some(command_id.clone());
            let until = facts.now.plus(answer_within(this));
            next.state = State::Running { until, steps: Vec::new(), asking: false };
            Ok(Step { next, effects: vec![Effect::UpdateDeclaration, Effect::React] })
        }
        Input::SendRefused { .. } if doubtful => Ok(ask_host(this, facts)),
        Input::SendRefused { why } => {
            Ok(end(this, Outcome::Failed, Ending::SendRefused { why: why.clone() }, facts.now))
        }
        Input::SendThrottled { .. } if doubtful => {
            if !is_wanted(this, facts) {
                return Ok(ask_host(this, facts));
            }
            // This copy was not taken for certain, so it is still the same one that is sent.
            let mut next = this.clone();
            if let Some(newest) = next.sent_again.last_mut() {
                *newest = facts.now;
            }
            next.state = State::Sending { until: facts.now.plus(SEND_WITHIN) };
            Ok(Step { next, effects: vec![Effect::Send] })
        }
        Input::SendThrottled { retry_after } => {
            let until = facts.now.plus(*retry_after);
            let mut next = this.clone();
            // SSM said no for certain, so this sending did not happen; the next one is the first again.
            next.sent_at = None;
            if is_late(&next, facts) {
                return Ok(hold(&next, Reason::Throttled { until }, facts.now));
            }
            next.state =
                State::Waiting { reason: Reason::Throttled { until }, since: facts.now, again_at: until };
            Ok(Step { next, effects: vec![Effect::UpdateDeclaration] })
        }
        Input::SendLost { .. } if this.is_fenced() => {
            if this.sent_again.len() >= SENT_AGAIN_AT_MOST || !is_wanted(this, facts) {
                return Ok(ask_host(this, facts));
            }
            let mut next = this.clone();
            next.sent_again.push(facts.now);
            next.state = State::Sending { until: facts.now.plus(SEND_WITHIN) };
            Ok(Step { next, effects: vec![Effect::Send, Effect::UpdateDeclaration] })
        }
        Input::SendLost { why } | Input::SendUnclear { why } => {
            Ok(end(this, Outcome::Unknown, Ending::SendUnclear { why: why.clone() }, facts.now))
        }
        Input::Woken => {
            if facts.now < until {
                return Err(Refused::Nothing);
            }
            if this.is_fenced() {
                return Ok(ask_host(this, facts));
            }
            let why = "the answer of SSM was lost".to_owned();
            Ok(end(this, Outcome::Unknown, Ending::SendUnclear { why }, facts.now))
        }
        Input::TargetResolved(_)
        | Input::DeclarationPosted { .. }
        | Input::DeclarationRefused { .. }
        | Input::Approved { .. }
        | Input::Rejected { .. }
        | Input::Held { .. }
        | Input::RunSeen { .. }
        | Input::RunUnseen { .. }
        | Input::HostSilent { .. }
        | Input::RunEnded { .. }
        | Input::ReportPosted { .. } => not_waiting(this),
    }
}

pub(super) fn running(this: &Remediation, until: Timestamp, input: &Input, facts: &Facts) -> Outcomes {
    let (seen, asking) = match &this.state {
        State::Running { steps, asking, .. } => (steps.as_slice(), *asking),
        _ => (&[][..], false),
    };
    match input {
        // It was given up as lost, and SSM shows it after all.
        Input::SendAccepted { command_id } if this.command_id.is_none() => {
            let mut next = this.clone();
            next.command_id = Some(command_id.clone());
            let until = until.max(facts.now.plus(answer_within(this)));
            next.state = State::Running { until, steps: seen.to_vec(), asking: false };
            Ok(Step { next, effects: vec![Effect::UpdateDeclaration] })
        }
        Input::RunSeen { steps } => {
            if steps == seen {
                return Err(Refused::Nothing);
            }
            let mut next = this.clone();
            next.state = State::Running { until, steps: steps.clone(), asking };
            Ok(Step { next, effects: vec![Effect::UpdateDeclaration] })
        }
        Input::RunEnded { ran } if this.command_id.is_none() && ran.ended_as == Final::Late => {
            Ok(nothing_ran(this, ran, facts))
        }
        Input::RunEnded { ran } => Ok(ran_to(this, ran, facts)),
        Input::RunUnseen { .. } => {
            let sent_at = this.sent_at.unwrap_or(this.opened_at);
            let last = sent_at.plus(answer_within(this)).plus(AWAY_AT_MOST);
            let put_off = facts.now.plus(UNSEEN * 2).min(last);
            if facts.now.until(until) > UNSEEN || put_off <= until {
                return Err(Refused::Nothing);
            }
            let mut next = this.clone();
            next.state = State::Running { until: put_off, steps: seen.to_vec(), asking };
            Ok(Step { next, effects: Vec::new() })
        }
        Input::HostSilent { why } => Ok(never_told(this, why, facts)),
        Input::Woken => {
            if facts.now < until {
                return Err(Refused::Nothing);
            }
            if !asking && this.is_fenced() {
                return Ok(ask_host(this, facts));
            }
            Ok(never_told(this, "neither SSM nor the host said what became of it", facts))
        }
        Input::TargetResolved(_)
        | Input::DeclarationPosted { .. }
        | Input::DeclarationRefused { .. }
        | Input::Approved { .. }
        | Input::Rejected { .. }
        | Input::Held { .. }
        | Input::SendAccepted { .. }
        | Input::SendRefused { .. }
        | Input::SendThrottled { .. }
        | Input::SendLost { .. }
        | Input::SendUnclear { .. }
        | Input::ReportPosted { .. } => not_waiting(this),
    }
}

/// The host or SSM answered.
fn ran_to(this: &Remediation, ran: &Ran, facts: &Facts) -> Step {
    let mut next = this.clone();
    next.ran = Some(ran.clone());
    if let Some(outcome) = ran.outcome() {
        return end(&next, outcome, Ending::Run, facts.now);
    }
    let alert_decides = next.policy.resolves && !matches!(next.trigger, Trigger::Person { .. });
    if !alert_decides {
        return end(&next, Outcome::Healed, Ending::RunAlone, facts.now);
    }
    if facts.resolved_at.is_some() {
        return end(&next, Outcome::Healed, Ending::Resolved, facts.now);
    }
    next.state = State::Settling { until: facts.now.plus(next.policy.resolve_within) };
    Step { next, effects: vec![Effect::UpdateDeclaration, Effect::Report, Effect::React] }
}

/// No copy of what was lost ran, and none can any more: as if nothing had been sent, where something
/// stops it; else its time is over.
fn nothing_ran(this: &Remediation, ran: &Ran, facts: &Facts) -> Step {
    let mut unsent = this.clone();
    unsent.sent_at = None;
    unsent.sent_again.clear();
    if let Some(stopped) = stopped(&unsent, facts) {
        return stopped;
    }
    if is_late(&unsent, facts) {
        let age = facts.now.since(facts.raised_at);
        return hold(&unsent, Reason::Stale { age, max_age: facts.max_age }, facts.now);
    }
    ran_to(this, ran, facts)
}

/// Whether another copy may be sent: nothing stops it, and it would not cure another outage.
fn is_wanted(this: &Remediation, facts: &Facts) -> bool {
    stopped(this, facts).is_none() && !is_late(this, facts)
}

/// From here on the host is asked what became of the run, for as long as a copy may begin or be at
/// work there, and a while after.
fn ask_host(this: &Remediation, facts: &Facts) -> Step {
    let mut next = this.clone();
    let steps = match &this.state {
        State::Running { steps, .. } => steps.clone(),
        _ => Vec::new(),
    };
    let last_sent = this.last_sent_at().unwrap_or(this.opened_at);
    let over = last_sent.plus(BEGINS_WITHIN).plus(timeout(this)).max(facts.now);
    next.state = State::Running { until: over.plus(ASK_MARGIN), steps, asking: true };
    Step { next, effects: vec![Effect::UpdateDeclaration, Effect::React] }
}

/// Nobody can say what became of it.
fn never_told(this: &Remediation, why: &str, facts: &Facts) -> Step {
    let why = if this.command_id.is_none() {
        Ending::SendUnclear { why: why.to_owned() }
    } else {
        let waited = facts.now.since(this.sent_at.unwrap_or(this.opened_at));
        Ending::NoAnswer { within: Duration::from_secs(waited.as_secs()) }
    };
    end(this, Outcome::Unknown, why, facts.now)
}

fn timeout(this: &Remediation) -> Duration {
    this.plan.as_ref().map_or(Duration::ZERO, |plan| plan.timeout)
}

/// No deadline of a run is further off than this.
pub(super) fn longest_run(this: &Remediation) -> Duration {
    (BEGINS_WITHIN + timeout(this) + ASK_MARGIN).max(UNSEEN * 2)
}

/// How long after the sending an answer is waited for.
fn answer_within(this: &Remediation) -> Duration {
    timeout(this) + ANSWER_MARGIN
}

pub(super) fn settling(this: &Remediation, until: Timestamp, input: &Input, facts: &Facts) -> Outcomes {
    match input {
        Input::Woken => {
            if facts.resolved_at.is_some() {
                return Ok(end(this, Outcome::Healed, Ending::Resolved, facts.now));
            }
            if facts.now >= until {
                let within = this.policy.resolve_within;
                return Ok(end(this, Outcome::Unresolved, Ending::DidNotResolve { within }, facts.now));
            }
            Err(Refused::Nothing)
        }
        Input::ReportPosted { ts } => report_posted(this, ts),
        Input::TargetResolved(_)
        | Input::DeclarationPosted { .. }
        | Input::DeclarationRefused { .. }
        | Input::Approved { .. }
        | Input::Rejected { .. }
        | Input::Held { .. }
        | Input::SendAccepted { .. }
        | Input::SendRefused { .. }
        | Input::SendThrottled { .. }
        | Input::SendLost { .. }
        | Input::SendUnclear { .. }
        | Input::RunSeen { .. }
        | Input::RunUnseen { .. }
        | Input::HostSilent { .. }
        | Input::RunEnded { .. } => not_waiting(this),
    }
}
