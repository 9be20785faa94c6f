//! Revocation that nobody outruns: survivors that were away, flows that were under way, a controller
//! that dies on the way. The evicted node never hears of it and goes on with the keys that it has.

use crate::quiet_mesh_of;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tests::harness::transfer::{noise, transfer};
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::{Control, Membership, NodeState};

#[test]
fn survivors_that_were_cut_off_or_dead_during_an_eviction_drop_the_evicted_once_they_know() {
    let mut mesh = quiet_mesh_of(4);
    watch(&mesh, &["node-b", "node-c"], "node-d");
    mesh.deafen("node-d");
    let pings = [
        mesh.keep_pinging("node-d", "node-b"),
        mesh.keep_pinging("node-d", "node-c"),
        mesh.keep_pinging("node-b", "node-d"),
        mesh.keep_pinging("node-c", "node-d"),
    ];
    mesh.wait_until("pings pass without the controller", |_| {
        pings.iter().all(|ping| ping.answered() > 5)
    });

    mesh.link_down("node-b");
    mesh.kill("node-c");
    let of_killed = delivered(&mesh, "node-c");
    assert!(of_killed > 0, "what is counted came");
    let change = mesh.evict("node-d");
    mesh.wait_until("node-a knows", |mesh| knows(mesh, "node-a", change.epoch));
    // The two come back to an epoch after the eviction, not to the eviction itself.
    let newer = mesh.rotate_now().epoch;
    assert!(newer > change.epoch);
    assert_eq!(
        mesh.node_status("node-d").membership,
        Some(Membership::Allowed),
        "the evicted node does not know"
    );

    let heard_of_killed = heard(&mesh, "node-c");
    mesh.start_node("node-c");
    mesh.link_up("node-b");
    for survivor in ["node-b", "node-c"] {
        let what = format!("{survivor} knows");
        mesh.wait_until(&what, |mesh| knows(mesh, survivor, newer));
    }
    let late = delivered(&mesh, "node-b");
    let heard_late = heard(&mesh, "node-b");
    wait_for_attempts(&mut mesh, &["node-b", "node-c"], 15);
    assert_eq!(delivered(&mesh, "node-b"), late, "since node-b knows");
    assert_eq!(delivered(&mesh, "node-c"), of_killed, "since node-c began");
    assert_eq!(heard(&mesh, "node-b"), heard_late, "node-b says nothing");
    assert_eq!(
        heard(&mesh, "node-c"),
        heard_of_killed,
        "node-c says nothing"
    );
    mesh.wait_until_members(&["node-a", "node-b", "node-c"]);
}

#[test]
fn flows_of_an_evicted_node_end_with_the_byte_at_which_the_survivor_knows() {
    let mut mesh = quiet_mesh_of(3);
    watch(&mesh, &["node-a"], "node-c");
    mesh.deafen("node-c");
    let inwards = Flow::start(&mesh, "node-c", "node-a");
    let outwards = Flow::start(&mesh, "node-a", "node-c");
    mesh.wait_until("both flows run", |_| {
        inwards.arrived() > ENOUGH && outwards.arrived() > ENOUGH
    });

    let bytes = noise(4 << 20, 7);
    let to = mesh.addresses("node-b")[0];
    std::thread::scope(|scope| {
        let (a, b) = (mesh.namespace("node-a"), mesh.namespace("node-b"));
        let healthy = scope.spawn(|| transfer(a, b, to, &bytes));
        let change = mesh.evict("node-c");
        let patience = tests::harness::PATIENCE;
        assert!(
            tests::harness::poll(patience, || knows(&mesh, "node-a", change.epoch)),
            "node-a does not hear of it"
        );
        let (late, heard_late) = (delivered(&mesh, "node-a"), heard(&mesh, "node-a"));
        assert!(late > 100 && heard_late > 100, "both flows were counted");
        let tried = tried(&mesh, "node-a");
        let went_on = || self::tried(&mesh, "node-a") >= tried + 5;
        assert!(
            tests::harness::poll(patience, went_on),
            "node-c does not try on"
        );
        assert_eq!(delivered(&mesh, "node-a"), late, "of node-c");
        assert_eq!(heard(&mesh, "node-a"), heard_late, "to node-c");
        let arrived = healthy.join().expect("it ends").expect("it goes on");
        assert!(arrived == bytes, "the survivors' own bytes are whole");
    });
    let (ins, outs) = (inwards.arrived(), outwards.arrived());
    assert!(mesh.none_reach("node-c", &["node-a"]));
    assert_eq!((inwards.arrived(), outwards.arrived()), (ins, outs));
}

#[test]
fn an_eviction_that_was_accepted_survives_a_controller_that_dies_before_everybody_was_told() {
    let mut mesh = quiet_mesh_of(3);
    watch(&mesh, &["node-b"], "node-c");
    mesh.deafen("node-c");
    let evicted_to_b = mesh.keep_pinging("node-c", "node-b");
    mesh.wait_until("pings pass", |_| evicted_to_b.answered() > 5);
    // The survivors still reach each other and the evicted; node-b only misses the controller.
    mesh.deafen("node-b");
    let change = mesh.evict("node-c");
    mesh.kill(CONTROLLER);
    assert!(!knows(&mesh, "node-b", change.epoch), "it was not told");
    let answered = evicted_to_b.answered();
    mesh.wait_until("node-b goes on with what it knows", |_| {
        evicted_to_b.answered() > answered + 3
    });

    mesh.start_controller();
    let node = mesh.node("node-c");
    assert_eq!(node.membership, Membership::Denied);
    assert!(mesh.epoch() >= change.epoch, "no epoch is taken back");
    mesh.undeafen("node-b");
    mesh.wait_until("node-b knows", |mesh| knows(mesh, "node-b", change.epoch));
    let late = delivered(&mesh, "node-b");
    let heard_late = heard(&mesh, "node-b");
    wait_for_attempts(&mut mesh, &["node-b"], 15);
    assert_eq!(delivered(&mesh, "node-b"), late, "since node-b knows");
    assert_eq!(heard(&mesh, "node-b"), heard_late, "node-b says nothing");
    assert_eq!(mesh.node("node-c").state, NodeState::Evicted);
    mesh.wait_until_members(&["node-a", "node-b"]);
}

#[test]
fn half_of_the_nodes_miss_activations_and_an_eviction_and_all_pairs_come_together_again() {
    let builder = Mesh::builder().nodes(5).epoch_seconds(3);
    let mut mesh = builder.lease_seconds(120).start();
    watch(&mesh, &["node-c", "node-d"], "node-e");
    mesh.deafen("node-e");
    let healthy = [
        mesh.keep_pinging("node-a", "node-b"),
        mesh.keep_pinging("node-b", "node-a"),
    ];
    let away = ["node-c", "node-d"];
    let evicted = away.map(|node| mesh.keep_pinging("node-e", node));
    mesh.wait_until("an epoch is published and waits for its time", |mesh| {
        mesh.status().epoch.next.is_some()
    });
    away.iter().for_each(|node| mesh.link_down(node));
    let change = mesh.evict("node-e");
    mesh.wait_epochs(2);
    for node in away {
        let own = mesh.node_status(node);
        assert!(own.epoch < Some(change.epoch), "{node} has missed it");
    }
    let before = mesh.epoch();
    for node in away {
        mesh.link_up(node);
        mesh.wait_until("it knows", |mesh| knows(mesh, node, before));
        let (late, heard_late) = (delivered(&mesh, node), heard(&mesh, node));
        wait_for_attempts(&mut mesh, &[node], 10);
        assert_eq!(delivered(&mesh, node), late, "{node} knows");
        assert_eq!(heard(&mesh, node), heard_late, "{node} says nothing");
    }
    mesh.wait_until_members(&["node-a", "node-b", "node-c", "node-d"]);
    let losses = healthy.map(tests::harness::Pinger::stop);
    for losses in losses {
        assert!(losses.sent > 30, "{losses:?}");
        assert_eq!(losses.lost, 0, "the reachable lose nothing: {losses:?}");
    }
    drop(evicted);
    let settled = mesh.epoch() + 1;
    mesh.wait_until("everybody has the same epoch again", |mesh| {
        let nodes = ["node-a", "node-b", "node-c", "node-d"];
        nodes.iter().all(|node| {
            let own = mesh.node_status(node);
            own.epoch >= Some(settled) && own.control == Control::Connected
        })
    });
}

/// Counts at each survivor what it is delivered from `evicted` and what comes to its port, and at
/// `evicted` what each survivor sends to it.
fn watch(mesh: &Mesh, survivors: &[&str], evicted: &str) {
    for survivor in survivors {
        mesh.tally_delivered(survivor, "delivered", evicted);
        mesh.tally_datagrams(survivor, "tried", evicted);
        mesh.tally_datagrams(evicted, &of(survivor), survivor);
    }
    assert_eq!(mesh.nodes().last().map(String::as_str), Some(evicted));
}

fn of(survivor: &str) -> String {
    survivor.replace('-', "_")
}

/// Inner packets of the evicted node that this survivor's kernel has got.
fn delivered(mesh: &Mesh, survivor: &str) -> u64 {
    mesh.tallied(survivor, "delivered")
}

/// Datagrams of the evicted node that came to this survivor.
fn tried(mesh: &Mesh, survivor: &str) -> u64 {
    mesh.tallied(survivor, "tried")
}

/// Datagrams of this survivor that came to the evicted node.
fn heard(mesh: &Mesh, survivor: &str) -> u64 {
    let nodes = mesh.nodes();
    let evicted = nodes.last().expect("there are nodes");
    mesh.tallied(evicted, &of(survivor))
}

/// Whether `node` has this epoch, or a newer one, in force.
fn knows(mesh: &Mesh, node: &str, epoch: u64) -> bool {
    let own = mesh.try_node_status(node);
    own.is_some_and(|own| own.epoch >= Some(epoch))
}

/// Waits until the evicted node has sent each of these survivors so many more datagrams.
fn wait_for_attempts(mesh: &mut Mesh, survivors: &[&str], more: u64) {
    for survivor in survivors {
        let goal = tried(mesh, survivor) + more;
        mesh.wait_until("the evicted node tries on", |mesh| {
            tried(mesh, survivor) >= goal
        });
    }
}

/// Bytes that never end, over TCP from one node to another.
struct Flow {
    arrived: Arc<AtomicU64>,
    ends: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Flow {
    fn start(mesh: &Mesh, from: &str, to: &str) -> Self {
        let address = mesh.addresses(to)[0];
        let listen = mesh
            .namespace(to)
            .enter(move || TcpListener::bind((address, 0)));
        let listener = listen.join().expect("it ends").expect("the address");
        let at = listener.local_addr().expect("it is bound");
        let connect = mesh.namespace(from).enter(move || TcpStream::connect(at));
        let mut sender = connect.join().expect("it ends").expect("it connects");
        let (mut receiver, _) = listener.accept().expect("it comes");
        let twin = |stream: &TcpStream| stream.try_clone().expect("it can be shared");
        let ends = [twin(&sender), twin(&receiver)];
        let arrived = Arc::new(AtomicU64::new(0));
        let count = arrived.clone();
        let sending = move || {
            let block = [7; 16 << 10];
            while sender.write_all(&block).is_ok() {}
        };
        let receiving = move || {
            let mut block = [0; 16 << 10];
            while let Ok(len @ 1..) = receiver.read(&mut block) {
                count.fetch_add(len as u64, Ordering::SeqCst);
            }
        };
        let threads = vec![std::thread::spawn(sending), std::thread::spawn(receiving)];
        Self {
            arrived,
            ends,
            threads,
        }
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Bytes that show that a flow has found its pace.
const ENOUGH: u64 = 1 << 20;
