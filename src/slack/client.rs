//! The Web API as heal uses it: slack-morphism's client and block types over [`Wire`], with answers
//! read leniently.
//!
//! A post that Slack took must not come back as a failure because some field of the answer is odd, so
//! only what is needed is read from it (`ts`). Metadata is our own type: the crate's holds strings only.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::{HeaderValue, Method};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use slack_morphism::blocks::SlackBlock;
use slack_morphism::{SlackApiToken, SlackApiTokenValue, SlackClient};
use url::Url;

use super::limits::{self, Limits};
use super::wire::{self, Wire};
use super::{Error, Secret};

/// Slack, with one bot token. Cheap to clone; all clones share one pool of connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) morphism: SlackClient<Wire>,
    pub(crate) token: SlackApiToken,
    /// Known once `auth.test` was asked.
    pub(crate) identity: OnceLock<Identity>,
    pub(crate) limits: Limits,
}

/// How calls are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// `SLACK_API_URL`; None is `https://slack.com/api`.
    pub api_url: Option<String>,
    /// Of a whole call, answer included.
    pub time_out: Duration,
    /// In bytes; a longer answer counts as none.
    pub max_answer: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { api_url: None, time_out: Duration::from_secs(10), max_answer: 8 << 20 }
    }
}

/// Who the bot is (`auth.test`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub team_id: String,
    pub user_id: String,
    pub bot_id: String,
    /// The workspace's address, `https://acme.slack.com/`.
    pub url: String,
    /// From the `X-OAuth-Scopes` header; empty where Slack sent none.
    pub scopes: Vec<String>,
}

/// What a message says: `text` is the fallback of `blocks` (notifications, screen readers).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    pub text: String,
    pub blocks: Vec<SlackBlock>,
}

/// Message metadata: by it a post whose answer was lost is found again. Other apps can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    pub event_type: String,
    /// A flat object of strings, numbers and booleans is safest; Slack's size limit is not documented.
    #[serde(rename = "event_payload")]
    pub payload: Value,
}

/// A message to post (`chat.postMessage`). Links are never unfurled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Post {
    pub channel: String,
    /// The parent's `ts`; None posts at the top level.
    pub thread_ts: Option<String>,
    pub text: Text,
    pub metadata: Option<Metadata>,
}

/// An answer by `response_url` (five uses, 30 minutes).
#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    pub response_url: Secret,
    pub text: Text,
    pub replace_original: bool,
    pub ephemeral: bool,
}

/// What is read of an answer that says nothing we need.
#[derive(Debug, Deserialize)]
pub(crate) struct Nothing {}

#[derive(Debug, Deserialize)]
struct Posted {
    ts: Option<String>,
}

impl Client {
    /// Fails on an unusable `api_url` or when this machine has no certificate authorities.
    pub fn new(token: &Secret, options: &Options) -> Result<Client, String> {
        let wire = Wire::new(options.api_url.as_deref(), options.time_out, options.max_answer)?;
        let token = api_token(token);
        Ok(Client {
            inner: Arc::new(Inner {
                morphism: SlackClient::new(wire),
                token,
                identity: OnceLock::new(),
                limits: Limits::default(),
            }),
        })
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.inner.morphism.http_api.connector
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Makes a call unless Slack has limited it, and keeps the limit where Slack limits it now.
    async fn limited<T>(
        &self,
        method: &str,
        channel: Option<&str>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.limits().ask(method, channel)?;
        let done = call.await;
        if let Err(Error::RateLimited { retry_after }) = &done {
            self.limits().met(method, channel, *retry_after);
        }
        done
    }

    /// Calls a method with a JSON body.
    pub(crate) async fn call<RQ, RS>(&self, method: &str, request: &RQ) -> Result<RS, Error>
    where
        RQ: Serialize + Send + Sync,
        RS: for<'de> Deserialize<'de> + Send,
    {
        self.call_in(method, None, request).await
    }

    /// Calls a method that Slack may limit by channel.
    async fn call_in<RQ, RS>(&self, method: &str, channel: Option<&str>, request: &RQ) -> Result<RS, Error>
    where
        RQ: Serialize + Send + Sync,
        RS: for<'de> Deserialize<'de> + Send,
    {
        let session = self.inner.morphism.open_session(&self.inner.token);
        self.limited(method, channel, async {
            Ok(session.http_session_api.http_post(method, request, None).await?)
        })
        .await
    }

    /// Calls a reading method, which take their arguments from the query only.
    pub(crate) async fn ask<RS>(&self, method: &str, params: &[(&str, &str)]) -> Result<RS, Error>
    where
        RS: for<'de> Deserialize<'de> + Send,
    {
        let session = self.inner.morphism.open_session(&self.inner.token);
        let params: Vec<(&str, Option<&str>)> = params
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (*name, Some(*value)))
            .collect();
        self.limited(method, None, async {
            Ok(session.http_session_api.http_get(method, &params, None).await?)
        })
        .await
    }

    /// Who the token belongs to, and what it may do.
    pub async fn auth_test(&self) -> Result<Identity, Error> {
        #[derive(Deserialize)]
        struct Raw {
            team_id: Option<String>,
            user_id: Option<String>,
            bot_id: Option<String>,
            url: Option<String>,
        }
        let url = self.method_url("auth.test");
        let body = (HeaderValue::from_static("application/json; charset=utf-8"), "{}".into());
        let (answer, raw) = self
            .limited("auth.test", None, async {
                let answer =
                    self.wire().exchange(Method::POST, &url, Some(&self.inner.token), Some(body)).await?;
                let raw: Raw = wire::read(&answer)?;
                Ok((answer, raw))
            })
            .await?;
        let scopes = answer.headers.get("x-oauth-scopes").and_then(|value| value.to_str().ok()).unwrap_or("");
        let identity = Identity {
            team_id: raw.team_id.unwrap_or_default(),
            user_id: raw.user_id.unwrap_or_default(),
            bot_id: raw.bot_id.unwrap_or_default(),
            url: raw.url.unwrap_or_default(),
            scopes: scopes
                .split(',')
                .map(str::trim)
                .filter(|scope| !scope.is_empty())
                .map(str::to_owned)
                .collect(),
        };
        // A token belongs to one bot, so the first answer stays right.
        let _ = self.inner.identity.set(identity.clone());
        Ok(identity)
    }

    /// A fresh WebSocket address for Socket Mode. It holds a ticket: never log it.
    pub async fn connections_open(&self, app_token: &Secret) -> Result<Secret, Error> {
        #[derive(Deserialize)]
        struct Raw {
            url: Option<String>,
        }
        let token = api_token(app_token);
        let session = self.inner.morphism.open_session(&token);
        let method = "apps.connections.open";
        let raw: Raw = self
            .limited(method, None, async {
                Ok(session.http_session_api.http_post(method, &serde_json::json!({}), None).await?)
            })
            .await?;
        raw.url.map(Secret::from).ok_or_else(|| Error::unclear("apps.connections.open gave no url"))
    }

    /// Posts a message; its `ts`. After [`Error::Unclear`] look for it with [`Client::find_own`] first.
    pub async fn post(&self, post: &Post) -> Result<String, Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            channel: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            thread_ts: Option<&'a str>,
            text: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            blocks: &'a [SlackBlock],
            #[serde(skip_serializing_if = "Option::is_none")]
            metadata: Option<&'a Metadata>,
            reply_broadcast: bool,
            unfurl_links: bool,
            unfurl_media: bool,
        }
        let request = Request {
            channel: &post.channel,
            thread_ts: post.thread_ts.as_deref(),
            text: &post.text.text,
            blocks: &post.text.blocks,
            metadata: post.metadata.as_ref(),
            reply_broadcast: false,
            unfurl_links: false,
            unfurl_media: false,
        };
        let posted: Posted = self.call_in(limits::POST, Some(&post.channel), &request).await?;
        posted.ts.ok_or_else(|| Error::unclear("chat.postMessage gave no ts"))
    }

    /// Replaces a message's text and blocks; empty `blocks` removes them.
    pub async fn update(&self, channel: &str, ts: &str, text: &Text) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            channel: &'a str,
            ts: &'a str,
            text: &'a str,
            // Always sent: what Slack does with old blocks when none are given has changed over time.
            blocks: &'a [SlackBlock],
        }
        let request = Request { channel, ts, text: &text.text, blocks: &text.blocks };
        let Nothing {} = self.call("chat.update", &request).await?;
        Ok(())
    }

    /// Says something to one person only. Slack does not guarantee that it arrives.
    pub async fn post_ephemeral(
        &self,
        channel: &str,
        user: &str,
        thread_ts: Option<&str>,
        text: &Text,
    ) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            channel: &'a str,
            user: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            thread_ts: Option<&'a str>,
            text: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            blocks: &'a [SlackBlock],
        }
        let request = Request { channel, user, thread_ts, text: &text.text, blocks: &text.blocks };
        let Nothing {} = self.call("chat.postEphemeral", &request).await?;
        Ok(())
    }

    /// Answers by `response_url`. An address that is not Slack's is refused, not called.
    pub async fn respond(&self, respond: &Respond) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            text: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            blocks: &'a [SlackBlock],
            replace_original: bool,
            response_type: &'static str,
        }
        let url = Url::parse(respond.response_url.expose())
            .map_err(|_| Error::refused("response_url_not_slack", "it is not a URL"))?;
        if !self.wire().permits(&url, |host| host == "hooks.slack.com") {
            return Err(Error::refused("response_url_not_slack", "it leads to another host than Slack's"));
        }
        let body = serde_json::to_vec(&Request {
            text: &respond.text.text,
            blocks: &respond.text.blocks,
            replace_original: respond.replace_original,
            response_type: if respond.ephemeral { "ephemeral" } else { "in_channel" },
        })
        .map_err(|error| Error::not_done(format!("the answer cannot be written as JSON: {error}")))?;
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        self.limited(limits::RESPOND, None, async {
            let body = Some((json, body.into()));
            plain(&self.wire().exchange(Method::POST, url.as_str(), None, body).await?)
        })
        .await
    }

    /// Puts a reaction on a message; one that is there already counts as done.
    pub async fn add_reaction(&self, channel: &str, ts: &str, name: &str) -> Result<(), Error> {
        self.reaction("reactions.add", channel, ts, name, "already_reacted").await
    }

    /// Takes our reaction off a message; one that is not there counts as done.
    pub async fn remove_reaction(&self, channel: &str, ts: &str, name: &str) -> Result<(), Error> {
        self.reaction("reactions.remove", channel, ts, name, "no_reaction").await
    }

    async fn reaction(
        &self,
        method: &str,
        channel: &str,
        timestamp: &str,
        name: &str,
        done_already: &str,
    ) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            channel: &'a str,
            timestamp: &'a str,
            name: &'a str,
        }
        match self.call(method, &Request { channel, timestamp, name }).await {
            Ok(Nothing {}) => Ok(()),
            Err(error) if error.code() == Some(done_already) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The web address of a message.
    pub async fn permalink(&self, channel: &str, ts: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Raw {
            permalink: Option<String>,
        }
        let raw: Raw = self.ask("chat.getPermalink", &[("channel", channel), ("message_ts", ts)]).await?;
        raw.permalink.ok_or_else(|| Error::unclear("chat.getPermalink gave no permalink"))
    }

    fn method_url(&self, method: &str) -> String {
        self.wire().method_url(method)
    }
}

/// The verdict on an answer that is not JSON (`response_url`, upload addresses).
pub(crate) fn plain(answer: &wire::Answer) -> Result<(), Error> {
    if answer.status == ::http::StatusCode::TOO_MANY_REQUESTS {
        let retry_after = wire::retry_after(&answer.headers).unwrap_or(Duration::from_secs(1));
        return Err(Error::RateLimited { retry_after });
    }
    if answer.status.is_success() {
        return Ok(());
    }
    Err(Error::from_status(answer.status, &String::from_utf8_lossy(&answer.body)))
}

fn api_token(secret: &Secret) -> SlackApiToken {
    SlackApiToken::new(SlackApiTokenValue(secret.expose().trim().to_owned()))
}
