//! Whom a round of probes looks at. In a small mesh everybody; in a large one those that packets pass to and from,
//! and a few of the others in turn: probes of all pairs would be the most of what a large mesh does, and
//! reports of them the most that its controller hears. Decides that, and nothing else.

use keys::{NodeId, WgPublicKey};
use std::collections::HashMap;
use std::time::Duration;
use tunnel::PeerSnapshot;

/// The choice of the next round.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Bytes both ways with each peer, as the last round found them.
    carried: HashMap<WgPublicKey, u64>,
    /// Peers that packets passed to or from, and when that was seen last.
    busy: HashMap<WgPublicKey, Duration>,
    /// The last node that was looked at in its turn.
    turn: Option<NodeId>,
    /// The same, when the round is over that is being made.
    next_turn: Option<NodeId>,
}

impl Sample {
    /// A round is over, and the tunnel shows these peers.
    pub(crate) fn handle_round(&mut self, peers: &[PeerSnapshot], now: Duration) {
        self.turn = self.next_turn;
        let carried = peers.iter().map(|peer| {
            let total = peer.tx_bytes.saturating_add(peer.rx_bytes);
            (peer.key, total)
        });
        let carried: HashMap<_, _> = carried.collect();
        self.busy
            .retain(|key, at| carried.contains_key(key) && now.saturating_sub(*at) < BUSY_FOR);
        for (key, total) in &carried {
            // Traffic that is not known from before may be of any time.
            let before = self.carried.get(key).copied().unwrap_or(*total);
            if total.saturating_sub(before) > PROBES {
                self.busy.insert(*key, now);
            }
        }
        self.carried = carried;
    }

    /// Those of `all` to look at next. `all` is in the order of their numbers, and has a key for each that there is
    /// a tunnel to.
    pub(crate) fn choose<T>(
        &mut self,
        all: Vec<T>,
        of: impl Fn(&T) -> (NodeId, Option<WgPublicKey>),
    ) -> Vec<T> {
        if all.len() <= EVERYBODY {
            return all;
        }
        let seen_busy = |it: &T| of(it).1.and_then(|key| self.busy.get(&key).copied());
        let (mut busy, mut others): (Vec<T>, Vec<T>) =
            all.into_iter().partition(|it| seen_busy(it).is_some());
        // The last that packets passed to or from come first; one that is left out has its turn like the others.
        busy.sort_by_key(|it| std::cmp::Reverse(seen_busy(it)));
        let left_out = busy.split_off(busy.len().min(MOST_BUSY));
        others.extend(left_out);
        others.sort_by_key(|it| of(it).0);
        let is_past = |it: &T| self.turn.is_some_and(|turn| of(it).0 <= turn);
        let begin = others.partition_point(is_past);
        others.rotate_left(begin);
        others.truncate(IN_TURN);
        self.next_turn = others.last().map(|it| of(it).0).or(self.turn);
        busy.extend(others);
        busy
    }
}

/// With no more nodes than this, every round looks at all.
pub const EVERYBODY: usize = 32;
/// Peers with traffic that a round looks at, beyond that.
pub const MOST_BUSY: usize = 48;
/// Other nodes that it looks at, in turn.
pub const IN_TURN: usize = 16;
/// A peer is looked at in every round for so long after its last traffic.
pub const BUSY_FOR: Duration = Duration::from_secs(180);
/// Bytes between two rounds that are no traffic: what probes of both sides come to, and an echo of full size each way.
const PROBES: u64 = 8_192;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ROUND: Duration = Duration::from_secs(5);

    fn node(number: usize) -> (NodeId, WgPublicKey) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        (NodeId(bytes), WgPublicKey(bytes))
    }

    fn peer(number: usize, bytes: u64) -> PeerSnapshot {
        PeerSnapshot {
            key: node(number).1,
            endpoint: None,
            session_epoch: None,
            session_age: None,
            next_ready: false,
            tx_bytes: bytes / 2,
            rx_bytes: bytes / 2,
        }
    }

    fn choose(sample: &mut Sample, count: usize) -> Vec<usize> {
        sample.choose((0..count).collect(), |it| (node(*it).0, Some(node(*it).1)))
    }

    #[test]
    fn in_a_small_mesh_everybody_is_looked_at() {
        let mut sample = Sample::default();
        for count in [0, 1, EVERYBODY] {
            assert_eq!(choose(&mut sample, count).len(), count);
        }
        assert_eq!(choose(&mut sample, EVERYBODY + 1).len(), IN_TURN);
    }

    #[test]
    fn in_a_large_one_everybody_has_a_turn_and_no_round_looks_at_more_than_a_few() {
        let (mut sample, mut seen) = (Sample::default(), BTreeSet::new());
        let count = 1_000_usize;
        for round in 1..=count.div_ceil(IN_TURN) as u32 {
            let chosen = choose(&mut sample, count);
            assert_eq!(chosen.len(), IN_TURN);
            // Asked again before the round is over, it is the same.
            assert_eq!(choose(&mut sample, count), chosen);
            seen.extend(chosen);
            sample.handle_round(&[], ROUND * round);
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn a_node_that_comes_or_goes_takes_nobodys_turn() {
        let mut sample = Sample::default();
        choose(&mut sample, 100);
        sample.handle_round(&[], ROUND);
        let without = (0..100).filter(|it| *it != 15).collect();
        let of = |it: &usize| (node(*it).0, None);
        assert_eq!(sample.choose(without, of), (16..32).collect::<Vec<_>>());
    }

    #[test]
    fn a_peer_with_traffic_is_looked_at_in_every_round_until_that_is_long_ago() {
        let mut sample = Sample::default();
        let mut now = ROUND;
        sample.handle_round(&[peer(500, 9_000_000), peer(600, 0)], now);
        assert!(!choose(&mut sample, 1_000).contains(&500), "it may be old");
        now += ROUND;
        let probed = 3_200;
        sample.handle_round(&[peer(500, 9_100_000), peer(600, probed)], now);
        let last = now + BUSY_FOR;
        while now < last {
            let chosen = choose(&mut sample, 1_000);
            assert_eq!(chosen.len(), IN_TURN + 1);
            assert_eq!(chosen[0], 500, "and a probe is no traffic");
            now += ROUND;
            sample.handle_round(&[peer(500, 9_100_000), peer(600, probed)], now);
        }
        assert_eq!(choose(&mut sample, 1_000).len(), IN_TURN);
    }

    #[test]
    fn of_many_with_traffic_the_last_are_looked_at_and_the_others_have_their_turn() {
        let mut sample = Sample::default();
        let all = |bytes| (0..200).map(|it| peer(it, bytes)).collect::<Vec<_>>();
        sample.handle_round(&all(0), ROUND);
        sample.handle_round(&all(100_000), ROUND * 2);
        let mut later = all(100_000);
        later[199] = peer(199, 200_000);
        sample.handle_round(&later, ROUND * 3);
        let chosen = choose(&mut sample, 200);
        assert_eq!(chosen.len(), MOST_BUSY + IN_TURN);
        assert_eq!(chosen[0], 199);
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
    }
}
