//! What Slack refuses: what a person can mend stays owed and is said after that, what nobody can mend ends.

use std::time::Duration;

use heal::sandbox::workspace::{Call, Fault, View};

use crate::story::{BOUND, Plot, SRE, Story, web};
use crate::way::rule;

/// More refusals than anybody calls for.
const ALL: usize = 100_000;

impl Story {
    /// From now on Slack refuses these methods so.
    fn refuses(&mut self, methods: &[&str], code: &str) {
        for method in methods {
            self.workspace.fail_next(method, ALL, Fault::Refused(code.to_owned()));
        }
        self.allow_refusal(code);
        self.allow_error("waits for a person");
    }

    /// Awaits that these were refused so often, each.
    async fn was_refused(&self, methods: &[&str], times: usize) {
        let refused = |view: &View, method: &str| {
            view.calls_of(method).filter(|call: &&Call| call.answer["ok"] == false).count() >= times
        };
        let all = |view: &View| methods.iter().all(|method| refused(view, method));
        if self.workspace.wait_until(BOUND, all).await.is_err() {
            panic!("{methods:?} were not tried.\n{}", self.transcript());
        }
    }

    /// Awaits that `/readyz` says this.
    async fn readyz_says(&self, status: u16, text: &str) {
        let mut last = (0, String::new());
        let said = async {
            loop {
                last = web::get(self.listen(), "/readyz").await;
                if last.0 == status && last.1.contains(text) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let said = tokio::time::timeout(BOUND, said).await;
        assert!(said.is_ok(), "/readyz says {last:?} and not {text:?}");
    }
}

stories! {
    /// Cause: every refusal counted as final, so what was owed while the bot was out of the channel was never said.
    async fn what_a_channel_refuses_is_said_once_the_bot_is_invited_again(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.reaction(&alert, "raised_hand").await;
        let methods = ["chat.postMessage", "chat.update", "reactions.add"];
        story.refuses(&methods, "not_in_channel");
        story.click(SRE, &declared, "Approve").await;
        story.was_refused(&methods, 1).await;
        story.readyz_says(200, "chat.postMessage in C0ALERTS: Slack refused: not_in_channel; hint: invite the app").await;
        let log = story.log();
        let errors = log.lines().filter(|line| line.contains("ERROR") && line.contains("waits for a person")).count();
        assert_eq!(errors, 3, "one for each kind of call:\n{log}");
        story.workspace.clear_faults();
        story.report(&alert, "ran well").await;
        story.declaration(&alert, "ran well").await;
        story.reaction(&alert, "hourglass").await;
        assert_eq!(web::get(story.listen(), "/readyz").await, (200, "ready\n".to_owned()));
        assert_eq!(story.metric("heal_slack_given_up_total").await, Some(0.0));
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_declaration_of_a_revoked_token_is_made_after_the_start_with_a_good_one(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        story.refuses(&["*"], "token_revoked");
        let alert = story.alert("web", "NginxDown", "web-1");
        story.was_refused(&["chat.postMessage"], 1).await;
        story.readyz_says(503, "Slack refused: token_revoked; hint: the token is wrong").await;
        story.settled().await;
        story.stop_bot().await;
        story.workspace.clear_faults();
        story.start_bot().await;
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "ran well").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn an_announcement_that_a_channel_refuses_is_made_later(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        story.refuses(&["chat.postMessage"], "restricted_action");
        let _ = story.slash(SRE, "pause web:NginxDown 10m").await;
        story.was_refused(&["chat.postMessage"], 2).await;
        story.workspace.clear_faults();
        story.announced("web:NginxDown").await;
        story.finish().await;
    }

    async fn what_nobody_mends_for_a_week_is_given_up(mode: Mode) {
        let mut story = Plot::new(&rule("observe")).start(mode).await;
        story.refuses(&["chat.postMessage", "reactions.add"], "is_archived");
        story.allow_error("for too long");
        story.alert("web", "NginxDown", "web-1");
        story.was_refused(&["chat.postMessage", "reactions.add"], 1).await;
        story.clock.advance(Duration::from_secs(7 * 86_400));
        let given_up = async {
            while story.metric("heal_slack_given_up_total").await < Some(1.0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(BOUND, given_up).await.unwrap();
        story.finish().await;
    }

    async fn a_message_that_slack_will_never_take_is_given_up_at_once(mode: Mode) {
        let mut story = Plot::new(&rule("observe")).start(mode).await;
        story.workspace.fail_next("chat.postMessage", 1, Fault::Refused("msg_too_long".to_owned()));
        story.allow_refusal("msg_too_long");
        story.allow_error("failed for good");
        let alert = story.alert("web", "NginxDown", "web-1");
        story.reaction(&alert, "double_vertical_bar").await;
        assert_eq!(story.metric("heal_slack_given_up_total").await, Some(1.0));
        assert_eq!(web::get(story.listen(), "/readyz").await, (200, "ready\n".to_owned()));
        story.runs(0).await;
        story.why_not(&alert, "NginxDown").await;
        story.finish().await;
    }
}
