//! An hour without Slack or without AWS, as the bot's clock goes: what is owed is delivered after it and
//! once, what is too late by then says so and runs nothing, and whoever is ill is not stormed.

use std::time::Duration;

use heal::sandbox::fleet::{Fault as Ssm, Fleet, HostSpec};
use heal::sandbox::workspace::{Call, Fault, View};

use crate::story::alert::Alert;
use crate::story::{BOUND, LEAD, Mode, Plot, SRE, Story};
use crate::way::rule;

const HOUR: Duration = Duration::from_secs(3600);
const AUTO: &str = "web:NginxDown: {stage: auto, grace: 0s, commands: [\"echo cured\"]}\n";
/// Runs until the host has a file `go`.
const LONG: &str = "web:NginxDown: {stage: auto, grace: 0s, timeout: 2h, resolve_within: 20m, \
                    commands: [\"while ! test -e /var/run/go; do sleep 0.05; done\"]}\n";

/// More faults than an outage has calls.
const ALL: usize = 100_000;

const TEN: [&str; 10] =
    ["web-1", "web-2", "web-3", "web-4", "web-5", "web-6", "web-7", "web-8", "web-9", "web-10"];

fn ten_hosts(stage: &str) -> Plot {
    TEN.iter().fold(Plot::new(&rule(stage)), |plot, host| plot.host(HostSpec::new(host, "web")))
}

impl Story {
    /// From now on Slack's API answers nothing well; events still come.
    fn slack_falls_ill(&self) {
        self.workspace.fail_next("*", ALL, Fault::ServerError);
    }

    fn let_go(&self, host: &str) {
        std::fs::write(self.fleet.host(host).unwrap().root().join("var/run/go"), "").unwrap();
    }

    /// Awaits that Slack was called so often in vain.
    async fn tried(&self, methods: &[&str], times: usize) {
        let failed = |view: &View| {
            let vain = |call: &&Call| call.status == 500 && methods.contains(&call.method.as_str());
            view.calls().iter().filter(vain).count() >= times
        };
        if self.workspace.wait_until(BOUND, failed).await.is_err() {
            panic!("{methods:?} were not tried.\n{}", self.transcript());
        }
    }

    /// Awaits that nothing is in this state any more.
    async fn nothing_is(&mut self, state: &str) {
        let gone = async { while self.slash(LEAD, "status").await.contains(state) {} };
        if tokio::time::timeout(BOUND, gone).await.is_err() {
            panic!("something is {state} still.\n{}", self.transcript());
        }
    }

    /// The texts of posts that Slack took, in their order.
    fn posted(&self) -> Vec<String> {
        let took = |call: &&Call| call.method == "chat.postMessage" && call.answer["ok"] == true;
        self.workspace.calls().iter().filter(took).map(|call| call.body.to_string()).collect()
    }

    fn failed_calls(&self) -> usize {
        self.workspace.calls().iter().filter(|call| call.status == 500).count()
    }
}

stories! {
    /// Cause: the text of a declaration was made when it was queued, and posted as it was an hour later.
    async fn a_declaration_that_slack_takes_an_hour_late_says_that_it_is_too_late(mode: Mode) {
        for rules in [rule("approve").as_str(), AUTO] {
            let mut story = Plot::new(rules).start(mode).await;
            story.slack_falls_ill();
            let alert = story.alert("web", "NginxDown", "web-1");
            story.tried(&["chat.postMessage"], 1).await;
            story.clock.advance(HOUR);
            story.nothing_is("being declared").await;
            story.workspace.clear_faults();
            story.declaration(&alert, "older than 15 minutes").await;
            story.reaction(&alert, "double_vertical_bar").await;
            let posted = story.posted();
            assert_eq!(posted.len(), 1);
            assert!(posted[0].contains("older than 15 minutes"), "{}", posted[0]);
            assert!(!posted[0].contains("Approve"), "{}", posted[0]);
            story.runs(0).await;
            story.finish().await;
        }
    }

    async fn a_cure_whose_alert_resolved_while_slack_was_away_is_not_run(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.slack_falls_ill();
        let alert = story.alert("web", "NginxDown", "web-1");
        story.tried(&["chat.postMessage"], 1).await;
        story.resolve(&alert);
        story.nothing_is("being declared").await;
        story.workspace.clear_faults();
        story.declaration(&alert, "resolved by itself").await;
        story.reaction(&alert, "leftwards_arrow_with_hook").await;
        assert_eq!(story.posted().len(), 1);
        story.runs(0).await;
        story.finish().await;
    }

    async fn what_ended_while_slack_was_away_is_reported_once_after_it_and_after_a_restart(mode: Mode) {
        let mut story = Plot::new(LONG).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "With SSM since").await;
        story.reaction(&alert, "gear").await;
        story.slack_falls_ill();
        story.let_go("web-1");
        story.runs(1).await;
        story.tried(&["chat.update"], 1).await;
        story.nothing_is("• running").await;
        story.clock.advance(HOUR);
        story.nothing_is("waits for the alert").await;
        story.stop_bot().await;
        story.begin_bot().await;
        story.tried(&["auth.test"], 2).await;
        story.workspace.clear_faults();
        story.until_ready().await;
        story.report(&alert, "*unresolved*").await;
        story.declaration(&alert, "*unresolved*").await;
        story.reaction(&alert, "warning").await;
        assert_eq!(story.read_thread(&alert, 2).await.len(), 2);
        assert_eq!(story.fleet.count_calls("SendCommand"), 1);
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_reaction_that_slack_does_not_take_for_a_while_is_set_in_the_end_and_alone(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.reaction(&alert, "raised_hand").await;
        for method in ["reactions.add", "reactions.remove"] {
            story.workspace.fail_next(method, 3, Fault::ServerError);
        }
        story.click(SRE, &declared, "Reject").await;
        story.declaration(&alert, "*rejected*").await;
        story.reaction(&alert, "no_entry_sign").await;
        story.finish().await;
    }

    async fn ten_alerts_of_an_outage_are_declared_before_anything_lesser_and_slack_is_not_stormed(mode: Mode) {
        let mut story = ten_hosts("approve").start(mode).await;
        let before = story.workspace.calls().len();
        story.slack_falls_ill();
        let alerts: Vec<Alert> = TEN.iter().map(|host| story.alert("web", "NginxDown", host)).collect();
        // Some fail together at first; each of these comes after a longer rest.
        story.tried(&["chat.postMessage", "conversations.replies", "reactions.add"], 8).await;
        let vain = story.failed_calls();
        assert!(vain <= 25, "{vain} calls in an outage of seconds");
        story.workspace.clear_faults();
        for alert in &alerts {
            story.declaration(alert, "Waits for Approve").await;
            story.reaction(alert, "raised_hand").await;
        }
        let calls = story.workspace.calls();
        let done: Vec<&str> = calls[before..]
            .iter()
            .filter(|call| call.answer["ok"] == true)
            .map(|call| call.method.as_str())
            .filter(|method| ["chat.postMessage", "reactions.add"].contains(method))
            .collect();
        // A declaration may have to wait for its search while there is room for a reaction; but not the other way round.
        let posts = done[..7].iter().filter(|method| **method == "chat.postMessage").count();
        assert!(posts >= 5, "{done:?}");
        story.finish().await;
    }

    /// `finish` fails where a call came before its Retry-After was over.
    async fn a_strict_slack_takes_a_burst_in_its_own_time(mode: Mode) {
        let mut story = ten_hosts("observe").workspace(|options| options.limits = true).start(mode).await;
        let alerts: Vec<Alert> = TEN.iter().map(|host| story.alert("web", "NginxDown", host)).collect();
        for alert in &alerts {
            story.declaration(alert, "observe").await;
            story.reaction(alert, "mag").await;
        }
        let refused = |view: &View| view.calls_of("chat.postMessage").filter(|call| call.status == 429).count();
        let refused = story.workspace.view(refused);
        assert!((1..=10).contains(&refused), "{refused} posts were told to wait");
        story.finish().await;
    }

    async fn an_alert_whose_node_cannot_be_looked_up_for_an_hour_is_held_and_said(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        // Not in the cache, so it has to be looked up.
        story.fleet.fault("*", ALL, &Ssm::ResetBefore);
        let alert = story.alert("web", "NginxDown", "web-9");
        let asked = |fleet: &Fleet| fleet.count_calls("DescribeInstanceInformation") >= 2;
        assert!(story.fleet.wait_until(BOUND, asked).await);
        story.clock.advance(HOUR);
        story.why_not(&alert, "NginxDown").await;
        story.fleet.clear_faults();
        story.reaction(&alert, "double_vertical_bar").await;
        story.runs(0).await;
        assert_eq!(story.fleet.count_calls("SendCommand"), 0);
        story.finish().await;
    }

    async fn a_command_that_ssm_throttles_for_an_hour_is_held_and_not_sent_after_it(mode: Mode) {
        let mut story = Plot::new(AUTO).start(mode).await;
        story.fleet.fault("SendCommand", ALL, &Ssm::throttled());
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "SSM is throttling").await;
        story.clock.advance(HOUR);
        story.declaration(&alert, "*held*").await;
        story.fleet.clear_faults();
        story.reaction(&alert, "double_vertical_bar").await;
        story.later(60).await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_run_that_ended_while_ssm_was_away_keeps_its_true_outcome(mode: Mode) {
        let mut story = Plot::new(LONG).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "With SSM since").await;
        story.fleet.fault("*", ALL, &Ssm::ResetBefore);
        story.let_go("web-1");
        story.runs(1).await;
        story.clock.advance(HOUR);
        story.settled().await;
        story.fleet.clear_faults();
        story.report(&alert, "ran well").await;
        story.resolve(&alert);
        story.report(&alert, "*healed*").await;
        story.declaration(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        assert_eq!(story.fleet.count_calls("SendCommand"), 1);
        story.finish().await;
    }
}

/// The connections are gone as well: what is posted meanwhile is read from the history.
#[test]
fn nothing_is_lost_when_slack_takes_no_connections() {
    crate::story::tell(async {
        let mut story = Plot::new(LONG).start(Mode::Socket).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "With SSM since").await;
        story.reaction(&alert, "gear").await;
        story.workspace.refuse_connections_for(Duration::from_secs(4));
        story.workspace.cut_sockets();
        let went = tokio::time::Instant::now();
        story.let_go("web-1");
        story.runs(1).await;
        story.resolve(&alert);
        let missed = story.alert("web", "NginxDown", "web-2");
        let back = |view: &View| view.connections() == 1;
        story.workspace.wait_until(BOUND, back).await.unwrap();
        assert!(went.elapsed() < Duration::from_secs(4 + 2), "back after {:?}", went.elapsed());
        story.report(&alert, "*healed*").await;
        story.declaration(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        story.declaration(&missed, "With SSM since").await;
        story.let_go("web-2");
        story.report(&missed, "ran well").await;
        story.resolve(&missed);
        story.report(&missed, "*healed*").await;
        story.runs(2).await;
        assert_eq!(story.posted().len(), 4);
        story.finish().await;
    });
}
