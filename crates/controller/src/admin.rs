//! The admin socket: HTTP on a Unix socket that only its owner may open, and the address for scrapers.
//! Translates requests to [`Request`] and back; decides nothing.

use crate::inputs::Question;
use crate::request::{Answer, Refused, Request};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use exposition::{Listener, Page as Metrics};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::os::unix::net::UnixListener as StdListener;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use wire::NodeName;

/// Serves the socket; returns only when it has failed.
pub(crate) async fn serve(socket: StdListener, questions: mpsc::Sender<Question>) {
    if let Ok(listener) = UnixListener::from_std(socket) {
        let _ = axum::serve(listener, router(Engine { questions })).await;
    }
}

/// Serves `GET /metrics` on the listener, if there is one, until it is dropped.
pub(crate) async fn serve_metrics(
    listener: Option<Listener>,
    questions: mpsc::Sender<Question>,
) -> Infallible {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    let engine = Engine { questions };
    let scrape = move || {
        let engine = engine.clone();
        async move { engine.scrape().await.ok() }
    };
    listener.serve(scrape).await
}

/// The way to the one task that owns the state.
#[derive(Debug, Clone)]
struct Engine {
    questions: mpsc::Sender<Question>,
}

impl Engine {
    async fn ask(&self, request: Request) -> Reply {
        let (answer, answered) = oneshot::channel();
        let sent = self
            .questions
            .send(Question::Operator { request, answer })
            .await;
        sent.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?.map(Json)
    }

    async fn scrape(&self) -> Result<Metrics, Refused> {
        let (answer, answered) = oneshot::channel();
        let sent = self.questions.send(Question::Metrics { answer }).await;
        sent.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}

fn stopping() -> Refused {
    Refused::new(503, "the controller is stopping", "start it again")
}

type Reply = Result<Json<Answer>, Refused>;
type Body = Result<Bytes, BytesRejection>;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Page {
    after: u64,
    limit: u64,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            after: 0,
            limit: 100,
        }
    }
}

fn router(engine: Engine) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/nodes/{name}/explain", get(explain))
        .route("/v1/nodes/{name}/evict", post(evict))
        .route("/v1/nodes/{name}/readmit", post(readmit))
        .route("/v1/epoch/rotate", post(rotate))
        .route("/v1/tokens", get(tokens).post(create_token))
        .route("/v1/tokens/{id}", delete(revoke_token))
        .route("/v1/events", get(events))
        .route("/metrics", get(metrics))
        .fallback(async || -> Reply { Err(Refused::new(404, NO_SUCH_PATH, HINT)) })
        .method_not_allowed_fallback(async || -> Reply {
            Err(Refused::new(405, "this path takes another method", HINT))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(engine)
}

async fn status(State(engine): State<Engine>) -> Reply {
    engine.ask(Request::Status).await
}

async fn explain(State(engine): State<Engine>, UrlPath(name): UrlPath<String>) -> Reply {
    engine.ask(Request::Explain(node(name)?)).await
}

async fn evict(State(engine): State<Engine>, UrlPath(name): UrlPath<String>, body: Body) -> Reply {
    let request = Request::Evict(node(name)?, form(body)?);
    engine.ask(request).await
}

async fn readmit(State(engine): State<Engine>, UrlPath(name): UrlPath<String>) -> Reply {
    engine.ask(Request::Readmit(node(name)?)).await
}

async fn rotate(State(engine): State<Engine>, body: Body) -> Reply {
    engine.ask(Request::Rotate(form(body)?)).await
}

async fn tokens(State(engine): State<Engine>) -> Reply {
    engine.ask(Request::Tokens).await
}

async fn create_token(State(engine): State<Engine>, body: Body) -> Reply {
    engine.ask(Request::CreateToken(form(body)?)).await
}

async fn revoke_token(State(engine): State<Engine>, UrlPath(id): UrlPath<String>) -> Reply {
    engine.ask(Request::RevokeToken(id)).await
}

async fn events(State(engine): State<Engine>, page: Result<Query<Page>, QueryRejection>) -> Reply {
    let Query(Page { after, limit }) = page.map_err(|error| {
        let hint = "`after` and `limit` are numbers, as in /v1/events?after=0&limit=100";
        Refused::new(400, error.body_text(), hint)
    })?;
    engine.ask(Request::Events { after, limit }).await
}

async fn metrics(State(engine): State<Engine>) -> Result<impl IntoResponse, Refused> {
    let page = engine.scrape().await?;
    Ok((
        [(header::CONTENT_TYPE, exposition::CONTENT_TYPE)],
        page.text(),
    ))
}

fn node(name: String) -> Result<NodeName, Refused> {
    NodeName::try_from(name).map_err(|error| {
        let hint = "`meshctl node list` shows the nodes that are enrolled";
        Refused::new(400, error.to_string(), hint)
    })
}

/// A form's fields; no body at all is a form without any.
fn form<T: DeserializeOwned + Default>(body: Body) -> Result<T, Refused> {
    let body = body.map_err(|error| {
        let hint = format!("a body has at most {MAX_BODY} bytes");
        Refused::new(error.status().as_u16(), error.body_text(), hint)
    })?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| {
        let hint = "the body is a JSON object with the fields of this request";
        Refused::new(400, format!("the body cannot be read: {error}"), hint)
    })
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.error)).into_response()
    }
}

const MAX_BODY: usize = 64 << 10;
const NO_SUCH_PATH: &str = "this is a controller's socket, and it has no such path";
const HINT: &str = "`meshctl --help` lists what a controller can be asked; scores and exports are \
    asked of a node's socket";
