//! Two things at once, named for the race.

use super::*;
use crate::gate::Reason;

fn outcome(this: &Remediation) -> (Outcome, &Ending) {
    match &this.state {
        State::Ended { outcome, why, .. } => (*outcome, why),
        other => panic!("not over: {other:?}"),
    }
}

#[test]
fn an_alert_that_resolves_while_it_is_declared_cancels_and_the_late_declaration_says_so() {
    let facts = Facts { resolved_at: Some(at(1)), ..calm(at(1)) };
    let cancelled = step(&declaring(Stage::Auto), &Input::Woken, &facts).unwrap().next;
    assert_eq!(outcome(&cancelled), (Outcome::Cancelled, &Ending::ResolvedItself));
    let told = step(&cancelled, &posted(), &facts).unwrap();
    assert_eq!(told.effects, [Effect::UpdateDeclaration]);
    assert_eq!(told.next.state, cancelled.state);
    assert_eq!(told.next.declaration.as_deref(), Some("1795410001.000100"));
    let twice = step(&told.next, &posted(), &facts).unwrap_err();
    assert_eq!(twice, Refused::Over { outcome: Some(Outcome::Cancelled) });
}

#[test]
fn a_resolve_nobody_woke_it_for_is_seen_when_the_declaration_is_posted() {
    let facts = Facts { resolved_at: Some(at(1)), ..calm(at(2)) };
    for stage in [Stage::Observe, Stage::Approve, Stage::Auto] {
        let cancelled = step(&declaring(stage), &posted(), &facts).unwrap();
        assert_eq!(outcome(&cancelled.next), (Outcome::Cancelled, &Ending::ResolvedItself));
        assert_eq!(cancelled.effects, [Effect::UpdateDeclaration, Effect::React]);
    }
}

#[test]
fn a_pause_while_the_declaration_is_on_the_way_holds_it_whichever_is_heard_first() {
    let paused = Facts { pause: Some(pause()), ..calm(at(1)) };
    for input in [Input::Woken, posted()] {
        let step = step(&declaring(Stage::Auto), &input, &paused).unwrap();
        assert!(
            matches!(outcome(&step.next), (Outcome::Held, Ending::Gate { reason: Reason::Paused { .. } })),
            "{input:?}"
        );
        assert!(!step.effects.contains(&Effect::Send));
    }
}

#[test]
fn a_hold_pressed_before_the_posts_answer_is_heard_holds() {
    let held = step(&declaring(Stage::Auto), &held("U1"), &calm(at(1))).unwrap().next;
    assert!(matches!(outcome(&held), (Outcome::Held, Ending::Gate { reason: Reason::HeldBy { .. } })));
    let told = step(&held, &posted(), &calm(at(2))).unwrap();
    assert_eq!(told.effects, [Effect::UpdateDeclaration], "the message must lose its buttons");
}

#[test]
fn an_approval_exactly_at_the_deadline_is_too_late_and_a_moment_earlier_counts() {
    let this = awaiting(1);
    let due = this.state.due_at().unwrap();
    let late = step(&this, &approved("U1"), &calm(due)).unwrap_err();
    assert_eq!(late, Refused::TooLate);
    let just = step(&this, &approved("U1"), &calm(Timestamp(due.0 - 1))).unwrap();
    assert!(just.effects.contains(&Effect::Send));
}

#[test]
fn whoever_comes_first_at_the_deadline_only_one_thing_happens() {
    let this = awaiting(1);
    let due = this.state.due_at().unwrap();
    let expired = step(&this, &Input::Woken, &calm(due)).unwrap().next;
    assert_eq!(outcome(&expired).0, Outcome::Expired);
    let after = step(&expired, &approved("U1"), &calm(due)).unwrap_err();
    assert_eq!(after, Refused::Over { outcome: Some(Outcome::Expired) });
}

#[test]
fn a_hold_at_the_end_of_the_grace_wins_until_the_sending_is_decided() {
    let this = counting();
    let due = this.state.due_at().unwrap();
    let held_in_time = step(&this, &held("U1"), &calm(due)).unwrap().next;
    assert_eq!(outcome(&held_in_time).0, Outcome::Held);
    let sent = step(&this, &Input::Woken, &calm(due)).unwrap().next;
    assert_eq!(step(&sent, &held("U1"), &calm(due)), Err(Refused::NotWaiting { state: "sending" }));
}

#[test]
fn two_people_press_approve_and_it_is_sent_once() {
    let first = step(&awaiting(1), &approved("U1"), &calm(at(30))).unwrap();
    assert_eq!(first.effects.iter().filter(|effect| **effect == Effect::Send).count(), 1);
    let second = step(&first.next, &approved("U2"), &calm(at(30))).unwrap_err();
    assert_eq!(second, Refused::NotWaiting { state: "sending" });
}

#[test]
fn the_run_is_over_before_its_report_is_posted_and_the_report_is_kept() {
    let facts = Facts { resolved_at: Some(at(72)), ..calm(at(72)) };
    let healed = step(&settling(), &Input::Woken, &facts).unwrap();
    assert_eq!(outcome(&healed.next).0, Outcome::Healed);
    assert!(healed.effects.contains(&Effect::UpdateReport));
    let reported = Input::ReportPosted { ts: "1795410073.000100".into() };
    let kept = step(&healed.next, &reported, &facts).unwrap().next;
    assert_eq!(kept.report.as_deref(), Some("1795410073.000100"));
    assert_eq!(kept.state, healed.next.state);
    assert_eq!(step(&kept, &reported, &facts), Err(Refused::Nothing));
}

#[test]
fn an_alert_that_resolves_while_the_commands_run_is_healed_by_them_and_not_cancelled() {
    let facts = Facts { resolved_at: Some(at(62)), ..calm(at(62)) };
    assert_eq!(step(&running(), &Input::Woken, &facts), Err(Refused::Nothing));
    let healed = step(&running(), &Input::RunEnded { ran: ran(Final::Success) }, &facts).unwrap();
    assert_eq!(outcome(&healed.next), (Outcome::Healed, &Ending::Resolved));
    assert!(healed.effects.contains(&Effect::Report));
}

#[test]
fn an_answer_of_ssm_after_its_deadline_changes_no_outcome() {
    let sent = documented(sending());
    let unknown = step(&sent, &Input::Woken, &calm(sent.state.due_at().unwrap())).unwrap().next;
    assert_eq!(outcome(&unknown).0, Outcome::Unknown);
    let late = Input::SendAccepted { command_id: "c-1".into() };
    assert_eq!(step(&unknown, &late, &calm(at(600))), Err(Refused::Over { outcome: Some(Outcome::Unknown) }));
}

#[test]
fn a_throttled_sending_is_not_tried_before_ssm_allows_it_whoever_wakes_it() {
    let throttled = Input::SendThrottled { retry_after: Duration::from_secs(30) };
    let this = step(&sending(), &throttled, &calm(at(60))).unwrap().next;
    assert_eq!(this.sent_at, None);
    assert_eq!(step(&this, &Input::Woken, &calm(at(61))), Err(Refused::Nothing));
    let paused = Facts { pause: Some(pause()), ..calm(at(61)) };
    assert_eq!(outcome(&step(&this, &Input::Woken, &paused).unwrap().next).0, Outcome::Held);
    assert!(step(&this, &Input::Woken, &calm(at(90))).unwrap().effects.contains(&Effect::Send));
}

#[test]
fn run_again_approves_what_the_presser_saw_and_nothing_else() {
    let again = || Trigger::Again { user: "U1".into(), of: RemediationId("earlier".into()) };
    for stage in [Stage::Approve, Stage::Auto] {
        for changed in [false, true] {
            let opened = open(new(stage, 1, again()), &Facts { rule_changed: changed, ..calm(RAISED) }).next;
            let declaring = step(&opened, &resolved(), &calm(RAISED)).unwrap().next;
            let declared = step(&declaring, &posted(), &calm(at(1))).unwrap();
            assert_eq!(declared.effects.contains(&Effect::Send), !changed, "{stage:?}, changed: {changed}");
        }
    }
}

#[test]
fn an_alert_that_resolves_does_not_withdraw_what_a_person_asked_for() {
    let asked = new(Stage::Approve, 1, Trigger::Person { user: "U1".into() });
    let this = lived(asked, &[(0, resolved()), (1, posted())]);
    let facts = Facts { resolved_at: Some(at(2)), ordered: true, ..calm(at(2)) };
    assert_eq!(step(&this, &Input::Woken, &facts), Err(Refused::Nothing));
    assert_eq!(step(&this, &approved("U1"), &facts), Err(Refused::OwnRequest));
    assert!(step(&this, &approved("U2"), &facts).unwrap().effects.contains(&Effect::Send));
}

#[test]
fn an_answer_of_ssm_after_its_deadline_is_welcome_while_the_host_is_asked() {
    let asking = step(&sending(), &Input::Woken, &calm(sending().state.due_at().unwrap())).unwrap().next;
    assert!(asking.is_in_doubt() && asking.state.takes_instance(), "{:?}", asking.state);
    let late = Input::SendAccepted { command_id: "c-1".into() };
    let found = step(&asking, &late, &calm(at(200))).unwrap().next;
    assert!(matches!(found.state, State::Running { asking: false, .. }) && !found.is_in_doubt());
    assert_eq!(found.state.due_at(), asking.state.due_at().max(Some(at(200 + 390))));
    let other = Input::SendAccepted { command_id: "c-2".into() };
    assert_eq!(step(&found, &other, &calm(at(201))), Err(Refused::NotWaiting { state: "running" }));
}

#[test]
fn what_ssm_says_of_a_second_copy_it_does_not_say_of_the_first() {
    let refused = Input::SendRefused { why: "no".into() };
    let asked = step(&sending_again(), &refused, &calm(at(64))).unwrap().next;
    assert!(matches!(asked.state, State::Running { asking: true, .. }), "{:?}", asked.state);
    let throttled = Input::SendThrottled { retry_after: Duration::from_secs(5) };
    let again = step(&sending_again(), &throttled, &calm(at(70))).unwrap();
    assert_eq!(again.effects, [Effect::Send]);
    assert_eq!((again.next.sent_at, again.next.sent_again.as_slice()), (Some(at(60)), &[at(70)][..]));
    let late = calm(at(60).plus(MAX_AGE).plus(Duration::from_secs(1)));
    assert!(
        step(&sending_again(), &throttled, &late).unwrap().effects.iter().all(|one| *one != Effect::Send)
    );
}

#[test]
fn a_lost_run_is_sent_three_times_more_and_not_without_end() {
    let lost = Input::SendLost { why: "why".into() };
    let mut this = sending();
    for copies in 1..=3 {
        let again = step(&this, &lost, &calm(at(60 + copies))).unwrap();
        assert!(again.effects.contains(&Effect::Send));
        this = again.next;
    }
    let asked = step(&this, &lost, &calm(at(64))).unwrap();
    assert!(!asked.effects.contains(&Effect::Send));
    // As long as any copy may begin or be at work, and a while after.
    let until = at(63).plus(crate::plan::BEGINS_WITHIN).plus(Duration::from_secs(300 + 180));
    assert_eq!(asked.next.state.due_at(), Some(until));
}

#[test]
fn no_deadline_ends_what_aws_could_not_be_asked_about_for_a_while() {
    let unseen = Input::RunUnseen { why: "away".into() };
    let mut this = running();
    assert_eq!(step(&this, &unseen, &calm(at(100))), Err(Refused::Nothing), "it is far yet");
    let mut now = at(0);
    while let Ok(put_off) = step(&this, &unseen, &calm(Timestamp(this.state.due_at().unwrap().0 - 30_000))) {
        assert!(put_off.effects.is_empty() && put_off.next.state.due_at() > this.state.due_at());
        this = put_off.next;
        now = this.state.due_at().unwrap();
    }
    assert_eq!(now, at(60 + 390 + 2 * 3600), "and not for ever");
}

#[test]
fn slack_took_the_declaration_so_late_that_nobody_is_to_approve_it() {
    for stage in [Stage::Approve, Stage::Auto] {
        let held = step(&declaring(stage), &posted(), &calm(RAISED.plus(MAX_AGE))).unwrap();
        assert!(matches!(
            outcome(&held.next),
            (Outcome::Held, Ending::Gate { reason: Reason::Stale { .. } })
        ));
        assert_eq!(held.effects, [Effect::UpdateDeclaration, Effect::React], "the message must say so");
    }
}

#[test]
fn a_deadline_that_a_clock_years_ahead_has_set_comes_when_its_states_longest_term_is_over() {
    let throttled = Input::SendThrottled { retry_after: Duration::from_secs(20) };
    let taken = Facts { instance_taken: Some((RemediationId("r2".into()), "web:A".into())), ..calm(at(60)) };
    let all = [
        declaring(Stage::Auto),
        awaiting(1),
        counting(),
        sending(),
        lost_and_asking(),
        step(&sending(), &throttled, &calm(at(61))).unwrap().next,
        step(&awaiting(1), &approved("U1"), &taken).unwrap().next,
    ];
    let now = RAISED.minus(Duration::from_secs(5 * 365 * 86_400));
    let later = now.plus(APPROVE_WITHIN);
    for mut this in all {
        assert!(this.state.due_at().unwrap() > later);
        this.not_due_after_its_term(now, MAX_AGE);
        assert!(this.state.due_at().unwrap() <= later, "{:?}", this.state);
        assert!(step(&this, &Input::Woken, &calm(later)).is_ok(), "{:?} is stuck", this.state);
    }
}
