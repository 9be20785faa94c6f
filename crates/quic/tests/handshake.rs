//! Two real endpoints on loopback: who is let in, and what travels.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use keys::{ControllerSecret, Epoch, NodeSecret};
use quic::{Connection, Dialer, Listener, Receiver, Sender};
use rand_core::OsRng;
use std::net::SocketAddr;
use wire::message::{Phase, Refusal};
use wire::{ToController, ToNode};

const LOOPBACK: &str = "127.0.0.1:0";

async fn pair() -> (
    NodeSecret,
    ControllerSecret,
    Connection,
    Connection,
    Listener,
    Dialer,
) {
    let (node, controller) = (
        NodeSecret::generate(&mut OsRng),
        ControllerSecret::generate(&mut OsRng),
    );
    let listener = Listener::bind(LOOPBACK.parse().unwrap(), &controller).unwrap();
    let dialer = Dialer::bind(&node, controller.public()).unwrap();
    let address = listener.local_addr().unwrap();
    let (there, here) = tokio::join!(dialer.connect(address), async {
        listener.accept().await.unwrap().handshake().await
    });
    (
        node,
        controller,
        there.unwrap(),
        here.unwrap(),
        listener,
        dialer,
    )
}

#[tokio::test]
async fn both_sides_learn_which_key_they_talk_to() {
    let (node, controller, there, here, ..) = pair().await;
    assert_eq!(here.peer(), node.public().0);
    assert_eq!(there.peer(), controller.public().0);
    assert!(
        matches!(here.remote(), SocketAddr::V4(_)),
        "IPv4 is shown as IPv4"
    );
}

#[tokio::test]
async fn frames_travel_both_ways_and_a_foreign_one_is_an_error() {
    let (_node, _controller, there, here, _listener, _dialer) = pair().await;
    let (mut to_controller, mut from_controller): (Sender<ToController>, Receiver<ToNode>) =
        there.open_stream().await.unwrap();
    to_controller
        .send(&ToController::Ack {
            segment: keys::SegmentId::FIRST,
            epoch: Epoch(7),
            phase: Phase::Dark,
        })
        .await
        .unwrap();
    let (mut to_node, mut from_node): (Sender<ToNode>, Receiver<ToController>) =
        here.accept_stream().await.unwrap();
    let heard = from_node.recv().await.unwrap().unwrap();
    assert!(matches!(
        heard,
        ToController::Ack {
            segment: keys::SegmentId::FIRST,
            epoch: Epoch(7),
            phase: Phase::Dark
        }
    ));

    to_node
        .send(&ToNode::Refused {
            reason: Refusal::NotEnrolled,
        })
        .await
        .unwrap();
    let answer = from_controller.recv().await.unwrap().unwrap();
    assert!(matches!(
        answer,
        ToNode::Refused {
            reason: Refusal::NotEnrolled
        }
    ));

    let envelope = vec![1; wire::evidence::MAX_ENVELOPE_LEN];
    to_controller
        .send(&ToController::Evidence { envelope })
        .await
        .unwrap();
    assert!(matches!(
        from_node.recv().await.unwrap(),
        Some(ToController::Evidence { .. })
    ));
    let too_large = ToController::Evidence {
        envelope: vec![1; wire::evidence::MAX_ENVELOPE_LEN + 17],
    };
    assert!(
        to_controller.send(&too_large).await.is_err(),
        "the sender finds out"
    );
}

#[tokio::test]
async fn a_node_refuses_a_controller_that_is_not_the_pinned_one() {
    let (impostor, pinned) = (
        ControllerSecret::generate(&mut OsRng),
        ControllerSecret::generate(&mut OsRng),
    );
    let listener = Listener::bind(LOOPBACK.parse().unwrap(), &impostor).unwrap();
    let dialer = Dialer::bind(&NodeSecret::generate(&mut OsRng), pinned.public()).unwrap();
    let address = listener.local_addr().unwrap();
    let (there, here) = tokio::join!(dialer.connect(address), async {
        listener.accept().await.unwrap().handshake().await
    });
    let there = there.unwrap_err().to_string();
    assert!(there.starts_with(wire::admin::OTHER_CONTROLLER), "{there}");
    assert!(here.is_err());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let secret = ControllerSecret::generate(&mut OsRng);
    let first = Listener::bind(LOOPBACK.parse().unwrap(), &secret).unwrap();
    let taken = first.local_addr().unwrap();
    let error = Listener::bind(taken, &secret).unwrap_err().to_string();
    assert!(error.contains(&taken.to_string()), "{error}");
}

#[tokio::test]
async fn a_closed_connection_says_why() {
    let (.., there, here, _listener, _dialer) = pair().await;
    here.close("revoked");
    let reason = there.closed().await.to_string();
    assert!(reason.contains("revoked"), "{reason}");
}

#[tokio::test]
async fn a_restarted_controller_tells_its_nodes_long_before_the_idle_timeout() {
    let secret = ControllerSecret::generate(&mut OsRng);
    let dialer = Dialer::bind(&NodeSecret::generate(&mut OsRng), secret.public()).unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let (connected, wait) = std::sync::mpsc::channel::<()>();
    let first = ControllerSecret::from_base64(&secret.expose_base64()).unwrap();
    let crash = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let alive = runtime.block_on(async {
            let listener = Listener::bind(LOOPBACK.parse().unwrap(), &first).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let connection = listener.accept().await.unwrap().handshake().await.unwrap();
            (listener, connection)
        });
        wait.recv().unwrap();
        // Without its runtime nothing can say farewell: a crash.
        drop(runtime);
        drop(alive);
    });
    let address = told.await.unwrap();
    let there = dialer.connect(address).await.unwrap();
    connected.send(()).unwrap();
    crash.join().unwrap();
    let _second = Listener::bind(address, &secret).unwrap();
    let lost = there.closed().await.to_string();
    assert!(lost.contains("reset"), "{lost}");
}
