//! What the page asks for: its files, the state as one person sees it, a stream that says "look
//! again", and the things a person can do.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::workspace::{ClickError, Posting, View, Workspace};
use super::{EMOJI, Hosts, guard};

/// The newest top-level messages of a channel that are shown.
const SHOWN: usize = 200;

#[derive(Clone)]
struct Shown {
    workspace: Workspace,
    hosts: Arc<dyn Hosts>,
}

pub(super) fn router(workspace: Workspace, hosts: Arc<dyn Hosts>, port: u16) -> Router {
    Router::new()
        .route("/", get(|| file("text/html; charset=utf-8", include_str!("index.html"))))
        .route("/page.css", get(|| file("text/css; charset=utf-8", include_str!("page.css"))))
        .route("/page.js", get(|| file("text/javascript; charset=utf-8", include_str!("page.js"))))
        .route("/render.js", get(|| file("text/javascript; charset=utf-8", include_str!("render.js"))))
        .route("/emoji.txt", get(|| file("text/plain; charset=utf-8", EMOJI)))
        .route("/icon.svg", get(|| file("image/svg+xml", include_str!("icon.svg"))))
        .route("/state", get(state))
        .route("/changes", get(changes))
        .route("/file/{id}", get(stored_file))
        .route("/do/post", post(post_message))
        .route("/do/slash", post(slash))
        .route("/do/click", post(click))
        .route("/do/react", post(react))
        .route("/do/host", post(host))
        .layer(middleware::from_fn_with_state(port, guard::check))
        .with_state(Shown { workspace, hosts })
}

async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

#[derive(Deserialize)]
struct Looking {
    /// The user one acts as.
    #[serde(rename = "as")]
    user: String,
    channel: String,
    #[serde(default)]
    thread: String,
}

async fn state(State(shown): State<Shown>, Query(looking): Query<Looking>) -> Json<Value> {
    let mut state = shown.workspace.view(|view| as_seen(view, &looking));
    state["hosts"] = serde_json::to_value(shown.hosts.hosts()).unwrap_or_default();
    Json(state)
}

fn as_seen(view: &View, looking: &Looking) -> Value {
    let options = view.options();
    let channels: Vec<Value> = view
        .channels()
        .into_iter()
        .map(|c| {
            let latest = view.latest(&c.id).unwrap_or_default();
            json!({"id": c.id, "name": c.name, "is_member": c.is_member, "latest": latest})
        })
        .collect();
    let users: Vec<Value> = options
        .users
        .iter()
        .map(|u| {
            let groups: Vec<&str> = options
                .groups
                .iter()
                .filter(|g| g.members.contains(&u.id))
                .map(|g| g.handle.as_str())
                .collect();
            json!({"id": u.id, "name": u.name, "groups": groups,
                "external": u.team_id.as_ref().is_some_and(|t| *t != options.team_id)})
        })
        .collect();
    let all = view.messages(&looking.channel);
    let newest_thread = all.iter().rev().find(|m| m.raw["reply_count"].as_u64().unwrap_or(0) > 0);
    let newest_thread = newest_thread.map(|m| m.ts.clone());
    let messages: Vec<&Value> = all.iter().skip(all.len().saturating_sub(SHOWN)).map(|m| &m.raw).collect();
    let parent = view.message(&looking.channel, &looking.thread).map(|m| m.raw);
    let replies: Vec<Value> =
        view.thread(&looking.channel, &looking.thread).into_iter().map(|m| m.raw).collect();
    let own: Vec<Value> = view
        .ephemerals(&looking.user)
        .into_iter()
        .filter(|e| e.channel == looking.channel)
        .map(|e| e.raw)
        .collect();
    json!({
        "team": options.team_name,
        "bot": {"name": options.bot.name, "user_id": options.bot.user_id, "bot_id": options.bot.bot_id},
        "connected": view.connected(),
        "seen": !view.calls().is_empty(),
        "channels": channels,
        "users": users,
        "groups": options.groups.iter().map(|g| json!({"id": g.id, "handle": g.handle})).collect::<Vec<_>>(),
        "channel": looking.channel,
        "messages": messages,
        "thread": {"ts": looking.thread, "parent": parent, "replies": replies},
        "newest_thread": newest_thread,
        "ephemerals": own,
    })
}

/// One event now and one after each change.
async fn changes(State(shown): State<Shown>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let start = (shown.workspace.changed(), shown.hosts.changed(), true);
    let stream = futures_util::stream::unfold(start, |(mut chat, mut fleet, first)| async move {
        if !first {
            tokio::select! {
                changed = chat.changed() => changed.ok()?,
                changed = fleet.changed() => changed.ok()?,
            }
        }
        Some((Ok(Event::default().data("look")), (chat, fleet, false)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

async fn stored_file(State(shown): State<Shown>, Path(id): Path<String>) -> Response {
    match shown.workspace.files().into_iter().find(|f| f.id == id) {
        Some(found) => {
            let text = String::from_utf8_lossy(&found.bytes).into_owned();
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "as")]
    user: String,
    channel: String,
    #[serde(default)]
    thread: Option<String>,
    text: String,
}

async fn post_message(State(shown): State<Shown>, Json(said): Json<Said>) -> Json<Value> {
    let text = shown.workspace.view(|view| with_mentions(view, &said.text));
    let mut posting = Posting::of_user(&said.user, &said.channel, &text);
    posting.thread_ts = said.thread;
    match shown.workspace.post_message(posting) {
        Ok(ts) => Json(json!({"ok": true, "ts": ts})),
        Err(error) => failed(&error),
    }
}

/// `@name` as typed becomes the mention Slack's own composer would make of it.
fn with_mentions(view: &View, text: &str) -> String {
    let options = view.options();
    let bot = (&options.bot.name, &options.bot.user_id);
    let people = options.users.iter().map(|u| (&u.name, &u.id));
    text.split_inclusive(char::is_whitespace)
        .map(|word| {
            let bare = word.trim_end();
            let named = |name: &str| bare.strip_prefix('@').is_some_and(|b| b == name);
            match people.clone().chain([bot]).find(|(name, _)| named(name)) {
                Some((_, id)) => word.replacen(bare, &format!("<@{id}>"), 1),
                None => word.to_owned(),
            }
        })
        .collect()
}

async fn slash(State(shown): State<Shown>, Json(said): Json<Said>) -> Json<Value> {
    if said.thread.is_some() {
        return failed(&"Slack has no slash commands inside threads; mention @heal instead");
    }
    match shown.workspace.slash(&said.user, &said.channel, &said.text).await {
        Ok(_) => Json(json!({"ok": true})),
        Err(error) => failed(&explain(&error)),
    }
}

#[derive(Deserialize)]
struct Click {
    #[serde(rename = "as")]
    user: String,
    channel: String,
    ts: String,
    action_id: String,
    #[serde(default)]
    option: Option<String>,
}

async fn click(State(shown): State<Shown>, Json(c): Json<Click>) -> Json<Value> {
    let clicked =
        shown.workspace.click_element(&c.user, &c.channel, &c.ts, &c.action_id, c.option.as_deref()).await;
    match clicked {
        Ok(()) => Json(json!({"ok": true})),
        Err(error) => failed(&explain(&error)),
    }
}

fn explain(error: &ClickError) -> String {
    match error {
        ClickError::NoMessage(_) => "That message is gone.".to_owned(),
        ClickError::NoButton { .. } => "That button is gone; the message has changed meanwhile.".to_owned(),
        ClickError::Unknown(what) => format!("There is no {what} in this workspace."),
        ClickError::Unanswered(why) => format!("heal did not answer in time: {why}. Look at its log."),
    }
}

#[derive(Deserialize)]
struct Reaction {
    #[serde(rename = "as")]
    user: String,
    channel: String,
    ts: String,
    name: String,
    add: bool,
}

async fn react(State(shown): State<Shown>, Json(r): Json<Reaction>) -> Json<Value> {
    match shown.workspace.react(&r.user, &r.channel, &r.ts, &r.name, r.add) {
        Ok(()) => Json(json!({"ok": true})),
        Err(code) => failed(&code),
    }
}

#[derive(Deserialize)]
struct OnHost {
    host: String,
    action: String,
}

async fn host(State(shown): State<Shown>, Json(on): Json<OnHost>) -> Json<Value> {
    match shown.hosts.act(&on.host, &on.action).await {
        Ok(()) => Json(json!({"ok": true})),
        Err(error) => failed(&format!("{}: {error:#}", on.host)),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Json<Value> {
    Json(json!({"ok": false, "error": error.to_string()}))
}
