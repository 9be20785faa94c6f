//! The shell around the [`Agent`]: one loop that awaits an [`Action`], hands it to the machine, and
//! carries the effects out. Everything else that awaits is in the tasks around it: control channel,
//! emitter, probe, admin socket, data threads. Decides nothing.

use crate::admin::{Answer, Request};
use crate::announcement::Announcement;
use crate::data::{DataCommand, DataPlane, Snapshot};
use crate::guard::News;
use crate::heard::Heard;
use crate::io::{addresses, clock};
use crate::keepalive::Watch;
use crate::persist::{Enrolment, Keeper, Newest};
use crate::segment::Segment;
use crate::session::{Session, Shown};
use crate::{ServeError, admin, emitter, export, metrics, status};
use agent::{Agent, Effect, Emission, Evidence, Now, PathLimit, Round, SessionEvent};
use epoch::Derived;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use wire::admin::{LogStatus, Status, WgExport};
use wire::{NodeName, Place, ToController};

/// The parts that the shell owns.
pub(crate) struct Shell {
    pub(crate) agent: Agent,
    pub(crate) enrolment: Enrolment,
    pub(crate) keeper: Keeper,
    pub(crate) data: DataPlane,
    /// The segment that this node is in.
    pub(crate) segment: Segment,
    /// Taken by those that run the shell, to be stopped after it.
    pub(crate) emitter: emitter::Running,
    /// Whether the benchmark works.
    pub(crate) benchmark: watch::Receiver<emitter::Health>,
    /// The way to the controller, while there is one; dropped, it ends the connection, and another one is
    /// made.
    pub(crate) outbox: Option<mpsc::Sender<ToController>>,
    /// When the controller was last heard.
    pub(crate) heard: Heard,
    /// Whether to look at the underlay when the effects are carried out.
    pub(crate) underlay_changed: bool,
    pub(crate) keepalive: Watch,
    /// Where peers may reach this machine.
    pub(crate) announcement: Announcement,
    /// Changes the mean of a mock emitter, if that is what runs.
    pub(crate) mock_mean: Option<watch::Sender<Option<f64>>>,
    /// The memory that the next connection shows.
    pub(crate) announced: watch::Sender<Shown>,
    /// Threads on which the PSKs of large epochs are derived. At most one of them has work that is wanted.
    pub(crate) derivations: JoinSet<Option<Derived>>,
}

/// The channels that the shell listens to.
pub(crate) struct Inputs {
    pub(crate) session: mpsc::Receiver<Session>,
    pub(crate) emissions: mpsc::Receiver<Emission>,
    pub(crate) rounds: mpsc::Receiver<Round>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) underlay: mpsc::Receiver<()>,
    pub(crate) guard: mpsc::Receiver<News>,
}

enum Action {
    Session(Box<Session>),
    Emission(Emission),
    Round(Round),
    Derived(Derived),
    Request(Request),
    Underlay,
    Guard(News),
    Timeout,
    DataFailed(io::Error),
    Stop,
}

impl Shell {
    /// Runs until `shutdown` resolves, the data plane fails or the interface is lost.
    pub(crate) async fn run(
        mut self,
        mut inputs: Inputs,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        tokio::pin!(shutdown);
        loop {
            let action = tokio::select! {
                () = &mut shutdown => Action::Stop,
                error = self.data.failed() => Action::DataFailed(error),
                Some(Ok(Some(derived))) = self.derivations.join_next() => Action::Derived(derived),
                Some(event) = inputs.session.recv() => Action::Session(Box::new(event)),
                () = clock::until(self.agent.poll_timeout(), clock::LONGEST_WAIT) => Action::Timeout,
                Some(request) = inputs.requests.recv() => Action::Request(request),
                Some(emission) = inputs.emissions.recv() => Action::Emission(emission),
                Some(round) = inputs.rounds.recv() => Action::Round(round),
                Some(()) = inputs.underlay.recv() => Action::Underlay,
                Some(news) = inputs.guard.recv() => Action::Guard(news),
            };
            // Before any timer and any message is believed. A reading that took long says nothing.
            if let Some(now) = clock::both() {
                self.agent.handle_clocks(now);
                self.carry_out();
            }
            let now = clock::now();
            match action {
                Action::Stop => {
                    self.segment.leave(&self.data).await;
                    self.data.stop().await;
                    self.keeper.stop(KEEP_TIME);
                    return Ok(());
                }
                Action::DataFailed(error) => {
                    self.keeper.stop(KEEP_TIME);
                    return Err(ServeError::Data(error));
                }
                Action::Guard(News::Lost(error)) => {
                    self.keeper.stop(KEEP_TIME);
                    return Err(ServeError::Lost(error));
                }
                Action::Guard(News::Ways(ways)) => self.agent.handle_ways(ways),
                Action::Session(session) => self.session(*session, now),
                Action::Derived(derived) => self.agent.handle_derived(derived, now),
                Action::Timeout => self.agent.handle_timeout(now),
                Action::Request(request) => self.request(request).await,
                Action::Emission(emission) => self.agent.handle_evidence(emission, now),
                Action::Round(round) => self.round(round, now).await,
                Action::Underlay => self.underlay_changed = true,
            }
            self.carry_out();
            if std::mem::take(&mut self.underlay_changed) {
                self.follow_underlay().await;
            }
        }
    }

    fn session(&mut self, session: Session, now: Now) {
        let event = match session {
            Session::Up {
                event,
                mapped,
                addresses,
                outbox,
                pulse,
            } => {
                self.outbox = Some(outbox);
                self.agent.handle_addresses(addresses.clone());
                self.announcement.handle_said(addresses);
                self.heard.connected(pulse);
                self.seen(mapped);
                event
            }
            Session::Seen { mapped } => return self.seen(mapped),
            Session::Heard(event) => event,
        };
        match event {
            SessionEvent::Down { .. } | SessionEvent::Duplicate { .. } => {
                self.outbox = None;
                self.heard.disconnected(now.boot);
            }
            SessionEvent::Up { .. } | SessionEvent::Message(_) => {}
        }
        self.agent.handle_session(event, now);
    }

    fn seen(&mut self, mapped: Option<SocketAddr>) {
        self.keepalive.handle_seen(mapped);
        let every = self.keepalive.every();
        self.data.send(DataCommand::Keepalive(every));
    }

    async fn round(&mut self, round: Round, now: Now) {
        let snapshot = self.segment.snapshot(&self.data).await;
        let peers = snapshot.as_ref().map_or(&[][..], |s| &s.peers);
        let condition = self.segment.guard.condition();
        self.agent.handle_interface(condition.report());
        let full = self.segment.underlay.mtu();
        self.agent.handle_round(round, peers, full, now);
        self.carry_out();
        // An MTU that is news to the interface is tried when the interface has followed.
        if !self.underlay_changed {
            self.place_targets(snapshot.as_ref());
            self.segment.underlay.hold(&self.path_limits(), false).await;
        }
    }

    /// Carries out what the machine asks for, in its order.
    fn carry_out(&mut self) {
        while let Some(effect) = self.agent.poll_effect() {
            match effect {
                Effect::Data(change) => self.segment.change(&self.data, change),
                Effect::Derive(derivation) => {
                    self.derivations.spawn_blocking(|| derivation.run());
                }
                Effect::Send(message) => self.send(message),
                Effect::HangUp => self.outbox = None,
                Effect::Witnessed(end) => self.announced.send_modify(|it| it.log = Some(end)),
                Effect::Holds(held) => self.announced.send_modify(|it| it.holds = held),
                Effect::Told(told) => self.announced.send_modify(|it| it.told = told),
                Effect::Remember {
                    high_water,
                    mark,
                    log,
                } => {
                    self.announced.send_modify(|it| it.newest.clone_from(&mark));
                    self.keeper.keep(Newest {
                        epoch: high_water.epoch,
                        digest: high_water.digest,
                        mark,
                        log,
                    });
                }
                Effect::RememberRuns(runs) => self.keeper.keep_runs(runs),
                Effect::Move(place) => self.moved(&place),
                Effect::Trust(authorities) => {
                    self.enrolment.authorities = authorities;
                    self.keeper.keep_enrolment(self.enrolment.clone());
                }
                Effect::LookAtUnderlay => self.underlay_changed = true,
            }
        }
    }

    fn send(&mut self, message: ToController) {
        let room = self.outbox.as_ref().and_then(|it| it.try_reserve().ok());
        let Some(room) = room else {
            return self.agent.handle_unsent(&message);
        };
        if let (ToController::Evidence { .. }, Some(evidence)) = (&message, self.agent.evidence()) {
            let Evidence {
                overall,
                suite,
                suite_version,
                ..
            } = evidence;
            tracing::info!(%suite, %suite_version, overall, "SUBMITTED");
        }
        room.send(message);
    }

    fn moved(&self, place: &Place) {
        self.keeper.keep_place(self.enrolment.moved_to(place));
    }

    // ---- the underlay -----------------------------------------------------------------------

    /// Tells the controller of another address of this machine, or of one that is gone.
    async fn announce(&mut self) {
        let agent::Control::Up { remote, .. } = self.agent.control() else {
            return;
        };
        let inside = agent::inside(self.agent.place());
        let inside = |address: IpAddr| inside.contains(address);
        let found = addresses::usable(remote.ip(), inside).await;
        self.agent.handle_addresses(found.clone());
        let listen_port = self.segment.underlay.listen_port();
        let news = self.announcement.handle_found(found, listen_port);
        if let (Some(message), Some(outbox)) = (news, &self.outbox) {
            // A message that finds no room is said with the next look.
            let room = outbox.try_reserve().map(|room| room.send(message));
            self.announcement.handle_sent(room.is_ok());
        }
    }

    async fn follow_underlay(&mut self) {
        self.announce().await;
        let snapshot = self.segment.snapshot(&self.data).await;
        let peers = snapshot.as_ref().map_or(&[][..], |s| &s.peers);
        let endpoints = peers.iter().filter_map(|peer| peer.endpoint?.udp());
        let moved = self.segment.underlay.moved(endpoints);
        if !moved.is_empty() {
            self.data.send(DataCommand::Moved(moved));
        }
        let destinations = self.agent.destinations(peers);
        let limits = self.path_limits();
        if let Some(mtu) = self.segment.underlay.follow(destinations, &limits).await {
            self.segment.change_mtu(&self.data, mtu);
        }
        self.place_targets(snapshot.as_ref());
        // Only now every peer has a path, if it is one of which nothing is known.
        self.segment.underlay.hold(&self.path_limits(), true).await;
    }

    /// The paths to the peers, where they are tried; none without probes.
    fn path_limits(&self) -> Vec<PathLimit> {
        if self.segment.targets.is_closed() {
            Vec::new()
        } else {
            self.agent.path_limits(self.segment.underlay.mtu())
        }
    }

    /// Says whom to probe, and with which sizes.
    fn place_targets(&mut self, snapshot: Option<&Snapshot>) {
        let peers = snapshot.map_or(&[][..], |s| &s.peers);
        let targets = self.agent.targets(peers, self.segment.underlay.mtu());
        self.segment.targets.send_if_modified(|before| {
            let changed = *before != targets;
            *before = targets;
            changed
        });
    }

    // ---- clients ----------------------------------------------------------------------------

    /// Answers a client; one that has gone is not waited for.
    async fn request(&mut self, request: Request) {
        match request {
            Request::Status(answer) => {
                let snapshot = self.segment.snapshot(&self.data).await;
                // Without a data plane: interface and peers that are gone would be a lie.
                let snapshot = snapshot.ok_or_else(admin::no_data_plane);
                let status = snapshot.map(|snapshot| {
                    let now = clock::now();
                    let mut status = status::of(
                        &self.agent,
                        &self.segment.wg.public(),
                        (&self.segment.underlay, &self.segment.guard.condition()),
                        &self.path_limits(),
                        self.heard.silence(now.boot),
                        &snapshot,
                        now,
                    );
                    status.keepalive = self.keepalive.every().map(|it| it.as_secs());
                    status.mapped = self.keepalive.mapped();
                    status.benchmark = status::benchmark(&self.benchmark.borrow());
                    Status::Node(Box::new(status))
                });
                let _ = answer.send(status);
            }
            Request::Score(mean, answer) => {
                let _ = answer.send(self.set_mean(mean));
            }
            Request::Log(answer) => {
                let cosigned = self.agent.cosigned(clock::now());
                let log = cosigned.map(|it| LogStatus {
                    // The first line of a checkpoint is the log's name.
                    origin: it.note.split('\n').next().unwrap_or_default().to_owned(),
                    verifier: it.log,
                    checkpoint: it.note,
                    size: self.agent.log().map_or(0, |end| end.events),
                    snapshot: 0,
                    witness: Some(it.witness),
                });
                let _ = answer.send(log.ok_or_else(admin::no_log));
            }
            Request::Export(peer, answer) => {
                let _ = answer.send(self.export(&peer).await);
            }
            Request::Metrics(answer) => {
                // Without a data plane: counters that went back to zero would be a lie.
                let snapshot = self
                    .segment
                    .snapshot(&self.data)
                    .await
                    .ok_or_else(admin::no_data_plane);
                let condition = self.segment.guard.condition();
                let boot = clock::boot();
                let silence = self.heard.silence(boot);
                let benchmark = self.benchmark.borrow().clone();
                let page = |data: Snapshot| {
                    let seen = (&condition, &benchmark);
                    metrics::page(&self.agent, &data, seen, silence, boot)
                };
                let _ = answer.send(snapshot.map(page));
            }
        }
    }

    fn set_mean(&self, mean: f64) -> Answer<()> {
        let sender = self.mock_mean.as_ref().ok_or_else(admin::no_mock)?;
        if !(0.0..=1.0).contains(&mean) {
            return Err(admin::no_score(mean));
        }
        tracing::info!(mean, "mock score changed by the operator");
        sender.send_replace(Some(mean));
        Ok(())
    }

    async fn export(&self, peer: &NodeName) -> Answer<WgExport> {
        let update = self.agent.view().update;
        let named = update.and_then(|update| update.roster.iter().find(|it| it.name == *peer));
        let member = named.ok_or_else(|| admin::no_member(peer))?;
        let psk = self.segment.export_psk(&self.data, member.wg).await;
        let (epoch, psk) = psk.ok_or_else(|| admin::no_tunnel(peer))?;
        let snapshot = self.segment.snapshot(&self.data).await;
        let seen = snapshot.and_then(|it| it.peers.into_iter().find(|it| it.key == member.wg));
        tracing::warn!(%peer, %epoch, "WireGuard secrets exported by the operator");
        let own = export::Own {
            place: self.agent.place(),
            secret: &self.segment.wg,
            listen_port: self.segment.underlay.listen_port(),
            mtu: self.segment.underlay.mtu(),
        };
        let endpoint = seen.and_then(|seen| seen.endpoint?.udp());
        Ok(WgExport {
            epoch: epoch.0,
            config: export::config(&own, member, epoch, &psk, endpoint),
        })
    }
}

/// For the disk to take the newest epoch at the end.
const KEEP_TIME: Duration = Duration::from_millis(400);
