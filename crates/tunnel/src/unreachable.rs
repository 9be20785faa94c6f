//! ICMP errors for this host's own applications: what nobody can be reached at is refused at once, as the
//! kernel's WireGuard refuses it. Silence would leave a program to wait until it gives up, which for TCP is
//! two minutes.
//!
//! Refuses to answer errors, fragments other than the first, and packets to or from more than one host
//! (RFC 1122, section 3.2.2; RFC 4443, section 2.4). An error never leaves this host: only packets from
//! its own addresses inside the mesh are answered, from the same address.

use crate::inside::Inside;
use crate::packet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Room for the longest error.
pub(crate) const MAX_ERROR: usize = 1280;

/// A packet that is answered.
pub(crate) struct Refused<'p> {
    packet: &'p [u8],
    sender: Sender,
}

#[derive(Clone, Copy)]
enum Sender {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl<'p> Refused<'p> {
    /// The packet, if it is one of this host to one host inside the mesh.
    pub(crate) fn of(packet: &'p [u8], inside: &Inside) -> Option<Self> {
        let refused = match packet.first()? >> 4 {
            4 => Self::of_v4(packet)?,
            6 => Self::of_v6(packet)?,
            _ => return None,
        };
        let from: IpAddr = match refused.sender {
            Sender::V4(from) => from.into(),
            Sender::V6(from) => from.into(),
        };
        let to = packet::destination(packet)?;
        (inside.is_own(from) && inside.is_host(to)).then_some(refused)
    }

    fn of_v4(packet: &'p [u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0xF) * 4;
        let packet = packet.get(..usize::from(u16_at(packet, 2)?))?;
        let rest = packet.get(header.max(V4_HEADER)..)?;
        let is_first = u16_at(packet, 6)? & 0x1FFF == 0;
        let is_error = *packet.get(9)? == ICMP && !is_query(*rest.first()?);
        let sender = Sender::V4(Ipv4Addr::from_octets(array_at(packet, 12)?));
        (header >= V4_HEADER && is_first && !is_error).then_some(Self { packet, sender })
    }

    fn of_v6(packet: &'p [u8]) -> Option<Self> {
        let len = V6_HEADER + usize::from(u16_at(packet, 4)?);
        let packet = packet.get(..len)?;
        let sender = Sender::V6(Ipv6Addr::from_octets(array_at(packet, 8)?));
        may_be_answered_v6(packet)?.then_some(Self { packet, sender })
    }

    /// Writes the error, "host unreachable" or "address unreachable", and returns it.
    pub(crate) fn error(self, out: &mut [u8; MAX_ERROR]) -> &[u8] {
        let quoted = |most: usize| self.packet.get(..most).unwrap_or(self.packet);
        match self.sender {
            Sender::V4(own) => {
                let quote = quoted(MOST_V4 - V4_HEADER - ICMP_HEADER);
                let len = V4_HEADER + ICMP_HEADER + quote.len();
                let (header, message) = out.split_at_mut(V4_HEADER);
                header.fill(0);
                // Of the precedence that routers give their errors (RFC 1812, section 4.3.2.5), and one
                // that is never fragmented.
                put(header, 0, &[0x45, 0xC0]);
                put(header, 2, &(len as u16).to_be_bytes());
                put(header, 6, &[0x40, 0, HOPS, ICMP]);
                put(header, 12, &own.octets());
                put(header, 16, &own.octets());
                let sum = checksum(&[header]);
                put(header, 10, &sum);
                let message = message.get_mut(..len - V4_HEADER).unwrap_or_default();
                error_message(message, [3, 1], quote, &[]);
                out.get(..len).unwrap_or_default()
            }
            Sender::V6(own) => {
                let quote = quoted(MAX_ERROR - V6_HEADER - ICMP_HEADER);
                let len = ICMP_HEADER + quote.len();
                let (header, message) = out.split_at_mut(V6_HEADER);
                header.fill(0);
                put(header, 0, &[0x60]);
                put(header, 4, &(len as u16).to_be_bytes());
                put(header, 6, &[ICMPV6, HOPS]);
                put(header, 8, &own.octets());
                put(header, 24, &own.octets());
                let message = message.get_mut(..len).unwrap_or_default();
                let kind = [0, ICMPV6];
                let len_bytes = (len as u16).to_be_bytes();
                let ends = header.get(8..).unwrap_or_default();
                error_message(message, [1, 3], quote, &[ends, &len_bytes, &kind]);
                out.get(..V6_HEADER + len).unwrap_or_default()
            }
        }
    }
}

/// Type, code and quote, with a checksum that begins with a pseudo-header.
fn error_message(message: &mut [u8], kind: [u8; 2], quote: &[u8], pseudo_header: &[&[u8]]) {
    if let Some((header, rest)) = message.split_at_mut_checked(ICMP_HEADER) {
        header.fill(0);
        put(header, 0, &kind);
        rest.copy_from_slice(quote);
    }
    let parts = [pseudo_header, &[message]].concat();
    let sum = checksum(&parts);
    put(message, 2, &sum);
}

/// Whether an IPv6 packet is neither an error nor a later fragment; `None` if that cannot be told.
fn may_be_answered_v6(packet: &[u8]) -> Option<bool> {
    let (mut next, mut at) = (*packet.get(6)?, V6_HEADER);
    for _ in 0..MOST_EXTENSIONS {
        let length = || packet.get(at + 1).copied().map(usize::from);
        let len = match next {
            // Hop-by-hop options, routing, destination options (RFC 8200, section 4).
            0 | 43 | 60 => (length()? + 1) * 8,
            // The authentication header counts in words, less two (RFC 4302).
            51 => (length()? + 2) * 4,
            44 if u16_at(packet, at + 2)? >> 3 != 0 => return Some(false),
            44 => 8,
            // Errors are below 128; a redirect is as good as one.
            ICMPV6 => return packet.get(at).map(|kind| *kind >= 128 && *kind != 137),
            _ => return Some(true),
        };
        // Each begins with the number of the next.
        next = *packet.get(at)?;
        at += len;
    }
    None
}

/// Whether an ICMP message asks or answers: echo and timestamp. Others may be errors.
fn is_query(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 13 | 14)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + what.len()) {
        place.copy_from_slice(what);
    }
}

/// The Internet checksum (RFC 1071) over parts, of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let word = |word: &[u8]| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    };
    let words = parts.iter().flat_map(|part| part.chunks(2).map(word));
    // At most 1,280 bytes: the sum does not overflow, and two folds are enough.
    let sum: u32 = words.sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    let sum = (sum & 0xFFFF) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
/// Type, code, checksum, and four bytes without a meaning here (RFC 792, RFC 4443).
const ICMP_HEADER: usize = 8;
/// The longest error over IPv4 (RFC 1812, section 4.3.2.3).
const MOST_V4: usize = 576;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOPS: u8 = 64;
/// Extension headers that are looked past.
const MOST_EXTENSIONS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REFUSALS_PER_SECOND;
    use crate::turns::{NOW, Packets, inner, packet, pair};
    use crate::{Carrier, Range};
    use proptest::prelude::*;
    use std::time::Duration;

    const OWN: [u8; 4] = [10, 76, 0, 1];
    const OTHER: [u8; 4] = [10, 76, 0, 9];

    fn inside() -> Inside {
        let (v4, v6) = (IpAddr::from(OWN), v6_of(1));
        Inside {
            own: vec![v4, v6.into()],
            ranges: vec![Range::new(v4, 16), Range::new(v6.into(), 64)],
        }
    }

    fn v6_of(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xFD77, 0, 0, 0, 0, 0, 0, last)
    }

    fn v4(to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let len = (20 + payload.len()) as u16;
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet.extend([OWN, to].concat());
        packet.extend(payload);
        packet
    }

    fn v6(to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet.extend([v6_of(1).octets(), to.octets()].concat());
        packet.extend(payload);
        packet
    }

    fn error(packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0xEE; MAX_ERROR];
        let refused = Refused::of(packet, &inside())?;
        Some(refused.error(&mut out).to_vec())
    }

    #[test]
    fn an_ipv4_packet_is_answered_with_host_unreachable() {
        for len in [8, 20, 21, 1_400] {
            let packet = v4(OTHER, 6, &vec![7; len]);
            let error = error(&packet).expect("it is answered");
            assert_eq!(error[..2], [0x45, 0xC0]);
            assert_eq!(error[2..4], (error.len() as u16).to_be_bytes());
            assert_eq!(error[8..10], [64, 1]);
            assert_eq!((&error[12..16], &error[16..20]), (&OWN[..], &OWN[..]));
            assert_eq!(error[20..22], [3, 1]);
            assert_eq!(error[24..28], [0; 4]);
            let quoted = packet.len().min(548);
            assert_eq!(error[28..], packet[..quoted]);
            assert_eq!(checksum(&[&error[..20]]), [0, 0]);
            assert_eq!(checksum(&[&error[20..]]), [0, 0]);
        }
    }

    #[test]
    fn an_ipv6_packet_is_answered_with_address_unreachable() {
        for len in [8, 21, 1_380] {
            let packet = v6(v6_of(9), 17, &vec![7; len]);
            let error = error(&packet).expect("it is answered");
            assert_eq!(error[4..6], (error.len() as u16 - 40).to_be_bytes());
            assert_eq!(error[6..8], [58, 64]);
            assert_eq!(error[8..24], v6_of(1).octets());
            assert_eq!(error[24..40], v6_of(1).octets());
            assert_eq!(error[40..42], [1, 3]);
            let quoted = packet.len().min(1_232);
            assert_eq!(error[48..], packet[..quoted]);
            let mut pseudo = error[8..40].to_vec();
            pseudo.extend([0, 0, error[4], error[5], 0, 0, 0, 58]);
            assert_eq!(checksum(&[&pseudo, &error[40..]]), [0, 0]);
        }
    }

    #[test]
    fn errors_groups_later_fragments_and_strangers_are_not_answered() {
        let is_answered = |packet: &[u8]| error(packet).is_some();
        for (kind, expected) in [(8, true), (0, true), (13, true), (3, false), (11, false)] {
            assert_eq!(is_answered(&v4(OTHER, 1, &[kind; 8])), expected, "{kind}");
        }
        assert!(!is_answered(&v4(OTHER, 1, &[])), "nobody knows what it is");
        for kind in [5, 4, 12, 40] {
            assert!(!is_answered(&v4(OTHER, 1, &[kind; 8])), "{kind}");
        }
        for to in [
            [10, 76, 255, 255],
            [10, 76, 0, 0],
            [10, 78, 0, 1],
            [224, 0, 0, 1],
            [255, 255, 255, 255],
            [0; 4],
        ] {
            assert!(!is_answered(&v4(to, 17, &[0; 8])), "{to:?}");
        }
        let mut stranger = v4(OTHER, 17, &[0; 8]);
        stranger[15] = 2;
        assert!(!is_answered(&stranger));
        for (offset, expected) in [([0x20, 0], true), ([0x20, 1], false), ([0, 9], false)] {
            let mut fragment = v4(OTHER, 17, &[0; 8]);
            fragment[6..8].copy_from_slice(&offset);
            assert_eq!(is_answered(&fragment), expected);
        }
        for (kind, expected) in [
            (128, true),
            (129, true),
            (1, false),
            (4, false),
            (137, false),
        ] {
            let packet = v6(v6_of(9), 58, &[kind; 8]);
            assert_eq!(is_answered(&packet), expected, "{kind}");
        }
        let group = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);
        assert!(!is_answered(&v6(group, 17, &[0; 8])));
        // Behind extension headers: eight bytes of options, then a fragment header.
        let behind = |offset: u8, kind: u8| {
            let headers = [44, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, offset, 0, 0, 0, 1];
            v6(v6_of(9), 0, &[&headers[..], &[kind; 8]].concat())
        };
        assert!(is_answered(&behind(1, 128)));
        assert!(!is_answered(&behind(8, 128)), "a later fragment");
        assert!(!is_answered(&behind(0, 3)), "an error");
        let endless = [[60, 0].as_slice(), &[0; 6]].concat().repeat(40);
        assert!(!is_answered(&v6(v6_of(9), 60, &endless)));
    }

    /// Notes how many errors there were.
    struct Errors(usize, [u8; 256]);

    impl crate::DatagramSink for Errors {
        fn room(&mut self, _: crate::Outer, _: usize) -> &mut [u8] {
            &mut self.1
        }

        fn push(&mut self, _: usize) {}

        fn flush(&mut self) {}

        fn send(&mut self, _: crate::Outer, _: &[u8]) {}

        fn refuse(&mut self, _: &[u8]) {
            self.0 += 1;
        }

        fn deadline_changed(&mut self) {}
    }

    #[test]
    fn this_host_is_told_at_once_and_not_without_limit_and_of_silent_members_not_at_all() {
        let (one, _) = pair();
        let carrier = Carrier::new(one.door);
        let told = |host: u8, times: usize, now: Duration| {
            let mut errors = Errors(0, [0; 256]);
            let mut turn = carrier.turn(&mut errors);
            for _ in 0..times {
                let to = Some(inner(host).into());
                turn.send(to, &mut Packets(packet(1, host), 3), || now);
            }
            drop(turn);
            errors.0
        };
        assert_eq!(told(4, 1, NOW), 1, "one for a super-packet");
        let limit = REFUSALS_PER_SECOND as usize;
        assert_eq!(told(4, 1_000, NOW), limit - 1);
        assert_eq!(told(4, 1_000, NOW + Duration::from_secs(1)), limit);
        // The third is a member and does not answer: its packets wait, and are given up in silence.
        let later = NOW + Duration::from_secs(9);
        assert_eq!(told(3, 1_000, later), 0);
        // Past the lease nobody is reached.
        carrier.write().close();
        assert_eq!(told(2, 1, later), 1);
        assert_eq!(told(3, 1, later), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_not(
            first in any::<u8>(),
            rest in proptest::collection::vec(any::<u8>(), 0..1_500),
        ) {
            let bytes = [&[first][..], &rest].concat();
            let _ = error(&bytes);
            for whole in [v4(OTHER, first, &rest), v6(v6_of(9), first, &rest)] {
                if let Some(error) = error(&whole) {
                    prop_assert!(error.len() <= MAX_ERROR);
                }
                for len in 0..whole.len().min(80) {
                    let _ = super::Refused::of(&whole[..len], &inside());
                }
            }
        }
    }
}
