//! The steps in which a large epoch comes into force, and what a tunnel with many idle peers does without.

use crate::stress::Keys;
use crate::turns::{NOW, Node, inner, outer, pair};
use crate::{GREETING_SPREAD, Inbound, MAX_GREETED, PeerSpec};
use filter::Groups;
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Nobody's key, with the secret that the pair would have.
fn newcomer() -> (WgPublicKey, Arc<keys::SharedSecret>) {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    let mut keys = Keys(SmallRng::seed_from_u64(seed));
    let key = WgSecret::generate(&mut keys).public();
    let own = WgSecret::generate(&mut keys);
    (key, own.shared_with(&key).expect("a good key").into())
}

fn spec(key: WgPublicKey, number: usize) -> (PeerSpec, Psk) {
    let [_, _, high, low] = (number as u32 + 1_000).to_be_bytes();
    let allowed = vec![IpAddr::from([10, 0, high, low])];
    (PeerSpec { key, allowed }, Psk::from_bytes([7; 32]))
}

#[test]
fn a_peer_that_is_not_kept_is_gone_at_once_and_the_others_go_on() {
    let (mut one, mut two) = pair();
    let silent = one.door.snapshot(NOW)[1].key;
    let data = two.seal_for(1, NOW).expect("a session");
    let later = two.seal_for(1, NOW).expect("a session");
    one.door.keep_only(&HashSet::from([two.key]), true);
    assert!(one.door.peers.id_of(&silent).is_none());
    let heard = one.door.handle_udp(outer(2), &data, &mut [0; 256], NOW);
    assert!(matches!(heard, Inbound::Deliver { .. }));
    // A datagram that was made for the peer, and waits, does not leave any more.
    one.door.set_keepalive(Some(SECOND));
    one.door.handle_timeout(NOW + SECOND * 2);
    one.door.keep_only(&HashSet::from([silent]), true);
    assert!(one.door.poll_transmit().is_none());
    let heard = one.door.handle_udp(outer(2), &later, &mut [0; 256], NOW);
    let unknown = Inbound::Dropped(crate::DropReason::UnknownIndex);
    assert_eq!(heard, unknown);
    assert_eq!(one.seal_for(2, NOW), None);
    assert_eq!(one.door.peers.count(), 0);
    assert_eq!((one.door.allowed.len(), one.door.local.awake.len()), (0, 0));
}

#[test]
fn a_peer_that_is_not_kept_and_may_stay_loses_only_what_is_installed_for_it() {
    let (mut one, two) = pair();
    let peers = vec![spec(two.key, 2)];
    one.door.install(Epoch(2), peers, Duration::ZERO, None, NOW);
    one.door.keep_only(&HashSet::new(), false);
    assert!(one.seal_for(2, NOW).is_some(), "its epoch has not ended");
    // An activation by mistake lets nobody in.
    one.door.activate(Epoch(2), NOW);
    assert_eq!(one.door.peers.count(), 0);
}

#[test]
fn a_peer_that_was_admitted_passes_nothing_and_stays_only_if_it_is_installed() {
    let mut one = Node::new(1);
    one.begin(1, &[], NOW);
    let (key, shared) = newcomer();
    one.door.admit(key, Arc::clone(&shared));
    one.door.admit(key, shared);
    one.door.set_endpoints(&key, [outer(2)], NOW);
    assert_eq!(one.door.peers.count(), 1);
    assert_eq!(one.seal_for(2, NOW), None);
    one.door.handle_timeout(NOW + SECOND);
    assert!(one.door.poll_transmit().is_none());
    let (other, shared) = newcomer();
    one.door.admit(other, shared);
    let peers = vec![spec(key, 2)];
    one.door.install(Epoch(2), peers, Duration::ZERO, None, NOW);
    assert!(one.door.peers.id_of(&other).is_none());
    one.door.activate(Epoch(2), NOW);
    let seen = &one.door.snapshot(NOW)[0];
    assert_eq!((seen.key, seen.endpoint), (key, Some(outer(2))));
}

#[test]
fn an_epoch_that_is_installed_in_parts_begins_as_one_and_for_its_members_alone() {
    let (mut one, two) = pair();
    let others: Vec<_> = (0..300).map(|_| newcomer()).collect();
    let mut members: HashSet<_> = others.iter().map(|(key, _)| *key).collect();
    members.insert(two.key);
    one.door.prepare(&members, Some(NOW + SECOND * 60));
    let all = others.iter().map(|(key, _)| *key).chain([two.key]);
    let all: Vec<_> = all.enumerate().collect();
    for (key, shared) in &others {
        one.door.admit(*key, Arc::clone(shared));
    }
    for part in all.chunks(100) {
        let part = part.iter().map(|(number, key)| spec(*key, *number));
        let refused = one.door.install_some(Epoch(2), part.collect(), SECOND, NOW);
        assert!(refused.is_empty());
        assert!(one.seal_for(2, NOW).is_some(), "the one in force goes on");
    }
    one.door.activate(Epoch(2), NOW);
    assert_eq!(one.door.peers.count(), 301);
    let keys: HashSet<_> = one.door.snapshot(NOW).iter().map(|it| it.key).collect();
    assert_eq!(keys, members);
    assert!(one.door.check_lease(NOW + SECOND * 60).is_err());
}

#[test]
fn a_node_that_starts_greets_its_peers_only_if_they_are_few() {
    for (peers, greets) in [(MAX_GREETED, true), (MAX_GREETED + 1, false)] {
        let mut one = Node::new(1);
        let specs: Vec<_> = (0..peers).map(|it| spec(newcomer().0, it)).collect();
        let keys: Vec<_> = specs.iter().map(|(spec, _)| spec.key).collect();
        one.door.install(Epoch(1), specs, Duration::ZERO, None, NOW);
        for key in keys {
            one.door.set_endpoints(&key, [outer(2)], NOW);
        }
        one.door.activate(Epoch(1), NOW);
        one.door.handle_timeout(NOW + GREETING_SPREAD);
        let initiations = std::iter::from_fn(|| one.door.poll_transmit()).count();
        assert_eq!(initiations, if greets { peers } else { 0 });
        assert_eq!(one.door.local.awake.len(), initiations);
    }
}

#[test]
fn a_peer_whose_sessions_have_ended_is_looked_after_no_more() {
    let (mut one, _) = pair();
    assert!(!one.door.local.awake.is_empty());
    // The other side has gone, and nobody has anything to say.
    for second in 1..400 {
        one.door.handle_timeout(NOW + SECOND * second);
        while one.door.poll_transmit().is_some() {}
    }
    assert!(one.door.local.awake.is_empty());
    assert!(one.door.indices().all().is_empty());
    assert_eq!(one.seal_for(2, NOW + SECOND * 400), None);
    one.door.handle_timeout(NOW + SECOND * 401);
    assert!(one.door.poll_transmit().is_some(), "and back as ever");
    assert_eq!(
        one.door.allowed.get(inner(2).into()),
        one.door.peers.id_of(&one.door.snapshot(NOW)[0].key)
    );
}

#[test]
fn a_newcomer_of_an_epoch_in_parts_is_held_against_its_rules_before_anybody_else_has_the_tunnel() {
    let (mut one, two) = pair();
    let (key, shared) = newcomer();
    let both = HashSet::from([two.key, key]);
    // Nothing is allowed.
    one.door.prepare(&both, None);
    one.door.prepare_rules(Vec::new(), Groups(1));
    one.door.admit(key, shared);
    let peers = vec![spec(key, 3), spec(two.key, 2)];
    one.door.install_some(Epoch(2), peers, SECOND, NOW);
    one.door
        .install_groups([(key, Groups(1)), (two.key, Groups(1))]);
    let is_open = |node: &Node, key: &WgPublicKey| {
        let peers = &node.door.peers;
        let peer = peers.id_of(key).and_then(|id| peers.lock(id));
        peer.expect("a peer").gate.is_open()
    };
    assert!(!is_open(&one, &key));
    assert!(is_open(&one, &two.key), "its epoch in force has no rules");
    one.door.activate(Epoch(2), NOW);
    assert!(!is_open(&one, &key) && !is_open(&one, &two.key));
    // An epoch without rules.
    one.door.prepare(&both, None);
    let peers = vec![spec(key, 3), spec(two.key, 2)];
    one.door.install_some(Epoch(3), peers, SECOND, NOW);
    assert!(!is_open(&one, &key), "it has not begun");
    one.door.activate(Epoch(3), NOW);
    assert!(is_open(&one, &key) && is_open(&one, &two.key));
}
