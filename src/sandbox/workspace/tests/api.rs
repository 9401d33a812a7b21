use super::*;

#[tokio::test]
async fn a_message_is_posted_updated_and_deleted() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    let alert = workspace.post_message(Posting::of_sender("B0PROM", "#alerts", "web-1 is down")).unwrap();
    let answer = bot
        .call(
            "chat.postMessage",
            json!({"channel": "C0ALERTS", "thread_ts": alert, "text": "one & two",
                "metadata": {"event_type": "heal", "event_payload": {"run": 7}},
                "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "hello"}}]}),
        )
        .await;
    assert_eq!(answer["ok"], true, "{answer}");
    let ts = answer["ts"].as_str().unwrap();
    let thread = workspace.thread("alerts", &alert);
    assert_eq!((thread.len(), thread[0].read()), (1, "hello".to_owned()));
    assert_eq!(thread[0].text, "one &amp; two");
    assert_eq!(workspace.messages("alerts")[0].raw["reply_count"], 1);

    let update = json!({"channel": "C0ALERTS", "ts": ts, "text": "changed"});
    assert_eq!(bot.call("chat.update", update).await["ok"], true);
    let message = workspace.thread("alerts", &alert).remove(0);
    assert_eq!((message.read(), message.edited), ("changed".to_owned(), true));
    assert_eq!(message.raw["metadata"]["event_payload"]["run"], 7, "metadata stays");

    let others = bot.call("chat.update", json!({"channel": "C0ALERTS", "ts": alert, "text": "no"})).await;
    assert_eq!(others["error"], "cant_update_message");
    assert_eq!(bot.call("chat.delete", json!({"channel": "C0ALERTS", "ts": ts})).await["ok"], true);
    assert!(workspace.thread("alerts", &alert).is_empty());
}

#[tokio::test]
async fn a_stamp_that_is_taken_moves_on_so_that_no_message_replaces_another() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let post = |text: &str| {
        let posting = Posting::of_sender("B0PROM", "#alerts", text);
        workspace.post_message(posting.with_raw("ts", "1700000000.999999".into())).unwrap()
    };
    assert_eq!((post("one"), post("two")), ("1700000000.999999".into(), "1700000001.000000".into()));
    assert_eq!(workspace.messages("alerts").len(), 2);
}

#[tokio::test]
async fn wrong_calls_get_slacks_errors() {
    let options = Options { scopes: vec!["chat:write".to_owned()], ..Options::default() };
    let workspace = Workspace::start(options).unwrap();
    let bot = Robot::new(&workspace);
    let long = json!([{"type": "section", "text": {"type": "mrkdwn", "text": "x".repeat(3_001)}}]);
    for (method, body, error) in [
        ("chat.postMessage", json!({"channel": "C0NONE", "text": "x"}), "channel_not_found"),
        ("chat.postMessage", json!({"channel": "C0RANDOM", "text": "x"}), "not_in_channel"),
        ("chat.postMessage", json!({"channel": "C0ALERTS"}), "no_text"),
        ("chat.postMessage", json!({"text": "x"}), "invalid_arguments"),
        ("chat.postMessage", json!({"channel": "C0ALERTS", "blocks": long}), "invalid_blocks"),
        ("chat.postMessage", json!({"channel": "C0ALERTS", "blocks": "[{"}), "invalid_blocks_format"),
        (
            "chat.postMessage",
            json!({"channel": "C0ALERTS", "text": "x", "metadata": {}}),
            "invalid_metadata_format",
        ),
        ("chat.update", json!({"channel": "C0ALERTS", "ts": "1.2", "text": "x"}), "message_not_found"),
        (
            "chat.postEphemeral",
            json!({"channel": "C0ALERTS", "user": "U0NOBODY", "text": "x"}),
            "user_not_in_channel",
        ),
        ("conversations.history", json!({"channel": "C0ALERTS"}), "missing_scope"),
        ("apps.connections.open", json!({}), "not_allowed_token_type"),
        ("chat.sing", json!({}), "unknown_method"),
    ] {
        let answer = bot.call(method, body).await;
        assert_eq!(answer["error"], error, "{method}: {answer}");
    }
    let stranger = bot.try_call("auth.test", "xoxb-wrong", json!({})).await.unwrap();
    assert_eq!(stranger.body["error"], "invalid_auth");
    assert_eq!(stranger.headers["x-oauth-scopes"], "chat:write");
}

#[tokio::test]
async fn history_is_paged_bounded_and_newest_first() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    let mut stamps = Vec::new();
    for i in 0..5 {
        stamps.push(bot.post("C0ALERTS", &format!("m{i}")).await);
    }
    let texts = |answer: &Value| -> Vec<String> {
        let list = answer["messages"].as_array().unwrap();
        list.iter().map(|m| m["text"].as_str().unwrap().to_owned()).collect()
    };
    let first = bot.call("conversations.history", json!({"channel": "C0ALERTS", "limit": 2})).await;
    assert_eq!((texts(&first), &first["has_more"]), (vec!["m4".into(), "m3".into()], &json!(true)));
    let cursor = &first["response_metadata"]["next_cursor"];
    let next =
        bot.call("conversations.history", json!({"channel": "C0ALERTS", "limit": 9, "cursor": cursor})).await;
    assert_eq!(texts(&next), ["m2", "m1", "m0"]);
    let after = bot.call("conversations.history", json!({"channel": "C0ALERTS", "oldest": stamps[3]})).await;
    assert_eq!(texts(&after), ["m4"]);
    let from = json!({"channel": "C0ALERTS", "oldest": stamps[3], "inclusive": true});
    assert_eq!(texts(&bot.call("conversations.history", from).await), ["m4", "m3"]);
}

#[tokio::test]
async fn reactions_and_files_follow_their_rules() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    let ts = workspace.post_message(Posting::of_sender("B0PROM", "alerts", "down")).unwrap();
    let eyes = json!({"channel": "C0ALERTS", "timestamp": ts, "name": "eyes"});
    assert_eq!(bot.call("reactions.add", eyes.clone()).await["ok"], true);
    assert_eq!(bot.call("reactions.add", eyes.clone()).await["error"], "already_reacted");
    assert_eq!(workspace.reactions("alerts", &ts), [("eyes".to_owned(), vec!["U0HEAL".to_owned()])]);
    assert_eq!(bot.call("reactions.remove", eyes.clone()).await["ok"], true);
    assert_eq!(bot.call("reactions.remove", eyes).await["error"], "no_reaction");
    let odd = json!({"channel": "C0ALERTS", "timestamp": ts, "name": "no-such-emoji"});
    assert_eq!(bot.call("reactions.add", odd).await["error"], "invalid_name");

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let form = Request::post(format!("{}/files.getUploadURLExternal", workspace.api_url()))
        .header("authorization", "Bearer xoxb-sandbox-bot")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from("filename=out.txt&length=5")))
        .unwrap();
    let bytes = client.request(form).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let upload: Value = serde_json::from_slice(&bytes).unwrap();
    let complete = json!({"files": [{"id": upload["file_id"], "title": "output"}], "channel_id": "C0ALERTS", "thread_ts": ts});
    assert_eq!(bot.call("files.completeUploadExternal", complete.clone()).await["error"], "file_not_found");
    let put =
        Request::post(upload["upload_url"].as_str().unwrap()).body(Full::new(Bytes::from("hello"))).unwrap();
    assert_eq!(client.request(put).await.unwrap().status(), 200);
    assert_eq!(bot.call("files.completeUploadExternal", complete).await["ok"], true);
    assert_eq!(workspace.files()[0].bytes, b"hello");
    assert_eq!(workspace.thread("alerts", &ts)[0].read(), "file: out.txt");
}

#[tokio::test]
async fn faults_hit_the_calls_they_were_ordered_for() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    let post =
        || bot.try_call("chat.postMessage", "xoxb-sandbox-bot", json!({"channel": "C0ALERTS", "text": "x"}));
    for fault in [Fault::RateLimited(7), Fault::ServerError, Fault::Refused("fatal_error".to_owned())] {
        workspace.fail_next("chat.postMessage", 1, fault);
    }
    let limited = post().await.unwrap();
    assert_eq!((limited.status, &limited.headers["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(post().await.unwrap().status, 500);
    assert_eq!(post().await.unwrap().body["error"], "fatal_error");
    workspace.fail_next("chat.postMessage", 1, Fault::ResetBefore);
    assert!(post().await.is_none());
    assert_eq!(workspace.messages("alerts").len(), 0);
    workspace.fail_next("chat.postMessage", 1, Fault::ResetAfter);
    assert!(post().await.is_none());
    assert_eq!(workspace.messages("alerts").len(), 1, "it was done, the answer was lost");
    assert_eq!(workspace.view(|v| v.calls_of("chat.postMessage").count()), 5);
}

#[tokio::test]
async fn limits_answer_429_with_retry_after() {
    let workspace = Workspace::start(Options { limits: true, ..Options::default() }).unwrap();
    let bot = Robot::new(&workspace);
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let body = json!({"channel": "C0ALERTS", "text": "x"});
        let given = bot.try_call("chat.postMessage", "xoxb-sandbox-bot", body).await.unwrap();
        if given.status == 429 {
            assert_eq!(given.headers["retry-after"], "1");
        }
        statuses.push(given.status);
    }
    assert_eq!(statuses[..4], [200; 4]);
    assert!(statuses.contains(&429));
}

#[tokio::test]
async fn a_browser_on_a_foreign_site_is_refused() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let client = Client::builder(TokioExecutor::new()).set_host(false).build_http::<Full<Bytes>>();
    let own = workspace.api_url().trim_start_matches("http://").trim_end_matches("/api").to_owned();
    let ask = |host: &str, origin: Option<&str>| {
        let mut request = Request::get(format!("{}/api.test?token=xoxb-sandbox-bot", workspace.api_url()))
            .header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        client.request(request.body(Full::new(Bytes::new())).unwrap())
    };
    assert_eq!(ask(&own, None).await.unwrap().status(), 200);
    assert_eq!(ask("evil.example", None).await.unwrap().status(), 403);
    assert_eq!(ask(&own, Some("http://evil.example")).await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_reply_to_a_message_that_is_gone_lands_at_the_top_level() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    let alert = workspace.post_message(Posting::of_sender("B0PROM", "alerts", "down")).unwrap();
    let reply = json!({"channel": "C0ALERTS", "text": "x", "thread_ts": alert});
    let first = bot.call("chat.postMessage", reply.clone()).await;
    assert_eq!(first["message"]["thread_ts"], alert.as_str());
    let nested = json!({"channel": "C0ALERTS", "text": "x", "thread_ts": first["ts"]});
    assert_eq!(bot.call("chat.postMessage", nested).await["error"], "cannot_reply_to_message");

    workspace.delete_message("alerts", &alert);
    assert_eq!(workspace.messages("alerts")[0].raw["subtype"], "tombstone", "its thread stays");
    workspace.delete_message("alerts", first["ts"].as_str().unwrap());
    workspace.delete_message("alerts", &alert);
    let lost = bot.call("chat.postMessage", reply).await;
    assert_eq!((&lost["ok"], lost["message"].get("thread_ts")), (&json!(true), None));
    assert_eq!(workspace.messages("alerts").len(), 1);
}

#[tokio::test]
async fn an_outage_refuses_and_ends() {
    let workspace = Workspace::start(Options::default()).unwrap();
    let bot = Robot::new(&workspace);
    workspace.refuse_connections_for(Duration::from_secs(60));
    assert!(bot.try_call("auth.test", "xoxb-sandbox-bot", json!({})).await.is_none());
    workspace.refuse_connections_for(Duration::ZERO);
    assert_eq!(bot.call("auth.test", json!({})).await["bot_id"], "B0HEAL");
}
