use serde_json::{Value, json};

use crate::alert::tests::{alertmanager, message};
use crate::alert::{Alert, Reading, Sender, Status, read};

fn event(attachments: &Value) -> Value {
    json!({"type": "message", "channel": "C1", "ts": "1.000001", "bot_id": "B0PROM", "text": "", "attachments": attachments})
}

fn known(role: &str) -> bool {
    ["web", "db"].contains(&role)
}

fn reading(title: &str, text: &str) -> Reading {
    read(
        &alertmanager(),
        &message(&event(&json!([{"title": title, "fallback": title, "text": text}]))),
        &known,
    )
}

fn alerts(title: &str, text: &str) -> Vec<Alert> {
    match reading(title, text) {
        Reading::Alerts(alerts) => alerts,
        other => panic!("{other:?}"),
    }
}

/// What heal's template renders for one alert.
fn rendered(status: &str, host: &str, fingerprint: &str) -> String {
    format!(
        "*{status}* NginxDown — nginx has stopped\n• *alertname:* `NginxDown`\n• *instance:* `{host}:9100`\n\
         • *role:* `web`\n• *severity:* `critical`\n• *startsAt:* `2026-11-23T05:06:24Z`\n\
         • *fingerprint:* `{fingerprint}`\n"
    )
}

#[test]
fn heal_s_template_says_everything() {
    let found = alerts("[FIRING:1] NginxDown", &rendered("FIRING", "web-012", "6d3b6b2e9ab6a0d5"));
    let [alert] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((alert.name.as_str(), alert.status), ("NginxDown", Status::Firing));
    assert_eq!((alert.role.as_deref(), alert.host.as_deref()), (Some("web"), Some("web-012")));
    assert_eq!(alert.instance.as_deref(), Some("web-012:9100"));
    assert_eq!(alert.severity.as_deref(), Some("critical"));
    assert_eq!(alert.summary.as_deref(), Some("nginx has stopped"));
    assert_eq!(alert.fingerprint.as_deref(), Some("6d3b6b2e9ab6a0d5"));
    assert_eq!(alert.start.as_deref(), Some("2026-11-23T05:06:24Z"));
    assert_eq!(alert.labels.keys().collect::<Vec<_>>(), ["alertname", "instance", "role", "severity"]);
}

#[test]
fn firing_and_resolved_alerts_stand_in_one_message() {
    let text = rendered("FIRING", "web-012", "aaaaaaaaaaaaaaaa")
        + &rendered("FIRING", "web-013", "bbbbbbbbbbbbbbbb")
        + &rendered("RESOLVED", "web-014", "cccccccccccccccc");
    let found = alerts("[FIRING:2, RESOLVED:1] NginxDown", &text);
    let seen: Vec<_> = found.iter().map(|alert| (alert.host.as_deref().unwrap(), alert.status)).collect();
    assert_eq!(
        seen,
        [("web-012", Status::Firing), ("web-013", Status::Firing), ("web-014", Status::Resolved)]
    );

    let sections = "*Alerts Firing:*\n\n• *alertname:* `A`\n• *instance:* `web-012`\n\n:white_check_mark: *Resolved*\n• *alertname:* `A`\n• *instance:* `web-013`";
    let found = alerts("[FIRING:1] A", sections);
    let seen: Vec<_> = found.iter().map(|alert| (alert.host.as_deref().unwrap(), alert.status)).collect();
    assert_eq!(seen, [("web-012", Status::Firing), ("web-013", Status::Resolved)]);
}

#[test]
fn a_list_that_contradicts_its_count_is_not_read() {
    let one = rendered("FIRING", "web-012", "aaaaaaaaaaaaaaaa");
    let forged = one.clone() + &rendered("FIRING", "db-01", "bbbbbbbbbbbbbbbb");
    assert!(matches!(reading("[FIRING:1] NginxDown", &forged), Reading::Unreadable(_)));
    assert!(matches!(reading("[RESOLVED] NginxDown", &one), Reading::Unreadable(_)));
    // The copied template lists resolved alerts too, and does not say which they are.
    let unmarked = "*Alert:* a\n• *alertname:* `A`\n• *instance:* `web-012`\n*Alert:* a\n• *alertname:* `A`\n• *instance:* `web-013`\n";
    assert!(matches!(reading("[FIRING:1] A", unmarked), Reading::Unreadable(_)));
    assert_eq!(alerts("[FIRING:2] A", unmarked).len(), 2);
    assert!(alerts("[RESOLVED] A", unmarked).iter().all(|alert| alert.status == Status::Resolved));
}

#[test]
fn a_label_said_twice_with_two_values_is_not_believed() {
    let text = "*Alert:* x\n• *alertname:* `A`\n• *instance:* `web-012`\n• *instance:* `db-01`\n• *instance_id:* `i-0abc1234567890def`\n• *role:* `web`\n• *role:* `db`\n• *job:* `web`";
    let found = alerts("[FIRING:1] A (web-012:9100 web)", text);
    assert_eq!((&found[0].host, &found[0].instance_id, &found[0].role), (&None, &None, &None));
}

#[test]
fn a_value_that_poses_as_several_labels_is_not_believed() {
    let text = "*Alert:* x\n• *alertname:* `A`\n• *path:* `/` • *instance:* `db-01` • *role:* `db`";
    let found = alerts("[FIRING:1] A (web-012:9100 web)", text);
    assert_eq!((&found[0].host, &found[0].role), (&None, &None));
    assert!(!found[0].labels.contains_key("path"));
    let text = "*Alert:* x\n• *alertname:* `A`\n• *instance:* `db-01` • *role:* `db`";
    assert_eq!(alerts("[FIRING:1] A (web-012:9100 web)", text)[0].host, None);
}

#[test]
fn a_group_whose_instances_are_not_named_has_no_host() {
    for title in [
        "[FIRING:2] A web (web-012:9100 critical)",
        "[FIRING:1, RESOLVED:1] A (web-012:9100)",
        "[RESOLVED:2] A (web-012:9100)",
    ] {
        let found = alerts(title, "");
        assert_eq!((found.len(), &found[0].host, &found[0].role), (1, &None, &None), "{title}");
    }
}

#[test]
fn the_default_title_is_guessed_from_only_where_it_is_unambiguous() {
    let one = |title: &str| alerts(title, "").remove(0);
    let alert = one("[FIRING:1] A web (web-012:9100 node critical)");
    assert_eq!(
        (alert.role.as_deref(), alert.host.as_deref(), alert.severity.as_deref()),
        (Some("web"), Some("web-012"), Some("critical"))
    );
    let alert = one("[FIRING:1] A (web-012:9100 web-013:9100 web db critical warning)");
    assert_eq!((alert.role, alert.host, alert.severity), (None, None, None));
    // Without a group label the name stands among the values.
    assert_eq!(one("[FIRING:1]  (A web-012:9100)").name, "A");
    assert!(matches!(reading("[FIRING:1] ", ""), Reading::Unreadable(_)));
    // A mount point without its name still tells two conditions apart.
    let var = one("[FIRING:1] DiskFull (web-012:9100 /var web)");
    assert_ne!(var.identity(), one("[FIRING:1] DiskFull (web-012:9100 / web)").identity());
    assert_eq!(var.identity(), one("[RESOLVED] DiskFull (web-012:9100 /var web)").identity());
}

#[test]
fn the_sender_says_which_labels_are_role_and_host() {
    let sender =
        Sender { role: Some("service".to_owned()), instance: Some("node".to_owned()), ..alertmanager() };
    let text = "• *alertname:* `A`\n• *instance:* `exporter:1`\n• *node:* `web-012`\n• *role:* `x`\n• *service:* `web`";
    let shown = message(&event(&json!([{"title": "[FIRING:1] A", "text": text}])));
    let Reading::Alerts(found) = read(&sender, &shown, &known) else { panic!() };
    assert_eq!((found[0].role.as_deref(), found[0].host.as_deref()), (Some("web"), Some("web-012")));
    let by_default = alerts("[FIRING:1] A", "• *alertname:* `A`\n• *host:* `web-012`\n• *job:* `web`");
    assert_eq!(
        (by_default[0].role.as_deref(), by_default[0].host.as_deref()),
        (Some("web"), Some("web-012"))
    );
}

#[test]
fn plain_texts_blocks_and_fields_are_read_too() {
    let read_event = |event: &Value| match read(&alertmanager(), &message(event), &known) {
        Reading::Alerts(alerts) => alerts,
        other => panic!("{other:?}"),
    };
    let details = "[FIRING:1] A\n• *alertname:* `A`\n• *instance:* `web-012`\n• *role:* `web`";
    let base = |name: &str, value: Value| {
        let mut event = json!({"type": "message", "channel": "C1", "ts": "1.000001", "text": ""});
        event[name] = value;
        event
    };
    let section = json!([{"type": "section", "text": {"type": "mrkdwn", "text": details}}]);
    let fields = json!([{"title": "[FIRING:1] A", "fields": [{"title": "Instance", "value": "web-012"}, {"title": "role", "value": "`web`"}]}]);
    let lists = json!([{"title": "[FIRING:1] A", "text": "Labels:\n - alertname = A\n - instance = web-012\n - role = web\nAnnotations:\n - summary = down\nSource: x\n"}]);
    for event in [
        base("text", json!(details)),
        base("blocks", section),
        base("attachments", fields),
        base("attachments", lists),
    ] {
        let found = read_event(&event);
        assert_eq!(
            (found.len(), found[0].host.as_deref(), found[0].role.as_deref()),
            (1, Some("web-012"), Some("web")),
            "{event}"
        );
    }
    let two = read_event(&base("text", json!("[FIRING:1] A (web-012:9100)\n[RESOLVED] B (web-013:9100)")));
    let seen: Vec<_> =
        two.iter().map(|alert| (alert.name.as_str(), alert.status, alert.host.as_deref().unwrap())).collect();
    assert_eq!(seen, [("A", Status::Firing, "web-012"), ("B", Status::Resolved, "web-013")]);
}

#[test]
fn what_is_no_notification_says_why() {
    let of = |attachments: Value, text: &str| {
        let mut event = event(&attachments);
        event["text"] = json!(text);
        read(&alertmanager(), &message(&event), &known)
    };
    assert!(matches!(of(json!([]), ""), Reading::NotAnAlert(_)));
    assert!(matches!(of(json!([{"fallback": "[no preview available]"}]), ""), Reading::NotAnAlert(_)));
    assert!(matches!(of(json!([]), "Hello, World!"), Reading::Unreadable(why) if why.contains("[FIRING:n]")));
    let torn = json!([{"title": "[FIRING:1] A", "fallback": "[RESOLVED] A"}]);
    assert!(matches!(of(torn, ""), Reading::Unreadable(why) if why.contains("disagree")));
}
