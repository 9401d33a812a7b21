//! Which requests the page believes. Any web site can make a browser send requests to loopback (and
//! DNS rebinding can give that site a name of its own for it), so the Host must be ours, a foreign
//! Origin is refused, and whatever changes something must be JSON, which other sites cannot send
//! without asking first.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Nothing from elsewhere, no inline script, no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses what is not ours, and adds the security headers to every answer.
pub(super) async fn check(State(port): State<u16>, request: Request, next: Next) -> Response {
    let mut response = match refusal(port, request.method(), request.uri().path(), request.headers()) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a request is refused, if it is.
fn refusal(port: u16, method: &Method, path: &str, headers: &HeaderMap) -> Option<&'static str> {
    let text = |name: &header::HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let ours = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}"));
    let host = text(&header::HOST).unwrap_or_default();
    if !ours.iter().any(|own| own == host) || headers.get_all(header::HOST).iter().count() != 1 {
        return Some("this Host is not the sandbox's");
    }
    if let Some(origin) = text(&header::ORIGIN)
        && origin != format!("http://{host}")
    {
        return Some("this Origin may not talk to the sandbox");
    }
    // Browsers say themselves where a request comes from; a link to the page from elsewhere is fine.
    let site = headers.get("sec-fetch-site").map(|v| v.to_str().unwrap_or("?"));
    if path != "/" && site.is_some_and(|s| s != "same-origin" && s != "none") {
        return Some("another site may not talk to the sandbox");
    }
    if method == Method::GET || method == Method::HEAD {
        return None;
    }
    let json = text(&header::CONTENT_TYPE).is_some_and(|t| t.split(';').next() == Some("application/json"));
    (!json).then_some("only application/json is taken")
}
