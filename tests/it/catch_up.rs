//! Alerts that were posted while heal was not running, or had no connection: read afterwards, once.

use std::time::Duration;

use heal::sandbox::workspace::{Fault, Posting, View};

use crate::story::alert::attachments;
use crate::story::{Alert, BOUND, CHANNEL, Mode, Plot, Story, assert_reads};
use crate::way::{CURE, rule};

const AUTO: &str = "web:NginxDown: {stage: auto, grace: 0s, commands: [\"echo cured\"]}\n";
const HISTORY: &str = "conversations.history";

/// Slack gives up at once what it cannot deliver: only the history has it.
fn forgetful(rules: &str) -> Plot {
    Plot::new(rules).workspace(|options| {
        options.redeliver_after = Duration::from_secs(2);
        options.redeliveries = 0;
        options.http_retries = Vec::new();
    })
}

/// Ends the bot once it has nothing in hand.
async fn goes_away(story: &mut Story) {
    story.settled().await;
    story.stop_bot().await;
}

fn looks(view: &View) -> usize {
    view.calls_of(HISTORY).count()
}

/// Starts the bot again and awaits that it has looked at the channel.
async fn comes_back(story: &mut Story) {
    let before = story.workspace.view(looks);
    story.start_bot().await;
    story.workspace.wait_until(BOUND, |view| looks(view) > before).await.unwrap();
}

/// Nothing of the bot stands at this alert.
fn untouched(story: &Story, alert: &Alert) {
    assert_eq!(story.workspace.thread(CHANNEL, &alert.ts).len(), 0, "{}", story.transcript());
    assert_eq!(story.workspace.reactions(CHANNEL, &alert.ts), [], "{}", story.transcript());
}

stories! {
    async fn an_alert_that_came_while_the_bot_was_down_is_declared_after_its_start(mode: Mode) {
        let mut story = forgetful(&rule("approve")).start(mode).await;
        goes_away(&mut story).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        // A reply is no alert, wherever it is read.
        let reply = Posting::of_sender("B0PROM", CHANNEL, "").in_thread(&alert.ts);
        let reply = reply.attachments(attachments(true, "web", "NginxDown", &["web-2"]));
        story.workspace.post_message(reply).unwrap();
        comes_back(&mut story).await;
        story.declaration(&alert, "Waits for Approve").await;
        story.reaction(&alert, "raised_hand").await;
        story.finish().await;
    }

    async fn what_fired_and_resolved_while_the_bot_was_down_is_told_and_not_healed(mode: Mode) {
        let mut story = forgetful(AUTO).start(mode).await;
        goes_away(&mut story).await;
        let over = story.alert("web", "NginxDown", "web-1");
        let burning = story.alert("web", "NginxDown", "web-2");
        story.resolve(&over);
        comes_back(&mut story).await;
        let told = story.announced("missed").await;
        assert!(told.read().contains("`web:NginxDown` on `web-1`"), "{}", told.read());
        assert!(told.read().contains(&over.ts.replace('.', "")), "{}", told.read());
        assert!(!told.read().contains("web-2"), "{}", told.read());
        story.report(&burning, "ran well").await;
        story.declaration(&burning, "ran well").await;
        untouched(&story, &over);
        story.runs(1).await;
        let history = story.slash(crate::story::SRE, "history").await;
        assert!(history.contains("cancelled"), "{history}");
        story.finish().await;
    }

    async fn what_is_too_old_after_the_start_is_told_in_one_message_and_held(mode: Mode) {
        let mut story = forgetful(AUTO).start(mode).await;
        goes_away(&mut story).await;
        let first = story.alert("web", "NginxDown", "web-1");
        // Alertmanager repeats itself; the condition is told once.
        story.alert("web", "NginxDown", "web-1");
        let other = story.alert("web", "NginxDown", "web-2");
        story.clock.advance(Duration::from_secs(40 * 60));
        comes_back(&mut story).await;
        let told = story.announced("missed").await;
        assert_reads(&told, "
            :zzz: *2 alerts missed, not acted on*: heal was not running or not connected to Slack.
            • `web:NginxDown` on `web-1`, posted TIME: 40 minutes old, may still fire
            • `web:NginxDown` on `web-2`, posted TIME: 40 minutes old, may still fire
        ");
        untouched(&story, &first);
        untouched(&story, &other);
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_repeat_that_is_young_is_acted_on_and_its_old_message_is_not_told(mode: Mode) {
        let mut story = forgetful(AUTO).start(mode).await;
        goes_away(&mut story).await;
        let old = story.alert("web", "NginxDown", "web-1");
        story.clock.advance(Duration::from_secs(40 * 60));
        let young = story.alert("web", "NginxDown", "web-1");
        comes_back(&mut story).await;
        story.report(&young, "ran well").await;
        story.declaration(&young, "ran well").await;
        untouched(&story, &old);
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_long_absence_is_read_page_by_page_and_told_in_a_bounded_list(mode: Mode) {
        let mut story = forgetful(AUTO).start(mode).await;
        goes_away(&mut story).await;
        let oldest = story.alert("web", "NginxDown", "web-1");
        for number in 0..25 {
            let over = story.alert("web", "NginxDown", &format!("old-{number}"));
            story.resolve(&over);
        }
        for _ in 0..400 {
            let ts = story.stamp();
            let chatter = Posting::of_user(crate::story::DEV, CHANNEL, "is it me?");
            story.workspace.post_message(chatter.with_raw("ts", ts.into())).unwrap();
        }
        let before = story.workspace.view(looks);
        story.start_bot().await;
        story.workspace.wait_until(BOUND, |view| looks(view) >= before + 3).await.unwrap();
        let told = story.announced("25 alerts missed").await;
        assert!(told.read().contains("and 5 more"), "{}", told.read());
        story.report(&oldest, "ran well").await;
        story.declaration(&oldest, "ran well").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn what_was_read_and_is_delivered_later_is_one_alert(mode: Mode) {
        let mut story = forgetful(&rule("approve")).start(mode).await;
        goes_away(&mut story).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        comes_back(&mut story).await;
        story.declaration(&alert, "Waits for Approve").await;
        let message = story.workspace.view(|view| view.message(CHANNEL, &alert.ts)).unwrap();
        let mut event = message.raw;
        event["channel"] = CHANNEL.into();
        event["type"] = "message".into();
        story.workspace.post_raw_event(event);
        story.settled().await;
        assert_eq!(story.read_thread(&alert, 1).await.len(), 1);
        assert_eq!(story.metric("heal_duplicate_deliveries_total").await, Some(1.0));
        story.finish().await;
    }

    async fn what_happened_before_the_first_start_is_not_read(mode: Mode) {
        let mut story = forgetful(AUTO).start(mode).await;
        goes_away(&mut story).await;
        let store = story.settings().config.store;
        let path = store.strip_prefix("sqlite://").unwrap();
        std::fs::remove_file(path).unwrap();
        let alert = story.alert("web", "NginxDown", "web-1");
        comes_back(&mut story).await;
        story.settled().await;
        untouched(&story, &alert);
        story.runs(0).await;
        story.finish().await;
    }

    async fn a_restart_in_which_nothing_was_missed_says_nothing(mode: Mode) {
        let mut story = forgetful(&rule("observe")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "observe").await;
        for _ in 0..2 {
            goes_away(&mut story).await;
            comes_back(&mut story).await;
        }
        story.settled().await;
        assert_eq!(story.read_thread(&alert, 1).await.len(), 1);
        story.finish().await;
    }

    async fn a_slack_that_limits_the_reading_is_obeyed_to_the_second(mode: Mode) {
        let mut story = forgetful(&rule("approve")).start(mode).await;
        goes_away(&mut story).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.workspace.fail_next(HISTORY, 1, Fault::RateLimited(2));
        let begun = std::time::Instant::now();
        story.start_bot().await;
        story.declaration(&alert, "Waits for Approve").await;
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
        story.finish().await;
    }

    async fn a_history_that_cannot_be_read_is_told_of_and_tried_again(mode: Mode) {
        let mut story = forgetful(&rule("approve")).start(mode).await;
        goes_away(&mut story).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.workspace.fail_next(HISTORY, 1, Fault::Refused("missing_scope".to_owned()));
        story.allow_refusal("missing_scope");
        story.allow_error("hint: the app lacks a scope");
        story.start_bot().await;
        story.declaration(&alert, "Waits for Approve").await;
        assert!(story.log().contains("hint: the app lacks a scope"), "{}", story.log());
        story.finish().await;
    }

    async fn what_was_missed_is_said_once_when_the_answer_is_lost(mode: Mode) {
        let mut story = forgetful(AUTO).start(mode).await;
        goes_away(&mut story).await;
        let over = story.alert("web", "NginxDown", "web-1");
        story.resolve(&over);
        story.workspace.fail_next("chat.postMessage", 1, Fault::ResetAfter);
        comes_back(&mut story).await;
        story.announced("1 alert missed").await;
        goes_away(&mut story).await;
        comes_back(&mut story).await;
        story.finish().await;
    }

    async fn what_was_missed_is_said_once_when_the_bot_ends_while_it_says_it(mode: Mode) {
        let mut story = forgetful(AUTO).start(mode).await;
        goes_away(&mut story).await;
        let over = story.alert("web", "NginxDown", "web-1");
        story.resolve(&over);
        story.workspace.fail_next("chat.postMessage", 1, Fault::Stalled(Duration::from_millis(500)));
        story.start_bot().await;
        let read = async {
            while !story.log().contains("1 alerts in them were missed") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, read).await.unwrap();
        story.stop_bot().await;
        comes_back(&mut story).await;
        story.announced("1 alert missed").await;
        story.settled().await;
        story.finish().await;
    }

    async fn a_message_edited_meanwhile_resolves_and_never_raises(mode: Mode) {
        let mut story = forgetful(&rule("approve")).start(mode).await;
        let known = story.alert("web", "NginxDown", "web-1");
        story.declaration(&known, "Waits for Approve").await;
        goes_away(&mut story).await;
        let resolved = attachments(false, "web", "NginxDown", &["web-1"]);
        story.workspace.edit_message(CHANNEL, &known.ts, "", Some(resolved)).unwrap();
        let unknown = story.alert("web", "NginxDown", "web-2");
        let firing = attachments(true, "web", "NginxDown", &["web-2"]);
        story.workspace.edit_message(CHANNEL, &unknown.ts, "", Some(firing)).unwrap();
        comes_back(&mut story).await;
        story.declaration(&known, "resolved by itself").await;
        let told = story.announced("1 alert missed").await;
        assert!(told.read().contains("edited since, may still fire"), "{}", told.read());
        untouched(&story, &unknown);
        story.finish().await;
    }

    /// Timers once began before the past was read: what had resolved ran as its grace was over.
    async fn a_grace_that_ended_meanwhile_runs_nothing_when_the_alert_resolved_too(mode: Mode) {
        let mut story = forgetful(&format!("web:NginxDown:\n  stage: auto{CURE}")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "unless somebody presses Hold").await;
        goes_away(&mut story).await;
        story.resolve(&alert);
        story.clock.advance(Duration::from_secs(60));
        story.workspace.fail_next(HISTORY, 1, Fault::RateLimited(1));
        story.start_bot().await;
        story.declaration(&alert, "resolved by itself").await;
        story.runs(0).await;
        story.finish().await;
    }
}

#[test]
fn what_came_while_no_socket_was_up_is_read_when_one_is() {
    crate::story::tell(async {
        let mut story = forgetful(&rule("approve")).start(Mode::Socket).await;
        story.settled().await;
        story.workspace.refuse_connections_for(Duration::from_secs(1));
        story.workspace.cut_sockets();
        story.workspace.wait_until(BOUND, |view| view.connections() == 0).await.unwrap();
        let over = story.alert("web", "NginxDown", "web-1");
        story.resolve(&over);
        let burning = story.alert("web", "NginxDown", "web-2");
        let lost = |view: &View| view.deliveries().iter().any(|one| one.lost);
        story.declaration(&burning, "Waits for Approve").await;
        story.announced("1 alert missed").await;
        untouched(&story, &over);
        story.workspace.wait_until(BOUND, lost).await.unwrap();
        story.finish().await;
    });
}

/// Clocks differ, and what is posted just when the bot comes up may be lost on its way.
#[test]
fn what_was_posted_just_after_the_start_and_never_delivered_is_found_by_a_second_look() {
    crate::story::tell(async {
        let mut story = forgetful(&rule("approve")).start(Mode::Http).await;
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        story.workspace.set_delivery(crate::story::http_delivery(nowhere));
        let alert = story.alert("web", "NginxDown", "web-1");
        let lost = |view: &View| view.deliveries().iter().all(|one| one.lost);
        story.workspace.wait_until(BOUND, lost).await.unwrap();
        assert_eq!(story.workspace.thread(CHANNEL, &alert.ts).len(), 0);
        story.clock.advance(Duration::from_secs(60));
        story.declaration(&alert, "Waits for Approve").await;
        let listen = story.listen();
        story.workspace.set_delivery(crate::story::http_delivery(listen));
        story.finish().await;
    });
}

/// Both looks once stopped at our own clock, and the next delivery moved the note beyond the rest.
#[test]
fn what_was_posted_in_a_gap_is_found_although_our_clock_is_behind_slacks() {
    crate::story::tell(async {
        let mut story = forgetful(AUTO).start(Mode::Socket).await;
        story.settled().await;
        story.workspace.refuse_connections_for(Duration::from_secs(1));
        story.workspace.cut_sockets();
        story.workspace.wait_until(BOUND, |view| view.connections() == 0).await.unwrap();
        let slacks = story.clock.now().plus(Duration::from_secs(30)).as_secs();
        let burning = story.alert_at(&format!("{slacks}.000100"), "web", "NginxDown", &["web-1"]);
        let over = story.alert_at(&format!("{slacks}.000200"), "web", "NginxDown", &["web-2"]);
        let resolved = attachments(false, "web", "NginxDown", &["web-2"]);
        let posting = Posting::of_sender("B0PROM", CHANNEL, "").attachments(resolved);
        let posting = posting.with_raw("ts", format!("{slacks}.000300").into());
        story.workspace.post_message(posting).unwrap();
        let lost = |view: &View| view.deliveries().iter().filter(|one| one.lost).count() == 3;
        story.workspace.wait_until(BOUND, lost).await.unwrap();
        story.report(&burning, "ran well").await;
        story.declaration(&burning, "ran well").await;
        story.why_not(&over, "resolved by itself").await;
        story.runs(1).await;
        story.finish().await;
    });
}

/// Away for deliveries, while the history can be read; the alert of that time. Its gap is read already.
async fn lost_in_http_mode() -> (Story, Alert) {
    let mut story = forgetful(&rule("approve")).start(Mode::Http).await;
    // Both looks of the start are over, and then some.
    story.workspace.wait_until(BOUND, |view| looks(view) >= 1).await.unwrap();
    story.clock.advance(Duration::from_secs(60));
    story.workspace.wait_until(BOUND, |view| looks(view) >= 2).await.unwrap();
    story.settled().await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    story.workspace.set_delivery(crate::story::http_delivery(nowhere));
    let alert = story.alert("web", "NginxDown", "web-1");
    let lost = |view: &View| view.deliveries().last().unwrap().lost;
    story.workspace.wait_until(BOUND, lost).await.unwrap();
    let listen = story.listen();
    story.workspace.set_delivery(crate::story::http_delivery(listen));
    (story, alert)
}

/// Once only a restart read it, and the next delivery moved the note beyond it.
#[test]
fn what_slack_gave_up_in_http_mode_is_read_within_minutes_whatever_was_delivered_since() {
    crate::story::tell(async {
        let (mut story, alert) = lost_in_http_mode().await;
        story.clock.advance(Duration::from_secs(100));
        let next = story.alert("web", "NginxDown", "web-2");
        story.declaration(&next, "Waits for Approve").await;
        assert_eq!(story.workspace.thread(CHANNEL, &alert.ts).len(), 0);
        story.clock.advance(Duration::from_secs(100));
        story.declaration(&alert, "Waits for Approve").await;
        story.finish().await;
    });
}

#[test]
fn a_delivery_that_slack_had_to_repeat_makes_heal_look_for_what_never_came() {
    crate::story::tell(async {
        let (mut story, alert) = lost_in_http_mode().await;
        let chatter = r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"message","channel":"C0ALERTS","user":"U0DEV","ts":"1795410000.000100","text":"hello?"}}"#;
        let secret = story.workspace.view(|view| view.options().signing_secret.clone());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let secret = heal::slack::Secret::new(secret);
        let signature = heal::slack::http::sign(&secret, &now.to_string(), chatter.as_bytes());
        let head = format!(
            "POST /slack/events HTTP/1.1\r\ncontent-type: application/json\r\nx-slack-retry-num: 1\r\n\
             x-slack-retry-reason: http_timeout\r\nx-slack-request-timestamp: {now}\r\nx-slack-signature: {signature}"
        );
        let (status, _) = crate::story::web::request(story.listen(), &head, chatter).await;
        assert_eq!(status, 200);
        story.declaration(&alert, "Waits for Approve").await;
        story.finish().await;
    });
}
