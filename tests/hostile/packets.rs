//! Bytes made by hand: inner echo requests that can be told from all other traffic, and the public
//! header fields of WireGuard messages, rewritten as an attacker can who holds no session key.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use keys::WgPublicKey;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Stands in every inner packet that the hostile node makes; an echo reply carries it back.
pub(crate) const MARK: &[u8; 16] = b"hostile-node-c!\n";

/// An inner packet's tie to the hostile node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Its source is one of the hostile node's addresses.
    From,
    /// It carries the mark, and neither its source nor its destination is the hostile node's.
    Spoofed,
    /// Nothing that was delivered on its behalf.
    None,
}

/// An ICMP echo request (RFC 792, RFC 4443) with the mark in it.
pub(crate) fn echo(from: IpAddr, to: IpAddr, sequence: u16) -> Vec<u8> {
    let mut icmp = vec![0; 8];
    icmp[4..6].copy_from_slice(b"hc");
    icmp[6..8].copy_from_slice(&sequence.to_be_bytes());
    icmp.extend_from_slice(MARK);
    let len = u16::try_from(icmp.len()).expect("an echo is short");
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            icmp[0] = 8;
            let sum = checksum(&[&icmp]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
            packet[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            packet.extend_from_slice(&from.octets());
            packet.extend_from_slice(&to.octets());
            let sum = checksum(&[&packet]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend_from_slice(&icmp);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            icmp[0] = 128;
            let pseudo = [
                0,
                0,
                len.to_be_bytes()[0],
                len.to_be_bytes()[1],
                0,
                0,
                0,
                58,
            ];
            let sum = checksum(&[&from.octets(), &to.octets(), &pseudo, &icmp]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            packet.extend_from_slice(&from.octets());
            packet.extend_from_slice(&to.octets());
            packet.extend_from_slice(&icmp);
            packet
        }
        _ => unreachable!("both ends of an echo are of one family"),
    }
}

/// A UDP datagram with its IP header.
pub(crate) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len() + 8).expect("a datagram is short");
    let mut header = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    header.extend([len.to_be_bytes(), [0, 0]].concat());
    let pseudo = [[0, 17], len.to_be_bytes()].concat();
    let (addresses, mut packet) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
            packet[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            let sum = checksum(&[&packet, &addresses]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            (addresses, packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            ([from.octets(), to.octets()].concat(), packet)
        }
        _ => unreachable!("both ends of a datagram are of one family"),
    };
    let sum = checksum(&[&addresses, &pseudo, &header, payload]);
    // Zero would say that there is no checksum (RFC 768).
    let sum = if sum == 0 { 0xFFFF } else { sum };
    header[6..8].copy_from_slice(&sum.to_be_bytes());
    packet.extend([addresses.as_slice(), &header, payload].concat());
    packet
}

/// The tie of `packet` to a hostile node that has the addresses `own`.
pub(crate) fn trace(packet: &[u8], own: &[IpAddr]) -> Trace {
    let Some((source, destination)) = addresses(packet) else {
        return Trace::None;
    };
    let marked = packet.windows(MARK.len()).any(|window| window == MARK);
    match (own.contains(&source), own.contains(&destination), marked) {
        (true, ..) => Trace::From,
        (false, false, true) => Trace::Spoofed,
        _ => Trace::None,
    }
}

fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let at = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
            Some((at(12)?.into(), at(16)?.into()))
        }
        6 => {
            let at = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
            Some((at(8)?.into(), at(24)?.into()))
        }
        _ => None,
    }
}

/// Whether a datagram is a handshake initiation.
pub(crate) fn is_initiation(datagram: &[u8]) -> bool {
    datagram.len() == INITIATION_LEN && datagram.starts_with(&[1, 0, 0, 0])
}

/// Whether a datagram is a handshake response.
pub(crate) fn is_response(datagram: &[u8]) -> bool {
    datagram.starts_with(&[2, 0, 0, 0])
}

/// Whether a datagram is transport data.
pub(crate) fn is_data(datagram: &[u8]) -> bool {
    datagram.starts_with(&[4, 0, 0, 0])
}

/// The same transport data for another receiver index, which the AEAD does not cover.
pub(crate) fn with_receiver(datagram: &[u8], receiver: u32) -> Vec<u8> {
    let mut forged = datagram.to_vec();
    forged[4..8].copy_from_slice(&receiver.to_le_bytes());
    forged
}

/// The same initiation with another sender index, and a MAC1 that fits again (whitepaper, section
/// 5.4.4: its key is the hash of the responder's public key).
pub(crate) fn with_sender(datagram: &[u8], sender: u32, responder: &WgPublicKey) -> Vec<u8> {
    let mut forged = datagram.to_vec();
    forged[4..8].copy_from_slice(&sender.to_le_bytes());
    let key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(responder.0)
        .finalize();
    let mut mac = Blake2sMac::<U16>::new_from_slice(&key).expect("32 bytes are a key");
    mac.update(&forged[..MAC1_AT]);
    forged[MAC1_AT..MAC1_AT + 16].copy_from_slice(&mac.finalize_fixed());
    forged
}

/// RFC 1071.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !((folded & 0xFFFF) + (folded >> 16)) as u16
}

const INITIATION_LEN: usize = 148;
const MAC1_AT: usize = 116;
