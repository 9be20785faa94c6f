//! Safety: what must hold after every step, by the model. Every violation ends the run.

use crate::carry;
use crate::node::{Nature, State};
use crate::packet;
use crate::world::{Datagram, Taken, World};
use keys::{Epoch, NodeId};
use rand::Rng as _;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tunnel::{Inbound, Path};

impl World {
    /// The member machine and the tunnel of an honest node hold what the model says.
    pub(crate) fn check_node(&mut self, node: usize) {
        for lane in 0..self.lanes() {
            self.check_lane(node, lane);
        }
    }

    fn check_lane(&mut self, node: usize, lane: usize) {
        let (subject, model) = (&self.nodes[node], &self.models[node][lane]);
        let view = subject.view(lane);
        let held = (view.update.map(|u| u.epoch), view.next.map(|u| u.epoch));
        assert_eq!(
            held,
            model.epochs(),
            "node {node}: epochs in force and next, and what they should be"
        );
        let persisted = (subject.lanes[lane].persisted.epoch, model.persisted());
        assert_eq!(persisted.0, persisted.1, "node {node}: persisted epoch");
        if subject.nature != Nature::Honest {
            return;
        }
        let in_force = model.epochs().0.unwrap_or(Epoch(0));
        let clock = subject.clock(self.now);
        let peers = subject.lanes[lane].tunnel.snapshot(clock);
        for peer in &peers {
            let ahead = peer.session_epoch.is_some_and(|epoch| epoch > in_force);
            assert!(
                !ahead,
                "node {node}: sends on an epoch that is not in force"
            );
            let there = peer
                .endpoint
                .and_then(Path::udp)
                .is_none_or(|e| self.net.owners.contains_key(&e));
            assert!(there, "node {node}: a peer's endpoint is the attacker's");
        }
        let peers: BTreeSet<NodeId> = peers.iter().map(|peer| self.by_key[&peer.key]).collect();
        let (least, most) = model.peers();
        if STRUCTURE {
            let missing = least.difference(&peers).count();
            let spare = peers.difference(&most).count();
            assert!(
                missing == 0 && spare == 0,
                "node {node} in {in_force}: {missing} peers are missing, {spare} are too many"
            );
        }
    }

    /// A packet was sealed.
    pub(crate) fn check_sealed(&self, lane: usize, from: usize, to: usize) {
        if self.nodes[from].nature == Nature::Honest {
            let may = self.models[from][lane].may_tell(&self.nodes[to].id, self.now);
            assert!(
                may,
                "node {from} sealed a packet for {to}, which it may not reach"
            );
        }
    }

    /// A datagram leaves for an address; returns whose it is.
    pub(crate) fn check_leaving(
        &self,
        lane: usize,
        from: usize,
        to: SocketAddr,
        datagram: &[u8],
    ) -> Option<usize> {
        let receiver = self.net.owners.get(&to).copied();
        // Under load everybody is asked for a cookie that sends an initiation: no key is looked at before.
        let is_cookie = datagram.first() == Some(&3);
        if self.nodes[from].nature == Nature::Honest && !is_cookie {
            let receiver = receiver.expect("an honest node answers the attacker");
            let may = self.models[from][lane].may_approach(&self.nodes[receiver].id);
            let first = datagram.first();
            assert!(
                may,
                "node {from} sends to {receiver}, which is no peer: type {first:?}, segment {lane}, {} bytes",
                datagram.len()
            );
        }
        receiver
    }

    /// A packet came out of a tunnel.
    pub(crate) fn check_delivered(&mut self, node: usize, datagram: &Datagram, packet: &[u8]) {
        let (source, destination, number) =
            packet::parse(packet).expect("intact, to the last byte");
        let index = usize::try_from(number).expect("a number of ours");
        let sent = &mut self.packets[index];
        let (from, again) = (sent.from, std::mem::replace(&mut sent.delivered, true));
        assert!(!again, "packet {number} was delivered twice");
        assert_eq!(sent.to, node, "packet {number} came out elsewhere");
        let lane = datagram.lane;
        assert_eq!(
            sent.lane, lane,
            "packet {number} came out of another segment"
        );
        let v6 = source.is_ipv6();
        self.counts.delivered += 1;
        if self.nodes[node].nature != Nature::Honest {
            return;
        }
        assert!(
            !sent.spoofed,
            "a packet of {from} with another's source came out at {node}"
        );
        assert_eq!(source, self.nodes[from].address_inside(lane, v6), "source");
        assert_eq!(
            destination,
            self.nodes[node].address_inside(lane, v6),
            "destination"
        );
        let model = &self.models[node][lane];
        let epochs = model.epochs();
        assert!(
            model.may_hear(&self.nodes[from].id, self.now),
            "node {node} (in force and next: {epochs:?}) delivered a packet of {from}"
        );
        let tag = tag(datagram);
        assert!(
            model.tag_is_fresh(tag),
            "node {node} (in force and next: {epochs:?}) took a packet of {from} on a session of an \
             epoch that ends on {tag:02b}"
        );
    }

    /// A datagram of one segment, at the tunnel of another: it is nothing there.
    pub(crate) fn check_apart(&mut self, node: usize, datagram: &Datagram) {
        if self.lanes() < 2 || !self.rng.gen_bool(0.02) {
            return;
        }
        let clock = self.nodes[node].clock(self.now);
        let mut out = vec![0; datagram.bytes.len()];
        let other = (datagram.lane + 1) % self.lanes();
        let tunnel = &mut self.nodes[node].lanes[other].tunnel;
        let inbound = carry::receive(tunnel, datagram.from, &datagram.bytes, &mut out, clock);
        assert!(
            matches!(inbound, Inbound::Dropped(_)),
            "node {node} took a datagram of another segment: {inbound:?}"
        );
        self.counts.strays_refused += 1;
    }

    /// A datagram came a second time, from elsewhere.
    pub(crate) fn check_refused(&mut self, node: usize, again: &Datagram, inbound: Inbound) {
        let kind = again.bytes[0];
        assert!(
            matches!(inbound, Inbound::Dropped(_)),
            "node {node} took a datagram of type {kind} by {} a second time: {inbound:?}",
            format_args!("{} (tag {})", again.sender, tag(again))
        );
        self.counts.replays_refused += 1;
    }

    /// Keeps a datagram that was taken, to send it again.
    pub(crate) fn remember(&mut self, node: usize, datagram: Datagram) {
        if self.nodes[node].nature != Nature::Honest || self.nodes[node].state != State::Up {
            return;
        }
        let lineage = self.models[node][datagram.lane].lineage(&self.nodes[datagram.sender].id);
        let taken = Taken {
            datagram: Datagram {
                again: true,
                ..datagram
            },
            receiver: node,
            life: self.nodes[node].life,
            lineage,
        };
        // Handshakes are rare and worth more than data.
        let at = self.taken.len() as u64;
        let keep = taken.datagram.bytes[0] != 4 || self.packets.len() as u64 % 8 == at % 8;
        if keep {
            self.taken.push_back(taken);
        }
        if self.taken.len() > REMEMBERED {
            self.taken.pop_front();
        }
    }
}

/// The epoch, modulo 4, of the session that a datagram belongs to: the lower bits of its index.
fn tag(datagram: &Datagram) -> u32 {
    u32::from(datagram.bytes[5] & 3)
}

/// Whether the tunnel's set of peers is compared too, not only what passes through it.
const STRUCTURE: bool = true;
const REMEMBERED: usize = 4_000;
