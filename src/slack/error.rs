//! What can become of a call to Slack, sorted by what the caller may do next.
//!
//! The line that matters runs between "definitely not done" (repeat at will), and "may have been
//! done" (look before repeating: `chat.postMessage` knows no idempotency key).

use std::time::Duration;

use slack_morphism::errors::SlackClientError;

use crate::text::{clip, redact};

/// The outcome of a call that was not simply done. Holds no token and no `response_url`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Slack's 429 (or `ratelimited`): definitely not done; the same method may be called for this
    /// channel after `retry_after`.
    #[error("Slack asks to wait {} s before the next such call", retry_after.as_secs())]
    RateLimited { retry_after: Duration },
    /// Nothing was sent (no connection, or the request was never made): a repeat is safe.
    #[error("not sent to Slack: {why}")]
    NotDone { why: String },
    /// Sent, and the answer is missing or makes no sense: a time-out, a reset, a 5xx, no JSON.
    #[error("no clear answer from Slack: {why}")]
    Unclear { why: String },
    /// Slack said no (`ok: false`, or a 4xx as `http_404`): definitely not done, and a repeat gets the same.
    #[error("Slack refused: {code}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused { code: String, detail: String },
}

/// How long to wait where Slack says "wait" and not how long.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The most of an answer that gets into an error.
const DETAIL_CHARS: usize = 500;

impl Error {
    pub(crate) fn not_done(why: impl Into<String>) -> Error {
        Error::NotDone { why: why.into() }
    }

    pub(crate) fn unclear(why: impl Into<String>) -> Error {
        Error::Unclear { why: why.into() }
    }

    pub(crate) fn refused(code: &str, detail: &str) -> Error {
        Error::Refused { code: clip(code, 80), detail: redact(&clip(detail, DETAIL_CHARS)) }
    }

    /// A repeat of the same call cannot help; somebody has to change something first.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Error::Refused { .. })
    }

    /// Slack may have done it all the same.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Error::Unclear { .. })
    }

    /// Slack's error code, where it refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self.code()? {
            "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive" => {
                "the token is wrong, revoked or of another app; copy it afresh from the app's page into the environment"
            }
            "not_allowed_token_type" => {
                "a token of the wrong kind: SLACK_BOT_TOKEN begins with xoxb-, SLACK_APP_TOKEN with xapp-"
            }
            "missing_scope" => "the app lacks a scope; update it from `heal manifest` and install it again",
            "not_in_channel" | "channel_not_found" => "invite the app to the channel: /invite @heal",
            "is_archived" => "the channel is archived; take it out of slack.channels",
            "plan_upgrade_required" => "user groups need a paid plan; list user ids under approvers instead",
            "msg_too_long" | "msg_blocks_too_long" | "invalid_blocks" => {
                "the message does not fit Slack's limits"
            }
            "restricted_action" | "restricted_action_read_only_channel" => {
                "the workspace's or channel's posting policy forbids it; allow the app to post there"
            }
            _ => return None,
        })
    }

    /// Sorts Slack's own error code. A few codes of `ok: false` say only that Slack had trouble, and
    /// the thing may be done (docs.slack.dev, errors common to all methods).
    pub(crate) fn from_code(code: &str, detail: &str) -> Error {
        match code {
            "ratelimited" | "rate_limited" => Error::RateLimited { retry_after: DEFAULT_RETRY_AFTER },
            "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" => {
                Error::unclear(format!("Slack had trouble of its own ({code})"))
            }
            _ => Error::refused(code, detail),
        }
    }

    /// Sorts an HTTP status that is neither a success nor a 429.
    pub(crate) fn from_status(status: ::http::StatusCode, body: &str) -> Error {
        if status.is_server_error() || status == ::http::StatusCode::REQUEST_TIMEOUT {
            Error::unclear(format!("HTTP status {}", status.as_u16()))
        } else {
            Error::refused(&format!("http_{}", status.as_u16()), body)
        }
    }
}

impl From<SlackClientError> for Error {
    fn from(error: SlackClientError) -> Error {
        match error {
            SlackClientError::ApiError(api) => {
                Error::from_code(&api.code, &detail_of(api.http_response_body.as_deref()))
            }
            SlackClientError::RateLimitError(limit) => {
                Error::RateLimited { retry_after: limit.retry_after.unwrap_or(DEFAULT_RETRY_AFTER) }
            }
            SlackClientError::HttpError(http) => {
                Error::from_status(http.status_code, http.http_response_body.as_deref().unwrap_or_default())
            }
            SlackClientError::ProtocolError(protocol) => {
                // Only the parser's complaint: the body may be anything.
                Error::unclear(format!("an answer that cannot be read ({})", protocol.json_error))
            }
            // Our own connector puts its verdict into the cause.
            SlackClientError::HttpProtocolError(protocol) => {
                match protocol.cause.map(|cause| cause.downcast()) {
                    Some(Ok(verdict)) => *verdict,
                    _ => Error::not_done("the request could not be made"),
                }
            }
            SlackClientError::EndOfStream(_)
            | SlackClientError::SocketModeProtocolError(_)
            | SlackClientError::SystemError(_) => Error::unclear("a failure inside the client"),
        }
    }
}

/// What Slack says beside the code: which field, which scope.
fn detail_of(body: Option<&str>) -> String {
    let Some(body) = body else { return String::new() };
    let Ok(body) = serde_json::from_str::<serde_json::Value>(body) else { return String::new() };
    let mut parts: Vec<String> = Vec::new();
    for list in [&body["response_metadata"]["messages"], &body["errors"]] {
        for entry in list.as_array().into_iter().flatten().take(5) {
            parts.push(entry.as_str().map_or_else(|| entry.to_string(), str::to_owned));
        }
    }
    for name in ["needed", "provided"] {
        if let Some(value) = body[name].as_str() {
            parts.push(format!("{name} {value}"));
        }
    }
    parts.join("; ")
}
