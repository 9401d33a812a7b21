//! The HTTP side: accepts connections, serves the Web API, uploads, response_urls and the socket.
//!
//! The accept loop is our own, so that a fault can close a connection in place of an answer.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::api::{self, Args, Reply};
use super::fault::Fault;
use super::shared::Shared;
use super::socket;
use super::view::{Call, View};

/// The largest body taken.
const BODY: usize = 8 << 20;

/// So many calls are remembered.
const CALLS: usize = 200_000;

/// Serves until stopped.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut serving = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.until_stopped() => return,
            Some(_) = serving.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else { continue };
        if refusing(&shared) {
            continue;
        }
        // Answers are small and latency is what gets measured here.
        let _ = stream.set_nodelay(true);
        let (shared, life) = (shared.clone(), shared.life());
        serving.spawn(async move {
            let service = service_fn(|request| serve(shared.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                // An error is a client that went away, or a reset that was ordered.
                _ = connection => {}
                () = shared.until_stopped() => {}
                () = shared.until_end_of(life) => {}
            }
        });
    }
}

/// Whether a test has ordered an outage that still lasts, or has ended the bot.
fn refusing(shared: &Shared) -> bool {
    let until = *shared.refusing_until.lock().unwrap_or_else(PoisonError::into_inner);
    until.is_some_and(|until| Instant::now() < until) || shared.has_ended()
}

/// One request. An error closes the connection without an answer.
async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response, io::Error> {
    if refusing(&shared) {
        return Err(io::Error::other("refused"));
    }
    let (mut parts, body) = request.into_parts();
    if from_a_browser(&shared, &parts.headers) {
        return Ok((StatusCode::FORBIDDEN, "this is no page").into_response());
    }
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().map(str::to_owned);
    let link = path.trim_end_matches('/') == "/link";
    // Read to its end first: a request that the bot did not finish sending was not made.
    let body = match link {
        true => Bytes::new(),
        false => match Limited::new(body, BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Ok(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
        },
    };
    let step = shared.begin(step_of(&path))?;
    let response = if link {
        connect(&shared, &mut parts, query.as_deref()).await
    } else {
        handle(&shared, &path, query.as_deref(), &parts.headers, &body).await?
    };
    shared.finish(step)?;
    Ok(response)
}

/// What a request is called as a step of the bot.
fn step_of(path: &str) -> &str {
    match path.strip_prefix("/api/") {
        Some(method) => method,
        None if path.starts_with("/upload/") => "upload",
        None if path.starts_with("/actions/") => "respond",
        None if path.starts_with("/link") => "connect",
        None => path,
    }
}

/// A socket is opened with a ticket of `apps.connections.open`.
async fn connect(shared: &Arc<Shared>, parts: &mut Parts, query: Option<&str>) -> Response {
    let ticket = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "ticket")
        .map(|(_, ticket)| ticket.into_owned());
    let known = ticket.is_some_and(|t| shared.update(|view| view.tickets.remove(&t)));
    if !known {
        return StatusCode::FORBIDDEN.into_response();
    }
    let shared = Arc::clone(shared);
    match WebSocketUpgrade::from_request_parts(parts, &()).await {
        Ok(upgrade) => upgrade.on_upgrade(move |stream| socket::run(shared, stream)),
        Err(rejection) => rejection.into_response(),
    }
}

/// Whatever is no socket.
async fn handle(
    shared: &Arc<Shared>,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, io::Error> {
    let rest = |prefix: &str| path.strip_prefix(prefix).map(str::to_owned);
    if let Some(method) = rest("/api/") {
        return web_api(shared, &method, headers, query, body).await;
    }
    if let Some(id) = rest("/upload/") {
        return Ok(upload(shared, &id, headers, body));
    }
    if let Some(id) = rest("/actions/") {
        let args = Args::read(None, None, content_type(headers), body).unwrap_or_default();
        return Ok(match shared.update(|view| api::answer_url(view, &id, &args)) {
            Ok(()) => "ok".into_response(),
            Err(fail) => {
                let status =
                    if fail.code.ends_with("_url") { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
                let body = json!({"ok": false, "error": fail.code, "response_metadata": {"messages": fail.messages}});
                (status, body.to_string()).into_response()
            }
        });
    }
    if let Some(id) = rest("/files/") {
        let file = shared.read(|view| view.files.iter().find(|f| f.id == id).map(|f| f.bytes.clone()));
        return Ok(file.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response));
    }
    Ok(StatusCode::NOT_FOUND.into_response())
}

/// No browser has business here: a web site must not speak to the sandbox through its visitor's.
fn from_a_browser(shared: &Shared, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let port = shared.address.rsplit(':').next().unwrap_or_default();
    headers.contains_key(header::ORIGIN) || (host != shared.address && host != format!("localhost:{port}"))
}

async fn web_api(
    shared: &Arc<Shared>,
    method: &str,
    headers: &HeaderMap,
    query: Option<&str>,
    body: &Bytes,
) -> Result<Response, io::Error> {
    let at = SystemTime::now();
    let authorization = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let kind = content_type(headers);
    // Slack's upload methods take forms only; JSON gives `invalid_arguments`.
    let form_only = method == "files.getUploadURLExternal" && kind.starts_with("application/json");
    let args = match Args::read(authorization, query, kind, body) {
        Some(args) if !form_only => args,
        Some(args) => Args { token: args.token, ..Args::default() },
        None => return Ok(answer(shared, &Reply::refused("invalid_json"))),
    };
    let channel = args.text("channel").unwrap_or_default();
    let fault = shared.update(|view| {
        view.patience.called(method, &channel, Instant::now());
        take_fault(view, method)
    });
    let reply = match &fault {
        Some(Fault::ResetBefore) => {
            record(shared, method, &args, at, Reply { status: 0, retry_after: None, body: Value::Null });
            return Err(io::Error::other("reset before handling"));
        }
        Some(Fault::RateLimited(seconds)) => Reply::limited(*seconds),
        Some(Fault::ServerError) => Reply { status: 500, retry_after: None, body: Value::Null },
        Some(Fault::Refused(code)) => Reply::refused(code),
        Some(Fault::Stalled(time)) => {
            tokio::time::sleep(*time).await;
            shared.update(|view| api::call(view, method, &args))
        }
        Some(Fault::ResetAfter | Fault::AnsweredLate(_)) | None => {
            shared.update(|view| api::call(view, method, &args))
        }
    };
    if let Some(seconds) = reply.retry_after {
        shared.update(|view| view.patience.told(method, &channel, seconds, Instant::now()));
    }
    if fault == Some(Fault::ResetAfter) {
        record(shared, method, &args, at, Reply { status: 0, retry_after: None, body: reply.body });
        return Err(io::Error::other("reset after handling"));
    }
    record(shared, method, &args, at, reply.clone());
    if let Some(Fault::AnsweredLate(time)) = fault {
        tokio::time::sleep(time).await;
    }
    Ok(answer(shared, &reply))
}

fn take_fault(view: &mut View, method: &str) -> Option<Fault> {
    let own = view.faults.get_mut(method).and_then(std::collections::VecDeque::pop_front);
    own.or_else(|| view.faults.get_mut("*").and_then(std::collections::VecDeque::pop_front))
}

fn record(shared: &Arc<Shared>, method: &str, args: &Args, at: SystemTime, reply: Reply) {
    let body = Value::Object(args.map.clone());
    let Reply { status, retry_after, body: answer } = reply;
    let call = Call { method: method.to_owned(), body, at, status, retry_after, answer };
    shared.update(|view| {
        // A sandbox may run for days.
        if view.calls.len() >= CALLS {
            view.calls.drain(..CALLS / 4);
        }
        view.calls.push(call);
    });
}

fn answer(shared: &Shared, reply: &Reply) -> Response {
    let mut response = Response::builder()
        .status(reply.status)
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .header("x-oauth-scopes", shared.options.scopes.join(","));
    if let Some(seconds) = reply.retry_after {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    let body = if reply.body.is_null() { String::new() } else { reply.body.to_string() };
    response.body(Body::from(body)).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The bytes of a file: the raw body, or the first part of a multipart form.
fn upload(shared: &Arc<Shared>, id: &str, headers: &HeaderMap, body: &Bytes) -> Response {
    let kind = content_type(headers);
    let bytes = match kind.split("boundary=").nth(1) {
        Some(boundary) if kind.starts_with("multipart/") => first_part(body, boundary.trim_matches('"')),
        _ => Some(body.to_vec()),
    };
    let Some(bytes) = bytes.filter(|b| !b.is_empty()) else { return StatusCode::BAD_REQUEST.into_response() };
    let size = bytes.len();
    let known = shared.update(|view| match view.uploads.get_mut(id) {
        Some(file) => {
            file.bytes = bytes;
            true
        }
        None => false,
    });
    if known { format!("OK - {size}").into_response() } else { StatusCode::NOT_FOUND.into_response() }
}

fn first_part(body: &[u8], boundary: &str) -> Option<Vec<u8>> {
    let find = |hay: &[u8], needle: &[u8]| hay.windows(needle.len()).position(|w| w == needle);
    let start = find(body, b"\r\n\r\n")? + 4;
    let rest = body.get(start..)?;
    let end = find(rest, format!("\r\n--{boundary}").as_bytes())?;
    rest.get(..end).map(<[u8]>::to_vec)
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
}
