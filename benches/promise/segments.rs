//! Two segments of one mesh, at the size of a small fleet: every pair that shares a segment reaches each other, no other
//! pair does, while both segments rotate and nodes come and go. Real daemons, real namespaces, real echoes.
//!
//! Settings: `NODES` (100; a tenth of them in both segments), `EPOCH_SECONDS` (60), `EPOCHS` (20 of each segment).

use crate::lab;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tests::harness::{CONTROLLER, Mesh, now, poll};
use wire::SegmentName;
use wire::admin::{EpochChange, Membership, NodeStatus};

pub(crate) fn measure() -> bool {
    let nodes: usize = lab::setting("NODES", 100);
    let seconds: u64 = lab::setting("EPOCH_SECONDS", 60);
    let epochs: u64 = lab::setting("EPOCHS", 20);
    let _raised = lab::Raised::neighbours(nodes + 1);
    let policy = format!(
        "epoch_seconds = {seconds}\nmax_benchmark_age = 3600\nprobation_epochs = 0\nlease_seconds = 120\n"
    );
    let mut builder = Mesh::builder()
        .nodes(nodes)
        .every_node_setting("emit_seconds", 30)
        .every_node_setting("probe_seconds", 30)
        .every_node_setting("data_threads", 1)
        .segment(SEGMENTS[0], "10.80.0.0/16", &policy)
        .segment(SEGMENTS[1], "10.81.0.0/16", &policy);
    let names = tests::harness::mesh::node_names(nodes);
    let (both, half) = (nodes / 10, nodes / 2);
    for (at, node) in names.iter().enumerate() {
        let in_first = at < half + both / 2;
        let in_second = at >= half - both / 2;
        let of: Vec<&str> = [in_first, in_second]
            .iter()
            .zip(SEGMENTS)
            .filter(|(is_in, _)| **is_in)
            .map(|(_, segment)| segment)
            .collect();
        builder = builder.node_in(node, &of);
    }
    let mut mesh = builder.prepare();
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    let began = now();
    let all_in = poll(START, || {
        members(&mesh).is_some_and(|it| it.len() == nodes + both)
    });
    assert!(
        all_in,
        "not all nodes are members within {} s",
        START.as_secs()
    );
    println!(
        "{nodes} nodes, {both} of them in both segments, after {:.0} s",
        began.elapsed().as_secs_f64()
    );

    let first = epochs_of(&mesh);
    let (mut rounds, mut pairs, mut wrong) = (0, 0, 0);
    loop {
        let out = churn(&mesh, rounds, &names);
        let matrix = Matrix::settled(&mesh, &out);
        rounds += 1;
        pairs += matrix.pairs;
        wrong += matrix.wrong.len();
        for line in matrix.wrong.iter().take(5) {
            println!("WRONG: {line}");
        }
        let passed: Vec<u64> = epochs_of(&mesh)
            .iter()
            .zip(&first)
            .map(|(now, then)| now - then)
            .collect();
        println!(
            "round {rounds}: {} pairs, {} wrong; out: {out:?}; epochs so far {passed:?}",
            matrix.pairs,
            matrix.wrong.len()
        );
        restore(&mesh, &out);
        if passed.iter().all(|it| *it >= epochs) || rounds >= MOST_ROUNDS {
            println!("{rounds} rounds, {pairs} pairs asked, {wrong} wrong, epochs {passed:?}");
            return wrong == 0 && passed.iter().all(|it| *it >= epochs);
        }
    }
}

/// The address of each member of each segment.
type Members = BTreeMap<(usize, String), Ipv4Addr>;

fn members(mesh: &Mesh) -> Option<Members> {
    let status = mesh.try_status()?;
    let mut members = Members::new();
    for (node, seen) in &status.nodes {
        for (segment, of) in SEGMENTS.iter().enumerate() {
            let of: SegmentName = of.parse().expect("a name");
            let place = seen.segments.get(&of);
            if let Some(place) = place.filter(|it| it.membership == Membership::Allowed) {
                members.insert((segment, node.to_string()), place.v4);
            }
        }
    }
    Some(members)
}

fn epochs_of(mesh: &Mesh) -> Vec<u64> {
    let status = mesh.status();
    let of = |name: &str| {
        status.segments[&name.parse::<SegmentName>().expect("a name")]
            .epoch
            .id
    };
    SEGMENTS.iter().map(|it| of(it)).collect()
}

/// Takes nodes out: one of the whole mesh, and one of the second segment.
#[derive(Debug)]
struct Out {
    evicted: String,
    left: String,
}

fn churn(mesh: &Mesh, round: usize, names: &[String]) -> Out {
    let evicted = names[(round * 7) % names.len()].clone();
    // One that is in both.
    let both = names.len() / 10;
    let at = names.len() / 2 - both / 2 + round % both.max(1);
    let left = names[at].clone();
    let _: EpochChange = mesh.ask(CONTROLLER, &["node", "evict", &evicted]);
    if left != evicted {
        let _: EpochChange = mesh.ask(CONTROLLER, &["node", "leave", &left, SEGMENTS[1]]);
    }
    Out { evicted, left }
}

fn restore(mesh: &Mesh, out: &Out) {
    let _: NodeStatus = mesh.ask(CONTROLLER, &["node", "readmit", &out.evicted]);
    if out.left != out.evicted {
        let _: NodeStatus = mesh.ask(CONTROLLER, &["node", "join", &out.left, SEGMENTS[1]]);
    }
}

/// The pairs that were asked, and those that were not as they should be.
struct Matrix {
    pairs: usize,
    wrong: Vec<String>,
}

impl Matrix {
    /// Asks all pairs until each is as it should be, a few times at most: sessions are made when there is traffic.
    fn settled(mesh: &Mesh, out: &Out) -> Self {
        let mut matrix = Self::ask(mesh, out);
        for _ in 0..TRIES {
            if matrix.wrong.is_empty() {
                break;
            }
            matrix = Self::ask(mesh, out);
        }
        matrix
    }

    fn ask(mesh: &Mesh, out: &Out) -> Self {
        let members = members(mesh).expect("the controller answers");
        let addresses: Vec<(usize, String, Ipv4Addr)> = all_places(mesh);
        let mut matrix = Self {
            pairs: 0,
            wrong: Vec::new(),
        };
        let nodes = mesh.nodes();
        for some in nodes.chunks(AT_ONCE) {
            let asked = some.iter().map(|from| {
                let to: Vec<Ipv4Addr> = addresses.iter().map(|it| it.2).collect();
                (from, mesh.namespace(from).enter(move || answered(&to)))
            });
            let asked: Vec<_> = asked.collect();
            for (from, answers) in asked {
                let answers = answers.join().expect("a thread ends");
                for (segment, to, address) in addresses.iter().filter(|it| it.1 != *from) {
                    let is_member = |node: &str| members.contains_key(&(*segment, node.to_owned()));
                    let is_out =
                        |node: &str| node == out.evicted || (node == out.left && *segment == 1);
                    let should = is_member(from) && is_member(to);
                    if should && (is_out(from) || is_out(to)) {
                        // It was taken out at this very moment, by the next epoch.
                        continue;
                    }
                    matrix.pairs += 1;
                    if should != answers.contains(address) {
                        let is = if should {
                            "is not reached by"
                        } else {
                            "is reached by"
                        };
                        let segment = SEGMENTS[*segment];
                        matrix
                            .wrong
                            .push(format!("{to} ({address}, {segment}) {is} {from}"));
                    }
                }
            }
        }
        matrix
    }
}

/// Every address that a node has in a segment, member or not.
fn all_places(mesh: &Mesh) -> Vec<(usize, String, Ipv4Addr)> {
    let status = mesh.status();
    let mut places = Vec::new();
    for (node, seen) in &status.nodes {
        for (segment, of) in SEGMENTS.iter().enumerate() {
            let of: SegmentName = of.parse().expect("a name");
            if let Some(place) = seen.segments.get(&of) {
                places.push((segment, node.to_string(), place.v4));
            }
        }
    }
    places
}

/// Those of `to` that answer an echo from this thread's namespace within the time for it.
fn answered(to: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    let mut socket = socket.expect("the bench is root in its namespaces");
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a time");
    let mut answered = BTreeSet::new();
    let began = now();
    let identifier = [0x5e, 0x67];
    let mut request = vec![8, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    let sum = !(0x0800u32 + 0x5e67 + 1);
    request[2..4].copy_from_slice(&(sum as u16).to_be_bytes());
    let (mut buffer, mut turns) = ([0; 256], 0);
    while began.elapsed() < ECHO && answered.len() < to.len() {
        if turns % 10 == 0 {
            for address in to.iter().filter(|it| !answered.contains(*it)) {
                // A route that is not there says no.
                let at = SocketAddr::new(IpAddr::V4(*address), 0);
                let _ = socket.send_to(&request, &at.into());
            }
        }
        turns += 1;
        while let Ok(len) = socket.read(&mut buffer) {
            let is_reply = len >= 28 && buffer[20] == 0 && buffer[24..26] == identifier;
            let from: [u8; 4] = buffer[12..16].try_into().expect("four");
            if is_reply {
                answered.insert(Ipv4Addr::from(from));
            }
        }
    }
    answered
}

const SEGMENTS: [&str; 2] = ["training", "inference"];
const START: Duration = Duration::from_secs(300);
/// Nodes that ask at a time.
const AT_ONCE: usize = 10;
const ECHO: Duration = Duration::from_millis(1_500);
const TRIES: usize = 8;
const MOST_ROUNDS: usize = 40;
