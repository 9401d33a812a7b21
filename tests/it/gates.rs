//! Why not: what keeps a rule from running, and how the thread says so.

use crate::story::{Alert, Plot, SRE, Story};
use crate::way::{CURE, rule};

/// An alert that is approved, healed and resolved.
async fn heal(story: &mut Story, host: &str) -> Alert {
    let alert = story.alert("web", "NginxDown", host);
    let declared = story.declaration(&alert, "Waits for Approve").await;
    story.click(SRE, &declared, "Approve").await;
    story.report(&alert, "ran well").await;
    story.resolve(&alert);
    story.report(&alert, "*healed*").await;
    story.reaction(&alert, "white_check_mark").await;
    alert
}

stories! {
    async fn a_pause_before_the_alert_holds_it_and_names_who_and_until_when(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let answer = story.slash(SRE, "pause web:NginxDown 2h deploying").await;
        assert!(answer.contains("Paused `web:NginxDown`"), "{answer}");
        story.announced("<@U0SRE> paused `web:NginxDown`").await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let held = story.why_not(&alert, "paused by <@U0SRE> until").await;
        assert!(held.read().contains("deploying"), "{}", held.read());
        story.reaction(&alert, "double_vertical_bar").await;
        let answer = story.slash(SRE, "resume web:NginxDown").await;
        assert!(answer.contains("is resumed"), "{answer}");
        story.announced("<@U0SRE> resumed `web:NginxDown`").await;
        // Resuming revives nothing that was held; the next alert runs.
        story.later(1).await;
        story.runs(0).await;
        let next = story.alert("web", "NginxDown", "web-1");
        story.declaration(&next, "unless somebody presses Hold").await;
        story.later(1).await;
        story.report(&next, "ran well").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_pause_ends_by_itself(mode: Mode) {
        let mut story = Plot::new(&rule("observe")).start(mode).await;
        story.slash(SRE, "pause * 1h").await;
        story.announced("paused").await;
        let held = story.alert("web", "NginxDown", "web-1");
        story.why_not(&held, "paused by <@U0SRE> until").await;
        story.later(61).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "observe").await;
        story.finish().await;
    }

    async fn a_pause_during_the_grace_and_the_approval_stops_what_was_not_sent(mode: Mode) {
        let rules = format!("{}web:DiskFull:\n  stage: auto{CURE}", rule("approve"));
        let mut story = Plot::new(&rules).start(mode).await;
        let first = story.alert("web", "NginxDown", "web-1");
        let second = story.alert("web", "DiskFull", "web-2");
        let early = story.declaration(&first, "Waits for Approve").await;
        story.declaration(&second, "unless somebody presses Hold").await;
        let answer = story.slash(SRE, "pause web:*").await;
        assert!(answer.contains("2 rules"), "{answer}");
        story.announced("2 remediations that were not sent yet are held").await;
        for alert in [&first, &second] {
            let declared = story.declaration(alert, "paused by <@U0SRE>").await;
            assert!(!declared.buttons().iter().any(|button| button == "Approve" || button == "Hold"));
            story.reaction(alert, "double_vertical_bar").await;
        }
        story.workspace.click_as_it_was(SRE, "C0ALERTS", &early.raw, "Approve").await.unwrap();
        story.whispered(SRE, "over already: held").await;
        story.later(5).await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn the_button_pause_rule_pauses_the_rule_of_its_message(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Pause rule").await;
        story.announced("<@U0SRE> paused `web:NginxDown`").await;
        story.declaration(&alert, "paused by <@U0SRE>").await;
        story.reaction(&alert, "double_vertical_bar").await;
        story.finish().await;
    }

    async fn a_repeated_alert_while_its_remediation_is_under_way_starts_no_second_one(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        let repeated = story.alert("web", "NginxDown", "web-1");
        story.why_not(&repeated, "the same rule is at work on this instance already").await;
        story.reaction(&repeated, "double_vertical_bar").await;
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "ran well").await;
        story.resolve(&alert);
        story.report(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn an_alert_within_the_cooldown_is_held_and_says_how_long(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        heal(&mut story, "web-1").await;
        story.later(10).await;
        let again = story.alert("web", "NginxDown", "web-1");
        story.why_not(&again, "in cooldown for 20 more minutes").await;
        // Another host is another matter.
        heal(&mut story, "web-2").await;
        story.later(21).await;
        let third = story.alert("web", "NginxDown", "web-1");
        story.declaration(&third, "Waits for Approve").await;
        story.runs(2).await;
        story.finish().await;
    }

    async fn attempts_are_counted_by_rule_and_instance_in_every_window(mode: Mode) {
        let rules = format!("{}  cooldown: 0s\n  attempts: [2/1h]\n", rule("approve"));
        let mut story = Plot::new(&rules).start(mode).await;
        heal(&mut story, "web-1").await;
        story.later(5).await;
        ill(&story, "web-1");
        heal(&mut story, "web-1").await;
        story.later(5).await;
        let third = story.alert("web", "NginxDown", "web-1");
        story.why_not(&third, "2 of 2 attempts in the last hour").await;
        story.reaction(&third, "double_vertical_bar").await;
        story.later(52).await;
        let fourth = story.alert("web", "NginxDown", "web-1");
        story.declaration(&fourth, "Waits for Approve").await;
        story.runs(2).await;
        story.finish().await;
    }

    async fn at_once_makes_the_next_instance_of_the_role_wait_for_its_turn(mode: Mode) {
        let rules = "web:NginxDown: {stage: auto, grace: 0s, commands: [\"while ! test -e /var/run/go; do sleep 0.05; done\"]}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let first = story.alert("web", "NginxDown", "web-1");
        story.declaration(&first, "With SSM since").await;
        let second = story.alert("web", "NginxDown", "web-2");
        let waits = story.declaration(&second, "1 of the role's instances is under remediation").await;
        assert!(waits.buttons().contains(&"Hold".to_owned()));
        story.reaction(&second, "hourglass_flowing_sand").await;
        let third = story.alert("web", "NginxDown", "web-3");
        let waits = story.declaration(&third, "1 of the role's instances is under remediation").await;
        story.click(SRE, &waits, "Hold").await;
        story.declaration(&third, "pressed Hold").await;
        open_the_gate(&story, "web-1");
        story.report(&first, "ran well").await;
        // Its turn came with the first host's answer, not with the alert's end.
        story.declaration(&second, "With SSM since").await;
        open_the_gate(&story, "web-2");
        story.report(&second, "ran well").await;
        story.runs(2).await;
        story.finish().await;
    }

    async fn two_rules_on_one_instance_go_one_after_the_other(mode: Mode) {
        let wait = "commands: [\"while ! test -e /var/run/go; do sleep 0.05; done\"]";
        let rules = format!("web:NginxDown: {{stage: auto, grace: 0s, at_once: 5, {wait}}}\nweb:DiskFull: {{stage: auto, grace: 0s, at_once: 5, commands: [\"echo cleaned\"]}}\n");
        let mut story = Plot::new(&rules).start(mode).await;
        let first = story.alert("web", "NginxDown", "web-1");
        story.declaration(&first, "With SSM since").await;
        let second = story.alert("web", "DiskFull", "web-1");
        story.declaration(&second, "the instance is under remediation by `web:NginxDown`").await;
        open_the_gate(&story, "web-1");
        story.report(&first, "ran well").await;
        story.runs(1).await;
        // The instance is free with the outcome.
        story.resolve(&first);
        story.report(&first, "*healed*").await;
        story.report(&second, "cleaned").await;
        story.runs(2).await;
        story.finish().await;
    }

    async fn what_waits_for_its_turn_is_held_once_its_alert_is_too_old(mode: Mode) {
        let rules = "web:NginxDown: {stage: auto, grace: 0s, timeout: 1h, commands: [\"while ! test -e /var/run/go; do sleep 0.05; done\"]}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let first = story.alert("web", "NginxDown", "web-1");
        story.declaration(&first, "With SSM since").await;
        let second = story.alert("web", "NginxDown", "web-2");
        story.declaration(&second, "1 of the role's instances is under remediation").await;
        story.reaction(&second, "hourglass_flowing_sand").await;
        story.clock.advance(std::time::Duration::from_secs(16 * 60));
        story.declaration(&second, "*held*").await;
        story.reaction(&second, "double_vertical_bar").await;
        open_the_gate(&story, "web-1");
        story.report(&first, "ran well").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn an_alert_that_resolves_during_the_grace_or_the_wait_stops_it(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "unless somebody presses Hold").await;
        story.resolve(&alert);
        story.declaration(&alert, "*cancelled*").await;
        story.later(5).await;
        story.runs(0).await;
        // One that comes back is a new alert, and no cooldown holds what never ran.
        let back = story.alert("web", "NginxDown", "web-1");
        story.declaration(&back, "unless somebody presses Hold").await;
        story.finish().await;
    }

    async fn an_alert_older_than_max_age_is_held(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let stamp = story.stamp();
        story.later(40).await;
        let alert = story.alert_at(&stamp, "web", "NginxDown", &["web-1"]);
        story.why_not(&alert, "alert 40 minutes old, older than 15 minutes").await;
        story.reaction(&alert, "double_vertical_bar").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_rule_that_changed_withdraws_the_declaration_and_makes_a_new_one(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let old = story.declaration(&alert, "Waits for Approve").await;
        story.later(1).await;
        story.stop_bot().await;
        story.rewrite_rules("web:NginxDown: {commands: [\"echo another cure\"]}\n");
        story.start_bot().await;
        // The press approves what was shown, and that is not in force any more.
        story.workspace.click(SRE, "C0ALERTS", &old.ts, "Approve").await.unwrap();
        let new = story.declaration(&alert, "echo another cure").await;
        assert_ne!(new.ts, old.ts);
        story.declaration(&alert, "*cancelled*").await;
        story.whispered(SRE, "your press approved nothing").await;
        story.runs(0).await;
        story.click(SRE, &new, "Approve").await;
        story.report(&alert, "another cure").await;
        story.runs(1).await;
        story.finish().await;
    }
}

/// The fault is back on a host.
fn ill(story: &Story, host: &str) {
    std::fs::remove_file(path_of(story, host, "well")).unwrap();
}

fn open_the_gate(story: &Story, host: &str) {
    std::fs::write(path_of(story, host, "go"), "").unwrap();
}

/// `/var/run/NAME` of a host.
fn path_of(story: &Story, host: &str, name: &str) -> std::path::PathBuf {
    story.fleet.host(host).unwrap().root().join("var/run").join(name)
}
