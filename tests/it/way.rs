//! The way of an alert: declared, allowed by stage, run, reported, resolved.

use heal::sandbox::fleet::HostSpec;

use crate::story::{LEAD, Plot, SRE, assert_reads};

/// Confirm finds no file `well`, the command makes it, verify finds it.
pub const CURE: &str = r#"
  confirm: "! test -e /var/run/well"
  commands: ["touch /var/run/well", "echo restarted"]
  verify: test -e /var/run/well
"#;

pub fn rule(stage: &str) -> String {
    format!("web:NginxDown:\n  stage: {stage}{CURE}")
}

stories! {
    async fn an_alert_of_stage_observe_is_declared_and_nothing_runs(mode: Mode) {
        let mut story = Plot::new(&rule("observe")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "observe").await;
        assert!(declared.read().contains("touch /var/run/well"), "{}", declared.read());
        assert!(!declared.buttons().contains(&"Approve".to_owned()), "{:?}", declared.buttons());
        story.reaction(&alert, "mag").await;
        story.later(10).await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn an_approved_alert_is_healed_and_reported_with_its_steps(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        assert_eq!(declared.buttons(), ["Approve", "Reject", "Pause rule"]);
        story.reaction(&alert, "raised_hand").await;
        story.runs(0).await;
        story.click(SRE, &declared, "Approve").await;
        let report = story.report(&alert, "ran well").await;
        for part in ["approved by <@U0SRE>", "exit code 0", "restarted", "confirm", "verify"] {
            assert!(report.read().contains(part), "{part}: {}", report.read());
        }
        story.reaction(&alert, "hourglass").await;
        story.resolve(&alert);
        let report = story.report(&alert, "*healed*").await;
        assert!(!report.buttons().contains(&"Run again".to_owned()));
        let declared = story.declaration(&alert, "*healed*").await;
        assert!(!declared.buttons().contains(&"Approve".to_owned()));
        story.reaction(&alert, "white_check_mark").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn each_message_of_a_remediation_reads_like_this(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        assert_reads(&declared, r"
        :raised_hand: *waits for Approve*  `web:NginxDown` on `web-1` (`i-…`)
        stage *approve* · shell, timeout 5m · critical · NginxDown on web-1 · `ID`
        confirm (runs the commands only if this exits 0)
        ! test -e /var/run/well
        commands
        touch /var/run/well
        echo restarted
        verify (exit 0: the fault is gone)
        test -e /var/run/well
        Waits for Approve by @sre until TIME. Nothing runs before.
        [Approve]
        [Reject]
        [Pause rule]
        ");
        story.click(SRE, &declared, "Approve").await;
        let report = story.report(&alert, "ran well").await;
        assert_reads(&report, r"
        :hourglass: *ran well*  `web:NginxDown` on `web-1` (`i-…`)
        It ran well; waits for the alert to resolve until TIME.
        Took SECONDS · approved by <@U0SRE> at TIME · exit code 0 · SSM `COMMAND` · `ID`
        ✓ confirm `! test -e /var/run/well` exit code 0, SECONDS
        ✓ `touch /var/run/well` exit code 0, SECONDS
        ✓ `echo restarted` exit code 0, SECONDS
        ✓ verify `test -e /var/run/well` exit code 0, SECONDS
        output
        restarted
        ");
        story.resolve(&alert);
        let report = story.report(&alert, "*healed*").await;
        assert_reads(&report, r"
        :white_check_mark: *healed*  `web:NginxDown` on `web-1` (`i-…`)
        It ran well, and the alert resolved.
        Took SECONDS · approved by <@U0SRE> at TIME · exit code 0 · SSM `COMMAND` · `ID`
        ✓ confirm `! test -e /var/run/well` exit code 0, SECONDS
        ✓ `touch /var/run/well` exit code 0, SECONDS
        ✓ `echo restarted` exit code 0, SECONDS
        ✓ verify `test -e /var/run/well` exit code 0, SECONDS
        output
        restarted
        ");
        let declared = story.declaration(&alert, "*healed*").await;
        assert_reads(&declared, r"
        :white_check_mark: *healed*  `web:NginxDown` on `web-1` (`i-…`)
        stage *approve* · shell, timeout 5m · critical · NginxDown on web-1 · `ID`
        confirm (runs the commands only if this exits 0)
        ! test -e /var/run/well
        commands
        touch /var/run/well
        echo restarted
        verify (exit 0: the fault is gone)
        test -e /var/run/well
        It ran well, and the alert resolved. Ended at TIME.
        approved by <@U0SRE> at TIME
        ");
        story.reaction(&alert, "white_check_mark").await;
        let held = story.alert("web", "NginxDown", "web-1");
        let why = story.why_not(&held, "in cooldown").await;
        assert_reads(&why, r"
        :double_vertical_bar: `web:NginxDown` does not run: in cooldown for 30 more minutes (until TIME). It came back soon after a run: look for the cause, or `/heal run web:NginxDown HOST`.
        ");
        story.finish().await;
    }

    async fn a_rejected_alert_runs_nothing(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(LEAD, &declared, "Reject").await;
        let declared = story.declaration(&alert, "*rejected*").await;
        assert!(declared.read().contains("<@U0LEAD>"), "{}", declared.read());
        assert!(!declared.buttons().contains(&"Approve".to_owned()));
        story.reaction(&alert, "no_entry_sign").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn an_alert_that_nobody_approves_expires(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let early = story.declaration(&alert, "Waits for Approve").await;
        story.later(31).await;
        story.declaration(&alert, "*expired*").await;
        story.reaction(&alert, "zzz").await;
        story.workspace.click_as_it_was(SRE, "C0ALERTS", &early.raw, "Approve").await.unwrap();
        story.whispered(SRE, "over already: expired").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn an_alert_of_stage_auto_runs_after_its_grace(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "unless somebody presses Hold").await;
        assert_eq!(declared.buttons(), ["Hold", "Pause rule"]);
        story.reaction(&alert, "hourglass_flowing_sand").await;
        story.runs(0).await;
        story.later(1).await;
        story.report(&alert, "ran well").await;
        story.resolve(&alert);
        story.report(&alert, "*healed*").await;
        story.declaration(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn hold_during_the_grace_stops_it(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "unless somebody presses Hold").await;
        story.click(SRE, &declared, "Hold").await;
        story.declaration(&alert, "<@U0SRE> pressed Hold").await;
        story.later(5).await;
        story.reaction(&alert, "double_vertical_bar").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn an_alert_that_resolves_before_the_approval_withdraws_its_declaration(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let early = story.declaration(&alert, "Waits for Approve").await;
        story.resolve(&alert);
        let declared = story.declaration(&alert, "*cancelled*").await;
        assert!(!declared.buttons().contains(&"Approve".to_owned()));
        story.reaction(&alert, "leftwards_arrow_with_hook").await;
        story.workspace.click_as_it_was(SRE, "C0ALERTS", &early.raw, "Approve").await.unwrap();
        story.whispered(SRE, "over already: cancelled").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn an_alert_that_does_not_resolve_in_time_is_unresolved(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "ran well").await;
        story.later(11).await;
        let report = story.report(&alert, "*unresolved*").await;
        assert!(report.buttons().contains(&"Run again".to_owned()));
        story.reaction(&alert, "warning").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_sender_that_never_resolves_leaves_it_to_the_run(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let ts = story.stamp();
        let posting = heal::sandbox::workspace::Posting::of_sender("B0NAGIOS", "C0ALERTS", "[CRITICAL] web-2 web:NginxDown is down");
        story.workspace.post_message(posting.with_raw("ts", ts.clone().into())).unwrap();
        let alert = crate::story::Alert { role: "web".into(), name: "NginxDown".into(), hosts: vec!["web-2".into()], ts };
        story.declaration(&alert, "unless somebody presses Hold").await;
        story.later(1).await;
        story.report(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_host_that_ssm_does_not_know_is_said_in_the_thread(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-99");
        story.why_not(&alert, "SSM knows no managed node `web-99`").await;
        story.reaction(&alert, "double_vertical_bar").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_host_that_is_offline_is_said_in_the_thread(mode: Mode) {
        let plot = Plot::new(&rule("auto")).host(HostSpec::new("web-1", "web").offline());
        let mut story = plot.start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.why_not(&alert, "is not online in SSM").await;
        story.reaction(&alert, "double_vertical_bar").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_group_of_three_alerts_is_three_declarations_and_one_reaction(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.group("web", "NginxDown", &["web-1", "web-2", "web-3"]);
        for host in ["web-1", "web-2", "web-3"] {
            let declared = story.declaration(&alert, &format!("`{host}`")).await;
            let text = declared.read();
            assert!(text.contains("Waits for Approve"), "{text}");
        }
        let second = story.declaration(&alert, "`web-2`").await;
        story.click(SRE, &second, "Reject").await;
        story.declaration(&alert, "*rejected*").await;
        story.reaction(&alert, "raised_hand").await;
        story.resolve(&alert);
        story.reaction(&alert, "no_entry_sign").await;
        story.runs(0).await;
        story.finish().await;
    }
}
