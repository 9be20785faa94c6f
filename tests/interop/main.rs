//! Interop: a stock WireGuard takes a node's place with what `meshctl peer export` says, carries
//! traffic for the epoch that the export is of, and not for the next one.
//!
//! The first program that speaks WireGuard in the node's namespace is meshd itself; then it stops and
//! `boringtun-cli`, `gotatun` or `wireguard-go` comes, configured by `wg setconf`. None is skipped: a
//! program that is missing fails its test, with the way to get it.
//!
//! `wg show` and an exporter see a running node, as [`mod@shown`] says.
//!
//! And the event log, as [`mod@ledger`] says: others' tools verify it.

mod ledger;
mod shown;
mod stock;

use std::net::IpAddr;
use std::time::Duration;
use stock::Stock;
use tests::harness::mesh::name;
use tests::harness::{Mesh, ping};
use wire::admin::{Membership, NodeDaemonStatus};

#[test]
fn boringtun_serves_for_one_epoch_and_no_longer() {
    serves_for_one_epoch("boringtun-cli", &["--foreground", UNCHANGED]);
}

#[test]
fn gotatun_serves_for_one_epoch_and_no_longer() {
    serves_for_one_epoch("gotatun", &["--foreground", UNCHANGED]);
}

#[test]
fn wireguard_go_serves_for_one_epoch_and_no_longer() {
    serves_for_one_epoch("wireguard-go", &["--foreground"]);
}

fn serves_for_one_epoch(program: &str, arguments: &[&str]) {
    stock::require(program);
    stock::require("wg");
    // The node's daemon is silent from now on, and shall stay a member on its old evidence.
    let builder = Mesh::builder().nodes(2).probation_epochs(0);
    let builder = builder.epoch_seconds(3600).lease_seconds(7200);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .start();
    let (node, stand_in) = (mesh.addresses(NODE), mesh.addresses(REPLACED));
    let export = mesh.meshctl(REPLACED, &["peer", "export", NODE]);
    assert!(export.status.success(), "no export: {export:?}");
    let config = String::from_utf8(export.stdout).expect("a configuration is text");
    mesh.stop(REPLACED);
    assert!(
        !reaches(&mesh, NODE, stand_in),
        "somebody answers for a node that is down"
    );

    let epoch = mesh.node_status(NODE).epoch;
    let stock = Stock::start(&mesh, REPLACED, program, arguments);
    stock.configure(&config, &node);
    mesh.wait_until("the stock WireGuard has shaken hands", |mesh| {
        shook(mesh, &stock)
    });
    // Its clock knows fewer leap seconds than the one of the meshd that it replaces, or none.
    let replayed = mesh.node_status(NODE).dropped["replayed"];
    assert_eq!(replayed, 0, "it was taken for a recording");
    mesh.wait_until("it reaches the node", |mesh| reaches(mesh, REPLACED, node));
    assert!(reaches(&mesh, NODE, stand_in), "the node does not reach it");
    assert!(carries(&mesh, REPLACED, node[0]) && carries(&mesh, NODE, stand_in[1]));
    let status = mesh.node_status(NODE);
    assert_eq!(
        (status.epoch, session(&status)),
        (epoch, epoch),
        "another epoch meanwhile"
    );

    // A restarted stock WireGuard shakes hands again: the same probe as below, with the right PSK.
    let stock = stock.restart(&mesh);
    stock.configure(&config, &node);
    mesh.wait_until("it has shaken hands again", |mesh| shook(mesh, &stock));
    mesh.wait_until("it reaches the node again", |mesh| {
        reaches(mesh, REPLACED, node)
    });

    let next = mesh.rotate();
    assert_eq!(mesh.node(REPLACED).membership, Membership::Allowed);
    mesh.wait_until(
        "the node has the next epoch and no session of the last",
        |mesh| {
            let status = mesh.node_status(NODE);
            status.epoch == Some(next.epoch) && session(&status).is_none()
        },
    );
    assert_eq!(
        peer(&mesh.node_status(NODE)).membership,
        Membership::Allowed,
        "it is a member"
    );
    assert!(
        !reaches_any(&mesh, REPLACED, node),
        "the last epoch's session still carries"
    );
    assert!(
        !reaches_any(&mesh, NODE, stand_in),
        "the last epoch's session still carries"
    );

    // The PSK enters a handshake with its response: who initiates finds out that it is the wrong one.
    // Both try, and the node's own attempts are answered and counted.
    let refused = mesh.node_status(NODE).dropped["bad_handshake"];
    let stock = stock.restart(&mesh);
    stock.configure(&config, &node);
    mesh.wait_until("the node has refused some responses", |mesh| {
        assert!(
            !reaches_any(mesh, REPLACED, node),
            "an old PSK opens the door"
        );
        assert!(
            !reaches_any(mesh, NODE, stand_in),
            "an old PSK opens the door"
        );
        mesh.node_status(NODE).dropped["bad_handshake"] >= refused + 2
    });
    assert_eq!(
        session(&mesh.node_status(NODE)),
        None,
        "an old PSK shakes hands"
    );
    assert!(!shook(&mesh, &stock), "an old PSK shakes hands");
}

/// Whether `from` has an answer from both addresses.
fn reaches(mesh: &Mesh, from: &str, to: [IpAddr; 2]) -> bool {
    to.into_iter()
        .all(|to| ping::once(mesh.namespace(from), to))
}

/// Whether `from` has an answer from any of the addresses.
fn reaches_any(mesh: &Mesh, from: &str, to: [IpAddr; 2]) -> bool {
    to.into_iter()
        .any(|to| ping::once(mesh.namespace(from), to))
}

/// Whether twenty pings of nearly the MTU are all answered.
fn carries(mesh: &Mesh, from: &str, to: IpAddr) -> bool {
    let words = format!("ping -n -q -c 20 -i 0.02 -W 1 -s {LARGE} {to}");
    let words: Vec<&str> = words.split(' ').collect();
    let output = mesh.exec(from, &words);
    String::from_utf8_lossy(&output.stdout).contains(" 0% packet loss")
}

/// Whether the node's newest session is younger than this run of the stock program. Some programs
/// call an initiation that they have answered a handshake; a node waits for its confirmation.
fn shook(mesh: &Mesh, stock: &Stock) -> bool {
    let age = peer(&mesh.node_status(NODE)).handshake_seconds;
    age.is_some_and(|age| age < stock.age().as_secs_f64())
}

/// Epoch of the node's session with the one that was replaced.
fn session(status: &NodeDaemonStatus) -> Option<u64> {
    peer(status).session_epoch
}

fn peer(status: &NodeDaemonStatus) -> &wire::admin::PeerStatus {
    &status.peers[&name(REPLACED)]
}

const NODE: &str = "node-a";
const REPLACED: &str = "node-b";
/// A ping of this size, with its headers, fits the mesh's MTU on either family.
const LARGE: u32 = 1372;
/// A user who is root only in a user namespace has no rights to drop.
const UNCHANGED: &str = "--disable-drop-privileges";
/// For the stock program to be there.
const START: Duration = Duration::from_secs(10);
