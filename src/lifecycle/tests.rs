//! The machine by its whole table, by properties over arbitrary lives, and by its races.

mod properties;
mod races;
mod table;

use std::collections::BTreeMap;

use super::*;
use crate::alert::Status;
use crate::gate::{Facts, Pause};
use crate::plan::{Platform, Step as PlannedStep, StepKind, Work};

/// When the alert of every test was posted.
const RAISED: Timestamp = Timestamp::from_secs(1_795_410_000);
const APPROVE_WITHIN: Duration = Duration::from_secs(30 * 60);
const RESOLVE_WITHIN: Duration = Duration::from_secs(10 * 60);
const GRACE: Duration = Duration::from_secs(20);
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// So many seconds after the alert.
fn at(seconds: u64) -> Timestamp {
    RAISED.plus(Duration::from_secs(seconds))
}

/// Facts under which everything goes.
fn calm(now: Timestamp) -> Facts {
    Facts {
        now,
        resolved_at: None,
        raised_at: RAISED,
        max_age: MAX_AGE,
        pause: None,
        under_way: None,
        cooldown_until: None,
        attempts: Vec::new(),
        instance_taken: None,
        role_running: 0,
        at_once: 1,
        deaf: false,
        rule_changed: false,
        ordered: false,
    }
}

fn pause() -> Pause {
    Pause {
        id: 1,
        pattern: "web:*".into(),
        by: "U0LEAD".into(),
        reason: Some("deploy".into()),
        since: RAISED,
        until: None,
    }
}

fn target() -> Target {
    Target { instance_id: "i-0abc123".into(), name: "web-1".into(), address: None, platform: Platform::Linux }
}

fn plan() -> Plan {
    let restart = PlannedStep { kind: StepKind::Command, text: "systemctl restart nginx".into() };
    Plan {
        work: Work::Shell { steps: vec![restart], env: BTreeMap::new() },
        timeout: Duration::from_secs(300),
    }
}

fn resolved() -> Input {
    Input::TargetResolved(Ok((target(), plan())))
}

fn posted() -> Input {
    Input::DeclarationPosted { ts: "1795410001.000100".into() }
}

fn approved(user: &str) -> Input {
    Input::Approved { user: user.into() }
}

fn held(user: &str) -> Input {
    Input::Held { user: user.into() }
}

fn ran(ended_as: Final) -> Ran {
    let exit = Some(i32::from(ended_as != Final::Success));
    Ran {
        exit,
        steps: vec![StepRan {
            kind: Some(StepKind::Command),
            name: "systemctl restart nginx".into(),
            exit,
            status: None,
            millis: Some(1200),
            output: String::new(),
        }],
        ended_as,
        output: String::new(),
        output_cut: false,
        started_at: at(60),
        ended_at: at(61),
    }
}

/// A remediation before its opening.
fn new(stage: Stage, approvals: u32, trigger: Trigger) -> Remediation {
    let by_person = matches!(trigger, Trigger::Person { .. });
    Remediation {
        id: RemediationId("r7k2m9w4qabc".into()),
        rule_key: RuleKey { role: "web".into(), alert: "NginxDown".into() },
        policy: Policy {
            stage,
            grace: GRACE,
            approvals,
            approve_within: APPROVE_WITHIN,
            resolve_within: RESOLVE_WITHIN,
            cooldown: Duration::from_secs(30 * 60),
            at_once: 1,
            approvers: Vec::new(),
            about: None,
            runbook: None,
            owner: None,
            fix_ticket: None,
            fix_due: None,
            resolves: !by_person,
        },
        trigger,
        alert: Alert {
            name: "NginxDown".into(),
            status: Status::Firing,
            role: Some("web".into()),
            host: Some("web-1".into()),
            instance: None,
            instance_id: None,
            severity: None,
            summary: None,
            fingerprint: None,
            link: None,
            start: None,
            labels: BTreeMap::new(),
        },
        origin: Origin {
            sender: if by_person { "heal run" } else { "prometheus" }.into(),
            channel: "C0ALERTS".into(),
            ts: if by_person { String::new() } else { "1795410000.000000".into() },
            at: RAISED,
        },
        target: None,
        plan: None,
        opened_at: RAISED,
        approvals: Vec::new(),
        declaration: None,
        report: None,
        sent_at: None,
        sent_again: Vec::new(),
        fence_dir: None,
        command_id: None,
        ran: None,
        state: State::Resolving { until: RAISED },
    }
}

/// What a life of these inputs comes to; each has to be taken.
fn lived(new: Remediation, inputs: &[(u64, Input)]) -> Remediation {
    inputs.iter().fold(open(new, &calm(RAISED)).next, |this, (second, input)| {
        let taken = step(&this, input, &calm(at(*second)));
        taken.unwrap_or_else(|refused| panic!("{input:?} in {}: {refused:?}", this.state.name())).next
    })
}

fn of_alert(stage: Stage) -> Remediation {
    new(stage, 1, Trigger::Alert)
}

fn declaring(stage: Stage) -> Remediation {
    lived(of_alert(stage), &[(0, resolved())])
}

/// Stage approve, declared, not approved.
fn awaiting(approvals: u32) -> Remediation {
    lived(new(Stage::Approve, approvals, Trigger::Alert), &[(0, resolved()), (1, posted())])
}

/// Stage auto, in its grace from second 1 on.
fn counting() -> Remediation {
    lived(of_alert(Stage::Auto), &[(0, resolved()), (1, posted())])
}

/// Approved in second 60, and with SSM from then on.
fn sending() -> Remediation {
    lived(of_alert(Stage::Approve), &[(0, resolved()), (1, posted()), (60, approved("U1"))])
}

/// Its answer was lost, and a second copy is on the way.
fn sending_again() -> Remediation {
    step(&sending(), &Input::SendLost { why: "why".into() }, &calm(at(63))).unwrap().next
}

/// It was lost, it is not wanted any more, and the host is asked.
fn lost_and_asking() -> Remediation {
    let paused = Facts { pause: Some(pause()), ..calm(at(65)) };
    step(&sending_again(), &Input::SendLost { why: "why".into() }, &paused).unwrap().next
}

/// The same with a document in place of shell lines.
fn documented(mut this: Remediation) -> Remediation {
    if let Some(plan) = &mut this.plan {
        plan.work = Work::Document { name: "Acme-RestartReplica".into(), parameters: BTreeMap::new() };
    }
    this
}

fn running() -> Remediation {
    let accepted = Input::SendAccepted { command_id: "c-1".into() };
    step(&sending(), &accepted, &calm(at(60))).unwrap().next
}

/// It ran well in second 70; its report is not posted yet.
fn settling() -> Remediation {
    step(&running(), &Input::RunEnded { ran: ran(Final::Success) }, &calm(at(70))).unwrap().next
}

/// Approved, and waiting for another remediation on its instance.
fn waiting() -> Remediation {
    let other = (RemediationId("other".into()), "web:DiskFull".into());
    let busy = Facts { instance_taken: Some(other), ..calm(at(60)) };
    step(&awaiting(1), &approved("U1"), &busy).unwrap().next
}
