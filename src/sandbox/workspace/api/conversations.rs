//! Reading channels: history and replies with cursors and bounds, lists and membership.

use serde_json::{Value, json};

use super::super::message::{is_reply, string};
use super::super::view::{Room, View};
use super::{Answer, Args, Fail};

pub(super) fn history(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, true)?;
    let Some(room) = view.rooms.get(&channel) else { return Err(Fail::new("channel_not_found")) };
    let top = |m: &&Value| !is_reply(m) || m["subtype"] == "thread_broadcast";
    let newest_first: Vec<&Value> = room.messages.values().rev().filter(top).collect();
    page(args, newest_first, 100, 999, |answer| answer)
}

pub(super) fn replies(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, true)?;
    let ts = args.need("ts")?;
    let Some(room) = view.rooms.get(&channel) else { return Err(Fail::new("channel_not_found")) };
    let asked = room.messages.get(&ts).ok_or_else(|| Fail::new("thread_not_found"))?;
    // The stamp of a reply finds the reply alone, as in Slack.
    if is_reply(asked) {
        return page(args, vec![asked], 1_000, 1_000, |answer| answer);
    }
    let stamps = room.replies.get(&ts).into_iter().flatten();
    let all = std::iter::once(asked).chain(stamps.filter_map(|ts| room.messages.get(ts))).collect();
    page(args, all, 1_000, 1_000, |answer| answer)
}

/// Cuts the asked-for page out of messages that are in the answer's order already.
fn page(
    args: &Args,
    all: Vec<&Value>,
    usual: usize,
    most: usize,
    finish: impl FnOnce(Value) -> Value,
) -> Answer {
    let limit = args.number("limit").unwrap_or(usual).clamp(1, most);
    let inclusive = args.flag("inclusive");
    let (oldest, latest) = (stamp(args, "oldest")?, stamp(args, "latest")?);
    let inside = |m: &&&Value| {
        let ts = m["ts"].as_str().unwrap_or_default();
        let after = oldest.as_deref().is_none_or(|o| if inclusive { ts >= o } else { ts > o });
        let before = latest.as_deref().is_none_or(|l| if inclusive { ts <= l } else { ts < l });
        after && before
    };
    let mut list: Vec<&Value> = all.iter().filter(inside).copied().collect();
    if let Some(cursor) = args.text("cursor") {
        let after = cursor.strip_prefix("after:").ok_or_else(|| Fail::new("invalid_cursor"))?;
        let at = list.iter().position(|m| m["ts"] == after).ok_or_else(|| Fail::new("invalid_cursor"))?;
        list.drain(..=at);
    }
    let more = list.len() > limit;
    list.truncate(limit);
    let next = if more { list.last().and_then(|m| string(m, "ts")) } else { None };
    let with_metadata = args.flag("include_all_metadata");
    let messages: Vec<Value> = list
        .into_iter()
        .map(|m| {
            let mut m = m.clone();
            if !with_metadata && let Some(map) = m.as_object_mut() {
                map.remove("metadata");
            }
            m
        })
        .collect();
    let cursor = next.map(|ts| format!("after:{ts}")).unwrap_or_default();
    Ok(finish(json!({"messages": messages, "has_more": more, "response_metadata": {"next_cursor": cursor}})))
}

/// A bound as a stamp of full width, so that stamps compare as text. `0` and absence are no bound.
fn stamp(args: &Args, name: &str) -> Result<Option<String>, Fail> {
    let Some(given) = args.text(name) else { return Ok(None) };
    if given == "now" {
        return Ok(None);
    }
    let (seconds, fraction) = given.split_once('.').unwrap_or((&given, ""));
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) {
        return Err(Fail::new(format!("invalid_ts_{name}")));
    }
    Ok(Some(format!("{:0>10}.{:0<6}", seconds, fraction)))
}

pub(super) fn list(view: &mut View, args: &Args) -> Answer {
    let limit = args.number("limit").unwrap_or(100).clamp(1, 1_000);
    let from = match args.text("cursor") {
        None => 0,
        Some(cursor) => cursor
            .strip_prefix("channel:")
            .and_then(|n| n.parse::<usize>().ok())
            .ok_or_else(|| Fail::new("invalid_cursor"))?,
    };
    let all: Vec<Value> = view.rooms.values().map(|r| describe(view, r)).collect();
    let page: Vec<&Value> = all.iter().skip(from).take(limit).collect();
    let next = if from + limit < all.len() { format!("channel:{}", from + limit) } else { String::new() };
    Ok(json!({"channels": page, "response_metadata": {"next_cursor": next}}))
}

pub(super) fn info(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, false)?;
    let room = view.rooms.get(&channel).ok_or_else(|| Fail::new("channel_not_found"))?;
    Ok(json!({"channel": describe(view, room)}))
}

pub(super) fn join(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, false)?;
    let room = view.rooms.get_mut(&channel).ok_or_else(|| Fail::new("channel_not_found"))?;
    let already = std::mem::replace(&mut room.is_member, true);
    let room = view.rooms.get(&channel).ok_or_else(|| Fail::new("channel_not_found"))?;
    let mut answer = json!({"channel": describe(view, room)});
    if already {
        answer["warning"] = "already_in_channel".into();
        answer["response_metadata"] = json!({"warnings": ["already_in_channel"]});
    }
    Ok(answer)
}

fn describe(view: &View, room: &Room) -> Value {
    json!({"id": room.id, "name": room.name, "name_normalized": room.name, "is_channel": true,
        "is_group": false, "is_im": false, "is_mpim": false, "is_private": false, "is_archived": false,
        "is_general": false, "is_shared": false, "is_ext_shared": false, "is_org_shared": false,
        "is_member": room.is_member, "created": 1_700_000_000, "creator": "U0LEAD", "unlinked": 0,
        "context_team_id": view.options.team_id, "num_members": view.options.users.len(),
        "topic": {"value": "", "creator": "", "last_set": 0},
        "purpose": {"value": "", "creator": "", "last_set": 0}, "previous_names": []})
}
