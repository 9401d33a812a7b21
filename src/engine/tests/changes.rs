//! A declaration binds rule and commands: what happens when the rule file changes underneath.

use super::*;

const OLD: &str = "web:NginxDown: {commands: [systemctl restart nginx]}";
const NEW: &str = "web:NginxDown: {commands: [systemctl reload nginx]}";

fn successor(id: &RemediationId, number: u32) -> RemediationId {
    RemediationId(format!("{}x{number}", id.0))
}

#[tokio::test]
async fn an_approval_of_what_the_rule_no_longer_says_withdraws_and_declares_anew() {
    let mut world = World::of(OLD);
    let old = world.alerts("NginxDown", "i-1").await;
    world.takes(&old, posted()).await;
    world.rules = rules(NEW);
    world.takes(&old, approved("U1")).await;
    let ended = world.get(&old).await;
    assert!(matches!(ended.state, State::Ended { why: Ending::RuleChanged, .. }), "{:?}", ended.state);
    assert!(!world.owes(&old).contains(&Effect::Send));
    let new = successor(&old, 2);
    assert_eq!(world.owes(&new), [Effect::Resolve]);
    assert_eq!(world.get(&new).await.approvals, [], "nobody has approved the new commands");
    assert_eq!(world.get(&new).await.origin, ended.origin, "it is said in the same thread");

    // It is declared under the new rule, and its own approval sends it.
    let plan = {
        let alert = alert("NginxDown", "i-1");
        crate::plan::plan(
            world.rules.find("web", "NginxDown", &alert.labels).unwrap(),
            &alert,
            &target("i-1"),
        )
    };
    let plan = plan.unwrap();
    world.takes(&new, Input::TargetResolved(Ok((target("i-1"), plan.clone())))).await;
    world.takes(&new, posted()).await;
    world.takes(&new, approved("U1")).await;
    let sent = world.get(&new).await;
    assert_eq!((sent.state.name(), sent.plan), ("sending", Some(plan)));
}

#[tokio::test]
async fn what_was_approved_and_waits_is_withdrawn_by_a_change_too() {
    let mut world = World::of("web:NginxDown: {commands: [old], at_once: 1}");
    let first = world.alerts("NginxDown", "i-1").await;
    let second = world.alerts("NginxDown", "i-2").await;
    for id in [&first, &second] {
        world.takes(id, posted()).await;
        world.takes(id, approved("U1")).await;
    }
    assert_eq!(world.name(&second).await, "waiting");
    world.rules = rules("web:NginxDown: {commands: [new], at_once: 1}");
    world.runs(&first, Final::Failed).await;
    assert_eq!(world.outcome(&first).await, Outcome::Failed, "what was sent is beyond the change");
    assert_eq!(world.outcome(&second).await, Outcome::Cancelled);
    assert_eq!(world.name(&successor(&second, 2)).await, "resolving");
}

#[tokio::test]
async fn each_change_makes_one_successor_with_an_id_of_its_own() {
    let mut world = World::of(OLD);
    let first = world.alerts("NginxDown", "i-1").await;
    world.takes(&first, posted()).await;
    let mut id = first.clone();
    for number in 2..=4 {
        let text = format!("web:NginxDown: {{commands: [step {number}]}}");
        world.rules = rules(&text);
        world.takes(&id, Input::Woken).await;
        assert!(world.hears(&id, Input::Woken).await.is_err(), "it is over");
        id = successor(&first, number);
        let rule = Arc::clone(world.rules.iter().next().unwrap());
        let plan = crate::plan::plan(&rule, &alert("NginxDown", "i-1"), &target("i-1")).unwrap();
        world.takes(&id, Input::TargetResolved(Ok((target("i-1"), plan)))).await;
        world.takes(&id, posted()).await;
    }
    let open = world.store.transact(|tx| tx.open_remediations()).await.unwrap();
    assert_eq!(open.iter().map(|this| this.id.0.as_str()).collect::<Vec<_>>(), ["r1x4"]);
}

#[tokio::test]
async fn what_changes_the_decision_withdraws_and_what_does_not_does_not() {
    for (new, withdrawn) in [
        ("web:NginxDown: {commands: [systemctl restart nginx], about: Words.}", false),
        ("web:NginxDown: {commands: [systemctl restart nginx], cooldown: 1h}", false),
        ("web:NginxDown: {commands: [systemctl restart nginx], timeout: 1m}", true),
        ("web:NginxDown: {commands: [systemctl restart nginx], verify: 'true'}", true),
        ("web:NginxDown: {commands: [systemctl restart nginx], env: {A: b}}", true),
        ("web:NginxDown: {commands: [systemctl restart nginx], stage: observe}", true),
        ("web:NginxDown: {commands: [systemctl restart nginx], approvals: 2}", true),
        ("web:NginxDown: {commands: [systemctl restart nginx], approvers: [U0OTHER]}", true),
        ("'web:*': {commands: [systemctl restart nginx]}", true),
        ("db:Other: {commands: [systemctl restart nginx]}", true),
    ] {
        let mut world = World::of(OLD);
        let id = world.alerts("NginxDown", "i-1").await;
        world.takes(&id, posted()).await;
        world.rules = rules(new);
        let heard = world.hears(&id, Input::Woken).await;
        assert_eq!(heard.is_ok(), withdrawn, "{new}");
        let reopened = {
            let new = successor(&id, 2);
            world.store.transact(move |tx| tx.remediation(&new)).await.unwrap().is_some()
        };
        let answered = !new.starts_with("db:");
        assert_eq!(reopened, withdrawn && answered, "{new}");
    }
}

/// Cause: copies were fenced, and hosts asked, where the setting of the day said; so a run that was in doubt
/// while it changed could run twice.
#[tokio::test]
async fn a_run_keeps_where_its_fence_is_made_until_it_was_surely_not_sent() {
    let mut world = World::of(AUTO);
    let id = world.alerts("NginxDown", "i-1").await;
    world.takes(&id, posted()).await;
    assert_eq!(world.get(&id).await.fence_dir.as_deref(), Some("/var/lib/heal"));
    world.fence_dir = "/srv/heal";
    world.takes(&id, Input::SendLost { why: "reset".into() }).await;
    let again = world.get(&id).await;
    assert_eq!((again.sent_again.len(), again.fence_dir.as_deref()), (1, Some("/var/lib/heal")));

    let mut world = World::of(AUTO);
    let other = world.alerts("NginxDown", "i-2").await;
    world.takes(&other, posted()).await;
    world.fence_dir = "/opt/heal";
    world.takes(&other, Input::SendThrottled { retry_after: Duration::from_secs(5) }).await;
    world.passes(5);
    world.takes(&other, Input::Woken).await;
    assert_eq!(world.name(&other).await, "sending");
    assert_eq!(world.get(&other).await.fence_dir.as_deref(), Some("/opt/heal"), "nothing was sent before");
    // Of what an older heal sent nothing was kept.
    let mut stored = serde_json::to_value(&again).unwrap();
    stored.as_object_mut().unwrap().remove("fence_dir");
    let old: Remediation = serde_json::from_value(stored).unwrap();
    assert_eq!(old, Remediation { fence_dir: None, ..again });
}

/// One that was declared, ran and failed.
async fn failed(world: &mut World) -> RemediationId {
    let id = world.alerts("NginxDown", "i-1").await;
    world.takes(&id, posted()).await;
    if world.name(&id).await == "counting" {
        world.passes(15);
        world.takes(&id, Input::Woken).await;
    } else {
        world.takes(&id, approved("U2")).await;
    }
    world.runs(&id, Final::Failed).await;
    id
}

/// `Run again` on it, pressed by U1: the newer remediation.
async fn run_again(world: &mut World, earlier: &RemediationId) -> RemediationId {
    let again = Trigger::Again { user: "U1".into(), of: earlier.clone() };
    world.passes(1);
    world.opens("NginxDown", "i-1", again).await
}

#[tokio::test]
async fn run_again_approves_the_declaration_whose_button_was_pressed() {
    for stage in ["approve", "auto"] {
        let mut world = World::of(&format!("web:NginxDown: {{commands: [old], stage: {stage}}}"));
        let earlier = failed(&mut world).await;
        let again = run_again(&mut world, &earlier).await;
        world.takes(&again, posted()).await;
        assert_eq!(world.name(&again).await, "sending", "{stage}");
    }
}

#[tokio::test]
async fn run_again_approves_nothing_that_the_rule_says_since() {
    for (stage, expected) in [("approve", "awaiting_approval"), ("auto", "counting")] {
        let rule = |command| format!("web:NginxDown: {{commands: [{command}], stage: {stage}}}");
        let mut world = World::of(&rule("old"));
        let earlier = failed(&mut world).await;
        world.rules = rules(&rule("new"));
        let again = run_again(&mut world, &earlier).await;
        world.takes(&again, posted()).await;
        assert_eq!(world.name(&again).await, expected, "changed before the press");

        // Changed after the press: the order does not pass on to the successor.
        let mut world = World::of(&rule("old"));
        let earlier = failed(&mut world).await;
        let again = run_again(&mut world, &earlier).await;
        world.rules = rules(&rule("new"));
        world.takes(&again, posted()).await;
        assert_eq!(world.outcome(&again).await, Outcome::Cancelled);
        let new = successor(&again, 2);
        let rule = Arc::clone(world.rules.iter().next().unwrap());
        let plan = crate::plan::plan(&rule, &alert("NginxDown", "i-1"), &target("i-1")).unwrap();
        world.takes(&new, Input::TargetResolved(Ok((target("i-1"), plan)))).await;
        world.takes(&new, posted()).await;
        assert_eq!(world.name(&new).await, expected, "changed after the press");
    }
}

#[tokio::test]
async fn run_again_approves_nothing_on_another_node_than_the_presser_saw() {
    let mut world = World::of(OLD);
    let earlier = failed(&mut world).await;
    let again = Trigger::Again { user: "U1".into(), of: earlier.clone() };
    // The host's name leads to a new node by now.
    let again = world.opens("NginxDown", "i-2", again).await;
    world.takes(&again, posted()).await;
    assert_eq!(world.name(&again).await, "awaiting_approval");
    world.takes(&again, approved("U1")).await;
    assert_eq!(world.name(&again).await, "sending");
}
