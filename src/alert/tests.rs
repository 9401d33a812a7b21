//! The corpus of alert messages, hostile input, and the promises that hold for every format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod hosts;
mod markup;
mod messages;
mod patterns;

/// The pattern of the contract's style of in-house line.
pub(super) const LINE: &str =
    r"^\[(?<status>\w+)\] (?<instance>\S+) (?<role>[\w-]+):(?<alert>[\w-]+)( (?<summary>.*))?$";

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// `folder/name` and the file, of every message of the corpus.
static CORPUS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let mut all = BTreeMap::new();
    for folder in std::fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
            all.insert(format!("{}/{}", name(&folder), name(&file)), json_of(&file));
        }
    }
    assert!(all.len() >= 80, "the corpus lies in {}", corpus().display());
    all
});

static ROLES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let inventory = json_of(&corpus().join("inventory.json"));
    inventory["roles"].as_array().unwrap().iter().map(|role| role.as_str().unwrap().to_owned()).collect()
});

fn known(role: &str) -> bool {
    ROLES.contains(role)
}

pub(super) fn alertmanager() -> Sender {
    Sender {
        name: "prometheus".to_owned(),
        format: Format::Alertmanager,
        bot_id: Some("B0PROM".to_owned()),
        app_id: None,
        user_id: None,
        role: None,
        instance: None,
        resolves: true,
    }
}

pub(super) fn lines(pattern: &str) -> Sender {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Sender {
        name: "old-nagios".to_owned(),
        format: Format::Pattern {
            pattern: regex::Regex::new(pattern).unwrap(),
            firing: words(&["CRITICAL", "WARNING"]),
            resolved: words(&["OK", "RECOVERY"]),
        },
        ..alertmanager()
    }
}

/// The corpus' own allow-list as config, without the bot itself.
fn senders() -> Vec<Arc<Sender>> {
    let list = json_of(&corpus().join("senders.json"));
    let senders = list["senders"].as_object().unwrap().iter().filter(|(name, _)| *name != "heal");
    senders
        .map(|(name, ids)| {
            let base = if name == "alertmanager" { alertmanager() } else { lines(LINE) };
            let bot_id = ids["bot_id"].as_str().map(str::to_owned);
            Arc::new(Sender { name: name.clone(), bot_id, ..base })
        })
        .collect()
}

/// The message an event is about: as posted, or as it is after an edit.
pub(super) fn message(event: &Value) -> Message {
    match Message::from_event(event).unwrap() {
        Event::Posted(message) | Event::Edited { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

/// A message of the corpus, read by whom it is from, trusted or not.
fn reading(name: &str) -> Reading {
    let file = &CORPUS[name];
    let sender =
        if name.contains("alertmanager") || is_alertmanager(file) { alertmanager() } else { lines(LINE) };
    read(&sender, &message(&file["event"]), &known)
}

fn is_alertmanager(file: &Value) -> bool {
    file["event"]["bot_id"] == "B09FE84ADC4"
}

fn alerts(reading: Reading) -> Vec<Alert> {
    match reading {
        Reading::Alerts(alerts) => alerts,
        other => panic!("{other:?}"),
    }
}

/// The messages whose format this module reads.
fn readable() -> Vec<&'static str> {
    let other_shapes = ["plain/firing_jp_fullwidth_brackets", "plain/firing_key_value_code_block"];
    CORPUS
        .keys()
        .map(String::as_str)
        .filter(|name| {
            ["alertmanager/", "plain/", "adversarial/"].iter().any(|folder| name.starts_with(folder))
        })
        .filter(|name| !other_shapes.contains(name))
        .collect()
}

#[test]
fn every_readable_message_of_the_corpus_is_read_as_expected() {
    let mut wrong = Vec::new();
    for name in readable() {
        let expect = &CORPUS[name]["expect"];
        let wanted = expect["alerts"].as_array().unwrap();
        let found = match reading(name) {
            Reading::Alerts(alerts) => alerts,
            other if wanted.is_empty() => {
                assert!(!matches!(other, Reading::Alerts(_)));
                continue;
            }
            other => {
                wrong.push(format!("{name}: {other:?}"));
                continue;
            }
        };
        if found.len() != wanted.len() {
            wrong.push(format!("{name}: {} alerts, not {}: {found:#?}", found.len(), wanted.len()));
            continue;
        }
        for (alert, wanted) in found.iter().zip(wanted) {
            let seen = serde_json::to_value(alert).unwrap();
            for (member, wanted) in wanted.as_object().unwrap() {
                let got = match member.as_str() {
                    "alert" => &seen["name"],
                    "values" => {
                        // The corpus lists the values in brackets, not always the group's before them.
                        let said: BTreeSet<&str> = alert.labels[VALUES].split(' ').collect();
                        let wanted = wanted.as_array().unwrap();
                        if !wanted.iter().all(|word| said.contains(word.as_str().unwrap())) {
                            wrong.push(format!("{name}: values {said:?}"));
                        }
                        continue;
                    }
                    // Members that no built-in alert has: the sender does not name them.
                    "group_size" | "pod" | "namespace" => continue,
                    other => &seen[other],
                };
                if got != wanted {
                    wrong.push(format!("{name}: {member} is {got}, not {wanted}"));
                }
            }
            let status = wanted.get("status").unwrap_or(&expect["status"]);
            if seen["status"] != *status {
                wrong.push(format!("{name}: status {} not {status}", seen["status"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn firing_and_resolved_messages_of_the_corpus_have_one_identity() {
    let mut compared = 0;
    for name in readable() {
        let Some(other) = CORPUS[name]["expect"]["same_key_as"].as_str() else { continue };
        let keys = |name: &str| alerts(reading(name)).iter().map(Alert::identity).collect::<Vec<_>>();
        assert_eq!(keys(name), keys(other), "{name} and {other}");
        compared += 1;
    }
    assert!(compared >= 2, "{compared}");
}

#[test]
fn what_must_not_be_acted_on_has_no_host_no_role_or_does_not_fire() {
    for name in readable() {
        let file = &CORPUS[name];
        if file["expect"]["must_not_act"] != true || file["expect"]["trusted"] == false {
            continue;
        }
        // A watchdog is an alert like any other, for which nobody writes a rule; see the next test.
        if name == "alertmanager/watchdog_heartbeat" {
            continue;
        }
        if let Reading::Alerts(alerts) = reading(name) {
            for alert in alerts {
                let target = alert.host.is_some() || alert.instance_id.is_some();
                assert!(
                    alert.status == Status::Resolved || !target || alert.role.is_none(),
                    "{name}: {alert:#?}"
                );
            }
        }
    }
}

#[test]
fn a_watchdog_names_no_host() {
    let found = alerts(reading("alertmanager/watchdog_heartbeat"));
    assert_eq!((found[0].name.as_str(), &found[0].host, &found[0].role), ("Watchdog", &None, &None));
}

#[test]
fn only_the_senders_of_the_allow_list_are_trusted() {
    let senders = senders();
    for (name, file) in CORPUS.iter() {
        let wanted = file["expect"]["trusted"].as_bool().unwrap();
        let trusted = match Message::from_event(&file["event"]) {
            Ok(Event::Posted(message) | Event::Edited { message, .. }) => {
                super::trusted(&senders, &message).is_some()
            }
            _ => false,
        };
        assert_eq!(trusted, wanted, "{name}");
    }
}

#[test]
fn hostile_values_stay_out_of_hosts_roles_and_ids() {
    for (name, file) in CORPUS.iter() {
        for unsafe_value in file["expect"]["unsafe_values"].as_array().into_iter().flatten() {
            let unsafe_value = unsafe_value.as_str().unwrap();
            let Reading::Alerts(alerts) = reading(name) else { continue };
            for alert in alerts {
                for member in [&alert.role, &alert.host, &alert.instance_id] {
                    assert!(
                        member.as_ref().is_none_or(|value| !value.contains(unsafe_value)),
                        "{name}: {alert:#?}"
                    );
                }
            }
        }
    }
}

#[test]
fn no_message_of_the_corpus_panics_any_reader() {
    for file in CORPUS.values() {
        never_panics(&file["event"]);
    }
}

fn never_panics(event: &Value) {
    static READERS: LazyLock<[Sender; 3]> =
        LazyLock::new(|| [alertmanager(), lines(LINE), lines(r"(?s)(?<alert>\w+).*?(?<status>\w+)?")]);
    if let Ok(Event::Posted(message) | Event::Edited { message, .. }) = Message::from_event(event) {
        for sender in READERS.iter() {
            if let Reading::Alerts(alerts) = read(sender, &message, &known) {
                for alert in alerts {
                    assert!(!alert.name.is_empty());
                    assert!(alert.host.as_deref().is_none_or(|host| {
                        host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
                    }));
                    assert!(serde_json::to_string(&alert).unwrap().len() < 1_000_000);
                }
            }
        }
    }
}

#[test]
fn the_longest_messages_are_read_in_bounded_time() {
    let mut longest = Duration::ZERO;
    for unit in [
        "<",
        "[FIRING:1] ",
        "• *a:* `b`\n",
        "*Alert:* x\n• *instance:* `a-1`\n",
        "((((",
        ":",
        "*:*",
        "[",
        "&lt;",
    ] {
        let text = unit.repeat(40_000 / unit.len());
        for field in ["text", "fallback", "title", "pretext"] {
            let attachments = vec![json!({ field: text }); 5];
            let began = Instant::now();
            never_panics(&json!({
                "type": "message", "channel": "C1", "ts": "1.000001", "text": text, "attachments": attachments,
            }));
            let took = began.elapsed();
            longest = longest.max(took);
        }
    }
    // Generous for a debug build on a busy machine; anything quadratic takes minutes.
    assert!(longest < Duration::from_secs(10), "{longest:?}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        "\\PC{0,40}",
        Just("[FIRING:1] X (web-012:9100 critical) | <https://a/b|c>".to_owned()),
        Just("• *instance:* `web-012:9100`\n• *alertname:* `X`".to_owned()),
        Just("[CRITICAL] a,b R:A text".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let name = prop_oneof![
        "[a-z_]{1,8}",
        proptest::sample::select(vec![
            "type",
            "subtype",
            "text",
            "ts",
            "attachments",
            "blocks",
            "fields",
            "title",
            "value",
            "fallback",
            "message",
            "elements",
            "bot_id",
            "pretext",
            "title_link",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Replaces the `nth` value anywhere within `value`.
fn mutate(value: &mut Value, nth: &mut usize, with: &Value) {
    if *nth == 0 {
        *value = with.clone();
        *nth = usize::MAX;
        return;
    }
    *nth -= 1;
    match value {
        Value::Array(list) => list.iter_mut().for_each(|inner| mutate(inner, nth, with)),
        Value::Object(map) => map.values_mut().for_each(|inner| mutate(inner, nth, with)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_json_panics_the_readers(content in any_json()) {
        never_panics(&content);
        for name in ["text", "attachments", "blocks"] {
            let mut event = json!({"type": "message", "channel": "C1", "ts": "1.000001"});
            event[name] = content.clone();
            never_panics(&event);
        }
        never_panics(&json!({"type": "message", "channel": "C1", "ts": "1.000001", "attachments": [content]}));
    }

    #[test]
    fn no_mutated_message_panics_the_readers(at in 0..CORPUS.len(), nth in 0usize..80, with in any_json()) {
        let mut event = CORPUS.values().nth(at).unwrap()["event"].clone();
        let mut nth = nth;
        mutate(&mut event, &mut nth, &with);
        never_panics(&event);
    }
}
