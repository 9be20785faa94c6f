//! Everything that comes at a tunnel with a live session: from strangers on UDP, from the peer behind its
//! seal, from the kernel on the TUN device.

use crate::carry::{self, Carried};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use keys::{Epoch, Psk, WgSecret};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tunnel::{Config, DropReason, Inbound, Inside, Outbound, Path, PeerSpec, Range};

const MTU: usize = 1420;
const OWN_V4: Ipv4Addr = Ipv4Addr::new(10, 76, 0, 1);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 76, 0, 2);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// A tunnel and, as its peer, boringtun by itself, which seals anything.
struct Pair {
    tunnel: Carried,
    peer: Tunn,
    now: Duration,
}

thread_local! {
    static PAIR: RefCell<Pair> = RefCell::new(Pair::connected());
}

fn outer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 51820))
}

fn secret(byte: u8) -> (WgSecret, StaticSecret) {
    let wg = WgSecret::from_base64(&{
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode([byte; 32])
    })
    .expect("32 bytes");
    (wg, StaticSecret::from([byte; 32]))
}

impl Pair {
    fn connected() -> Self {
        let ((own, own_static), (peer, peer_static)) = (secret(1), secret(2));
        let mut tunnel = Carried::new(
            u64::MAX,
            Config {
                secret: own,
                mtu: MTU,
                seed: 1,
                inside: Inside {
                    own: vec![OWN_V4.into(), OWN_V6.into()],
                    ranges: vec![Range::new(OWN_V4.into(), 16), Range::new(OWN_V6.into(), 64)],
                },
            },
        );
        let now = Duration::from_secs(1_000);
        let allowed = vec![IpAddr::V4(PEER_V4), IpAddr::V6(PEER_V6)];
        let spec = PeerSpec {
            key: peer.public(),
            allowed,
        };
        tunnel.install(
            Epoch(1),
            vec![(spec, Psk::from_bytes([9; 32]))],
            Duration::ZERO,
            None,
            now,
        );
        tunnel.activate(Epoch(1), now);
        let own_public = PublicKey::from(&own_static);
        let unlimited = Arc::new(RateLimiter::new(&PublicKey::from(&peer_static), u64::MAX));
        let peer = Tunn::new(
            peer_static,
            own_public,
            Some([9; 32]),
            None,
            77,
            Some(unlimited),
        );
        let mut pair = Self { tunnel, peer, now };
        pair.shake_hands();
        pair
    }

    fn shake_hands(&mut self) {
        let (mut there, mut back) = ([0; 2048], [0; 2048]);
        let TunnResult::WriteToNetwork(init) =
            self.peer.format_handshake_initiation(&mut there, true)
        else {
            panic!("an initiation");
        };
        carry::receive(&mut self.tunnel, outer(), init, &mut back, self.now);
        let response = self.tunnel.poll_transmit().expect("a response").payload;
        let TunnResult::WriteToNetwork(keepalive) =
            self.peer.decapsulate(None, &response, &mut there)
        else {
            panic!("a keepalive");
        };
        assert_eq!(
            carry::receive(&mut self.tunnel, outer(), keepalive, &mut back, self.now),
            Inbound::Consumed
        );
    }

    fn stay_connected(&mut self) {
        let peers = self.tunnel.snapshot(self.now);
        if peers.iter().all(|peer| peer.session_epoch.is_none()) {
            self.shake_hands();
        }
    }

    fn drain(&mut self) {
        while self.tunnel.poll_transmit().is_some() {}
        while self.tunnel.poll_event().is_some() {}
    }
}

/// A datagram from anywhere: delivers nothing, whatever it is.
pub fn datagram(data: &[u8]) {
    PAIR.with_borrow_mut(|pair| {
        pair.stay_connected();
        let mut out = vec![0; data.len().max(2048)];
        let inbound = carry::receive(&mut pair.tunnel, outer(), data, &mut out, pair.now);
        assert!(
            !matches!(inbound, Inbound::Deliver { .. }),
            "nobody sealed this"
        );
        pair.now += Duration::from_millis(1);
        pair.tunnel.handle_timeout(pair.now);
        pair.drain();
    });
}

/// An inner packet that the peer sealed: what is delivered is IP, no longer than what was sealed, and
/// from one of the peer's own addresses to one of this side's.
pub fn inner(data: &[u8]) {
    let data = data.get(..data.len().min(MTU)).unwrap_or_default();
    PAIR.with_borrow_mut(|pair| {
        let (mut sealed, mut out) = ([0; 2048], [0; 2048]);
        let TunnResult::WriteToNetwork(datagram) = pair.peer.encapsulate(data, &mut sealed) else {
            panic!("there is a session");
        };
        let inbound = carry::receive(&mut pair.tunnel, outer(), datagram, &mut out, pair.now);
        if let Inbound::Deliver { len } = inbound {
            assert!(len <= data.len());
            assert_eq!(&out[..len], &data[..len]);
            let source = match out[0] >> 4 {
                4 => IpAddr::V4(
                    out[12..16]
                        .first_chunk::<4>()
                        .copied()
                        .expect("a header")
                        .into(),
                ),
                _ => IpAddr::V6(
                    out[8..24]
                        .first_chunk::<16>()
                        .copied()
                        .expect("a header")
                        .into(),
                ),
            };
            assert!(source == IpAddr::V4(PEER_V4) || source == IpAddr::V6(PEER_V6));
            let destination = tunnel::destination(&out[..len]).expect("a header");
            assert!(destination == IpAddr::V4(OWN_V4) || destination == IpAddr::V6(OWN_V6));
        }
        pair.drain();
    });
}

/// Data that the peer sealed, its initiation, or anything else, from an address of the fuzzer's choice. The
/// first byte chooses which, the second the form of the address, 16 the address and two the port. If
/// the address is inside the mesh, nothing is delivered, nothing answered, and no packet ever goes there.
pub fn inside(data: &[u8]) {
    let Some(([kind, form], rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let Some((address, rest)) = rest.split_first_chunk::<16>() else {
        return;
    };
    let Some((port, content)) = rest.split_first_chunk::<2>() else {
        return;
    };
    let content = content.get(..content.len().min(MTU)).unwrap_or_default();
    let (ip, is_inside) = address_of(*form, *address);
    let from = SocketAddr::new(ip, u16::from_be_bytes(*port));
    PAIR.with_borrow_mut(|pair| {
        pair.now += Duration::from_millis(500);
        pair.tunnel.handle_timeout(pair.now);
        pair.drain();
        pair.stay_connected();
        let (mut made, mut out) = ([0; 2048], [0; 2048]);
        let sealed = match kind % 3 {
            0 => pair.peer.encapsulate(content, &mut made),
            1 => pair.peer.format_handshake_initiation(&mut made, true),
            _ => TunnResult::Done,
        };
        let datagram: &[u8] = match sealed {
            TunnResult::WriteToNetwork(message) => message,
            _ => content,
        };
        let before = pair.tunnel.snapshot(pair.now)[0].endpoint;
        let inbound = carry::receive(&mut pair.tunnel, from, datagram, &mut out, pair.now);
        let key = pair.tunnel.snapshot(pair.now)[0].key;
        if is_inside {
            assert_eq!(inbound, Inbound::Dropped(DropReason::EndpointInsideMesh));
            assert_eq!(pair.tunnel.snapshot(pair.now)[0].endpoint, before);
            assert_eq!(pair.tunnel.poll_transmit(), None);
            pair.tunnel
                .set_endpoints(&key, vec![from, outer()], pair.now);
            // With a session it stays where it was heard; without one it goes where it may.
            let endpoint = pair.tunnel.snapshot(pair.now)[0].endpoint;
            assert!(endpoint == before || endpoint == Some(outer().into()));
        }
        while let Some(transmit) = pair.tunnel.poll_transmit() {
            let Path::Udp(to) = transmit.to;
            assert!(!(is_inside && to.ip() == ip));
            assert!(!is_of_the_mesh(to.ip()));
        }
        // Back to where the other targets expect it.
        let keepalive = pair.peer.encapsulate(&[], &mut made);
        if let TunnResult::WriteToNetwork(keepalive) = keepalive {
            carry::receive(&mut pair.tunnel, outer(), keepalive, &mut out, pair.now);
        }
        pair.drain();
    });
}

/// An address in one of the forms by which a system may reach it, and whether it is in the fuzzed mesh.
fn address_of(form: u8, bytes: [u8; 16]) -> (IpAddr, bool) {
    let [a, b, ..] = bytes;
    let v4 = Ipv4Addr::new(10, 76, a, b);
    let (high, low) = (0x0A4C, u16::from_be_bytes([a, b]));
    let mut v6 = bytes;
    v6[..8].copy_from_slice(&OWN_V6.octets()[..8]);
    match form % 6 {
        0 => (v4.into(), true),
        1 => (v4.to_ipv6_mapped().into(), true),
        2 => (Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low).into(), true),
        3 => (Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into(), true),
        4 => (Ipv6Addr::from(v6).into(), true),
        _ => {
            let address = IpAddr::V6(bytes.into()).to_canonical();
            (address, false)
        }
    }
}

fn is_of_the_mesh(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().starts_with(&OWN_V4.octets()[..2]),
        IpAddr::V6(v6) => v6.octets().starts_with(&OWN_V6.octets()[..8]),
    }
}

/// A packet from the kernel: what is sent is sealed for the peer and opens to the same bytes.
pub fn outbound(data: &[u8]) {
    let data = data.get(..data.len().min(MTU)).unwrap_or_default();
    PAIR.with_borrow_mut(|pair| {
        let mut buffer = data.to_vec();
        buffer.resize(data.len() + tunnel::PADDING, 0xFF);
        let (mut sealed, mut opened) = ([0; 2048], [0; 2048]);
        let (tunnel, now) = (&mut pair.tunnel, pair.now);
        let outbound = carry::send(tunnel, &mut buffer, data.len(), &mut sealed, now);
        if let Outbound::Send { to, len } = outbound {
            assert_eq!(to, outer().into());
            // boringtun cuts the padding by the length that the packet claims.
            match pair.peer.decapsulate(None, &sealed[..len], &mut opened) {
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    let shorter = packet.len().min(data.len());
                    assert_eq!(&packet[..shorter], &data[..shorter]);
                }
                TunnResult::Done | TunnResult::Err(_) => {}
                TunnResult::WriteToNetwork(_) => panic!("data is no handshake"),
            }
        }
        pair.drain();
    });
}
