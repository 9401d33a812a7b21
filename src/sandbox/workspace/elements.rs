//! The pieces inside blocks: buttons, menus, confirm dialogs, images, rich text.

use serde_json::{Map, Value};

use super::blocks::{Check, Text};

/// Where an interactive element stands; not every element may stand everywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Actions,
    Accessory,
}

pub(super) fn image(check: &mut Check, value: &Value, at: &str) {
    let Some(map) = check.object(value, at) else { return };
    check.members(map, at, &["image_url", "slack_file", "alt_text"]);
    image_source(check, map, at);
}

pub(super) fn image_source(check: &mut Check, map: &Map<String, Value>, at: &str) {
    check.string(map, "alt_text", at, 2_000, true);
    if !map.contains_key("slack_file") {
        check.string(map, "image_url", at, 3_000, true);
    }
}

pub(super) fn interactive(check: &mut Check, value: &Value, at: &str, place: Place) {
    let Some(map) = check.object(value, at) else { return };
    let common = ["action_id", "confirm"];
    let with = |more: &[&'static str]| -> Vec<&'static str> { common.iter().chain(more).copied().collect() };
    match map.get("type").and_then(Value::as_str) {
        Some("button") => {
            check.members(map, at, &with(&["text", "value", "url", "style", "accessibility_label"]));
            check.text(map, "text", at, Text::Plain, 75, true);
            check.string(map, "value", at, 2_000, false);
            check.string(map, "url", at, 3_000, false);
            check.string(map, "accessibility_label", at, 75, false);
            style(check, map, at);
        }
        Some("overflow") => {
            check.members(map, at, &with(&["options"]));
            options(check, map, at, 5);
        }
        Some(kind @ ("static_select" | "multi_static_select")) => {
            check.members(
                map,
                at,
                &with(&[
                    "placeholder",
                    "options",
                    "option_groups",
                    "initial_option",
                    "initial_options",
                    "focus_on_load",
                    "max_selected_items",
                ]),
            );
            check.text(map, "placeholder", at, Text::Plain, 150, false);
            if !map.contains_key("option_groups") {
                options(check, map, at, 100);
            }
            if kind == "multi_static_select" && place == Place::Actions {
                check.unsupported(Some(kind), at);
            }
        }
        Some("radio_buttons" | "checkboxes") => {
            check.members(map, at, &with(&["options", "initial_option", "initial_options", "focus_on_load"]));
            options(check, map, at, 10);
        }
        Some(
            "users_select"
            | "conversations_select"
            | "channels_select"
            | "external_select"
            | "datepicker"
            | "timepicker"
            | "datetimepicker"
            | "workflow_button",
        ) => {
            check.text(map, "placeholder", at, Text::Plain, 150, false);
        }
        other => return check.unsupported(other, at),
    }
    check.action_id(map, at);
    if let Some(dialog) = map.get("confirm") {
        confirm(check, dialog, &format!("{at}/confirm"));
    }
}

fn style(check: &mut Check, map: &Map<String, Value>, at: &str) {
    match map.get("style").map(Value::as_str) {
        None | Some(Some("primary" | "danger")) => {}
        Some(_) => check.problem(&format!("{at}/style"), "must be one of: primary, danger"),
    }
}

fn confirm(check: &mut Check, value: &Value, at: &str) {
    let Some(map) = check.object(value, at) else { return };
    check.members(map, at, &["title", "text", "confirm", "deny", "style"]);
    check.text(map, "title", at, Text::Plain, 100, true);
    check.text(map, "text", at, Text::Any, 300, true);
    check.text(map, "confirm", at, Text::Plain, 30, true);
    check.text(map, "deny", at, Text::Plain, 30, true);
    style(check, map, at);
}

fn options(check: &mut Check, map: &Map<String, Value>, at: &str, most: usize) {
    for (option, at) in check.items(map, "options", at, most) {
        let Some(map) = check.object(&option, &at) else { continue };
        check.members(map, &at, &["text", "value", "description", "url"]);
        check.text(map, "text", &at, Text::Any, 75, true);
        check.text(map, "description", &at, Text::Any, 75, false);
        check.string(map, "value", &at, 150, true);
        check.string(map, "url", &at, 3_000, false);
    }
}

pub(super) fn rich_text(check: &mut Check, value: &Value, at: &str) {
    let Some(map) = check.object(value, at) else { return };
    match map.get("type").and_then(Value::as_str) {
        Some("rich_text_section" | "rich_text_quote" | "rich_text_preformatted") => {
            check.members(map, at, &["elements", "border", "language"]);
            // An empty section is allowed (Slack's own editor makes them).
            if let Some(Value::Array(list)) = map.get("elements") {
                for (i, piece) in list.iter().enumerate() {
                    rich_piece(check, piece, &format!("{at}/elements/{i}"));
                }
            } else {
                check.problem(at, "missing required field: elements");
            }
        }
        Some("rich_text_list") => {
            check.members(map, at, &["elements", "style", "indent", "offset", "border"]);
            match map.get("style").and_then(Value::as_str) {
                Some("bullet" | "ordered") => {}
                _ => check.problem(&format!("{at}/style"), "must be one of: bullet, ordered"),
            }
            for (item, at) in check.items(map, "elements", at, usize::MAX) {
                rich_text(check, &item, &at);
            }
        }
        other => check.unsupported(other, at),
    }
}

fn rich_piece(check: &mut Check, piece: &Value, at: &str) {
    let Some(map) = check.object(piece, at) else { return };
    let needs = match map.get("type").and_then(Value::as_str) {
        Some("text") => "text",
        Some("link") => "url",
        Some("emoji") => "name",
        Some("user") => "user_id",
        Some("channel") => "channel_id",
        Some("usergroup") => "usergroup_id",
        Some("broadcast") => "range",
        Some("color") => "value",
        Some("date") => "format",
        other => return check.unsupported(other, at),
    };
    if let Some(text) = check.string(map, needs, at, usize::MAX - 1, true)
        && needs == "text"
    {
        check.count(&text);
    }
}
