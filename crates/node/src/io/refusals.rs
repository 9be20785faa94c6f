//! The way of ICMP errors to this host's own applications: through the loopback, from this node's own mesh
//! address to itself. Written into the TUN device, they would have to come from another address than this
//! host's, and look like packets of a member.

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;

/// Sockets that only send: whole packets, for both families.
pub(crate) struct Refusals {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Refusals {
    /// Needs CAP_NET_RAW; without it applications are told nothing, and the log says so.
    pub(crate) fn open() -> Self {
        let open = |domain| -> io::Result<Socket> {
            let protocol = Protocol::from(libc::IPPROTO_RAW);
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let (v4, v6) = (open(Domain::IPV4), open(Domain::IPV6));
        if let Err(error) = &v4 {
            let needs = if Errno::from_io_error(error) == Some(Errno::PERM) {
                "CAP_NET_RAW"
            } else {
                "a raw socket"
            };
            tracing::warn!(%error, needs, "applications are not told what cannot be reached");
        }
        Self {
            v4: v4.ok(),
            v6: v6.ok(),
        }
    }

    /// Sends a whole IP packet to where its header says. One that the system does not take is lost, as any
    /// ICMP error may be.
    pub(crate) fn send(&self, packet: &[u8]) {
        let Some(to) = tunnel::destination(packet) else {
            return;
        };
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(socket) = socket {
            let _ = socket.send_to(packet, &SockAddr::from(SocketAddr::new(to, 0)));
        }
    }
}
