//! The shell around the [`Agent`]: one loop that awaits an [`Action`], hands it to the machine, and
//! carries the effects out. Everything else that awaits is in the tasks around it: control channel,
//! emitter, probe, admin socket, data threads. Decides nothing.
//!
//! The file is long because every effect of the machine is carried out here.

use crate::admin::{Answer, Request};
use crate::announcement::Announcement;
use crate::attention;
use crate::data::{DataCommand, DataPlane, Snapshot};
use crate::guard::News;
use crate::heard::Heard;
use crate::io::{addresses, clock, networks};
use crate::keepalive::Watch;
use crate::naming::Naming;
use crate::networks::Networks;
use crate::opening::{Opening, Outcome, interface_name};
use crate::persist::{EnrolledSegment, Enrolment, Keeper, Memory, Newest};
use crate::segment::{Common, Segment};
use crate::session::{Session, Shown};
use crate::{ServeError, admin, emitter, export, metrics, status};
use agent::{
    Agent, Effect, Emission, Evidence, Now, PathLimit, Round, SegmentConfig, SessionEvent,
};
use epoch::Derived;
use futures_util::future::join_all;
use keys::{SegmentId, WgSecret};
use service::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::admin::{LogStatus, Status, WgExport};
use wire::message::{MAX_NODE_FAULT_LEN, NodeFault, NodeFaultKind};
use wire::{NodeName, Place, SegmentName, ToController};

/// The parts that the shell owns.
pub(crate) struct Shell {
    pub(crate) agent: Agent,
    pub(crate) enrolment: Enrolment,
    pub(crate) keeper: Keeper,
    pub(crate) data: DataPlane,
    /// The segments that this node is in.
    pub(crate) segments: BTreeMap<SegmentId, Segment>,
    /// The means that they are run with.
    pub(crate) common: Common,
    /// Opens those that it joins.
    pub(crate) opening: Opening,
    /// How many it is opening now.
    pub(crate) being_opened: usize,
    /// The keys in segments that the node did not enrol in first.
    pub(crate) keys: BTreeMap<SegmentName, WgSecret>,
    /// The newest epochs, those of before this start among them.
    pub(crate) memory: Memory,
    /// The name of the first interface, as configured.
    pub(crate) interface: String,
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
    /// Whether to look at the networks behind nodes then.
    pub(crate) networks_changed: bool,
    /// The segments in which the controller has heard in this session of the networks behind this node.
    pub(crate) offered: BTreeSet<SegmentId>,
    /// Why what is to be remembered was not written, if it was not.
    pub(crate) unwritten: watch::Receiver<Option<String>>,
    /// All that the controller has heard in this session of what is wrong here.
    pub(crate) said: Vec<NodeFault>,
    /// Where controllers are, by the configuration and by the connections so far.
    pub(crate) controllers: BTreeSet<IpAddr>,
    pub(crate) keepalive: Watch,
    /// Where peers may reach this machine.
    pub(crate) announcement: Announcement,
    /// Changes the mean of a mock emitter, if that is what runs.
    pub(crate) mock_mean: Option<watch::Sender<Option<f64>>>,
    /// The names that resolve on this machine.
    pub(crate) naming: Naming,
    /// The memory that the next connection shows.
    pub(crate) announced: watch::Sender<Shown>,
    /// Threads on which the PSKs of large epochs are derived. At most one of them has work that is wanted.
    pub(crate) derivations: JoinSet<Option<(SegmentId, Derived)>>,
    pub(crate) service: Service,
    /// When it is time to tell the service manager how this node stands.
    pub(crate) told_at: Duration,
}

/// The channels that the shell listens to.
pub(crate) struct Inputs {
    pub(crate) session: mpsc::Receiver<Session>,
    pub(crate) emissions: mpsc::Receiver<Emission>,
    pub(crate) rounds: mpsc::Receiver<(SegmentId, Round)>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) underlay: mpsc::Receiver<()>,
    pub(crate) guard: mpsc::Receiver<(SegmentId, News)>,
    pub(crate) opened: mpsc::UnboundedReceiver<Outcome>,
}

enum Action {
    Session(Box<Session>),
    Emission(Emission),
    Round(SegmentId, Round),
    Derived(SegmentId, Derived),
    Request(Request),
    Underlay,
    Condition,
    Guard(SegmentId, News),
    Opened(Outcome),
    Timeout,
    DataFailed(io::Error),
    Stop,
}

impl Shell {
    /// Runs until `shutdown` resolves, the data plane fails or an interface is lost.
    pub(crate) async fn run(
        mut self,
        mut inputs: Inputs,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        tokio::pin!(shutdown);
        loop {
            self.service.turned();
            let action = tokio::select! {
                () = &mut shutdown => Action::Stop,
                error = self.data.failed() => Action::DataFailed(error),
                Some(Ok(Some((segment, derived)))) = self.derivations.join_next() => Action::Derived(segment, derived),
                Some(event) = inputs.session.recv() => Action::Session(Box::new(event)),
                () = clock::until(self.agent.poll_timeout(), clock::LONGEST_WAIT) => Action::Timeout,
                Some(request) = inputs.requests.recv() => Action::Request(request),
                Some(emission) = inputs.emissions.recv() => Action::Emission(emission),
                Some((segment, round)) = inputs.rounds.recv() => Action::Round(segment, round),
                Some(()) = inputs.underlay.recv() => Action::Underlay,
                Ok(()) = self.benchmark.changed() => Action::Condition,
                Ok(()) = self.unwritten.changed() => Action::Condition,
                Some((segment, news)) = inputs.guard.recv() => Action::Guard(segment, news),
                Some(outcome) = inputs.opened.recv() => Action::Opened(outcome),
            };
            // Before any timer and any message is believed. A reading that took long says nothing.
            if let Some(now) = clock::both() {
                self.agent.handle_clocks(now);
                self.carry_out();
            }
            let now = clock::now();
            match action {
                Action::Stop => {
                    self.stop(inputs.opened).await;
                    return Ok(());
                }
                Action::DataFailed(error) => {
                    self.keeper.stop(KEEP_TIME);
                    return Err(ServeError::Data(error));
                }
                // The interface of a segment that was left is gone as it should be.
                Action::Guard(segment, News::Lost(_)) if !self.segments.contains_key(&segment) => {}
                Action::Guard(_, News::Lost(error)) => {
                    self.keeper.stop(KEEP_TIME);
                    return Err(ServeError::Lost(error));
                }
                Action::Guard(segment, News::Ways(ways)) => self.agent.handle_ways(segment, ways),
                Action::Session(session) => self.session(*session, now),
                Action::Derived(segment, derived) => {
                    self.agent.handle_derived(segment, derived, now);
                }
                Action::Opened(outcome) => self.opened(outcome, now),
                Action::Timeout => self.agent.handle_timeout(now),
                Action::Request(request) => self.request(request).await,
                Action::Emission(emission) => self.agent.handle_evidence(emission, now),
                Action::Round(segment, round) => self.round(segment, round, now).await,
                Action::Underlay => self.underlay_changed = true,
                // Said below.
                Action::Condition => {}
            }
            self.carry_out();
            self.tell_standing(now);
            self.say_condition();
            if std::mem::take(&mut self.underlay_changed) {
                self.networks_changed = true;
                self.follow_underlay().await;
            }
            if std::mem::take(&mut self.networks_changed) {
                self.offer_networks();
                self.follow_networks().await;
            }
        }
    }

    /// At most once a second.
    fn tell_standing(&mut self, now: Now) {
        if now.boot < self.told_at {
            return;
        }
        self.told_at = now.boot + STANDING;
        let of_segment = |seen: agent::InSegment<'_>| {
            let name = seen.place().segment_name.told();
            let name = name.map_or_else(String::new, |name| format!("{name}: "));
            let epoch = seen.view().update.map(|update| update.epoch.0);
            let epoch =
                epoch.map_or_else(|| "no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
            let member = match seen.is_member() {
                Some(true) => ", member",
                Some(false) => ", not a member",
                None => "",
            };
            format!("{name}{epoch}{member}")
        };
        let each: Vec<String> = self.agent.segments().map(of_segment).collect();
        let control = if self.agent.control().is_up() {
            "controller connected"
        } else {
            "controller not connected"
        };
        self.service
            .standing(format!("{}; {control}", each.join("; ")));
    }

    /// The segments first: nothing of them passes any more when the rules that guard them go.
    async fn stop(mut self, mut opened: mpsc::UnboundedReceiver<Outcome>) {
        let all = std::mem::take(&mut self.segments).into_values();
        let walls = join_all(all.map(|segment| segment.leave(&self.data))).await;
        drop(self.opening);
        while self.being_opened > 0 {
            let Ok(Some(outcome)) = timeout(OPENING_TIME, opened.recv()).await else {
                break;
            };
            self.being_opened -= usize::from(!matches!(outcome, Outcome::Key(..)));
            if let Outcome::Opened(opened) = outcome {
                opened.undo(&self.data.opener()).await;
            }
        }
        self.naming.stop(NAMES_TIME).await;
        self.data.stop().await;
        self.keeper.stop(KEEP_TIME);
        // Each may wait for nft.
        std::thread::scope(|scope| {
            for wall in walls {
                scope.spawn(|| wall.stop());
            }
        });
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
                if let SessionEvent::Up { remote, .. } = &event {
                    self.controllers.insert(remote.ip().to_canonical());
                }
                self.offered.clear();
                self.said.clear();
                self.networks_changed = true;
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

    async fn round(&mut self, id: SegmentId, round: Round, now: Now) {
        let Some(segment) = self.segments.get(&id) else {
            return;
        };
        let snapshot = segment.snapshot(&self.data).await;
        let peers = snapshot.as_ref().map_or(&[][..], |s| &s.peers);
        let condition = segment.guard.condition();
        let report = condition.report(&segment.underlay.interface().name);
        self.agent.handle_interface(id, report);
        let full = segment.underlay.mtu();
        // A peer may have moved into a network that is routed.
        self.networks_changed = true;
        self.agent.handle_round(id, round, peers, full, now);
        self.carry_out();
        // An MTU that is news to the interface is tried when the interface has followed.
        if !self.underlay_changed {
            self.place_targets(id, snapshot.as_ref());
            let limits = self.path_limits(id);
            if let Some(segment) = self.segments.get_mut(&id) {
                segment.underlay.hold(&limits, false).await;
            }
        }
    }

    /// Carries out what the machine asks for, in its order.
    fn carry_out(&mut self) {
        while let Some(effect) = self.agent.poll_effect() {
            match effect {
                Effect::Data(id, change) => {
                    self.networks_changed = true;
                    if let Some(segment) = self.segments.get(&id) {
                        segment.change(&self.data, change);
                    }
                }
                Effect::Derive(segment, derivation) => {
                    let derive = move || Some((segment, derivation.run()?));
                    self.derivations.spawn_blocking(derive);
                }
                Effect::Send(message) => self.send(message),
                Effect::HangUp => self.outbox = None,
                Effect::Witnessed(end) => self.announced.send_modify(|it| it.log = Some(end)),
                Effect::Holds(held) => self.announced.send_modify(|it| it.holds = held),
                Effect::Told(told) => self.announced.send_modify(|it| it.told = told),
                Effect::Remember {
                    segment,
                    high_water,
                    mark,
                    log,
                } => {
                    let marks = self.agent.marks();
                    self.announced.send_modify(|it| it.newest = marks);
                    let newest = Newest {
                        epoch: high_water.epoch,
                        digest: high_water.digest,
                        mark,
                    };
                    // A segment that is left and joined again goes on from there.
                    let mesh = self.enrolment.mesh;
                    self.memory.keep(mesh, segment, newest.clone(), log);
                    self.keeper.keep(segment, newest, log);
                }
                Effect::RememberRuns(runs) => self.keeper.keep_runs(runs),
                Effect::Move(place) => self.moved(&place),
                Effect::Placed(place) => self.placed(place, clock::now()),
                Effect::Left(segment) => self.left(segment),
                Effect::Invited(segment) => self.opening.want_key(segment),
                Effect::Trust(authorities) => {
                    self.enrolment.authorities = authorities;
                    self.keeper.keep_enrolment(self.enrolment.clone());
                }
                Effect::LookAtUnderlay => self.underlay_changed = true,
            }
        }
        // With the tunnels, and before anything is awaited.
        self.follow_names();
    }

    /// Names of exactly those resolve who are peers now. The names of the segment that the node enrolled in first are
    /// the short ones.
    pub(crate) fn follow_names(&mut self) {
        let mut enrolled = self.enrolment.segments.iter();
        let home = enrolled.find(|it| !it.by_name).map(|it| it.segment);
        let segment = home.and_then(|home| self.segments.get(&home));
        let segment = segment.or_else(|| self.segments.values().next());
        let interface = segment.map(|it| it.underlay.interface().name.as_str());
        self.naming.follow(&self.agent, home, interface);
    }

    // ---- segments ---------------------------------------------------------------------------

    /// The node has a place in one more segment: opens it, in its own time.
    fn placed(&mut self, place: Place, now: Now) {
        let name = &place.segment_name;
        let Some(wg) = self.keys.get(name).map(WgSecret::duplicate) else {
            // It is asked for with a key of now.
            self.opening.want_key(name.clone());
            let why = "its key is not there yet".to_owned();
            return self.agent.handle_no_segment(place, why, now);
        };
        let interface = interface_name(&self.interface, name, place.segment);
        let beside = self.segments.values().map(Segment::beside).collect();
        self.being_opened += 1;
        self.opening.want(place, wg, interface, beside);
    }

    fn opened(&mut self, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::Key(name, Ok(wg)) => {
                let public = wg.public();
                self.keys.insert(name.clone(), wg);
                self.agent.handle_ask(name, public);
            }
            Outcome::Key(segment, Err(error)) => {
                tracing::error!(%segment, %error, "no key for a segment that an operator lets this node into");
            }
            Outcome::Failed(place, error) => {
                self.being_opened -= 1;
                tracing::error!(segment = %place.segment_name, %error, "a segment cannot be opened; trying on");
                self.agent.handle_no_segment(*place, error, now);
            }
            Outcome::Opened(opened) => {
                self.being_opened -= 1;
                let (place, wg) = (opened.place.clone(), opened.wg.duplicate());
                let (id, mesh) = (place.segment, self.enrolment.mesh);
                let config = SegmentConfig {
                    place: place.clone(),
                    wg: wg.duplicate(),
                    high_water: self.memory.high_water(mesh, id),
                    mark: self.memory.of(mesh, id).and_then(|it| it.mark.clone()),
                };
                if !self.agent.handle_segment(config, now) {
                    // It was left meanwhile.
                    let opener = self.data.opener();
                    tokio::spawn(async move { opened.undo(&opener).await });
                    return;
                }
                let segment = Segment::run(*opened, &self.data, &self.common);
                self.segments.insert(id, segment);
                self.keep_apart();
                let every = self.keepalive.every();
                self.data.send(DataCommand::Keepalive(every));
                let enrolled = EnrolledSegment::new(&place, wg.public(), true);
                self.enrolment.segments.retain(|it| it.segment != id);
                self.enrolment.segments.push(enrolled);
                self.keeper.keep_enrolment(self.enrolment.clone());
                self.underlay_changed = true;
            }
        }
    }

    fn left(&mut self, id: SegmentId) {
        self.enrolment.segments.retain(|it| it.segment != id);
        self.keeper.keep_enrolment(self.enrolment.clone());
        let Some(segment) = self.segments.remove(&id) else {
            return;
        };
        self.keep_apart();
        let closed = segment.leave(&self.data);
        tokio::spawn(async move {
            let wall = closed.await;
            // It waits for nft.
            tokio::task::spawn_blocking(|| wall.stop());
        });
    }

    /// Nothing goes from one segment of this node to another.
    pub(crate) fn keep_apart(&self) {
        let all = &self.segments;
        let inside = agent::inside_all(all.values().map(|it| &it.place));
        self.announced.send_modify(|it| it.inside = inside);
        for (id, segment) in all {
            let others = all.iter().filter(|(other, _)| *other != id);
            segment.keep_apart_from(others.map(|(_, other)| other.beside()).collect());
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

    fn moved(&mut self, place: &Place) {
        self.enrolment = self.enrolment.moved_to(place);
        self.keeper.keep_place(self.enrolment.clone());
    }

    // ---- the underlay -----------------------------------------------------------------------

    /// Tells the controller of another address of this machine, or of one that is gone.
    async fn announce(&mut self) {
        let agent::Control::Up { remote, .. } = self.agent.control() else {
            return;
        };
        let own = self.agent.inside().clone();
        let inside = |address: IpAddr| own.contains(address);
        let found = addresses::usable(remote.ip(), inside).await;
        self.agent.handle_addresses(found.clone());
        let listen_port = self.common.listen_port;
        let news = self.announcement.handle_found(found, listen_port);
        if let (Some(message), Some(outbox)) = (news, &self.outbox) {
            // A message that finds no room is said with the next look.
            let room = outbox.try_reserve().map(|room| room.send(message));
            self.announcement.handle_sent(room.is_ok());
        }
    }

    async fn follow_underlay(&mut self) {
        self.announce().await;
        let ids: Vec<SegmentId> = self.segments.keys().copied().collect();
        for id in ids {
            self.follow_underlay_of(id).await;
        }
    }

    async fn follow_underlay_of(&mut self, id: SegmentId) {
        let limits = self.path_limits(id);
        let Some(segment) = self.segments.get_mut(&id) else {
            return;
        };
        let snapshot = segment.snapshot(&self.data).await;
        let peers = snapshot.as_ref().map_or(&[][..], |s| &s.peers);
        let endpoints = peers.iter().filter_map(|peer| peer.endpoint?.udp());
        let moved = segment.underlay.moved(endpoints);
        if !moved.is_empty() {
            self.data.send(DataCommand::Moved(moved));
        }
        if let Some(in_segment) = self.agent.segment(id) {
            let destinations = in_segment.destinations(peers);
            if let Some(mtu) = segment.underlay.follow(destinations, &limits).await {
                segment.change_mtu(&self.data, mtu);
            }
        }
        self.place_targets(id, snapshot.as_ref());
        // Only now every peer has a path, if it is one of which nothing is known.
        let limits = self.path_limits(id);
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.underlay.hold(&limits, true).await;
        }
    }

    // ---- what is wrong with the node --------------------------------------------------------

    /// Tells the controller what is wrong here, when that is news in this session.
    fn say_condition(&mut self) {
        let is_up = self.agent.control().is_up();
        let Some(outbox) = self.outbox.as_ref().filter(|_| is_up) else {
            return;
        };
        let faults = self.faults();
        if faults == self.said {
            return;
        }
        let message = ToController::Condition {
            faults: faults.clone(),
        };
        // One that finds no room is said with the next look.
        if outbox.try_reserve().map(|room| room.send(message)).is_ok() {
            self.said = faults;
        }
    }

    /// All that is wrong with the node besides its interfaces.
    fn faults(&self) -> Vec<NodeFault> {
        let benchmark = self.benchmark.borrow();
        let benchmark = benchmark.failing.as_ref().map(|it| {
            let what = format!(
                "its benchmark gives no results since {:.0}: {}",
                it.since, it.cause
            );
            fault(NodeFaultKind::Benchmark, &what, MEND_BENCHMARK)
        });
        let unwritten = self.unwritten.borrow();
        let unwritten = unwritten.as_ref().map(|it| {
            let what = format!("what it has to remember is not written: {it}");
            fault(NodeFaultKind::State, &what, MEND_STATE)
        });
        benchmark.into_iter().chain(unwritten).collect()
    }

    // ---- networks behind nodes --------------------------------------------------------------

    /// Tells the controller once in a session, for each segment, of the networks behind this node.
    fn offer_networks(&mut self) {
        let Some(outbox) = self
            .outbox
            .as_ref()
            .filter(|_| self.agent.control().is_up())
        else {
            return;
        };
        let terms = &self.common.terms;
        for seen in self.agent.segments() {
            let segment = seen.id();
            if self.offered.contains(&segment) || !terms.is_news(seen) {
                continue;
            }
            let offer = ToController::Advertise {
                segment,
                prefixes: terms.offers.clone(),
            };
            // An offer that finds no room is said with the next look.
            let room = outbox.try_reserve().map(|room| room.send(offer));
            if room.is_ok() {
                self.offered.insert(segment);
            }
        }
    }

    /// Has packets of this machine go to the networks behind peers that are in force, and to no others.
    async fn follow_networks(&mut self) {
        let terms = &self.common.terms;
        let behind = |id: &SegmentId| {
            let seen = self.agent.segment(*id);
            seen.map_or_else(Vec::new, |it| terms.behind_peers(it))
        };
        let all: Vec<_> = self
            .segments
            .iter()
            .map(|(id, it)| (it, behind(id)))
            .collect();
        let mut underlay = BTreeSet::new();
        if all.iter().any(|(_, behind)| !behind.is_empty()) {
            underlay.clone_from(&self.controllers);
            for segment in self.segments.values() {
                let snapshot = segment.snapshot(&self.data).await;
                // Not all the places where they are said to be: a router has an address in its own network.
                let peers = snapshot.iter().flat_map(|it| &it.peers);
                let endpoints = peers.filter_map(|peer| peer.endpoint?.udp());
                underlay.extend(endpoints.map(|it| it.ip().to_canonical()));
            }
        }
        for (segment, behind_peers) in all {
            segment.guard.route(Networks {
                behind_peers,
                underlay: underlay.clone(),
            });
        }
    }

    /// The paths to the peers in a segment, where they are tried; none without probes.
    fn path_limits(&self, id: SegmentId) -> Vec<PathLimit> {
        let segment = self.segments.get(&id).zip(self.agent.segment(id));
        match segment {
            Some((segment, seen)) if !segment.targets.is_closed() => {
                seen.path_limits(segment.underlay.mtu())
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Says whom to probe in a segment, and with which sizes.
    fn place_targets(&mut self, id: SegmentId, snapshot: Option<&Snapshot>) {
        let Some(segment) = self.segments.get(&id) else {
            return;
        };
        let peers = snapshot.map_or(&[][..], |s| &s.peers);
        let targets = self.agent.targets(id, peers, segment.underlay.mtu());
        segment.targets.send_if_modified(|before| {
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
                let _ = answer.send(self.status().await.map(|it| Status::Node(Box::new(it))));
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
            Request::Hosts(answer) => {
                let _ = answer.send(Ok(self.naming.lines()));
            }
            Request::Export((peer, segment), answer) => {
                let of = (&peer, segment.as_ref());
                let _ = answer.send(self.export(of).await);
            }
            Request::Metrics(answer) => {
                let _ = answer.send(self.metrics().await);
            }
            Request::WireGuard(segment, answer) => {
                let _ = answer.send(self.device(segment).await);
            }
        }
    }

    /// Every segment as observed, in the order of their numbers.
    async fn observe(&self) -> Answer<Vec<(&Segment, Snapshot)>> {
        let mut all = Vec::with_capacity(self.segments.len());
        for segment in self.segments.values() {
            // Without a data plane: interface and peers that are gone would be a lie.
            let snapshot = segment.snapshot(&self.data).await;
            all.push((segment, snapshot.ok_or_else(admin::no_data_plane)?));
        }
        Ok(all)
    }

    async fn status(&self) -> Answer<wire::admin::NodeDaemonStatus> {
        let all = self.observe().await?;
        let now = clock::now();
        let paths = all.iter().map(|(it, _)| self.path_limits(it.place.segment));
        let paths: Vec<_> = paths.collect();
        let seen = all
            .iter()
            .zip(&paths)
            .filter_map(|((segment, snapshot), paths)| {
                let in_segment = self.agent.segment(segment.place.segment)?;
                let interface = &segment.underlay.interface().name;
                let forwards = |is_v4| networks::forwards(interface, is_v4);
                let outcomes = segment.guard.outcomes();
                Some(status::Seen {
                    agent: in_segment,
                    routes: self.common.terms.status(in_segment, outcomes, forwards),
                    segment,
                    paths,
                    snapshot,
                })
            });
        let seen: Vec<_> = seen.collect();
        let silence = self.heard.silence(now.boot);
        let mut status = status::of(&self.agent, &seen, silence, now);
        status.keepalive = self.keepalive.every().map(|it| it.as_secs());
        status.mapped = self.keepalive.mapped();
        status.names = Some(self.naming.status());
        status.benchmark = status::benchmark(&self.benchmark.borrow());
        status.attention = attention::of(&status, &self.faults());
        Ok(status)
    }

    async fn metrics(&self) -> Answer<exposition::Page> {
        // Without a data plane: counters that went back to zero would be a lie.
        let all = self.observe().await?;
        let boot = clock::boot();
        let seen = all.iter().filter_map(|(segment, data)| {
            let seen = self.agent.segment(segment.place.segment)?;
            Some((seen, segment.guard.condition(), data))
        });
        let seen: Vec<_> = seen.collect();
        let benchmark = self.benchmark.borrow().clone();
        let silence = self.heard.silence(boot);
        let node = metrics::OfNode {
            agent: &self.agent,
            benchmark: &benchmark,
            silence,
            names: self.naming.counts(),
            data: self.data.common(),
        };
        Ok(metrics::page(&node, &seen, boot))
    }

    /// An interface, as `wg show` asks for it.
    async fn device(&self, id: SegmentId) -> Answer<String> {
        let segment = self.segments.get(&id).zip(self.agent.segment(id));
        let (segment, seen) = segment.ok_or_else(admin::no_data_plane)?;
        let snapshot = segment.snapshot(&self.data).await;
        let snapshot = snapshot.ok_or_else(admin::no_data_plane)?;
        let device = status::device(seen, &snapshot, &self.common, clock::now().wall);
        Ok(device.tell(self.keepalive.every()))
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

    async fn export(&self, (peer, segment): (&NodeName, Option<&SegmentName>)) -> Answer<WgExport> {
        let shared = self.agent.segments().filter_map(|seen| {
            let place = &self.segments.get(&seen.id())?.place;
            if segment.is_some_and(|it| *it != place.segment_name) {
                return None;
            }
            let update = seen.view().update?;
            let member = update.roster.iter().find(|it| it.name == *peer)?;
            Some((self.segments.get(&seen.id())?, member))
        });
        let shared: Vec<_> = shared.collect();
        if shared.is_empty() {
            return Err(admin::no_member(peer, segment));
        }
        // Where nobody says which, a peer in several segments is exported from the first in which there is a tunnel.
        let mut found = None;
        for (segment, member) in &shared {
            if let Some(of_epoch) = segment.export_psk(&self.data, member.wg).await {
                found = Some((*segment, *member, of_epoch));
                break;
            }
        }
        let (segment, member, (epoch, psk)) = found.ok_or_else(|| admin::no_tunnel(peer))?;
        let snapshot = segment.snapshot(&self.data).await;
        let seen = snapshot.and_then(|it| it.peers.into_iter().find(|it| it.key == member.wg));
        tracing::warn!(%peer, %epoch, "WireGuard secrets exported by the operator");
        let own = export::Own {
            place: &segment.place,
            secret: &segment.wg,
            listen_port: segment.underlay.listen_port(),
            mtu: segment.underlay.mtu(),
        };
        let endpoint = seen.and_then(|seen| seen.endpoint?.udp());
        Ok(WgExport {
            segment: segment.place.segment_name.clone(),
            epoch: epoch.0,
            config: export::config(&own, member, epoch, &psk, endpoint),
        })
    }
}

/// A fault with its way out, which stays whole where the words are too long.
fn fault(kind: NodeFaultKind, what: &str, way_out: &str) -> NodeFault {
    let room = MAX_NODE_FAULT_LEN.saturating_sub(way_out.len() + "; ".len());
    let what = match what.len() <= room {
        true => what.to_owned(),
        false => {
            let cut = what.floor_char_boundary(room.saturating_sub("…".len()));
            format!("{}…", &what[..cut])
        }
    };
    NodeFault::new(kind, &format!("{what}; {way_out}"))
}

/// The way out of a benchmark that fails.
const MEND_BENCHMARK: &str =
    "run it by hand there, as its user, and mend it: it is tried again by itself";
/// The way out of a state directory that cannot be written.
const MEND_STATE: &str = "free disk space there, or make its state directory writable";
/// For a segment that is being opened when the node stops.
const OPENING_TIME: Duration = Duration::from_millis(800);
/// Between two looks at how the node stands.
const STANDING: Duration = Duration::from_secs(1);
/// For names to go from the hosts file.
const NAMES_TIME: Duration = Duration::from_millis(300);
/// For the disk to take the newest epoch at the end.
const KEEP_TIME: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_ends_with_its_way_out_however_long_its_words_are() {
        for words in ["no space left", &"é".repeat(MAX_NODE_FAULT_LEN)] {
            for way_out in [MEND_BENCHMARK, MEND_STATE] {
                let fault = fault(NodeFaultKind::State, words, way_out);
                assert!(fault.what.ends_with(way_out), "{}", fault.what);
                assert!(fault.what.len() <= MAX_NODE_FAULT_LEN, "{}", fault.what);
            }
        }
    }
}
