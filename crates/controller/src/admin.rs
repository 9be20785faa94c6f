//! The controller's admin socket: paths to [`Request`]s. The forms are in [`wire::admin`], the server in the
//! crate `admin`. Decides nothing.

use crate::by::By;
use crate::inputs::Question;
use crate::request::{Answer, LogRequest, Page, Request};
use ::admin::{Body, Caller, Desk, Refused, Words, form};
use ::policy::Policy;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path as UrlPath, Query, State};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use wire::admin::{PolicyRequest, RouteRequest};
use wire::succession::EvaluatorSuccession;
use wire::{NodeName, SegmentName};

type Reply = Result<Json<Answer>, Refused>;
type Engine = Desk<Question>;
type Asker = Extension<Caller>;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entries {
    after: u64,
    limit: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    at: Option<Timestamp>,
    segment: Option<SegmentName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofOf {
    seq: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    from: u64,
    to: Option<u64>,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            after: 0,
            limit: 100,
        }
    }
}

/// The controller's paths.
pub(crate) fn routes() -> Router<Engine> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/nodes/{name}/explain", get(explain))
        .route("/v1/nodes/{name}/evidence", post(evidence))
        .route(
            "/v1/nodes/{name}/override",
            post(override_node).delete(clear_override),
        )
        .route(
            "/v1/nodes/{name}/groups/{group}",
            post(add_group).delete(remove_group),
        )
        .route("/v1/routes", get(subnet_routes))
        .route("/v1/nodes/{name}/routes/approve", post(approve_route))
        .route("/v1/nodes/{name}/routes/withdraw", post(withdraw_route))
        .route("/v1/policy", get(policy).post(change_policy))
        .route("/v1/policy/simulate", post(simulate))
        .route("/v1/nodes/{name}/evict", post(evict))
        .route("/v1/evictions", post(evict_all))
        .route("/v1/nodes/{name}/readmit", post(readmit))
        .route("/v1/nodes/{name}/segments/{segment}", post(join_segment))
        .route(
            "/v1/nodes/{name}/segments/{segment}/leave",
            post(leave_segment),
        )
        .route("/v1/nodes/{name}/remove", post(remove))
        .route("/v1/nodes/{name}/approve", post(approve))
        .route("/v1/nodes/{name}/reject", post(reject))
        .route("/v1/banned", get(banned))
        .route("/v1/banned/{key}", delete(unban))
        .route("/v1/recover", post(recover))
        .route("/v1/evaluators/rotate", post(rotate_evaluator))
        .route("/v1/authority/rotate", post(rotate_authority))
        .route("/v1/epoch/rotate", post(rotate))
        .route("/v1/tokens", get(tokens).post(create_token))
        .route("/v1/tokens/{id}", delete(revoke_token))
        .route("/v1/events", get(events))
        .route("/v1/log", get(log))
        .route("/v1/log/rotate-key", post(rotate_log_key))
        .route("/v1/log/proof", get(log_proof))
        .route("/v1/log/consistency", get(log_consistency))
        .route("/v1/log/entries", get(log_entries))
}

/// Asks for something, at the word of the user whom the kernel names for the other end of the socket.
async fn ask(engine: &Engine, Extension(caller): Asker, request: Request) -> Reply {
    let by = caller.uid.map(By::Uid);
    let question = |answer| Question::Operator {
        request,
        by,
        answer,
    };
    engine.ask(question).await?.map(Json)
}

async fn status(State(engine): State<Engine>, asker: Asker) -> Reply {
    ask(&engine, asker, Request::Status).await
}

async fn explain(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
    when: Result<Query<When>, QueryRejection>,
) -> Reply {
    let Query(When { at, segment }) = when.map_err(|error| {
        let hint = "`at` is a time in RFC 3339, as in ?at=2026-11-26T04:00:00Z";
        Refused::new(400, error.body_text(), hint)
    })?;
    let name = node(name)?;
    let request = match at {
        Some(at) => Request::ExplainAt(name, segment, at),
        None => Request::Explain(name, segment),
    };
    ask(&engine, asker, request).await
}

async fn evidence(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
    body: Body,
) -> Reply {
    let name = node(name)?;
    let envelope = body.map_err(|error| {
        let hint = "the body is one DSSE envelope, of at most 64 KiB";
        Refused::new(error.status().as_u16(), error.body_text(), hint)
    })?;
    ask(&engine, asker, Request::Evidence(name, envelope.to_vec())).await
}

async fn override_node(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
    body: Body,
) -> Reply {
    let request = Request::Override(node(name)?, form(body)?);
    ask(&engine, asker, request).await
}

async fn clear_override(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
) -> Reply {
    ask(&engine, asker, Request::ClearOverride(node(name)?)).await
}

async fn add_group(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(path): UrlPath<(String, String)>,
) -> Reply {
    ask(&engine, asker, group(path, true)?).await
}

async fn remove_group(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(path): UrlPath<(String, String)>,
) -> Reply {
    ask(&engine, asker, group(path, false)?).await
}

fn group((name, group): (String, String), member: bool) -> Result<Request, Refused> {
    let name = node(name)?;
    Ok(Request::Group {
        name,
        group,
        member,
    })
}

async fn subnet_routes(State(engine): State<Engine>, asker: Asker) -> Reply {
    ask(&engine, asker, Request::Routes).await
}

async fn approve_route(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
    body: Body,
) -> Reply {
    let request = Request::ApproveRoute(node(name)?, route(body)?);
    ask(&engine, asker, request).await
}

async fn withdraw_route(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
    body: Body,
) -> Reply {
    let request = Request::WithdrawRoute(node(name)?, route(body)?);
    ask(&engine, asker, request).await
}

fn route(body: Body) -> Result<RouteRequest, Refused> {
    let form: Option<RouteRequest> = form(body)?;
    form.ok_or_else(|| {
        let hint = r#"name a network, as in {"prefix": "10.1.0.0/16"}"#;
        Refused::new(400, "there is no network in the body", hint)
    })
}

async fn policy(State(engine): State<Engine>, asker: Asker, Query(of): Query<OfSegment>) -> Reply {
    ask(&engine, asker, Request::Policy(of.segment)).await
}

async fn change_policy(State(engine): State<Engine>, asker: Asker, body: Body) -> Reply {
    let form: PolicyRequest = form(body)?;
    let policy = Box::new(policy_of(&form)?);
    ask(&engine, asker, Request::ChangePolicy(form.segment, policy)).await
}

async fn simulate(State(engine): State<Engine>, asker: Asker, body: Body) -> Reply {
    let form: PolicyRequest = form(body)?;
    let policy = Box::new(policy_of(&form)?);
    let since = form.since.as_deref().map(str::parse).transpose();
    let since = since.map_err(|error: jiff::Error| {
        let hint = "`since` is a time in RFC 3339, as in 2026-11-26T04:00:00Z";
        Refused::new(400, format!("`since` is no time: {error}"), hint)
    })?;
    ask(
        &engine,
        asker,
        Request::Simulate(form.segment, policy, since),
    )
    .await
}

fn policy_of(form: &PolicyRequest) -> Result<Policy, Refused> {
    Policy::from_toml(&form.toml).map_err(|error| {
        let hint = "`meshctl policy check FILE` says the same without a controller";
        Refused::new(400, format!("the policy cannot be used: {error}"), hint)
    })
}

async fn evict(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
    body: Body,
) -> Reply {
    let request = Request::Evict(node(name)?, form(body)?);
    ask(&engine, asker, request).await
}

async fn evict_all(State(engine): State<Engine>, asker: Asker, body: Body) -> Reply {
    ask(&engine, asker, Request::EvictAll(form(body)?)).await
}

async fn readmit(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
) -> Reply {
    ask(&engine, asker, Request::Readmit(node(name)?)).await
}

/// Which segment is asked about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfSegment {
    segment: Option<SegmentName>,
}

async fn join_segment(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath((name, segment)): UrlPath<(String, String)>,
) -> Reply {
    let request = Request::JoinSegment(node(name)?, segment_of(segment)?);
    ask(&engine, asker, request).await
}

async fn leave_segment(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath((name, segment)): UrlPath<(String, String)>,
    body: Body,
) -> Reply {
    let (name, segment) = (node(name)?, segment_of(segment)?);
    let request = Request::LeaveSegment(name, segment, form(body)?);
    ask(&engine, asker, request).await
}

fn segment_of(text: String) -> Result<SegmentName, Refused> {
    SegmentName::try_from(text).map_err(|error| {
        let hint = "`meshctl status` names the segments";
        Refused::new(400, error.to_string(), hint)
    })
}

async fn rotate_evaluator(State(engine): State<Engine>, asker: Asker, body: Body) -> Reply {
    let word: Option<EvaluatorSuccession> = form(body)?;
    let word = word.ok_or_else(|| {
        let hint = "`meshctl key rotate evaluator` makes the statement";
        Refused::new(400, "there is no statement in the body", hint)
    })?;
    ask(&engine, asker, Request::RotateEvaluator(word)).await
}

async fn rotate_authority(State(engine): State<Engine>, asker: Asker) -> Reply {
    ask(&engine, asker, Request::RotateAuthority).await
}

async fn recover(State(engine): State<Engine>, asker: Asker, body: Body) -> Reply {
    ask(&engine, asker, Request::Recover(form(body)?)).await
}

async fn remove(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
    body: Body,
) -> Reply {
    let request = Request::Remove(node(name)?, form(body)?);
    ask(&engine, asker, request).await
}

async fn approve(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
) -> Reply {
    ask(&engine, asker, Request::Approve(node(name)?)).await
}

async fn reject(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(name): UrlPath<String>,
    body: Body,
) -> Reply {
    let request = Request::Reject(node(name)?, form(body)?);
    ask(&engine, asker, request).await
}

async fn banned(State(engine): State<Engine>, asker: Asker) -> Reply {
    ask(&engine, asker, Request::Banned).await
}

async fn unban(State(engine): State<Engine>, asker: Asker, UrlPath(key): UrlPath<String>) -> Reply {
    let key = key.parse().map_err(|_| {
        let hint = "`node:` and 64 digits in lower-case hex; `meshctl node banned` lists them";
        Refused::new(400, "not the key of a node", hint)
    })?;
    ask(&engine, asker, Request::Unban(key)).await
}

async fn rotate(State(engine): State<Engine>, asker: Asker, body: Body) -> Reply {
    ask(&engine, asker, Request::Rotate(form(body)?)).await
}

async fn tokens(State(engine): State<Engine>, asker: Asker) -> Reply {
    ask(&engine, asker, Request::Tokens).await
}

async fn create_token(State(engine): State<Engine>, asker: Asker, body: Body) -> Reply {
    ask(&engine, asker, Request::CreateToken(form(body)?)).await
}

async fn revoke_token(
    State(engine): State<Engine>,
    asker: Asker,
    UrlPath(id): UrlPath<String>,
) -> Reply {
    ask(&engine, asker, Request::RevokeToken(id)).await
}

async fn events(
    State(engine): State<Engine>,
    asker: Asker,
    page: Result<Query<Page>, QueryRejection>,
) -> Reply {
    let Query(page) = page.map_err(|error| {
        let hint = "`after` and `limit` are numbers, `node` is a name, `kind` a kind of event, `since` and \
                    `until` are times in RFC 3339, as in /v1/events?after=0&limit=100&node=node-a";
        Refused::new(400, error.body_text(), hint)
    })?;
    ask(&engine, asker, Request::Events(page)).await
}

async fn log(State(engine): State<Engine>, asker: Asker) -> Reply {
    ask(&engine, asker, Request::Log(LogRequest::Status)).await
}

async fn rotate_log_key(State(engine): State<Engine>, asker: Asker) -> Reply {
    ask(&engine, asker, Request::RotateLogKey).await
}

async fn log_proof(
    State(engine): State<Engine>,
    asker: Asker,
    of: Result<Query<ProofOf>, QueryRejection>,
) -> Reply {
    let Query(ProofOf { seq }) = of.map_err(|error| {
        let hint = "`seq` is an event's number, as in /v1/log/proof?seq=7";
        Refused::new(400, error.body_text(), hint)
    })?;
    ask(&engine, asker, Request::Log(LogRequest::Proof { seq })).await
}

async fn log_consistency(
    State(engine): State<Engine>,
    asker: Asker,
    span: Result<Query<Span>, QueryRejection>,
) -> Reply {
    let Query(Span { from, to }) = span.map_err(|error| {
        let hint = "`from` and `to` are numbers of events, as in /v1/log/consistency?from=7&to=9";
        Refused::new(400, error.body_text(), hint)
    })?;
    ask(
        &engine,
        asker,
        Request::Log(LogRequest::Consistency { from, to }),
    )
    .await
}

async fn log_entries(
    State(engine): State<Engine>,
    asker: Asker,
    page: Result<Query<Entries>, QueryRejection>,
) -> Reply {
    let Query(Entries { after, limit }) = page.map_err(|error| {
        let hint = "`after` and `limit` are numbers, as in /v1/log/entries?after=0&limit=100";
        Refused::new(400, error.body_text(), hint)
    })?;
    ask(
        &engine,
        asker,
        Request::Log(LogRequest::Entries { after, limit }),
    )
    .await
}

fn node(name: String) -> Result<NodeName, Refused> {
    NodeName::try_from(name).map_err(|error| {
        let hint = "`meshctl node list` shows the nodes that are enrolled";
        Refused::new(400, error.to_string(), hint)
    })
}

/// How the controller's socket speaks of itself.
pub(crate) const WORDS: Words = Words {
    stopping: "the controller is stopping",
    no_such_path: "this is a controller's socket, and it has no such path",
    hint: "`meshctl --help` lists what a controller can be asked; scores and exports are asked of a node's \
           socket",
};
