//! Who and what may raise an alert, and what odd messages do.

use heal::sandbox::workspace::Posting;
use serde_json::{Value, json};

use crate::story::alert::attachments;
use crate::story::{CHANNEL, DEV, Mode, Plot, web};
use crate::way::rule;

stories! {
    async fn an_edited_message_never_raises_an_alert_and_may_resolve_its_own(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        // A message that was no alert becomes one by an edit.
        let posting = Posting::of_sender("B0PROM", CHANNEL, "hello");
        let ts = story.workspace.post_message(posting).unwrap();
        let firing = attachments(true, "web", "NginxDown", &["web-1"]);
        story.workspace.edit_message(CHANNEL, &ts, "", Some(firing)).unwrap();
        story.settled().await;
        assert!(story.workspace.thread(CHANNEL, &ts).is_empty());
        // An alert that Alertmanager edits in place to resolved.
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "Waits for Approve").await;
        let resolved = attachments(false, "web", "NginxDown", &["web-1"]);
        story.workspace.edit_message(CHANNEL, &alert.ts, "", Some(resolved)).unwrap();
        story.declaration(&alert, "*cancelled*").await;
        story.reaction(&alert, "leftwards_arrow_with_hook").await;
        // And back to firing: that raises nothing either.
        let firing = attachments(true, "web", "NginxDown", &["web-1"]);
        story.workspace.edit_message(CHANNEL, &alert.ts, "", Some(firing)).unwrap();
        story.runs(0).await;
        story.finish().await;
    }

    async fn only_configured_senders_raise_alerts_at_the_top_level_of_watched_channels(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let firing = || attachments(true, "web", "NginxDown", &["web-1"]);
        let post = |posting: Posting| story.workspace.post_message(posting.attachments(firing())).unwrap();
        let anchor = post(Posting::of_sender("B0FOREIGN", CHANNEL, ""));
        post(Posting::of_user(DEV, CHANNEL, "[FIRING:1] NginxDown"));
        post(Posting::of_sender("B0PROM", "C0OPS", ""));
        post(Posting::of_sender("B0PROM", CHANNEL, "").in_thread(&anchor));
        // The bot's own words, and a namesake: names and icons prove nothing.
        post(Posting::of_sender("B0PROM", CHANNEL, "").with_raw("bot_id", "B0HEAL".into()).with_raw("user", "U0HEAL".into()).with_raw("metadata", json!({"event_type": "forged", "event_payload": {"n": 1}})));
        post(Posting::of_sender("B0FOREIGN", CHANNEL, "").with_raw("username", "Alertmanager".into()));
        // From a shared channel's other side.
        post(Posting::of_sender("B0PROM", CHANNEL, "").with_raw("team", "T0PARTNER".into()));
        story.settled().await;
        assert_eq!(story.metric("heal_alerts_total{sender=\"prometheus\"}").await, None);
        for message in story.workspace.messages(CHANNEL) {
            assert!(story.workspace.reactions(CHANNEL, &message.ts).is_empty());
            story.see(&message.ts);
        }
        story.runs(0).await;
        story.finish().await;
    }

    async fn an_alert_without_a_rule_is_counted_and_answered_with_nothing(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("db", "NoRuleForThis", "db-1");
        story.settled().await;
        assert!(story.workspace.thread(CHANNEL, &alert.ts).is_empty());
        let status = story.slash(DEV, "status").await;
        assert!(status.contains("1 alert without a rule"), "{status}");
        story.finish().await;
    }

    async fn a_message_that_its_senders_format_cannot_read_shows_in_the_status(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        for _ in 0..3 {
            story.workspace.post_message(Posting::of_sender("B0NAGIOS", CHANNEL, "nginx is unwell again")).unwrap();
        }
        story.settled().await;
        let status = story.slash(DEV, "status").await;
        assert!(status.contains("3 messages of `nagios` could not be read"), "{status}");
        assert_eq!(story.metric("heal_unreadable_messages_total{sender=\"nagios\"}").await, Some(3.0));
        story.runs(0).await;
        story.finish().await;
    }

    async fn odd_events_neither_crash_nor_raise_anything(mode: Mode) {
        let mut story = Plot::new(&rule("auto")).start(mode).await;
        let long = "x".repeat(40_000);
        let deep = (0..60).fold(json!("deep"), |inner, _| json!({"type": "section", "elements": [inner]}));
        for event in [
            json!({"type": "message"}),
            json!({"type": "message", "channel": CHANNEL}),
            json!({"type": "message", "channel": 7, "ts": [], "bot_id": "B0PROM"}),
            json!({"type": "message", "channel": CHANNEL, "ts": "not-a-stamp", "bot_id": "B0PROM", "text": "[FIRING:1]"}),
            json!({"type": "message", "channel": CHANNEL, "ts": "1.000001", "bot_id": "B0PROM", "attachments": "none"}),
            json!({"type": "message", "channel": CHANNEL, "ts": "1.000002", "bot_id": "B0PROM", "attachments": [null, 7, {"text": {}}]}),
            json!({"type": "message", "channel": CHANNEL, "ts": "1.000003", "bot_id": "B0PROM", "text": long, "attachments": []}),
            json!({"type": "message", "channel": CHANNEL, "ts": "1.000004", "bot_id": "B0PROM", "blocks": [deep]}),
            json!({"type": "message", "subtype": "message_changed", "channel": CHANNEL}),
            json!({"type": "message", "subtype": "message_deleted", "channel": CHANNEL, "deleted_ts": 3}),
            json!({"type": "message", "subtype": "a_subtype_of_tomorrow", "channel": CHANNEL, "ts": "1.000005"}),
            json!({"type": "app_mention", "channel": CHANNEL}),
            json!({"type": 3}),
            json!([]),
            json!(null),
        ] {
            story.workspace.post_raw_event(event);
        }
        for payload in [
            json!({}),
            json!({"type": "block_actions"}),
            json!({"type": "block_actions", "actions": [], "user": 3}),
            json!({"type": "block_actions", "user": {"id": DEV}, "channel": {"id": CHANNEL}, "actions": [{"action_id": 7}]}),
            json!({"type": "view_submission", "view": {}}),
        ] {
            story.workspace.interact(payload).await.unwrap();
        }
        story.settled().await;
        for message in story.workspace.messages(CHANNEL) {
            assert!(story.workspace.thread(CHANNEL, &message.ts).is_empty());
        }
        story.runs(0).await;
        // It still hears what is well-formed.
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "unless somebody presses Hold").await;
        story.finish().await;
    }

    async fn the_hostile_corpus_neither_crashes_nor_runs_anything(mode: Mode) {
        let mut story = Plot::new("\"*:*\": {commands: [\"echo x\"]}\n").start(mode).await;
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/adversarial");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty());
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut event: Value = serde_json::from_str::<Value>(&text).unwrap()["event"].clone();
            let ts = story.stamp();
            for (name, value) in [("channel", CHANNEL), ("bot_id", "B0PROM"), ("ts", &ts), ("event_ts", &ts)] {
                event[name] = value.into();
            }
            story.workspace.post_raw_event(event);
        }
        story.settled().await;
        story.later(1).await;
        for message in story.workspace.messages(CHANNEL) {
            for reply in story.workspace.thread(CHANNEL, &message.ts) {
                let text = reply.raw.to_string();
                assert!(!text.contains("<!channel>") && !text.contains("<!everyone>") && !text.contains("<!here>"), "{text}");
                story.see(&reply.ts);
            }
        }
        story.runs(0).await;
        story.finish().await;
    }

    async fn what_slack_delivers_twice_is_one_declaration(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        story.workspace.deliver_twice_every(1);
        for host in ["web-1", "web-2", "web-3"] {
            let alert = story.alert("web", "NginxDown", host);
            story.declaration(&alert, "Waits for Approve").await;
            story.reaction(&alert, "raised_hand").await;
            assert_eq!(story.read_thread(&alert, 1).await.len(), 1);
        }
        assert!(story.metric("heal_duplicate_deliveries_total").await >= Some(1.0));
        story.finish().await;
    }
}

#[test]
fn a_request_without_slacks_signature_is_refused_and_touches_nothing() {
    crate::story::tell(async {
        let mut story = Plot::new(&rule("approve")).start(Mode::Http).await;
        let alert = json!({"type": "message", "channel": CHANNEL, "ts": "1.000001", "bot_id": "B0PROM", "subtype": "bot_message",
            "attachments": attachments(true, "web", "NginxDown", &["web-1"])});
        let body =
            json!({"type": "event_callback", "event_id": "Ev1", "team_id": "T0SANDBOX", "event": alert})
                .to_string();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let right = heal::slack::Secret::new("sandbox-signing-secret".to_owned());
        let sign = |secret: &heal::slack::Secret, at: u64| {
            heal::slack::http::sign(secret, &at.to_string(), body.as_bytes())
        };
        let wrong = heal::slack::Secret::new("a guess".to_owned());
        let old = now - 3600;
        for (what, signature, at) in [
            ("a wrong secret", sign(&wrong, now), now.to_string()),
            ("an old request", sign(&right, old), old.to_string()),
            ("another moment's signature", sign(&right, now - 1), now.to_string()),
            ("no version", sign(&right, now).replace("v0=", ""), now.to_string()),
            ("no signature", String::new(), now.to_string()),
            ("no time", sign(&right, now), "soon".to_owned()),
        ] {
            for path in ["events", "interactions", "commands"] {
                let head = format!(
                    "POST /slack/{path} HTTP/1.1\r\ncontent-type: application/json\r\nx-slack-signature: {signature}\r\nx-slack-request-timestamp: {at}"
                );
                let (status, _) = web::request(story.listen(), &head, &body).await;
                assert_eq!(status, 401, "{what} at {path}");
            }
        }
        let (status, _) = web::request(
            story.listen(),
            "POST /slack/events HTTP/1.1\r\ncontent-type: application/json",
            &body,
        )
        .await;
        assert_eq!(status, 401, "no headers at all");
        // The same with the right signature is an alert: the refusals above were not for its form.
        let head = format!(
            "POST /slack/events HTTP/1.1\r\ncontent-type: application/json\r\nx-slack-signature: {}\r\nx-slack-request-timestamp: {now}",
            sign(&right, now)
        );
        assert_eq!(web::request(story.listen(), &head, &body).await.0, 200);
        story.settled().await;
        assert_eq!(story.metric("heal_alerts_total{sender=\"prometheus\"}").await, Some(1.0));
        // The workspace never saw that message, so there is no thread to say it in.
        story.announced("older than 15 minutes").await;
        story.runs(0).await;
        let url = format!("http://{}/slack/events", story.listen());
        assert!(story.workspace.verify_url(&url).await);
        story.allow_refusal("thread_not_found");
        story.allow_refusal("message_not_found");
        story.finish().await;
    });
}
