use serde_json::{Value, json};

use super::super::validate_blocks;

fn text(n: usize) -> Value {
    json!({"type": "mrkdwn", "text": "x".repeat(n)})
}

fn plain(n: usize) -> Value {
    json!({"type": "plain_text", "text": "x".repeat(n)})
}

fn button(id: &str) -> Value {
    json!({"type": "button", "action_id": id, "text": plain(5)})
}

#[test]
fn what_slack_takes_is_taken() {
    let dialog = json!({"title": plain(100), "text": text(300), "confirm": plain(30), "deny": plain(30)});
    let blocks = json!([
        {"type": "header", "text": plain(150)},
        {"type": "section", "text": text(3_000), "block_id": "a"},
        {"type": "section", "fields": [text(2_000), plain(20)], "block_id": "b"},
        {"type": "divider"},
        {"type": "context", "elements": [text(5), {"type": "image", "image_url": "https://x", "alt_text": "x"}]},
        {"type": "actions", "elements": [
            {"type": "button", "text": plain(75), "value": "v".repeat(2_000), "action_id": "x".repeat(255),
                "style": "danger", "confirm": dialog},
            {"type": "overflow", "action_id": "more", "options": [{"text": plain(5), "value": "1"}]},
        ]},
        {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [
            {"type": "text", "text": "uptime"}]}]},
    ]);
    assert_eq!(validate_blocks(&blocks), Ok(()));
}

#[test]
fn every_limit_is_refused_with_its_place() {
    let actions = |n: usize| {
        let elements: Vec<Value> = (0..n).map(|i| button(&format!("a{i}"))).collect();
        json!([{"type": "actions", "elements": elements}])
    };
    let one = |element: Value| json!([{"type": "actions", "elements": [element]}]);
    let with = |mut element: Value, name: &str, value: Value| {
        element[name] = value;
        element
    };
    let fifty_one: Vec<Value> = (0..51).map(|_| json!({"type": "divider"})).collect();
    let dialog = |title, sentence, yes, no| json!({"title": plain(title), "text": plain(sentence), "confirm": plain(yes), "deny": plain(no)});
    for (blocks, problem) in [
        (json!(fifty_one), "no more than 50 items allowed [json-pointer:/blocks]"),
        (
            json!([{"type": "section", "text": text(3_001)}]),
            "must be less than 3001 characters [json-pointer:/blocks/0/text/text]",
        ),
        (json!([{"type": "section", "text": text(0)}]), "must be more than 0 characters"),
        (json!([{"type": "section"}]), "missing required field: text [json-pointer:/blocks/0]"),
        (json!([{"type": "section", "fields": vec![text(1); 11]}]), "no more than 10 items allowed"),
        (json!([{"type": "section", "fields": [text(2_001)]}]), "must be less than 2001 characters"),
        (
            json!([{"type": "section", "text": text(1), "colour": "red"}]),
            "invalid additional property: colour",
        ),
        (json!([{"type": "header", "text": plain(151)}]), "must be less than 151 characters"),
        (json!([{"type": "header", "text": text(1)}]), "must be plain_text"),
        (json!([{"type": "context", "elements": vec![text(1); 11]}]), "no more than 10 items allowed"),
        (json!([{"type": "context", "elements": [button("a")]}]), "unsupported type: button"),
        (json!([{"type": "context", "elements": []}]), "must have at least 1 item"),
        (actions(26), "no more than 25 items allowed"),
        (
            json!([{"type": "actions", "elements": [button("a"), button("a")]}]),
            "`action_id` a already exists",
        ),
        (one(with(button("a"), "text", plain(76))), "must be less than 76 characters"),
        (one(with(button("a"), "text", text(5))), "must be plain_text"),
        (one(with(button("a"), "value", json!("v".repeat(2_001)))), "must be less than 2001 characters"),
        (one(with(button("a"), "value", json!(7))), "must be a string"),
        (one(button(&"a".repeat(256))), "must be less than 256 characters"),
        (one(with(button("a"), "style", json!("warning"))), "must be one of: primary, danger"),
        (one(with(button("a"), "confirm", dialog(101, 1, 1, 1))), "must be less than 101 characters"),
        (one(with(button("a"), "confirm", dialog(1, 301, 1, 1))), "must be less than 301 characters"),
        (one(with(button("a"), "confirm", dialog(1, 1, 31, 1))), "must be less than 31 characters"),
        (one(with(button("a"), "confirm", dialog(1, 1, 1, 31))), "must be less than 31 characters"),
        (one(with(button("a"), "confirm", json!({"title": plain(1)}))), "missing required field: text"),
        (one(json!({"type": "knob"})), "unsupported type: knob [json-pointer:/blocks/0/elements/0/type]"),
        (json!([{"type": "chart"}]), "unsupported type: chart [json-pointer:/blocks/0/type]"),
        (json!([{"text": "x"}]), "missing required field: type"),
        (json!({"type": "divider"}), "must provide an array"),
        (
            json!([{"type": "divider", "block_id": "b"}, {"type": "divider", "block_id": "b"}]),
            "`block_id` b already exists",
        ),
        (json!([{"type": "divider", "block_id": "b".repeat(256)}]), "must be less than 256 characters"),
        (
            json!([{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [{"type": "text"}]}]}]),
            "missing required field: text",
        ),
    ] {
        let problems = validate_blocks(&blocks).expect_err(problem);
        assert!(problems.iter().any(|p| p.contains(problem)), "{problem}: {problems:?}");
    }
}

#[test]
fn all_blocks_together_have_a_limit_too() {
    let blocks: Vec<Value> = (0..5).map(|_| json!({"type": "section", "text": text(2_700)})).collect();
    let problems = validate_blocks(&json!(blocks)).unwrap_err();
    assert_eq!(super::super::blocks::error_code(&problems), "msg_blocks_too_long");
}
