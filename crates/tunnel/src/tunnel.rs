//! The tunnel: its peers, the life of their epochs, and time. The two ways of a packet are in
//! `outbound.rs` and `inbound.rs`; the front door stands before it, and tells it no header.
//!
//! The file is long because every call of the tunnel has its door here.

use crate::agenda::Agenda;
use crate::allowed_ips::{AllowedIps, PeerId};
use crate::config::Config;
use crate::drops::{DropCounters, DropReason, Drops};
use crate::events::{Event, Events};
use crate::forge::Forge;
use crate::gates::Gates;
use crate::generation::Generation;
use crate::indices::TunnelIndices;
use crate::initiation::{Opener, Timestamp};
use crate::inside::{Inside, Range};
use crate::limits::*;
use crate::local::Local;
use crate::networks::Networks;
use crate::outbox::{Outbox, Transmit};
use crate::path::Path;
use crate::peer::Peer;
use crate::peers::Peers;
use crate::remembered::Remembered;
use crate::snapshot::PeerSnapshot;
use crate::stamps::Stamps;
use crate::traffic::Traffic;
use crate::whereabouts::Endpoints;
use allowance::Bucket;
use filter::{Groups, Rule};
use keys::{Epoch, Psk, SharedSecret, WgPublicKey};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A peer as an epoch knows it.
#[derive(Debug, Clone)]
pub struct PeerSpec {
    /// Its WireGuard key.
    pub key: WgPublicKey,
    /// Its addresses inside the mesh.
    pub allowed: Vec<IpAddr>,
}

/// A WireGuard data plane: the peers of one key, and the life of their epochs.
///
/// # Call contract
///
/// No call blocks, sends, sleeps or reads a clock. `now` is the owner's, and never goes back.
///
/// | After | comes |
/// |---|---|
/// | any call that takes the tunnel as `&mut` | [`Self::poll_transmit`] until it has nothing more, then [`Self::poll_timeout`] anew: both may have changed |
/// | any call at all | [`Self::poll_event`] until it has nothing more, when it suits; beyond 1,024 events are lost |
/// | the time that [`Self::poll_timeout`] gave, or later | [`Self::handle_timeout`] |
/// | [`Self::admit`], which may be left out | [`Self::install`] with those peers |
/// | [`Self::install`] | [`Self::install_rules`], if the segment has any; [`Self::install_own_networks`] and [`Self::install_networks`], if there are any; [`Self::set_endpoints`] for its peers, since strangers have no place; then [`Self::activate`] of the same epoch, at once or after its lead. Another `install` before that supersedes it |
/// | [`Self::activate`] | [`Self::discard_previous`], when the grace is over |
/// | the end of the lease | [`Self::close`]. Nothing passes after it even if this is late |
///
/// A peer that an epoch leaves out is gone when `activate` returns. For that to be true of packets as
/// well, nobody may keep one back that was sealed or opened before: an owner with several threads
/// leaves that to [`crate::Carrier`], one without sends what a call gave before it makes the next.
pub struct Tunnel {
    pub(crate) local: Local,
    pub(crate) opener: Opener,
    pub(crate) peers: Peers,
    pub(crate) allowed: AllowedIps,
    pub(crate) networks: Networks,
    pub(crate) inside: Inside,
    /// The insides of the other tunnels behind the same door.
    pub(crate) beside: Inside,
    gates: Gates,
    next_tick: Option<Duration>,
    /// Whether an epoch has been in force since the tunnel was empty.
    is_in_force: bool,
    /// From when on nothing passes any more: the end of the epoch in force; without one, of `next`.
    closes_at: Option<Duration>,
    next_closes_at: Option<Duration>,
    remembered: Remembered,
    /// ICMP errors that may still be written for this host.
    pub(crate) refusals: Mutex<Bucket>,
}

impl Tunnel {
    /// A tunnel without peers, whose sessions are found by `indices`.
    pub(crate) fn new(config: Config, indices: TunnelIndices) -> Self {
        let opener = Opener::new(&config.secret);
        let gates = Gates::new(config.seed);
        Self {
            local: Local {
                forge: Forge::new(config.secret, indices, config.seed),
                outbox: Outbox::default(),
                agenda: Agenda::default(),
                awake: BTreeSet::new(),
                drops: DropCounters::default(),
                events: Events::default(),
                endpoints: Endpoints::default(),
                mtu: config.mtu,
                keepalive: None,
                carried: Traffic::default(),
                handshakes: 0,
            },
            opener,
            peers: Peers::default(),
            allowed: AllowedIps::default(),
            networks: Networks::default(),
            inside: config.inside,
            beside: Inside::default(),
            gates,
            next_tick: None,
            is_in_force: false,
            closes_at: None,
            next_closes_at: None,
            remembered: Remembered::default(),
            refusals: Mutex::new(Bucket::new(REFUSALS_PER_SECOND, REFUSALS_PER_SECOND)),
        }
    }

    /// The interface's MTU from now on, in bytes: the most that padding may reach.
    pub fn set_mtu(&mut self, mtu: usize) {
        self.local.mtu = mtu;
    }

    /// From now on no peer hears nothing for longer than `every`: behind an address translator, whose
    /// mapping would else be forgotten, and with it the way to this node. `None`: a peer may.
    pub fn set_keepalive(&mut self, every: Option<Duration>) {
        self.local.keepalive = every;
    }

    /// The networks behind this node that it carries packets for, and whether it sends packets to networks behind
    /// others and takes packets from there. No update has a say in it; it counts from the next one that is installed.
    /// Without this call there are no networks.
    pub fn agree_to_networks(&mut self, offered: Vec<Range>, accepts: bool) {
        self.networks.agree(offered, accepts);
    }

    // ---- epochs -----------------------------------------------------------------------------

    /// Makes a peer known that is to be installed, with the static-static secret of the pair: nothing passes
    /// to it or from it before. A peer that the next epoch to be installed does not name is gone again.
    pub fn admit(&mut self, key: WgPublicKey, shared: Arc<SharedSecret>) {
        // So that an epoch of thousands of newcomers can be installed in one short step: this is the long
        // part of it, and may be done a few at a time.
        if self.peers.id_of(&key).is_none() {
            self.insert(key, shared);
        }
    }

    /// Takes away what is installed for peers that are not among `members`: activated by mistake, or kept as a
    /// previous generation, it would let in a node that the newest epoch leaves out. Under the epoch in force it
    /// is a peer until that ends; it goes as a whole if no epoch is in force for it, or if `at_once` says so: an epoch that leaves it out begins, and what is to be
    /// installed for the others takes longer than the peer may stay.
    pub fn keep_only(&mut self, members: &HashSet<WgPublicKey>, at_once: bool) {
        let slots = self.peers.slots();
        let is_out = |id: &PeerId| {
            let peer = self.peers.get(*id);
            peer.is_some_and(|peer| !members.contains(&peer.key))
        };
        let out: Vec<PeerId> = slots.filter(is_out).collect();
        if at_once {
            self.remove(out);
        } else {
            self.withdraw(out);
        }
    }

    /// Prepares `epoch`: gives each peer a generation in the slot `next`, replacing one that was
    /// superseded. Pairs with traffic shake hands within `lead`. Peers whose key is of low order
    /// are left out and returned. From `closes_at` on the epoch carries nothing, even if nobody calls
    /// [`Self::close`] in time: a machine that slept wakes closed.
    pub fn install(
        &mut self,
        epoch: Epoch,
        peers: Vec<(PeerSpec, Psk)>,
        lead: Duration,
        closes_at: Option<Duration>,
        now: Duration,
    ) -> Vec<WgPublicKey> {
        let named = peers.iter().map(|(spec, _)| spec.key).collect();
        self.prepare(&named, closes_at);
        self.install_some(epoch, peers, lead, now)
    }

    /// The first half of [`Self::install`]: what was installed for peers that are not among `members` is gone.
    /// Until all of them are installed by [`Self::install_some`], no epoch may begin.
    pub fn prepare(&mut self, members: &HashSet<WgPublicKey>, closes_at: Option<Duration>) {
        self.next_closes_at = closes_at;
        self.gates.forget_next();
        self.networks.forget_next();
        // With nothing in force, members that are ahead are heard on this epoch alone, and so no longer
        // than it lasts.
        if !self.is_in_force {
            self.closes_at = closes_at;
        }
        self.keep_only(members, false);
    }

    /// The second half of [`Self::install`], for any part of the members: a pair of which one side has them
    /// installed and the other has not is as one that heard of the epoch at different times.
    pub fn install_some(
        &mut self,
        epoch: Epoch,
        peers: Vec<(PeerSpec, Psk)>,
        lead: Duration,
        now: Duration,
    ) -> Vec<WgPublicKey> {
        let mut refused = Vec::new();
        for (spec, psk) in peers {
            let key = spec.key;
            let Some(id) = self.peer_for(spec) else {
                refused.push(key);
                continue;
            };
            if let Some(peer) = self.peers.get_mut(id) {
                peer.install(Generation::new(epoch, psk), lead, now, &mut self.local);
            }
        }
        self.next_tick.get_or_insert(now + TICK);
        refused
    }

    /// The networks behind this node by the epoch that is being installed, after [`Self::prepare`]. They are in force
    /// with it.
    pub fn install_own_networks(&mut self, own: Vec<Range>) {
        self.networks.install_own(own);
    }

    /// The networks behind members that are installed, or are about to be, likewise. May be called for any part of them.
    pub fn install_networks(
        &mut self,
        behind: impl IntoIterator<Item = (WgPublicKey, Vec<Range>)>,
    ) {
        self.networks.install(behind);
    }

    /// The rules of the epoch that is being installed, for this node in the groups `own`: between
    /// [`Self::prepare`] and the first part of its members.
    pub fn prepare_rules(&mut self, allow: Vec<Rule>, own: Groups) {
        self.gates.prepare(allow, own);
    }

    /// The groups of members that [`Self::install_some`] has just installed. Before others have the tunnel: a
    /// newcomer may be heard from then on, and would be held against no rules.
    pub fn install_groups(&mut self, groups: impl IntoIterator<Item = (WgPublicKey, Groups)>) {
        for (key, groups) in groups {
            let id = self.peers.id_of(&key);
            if let Some(peer) = id.and_then(|id| self.peers.get_mut(id)) {
                peer.expect_access(self.gates.next_access(groups));
            }
        }
    }

    /// The rules of the epoch that was installed last, for this node in the groups `own`, and the groups of its
    /// peers; a peer that is not among them is in none. They hold from the epoch's activation on, for a newcomer at
    /// once. An epoch without this call has no rules, and everything passes.
    pub fn install_rules(
        &mut self,
        allow: Vec<Rule>,
        own: Groups,
        groups: impl IntoIterator<Item = (WgPublicKey, Groups)>,
    ) {
        self.gates.install(allow, own, groups, &mut self.peers);
    }

    /// Begins `epoch`: `next → current → previous`. A peer that is not part of it is gone when this
    /// returns: sessions, indices, allowed IPs, queued packets, endpoint.
    pub fn activate(&mut self, epoch: Epoch, now: Duration) {
        // Before anything else, so that all that follows is held against the lease of the new epoch.
        self.closes_at = self.next_closes_at;
        // A machine that slept may learn of the epoch after its end: packets that waited must not be sent
        // on an epoch that carries nothing any more.
        let is_over = self.check_lease(now).is_err();
        self.gates.activate();
        let is_first = !std::mem::replace(&mut self.is_in_force, true);
        let is_few = self.peers.count() <= MAX_GREETED;
        let greet = (is_first && is_few).then_some(GREETING_SPREAD);
        // Without a lead all pairs want their handshake now, and the mesh's handshakes would keep the
        // news from those who have not heard it yet.
        let spread = (SPREAD_PER_PEER * self.peers.count() as u32).min(MAX_SPREAD);
        let mut left_out = Vec::new();
        for peer in self.peers.iter_mut() {
            if is_over {
                peer.drop_queue(DropReason::LeaseOver, &self.local);
            }
            // Whole, and before this returns: a session, an index or a queued packet that stayed would go
            // on carrying what a node says that is no member any more.
            if !peer.activate(epoch, greet, spread, now, &mut self.local) {
                left_out.push(peer.id);
            }
        }
        self.remove(left_out);
        let peers = &mut self.peers;
        self.allowed.renew(|id, address| {
            let peer = peers.get(id);
            peer.is_some_and(|peer| peer.allowed.contains(address))
        });
        let insides = [&self.inside, &self.beside];
        self.networks.activate(|key| peers.id_of(key), insides);
        self.hold_back(now);
    }

    /// Ends the grace: everything older than the current epoch is wiped.
    pub fn discard_previous(&mut self) {
        // All peers at once: by now every member sends on the newest epoch, and a PSK that stays after
        // that is one more that a seizure of this machine would give away.
        for peer in self.peers.iter_mut() {
            peer.discard_previous(&mut self.local);
        }
    }

    /// Ends the epoch in force and everything before it, in one step. Only what is installed for an
    /// epoch to come stays: nothing is sent on it before it begins, and members that are ahead are
    /// heard.
    pub fn close(&mut self) {
        let mut left_out = Vec::new();
        for peer in self.peers.iter_mut() {
            if !peer.close(&mut self.local) {
                left_out.push(peer.id);
            }
        }
        self.remove(left_out);
        self.networks.close();
        // Datagrams that were made before the end must not leave after it.
        self.local.outbox.clear();
        self.is_in_force = false;
        self.closes_at = self.next_closes_at;
    }

    /// Where a peer is said to be, best first. A place where it was heard stays preferred, unless
    /// it is not among a new list and the peer has no live session. A place inside the mesh is none.
    pub fn set_endpoints(
        &mut self,
        key: &WgPublicKey,
        endpoints: impl IntoIterator<Item = impl Into<Path>>,
        now: Duration,
    ) {
        let endpoints: Vec<Path> = endpoints
            .into_iter()
            .map(Into::into)
            .filter(|endpoint| self.inside.allows_endpoint(*endpoint))
            .filter(|endpoint| !self.beside.contains(endpoint.ip()))
            .collect();
        let id = self.peers.id_of(key);
        let Some(peer) = id.and_then(|id| self.peers.get_mut(id)) else {
            return;
        };
        let has_session = peer.generations.sending(now).is_some();
        let (whereabouts, endpoints_of_all) = (&mut peer.whereabouts, &self.local.endpoints);
        whereabouts.say(endpoints, has_session, endpoints_of_all);
    }

    /// The system chooses from which address packets to `paths` leave, until the peer there is heard again:
    /// the way to it is another than before. Any thread may say so.
    pub fn leave_routes(&self, paths: &HashSet<Path>) {
        for mut peer in self.peers.iter() {
            peer.whereabouts.leave_routes(paths);
        }
    }

    /// The same of all packets that left from `here`, which is no address of this host any more.
    pub fn leave_address(&self, here: IpAddr) {
        for mut peer in self.peers.iter() {
            peer.whereabouts.leave_address(here);
        }
    }

    /// This machine's wall clock was set back, and shows `unix` since 1970 now. Timestamps of peers that lie
    /// in the future by that are remembered as shown, and no other has to be newer: clocks that were wrong
    /// together would else shut each other out until the epoch ends.
    pub fn handle_clock_set_back(&mut self, unix: Duration) {
        let floor = Timestamp::at(unix.saturating_sub(CLOCKS_DIFFER));
        let limit = Timestamp::at(unix + CLOCKS_DIFFER);
        for peer in self.peers.iter_mut() {
            peer.clock_set_back(floor, limit);
        }
    }

    // ---- time and outputs -------------------------------------------------------------------

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let due = self.local.agenda.first().map(|(due, _)| due);
        [due, self.next_tick].into_iter().flatten().min()
    }

    /// Does what is due: initiations, renewals, keepalives, expiry.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some((_, id)) = self.local.agenda.first().filter(|(due, _)| *due <= now) {
            match self.peers.get_mut(id) {
                Some(peer) => peer.run_due(now, &mut self.local),
                None => self.local.agenda.forget(id),
            }
        }
        if self.next_tick.is_some_and(|tick| tick <= now) {
            self.tick(now);
            self.next_tick = (self.peers.count() > 0).then_some(now + TICK);
        }
        self.hold_back(now);
    }

    /// The next datagram to send besides what [`Self::handle_tun`] sealed.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.local.outbox.take()
    }

    /// The next change to tell.
    pub fn poll_event(&self) -> Option<Event> {
        self.local.events.pop()
    }

    /// Every peer, as observed. After the lease no session carries anything: none is shown.
    pub fn snapshot(&self, now: Duration) -> Vec<PeerSnapshot> {
        let is_over = self.check_lease(now).is_err();
        let observed = self.peers.iter().map(|peer| PeerSnapshot::of(&peer, now));
        let shown = |mut peer: PeerSnapshot| {
            if is_over {
                (peer.session_epoch, peer.session_age, peer.next_ready) = (None, None, false);
            }
            peer
        };
        observed.map(shown).collect()
    }

    /// The epoch that is in force for a peer, and its PSK: for an operator's explicit export.
    pub fn current_psk(&mut self, key: &WgPublicKey) -> Option<(Epoch, &Psk)> {
        let peer = self.peers.get_mut(self.peers.id_of(key)?)?;
        peer.generations
            .current
            .as_ref()
            .map(|current| (current.epoch, current.psk()))
    }

    /// The peer that packets for an address go to.
    pub fn peer_at(&self, address: IpAddr) -> Option<WgPublicKey> {
        let id = self.allowed.get(address);
        let id = id.or_else(|| self.networks.owner(address))?;
        self.peers.lock(id).map(|peer| peer.key)
    }

    /// Packets that were not carried.
    pub fn drops(&self) -> Drops {
        self.local.drops.read()
    }

    /// Packets that each rule in force has let in, in the order of the rules; `None`: there are no rules.
    pub fn passed_by_rule(&self) -> Option<Vec<u64>> {
        self.gates.passed()
    }

    /// Packets that were carried since start, peers that are gone included.
    pub fn traffic(&self) -> Traffic {
        let mut traffic = self.local.carried;
        self.peers.iter().for_each(|peer| traffic.add(peer.traffic));
        traffic
    }

    /// Handshakes completed since start, both roles.
    pub fn handshakes(&self) -> u64 {
        self.local.handshakes
    }

    // ---- details ----------------------------------------------------------------------------

    /// Whether anything may pass. Asked for every batch and every datagram, because no timer can be
    /// relied on: a machine that slept past the end of its lease gets packets before it gets to `close`.
    pub(crate) fn check_lease(&self, now: Duration) -> Result<(), DropReason> {
        if self.closes_at.is_some_and(|closes_at| closes_at <= now) {
            Err(DropReason::LeaseOver)
        } else {
            Ok(())
        }
    }

    /// After the lease nothing leaves, whatever is still due: on waking, timers may come first.
    fn hold_back(&mut self, now: Duration) {
        if self.check_lease(now).is_err() {
            self.local.outbox.clear();
        }
    }

    /// Looks after the peers that have anything that ends, which are few among many; after all of them where
    /// even a peer without a session has to be sent something now and then.
    fn tick(&mut self, now: Duration) {
        let ids: Vec<PeerId> = match self.local.keepalive {
            Some(_) => self.peers.slots().collect(),
            None => self.local.awake.iter().copied().collect(),
        };
        for id in ids {
            let Some(peer) = self.peers.get_mut(id) else {
                continue;
            };
            peer.tick(now, &mut self.local);
            if peer.generations.rest() {
                self.local.awake.remove(&id);
            }
        }
    }

    fn peer_for(&mut self, spec: PeerSpec) -> Option<PeerId> {
        let id = match self.peers.id_of(&spec.key) {
            Some(id) => id,
            None => {
                let shared = self.local.forge.shared_with(&spec.key)?;
                self.insert(spec.key, shared.into())
            }
        };
        let peer = self.peers.get_mut(id)?;
        // An address outside may be a peer's endpoint: allowed as well, it would have the TUN device
        // read what the socket sends.
        let mut allowed = spec.allowed;
        allowed.retain(|address| self.inside.contains(*address));
        if peer.allowed != allowed {
            let former = std::mem::replace(&mut peer.allowed, allowed);
            let former = former.iter().filter(|it| !peer.allowed.contains(it));
            former.for_each(|address| self.allowed.leave(*address, id));
            // A newcomer may be heard a moment before its epoch begins here; an address that another
            // peer has stays with it until then.
            for address in &peer.allowed {
                self.allowed.offer(*address, id);
            }
        }
        Some(id)
    }

    /// A peer without any generation.
    fn insert(&mut self, key: WgPublicKey, shared: Arc<SharedSecret>) -> PeerId {
        let id = self.peers.free_slot();
        let mut peer = Peer::new(id, key, shared, &self.local.forge.public());
        peer.stamps = Stamps::since(self.remembered.take(&key).unwrap_or_default());
        self.peers.insert(peer);
        id
    }

    /// Takes away what is installed for peers, and those that no epoch is in force for.
    fn withdraw(&mut self, ids: Vec<PeerId>) {
        let mut gone = Vec::new();
        for id in ids {
            let Some(peer) = self.peers.get_mut(id) else {
                continue;
            };
            peer.withdraw(&mut self.local);
            if peer.generations.current.is_none() {
                gone.push(id);
            }
        }
        self.remove(gone);
    }

    fn remove(&mut self, ids: Vec<PeerId>) {
        for id in &ids {
            if let Some(peer) = self.peers.take(*id) {
                // A recording of its initiations must not be answered when it comes back.
                self.remembered.keep(peer.key, peer.stamps.newest());
                self.allowed.remove_peer(*id, &peer.allowed);
                self.networks.remove_peer(*id);
                peer.retire(&mut self.local);
            }
        }
        self.local.outbox.forget(&ids.into_iter().collect());
    }
}

/// Right clocks differ by this much at most.
const CLOCKS_DIFFER: Duration = Duration::from_secs(30);
/// How often sessions are looked after.
const TICK: Duration = Duration::from_secs(1);
