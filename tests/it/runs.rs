//! What a run on the host comes to, and how the report tells it.

use std::time::Duration;

use heal::sandbox::fleet::{HostSpec, Scripted};

use crate::story::{Alert, Plot, SRE, Story};

/// An alert on web-1 that was approved.
async fn approved(story: &mut Story) -> Alert {
    let alert = story.alert("web", "NginxDown", "web-1");
    let declared = story.declaration(&alert, "Waits for Approve").await;
    story.click(SRE, &declared, "Approve").await;
    alert
}

stories! {
    async fn a_command_that_fails_stops_the_rest_and_is_reported_with_its_exit_code(mode: Mode) {
        let rules = "web:NginxDown: {commands: [\"echo before\", \"exit 7\", \"echo never\"], owner: \"@sre\"}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let alert = approved(&mut story).await;
        let report = story.report(&alert, "*failed*").await;
        let text = report.read();
        assert!(text.contains("exit code 7") && text.contains("before"), "{text}");
        assert!(text.contains("<!subteam^S0SRE>"), "the owner is told: {text}");
        assert_eq!(report.buttons(), ["Run again", "Pause rule"]);
        story.declaration(&alert, "*failed*").await;
        story.reaction(&alert, "x").await;
        story.runs(1).await;
        assert!(!story.fleet.runs().is_empty());
        story.finish().await;
    }

    async fn a_confirm_that_fails_means_not_needed_and_nothing_else_runs(mode: Mode) {
        let rules = "web:NginxDown: {confirm: test -e /var/run/ill, commands: [\"touch /var/run/cured\"]}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let alert = approved(&mut story).await;
        let report = story.report(&alert, "*not needed*").await;
        assert!(report.read().contains("nothing else ran"), "{}", report.read());
        story.reaction(&alert, "ok").await;
        story.runs(1).await;
        assert!(!story.fleet.host("web-1").unwrap().root().join("var/run/cured").exists());
        story.finish().await;
    }

    async fn a_verify_that_fails_is_a_failure_although_the_commands_ran(mode: Mode) {
        let rules = "web:NginxDown: {commands: [\"touch /var/run/cured\"], verify: exit 3}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let alert = approved(&mut story).await;
        let report = story.report(&alert, "*failed*").await;
        assert!(report.read().contains("verify failed with exit code 3"), "{}", report.read());
        story.reaction(&alert, "x").await;
        story.runs(1).await;
        assert!(story.fleet.host("web-1").unwrap().root().join("var/run/cured").exists());
        story.finish().await;
    }

    async fn a_run_that_outlives_its_timeout_is_timed_out(mode: Mode) {
        let rules = "web:NginxDown: {commands: [\"echo begun\", \"sleep 300\"], timeout: 30s}\n";
        let plot = Plot::new(rules).fleet(|fleet| fleet.second = Duration::from_millis(10));
        let mut story = plot.start(mode).await;
        let alert = approved(&mut story).await;
        let report = story.report(&alert, "*timed out*").await;
        assert!(report.buttons().contains(&"Run again".to_owned()));
        // SSM killed the script before it could print anything; how far it came its host still knows.
        let text = report.read();
        assert!(text.contains("✓ `echo begun`") && text.contains("… `sleep 300`"), "{text}");
        assert!(text.contains("exit code 137"), "{text}");
        story.reaction(&alert, "alarm_clock").await;
        assert_eq!(story.fleet.count_calls("SendCommand"), 2, "the run, and the asking");
        story.finish().await;
    }

    async fn a_host_that_never_answers_is_unknown_once_the_bots_own_deadline_is_over(mode: Mode) {
        let mut story = Plot::new("web:NginxDown: {commands: [\"echo x\"]}\n").start(mode).await;
        story.fleet.on_send(|_| Scripted::NeverDeliver);
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        story.declaration(&alert, "With SSM since").await;
        story.clock.advance(Duration::from_secs(30 * 60));
        let report = story.report(&alert, "*unknown*").await;
        assert!(report.buttons().contains(&"Run again".to_owned()));
        story.declaration(&alert, "*unknown*").await;
        story.reaction(&alert, "question").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_command_that_ssm_cannot_deliver_is_said_in_plain_words(mode: Mode) {
        for (status, details, outcome) in [
            ("Cancelled", "Cancelled", "*cancelled*"),
            ("Failed", "AccessDenied", "*failed*"),
            ("Failed", "Undeliverable", "*failed*"),
            ("Failed", "InvalidPlatform", "*failed*"),
            ("Failed", "Terminated", "*failed*"),
        ] {
            let mut story = Plot::new("web:NginxDown: {commands: [\"echo x\"]}\n").start(mode).await;
            story.fleet.on_send(move |_| Scripted::finish(status, details, -1, ""));
            let alert = approved(&mut story).await;
            let report = story.report(&alert, outcome).await.read();
            assert!(!report.contains(details) || details == "Cancelled", "in plain words: {report}");
            story.finish().await;
        }
    }

    async fn a_document_is_run_with_its_parameters(mode: Mode) {
        let rules = "db:ReplicaLag: {document: Acme-RestartReplica, parameters: {Mode: [soft]}}\n";
        let plot = Plot::new(rules).host(HostSpec::new("db-1", "db").replica("replica"));
        let mut story = plot.start(mode).await;
        let alert = story.alert("db", "ReplicaLag", "db-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        let text = declared.read();
        assert!(text.contains("Acme-RestartReplica") && text.contains("Mode=soft"), "{text}");
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "restarting the replica (soft)").await;
        story.resolve(&alert);
        story.report(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn an_automation_shows_its_steps_as_they_go(mode: Mode) {
        let rules = "batch:NodeStuck: {automation: Acme-ReplaceNode, parameters: {InstanceId: [\"{{ instance_id }}\"]}}\n";
        let host = HostSpec::new("batch-1", "batch").service("node-agent").service("batch-worker");
        let id = host.instance_id.clone();
        let plot = Plot::new(rules).host(host).fleet(|fleet| fleet.step_pause = Duration::from_millis(600));
        let mut story = plot.start(mode).await;
        let alert = story.alert("batch", "NodeStuck", "batch-1");
        let declared = story.declaration(&alert, &format!("InstanceId={id}")).await;
        story.click(SRE, &declared, "Approve").await;
        story.declaration(&alert, "drainNode").await;
        let report = story.report(&alert, "waitForNode").await;
        assert!(report.read().contains("replaceNode"), "{}", report.read());
        story.resolve(&alert);
        story.report(&alert, "*healed*").await;
        assert_eq!(story.fleet.count_calls("StartAutomationExecution"), 1);
        story.finish().await;
    }

    async fn a_failing_step_of_an_automation_is_named(mode: Mode) {
        let rules = "batch:NodeStuck: {automation: Acme-ReplaceNode, parameters: {InstanceId: [\"{{ instance_id }}\"]}}\n";
        let host = HostSpec::new("batch-1", "batch").service("node-agent").service("batch-worker");
        let mut story = Plot::new(rules).host(host).start(mode).await;
        story.fleet.fail_step("replaceNode", "no spare node");
        let alert = story.alert("batch", "NodeStuck", "batch-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        let report = story.report(&alert, "*failed*").await;
        assert!(report.read().contains("replaceNode"), "{}", report.read());
        story.reaction(&alert, "x").await;
        story.finish().await;
    }

    async fn output_that_does_not_fit_into_the_report_is_a_file_in_the_thread(mode: Mode) {
        let rules = "web:NginxDown: {commands: [\"seq 1 2000\"]}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let alert = approved(&mut story).await;
        story.report(&alert, "ran well").await;
        let shared = |view: &heal::sandbox::workspace::View| view.files().iter().any(|file| file.thread_ts.is_some());
        story.workspace.wait_until(crate::story::BOUND, shared).await.unwrap();
        let files = story.workspace.files();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].thread_ts.as_ref(), Some(&alert.ts));
        assert!(String::from_utf8_lossy(&files[0].bytes).contains("\n1234\n"));
        story.read_thread(&alert, 3).await;
        story.finish().await;
    }

    async fn a_command_that_the_agent_takes_twice_runs_once_and_tells_what_it_did(mode: Mode) {
        let rules = "web:NginxDown: {commands: [\"echo x >>/var/run/cured\", \"echo it ran\"]}\n";
        for apart in [0, 100] {
            let mut story = Plot::new(rules).start(mode).await;
            story.fleet.on_send(move |_| Scripted::RunTwice { apart: Duration::from_millis(apart) });
            let alert = approved(&mut story).await;
            let report = story.report(&alert, "ran well").await.read();
            assert!(report.contains("it ran"), "{report}");
            story.runs(2).await;
            let cured = story.fleet.host("web-1").unwrap().root().join("var/run/cured");
            assert_eq!(std::fs::read_to_string(cured).unwrap(), "x\n");
            // Not `finish`, which would count the copy that the fence stopped as a second run.
            story.stop_bot().await;
        }
    }

    async fn a_run_that_ssm_gave_up_is_told_by_its_host(mode: Mode) {
        let rules = "web:NginxDown: {commands: [\"echo it ran\", \"exit 7\"]}\n";
        let mut story = Plot::new(rules).start(mode).await;
        story.fleet.on_send(|sent| match sent.comment.starts_with("heal ask ") {
            true => Scripted::Run,
            false => Scripted::RunButReport { status: "TimedOut".into(), details: "Delivery Timed Out".into() },
        });
        let alert = approved(&mut story).await;
        let report = story.report(&alert, "*failed*").await.read();
        assert!(report.contains("exit code 7") && report.contains("it ran"), "{report}");
        story.reaction(&alert, "x").await;
        story.runs(2).await;
        story.finish().await;
    }

    async fn credentials_in_the_output_reach_neither_slack_nor_the_log(mode: Mode) {
        let rules = "web:NginxDown: {commands: [\"cat /var/run/noise\"]}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let noise = "DB_PASSWORD=hunter2\nurl postgres://app:hunter2@db/x\nAKIAIOSFODNN7EXAMPLE\n";
        std::fs::write(story.fleet.host("web-1").unwrap().root().join("var/run/noise"), noise.repeat(200)).unwrap();
        let alert = approved(&mut story).await;
        story.report(&alert, "DB_PASSWORD=[redacted]").await;
        let shared = |view: &heal::sandbox::workspace::View| view.files().iter().any(|file| file.thread_ts.is_some());
        story.workspace.wait_until(crate::story::BOUND, shared).await.unwrap();
        for message in story.read_thread(&alert, 3).await {
            assert!(!message.raw.to_string().contains("hunter2"), "{}", message.read());
        }
        for file in story.workspace.files() {
            let text = String::from_utf8_lossy(&file.bytes).into_owned();
            assert!(!text.contains("hunter2") && !text.contains("AKIAIOSF"), "the file holds a secret");
        }
        assert!(!story.log().contains("hunter2"));
        story.finish().await;
    }

    async fn values_of_the_alert_reach_commands_as_variables_and_never_as_shell(mode: Mode) {
        let rules = "web:NginxDown: {commands: ['echo \"mount=$MOUNT.\"'], env: {MOUNT: \"{{ labels.mountpoint }}\"}}\n";
        let mut story = Plot::new(rules).start(mode).await;
        let mut hostile = crate::story::alert::attachments(true, "web", "NginxDown", &["web-1"]);
        let text = hostile[0]["text"].as_str().unwrap().replace("/var/log", "/x; touch /var/run/owned $(touch /var/run/owned)");
        hostile[0]["text"] = text.into();
        let posting = heal::sandbox::workspace::Posting::of_sender("B0PROM", "C0ALERTS", "").attachments(hostile);
        let ts = story.workspace.post_message(posting).unwrap();
        let alert = Alert::at(&ts);
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "mount=/x; touch /var/run/owned $(touch /var/run/owned).").await;
        assert!(!story.fleet.host("web-1").unwrap().root().join("var/run/owned").exists());
        story.finish().await;
    }
}
