//! What Slack makes of a message before it stores it, as described in the alert corpus: attachments
//! get an id, colour names become hex, blocks get ids, bare URLs become links, empty members vanish.

use serde_json::{Map, Value, json};

/// The longest text of a message; the rest is cut off.
const TEXT: usize = 40_000;

/// Text as stored: control markup kept, lone `&`, `<`, `>` escaped, bare URLs linked.
pub(super) fn text(text: &str) -> String {
    let cut: String =
        if text.chars().count() > TEXT { text.chars().take(TEXT).collect() } else { text.into() };
    let mut out = String::with_capacity(cut.len() + 16);
    let mut rest = cut.as_str();
    let mut word_starts = true;
    while let Some(c) = rest.chars().next() {
        if c == '<'
            && let Some(end) = rest.find('>')
            && rest.get(1..end).is_some_and(is_markup)
        {
            out.push_str(&rest[..=end]);
            rest = &rest[end + 1..];
            continue;
        }
        if word_starts && (rest.starts_with("http://") || rest.starts_with("https://")) {
            let end = rest
                .find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '|' | '"' | '`'))
                .unwrap_or(rest.len());
            let url = rest[..end].trim_end_matches(['.', ',', ')', ';', ':', '!', '?']);
            out.push('<');
            out.push_str(&url.replace("&amp;", "&").replace('&', "&amp;"));
            out.push('>');
            rest = &rest[url.len()..];
            continue;
        }
        match c {
            '&' if ["&amp;", "&lt;", "&gt;"].iter().any(|e| rest.starts_with(e)) => out.push('&'),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
        word_starts = !c.is_alphanumeric() && c != '`';
        rest = &rest[c.len_utf8()..];
    }
    out
}

fn is_markup(inside: &str) -> bool {
    !inside.contains(['<', '\n'])
        && (inside.starts_with(['@', '#', '!'])
            || ["http://", "https://", "mailto:", "tel:"].iter().any(|s| inside.starts_with(s)))
}

/// Blocks as stored. `made` gives fresh ids.
pub(super) fn blocks(blocks: &Value, made: &mut impl FnMut() -> String) -> Value {
    let Some(list) = blocks.as_array() else { return json!([]) };
    let mut out = list.clone();
    for block in &mut out {
        if let Some(map) = block.as_object_mut() {
            if map.get("block_id").and_then(Value::as_str).is_none_or(str::is_empty) {
                map.insert("block_id".to_owned(), made().into());
            }
            for (_, member) in map.iter_mut() {
                fill(member, made);
            }
        }
    }
    Value::Array(out)
}

fn fill(value: &mut Value, made: &mut impl FnMut() -> String) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|v| fill(v, made)),
        Value::Object(map) => {
            match map.get("type").and_then(Value::as_str).map(str::to_owned).as_deref() {
                Some("mrkdwn") => {
                    map.entry("verbatim").or_insert(false.into());
                }
                Some("plain_text") => {
                    map.entry("emoji").or_insert(true.into());
                }
                Some("button" | "overflow" | "static_select" | "checkboxes" | "radio_buttons")
                    if map.get("action_id").and_then(Value::as_str).is_none_or(str::is_empty) =>
                {
                    map.insert("action_id".to_owned(), made().into());
                }
                _ => {}
            }
            map.iter_mut().for_each(|(_, v)| fill(v, made));
        }
        _ => {}
    }
}

/// Attachments as stored.
pub(super) fn attachments(list: &Value, made: &mut impl FnMut() -> String) -> Value {
    let Some(list) = list.as_array() else { return json!([]) };
    let mut out = Vec::new();
    for (i, attachment) in list.iter().enumerate() {
        let Some(map) = attachment.as_object() else { continue };
        let mut kept = Map::new();
        kept.insert("id".to_owned(), (i + 1).into());
        for (name, value) in map {
            if name == "id" || is_empty(value) {
                continue;
            }
            let value = match (name.as_str(), value.as_str()) {
                ("color", Some(colour)) => hex(colour).into(),
                ("text" | "pretext" | "fallback", Some(t)) => text(t).into(),
                ("fields", _) => fields(value),
                ("blocks", _) => blocks(value, made),
                _ => value.clone(),
            };
            kept.insert(name.clone(), value);
        }
        kept.entry("fallback").or_insert("[no preview available]".into());
        out.push(Value::Object(kept));
    }
    Value::Array(out)
}

fn fields(value: &Value) -> Value {
    let list = value.as_array().cloned().unwrap_or_default();
    Value::Array(
        list.into_iter()
            .filter_map(|field| match field {
                Value::Object(mut map) => {
                    if let Some(t) = map.get("value").and_then(Value::as_str).map(text) {
                        map.insert("value".to_owned(), t.into());
                    }
                    map.entry("short").or_insert(false.into());
                    Some(Value::Object(map))
                }
                _ => None,
            })
            .collect(),
    )
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn hex(colour: &str) -> String {
    match colour {
        "danger" => "a30200".to_owned(),
        "warning" => "daa038".to_owned(),
        "good" => "2eb886".to_owned(),
        other => other.trim_start_matches('#').to_owned(),
    }
}

/// What Slack says about metadata that has not the shape it wants, if anything.
pub(super) fn metadata_problem(metadata: &Value) -> Option<&'static str> {
    let map = match metadata.as_object() {
        Some(map) => map,
        None => return Some("metadata must be an object"),
    };
    if map.get("event_type").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Some("metadata.event_type must be a non-empty string");
    }
    if !map.get("event_payload").is_some_and(Value::is_object) {
        return Some("metadata.event_payload must be an object");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_linked_as_slack_stores_it() {
        for (given, stored) in [
            ("a & b", "a &amp; b"),
            ("a &amp; b &lt;", "a &amp; b &lt;"),
            ("<@U1> <https://x|y> 1 < 2 > 0", "<@U1> <https://x|y> 1 &lt; 2 &gt; 0"),
            ("see https://example.com/a?b=1&c=2.", "see <https://example.com/a?b=1&amp;c=2>."),
            ("`https://kept.example`", "`https://kept.example`"),
        ] {
            assert_eq!(text(given), stored, "{given}");
        }
    }

    #[test]
    fn attachments_get_ids_hex_colours_and_a_fallback() {
        let mut made = || "x".to_owned();
        let stored =
            attachments(&json!([{"color": "danger", "title": "t", "text": "", "fields": []}]), &mut made);
        assert_eq!(
            stored,
            json!([{"id": 1, "color": "a30200", "title": "t", "fallback": "[no preview available]"}])
        );
    }

    #[test]
    fn blocks_get_block_ids_action_ids_and_text_flags() {
        let mut n = 0;
        let mut made = || {
            n += 1;
            format!("id{n}")
        };
        let stored = blocks(
            &json!([{"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "Go"}}]}]),
            &mut made,
        );
        assert_eq!(
            stored,
            json!([{"type": "actions", "block_id": "id1", "elements": [{"type": "button", "action_id": "id2",
                "text": {"type": "plain_text", "text": "Go", "emoji": true}}]}])
        );
    }
}
