//! The agent: one loop that selects an [`Action`] and applies it. Everything that awaits is in the
//! tasks around it: control channel, emitter, probe, admin socket, data thread.

use crate::admin::Request;
use crate::data::{DataCommand, DataPlane, Snapshot};
use crate::emitter::Emission;
use crate::io::clock;
use crate::io::firewall::FirewallWatch;
use crate::io::interface::in_range;
use crate::io::udp::PathErrors;
use crate::lost_time::Clocks;
use crate::metrics::{Counts, EvidenceAnswer, UpdateResult};
use crate::narrow::Paths;
use crate::persist::{Enrolment, Keeper, Newest, StateDir};
use crate::probe::{Ping, Round, Target};
use crate::session::{SessionError, SessionEvent};
use crate::underlay::{Fit, Mtu};
use epoch::member::View;
use epoch::{Change, Command, Member};
use jiff::Timestamp;
use keys::{Epoch, NodeId, NodeSecret, WgSecret};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use wire::evidence::{Benchmark, payload_digest, peek};
use wire::message::{Phase, Update};
use wire::update::LeaseEnd;
use wire::{Digest, Mark, Place, Signed, ToController, ToNode};

/// What the agent owns.
pub(crate) struct Agent {
    pub(crate) identity: NodeSecret,
    pub(crate) wg: WgSecret,
    pub(crate) enrolment: Enrolment,
    pub(crate) state: StateDir,
    pub(crate) keeper: Keeper,
    pub(crate) member: Member,
    pub(crate) data: DataPlane,
    pub(crate) control: ControlState,
    pub(crate) evidence: Option<Evidence>,
    /// A run that waits for the first update: without one there is nothing that it could answer to.
    pub(crate) held: Option<Box<Benchmark>>,
    /// The digest of the newest update: evidence answers to it.
    pub(crate) challenge: Option<Digest>,
    /// The authority's word for updates that may yet be in force here.
    pub(crate) marks: BTreeMap<Epoch, Signed<Mark>>,
    pub(crate) pings: HashMap<NodeId, PingResult>,
    pub(crate) interface: wire::admin::InterfaceStatus,
    pub(crate) firewall: FirewallWatch,
    /// The setting.
    pub(crate) mtu: Mtu,
    /// What the underlay makes of it.
    pub(crate) fit: Fit,
    /// The paths to peers that are reached by IPv6, as far as they are known.
    pub(crate) paths: Paths,
    pub(crate) path_errors: PathErrors,
    /// Whether they count.
    pub(crate) believes_routers: bool,
    /// Whether to look at the underlay again.
    pub(crate) underlay_changed: bool,
    pub(crate) mock_mean: watch::Sender<Option<f64>>,
    pub(crate) has_mock: bool,
    pub(crate) announced: watch::Sender<Option<Signed<Mark>>>,
    pub(crate) targets: watch::Sender<Vec<Target>>,
    /// Where the controller said that nodes are: a peer that was gone for a while is found again.
    pub(crate) places: HashMap<NodeId, Vec<SocketAddr>>,
    pub(crate) counts: Counts,
    pub(crate) clocks: Clocks,
}

/// What the agent listens to.
pub(crate) struct Inputs {
    pub(crate) session: mpsc::Receiver<SessionEvent>,
    pub(crate) emissions: mpsc::Receiver<Emission>,
    pub(crate) rounds: mpsc::Receiver<Round>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) underlay: mpsc::Receiver<()>,
}

/// The control channel as the agent sees it.
pub(crate) enum ControlState {
    /// Not connected; the address that was tried last and why it failed.
    Down {
        address: Option<String>,
        error: Option<String>,
    },
    /// Welcomed.
    Up {
        address: String,
        remote: SocketAddr,
        skew_ms: i64,
        outbox: mpsc::Sender<ToController>,
    },
}

/// The newest evidence.
pub(crate) struct Evidence {
    pub(crate) overall: f64,
    pub(crate) suite: String,
    pub(crate) suite_version: String,
    pub(crate) sent_at: Timestamp,
    pub(crate) result: EvidenceResult,
    /// The run that this node signs itself; `None`: an evaluator did.
    run: Option<Box<Benchmark>>,
    envelope: Vec<u8>,
    digest: [u8; 32],
}

/// What became of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EvidenceResult {
    Unsent,
    Pending,
    Accepted,
    Refused(String),
}

/// The last echoes of one peer.
#[derive(Clone)]
pub(crate) struct PingResult {
    pub(crate) v4: Ping,
    pub(crate) v6: Ping,
    pub(crate) at: Timestamp,
    /// The epoch in which the result was last logged, and whether both families answered.
    pub(crate) logged: (Option<Epoch>, bool, bool),
}

enum Action {
    Session(SessionEvent),
    Emission(Emission),
    Round(Round),
    Request(Request),
    Underlay,
    Timeout,
    DataFailed(std::io::Error),
    Stop,
}

/// Clock skew from which on it is worth a warning, in milliseconds.
const SKEW_WARNING_MS: u64 = 5_000;

impl Agent {
    /// Runs until `shutdown` resolves or the data plane fails.
    pub(crate) async fn run(
        mut self,
        mut inputs: Inputs,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), std::io::Error> {
        tokio::pin!(shutdown);
        loop {
            let action = tokio::select! {
                () = &mut shutdown => Action::Stop,
                error = self.data.failed() => Action::DataFailed(error),
                Some(event) = inputs.session.recv() => Action::Session(event),
                () = until(self.member.poll_timeout()) => Action::Timeout,
                Some(request) = inputs.requests.recv() => Action::Request(request),
                Some(emission) = inputs.emissions.recv() => Action::Emission(emission),
                Some(round) = inputs.rounds.recv() => Action::Round(round),
                Some(()) = inputs.underlay.recv() => Action::Underlay,
            };
            // Before any timer and any message is believed.
            self.look_for_lost_time();
            match action {
                Action::Stop => {
                    self.data.stop();
                    return Ok(());
                }
                Action::DataFailed(error) => return Err(error),
                Action::Session(event) => self.session(event),
                Action::Timeout => self.member.handle_timeout(clock::boot()),
                Action::Request(request) => self.request(request).await,
                Action::Emission(emission) => self.emission(emission),
                Action::Round(round) => {
                    let snapshot = self.data.snapshot().await;
                    self.round(round, snapshot);
                }
                Action::Underlay => self.underlay_changed = true,
            }
            self.carry_out();
            if std::mem::take(&mut self.underlay_changed) {
                self.follow_underlay().await;
            }
        }
    }

    /// A machine that stood still is held to the time that has passed for the others.
    fn look_for_lost_time(&mut self) {
        let reading = clock::both();
        let lost = reading.and_then(|(boot, wall)| self.clocks.handle_reading(boot, wall));
        let Some(lost) = lost else { return };
        let closed = self.member.handle_lost_time(lost, clock::boot());
        let seconds = lost.as_secs();
        tracing::warn!(
            seconds,
            closed,
            "the wall clock is ahead of the time that this machine has counted: it was paused, or the clock was set"
        );
        // An update that was on its way as time stood still is older than it says. Only what a connection
        // brings that begins now has an age that counts; until then none is taken.
        if let ControlState::Up { address, .. } = &self.control {
            self.control = ControlState::Down {
                address: Some(address.clone()),
                error: Some(SessionError::TimeLost.to_string()),
            };
        }
        self.carry_out();
    }

    // ---- control channel --------------------------------------------------------------------

    fn session(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Up {
                address,
                remote,
                place,
                skew_ms,
                outbox,
            } => {
                tracing::info!(controller = %address, skew_ms, "control channel up");
                self.counts.control_connections += 1;
                if place != self.enrolment.place(self.identity.public()) {
                    self.moved(&place);
                }
                if skew_ms.unsigned_abs() > SKEW_WARNING_MS {
                    tracing::warn!(
                        skew_ms,
                        "this machine's clock differs from the controller's: evidence may be refused"
                    );
                }
                self.control = ControlState::Up {
                    address,
                    remote,
                    skew_ms,
                    outbox,
                };
                self.underlay_changed = true;
                // The last acknowledgement may have been lost with the connection before.
                self.member.handle_reconnect();
                self.send_evidence();
            }
            SessionEvent::Message(message) => match &self.control {
                ControlState::Up { .. } => self.message(*message),
                // Of a connection that this node has given up.
                ControlState::Down { .. } => {}
            },
            SessionEvent::Down { address, error } => self.control_lost(address, &error),
        }
    }

    /// The controller has another place for this node than it had: remembered for the next start,
    /// because addresses, tunnels and epochs of this run are of the old one.
    fn moved(&mut self, place: &Place) {
        let enrolment = self.enrolment.moved_to(place);
        match self.state.save_enrolment(&enrolment) {
            Ok(()) => tracing::error!("the controller has another place for this node: restart it"),
            Err(error) => {
                tracing::error!(%error, "the controller has another place for this node: enrol it again")
            }
        }
    }

    fn control_lost(&mut self, address: String, error: &SessionError) {
        let was_up = matches!(self.control, ControlState::Up { .. });
        let first = matches!(self.control, ControlState::Down { error: None, .. });
        if was_up || first {
            tracing::warn!(controller = %address, %error, "control channel down; trying on");
        } else {
            tracing::debug!(controller = %address, %error, "no control channel yet");
        }
        self.control = ControlState::Down {
            address: Some(address),
            error: Some(error.to_string()),
        };
        if let Some(evidence) = self
            .evidence
            .as_mut()
            .filter(|e| e.result == EvidenceResult::Pending)
        {
            evidence.result = EvidenceResult::Unsent;
        }
    }

    fn message(&mut self, message: ToNode) {
        match message {
            ToNode::Update(update) => self.update(update),
            ToNode::Endpoints { entries } => self.endpoints(entries),
            ToNode::EvidenceResult { digest, refused } => self.evidence_result(digest, refused),
            ToNode::Enrolled(_) | ToNode::Welcome { .. } | ToNode::Refused { .. } => {
                tracing::warn!("the controller said something out of turn; ignored");
            }
        }
    }

    fn update(&mut self, update: Update) {
        let Update {
            signed,
            secret,
            age_ms,
            mark,
        } = update;
        let verified = match signed.verify(&self.enrolment.authorities) {
            Ok(verified) => verified,
            Err(reason) => {
                self.counts.updates.count(UpdateResult::Unverified);
                return tracing::warn!(%reason, "update rejected");
            }
        };
        let (epoch, digest) = (verified.epoch, verified.digest());
        let age = Duration::from_millis(age_ms);
        let taken = self
            .member
            .handle_update(verified, secret, age, clock::boot());
        self.counts.updates.count(match taken {
            Ok(()) => UpdateResult::Accepted,
            Err(_) => UpdateResult::Rejected,
        });
        match taken {
            Ok(()) => {
                self.keep_mark(epoch, digest, mark);
                self.answer_to(digest);
            }
            Err(reason) => {
                tracing::warn!(%epoch, %reason, "update rejected");
                // After an outage longer than the lease the node must still be able to prove itself.
                if matches!(reason, epoch::UpdateError::LeaseOver(_)) {
                    self.answer_to(digest);
                }
            }
        }
    }

    /// Evidence answers to this update from now on.
    fn answer_to(&mut self, digest: Digest) {
        self.challenge = Some(digest);
        if let Some(run) = self.held.take() {
            self.emission(Emission::Run(run));
        }
    }

    /// Keeps the authority's word for an update until it is in force.
    fn keep_mark(&mut self, epoch: Epoch, digest: Digest, mark: Signed<Mark>) {
        let fits = |mark: &Mark| mark.epoch == epoch && mark.update == digest;
        let trusted = &self.enrolment.authorities;
        // A mark that proves nothing is none: the controller would not believe it either.
        if mark.verify(trusted).is_ok_and(|mark| fits(&mark)) {
            self.marks.insert(epoch, mark);
        }
    }

    fn endpoints(&mut self, entries: Vec<(NodeId, Vec<SocketAddr>)>) {
        let known = entries.into_iter().map(|(node, mut endpoints)| {
            // An endpoint inside the mesh would send the tunnel's packets into the tunnel.
            endpoints.retain(|endpoint| !self.is_inside(endpoint.ip()));
            (node, endpoints)
        });
        let known: Vec<_> = known.collect();
        self.places.extend(known.iter().cloned());
        let found = self.places_of_peers(known);
        self.data.send(found);
        self.underlay_changed = true;
    }

    /// Whether an address is one of the mesh.
    pub(crate) fn is_inside(&self, address: IpAddr) -> bool {
        let Enrolment { v4, v6, .. } = &self.enrolment;
        in_range(address, IpAddr::V4(v4.0), v4.1) || in_range(address, IpAddr::V6(v6.0), v6.1)
    }

    /// What the data plane shall know of where nodes are, as far as they are peers.
    fn places_of_peers(
        &self,
        places: impl IntoIterator<Item = (NodeId, Vec<SocketAddr>)>,
    ) -> DataCommand {
        let View { update, next, .. } = self.member.view();
        let key_of = |node: &NodeId| {
            let member = [next, update]
                .into_iter()
                .flatten()
                .find_map(|update| update.member(node));
            member.map(|member| member.wg)
        };
        let known = places
            .into_iter()
            .filter_map(|(node, endpoints)| Some((key_of(&node)?, endpoints)));
        DataCommand::Endpoints(known.collect())
    }

    pub(crate) fn send(&self, message: ToController) -> bool {
        match &self.control {
            ControlState::Up { outbox, .. } => outbox.try_send(message).is_ok(),
            ControlState::Down { .. } => false,
        }
    }

    // ---- evidence ---------------------------------------------------------------------------

    fn emission(&mut self, emission: Emission) {
        let (envelope, run) = match emission {
            Emission::Run(run) if self.challenge.is_none() => {
                self.held = Some(run);
                return;
            }
            Emission::Run(run) => match self.attest(&run) {
                Some(envelope) => (envelope, Some(run)),
                None => return,
            },
            Emission::Envelope(envelope) => (envelope, None),
        };
        let Some((said, digest)) = peek(&envelope).zip(payload_digest(&envelope)) else {
            return tracing::warn!("evidence not sent: the envelope holds no benchmark statement");
        };
        let Benchmark {
            overall,
            suite,
            suite_version,
            ..
        } = said;
        let sent_at = clock::wall();
        let result = EvidenceResult::Unsent;
        self.evidence = Some(Evidence {
            overall,
            suite,
            suite_version,
            sent_at,
            result,
            run,
            envelope,
            digest,
        });
        self.send_evidence();
    }

    /// The run as this node's evidence, answering to the newest update.
    fn attest(&self, run: &Benchmark) -> Option<Vec<u8>> {
        let bound = run.clone().bound_to(self.enrolment.mesh, self.challenge);
        let envelope = bound.attest_self(self.enrolment.name.as_str(), &self.identity);
        envelope
            .inspect_err(|error| tracing::warn!(%error, "evidence not sent"))
            .ok()
    }

    fn send_evidence(&mut self) {
        let waits = |evidence: &Evidence| evidence.result == EvidenceResult::Unsent;
        let Some(mut evidence) = self.evidence.take() else {
            return;
        };
        if waits(&evidence) {
            // Evidence that waited for its controller may answer to an update that is long forgotten there.
            let anew = evidence.run.as_ref().and_then(|run| self.attest(run));
            if let Some(anew) = anew.and_then(|e| Some((payload_digest(&e)?, e))) {
                (evidence.digest, evidence.envelope) = anew;
            }
            let envelope = evidence.envelope.clone();
            if self.send(ToController::Evidence { envelope }) {
                self.sent(&mut evidence);
            }
        }
        self.evidence = Some(evidence);
    }

    fn sent(&self, evidence: &mut Evidence) {
        evidence.result = EvidenceResult::Pending;
        let Evidence {
            overall,
            suite,
            suite_version,
            ..
        } = evidence;
        tracing::info!(%suite, %suite_version, overall = %format_args!("{overall:.4}"), "SUBMITTED");
    }

    fn evidence_result(&mut self, digest: [u8; 32], refused: Option<String>) {
        let Some(evidence) = self.evidence.as_mut().filter(|e| e.digest == digest) else {
            return;
        };
        evidence.result = match refused {
            None => {
                self.counts.evidence.count(EvidenceAnswer::Accepted);
                EvidenceResult::Accepted
            }
            Some(reason) => {
                self.counts.evidence.count(EvidenceAnswer::Refused);
                tracing::warn!(%reason, "evidence refused");
                EvidenceResult::Refused(reason)
            }
        };
    }

    // ---- epochs -----------------------------------------------------------------------------

    /// Carries out what the member machine asks for.
    fn carry_out(&mut self) {
        let mut steps = Vec::new();
        while let Some(command) = self.member.poll_command() {
            match command {
                Command::Persist(high) => {
                    // Without a new one the old one stays: it still proves what it proved.
                    let mark = self.marks.remove(&high.epoch);
                    let mark = mark.or_else(|| self.announced.borrow().clone());
                    self.marks.retain(|epoch, _| *epoch > high.epoch);
                    self.announced.send_replace(mark.clone());
                    self.keeper.keep(Newest {
                        epoch: high.epoch,
                        digest: high.digest,
                        mark,
                    });
                }
                Command::Acknowledge { epoch, phase } => {
                    self.send(ToController::Ack { epoch, phase });
                    self.underlay_changed = true;
                    if phase != Phase::Installed {
                        self.forget_strangers();
                    }
                }
                Command::Report(change) => report(&change),
                command @ Command::Install { .. } => {
                    steps.push(DataCommand::Epoch(command));
                    steps.push(self.places_of_peers(self.places.clone()));
                }
                command
                @ (Command::Activate { .. } | Command::DiscardPrevious | Command::Close) => {
                    steps.push(DataCommand::Epoch(command));
                    let steps = std::mem::take(&mut steps);
                    self.data.send(DataCommand::Together(steps));
                }
            }
        }
        if !steps.is_empty() {
            self.data.send(DataCommand::Together(steps));
        }
    }

    /// Places of nodes that no update names any more.
    fn forget_strangers(&mut self) {
        let View { update, next, .. } = self.member.view();
        let named = |node: &NodeId| {
            let names = |update: &wire::EpochUpdate| {
                update.member(node).is_some() || update.exclusion(node).is_some()
            };
            [update, next].into_iter().flatten().any(names)
        };
        self.places.retain(|node, _| named(node));
    }

    /// Says whom to probe, and with which sizes.
    pub(crate) fn place_targets(&mut self, snapshot: Option<&Snapshot>) {
        let mut targets = self.current_targets();
        let names = |node: &NodeId| targets.iter().any(|target| target.node == *node);
        self.paths.retain(names);
        for target in &mut targets {
            let endpoint = self.endpoint_of(&target.node, snapshot);
            if let Some(endpoint) = endpoint.filter(|at| !at.to_canonical().is_ipv4()) {
                target.sizes = self.paths.sizes(target.node, endpoint, self.interface.mtu);
            }
        }
        self.targets.send_if_modified(|before| {
            let changed = *before != targets;
            *before = targets;
            changed
        });
    }

    /// Where packets to a member go.
    fn endpoint_of(&self, node: &NodeId, snapshot: Option<&Snapshot>) -> Option<IpAddr> {
        let key = self.member.view().update?.member(node)?.wg;
        let peer = snapshot?.peers.iter().find(|peer| peer.key == key)?;
        Some(peer.endpoint?.udp()?.ip())
    }

    /// Everybody else whom the epoch in force names, members and excluded.
    fn current_targets(&self) -> Vec<Target> {
        let Some(update) = self.member.view().update else {
            return Vec::new();
        };
        let members = update.roster.iter().map(|m| (m.node, &m.name, m.v4, m.v6));
        let excluded = update
            .excluded
            .iter()
            .map(|e| (e.node, &e.name, e.v4, e.v6));
        let own = self.identity.public();
        members
            .chain(excluded)
            .filter(|(node, ..)| *node != own)
            .map(|(node, name, v4, v6)| Target {
                node,
                name: name.clone(),
                v4,
                v6,
                sizes: Vec::new(),
            })
            .collect()
    }
}

fn report(change: &Change) {
    match change {
        Change::Installed { epoch } => tracing::info!(%epoch, "epoch installed"),
        Change::Activated { epoch, peers } => {
            tracing::info!(%epoch, peers, psk = "****", "APPLIED epoch psk ****");
            tracing::info!(%epoch, membership = "ALLOWED", "MEMBERSHIP=ALLOWED");
        }
        Change::Excluded {
            epoch,
            reason: Some(reason),
        } => {
            tracing::warn!(%epoch, membership = "DENIED", %reason, "MEMBERSHIP=DENIED");
        }
        Change::Excluded {
            epoch,
            reason: None,
        } => {
            tracing::info!(%epoch, "not a member yet: waiting for the next epoch");
        }
        Change::Discarded { epoch } => {
            tracing::debug!(%epoch, "generation before this epoch discarded")
        }
        Change::LeaseEnded {
            epoch,
            then: LeaseEnd::Close,
        } => {
            tracing::error!(%epoch, "the lease is over and no update came: all tunnels closed");
        }
        Change::LeaseEnded {
            epoch,
            then: LeaseEnd::Open,
        } => {
            tracing::error!(%epoch, "the lease is over and no update came: tunnels stay open, as the policy says");
        }
        Change::TimeLost { epoch } => {
            tracing::warn!(%epoch, "more time was lost than the lease had left: all tunnels closed until the controller is heard");
        }
        Change::WeakKey { key } => {
            tracing::warn!(%key, "a member's key is of low order: no tunnel to it")
        }
    }
}

/// Sleeps until a time on the boot clock, and not for long.
async fn until(at: Option<Duration>) {
    let left = at.map_or(LONGEST_SLEEP, |at| at.saturating_sub(clock::boot()));
    tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
}

/// tokio's clock stands still while the machine sleeps; the others are looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
