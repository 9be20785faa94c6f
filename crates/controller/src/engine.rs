//! The controller's engine, synchronous: the thin front of the parts below it, each of which borrows only what
//! it needs. Owns the state; refuses clocks, sockets and tasks.
//!
//! | Part | Does | Borrows |
//! |---|---|---|
//! | `Mesh` | what stays as it is, and signs | |
//! | `Journal` | the log, its fold, whether it can be written | |
//! | `Segments` | policy, epochs and timers of each segment | |
//! | `Connections` | who is there, and where | |
//! | `Rotation` | decide → time → sign → persist → push | changes journal and segments; sees connections |
//! | `Enrolment` | which unknown key is let in | changes its allowance; sees the fold |
//! | `membership` | which segments a node is in | a rotation |
//! | `Ingest` | what enrolled nodes say | changes connections, and with evidence the journal |
//! | `Operator` | what operators ask | a rotation |
//! | `View`, `metrics` | what all of that looks like from outside | sees everything |
//! | `timers` | what is due when, and why | sees journal, segments and connections |
//!
//! The file is long because every input and every view of the machine has its door here.

use crate::by::By;
use crate::clock::{Now, Steps};
use crate::connections::{Connections, Stage};
use crate::counts::Counts;
use crate::decide::Cause;
use crate::effect::Output;
use crate::enrol::{Enrolled, Enrolment, Outcome};
use crate::event::Event;
use crate::fleet::Fleet;
use crate::ingest::{Ingest, Staged};
use crate::journal::Journal;
use crate::log::{Log, StoredEpoch};
use crate::mesh::Mesh;
use crate::metrics::{self, Held};
use crate::operator::{self, Operator, policy_changed};
use crate::places::KeptPlaces;
use crate::push::Push;
use crate::reading::Reading;
use crate::request::{Answer, Request};
use crate::rotate::Rotation;
use crate::segment::{Basis, Settings};
use crate::segments::Segments;
use crate::setup::{check_segments, found};
use crate::timers::{self, Timer};
use crate::view::View;
use ::admin::Refused;
use allowance::Bucket;
use epoch::authority::Kind;
use exposition::Page;
use keys::{AuthorityId, AuthoritySecret, NodeId, SegmentId};
use policy::Policy;
use rand_core::OsRng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use wire::admin::{ControllerStatus, EvictRequest, PolicyApplied};
use wire::log::LogRestored;
use wire::message::{Enrol, Refusal, ToController, ToNode};
use wire::{NodeName, SegmentName, Signed, Succession, VerifyError};

pub use crate::effect::{ConnectionId, Effect, KeysChanged};
pub use crate::journal::Unwritten;
pub use crate::mesh::EnrolmentMode;
pub use crate::network::NetworkError;
pub use crate::segment::Unpublished;
pub use crate::setup::{SegmentSetup, Setup, StartError};

/// The machine.
///
/// # Call contract
///
/// Inputs are [`handle_connected`](Self::handle_connected), [`handle_moved`](Self::handle_moved),
/// [`handle_message`](Self::handle_message), [`handle_refused`](Self::handle_refused),
/// [`handle_disconnected`](Self::handle_disconnected), [`operator`](Self::operator) and
/// [`handle_timeout`](Self::handle_timeout). After any of them, in this order:
///
/// 1. [`handle_timeout`](Self::handle_timeout), which does what the input has made due. Evidence that fails a
///    member under `revoke = "now"` revokes nothing until then.
/// 2. [`take_keys_changed`](Self::take_keys_changed), and the keys to whoever filters by them: a new node's
///    next connection would be a stranger's.
/// 3. [`poll_effect`](Self::poll_effect) until there is none, each carried out. All are durable by then. A
///    connection that is closed in an effect is unknown to the engine already; one that cannot be sent to is
///    closed by the shell, which says so with [`handle_disconnected`](Self::handle_disconnected).
/// 4. [`tidy`](Self::tidy), which takes as long as a commit: a revocation must not wait for it.
/// 5. [`take_dirty`](Self::take_dirty), and [`status`](Self::status) if it says so.
/// 6. [`poll_timeout`](Self::poll_timeout), and a wait for the next input until then at most.
///
/// `now` never goes back on the boot-time clock. On the wall clock it may: only evidence, tokens, people, and
/// epochs across a reboot go by that.
#[derive(Debug)]
pub struct Engine {
    mesh: Mesh,
    journal: Journal,
    segments: Segments,
    connections: Connections,
    /// The enrolments that all unknown keys together may ask for.
    enrolments: Bucket,
    counts: Counts,
    staged: Staged,
    /// Why the policy's file could not be taken when it was read last.
    unread_policy: Option<String>,
    /// Whether the web page has its address.
    page: Option<::page::Standing>,
    output: Output,
}

impl Engine {
    /// Resumes from what the log holds, with `fleet` as its fold and the `epochs` that are kept beside it,
    /// or starts a mesh.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        setup: Setup,
        log: Log,
        fleet: Fleet,
        epochs: Vec<StoredEpoch>,
        now: Now,
    ) -> Result<Self, StartError> {
        let (mut log, mut fleet) = (log, fleet);
        let id = match fleet.mesh() {
            Some(id) => id,
            None => found(&setup, &mut log, &mut fleet, now)?,
        };
        let (numbers, named) = numbered(&setup.segments, &fleet);
        let number = |name: &SegmentName| numbers.get(name).copied().unwrap_or_default();
        let settings = check_segments(&setup.segments, id, number)?;
        if let Some(old) = fleet
            .authority()
            .filter(|it| *it != setup.authority.public())
        {
            let new = setup.authority.public();
            let event = Event::AuthorityReplaced { old, new };
            log.append(now.wall, None, std::slice::from_ref(&event), &[])?;
            fleet.apply(now.wall, None, &event);
        }
        for Settings { id, network, .. } in &settings {
            let nodes = fleet.nodes().values().filter(|node| node.is_in(*id));
            let highest = nodes.map(|node| node.host).max();
            if let Some(host) = highest.filter(|host| *host > network.last_host()) {
                return Err(NetworkError::TooSmall(host, network.last_host()).into());
            }
        }
        let mesh = Mesh {
            id,
            authority: setup.authority,
            controller: setup.controller,
            advertise: setup.advertise,
            enrolment: setup.enrolment,
            boot_id: setup.boot_id,
            keep_evidence: setup.keep_evidence,
        };
        let steps = Steps::since(fleet.last_at(), now);
        let started = Event::ControllerStarted {
            boot_id: mesh.boot_id.clone(),
            boot_ms: now.boot_ms(),
        };
        if !named.is_empty() {
            // Durable before anything is signed with a number.
            log.append(now.wall, None, &named, &[])?;
        }
        for event in &named {
            fleet.apply(now.wall, None, event);
        }
        let others = settings.iter();
        let others = others.filter(|it| fleet.policy(it.id) != Some(&it.policy));
        let changed = others.map(|it| policy_changed(it.id, &it.policy));
        let opening: Vec<Event> = [started].into_iter().chain(changed).collect();
        // A disk that takes nothing is no reason to let a mesh be without its controller.
        if let Err(error) = log.append(now.wall, None, &opening, &[]) {
            tracing::warn!(%error, "the log does not say that the controller was started");
        }
        for event in &opening {
            fleet.apply(now.wall, None, event);
        }
        let journal = Journal::new(log, fleet, steps);
        let basis = Basis {
            mesh: &mesh,
            fleet: journal.fleet(),
            now,
        };
        let segments = Segments::resume(settings, epochs, basis);
        let mut engine = Self {
            mesh,
            journal,
            segments,
            connections: Connections::new(),
            enrolments: Bucket::new(ENROLMENTS_PER_SECOND, ENROLMENT_BURST),
            counts: Counts::default(),
            staged: Staged::default(),
            unread_policy: None,
            page: None,
            output: Output::new(),
        };
        let segments = engine.segments.iter();
        let fresh = segments.filter(|segment| segment.in_force().is_none());
        let fresh: Vec<_> = fresh.map(|segment| segment.id()).collect();
        if !fresh.is_empty() {
            // An epoch without members, so that the first node has one to answer to with its evidence.
            let mut rotation = engine.rotation();
            rotation.publish(None, &fresh, Cause::Scheduled, Kind::Scheduled, &[], now)?;
        }
        Ok(engine)
    }

    /// The next thing for the shell to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if let Some(now) = self.staged.at() {
            self.ingest().commit_staged(now);
        }
        self.output.poll()
    }

    /// Whether anything that the status shows has changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        self.output.take_status_changed()
    }

    /// The keys of all enrolled nodes, and of those that wait for approval.
    pub fn enrolled(&self) -> impl Iterator<Item = NodeId> + '_ {
        let fleet = self.journal.fleet();
        let waiting = fleet.waiting().values().map(|it| it.node);
        fleet.nodes().values().map(|node| node.id).chain(waiting)
    }

    /// How many nodes are enrolled.
    pub fn nodes(&self) -> usize {
        self.journal.fleet().nodes().len()
    }

    /// How [`Self::enrolled`] has changed since the last call.
    pub fn take_keys_changed(&mut self) -> KeysChanged {
        self.output.take_keys_changed()
    }

    /// Epoch and members of each segment, in one line.
    pub fn standing(&self) -> String {
        self.view().standing()
    }

    /// Work that can wait until the effects are carried out: a revocation does not wait for it.
    pub fn tidy(&mut self, now: Now) {
        self.journal.tidy(self.mesh.keep_evidence, now);
    }

    /// When [`Self::handle_timeout`] is due, on the boot-time clock.
    pub fn poll_timeout(&self) -> Duration {
        self.poll_timer().map_or(Duration::MAX, |(at, _)| at)
    }

    /// The same, with the reason.
    pub fn poll_timer(&self) -> Option<(Duration, Timer)> {
        timers::next(&self.journal, &self.segments, &self.connections)
    }

    /// Does whatever is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.ingest().commit_staged(now);
        if self.journal.handle_clocks(now) {
            self.output.touch();
        }
        for segment in self.segments.iter_mut() {
            if let Some(epoch) = segment.handle_timeout(now) {
                tracing::debug!(%epoch, "epoch in force");
                self.output.touch();
            }
        }
        let changed = self.journal.take_changed();
        for segment in self.segments.iter_mut() {
            segment.suspect(&changed);
        }
        self.connections.close_silent(&mut self.output, now);
        for (id, name, hello) in self.connections.take_claims(now) {
            let session = self.connections.session(id);
            let known = session.and_then(|it| self.journal.fleet().name_of(&it.peer));
            // The name may stand for another key by now.
            if known == Some(&name) {
                self.ingest().admit(id, &name, hello, now);
            } else {
                let reason = Refusal::NotEnrolled;
                self.connections.close(id, reason, &mut self.output);
            }
        }
        if self.connections.take_news(now) {
            let mut push = Push {
                mesh: &self.mesh,
                journal: &self.journal,
                connections: &self.connections,
                output: &mut self.output,
            };
            self.segments.iter().for_each(|it| push.places(it));
        }
        self.rotation().handle_timeout(now);
    }

    /// A key has proved itself on a new connection.
    pub fn handle_connected(
        &mut self,
        id: ConnectionId,
        peer: NodeId,
        remote: SocketAddr,
        now: Now,
    ) {
        let output = &mut self.output;
        self.connections.open(id, peer, remote, output, now);
    }

    /// The places of members that a connection was not told of. It is taken to be told with this.
    pub fn places_for(&mut self, id: ConnectionId) -> Vec<ToNode> {
        let Some(session) = self.connections.session(id) else {
            return Vec::new();
        };
        let mut news = Vec::new();
        for segment in self.segments.iter() {
            // To a member's key alone, as the secret.
            if segment.is_member(self.journal.fleet(), &session.peer) {
                let places = segment.places();
                let since = session.told(segment.id());
                news.extend(places.news(since, session.remote.ip()));
                let mut told = session.told.borrow_mut();
                told.insert(segment.id(), places.seq());
            }
        }
        news
    }

    /// The places of members as they are to be kept for the next start, encoded; and the number of the newest change
    /// in them, by which one who has them already knows it.
    pub fn keep_places(&self) -> (u64, impl FnOnce() -> Vec<u8> + '_) {
        let seq = self.segments.iter().map(|it| it.places().seq()).sum();
        let encode = || {
            let kept: Vec<_> = self.segments.iter().map(|it| it.places().keep()).collect();
            // Numbers and addresses can always be encoded.
            postcard::to_stdvec(&kept).unwrap_or_default()
        };
        (seq, encode)
    }

    /// Goes on with the places that were kept: members that come back to where they were are no news. Bytes that
    /// are none are left alone.
    pub fn resume_places(&mut self, kept: &[u8]) {
        let Ok(kept) = postcard::from_bytes::<Vec<KeptPlaces>>(kept) else {
            return tracing::info!("the places that were kept cannot be read: nodes say them anew");
        };
        for kept in kept {
            for (node, at) in kept.endpoints() {
                if let Some(name) = self.journal.fleet().name_of(node) {
                    self.connections.live_mut(name).endpoints = at.to_vec();
                }
            }
            let mut segments = self.segments.iter_mut();
            if let Some(segment) = segments.find(|it| it.id() == kept.segment()) {
                segment.places_mut().resume(kept);
            }
        }
    }

    /// A connection is seen at another address.
    pub fn handle_moved(&mut self, id: ConnectionId, remote: SocketAddr, now: Now) {
        if let Some(name) = self.connections.moved(id, remote) {
            // It may be behind an address translator now, and knows no other way to find out.
            let seen = ToNode::Seen { observed: remote };
            self.output.send(id, seen);
            self.ingest().relocate(id, &name, now);
        }
    }

    /// A connection has ended.
    pub fn handle_disconnected(&mut self, id: ConnectionId) {
        self.connections.ended(id, &mut self.output);
    }

    /// How many segments the mesh has.
    pub fn segment_count(&self) -> usize {
        self.segments.iter().count()
    }

    /// A connection carried something that is not to be read.
    pub fn handle_refused(&mut self, id: ConnectionId, reason: Refusal) {
        let Some(session) = self.connections.session(id) else {
            return;
        };
        let name = self.journal.fleet().name_of(&session.peer);
        match (reason, name) {
            (Refusal::TooMuch, Some(node)) => {
                tracing::warn!(
                    %node,
                    "the node says more than its allowance: cut off for a while"
                );
            }
            (Refusal::NotEnrolled, _) => {}
            _ => tracing::info!(key = session.peer.short(), "malformed message"),
        }
        self.connections.close(id, reason, &mut self.output);
    }

    /// A message arrived. An unknown key may only ask to be enrolled; an enrolled node opens with Hello.
    pub fn handle_message(&mut self, id: ConnectionId, message: ToController, now: Now) {
        let Some(session) = self.connections.session(id) else {
            return;
        };
        let peer = session.peer;
        // Anything else is heard after the evidence that came before it.
        if !matches!(message, ToController::Evidence { .. }) {
            self.ingest().commit_staged(now);
        }
        let Some(session) = self.connections.session(id) else {
            return;
        };
        match &session.stage {
            Stage::Serving { name } => {
                let name = name.clone();
                return self.ingest().message(id, &name, message, now);
            }
            Stage::Claiming { .. } | Stage::Waiting => {
                let reason = Refusal::Protocol;
                return self.connections.close(id, reason, &mut self.output);
            }
            Stage::Opening { .. } => {}
        }
        let known = self.journal.fleet().name_of(&peer).cloned();
        let refusal = match (message, known) {
            (ToController::Enrol(enrol), _) => return self.enrol(id, peer, &enrol, now),
            (ToController::Hello(hello), Some(name)) => {
                return self.ingest().hello(id, &name, hello, now);
            }
            (_, Some(_)) => Refusal::Protocol,
            (_, None) => Refusal::NotEnrolled,
        };
        self.connections.close(id, refusal, &mut self.output);
    }

    /// Evicts nodes by orders of one operator that came together, in one epoch: in an incident, one epoch for each would
    /// be told to everybody. One answer for each order.
    pub fn evict(
        &mut self,
        orders: Vec<(NodeName, EvictRequest)>,
        by: Option<By>,
        now: Now,
    ) -> Vec<Result<Answer, Refused>> {
        self.ingest().commit_staged(now);
        let answers = self.asked(by).evict(orders, now);
        self.follow_fleet(now);
        answers
    }

    /// Does what an operator asks, or says why not. What it changes is on record as done at the word of `by`.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub fn operator(
        &mut self,
        request: Request,
        by: Option<By>,
        now: Now,
    ) -> Result<Answer, Refused> {
        self.ingest().commit_staged(now);
        match request {
            Request::Evidence(name, envelope) => {
                let answer = self.ingest().handed_in(&name, &envelope, by, now)?;
                Ok(Answer::Evidence(answer))
            }
            Request::ChangePolicy(segment, policy) => {
                let digest = policy.digest().to_string();
                let changed = self.change_policy(segment.as_ref(), *policy, by, now)?;
                Ok(Answer::PolicyApplied(PolicyApplied { digest, changed }))
            }
            Request::RotateAuthority => self.rotate_authority(by, now),
            request => {
                let answer = self.asked(by).ask(request, now);
                self.follow_fleet(now);
                answer
            }
        }
    }

    /// Puts another policy in force in a segment, at the word of `by`; without a name, in the only one. Whether it is another than before. Under
    /// `revoke = "now"` it takes effect with the next [`Self::handle_timeout`].
    ///
    /// # Errors
    /// [`Refused`]; then the old one stays in force.
    pub fn change_policy(
        &mut self,
        segment: Option<&SegmentName>,
        policy: Policy,
        by: Option<By>,
        now: Now,
    ) -> Result<bool, Refused> {
        self.ingest().commit_staged(now);
        let changed = self.asked(by).change_policy(segment, policy, now)?;
        self.unread_policy = None;
        self.output.touch();
        Ok(changed)
    }

    /// The policy's file was to be read again, and cannot be used: the policy in force stays, and an alarm says
    /// so until another one is put in force.
    pub fn handle_unread_policy(&mut self, error: String) {
        self.unread_policy = Some(error);
        self.output.touch();
    }

    /// Another key signs for the mesh, by the word of the one before, beginning with an epoch at once.
    fn rotate_authority(&mut self, by: Option<By>, now: Now) -> Result<Answer, Refused> {
        let new = AuthoritySecret::generate(&mut OsRng);
        let event = succession(&self.mesh, new.public());
        let event = event.map_err(|error| operator::unsigned(&error))?;
        // On the disk before it signs anything: a crash must not leave a mesh whose key nobody has.
        let log = self.journal.log();
        log.write_next_authority(&new)
            .map_err(|error| operator::no_key_file(&error))?;
        let old = std::mem::replace(&mut self.mesh.authority, new);
        let old_id = old.public();
        let mut occasion = vec![event];
        // Nodes that have followed do not believe the old key's word for a restored log any more.
        occasion.extend(self.restored_anew(now));
        let (which, kind) = (
            self.segments.ids().into_iter().collect::<Vec<_>>(),
            Kind::Immediate,
        );
        let mut rotation = self.rotation();
        let published = rotation.publish(by, &which, Cause::Authority, kind, &occasion, now);
        if published.is_err() {
            self.mesh.authority = old;
            self.journal
                .log()
                .settle_authority(self.mesh.authority.public());
        }
        published.map_err(|error| operator::unpublished(&error))?;
        let new = self.mesh.authority.public();
        self.journal.log().settle_authority(new);
        tracing::warn!(old = %old_id, %new, "another authority signs for the mesh");
        Ok(self.asked(by).authority_rotated(old_id, now))
    }

    fn restored_anew(&self, now: Now) -> Option<Event> {
        let fleet = self.journal.fleet();
        let word = fleet.restored()?.verify(&fleet.authorities()).ok()?;
        let lost = self.segments.iter();
        let seen = lost.filter_map(|it| it.standings(fleet).lost()).max()?;
        let word = LogRestored {
            unix_ms: now.unix_ms(),
            ..*word
        };
        let signed = Signed::sign(&word, &self.mesh.authority).ok()?;
        let copy = word.copy;
        Some(Event::LogRestored { copy, seen, signed })
    }

    /// An operator's word may have given a place to a node that waits for one, or taken one from a node that has
    /// a session.
    fn follow_fleet(&mut self, now: Now) {
        let fleet = self.journal.fleet();
        let serving = self.connections.serving();
        let gone = serving.filter(|(_, peer, name)| fleet.name_of(peer) != Some(name));
        let gone: Vec<NodeName> = gone.map(|(_, _, name)| name.clone()).collect();
        for name in gone {
            let reason = Refusal::Banned;
            self.connections.forget(&name, reason, &mut self.output);
        }
        for (id, peer) in self.connections.waiting() {
            let fleet = self.journal.fleet();
            if let Some(name) = fleet.name_of(&peer).cloned() {
                self.give_place(id, &name, now);
            } else if fleet.waiting_of(&peer).is_none() {
                let reason = Refusal::Rejected;
                self.connections.close(id, reason, &mut self.output);
            }
        }
    }

    /// Tells a node where it belongs; it opens its session with that.
    fn give_place(&mut self, id: ConnectionId, name: &NodeName, now: Now) {
        self.connections.reopen(id, now);
        let Some(node) = self.journal.fleet().node(name) else {
            return;
        };
        let segments = self.segments.of(node);
        let places: Vec<_> = segments
            .filter_map(|it| it.place(&self.mesh, name, node))
            .collect();
        if !places.is_empty() {
            // The node's token may name an authority of before.
            if let Some(words) = self.journal.words_of_authorities() {
                self.output.send(id, words);
            }
            self.output.send(id, ToNode::Enrolled(places));
        }
    }

    /// The other side of a connection was last heard at `at`, on the boot-time clock. Told once a second.
    pub fn handle_heard(&mut self, id: ConnectionId, at: Duration, now: Now) {
        self.connections.heard(id, at, &mut self.output, now);
    }

    /// Tells every connection that the controller stops.
    pub fn stop(&mut self) {
        self.connections.stop(&mut self.output);
    }

    /// Everything that is shown.
    pub fn status(&self, now: Now) -> ControllerStatus {
        self.view().status(now)
    }

    /// The status shows from now on whether the web page has its address.
    pub(crate) fn show_page(&mut self, page: ::page::Standing) {
        self.page = Some(page);
        self.output.touch();
    }

    /// Everything that can be asked without an order.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading(self.view())
    }

    /// Everything that is measured, as it is now.
    pub(crate) fn metrics(&self, held: Held, now: Now) -> Page {
        metrics::page(&self.view(), &self.counts, held, now)
    }

    fn enrol(&mut self, id: ConnectionId, peer: NodeId, enrol: &Enrol, now: Now) {
        let mut enrolment = Enrolment {
            mode: self.mesh.enrolment,
            fleet: self.journal.fleet(),
            segments: &self.segments,
            allowance: &mut self.enrolments,
            seen: self.connections.session(id).map(|it| it.remote.ip()),
        };
        let admitted = enrolment.admit(peer, enrol, now);
        let enrolled = admitted.and_then(|it| it.carry_out(&mut self.rotation(), None, now));
        match enrolled {
            Ok(Outcome::Enrolled(Enrolled { name, replaced })) => {
                if replaced {
                    let reason = Refusal::NotEnrolled;
                    self.connections.forget(&name, reason, &mut self.output);
                }
                self.give_place(id, &name, now);
            }
            Ok(Outcome::Waiting(name)) => {
                self.connections.wait(id, &mut self.output);
                self.output.send(id, ToNode::Waiting { name });
            }
            Err(refusal) => {
                let asked = enrol.segments.iter().filter_map(|ask| ask.name.as_ref());
                let segments: Vec<_> = asked.map(ToString::to_string).collect();
                let segments = segments.join(", ");
                tracing::info!(reason = %refusal, key = peer.short(), segments, "enrolment refused");
                self.connections.close(id, refusal, &mut self.output);
            }
        }
    }

    fn rotation(&mut self) -> Rotation<'_> {
        Rotation {
            mesh: &self.mesh,
            journal: &mut self.journal,
            segments: &mut self.segments,
            connections: &self.connections,
            counts: &mut self.counts,
            output: &mut self.output,
        }
    }

    fn asked(&mut self, by: Option<By>) -> Operator<'_> {
        let unread_policy = self.unread_policy.clone();
        let page = self.page.clone();
        let rotation = self.rotation();
        Operator {
            rotation,
            by,
            unread_policy,
            page,
        }
    }

    fn ingest(&mut self) -> Ingest<'_> {
        Ingest {
            mesh: &self.mesh,
            journal: &mut self.journal,
            segments: &mut self.segments,
            connections: &mut self.connections,
            counts: &mut self.counts,
            staged: &mut self.staged,
            output: &mut self.output,
        }
    }

    fn view(&self) -> View<'_> {
        View {
            mesh: &self.mesh,
            journal: &self.journal,
            segments: &self.segments,
            connections: &self.connections,
            unread_policy: self.unread_policy.as_deref(),
            page: self.page.as_ref(),
        }
    }

    /// As [`Self::tidy`], with another retention, and with a snapshot of now first if `snapshot`.
    #[cfg(test)]
    pub(crate) fn retain(&mut self, keep: Duration, snapshot: bool, now: Now) {
        self.journal.retain(keep, snapshot, now);
    }

    #[cfg(test)]
    pub(crate) fn set_enrolment(&mut self, mode: EnrolmentMode) {
        self.mesh.enrolment = mode;
    }

    /// For tests that look behind the outputs.
    #[cfg(test)]
    pub(crate) fn fleet(&self) -> &Fleet {
        self.journal.fleet()
    }

    #[cfg(test)]
    pub(crate) fn log(&self) -> &Log {
        self.journal.log()
    }

    #[cfg(test)]
    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }
}

/// The numbers of the segments of a configuration, and the events that give one to those that have none yet.
fn numbered(
    segments: &[SegmentSetup],
    fleet: &Fleet,
) -> (BTreeMap<SegmentName, SegmentId>, Vec<Event>) {
    let (mut numbers, mut events) = (BTreeMap::new(), Vec::new());
    let mut free = fleet.free_segment();
    for SegmentSetup { name, .. } in segments {
        let known = fleet.segment_number(name);
        if known.is_none() && !numbers.contains_key(name) {
            let (segment, name) = (free, name.clone());
            events.push(Event::SegmentNamed { segment, name });
            free = SegmentId(free.0.saturating_add(1));
        }
        let last = SegmentId(free.0.saturating_sub(1));
        numbers.entry(name.clone()).or_insert(known.unwrap_or(last));
    }
    (numbers, events)
}

/// The event of a change of the authority, with the word of the one that signs until then.
fn succession(mesh: &Mesh, new: AuthorityId) -> Result<Event, VerifyError> {
    let word = Succession { mesh: mesh.id, new };
    let signed = Signed::sign(&word, &mesh.authority)?;
    let old = mesh.authority.public();
    Ok(Event::AuthorityRotated { old, new, signed })
}

/// Enrolments by good tokens: as many as handshakes can be computed, and no more than the disk commits.
const ENROLMENTS_PER_SECOND: u32 = 500;
const ENROLMENT_BURST: u32 = 500;
