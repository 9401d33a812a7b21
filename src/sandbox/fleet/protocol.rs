//! The wire: AWS JSON 1.1 over HTTP/1.1 on loopback, with the faults that a test asks for.
//!
//! It is plain hyper and not axum, because a lost answer must be really lost: here the connection
//! can be dropped without one, before or after the call was carried out.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::sandbox::Cut;

use super::members::Refusal;
use super::{Call, Fault, Shared, automation, commands, lists, nodes};

/// The service refuses bodies over its request limit; ours is generous.
const LARGEST_BODY: usize = 1 << 20;

/// Serves until the fleet ends.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let mut ended = shared.ended.subscribe();
    loop {
        let accepted = tokio::select! {
            _ = ended.wait_for(|ended| *ended) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if shared.options.cut.as_ref().is_some_and(Cut::has_ended) => {}
            Ok((stream, _)) => drop(tokio::spawn(connection(Arc::clone(&shared), stream))),
            Err(error) => {
                tracing::warn!(%error, "the simulated fleet could not accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let mut ended = shared.ended.subscribe();
    let cut = shared.options.cut.clone();
    let bot_ended = async {
        match &cut {
            Some(cut) => cut.end_of(cut.life()).await,
            None => std::future::pending().await,
        }
    };
    // A dropped connection shows as a reset, not as an orderly end.
    let reset = stream.set_zero_linger();
    let service = service_fn(|request| answer(Arc::clone(&shared), request));
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = ended.wait_for(|ended| *ended) => {}
        () = bot_ended => {}
        served = serving => if let Err(error) = served {
            tracing::debug!(%error, ?reset, "a connection to the simulated fleet ended early");
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
    let lost = || io::Error::new(io::ErrorKind::ConnectionReset, "a fault was asked for");
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Ok(refused(&Refusal::new("RequestEntityTooLarge", error.to_string()))),
    };
    let operation = match operation(&head.method, &head.headers) {
        Ok(operation) => operation,
        Err(refusal) => return Ok(refused(&refusal)),
    };
    let body: Value = match serde_json::from_slice(&body) {
        Ok(body) => body,
        Err(error) => return Ok(refused(&Refusal::new("SerializationException", error.to_string()))),
    };
    let cut = shared.options.cut.as_ref();
    let step = cut.map(|cut| cut.begin(&operation)).transpose().map_err(|_| lost())?;
    let (call, fault) = {
        let mut state = shared.state();
        state.calls.push(Call {
            operation: operation.clone(),
            body: body.clone(),
            at: SystemTime::now(),
            refused: None,
        });
        (state.calls.len() - 1, state.take_fault(&operation))
    };
    shared.touch();
    match &fault {
        Some(Fault::ResetBefore) => return Err(lost()),
        Some(Fault::Refuse { status, code, message }) => {
            let refusal = Refusal { status: *status, code: code.clone(), message: message.clone() };
            return Ok(said(&shared, call, Err(refusal)));
        }
        Some(Fault::ResetAfter | Fault::Stall(_)) | None => {}
    }
    let answer = said(&shared, call, dispatch(&shared, &operation, &body));
    if let (Some(cut), Some(step)) = (cut, step) {
        cut.finish(step).map_err(|_| lost())?;
    }
    match fault {
        Some(Fault::ResetAfter) => return Err(lost()),
        Some(Fault::Stall(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    Ok(answer)
}

/// The answer, with a refusal noted beside its call.
fn said(shared: &Shared, call: usize, result: Result<Value, Refusal>) -> Response<Full<Bytes>> {
    let answer = match result {
        Ok(body) => respond(200, &body),
        Err(refusal) => {
            if let Some(call) = shared.state().calls.get_mut(call) {
                call.refused = Some(refusal.code.clone());
            }
            refused(&refusal)
        }
    };
    shared.touch();
    answer
}

fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    respond(refusal.status, &json!({ "__type": refusal.code, "message": refusal.message }))
}

fn respond(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
    let headers = response.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/x-amz-json-1.1"));
    if let Ok(id) = http::HeaderValue::from_str(&super::uuid()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// The operation that the headers name, once they have the form of a signed SSM request.
fn operation(method: &Method, headers: &HeaderMap) -> Result<String, Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    if *method != Method::POST {
        return Err(Refusal { status: 405, ..Refusal::new("MethodNotAllowed", "SSM takes POST alone") });
    }
    if header("content-type") != "application/x-amz-json-1.1" {
        return Err(Refusal {
            status: 415,
            ..Refusal::new("UnsupportedMediaType", "wanted application/x-amz-json-1.1")
        });
    }
    let authorization = header("authorization");
    if authorization.is_empty() {
        return Err(Refusal::new(
            "MissingAuthenticationTokenException",
            "Request is missing Authentication Token",
        ));
    }
    if !is_signature_v4(authorization) || header("x-amz-date").is_empty() {
        return Err(Refusal::new(
            "IncompleteSignatureException",
            "Authorization is not AWS4-HMAC-SHA256 for ssm",
        ));
    }
    let target = header("x-amz-target");
    match target.strip_prefix("AmazonSSM.").filter(|operation| !operation.is_empty()) {
        Some(operation) => Ok(operation.to_owned()),
        None => Err(Refusal::new("UnknownOperationException", format!("X-Amz-Target is '{target}'"))),
    }
}

/// `AWS4-HMAC-SHA256 Credential=KEY/date/region/ssm/aws4_request, SignedHeaders=…, Signature=64 hex`.
/// The form alone: any key is good here.
fn is_signature_v4(authorization: &str) -> bool {
    let Some(rest) = authorization.strip_prefix("AWS4-HMAC-SHA256 ") else { return false };
    let part = |name: &str| rest.split(',').find_map(|part| part.trim().strip_prefix(name));
    let scope = part("Credential=").map(|credential| credential.split('/').collect::<Vec<_>>());
    let scope_is_good = matches!(scope.as_deref(), Some([key, date, _, "ssm", "aws4_request"])
        if !key.is_empty() && date.len() == 8);
    let headers_are_good =
        part("SignedHeaders=").is_some_and(|names| names.split(';').any(|name| name == "host"));
    let signature_is_good = part("Signature=")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    scope_is_good && headers_are_good && signature_is_good
}

fn dispatch(shared: &Arc<Shared>, operation: &str, body: &Value) -> Result<Value, Refusal> {
    match operation {
        "DescribeInstanceInformation" => nodes::describe(shared, body),
        "ListTagsForResource" => nodes::list_tags(shared, body),
        "DescribeDocument" => nodes::describe_document(shared, body),
        "SendCommand" => commands::send(shared, body),
        "ListCommands" => lists::list(shared, body),
        "ListCommandInvocations" => lists::list_invocations(shared, body),
        "GetCommandInvocation" => lists::get_invocation(shared, body),
        "CancelCommand" => commands::cancel(shared, body),
        "StartAutomationExecution" => automation::start(shared, body),
        "GetAutomationExecution" => automation::get(shared, body),
        "DescribeAutomationStepExecutions" => automation::steps(shared, body),
        "StopAutomationExecution" => automation::stop(shared, body),
        other => Err(Refusal::new("UnknownOperationException", format!("{other} is not emulated"))),
    }
}
