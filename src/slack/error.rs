//! What can become of a call to Slack, sorted by what the caller may do next.
//!
//! One line runs between "definitely not done" (repeat at will), and "may have been done" (look before
//! repeating: `chat.postMessage` knows no idempotency key). Another runs through what Slack refuses: a
//! message that it will never take is given up; what a person can mend (a token, a scope, an invitation
//! to the channel) stays owed.

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
    /// Slack said no (`ok: false`, or a 4xx as `http_404`): definitely not done, and a repeat gets the same
    /// until somebody changes something.
    #[error("Slack refused: {code}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused { code: String, detail: String },
}

/// How long to wait where Slack says "wait" and not how long.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The most of an answer that gets into an error.
const DETAIL_CHARS: usize = 500;
/// What a person can mend is waited for so long: a report of last week helps nobody.
const MENDED_WITHIN: Duration = Duration::from_secs(7 * 86_400);
/// With a code that heal does not know nobody can say whether the message or the workspace is meant.
const UNKNOWN_FOR: Duration = Duration::from_secs(86_400);

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

    /// Slack will never take this message, whatever anybody changes around it.
    pub fn is_final(&self) -> bool {
        self.code().is_some_and(is_of_the_message)
    }

    /// Slack refuses it as things are, and a person may change them.
    pub fn needs_person(&self) -> bool {
        self.code().is_some_and(|code| !is_of_the_message(code))
    }

    /// How old what is owed may grow while Slack refuses it so. `None`: no refusal, however old.
    pub fn owed_for(&self) -> Option<Duration> {
        let code = self.code()?;
        Some(match () {
            () if is_of_the_message(code) => Duration::ZERO,
            () if self.hint().is_some() || concerns_all(code) => MENDED_WITHIN,
            () => UNKNOWN_FOR,
        })
    }

    /// The refusal is of whoever calls, or of the way to Slack, and so of every call alike.
    pub fn concerns_all(&self) -> bool {
        self.code().is_some_and(concerns_all)
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
                "the token is wrong, revoked or of another app; copy it afresh from the app's page into the environment and start heal again"
            }
            "not_allowed_token_type" => {
                "a token of the wrong kind: SLACK_BOT_TOKEN begins with xoxb-, SLACK_APP_TOKEN with xapp-"
            }
            "missing_scope" | "no_permission" => {
                "the app lacks a scope; update it from `heal manifest` and install it again"
            }
            "not_in_channel" | "channel_not_found" | "invalid_channel" => {
                "invite the app to the channel: /invite @heal"
            }
            "is_archived" => "the channel is archived; unarchive it, or take it out of slack.channels",
            "plan_upgrade_required" => "user groups need a paid plan; list user ids under approvers instead",
            "msg_too_long" | "msg_blocks_too_long" | "invalid_blocks" => {
                "the message does not fit Slack's limits"
            }
            "restricted_action"
            | "restricted_action_read_only_channel"
            | "restricted_action_thread_only_channel"
            | "restricted_action_non_threadable_channel"
            | "posting_to_channel_denied"
            | "ekm_access_denied"
            | "messages_tab_disabled"
            | "file_uploads_disabled" => {
                "the workspace's or channel's posting policy forbids it; allow the app to post there"
            }
            "access_denied" | "accesslimited" | "org_login_required" | "enterprise_is_restricted" => {
                "the workspace's policy keeps the app out; ask its administrators"
            }
            "team_access_not_granted" | "team_added_to_org" | "team_not_found" | "invalid_team" => {
                "the app is not installed in this workspace of the organisation (any more); install it there"
            }
            "external_channel_migrating" => "Slack is moving the shared channel; this passes",
            "message_limit_exceeded" | "storage_limit_reached" => {
                "the workspace's plan is used up; ask its administrators"
            }
            "http_401" | "http_403" | "http_407" => {
                "something between heal and Slack (a proxy, a firewall) refuses the call; let heal through to slack.com"
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

/// Refusals of what the message is or what it stands on, which no person mends (docs.slack.dev, errors
/// of chat.postMessage, chat.update, reactions.add, reactions.remove, files.completeUploadExternal).
fn is_of_the_message(code: &str) -> bool {
    matches!(
        code,
        // What is said.
        "no_text" | "msg_too_long" | "msg_blocks_too_long" | "invalid_blocks" | "invalid_blocks_format"
            | "too_many_attachments" | "attachment_payload_limit_exceeded" | "markdown_text_conflict"
            | "invalid_metadata_format" | "invalid_metadata_schema" | "metadata_too_large"
            | "invalid_arguments" | "invalid_name" | "http_413"
            // Where it is said: that message is gone, or takes no more.
            | "message_not_found" | "thread_not_found" | "bad_timestamp" | "invalid_thread_ts"
            | "cannot_reply_to_message" | "restricted_action_thread_locked" | "thread_locked"
            | "cant_update_message" | "edit_window_closed" | "duplicate_message_not_found"
            | "duplicate_channel_not_found" | "not_reactable" | "too_many_emoji" | "too_many_reactions"
            // The file.
            | "file_not_found" | "file_deleted" | "malware_detected" | "blocked_file_type"
    )
}

fn concerns_all(code: &str) -> bool {
    matches!(
        code,
        "invalid_auth"
            | "not_authed"
            | "token_revoked"
            | "token_expired"
            | "account_inactive"
            | "not_allowed_token_type"
            | "team_access_not_granted"
            | "team_added_to_org"
            | "org_login_required"
            | "two_factor_setup_required"
            | "accesslimited"
            | "http_401"
            | "http_403"
            | "http_407"
    )
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
