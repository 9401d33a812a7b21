//! Remediations in every state, reasons of every kind: what the messages are rendered from.

use super::*;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(NOW.as_secs() + seconds)
}

pub(super) fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

pub(super) fn context() -> Context {
    let groups =
        BTreeMap::from([("sre".to_owned(), "S0SRE".to_owned()), ("web".to_owned(), "S0WEB".to_owned())]);
    Context { now: NOW, approvers: vec!["@sre".into(), "U0LEAD".into()], groups: Arc::new(groups) }
}

pub(super) fn shell() -> Work {
    let step = |kind, text: &str| Step { kind, text: text.to_owned() };
    Work::Shell {
        steps: vec![
            step(StepKind::Confirm, "! systemctl is-active --quiet nginx"),
            step(StepKind::Command, "journalctl -u nginx | tail -n 5 > \"$MOUNT/last\""),
            step(StepKind::Command, "systemctl restart nginx"),
            step(StepKind::Verify, "systemctl is-active --quiet nginx"),
        ],
        env: BTreeMap::from([("MOUNT".to_owned(), "/var/log".to_owned())]),
    }
}

pub(super) fn target() -> Target {
    Target {
        instance_id: "i-0abc123".into(),
        name: "web-1".into(),
        address: Some("10.0.0.1".into()),
        platform: Platform::Linux,
    }
}

pub(super) fn remediation(stage: Stage, state: State) -> Remediation {
    Remediation {
        id: crate::plan::RemediationId("r7k2m9x4".into()),
        rule_key: RuleKey { role: "web".into(), alert: "NginxDown".into() },
        policy: Policy {
            stage,
            grace: Duration::from_secs(20),
            approvals: 1,
            approve_within: minutes(30),
            resolve_within: minutes(10),
            cooldown: minutes(30),
            at_once: 1,
            approvers: Vec::new(),
            about: Some("nginx has stopped; users see 502 from one host.".into()),
            runbook: Some("https://wiki.example.com/nginx".into()),
            owner: Some("@web".into()),
            fix_ticket: Some("OPS-123".into()),
            fix_due: Some("2027-01-31".into()),
            resolves: true,
        },
        trigger: Trigger::Alert,
        alert: Alert {
            name: "NginxDown".into(),
            status: Status::Firing,
            role: Some("web".into()),
            host: Some("web-1".into()),
            instance: Some("web-1:9100".into()),
            instance_id: None,
            severity: Some("critical".into()),
            summary: Some("nginx is down on web-1".into()),
            fingerprint: None,
            link: None,
            start: None,
            labels: BTreeMap::new(),
        },
        origin: Origin {
            sender: "prometheus".into(),
            channel: "C1".into(),
            ts: "1795409990.000100".into(),
            at: at(-10),
        },
        target: Some(target()),
        plan: Some(Plan { work: shell(), timeout: minutes(5) }),
        opened_at: at(-10),
        approvals: Vec::new(),
        declaration: Some("1795409991.000100".into()),
        report: None,
        sent_at: None,
        sent_again: Vec::new(),
        fence_dir: None,
        command_id: None,
        ran: None,
        state,
    }
}

pub(super) fn approved(mut this: Remediation) -> Remediation {
    this.approvals.push(Approval { user: "U0ALICE".into(), at: at(-5) });
    this.sent_at = Some(at(-4));
    this.command_id = Some("0b1c2d3e-1111-2222-3333-444455556666".into());
    this
}

/// A run whose sending was lost and repeated.
fn lost(state: State, command_id: Option<&str>) -> Remediation {
    let mut this = approved(remediation(Stage::Approve, state));
    this.sent_again.push(at(-1));
    this.command_id = command_id.map(str::to_owned);
    this
}

pub(super) fn ran(ended_as: Final, verify: i32) -> Ran {
    let step = |kind, name: &str, exit, output: &str| StepRan {
        kind: Some(kind),
        name: name.into(),
        exit: Some(exit),
        status: None,
        millis: Some(420),
        output: output.into(),
    };
    Ran {
        ended_as,
        exit: Some(verify),
        steps: vec![
            step(StepKind::Confirm, "! systemctl is-active --quiet nginx", 0, ""),
            step(StepKind::Command, "systemctl restart nginx", 0, "restarted <nginx> & co\n"),
            step(StepKind::Verify, "systemctl is-active --quiet nginx", verify, ""),
        ],
        output: String::new(),
        output_cut: false,
        started_at: at(-4),
        ended_at: at(-2),
    }
}

pub(super) fn ended(outcome: Outcome, why: Ending) -> State {
    State::Ended { outcome, why, at: NOW }
}

pub(super) fn pause() -> Pause {
    Pause {
        id: 1,
        pattern: "web:*".into(),
        by: "U0BOB".into(),
        reason: Some("deploy <!channel> until six".into()),
        since: at(-600),
        until: Some(at(3600)),
    }
}

pub(super) fn reasons() -> Vec<Reason> {
    let other = crate::plan::RemediationId("rother11".into());
    let unusable = |unusable| Reason::Unusable { unusable };
    vec![
        Reason::Paused { pause: pause() },
        Reason::Paused { pause: Pause { until: None, reason: None, pattern: "*".into(), ..pause() } },
        Reason::Stale { age: minutes(40), max_age: minutes(15) },
        Reason::UnderWay { other: other.clone() },
        Reason::CoolingDown { until: at(700) },
        Reason::TooManyAttempts { used: 3, count: 3, window: minutes(60), free_at: at(900) },
        Reason::InstanceTaken { other, key: "web:DiskFull".into() },
        Reason::RoleFull { running: 1, at_once: 1 },
        Reason::Throttled { until: at(30) },
        Reason::Deaf,
        Reason::HeldBy { user: "U0BOB".into() },
        Reason::Undeclared { why: "not_in_channel".into() },
        Reason::RuleChanged,
        unusable(Unusable::NotNamed),
        unusable(Unusable::NotFound { host: "web-9".into() }),
        unusable(Unusable::Several { host: "web-1".into(), instance_ids: vec!["i-1".into(), "i-2".into()] }),
        unusable(Unusable::Offline { target: target(), ping: "ConnectionLost".into() }),
        unusable(Unusable::WrongRole { target: target(), tag: "Role".into(), role: "web".into() }),
        unusable(Unusable::Platform { target: target() }),
        unusable(Unusable::LookupFailed { why: "ThrottlingException".into() }),
        unusable(Unusable::Unfit { why: "labels.mountpoint is missing".into() }),
    ]
}

pub(super) fn stories() -> Vec<(&'static str, Remediation)> {
    let user = || "U0BOB".to_owned();
    let mut two = remediation(Stage::Approve, State::AwaitingApproval { until: at(1800) });
    two.policy.approvals = 2;
    two.approvals.push(Approval { user: "U0ALICE".into(), at: at(-5) });
    let mut asked = remediation(Stage::Approve, State::AwaitingApproval { until: at(1800) });
    asked.trigger = Trigger::Person { user: user() };
    let mut document = remediation(Stage::Observe, State::Observed { at: NOW });
    let parameters = BTreeMap::from([
        ("Mode".to_owned(), vec!["soft".to_owned()]),
        ("Hosts".to_owned(), vec!["a,b".to_owned(), "c".to_owned()]),
    ]);
    document.plan = Some(Plan {
        work: Work::Document { name: "Acme-RestartReplica".into(), parameters },
        timeout: minutes(5),
    });
    let mut automation = approved(remediation(
        Stage::Auto,
        State::Running {
            until: at(300),
            asking: false,
            steps: vec![
                StepRan {
                    kind: None,
                    name: "drain".into(),
                    exit: None,
                    status: Some("Success".into()),
                    millis: Some(61_000),
                    output: String::new(),
                },
                StepRan {
                    kind: None,
                    name: "replace".into(),
                    exit: None,
                    status: Some("InProgress".into()),
                    millis: None,
                    output: String::new(),
                },
            ],
        },
    ));
    automation.plan = Some(Plan {
        work: Work::Automation {
            name: "Acme-ReplaceNode".into(),
            parameters: BTreeMap::from([("InstanceId".to_owned(), vec!["i-0abc123".to_owned()])]),
        },
        timeout: minutes(5),
    });
    automation.approvals.clear();
    let done = |outcome, why, end: Final, verify| {
        let mut this = approved(remediation(Stage::Approve, ended(outcome, why)));
        this.ran = Some(ran(end, verify));
        this
    };
    let mut not_needed = done(Outcome::NotNeeded, Ending::Run, Final::Success, 0);
    if let Some(ran) = &mut not_needed.ran {
        ran.steps.truncate(1);
        ran.steps[0].exit = Some(1);
    }
    let mut settling = approved(remediation(Stage::Approve, State::Settling { until: at(600) }));
    settling.ran = Some(ran(Final::Success, 0));
    let before = |outcome, why| remediation(Stage::Approve, ended(outcome, why));
    vec![
        ("resolving", remediation(Stage::Approve, State::Resolving { until: at(60) })),
        ("declaring_approve", remediation(Stage::Approve, State::Declaring { until: at(60) })),
        ("declaring_auto", remediation(Stage::Auto, State::Declaring { until: at(60) })),
        ("awaiting", remediation(Stage::Approve, State::AwaitingApproval { until: at(1800) })),
        ("awaiting_second", two),
        ("awaiting_asked", asked),
        ("counting", remediation(Stage::Auto, State::Counting { until: at(20) })),
        (
            "waiting",
            remediation(
                Stage::Auto,
                State::Waiting { reason: reasons()[6].clone(), since: at(-3), again_at: at(5) },
            ),
        ),
        ("sending", approved(remediation(Stage::Approve, State::Sending { until: at(60) }))),
        ("sending_again", lost(State::Sending { until: at(60) }, None)),
        ("running_lost", lost(State::Running { until: at(60), steps: Vec::new(), asking: true }, None)),
        (
            "running_asked",
            lost(State::Running { until: at(60), steps: Vec::new(), asking: true }, Some("c-1")),
        ),
        ("running_automation", automation),
        ("settling", settling),
        ("observed_document", document),
        ("healed", done(Outcome::Healed, Ending::Resolved, Final::Success, 0)),
        ("healed_alone", done(Outcome::Healed, Ending::RunAlone, Final::Success, 0)),
        ("not_needed", not_needed),
        ("failed_verify", done(Outcome::Failed, Ending::Run, Final::Failed, 3)),
        (
            "failed_refused",
            approved(before(Outcome::Failed, Ending::SendRefused { why: "InvalidInstanceId".into() })),
        ),
        ("timed_out", done(Outcome::TimedOut, Ending::Run, Final::ExecutionTimedOut, 0)),
        (
            "unresolved",
            done(Outcome::Unresolved, Ending::DidNotResolve { within: minutes(10) }, Final::Success, 0),
        ),
        ("rejected", before(Outcome::Rejected, Ending::RejectedBy { user: user() })),
        (
            "expired",
            before(Outcome::Expired, Ending::NotApproved { approvals: 0, needed: 1, within: minutes(30) }),
        ),
        ("held_by", before(Outcome::Held, Ending::Gate { reason: Reason::HeldBy { user: user() } })),
        ("held_paused", before(Outcome::Held, Ending::Gate { reason: reasons()[0].clone() })),
        ("cancelled", before(Outcome::Cancelled, Ending::ResolvedItself)),
        ("rule_changed", before(Outcome::Cancelled, Ending::RuleChanged)),
        (
            "unknown_unclear",
            approved(before(Outcome::Unknown, Ending::SendUnclear { why: "connection reset".into() })),
        ),
        ("unknown_no_answer", approved(before(Outcome::Unknown, Ending::NoAnswer { within: minutes(7) }))),
    ]
}
