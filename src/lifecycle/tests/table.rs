//! Every state with every input by name and every fact that matters, as one page to read.

use std::fmt::Write as _;

use super::*;
use crate::gate::Used;
use crate::plan::Unusable;
use crate::rule::Attempts;

/// Every input, once per shape that matters. The match makes a new input a compile error here.
fn inputs() -> Vec<(&'static str, Input)> {
    fn known(input: &Input) {
        match input {
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
            | Input::RunEnded { .. }
            | Input::ReportPosted { .. } => {}
        }
    }
    let no_host = Unusable::NotFound { host: "web-1".into() };
    let confirm_failed = Ran {
        steps: vec![StepRan {
            kind: Some(StepKind::Confirm),
            name: "! systemctl is-active nginx".into(),
            exit: Some(1),
            status: None,
            millis: None,
            output: String::new(),
        }],
        ..ran(Final::Success)
    };
    let why = || "SSM says so".to_owned();
    let ended = |ran| Input::RunEnded { ran };
    let all = vec![
        ("the target is found", resolved()),
        ("the target is not found", Input::TargetResolved(Err(no_host))),
        ("the declaration is posted", posted()),
        ("Slack refuses the declaration", Input::DeclarationRefused { why: why() }),
        ("U1 approves", approved("U1")),
        ("U2 approves", approved("U2")),
        ("U1 rejects", Input::Rejected { user: "U1".into() }),
        ("U1 presses Hold", held("U1")),
        ("woken", Input::Woken),
        ("SSM takes the command", Input::SendAccepted { command_id: "c-1".into() }),
        ("SSM refuses the command", Input::SendRefused { why: why() }),
        ("SSM is throttling", Input::SendThrottled { retry_after: Duration::from_secs(5) }),
        ("SSM's answer is lost", Input::SendLost { why: why() }),
        ("SSM's answer stays unclear", Input::SendUnclear { why: why() }),
        ("a step is seen", Input::RunSeen { steps: ran(Final::Success).steps }),
        ("AWS cannot be asked", Input::RunUnseen { why: why() }),
        ("the host is silent", Input::HostSilent { why: why() }),
        ("it ran well", ended(ran(Final::Success))),
        ("it failed", ended(ran(Final::Failed))),
        ("confirm failed", ended(confirm_failed)),
        ("it ran too long", ended(ran(Final::ExecutionTimedOut))),
        ("its delivery timed out", ended(ran(Final::DeliveryTimedOut))),
        ("it was undeliverable", ended(ran(Final::Undeliverable))),
        ("the host says that nothing ran", ended(ran(Final::Late))),
        ("it was cancelled in SSM", ended(ran(Final::Cancelled))),
        ("it ended in an unknown word", ended(ran(Final::Other("Odd".into())))),
        ("the report is posted", Input::ReportPosted { ts: "1795410070.000100".into() }),
    ];
    all.iter().for_each(|(_, input)| known(input));
    all
}

/// The facts that change what an input does.
fn worlds(now: Timestamp) -> Vec<(&'static str, Facts)> {
    let other = || Some((RemediationId("other".into()), "web:DiskFull".to_owned()));
    let full = Used {
        allowed: Attempts { count: 3, window: Duration::from_secs(3600) },
        used: 3,
        free_at: now.plus(Duration::from_secs(60)),
    };
    let late = RAISED.plus(MAX_AGE).plus(Duration::from_secs(1));
    vec![
        ("paused", Facts { pause: Some(pause()), ..calm(now) }),
        ("the alert has resolved", Facts { resolved_at: Some(now), ..calm(now) }),
        ("the rule has changed", Facts { rule_changed: true, ..calm(now) }),
        ("the same rule is under way", Facts { under_way: Some(RemediationId("other".into())), ..calm(now) }),
        ("in cooldown", Facts { cooldown_until: Some(now.plus(Duration::from_secs(60))), ..calm(now) }),
        ("too many attempts", Facts { attempts: vec![full], ..calm(now) }),
        ("the instance is taken", Facts { instance_taken: other(), ..calm(now) }),
        ("the role is full", Facts { role_running: 1, ..calm(now) }),
        ("the instance is taken, the alert too old", Facts { instance_taken: other(), ..calm(late) }),
        ("the role is full, the alert too old", Facts { role_running: 1, ..calm(late) }),
        ("Slack is not heard", Facts { deaf: true, ..calm(now) }),
        ("Slack is not heard, the alert too old", Facts { deaf: true, ..calm(late) }),
        ("the alert is just not too old", calm(RAISED.plus(MAX_AGE))),
        ("the alert is too old", calm(late)),
    ]
}

fn say(taken: &Result<Step, Refused>, before: &Remediation) -> String {
    let step = match taken {
        Ok(step) => step,
        Err(Refused::Nothing) => return "refused: nothing to do".to_owned(),
        Err(Refused::NotWaiting { .. }) => return "refused: not waiting for this".to_owned(),
        Err(refused) => return format!("refused: {refused:?}"),
    };
    let mut said = match &step.next.state {
        State::Ended { outcome, why: Ending::Gate { reason }, .. } => {
            format!("{} (gate {})", outcome.as_str().to_uppercase(), reason.name())
        }
        State::Ended { outcome, why, .. } => {
            let why = serde_json::to_value(why).unwrap();
            format!("{} ({})", outcome.as_str().to_uppercase(), why["because"].as_str().unwrap())
        }
        State::Waiting { reason, .. } => format!("waiting ({})", reason.name()),
        state => state.name().to_owned(),
    };
    if said == before.state.name() {
        said = "stays".to_owned();
    }
    if let Some(due) = step.next.state.due_at().filter(|due| Some(*due) != before.state.due_at()) {
        let _ = write!(said, ", due at {} s", due.since(RAISED).as_secs());
    }
    let effects: Vec<&str> = step.effects.iter().map(|effect| effect.as_str()).collect();
    if effects.is_empty() { said } else { format!("{said} -> {}", effects.join(", ")) }
}

/// One line for all that comes to the same, what changes nothing last.
fn alike(out: &mut String, lead: &str, all: impl Iterator<Item = (&'static str, String)>) {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, said) in all {
        match lines.iter_mut().find(|(same, _)| *same == said) {
            Some((_, names)) => names.push(name),
            None => lines.push((said, vec![name])),
        }
    }
    lines.sort_by_key(|(said, _)| said.starts_with("refused"));
    for (said, names) in lines {
        let _ = writeln!(out, "{lead}{}\n    {said}", names.join(" | "));
    }
}

/// One state's part of the page: what it takes, what each fact makes of its hints, what it refuses.
fn page(out: &mut String, title: &str, this: &Remediation, now: Timestamp, hints: &[(&str, Input)]) {
    let _ = writeln!(out, "## {title}, at {} s", now.since(RAISED).as_secs());
    if let Some(due) = this.state.due_at() {
        let _ = writeln!(out, "(due at {} s)", due.since(RAISED).as_secs());
    }
    let taken = inputs().into_iter().map(|(name, input)| (name, say(&step(this, &input, &calm(now)), this)));
    alike(out, "", taken);
    for (hint, input) in hints {
        let due = this.state.due_at().unwrap_or(now);
        let in_time = ("its time has come", say(&step(this, input, &calm(due)), this));
        let worlds = worlds(now).into_iter();
        let worlds = worlds.map(|(world, facts)| (world, say(&step(this, input, &facts), this)));
        alike(out, &format!("{hint}, and "), std::iter::once(in_time).chain(worlds));
    }
    out.push('\n');
}

#[test]
fn the_whole_table_reads_as_meant() {
    let mut out = String::new();
    let _ = writeln!(out, "# opening");
    let opened = of_alert(Stage::Approve);
    let before = opened.clone();
    let calmly = ("all is calm", say(&Ok(open(opened.clone(), &calm(RAISED))), &before));
    let worlds = worlds(RAISED).into_iter();
    let worlds = worlds.map(|(world, facts)| (world, say(&Ok(open(opened.clone(), &facts)), &before)));
    alike(&mut out, "an alert, and ", std::iter::once(calmly).chain(worlds));
    out.push_str("\n# states\n\n");
    let woken = || ("woken", Input::Woken);
    let resolving = open(opened, &calm(RAISED)).next;
    page(&mut out, "resolving", &resolving, at(1), &[woken(), ("the target is found", resolved())]);
    for stage in [Stage::Observe, Stage::Approve, Stage::Auto] {
        let title = format!("declaring, stage {}", stage.as_str());
        page(&mut out, &title, &declaring(stage), at(1), &[woken(), ("posted", posted())]);
    }
    let presser = || Trigger::Again { user: "U1".into(), of: RemediationId("earlier".into()) };
    for (stage, approvals) in [(Stage::Approve, 1), (Stage::Approve, 2), (Stage::Auto, 1)] {
        let again = lived(new(stage, approvals, presser()), &[(0, resolved())]);
        let title =
            format!("declaring, `Run again` pressed by U1, stage {}, approvals {approvals}", stage.as_str());
        page(&mut out, &title, &again, at(1), &[]);
    }
    let approve = || ("U1 approves", approved("U1"));
    page(&mut out, "awaiting approval, 1 needed", &awaiting(1), at(30), &[woken(), approve()]);
    let one_of_two = step(&awaiting(2), &approved("U1"), &calm(at(2))).unwrap().next;
    page(&mut out, "awaiting approval, U1 was 1 of 2", &one_of_two, at(30), &[]);
    let asked = new(Stage::Approve, 1, Trigger::Person { user: "U1".into() });
    let asked = lived(asked, &[(0, resolved()), (1, posted())]);
    page(&mut out, "awaiting approval, U1 asked by /heal run", &asked, at(30), &[woken()]);
    page(&mut out, "counting", &counting(), at(5), &[woken(), ("U1 presses Hold", held("U1"))]);
    page(&mut out, "waiting for the instance", &waiting(), at(65), &[woken()]);
    let throttled = Input::SendThrottled { retry_after: Duration::from_secs(5) };
    let throttled = step(&sending(), &throttled, &calm(at(60))).unwrap().next;
    page(&mut out, "waiting for SSM", &throttled, at(62), &[woken()]);
    let lost = || ("SSM's answer is lost", Input::SendLost { why: String::new() });
    page(
        &mut out,
        "sending",
        &sending(),
        at(62),
        &[
            lost(),
            woken(),
            ("SSM is throttling", Input::SendThrottled { retry_after: Duration::from_secs(5) }),
        ],
    );
    page(&mut out, "sending, its answer lost", &sending_again(), at(64), &[woken(), lost()]);
    page(&mut out, "sending a document", &documented(sending()), at(62), &[woken()]);
    page(
        &mut out,
        "running",
        &running(),
        at(62),
        &[woken(), ("it ran well", Input::RunEnded { ran: ran(Final::Success) })],
    );
    page(&mut out, "running a document", &documented(running()), at(62), &[woken()]);
    let asking = step(&running(), &Input::Woken, &calm(running().state.due_at().unwrap())).unwrap().next;
    page(&mut out, "running, the host asked", &asking, at(452), &[woken()]);
    let late = ("the host says that nothing ran", Input::RunEnded { ran: ran(Final::Late) });
    page(&mut out, "lost, the host asked", &lost_and_asking(), at(66), &[woken(), late]);
    page(&mut out, "settling", &settling(), at(80), &[woken()]);
    let observed = step(&declaring(Stage::Observe), &posted(), &calm(at(1))).unwrap().next;
    page(&mut out, "observed", &observed, at(2), &[]);
    let ended = step(&declaring(Stage::Auto), &Input::Woken, &Facts { pause: Some(pause()), ..calm(at(1)) });
    page(&mut out, "ended, its declaration on the way", &ended.unwrap().next, at(2), &[]);
    let ended = step(&running(), &Input::RunEnded { ran: ran(Final::Failed) }, &calm(at(70))).unwrap().next;
    page(&mut out, "ended, its report on the way", &ended, at(71), &[]);
    insta::assert_snapshot!("table", out);
}
