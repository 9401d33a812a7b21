//! The one way to Slack over HTTP: a pool of kept-alive connections, a time-out on every call, a bound
//! on every answer, and a verdict on every failure.
//!
//! slack-morphism is used without its own HTTP stack; [`Wire`] is its connector. It differs from the
//! crate's in what an alert bot cannot do without: time-outs, a User-Agent, a bound on answers, and
//! knowing whether a failed request was sent at all.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use slack_morphism::errors::{
    SlackClientApiError, SlackClientError, SlackClientHttpError, SlackClientHttpProtocolError,
    SlackRateLimitError, map_serde_error,
};
use slack_morphism::multipart_form::FileMultipartData;
use slack_morphism::{ClientResult, SlackApiToken, SlackClientApiCallContext, SlackClientHttpConnector};
use slack_morphism::{SlackClientId, SlackClientSecret};
use url::Url;

use super::Error;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("heal/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A connector of slack-morphism over one shared pool.
#[derive(Debug)]
pub struct Wire {
    http: Http,
    /// `https://slack.com/api`, or what replaces it; without a slash at its end.
    base: String,
    origin: url::Origin,
    replaced: bool,
    time_out: Duration,
    max_answer: usize,
}

/// Plain HTTP is only for a workspace on this machine; there no TLS roots are needed (or read).
#[derive(Debug, Clone)]
enum Http {
    Plain(legacy::Client<HttpConnector, Full<Bytes>>, HttpConnector),
    Tls(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>, HttpsConnector<HttpConnector>),
}

/// How an opened connection is handed to the WebSocket handshake.
pub(crate) enum Opened {
    Plain(Box<hyper_util::rt::TokioIo<tokio::net::TcpStream>>),
    Tls(Box<hyper_rustls::MaybeHttpsStream<hyper_util::rt::TokioIo<tokio::net::TcpStream>>>),
}

/// An answer as it came.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Wire {
    /// `replacement` is `SLACK_API_URL`; plain http is taken from there only, and only for loopback.
    pub(crate) fn new(
        replacement: Option<&str>,
        time_out: Duration,
        max_answer: usize,
    ) -> Result<Wire, String> {
        let base = replacement.unwrap_or("https://slack.com/api").trim_end_matches('/').to_owned();
        let url = Url::parse(&base).map_err(|error| format!("SLACK_API_URL is not a URL: {error}"))?;
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_connect_timeout(Some(time_out.min(Duration::from_secs(5))));
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(50))
            .pool_max_idle_per_host(64);
        let http = match url.scheme() {
            "http" if is_loopback(&url) => Http::Plain(builder.build(tcp.clone()), tcp),
            "http" => return Err("SLACK_API_URL may be plain http on this machine only".to_owned()),
            "https" => {
                tcp.enforce_http(false);
                let tls = HttpsConnectorBuilder::new()
                    .with_native_roots()
                    .map_err(|error| format!("no certificate authorities found on this machine: {error}"))?
                    .https_only()
                    .enable_http1()
                    .wrap_connector(tcp);
                Http::Tls(builder.build(tls.clone()), tls)
            }
            other => return Err(format!("SLACK_API_URL has the scheme {other}, not https")),
        };
        let origin = url.origin();
        Ok(Wire { http, base, origin, replaced: replacement.is_some(), time_out, max_answer })
    }

    pub(crate) fn method_url(&self, method: &str) -> String {
        format!("{}/{method}", self.base)
    }

    /// May a request be sent to `url`, which came from outside? In production only to `https` at a host that
    /// `is_slack` knows; with a replaced API only to that API's own origin. Else anybody who forges a
    /// payload could make the bot call inner services.
    pub(crate) fn permits(&self, url: &Url, is_slack: fn(&str) -> bool) -> bool {
        if !url.username().is_empty() || url.password().is_some() {
            return false;
        }
        if self.replaced {
            return url.origin() == self.origin;
        }
        url.scheme() == "https" && url.port().is_none() && url.host_str().is_some_and(is_slack)
    }

    /// May a WebSocket be opened at `url`? Plain `ws` goes with a plain API only.
    pub(crate) fn permits_socket(&self, url: &Uri) -> bool {
        match (url.scheme_str(), &self.http) {
            (Some("wss"), Http::Tls(..)) => true,
            (Some("ws"), Http::Plain(..)) => url.host().is_some_and(is_loopback_host),
            _ => false,
        }
    }

    /// Opens a TCP (and TLS) connection for a WebSocket by the same connector as the calls.
    pub(crate) async fn open(&self, url: &Uri) -> Result<Opened, Error> {
        use hyper::service::Service;
        use hyper_util::service::TowerToHyperService;
        let scheme = if url.scheme_str() == Some("wss") { "https" } else { "http" };
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let target = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query("/")
            .build()
            .map_err(|_| Error::not_done("the socket's address is not a URL"))?;
        match &self.http {
            Http::Plain(_, tcp) => match TowerToHyperService::new(tcp.clone()).call(target).await {
                Ok(stream) => Ok(Opened::Plain(Box::new(stream))),
                Err(error) => Err(Error::not_done(format!("cannot connect: {}", chain(&error)))),
            },
            Http::Tls(_, tls) => match TowerToHyperService::new(tls.clone()).call(target).await {
                Ok(stream) => Ok(Opened::Tls(Box::new(stream))),
                Err(error) => Err(Error::not_done(format!("cannot connect: {}", chain(error.as_ref())))),
            },
        }
    }

    /// One request, one answer, whatever its status. `url` is not put into errors: it may be a secret.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        url: &str,
        token: Option<&SlackApiToken>,
        content: Option<(HeaderValue, Bytes)>,
    ) -> Result<Answer, Error> {
        let uri: Uri = url.parse().map_err(|_| Error::not_done("the address is not a URL"))?;
        let (content_type, body) = match content {
            Some((content_type, body)) => (Some(content_type), body),
            None => (None, Bytes::new()),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, USER_AGENT);
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        if let Some(token) = token {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.token_value.0))
                .map_err(|_| Error::not_done("the token holds characters that no header can carry"))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        match tokio::time::timeout(self.time_out, self.send(request)).await {
            Ok(result) => result,
            Err(_) => Err(Error::unclear(format!("no answer within {:.1} s", self.time_out.as_secs_f64()))),
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let sent = match &self.http {
            Http::Plain(client, _) => client.request(request).await,
            Http::Tls(client, _) => client.request(request).await,
        };
        let response = sent.map_err(|error| {
            if error.is_connect() {
                Error::not_done(format!("cannot connect: {}", chain(&error)))
            } else {
                Error::unclear(chain(&error))
            }
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.max_answer)
            .collect()
            .await
            .map_err(|error| Error::unclear(format!("the answer broke off: {}", chain(error.as_ref()))))?
            .to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// One call of a Web API method, read as `RS`.
    async fn call<RS>(
        &self,
        method: Method,
        url: Url,
        context: SlackClientApiCallContext<'_>,
        content: Option<(HeaderValue, Bytes)>,
    ) -> ClientResult<RS>
    where
        RS: for<'de> Deserialize<'de>,
    {
        let answer = self.exchange(method, url.as_str(), context.token, content).await.map_err(wrap)?;
        read(&answer)
    }
}

/// Reads the answer of a Web API method.
pub(crate) fn read<RS>(answer: &Answer) -> ClientResult<RS>
where
    RS: for<'de> Deserialize<'de>,
{
    #[derive(Deserialize)]
    struct Verdict<'a> {
        ok: Option<bool>,
        #[serde(borrow)]
        error: Option<std::borrow::Cow<'a, str>>,
    }

    let body = || String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status == StatusCode::TOO_MANY_REQUESTS {
        return Err(rate_limited(answer, body()));
    }
    if !answer.status.is_success() {
        return Err(SlackClientError::HttpError(
            SlackClientHttpError::new(answer.status).with_http_response_body(body()),
        ));
    }
    let verdict: Verdict<'_> =
        serde_json::from_slice(&answer.body).map_err(|error| map_serde_error(error, None))?;
    match (verdict.ok, verdict.error) {
        (_, Some(code)) if matches!(&*code, "ratelimited" | "rate_limited") => {
            Err(rate_limited(answer, body()))
        }
        (_, Some(code)) => Err(SlackClientError::ApiError(
            SlackClientApiError::new(code.into()).with_http_response_body(body()),
        )),
        (Some(true), None) => {
            serde_json::from_slice(&answer.body).map_err(|error| map_serde_error(error, Some(&body())))
        }
        (Some(false), None) => Err(SlackClientError::ApiError(
            SlackClientApiError::new("no_error_code".into()).with_http_response_body(body()),
        )),
        (None, None) => Err(wrap(Error::unclear("an answer that says neither yes nor no"))),
    }
}

fn rate_limited(answer: &Answer, body: String) -> SlackClientError {
    SlackClientError::RateLimitError(
        SlackRateLimitError::new()
            .opt_retry_after(retry_after(&answer.headers))
            .with_http_response_body(body),
    )
}

/// `Retry-After`, which Slack gives in whole seconds; a day at most.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(86_400)))
}

fn wrap(error: Error) -> SlackClientError {
    SlackClientError::HttpProtocolError(SlackClientHttpProtocolError::new().with_cause(Box::new(error)))
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_host)
}

fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An error and its causes in one line. hyper's errors hold no URL.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !out.contains(&said) {
            out.push_str(": ");
            out.push_str(&said);
        }
        next = cause.source();
    }
    out
}

impl SlackClientHttpConnector for Wire {
    fn create_method_uri_path(&self, method: &str) -> ClientResult<Url> {
        Ok(self.method_url(method).parse()?)
    }

    fn http_get_uri<'a, RS>(
        &'a self,
        full_uri: Url,
        context: SlackClientApiCallContext<'a>,
    ) -> BoxFuture<'a, ClientResult<RS>>
    where
        RS: for<'de> Deserialize<'de> + Send + 'a,
    {
        self.call(Method::GET, full_uri, context, None).boxed()
    }

    fn http_get_with_client_secret<'a, RS>(
        &'a self,
        _full_uri: Url,
        _client_id: &'a SlackClientId,
        _client_secret: &'a SlackClientSecret,
    ) -> BoxFuture<'a, ClientResult<RS>>
    where
        RS: for<'de> Deserialize<'de> + Send + 'a,
    {
        // heal is installed by its owner and never goes through OAuth.
        std::future::ready(Err(wrap(Error::not_done("OAuth is not part of heal")))).boxed()
    }

    fn http_post_uri<'a, RQ, RS>(
        &'a self,
        full_uri: Url,
        request_body: &'a RQ,
        context: SlackClientApiCallContext<'a>,
    ) -> BoxFuture<'a, ClientResult<RS>>
    where
        RQ: serde::ser::Serialize + Send + Sync,
        RS: for<'de> Deserialize<'de> + Send + 'a,
    {
        match serde_json::to_vec(request_body) {
            Ok(body) => self.call(Method::POST, full_uri, context, Some((JSON, body.into()))).boxed(),
            Err(error) => {
                let why = Error::not_done(format!("the request cannot be written as JSON: {error}"));
                std::future::ready(Err(wrap(why))).boxed()
            }
        }
    }

    fn http_post_uri_multipart_form<'a, 'p, RS, PT, TS>(
        &'a self,
        _full_uri: Url,
        _file: Option<FileMultipartData<'p>>,
        _params: &'p PT,
        _context: SlackClientApiCallContext<'a>,
    ) -> BoxFuture<'a, ClientResult<RS>>
    where
        RS: for<'de> Deserialize<'de> + Send + 'a,
        PT: IntoIterator<Item = (&'p str, Option<TS>)> + Clone,
        TS: AsRef<str> + 'p + Send,
    {
        // files.upload is gone since 2025-11-12; the current flow posts plain bytes.
        std::future::ready(Err(wrap(Error::not_done("multipart forms are not part of heal")))).boxed()
    }

    fn http_post_uri_binary<'a, 'p, RS>(
        &'a self,
        full_uri: Url,
        content_type: String,
        data: &'a [u8],
        context: SlackClientApiCallContext<'a>,
    ) -> BoxFuture<'a, ClientResult<RS>>
    where
        RS: for<'de> Deserialize<'de> + Send + 'a,
    {
        let content_type = HeaderValue::try_from(content_type)
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        let data = Bytes::copy_from_slice(data);
        self.call(Method::POST, full_uri, context, Some((content_type, data))).boxed()
    }
}
