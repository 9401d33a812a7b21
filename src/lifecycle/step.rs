//! The transition function: every state, and in it every input by name.

use std::time::Duration;

use super::sent::{longest_run, running, sending, settling};
use super::{Approval, Effect, Ending, Input, Outcome, Refused, Remediation, State, Step, Trigger};
use crate::gate::{self, Facts, Reason, Verdict};
use crate::rule::Stage;
use crate::time::Timestamp;

/// How long the lookup of a node may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(60);
/// How long handing the command to SSM, the lookup after a lost answer included, may take.
pub(super) const SEND_WITHIN: Duration = Duration::from_secs(120);
/// How often a waiting remediation looks again although nothing woke it.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// SSM says "come back later" for less than this.
const THROTTLED_AT_MOST: Duration = Duration::from_secs(120);

pub(super) type Outcomes = Result<Step, Refused>;

/// Opens a remediation: its first state, and what is owed at once.
///
/// Pressing `Run again` approves what the earlier declaration showed. Where it would be something
/// else now (`facts.rule_changed`), nobody has seen that yet, and it is no approval.
pub fn open(mut new: Remediation, facts: &Facts) -> Step {
    if let Trigger::Again { user, .. } = &new.trigger
        && !facts.rule_changed
    {
        new.approvals.push(Approval { user: user.clone(), at: facts.now });
    }
    // AWS may be away: the look-up goes on for as long as the alert is worth an answer.
    let until = facts.raised_at.plus(facts.max_age).max(facts.now.plus(RESOLVE_WITHIN));
    new.state = State::Resolving { until };
    match gate::on_arrival(facts) {
        Verdict::Hold(reason) | Verdict::Wait(reason) => hold(&new, reason, facts.now),
        Verdict::Go => Step { next: new, effects: vec![Effect::Resolve] },
    }
}

/// One transition. No `_` arm over inputs: a new input has to be thought of in every state.
pub fn step(this: &Remediation, input: &Input, facts: &Facts) -> Outcomes {
    match &this.state {
        State::Resolving { until } => resolving(this, *until, input, facts),
        State::Declaring { until } => declaring(this, *until, input, facts),
        State::AwaitingApproval { until } => awaiting_approval(this, *until, input, facts),
        State::Counting { until } => counting(this, *until, input, facts),
        State::Waiting { since, .. } => waiting(this, *since, input, facts),
        State::Sending { until } => sending(this, *until, input, facts),
        State::Running { until, .. } => running(this, *until, input, facts),
        State::Settling { until } => settling(this, *until, input, facts),
        State::Observed { .. } | State::Ended { .. } => over(this, input),
    }
}

impl Remediation {
    /// A deadline further off than any that this state can have was set by a clock that was ahead: it is
    /// that far off now. Else the rule would be held on its instance until the clock's time comes.
    pub fn not_due_after_its_term(&mut self, now: Timestamp, max_age: Duration) {
        let longest_run = longest_run(self);
        let policy = &self.policy;
        let (deadline, term) = match &mut self.state {
            State::Resolving { until } => (until, max_age.max(RESOLVE_WITHIN)),
            State::Declaring { until } => (until, max_age),
            State::AwaitingApproval { until } => (until, policy.approve_within),
            State::Counting { until } => (until, policy.grace),
            State::Waiting { reason: Reason::Throttled { until }, again_at, .. } => {
                *until = (*until).min(now.plus(THROTTLED_AT_MOST));
                (again_at, THROTTLED_AT_MOST)
            }
            State::Waiting { again_at, .. } => (again_at, LOOK_AGAIN),
            State::Sending { until } => (until, SEND_WITHIN),
            State::Running { until, .. } => (until, longest_run),
            State::Settling { until } => (until, policy.resolve_within),
            State::Observed { .. } | State::Ended { .. } => return,
        };
        *deadline = (*deadline).min(now.plus(term));
    }
}

fn resolving(this: &Remediation, until: Timestamp, input: &Input, facts: &Facts) -> Outcomes {
    match input {
        Input::TargetResolved(found) => match (gate::on_arrival(facts), found) {
            (Verdict::Hold(reason) | Verdict::Wait(reason), _) => Ok(hold(this, reason, facts.now)),
            (Verdict::Go, Err(unusable)) => {
                Ok(hold(this, Reason::Unusable { unusable: unusable.clone() }, facts.now))
            }
            (Verdict::Go, Ok((target, plan))) => {
                let mut next = this.clone();
                next.target = Some(target.clone());
                next.plan = Some(plan.clone());
                if facts.rule_changed {
                    // The presser of `Run again` saw another plan, or one for another node.
                    next.approvals.clear();
                }
                if facts.resolved_at.is_some() {
                    return Ok(end(&next, Outcome::Cancelled, Ending::ResolvedItself, facts.now));
                }
                match gate::before_declaring(facts) {
                    Verdict::Hold(reason) | Verdict::Wait(reason) => Ok(hold(&next, reason, facts.now)),
                    Verdict::Go => {
                        // A declaration that Slack takes later than this would declare a cure for an old alert.
                        next.state = State::Declaring { until: facts.raised_at.plus(facts.max_age) };
                        Ok(Step { next, effects: vec![Effect::Declare, Effect::React] })
                    }
                }
            }
        },
        Input::Woken => {
            if let Some(stopped) = stopped(this, facts) {
                return Ok(stopped);
            }
            if facts.now >= until {
                let why = "SSM did not answer the look-up in time".to_owned();
                let unusable = crate::plan::Unusable::LookupFailed { why };
                return Ok(hold(this, Reason::Unusable { unusable }, facts.now));
            }
            Err(Refused::Nothing)
        }
        Input::DeclarationPosted { .. }
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
        | Input::RunEnded { .. }
        | Input::ReportPosted { .. } => not_waiting(this),
    }
}

fn declaring(this: &Remediation, until: Timestamp, input: &Input, facts: &Facts) -> Outcomes {
    match input {
        Input::DeclarationPosted { ts } => {
            let mut next = this.clone();
            next.declaration = Some(ts.clone());
            if next.origin.ts.is_empty() {
                next.origin.ts.clone_from(ts);
            }
            if let Some(stopped) = stopped(&next, facts) {
                return Ok(stopped);
            }
            let approved = u32::try_from(next.approvals.len()).unwrap_or(u32::MAX) >= next.policy.approvals;
            match (next.policy.stage, &next.trigger) {
                (Stage::Observe, _) => {
                    next.state = State::Observed { at: facts.now };
                    Ok(Step { next, effects: vec![Effect::React] })
                }
                // Slack took it late (it was away, or heal was), and nobody is to approve an old cure.
                _ if facts.now >= until => {
                    let age = facts.now.since(facts.raised_at);
                    Ok(hold(&next, Reason::Stale { age, max_age: facts.max_age }, facts.now))
                }
                (Stage::Auto, Trigger::Again { .. }) if !next.approvals.is_empty() => {
                    Ok(try_to_send(next, facts))
                }
                (Stage::Auto, _) if next.policy.grace.is_zero() => Ok(try_to_send(next, facts)),
                (Stage::Auto, _) => {
                    next.state = State::Counting { until: facts.now.plus(next.policy.grace) };
                    Ok(Step { next, effects: declared(this, facts) })
                }
                (Stage::Approve, Trigger::Again { .. }) if approved => Ok(try_to_send(next, facts)),
                (Stage::Approve, _) => {
                    next.state =
                        State::AwaitingApproval { until: facts.now.plus(next.policy.approve_within) };
                    Ok(Step { next, effects: declared(this, facts) })
                }
            }
        }
        Input::DeclarationRefused { why } => {
            let reason = Reason::Undeclared { why: why.clone() };
            let mut ended = end(this, Outcome::Held, Ending::Gate { reason }, facts.now);
            // Slack may refuse these blocks and still take a plain line.
            ended.effects = vec![Effect::SayWhyNot, Effect::React];
            Ok(ended)
        }
        // Slack shows the message before its answer reaches us, and what makes it safer is never too early.
        Input::Held { user } => Ok(hold(this, Reason::HeldBy { user: user.clone() }, facts.now)),
        Input::Rejected { user } => {
            Ok(end(this, Outcome::Rejected, Ending::RejectedBy { user: user.clone() }, facts.now))
        }
        Input::Woken => {
            if let Some(stopped) = stopped(this, facts) {
                return Ok(stopped);
            }
            if facts.now >= until {
                let age = facts.now.since(facts.raised_at);
                return Ok(hold(this, Reason::Stale { age, max_age: facts.max_age }, facts.now));
            }
            Err(Refused::Nothing)
        }
        Input::TargetResolved(_)
        | Input::Approved { .. }
        | Input::SendAccepted { .. }
        | Input::SendRefused { .. }
        | Input::SendThrottled { .. }
        | Input::SendLost { .. }
        | Input::SendUnclear { .. }
        | Input::RunSeen { .. }
        | Input::RunUnseen { .. }
        | Input::HostSilent { .. }
        | Input::RunEnded { .. }
        | Input::ReportPosted { .. } => not_waiting(this),
    }
}

fn awaiting_approval(this: &Remediation, until: Timestamp, input: &Input, facts: &Facts) -> Outcomes {
    match input {
        Input::Approved { user } => {
            if let Some(stopped) = stopped(this, facts) {
                return Ok(stopped);
            }
            if facts.now >= until {
                return Err(Refused::TooLate);
            }
            if matches!(&this.trigger, Trigger::Person { user: asker } if asker == user) {
                return Err(Refused::OwnRequest);
            }
            if this.approvals.iter().any(|approval| approval.user == *user) {
                return Err(Refused::ApprovedAlready);
            }
            let mut next = this.clone();
            next.approvals.push(Approval { user: user.clone(), at: facts.now });
            if u32::try_from(next.approvals.len()).unwrap_or(u32::MAX) >= next.policy.approvals {
                return Ok(try_to_send(next, facts));
            }
            Ok(Step { next, effects: vec![Effect::UpdateDeclaration] })
        }
        Input::Rejected { user } => {
            Ok(end(this, Outcome::Rejected, Ending::RejectedBy { user: user.clone() }, facts.now))
        }
        Input::Woken => {
            if let Some(stopped) = stopped(this, facts) {
                return Ok(stopped);
            }
            if facts.now >= until {
                let why = Ending::NotApproved {
                    approvals: u32::try_from(this.approvals.len()).unwrap_or(u32::MAX),
                    needed: this.policy.approvals,
                    within: this.policy.approve_within,
                };
                return Ok(end(this, Outcome::Expired, why, facts.now));
            }
            Err(Refused::Nothing)
        }
        Input::Held { .. }
        | Input::TargetResolved(_)
        | Input::DeclarationPosted { .. }
        | Input::DeclarationRefused { .. }
        | Input::SendAccepted { .. }
        | Input::SendRefused { .. }
        | Input::SendThrottled { .. }
        | Input::SendLost { .. }
        | Input::SendUnclear { .. }
        | Input::RunSeen { .. }
        | Input::RunUnseen { .. }
        | Input::HostSilent { .. }
        | Input::RunEnded { .. }
        | Input::ReportPosted { .. } => not_waiting(this),
    }
}

fn counting(this: &Remediation, until: Timestamp, input: &Input, facts: &Facts) -> Outcomes {
    match input {
        Input::Held { user } => Ok(hold(this, Reason::HeldBy { user: user.clone() }, facts.now)),
        Input::Woken => {
            if let Some(stopped) = stopped(this, facts) {
                return Ok(stopped);
            }
            if facts.now >= until {
                return Ok(try_to_send(this.clone(), facts));
            }
            Err(Refused::Nothing)
        }
        Input::Approved { .. }
        | Input::Rejected { .. }
        | Input::TargetResolved(_)
        | Input::DeclarationPosted { .. }
        | Input::DeclarationRefused { .. }
        | Input::SendAccepted { .. }
        | Input::SendRefused { .. }
        | Input::SendThrottled { .. }
        | Input::SendLost { .. }
        | Input::SendUnclear { .. }
        | Input::RunSeen { .. }
        | Input::RunUnseen { .. }
        | Input::HostSilent { .. }
        | Input::RunEnded { .. }
        | Input::ReportPosted { .. } => not_waiting(this),
    }
}

fn waiting(this: &Remediation, since: Timestamp, input: &Input, facts: &Facts) -> Outcomes {
    match input {
        Input::Held { user } => Ok(hold(this, Reason::HeldBy { user: user.clone() }, facts.now)),
        Input::Woken => {
            if let Some(stopped) = stopped(this, facts) {
                return Ok(stopped);
            }
            // Something else may wake it early, and SSM's "come back later" still holds.
            if matches!(&this.state, State::Waiting { reason: Reason::Throttled { until }, .. } if facts.now < *until)
            {
                return Err(Refused::Nothing);
            }
            let mut stepped = try_to_send(this.clone(), facts);
            if let State::Waiting { since: began, .. } = &mut stepped.next.state {
                *began = since;
                if same_wait(&this.state, &stepped.next.state) {
                    stepped.effects.clear();
                }
            }
            Ok(stepped)
        }
        Input::Approved { .. }
        | Input::Rejected { .. }
        | Input::TargetResolved(_)
        | Input::DeclarationPosted { .. }
        | Input::DeclarationRefused { .. }
        | Input::SendAccepted { .. }
        | Input::SendRefused { .. }
        | Input::SendThrottled { .. }
        | Input::SendLost { .. }
        | Input::SendUnclear { .. }
        | Input::RunSeen { .. }
        | Input::RunUnseen { .. }
        | Input::HostSilent { .. }
        | Input::RunEnded { .. }
        | Input::ReportPosted { .. } => not_waiting(this),
    }
}

/// Whether two waits read the same in the declaration.
fn same_wait(one: &State, other: &State) -> bool {
    match (one, other) {
        (State::Waiting { reason: a, .. }, State::Waiting { reason: b, .. }) => a == b,
        _ => false,
    }
}

fn over(this: &Remediation, input: &Input) -> Outcomes {
    match input {
        // It ended while its declaration was on the way to Slack: the message has to say so.
        Input::DeclarationPosted { ts } if this.declaration.is_none() => {
            let mut next = this.clone();
            next.declaration = Some(ts.clone());
            if next.origin.ts.is_empty() {
                next.origin.ts.clone_from(ts);
            }
            Ok(Step { next, effects: vec![Effect::UpdateDeclaration] })
        }
        Input::ReportPosted { ts } => report_posted(this, ts),
        Input::TargetResolved(_)
        | Input::DeclarationPosted { .. }
        | Input::DeclarationRefused { .. }
        | Input::Approved { .. }
        | Input::Rejected { .. }
        | Input::Held { .. }
        | Input::Woken
        | Input::SendAccepted { .. }
        | Input::SendRefused { .. }
        | Input::SendThrottled { .. }
        | Input::SendLost { .. }
        | Input::SendUnclear { .. }
        | Input::RunSeen { .. }
        | Input::RunUnseen { .. }
        | Input::HostSilent { .. }
        | Input::RunEnded { .. } => Err(Refused::Over { outcome: this.outcome() }),
    }
}

/// The report is in the thread. Where the outcome came meanwhile, it is brought up to date.
pub(super) fn report_posted(this: &Remediation, ts: &str) -> Outcomes {
    if this.report.is_some() {
        return Err(Refused::Nothing);
    }
    let mut next = this.clone();
    next.report = Some(ts.to_owned());
    Ok(Step { next, effects: Vec::new() })
}

/// What stops everything that was not sent: the alert's own "resolved", a pause, a changed rule.
pub(super) fn stopped(this: &Remediation, facts: &Facts) -> Option<Step> {
    if facts.resolved_at.is_some() && !matches!(this.trigger, Trigger::Person { .. }) {
        return Some(end(this, Outcome::Cancelled, Ending::ResolvedItself, facts.now));
    }
    match gate::paused(facts) {
        Verdict::Hold(reason) | Verdict::Wait(reason) => return Some(hold(this, reason, facts.now)),
        Verdict::Go => {}
    }
    if facts.rule_changed && this.plan.is_some() {
        return Some(withdraw(this, facts.now));
    }
    None
}

/// It may run, as far as people are concerned: the gates are asked, and it is sent or waits.
fn try_to_send(mut next: Remediation, facts: &Facts) -> Step {
    if let Some(stopped) = stopped(&next, facts) {
        return stopped;
    }
    match gate::before_sending(facts) {
        Verdict::Hold(reason) => hold(&next, reason, facts.now),
        Verdict::Wait(reason) => {
            next.state = State::Waiting { reason, since: facts.now, again_at: facts.now.plus(LOOK_AGAIN) };
            Step { next, effects: vec![Effect::UpdateDeclaration, Effect::React] }
        }
        Verdict::Go if is_late(&next, facts) => {
            let age = facts.now.since(facts.raised_at);
            hold(&next, Reason::Stale { age, max_age: facts.max_age }, facts.now)
        }
        Verdict::Go => {
            next.sent_at = Some(facts.now);
            next.state = State::Sending { until: facts.now.plus(SEND_WITHIN) };
            Step { next, effects: vec![Effect::Send, Effect::UpdateDeclaration, Effect::React] }
        }
    }
}

/// What is owed when people may decide. The reaction: the one set while Slack took the declaration says
/// less. And a declaration names the time until which it waits, as reckoned when it was rendered; where
/// Slack took it much later, it is said anew.
fn declared(this: &Remediation, facts: &Facts) -> Vec<Effect> {
    let slow = facts.now.since(this.opened_at) > Duration::from_secs(2);
    if slow { vec![Effect::UpdateDeclaration, Effect::React] } else { vec![Effect::React] }
}

/// A late cure answers another outage: between being allowed (the last approval; the alert and its
/// grace in stage auto) and being sent, no more than `max_age` may pass, whatever kept it.
pub(super) fn is_late(this: &Remediation, facts: &Facts) -> bool {
    let allowed_at =
        this.approvals.last().map_or(facts.raised_at.plus(this.policy.grace), |approval| approval.at);
    facts.now.since(allowed_at) > facts.max_age
}

pub(super) fn hold(this: &Remediation, reason: Reason, now: Timestamp) -> Step {
    end(this, Outcome::Held, Ending::Gate { reason }, now)
}

fn withdraw(this: &Remediation, now: Timestamp) -> Step {
    let mut step = end(this, Outcome::Cancelled, Ending::RuleChanged, now);
    step.effects.push(Effect::Reopen);
    step
}

/// The end, and where it is said: in the declaration where there is one, else in a line of its own;
/// in a report where something was sent.
pub(super) fn end(this: &Remediation, outcome: Outcome, why: Ending, now: Timestamp) -> Step {
    let mut next = this.clone();
    let declared = !matches!(this.state, State::Resolving { .. });
    let mut effects = Vec::new();
    if declared {
        effects.push(Effect::UpdateDeclaration);
    } else {
        effects.push(Effect::SayWhyNot);
    }
    if this.sent_at.is_some() {
        let reported = matches!(this.state, State::Settling { .. });
        effects.push(if reported { Effect::UpdateReport } else { Effect::Report });
    }
    effects.push(Effect::React);
    next.state = State::Ended { outcome, why, at: now };
    Step { next, effects }
}

pub(super) fn not_waiting(this: &Remediation) -> Outcomes {
    Err(Refused::NotWaiting { state: this.state.name() })
}
