//! Reactions. An emoji that Slack does not have is `invalid_name`.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::super::view::View;
use super::{Answer, Args, Fail};

/// The emoji the sandbox knows: the page's own list, one `name character` a line.
static NAMES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    super::super::super::page::EMOJI.lines().filter_map(|line| line.split_once(' ')).map(|(n, _)| n).collect()
});

pub(super) fn add(view: &mut View, args: &Args) -> Answer {
    let (channel, ts, name) = target(view, args)?;
    let user = view.options.bot.user_id.clone();
    react(view, &channel, &ts, &name, &user, true).map(|()| json!({}))
}

pub(super) fn remove(view: &mut View, args: &Args) -> Answer {
    let (channel, ts, name) = target(view, args)?;
    let user = view.options.bot.user_id.clone();
    react(view, &channel, &ts, &name, &user, false).map(|()| json!({}))
}

pub(super) fn get(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, true)?;
    let message =
        view.message(&channel, &args.need("timestamp")?).ok_or_else(|| Fail::new("message_not_found"))?;
    Ok(json!({"type": "message", "channel": channel, "message": message.raw}))
}

fn target(view: &View, args: &Args) -> Result<(String, String, String), Fail> {
    let name = args.need("name")?.trim_matches(':').to_owned();
    if !NAMES.contains(name.split("::").next().unwrap_or_default()) {
        return Err(Fail::new("invalid_name"));
    }
    Ok((args.channel_id(view, true)?, args.need("timestamp")?, name))
}

/// Adds or takes away somebody's reaction.
pub(in super::super) fn react(
    view: &mut View,
    channel: &str,
    ts: &str,
    name: &str,
    user: &str,
    add: bool,
) -> Result<(), Fail> {
    let room = view.room_mut(channel).ok_or_else(|| Fail::new("channel_not_found"))?;
    let channel = room.id.clone();
    let message = room.messages.get_mut(ts).ok_or_else(|| Fail::new("message_not_found"))?;
    let author = message["user"].clone();
    let mut list = message["reactions"].as_array().cloned().unwrap_or_default();
    let at = list.iter().position(|r| r["name"] == name);
    let has = |r: &Value| r["users"].as_array().is_some_and(|u| u.iter().any(|u| u == user));
    match (at.and_then(|i| list.get_mut(i)), add) {
        (Some(r), true) if has(r) => return Err(Fail::new("already_reacted")),
        (Some(r), true) => {
            if let Some(users) = r["users"].as_array_mut() {
                users.push(user.into());
            }
        }
        (None, true) => list.push(json!({"name": name, "users": [user]})),
        (Some(r), false) if has(r) => {
            if let Some(users) = r["users"].as_array_mut() {
                users.retain(|u| u != user);
            }
        }
        (_, false) => return Err(Fail::new("no_reaction")),
    }
    list.retain(|r| r["users"].as_array().is_some_and(|u| !u.is_empty()));
    for r in &mut list {
        r["count"] = r["users"].as_array().map_or(0, Vec::len).into();
    }
    if let Some(map) = message.as_object_mut() {
        if list.is_empty() {
            map.remove("reactions");
        } else {
            map.insert("reactions".to_owned(), list.into());
        }
    }
    let event_ts = view.stamp();
    let kind = if add { "reaction_added" } else { "reaction_removed" };
    let event = json!({"type": kind, "user": user, "reaction": name, "item_user": author, "event_ts": event_ts,
        "item": {"type": "message", "channel": channel, "ts": ts}});
    view.owe(&channel, event);
    Ok(())
}
