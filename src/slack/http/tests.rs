use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Options, router, sign};
use crate::slack::fake::within;
use crate::slack::{Counters, Delivery, Payload, Secret};

const NOW: i64 = 1_795_133_413;

struct World {
    base: String,
    deliveries: mpsc::Receiver<Delivery>,
    counters: Arc<Counters>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    async fn start() -> World {
        let (out, deliveries) = mpsc::channel(4);
        let counters = Arc::new(Counters::default());
        let options = Options {
            max_body: 4096,
            ack_limit: Duration::from_millis(1000),
            clock: Arc::new(|| NOW),
            ..Options::new(secret())
        };
        let app = router(options, out, Arc::clone(&counters));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        World { base, deliveries, counters, server }
    }

    fn ask(
        &self,
        path: &str,
        body: &str,
        headers: &[(&str, String)],
    ) -> tokio::task::JoinHandle<(StatusCode, String)> {
        let mut request = axum::http::Request::post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(bytes::Bytes::from(body.to_owned()))).unwrap();
        tokio::spawn(async move {
            let client: legacy::Client<HttpConnector, Full<bytes::Bytes>> =
                legacy::Client::builder(TokioExecutor::new()).build_http();
            let response = client.request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        })
    }

    fn signed(&self, path: &str, body: &str) -> tokio::task::JoinHandle<(StatusCode, String)> {
        self.ask(path, body, &signature(&secret(), NOW, body))
    }

    async fn delivery(&mut self) -> Delivery {
        within(self.deliveries.recv()).await.unwrap()
    }
}

fn secret() -> Secret {
    Secret::new("8f742231b10e8888abcd99yyyzzz85a5")
}

fn signature(secret: &Secret, at: i64, body: &str) -> Vec<(&'static str, String)> {
    vec![
        ("x-slack-request-timestamp", at.to_string()),
        ("x-slack-signature", sign(secret, &at.to_string(), body.as_bytes())),
    ]
}

fn event() -> String {
    json!({"type": "event_callback", "event_id": "Ev1", "event": {"type": "message"}}).to_string()
}

fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[test]
fn the_signature_is_the_one_of_slacks_own_example() {
    // docs.slack.dev, Verifying requests from Slack.
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    assert_eq!(
        sign(&secret(), "1531420618", body.as_bytes()),
        "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    );
}

#[tokio::test]
async fn requests_without_a_valid_fresh_signature_get_401_and_touch_nothing() {
    let mut world = World::start().await;
    let body = event();
    let good = signature(&secret(), NOW, &body);
    let mut other_time = good.clone();
    other_time[0].1 = (NOW + 1).to_string();
    let mut no_version = good.clone();
    no_version[1].1 = no_version[1].1.replace("v0=", "");
    let cases = [
        ("missing", vec![]),
        ("no timestamp", vec![good[1].clone()]),
        ("no signature", vec![good[0].clone()]),
        ("forged", signature(&Secret::new("guess"), NOW, &body)),
        ("of another body", signature(&secret(), NOW, "{}")),
        ("of another time", other_time),
        ("no version", no_version),
        ("stale", signature(&secret(), NOW - 301, &body)),
        ("of the future", signature(&secret(), NOW + 301, &body)),
        ("at the end of time", signature(&secret(), i64::MIN, &body)),
        ("odd", vec![good[0].clone(), ("x-slack-signature", format!("v0={}", "ü".repeat(32)))]),
    ];
    let count = cases.len();
    for path in ["/slack/events", "/slack/interactions", "/slack/commands"] {
        for (case, headers) in &cases {
            let (status, _) = within(world.ask(path, &body, headers)).await.unwrap();
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} {case}");
        }
    }
    assert!(world.deliveries.try_recv().is_err());
    assert_eq!(world.counters.forged.load(Ordering::Relaxed), 3 * count as u64);
}

#[tokio::test]
async fn an_event_is_answered_when_it_is_acknowledged() {
    let mut world = World::start().await;
    let body = event();
    let mut headers = signature(&secret(), NOW - 299, &body);
    headers.push(("x-slack-retry-num", "2".into()));
    headers.push(("x-slack-retry-reason", "http_timeout".into()));
    let asked = world.ask("/slack/events", &body, &headers);
    let delivery = world.delivery().await;
    assert_eq!(delivery.retry_attempt, 2);
    assert_eq!(&*delivery.raw, body);
    let Payload::Event(value) = &delivery.payload else { panic!("not an event") };
    assert_eq!(value["event_id"], "Ev1");
    assert!(!asked.is_finished());
    delivery.ack.done(None);
    assert_eq!(within(asked).await.unwrap(), (StatusCode::OK, String::new()));
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_or_dropped_comes_again() {
    let mut world = World::start().await;
    let asked = world.signed("/slack/events", &event());
    drop(world.delivery().await);
    assert_eq!(within(asked).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    let asked = world.signed("/slack/events", &event());
    let kept = world.delivery().await;
    assert_eq!(within(asked).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!kept.ack.done(None), "nobody waits for it any more");
}

#[tokio::test]
async fn clicks_and_commands_arrive_as_in_socket_mode() {
    let mut world = World::start().await;
    let click = json!({"type": "block_actions", "user": {"id": "U1"}}).to_string();
    let asked = world.signed("/slack/interactions", &form(&[("payload", &click)]));
    let delivery = world.delivery().await;
    assert_eq!(delivery.payload, Payload::Interaction(serde_json::from_str(&click).unwrap()));
    delivery.ack.done(None);
    within(asked).await.unwrap();

    let asked = world.signed("/slack/commands", &form(&[("command", "/heal"), ("text", "pause a:b & c")]));
    let delivery = world.delivery().await;
    assert_eq!(delivery.payload, Payload::Command(json!({"command": "/heal", "text": "pause a:b & c"})));
    delivery.ack.done(Some(json!({"response_type": "ephemeral", "text": "paused"})));
    let (status, body) = within(asked).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["text"], "paused");
}

#[tokio::test]
async fn the_challenge_is_answered() {
    let world = World::start().await;
    let body = json!({"type": "url_verification", "challenge": "3eZbrw1a"}).to_string();
    assert_eq!(
        within(world.signed("/slack/events", &body)).await.unwrap(),
        (StatusCode::OK, "3eZbrw1a".to_owned())
    );
}

#[tokio::test]
async fn signed_nonsense_is_refused_and_counted() {
    let mut world = World::start().await;
    let cases = [
        ("/slack/events", "{"),
        ("/slack/events", "[]"),
        ("/slack/events", "{}"),
        ("/slack/events", r#"{"type":"url_verification"}"#),
        ("/slack/interactions", "a=b"),
        ("/slack/interactions", "payload=%7B"),
        ("/slack/commands", "text=help"),
    ];
    for (path, body) in cases {
        assert_eq!(
            within(world.signed(path, body)).await.unwrap().0,
            StatusCode::BAD_REQUEST,
            "{path} {body}"
        );
    }
    assert_eq!(world.counters.malformed.load(Ordering::Relaxed), cases.len() as u64);
    let limits = r#"{"type":"app_rate_limited"}"#;
    assert_eq!(within(world.signed("/slack/events", limits)).await.unwrap().0, StatusCode::OK);
    assert_eq!(world.counters.unknown.load(Ordering::Relaxed), 1);
    let long = "x".repeat(5000);
    assert_eq!(within(world.signed("/slack/events", &long)).await.unwrap().0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.counters.oversized.load(Ordering::Relaxed), 1);
    assert!(world.deliveries.try_recv().is_err());
}
