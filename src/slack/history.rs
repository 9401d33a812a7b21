//! What was posted in a channel, for whoever was not listening at the time.
//!
//! Read raw and as a whole before anything is made of it: "firing" and the "resolved" after it belong
//! together. Slack's pages go backwards in time, so the order is made here.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::directory::Cursor;
use super::{Client, Error};
use crate::time::Timestamp;

/// Messages a page; Slack's advice is not more than 200 (docs.slack.dev, pagination).
const PAGE: usize = 200;
/// What is left of a limit may be next to nothing; a clock's tick more costs nothing.
const TICK: Duration = Duration::from_millis(5);

/// A stretch of a channel's top level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// As Slack gives them, oldest first; each stands once.
    pub messages: Vec<Value>,
    /// There were more than asked for.
    pub cut: bool,
}

impl Client {
    /// The messages of a channel after `oldest`, at most about `at_most` of them, the newest
    /// (`conversations.history`, tier 3). A 429 is waited out for as long as Slack says; other errors are
    /// returned, and what was read by then is dropped.
    pub async fn history(&self, channel: &str, oldest: Timestamp, at_most: usize) -> Result<History, Error> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Value>,
            #[serde(default)]
            response_metadata: Option<Cursor>,
        }
        let millis = oldest.as_millis().max(0);
        let oldest = format!("{}.{:03}000", millis / 1000, millis % 1000);
        let limit = PAGE.min(at_most.max(1)).to_string();
        let mut history = History::default();
        let mut cursor = String::new();
        loop {
            let params = [("channel", channel), ("oldest", &oldest), ("limit", &limit), ("cursor", &cursor)];
            let page: Page = match self.ask("conversations.history", &params).await {
                Ok(page) => page,
                Err(Error::RateLimited { retry_after }) => {
                    tracing::info!(
                        channel,
                        seconds = retry_after.as_secs(),
                        "Slack limits the reading of history"
                    );
                    tokio::time::sleep(retry_after + TICK).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let empty = page.messages.is_empty();
            history.messages.extend(page.messages);
            cursor = page.response_metadata.and_then(|meta| meta.next_cursor).unwrap_or_default();
            // A server that always names a next page must not hold us for ever.
            if cursor.is_empty() || empty {
                break;
            }
            if history.messages.len() >= at_most {
                history.cut = true;
                break;
            }
        }
        history.messages.sort_by(|one, other| stamp(one).cmp(&stamp(other)));
        history.messages.dedup_by(|one, other| stamp(one) == stamp(other));
        Ok(history)
    }
}

/// A message's `ts` in an order: more digits are a later time.
fn stamp(message: &Value) -> (usize, &str) {
    let ts = message.get("ts").and_then(Value::as_str).unwrap_or_default();
    (ts.len(), ts)
}
