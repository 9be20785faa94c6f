//! The server: a role's routes with what both roles have, on the socket and on the address for scrapers.

use crate::desk::{Desk, Question};
use crate::refused::Refused;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use exposition::http::{self, Terms};
use exposition::{Format, Listener};
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::UnixListener;

/// A body as it came, or why it did not.
pub type Body = Result<Bytes, BytesRejection>;

/// A role's routes, and what both roles have: `GET /metrics`, limits, refusals of what does not exist.
pub fn router<Q: Question>(routes: Router<Desk<Q>>, desk: Desk<Q>) -> Router {
    let words = desk.words;
    routes
        .route("/metrics", get(metrics::<Q>))
        .fallback(move || async move { Refused::new(404, words.no_such_path, words.hint) })
        .method_not_allowed_fallback(move || async move {
            Refused::new(405, "this path takes another method", words.hint)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(desk)
}

/// Serves the bound socket to so many `clients` at a time, until it is dropped.
pub async fn serve(socket: UnixListener, router: Router, clients: usize) -> Infallible {
    let terms = Terms {
        of: "the admin socket",
        clients,
        head: IDLE_TIME,
        request: REQUEST_TIME,
        connection: None,
        keep_alive: true,
    };
    http::serve(socket, TowerToHyperService::new(router), terms).await
}

/// Serves `GET /metrics` on the listener, if there is one, until it is dropped.
pub async fn serve_metrics<Q: Question>(listener: Option<Listener>, desk: Desk<Q>) -> Infallible {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    let scrape = move || {
        let desk = desk.clone();
        async move {
            let page = desk.ask(Q::metrics).await.and_then(|page| page);
            let mut page = page.map_err(|refused| refused.to_string())?;
            exposition::process::put(&mut page);
            Ok(page)
        }
    };
    listener.serve(scrape).await
}

/// A form's fields; no body at all is a form without any.
///
/// # Errors
/// 400 for a body that is no such form, 413 for one that is too long.
pub fn form<T: DeserializeOwned + Default>(body: Body) -> Result<T, Refused> {
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

async fn metrics<Q: Question>(
    State(desk): State<Desk<Q>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refused> {
    let accept = headers.get(header::ACCEPT);
    let format = Format::accepted(accept.and_then(|it| it.to_str().ok()));
    let mut page = desk.ask(Q::metrics).await??;
    exposition::process::put(&mut page);
    Ok((
        [(header::CONTENT_TYPE, format.content_type())],
        page.text(format),
    ))
}

const MAX_BODY: usize = 64 << 10;
/// How long a connection may say nothing, or take for the head of a request.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// For the rest of a request and its answer; longer than a role takes to say that it is held up.
const REQUEST_TIME: Duration = Duration::from_secs(15);
