//! A controller's connection key in the wrong hands, and the places that its holder would like to give: a
//! node believes only one that its authority signed for it, and forgets nothing of the mesh that it is in.

use crate::cut_off::netns;
use crate::fake_controller::FakeController;
use keys::{AuthoritySecret, ControllerSecret, MeshId, NodeId};
use rand_core::OsRng;
use serde::Deserialize;
use std::net::{Ipv4Addr, Ipv6Addr};
use tests::harness::mesh::{CONTROLLER, CONTROLLER_PORT};
use tests::harness::{Mesh, PATIENCE, poll};
use wire::admin::Control;
use wire::signed::Signable;
use wire::{Place, Signed};

#[test]
fn a_node_takes_no_place_but_its_own_from_its_authority() {
    let mut mesh = Mesh::builder().nodes(2).probation_epochs(0).start();
    let authority = AuthoritySecret::from_base64(&read(&mesh, CONTROLLER, "authority.key"));
    let authority = authority.expect("a key");
    let connection = read(&mesh, CONTROLLER, "connection.key");
    let node: NodeId = mesh.node_status(NODE).node.parse().expect("an identity");
    let own = place(&mesh, node);
    mesh.stop(CONTROLLER);
    let kept = |mesh: &Mesh| {
        let files = ["enrolment.json", "epochs.json"].map(|file| read(mesh, NODE, file));
        let routes = mesh.exec(NODE, &["ip", "route", "show", "dev", "meshd0"]);
        (files, routes.stdout)
    };
    mesh.wait_until("it is alone", |mesh| {
        mesh.node_status(NODE).control == Control::Disconnected
    });
    let before = kept(&mesh);

    let stranger = AuthoritySecret::generate(&mut OsRng);
    let elsewhere = Place {
        mesh: MeshId([9; 16]),
        ..own.clone()
    };
    let foreign_route = Place {
        v4: (Ipv4Addr::new(203, 0, 113, 77), 24),
        ..own.clone()
    };
    // All kinds of wrong places are in a test of the node's session; here, what two of them could move.
    let cases = [
        (
            "another mesh, under the authority's name",
            forged(&elsewhere, &stranger, &authority),
            "does not verify",
        ),
        (
            "a foreign range, by another key",
            sign(&foreign_route, &stranger),
            "signed by another key",
        ),
    ];
    for (case, place, reason) in cases {
        let fake = fake(&mesh, &connection, node, place);
        wait(&mesh, case, || {
            let error = mesh.node_status(NODE).control_error;
            fake.welcomed() > 0 && error.is_some_and(|error| error.contains(reason))
        });
        assert_eq!(
            mesh.node_status(NODE).control,
            Control::Disconnected,
            "{case}"
        );
        assert_eq!(kept(&mesh), before, "{case} has left something");
        fake.stop().expect("it ran");
    }
    // The same with its own place: what was refused above was the place, and nothing else.
    let fake = fake(&mesh, &connection, node, sign(&own, &authority));
    wait(&mesh, "its own place", || {
        mesh.node_status(NODE).control == Control::Connected
    });
    fake.stop().expect("it ran");
    mesh.start_controller();
    mesh.wait_until_all_reach_all();
}

fn fake(mesh: &Mesh, connection: &str, node: NodeId, place: Signed<Place>) -> FakeController {
    let address = ([0, 0, 0, 0], CONTROLLER_PORT).into();
    let secret = ControllerSecret::from_base64(connection).expect("a key");
    FakeController::start(&netns(mesh, CONTROLLER), address, secret, node, place)
}

fn sign(place: &Place, authority: &AuthoritySecret) -> Signed<Place> {
    Signed::sign(place, authority).expect("it keeps the rules")
}

/// Signed by `by`, under the name of `authority`.
fn forged(place: &Place, by: &AuthoritySecret, authority: &AuthoritySecret) -> Signed<Place> {
    let payload = postcard::to_stdvec(place).expect("it encodes");
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&payload).into();
    let signature = by.sign(Place::LABEL, &digest).0;
    let parts = (
        serde_bytes::ByteBuf::from(payload),
        authority.public(),
        serde_bytes::ByteArray::new(signature),
    );
    let bytes = postcard::to_stdvec(&parts).expect("it encodes");
    postcard::from_bytes(&bytes).expect("the same form")
}

/// The node's place, as it keeps it.
pub(crate) fn place(mesh: &Mesh, node: NodeId) -> Place {
    #[derive(Deserialize)]
    struct Enrolment {
        name: wire::NodeName,
        mesh: MeshId,
        segments: Vec<Segment>,
    }
    #[derive(Deserialize)]
    struct Segment {
        segment: keys::SegmentId,
        name: wire::SegmentName,
        v4: (Ipv4Addr, u8),
        v6: (Ipv6Addr, u8),
    }

    let enrolment = read(mesh, NODE, "enrolment.json");
    let enrolment: Enrolment = serde_json::from_str(&enrolment).expect("its place");
    let [segment] = <[Segment; 1]>::try_from(enrolment.segments)
        .ok()
        .expect("it is in one");
    Place {
        node,
        mesh: enrolment.mesh,
        segment: segment.segment,
        segment_name: segment.name,
        name: enrolment.name,
        v4: segment.v4,
        v6: segment.v6,
    }
}

fn read(mesh: &Mesh, host: &str, file: &str) -> String {
    let path = mesh.state_dir(host).join(file);
    let text = std::fs::read_to_string(&path).expect("it is there");
    text.trim().to_owned()
}

fn wait(mesh: &Mesh, what: &str, condition: impl FnMut() -> bool) {
    let came = poll(PATIENCE, condition);
    assert!(came, "not in time: {what}\n{}", mesh.log(NODE));
}

const NODE: &str = "node-a";
