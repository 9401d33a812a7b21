//! Finds what a lost answer left behind: our own message in a thread or channel, by its metadata.
//!
//! `conversations.replies` and `.history` are read raw, so that no odd message of anybody else in the
//! thread makes the search fail; a search that fails is not a "no".

use serde::Deserialize;
use serde_json::Value;

use super::directory::Cursor;
use super::{Client, Error, Metadata};

/// Enough for the longest thread (1,000 a page); the bound is against a server that never ends.
const MAX_PAGES: usize = 50;
/// At the top level only the recent past is searched: what we look for was posted moments ago.
const MAX_HISTORY_PAGES: usize = 5;

impl Client {
    /// The `ts` of a message whose metadata satisfies `is_it`, in the thread, or among the channel's latest
    /// messages where `thread_ts` is None. `is_it` gets the message's `metadata` object
    /// (`event_type`, `event_payload`).
    ///
    /// `Ok(None)` means that it was not there when looked for: Slack may still be working on the post.
    pub async fn find_own(
        &self,
        channel: &str,
        thread_ts: Option<&str>,
        is_it: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<Option<String>, Error> {
        self.find_message(channel, thread_ts, move |message| message.get("metadata").is_some_and(&is_it))
            .await
    }

    /// As [`Client::find_own`], with the whole raw message.
    pub async fn find_message(
        &self,
        channel: &str,
        thread_ts: Option<&str>,
        is_it: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Value>,
            #[serde(default)]
            response_metadata: Option<Cursor>,
        }
        let (method, pages) = match thread_ts {
            Some(_) => ("conversations.replies", MAX_PAGES),
            None => ("conversations.history", MAX_HISTORY_PAGES),
        };
        let mut cursor = String::new();
        for _ in 0..pages {
            let page: Page = self
                .ask(
                    method,
                    &[
                        ("channel", channel),
                        ("ts", thread_ts.unwrap_or_default()),
                        ("include_all_metadata", "true"),
                        ("limit", "200"),
                        ("cursor", &cursor),
                    ],
                )
                .await?;
            let found = page.messages.iter().find(|message| self.may_be_ours(message) && is_it(message));
            if let Some(ts) = found.and_then(|message| message.get("ts")).and_then(Value::as_str) {
                return Ok(Some(ts.to_owned()));
            }
            cursor = page.response_metadata.and_then(|meta| meta.next_cursor).unwrap_or_default();
            if cursor.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    /// The names of our own reactions on a message at the top level, as `conversations.replies` shows
    /// them: `reactions.get` would need one more scope. Where very many reacted Slack may leave ours out
    /// (api.slack.com, "Retrieving messages"). Needs [`Client::auth_test`] to have been asked; without it
    /// none is ours.
    pub async fn own_reactions(&self, channel: &str, ts: &str) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Value>,
        }
        // The message itself comes before its replies.
        let page: Page =
            self.ask("conversations.replies", &[("channel", channel), ("ts", ts), ("limit", "1")]).await?;
        let Some(us) = self.inner.identity.get().map(|us| us.user_id.as_str()) else { return Ok(Vec::new()) };
        let message = page.messages.iter().find(|message| message["ts"] == ts);
        let all = message.and_then(|message| message["reactions"].as_array()).into_iter().flatten();
        let ours =
            |one: &&Value| one["users"].as_array().is_some_and(|users| users.iter().any(|user| user == us));
        Ok(all.filter(ours).filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect())
    }

    /// Not a message that says it is somebody else's: another app must not pass for us by copying our
    /// metadata. Needs [`Client::auth_test`] to have been asked; without it, or where the message does not say,
    /// the metadata decides.
    fn may_be_ours(&self, message: &Value) -> bool {
        let Some(us) = self.inner.identity.get() else { return true };
        let says = |name: &str| message.get(name).and_then(Value::as_str);
        match (says("bot_id"), says("user")) {
            (Some(bot), _) => us.bot_id.is_empty() || bot == us.bot_id,
            (None, Some(user)) => us.user_id.is_empty() || user == us.user_id,
            (None, None) => true,
        }
    }
}

impl Metadata {
    /// Is `found` (a message's `metadata`) this one? Members that Slack added do not matter.
    pub fn is(&self, found: &Value) -> bool {
        if found.get("event_type").and_then(Value::as_str) != Some(self.event_type.as_str()) {
            return false;
        }
        match (&self.payload, found.get("event_payload")) {
            (Value::Object(ours), Some(Value::Object(theirs))) => {
                ours.iter().all(|(name, value)| theirs.get(name) == Some(value))
            }
            (ours, Some(theirs)) => ours == theirs,
            (_, None) => false,
        }
    }
}
