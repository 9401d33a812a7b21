//! The workspace as a bot meets it: over real sockets.

mod api;
mod blocks;
mod delivery;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;

const BOUND: Duration = Duration::from_secs(5);

/// A bot of a few lines.
struct Robot {
    workspace: Workspace,
}

struct Given {
    status: u16,
    headers: http::HeaderMap,
    body: Value,
}

impl Robot {
    fn new(workspace: &Workspace) -> Self {
        Robot { workspace: workspace.clone() }
    }

    async fn try_call(&self, method: &str, token: &str, body: Value) -> Option<Given> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = Request::post(format!("{}/{method}", self.workspace.api_url()))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json; charset=utf-8")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let response = client.request(request).await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        Some(Given { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    async fn call(&self, method: &str, body: Value) -> Value {
        self.try_call(method, "xoxb-sandbox-bot", body).await.unwrap().body
    }

    async fn post(&self, channel: &str, text: &str) -> String {
        let answer = self.call("chat.postMessage", json!({"channel": channel, "text": text})).await;
        assert_eq!(answer["ok"], true, "{answer}");
        answer["ts"].as_str().unwrap().to_owned()
    }

    async fn connect(&self) -> Socket {
        let opened =
            self.try_call("apps.connections.open", "xapp-sandbox-app", json!({})).await.unwrap().body;
        let (stream, _) = tokio_tungstenite::connect_async(opened["url"].as_str().unwrap()).await.unwrap();
        Socket(stream)
    }
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// The next JSON frame; `None` when the socket ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match tokio::time::timeout(BOUND, self.0.next()).await.expect("a frame in time") {
                Some(Ok(Frame::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    async fn ack(&mut self, envelope: &Value, payload: Option<Value>) {
        let mut ack = json!({"envelope_id": envelope["envelope_id"]});
        if let Some(payload) = payload {
            ack["payload"] = payload;
        }
        self.0.send(Frame::text(ack.to_string())).await.unwrap();
    }
}

fn fast() -> Options {
    Options { redeliver_after: Duration::from_millis(80), ..Options::default() }
}
