//! The rules of a segment: packets that a host sends, and packets that its peer seals, against gates that are closed,
//! half open and open.

use filter::{Gate, Groups, Protocol, Refusal, Room, Rule, Rules};
use std::sync::Arc;
use std::time::Duration;

/// Packets one after the other: a byte of which bit 0 says that the host sends it and the others how many seconds pass
/// before it, its length in two bytes, and its bytes.
pub fn packets(data: &[u8]) {
    let (mut closed, mut half, mut open) = (
        gate(Vec::new()),
        gate(vec![rule(Protocol::Tcp, 22), rule(Protocol::Udp, 53)]),
        gate(vec![Rule {
            ports: Vec::new(),
            ..rule(Protocol::Any, 0)
        }]),
    );
    let mut sent_anything = false;
    let mut now = Duration::from_secs(1_000);
    let mut rest = data;
    while let Some(([flags, high, low], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (packet, behind) = behind.split_at(len);
        rest = behind;
        now += Duration::from_secs(u64::from(flags >> 1));
        if flags & 1 == 1 {
            for gate in [&mut closed, &mut half, &mut open] {
                gate.sent(packet, now);
            }
            sent_anything = true;
            continue;
        }
        let narrow = closed.admit(packet, now);
        assert_eq!(
            closed.admit(packet, now),
            narrow,
            "a refusal changes nothing"
        );
        let wide = half.admit(packet, now);
        // The more is open, the more passes; but nobody remembers answers to what a rule lets in, and an error about
        // those has to come from the one that they went to. More datagrams make each the sooner forgotten.
        if narrow.is_ok() {
            let passes = matches!(wide, Ok(()) | Err(Refusal::IcmpError | Refusal::Fragment));
            assert!(passes, "{wide:?}");
        }
        match open.admit(packet, now) {
            Ok(()) => {}
            Err(refusal) => {
                assert_eq!(
                    refusal,
                    Refusal::Unreadable,
                    "everything that can be read passes"
                );
                assert_eq!((narrow, wide), (Err(refusal), Err(refusal)));
            }
        }
        if !sent_anything && narrow.is_ok() {
            assert!(is_echo_or_later(packet), "it answers nothing: {packet:?}");
        }
    }
}

/// Whether a packet may be an echo request, or a fragment of one that has passed.
fn is_echo_or_later(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet[9] == 1,
        // Behind extension headers it may be anywhere.
        _ => packet.contains(&58) || packet[6] == 44,
    }
}

fn rule(protocol: Protocol, port: u16) -> Rule {
    Rule {
        protocol,
        ports: vec![port..=port],
        from: Groups(0),
        to: Groups(0),
    }
}

/// A gate with these rules, where this node may send anything to the peer.
fn gate(mut allow: Vec<Rule>) -> Gate {
    let (own, peer) = (Groups(1), Groups(2));
    allow.push(Rule {
        ports: Vec::new(),
        from: own,
        to: peer,
        ..rule(Protocol::Any, 0)
    });
    let room = Arc::new(Room::new(1));
    Gate::new(Rules::new(allow, own, room).toward(peer))
}
