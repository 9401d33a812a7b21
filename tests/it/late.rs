//! What comes late, early or in the wrong order: each of these once did the wrong thing.

use std::time::Duration;

use crate::story::alert::attachments;
use crate::story::{CHANNEL, Plot, SRE};
use crate::way::rule;

stories! {
    /// Cause: nothing asked for the alert's age between the grace and the sending, so a bot that was
    /// down for hours cured yesterday's outage on its way up.
    async fn a_cure_that_was_due_hours_ago_is_not_run(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "unless somebody presses Hold").await;
        story.settled().await;
        story.stop_bot().await;
        story.clock.advance(Duration::from_secs(3 * 3600));
        story.start_bot().await;
        story.declaration(&alert, "older than 15 minutes").await;
        story.runs(0).await;
        story.finish().await;
    }

    /// Cause: deadlines that passed during the downtime ended remediations before SSM was asked.
    async fn a_run_that_ended_while_the_bot_was_long_away_keeps_its_true_outcome(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).fleet(|fleet| fleet.list_delay = Duration::ZERO).start(mode).await;
        story.fleet.on_send(|_| heal::sandbox::fleet::Scripted::DeliverAfter(Duration::from_millis(600)));
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        story.declaration(&alert, "With SSM since").await;
        story.stop_bot().await;
        story.runs(1).await;
        story.clock.advance(Duration::from_secs(3600));
        story.start_bot().await;
        story.report(&alert, "ran well").await;
        story.finish().await;
    }

    /// Cause: only rows that were there already were marked as resolved.
    async fn a_resolved_message_that_overtakes_its_alert_still_stops_it(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let now = story.clock.now().as_secs();
        let late = format!("{}.000100", now - 30);
        let over = format!("{}.000200", now - 10);
        let event = |ts: &str, firing: bool| {
            serde_json::json!({
                "type": "message", "subtype": "bot_message", "bot_id": "B0PROM", "app_id": "A0PROM",
                "channel": CHANNEL, "channel_type": "channel", "ts": ts, "event_ts": ts, "text": "",
                "attachments": attachments(firing, "web", "NginxDown", &["web-1"]),
            })
        };
        story.workspace.post_raw_event(event(&over, false));
        story.settled().await;
        story.workspace.post_raw_event(event(&late, true));
        let alert = crate::story::alert::Alert::at(&late);
        story.why_not(&alert, "resolved by itself before").await;
        story.runs(0).await;
        for message in story.workspace.messages(CHANNEL) {
            story.see(&message.ts);
        }
        story.finish().await;
    }

    /// Cause: an edit that listed one resolved alert of the same name was taken to mean the one it carried.
    async fn an_edit_in_which_the_alert_still_fires_resolves_nothing(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        let mut both = attachments(true, "web", "NginxDown", &["web-1"]);
        let over = attachments(false, "web", "NginxDown", &["web-2"]);
        let (Some(list), Some(more)) = (both.as_array_mut(), over.as_array()) else { panic!("attachments are lists") };
        list.extend(more.iter().cloned());
        story.workspace.edit_message(CHANNEL, &alert.ts, "", Some(both)).unwrap();
        story.settled().await;
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "ran well").await;
        story.runs(1).await;
        story.finish().await;
    }

    /// Cause: a second press was refused because of a first one that had been held and had sent nothing.
    async fn run_again_may_be_pressed_again_when_the_first_press_came_to_nothing(mode: Mode) {
        let rules = "web:NginxDown: {commands: [test -e /var/run/fixed], attempts: [9/1h]}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        let failed = story.report(&alert, "*failed*").await;
        story.slash(SRE, "pause web:NginxDown").await;
        story.announced("paused").await;
        story.click(SRE, &failed, "Run again").await;
        story.why_not(&alert, "paused by").await;
        story.slash(SRE, "resume web:NginxDown").await;
        story.announced("resumed").await;
        let root = story.fleet.host("web-1").unwrap().root().join("var/run/fixed");
        std::fs::write(root, "").unwrap();
        story.click(SRE, &failed, "Run again").await;
        story.declaration(&alert, "run again by").await;
        story.report(&alert, "ran well").await;
        story.runs(2).await;
        story.finish().await;
    }
}
