//! The node's admin socket: JSON over HTTP, forms and paths in [`wire::admin`]; and the address for
//! scrapers.

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use exposition::{Listener, Page};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use wire::NodeName;
use wire::admin::{ApiError, ScoreRequest, Status, WgExport};

/// What a client asks of the agent.
pub(crate) enum Request {
    Status(oneshot::Sender<Status>),
    Score(f64, oneshot::Sender<Answer<()>>),
    Export(NodeName, oneshot::Sender<Answer<WgExport>>),
    Metrics(oneshot::Sender<Answer<Page>>),
}

/// A refusal carries its HTTP status.
pub(crate) type Answer<T> = Result<T, (StatusCode, ApiError)>;

/// Serves the socket until the agent is gone.
pub(crate) async fn serve(listener: UnixListener, agent: mpsc::Sender<Request>) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/score", post(score))
        .route("/v1/export/{peer}", post(export))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(agent.clone());
    tokio::select! {
        served = axum::serve(listener, router) => {
            if let Err(error) = served {
                tracing::error!(%error, "the admin socket failed");
            }
        }
        () = agent.closed() => {}
    }
}

/// Serves `GET /metrics` on the listener until the agent is gone.
pub(crate) async fn serve_metrics(listener: Listener, agent: mpsc::Sender<Request>) {
    let asked = agent.clone();
    let scrape = move || {
        let agent = asked.clone();
        async move { ask(&agent, Request::Metrics).await.ok()?.ok() }
    };
    tokio::select! {
        never = listener.serve(scrape) => match never {},
        () = agent.closed() => {}
    }
}

async fn status(State(agent): State<mpsc::Sender<Request>>) -> Response {
    match ask(&agent, Request::Status).await {
        Ok(status) => Json(status).into_response(),
        Err(refusal) => refuse(refusal),
    }
}

async fn score(State(agent): State<mpsc::Sender<Request>>, body: axum::body::Bytes) -> Response {
    let request: ScoreRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            return refuse(refusal(
                StatusCode::BAD_REQUEST,
                error.to_string(),
                Some(r#"send {"mean": 0.9}"#),
            ));
        }
    };
    match ask(&agent, |answer| Request::Score(request.mean, answer))
        .await
        .and_then(|answer| answer)
    {
        Ok(()) => Json(request).into_response(),
        Err(refusal) => refuse(refusal),
    }
}

async fn export(State(agent): State<mpsc::Sender<Request>>, Path(peer): Path<String>) -> Response {
    let Ok(peer) = peer.parse::<NodeName>() else {
        return refuse(refusal(
            StatusCode::NOT_FOUND,
            format!("`{peer}` is not a node name"),
            None,
        ));
    };
    match ask(&agent, |answer| Request::Export(peer, answer))
        .await
        .and_then(|answer| answer)
    {
        Ok(export) => Json(export).into_response(),
        Err(refusal) => refuse(refusal),
    }
}

async fn metrics(State(agent): State<mpsc::Sender<Request>>) -> Response {
    let page = ask(&agent, Request::Metrics).await;
    match page.and_then(|page| page) {
        Ok(page) => (
            [(header::CONTENT_TYPE, exposition::CONTENT_TYPE)],
            page.text(),
        )
            .into_response(),
        Err(refusal) => refuse(refusal),
    }
}

async fn unknown() -> Response {
    let hint = "this is a node's socket; epochs, tokens and events are the controller's";
    refuse(refusal(
        StatusCode::NOT_FOUND,
        "no such path".into(),
        Some(hint),
    ))
}

async fn ask<T>(
    agent: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Answer<T> {
    let (answer, answered) = oneshot::channel();
    agent.send(request(answer)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())
}

pub(crate) fn stopping() -> (StatusCode, ApiError) {
    let error = "the node is stopping".into();
    refusal(StatusCode::SERVICE_UNAVAILABLE, error, None)
}

fn refuse((status, error): (StatusCode, ApiError)) -> Response {
    (status, Json(error)).into_response()
}

fn refusal(status: StatusCode, error: String, hint: Option<&str>) -> (StatusCode, ApiError) {
    (
        status,
        ApiError {
            error,
            hint: hint.map(str::to_owned),
        },
    )
}

pub(crate) fn no_mock() -> (StatusCode, ApiError) {
    let hint = "only the mock emitter has a mean to set; start the node with --emitter mock";
    let error = "this node does not run the mock emitter".into();
    refusal(StatusCode::CONFLICT, error, Some(hint))
}

pub(crate) fn no_score(mean: f64) -> (StatusCode, ApiError) {
    let error = format!("{mean} is not between 0 and 1");
    refusal(StatusCode::BAD_REQUEST, error, None)
}

pub(crate) fn no_member(peer: &NodeName) -> (StatusCode, ApiError) {
    let error = format!("{peer} is not a member of the epoch in force");
    refusal(StatusCode::NOT_FOUND, error, None)
}

pub(crate) fn no_tunnel(peer: &NodeName) -> (StatusCode, ApiError) {
    let error = format!("there is no tunnel to {peer}");
    refusal(StatusCode::CONFLICT, error, None)
}

const BODY_LIMIT: usize = 64 << 10;
