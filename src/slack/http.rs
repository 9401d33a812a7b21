//! HTTP mode: Slack's three request addresses, behind its signature.
//!
//! Nothing is parsed before the signature is checked over the raw body. A request is answered when its
//! delivery is acknowledged; without that in time it gets a 503, and Slack sends it again (three times:
//! at once, after 1 and after 5 minutes). Replays within the five minutes are the receiver's to drop, by
//! `event_id`. (docs.slack.dev, Verifying requests; Events API.)

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode, header};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::delivery::excerpt;
use super::{Ack, Counters, Delivery, Payload, Secret};
use crate::text::clip;

/// A request may be this much older or newer than our clock.
const FRESH_SECS: u64 = 300;

/// How requests are taken.
#[derive(Clone)]
pub struct Options {
    pub signing_secret: Secret,
    /// In bytes; a longer body gets 413.
    pub max_body: usize,
    /// How long an acknowledgement may take; Slack itself waits 3 s.
    pub ack_limit: Duration,
    /// The wall clock, in seconds since the Unix epoch.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl Options {
    /// The defaults, with the clock of this machine.
    pub fn new(signing_secret: Secret) -> Options {
        Options {
            signing_secret,
            max_body: 1 << 20,
            ack_limit: Duration::from_millis(2800),
            clock: Arc::new(|| {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
            }),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_body", &self.max_body)
            .field("ack_limit", &self.ack_limit)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Gate {
    options: Options,
    deliveries: mpsc::Sender<Delivery>,
    counters: Arc<Counters>,
}

/// Why a request gets no 200.
#[derive(Debug)]
enum Refusal {
    Unsigned(&'static str),
    TooLong,
    Malformed(String),
    /// Not acknowledged in time, or shutting down.
    Busy,
}

/// `POST /slack/events`, `/slack/interactions` and `/slack/commands`.
pub fn router(options: Options, deliveries: mpsc::Sender<Delivery>, counters: Arc<Counters>) -> Router {
    Router::new()
        .route("/slack/events", post(events))
        .route("/slack/interactions", post(interactions))
        .route("/slack/commands", post(commands))
        .with_state(Gate { options, deliveries, counters })
}

/// The signature that Slack puts into `X-Slack-Signature`: `v0=` and the HMAC-SHA256, in hex, of
/// `v0:TIMESTAMP:BODY`. Public for emulators of Slack.
pub fn sign(secret: &Secret, timestamp: &str, body: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::from("v0=");
    for byte in mac(secret, timestamp, body).finalize().into_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn mac(secret: &Secret, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("any length");
    mac.update(b"v0:");
    mac.update(timestamp.as_bytes());
    mac.update(b":");
    mac.update(body);
    mac
}

/// Is the request Slack's, and of now?
fn verify(secret: &Secret, headers: &HeaderMap, body: &[u8], now: i64) -> Result<(), &'static str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let timestamp = text("x-slack-request-timestamp").ok_or("no timestamp")?;
    let signature = text("x-slack-signature").ok_or("no signature")?;
    if secret.is_empty() {
        return Err("no signing secret is configured");
    }
    let at: i64 = timestamp.parse().map_err(|_| "the timestamp is no number")?;
    let given = signature.strip_prefix("v0=").and_then(unhex).ok_or("the signature is not of version v0")?;
    // Compares in constant time.
    mac(secret, timestamp, body).verify_slice(&given).map_err(|_| "the signature does not fit")?;
    if now.abs_diff(at) > FRESH_SECS { Err("the request is stale") } else { Ok(()) }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if text.len() != 64 {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some((nibble(pair[0])? << 4) | nibble(pair[1])?)).collect()
}

async fn events(State(gate): State<Gate>, request: Request) -> Response {
    gate.answer(request, Gate::event).await
}

async fn interactions(State(gate): State<Gate>, request: Request) -> Response {
    gate.answer(request, |_, body| {
        let form = fields(body);
        let payload = form.get("payload").and_then(Value::as_str).ok_or("the form has no payload")?;
        Ok(Read::Payload(Payload::Interaction(object(payload)?), payload.into()))
    })
    .await
}

async fn commands(State(gate): State<Gate>, request: Request) -> Response {
    gate.answer(request, |_, body| {
        let form = Value::Object(fields(body));
        if form["ssl_check"] == "1" {
            return Ok(Read::Unknown("ssl_check".to_owned())); // Slack looks whether the certificate is good
        }
        if form["command"].as_str().is_none_or(str::is_empty) {
            return Err("the form has no command".to_owned());
        }
        let raw = form.to_string().into();
        Ok(Read::Payload(Payload::Command(form), raw))
    })
    .await
}

/// What a signed body holds.
enum Read {
    Payload(Payload, Box<str>),
    /// Slack tries the address out; the challenge is sent back.
    Challenge(String),
    /// Signed and of no use here: said and counted, and not wanted again.
    Unknown(String),
}

impl Gate {
    fn event(&self, body: &str) -> Result<Read, String> {
        let value = object(body)?;
        match value["type"].as_str() {
            Some("url_verification") => match value["challenge"].as_str() {
                Some(challenge) => Ok(Read::Challenge(challenge.to_owned())),
                None => Err("a url_verification without a challenge".to_owned()),
            },
            Some("event_callback") => Ok(Read::Payload(Payload::Event(value), body.into())),
            Some(other) => Ok(Read::Unknown(clip(other, 80))),
            None => Err("it has no type".to_owned()),
        }
    }

    async fn answer(
        &self,
        request: Request,
        read: impl FnOnce(&Gate, &str) -> Result<Read, String> + Send,
    ) -> Response {
        match self.take(request, read).await {
            Ok(response) => response,
            Err(refusal) => self.refuse(refusal),
        }
    }

    async fn take(
        &self,
        request: Request,
        read: impl FnOnce(&Gate, &str) -> Result<Read, String> + Send,
    ) -> Result<Response, Refusal> {
        let received = Instant::now();
        let deadline = received + self.options.ack_limit;
        let (parts, body) = request.into_parts();
        let body = match timeout_at(deadline, Limited::new(body, self.options.max_body).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refusal::TooLong),
            Ok(Err(_)) => return Err(Refusal::Unsigned("the body broke off")),
            Err(_) => return Err(Refusal::Unsigned("the body came too slowly")),
        };
        verify(&self.options.signing_secret, &parts.headers, &body, (self.options.clock)())
            .map_err(Refusal::Unsigned)?;

        let body =
            std::str::from_utf8(&body).map_err(|_| Refusal::Malformed("it is not UTF-8".to_owned()))?;
        let (payload, raw) = match read(self, body) {
            Ok(Read::Payload(payload, raw)) => (payload, raw),
            Ok(Read::Challenge(challenge)) => {
                return Ok(([(header::CONTENT_TYPE, "text/plain")], challenge).into_response());
            }
            Ok(Read::Unknown(kind)) => {
                Counters::add(&self.counters.unknown);
                tracing::warn!(kind, excerpt = excerpt(body), "Slack sent a request of unknown type");
                return Ok(StatusCode::OK.into_response());
            }
            Err(why) => return Err(Refusal::Malformed(format!("{why}: {}", excerpt(body)))),
        };
        let retry_attempt = retries(&parts.headers);
        let (ack, done) = Ack::http(Arc::clone(&self.counters));
        let delivery = Delivery { payload, raw, envelope_id: String::new(), retry_attempt, received, ack };
        // Waiting for room in the queue counts: Slack would not wait longer either.
        timeout_at(deadline, self.deliveries.send(delivery))
            .await
            .map_err(|_| Refusal::Busy)?
            .map_err(|_| Refusal::Busy)?;
        Counters::add(&self.counters.delivered);
        if retry_attempt > 0 {
            Counters::add(&self.counters.redelivered);
        }
        match timeout_at(deadline, done).await {
            Ok(Ok(Some(answer))) => Ok(axum::Json(answer).into_response()),
            Ok(Ok(None)) => Ok(StatusCode::OK.into_response()),
            Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        let status = match refusal {
            Refusal::Unsigned(why) => {
                Counters::add(&self.counters.forged);
                tracing::warn!(why, "a request without a valid Slack signature was refused");
                StatusCode::UNAUTHORIZED
            }
            Refusal::TooLong => {
                Counters::add(&self.counters.oversized);
                tracing::warn!(limit = self.options.max_body, "a request with too long a body was refused");
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Refusal::Malformed(why) => {
                Counters::add(&self.counters.malformed);
                tracing::warn!(why, "Slack sent a request that cannot be read");
                StatusCode::BAD_REQUEST
            }
            Refusal::Busy => {
                tracing::warn!("a delivery was not acknowledged in time; Slack will send it again");
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Response::builder().status(status).body(Body::empty()).unwrap_or_default()
    }
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A form as a JSON object of strings; the last of two equal names counts.
fn fields(body: &str) -> Map<String, Value> {
    url::form_urlencoded::parse(body.as_bytes())
        .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
        .collect()
}

fn retries(headers: &HeaderMap) -> u32 {
    let text = headers.get("x-slack-retry-num").and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
