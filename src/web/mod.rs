//! What heal answers on `listen`: health, metrics, and in http mode Slack's requests.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::future::BoxFuture;

/// What the routes ask of the rest.
pub struct Probes {
    /// Why the bot is not ready; empty when it is.
    pub problems: Box<dyn Fn() -> BoxFuture<'static, Vec<String>> + Send + Sync>,
    /// What a person should see to, though the bot is ready.
    pub remarks: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The text of `/metrics`.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// `GET /healthz` (the process lives), `GET /readyz` (200 or 503 and why), `GET /metrics`. What is refused
/// in one channel makes a bot no less ready for the others, so it is named below `ready`.
pub fn router(probes: Arc<Probes>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(probes)
}

async fn ready(State(probes): State<Arc<Probes>>) -> impl IntoResponse {
    let problems = (probes.problems)().await;
    let remarks: String = (probes.remarks)().iter().map(|remark| format!("{remark}\n")).collect();
    if problems.is_empty() {
        (StatusCode::OK, format!("ready\n{remarks}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready:\n{}\n{remarks}", problems.join("\n")))
    }
}

async fn metrics(State(probes): State<Arc<Probes>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], (probes.metrics)())
}
