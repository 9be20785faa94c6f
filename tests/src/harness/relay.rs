//! A bad underlay: a UDP relay that loses, duplicates, reorders and delays what passes between nodes,
//! in each direction as it is told at the time. Its fate of a datagram depends only on the seed and on
//! how many came that way before.
//!
//! ```text
//! node-a ──▶ :52002 ┐        ┌ :52001 ──▶ node-b        what came to the port of one node, from another,
//!                   └ relay ─┘                          goes to that node from the other's port
//! ```
//!
//! Nodes use it by having their port here as the address that they advertise: see [`advertised`].

use super::mesh::Mesh;
use super::now;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The harm that comes to datagrams on a way. None, by default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Impairment {
    /// Share that is lost.
    pub loss: f64,
    /// Share of the rest that arrives twice.
    pub duplication: f64,
    /// Share of the rest that is held back for [`HELD_BACK`] more than the others.
    pub reordering: f64,
    /// How long everything takes.
    pub delay: Duration,
    /// How much longer handshake initiations take.
    pub initiations: Duration,
}

/// The fates of datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fates {
    /// Those that went on, each counted once.
    pub passed: usize,
    /// Those of which nothing went on.
    pub dropped: usize,
    /// Those that went on twice.
    pub duplicated: usize,
    /// Those that were held back.
    pub held: usize,
}

/// A relay that runs.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    names: Vec<String>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Per node: its own address, and the socket at which others reach it.
    nodes: Vec<(SocketAddr, UdpSocket)>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// By sender and receiver.
    ways: BTreeMap<(usize, usize), Way>,
    /// Datagrams that wait, by time and order of arrival.
    waiting: BTreeMap<(Instant, u64), Parcel>,
    arrived: u64,
    crossed: usize,
    over: bool,
}

#[derive(Debug)]
struct Way {
    impairment: Impairment,
    dice: u64,
    /// By the datagram's length.
    fates: BTreeMap<usize, Fates>,
}

#[derive(Debug)]
struct Parcel {
    from: usize,
    to: usize,
    datagram: Vec<u8>,
}

/// The setting `advertise` of a node that is reached through a relay at `host_index`.
#[must_use]
pub fn advertised(host_index: usize, node_index: usize) -> String {
    format!("[\"{}\"]", front(host_index, node_index))
}

impl Relay {
    /// Begins to relay for all nodes of the mesh, at `host`, which is the mesh's host number
    /// `host_index`.
    ///
    /// # Panics
    /// When its ports cannot be had.
    #[must_use]
    pub fn start(mesh: &Mesh, host: &str, host_index: usize, seed: u64) -> Self {
        let names = mesh.nodes();
        let nodes = names.iter().enumerate().map(|(index, node)| {
            let at = front(host_index, index);
            let bind = mesh.namespace(host).enter(move || UdpSocket::bind(at));
            let socket = bind.join().expect("a thread ends").expect("a port");
            let patience = Some(LOOK_UP);
            socket.set_read_timeout(patience).expect("it has no limits");
            (
                SocketAddr::new(mesh.underlay_of(node)[0], WIREGUARD),
                socket,
            )
        });
        let pairs = (0..names.len()).flat_map(|from| (0..names.len()).map(move |to| (from, to)));
        let ways = pairs.filter(|(from, to)| from != to).map(|pair| {
            let way = Way {
                impairment: Impairment::default(),
                // Never zero, and another one for each way.
                dice: ((seed << 16) | (1 + ((pair.0 << 8) | pair.1) as u64))
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15),
                fates: BTreeMap::new(),
            };
            (pair, way)
        });
        let shared = Arc::new(Shared {
            nodes: nodes.collect(),
            state: Mutex::new(State {
                ways: ways.collect(),
                waiting: BTreeMap::new(),
                arrived: 0,
                crossed: 0,
                over: false,
            }),
            changed: Condvar::new(),
        });
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for node in 0..names.len() {
            let shared = shared.clone();
            threads.push(std::thread::spawn(move || shared.take_in(node)));
        }
        let sending = shared.clone();
        threads.push(std::thread::spawn(move || sending.send_on()));
        Self {
            shared,
            names,
            threads,
        }
    }

    /// Sets what happens from now on to datagrams that `from` sends to `to`.
    pub fn impair(&self, from: &str, to: &str, impairment: Impairment) {
        let way = (self.index(from), self.index(to));
        let mut state = self.shared.state();
        state.ways.get_mut(&way).expect("two nodes").impairment = impairment;
    }

    /// Sets what happens from now on to all datagrams.
    pub fn impair_all(&self, impairment: Impairment) {
        let mut state = self.shared.state();
        let ways = state.ways.values_mut();
        ways.for_each(|way| way.impairment = impairment);
    }

    /// The fates of datagrams of this length from one node to another.
    #[must_use]
    pub fn fates(&self, from: &str, to: &str, len: usize) -> Fates {
        let way = (self.index(from), self.index(to));
        let state = self.shared.state();
        state.ways[&way]
            .fates
            .get(&len)
            .copied()
            .unwrap_or_default()
    }

    /// Initiations that were under way while another one was on the opposite way.
    #[must_use]
    pub fn crossed(&self) -> usize {
        self.shared.state().crossed
    }

    fn index(&self, node: &str) -> usize {
        let found = self.names.iter().position(|name| name == node);
        found.unwrap_or_else(|| panic!("no node {node}"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Takes what comes for one node.
    fn take_in(&self, to: usize) {
        let mut buffer = [0; 1 << 16];
        loop {
            let received = self.nodes[to].1.recv_from(&mut buffer);
            if self.state().over {
                return;
            }
            let Ok((len, source)) = received else {
                continue;
            };
            let known = |(node, _): &(SocketAddr, UdpSocket)| *node == source;
            let Some(from) = self.nodes.iter().position(known).filter(|from| *from != to) else {
                continue;
            };
            self.state().decide(from, to, &buffer[..len]);
            self.changed.notify_all();
        }
    }

    /// Sends what is due.
    fn send_on(&self) {
        let mut state = self.state();
        while !state.over {
            let due = state.waiting.first_key_value().map(|(key, _)| key.0);
            let wait = due.map_or(LOOK_UP, |due| due.saturating_duration_since(now()));
            if wait.is_zero() {
                let parcel = state.waiting.pop_first().expect("one is due").1;
                drop(state);
                let (socket, to) = (&self.nodes[parcel.from].1, self.nodes[parcel.to].0);
                let _ = socket.send_to(&parcel.datagram, to);
                state = self.state();
            } else {
                let waited = self.changed.wait_timeout(state, wait);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn decide(&mut self, from: usize, to: usize, datagram: &[u8]) {
        let way = self.ways.get_mut(&(from, to)).expect("two nodes");
        let Impairment {
            loss,
            duplication,
            reordering,
            mut delay,
            initiations,
        } = way.impairment;
        let [lost, duplicated, held] = [loss, duplication, reordering].map(|share| way.is(share));
        let fates = way.fates.entry(datagram.len()).or_default();
        if lost {
            fates.dropped += 1;
            return;
        }
        fates.passed += 1;
        fates.duplicated += usize::from(duplicated);
        fates.held += usize::from(held);
        let is_initiation = datagram.len() == INITIATION_LEN;
        let opposite = |it: &&Parcel| it.to == from && it.from == to;
        let mut meets = self.waiting.values().filter(opposite);
        let meets = meets.any(|it| it.datagram.len() == INITIATION_LEN);
        self.crossed += usize::from(is_initiation && meets);
        if is_initiation {
            delay += initiations;
        }
        if held {
            delay += HELD_BACK;
        }
        for copy in 0..=u32::from(duplicated) {
            self.arrived += 1;
            let parcel = Parcel {
                from,
                to,
                datagram: datagram.to_vec(),
            };
            let at = now() + delay + BETWEEN_COPIES * copy;
            self.waiting.insert((at, self.arrived), parcel);
        }
    }
}

impl Way {
    /// Throws the dice.
    fn is(&mut self, share: f64) -> bool {
        // Xorshift, Marsaglia 2003.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        ((self.dice >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}

fn front(host_index: usize, node_index: usize) -> SocketAddr {
    let last = u8::try_from(host_index + 1).expect("a small number");
    let port = u16::try_from(node_index).expect("a small number");
    SocketAddr::new(
        IpAddr::V4(Ipv4Addr::new(198, 18, 1, last)),
        FIRST_PORT + port,
    )
}

/// Longer than between two pings of a fast stream, much shorter than a grace.
pub const HELD_BACK: Duration = Duration::from_millis(120);
/// WireGuard's handshake initiation.
const INITIATION_LEN: usize = 148;
const BETWEEN_COPIES: Duration = Duration::from_millis(5);
const FIRST_PORT: u16 = 52001;
const WIREGUARD: u16 = 51820;
/// How often the threads look up whether it is over.
const LOOK_UP: Duration = Duration::from_millis(100);
