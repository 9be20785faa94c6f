//! Builds of different versions of the control protocol, as they meet.

use crate::tls::Versions;
use crate::{Bound, Connection, ConnectionError, Dialer, Listener, Receiver, RecvError, Sender};
use keys::{ControllerSecret, NodeSecret};
use rand_core::OsRng;
use wire::frame::FrameError;
use wire::message::{NodeFault, NodeFaultKind};
use wire::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, ToController, ToNode};

/// A node and a controller that speak these versions, as far as they come.
async fn meet(
    node: Versions,
    controller: Versions,
) -> Result<(Connection, Connection, (Dialer, Listener)), ConnectionError> {
    let secret = ControllerSecret::generate(&mut OsRng);
    let bound = Bound::to("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = Listener::on_of(bound, &secret, controller).unwrap();
    let own = NodeSecret::generate(&mut OsRng);
    let dialer = Dialer::bind_of(&own, secret.public(), node).unwrap();
    let address = listener.local_addr().unwrap();
    let (there, here) = tokio::join!(dialer.connect(address), async {
        listener.accept().await.unwrap().handshake().await
    });
    Ok((there?, here?, (dialer, listener)))
}

#[tokio::test]
async fn two_builds_speak_the_newest_version_that_both_know() {
    let (old, new) = (OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION);
    assert!(old < new);
    for (node, controller, spoken) in [
        (old..=new, old..=new, new),
        (old..=old, old..=new, old),
        (old..=new, old..=old, old),
        (old..=new + 1, old..=new, new),
    ] {
        let told = format!("{node:?} {controller:?}");
        let (there, here, _open) = meet(node, controller).await.unwrap();
        assert_eq!(
            (there.version(), here.version()),
            (spoken, spoken),
            "{told}"
        );
    }
}

#[tokio::test]
async fn builds_without_a_version_in_common_say_so_and_name_the_way_out() {
    let new = PROTOCOL_VERSION;
    let error = meet(new + 1..=new + 2, OLDEST_PROTOCOL_VERSION..=new).await;
    let error = error.map(|_| ()).unwrap_err();
    assert!(matches!(error, ConnectionError::NoVersion), "{error:?}");
    assert!(
        error.to_string().contains("one release at a time"),
        "{error}"
    );
}

#[tokio::test]
async fn a_message_of_the_newer_version_is_not_for_a_connection_of_the_older() {
    let (old, new) = (OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION);
    let news = ToController::Condition {
        faults: vec![NodeFault::new(NodeFaultKind::Benchmark, "hangs")],
    };
    for (controller, is_known) in [(old..=old, false), (old..=new, true)] {
        let (there, here, _open) = meet(old..=new, controller).await.unwrap();
        let (mut send, _receive): (Sender<ToController>, Receiver<ToNode>) =
            there.open_stream().await.unwrap();
        assert_eq!(send.is_known(&news), is_known);
        assert!(send.is_known(&ToController::Whole));
        send.send(&news).await.unwrap();
        let (_send, mut receive): (Sender<ToNode>, Receiver<ToController>) =
            here.accept_stream().await.unwrap();
        match receive.recv().await {
            Ok(Some(ToController::Condition { .. })) => assert!(is_known),
            Err(RecvError::Frame(FrameError::Type(12))) => assert!(!is_known),
            other => panic!("{other:?}"),
        }
    }
}
