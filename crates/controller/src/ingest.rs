//! What connections say, judged by who says it and when. An unknown key may only ask to be enrolled; an
//! enrolled node opens with Hello, and speaks only about itself.

use crate::clock::Now;
use crate::counts::EvidenceResult;
use crate::engine::{ConnectionId, Engine, Live, Session, Stage};
use crate::enrol::OPENING_TIME;
use crate::event::{Accepted, Event};
use allowance::Bucket;
use keys::{Epoch, NodeId};
use policy::Unacceptable;
use std::net::SocketAddr;
use wire::NodeName;
use wire::admin::Observation;
use wire::evidence::{Attested, EvidenceError, payload_digest};
use wire::message::{Hello, MAX_ENDPOINTS, PeerReport, Phase, Refusal, ToController, ToNode};

impl Engine {
    /// A key has proved itself on a new connection.
    pub fn handle_connected(
        &mut self,
        id: ConnectionId,
        peer: NodeId,
        remote: SocketAddr,
        now: Now,
    ) {
        // One connection per key that has said nothing yet: a key cannot crowd out others.
        let silent = |s: &Session| s.peer == peer && matches!(s.stage, Stage::Opening { .. });
        let older = self
            .sessions
            .iter()
            .find(|(_, s)| silent(s))
            .map(|(id, _)| *id);
        if let Some(older) = older {
            self.close(older, Refusal::Superseded);
        }
        let session = Session {
            peer,
            remote,
            stage: Stage::Opening {
                deadline: now.boot + OPENING_TIME,
            },
        };
        self.sessions.insert(id, session);
    }

    /// A connection is seen at another address.
    pub fn handle_moved(&mut self, id: ConnectionId, remote: SocketAddr, now: Now) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut session.remote, remote).ip() == remote.ip() {
            return;
        }
        if let Stage::Serving { name } = &session.stage {
            let name = name.clone();
            self.relocate(id, &name, now);
        }
    }

    /// A connection has ended.
    pub fn handle_disconnected(&mut self, id: ConnectionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        if let Stage::Serving { name } = session.stage {
            self.leave(&name, id);
        }
    }

    /// A connection carried something that is not to be read.
    pub fn handle_refused(&mut self, id: ConnectionId, reason: Refusal) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let name = self.fleet.name_of(&session.peer).map(ToString::to_string);
        match (reason, name) {
            (Refusal::TooMuch, Some(node)) => {
                tracing::warn!(
                    node,
                    "the node says more than its allowance: cut off for a while"
                );
            }
            (Refusal::NotEnrolled, _) => {}
            _ => tracing::info!(key = session.peer.short(), "malformed message"),
        }
        self.close(id, reason);
    }

    /// A message arrived.
    pub fn handle_message(&mut self, id: ConnectionId, message: ToController, now: Now) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let peer = session.peer;
        match &session.stage {
            Stage::Serving { name } => {
                let name = name.clone();
                self.serve(id, &name, message, now);
            }
            Stage::Opening { .. } => self.open(id, peer, message, now),
        }
    }

    /// Closes connections that have said nothing in time.
    pub(crate) fn close_silent(&mut self, now: Now) {
        let late = |session: &Session| match session.stage {
            Stage::Opening { deadline } => deadline <= now.boot,
            Stage::Serving { .. } => false,
        };
        let late = self.sessions.iter().filter(|(_, session)| late(session));
        let late: Vec<ConnectionId> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.close(id, Refusal::Protocol);
        }
    }

    fn open(&mut self, id: ConnectionId, peer: NodeId, message: ToController, now: Now) {
        let known = self.fleet.name_of(&peer).cloned();
        match (message, known) {
            (ToController::Enrol(enrol), _) => self.enrol(id, peer, &enrol, now),
            (ToController::Hello(hello), Some(name)) => self.hello(id, name, hello, now),
            (_, Some(_)) => self.close(id, Refusal::Protocol),
            (_, None) => self.close(id, Refusal::NotEnrolled),
        }
    }

    fn serve(&mut self, id: ConnectionId, name: &NodeName, message: ToController, now: Now) {
        match message {
            ToController::Enrol(_) | ToController::Hello(_) => self.close(id, Refusal::Protocol),
            ToController::Evidence { envelope } => self.evidence(id, name, &envelope, now),
            ToController::Ack { epoch, phase } => self.ack(name, epoch, phase),
            ToController::Report { peers } => self.observe(name, &peers),
            ToController::Endpoints {
                listen_port,
                advertised,
            } => self.announce(id, name, listen_port, advertised, now),
        }
    }

    fn hello(&mut self, id: ConnectionId, name: NodeName, hello: Hello, now: Now) {
        let printable = !hello.software.chars().any(char::is_control);
        if hello.software.len() > MAX_SOFTWARE_LEN || !printable {
            self.close(id, Refusal::Protocol);
            return;
        }
        if let Some(old) = self.live_mut(&name).connection.replace(id) {
            self.close(old, Refusal::Superseded);
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let remote = session.remote;
        session.stage = Stage::Serving { name: name.clone() };
        let theirs = i64::try_from(hello.unix_ms).unwrap_or(i64::MAX);
        let skew = theirs.saturating_sub(now.wall.as_millisecond());
        let live = self.live_mut(&name);
        live.connection = Some(id);
        live.clock_skew_ms = Some(skew);
        live.software = Some(hello.software);
        tracing::info!(node = %name, skew_ms = skew, "node connected");
        tracing::debug!(node = %name, %remote, "node's address");
        self.welcome(id, &name, hello.newest, now);
        self.announce(id, &name, hello.listen_port, hello.advertised, now);
        self.touch();
    }

    fn leave(&mut self, name: &NodeName, id: ConnectionId) {
        let live = self.live_mut(name);
        if live.connection == Some(id) {
            live.connection = None;
            tracing::info!(node = %name, "node disconnected");
            self.touch();
        }
    }

    /// The node says where it can be reached.
    fn announce(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        listen_port: u16,
        mut advertised: Vec<SocketAddr>,
        now: Now,
    ) {
        if advertised.len() > MAX_ENDPOINTS {
            self.close(id, Refusal::Protocol);
            return;
        }
        advertised.retain(|e| e.port() != 0 && !e.ip().is_unspecified());
        self.live_mut(name).announced = (listen_port, advertised);
        self.relocate(id, name, now);
    }

    /// Works out where a node is: where it says, or else where it is seen.
    fn relocate(&mut self, id: ConnectionId, name: &NodeName, now: Now) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let ip = session.remote.ip();
        let live = self.live_mut(name);
        let (listen_port, advertised) = &live.announced;
        let mut endpoints = advertised.clone();
        if endpoints.is_empty() && *listen_port != 0 {
            endpoints.push(SocketAddr::new(ip, *listen_port));
        }
        if live.endpoints != endpoints {
            live.endpoints = endpoints;
            self.announce_place(name, now);
            self.touch();
        }
    }

    fn ack(&mut self, name: &NodeName, epoch: Epoch, phase: Phase) {
        let newest = self.authority.next().or_else(|| self.authority.in_force());
        let newest = newest.map_or(Epoch(0), |span| span.epoch);
        let live = self.live_mut(name);
        let news = match phase {
            // Says that all is well so far; the status shows what is in force.
            Phase::Installed => false,
            Phase::Activated | Phase::Dark => {
                epoch <= newest && live.acked.is_none_or(|(acked, _)| acked <= epoch)
            }
        };
        if news && live.acked != Some((epoch, phase)) {
            live.acked = Some((epoch, phase));
            self.touch();
        }
    }

    fn observe(&mut self, name: &NodeName, peers: &[PeerReport]) {
        let millis = |us: Option<u32>| us.map(|us| f64::from(us) / 1_000.0);
        let observes = peers
            .iter()
            .filter_map(|report| {
                let peer = self.fleet.name_of(&report.node)?.clone();
                let observation = Observation {
                    session_epoch: report.session_epoch.map(|epoch| epoch.0),
                    rtt_v4_ms: millis(report.rtt_v4_us),
                    rtt_v6_ms: millis(report.rtt_v6_us),
                };
                Some((peer, observation))
            })
            .collect();
        let live = self.live_mut(name);
        if live.observes != observes {
            live.observes = observes;
            self.touch();
        }
    }

    fn evidence(&mut self, id: ConnectionId, name: &NodeName, envelope: &[u8], now: Now) {
        let digest = payload_digest(envelope).unwrap_or_default();
        let result = self.accept_evidence(name, envelope, now);
        let counted = result.as_ref().err().map(EvidenceResult::from);
        let counted = counted.unwrap_or(EvidenceResult::Accepted);
        self.counts.evidence.count(counted);
        let refused = result.err().map(|error| {
            let mut reason = error.to_string();
            reason.truncate(reason.floor_char_boundary(MAX_REFUSAL_LEN));
            reason
        });
        let live = self.live_mut(name);
        if refused.is_some() && live.last_refusal != refused {
            let reason = refused.as_deref().unwrap_or_default();
            tracing::info!(node = %name, reason, "evidence refused");
        }
        live.last_refusal.clone_from(&refused);
        self.send(id, ToNode::EvidenceResult { digest, refused });
    }

    fn accept_evidence(
        &mut self,
        name: &NodeName,
        envelope: &[u8],
        now: Now,
    ) -> Result<(), NotAccepted> {
        let node = self.fleet.node(name).ok_or(NotAccepted::NotEnrolled)?;
        // Nothing that it says could bring it back: only an operator does.
        if node.evicted() {
            return Err(NotAccepted::Evicted);
        }
        let live = self.live.entry(name.clone()).or_insert_with(Live::new);
        if !live.evidence.take(now.boot) {
            return Err(NotAccepted::TooMuch);
        }
        let policy = &self.setup.policy;
        let attested = Attested::verify(envelope, &node.id, self.mesh, &policy.evaluators)?;
        let history = self.fleet.history(node, attested.benchmark());
        policy::accept(policy, &history, &attested, now.wall)?;

        let accepted = accepted(name, &attested, envelope);
        tracing::debug!(node = %name, score = accepted.overall, suite = accepted.suite, "evidence accepted");
        let event = Event::EvidenceAccepted(Box::new(accepted));
        // Accepted evidence is kept for ever: the log must not be one node's to fill.
        let kept = u32::try_from(event.columns().1.len() + EVENT_LEN).unwrap_or(u32::MAX);
        if !live.kept_bytes.has(kept, now.boot) {
            return Err(NotAccepted::TooMuchToday);
        }
        self.commit(&[event], now)
            .map_err(|_| NotAccepted::Unwritten)?;
        self.live_mut(name).kept_bytes.take_many(kept, now.boot);
        self.fleet.start_ageing(now);
        let joins = !self.fleet.roster().contains(name)
            && self
                .fleet
                .node(name)
                .is_some_and(|node| self.may_join(node, now));
        if joins {
            self.want_join(now);
        }
        Ok(())
    }
}

/// Why evidence does not enter a node's record, in words for its operator.
#[derive(Debug, thiserror::Error)]
enum NotAccepted {
    #[error("too much evidence at once: emit it less often")]
    TooMuch,
    #[error("over {MIB_A_DAY} MiB of evidence a day: emit it less often, or smaller")]
    TooMuchToday,
    #[error("this node is not enrolled")]
    NotEnrolled,
    #[error("this node is evicted: its evidence is not taken until it is readmitted")]
    Evicted,
    #[error(transparent)]
    Unverified(#[from] EvidenceError),
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
    #[error("the controller cannot write its log: try again later")]
    Unwritten,
}

impl From<&NotAccepted> for EvidenceResult {
    fn from(error: &NotAccepted) -> Self {
        match error {
            NotAccepted::TooMuch | NotAccepted::TooMuchToday => Self::TooMuch,
            NotAccepted::Evicted => Self::Evicted,
            NotAccepted::NotEnrolled => Self::NotEnrolled,
            NotAccepted::Unverified(error) => error.into(),
            NotAccepted::Unacceptable(error) => error.into(),
            NotAccepted::Unwritten => Self::Unwritten,
        }
    }
}

fn accepted(name: &NodeName, attested: &Attested, envelope: &[u8]) -> Accepted {
    let run = attested.benchmark();
    Accepted {
        name: name.clone(),
        digest: wire::Digest(attested.digest()),
        overall: run.overall,
        metrics: run.metrics.clone(),
        harness: run.harness.clone(),
        suite: run.suite.clone(),
        suite_version: run.suite_version.clone(),
        finished_at: run.finished_at,
        signer: attested.signer(),
        nonce: run.nonce.clone(),
        envelope: String::from_utf8_lossy(envelope).into_owned(),
    }
}

/// The bytes of the log that one node's evidence may take.
pub(crate) fn kept_bytes() -> Bucket {
    Bucket::new((MIB_A_DAY << 20) / DAY_SECONDS, KEPT_BURST)
}

/// Evidence of 45 kB every 30 s, or of a kilobyte every second, for ever.
const MIB_A_DAY: u32 = 256;
const DAY_SECONDS: u32 = 24 * 3_600;
const KEPT_BURST: u32 = 32 << 20;
/// The bytes that an event takes in the log beside its body: number, time, kind, hash, and the pages' share.
const EVENT_LEN: usize = 100;
const MAX_SOFTWARE_LEN: usize = 64;
const MAX_REFUSAL_LEN: usize = 256;
