use serde_json::json;

use super::*;

fn said(text: &str) -> Message {
    message(&json!({"type": "message", "channel": "C1", "ts": "1.000001", "bot_id": "B0PROM", "text": text}))
}

fn by(pattern: &str, text: &str) -> Reading {
    read(&lines(pattern), &said(text), &known)
}

#[test]
fn a_line_becomes_an_alert_with_all_its_groups() {
    let pattern = r"^\[(?<status>\w+)\] (?<instance>\S+) (?<role>[\w-]+):(?<alert>[\w-]+) (?<mount>\S+)$";
    let found = alerts(by(pattern, "[critical] web-012:9100 WEB_FRONT:DISK_FULL /var"));
    let [alert] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(alert.name, "DISK_FULL");
    assert_eq!(alert.role.as_deref(), Some("WEB_FRONT"));
    assert_eq!((alert.host.as_deref(), alert.instance.as_deref()), (Some("web-012"), Some("web-012:9100")));
    assert_eq!(alert.severity.as_deref(), Some("critical"));
    assert_eq!(alert.labels["mount"], "/var");
    assert_eq!(alert.status, Status::Firing);
}

#[test]
fn every_line_of_a_list_is_read() {
    let text = "Report\n[CRITICAL] web-012 W:A\n[WARNING] web-013 W:A\n[OK] web-014 W:A\n";
    let found = alerts(by(LINE, text));
    let hosts: Vec<_> = found.iter().map(|alert| (alert.host.as_deref().unwrap(), alert.status)).collect();
    assert_eq!(
        hosts,
        [("web-012", Status::Firing), ("web-013", Status::Firing), ("web-014", Status::Resolved)]
    );
}

#[test]
fn a_pattern_may_span_lines() {
    let pattern = r"(?s)host=(?<instance>\S+).*role=(?<role>\S+).*alert=(?<alert>\S+)";
    let found = alerts(by(pattern, "```\nhost=db-01\nrole=DB\nalert=STOPPED\n```"));
    assert_eq!(
        (found.len(), found[0].host.as_deref(), found[0].name.as_str()),
        (1, Some("db-01"), "STOPPED")
    );
    assert_eq!(found[0].status, Status::Firing);
}

#[test]
fn attachments_are_read_where_the_text_says_nothing() {
    let attachment = json!({"fallback": "[CRITICAL] web-012 W:A down", "title": "[CRITICAL] web-012 W:A down", "title_link": "https://n/1"});
    let event = json!({"type": "message", "channel": "C1", "ts": "1.000001", "attachments": [attachment]});
    let found = alerts(read(&lines(LINE), &message(&event), &known));
    assert_eq!((found.len(), found[0].link.as_deref()), (1, Some("https://n/1")));
}

#[test]
fn what_is_no_alert_says_why() {
    assert!(matches!(by(LINE, "[ACK] web-012 W:A"), Reading::NotAnAlert(why) if why.contains("ACK")));
    assert!(matches!(by(LINE, ""), Reading::NotAnAlert(_)));
    assert!(matches!(by(LINE, "hello"), Reading::Unreadable(_)));
    assert!(matches!(by(r"^(?<status>\w+) (?<alert>x*)$", "CRITICAL "), Reading::Unreadable(_)));
    let many: String = (0..300)
        .map(|n| {
            format!(
                "[CRITICAL] web-{n} W:A
"
            )
        })
        .collect();
    assert!(matches!(by(LINE, &many), Reading::Unreadable(_)));
}

#[test]
fn usual_words_stand_in_for_lists_that_are_not_given() {
    let mut sender = lines(LINE);
    let Format::Pattern { firing, resolved, .. } = &mut sender.format else { panic!() };
    *firing = vec!["OK".to_owned()];
    resolved.clear();
    let status = |text: &str| match read(&sender, &said(text), &known) {
        Reading::Alerts(alerts) => Some(alerts[0].status),
        _ => None,
    };
    // The config's own word wins over the usual meaning.
    assert_eq!(status("[OK] web-012 W:A"), Some(Status::Firing));
    assert_eq!(status("[RECOVERED] web-012 W:A"), Some(Status::Resolved));
    assert_eq!(status("[CRITICAL] web-012 W:A"), None);
}

#[test]
fn a_name_or_role_that_mixes_look_alike_letters_is_not_believed() {
    let found = alerts(by(LINE, "[CRITICAL] web-012 WЕB:A"));
    assert_eq!(found[0].role, None);
    assert!(!found[0].labels.contains_key("role"));
    assert!(matches!(by(LINE, "[CRITICAL] web-012 WEB:HTTР"), Reading::Unreadable(_)));
    let kanji = alerts(by(LINE, "[CRITICAL] web-012 WEBサーバ:停止"));
    assert_eq!((kanji[0].role.as_deref(), kanji[0].name.as_str()), (Some("WEBサーバ"), "停止"));
}

#[test]
fn an_invisible_character_spoils_the_host() {
    let found = alerts(by(LINE, "[CRITICAL] web\u{200b}-012 WEB:A"));
    assert_eq!((found[0].host.as_deref(), found[0].instance.as_deref()), (None, Some("web-012")));
}
