//! The network between the nodes: delay, loss, duplicates, partitions. Owns what happens to a datagram
//! on its way; refuses to look into one.

use rand::Rng as _;
use rand::rngs::SmallRng;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

/// The network.
pub(crate) struct Net {
    /// Share of datagrams that are lost.
    pub(crate) loss: f64,
    /// Share of datagrams that arrive twice.
    pub(crate) duplication: f64,
    /// Most of the random part of the delay: more than the time between packets reorders them.
    pub(crate) jitter: Duration,
    /// Nodes that only reach each other, not the others and not the controller.
    pub(crate) island: BTreeSet<usize>,
    /// Whose address it is or was.
    pub(crate) owners: HashMap<SocketAddr, usize>,
}

impl Net {
    pub(crate) fn calm() -> Self {
        Self {
            loss: 0.0,
            duplication: 0.0,
            jitter: Duration::from_millis(2),
            island: BTreeSet::new(),
            owners: HashMap::new(),
        }
    }

    /// Whether two nodes can reach each other.
    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        self.island.contains(&a) == self.island.contains(&b)
    }

    /// Whether a node can reach the controller.
    pub(crate) fn controller_reachable(&self, node: usize) -> bool {
        !self.island.contains(&node)
    }

    /// After how long each copy of a datagram arrives.
    pub(crate) fn delays(&self, from: usize, to: usize, rng: &mut SmallRng) -> Vec<Duration> {
        if rng.gen_bool(self.loss) {
            return Vec::new();
        }
        let copies = if rng.gen_bool(self.duplication) { 2 } else { 1 };
        // A pair's distance is its own and the same both ways.
        let distance = Duration::from_millis(1 + (from * to + from + to) as u64 % 23);
        let delay = |_| distance + self.jitter.mul_f64(rng.r#gen::<f64>());
        (0..copies).map(delay).collect()
    }
}
