//! The page's doors: who gets in and who does not.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::super::workspace::{Options, Posting, Workspace};
use super::*;

fn start() -> (Workspace, Page, String) {
    let workspace = Workspace::start(Options::default()).unwrap();
    let page =
        serve(workspace.clone(), Arc::new(NoHosts::default()), "127.0.0.1:0".parse().unwrap()).unwrap();
    let authority = page.url().trim_start_matches("http://").to_owned();
    (workspace, page, authority)
}

async fn ask(
    page: &Page,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> (u16, http::HeaderMap, String) {
    let client = Client::builder(TokioExecutor::new()).set_host(false).build_http::<Full<Bytes>>();
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut request = Request::builder().method(method).uri(format!("{}{path}", page.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.map(|b| b.to_string()).unwrap_or_default();
    let response = client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_foreign_host_or_origin_or_a_form_is_refused() {
    let (workspace, page, own) = start();
    let port = own.rsplit(':').next().unwrap();
    let (local, six) = (format!("localhost:{port}"), format!("[::1]:{port}"));
    let (origin, elsewhere) = (format!("http://{own}"), format!("http://localhost:{port}"));
    let post = json!({"as": "U0LEAD", "channel": "C0ALERTS", "text": "hello"});
    let json = ("content-type", "application/json");
    for (headers, allowed) in [
        (vec![("host", own.as_str()), json], true),
        (vec![("host", &local), json], true),
        (vec![("host", &six), json], true),
        (vec![("host", &own), ("origin", &origin), ("sec-fetch-site", "same-origin"), json], true),
        (vec![("host", "evil.example"), json], false),
        (vec![("host", "127.0.0.1"), json], false),
        (vec![("host", "127.0.0.1.evil.example"), json], false),
        (vec![json], false),
        (vec![("host", &own), ("origin", "http://evil.example"), json], false),
        (vec![("host", &own), ("origin", "null"), json], false),
        (vec![("host", &own), ("origin", &elsewhere), json], false),
        (vec![("host", &own), ("sec-fetch-site", "cross-site"), json], false),
        (vec![("host", &own), ("content-type", "text/plain")], false),
        (vec![("host", &own), ("content-type", "application/x-www-form-urlencoded")], false),
        (vec![("host", &own)], false),
    ] {
        let before = workspace.messages("alerts").len();
        let (status, _, text) = ask(&page, "/do/post", &headers, Some(post.clone())).await;
        assert_eq!(status == 200, allowed, "{headers:?}: {status} {text}");
        assert_eq!(workspace.messages("alerts").len() - before, usize::from(allowed), "{headers:?}");
    }
    for path in ["/", "/state?as=U0LEAD&channel=C0ALERTS", "/changes"] {
        assert_eq!(ask(&page, path, &[("host", "evil.example")], None).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() {
    let (_workspace, page, own) = start();
    let (status, headers, html) = ask(&page, "/", &[("host", &own)], None).await;
    assert_eq!(status, 200);
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!html.contains("https://"), "no outside resources");
}

#[tokio::test]
async fn the_state_is_what_one_person_sees() {
    let (workspace, page, own) = start();
    let ts = workspace.post_message(Posting::of_sender("B0PROM", "alerts", "down")).unwrap();
    let said = json!({"as": "U0LEAD", "channel": "C0ALERTS", "thread": ts, "text": "@heal pause"});
    let headers = [("host", own.as_str()), ("content-type", "application/json")];
    ask(&page, "/do/post", &headers, Some(said)).await;
    let path = format!("/state?as=U0LEAD&channel=C0ALERTS&thread={ts}");
    let (_, _, text) = ask(&page, &path, &[("host", &own)], None).await;
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&state["connected"], &state["newest_thread"]), (&json!(false), &json!(ts)));
    assert_eq!(state["thread"]["replies"][0]["text"], "<@U0HEAL> pause");
    let slash = json!({"as": "U0LEAD", "channel": "C0ALERTS", "text": "help"});
    let (_, _, text) = ask(&page, "/do/slash", &headers, Some(slash)).await;
    assert!(text.contains("heal did not answer"), "{text}");
}

#[tokio::test]
async fn a_taken_port_and_an_open_address_are_refused_with_a_reason() {
    let (workspace, page, own) = start();
    let again = serve(workspace.clone(), Arc::new(NoHosts::default()), own.parse().unwrap()).unwrap_err();
    assert!(again.to_string().contains("is taken\nhint:"), "{again}");
    let open = serve(workspace, Arc::new(NoHosts::default()), "0.0.0.0:0".parse().unwrap()).unwrap_err();
    assert!(open.to_string().contains("loopback only"), "{open}");
    drop(page);
}
