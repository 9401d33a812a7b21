//! Envelopes to the bot: what is around an event, by which road it goes, and how often it is tried
//! (docs.slack.dev/apis/events-api; signatures as in slack_sdk/signature).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::options::Delivery;
use super::shared::Shared;
use super::view::{DeliveryRecord, View};

/// Slack waits so long for the answer to a POST.
const HTTP_ANSWER: Duration = Duration::from_secs(3);

/// What an envelope carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Event,
    Interaction,
    Command,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Event => "events_api",
            Kind::Interaction => "interactive",
            Kind::Command => "slash_commands",
        }
    }
}

/// The bot's acknowledgement: its payload, if it gave any. An error is why there was none.
pub(super) type Acknowledged = Result<Value, String>;

impl Shared {
    /// Sends an event to the bot, twice when a test has asked for it.
    pub fn send_event(self: &Arc<Self>, view: &mut View, event: Value) {
        let n = self.next();
        let payload = wrap(view, event, n);
        let twice = view.double_every > 0 && n.is_multiple_of(view.double_every as u64);
        for _ in 0..=usize::from(twice) {
            // Nobody waits for an event's acknowledgement; the record in `deliveries` has it.
            drop(self.deliver(view, Kind::Event, payload.clone()));
        }
    }

    /// Sends anything to the bot and follows it until it is acknowledged or given up.
    pub fn deliver(
        self: &Arc<Self>,
        view: &mut View,
        kind: Kind,
        payload: Value,
    ) -> oneshot::Receiver<Acknowledged> {
        let (done, result) = oneshot::channel();
        let record = view.deliveries.len();
        view.deliveries.push(DeliveryRecord {
            kind: kind.name(),
            event_id: payload["event_id"].as_str().unwrap_or_default().to_owned(),
            sent: SystemTime::now(),
            acknowledged_after: None,
            attempts: 1,
            lost: false,
        });
        let shared = self.clone();
        match view.delivery.clone() {
            Delivery::Socket => {
                // The first sending happens here and now, so that envelopes leave in order.
                let envelope = uuid();
                let first = self.send_envelope(&envelope, kind, &payload, 0);
                tokio::spawn(async move {
                    let result = tokio::select! {
                        r = shared.follow(record, envelope, kind, payload, first) => r,
                        () = shared.until_stopped() => Err("the workspace has stopped".to_owned()),
                    };
                    shared.settle(record, &result);
                    let _ = done.send(result);
                });
            }
            Delivery::Http { events, interactions, commands } => {
                let (url, kind_of_body) = match kind {
                    Kind::Event => (events, Form::Json),
                    Kind::Interaction => (interactions, Form::Payload),
                    Kind::Command => (commands, Form::Fields),
                };
                let body = kind_of_body.encode(&payload);
                tokio::spawn(async move {
                    let result = tokio::select! {
                        r = shared.post_until_taken(record, &url, kind, kind_of_body, body) => r,
                        () = shared.until_stopped() => Err("the workspace has stopped".to_owned()),
                    };
                    shared.settle(record, &result);
                    let _ = done.send(result);
                });
            }
        }
        result
    }

    fn settle(self: &Arc<Self>, record: usize, result: &Acknowledged) {
        self.update(|view| {
            if matches!(view.delivery, Delivery::Http { .. }) {
                view.http_reached = result.is_ok();
            }
            if let Some(record) = view.deliveries.get_mut(record) {
                match result {
                    Ok(_) => record.acknowledged_after = record.sent.elapsed().ok(),
                    Err(_) => record.lost = true,
                }
            }
        });
    }

    fn attempted(self: &Arc<Self>, record: usize) {
        self.update(|view| {
            if let Some(record) = view.deliveries.get_mut(record) {
                record.attempts += 1;
            }
        });
    }

    fn send_envelope(
        &self,
        id: &str,
        kind: Kind,
        payload: &Value,
        attempt: u32,
    ) -> Option<oneshot::Receiver<Value>> {
        let reason = if attempt == 0 { "" } else { "timeout" };
        let envelope = json!({"envelope_id": id, "type": kind.name(), "payload": payload,
            "accepts_response_payload": kind == Kind::Command, "retry_attempt": attempt, "retry_reason": reason});
        let (acknowledged, awaited) = oneshot::channel();
        self.wire().awaited.insert(id.to_owned(), acknowledged);
        self.send_on_a_socket(envelope.to_string()).then_some(awaited)
    }

    async fn follow(
        self: &Arc<Self>,
        record: usize,
        id: String,
        kind: Kind,
        payload: Value,
        mut awaited: Option<oneshot::Receiver<Value>>,
    ) -> Acknowledged {
        let again = kind == Kind::Event || self.options.redeliver_interactive;
        let retries = if again { self.options.redeliveries } else { 0 };
        for attempt in 1.. {
            match awaited {
                Some(awaited) => {
                    let awaited = tokio::time::timeout(self.options.redeliver_after, awaited);
                    tokio::select! {
                        answer = awaited => if let Ok(Ok(answer)) = answer {
                            return Ok(answer);
                        },
                        // Slack notices a socket that went, and tries again in a while.
                        () = self.until_end_of(self.life()) => {
                            tokio::time::sleep(self.options.redeliver_after).await;
                        }
                    }
                }
                None if !again => return Err("the bot is not connected".to_owned()),
                None => tokio::time::sleep(self.options.redeliver_after).await,
            }
            if attempt > retries {
                break;
            }
            self.attempted(record);
            awaited = self.send_envelope(&id, kind, &payload, attempt);
        }
        self.wire().awaited.remove(&id);
        Err("the bot did not acknowledge it".to_owned())
    }

    async fn post_until_taken(
        self: &Arc<Self>,
        record: usize,
        url: &str,
        kind: Kind,
        form: Form,
        body: String,
    ) -> Acknowledged {
        let delays = if kind == Kind::Event { self.options.http_retries.as_slice() } else { &[] };
        let mut reason: Option<&'static str> = None;
        for attempt in 0..=delays.len() {
            let retry = reason.map(|r| (attempt, r));
            let failed = match self.post_signed(url, form, &body, retry).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if failed.final_ {
                break;
            }
            reason = Some(failed.reason);
            if let Some(delay) = delays.get(attempt) {
                tokio::time::sleep(*delay).await;
                self.attempted(record);
            }
        }
        Err(reason.unwrap_or("refused").to_owned())
    }

    /// One signed POST. Also what a test of `url_verification` uses.
    pub async fn post_signed(
        &self,
        url: &str,
        form: Form,
        body: &str,
        retry: Option<(usize, &'static str)>,
    ) -> Result<Value, Failed> {
        let timestamp = unix_now().to_string();
        let mut request = Request::post(url)
            .header("content-type", form.content_type())
            .header("user-agent", "Slackbot 1.0 (+https://api.slack.com/robots)")
            .header("x-slack-signature", sign(&self.options.signing_secret, &timestamp, body))
            .header("x-slack-request-timestamp", timestamp);
        if let Some((attempt, reason)) = retry {
            request = request.header("x-slack-retry-num", attempt).header("x-slack-retry-reason", reason);
        }
        let failed = |reason| Failed { reason, final_: false };
        let request =
            request.body(Full::new(Bytes::from(body.to_owned()))).map_err(|_| failed("unknown_error"))?;
        let life = self.life();
        let answer = async {
            let response = self.http.request(request).await.map_err(|_| failed("connection_failed"))?;
            let step = self.begin("acknowledge").map_err(|_| failed("connection_failed"))?;
            let no_retry = response.headers().get("x-slack-no-retry").is_some_and(|v| v == "1");
            let status = response.status();
            let bytes =
                response.into_body().collect().await.map_err(|_| failed("connection_failed"))?.to_bytes();
            if !status.is_success() {
                return Err(Failed { reason: "http_error", final_: no_retry });
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            // Taken: whether the bot ends after it changes nothing here.
            let _ = self.finish(step);
            Ok(match serde_json::from_slice(&bytes) {
                Ok(value) => value,
                Err(_) if text.trim().is_empty() => Value::Null,
                Err(_) => json!({"text": text}),
            })
        };
        tokio::select! {
            answer = tokio::time::timeout(HTTP_ANSWER, answer) => answer.unwrap_or_else(|_| Err(failed("http_timeout"))),
            () = self.until_end_of(life) => Err(failed("connection_failed")),
        }
    }
}

/// A POST that the bot did not take.
#[derive(Debug)]
pub(super) struct Failed {
    pub reason: &'static str,
    pub final_: bool,
}

/// How a body is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Json,
    Payload,
    Fields,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Payload | Form::Fields => "application/x-www-form-urlencoded",
        }
    }

    fn encode(self, payload: &Value) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        match self {
            Form::Json => return payload.to_string(),
            Form::Payload => {
                form.append_pair("payload", &payload.to_string());
            }
            Form::Fields => {
                for (name, value) in payload.as_object().into_iter().flatten() {
                    form.append_pair(name, value.as_str().unwrap_or_default());
                }
            }
        }
        form.finish()
    }
}

/// What Slack puts around an event.
fn wrap(view: &View, event: Value, n: u64) -> Value {
    let o = &view.options;
    let channel = event["channel"].as_str().unwrap_or_default().to_owned();
    json!({
        "token": "sandbox-verification-token",
        "team_id": o.team_id,
        "context_team_id": o.team_id,
        "context_enterprise_id": null,
        "api_app_id": o.bot.app_id,
        "event": event,
        "type": "event_callback",
        "event_id": format!("Ev{:08X}{n:06X}", unix_now()),
        "event_time": unix_now(),
        "authorizations": [{"enterprise_id": null, "team_id": o.team_id, "user_id": o.bot.user_id,
            "is_bot": true, "is_enterprise_install": false}],
        "is_ext_shared_channel": false,
        "event_context": format!("4-sandbox-{channel}-{n}"),
    })
}

/// `v0=HMAC_SHA256("v0:{timestamp}:{body}")`, in hexadecimal.
pub(super) fn sign(secret: &str, timestamp: &str, body: &str) -> String {
    crate::slack::http::sign(&crate::slack::Secret::new(secret), timestamp, body.as_bytes())
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn uuid() -> String {
    let (a, b) = (fastrand::u64(..), fastrand::u64(..));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}
