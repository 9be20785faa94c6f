//! A packet's way through a tunnel as a data thread of the product takes it: the shared way first,
//! and the one that has the tunnel to itself when that is needed. For every test that carries
//! packets, so that what is tested is what ships.

use std::net::SocketAddr;
use std::time::Duration;
use tunnel::{DropReason, Inbound, Opened, Outbound, Tunnel};

/// [`Tunnel::sealing`], else [`Tunnel::handle_tun`].
pub(crate) fn send(
    tunnel: &mut Tunnel,
    buffer: &mut [u8],
    len: usize,
    out: &mut [u8],
    now: Duration,
) -> Outbound {
    let Some(destination) = tunnel::destination(&buffer[..len]) else {
        return dropped(tunnel, DropReason::Malformed);
    };
    match tunnel.sealing(destination, now) {
        Ok(Some(mut peer)) => {
            let to = peer.to();
            let sealed = peer.seal(buffer, len, out);
            return sealed.map_or_else(Outbound::Dropped, |len| Outbound::Send { to, len });
        }
        Err(reason) => return dropped(tunnel, reason),
        Ok(None) => {}
    }
    tunnel.handle_tun(buffer, len, out, now)
}

/// [`tunnel::Opening::open`], else [`Tunnel::handle_udp`].
pub(crate) fn receive(
    tunnel: &mut Tunnel,
    from: SocketAddr,
    datagram: &[u8],
    out: &mut [u8],
    now: Duration,
) -> Inbound {
    let opened = tunnel.opening(now).open(from, datagram, out);
    match opened {
        Opened::Deliver { len } => Inbound::Deliver { len },
        Opened::Consumed => Inbound::Consumed,
        Opened::Dropped(reason) => Inbound::Dropped(reason),
        Opened::Handshake => tunnel.handle_udp(from, datagram, out, now),
    }
}

fn dropped(tunnel: &Tunnel, reason: DropReason) -> Outbound {
    tunnel.count_drops(reason, 1);
    Outbound::Dropped(reason)
}
