//! Stories of what people do: presses that meet, pauses, orders, Run again.

use heal::sandbox::workspace::View;

use super::ends::End::{Declared, Not, Ran};
use super::shown;
use super::stories::{CURE, matrix, rule};
use super::world::{Stage, Told};
use crate::story::{CHANNEL, LEAD, Plot, SRE};

/// The bot has said this at the top level of the channel.
fn announced(text: &'static str) -> impl FnMut(&View) -> bool {
    move |view: &View| {
        let own = |message: &heal::sandbox::workspace::Message| message.bot_id.as_deref() == Some("B0HEAL");
        view.messages(CHANNEL).iter().any(|message| own(message) && message.read().contains(text))
    }
}

matrix! {
    async fn two_presses_at_once_are_one_approval_and_one_run(stage: Stage) -> Told, least 50 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads(&alert, "declaration", "Waits for Approve").await?;
        let declared = world.workspace.view(|view| shown::newest(view, &alert.ts, "`web-1`"));
        let shown = declared.and_then(|this| this.declaration).ok_or("no declaration")?;
        let press = |user: &'static str| world.workspace.click_as_it_was(user, CHANNEL, &shown.raw, "Approve");
        drop(tokio::join!(press(SRE), press(SRE), press(LEAD)));
        let ts = alert.ts.clone();
        let approved = move |view: &View| !shown::has(view, &ts, "declaration", "Waits for Approve");
        world.press_until(SRE, &alert, "Approve", approved).await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn a_rule_with_two_approvals_waits_for_both(stage: Stage) -> Told, least 70 {
        let rules = format!("web:NginxDown: {{approvals: 2, {CURE}}}\n");
        let mut world = stage.set(Plot::new(&rules)).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        let ts = alert.ts.clone();
        let first = move |view: &View| shown::has(view, &ts, "declaration", "1 of 2");
        world.press_until(SRE, &alert, "Approve", first).await?;
        world.press(LEAD, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn an_order_to_pause_holds_what_was_not_sent(stage: Stage) -> Told, least 40 {
        let mut world = stage.set(Plot::new(&rule("auto"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads(&alert, "declaration", "unless somebody presses Hold").await?;
        let ts = alert.ts.clone();
        let held = move |view: &View| shown::has(view, &ts, "declaration", "paused by <@U0SRE>");
        world.order(SRE, "pause web:NginxDown 2h deploying", held).await?;
        world.until("the announcement", announced("<@U0SRE> paused `web:NginxDown`")).await?;
        world.ends(&alert, "double_vertical_bar", &[("web-1", Declared("paused by <@U0SRE>"))]).await?;
        let next = world.alert("NginxDown", &["web-2"]);
        world.ends(&next, "double_vertical_bar", &[("", Not("paused by <@U0SRE>"))]).await?;
        world.finish(&[]).await
    }

    async fn the_button_pause_rule_holds_and_is_announced(stage: Stage) -> Told, least 28 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        let ts = alert.ts.clone();
        let held = move |view: &View| shown::has(view, &ts, "declaration", "paused by <@U0SRE>");
        world.press_until(SRE, &alert, "Pause rule", held).await?;
        world.until("the announcement", announced("<@U0SRE> paused `web:NginxDown`")).await?;
        world.ends(&alert, "double_vertical_bar", &[("web-1", Declared("paused by <@U0SRE>"))]).await?;
        world.finish(&[]).await
    }

    async fn a_resumed_rule_runs_again(stage: Stage) -> Told, least 80 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        world.order(LEAD, "pause web:*", announced("<@U0LEAD> paused `web:*`")).await?;
        let held = world.alert("NginxDown", &["web-1"]);
        world.ends(&held, "double_vertical_bar", &[("", Not("paused by <@U0LEAD>"))]).await?;
        world.order(SRE, "resume web:*", announced("<@U0SRE> resumed `web:*`")).await?;
        let alert = world.alert("NginxDown", &["web-2"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-2").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-2", Ran("*healed*"))]).await?;
        world.finish(&[("web-2", 1)]).await
    }

    async fn a_run_that_a_person_asked_for_is_approved_by_another_and_healed(stage: Stage) -> Told, least 50 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        world.order(SRE, "run web:NginxDown web-1", announced("asked for by <@U0SRE>")).await?;
        let thread = world.announcements().first().map(|message| crate::story::Alert::at(&message.ts));
        let thread = thread.ok_or("no declaration")?;
        world.press(LEAD, &thread, "Approve", "").await?;
        world.reads(&thread, "report", "*healed*").await?;
        // No alert stands there that could show a reaction.
        world.until("the end", |view| {
            shown::newest(view, &thread.ts, "`web-1`").is_some_and(|this| this.declares("*healed*") && this.reports("*healed*"))
        }).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn run_again_after_a_failure_runs_once_more(stage: Stage) -> Told, least 100 {
        let rules = "web:NginxDown: {commands: [test -e /var/run/fixed, \"echo x >>/var/run/cured\"]}\n";
        let mut world = stage.set(Plot::new(rules)).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.ends(&alert, "x", &[("web-1", Ran("*failed*"))]).await?;
        world.touch("web-1", "fixed");
        let ts = alert.ts.clone();
        let again = move |view: &View| shown::remediations(view, &ts).len() > 1;
        world.press_until(LEAD, &alert, "Run again", again).await?;
        world.runs_well(LEAD, &alert, "web-1").await?;
        world.resolve(&alert);
        // The first one stays what it was, and the more urgent of the two is shown on the alert.
        world.ends(&alert, "x", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }
}
