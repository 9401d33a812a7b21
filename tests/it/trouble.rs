//! Slack and SSM at their worst, and the bot ended in the middle: later, and never twice.

use std::time::Duration;

use heal::sandbox::fleet::Fault as Ssm;
use heal::sandbox::workspace::Fault;

use crate::story::{CHANNEL, Mode, Plot, SRE, Story, web};
use crate::way::rule;

const AUTO: &str = "web:NginxDown: {stage: auto, grace: 0s, commands: [\"echo cured\"]}\n";

/// From the alert to *healed*, whatever happens on the way.
async fn healed_in_spite_of(story: &mut Story, declared: &str) {
    let alert = story.alert("web", "NginxDown", "web-1");
    story.declaration(&alert, declared).await;
    story.report(&alert, "ran well").await;
    story.resolve(&alert);
    story.report(&alert, "*healed*").await;
    story.reaction(&alert, "white_check_mark").await;
    assert_eq!(story.read_thread(&alert, 2).await.len(), 2);
    story.runs(1).await;
}

stories! {
    async fn a_slack_that_limits_fails_and_breaks_off_gets_every_message_once(mode: Mode) {
        for fault in [Fault::RateLimited(1), Fault::ServerError, Fault::ResetBefore, Fault::ResetAfter] {
            let mut story = Plot::new(AUTO).start(mode).await;
            for method in ["chat.postMessage", "chat.update", "reactions.add"] {
                story.workspace.fail_next(method, 1, fault.clone());
            }
            healed_in_spite_of(&mut story, "").await;
            story.finish().await;
        }
    }

    async fn a_report_whose_answer_was_lost_is_looked_for_before_it_is_posted_again(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.reaction(&alert, "raised_hand").await;
        story.workspace.fail_next("chat.postMessage", 1, Fault::ResetAfter);
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "ran well").await;
        story.resolve(&alert);
        story.report(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        assert_eq!(story.read_thread(&alert, 2).await.len(), 2);
        story.finish().await;
    }

    async fn a_throttled_ssm_gets_the_command_later_and_once(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Ssm::throttled());
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "SSM is throttling").await;
        story.runs(0).await;
        story.later(2).await;
        story.report(&alert, "ran well").await;
        story.declaration(&alert, "ran well").await;
        story.runs(1).await;
        assert_eq!(story.fleet.count_calls("SendCommand"), 2);
        story.finish().await;
    }

    async fn a_lost_answer_of_send_command_is_looked_up_and_not_sent_again(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Ssm::ResetAfter);
        healed_in_spite_of(&mut story, "").await;
        assert_eq!(story.fleet.count_calls("SendCommand"), 1);
        story.finish().await;
    }

    async fn an_ssm_that_refuses_the_command_is_a_failure_at_which_nothing_ran(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Ssm::refused("AccessDeniedException", "not authorized to perform ssm:SendCommand"));
        let alert = story.alert("web", "NginxDown", "web-1");
        let report = story.report(&alert, "*failed*").await;
        assert!(report.read().contains("nothing ran"), "{}", report.read());
        story.declaration(&alert, "*failed*").await;
        story.reaction(&alert, "x").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_poll_that_fails_now_and_then_does_not_change_the_outcome(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("ListCommandInvocations", 2, &Ssm::throttled());
        story.fleet.fault("GetCommandInvocation", 2, &Ssm::internal());
        healed_in_spite_of(&mut story, "").await;
        story.finish().await;
    }

    /// It once could not start again in the same process: tasks and kept-alive connections still held the
    /// database after the end. Ending the bot closes it.
    async fn a_bot_that_is_ended_while_people_decide_goes_on_after_its_next_start(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.settled().await;
        story.stop_bot().await;
        story.start_bot().await;
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "ran well").await;
        story.stop_bot().await;
        story.start_bot().await;
        story.resolve(&alert);
        story.report(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        assert_eq!(story.read_thread(&alert, 2).await.len(), 2);
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_bot_that_is_ended_while_the_host_works_reports_after_its_next_start(mode: Mode) {
        let rules = "web:NginxDown: {stage: auto, grace: 0s, commands: [\"while ! test -e /var/run/go; do sleep 0.05; done\"]}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "With SSM since").await;
        story.stop_bot().await;
        std::fs::write(story.fleet.host("web-1").unwrap().root().join("var/run/go"), "").unwrap();
        story.runs(1).await;
        story.start_bot().await;
        story.report(&alert, "ran well").await;
        assert_eq!(story.fleet.count_calls("SendCommand"), 1);
        story.finish().await;
    }

    async fn a_grace_that_ends_while_the_bot_is_down_ends_at_its_start(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "unless somebody presses Hold").await;
        story.settled().await;
        story.stop_bot().await;
        story.clock.advance(Duration::from_secs(60));
        story.runs(0).await;
        story.start_bot().await;
        story.report(&alert, "ran well").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn probes_tell_that_it_lives_is_ready_and_what_it_counted(mode: Mode) {
        let mut story = Plot::new(&rule("observe")).start(mode).await;
        assert_eq!(web::get(story.listen(), "/healthz").await, (200, "alive\n".to_owned()));
        assert_eq!(web::get(story.listen(), "/readyz").await, (200, "ready\n".to_owned()));
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "observe").await;
        story.settled().await;
        assert_eq!(story.metric("heal_alerts_total{sender=\"prometheus\"}").await, Some(1.0));
        assert_eq!(story.metric("heal_remediations_total{name=\"observed\"}").await, Some(1.0));
        let connections = if mode == Mode::Socket { 1.0 } else { 0.0 };
        assert_eq!(story.metric("heal_slack_connections").await, Some(connections));
        assert_eq!(web::get(story.listen(), "/elsewhere").await.0, 404);
        story.finish().await;
    }
}

#[test]
fn without_a_socket_it_is_not_ready_and_with_the_next_one_it_is() {
    crate::story::tell(async {
        let mut story = Plot::new(&rule("approve")).start(Mode::Socket).await;
        story.workspace.refuse_connections_for(Duration::from_secs(1));
        story.workspace.cut_sockets();
        let gone = async {
            loop {
                let (status, why) = web::get(story.listen(), "/readyz").await;
                if status == 503 {
                    return why;
                }
            }
        };
        let why = tokio::time::timeout(crate::story::BOUND, gone).await.unwrap();
        assert!(why.starts_with("not ready:"), "{why}");
        let back = |view: &heal::sandbox::workspace::View| view.connections() == 1;
        story.workspace.wait_until(crate::story::BOUND, back).await.unwrap();
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "Waits for Approve").await;
        assert_eq!(web::get(story.listen(), "/readyz").await.0, 200);
        // Slack's own farewell costs nothing either.
        story.workspace.disconnect_all("refresh_requested");
        let next = story.alert("web", "NginxDown", "web-2");
        story.declaration(&next, "Waits for Approve").await;
        assert_eq!(story.workspace.thread(CHANNEL, &next.ts).len(), 1);
        story.finish().await;
    });
}
