//! `/heal …`, and the same words as a mention in a thread.

use crate::story::{CHANNEL, DEV, LEAD, Plot, SRE};
use crate::way::rule;

stories! {
    async fn questions_are_answered_in_private(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        for text in ["", "help"] {
            assert!(story.slash(DEV, text).await.contains("/heal pause KEY"), "{text}");
        }
        assert!(story.slash(DEV, "rules").await.contains("`web:NginxDown`"));
        assert!(story.slash(DEV, "rules nothing-like-it").await.contains("nothing-like-it"));
        let shown = story.slash(DEV, "show web:NginxDown").await;
        assert!(shown.contains("touch /var/run/well") && shown.contains("cooldown 30m"), "{shown}");
        let status = story.slash(DEV, "status").await;
        assert!(status.contains("1 rule"), "{status}");
        let slip = story.slash(DEV, "statsu").await;
        assert!(slip.contains("Did you mean `/heal status`?"), "{slip}");
        let slip = story.slash(DEV, "show web:NginxDwon").await;
        assert!(slip.contains("Did you mean `web:NginxDown`?"), "{slip}");
        let slip = story.slash(LEAD, "pause web:NginxDwon 1h").await;
        assert!(slip.contains("Did you mean `web:NginxDown`?"), "{slip}");
        story.finish().await;
    }

    async fn history_and_status_tell_what_was_and_what_is(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let first = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&first, "Waits for Approve").await;
        story.click(SRE, &declared, "Reject").await;
        story.declaration(&first, "*rejected*").await;
        let second = story.alert("web", "NginxDown", "web-2");
        story.declaration(&second, "Waits for Approve").await;
        story.settled().await;
        let history = story.slash(DEV, "history").await;
        assert!(history.contains("*rejected* `web:NginxDown` on `web-1`"), "{history}");
        assert!(story.slash(DEV, "history db:Other").await.contains("db:Other"));
        let status = story.slash(DEV, "status").await;
        assert!(status.contains("1 open") && status.contains("`web-2`"), "{status}");
        story.finish().await;
    }

    async fn pausing_and_resuming_are_for_approvers_unless_pausing_is_open(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        for text in ["pause web:NginxDown", "resume web:NginxDown", "run web:NginxDown web-1"] {
            let answer = story.slash(DEV, text).await;
            assert!(answer.contains("You may not"), "{text}: {answer}");
        }
        assert!(!story.slash(DEV, "status").await.contains("Paused"));
        story.finish().await;

        let mut story = Plot::new(&rule("approve")).config("open_pause: true").start(mode).await;
        story.slash(DEV, "pause web:NginxDown").await;
        story.announced("<@U0DEV> paused `web:NginxDown`").await;
        assert!(story.slash(DEV, "status").await.contains("`web:NginxDown` by <@U0DEV>"));
        let answer = story.slash(DEV, "resume web:NginxDown").await;
        assert!(answer.contains("You may not resume rules"), "{answer}");
        story.finish().await;
    }

    async fn a_run_that_a_person_asks_for_is_approved_by_somebody_else(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let answer = story.slash(SRE, "run web:NginxDown web-1").await;
        assert!(answer.contains("Declared `web:NginxDown` on `web-1`"), "{answer}");
        let declared = story.announced("asked for by <@U0SRE>").await;
        story.settled().await;
        story.click(SRE, &declared, "Approve").await;
        story.whispered(SRE, "somebody else must approve it").await;
        story.runs(0).await;
        story.click(LEAD, &declared, "Approve").await;
        let thread = crate::story::Alert::at(&declared.ts);
        // No alert can resolve, so the run decides.
        story.report(&thread, "*healed*").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_run_of_stage_auto_is_declared_and_may_be_held(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let answer = story.slash(SRE, "run web:NginxDown web-1").await;
        assert!(answer.contains("Declared"), "{answer}");
        let declared = story.announced("asked for by <@U0SRE>").await;
        assert!(declared.read().contains("unless somebody presses Hold"), "{}", declared.read());
        story.settled().await;
        story.click(LEAD, &declared, "Hold").await;
        story.later(5).await;
        story.runs(0).await;
        let history = story.slash(SRE, "history").await;
        assert!(history.contains("*held* `web:NginxDown` on `web-1`"), "{history}");
        story.finish().await;
    }

    async fn a_run_that_nobody_else_may_approve_is_refused(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).config("approvers: [U0LEAD]").start(mode).await;
        let answer = story.slash(LEAD, "run web:NginxDown web-1").await;
        assert!(answer.contains("nobody but you may approve it"), "{answer}");
        let answer = story.slash(LEAD, "run web:NginxDwon web-1").await;
        assert!(answer.contains("Did you mean `web:NginxDown`?"), "{answer}");
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_run_on_an_unusable_host_is_answered_in_private(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let answer = story.slash(SRE, "run web:NginxDown web-77").await;
        assert!(answer.contains("SSM knows no managed node `web-77`"), "{answer}");
        story.slash(LEAD, "pause web:*").await;
        story.announced("paused `web:*`").await;
        let answer = story.slash(SRE, "run web:NginxDown web-1").await;
        assert!(answer.contains("paused by <@U0LEAD>"), "{answer}");
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_mention_in_a_thread_pauses_the_rule_of_the_thread(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "Waits for Approve").await;
        story.workspace.mention(DEV, CHANNEL, Some(&alert.ts), "pause").unwrap();
        story.whispered(DEV, "You may not pause rules").await;
        story.declaration(&alert, "Waits for Approve").await;
        story.workspace.mention(SRE, CHANNEL, Some(&alert.ts), "pause 1h looking at it").unwrap();
        story.whispered(SRE, "Paused `web:NginxDown`").await;
        story.announced("looking at it").await;
        story.declaration(&alert, "paused by <@U0SRE>").await;
        story.workspace.mention(SRE, CHANNEL, Some(&alert.ts), "resmue").unwrap();
        story.whispered(SRE, "Did you mean `/heal resume`?").await;
        story.workspace.mention(SRE, CHANNEL, Some(&alert.ts), "resume").unwrap();
        story.whispered(SRE, "is resumed").await;
        story.announced("resumed `web:NginxDown`").await;
        story.runs(0).await;
        story.finish().await;
    }
}
