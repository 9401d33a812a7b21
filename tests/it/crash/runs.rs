//! Stories of runs: what the host does and what SSM says of it.

use std::time::Duration;

use heal::sandbox::fleet::{Fault, Scripted};
use heal::sandbox::workspace::{Posting, View};

use super::ends::End::{Declared, Ran};
use super::shown;
use super::stories::{CURE, matrix, rule};
use super::world::{Stage, Told};
use crate::story::{Alert, CHANNEL, Plot, SRE};

matrix! {
    async fn a_run_that_fails_is_reported(stage: Stage) -> Told, least 50 {
        let rules = "web:NginxDown: {commands: [\"echo x >>/var/run/cured\", exit 7], owner: \"@sre\"}\n";
        let mut world = stage.set(Plot::new(rules)).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.ends(&alert, "x", &[("web-1", Ran("*failed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn a_confirm_that_fails_means_not_needed(stage: Stage) -> Told, least 50 {
        let rules = format!("web:NginxDown: {{confirm: test -e /var/run/ill, {CURE}}}\n");
        let mut world = stage.set(Plot::new(&rules)).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.ends(&alert, "ok", &[("web-1", Ran("*not needed*"))]).await?;
        world.finish(&[]).await
    }

    async fn a_document_is_run_once(stage: Stage) -> Told, least 50 {
        let rules = "web:NginxDown: {document: Acme-RestartReplica, parameters: {Mode: [soft]}}\n";
        let plot = Plot::new(rules).fleet(|fleet| {
            for document in &mut fleet.documents {
                if let heal::sandbox::fleet::Content::Command { script, .. } = &mut document.content {
                    *script = "echo x >>/var/run/cured".to_owned();
                }
            }
        });
        let mut world = stage.set(plot).await;
        // Nothing on the host keeps a document from running twice.
        world.may_be_unknown = true;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        let ts = alert.ts.clone();
        let healed = move |view: &View| {
            let newest = shown::newest(view, &ts, "`web-1`");
            newest.is_some_and(|this| this.declares("*healed*") && this.reports("*healed*"))
        };
        world.until("the healing", healed).await?;
        // One that stayed unknown is the more urgent of the two.
        let lost = world.workspace.view(|view| shown::remediations(view, &alert.ts).len() > 1);
        let reaction = if lost { "question" } else { "white_check_mark" };
        world.ends(&alert, reaction, &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn an_automation_is_started_once(stage: Stage) -> Told, least 50 {
        let rules = "web:NginxDown: {automation: Acme-ReplaceNode, parameters: {InstanceId: [\"{{ instance_id }}\"]}}\n";
        let plot = Plot::new(rules).fleet(|fleet| {
            for document in &mut fleet.documents {
                if let heal::sandbox::fleet::Content::Automation { steps } = &mut document.content {
                    steps.iter_mut().for_each(|step| step.script = "echo x >>/var/run/cured".to_owned());
                }
            }
        });
        let mut world = stage.set(plot).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        // Three steps.
        world.finish(&[("web-1", 3)]).await
    }

    async fn output_that_does_not_fit_is_one_file_in_the_thread(stage: Stage) -> Told, least 70 {
        let rules = "web:NginxDown: {commands: [\"seq 1 2000\", \"echo x >>/var/run/cured\"]}\n";
        let mut world = stage.set(Plot::new(rules)).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        let thread = alert.ts.clone();
        let shared = move |view: &View| view.files().iter().any(|file| file.thread_ts.as_ref() == Some(&thread));
        world.until("the file with the output", shared).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn a_run_that_ssm_gave_up_is_told_by_its_host(stage: Stage) -> Told, least 50 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        world.fleet.on_send(|sent| match sent.comment.starts_with("heal ask ") {
            true => Scripted::Run,
            false => Scripted::RunButReport { status: "TimedOut".into(), details: "Delivery Timed Out".into() },
        });
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn a_host_that_never_answers_is_unknown(stage: Stage) -> Told, least 50 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        world.fleet.on_send(|_| Scripted::NeverDeliver);
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.reads(&alert, "declaration", "With SSM since").await?;
        world.settled().await?;
        world.reads_later(30 * 60, &alert, "report", "*unknown*").await?;
        world.ends(&alert, "question", &[("web-1", Ran("*unknown*"))]).await?;
        world.finish(&[]).await
    }

    async fn a_run_that_outlives_its_timeout_is_timed_out(stage: Stage) -> Told, least 50 {
        let rules = "web:NginxDown: {commands: [\"echo x >>/var/run/cured\", \"sleep 300\"], timeout: 30s}\n";
        // Long enough for its first command on a busy machine.
        let plot = Plot::new(rules).fleet(|fleet| fleet.second = Duration::from_millis(120));
        let mut world = stage.set(plot).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.ends(&alert, "alarm_clock", &[("web-1", Ran("*timed out*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn a_throttled_ssm_gets_the_command_later_and_once(stage: Stage) -> Told, least 50 {
        let rules = format!("web:NginxDown: {{stage: auto, grace: 0s, {CURE}}}\n");
        let mut world = stage.set(Plot::new(&rules)).await;
        world.fleet.fault("SendCommand", 1, &Fault::throttled());
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads_later(20, &alert, "report", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn a_sender_that_never_resolves_leaves_it_to_the_run(stage: Stage) -> Told, least 50 {
        let mut world = stage.set_with_nagios(Plot::new(&rule("approve"))).await;
        let posting = Posting::of_sender("B0NAGIOS", CHANNEL, "[CRITICAL] web-2 web:NginxDown is down");
        let ts = world.workspace.post_message(posting).unwrap();
        let alert = Alert::at(&ts);
        world.press(SRE, &alert, "Approve", "").await?;
        world.ends(&alert, "white_check_mark", &[("web-2", Ran("*healed*"))]).await?;
        world.finish(&[("web-2", 1)]).await
    }

    /// Nothing of it may be lost or said twice although the bot was away when it was posted.
    async fn what_was_posted_while_heal_was_away_is_taken_or_told_as_missed(stage: Stage) -> Told, least 50 {
        let plot = Plot::new(&rule("approve"));
        let mut world = stage.set(plot).await;
        // Where the reading of history begins is kept with the first reading.
        world.settled().await?;
        world.leave().await?;
        let over = world.alert("NginxDown", &["web-1"]);
        let burning = world.alert("NginxDown", &["web-2"]);
        world.resolve(&over);
        // Slack gives up what nobody took.
        world.forget().await?;
        world.come_back();
        world.ends(&burning, "raised_hand", &[]).await?;
        let missed = |view: &View| {
            view.messages(CHANNEL).iter().filter(|message| message.read().contains("missed, not acted on")).count() == 1
        };
        world.until("what was missed", missed).await?;
        world.press(SRE, &burning, "Reject", "").await?;
        world.ends(&burning, "no_entry_sign", &[("web-2", Declared("*rejected*"))]).await?;
        world.finish(&[]).await
    }
}
