use std::time::Duration;

use serde_json::json;

use super::fake::{Fake, Reply};
use super::{Blocks, Client, Error, Metadata, Options, Post, Respond, Secret, Text, Upload};

fn post(run: &str) -> Post {
    Post {
        channel: "C1".into(),
        thread_ts: Some("1795133413.000001".into()),
        text: Text { text: format!("run {run}"), blocks: Blocks::default() },
        metadata: Some(Metadata { event_type: "heal".into(), payload: json!({"run": run, "n": 5}) }),
    }
}

#[tokio::test]
async fn a_post_that_slack_took_succeeds_however_odd_the_answer_is() {
    let fake = Fake::start().await;
    let ts = fake.client().post(&post("r1")).await.unwrap();
    assert_eq!(ts, "1795133413.000001");
    let call = &fake.calls("chat.postMessage")[0];
    assert_eq!(call.headers["authorization"], "Bearer xoxb-test");
    assert!(call.headers["user-agent"].to_str().unwrap().starts_with("heal/"));
    assert_eq!(call.body["metadata"], json!({"event_type": "heal", "event_payload": {"run": "r1", "n": 5}}));
    assert_eq!(call.body["unfurl_links"], false);
}

#[tokio::test]
async fn every_way_to_fail_says_whether_it_may_have_been_done() {
    let fake = Fake::start().await;
    let client = fake.client();
    let refused = json!({"ok": false, "error": "invalid_blocks", "response_metadata": {"messages": ["[ERROR] too long [json-pointer:/blocks/0]"]}});
    fake.script(
        "chat.postMessage",
        [
            Reply::Limited(7),
            Reply::Status(503),
            Reply::Lost,
            Reply::Hangs,
            Reply::Json(json!({"ok": false, "error": "internal_error"})),
            Reply::Json(json!({"ok": false, "error": "ratelimited"})),
            Reply::Json(json!({"ok": true})),
            Reply::Json(json!("what")),
            Reply::Json(refused),
            Reply::Status(404),
        ],
    );
    let post = post("r1");
    assert_eq!(client.post(&post).await, Err(Error::RateLimited { retry_after: Duration::from_secs(7) }));
    // Until then nothing of the kind is sent, whoever asks; another client knows nothing of it.
    let Err(Error::RateLimited { retry_after }) = client.clone().post(&post).await else { panic!("sent") };
    assert!(retry_after > Duration::from_secs(6) && retry_after <= Duration::from_secs(7));
    assert_eq!(fake.calls("chat.postMessage").len(), 1);
    let client = fake.client();
    for way in ["503", "lost", "hangs", "internal_error"] {
        let error = client.post(&post).await.unwrap_err();
        assert!(error.may_have_been_done(), "{way}: {error:?}");
        assert!(!error.is_permanent());
    }
    assert!(matches!(client.post(&post).await, Err(Error::RateLimited { .. })));
    let client = fake.client();
    for way in ["no ts", "no object"] {
        let error = client.post(&post).await.unwrap_err();
        assert!(error.may_have_been_done(), "{way}: {error:?}");
    }
    let error = client.post(&post).await.unwrap_err();
    assert!(error.is_permanent() && error.is_final());
    assert_eq!(error.to_string(), "Slack refused: invalid_blocks: [ERROR] too long [json-pointer:/blocks/0]");
    assert_eq!(client.post(&post).await.unwrap_err().code(), Some("http_404"));

    // Nobody listens there: nothing was sent.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/api", listener.local_addr().unwrap());
    drop(listener);
    let options = Options { api_url: Some(base), ..Options::default() };
    let nobody = Client::new(&Secret::new("xoxb-test"), &options).unwrap();
    let error = nobody.post(&post).await.unwrap_err();
    assert!(matches!(error, Error::NotDone { .. }), "{error:?}");
    assert!(!format!("{nobody:?} {error:?}").contains("xoxb-test"));
}

#[test]
fn what_a_person_can_mend_is_told_from_what_a_message_is_refused_for() {
    let one_message =
        ["invalid_blocks", "msg_too_long", "message_not_found", "cant_update_message", "too_many_reactions"];
    for code in one_message {
        let error = Error::from_code(code, "");
        assert!(
            error.is_final() && !error.needs_person() && error.owed_for() == Some(Duration::ZERO),
            "{code}"
        );
    }
    let all = ["invalid_auth", "not_authed", "token_expired", "account_inactive", "team_added_to_org"];
    let here = ["missing_scope", "not_in_channel", "channel_not_found", "restricted_action", "is_archived"];
    for code in all.into_iter().chain(here) {
        let error = Error::from_code(code, "");
        assert!(error.needs_person() && !error.is_final() && error.hint().is_some(), "{code}");
        assert_eq!(error.concerns_all(), all.contains(&code), "{code}");
    }
    for status in [401, 403, 407] {
        let error = Error::from_status(axum::http::StatusCode::from_u16(status).unwrap(), "denied by proxy");
        assert!(error.needs_person() && error.concerns_all() && error.hint().is_some(), "{status}");
    }
    let unheard_of = Error::from_code("never_heard_of", "");
    assert!(unheard_of.needs_person() && !unheard_of.concerns_all());
    let passing = Error::unclear("no answer");
    assert!(!passing.needs_person() && !passing.is_final() && passing.owed_for().is_none());
}

#[tokio::test]
async fn a_too_long_answer_counts_as_none() {
    let fake = Fake::start().await;
    let api_url = Some(format!("{}/api", fake.base()));
    let options = Options { api_url, max_answer: 1000, ..Options::default() };
    let client = Client::new(&Secret::new("xoxb-test"), &options).unwrap();
    fake.script(
        "chat.postMessage",
        [Reply::Json(json!({"ok": true, "ts": "1.000001", "x": "y".repeat(2000)}))],
    );
    assert!(client.post(&post("r1")).await.unwrap_err().may_have_been_done());
}

#[tokio::test]
async fn our_own_message_is_found_by_its_metadata_on_any_page() {
    let fake = Fake::start().await;
    let client = fake.client();
    for run in ["r1", "r2", "r3", "r4", "r5"] {
        client.post(&post(run)).await.unwrap();
    }
    let thread = Some("1795133413.000001");
    let find = |run: &'static str| {
        let client = client.clone();
        let metadata = post(run).metadata.unwrap();
        async move { client.find_own("C1", thread, |found| metadata.is(found)).await }
    };
    assert_eq!(find("r5").await, Ok(Some("1795133413.000005".into())));
    assert_eq!(find("r9").await, Ok(None));
    assert_eq!(fake.calls("conversations.replies")[0].body["include_all_metadata"], "true");
    fake.script("conversations.replies", [Reply::Status(500)]);
    assert!(find("r5").await.is_err(), "a failed search is not a no");
}

#[tokio::test]
async fn a_search_that_reaches_no_end_is_no_answer_in_a_thread_and_the_newest_are_enough_in_a_channel() {
    let fake = Fake::start().await;
    let client = fake.client();
    let more = || {
        let page =
            json!({"ok": true, "messages": [{"ts": "1.000002"}], "response_metadata": {"next_cursor": "0"}});
        std::iter::repeat_n(Reply::Json(page), 100)
    };
    fake.script("conversations.replies", more());
    fake.script("conversations.history", more());
    let error = client.find_own("C1", Some("1.000001"), |_| true).await.unwrap_err();
    assert!(error.may_have_been_done(), "{error:?}");
    assert_eq!(fake.calls("conversations.replies").len(), 50);
    assert_eq!(fake.calls("conversations.replies")[0].body["limit"], "1000");
    assert_eq!(client.find_own("C1", None, |_| true).await, Ok(None));
    assert_eq!(fake.calls("conversations.history").len(), 25);
}

#[tokio::test]
async fn another_apps_copy_of_our_metadata_is_not_taken_for_ours() {
    let fake = Fake::start().await;
    let client = fake.client();
    client.auth_test().await.unwrap();
    let metadata = post("r1").metadata.unwrap();
    let by = |bot: &str| {
        let metadata = json!({"event_type": "heal", "event_payload": {"run": "r1", "n": 5, "added": true}});
        Reply::Json(
            json!({"ok": true, "messages": [{"ts": "1.000002", "bot_id": bot, "metadata": metadata}]}),
        )
    };
    fake.script("conversations.replies", [by("B9"), by("B1")]);
    let find = || client.find_own("C1", Some("1.000001"), |found| metadata.is(found));
    assert_eq!(find().await, Ok(None));
    assert_eq!(find().await, Ok(Some("1.000002".into())));
}

#[tokio::test]
async fn answers_and_uploads_go_to_slack_only() {
    let fake = Fake::start().await;
    let client = fake.client();
    let respond = |url: &str| Respond {
        response_url: Secret::new(url),
        text: Text { text: "no".into(), blocks: Blocks::default() },
        replace_original: false,
        ephemeral: true,
    };
    let good = format!("{}/respond", fake.base());
    client.respond(&respond(&good)).await.unwrap();
    let said = &fake.calls("respond")[0].body;
    assert_eq!(*said, json!({"text": "no", "replace_original": false, "response_type": "ephemeral"}));

    let foreign = Fake::start().await;
    for url in
        [&format!("{}/respond", foreign.base()), "http://169.254.169.254/latest", "file:///etc/passwd", "x"]
    {
        let error = client.respond(&respond(url)).await.unwrap_err();
        assert_eq!(error.code(), Some("response_url_not_slack"), "{url}");
    }
    let real = Client::new(&Secret::new("xoxb-test"), &Options::default());
    if let Ok(real) = real {
        for url in [
            &good,
            "http://hooks.slack.com/x",
            "https://hooks.slack.com.evil/x",
            "https://a@hooks.slack.com/x",
            "https://hooks.slack.com:8443/x",
        ] {
            let error = real.respond(&respond(url)).await.unwrap_err();
            assert_eq!(error.code(), Some("response_url_not_slack"), "{url}");
        }
    }

    let upload = Upload {
        channel: "C1".into(),
        thread_ts: "1795133413.000001".into(),
        filename: "r1.txt".into(),
        title: "output".into(),
        bytes: "hello".into(),
    };
    client.upload(&upload).await.unwrap();
    assert_eq!(fake.calls("upload")[0].body, "hello");
    assert_eq!(
        fake.calls("files.getUploadURLExternal")[0].body,
        json!({"filename": "r1.txt", "length": "5"})
    );
    let complete = &fake.calls("files.completeUploadExternal")[0].body;
    assert_eq!(complete["files"], json!([{"id": "F1", "title": "output"}]));
    let elsewhere =
        json!({"ok": true, "file_id": "F2", "upload_url": format!("{}/upload/F2", foreign.base())});
    fake.script("files.getUploadURLExternal", [Reply::Json(elsewhere)]);
    assert_eq!(client.upload(&upload).await.unwrap_err().code(), Some("upload_url_not_slack"));
    assert!(foreign.calls("upload").is_empty());
}

#[tokio::test]
async fn reactions_that_are_there_already_count_as_done() {
    let fake = Fake::start().await;
    let client = fake.client();
    fake.script("reactions.add", [Reply::Json(json!({"ok": false, "error": "already_reacted"}))]);
    fake.script("reactions.remove", [Reply::Json(json!({"ok": false, "error": "no_reaction"}))]);
    assert_eq!(client.add_reaction("C1", "1.000001", "eyes").await, Ok(()));
    assert_eq!(client.remove_reaction("C1", "1.000001", "eyes").await, Ok(()));
}

#[tokio::test]
async fn who_and_where_are_read_leniently_and_in_full() {
    let fake = Fake::start().await;
    let client = fake.client();
    let identity = client.auth_test().await.unwrap();
    assert_eq!((identity.team_id.as_str(), identity.bot_id.as_str()), ("T1", "B1"));
    assert_eq!(identity.scopes, ["chat:write", "channels:history"]);

    fake.script(
        "conversations.list",
        [
            Reply::Json(json!({"ok": true, "channels": [{"id": "C1", "name": "alerts", "is_member": true}, {"odd": 1}],
                "response_metadata": {"next_cursor": "more="}})),
            Reply::Json(json!({"ok": true, "channels": [{"id": "C2", "name": "ops"}]})),
        ],
    );
    let channels = client.channels().await.unwrap();
    assert_eq!(channels.iter().map(|channel| channel.id.as_str()).collect::<Vec<_>>(), ["C1", "C2"]);
    assert!(channels[0].is_member && !channels[1].is_member);
    assert_eq!(fake.calls("conversations.list")[1].body["cursor"], "more=");

    fake.script(
        "users.info",
        [Reply::Json(json!({"ok": true, "user": {"id": "U1", "team_id": "T9", "is_bot": false}}))],
    );
    assert_eq!(client.user("U1").await.unwrap().team_id.as_deref(), Some("T9"));
    fake.script(
        "usergroups.list",
        [Reply::Json(json!({"ok": true, "usergroups": [{"id": "S1", "handle": "sre"}]}))],
    );
    assert_eq!(client.user_groups().await.unwrap()[0].handle, "sre");
    fake.script("usergroups.users.list", [Reply::Json(json!({"ok": true, "users": ["U1", "U2"]}))]);
    assert_eq!(client.group_members("S1").await.unwrap(), ["U1", "U2"]);
}

#[test]
fn plain_http_is_for_this_machine_only() {
    for url in ["http://slack.example/api", "ftp://127.0.0.1", "nonsense"] {
        let options = Options { api_url: Some(url.into()), ..Options::default() };
        assert!(Client::new(&Secret::new("xoxb-test"), &options).is_err(), "{url}");
    }
}
