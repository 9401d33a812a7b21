//! What is posted in the workspace, and how a test or the page watches and disturbs it.
//!
//! Nothing here sleeps: whoever wants to see something happen awaits it with [`Workspace::wait_until`].

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::api;
use super::deliver::Form;
use super::message::{Ephemeral, Message, string};
use super::options::Delivery;
use super::view::{Call, File, View};
use super::{Fault, Posting, WaitError, Workspace, posting};

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

    /// Awaits a condition over the state. It is looked at after changes, under the workspace's lock: a
    /// cheap one keeps a busy workspace fast.
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

    /// Takes back the faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.shared.update(|view| view.faults.clear());
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

    /// Answers nothing for so long: new connections are closed at once, open ones at their next request.
    /// Sockets stay; see [`Workspace::cut_sockets`].
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
