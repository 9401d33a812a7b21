//! Finds what a lost answer left behind: our own message in a thread or channel, by its metadata.
//!
//! `conversations.replies` and `.history` are read raw, so that no odd message of anybody else in the
//! thread makes the search fail; a search that fails is not a "no".

use serde::Deserialize;
use serde_json::Value;

use super::directory::Cursor;
use super::{Client, Error, Metadata};

/// How a thread is read: whole, oldest first as Slack gives it. Nearly every thread is one page
/// (`limit` is at most 1,000, docs.slack.dev, conversations.replies); the bound is against a server that never ends.
const THREAD: Reading = Reading { method: "conversations.replies", limit: "1000", pages: 50, whole: true };
/// At the top level the newest come first, and what we look for was posted before a short downtime at
/// most: 5,000 messages back. Slack advises not to ask for more than 200 at a time (docs.slack.dev, pagination).
const CHANNEL: Reading = Reading { method: "conversations.history", limit: "200", pages: 25, whole: false };

struct Reading {
    method: &'static str,
    limit: &'static str,
    pages: usize,
    /// Where the end was not reached, "not found" is no answer.
    whole: bool,
}

impl Client {
    /// The `ts` of a message whose metadata satisfies `is_it`, in the thread, or among the channel's latest
    /// messages where `thread_ts` is None. `is_it` gets the message's `metadata` object
    /// (`event_type`, `event_payload`).
    ///
    /// `Ok(None)` means that it was not there when looked for: Slack may still be working on the post. A
    /// thread that could not be read to its end is an error.
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
        match self.search(channel, thread_ts, &is_it).await {
            // Somebody deleted the alert. What is posted after that stands at the top level (slack-go/slack#1571).
            Err(error) if thread_ts.is_some() && error.code() == Some("thread_not_found") => {
                self.search(channel, None, &is_it).await.map_err(|error| match error {
                    // Of another method than the one whose pace the caller keeps.
                    Error::RateLimited { .. } => Error::not_done(error.to_string()),
                    error => error,
                })
            }
            found => found,
        }
    }

    async fn search(
        &self,
        channel: &str,
        thread_ts: Option<&str>,
        is_it: &(impl Fn(&Value) -> bool + Send + Sync),
    ) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Value>,
            #[serde(default)]
            response_metadata: Option<Cursor>,
        }
        let reading = if thread_ts.is_some() { &THREAD } else { &CHANNEL };
        let mut cursor = String::new();
        for _ in 0..reading.pages {
            let page: Page = self
                .ask(
                    reading.method,
                    &[
                        ("channel", channel),
                        ("ts", thread_ts.unwrap_or_default()),
                        ("include_all_metadata", "true"),
                        ("limit", reading.limit),
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
                return Ok(None);
            }
        }
        if reading.whole {
            return Err(Error::unclear("a thread too long to be searched to its end"));
        }
        tracing::warn!(
            channel,
            pages = reading.pages,
            "what may have been posted in {channel} was not found among its newest messages"
        );
        Ok(None)
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
