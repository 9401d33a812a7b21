//! What is declared, and what is held with which reason and numbers.

use super::*;
use crate::engine::commands::pause_now;
use crate::engine::decide::pause_matches;

#[tokio::test]
async fn an_alert_with_a_rule_and_a_known_node_is_declared_at_once_with_its_exact_plan() {
    let mut world = World::of(AUTO);
    let id = world.alerts("NginxDown", "i-1").await;
    let this = world.get(&id).await;
    assert_eq!(this.state, State::Declaring { until: START.plus(Duration::from_secs(900)) });
    assert_eq!(this.target, Some(target("i-1")));
    assert!(this.plan.is_some());
    assert_eq!(world.owes(&id), [Effect::Declare, Effect::React]);
    let journal = ["prometheus opened: web:NginxDown", "heal target_resolved: declaring"];
    assert_eq!(world.journal(&id).await, journal);
}

#[tokio::test]
async fn the_whole_life_of_a_remediation_is_in_its_journal() {
    let mut world =
        World::of("web:NginxDown: {commands: [systemctl restart nginx], approvals: 2, cooldown: 5m}");
    let id = world.alerts("NginxDown", "i-1").await;
    world.takes(&id, posted()).await;
    world.takes(&id, approved("U1")).await;
    assert_eq!(world.hears(&id, approved("U1")).await, Err(Refused::ApprovedAlready));
    world.takes(&id, approved("U2")).await;
    assert_eq!(world.owes(&id), [Effect::Send, Effect::UpdateDeclaration, Effect::React]);
    assert!(world.hears(&id, approved("U3")).await.is_err());
    world.runs(&id, Final::Success).await;
    world.resolves(&id).await;
    assert_eq!(world.outcome(&id).await, Outcome::Healed);
    insta::assert_snapshot!(world.journal(&id).await.join("\n"), @r#"
    prometheus opened: web:NginxDown
    heal target_resolved: declaring
    heal declaration_posted: awaiting_approval
    U1 approved: awaiting_approval
    U1 refused: approved in state awaiting_approval: ApprovedAlready
    U2 approved: sending
    U3 refused: approved in state sending: NotWaiting { state: "sending" }
    heal send_accepted: running: command c on i-1
    heal run_ended: settling
    heal woken: healed: {"because":"resolved"}
    "#);
}

#[tokio::test]
async fn an_alert_repeated_while_its_remediation_is_under_way_is_held() {
    let mut world = World::of(AUTO);
    let first = world.alerts("NginxDown", "i-1").await;
    for second in 0..3 {
        world.passes(2);
        let repeated = world.alerts("NginxDown", "i-1").await;
        assert_eq!(world.reason(&repeated).await, Reason::UnderWay { other: first.clone() }, "{second}");
        assert_eq!(world.owes(&repeated), [Effect::SayWhyNot, Effect::React]);
        let input = [posted(), Input::SendAccepted { command_id: "c".into() }, ended(Final::Success, START)];
        world.takes(&first, input[second].clone()).await;
    }
    assert_eq!(world.name(&first).await, "settling", "it held through declaring, sending and settling");
    let elsewhere = world.alerts("NginxDown", "i-2").await;
    let otherwise = world.alerts("DiskFull", "i-1").await;
    assert_eq!(world.name(&elsewhere).await, "declaring");
    assert_eq!(world.name(&otherwise).await, "declaring");
}

#[tokio::test]
async fn cooldown_runs_from_the_outcome_to_its_last_moment() {
    let mut world = World::of(AUTO);
    let first = world.alerts("NginxDown", "i-1").await;
    world.takes(&first, posted()).await;
    world.passes(60);
    world.runs(&first, Final::Failed).await;
    let until = world.now.plus(Duration::from_secs(1800));
    world.passes(1799);
    let early = world.alerts("NginxDown", "i-1").await;
    assert_eq!(world.reason(&early).await, Reason::CoolingDown { until });
    assert_eq!(world.alerts("NginxDown", "i-2").await, RemediationId("r3".into()));
    world.passes(1);
    let again = world.alerts("NginxDown", "i-1").await;
    assert_eq!(world.name(&again).await, "declaring");
}

#[tokio::test]
async fn what_did_not_run_leaves_no_cooldown_and_no_attempt() {
    let mut world = World::of(
        "web:NginxDown: {commands: [a], confirm: b, stage: auto, grace: 0s, cooldown: 1h, attempts: [1/1d]}",
    );
    for ended_as in [Final::Undeliverable, Final::AccessDenied] {
        let id = world.alerts("NginxDown", "i-1").await;
        world.takes(&id, posted()).await;
        world.runs(&id, ended_as).await;
        world.passes(1);
    }
    let id = world.alerts("NginxDown", "i-1").await;
    world.takes(&id, Input::Held { user: "U1".into() }).await;
    world.passes(1);
    let id = world.alerts("NginxDown", "i-1").await;
    assert_eq!(world.name(&id).await, "declaring");
}

#[tokio::test]
async fn attempts_are_counted_over_every_window_and_the_next_is_free_when_the_oldest_leaves() {
    let mut world = World::of(
        "web:NginxDown: {commands: [a], stage: auto, grace: 0s, cooldown: 0s, attempts: [2/1h, 3/1d]}",
    );
    let mut sent = Vec::new();
    let run = async |world: &mut World| {
        let id = world.alerts("NginxDown", "i-1").await;
        world.takes(&id, posted()).await;
        let at = world.now;
        world.runs(&id, Final::Failed).await;
        at
    };
    sent.push(run(&mut world).await);
    world.passes(600);
    sent.push(run(&mut world).await);
    world.passes(600);
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    let held = world.alerts("NginxDown", "i-1").await;
    let free_at = sent[0].plus(hour);
    assert_eq!(
        world.reason(&held).await,
        Reason::TooManyAttempts { used: 2, count: 2, window: hour, free_at }
    );
    world.now = Timestamp(free_at.0 - 1);
    let held = world.alerts("NginxDown", "i-1").await;
    assert_eq!(world.reason(&held).await.name(), "attempts");
    world.now = free_at;
    sent.push(run(&mut world).await);
    world.passes(3601);
    let held = world.alerts("NginxDown", "i-1").await;
    let free_at = sent[0].plus(day);
    assert_eq!(
        world.reason(&held).await,
        Reason::TooManyAttempts { used: 3, count: 3, window: day, free_at }
    );
    let elsewhere = world.alerts("NginxDown", "i-2").await;
    assert_eq!(world.name(&elsewhere).await, "declaring");
}

#[tokio::test]
async fn a_person_may_run_it_in_cooldown_and_beyond_the_attempts_but_not_while_paused() {
    let mut world =
        World::of("web:NginxDown: {commands: [a], stage: auto, grace: 0s, cooldown: 1h, attempts: [1/1d]}");
    let first = world.alerts("NginxDown", "i-1").await;
    world.takes(&first, posted()).await;
    world.runs(&first, Final::Failed).await;
    world.passes(1);
    let person = || Trigger::Person { user: "U1".into() };
    let asked = world.opens("NginxDown", "i-1", person()).await;
    assert_eq!(world.name(&asked).await, "declaring");
    let journal = world.journal(&asked).await;
    assert_eq!(journal[0], "U1 opened: web:NginxDown");
    world.takes(&asked, Input::Held { user: "U2".into() }).await;
    world.decides(|tx, ground, out| pause_now(tx, ground, "*", "U2", None, None, out)).await;
    let asked = world.opens("NginxDown", "i-1", person()).await;
    assert_eq!(world.reason(&asked).await.name(), "paused");
}

#[test]
fn a_pause_holds_the_keys_its_pattern_fits() {
    for (pattern, key, holds) in [
        ("*", "web:NginxDown", true),
        ("web:NginxDown", "web:NginxDown", true),
        ("web:*", "web:NginxDown", true),
        ("*:NginxDown", "web:NginxDown", true),
        ("*:*", "web:NginxDown", true),
        ("web:Nginx*", "web:NginxDown", true),
        ("web:Nginx", "web:NginxDown", false),
        ("web:NginxDown", "web:NginxDownAgain", false),
        ("db:*", "web:NginxDown", false),
        ("WEB:*", "web:NginxDown", false),
        // A rule's own key may hold a star.
        ("web:*", "web:*", true),
        ("*:*", "web:*", true),
        ("", "web:NginxDown", false),
    ] {
        assert_eq!(pause_matches(pattern, key), holds, "{pattern} on {key}");
    }
}

#[tokio::test]
async fn a_pause_holds_at_once_what_it_matches_and_was_not_sent_and_nothing_else() {
    let mut world = World::of(AUTO);
    let sent = world.alerts("NginxDown", "i-1").await;
    world.takes(&sent, posted()).await;
    let waiting = world.alerts("NginxDown", "i-2").await;
    world.takes(&waiting, posted()).await;
    assert_eq!(world.reason(&waiting).await.name(), "at_once");
    let declaring = world.alerts("NginxDown", "i-3").await;
    let other = world.alerts("DiskFull", "i-4").await;
    let until = Some(world.now.plus(Duration::from_secs(600)));
    let (pause, held) = world
        .decides(move |tx, ground, out| {
            pause_now(tx, ground, "*:NginxDown", "U1", until, Some("deploy".into()), out)
        })
        .await;
    assert_eq!(held, 2);
    for id in [&waiting, &declaring] {
        assert_eq!(world.reason(id).await, Reason::Paused { pause: pause.clone() });
        assert_eq!(world.owes(id), [Effect::UpdateDeclaration, Effect::React]);
    }
    assert_eq!(world.name(&sent).await, "sending", "what was sent runs on");
    assert_eq!(world.name(&other).await, "declaring");
    world.passes(599);
    let later = world.alerts("NginxDown", "i-5").await;
    assert_eq!(world.reason(&later).await, Reason::Paused { pause });
    assert_eq!(world.owes(&later), [Effect::SayWhyNot, Effect::React]);
    world.passes(1);
    let after = world.alerts("NginxDown", "i-5").await;
    assert_eq!(world.name(&after).await, "declaring");
    assert_eq!(world.outcome(&waiting).await, Outcome::Held, "resuming revives nothing");
}

#[tokio::test]
async fn a_pause_of_the_alerts_own_name_holds_a_rule_with_a_star() {
    let mut world = World::of("'web:*': {commands: [a]}");
    world.decides(|tx, ground, out| pause_now(tx, ground, "web:NginxDown", "U1", None, None, out)).await;
    let held = world.alerts("NginxDown", "i-1").await;
    assert_eq!(world.reason(&held).await.name(), "paused");
    let other = world.alerts("DiskFull", "i-1").await;
    assert_eq!(world.name(&other).await, "declaring");
}
