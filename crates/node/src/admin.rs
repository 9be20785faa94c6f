//! The node's admin socket: JSON over HTTP, forms and paths in [`wire::admin`]; and the address for
//! scrapers.

use crate::agent::Agent;
use crate::data::DataCommand;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use exposition::{Listener, Page};
use std::net::IpAddr;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use wire::admin::{ApiError, ScoreRequest, Status, WgExport};
use wire::{EpochUpdate, NodeName};

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

fn stopping() -> (StatusCode, ApiError) {
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

impl Agent {
    /// Answers a client; one that has gone is not waited for.
    pub(crate) async fn request(&mut self, request: Request) {
        match request {
            Request::Status(answer) => {
                let snapshot = self.data.snapshot().await;
                let _ = answer.send(Status::Node(Box::new(self.status(snapshot.as_ref()))));
            }
            Request::Score(mean, answer) => {
                let _ = answer.send(self.set_mean(mean));
            }
            Request::Export(peer, answer) => {
                let _ = answer.send(self.export(&peer).await);
            }
            Request::Metrics(answer) => {
                // Without a data plane: counters that went back to zero would be a lie.
                let snapshot = self.data.snapshot().await.ok_or_else(stopping);
                let _ = answer.send(snapshot.map(|snapshot| self.metrics(&snapshot)));
            }
        }
    }

    fn set_mean(&mut self, mean: f64) -> Answer<()> {
        if !self.has_mock {
            let hint =
                "only the mock emitter has a mean to set; start the node with --emitter mock";
            return Err(refusal(
                StatusCode::CONFLICT,
                "this node does not run the mock emitter".into(),
                Some(hint),
            ));
        }
        if !(0.0..=1.0).contains(&mean) {
            return Err(refusal(
                StatusCode::BAD_REQUEST,
                format!("{mean} is not between 0 and 1"),
                None,
            ));
        }
        tracing::info!(mean, "mock score changed by the operator");
        self.mock_mean.send_replace(Some(mean));
        Ok(())
    }

    async fn export(&mut self, peer: &NodeName) -> Answer<WgExport> {
        let update = self.member.view().update;
        let member =
            update.and_then(|update| update.roster.iter().find(|member| member.name == *peer));
        let Some((update, member)) = update.zip(member) else {
            return Err(refusal(
                StatusCode::NOT_FOUND,
                format!("{peer} is not a member of the epoch in force"),
                None,
            ));
        };
        let (answer, psk) = oneshot::channel();
        self.data.send(DataCommand::ExportPsk(member.wg, answer));
        let endpoint = self.data.snapshot().await.and_then(|snapshot| {
            snapshot
                .peers
                .iter()
                .find(|seen| seen.key == member.wg)
                .and_then(|seen| seen.endpoint?.udp())
        });
        let no_tunnel = || {
            refusal(
                StatusCode::CONFLICT,
                format!("there is no tunnel to {peer}"),
                None,
            )
        };
        let (epoch, psk) = psk.await.ok().flatten().ok_or_else(no_tunnel)?;
        tracing::warn!(%peer, %epoch, "WireGuard secrets exported by the operator");
        Ok(WgExport {
            epoch: epoch.0,
            config: self.wg_config(update, member, &psk, endpoint),
        })
    }

    /// A configuration in the format of `wg-quick(8)` for a stock WireGuard in this node's place.
    fn wg_config(
        &self,
        update: &EpochUpdate,
        member: &wire::Member,
        psk: &str,
        endpoint: Option<std::net::SocketAddr>,
    ) -> String {
        let own = &self.enrolment;
        let secret = self.wg.expose_base64();
        let endpoint =
            endpoint.map_or_else(String::new, |endpoint| format!("Endpoint = {endpoint}\n"));
        let allowed = [IpAddr::V4(member.v4), IpAddr::V6(member.v6)];
        let [v4, v6] = allowed
            .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }));
        format!(
            "# {} in place of meshd, towards {}, epoch {} only\n\
             [Interface]\nPrivateKey = {}\nListenPort = {}\nAddress = {}/32, {}/128\nMTU = {}\n\n\
             [Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = {v4}, {v6}\n{endpoint}PersistentKeepalive = 5\n",
            own.name,
            member.name,
            update.epoch,
            *secret,
            self.interface.listen_port,
            own.v4.0,
            own.v6.0,
            self.interface.mtu,
            member.wg.to_base64(),
            psk,
        )
    }
}

const BODY_LIMIT: usize = 64 << 10;
