//! What the gates count: attempts, cooldown, taken instances, full roles.

use super::*;
use crate::lifecycle::{Final, Ran};

fn ended(ended_as: Final, confirm_failed: bool, now: Timestamp) -> Input {
    let steps = confirm_failed.then(|| crate::plan::StepRan {
        kind: Some(StepKind::Confirm),
        name: "true".into(),
        exit: Some(1),
        status: None,
        millis: None,
        output: String::new(),
    });
    let steps = steps.into_iter().collect();
    let (output, started_at) = (String::new(), now);
    Input::RunEnded {
        ran: Ran { ended_as, exit: None, steps, output, output_cut: false, started_at, ended_at: now },
    }
}

pub(super) async fn what_counts_as_an_attempt_and_where_cooldown_begins(at_: &impl Backend) {
    let sent = at(20);
    let (accepted, over) = (Input::SendAccepted { command_id: "c".into() }, at(40));
    let run = |ended_as, confirm| vec![accepted.clone(), ended(ended_as, confirm, over)];
    let why = || "why".to_owned();
    let throttled = Input::SendThrottled { retry_after: Duration::from_secs(1) };
    let resolved = Facts { resolved_at: Some(over), ..calm(over) };
    let now = calm(over);
    // (name, inputs after the sending, the facts they meet, an attempt?, cooldown?)
    let lives = [
        ("on its way", vec![], &now, true, false),
        ("running", vec![accepted.clone()], &now, true, false),
        ("ran well, the alert not resolved yet", run(Final::Success, false), &now, true, false),
        ("healed", run(Final::Success, false), &resolved, true, true),
        ("not needed", run(Final::Success, true), &resolved, false, false),
        ("failed", run(Final::Failed, false), &now, true, true),
        ("timed out", run(Final::ExecutionTimedOut, false), &now, true, true),
        ("delivery timed out", run(Final::DeliveryTimedOut, false), &now, true, true),
        ("undeliverable", run(Final::Undeliverable, false), &now, false, false),
        ("denied", run(Final::AccessDenied, false), &now, false, false),
        ("cancelled in SSM", run(Final::Cancelled, false), &now, true, true),
        ("refused by SSM", vec![Input::SendRefused { why: why() }], &now, false, false),
        ("unclear", vec![Input::SendUnclear { why: why() }], &now, true, true),
        ("throttled, waiting", vec![throttled.clone()], &now, false, false),
        ("throttled, held", vec![throttled, Input::Held { user: "U1".into() }], &now, false, false),
    ];
    for (name, inputs, facts, attempt, cools) in lives {
        let store = at_.open();
        let rule = format!("web:{}", name.replace([' ', ','], "_"));
        let mut this = sending(&rule, &rule, "i-1", NOW);
        inserts(&store, vec![this.clone()]).await;
        for input in &inputs {
            this = stepped(&this, input, facts);
            updates(&store, this.clone()).await;
        }
        let rule = key(&rule);
        let read =
            does(&store, move |tx| Ok((tx.attempts_since(&rule, "i-1", NOW)?, tx.last_acted(&rule, "i-1")?)));
        let expected = (Vec::from_iter(attempt.then_some(sent)), cools.then_some(over));
        assert_eq!(read.await, expected, "{name}");
    }
}

pub(super) async fn attempts_are_counted_per_rule_and_instance_within_their_window(at_: &impl Backend) {
    let store = at_.open();
    let over = |id: &str, rule: &str, instance: &str, now: Timestamp| {
        let sent = sending(id, rule, instance, now);
        let running = stepped(&sent, &Input::SendAccepted { command_id: "c".into() }, &calm(now));
        let after = now.plus(Duration::from_secs(30));
        stepped(&running, &ended(Final::Failed, false, after), &calm(after))
    };
    let all = vec![
        over("a", "web:A", "i-1", at(0)),
        over("c", "web:A", "i-1", at(200)),
        over("b", "web:A", "i-1", at(100)),
        over("other-instance", "web:A", "i-2", at(50)),
        over("other-rule", "web:B", "i-1", at(50)),
        held(&declaring("held", "web:A", "i-1", at(60)), at(61)),
    ];
    inserts(&store, all).await;
    let since = |since| move |tx: &mut dyn Tx| tx.attempts_since(&key("web:A"), "i-1", since);
    assert_eq!(does(&store, since(NOW)).await, [at(220), at(120), at(20)], "newest first");
    assert_eq!(does(&store, since(at(20))).await, [at(220), at(120)], "what left the window is free");
    assert_eq!(does(&store, since(at(220))).await, []);
    let acted = |instance: &'static str| move |tx: &mut dyn Tx| tx.last_acted(&key("web:A"), instance);
    assert_eq!(does(&store, acted("i-1")).await, Some(at(230)));
    assert_eq!(does(&store, acted("i-2")).await, Some(at(80)));
    assert_eq!(does(&store, acted("i-3")).await, None);
}

pub(super) async fn an_instance_is_taken_from_sending_to_outcome_and_its_role_slot_to_the_answer(
    at_: &impl Backend,
) {
    let store = at_.open();
    let mut this = counting("r", "web:A", "i-1", NOW);
    inserts(&store, vec![this.clone()]).await;
    let read = async || {
        does(&store, |tx| {
            let taken = tx.instance_taken("i-1", &id("me"))?;
            let own = tx.instance_taken("i-1", &id("r"))?.is_some() || tx.role_running("web", &id("r"))? > 0;
            Ok((taken.is_some(), tx.role_running("web", &id("me"))?, own))
        })
        .await
    };
    assert_eq!(read().await, (false, 0, false), "counting");
    let resolved = Facts { resolved_at: Some(at(50)), ..calm(at(50)) };
    for (input, facts, taken, running) in [
        (Input::Woken, calm(at(20)), true, 1),
        (Input::SendAccepted { command_id: "c".into() }, calm(at(21)), true, 1),
        (ended(Final::Success, false, at(30)), calm(at(30)), true, 0),
        (Input::Woken, resolved, false, 0),
    ] {
        this = stepped(&this, &input, &facts);
        updates(&store, this.clone()).await;
        assert_eq!(read().await, (taken, running, false), "{}", this.state.name());
    }
    inserts(&store, vec![sending("s", "web:B", "i-1", NOW)]).await;
    let taken = does(&store, |tx| tx.instance_taken("i-1", &id("me"))).await;
    assert_eq!(taken, Some((id("s"), "web:B".to_owned())));
    assert_eq!(does(&store, |tx| tx.instance_taken("i-2", &id("me"))).await, None);
    assert_eq!(does(&store, |tx| tx.role_running("db", &id("me"))).await, 0);
}

pub(super) async fn a_role_counts_instances_and_not_remediations(at_: &impl Backend) {
    let store = at_.open();
    let all = vec![
        sending("a", "web:A", "i-1", NOW),
        sending("b", "web:B", "i-1", NOW),
        sending("c", "web:A", "i-2", NOW),
    ];
    inserts(&store, all).await;
    assert_eq!(does(&store, |tx| tx.role_running("web", &id("me"))).await, 2);
    assert_eq!(does(&store, |tx| tx.role_running("web", &id("c"))).await, 1);
    let undone = store.transact(|tx| {
        tx.insert_remediation(&sending("d", "web:A", "i-3", NOW), None)?;
        assert_eq!(tx.role_running("web", &id("me"))?, 3);
        crate::store::Result::<()>::Err(crate::store::Error::Stopped)
    });
    assert!(undone.await.is_err());
    assert_eq!(does(&store, |tx| tx.role_running("web", &id("me"))).await, 2, "what was undone counts not");
    assert!(does(&store, |tx| tx.set_aside(&id("a"))).await);
    assert_eq!(does(&store, |tx| tx.role_running("web", &id("b"))).await, 1);
    assert!(does(&store, |tx| tx.set_aside(&id("c"))).await);
    assert_eq!(does(&store, |tx| tx.role_running("web", &id("me"))).await, 1, "b is left");
}
