//! The Web API: who may call what, and which function answers.
//!
//! Answers have the shape of Slack's (`ok`, `error`, `response_metadata.messages`). Handlers run
//! under the workspace's lock and never wait; faults, tokens, scopes and limits are settled before.

mod args;
mod chat;
mod conversations;
mod files;
mod people;
mod reactions;

use std::time::Instant;

use serde_json::{Map, Value, json};

pub(super) use args::Args;
pub(super) use chat::answer_url;
pub(super) use reactions::react;

use super::view::View;

/// An `ok: false` answer.
#[derive(Debug)]
pub(super) struct Fail {
    pub code: String,
    pub messages: Vec<String>,
    pub more: Map<String, Value>,
}

pub(super) type Answer = Result<Value, Fail>;

impl Fail {
    pub fn new(code: impl Into<String>) -> Self {
        Fail { code: code.into(), messages: Vec::new(), more: Map::new() }
    }

    pub fn with(code: impl Into<String>, messages: Vec<String>) -> Self {
        Fail { messages, ..Fail::new(code) }
    }

    fn into_value(self) -> Value {
        let mut map = self.more;
        map.insert("ok".to_owned(), false.into());
        map.insert("error".to_owned(), self.code.into());
        if !self.messages.is_empty() {
            map.insert("response_metadata".to_owned(), json!({"messages": self.messages}));
        }
        Value::Object(map)
    }
}

/// An answer on its way: HTTP status, `Retry-After` and body.
#[derive(Clone)]
pub(super) struct Reply {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Reply {
    pub fn limited(seconds: u64) -> Self {
        let body = json!({"ok": false, "error": "ratelimited"});
        Reply { status: 429, retry_after: Some(seconds), body }
    }

    pub fn refused(code: &str) -> Self {
        Reply { status: 200, retry_after: None, body: Fail::new(code).into_value() }
    }
}

/// Handles one call.
pub(super) fn call(view: &mut View, method: &str, args: &Args) -> Reply {
    let Some((scope, run)) = method_of(method) else { return Reply::refused("unknown_method") };
    let options = view.options.clone();
    let wanted = if method == "apps.connections.open" { &options.app_token } else { &options.bot_token };
    match &args.token {
        None => return Reply::refused("not_authed"),
        Some(token) if token == wanted => {}
        Some(token) if *token == options.app_token || *token == options.bot_token => {
            return Reply::refused("not_allowed_token_type");
        }
        Some(_) => return Reply::refused("invalid_auth"),
    }
    if let Some(scope) = scope
        && !options
            .scopes
            .iter()
            .any(|s| s == scope || (scope == "channels:history" && s == "groups:history"))
    {
        let mut fail = Fail::new("missing_scope");
        fail.more.insert("needed".to_owned(), scope.into());
        fail.more.insert("provided".to_owned(), options.scopes.join(",").into());
        return Reply { status: 200, retry_after: None, body: fail.into_value() };
    }
    if options.limits {
        let channel = args.text("channel").unwrap_or_default();
        if let Err(seconds) = view.pacing.take(method, &channel, Instant::now()) {
            return Reply::limited(seconds);
        }
    }
    let body = match run(view, args) {
        Ok(mut value) => {
            value["ok"] = true.into();
            value
        }
        Err(fail) => fail.into_value(),
    };
    Reply { status: 200, retry_after: None, body }
}

type Run = fn(&mut View, &Args) -> Answer;

/// The scope a method needs, and what answers it.
fn method_of(method: &str) -> Option<(Option<&'static str>, Run)> {
    Some(match method {
        "auth.test" => (None, people::auth_test as Run),
        "api.test" => (None, |_, _| Ok(json!({}))),
        "apps.connections.open" => (None, people::open_connection),
        "chat.postMessage" => (Some("chat:write"), chat::post),
        "chat.update" => (Some("chat:write"), chat::update),
        "chat.postEphemeral" => (Some("chat:write"), chat::post_ephemeral),
        "chat.delete" => (Some("chat:write"), chat::delete),
        "chat.getPermalink" => (None, chat::permalink),
        "conversations.history" => (Some("channels:history"), conversations::history),
        "conversations.replies" => (Some("channels:history"), conversations::replies),
        "conversations.list" => (Some("channels:read"), conversations::list),
        "conversations.info" => (Some("channels:read"), conversations::info),
        "conversations.join" => (Some("channels:join"), conversations::join),
        "users.info" => (Some("users:read"), people::user_info),
        "users.list" => (Some("users:read"), people::users),
        "usergroups.list" => (Some("usergroups:read"), people::groups),
        "usergroups.users.list" => (Some("usergroups:read"), people::group_members),
        "reactions.add" => (Some("reactions:write"), reactions::add),
        "reactions.remove" => (Some("reactions:write"), reactions::remove),
        "reactions.get" => (Some("reactions:read"), reactions::get),
        "files.getUploadURLExternal" => (Some("files:write"), files::upload_url),
        "files.completeUploadExternal" => (Some("files:write"), files::complete),
        _ => return None,
    })
}
