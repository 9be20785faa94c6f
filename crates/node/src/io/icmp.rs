//! Real ICMP echoes (RFC 792, RFC 4443) on raw sockets bound to the TUN interface: what a probe
//! reports went through the kernel, the tunnel and the peer's kernel.

use super::udp::set_option;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::UdpSocket;

/// Sends echo requests and receives their replies, for both families.
pub(crate) struct Echo {
    v4: UdpSocket,
    /// `None` on a kernel without IPv6.
    v6: Option<UdpSocket>,
    identifier: u16,
}

/// Raw sockets on an interface. One that was made anew needs others: the kernel binds to the interface itself, not
/// to its name.
pub(crate) struct Sockets {
    v4: Socket,
    v6: Option<Socket>,
}

impl Sockets {
    /// Opens both on `interface`. Needs CAP_NET_RAW.
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
        let open = |domain, protocol| -> io::Result<Socket> {
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let v4 = open(Domain::IPV4, Protocol::ICMPV4)?;
        let v6 = match open(Domain::IPV6, Protocol::ICMPV6) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            opened => Some(opened?),
        };
        // An error that speaks of a path inside the mesh is no limit to a probe of it.
        let whole = libc::IP_PMTUDISC_PROBE;
        set_option(&v4, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, whole)?;
        Ok(Self { v4, v6 })
    }
}

/// An answered echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) from: IpAddr,
    pub(crate) sequence: u16,
}

impl Echo {
    /// On these sockets. Must run inside a tokio runtime.
    pub(crate) fn new(sockets: Sockets, identifier: u16) -> io::Result<Self> {
        // tokio has no raw socket; its UDP socket passes the same system calls through.
        let registered = |socket: Socket| UdpSocket::from_std(socket.into());
        Ok(Self {
            v4: registered(sockets.v4)?,
            v6: sockets.v6.map(registered).transpose()?,
            identifier,
        })
    }

    /// Goes on with other sockets.
    pub(crate) fn replace(&mut self, sockets: Sockets) -> io::Result<()> {
        *self = Self::new(sockets, self.identifier)?;
        Ok(())
    }

    /// Sends one echo request.
    pub(crate) async fn send(&self, to: IpAddr, sequence: u16) -> io::Result<()> {
        let request = request(to.is_ipv4(), self.identifier, sequence, REQUEST_LEN);
        let socket = match (&self.v6, to) {
            (_, IpAddr::V4(_)) => &self.v4,
            (Some(v6), IpAddr::V6(_)) => v6,
            (None, IpAddr::V6(_)) => return Err(io::ErrorKind::Unsupported.into()),
        };
        socket
            .send_to(&request, SocketAddr::new(to, 0))
            .await
            .map(|_| ())
    }

    /// An echo request as a packet of `size` bytes, for a way that the kernel does not know. Its reply
    /// comes with the others.
    pub(crate) fn packet(
        &self,
        (from, to): (Ipv4Addr, Ipv4Addr),
        sequence: u16,
        size: u16,
    ) -> Vec<u8> {
        let len = usize::from(size).saturating_sub(IPV4_HEADER);
        let request = request(true, self.identifier, sequence, len);
        let total = u16::try_from(IPV4_HEADER + request.len()).unwrap_or(u16::MAX);
        let mut packet = vec![0; IPV4_HEADER];
        (packet[0], packet[6]) = (0x45, DONT_FRAGMENT);
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        (packet[8], packet[9]) = (TTL, ICMP);
        packet[12..16].copy_from_slice(&from.octets());
        packet[16..20].copy_from_slice(&to.octets());
        let checksum = checksum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend_from_slice(&request);
        packet
    }

    /// The next reply to one of our requests.
    pub(crate) async fn recv(&self) -> io::Result<Reply> {
        // Large ones are cut: their beginning says which they are.
        let (mut v4, mut v6) = ([0; 512], [0; 512]);
        loop {
            let (sequence, from) = tokio::select! {
                received = self.v4.recv_from(&mut v4) => {
                    let (len, from) = received?;
                    (reply_v4(v4.get(..len).unwrap_or_default(), self.identifier), from)
                }
                received = receive(self.v6.as_ref(), &mut v6) => {
                    let (len, from) = received?;
                    (reply(v6.get(..len).unwrap_or_default(), REPLY_V6, self.identifier), from)
                }
            };
            if let Some(sequence) = sequence {
                return Ok(Reply {
                    from: from.ip(),
                    sequence,
                });
            }
        }
    }
}

/// Without a socket nothing is ever received.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

fn request(is_v4: bool, identifier: u16, sequence: u16, len: usize) -> Vec<u8> {
    let mut message = vec![0; len.max(REQUEST_LEN)];
    message[0] = if is_v4 { REQUEST_V4 } else { REQUEST_V6 };
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[8..REQUEST_LEN].copy_from_slice(b"meshd probe 0123456789abcdefghij");
    if is_v4 {
        // The kernel fills in the checksum of ICMPv6 only (RFC 3542, section 3.1).
        let checksum = checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// A raw IPv4 socket delivers the IP header too.
fn reply_v4(packet: &[u8], identifier: u16) -> Option<u16> {
    let header = usize::from(packet.first()? & 0x0F) * 4;
    reply(packet.get(header..)?, REPLY_V4, identifier)
}

fn reply(message: &[u8], kind: u8, identifier: u16) -> Option<u16> {
    let [found_kind, 0, _, _, i0, i1, s0, s1] = *message.first_chunk::<8>()? else {
        return None;
    };
    let ours = found_kind == kind && u16::from_be_bytes([i0, i1]) == identifier;
    ours.then(|| u16::from_be_bytes([s0, s1]))
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u32::from(high) << 8 | u32::from(low),
        [high] => u32::from(high) << 8,
        _ => 0,
    };
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !((folded & 0xFFFF) + (folded >> 16)) as u16
}

const IPV4_HEADER: usize = 20;
const DONT_FRAGMENT: u8 = 0x40;
const TTL: u8 = 64;
const ICMP: u8 = 1;
const REQUEST_LEN: usize = 40;
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_request_is_a_whole_packet_of_the_size_that_is_asked_for() {
        let socket = || UdpSocket::bind("127.0.0.1:0");
        let (v4, v6) = (socket().await.unwrap(), socket().await.unwrap());
        let echo = Echo {
            v4,
            v6: Some(v6),
            identifier: 0xBEEF,
        };
        let (from, to) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let packet = echo.packet((from, to), 7, 1440);
        assert_eq!(packet.len(), 1440);
        assert_eq!(packet[2..4], 1440u16.to_be_bytes());
        assert_eq!((checksum(&packet[..20]), checksum(&packet[20..])), (0, 0));
        assert_eq!(tunnel::destination(&packet), Some(to.into()));
    }

    #[test]
    fn a_request_checks_out_and_only_its_own_reply_is_taken() {
        let large = request(true, 0xBEEF, 7, 1401);
        assert_eq!((large.len(), checksum(&large)), (1401, 0));
        let mut message = request(true, 0xBEEF, 7, REQUEST_LEN);
        assert_eq!(
            checksum(&message),
            0,
            "with its checksum in place the sum is zero"
        );
        message[0] = REPLY_V4;
        let packet = [&[0x45; 20][..], &message].concat();
        assert_eq!(reply_v4(&packet, 0xBEEF), Some(7));
        assert_eq!(reply_v4(&packet, 0xBEEE), None);
        for len in 0..packet.len() {
            let _ = reply_v4(&packet[..len], 0xBEEF);
        }
    }
}
