//! Ancillary data of datagrams on their way out (sendmsg(2), cmsg(3)): which address of this host they
//! leave from, their traffic class, how a batch is cut. Written byte by byte, because no crate in use has
//! all three together and lets a failed call be a failed call: quinn-udp takes one that is refused for its
//! source as a kernel without ECN or GSO, for good.

use std::net::{IpAddr, SocketAddr};
use tunnel::TrafficClass;

/// The ancillary data of one call.
pub(super) struct Control {
    bytes: [u8; ROOM],
    len: usize,
}

impl Control {
    /// For datagrams to `to`, which is IPv4 also where it is mapped into IPv6, from `here`, `segment` bytes
    /// each. Only what differs from the socket's defaults is said.
    pub(super) fn new(
        to: SocketAddr,
        here: Option<IpAddr>,
        class: TrafficClass,
        segment: Option<u16>,
    ) -> Self {
        let mut control = Self {
            bytes: [0; ROOM],
            len: 0,
        };
        let is_v4 = to.ip().to_canonical().is_ipv4();
        if class != TrafficClass::default() {
            let (level, kind) = if is_v4 {
                (libc::IPPROTO_IP, libc::IP_TOS)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            };
            control.put(level, kind, &i32::from(class.bits()).to_ne_bytes());
        }
        // An address of the other family is no source of these datagrams.
        match here {
            Some(IpAddr::V4(here)) if is_v4 => {
                // `in_pktinfo`: the link, 0 of any; the source; and an address that is not read.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&here.octets());
                control.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(here)) if !is_v4 => {
                // `in6_pktinfo`: the source, and the link. The destination says which, where that matters.
                let mut info = [0; 20];
                info[..16].copy_from_slice(&here.octets());
                control.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            Some(_) | None => {}
        }
        if let Some(segment) = segment {
            control.put(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        control
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// One message: `cmsghdr`, then its data, up to the next place that is aligned.
    fn put(&mut self, level: i32, kind: i32, data: &[u8]) {
        let len = HEADER + data.len();
        let message = &mut self.bytes[self.len..][..len];
        message[..HEADER - 8].copy_from_slice(&len.to_ne_bytes());
        message[HEADER - 8..HEADER - 4].copy_from_slice(&level.to_ne_bytes());
        message[HEADER - 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER..].copy_from_slice(data);
        self.len += len.next_multiple_of(size_of::<usize>());
    }
}

/// `cmsghdr`: a `size_t` and two `int`.
const HEADER: usize = size_of::<usize>() + 8;
/// Three messages, of 4, 20 and 2 bytes.
const ROOM: usize = 3 * HEADER + 8 + 24 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longest_fits_and_an_address_of_another_family_is_left_out() {
        let class = TrafficClass::HANDSHAKE;
        let (v4, v6) = ("192.0.2.1", "2001:db8::1");
        let len = |to: &str, here: &str| {
            let here: IpAddr = here.parse().unwrap();
            let control = Control::new(to.parse().unwrap(), Some(here), class, Some(1452));
            control.bytes().len()
        };
        assert_eq!(len("[2001:db8::2]:1", v6), ROOM);
        assert_eq!(len("192.0.2.2:1", v4), ROOM - 8);
        assert_eq!(len("[::ffff:192.0.2.2]:1", v4), ROOM - 8);
        let without = HEADER + 8 + HEADER + 8;
        assert_eq!(len("192.0.2.2:1", v6), without);
        assert_eq!(len("[2001:db8::2]:1", v4), without);
        let to = "192.0.2.2:1".parse().unwrap();
        let plain = Control::new(to, None, TrafficClass::default(), None);
        assert!(plain.bytes().is_empty());
    }
}
