//! Clicks and slash commands: the payloads Slack sends for them, and the answers people get.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::Workspace;
use super::api::{self, Args};
use super::deliver::{Acknowledged, Kind};
use super::message::{Ephemeral, Pressable, actions, string};
use super::view::{ResponseUrl, View};

/// How long a slash command's answer is awaited.
const ANSWER: Duration = Duration::from_secs(5);

/// What came back from a slash command.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    /// The whole answer, with blocks if it has any.
    pub raw: Value,
    /// Only the asker sees it.
    pub ephemeral: bool,
    read: String,
}

impl Answer {
    /// All that can be read in it, as [`Message::read`].
    pub fn read(&self) -> &str {
        &self.read
    }
}

/// Why a click came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClickError {
    #[error("there is no message {0} to be seen")]
    NoMessage(String),
    #[error("there is no button {wanted:?} now; there are {there:?}")]
    NoButton { wanted: String, there: Vec<String> },
    #[error("there is no user or channel {0}")]
    Unknown(String),
    #[error("the bot did not answer: {0}")]
    Unanswered(String),
}

impl Workspace {
    /// Presses a button of a message (or of an ephemeral message shown to this user) as it is now,
    /// and awaits the bot's acknowledgement. A confirm dialog is confirmed.
    pub async fn click(&self, user: &str, channel: &str, ts: &str, button: &str) -> Result<(), ClickError> {
        let message = self.shown(user, channel, ts);
        let message = message.ok_or_else(|| ClickError::NoMessage(ts.to_owned()))?;
        self.click_as_it_was(user, channel, &message, button).await
    }

    /// Presses a button of a message as it once was (`Message::raw` of an earlier moment): the click of
    /// somebody whose screen was slow.
    pub async fn click_as_it_was(
        &self,
        user: &str,
        channel: &str,
        message: &Value,
        button: &str,
    ) -> Result<(), ClickError> {
        let there = actions(message);
        let labels = there.iter().map(|p| p.label.clone()).collect();
        let pressed = there.into_iter().find(|p| p.label == button);
        let pressed =
            pressed.ok_or_else(|| ClickError::NoButton { wanted: button.to_owned(), there: labels })?;
        self.click_action(user, channel, message, action_of(pressed)).await
    }

    /// As [`Workspace::click`], by the element's `action_id` and, of a menu, the option's value.
    pub async fn click_element(
        &self,
        user: &str,
        channel: &str,
        ts: &str,
        action_id: &str,
        option: Option<&str>,
    ) -> Result<(), ClickError> {
        let message = self.shown(user, channel, ts).ok_or_else(|| ClickError::NoMessage(ts.to_owned()))?;
        let meant = |p: &Pressable| {
            p.element["action_id"] == action_id
                && p.option.as_ref().and_then(|o| o["value"].as_str()) == option
        };
        let pressed = actions(&message).into_iter().find(meant);
        let pressed = pressed
            .ok_or_else(|| ClickError::NoButton { wanted: action_id.to_owned(), there: Vec::new() })?;
        self.click_action(user, channel, &message, action_of(pressed)).await
    }

    /// The message of this stamp as this user sees it now.
    fn shown(&self, user: &str, channel: &str, ts: &str) -> Option<Value> {
        self.shared.read(|view| {
            let own = view.ephemerals(user).into_iter().find(|e| e.ts == ts).map(|e| e.raw);
            view.message(channel, ts).map(|m| m.raw).or(own)
        })
    }

    /// Sends a `block_actions` with any action on any message, and awaits the acknowledgement.
    pub async fn click_action(
        &self,
        user: &str,
        channel: &str,
        message: &Value,
        action: Value,
    ) -> Result<(), ClickError> {
        let delivered = self.shared.update(|view| {
            let payload = block_actions(view, &self.shared.address, user, channel, message, action)?;
            Ok(self.shared.deliver(view, Kind::Interaction, payload))
        })?;
        acknowledged(delivered).await.map(|_| ()).map_err(ClickError::Unanswered)
    }

    /// Sends any interaction payload as it is.
    pub async fn interact(&self, payload: Value) -> Result<(), ClickError> {
        let delivered = self.shared.update(|view| self.shared.deliver(view, Kind::Interaction, payload));
        acknowledged(delivered).await.map(|_| ()).map_err(ClickError::Unanswered)
    }

    /// Types `/heal {text}` and awaits the answer: from the acknowledgement, through the
    /// `response_url`, or as an ephemeral message.
    pub async fn slash(&self, user: &str, channel: &str, text: &str) -> Result<Answer, ClickError> {
        let unknown = |what: &str| ClickError::Unknown(what.to_owned());
        let (delivered, url, user, channel, before) = self.shared.update(|view| {
            let user = view.user_id(user).ok_or_else(|| unknown(user))?;
            let room = view.room(channel).ok_or_else(|| unknown(channel))?;
            let (channel, channel_name) = (room.id.clone(), room.name.clone());
            let known = view.options.users.iter().find(|u| u.id == user).cloned();
            let name = known.map(|u| u.name).unwrap_or_default();
            let url = response_url(view, &channel, &user, None, None);
            let o = view.options.clone();
            let payload = json!({"token": "sandbox-verification-token", "team_id": o.team_id,
                "team_domain": o.team_name, "channel_id": channel, "channel_name": channel_name,
                "user_id": user, "user_name": name, "command": format!("/{}", o.bot.name), "text": text,
                "api_app_id": o.bot.app_id, "is_enterprise_install": "false",
                "response_url": format!("http://{}/actions/{url}", self.shared.address),
                "trigger_id": view.make_id("trigger.")});
            let before = view.ephemerals.last().map(|e| e.ts.clone()).unwrap_or_default();
            Ok((self.shared.deliver(view, Kind::Command, payload), url, user, channel, before))
        })?;
        let payload = acknowledged(delivered).await.map_err(ClickError::Unanswered)?;
        if let Value::Object(map) = payload
            && (map.contains_key("text") || map.contains_key("blocks"))
        {
            let args = Args { token: None, map };
            self.shared
                .update(|view| api::answer_url(view, &url, &args))
                .map_err(|fail| ClickError::Unanswered(format!("{} {:?}", fail.code, fail.messages)))?;
        }
        let asked = before.clone();
        self.shared
            .wait_for(ANSWER, |view| {
                let own = |e: &&Ephemeral| e.user == user && e.channel == channel && e.ts > asked;
                if let Some(shown) = view.ephemerals.iter().find(own) {
                    let (text, raw, read) = (shown.text.clone(), shown.raw.clone(), shown.read());
                    return Some(Answer { text, raw, ephemeral: true, read });
                }
                // An answer in the channel: the use of the URL tells it from other posts of the bot.
                view.response_urls.get(&url).filter(|u| u.uses > 0)?;
                let posted = view
                    .messages(&channel)
                    .into_iter()
                    .rfind(|m| m.ts > asked && m.bot_id.as_deref() == Some(&view.options.bot.bot_id))?;
                let read = posted.read();
                Some(Answer { text: posted.text, raw: posted.raw, ephemeral: false, read })
            })
            .await
            .map_err(|e| ClickError::Unanswered(e.to_string()))
    }
}

async fn acknowledged(delivered: oneshot::Receiver<Acknowledged>) -> Acknowledged {
    delivered.await.unwrap_or_else(|_| Err("the workspace has stopped".to_owned()))
}

fn action_of(pressed: Pressable) -> Value {
    let mut action = Map::new();
    for name in ["action_id", "type", "text", "value", "style"] {
        if let Some(value) = pressed.element.get(name) {
            action.insert(name.to_owned(), value.clone());
        }
    }
    action.insert("block_id".to_owned(), pressed.block_id.into());
    if let Some(option) = pressed.option {
        action.insert("selected_option".to_owned(), option);
    }
    Value::Object(action)
}

fn response_url(
    view: &mut View,
    channel: &str,
    user: &str,
    message: Option<(String, bool)>,
    thread_ts: Option<String>,
) -> String {
    let id = format!("{}/{}", view.options.team_id.clone(), view.make_id("R"));
    let url = ResponseUrl {
        channel: channel.to_owned(),
        user: user.to_owned(),
        message,
        thread_ts,
        uses: 0,
        made: SystemTime::now(),
    };
    view.response_urls.insert(id.clone(), url);
    id
}

fn block_actions(
    view: &mut View,
    address: &str,
    user: &str,
    channel: &str,
    message: &Value,
    mut action: Value,
) -> Result<Value, ClickError> {
    let unknown = |what: &str| ClickError::Unknown(what.to_owned());
    let user = view.user_id(user).ok_or_else(|| unknown(user))?;
    let room = view.room(channel).ok_or_else(|| unknown(channel))?;
    let (channel, channel_name) = (room.id.clone(), room.name.clone());
    let known = view.options.users.iter().find(|u| u.id == user).cloned();
    let (name, team) = known.map(|u| (u.name, u.team_id)).unwrap_or_default();
    let own_team = view.options.team_id.clone();
    let team = team.unwrap_or_else(|| own_team.clone());
    let ephemeral = message["is_ephemeral"] == true;
    let ts = string(message, "ts").unwrap_or_default();
    let thread_ts = string(message, "thread_ts");
    let url = response_url(view, &channel, &user, Some((ts.clone(), ephemeral)), thread_ts.clone());
    action["action_ts"] = view.stamp().into();
    let mut payload = json!({
        "type": "block_actions",
        "user": {"id": user, "username": name, "name": name, "team_id": team},
        "api_app_id": view.options.bot.app_id,
        "token": "sandbox-verification-token",
        "container": {"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": ephemeral},
        "trigger_id": view.make_id("trigger."),
        "team": {"id": own_team, "domain": view.options.team_name},
        "enterprise": null,
        "is_enterprise_install": false,
        "channel": {"id": channel, "name": channel_name},
        "state": {"values": {}},
        "response_url": format!("http://{address}/actions/{url}"),
        "actions": [action],
    });
    if let Some(thread_ts) = thread_ts {
        payload["container"]["thread_ts"] = thread_ts.into();
    }
    if !ephemeral {
        payload["message"] = message.clone();
    }
    Ok(payload)
}
