//! Posting, updating and deleting messages, and the answers given through a `response_url`.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::super::blocks;
use super::super::message::{Ephemeral, is_reply};
use super::super::stored;
use super::super::view::{ResponseUrl, View};
use super::{Answer, Args, Fail};

pub(super) fn post(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel(view, true)?;
    let mut message = content(view, args)?;
    if let Some(thread_ts) = thread_for(view, &channel, args)? {
        message.insert("thread_ts".to_owned(), thread_ts.into());
        if args.flag("reply_broadcast") {
            message.insert("subtype".to_owned(), "thread_broadcast".into());
        }
    }
    sign(view, &mut message);
    let ts = view.store(&channel, message);
    let stored = view.message(&channel, &ts).map(|m| m.raw).unwrap_or_default();
    Ok(json!({"channel": channel, "ts": ts, "message": stored}))
}

pub(super) fn update(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, true)?;
    let ts = args.need("ts")?;
    let mut message = own_message(view, &channel, &ts, "cant_update_message")?;
    let new = content(view, args)?;
    // Slack's reference: with text and no blocks, the earlier blocks go; metadata and attachments stay.
    message.remove("blocks");
    message.extend(new);
    message.insert("edited".to_owned(), json!({"user": view.options.bot.user_id, "ts": view.stamp()}));
    for name in ["blocks", "attachments"] {
        if message.get(name).and_then(Value::as_array).is_some_and(Vec::is_empty) {
            message.remove(name);
        }
    }
    let message = Value::Object(message);
    let text = message["text"].clone();
    view.replace(&channel, &ts, message.clone());
    Ok(json!({"channel": channel, "ts": ts, "text": text, "message": message}))
}

pub(super) fn delete(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, true)?;
    let ts = args.need("ts")?;
    own_message(view, &channel, &ts, "cant_delete_message")?;
    view.remove(&channel, &ts);
    Ok(json!({"channel": channel, "ts": ts}))
}

pub(super) fn post_ephemeral(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, true)?;
    let user = args.need("user")?;
    if !view.options.users.iter().any(|u| u.id == user) {
        return Err(Fail::new("user_not_in_channel"));
    }
    let thread_ts = thread_for(view, &channel, args)?;
    let mut message = content(view, args)?;
    sign(view, &mut message);
    let ts = add_ephemeral(view, &channel, &user, thread_ts, message);
    Ok(json!({"message_ts": ts}))
}

pub(super) fn permalink(view: &mut View, args: &Args) -> Answer {
    let channel = args.channel_id(view, false)?;
    let ts = args.need("message_ts")?;
    let message = view.message(&channel, &ts).ok_or_else(|| Fail::new("message_not_found"))?;
    let mut link =
        format!("https://{}.slack.com/archives/{channel}/p{}", view.options.team_name, ts.replace('.', ""));
    if let Some(parent) = message.thread_ts.filter(|_| is_reply(&message.raw)) {
        link.push_str(&format!("?thread_ts={parent}&cid={channel}"));
    }
    Ok(json!({"channel": channel, "permalink": link}))
}

/// The content members of a message, checked and as Slack stores them.
fn content(view: &mut View, args: &Args) -> Result<Map<String, Value>, Fail> {
    let mut message = Map::new();
    let text = args.text("text");
    let blocks = args.nested("blocks")?;
    let attachments = args.nested("attachments")?;
    let full = |v: &Option<Value>| v.as_ref().and_then(Value::as_array).is_some_and(|a| !a.is_empty());
    if text.is_none() && !full(&blocks) && !full(&attachments) {
        return Err(Fail::new("no_text"));
    }
    message.insert("text".to_owned(), text.as_deref().map(stored::text).unwrap_or_default().into());
    if let Some(blocks) = blocks {
        blocks::validate_blocks(&blocks).map_err(|p| Fail::with(blocks::error_code(&p), p))?;
        let stored = stored::blocks(&blocks, &mut || view.make_id("b"));
        message.insert("blocks".to_owned(), stored);
    }
    if let Some(attachments) = attachments {
        let Some(list) = attachments.as_array() else {
            return Err(Fail::with("invalid_attachments", vec!["[ERROR] must provide an array".to_owned()]));
        };
        if list.len() > 100 {
            return Err(Fail::new("too_many_attachments"));
        }
        for blocks in list.iter().filter_map(|a| a.get("blocks")) {
            blocks::validate_blocks(blocks).map_err(|p| Fail::with(blocks::error_code(&p), p))?;
        }
        let stored = stored::attachments(&attachments, &mut || view.make_id("b"));
        message.insert("attachments".to_owned(), stored);
    }
    if let Some(metadata) = args.nested("metadata")? {
        if let Some(problem) = stored::metadata_problem(&metadata) {
            return Err(Fail::with("invalid_metadata_format", vec![format!("[ERROR] {problem}")]));
        }
        message.insert("metadata".to_owned(), metadata);
    }
    Ok(message)
}

/// Signs a message as the bot's.
pub(super) fn sign(view: &View, message: &mut Map<String, Value>) {
    let (bot, team) = (&view.options.bot, &view.options.team_id);
    message.insert("user".to_owned(), bot.user_id.clone().into());
    message.insert("bot_id".to_owned(), bot.bot_id.clone().into());
    message.insert("app_id".to_owned(), bot.app_id.clone().into());
    message.insert("team".to_owned(), team.clone().into());
    message.insert(
        "bot_profile".to_owned(),
        json!({"id": bot.bot_id, "app_id": bot.app_id, "name": bot.name, "team_id": team,
            "deleted": false, "updated": 1_761_955_200, "icons": {}}),
    );
}

/// Where a reply goes. When its parent is gone, Slack posts it at the top level without a word; only
/// the missing `message.thread_ts` of the answer tells (slack-go/slack#1571).
pub(super) fn thread_for(view: &View, channel: &str, args: &Args) -> Result<Option<String>, Fail> {
    let Some(thread_ts) = args.text("thread_ts") else { return Ok(None) };
    match view.message(channel, &thread_ts) {
        // A reply's own stamp starts no thread: Slack's reference says to use the parent's.
        Some(parent) if is_reply(&parent.raw) => Err(Fail::new("cannot_reply_to_message")),
        Some(_) => Ok(Some(thread_ts)),
        None => Ok(None),
    }
}

fn own_message(view: &View, channel: &str, ts: &str, not_own: &str) -> Result<Map<String, Value>, Fail> {
    let found = view.message(channel, ts).ok_or_else(|| Fail::new("message_not_found"))?;
    if found.bot_id.as_deref() != Some(&view.options.bot.bot_id) {
        return Err(Fail::new(not_own));
    }
    Ok(found.raw.as_object().cloned().unwrap_or_default())
}

/// Shows a message to one person only.
pub(super) fn add_ephemeral(
    view: &mut View,
    channel: &str,
    user: &str,
    thread_ts: Option<String>,
    mut message: Map<String, Value>,
) -> String {
    let ts = view.stamp();
    message.insert("type".to_owned(), "message".into());
    message.insert("ts".to_owned(), ts.clone().into());
    message.insert("is_ephemeral".to_owned(), true.into());
    if let Some(thread_ts) = &thread_ts {
        message.insert("thread_ts".to_owned(), thread_ts.clone().into());
    }
    let text = message.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
    view.ephemerals.push(Ephemeral {
        user: user.to_owned(),
        channel: channel.to_owned(),
        ts: ts.clone(),
        thread_ts,
        text,
        raw: Value::Object(message),
    });
    ts
}

/// An answer POSTed to a `response_url`, or given in an acknowledgement: five uses in 30 minutes.
pub(in super::super) fn answer_url(view: &mut View, id: &str, args: &Args) -> Result<(), Fail> {
    let url = view.response_urls.get_mut(id).ok_or_else(|| Fail::new("expired_url"))?;
    let old = SystemTime::now().duration_since(url.made).unwrap_or_default() > Duration::from_secs(1_800);
    if url.uses >= 5 || old {
        return Err(Fail::new(if old { "expired_url" } else { "used_url" }));
    }
    url.uses += 1;
    let ResponseUrl { channel, user, message, thread_ts, .. } = url;
    let (channel, user, clicked, thread_ts) =
        (channel.clone(), user.clone(), message.clone(), thread_ts.clone());
    let (delete, replace) = (args.flag("delete_original"), args.flag("replace_original"));
    match clicked {
        Some((ts, true)) if delete => view.ephemerals.retain(|e| e.ts != ts),
        Some((ts, false)) if delete => view.remove(&channel, &ts),
        Some((ts, true)) if replace => {
            let new = content(view, args)?;
            if let Some(shown) = view.ephemerals.iter_mut().find(|e| e.ts == ts) {
                shown.text = new.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
                for (name, value) in new {
                    shown.raw[name.as_str()] = value;
                }
            }
        }
        Some((ts, false)) if replace => {
            let new = content(view, args)?;
            let mut message = view.message(&channel, &ts).map(|m| m.raw).unwrap_or_default();
            for (name, value) in new {
                message[name.as_str()] = value;
            }
            view.replace(&channel, &ts, message);
        }
        _ => {
            let mut new = content(view, args)?;
            sign(view, &mut new);
            let thread_ts = args.text("thread_ts").or(thread_ts);
            if args.text("response_type").as_deref() == Some("in_channel") {
                if let Some(thread_ts) = thread_ts {
                    new.insert("thread_ts".to_owned(), thread_ts.into());
                }
                view.store(&channel, new);
            } else {
                add_ephemeral(view, &channel, &user, thread_ts, new);
            }
        }
    }
    Ok(())
}
