//! What people in the workspace do, and how a test or the page watches and disturbs it.
//!
//! Nothing here sleeps: whoever wants to see something happen awaits it with [`Workspace::wait_until`].

use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};
use tokio::sync::{oneshot, watch};

use super::api::{self, Args};
use super::deliver::{Acknowledged, Form, Kind};
use super::options::Delivery;
use super::view::{self, Call, Ephemeral, File, Message, Pressable, ResponseUrl, View, string};
use super::{Fault, Posting, WaitError, Workspace, posting};

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
    /// Posts a message; its stamp. The error is a sentence: unknown channel or author, bad blocks.
    pub fn post_message(&self, posting: Posting) -> anyhow::Result<String> {
        self.shared.update(|view| posting::post(view, posting)).map(|(_, ts)| ts).map_err(anyhow::Error::msg)
    }

    /// Delivers any event just as it is. A plain message of a known channel with a stamp is stored
    /// too, so that history has it and replies and reactions find it.
    pub fn post_raw_event(&self, event: Value) {
        self.shared.update(|view| {
            let plain = event["type"] == "message"
                && matches!(event["subtype"].as_str(), None | Some("bot_message" | "thread_broadcast"));
            if plain && let (Some(channel), Some(ts)) = (string(&event, "channel"), string(&event, "ts")) {
                let mut message = event.as_object().cloned().unwrap_or_default();
                for name in ["channel", "event_ts", "channel_type"] {
                    message.remove(name);
                }
                if let Some(room) = view.rooms.get_mut(&channel) {
                    room.messages.insert(ts, Value::Object(message));
                }
            }
            view.outgoing.push(event);
        });
    }

    /// Edits somebody's message in place (`chat.update` of a sender, or a person's edit).
    pub fn edit_message(
        &self,
        channel: &str,
        ts: &str,
        text: &str,
        attachments: Option<Value>,
    ) -> anyhow::Result<()> {
        self.shared.update(|view| {
            let found =
                view.message(channel, ts).ok_or_else(|| anyhow::anyhow!("there is no message {ts}"))?;
            let mut message = found.raw.as_object().cloned().unwrap_or_default();
            message.insert("text".to_owned(), super::stored::text(text).into());
            message.remove("blocks");
            posting::content(view, &mut message, None, attachments);
            let author = found.user.or(found.bot_id).unwrap_or_default();
            message.insert("edited".to_owned(), json!({"user": author, "ts": view.stamp()}));
            view.replace(&found.channel, ts, Value::Object(message));
            Ok(())
        })
    }

    /// Deletes a message.
    pub fn delete_message(&self, channel: &str, ts: &str) {
        self.shared.update(|view| {
            if let Some(found) = view.message(channel, ts) {
                view.remove(&found.channel, ts);
            }
        });
    }

    /// Adds or takes away a person's reaction. The error is Slack's code.
    pub fn react(&self, user: &str, channel: &str, ts: &str, name: &str, add: bool) -> Result<(), String> {
        self.shared.update(|view| {
            let user = view.user_id(user).ok_or("user_not_found")?;
            api::react(view, channel, ts, name, &user, add).map_err(|fail| fail.code)
        })
    }

    /// Posts a message that mentions the bot.
    pub fn mention(
        &self,
        user: &str,
        channel: &str,
        thread_ts: Option<&str>,
        text: &str,
    ) -> anyhow::Result<String> {
        let text = format!("<@{}> {text}", self.shared.options.bot.user_id);
        let posting =
            Posting { thread_ts: thread_ts.map(str::to_owned), ..Posting::of_user(user, channel, &text) };
        self.post_message(posting)
    }

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
        let there = view::actions(message);
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
        let pressed = view::actions(&message).into_iter().find(meant);
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

    /// [`View::messages`] of this moment.
    pub fn messages(&self, channel: &str) -> Vec<Message> {
        self.view(|v| v.messages(channel))
    }

    /// [`View::thread`] of this moment.
    pub fn thread(&self, channel: &str, ts: &str) -> Vec<Message> {
        self.view(|v| v.thread(channel, ts))
    }

    /// [`View::ephemerals`] of this moment.
    pub fn ephemerals(&self, user: &str) -> Vec<Ephemeral> {
        self.view(|v| v.ephemerals(user))
    }

    /// [`View::reactions`] of this moment.
    pub fn reactions(&self, channel: &str, ts: &str) -> Vec<(String, Vec<String>)> {
        self.view(|v| v.reactions(channel, ts))
    }

    /// [`View::files`] of this moment.
    pub fn files(&self) -> Vec<File> {
        self.view(|v| v.files().to_vec())
    }

    /// [`View::calls`] of this moment.
    pub fn calls(&self) -> Vec<Call> {
        self.view(|v| v.calls().to_vec())
    }

    /// Open Socket Mode connections.
    pub fn connections(&self) -> usize {
        self.view(View::connections)
    }

    /// Reads the state at one moment.
    pub fn view<R>(&self, f: impl FnOnce(&View) -> R) -> R {
        self.shared.read(f)
    }

    /// Awaits a condition over the state.
    pub async fn wait_until(
        &self,
        bound: Duration,
        mut condition: impl FnMut(&View) -> bool,
    ) -> Result<(), WaitError> {
        self.shared.wait_for(bound, |view| condition(view).then_some(())).await
    }

    /// Awaits that something can be found in the state, and gives it.
    pub async fn wait_for<T>(
        &self,
        bound: Duration,
        condition: impl FnMut(&View) -> Option<T>,
    ) -> Result<T, WaitError> {
        self.shared.wait_for(bound, condition).await
    }

    /// Changes whenever the state does.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changes()
    }

    /// The next `count` calls of a method (`*`: of any without faults of its own) go wrong like this.
    pub fn fail_next(&self, method: &str, count: usize, fault: Fault) {
        self.shared.update(|view| {
            let queue = view.faults.entry(method.to_owned()).or_default();
            queue.extend(std::iter::repeat_n(fault, count));
        });
    }

    /// Every `n`th event is delivered twice; 0: none.
    pub fn deliver_twice_every(&self, n: usize) {
        self.shared.update(|view| view.double_every = n);
    }

    /// Changes the road of events, for instance when the bot's port is known at last.
    pub fn set_delivery(&self, delivery: Delivery) {
        self.shared.update(|view| view.delivery = delivery);
    }

    /// Says `disconnect` with this reason (`warning`, `refresh_requested`, `link_disabled`) on every socket.
    pub fn disconnect_all(&self, reason: &str) {
        self.shared.disconnect_sockets(reason);
    }

    /// Drops every socket without a word.
    pub fn cut_sockets(&self) {
        self.shared.cut_sockets();
    }

    /// Closes every new TCP connection at once, for so long.
    pub fn refuse_connections_for(&self, time: Duration) {
        *self.shared.refusing_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Instant::now() + time);
    }

    /// HTTP mode: Slack's `url_verification`; whether the bot answers with the challenge.
    pub async fn verify_url(&self, url: &str) -> bool {
        let body =
            json!({"token": "sandbox-verification-token", "type": "url_verification", "challenge": "c-1a2b"});
        match self.shared.post_signed(url, Form::Json, &body.to_string(), None).await {
            Ok(answer) => answer["challenge"] == "c-1a2b" || answer["text"] == "c-1a2b",
            Err(_) => false,
        }
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
