use serde_json::{Value, json};

use super::*;

fn posted(mut members: Value) -> Value {
    for (name, value) in [("type", "message"), ("channel", "C1"), ("ts", "1795133413.007919")] {
        if members.get(name).is_none() {
            members[name] = json!(value);
        }
    }
    members
}

#[test]
fn an_event_is_told_by_its_subtype() {
    assert!(matches!(Message::from_event(&posted(json!({}))), Ok(Event::Posted(_))));
    assert!(matches!(Message::from_event(&posted(json!({"subtype": "bot_message"}))), Ok(Event::Posted(_))));
    let deleted = posted(json!({"subtype": "message_deleted", "deleted_ts": "1.000002"}));
    assert_eq!(
        Message::from_event(&deleted),
        Ok(Event::Deleted { channel: "C1".to_owned(), ts: "1.000002".to_owned() })
    );
    let join = posted(json!({"subtype": "channel_join"}));
    assert_eq!(Message::from_event(&join), Ok(Event::Other { subtype: "channel_join".to_owned() }));
    for odd in [
        json!(null),
        json!([]),
        json!({}),
        json!({"type": "message"}),
        json!({"type": "message", "channel": 1}),
        json!({"type": "message", "channel": "C1", "ts": "now"}),
        posted(json!({"type": "reaction_added"})),
        posted(json!({"subtype": 1})),
        posted(json!({"subtype": "message_changed"})),
        posted(json!({"subtype": "message_changed", "message": 1})),
    ] {
        assert!(Message::from_event(&odd).is_err(), "{odd}");
    }
}

#[test]
fn an_edit_carries_the_message_now_and_before() {
    let event = &CORPUS["alertmanager/update_message_changed_resolved"]["event"];
    let Ok(Event::Edited { message, previous: Some(previous) }) = Message::from_event(event) else {
        panic!("no edit")
    };
    assert_eq!((message.ts.as_str(), message.channel.as_str()), ("1795136478.047514", "C04ALERTS7Q"));
    assert!(message.edited && !previous.edited);
    let status = |message| alerts(read(&alertmanager(), message, &known))[0].clone();
    let (now, before) = (status(&message), status(&previous));
    assert_eq!((now.status, before.status), (Status::Resolved, Status::Firing));
    assert_eq!(now.identity(), before.identity());
}

#[test]
fn a_reply_is_not_top_level() {
    let at = |thread: &str| message(&posted(json!({"thread_ts": thread}))).is_top_level();
    assert!(message(&posted(json!({}))).is_top_level());
    assert!(at("1795133413.007919"));
    assert!(!at("1795133000.000000"));
}

#[test]
fn a_member_of_an_odd_type_costs_that_member_only() {
    let event = posted(json!({
        "text": 5, "user": ["U1"], "bot_id": "B1", "team": null, "blocks": {"a": 1}, "edited": "yes",
        "attachments": [null, 1, {"title": "[FIRING:1] X", "text": {"a": 1}, "fields": [null, {"title": 1, "value": "v"}, {}], "color": 7, "title_link": []}],
    }));
    let read = message(&event);
    assert_eq!((read.text.as_str(), read.user, read.bot_id.as_deref()), ("5", None, Some("B1")));
    assert_eq!(read.attachments.len(), 1);
    assert_eq!(read.attachments[0].title, "[FIRING:1] X");
    assert_eq!(read.attachments[0].fields, [Field { title: "1".to_owned(), value: "v".to_owned() }]);
}

#[test]
fn blocks_give_their_text() {
    let event = posted(json!({"blocks": [
        {"type": "header", "text": {"type": "plain_text", "text": "Head &amp; more"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "*a:* b"}, "fields": [{"type": "mrkdwn", "text": "f"}]},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "c"}, {"type": "image", "image_url": "x"}]},
        {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
            {"type": "text", "text": "hello "}, {"type": "user", "user_id": "U1"}, {"type": "link", "url": "https://a"}]}]},
        {"type": "divider"}, 7,
    ]}));
    assert_eq!(message(&event).blocks, "Head & more\n*a:* b\nf\nc\nhello @U1https://a\n");
}

#[test]
fn every_id_of_a_sender_must_be_the_message_s_own() {
    let sender = |bot: Option<&str>, app: Option<&str>, user: Option<&str>| Sender {
        bot_id: bot.map(str::to_owned),
        app_id: app.map(str::to_owned),
        user_id: user.map(str::to_owned),
        ..alertmanager()
    };
    let by_profile = message(&posted(
        json!({"bot_id": "B1", "username": "x", "bot_profile": {"id": "B1", "app_id": "A1", "name": "x"}}),
    ));
    assert_eq!(by_profile.app_id.as_deref(), Some("A1"));
    assert!(sender(Some("B1"), None, None).matches(&by_profile));
    assert!(sender(Some("B1"), Some("A1"), None).matches(&by_profile));
    for other in [
        sender(Some("B2"), None, None),
        sender(Some("B1"), Some("A2"), None),
        sender(Some("B1"), Some("A1"), Some("U1")),
        sender(None, None, None),
    ] {
        assert!(!other.matches(&by_profile), "{other:?}");
    }
    let torn = message(&posted(json!({"bot_id": "B1", "app_id": "A2", "bot_profile": {"app_id": "A1"}})));
    assert!(!sender(None, Some("A1"), None).matches(&torn) && !sender(None, Some("A2"), None).matches(&torn));

    let senders: Vec<Arc<Sender>> = [
        sender(None, Some("A1"), None),
        sender(Some("B1"), Some("A1"), None),
        Sender { name: "later".to_owned(), ..sender(Some("B1"), Some("A1"), None) },
    ]
    .into_iter()
    .map(Arc::new)
    .collect();
    assert!(Arc::ptr_eq(trusted(&senders, &by_profile).unwrap(), &senders[1]));
}

#[test]
fn a_shared_message_or_a_link_s_preview_is_not_the_sender_s_word() {
    for quoted in
        [json!({"from_url": "https://x/"}), json!({"is_share": true}), json!({"is_msg_unfurl": true})]
    {
        let mut attachment =
            json!({"title": "[FIRING:1] X (web-012:9100)", "text": "[CRITICAL] web-012 WEB:X"});
        for (name, value) in quoted.as_object().unwrap() {
            attachment[name] = value.clone();
        }
        let shared = message(&posted(json!({"attachments": [attachment]})));
        for sender in [alertmanager(), lines(LINE)] {
            assert!(!matches!(read(&sender, &shared, &known), Reading::Alerts(_)), "{quoted}");
        }
    }
}

#[test]
fn an_identity_outlives_what_changes_and_tells_conditions_apart() {
    let base = Alert {
        name: "DiskFull".to_owned(),
        status: Status::Firing,
        role: Some("web".to_owned()),
        host: Some("web-012".to_owned()),
        instance: None,
        instance_id: None,
        severity: None,
        summary: None,
        fingerprint: None,
        link: None,
        start: None,
        labels: BTreeMap::from([
            ("mountpoint".to_owned(), "/var".to_owned()),
            ("value".to_owned(), "97".to_owned()),
        ]),
    };
    let with = |name: &str, value: &str| {
        let mut other = base.clone();
        other.labels.insert(name.to_owned(), value.to_owned());
        other.identity()
    };
    assert_eq!(with("value", "12"), base.identity());
    assert_eq!(with("Summary", "x"), base.identity());
    assert_ne!(with("mountpoint", "/"), base.identity());
    assert_ne!(Alert { host: Some("web-013".to_owned()), ..base.clone() }.identity(), base.identity());
    assert_ne!(Alert { role: Some("db".to_owned()), ..base.clone() }.identity(), base.identity());
    assert_eq!(Alert { status: Status::Resolved, ..base.clone() }.identity(), base.identity());
}
