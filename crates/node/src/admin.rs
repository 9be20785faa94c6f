//! The node's admin socket: paths to questions, and the words of refusals. The forms are in
//! [`wire::admin`], the server in the crate `admin`.

use ::admin::{Body, Desk, Question, Refused, Words};
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use exposition::Page;
use keys::SegmentId;
use serde::Deserialize;
use tokio::sync::oneshot;
use wire::admin::{HostLine, LogStatus, ScoreRequest, Status, WgExport};
use wire::{NodeName, SegmentName};

/// A client's request to the node.
pub(crate) enum Request {
    Status(oneshot::Sender<Answer<Status>>),
    Score(f64, oneshot::Sender<Answer<()>>),
    Export(
        (NodeName, Option<SegmentName>),
        oneshot::Sender<Answer<WgExport>>,
    ),
    /// The lines of a hosts file.
    Hosts(oneshot::Sender<Answer<Vec<HostLine>>>),
    Log(oneshot::Sender<Answer<LogStatus>>),
    Metrics(oneshot::Sender<Answer<Page>>),
    /// An interface, as `wg show` asks for it.
    WireGuard(SegmentId, oneshot::Sender<Answer<String>>),
}

/// An answer, or why there is none.
pub(crate) type Answer<T> = Result<T, Refused>;

impl Question for Request {
    fn metrics(answer: oneshot::Sender<Answer<Page>>) -> Self {
        Self::Metrics(answer)
    }
}

/// The node's paths.
pub(crate) fn routes() -> Router<Desk<Request>> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/hosts", get(hosts))
        .route("/v1/log", get(log))
        .route("/v1/score", post(score))
        .route("/v1/export/{peer}", post(export))
}

async fn status(State(desk): State<Desk<Request>>) -> Answer<Json<Status>> {
    desk.ask(Request::Status).await?.map(Json)
}

async fn hosts(State(desk): State<Desk<Request>>) -> Answer<Json<Vec<HostLine>>> {
    desk.ask(Request::Hosts).await?.map(Json)
}

async fn log(State(desk): State<Desk<Request>>) -> Answer<Json<LogStatus>> {
    desk.ask(Request::Log).await?.map(Json)
}

async fn score(State(desk): State<Desk<Request>>, body: Body) -> Answer<Json<ScoreRequest>> {
    let body = body.map_err(|error| Refused::plain(error.status().as_u16(), error.body_text()))?;
    let request: ScoreRequest = serde_json::from_slice(&body)
        .map_err(|error| Refused::new(400, error.to_string(), r#"send {"mean": 0.9}"#))?;
    let changed = desk.ask(|answer| Request::Score(request.mean, answer));
    changed.await??;
    Ok(Json(request))
}

async fn export(
    State(desk): State<Desk<Request>>,
    Path(peer): Path<String>,
    Query(of): Query<OfSegment>,
) -> Answer<Json<WgExport>> {
    let parsed = peer.parse::<NodeName>();
    let peer = parsed.map_err(|_| Refused::plain(404, format!("`{peer}` is not a node name")))?;
    let segment = of.segment.map(|it| {
        let parsed = it.parse::<SegmentName>();
        parsed.map_err(|_| Refused::plain(404, format!("`{it}` is not the name of a segment")))
    });
    let whose = (peer, segment.transpose()?);
    let export = desk.ask(|answer| Request::Export(whose, answer)).await?;
    export.map(Json)
}

/// The segment that a question is about; the first one that fits, if it does not say.
#[derive(Debug, Deserialize)]
struct OfSegment {
    segment: Option<String>,
}

pub(crate) fn no_log() -> Refused {
    let hint =
        "it comes with the first update; `meshctl status` says whether the controller is reached";
    Refused::new(
        409,
        "this node has seen no checkpoint since its start",
        hint,
    )
}

pub(crate) fn no_mock() -> Refused {
    let hint = "only the mock emitter has a mean to set; start the node with --emitter mock";
    Refused::new(409, "this node does not run the mock emitter", hint)
}

pub(crate) fn no_score(mean: f64) -> Refused {
    Refused::plain(400, format!("{mean} is not between 0 and 1"))
}

pub(crate) fn no_member(peer: &NodeName, segment: Option<&SegmentName>) -> Refused {
    let place = segment.map_or_else(String::new, |it| {
        format!(" in {it}, or this node is not in that")
    });
    Refused::plain(
        404,
        format!("{peer} is not a member of the epoch in force{place}"),
    )
}

pub(crate) fn no_tunnel(peer: &NodeName) -> Refused {
    let hint = format!(
        "`meshctl status` shows the tunnels; there is one with {peer} once the newest epoch with both nodes is in force \
         here: try again after the next"
    );
    Refused::new(409, format!("there is no tunnel to {peer}"), hint)
}

/// Said where a data plane would have to answer that has ended.
pub(crate) fn no_data_plane() -> Refused {
    Refused::plain(503, WORDS.stopping)
}

/// How the node's socket speaks of itself.
pub(crate) const WORDS: Words = Words {
    stopping: "the node is stopping",
    no_such_path: "no such path",
    hint: "this is a node's socket; epochs, tokens and events are the controller's",
};
