//! Whose turn it is: one per instance, `at_once` per role, oldest first.

use super::*;

#[tokio::test]
async fn two_rules_on_one_instance_take_turns_and_the_second_is_woken_by_the_firsts_outcome() {
    let mut world = World::of(AUTO);
    let first = world.alerts("NginxDown", "i-1").await;
    let second = world.alerts("DiskFull", "i-1").await;
    world.takes(&first, posted()).await;
    world.takes(&second, posted()).await;
    assert_eq!(world.name(&first).await, "sending");
    let taken = Reason::InstanceTaken { other: first.clone(), key: "web:NginxDown".into() };
    assert_eq!(world.reason(&second).await, taken);
    world.runs(&first, Final::Success).await;
    assert_eq!(world.name(&first).await, "settling");
    assert_eq!(world.reason(&second).await, taken, "the instance is taken to the outcome");
    world.resolves(&first).await;
    assert_eq!(world.outcome(&first).await, Outcome::Healed);
    assert_eq!(world.name(&second).await, "sending");
    assert!(world.owes(&second).contains(&Effect::Send));
    assert_eq!(world.journal(&second).await.last().unwrap(), "heal woken: sending");
}

#[tokio::test]
async fn at_once_of_one_lets_a_role_of_three_through_one_by_one_oldest_first() {
    let mut world = World::of(AUTO);
    let mut all = Vec::new();
    for instance in ["i-1", "i-2", "i-3"] {
        all.push(world.alerts("NginxDown", instance).await);
        world.passes(1);
    }
    // Their declarations are posted in another order than the alerts came.
    for index in [0, 2, 1] {
        world.takes(&all[index], posted()).await;
    }
    let names = async |world: &World| {
        let mut names = Vec::new();
        for id in &all {
            names.push(world.name(id).await);
        }
        names
    };
    assert_eq!(names(&world).await, ["sending", "waiting", "waiting"]);
    assert_eq!(world.reason(&all[1]).await, Reason::RoleFull { running: 1, at_once: 1 });
    world.runs(&all[0], Final::Success).await;
    assert_eq!(names(&world).await, ["settling", "sending", "waiting"], "the host's answer frees the role");
    world.runs(&all[1], Final::Failed).await;
    assert_eq!(names(&world).await, ["settling", "ended", "sending"]);
}

#[tokio::test]
async fn a_higher_at_once_lets_as_many_through_and_a_freed_place_is_given_once() {
    let mut world = World::of("web:NginxDown: {commands: [a], stage: auto, grace: 0s, at_once: 2}");
    let mut all = Vec::new();
    for instance in ["i-1", "i-2", "i-3", "i-4"] {
        let id = world.alerts("NginxDown", instance).await;
        world.takes(&id, posted()).await;
        all.push(id);
        world.passes(1);
    }
    assert_eq!(world.name(&all[1]).await, "sending");
    assert_eq!(world.reason(&all[2]).await, Reason::RoleFull { running: 2, at_once: 2 });
    world.runs(&all[0], Final::Failed).await;
    assert_eq!(world.name(&all[2]).await, "sending");
    assert_eq!(world.name(&all[3]).await, "waiting");
}

#[tokio::test]
async fn a_throttled_sending_gives_its_place_to_the_next_and_takes_a_later_turn() {
    let mut world = World::of(AUTO);
    let first = world.alerts("NginxDown", "i-1").await;
    world.takes(&first, posted()).await;
    world.passes(1);
    let second = world.alerts("NginxDown", "i-2").await;
    world.takes(&second, posted()).await;
    world.takes(&first, Input::SendThrottled { retry_after: Duration::from_secs(5) }).await;
    assert_eq!(world.name(&second).await, "sending");
    assert_eq!(world.hears(&first, Input::Woken).await, Err(Refused::Nothing));
    world.passes(5);
    world.takes(&first, Input::Woken).await;
    assert_eq!(world.reason(&first).await.name(), "at_once");
    world.runs(&second, Final::Failed).await;
    assert_eq!(world.name(&first).await, "sending");
}

#[tokio::test]
async fn a_wait_ends_when_its_alert_is_too_old_and_when_it_resolves() {
    let mut world = World::of(AUTO);
    let first = world.alerts("NginxDown", "i-1").await;
    world.takes(&first, posted()).await;
    let old = world.alerts("NginxDown", "i-2").await;
    world.takes(&old, posted()).await;
    let resolves = world.alerts("NginxDown", "i-3").await;
    world.takes(&resolves, posted()).await;
    world.resolves(&resolves).await;
    assert_eq!(world.outcome(&resolves).await, Outcome::Cancelled);
    world.passes(900);
    world.takes(&old, Input::Woken).await;
    assert_eq!(world.name(&old).await, "waiting");
    world.passes(1);
    world.takes(&old, Input::Woken).await;
    assert_eq!((world.outcome(&old).await, world.reason(&old).await.name()), (Outcome::Held, "at_once"));
}

#[tokio::test]
async fn what_is_due_is_told_with_every_decision_also_with_one_that_changed_nothing() {
    let mut world = World::of("web:NginxDown: {commands: [a], stage: auto, grace: 20s}");
    let id = world.alerts("NginxDown", "i-1").await;
    let due = {
        let id = id.clone();
        world.decides(move |tx, ground, out| {
            drop(apply(tx, ground, &id, &posted(), "heal", out)?);
            Ok(out.due_at)
        })
    };
    let until = START.plus(Duration::from_secs(20));
    assert_eq!(due.await, Some(until));
    let due = {
        let id = id.clone();
        world.decides(move |tx, ground, out| {
            drop(apply(tx, ground, &id, &Input::Woken, "heal", out)?);
            Ok(out.due_at)
        })
    };
    assert_eq!(due.await, Some(until), "woken too early, it is not forgotten");
    let stored = world.store.transact(|tx| tx.next_due_at()).await.unwrap();
    assert_eq!(stored, Some(until));
}
