//! Stories of alerts: declared, allowed, run, resolved. Each is told as people would, and what they do
//! again when nothing came of it is in [`super::world`].

use super::ends::End::{Declared, Not, Ran};
use super::shown;
use super::world::{Stage, Told};
use crate::story::{LEAD, Plot, SRE};

/// Its work can be counted on the host.
pub const CURE: &str = "commands: [\"echo x >>/var/run/cured\"], verify: test -s /var/run/cured";

pub fn rule(stage: &str) -> String {
    format!("web:NginxDown: {{stage: {stage}, {CURE}}}\n")
}

/// Makes each story a test on every database. `least`: fewer cut points would mean that steps were missed.
macro_rules! matrix {
    ($($(#[doc = $doc:literal])* async fn $name:ident($stage:ident: Stage) -> Told, least $least:literal $body:block)*) => {$(
        $(#[doc = $doc])*
        pub async fn $name($stage: Stage) -> Told $body

        mod $name {
            use crate::crash::{database::Database, replay};

            #[test]
            fn on_sqlite() {
                replay::everywhere(stringify!($name), Database::Sqlite, $least, super::$name);
            }

            #[test]
            fn on_postgresql() {
                replay::everywhere(stringify!($name), Database::Postgres, $least, super::$name);
            }
        }
    )*};
}
pub(super) use matrix;

matrix! {
    async fn an_alert_that_a_person_approves_is_healed(stage: Stage) -> Told, least 50 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn an_alert_of_stage_auto_is_healed(stage: Stage) -> Told, least 50 {
        let mut world = stage.set(Plot::new(&rule("auto"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads(&alert, "declaration", "unless somebody presses Hold").await?;
        world.reads_later(16, &alert, "report", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    /// Killed at its very start too, before there is anything to go on with.
    async fn a_bot_that_is_killed_while_it_starts_heals_what_came_meanwhile(stage: Stage) -> Told, least 70 {
        let rules = format!("web:NginxDown: {{stage: auto, grace: 0s, {CURE}}}\n");
        let mut world = stage.set_early(Plot::new(&rules)).await;
        // Before its first connection a new heal takes nothing: it was not asked to heal the past.
        world.until("a connection", |view| view.connections() > 0).await?;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn an_alert_of_stage_observe_is_declared_and_nothing_runs(stage: Stage) -> Told, least 12 {
        let mut world = stage.set(Plot::new(&rule("observe"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.ends(&alert, "mag", &[("web-1", Declared("observe"))]).await?;
        world.finish(&[]).await
    }

    async fn hold_during_the_grace_stops_it(stage: Stage) -> Told, least 24 {
        let mut world = stage.set(Plot::new(&rule("auto"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Hold", "").await?;
        world.ends(&alert, "double_vertical_bar", &[("web-1", Declared("<@U0SRE> pressed Hold"))]).await?;
        world.clock.advance(std::time::Duration::from_secs(60));
        world.finish(&[]).await
    }

    async fn a_rejected_alert_runs_nothing(stage: Stage) -> Told, least 24 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(LEAD, &alert, "Reject", "").await?;
        world.ends(&alert, "no_entry_sign", &[("web-1", Declared("*rejected*"))]).await?;
        world.finish(&[]).await
    }

    async fn an_alert_that_nobody_approves_expires(stage: Stage) -> Told, least 24 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads(&alert, "declaration", "Waits for Approve").await?;
        // A message stands in Slack before the bot knows that it does.
        world.settled().await?;
        world.reads_later(31 * 60, &alert, "declaration", "*expired*").await?;
        world.ends(&alert, "zzz", &[("web-1", Declared("*expired*"))]).await?;
        world.finish(&[]).await
    }

    async fn an_alert_that_resolves_before_the_sending_withdraws_its_declaration(stage: Stage) -> Told, least 24 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads(&alert, "declaration", "Waits for Approve").await?;
        world.resolve(&alert);
        world.ends(&alert, "leftwards_arrow_with_hook", &[("web-1", Declared("*cancelled*"))]).await?;
        world.finish(&[]).await
    }

    /// Its sender edits the message in place.
    async fn an_edit_that_says_resolved_withdraws_the_declaration(stage: Stage) -> Told, least 24 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads(&alert, "declaration", "Waits for Approve").await?;
        let over = crate::story::alert::attachments(false, "web", "NginxDown", &["web-1"]);
        world.workspace.edit_message(crate::story::CHANNEL, &alert.ts, "", Some(over)).unwrap();
        world.ends(&alert, "leftwards_arrow_with_hook", &[("web-1", Declared("*cancelled*"))]).await?;
        world.finish(&[]).await
    }

    async fn an_alert_that_does_not_resolve_in_time_is_unresolved(stage: Stage) -> Told, least 50 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.settled().await?;
        world.reads_later(11 * 60, &alert, "report", "*unresolved*").await?;
        world.ends(&alert, "warning", &[("web-1", Ran("*unresolved*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn a_second_alert_within_the_cooldown_is_held(stage: Stage) -> Told, least 80 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let first = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &first, "Approve", "").await?;
        world.runs_well(SRE, &first, "web-1").await?;
        world.resolve(&first);
        world.ends(&first, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        let second = world.alert("NginxDown", &["web-1"]);
        world.ends(&second, "double_vertical_bar", &[("", Not("in cooldown for"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn a_repeated_alert_starts_no_second_remediation(stage: Stage) -> Told, least 40 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let first = world.alert("NginxDown", &["web-1"]);
        world.reads(&first, "declaration", "Waits for Approve").await?;
        let second = world.alert("NginxDown", &["web-1"]);
        world.ends(&second, "double_vertical_bar", &[("", Not("is at work on this instance already"))]).await?;
        world.press(SRE, &first, "Reject", "").await?;
        world.ends(&first, "no_entry_sign", &[("web-1", Declared("*rejected*"))]).await?;
        world.finish(&[]).await
    }

    async fn an_alert_of_a_host_that_ssm_does_not_know_is_held(stage: Stage) -> Told, least 12 {
        let mut world = stage.set(Plot::new(&rule("auto"))).await;
        let alert = world.alert("NginxDown", &["web-99"]);
        world.ends(&alert, "double_vertical_bar", &[("", Not("SSM knows no managed node `web-99`"))]).await?;
        world.finish(&[]).await
    }

    async fn several_alerts_of_one_message_go_their_own_ways(stage: Stage) -> Told, least 100 {
        let mut world = stage.set(Plot::new(&format!("{}\n", rule("approve").replace('}', ", at_once: 3}")))).await;
        let alert = world.alert("NginxDown", &["web-1", "web-2", "web-3"]);
        for host in ["web-1", "web-2", "web-3"] {
            world.reads(&alert, "declaration", &format!("`{host}`")).await?;
        }
        world.press(SRE, &alert, "Reject", "`web-2`").await?;
        world.press(SRE, &alert, "Approve", "`web-1`").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.press(LEAD, &alert, "Approve", "`web-3`").await?;
        world.runs_well(SRE, &alert, "web-3").await?;
        world.resolve(&alert);
        let ends = [("web-1", Ran("*healed*")), ("web-2", Declared("*rejected*")), ("web-3", Ran("*healed*"))];
        world.ends(&alert, "no_entry_sign", &ends).await?;
        world.finish(&[("web-1", 1), ("web-3", 1)]).await
    }

    async fn the_next_instance_of_the_role_waits_for_its_turn(stage: Stage) -> Told, least 80 {
        let wait = "while ! test -e /var/run/go; do sleep 0.05; done";
        let rules = format!("web:NginxDown: {{stage: auto, grace: 0s, commands: [\"{wait}\", \"echo x >>/var/run/cured\"]}}\n");
        let mut world = stage.set(Plot::new(&rules)).await;
        let first = world.alert("NginxDown", &["web-1"]);
        world.reads(&first, "declaration", "With SSM since").await?;
        let second = world.alert("NginxDown", &["web-2"]);
        world.reads(&second, "declaration", "1 of the role's instances is under remediation").await?;
        world.touch("web-1", "go");
        world.runs_well(SRE, &first, "web-1").await?;
        world.touch("web-2", "go");
        world.runs_well(SRE, &second, "web-2").await?;
        for (alert, host) in [(first, "web-1"), (second, "web-2")] {
            world.resolve(&alert);
            world.ends(&alert, "white_check_mark", &[(host, Ran("*healed*"))]).await?;
        }
        world.finish(&[("web-1", 1), ("web-2", 1)]).await
    }

    async fn a_rule_that_changed_withdraws_the_declaration_and_makes_a_new_one(stage: Stage) -> Told, least 50 {
        let mut world = stage.set(Plot::new("web:NginxDown: {commands: [\"echo x >>/var/run/stale\"]}\n")).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads(&alert, "declaration", "Waits for Approve").await?;
        world.settled().await?;
        world.leave().await?;
        world.rewrite_rules(&rule("approve"));
        world.come_back();
        world.press(SRE, &alert, "Approve", "/var/run/stale").await?;
        world.press(SRE, &alert, "Approve", "/var/run/cured").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        let ts = alert.ts.clone();
        let withdrawn = move |view: &heal::sandbox::workspace::View| shown::has(view, &ts, "declaration", "*cancelled*");
        world.until("the withdrawn declaration", withdrawn).await?;
        world.finish(&[("web-1", 1)]).await
    }
}
