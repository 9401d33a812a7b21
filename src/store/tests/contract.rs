//! What each method of [`Tx`] promises.

use super::*;
use crate::gate::{Pause, Reason};
use crate::lifecycle::Effect;

pub(super) async fn a_delivery_is_taken_once(at_: &impl Backend) {
    let store = at_.open();
    assert!(does(&store, |tx| tx.take_delivery("Ev1", NOW)).await);
    assert!(!does(&store, |tx| tx.take_delivery("Ev1", at(5))).await);
    assert!(does(&store, |tx| tx.take_delivery("Ev2", NOW)).await);
    let within_one = does(&store, |tx| Ok((tx.take_delivery("Ev3", NOW)?, tx.take_delivery("Ev3", NOW)?)));
    assert_eq!(within_one.await, (true, false));
}

/// Keeps an alert of `prometheus` and returns its row.
async fn keeps(store: &Store, ts: &'static str, position: u32, posted: Timestamp, alert: Alert) -> i64 {
    does(store, move |tx| {
        tx.insert_alert(&NewAlert {
            origin: &origin(ts, posted),
            position,
            alert: &alert,
            rule: Some(&key("web:*")),
            received_at: NOW,
        })
    })
    .await
}

pub(super) async fn an_alert_is_kept_with_its_place_and_read_back(at_: &impl Backend) {
    let store = at_.open();
    let (second, first) = (alert("B", "web-2", Status::Firing), alert("A", "web-1", Status::Resolved));
    let second_row = keeps(&store, "1.000001", 1, NOW, second.clone()).await;
    let first_row = keeps(&store, "1.000001", 0, NOW, first.clone()).await;
    keeps(&store, "2.000001", 0, NOW, alert("C", "web-3", Status::Firing)).await;
    let rows = does(&store, |tx| tx.alerts_of("C0ALERTS", "1.000001")).await;
    let row = |id, alert| AlertRow { id, origin: origin("1.000001", NOW), alert, resolved_at: None };
    assert_eq!(rows, [row(first_row, first), row(second_row, second)], "in the message's order");
    assert_eq!(does(&store, |tx| tx.alerts_of("C0OTHER", "1.000001")).await, []);
}

pub(super) async fn one_place_of_a_message_holds_one_alert(at_: &impl Backend) {
    let store = at_.open();
    keeps(&store, "1.000001", 0, NOW, alert("A", "web-1", Status::Firing)).await;
    let again = store.transact(|tx| {
        tx.insert_alert(&NewAlert {
            origin: &origin("1.000001", NOW),
            position: 0,
            alert: &alert("B", "web-1", Status::Firing),
            rule: None,
            received_at: NOW,
        })
    });
    assert!(matches!(again.await, Err(Error::Claimed(_))));
}

pub(super) async fn a_resolved_message_ends_only_what_fired_before_it(at_: &impl Backend) {
    let store = at_.open();
    let firing = || alert("A", "web-1", Status::Firing);
    let earlier = keeps(&store, "1.000001", 0, at(-60), firing()).await;
    let together = keeps(&store, "2.000001", 0, NOW, firing()).await;
    let later = keeps(&store, "3.000001", 0, at(60), firing()).await;
    let other_host = keeps(&store, "4.000001", 0, at(-60), alert("A", "web-2", Status::Firing)).await;
    let itself = keeps(&store, "5.000001", 0, at(-60), alert("A", "web-1", Status::Resolved)).await;
    let identity = firing().identity();
    let resolve = move |sender: &'static str| {
        let identity = identity.clone();
        move |tx: &mut dyn Tx| tx.resolve_alerts(sender, &identity, NOW)
    };
    assert_eq!(does(&store, resolve("nagios")).await, [0_i64; 0], "another sender's word counts for nothing");
    let mut ended = does(&store, resolve("prometheus")).await;
    ended.sort_unstable();
    assert_eq!(ended, [earlier, together]);
    assert_eq!(does(&store, resolve("prometheus")).await, [0_i64; 0], "once");
    for (row, resolved) in
        [(earlier, Some(NOW)), (together, Some(NOW)), (later, None), (other_host, None), (itself, None)]
    {
        assert_eq!(does(&store, move |tx| tx.alert_resolved_at(row)).await, resolved, "row {row}");
    }
}

pub(super) async fn one_alert_is_over_once(at_: &impl Backend) {
    let store = at_.open();
    let row = keeps(&store, "1.000001", 0, NOW, alert("A", "web-1", Status::Firing)).await;
    let resolved = keeps(&store, "2.000001", 0, NOW, alert("B", "web-1", Status::Resolved)).await;
    assert_eq!(does(&store, move |tx| tx.alert_resolved_at(row)).await, None);
    assert!(does(&store, move |tx| tx.resolve_alert(row, at(1))).await);
    assert!(!does(&store, move |tx| tx.resolve_alert(row, at(2))).await);
    assert_eq!(does(&store, move |tx| tx.alert_resolved_at(row)).await, Some(at(1)));
    assert_eq!(does(&store, |tx| tx.alerts_of("C0ALERTS", "1.000001")).await[0].resolved_at, Some(at(1)));
    assert!(!does(&store, move |tx| tx.resolve_alert(resolved, at(1))).await, "it never fired");
    assert!(!does(&store, |tx| tx.resolve_alert(999, at(1))).await);
    assert_eq!(does(&store, |tx| tx.alert_resolved_at(999)).await, None);
}

pub(super) async fn a_rule_at_work_on_an_instance_is_claimed_and_free_again_afterwards(at_: &impl Backend) {
    let store = at_.open();
    let first = declaring("first", "web:NginxDown", "i-1", NOW);
    inserts(&store, vec![first.clone()]).await;
    let second = declaring("second", "web:NginxDown", "i-1", at(2));
    let refused = {
        let second = second.clone();
        store.transact(move |tx| tx.insert_remediation(&second, None)).await
    };
    assert!(matches!(refused, Err(Error::Claimed(_))), "{refused:?}");
    assert_eq!(does(&store, |tx| tx.remediation(&id("second"))).await, None);
    let others = vec![
        declaring("other-instance", "web:NginxDown", "i-2", NOW),
        declaring("other-rule", "web:DiskFull", "i-1", NOW),
        opened("unknown-instance", "web:NginxDown", NOW),
        opened("unknown-instance-too", "web:NginxDown", NOW),
    ];
    inserts(&store, others).await;
    let under_way =
        |but: &'static str| move |tx: &mut dyn Tx| tx.under_way(&key("web:NginxDown"), "i-1", &id(but));
    assert_eq!(does(&store, under_way("second")).await, Some(id("first")));
    assert_eq!(does(&store, under_way("first")).await, None);
    updates(&store, held(&first, at(3))).await;
    assert_eq!(does(&store, under_way("second")).await, None);
    inserts(&store, vec![second]).await;
}

pub(super) async fn an_update_may_claim_as_well_as_an_insert(at_: &impl Backend) {
    let store = at_.open();
    let late = opened("late", "web:NginxDown", NOW);
    inserts(&store, vec![late.clone(), declaring("first", "web:NginxDown", "i-1", NOW)]).await;
    let claims = stepped(&late, &found("i-1"), &calm(NOW));
    let refused = store.transact(move |tx| tx.update_remediation(&claims)).await;
    assert!(matches!(refused, Err(Error::Claimed(_))), "{refused:?}");
    assert_eq!(does(&store, |tx| tx.remediation(&id("late"))).await, Some((late, None)));
}

pub(super) async fn a_remediation_is_found_by_id_thread_and_alert(at_: &impl Backend) {
    let store = at_.open();
    let row = keeps(&store, "1795410000.000001", 0, NOW, alert("A", "web-1", Status::Firing)).await;
    let (of_alert, alone) = (declaring("a", "web:A", "i-1", NOW), declaring("b", "web:B", "i-1", at(1)));
    let (kept, kept_alone) = (of_alert.clone(), alone.clone());
    does(&store, move |tx| {
        tx.insert_remediation(&kept_alone, None)?;
        tx.insert_remediation(&kept, Some(row))
    })
    .await;
    assert_eq!(does(&store, |tx| tx.remediation(&id("a"))).await, Some((of_alert.clone(), Some(row))));
    assert_eq!(does(&store, |tx| tx.remediation(&id("nobody"))).await, None);
    let thread = does(&store, |tx| tx.remediations_of("C0ALERTS", "1795410000.000001")).await;
    assert_eq!(thread, [of_alert.clone(), alone.clone()]);
    assert_eq!(does(&store, move |tx| tx.open_remediations_of_alert(row)).await, [id("a")]);
    assert_eq!(does(&store, |tx| tx.open_remediations()).await, [of_alert.clone(), alone.clone()]);
    updates(&store, held(&of_alert, at(1))).await;
    assert_eq!(does(&store, move |tx| tx.open_remediations_of_alert(row)).await, []);
    assert_eq!(does(&store, |tx| tx.open_remediations()).await, [alone]);
    let sent = sending("c", "web:C", "i-3", at(2));
    inserts(&store, vec![sent, counting("d", "db:D", "i-4", at(3))]).await;
    let unsent = does(&store, |tx| tx.unsent_remediations()).await;
    assert_eq!(unsent, [(id("b"), key("web:B")), (id("d"), key("db:D"))]);
}

pub(super) async fn a_run_by_a_person_is_found_in_the_thread_its_declaration_began(at_: &impl Backend) {
    let store = at_.open();
    let mut this = declaring("a", "web:A", "i-1", NOW);
    this.trigger = Trigger::Person { user: "U1".into() };
    this.origin.ts = String::new();
    inserts(&store, vec![this.clone()]).await;
    let posted = Input::DeclarationPosted { ts: "9.000001".into() };
    updates(&store, stepped(&this, &posted, &calm(NOW))).await;
    let thread = does(&store, |tx| tx.remediations_of("C0ALERTS", "9.000001")).await;
    assert_eq!(thread.iter().map(|this| this.id.0.as_str()).collect::<Vec<_>>(), ["a"]);
}

pub(super) async fn what_was_never_inserted_cannot_be_updated(at_: &impl Backend) {
    let store = at_.open();
    let stranger = declaring("stranger", "web:A", "i-1", NOW);
    let refused = store.transact(move |tx| tx.update_remediation(&stranger)).await;
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

/// Approved by time, and waiting for something.
fn waiting(id_: &str, instance: &str, reason: &Reason, now: Timestamp) -> Remediation {
    let mut facts = calm(now.plus(Duration::from_secs(20)));
    match reason {
        Reason::InstanceTaken { other, key } => facts.instance_taken = Some((other.clone(), key.clone())),
        _ => facts.role_running = 1,
    }
    stepped(&counting(id_, &format!("web:{id_}"), instance, now), &Input::Woken, &facts)
}

pub(super) async fn those_that_wait_are_found_oldest_first(at_: &impl Backend) {
    let store = at_.open();
    let taken = Reason::InstanceTaken { other: id("x"), key: "web:X".into() };
    let full = Reason::RoleFull { running: 1, at_once: 1 };
    let oldest = waiting("Oldest", "i-1", &taken, at(1));
    let all = vec![
        waiting("Youngest", "i-1", &taken, at(3)),
        oldest.clone(),
        waiting("Middle", "i-1", &taken, at(2)),
        waiting("Elsewhere", "i-2", &taken, at(0)),
        waiting("Role", "i-1", &full, at(0)),
        counting("counting", "web:Y", "i-1", at(0)),
    ];
    inserts(&store, all).await;
    let wait = |what: &'static str, limit| move |tx: &mut dyn Tx| tx.waiting_for(what, limit);
    let three = [id("Oldest"), id("Middle"), id("Youngest")];
    assert_eq!(does(&store, wait("instance:i-1", 10)).await, three);
    assert_eq!(does(&store, wait("instance:i-1", 2)).await, three[..2]);
    assert_eq!(does(&store, wait("role:web", 10)).await, [id("Role")]);
    assert_eq!(does(&store, wait("role:db", 10)).await, []);
    updates(&store, held(&oldest, at(30))).await;
    assert_eq!(does(&store, wait("instance:i-1", 10)).await, three[1..]);
}

pub(super) async fn those_that_are_due_are_found_earliest_first(at_: &impl Backend) {
    let store = at_.open();
    assert_eq!(does(&store, |tx| tx.next_due_at()).await, None);
    let second = counting("second", "web:A", "i-1", at(2));
    let all = vec![
        counting("third", "web:A", "i-2", at(3)),
        counting("first", "web:A", "i-3", at(1)),
        second.clone(),
        held(&counting("over", "web:A", "i-4", at(0)), at(0)),
    ];
    inserts(&store, all).await;
    let due = |now, limit| move |tx: &mut dyn Tx| tx.due_remediations(now, limit);
    assert_eq!(does(&store, due(at(20), 10)).await, []);
    assert_eq!(does(&store, due(at(22), 10)).await, [id("first"), id("second")], "due at the very moment");
    assert_eq!(does(&store, due(at(99), 1)).await, [id("first")]);
    assert_eq!(does(&store, |tx| tx.next_due_at()).await, Some(at(21)));
    updates(&store, held(&second, at(3))).await;
    assert_eq!(does(&store, due(at(99), 10)).await, [id("first"), id("third")]);
}

pub(super) async fn what_is_owed_anew_outlives_the_settling_of_the_old(at_: &impl Backend) {
    let store = at_.open();
    let owe = |effect| move |tx: &mut dyn Tx| tx.owe(&id("r"), effect);
    let settle = |owed: &Owed| {
        let owed = owed.clone();
        move |tx: &mut dyn Tx| tx.settle(&owed)
    };
    let declare = does(&store, owe(Effect::Declare)).await;
    let old = does(&store, owe(Effect::UpdateDeclaration)).await;
    let new = does(&store, owe(Effect::UpdateDeclaration)).await;
    assert!(new.generation > old.generation);
    assert_eq!(does(&store, |tx| tx.owed()).await, [declare.clone(), new.clone()], "oldest first, once each");
    does(&store, settle(&old)).await;
    assert_eq!(does(&store, |tx| tx.owed()).await, [declare.clone(), new.clone()]);
    does(&store, settle(&new)).await;
    assert_eq!(does(&store, |tx| tx.owed()).await, vec![declare.clone()]);
    does(&store, settle(&new)).await; // settled twice is settled
    does(&store, settle(&declare)).await;
    assert_eq!(does(&store, |tx| tx.owed()).await, []);
    let every = [
        Effect::Resolve,
        Effect::Declare,
        Effect::UpdateDeclaration,
        Effect::SayWhyNot,
        Effect::Send,
        Effect::Report,
        Effect::UpdateReport,
        Effect::React,
        Effect::Reopen,
    ];
    for effect in every {
        does(&store, owe(effect)).await;
    }
    let read: Vec<Effect> = does(&store, |tx| tx.owed()).await.iter().map(|owed| owed.effect).collect();
    assert_eq!(read, every, "every effect's name is read back");
}

fn a_pause(pattern: &str, since: Timestamp, until: Option<Timestamp>) -> Pause {
    Pause { id: 0, pattern: pattern.into(), by: "U1".into(), reason: Some("deploy".into()), since, until }
}

pub(super) async fn pauses_end_by_time_and_by_order(at_: &impl Backend) {
    let store = at_.open();
    let insert = |pause: &Pause| {
        let pause = pause.clone();
        move |tx: &mut dyn Tx| tx.insert_pause(&pause)
    };
    let mut timed = a_pause("web:*", at(1), Some(at(60)));
    let mut open = a_pause("*", at(0), None);
    let mut twin = a_pause("web:*", at(2), None);
    twin.reason = None;
    for pause in [&mut timed, &mut open, &mut twin] {
        pause.id = does(&store, insert(pause)).await;
    }
    let active = |now| move |tx: &mut dyn Tx| tx.active_pauses(now);
    assert_eq!(does(&store, active(at(59))).await, [open.clone(), timed.clone(), twin.clone()]);
    assert_eq!(does(&store, active(at(60))).await, [open.clone(), twin.clone()], "over at its moment");
    assert_eq!(
        does(&store, |tx| tx.end_pauses("web:NginxDown", "U2", at(10))).await,
        [],
        "exactly the pattern"
    );
    let mut ended = does(&store, |tx| tx.end_pauses("web:*", "U2", at(10))).await;
    ended.sort_by_key(|pause| pause.id);
    assert_eq!(ended, [timed, twin]);
    assert_eq!(does(&store, |tx| tx.end_pauses("web:*", "U2", at(11))).await, []);
    assert_eq!(does(&store, active(at(12))).await, [open]);
}

pub(super) async fn the_journal_keeps_its_order(at_: &impl Backend) {
    let store = at_.open();
    does(&store, |tx| {
        let (mine, other) = (id("mine"), id("other"));
        let line = |remediation, what, now| Record { at: now, remediation, what, who: "U1", why: "because" };
        tx.record(&line(Some(&mine), "opened", at(5)))?;
        tx.record(&line(Some(&other), "opened", at(5)))?;
        tx.record(&line(None, "paused", at(5)))?;
        // The clock may step back; what happened later stays later.
        tx.record(&line(Some(&mine), "approved", at(4)))
    })
    .await;
    let line = |now, what: &str| (now, what.to_owned(), "U1".to_owned(), "because".to_owned());
    let read = does(&store, |tx| tx.journal_of(&id("mine"))).await;
    assert_eq!(read, [line(at(5), "opened"), line(at(4), "approved")]);
    assert_eq!(does(&store, |tx| tx.journal_of(&id("nobody"))).await, []);
}

pub(super) async fn tallies_count_and_keep_the_last_sample(at_: &impl Backend) {
    let store = at_.open();
    does(&store, |tx| {
        tx.tally("without_rule", "web:A", at(1))?;
        tx.tally("unreadable:nagios", "no host", at(2))?;
        tx.tally("without_rule", "web:B", at(3))
    })
    .await;
    let tally = |name: &str, count, last_at, sample: &str| Tally {
        name: name.into(),
        count,
        last_at,
        sample: sample.into(),
    };
    let expected =
        [tally("unreadable:nagios", 1, at(2), "no host"), tally("without_rule", 2, at(3), "web:B")];
    assert_eq!(does(&store, |tx| tx.tallies()).await, expected);
}

pub(super) async fn notes_keep_the_last_value(at_: &impl Backend) {
    let store = at_.open();
    assert_eq!(does(&store, |tx| tx.note("reaction")).await, None);
    does(&store, |tx| tx.set_note("reaction", "eyes")).await;
    does(&store, |tx| tx.set_note("reaction", "white_check_mark")).await;
    assert_eq!(does(&store, |tx| tx.note("reaction")).await.as_deref(), Some("white_check_mark"));
    assert_eq!(does(&store, |tx| tx.note("other")).await, None);
}

pub(super) async fn history_is_newest_first_and_minds_patterns(at_: &impl Backend) {
    let store = at_.open();
    let over = held(&declaring("over", "web:NginxDown", "i-1", at(1)), at(9));
    let all = vec![
        over,
        declaring("newest", "web:NginxDown", "i-1", at(4)),
        declaring("db", "db:NginxDown", "i-2", at(3)),
        declaring("disk", "web:DiskFull", "i-1", at(2)),
    ];
    inserts(&store, all).await;
    let history = async |pattern: Option<&'static str>, limit| {
        let rows = does(&store, move |tx| tx.history(pattern, limit)).await;
        rows.into_iter().map(|row| row.remediation.id.0).collect::<Vec<_>>()
    };
    assert_eq!(history(None, 10).await, ["newest", "db", "disk", "over"]);
    assert_eq!(history(None, 2).await, ["newest", "db"]);
    assert_eq!(history(Some("web:*"), 10).await, ["newest", "disk", "over"]);
    assert_eq!(history(Some("*:NginxDown"), 10).await, ["newest", "db", "over"]);
    assert_eq!(history(Some("web:NginxDown"), 1).await, ["newest"]);
    assert_eq!(history(Some("web:Nginx"), 10).await, [""; 0]);
    assert_eq!(history(None, 0).await, [""; 0]);
    let rows = does(&store, |tx| tx.history(Some("web:NginxDown"), 10)).await;
    assert_eq!((rows[1].ended_at, rows[1].outcome), (Some(at(9)), Some(lifecycle::Outcome::Held)));
    assert_eq!((rows[0].ended_at, rows[0].outcome), (None, None));
}
