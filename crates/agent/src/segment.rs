//! The parts of an agent that each segment has to itself: the node's place in it, its epochs and marks, the probes
//! of the peers there, and how the interface stands. Refuses to know what the node has once: identity, control
//! channel, evidence, the controller's log, and where other nodes are.

use crate::control::Control;
use crate::effect::{Now, SegmentConfig};
use crate::marks::Marks;
use crate::paths::{Heard, PathLimit, Paths};
use crate::pings::{self, Ping, PingResult, Pings, Round, Target};
use crate::places::{Gaps, Whereabouts};
use crate::sample::Sample;
use crate::ways::{PeerWays, Ways};
use epoch::Member;
use epoch::member::{Identity, View};
use keys::{NodeId, SegmentId, WgPublicKey};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use tunnel::{Inside, PeerSnapshot};
use wire::message::InterfaceReport;
use wire::{Place, ToController, Way};

/// One segment.
pub(crate) struct Segment {
    pub(crate) place: Place,
    pub(crate) member: Member,
    pub(crate) marks: Marks,
    pub(crate) ways: Ways,
    pub(crate) pings: Pings,
    sample: Sample,
    /// The paths to peers, as far as they are known.
    paths: Paths,
    gaps: Gaps,
    /// How the interface stands, as the daemon said last.
    pub(crate) interface: InterfaceReport,
}

impl Segment {
    /// A segment of which nothing is known but what the disk holds.
    pub(crate) fn new(config: SegmentConfig, derive_at_once: usize) -> Self {
        let SegmentConfig {
            place,
            wg,
            high_water,
            mark,
        } = config;
        let identity = Identity {
            node: place.node,
            wg,
            mesh: place.mesh,
            segment: place.segment,
        };
        let mut member = Member::new(identity, high_water);
        member.set_derive_at_once(derive_at_once);
        Self {
            place,
            member,
            marks: Marks::new(mark),
            ways: Ways::default(),
            pings: Pings::default(),
            sample: Sample::default(),
            paths: Paths::default(),
            gaps: Gaps::default(),
            interface: InterfaceReport::default(),
        }
    }

    /// This node's mesh addresses in it.
    pub(crate) fn own(&self) -> [IpAddr; 2] {
        [self.place.v4.0.into(), self.place.v6.0.into()]
    }

    /// Takes the sizes of packets that a round has found to pass; whether packets to a peer are held to another
    /// size from now on. `full` is the size of a full packet.
    pub(crate) fn handle_sizes(&mut self, round: &Round, full: u32, now: Now) -> bool {
        let mut changed = false;
        for echoes in &round.results {
            let heard = Heard {
                small: echoes.v4.is_ok(),
                large: &echoes.large,
            };
            let target = &echoes.target;
            let node = target.node;
            changed |= self
                .paths
                .handle_round(node, &target.name, &heard, full, now.boot);
        }
        changed
    }

    /// Takes a whole round of probes; what to say of it. `peers` is what the tunnel shows of them.
    pub(crate) fn handle_round(
        &mut self,
        round: Round,
        peers: &[PeerSnapshot],
        places: &Whereabouts,
        now: Now,
    ) -> [ToController; 2] {
        self.handle_ways(round.ways);
        self.sample.handle_round(peers, now.boot);
        let (own, view) = (self.place.node, self.member.view());
        let (results, known) = (round.results, (&self.ways, places));
        let (peers, tunnels) = self
            .pings
            .handle_round(results, &own, &view, peers, known, now);
        self.gaps.tell(places, &view, &own);
        let segment = self.place.segment;
        let tunnels = ToController::Tunnels {
            segment,
            peers: tunnels,
            unix_ms: u64::try_from(now.wall.as_millisecond()).unwrap_or(0),
        };
        let report = ToController::Report {
            segment,
            peers,
            interface: self.interface.clone(),
        };
        [tunnels, report]
    }

    /// Takes where the kernel sends what is meant for the peers.
    pub(crate) fn handle_ways(&mut self, mut ways: Vec<PeerWays>) {
        // Those that were not asked about stay as they are, for as long as their echoes count.
        let not_asked = self.ways.but(&ways);
        ways.extend(not_asked.filter(|it| self.pings.knows(&it.node)));
        self.ways.handle_ways(ways);
    }

    /// A peer says which ways its packets to this node take.
    pub(crate) fn handle_theirs(&mut self, node: NodeId, ways: [Way; 2], now: Now) {
        let view = self.member.view();
        let updates = [view.update, view.next].into_iter().flatten();
        let mut name = updates.filter_map(|update| Some(update.member(&node)?.name.clone()));
        let Some(peer) = name.next() else { return };
        if self.ways.handle_theirs(node, ways, now.boot) {
            match &self.ways.faults_of_theirs(&node, self.own(), now.boot)[..] {
                [] => tracing::info!(%peer, "its packets to this node take the tunnel again"),
                faults => tracing::warn!(%peer, "{}", faults.join("; ")),
            }
        }
    }

    /// Forgets the ways of nodes that no update makes a peer any more.
    pub(crate) fn forget_strangers(&mut self) {
        let view = self.member.view();
        let updates = [view.update, view.next];
        let is_peer = |node: &NodeId| updates.iter().flatten().any(|it| it.member(node).is_some());
        self.ways.forget_strangers(is_peer);
    }

    /// Whom to probe next, and with which sizes.
    pub(crate) fn targets(&mut self, peers: &[PeerSnapshot], full: u32) -> Vec<Target> {
        let view = self.member.view();
        let targets = pings::targets(&self.place.node, &view, &mut self.sample);
        let names = |node: &NodeId| {
            let names = |update: &wire::EpochUpdate| {
                update.member(node).is_some() || update.exclusion(node).is_some()
            };
            view.update.is_some_and(names)
        };
        self.paths.retain(names);
        let endpoints = peers.iter().map(|peer| (peer.key, peer.endpoint));
        let endpoints: HashMap<_, _> = endpoints.collect();
        let tried = |(mut target, key): (Target, Option<WgPublicKey>)| {
            let endpoint = key.and_then(|key| *endpoints.get(&key)?);
            if let Some(endpoint) = endpoint.and_then(tunnel::Path::udp) {
                let tried = self.paths.sizes(target.node, endpoint.ip(), full);
                (target.sizes, target.search) = (tried.sizes, tried.search);
            }
            target
        };
        targets.into_iter().map(tried).collect()
    }
}

/// One segment of an agent, as it stands.
#[derive(Clone, Copy)]
pub struct InSegment<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) places: &'a Whereabouts,
    pub(crate) control: &'a Control,
    pub(crate) inside: &'a Inside,
}

impl<'a> InSegment<'a> {
    /// The segment's number.
    pub fn id(self) -> SegmentId {
        self.segment.place.segment
    }

    /// Where the node belongs in it.
    pub fn place(self) -> &'a Place {
        &self.segment.place
    }

    /// The update in force, the next one, and the end of the lease.
    pub fn view(self) -> View<'a> {
        self.segment.member.view()
    }

    /// Whether this node has peers by what is in force; `None` before the first epoch.
    pub fn is_member(self) -> Option<bool> {
        let view = self.view();
        let is_in = view.update?.member(&self.place().node).is_some();
        Some(is_in && !view.is_closed())
    }

    /// The last echoes of a node, if they were sent under what is in force between the two now. One that was
    /// answered counts only while packets take the tunnel.
    pub fn ping(self, node: &NodeId) -> Option<PingResult> {
        let own = (&self.place().node, &self.view());
        self.segment.pings.of(node, own, &self.segment.ways)
    }

    /// Why packets to `node`, or its packets to this one, do not take the tunnel, and why the tunnel does not
    /// reach it; empty when all is well. What keeps the tunnel from a node counts only while nothing is
    /// answered.
    pub fn faults_of(self, node: &NodeId, now: Now) -> Vec<String> {
        let ways = &self.segment.ways;
        let mut faults = ways.faults(node);
        faults.extend(ways.faults_of_theirs(node, self.segment.own(), now.boot));
        let is_reached = self
            .ping(node)
            .is_some_and(|it| it.v4.is_ok() || it.v6.is_ok());
        faults.extend(self.places.faults(node, is_reached));
        faults
    }

    /// The same of all peers, in a few sentences.
    pub fn ways_astray(self) -> Vec<String> {
        self.segment.ways.summary()
    }

    /// How many addresses of peers are reached by the tunnel, elsewhere, and nobody knows where.
    pub fn ways_count(self) -> [u64; 3] {
        self.segment.ways.count()
    }

    /// Why an echo to `node` failed, with what the epoch says about it.
    pub fn ping_cause(self, node: &NodeId, ping: &Ping) -> String {
        let own = &self.place().node;
        pings::cause(&self.view(), own, node, (ping, self.places))
    }

    /// Why this node has no tunnel to another member, if the rules of the segment keep them apart.
    pub fn apart(self, node: &NodeId) -> Option<&'static str> {
        let update = self.view().update?;
        pings::are_apart(update, &self.place().node, node).then_some(pings::NO_HUB)
    }

    /// The paths to the members of the epoch in force that are tried; `full` is the size of a full packet.
    pub fn path_limits(self, full: u32) -> Vec<PathLimit> {
        let members = self.view().update.into_iter();
        let members = members.flat_map(|update| &update.roster);
        let paths = &self.segment.paths;
        members
            .filter_map(|it| paths.limit(&it.node, (it.v4, it.v6), full))
            .collect()
    }

    /// Where the members of the epochs at hand are said to be and where they are heard from; the
    /// controller, which has the same underlay, while there are none.
    pub fn destinations(self, peers: &[PeerSnapshot]) -> BTreeSet<SocketAddr> {
        let View { update, next, .. } = self.view();
        let own = self.place().node;
        let members = [update, next]
            .into_iter()
            .flatten()
            .flat_map(|update| &update.roster)
            .filter(|member| member.node != own);
        let announced = members.flat_map(|member| self.places.of(&member.node));
        let observed = peers.iter().filter_map(|peer| peer.endpoint?.udp());
        // Of a path through the mesh the own MTU would be the measure, and shrink for ever.
        let outside = observed.filter(|endpoint| !self.inside.contains(endpoint.ip()));
        let found = announced.copied().chain(outside).map(canonical);
        let found: BTreeSet<SocketAddr> = found.collect();
        match self.control {
            Control::Up { remote, .. } if found.is_empty() => BTreeSet::from([*remote]),
            Control::Up { .. } | Control::Down { .. } => found,
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
