use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use slack_morphism::signature_verifier::SlackEventSignatureVerifier;

use super::*;

#[tokio::test]
async fn an_unacknowledged_event_comes_again_and_an_acknowledged_one_does_not() {
    let workspace = Workspace::start(fast()).unwrap();
    let mut socket = Robot::new(&workspace).connect().await;
    let hello = socket.next().await.unwrap();
    assert_eq!((&hello["type"], &hello["num_connections"]), (&json!("hello"), &json!(1)));
    assert_eq!(hello["connection_info"]["app_id"], "A0HEAL");

    workspace.post_message(Posting::of_sender("B0PROM", "alerts", "down")).unwrap();
    let first = socket.next().await.unwrap();
    assert_eq!((&first["type"], &first["retry_attempt"]), (&json!("events_api"), &json!(0)));
    assert_eq!(first["payload"]["event"]["bot_id"], "B0PROM");
    let second = socket.next().await.unwrap();
    assert_eq!((&second["envelope_id"], &second["retry_attempt"]), (&first["envelope_id"], &json!(1)));
    socket.ack(&second, None).await;
    workspace.wait_until(BOUND, |v| v.deliveries()[0].acknowledged_after.is_some()).await.unwrap();

    workspace.post_message(Posting::of_sender("B0PROM", "alerts", "next")).unwrap();
    assert_eq!(socket.next().await.unwrap()["payload"]["event"]["text"], "next");
}

#[tokio::test]
async fn each_envelope_goes_to_one_of_several_sockets_and_events_can_come_twice() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    let (mut a, mut b) = (bot.connect().await, bot.connect().await);
    a.next().await.unwrap();
    b.next().await.unwrap();
    workspace.deliver_twice_every(1);
    workspace.post_message(Posting::of_sender("B0PROM", "alerts", "down")).unwrap();
    let (one, two) = (a.next().await.unwrap(), b.next().await.unwrap());
    assert_eq!(one["payload"]["event_id"], two["payload"]["event_id"]);
    assert_ne!(one["envelope_id"], two["envelope_id"]);
}

#[tokio::test]
async fn sockets_are_limited_refreshed_and_cut() {
    let workspace = Workspace::start(fast()).unwrap();
    let bot = Robot::new(&workspace);
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut socket = bot.connect().await;
        socket.next().await.unwrap();
        sockets.push(socket);
    }
    let mut eleventh = bot.connect().await;
    assert_eq!(eleventh.next().await.unwrap()["reason"], "too_many_websockets");
    assert_eq!(eleventh.next().await, None);
    workspace.disconnect_all("refresh_requested");
    for socket in &mut sockets {
        assert_eq!(socket.next().await.unwrap()["reason"], "refresh_requested");
        assert_eq!(socket.next().await, None);
    }
    workspace.wait_until(BOUND, |v| v.connections() == 0).await.unwrap();
    let mut socket = bot.connect().await;
    socket.next().await.unwrap();
    workspace.cut_sockets();
    assert_eq!(socket.next().await, None);
    let stale =
        format!("{}?ticket=used", workspace.api_url().replace("http", "ws").replace("/api", "/link/"));
    assert!(tokio_tungstenite::connect_async(stale).await.is_err(), "a ticket opens one socket");
}

#[tokio::test]
async fn a_click_carries_the_message_and_its_answer_can_be_private() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    let mut socket = bot.connect().await;
    socket.next().await.unwrap();
    let alert = workspace.post_message(Posting::of_sender("B0PROM", "alerts", "down")).unwrap();
    let blocks = json!([{"type": "actions", "elements": [{"type": "button", "action_id": "approve", "value": "r1",
        "text": {"type": "plain_text", "text": "Approve"}}]}]);
    let posted = bot
        .call(
            "chat.postMessage",
            json!({"channel": "C0ALERTS", "thread_ts": alert, "text": "t", "blocks": blocks}),
        )
        .await;
    let ts = posted["ts"].as_str().unwrap().to_owned();
    let wrong = workspace.click("mika", "alerts", &ts, "Reject").await.unwrap_err();
    assert!(matches!(wrong, ClickError::NoButton { .. }), "{wrong}");

    let clicking = tokio::spawn({
        let (workspace, ts) = (workspace.clone(), ts.clone());
        async move { workspace.click("external-eve", "alerts", &ts, "Approve").await }
    });
    let envelope = loop {
        let envelope = socket.next().await.unwrap();
        socket.ack(&envelope, None).await;
        if envelope["type"] == "interactive" {
            break envelope;
        }
    };
    clicking.await.unwrap().unwrap();
    let payload = &envelope["payload"];
    assert_eq!(payload["user"]["team_id"], "T0PARTNER");
    assert_eq!(payload["container"]["thread_ts"], alert.as_str());
    assert_eq!(payload["message"]["blocks"][0]["elements"][0]["value"], "r1");
    assert_eq!(
        (&payload["actions"][0]["action_id"], &payload["actions"][0]["type"]),
        (&json!("approve"), &json!("button"))
    );

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = || {
        Request::post(payload["response_url"].as_str().unwrap())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(r#"{"text": "not for you", "replace_original": false}"#)))
            .unwrap()
    };
    for _ in 0..5 {
        assert_eq!(client.request(answer()).await.unwrap().status(), 200);
    }
    assert_eq!(client.request(answer()).await.unwrap().status(), 404, "five uses");
    assert_eq!(workspace.ephemerals("external-eve")[0].text, "not for you");
    assert!(workspace.ephemerals("mika").is_empty());
}

#[tokio::test]
async fn a_slash_command_is_answered_in_its_acknowledgement() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let mut socket = Robot::new(&workspace).connect().await;
    socket.next().await.unwrap();
    let asking = tokio::spawn({
        let workspace = workspace.clone();
        async move { workspace.slash("ren", "alerts", "pause web:*").await }
    });
    let envelope = socket.next().await.unwrap();
    let payload = &envelope["payload"];
    assert_eq!((&payload["command"], &payload["text"]), (&json!("/heal"), &json!("pause web:*")));
    assert!(payload.get("thread_ts").is_none());
    socket.ack(&envelope, Some(json!({"text": "paused"}))).await;
    let answer = asking.await.unwrap().unwrap();
    assert_eq!((answer.read(), answer.ephemeral), ("paused", true));
}

#[tokio::test]
async fn without_a_bot_a_click_says_so() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let refused = workspace.slash("ren", "alerts", "help").await.unwrap_err();
    assert_eq!(refused, ClickError::Unanswered("the bot is not connected".to_owned()));
}

type Seen = Arc<Mutex<Vec<(HeaderMap, String)>>>;

async fn take(State(seen): State<Seen>, headers: HeaderMap, body: String) -> (http::StatusCode, String) {
    let mut seen = seen.lock().unwrap();
    seen.push((headers, body.clone()));
    let challenge =
        serde_json::from_str::<Value>(&body).ok().and_then(|b| b["challenge"].as_str().map(str::to_owned));
    // The first event is refused once, to see it again.
    let status = if seen.len() == 1 { 500 } else { 200 };
    (http::StatusCode::from_u16(status).unwrap(), challenge.unwrap_or_default())
}

#[tokio::test]
async fn http_deliveries_are_signed_and_retried() {
    let seen = Seen::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/slack", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/slack", post(take)).with_state(seen.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let delivery = Delivery::Http { events: url.clone(), interactions: url.clone(), commands: url.clone() };
    let retries = vec![Duration::from_millis(5)];
    let workspace =
        Workspace::start(Options { delivery, http_retries: retries, ..Options::default() }).unwrap();
    assert!(!workspace.view(View::connected));

    workspace.post_message(Posting::of_sender("B0PROM", "alerts", "down & out")).unwrap();
    workspace.wait_until(BOUND, |v| v.deliveries()[0].acknowledged_after.is_some()).await.unwrap();
    assert!(workspace.view(View::connected));
    assert!(workspace.verify_url(&url).await);
    let seen = seen.lock().unwrap();
    let verifier = SlackEventSignatureVerifier::new(&"sandbox-signing-secret".to_owned().into());
    for (headers, body) in seen.iter() {
        let header = |name: &str| headers[name].to_str().unwrap();
        verifier.verify(header("x-slack-signature"), body, header("x-slack-request-timestamp")).unwrap();
    }
    assert!(!seen[0].0.contains_key("x-slack-retry-num"));
    assert_eq!(
        (&seen[1].0["x-slack-retry-num"], &seen[1].0["x-slack-retry-reason"]),
        (&"1".parse().unwrap(), &"http_error".parse().unwrap())
    );
    assert_eq!(seen[0].1, seen[1].1);
    server.abort();
}

#[tokio::test]
async fn edits_deletions_and_mentions_reach_the_bot_as_slack_sends_them() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let mut socket = Robot::new(&workspace).connect().await;
    socket.next().await.unwrap();
    let ts = workspace.post_message(Posting::of_sender("B0PROM", "alerts", "firing")).unwrap();
    workspace.edit_message("alerts", &ts, "resolved", None).unwrap();
    let mention = workspace.mention("ren", "alerts", Some(&ts), "pause").unwrap();
    workspace.delete_message("alerts", &mention);
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let event = socket.next().await.unwrap()["payload"]["event"].clone();
        kinds.push(format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["subtype"].as_str().unwrap_or("-")
        ));
        if event["subtype"] == "message_changed" {
            assert_eq!(
                (&event["message"]["text"], &event["previous_message"]["text"]),
                (&json!("resolved"), &json!("firing"))
            );
            assert_eq!(event["hidden"], true);
        }
    }
    assert_eq!(
        kinds,
        [
            "message bot_message",
            "message message_changed",
            "message -",
            "app_mention -",
            "message message_deleted"
        ]
    );
}

#[tokio::test]
async fn a_raw_event_is_delivered_as_it_is_and_can_be_answered_in_a_thread() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    let mut socket = bot.connect().await;
    socket.next().await.unwrap();
    let event = json!({"type": "message", "channel": "C0ALERTS", "ts": "1795135865.039595", "text": 7, "odd": [null]});
    workspace.post_raw_event(event.clone());
    assert_eq!(socket.next().await.unwrap()["payload"]["event"], event);
    let reply = json!({"channel": "C0ALERTS", "thread_ts": "1795135865.039595", "text": "seen"});
    assert_eq!(bot.call("chat.postMessage", reply).await["ok"], true);
}
