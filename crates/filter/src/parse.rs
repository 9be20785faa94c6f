//! As much of an IP packet as rules ask for. Refuses what a receiver could read otherwise: a transport header that
//! is not whole, more extension headers than any sender uses, a length that is not the packet's.

/// An IPv6 address, or an IPv4 address in its mapped form.
pub(crate) type Address = [u8; 16];

/// A packet, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet<'p> {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) part: Part<'p>,
}

/// The part of a datagram that a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'p> {
    /// All of it.
    Whole(Upper<'p>),
    /// The first fragment.
    First(Upper<'p>, Identification),
    /// A fragment without a transport header.
    Later(Identification),
}

/// The number that the fragments of a datagram share, with the protocol for IPv4 and zero for IPv6 (RFC 791,
/// section 3.2; RFC 8200, section 4.5).
pub(crate) type Identification = (u32, u8);

/// The message inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upper<'p> {
    Tcp {
        from: u16,
        to: u16,
        flags: u8,
    },
    Udp {
        from: u16,
        to: u16,
    },
    /// An echo request or reply.
    Echo {
        id: u16,
        is_request: bool,
    },
    /// Unreachable, too big, time exceeded or a parameter problem, with the packet that it quotes.
    IcmpError(&'p [u8]),
    /// Any other ICMP message.
    Icmp,
    /// Another protocol, by its number.
    Other(u8),
}

impl<'p> Packet<'p> {
    /// A packet as it came or as it leaves; `None`: it cannot be read.
    pub(crate) fn read(packet: &'p [u8]) -> Option<Self> {
        Self::of(packet, false)
    }

    /// The beginning of a packet that an ICMP error quotes: eight bytes of a transport header are enough (RFC 792).
    pub(crate) fn quoted(packet: &'p [u8]) -> Option<Self> {
        Self::of(packet, true)
    }

    fn of(packet: &'p [u8], is_quoted: bool) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::of_v4(packet, is_quoted),
            6 => Self::of_v6(packet, is_quoted),
            _ => None,
        }
    }

    fn of_v4(packet: &'p [u8], is_quoted: bool) -> Option<Self> {
        let header = usize::from(packet.first()? & 0xF) * 4;
        let packet = cut(packet, usize::from(u16_at(packet, 2)?), is_quoted)?;
        let rest = packet.get(header..).filter(|_| header >= V4_HEADER)?;
        let (protocol, fragment) = (*packet.get(9)?, u16_at(packet, 6)?);
        let id = (u32::from(u16_at(packet, 4)?), protocol);
        let upper = || Upper::read(protocol, ICMP, rest, is_quoted);
        let part = match (fragment & 0x1FFF, fragment & 0x2000 != 0) {
            (0, false) => Part::Whole(upper()?),
            (0, true) => Part::First(upper()?, id),
            _ => Part::Later(id),
        };
        Some(Self {
            source: mapped(array_at(packet, 12)?),
            destination: mapped(array_at(packet, 16)?),
            part,
        })
    }

    fn of_v6(packet: &'p [u8], is_quoted: bool) -> Option<Self> {
        let packet = cut(
            packet,
            V6_HEADER + usize::from(u16_at(packet, 4)?),
            is_quoted,
        )?;
        let (mut next, mut at, mut first) = (*packet.get(6)?, V6_HEADER, None);
        let (source, destination) = (array_at(packet, 8)?, array_at(packet, 24)?);
        let read = |part| Self {
            source,
            destination,
            part,
        };
        for _ in 0..=MOST_EXTENSIONS {
            let len = match next {
                // Hop-by-hop options, routing, destination options (RFC 8200, section 4).
                0 | 43 | 60 => (usize::from(*packet.get(at + 1)?) + 1) * 8,
                // A fragment; two in one packet have no meaning (RFC 8200, section 4.1).
                44 if first.is_none() => {
                    let (fragment, id) = (u16_at(packet, at + 2)?, array_at(packet, at + 4)?);
                    let id = (u32::from_be_bytes(id), 0);
                    if fragment & 0xFFF8 != 0 {
                        return Some(read(Part::Later(id)));
                    }
                    // One that is all of its datagram is none (RFC 8200, section 4.5: an atomic fragment).
                    first = Some((id, fragment & 1 != 0));
                    8
                }
                44 => return None,
                protocol => {
                    let upper = Upper::read(protocol, ICMPV6, packet.get(at..)?, is_quoted)?;
                    return Some(read(match first {
                        Some((id, true)) => Part::First(upper, id),
                        Some((_, false)) | None => Part::Whole(upper),
                    }));
                }
            };
            // Each begins with the number of the next.
            next = *packet.get(at)?;
            at += len;
        }
        None
    }
}

impl<'p> Upper<'p> {
    /// `icmp`: the number of the family's own ICMP; that of the other family is a protocol like any.
    fn read(protocol: u8, icmp: u8, bytes: &'p [u8], is_quoted: bool) -> Option<Self> {
        let ports = || Some((u16_at(bytes, 0)?, u16_at(bytes, 2)?));
        match protocol {
            TCP => {
                let (from, to) = ports()?;
                // A header in two fragments is a way past filters (RFC 1858, section 3).
                let flags = match bytes.get(13).filter(|_| bytes.len() >= TCP_HEADER) {
                    Some(flags) => *flags,
                    None if is_quoted => 0,
                    None => return None,
                };
                Some(Self::Tcp { from, to, flags })
            }
            UDP => {
                let (from, to) = ports()?;
                (bytes.len() >= UDP_HEADER).then_some(Self::Udp { from, to })
            }
            _ if protocol == icmp => {
                let kind = *bytes.first().filter(|_| bytes.len() >= ICMP_HEADER)?;
                let id = u16_at(bytes, 4)?;
                let quote = bytes.get(ICMP_HEADER..).unwrap_or_default();
                Some(match (protocol, kind) {
                    (ICMP, 8) | (ICMPV6, 128) => Self::Echo {
                        id,
                        is_request: true,
                    },
                    (ICMP, 0) | (ICMPV6, 129) => Self::Echo {
                        id,
                        is_request: false,
                    },
                    // A redirect (5, 137) is none of these: it says where to send, not what went wrong.
                    (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => Self::IcmpError(quote),
                    _ => Self::Icmp,
                })
            }
            other => Some(Self::Other(other)),
        }
    }
}

/// The packet without what is behind it; one that is shorter than it says is whole only where it is quoted.
fn cut(packet: &[u8], len: usize, is_quoted: bool) -> Option<&[u8]> {
    match packet.get(..len) {
        None if is_quoted => Some(packet),
        cut => cut,
    }
}

fn mapped([a, b, c, d]: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, a, b, c, d]
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
/// Numbers of protocols, as IANA has them.
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
/// Extension headers that are looked past.
const MOST_EXTENSIONS: usize = 8;
