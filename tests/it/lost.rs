//! What is lost between heal, SSM and the host is found out, and what it did is done once: not the
//! executions are counted here but what they leave on the host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use heal::aws::{Copy, Kind, Pace, Seen, Ssm, Watched};
use heal::engine::Clock;
use heal::lifecycle::RemediationId;
use heal::plan::{Plan, Platform, Step, StepKind, Target, Work};
use heal::sandbox::fleet::{Fault as Fails, Fleet, HostSpec, Options, Scripted};
use heal::sandbox::workspace::Fault;

use crate::story::{Alert, BOUND, CHANNEL, Plot, SRE, Story};

const AUTO: &str = "web:NginxDown: {stage: auto, grace: 0s, commands: [\"echo x >>/var/run/cured\"]}\n";

/// What the rule left on web-1; a line for each time it ran.
fn cured(story: &Story) -> String {
    let file = story.fleet.host("web-1").unwrap().root().join("var/run/cured");
    std::fs::read_to_string(file).unwrap_or_default()
}

/// From now on it is two hours later on web-1, so that nothing that was sent may begin there any more.
fn hours_pass_on_the_host(story: &Story) {
    let date = story.fleet.host("web-1").unwrap().root().join("bin/date");
    let later = "#!/bin/sh\nPATH=/usr/bin:/bin\necho $(($(date +%s) + 7200))\n";
    // Moved there whole: a script may be reading the clock just now.
    let new = date.with_extension("new");
    std::fs::write(&new, later).unwrap();
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(new, date).unwrap();
}

/// How many copies of runs were sent, and how often hosts were asked.
fn sent(story: &Story) -> (usize, usize) {
    let calls = story.fleet.calls();
    let comments = calls
        .iter()
        .filter(|call| call.operation == "SendCommand")
        .map(|call| call.body["Comment"].as_str().unwrap_or_default());
    let (asked, copies): (Vec<&str>, Vec<&str>) =
        comments.partition(|comment| comment.starts_with("heal ask "));
    (copies.len(), asked.len())
}

/// The alert ends as *healed*, and the rule has run once.
async fn healed_once(story: &mut Story, alert: &Alert) {
    story.report(alert, "ran well").await;
    assert_eq!(cured(story), "x\n");
    story.resolve(alert);
    story.report(alert, "*healed*").await;
    story.reaction(alert, "white_check_mark").await;
    assert_eq!(story.read_thread(alert, 2).await.len(), 2);
}

/// Awaits that SSM was asked to send, and that the bot looks for what became of it.
async fn looked_for(story: &Story) {
    let looks = |fleet: &Fleet| fleet.count_calls("ListCommands") > 0;
    assert!(story.fleet.wait_until(BOUND, looks).await, "{}", story.transcript());
}

stories! {
    async fn a_sending_that_never_reached_ssm_is_repeated(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetBefore);
        let alert = story.alert("web", "NginxDown", "web-1");
        healed_once(&mut story, &alert).await;
        assert_eq!(sent(&story), (2, 0));
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_sending_that_ssm_does_not_show_is_repeated_and_the_host_runs_one_copy(mode: Mode) {
        let lagging = |fleet: &mut Options| fleet.list_delay = Duration::from_secs(1);
        let mut story = Plot::new(AUTO).fleet(lagging).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetAfter);
        let alert = story.alert("web", "NginxDown", "web-1");
        healed_once(&mut story, &alert).await;
        assert_eq!(sent(&story), (2, 0));
        // Both copies came to the host, which is what its fence is for.
        story.runs(2).await;
        story.finish().await;
    }

    async fn a_first_copy_that_comes_late_tells_what_the_second_did(mode: Mode) {
        let mut story = Plot::new(AUTO).fleet(|fleet| fleet.list_delay = Duration::from_secs(1)).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetAfter);
        let first = std::sync::atomic::AtomicBool::new(true);
        story.fleet.on_send(move |_| match first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            true => Scripted::DeliverAfter(Duration::from_millis(2500)),
            false => Scripted::Run,
        });
        let alert = story.alert("web", "NginxDown", "web-1");
        healed_once(&mut story, &alert).await;
        story.runs(2).await;
        assert_eq!(cured(&story), "x\n");
        let said: Vec<Option<i32>> = story.fleet.runs().iter().map(|run| run.exit).collect();
        assert_eq!(said, [Some(0), Some(0)]);
        story.finish().await;
    }

    async fn what_is_lost_again_and_again_is_not_sent_without_end_and_the_host_says_that_nothing_ran(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 4, &Fails::ResetBefore);
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "the host is asked").await;
        hours_pass_on_the_host(&story);
        let report = story.report(&alert, "*timed out*").await;
        assert!(report.read().contains("nothing ran"), "{}", report.read());
        assert_eq!((sent(&story).0, cured(&story).as_str()), (4, ""));
        story.declaration(&alert, "*timed out*").await;
        story.finish().await;
    }

    async fn a_pause_stops_the_repeat_and_the_host_says_that_nothing_ran(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetBefore);
        story.fleet.fault("ListCommands", 3, &Fails::Stall(Duration::from_millis(700)));
        let alert = story.alert("web", "NginxDown", "web-1");
        looked_for(&story).await;
        story.slash(SRE, "pause web:NginxDown").await;
        story.announced("paused").await;
        story.declaration(&alert, "the host is asked").await;
        hours_pass_on_the_host(&story);
        story.declaration(&alert, "paused by").await;
        assert_eq!((sent(&story).0, cured(&story).as_str()), (1, ""));
        assert_eq!(story.read_thread(&alert, 1).await.len(), 1, "nothing ran, so nothing is reported");
        story.finish().await;
    }

    async fn an_alert_that_resolves_while_its_sending_is_lost_is_cancelled_when_the_host_knows_of_nothing(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetBefore);
        story.fleet.fault("ListCommands", 3, &Fails::Stall(Duration::from_millis(700)));
        let alert = story.alert("web", "NginxDown", "web-1");
        looked_for(&story).await;
        story.resolve(&alert);
        story.declaration(&alert, "the host is asked").await;
        hours_pass_on_the_host(&story);
        story.declaration(&alert, "resolved by itself").await;
        assert_eq!((sent(&story).0, cured(&story).as_str()), (1, ""));
        story.finish().await;
    }

    async fn an_alert_that_resolves_while_its_sending_is_lost_is_healed_where_it_ran(mode: Mode) {
        let mut story = Plot::new(AUTO).fleet(|fleet| fleet.list_delay = Duration::from_secs(4)).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetAfter);
        story.fleet.fault("ListCommands", 3, &Fails::Stall(Duration::from_millis(700)));
        let alert = story.alert("web", "NginxDown", "web-1");
        looked_for(&story).await;
        story.resolve(&alert);
        story.declaration(&alert, "the host is asked").await;
        story.report(&alert, "*healed*").await;
        assert_eq!((sent(&story).0, cured(&story).as_str()), (1, "x\n"));
        story.reaction(&alert, "white_check_mark").await;
        story.read_thread(&alert, 2).await;
        story.finish().await;
    }

    async fn a_bot_that_stood_still_for_an_hour_while_it_was_sending_does_not_send_again(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetBefore);
        story.fleet.fault("ListCommands", 999, &Fails::internal());
        let alert = story.alert("web", "NginxDown", "web-1");
        looked_for(&story).await;
        story.stop_bot().await;
        story.fleet.clear_faults();
        story.clock.advance(Duration::from_secs(3600));
        hours_pass_on_the_host(&story);
        story.start_bot().await;
        story.declaration(&alert, "older than 15 minutes").await;
        assert_eq!((sent(&story).0, cured(&story).as_str()), (1, ""));
        assert_eq!(story.read_thread(&alert, 1).await.len(), 1);
        story.finish().await;
    }

    async fn a_bot_that_stood_still_for_an_hour_while_it_was_sending_hears_from_the_host_what_ran(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetAfter);
        story.fleet.fault("ListCommands", 999, &Fails::internal());
        let alert = story.alert("web", "NginxDown", "web-1");
        looked_for(&story).await;
        story.stop_bot().await;
        story.runs(1).await;
        story.fleet.clear_faults();
        story.fleet.fault("ListCommands", 999, &Fails::refused("AccessDeniedException", "no"));
        story.clock.advance(Duration::from_secs(3600));
        story.start_bot().await;
        healed_once(&mut story, &alert).await;
        assert_eq!(sent(&story), (1, 1));
        story.finish().await;
    }

    async fn a_bot_that_was_ended_while_it_was_sending_goes_on_at_once(mode: Mode) {
        for fault in [Fails::ResetBefore, Fails::ResetAfter] {
            let mut story = Plot::new(AUTO).start(mode).await;
            story.fleet.fault("SendCommand", 1, &fault);
            story.fleet.fault("ListCommands", 999, &Fails::internal());
            let alert = story.alert("web", "NginxDown", "web-1");
            looked_for(&story).await;
            story.stop_bot().await;
            story.fleet.clear_faults();
            let started = Instant::now();
            story.start_bot().await;
            story.report(&alert, "ran well").await;
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}\n{}", started.elapsed(), story.transcript());
            healed_once(&mut story, &alert).await;
            story.finish().await;
        }
    }

    async fn what_was_due_while_the_bot_was_down_goes_on_within_five_seconds_of_its_start(mode: Mode) {
        let rules = AUTO.replace("grace: 0s", "grace: 20s");
        let mut story = Plot::new(&rules).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "unless somebody presses Hold").await;
        story.settled().await;
        // In its grace, which ends meanwhile.
        story.stop_bot().await;
        story.clock.advance(Duration::from_secs(60));
        let started = Instant::now();
        story.start_bot().await;
        story.report(&alert, "ran well").await;
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}\n{}", started.elapsed(), story.transcript());
        // Waiting for the alert to resolve, which it does meanwhile; the time for that ends too.
        story.stop_bot().await;
        story.clock.advance(Duration::from_secs(9 * 60));
        story.resolve(&alert);
        story.clock.advance(Duration::from_secs(60 * 60));
        let started = Instant::now();
        story.start_bot().await;
        story.report(&alert, "*healed*").await;
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}\n{}", started.elapsed(), story.transcript());
        assert_eq!(cured(&story), "x\n");
        story.reaction(&alert, "white_check_mark").await;
        for message in story.workspace.messages(CHANNEL) {
            story.see(&message.ts);
        }
        story.read_thread(&alert, 2).await;
        story.finish().await;
    }

    async fn an_alert_that_did_not_resolve_while_the_bot_was_down_is_unresolved_soon_after_its_start(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.report(&alert, "ran well").await;
        story.settled().await;
        story.stop_bot().await;
        story.clock.advance(Duration::from_secs(3600));
        story.start_bot().await;
        // The history of the channel is read twice first, the second time after 15 seconds.
        story.settled().await;
        story.clock.advance(Duration::from_secs(21));
        story.report(&alert, "*unresolved*").await;
        story.declaration(&alert, "*unresolved*").await;
        story.finish().await;
    }

    async fn a_document_is_never_sent_again_and_a_person_decides(mode: Mode) {
        let rules = "db:ReplicaLag: {document: Acme-RestartReplica, parameters: {Mode: [soft]}}\n";
        let plot = Plot::new(rules).host(HostSpec::new("db-1", "db").replica("replica"));
        let mut story = plot.start(mode).await;
        story.fleet.fault("SendCommand", 1, &Fails::ResetBefore);
        let alert = story.alert("db", "ReplicaLag", "db-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        let report = story.report(&alert, "*unknown*").await;
        assert_eq!(report.buttons(), ["Run again", "Pause rule"]);
        assert_eq!(sent(&story), (1, 0));
        story.declaration(&alert, "*unknown*").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_run_of_which_ssm_says_nothing_for_ever_is_told_by_its_host(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.on_send(|sent| match sent.comment.starts_with("heal ask ") {
            true => Scripted::Run,
            false => Scripted::RunButReport { status: "InProgress".into(), details: "InProgress".into() },
        });
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "waits for the answer").await;
        story.runs(1).await;
        assert_eq!(sent(&story), (1, 0));
        story.clock.advance(Duration::from_secs(10 * 60));
        healed_once(&mut story, &alert).await;
        assert_eq!(sent(&story), (1, 1));
        story.finish().await;
    }

    async fn an_aws_that_is_away_for_longer_than_a_run_may_take_makes_nothing_unknown(mode: Mode) {
        let rules = AUTO.replace("commands:", "timeout: 30s, commands:");
        let mut story = Plot::new(&rules).start(mode).await;
        story.fleet.on_send(|_| Scripted::DeliverAfter(Duration::from_millis(800)));
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "waits for the answer").await;
        for operation in ["ListCommandInvocations", "SendCommand"] {
            story.fleet.fault(operation, 9999, &Fails::internal());
        }
        story.runs(1).await;
        story.clock.advance(Duration::from_secs(8 * 60));
        story.declaration(&alert, "the host itself is asked").await;
        // Beyond the time for which the host is asked, in steps that leave a look to the last minute of it.
        for _ in 0..8 {
            let asked = story.fleet.count_calls("ListCommandInvocations");
            let again = |fleet: &Fleet| fleet.count_calls("ListCommandInvocations") >= asked + 2;
            assert!(story.fleet.wait_until(BOUND, again).await, "{}", story.transcript());
            story.clock.advance(Duration::from_secs(40));
        }
        story.declaration(&alert, "the host itself is asked").await;
        story.fleet.clear_faults();
        healed_once(&mut story, &alert).await;
        story.finish().await;
    }

    async fn a_run_whose_agent_was_restarted_is_told_by_its_host(mode: Mode) {
        for (status, details) in [("Failed", "Failed"), ("Cancelled", "Cancelled"), ("TimedOut", "Execution Timed Out")] {
            let mut story = Plot::new(AUTO).start(mode).await;
            story.fleet.on_send(move |sent| match sent.comment.starts_with("heal ask ") {
                true => Scripted::Run,
                false => Scripted::RunButReport { status: status.into(), details: details.into() },
            });
            let alert = story.alert("web", "NginxDown", "web-1");
            healed_once(&mut story, &alert).await;
            story.finish().await;
        }
    }

    async fn the_output_is_uploaded_after_a_restart_and_once(mode: Mode) {
        let rules = "web:NginxDown: {stage: auto, grace: 0s, commands: [\"seq 1 2000\"]}\n";
        for (method, fault) in [
            ("files.getUploadURLExternal", Fault::ServerError),
            ("files.completeUploadExternal", Fault::ResetAfter),
        ] {
            let mut story = Plot::new(rules).start(mode).await;
            story.workspace.fail_next(method, 1, fault);
            let alert = story.alert("web", "NginxDown", "web-1");
            story.report(&alert, "ran well").await;
            let tried = |view: &heal::sandbox::workspace::View| view.calls().iter().any(|call| call.method == method);
            story.workspace.wait_until(BOUND, tried).await.unwrap();
            story.stop_bot().await;
            story.start_bot().await;
            let shared = |view: &heal::sandbox::workspace::View| {
                view.files().iter().any(|file| file.thread_ts.as_ref() == Some(&alert.ts))
            };
            story.workspace.wait_until(BOUND, shared).await.unwrap();
            story.settled().await;
            let shared = story.workspace.files().iter().filter(|file| file.thread_ts.is_some()).count();
            assert_eq!(shared, 1, "{}", story.transcript());
            for message in story.workspace.thread(CHANNEL, &alert.ts) {
                story.see(&message.ts);
            }
            story.finish().await;
        }
    }

    async fn a_throttled_poll_rests_and_everything_is_reported_after(mode: Mode) {
        let hosts: Vec<String> = (0..12).map(|n| format!("web-{n}")).collect();
        let rules = "web:NginxDown: {stage: auto, grace: 0s, at_once: 20, commands: [\"true\"]}\n";
        let mut plot = Plot::new(rules);
        for host in &hosts {
            plot = plot.host(HostSpec::new(host, "web"));
        }
        let mut story = plot.start(mode).await;
        const VERDICT: &str = "heal/1 run=x end=done exit=0\nheal/1 step=1 kind=command exit=0 ms=5\nheal/1 x end\n";
        story.fleet.on_send(|_| Scripted::Finish {
            after: Duration::from_secs(1),
            status: "Success".into(),
            details: "Success".into(),
            code: 0,
            stdout: VERDICT.into(),
            stderr: String::new(),
        });
        story.fleet.fault("ListCommandInvocations", 6, &Fails::throttled());
        story.fleet.fault("GetCommandInvocation", 2, &Fails::throttled());
        let named: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let alert = story.group("web", "NginxDown", &named);
        story.read_thread(&alert, 24).await;
        let all = story.workspace.thread(CHANNEL, &alert.ts);
        let well = all.iter().filter(|message| message.read().contains("ran well")).count();
        assert!(well >= 12, "{}", story.transcript());
        story.finish().await;
    }
}

/// Two hundred runs cost pages and not calls, and a throttled SSM is left in peace.
#[test]
fn two_hundred_runs_are_followed_by_a_bounded_number_of_calls_through_a_time_of_throttling() {
    crate::story::tell(async {
        let hosts: Vec<HostSpec> = (0..200).map(|n| HostSpec::new(&format!("web-{n}"), "web")).collect();
        let fleet = Fleet::start(Options::of(hosts)).await.unwrap();
        fleet.on_send(|_| Scripted::Finish {
            after: Duration::from_secs(4),
            status: "Success".into(),
            details: "Success".into(),
            code: 0,
            stdout: "heal/1 run=x end=done exit=0\nheal/1 step=1 kind=command exit=0 ms=5\nheal/1 x end\n"
                .into(),
            stderr: String::new(),
        });
        let ssm = Ssm::on_loopback(fleet.endpoint_url()).await.unwrap();
        let work = Work::Shell {
            steps: vec![Step { kind: StepKind::Command, text: "true".into() }],
            env: std::collections::BTreeMap::new(),
        };
        let plan = Plan { work, timeout: Duration::from_secs(60) };
        let sent_at = Clock::default().now();
        let mut running = Vec::new();
        for (n, host) in fleet.all_hosts().iter().enumerate() {
            let run = RemediationId(format!("run{n}"));
            let instance_id = host.spec.instance_id.clone();
            let target = Target {
                instance_id: instance_id.clone(),
                name: host.spec.name.clone(),
                address: None,
                platform: Platform::Linux,
            };
            let copy = Copy {
                plan: &plan,
                target: &target,
                run: &run,
                first_sent_at: sent_at,
                sent_at,
                fence_dir: None,
                number: 1,
            };
            let heal::aws::Sent::Accepted { command_id } = ssm.send(copy).await else { panic!("not sent") };
            running.push(Arc::new(Watched {
                run,
                command_id: Some(command_id),
                kind: Kind::of(&plan),
                instance_id,
                first_sent_at: sent_at,
                sent_at,
                fence_dir: None,
                copies: 1,
                asking: false,
                steps: plan.steps().map(Arc::from),
            }));
        }
        let throttled = 12;
        fleet.fault("ListCommandInvocations", throttled, &Fails::throttled());
        let (mut pace, mut looks, mut slowest) = (Pace::default(), 0, Duration::ZERO);
        let began = Instant::now();
        while !running.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "{} are still followed", running.len());
            let (tell, mut told) = tokio::sync::mpsc::channel(running.len());
            let sight = ssm.observe((&running, &[]), pace.depth(), Clock::default().now(), tell).await;
            looks += 1;
            let rest = pace.after(&ssm, &sight);
            slowest = slowest.max(rest);
            while let Ok((over, seen)) = told.try_recv() {
                running.retain(|run| !matches!(seen, Seen::Ended(_)) || run.run != over);
            }
            // As the engine does, which looks at the same run again after a while only.
            tokio::time::sleep(rest.max(Duration::from_millis(200))).await;
        }
        // A throttled look is one call; any other reads the four pages that two hundred commands fill.
        let listed = fleet.count_calls("ListCommandInvocations");
        assert!(listed <= throttled + (looks - throttled) * 4, "{listed} calls in {looks} looks");
        assert!(looks <= throttled + 30, "{looks} looks");
        assert!(slowest >= Duration::from_millis(500), "it went on at {slowest:?}");
        assert_eq!(fleet.count_calls("GetCommandInvocation"), 0, "all that was printed stood in the listing");
        assert!(!fleet.calls().iter().any(|call| call.body["CommandId"].is_string()), "one by one");
        fleet.stop();
    });
}
