//! The words of enrolled nodes: Hello, evidence, acknowledgements, reports, places. Each speaks only about
//! itself; evidence alone changes anything durable. Refuses what unknown keys say: that is enrolment's.
//!
//! The file is long because every word of a node is answered here.

use crate::announced::Announced;
use crate::by::By;
use crate::clock::Now;
use crate::connections::{Connections, MIB_A_DAY, MOST_OBSERVED, Observed, Quality, Report};
use crate::counts::{Counts, EvidenceResult};
use crate::effect::{ConnectionId, Output};
use crate::event::{Accepted, Event};
use crate::journal::{Journal, Unwritten};
use crate::mesh::Mesh;
use crate::push::Push;
use crate::rotate::Rotation;
use crate::segment::Segment;
use crate::segments::Segments;
use ::admin::Refused;
use jiff::Timestamp;
use keys::{Epoch, NodeId, SegmentId};
use policy::{Subject, Unacceptable};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use wire::Ask;
use wire::admin::EvidenceAnswer;
use wire::endpoints::PlacesMark;
use wire::evidence::{Attested, EvidenceError, payload_digest, peek};
use wire::log::LogEnd;
use wire::message::{
    Again, Hello, InterfaceReport, MAX_FAULTS, MAX_HELD, MAX_NODE_FAULT_LEN, NodeFault, PeerReport,
    Phase, Refusal, RefusedEvidence, ToController, ToNode, TunnelReport,
};
use wire::segment::{MAX_SEGMENTS, Unplaced};
use wire::{Digest, Mark, NodeName, Prefix, Signed, Verified, Way};

/// The part that hears enrolled nodes.
#[derive(Debug)]
pub(crate) struct Ingest<'e> {
    pub(crate) mesh: &'e Mesh,
    pub(crate) journal: &'e mut Journal,
    pub(crate) segments: &'e mut Segments,
    pub(crate) connections: &'e mut Connections,
    pub(crate) counts: &'e mut Counts,
    pub(crate) staged: &'e mut Staged,
    pub(crate) output: &'e mut Output,
}

/// Evidence that the policy takes and that is not durable yet: what arrives together becomes durable in one
/// commit. At most one run of each node, because the next is judged by what is on record of that one.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    runs: Vec<StagedRun>,
    /// The events that put each of them on record, in the same order.
    events: Vec<Event>,
    /// When the newest was staged.
    at: Option<Now>,
}

#[derive(Debug)]
struct StagedRun {
    id: ConnectionId,
    name: NodeName,
    digest: [u8; 32],
    envelope: Vec<u8>,
    /// The bytes that it takes of what its node may fill.
    kept: u32,
}

/// The memory of a node, by its word: the newest mark, the end of the log, the updates that it holds, and up to where it was
/// told of places.
type Memory = (
    Vec<Signed<Mark>>,
    Option<LogEnd>,
    Vec<Digest>,
    Vec<PlacesMark>,
);

impl Staged {
    /// When the newest was staged; `None`: there is none.
    pub(crate) fn at(&self) -> Option<Now> {
        self.at.filter(|_| !self.runs.is_empty())
    }
}

impl Ingest<'_> {
    /// A node opens its session. If another process has it and may be there, that one is asked first: with two
    /// machines that take the session from each other, neither would hear what it needs.
    pub(crate) fn hello(&mut self, id: ConnectionId, name: &NodeName, hello: Hello, now: Now) {
        match self.connections.rival(id, name, &hello.instance, now) {
            None => self.admit(id, name, hello, now),
            Some(first) => {
                self.connections.claim(id, name, hello, self.output, now);
                self.output.send(first, ToNode::RollCall);
            }
        }
    }

    /// A node's session begins, and it is told everything that it needs.
    pub(crate) fn admit(&mut self, id: ConnectionId, name: &NodeName, hello: Hello, now: Now) {
        let printable = !hello.software.chars().any(char::is_control);
        if hello.software.len() > MAX_SOFTWARE_LEN || !printable {
            self.close(id, Refusal::Protocol);
            return;
        }
        let Some(remote) = self
            .connections
            .serve(id, name, hello.instance, self.output, now)
        else {
            return;
        };
        let skew = self.clock(name, hello.unix_ms, now);
        let live = self.connections.live_mut(name);
        live.software = Some(hello.software);
        tracing::info!(node = %name, skew_ms = skew, "node connected");
        tracing::debug!(node = %name, %remote, "node's address");
        if hello.holds.len() > MAX_HELD || hello.told.len() > MAX_HELD {
            self.close(id, Refusal::Protocol);
            return;
        }
        self.welcome(
            id,
            name,
            (hello.newest, hello.log, hello.holds, hello.told),
            now,
        );
        let Hello {
            listen_port,
            advertised,
            addresses,
            ..
        } = hello;
        self.announce(id, name, (listen_port, advertised, addresses), now);
        self.output.touch();
    }

    /// A node that is served says something.
    pub(crate) fn message(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        message: ToController,
        now: Now,
    ) {
        match message {
            ToController::Enrol(_) | ToController::Hello(_) => self.close(id, Refusal::Protocol),
            ToController::Present => self.present(id, name, now),
            ToController::Kept { log } => self.kept(id, log, now),
            ToController::Evidence { envelope } => self.evidence(id, name, &envelope, now),
            ToController::Ack {
                segment,
                epoch,
                phase,
            } => self.ack(id, name, (segment, epoch), phase, now),
            ToController::Whole => self.whole(id, now),
            ToController::Report {
                segment,
                peers,
                interface,
            } => self.observe(name, segment, (peers, interface), now),
            ToController::Advertise { segment, prefixes } => {
                self.advertise(id, name, (segment, prefixes), now);
            }
            ToController::Join { ask } => self.join(id, name, &ask, now),
            ToController::Condition { faults } => self.condition(id, name, faults),
            ToController::Tunnels {
                segment,
                peers,
                unix_ms,
            } => {
                self.clock(name, unix_ms, now);
                self.tunnels(name, segment, &peers, now);
            }
            ToController::Endpoints {
                listen_port,
                advertised,
                addresses,
            } => self.announce(id, name, (listen_port, advertised, addresses), now),
        }
    }

    /// A node says what its wall clock shows; its skew. Either clock may be set at any time, so that the skew of a Hello
    /// says nothing of later.
    fn clock(&mut self, name: &NodeName, unix_ms: u64, now: Now) -> i64 {
        let theirs = i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let skew = theirs.saturating_sub(now.wall.as_millisecond());
        self.connections.live_mut(name).clock_skew_ms = Some(skew);
        skew
    }

    /// A node says what is wrong with it.
    fn condition(&mut self, id: ConnectionId, name: &NodeName, faults: Vec<NodeFault>) {
        let is_odd = |it: &NodeFault| it.what.is_empty() || it.what.len() > MAX_NODE_FAULT_LEN;
        if faults.len() > MAX_FAULTS || faults.iter().any(is_odd) {
            self.close(id, Refusal::Protocol);
            return;
        }
        let live = self.connections.live_mut(name);
        if live.condition != faults {
            live.condition = faults;
            self.output.touch();
        }
    }

    /// A node has kept another end of the log than the one that its updates were proved from.
    fn kept(&mut self, id: ConnectionId, log: LogEnd, now: Now) {
        let Some(session) = self.connections.session(id) else {
            return;
        };
        session.kept.set(self.journal.kept(Some(log)));
        self.again(id, now);
    }

    /// Changes were of no use to a node, because it does not hold what they build on.
    fn whole(&mut self, id: ConnectionId, now: Now) {
        let Some(session) = self.connections.session(id) else {
            return;
        };
        // Nobody needs again, at once, an update that was sent whole.
        if !session.holds.take().is_empty() {
            self.again(id, now);
        }
    }

    /// Sends what is in force and on its way once more.
    fn again(&mut self, id: ConnectionId, now: Now) {
        let Some(session) = self.connections.session(id) else {
            return;
        };
        let node = session.peer;
        let mut push = Push {
            mesh: self.mesh,
            journal: self.journal,
            connections: self.connections,
            output: self.output,
        };
        push.updates(id, &node, self.segments, &[], now);
    }

    /// A node's process is there.
    fn present(&mut self, id: ConnectionId, name: &NodeName, now: Now) {
        let told = self.connections.handle_present(id, name, self.output, now);
        let Some(duplicate) = told else { return };
        tracing::warn!(node = %name, "{duplicate}");
        let event = Event::duplicate_seen(name, &duplicate);
        // For whoever reads the log later; the node's owner has been told.
        let _ = self.journal.commit(None, &[event], &[], self.output, now);
    }

    /// Works out where a node is: where it says, or else where it is seen.
    pub(crate) fn relocate(&mut self, id: ConnectionId, name: &NodeName, now: Now) {
        let Some(session) = self.connections.session(id) else {
            return;
        };
        let ip = session.remote.ip();
        let live = self.connections.live_mut(name);
        let endpoints = live.announced.endpoints(ip);
        if live.endpoints != endpoints {
            live.endpoints.clone_from(&endpoints);
            let fleet = self.journal.fleet();
            let node = fleet.node(name).map(|node| node.id);
            let mut is_news = false;
            for segment in self.segments.iter_mut() {
                let member = node.filter(|node| segment.is_member(fleet, node));
                is_news |= member.is_some_and(|it| segment.places_mut().post(it, &endpoints));
            }
            if is_news && self.connections.moves(name, now) {
                let mut push = Push {
                    mesh: self.mesh,
                    journal: self.journal,
                    connections: self.connections,
                    output: self.output,
                };
                self.segments.iter().for_each(|it| push.places(it));
            }
            self.output.touch();
        }
    }

    /// The node's place, then all that it needs of epochs and peers.
    fn welcome(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        (newest, log, holds, told): Memory,
        now: Now,
    ) {
        let Some(node) = self.journal.fleet().node(name) else {
            return;
        };
        let own = self.segments.of(node);
        let places = own.filter_map(|it| it.place(self.mesh, name, node));
        let places = places.collect();
        let invited = node.invited().iter();
        let invited = invited.filter_map(|id| self.segments.find(*id));
        let invited: Vec<_> = invited.map(|it| it.name().clone()).collect();
        let node = node.id;
        let Some(session) = self.connections.session(id) else {
            return;
        };
        // First the keys, by which the node believes the rest.
        if let Some(words) = self.journal.words_of_authorities() {
            self.output.send(id, words);
        }
        let welcome = ToNode::Welcome {
            places,
            unix_ms: now.unix_ms(),
            observed: session.remote,
        };
        self.output.send(id, welcome);
        for name in invited {
            self.output.send(id, ToNode::Invited { name });
        }
        let marks = self.proven(newest);
        for mark in &marks {
            self.journal.witness(name, mark, self.output);
        }
        if let Some(session) = self.connections.session(id) {
            session.kept.set(self.journal.kept(log));
            session.holds.replace(holds);
            let segments = self.segments.iter();
            let since = segments.map(|it| (it.id(), it.places().since(&told)));
            session.told.replace(since.collect());
        }
        let mut push = Push {
            mesh: self.mesh,
            journal: self.journal,
            connections: self.connections,
            output: self.output,
        };
        push.welcome(id, &node, self.segments, &marks, now);
    }

    /// The marks that a node remembers, as far as the authority signed them for this mesh. The mere word of a
    /// node is worth nothing: any member could claim an epoch that never was, and raise a false alarm.
    fn proven(&self, newest: Vec<Signed<Mark>>) -> Vec<Verified<Mark>> {
        // A node that was away has the word of an authority before.
        let trusted = self.journal.fleet().authorities();
        let newest = newest.into_iter().take(MAX_SEGMENTS);
        let marks = newest.filter_map(|mark| mark.verify(&trusted).ok());
        marks.filter(|mark| mark.mesh == self.mesh.id).collect()
    }

    /// The node says where it can be reached.
    fn announce(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        (listen_port, advertised, addresses): (u16, Vec<SocketAddr>, Vec<IpAddr>),
        now: Now,
    ) {
        let is_mesh = |address: IpAddr| self.segments.contain(address);
        let Some(announced) = Announced::new(listen_port, advertised, addresses, is_mesh) else {
            self.close(id, Refusal::Protocol);
            return;
        };
        self.connections.live_mut(name).announced = announced;
        self.relocate(id, name, now);
    }

    /// A node asks for a place in one more segment.
    /// A node says which networks it carries packets for.
    fn advertise(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        (segment, prefixes): (SegmentId, Vec<Prefix>),
        now: Now,
    ) {
        if let Err(rule) = wire::prefix::check_list(&prefixes) {
            tracing::info!(node = %name, rule, "advertises what is no list of routes");
            return self.close(id, Refusal::Protocol);
        }
        let mut rotation = Rotation {
            mesh: self.mesh,
            journal: self.journal,
            segments: self.segments,
            connections: self.connections,
            counts: self.counts,
            output: self.output,
        };
        rotation.advertise(name, segment, prefixes, now);
    }

    fn join(&mut self, id: ConnectionId, name: &NodeName, ask: &Ask, now: Now) {
        let Some(segment) = ask.name.clone() else {
            return self.close(id, Refusal::Protocol);
        };
        let joined = if self.connections.live_mut(name).joins.take(now.boot) {
            let mut rotation = Rotation {
                mesh: self.mesh,
                journal: self.journal,
                segments: self.segments,
                connections: self.connections,
                counts: self.counts,
                output: self.output,
            };
            rotation.join_segment(name, ask, now)
        } else {
            Err(Unplaced::Busy)
        };
        let joined = match joined {
            Ok(joined) => joined.segment(),
            Err(reason) => {
                tracing::info!(node = %name, %segment, %reason, "no place in a segment");
                let name = segment;
                return self.output.send(id, ToNode::NotPlaced { name, reason });
            }
        };
        let segment = self.segments.get(joined);
        let node = self.journal.fleet().node(name);
        if let Some((node, place)) =
            node.and_then(|it| Some((it.id, segment.place(self.mesh, name, it)?)))
        {
            self.output.send(id, ToNode::Placed(place));
            let mut push = Push {
                mesh: self.mesh,
                journal: self.journal,
                connections: self.connections,
                output: self.output,
            };
            push.segment(id, &node, segment, now);
        }
        self.output.touch();
    }

    /// The segment of this number, if it is one of a node's.
    fn own(&self, name: &NodeName, segment: SegmentId) -> Option<&Segment> {
        let node = self.journal.fleet().node(name)?;
        self.segments.find(segment).filter(|_| node.is_in(segment))
    }

    fn ack(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        (segment, epoch): (SegmentId, Epoch),
        phase: Phase,
        now: Now,
    ) {
        // A node that was taken out has not heard of it yet.
        let Some(own) = self.own(name, segment) else {
            return;
        };
        let newest = own.newest().map(|span| span.epoch).unwrap_or_default();
        let held = own.digest_of(epoch);
        if let (Some(session), Some(digest)) = (self.connections.session(id), held) {
            session.hold(digest);
        }
        let live = self.connections.live_mut(name);
        let before = live.acked.get(&segment);
        let news = match phase {
            // Says that all is well so far; the status shows what is in force.
            Phase::Installed => false,
            Phase::Activated | Phase::Dark => {
                epoch <= newest && before.is_none_or(|(acked, _)| *acked <= epoch)
            }
        };
        if news && before != Some(&(epoch, phase)) {
            live.acked.insert(segment, (epoch, phase));
            if let Some(segment) = self.segments.find_mut(segment) {
                segment.followed_by_one_more(epoch, now);
            }
            self.output.touch();
        }
    }

    /// Keeps what a node says of its tunnels until its report comes.
    fn tunnels(&mut self, name: &NodeName, segment: SegmentId, peers: &[TunnelReport], now: Now) {
        if self.own(name, segment).is_none() {
            return;
        }
        let fleet = self.journal.fleet();
        let is_node = |it: &&TunnelReport| fleet.name_of(&it.node).is_some();
        let quality = |it: &TunnelReport| {
            let age = it.handshake_age.map(|age| Duration::from_secs(age.into()));
            let quality = Quality {
                handshake: age.map(|age| now.boot.saturating_sub(age)),
                echoes: it.echoes,
                lost: it.lost.min(it.echoes),
            };
            (it.node, quality)
        };
        let tunnels = peers.iter().filter(is_node).map(quality).collect();
        let live = self.connections.live_mut(name);
        live.tunnels.insert(segment, tunnels);
    }

    fn observe(
        &mut self,
        name: &NodeName,
        segment: SegmentId,
        (peers, interface): (Vec<PeerReport>, InterfaceReport),
        now: Now,
    ) {
        if self.own(name, segment).is_none() {
            return;
        }
        let tunnels = self.connections.live_mut(name).tunnels.remove(&segment);
        let tunnels = tunnels.unwrap_or_default();
        let fleet = self.journal.fleet();
        let live = self.connections.live(name);
        let last = live.and_then(|live| live.reports.get(&segment));
        let last = last.cloned().unwrap_or_default();
        let (in_force, connections) = (self.segments.find(segment), &*self.connections);
        let Some(own) = fleet.node(name).map(|node| node.id) else {
            return;
        };
        let said: BTreeMap<_, _> = peers
            .into_iter()
            .filter_map(|report| {
                let peer = fleet.name_of(&report.node)?.clone();
                let mut observed = Observed {
                    session_epoch: report.session_epoch,
                    rtt_v4_us: report.rtt_v4_us,
                    rtt_v6_us: report.rtt_v6_us,
                    ways: [report.way_v4.checked(), report.way_v6.checked()],
                    tunnel: tunnels.get(&report.node).copied(),
                    dark_since: None,
                    at: now.boot,
                };
                // Only time in which both could have had a tunnel counts.
                let should = in_force.is_some_and(|it| it.connects_in_force(&own, &report.node))
                    && connections
                        .live(&peer)
                        .is_some_and(|it| it.connection.is_some());
                if should && observed.is_dark() {
                    let before = last.observes.get(&peer).filter(|it| it.counts(now.boot));
                    let before = before.and_then(|it| it.dark_since);
                    observed.dark_since = before.or(Some(now.boot));
                }
                // Of a node that is in no segment with this one, it can know nothing.
                let is_peer = fleet.node(&peer)?.is_in(segment);
                is_peer.then_some((peer, observed))
            })
            .collect();
        let before = &last.observes;
        let is_same = before.len() == said.len()
            && said
                .iter()
                .all(|(peer, it)| before.get(peer).is_some_and(|old| it.says(old)));
        let interface = interface.bounded();
        let is_news = !is_same || last.interface != interface;
        let observes = merged(last.observes, said, now.boot);
        self.relay_ways(name, segment, &observes);
        let report = Report {
            observes,
            interface,
            at: now.boot,
        };
        let live = self.connections.live_mut(name);
        live.reports.insert(segment, report);
        if is_news {
            self.output.touch();
        }
    }

    /// Tells each peer that a node's packets to it do not take the tunnel: all that it sees itself is silence. It
    /// forgets what is not said again with the next reports.
    fn relay_ways(
        &mut self,
        name: &NodeName,
        segment: SegmentId,
        observes: &BTreeMap<NodeName, Observed>,
    ) {
        let fleet = self.journal.fleet();
        let Some(node) = fleet.node(name).map(|node| node.id) else {
            return;
        };
        let is_astray = |it: &Observed| it.ways.iter().any(Way::is_astray);
        let live = self.connections.live(name);
        let before = live.and_then(|live| live.reports.get(&segment));
        let before = before.map(|report| &report.observes);
        let known = before.into_iter().flat_map(BTreeMap::keys);
        let peers: BTreeSet<&NodeName> = observes.keys().chain(known).collect();
        for peer in peers.into_iter().filter(|peer| *peer != name) {
            let live = self.connections.live(peer);
            let Some(id) = live.and_then(|live| live.connection) else {
                continue;
            };
            let now = observes.get(peer);
            let was_astray = before.and_then(|it| it.get(peer)).is_some_and(is_astray);
            if now.is_some_and(is_astray) || was_astray {
                let ways = now.map(|it| it.ways.clone()).unwrap_or_default();
                let ways = ToNode::Ways {
                    segment,
                    node,
                    ways,
                };
                self.output.send(id, ways);
            }
        }
    }

    fn evidence(&mut self, id: ConnectionId, name: &NodeName, envelope: &[u8], now: Now) {
        if self.staged.runs.iter().any(|run| run.name == *name) {
            self.commit_staged(now);
        }
        let digest = payload_digest(envelope).unwrap_or_default();
        match self.take_evidence(name, envelope, now) {
            Ok((event, kept)) => {
                self.staged.at = Some(now);
                self.staged.runs.push(StagedRun {
                    id,
                    name: name.clone(),
                    digest,
                    envelope: envelope.to_vec(),
                    kept,
                });
                self.staged.events.push(event);
            }
            Err(error) => self.answer((id, name), digest, envelope, Err(error), now),
        }
    }

    /// An operator hands in evidence about a node. It is held against the same rules, and is on record as handed in
    /// at the word of `by`; whoever signed it vouches for it.
    pub(crate) fn handed_in(
        &mut self,
        name: &NodeName,
        envelope: &[u8],
        by: Option<By>,
        now: Now,
    ) -> Result<EvidenceAnswer, Refused> {
        if self.journal.fleet().node(name).is_none() {
            let hint = "`meshctl node list` shows the nodes that are enrolled";
            return Err(Refused::new(404, format!("no node {name}"), hint));
        }
        self.commit_staged(now);
        let digest = Digest(payload_digest(envelope).unwrap_or_default());
        let result = self
            .take_evidence(name, envelope, now)
            .and_then(|(event, kept)| {
                let events = [event];
                self.journal.commit(by, &events, &[], self.output, now)?;
                self.connections
                    .live_mut(name)
                    .kept_bytes
                    .take_many(kept, now.boot);
                self.segments.want_join_of(self.journal.fleet(), name, now);
                Ok(())
            });
        let counted = result.as_ref().err().map(EvidenceResult::from);
        self.counts
            .evidence
            .count(counted.unwrap_or(EvidenceResult::Accepted));
        let again = result
            .as_ref()
            .err()
            .is_some_and(|error| match error.again() {
                Again::Later => !self.is_too_old(envelope, now),
                Again::Anew | Again::Never => false,
            });
        Ok(EvidenceAnswer {
            digest: digest.to_string(),
            accepted: result.is_ok(),
            reason: result.err().map(|error| error.to_string()),
            again,
        })
    }

    /// Makes durable what is staged, and answers.
    pub(crate) fn commit_staged(&mut self, now: Now) {
        let Staged { runs, events, .. } = std::mem::take(self.staged);
        if runs.is_empty() {
            return;
        }
        let written = self.journal.commit(None, &events, &[], self.output, now);
        for run in runs {
            if written.is_ok() {
                let live = self.connections.live_mut(&run.name);
                live.kept_bytes.take_many(run.kept, now.boot);
                let fleet = self.journal.fleet();
                self.segments.want_join_of(fleet, &run.name, now);
            }
            let result = written.map_err(NotAccepted::from);
            self.answer((run.id, &run.name), run.digest, &run.envelope, result, now);
        }
    }

    /// Tells a node what became of its evidence.
    fn answer(
        &mut self,
        (id, name): (ConnectionId, &NodeName),
        digest: [u8; 32],
        envelope: &[u8],
        result: Result<(), NotAccepted>,
        now: Now,
    ) {
        let counted = result.as_ref().err().map(EvidenceResult::from);
        let counted = counted.unwrap_or(EvidenceResult::Accepted);
        self.counts.evidence.count(counted);
        let refused = result.err().map(|error| {
            let mut reason = error.to_string();
            reason.truncate(reason.floor_char_boundary(MAX_REFUSAL_LEN));
            let again = error.again();
            let is_over = again != Again::Never && self.is_too_old(envelope, now);
            RefusedEvidence {
                reason,
                again: if is_over { Again::Never } else { again },
            }
        });
        let live = self.connections.live_mut(name);
        let reason = refused.as_ref().map(|refused| refused.reason.clone());
        if let Some(reason) = reason
            .as_ref()
            .filter(|it| live.last_refusal.as_ref() != Some(it))
        {
            tracing::info!(node = %name, reason, "evidence refused");
        }
        live.last_refusal = reason;
        self.output
            .send(id, ToNode::EvidenceResult { digest, refused });
    }

    /// The event that puts evidence on record, and the bytes that it takes there, if the policy takes it.
    fn take_evidence(
        &mut self,
        name: &NodeName,
        envelope: &[u8],
        now: Now,
    ) -> Result<(Event, u32), NotAccepted> {
        let node = self.journal.fleet().node(name);
        let node = node.ok_or(NotAccepted::NotEnrolled)?;
        // An evicted node returns by an operator's word alone, so that its evidence could only fill the log.
        if node.evicted() {
            return Err(NotAccepted::Evicted);
        }
        if !self.connections.live_mut(name).evidence.take(now.boot) {
            return Err(NotAccepted::TooMuch);
        }
        let accepted = self.verified(name, node.id, envelope, now)?;
        tracing::debug!(node = %name, score = accepted.overall, suite = accepted.suite, "evidence accepted");
        let event = Event::EvidenceAccepted(Box::new(accepted));
        // Accepted evidence is kept for ever: the log must not be one node's to fill.
        let kept = u32::try_from(event.columns().1.len() + EVENT_LEN).unwrap_or(u32::MAX);
        let live = self.connections.live_mut(name);
        if !live.kept_bytes.has(kept, now.boot) {
            return Err(NotAccepted::TooMuchToday);
        }
        Ok((event, kept))
    }

    /// Whether evidence could not count any more, by what it says of itself: its node need not go on sending it.
    fn is_too_old(&self, envelope: &[u8], now: Now) -> bool {
        let Some(run) = peek(envelope) else {
            return false;
        };
        let age = now.wall.duration_since(run.finished_at).as_secs();
        let segments = self.segments.iter();
        let oldest = segments.map(|segment| segment.policy().oldest_seconds());
        let oldest = oldest.max().unwrap_or_default();
        u64::try_from(age).is_ok_and(|age| age > oldest)
    }

    /// The evidence in an envelope, once the policy of every segment of its node takes it. One record of a node is judged
    /// in all of them: evidence that one of them must refuse, for its signer, its age or a challenge that it
    /// does not answer, would otherwise count there by way of another.
    fn verified(
        &self,
        name: &NodeName,
        id: NodeId,
        envelope: &[u8],
        now: Now,
    ) -> Result<Accepted, NotAccepted> {
        let fleet = self.journal.fleet();
        let mut taken = Err(NotAccepted::NotEnrolled);
        let node = fleet.node(name).ok_or(NotAccepted::NotEnrolled)?;
        for segment in self.segments.of(node) {
            let policy = segment.policy();
            // First the signature, bound to the key that this connection proved and to this mesh: nothing of an
            // envelope may be looked at before, because anybody could have written it.
            let attested = Attested::verify(envelope, &id, self.mesh.id, &policy.evaluator_keys())?;
            let (run, signer) = (attested.benchmark(), attested.signer());
            let history = fleet.history(node, run, &signer, now);
            let groups = &node.groups;
            policy::accept(
                policy,
                &history,
                &attested,
                Subject { name, groups },
                now.wall,
            )?;
            let oldest = Duration::from_secs(policy.oldest_seconds());
            let counts_from = now.wall.checked_sub(oldest).unwrap_or(Timestamp::MIN);
            node.has_room_for(run, &signer, counts_from)?;
            taken = Ok(accepted(name, &attested, envelope, now));
        }
        taken
    }

    fn close(&mut self, id: ConnectionId, reason: Refusal) {
        self.connections.close(id, reason, self.output);
    }
}

/// Why evidence does not enter a node's record, in words for its operator.
#[derive(Debug, thiserror::Error)]
enum NotAccepted {
    #[error("too much evidence at once: emit it less often")]
    TooMuch,
    #[error("over {MIB_A_DAY} MiB of evidence a day: emit it less often, or smaller")]
    TooMuchToday,
    #[error("this node is not enrolled, or is in no segment")]
    NotEnrolled,
    #[error("this node is evicted: its evidence is not taken until it is readmitted")]
    Evicted,
    #[error(transparent)]
    Unverified(#[from] EvidenceError),
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
    #[error("the controller cannot write its log: try again later")]
    Unwritten(#[from] Unwritten),
}

impl NotAccepted {
    /// Whether the same evidence may be accepted another time.
    fn again(&self) -> Again {
        match self {
            Self::Unacceptable(Unacceptable::TooManySuites(_))
            | Self::TooMuch
            | Self::TooMuchToday
            | Self::NotEnrolled
            | Self::Evicted
            | Self::Unwritten(_)
            | Self::Unacceptable(Unacceptable::Future { .. }) => Again::Later,
            Self::Unacceptable(Unacceptable::UnknownChallenge) => Again::Anew,
            Self::Unverified(_)
            | Self::Unacceptable(
                Unacceptable::NodeSigner
                | Unacceptable::EvaluatorSigner
                | Unacceptable::Pinned(_)
                | Unacceptable::OutOfScope { .. }
                | Unacceptable::NoChallenge
                | Unacceptable::NotNewer(_)
                | Unacceptable::NonceUsed,
            ) => Again::Never,
        }
    }
}

impl From<&NotAccepted> for EvidenceResult {
    fn from(error: &NotAccepted) -> Self {
        match error {
            NotAccepted::TooMuch | NotAccepted::TooMuchToday => Self::TooMuch,
            NotAccepted::Evicted => Self::Evicted,
            NotAccepted::NotEnrolled => Self::NotEnrolled,
            NotAccepted::Unverified(error) => error.into(),
            NotAccepted::Unacceptable(error) => error.into(),
            NotAccepted::Unwritten(_) => Self::Unwritten,
        }
    }
}

fn accepted(name: &NodeName, attested: &Attested, envelope: &[u8], now: Now) -> Accepted {
    let run = attested.benchmark();
    Accepted {
        name: name.clone(),
        digest: wire::Digest(attested.digest()),
        overall: run.overall,
        metrics: run.metrics.clone(),
        lower_is_better: run.lower_is_better.clone(),
        samples: run.samples_completed,
        harness: run.harness.clone(),
        suite: run.suite.clone(),
        suite_version: run.suite_version.clone(),
        finished_at: run.finished_at,
        signer: attested.signer(),
        nonce: run.nonce.clone(),
        boot_ms: now.boot_ms(),
        envelope: String::from_utf8_lossy(envelope).into_owned(),
    }
}

/// The bytes that an event takes in the log beside its body: number, time, kind, hash, and the pages' share.
const EVENT_LEN: usize = 100;
const MAX_SOFTWARE_LEN: usize = 64;
const MAX_REFUSAL_LEN: usize = 256;

/// The words of a node about its peers, with its newest report. Those that it does not say again leave after a while, and
/// sooner where that is much: nobody can have the controller keep more than a report and a little.
fn merged(
    mut before: BTreeMap<NodeName, Observed>,
    said: BTreeMap<NodeName, Observed>,
    now: Duration,
) -> BTreeMap<NodeName, Observed> {
    before.retain(|peer, it| it.counts(now) && !said.contains_key(peer));
    let room = MOST_OBSERVED.saturating_sub(said.len());
    if before.len() > room {
        let mut times: Vec<Duration> = before.values().map(|it| it.at).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        // Those of one report come and go together.
        let oldest = times.get(room).copied().unwrap_or_default();
        before.retain(|_, it| it.at > oldest);
    }
    before.extend(said);
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(numbers: std::ops::Range<usize>, at: u64) -> BTreeMap<NodeName, Observed> {
        let observed = Observed {
            session_epoch: None,
            rtt_v4_us: None,
            rtt_v6_us: None,
            ways: Default::default(),
            tunnel: None,
            dark_since: None,
            at: Duration::from_secs(at),
        };
        let name = |number: usize| format!("node-{number:03}").parse().unwrap();
        numbers.map(|it| (name(it), observed.clone())).collect()
    }

    #[test]
    fn of_a_nodes_word_no_more_is_kept_than_a_report_and_a_little() {
        let now = Duration::from_secs;
        let all = merged(said(0..30, 10), said(30..60, 20), now(20));
        assert_eq!(all.len(), 60, "all of it, while it is little");
        // The oldest leave, whole reports at a time.
        let all = merged(all, said(60..80, 30), now(30));
        assert!(all.len() <= MOST_OBSERVED);
        assert!(all == merged(said(30..60, 20), said(60..80, 30), now(30)));
        // A report that is longer is kept as it is.
        assert_eq!(merged(all, said(100..300, 40), now(40)).len(), 200);
        let long_ago = merged(said(0..30, 10), said(30..60, 200), now(200));
        assert_eq!(long_ago.len(), 30);
    }
}
