//! Inner packets that name their sender, receiver and number, and are checked to the last byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet that was handed to a tunnel.
pub(crate) struct Packet {
    /// The segment, by its place among a node's.
    pub(crate) lane: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) spoofed: bool,
    pub(crate) delivered: bool,
}

/// An IP packet of `len` bytes behind the header that carries `number`.
pub(crate) fn build(source: IpAddr, destination: IpAddr, number: u64, len: usize) -> Vec<u8> {
    let body = body(number, len);
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => header_v4(source, destination, body.len()),
        (IpAddr::V6(source), IpAddr::V6(destination)) => header_v6(source, destination, body.len()),
        _ => panic!("one family per packet"),
    };
    packet.extend(body);
    packet
}

/// Source, destination and number; `None` when a byte is not as it was built.
pub(crate) fn parse(packet: &[u8]) -> Option<(IpAddr, IpAddr, u64)> {
    let v4 = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?).into());
    let v6 = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into());
    let (source, destination, rest) = match packet.first()? >> 4 {
        4 => (v4(12)?, v4(16)?, packet.get(20..)?),
        6 => (v6(8)?, v6(24)?, packet.get(40..)?),
        _ => return None,
    };
    let number = u64::from_be_bytes(*rest.first_chunk()?);
    let intact = rest == body(number, rest.len() - 8);
    intact.then_some((source, destination, number))
}

fn body(number: u64, len: usize) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.extend((0..len).map(|at| (at as u64 ^ number) as u8));
    body
}

fn header_v4(source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    header
}

fn header_v6(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> Vec<u8> {
    let mut header = vec![0; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
    header
}
