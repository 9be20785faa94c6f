//! The WireGuard sockets: one port, IPv4 and IPv6, many datagrams per system call. Each is sent from the
//! address that its route names, with the traffic class that its outer header is to have.
//!
//! Each data thread has a socket of its own on the same port; the kernel gives all datagrams of one
//! sender to one of them (`SO_REUSEPORT`, socket(7)).

use super::control::Control;
use super::offload::{Offload, Offloads, Why};
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, SockRef, Socket, Type};
use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tunnel::{Outer, Path, TrafficClass};

/// A UDP socket that speaks both families where the machine does.
pub(crate) struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    dual: bool,
    /// An address that was to be sent from, and is this host's no more.
    gone: Cell<Option<IpAddr>>,
}

/// Binds `port` on all addresses; 0: any free port.
pub(crate) fn bind(port: u16) -> io::Result<std::net::UdpSocket> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let first = match bind_to(v6, false) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            bind_to((Ipv4Addr::UNSPECIFIED, port).into(), false)?
        }
        bound => bound?,
    };
    Ok(first.into())
}

/// So many sockets on the port of `first`, itself included.
pub(crate) fn share(
    first: std::net::UdpSocket,
    count: usize,
) -> io::Result<Vec<std::net::UdpSocket>> {
    // Only now, so that a port that somebody else has is an error.
    let first = Socket::from(first);
    first.set_reuse_port(true)?;
    let first = std::net::UdpSocket::from(first);
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bind_to(address, true)?.into());
    }
    Ok(sockets)
}

fn bind_to(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    enlarge_buffers(&socket)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether an address is one of this machine's: nothing else can be bound to.
pub(crate) fn is_own(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address.to_canonical(), 0)).is_ok()
}

/// Past the system's limit where we may; up to it where we may not, which is slower, not wrong.
fn enlarge_buffers(socket: &Socket) -> io::Result<()> {
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER as usize)?;
    }
    if set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER).is_err() {
        socket.set_send_buffer_size(BUFFER as usize)?;
    }
    Ok(())
}

impl Udp {
    /// Takes over a bound socket. Must run inside a tokio runtime.
    pub(crate) fn new(socket: std::net::UdpSocket, offloads: &Offloads) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let dual = socket.local_addr()?.is_ipv6();
        allow_fragments(&socket, dual)?;
        if state.max_gso_segments() == 1 {
            offloads.turn_off(Offload::UdpGso, Why::Unsupported(unsupported()));
        }
        if state.gro_segments() == 1 {
            offloads.turn_off(Offload::UdpGro, Why::Unsupported(unsupported()));
        }
        if !offloads.is_on(Offload::UdpGro) && state.gro_segments() > 1 {
            set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 0)?;
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            state,
            dual,
            gone: Cell::new(None),
        })
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Receives into `buffers`; how many of them hold something. Each may hold several datagrams of
    /// one sender, `stride` bytes apart. `WouldBlock` when there is nothing.
    pub(crate) fn recv(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        let received = self.socket.try_io(Interest::READABLE, || {
            self.state.recv((&self.socket).into(), buffers, metas)
        })?;
        for meta in metas.iter_mut().take(received) {
            if let IpAddr::V6(v6) = meta.addr.ip()
                && let Some(v4) = v6.to_ipv4_mapped()
            {
                meta.addr.set_ip(v4.into());
            }
            meta.dst_ip = meta.dst_ip.map(|here| here.to_canonical());
        }
        Ok(received)
    }

    /// Sends datagrams of `segment` bytes each, the last perhaps shorter, in one call.
    pub(crate) fn send(&self, to: Outer, datagrams: &[u8], segment: usize) -> io::Result<()> {
        let Outer { route, class } = to;
        let Path::Udp(to) = route.path;
        let to = match to {
            SocketAddr::V4(v4) if self.dual => {
                SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
            }
            to => to,
        };
        // Not by way of tokio: once the socket has been full, its readiness comes back only when half of
        // a large buffer is empty, and until then nobody would be sent to.
        let socket = SockRef::from(&self.socket);
        let send = |here| {
            let segment = u16::try_from(segment).ok();
            let segment = segment.filter(|segment| usize::from(*segment) < datagrams.len());
            send(
                &socket,
                to,
                &Control::new(to, here, class, segment),
                datagrams,
            )
        };
        match send(route.here) {
            // The address may be gone, and with it the reason to send from there.
            Err(error) if route.here.is_some() && may_be_the_source(&error) => {
                send(None).inspect(|()| self.gone.set(route.here))
            }
            sent => sent,
        }
    }

    /// Sends one datagram that nobody on the way may fragment. The thread that calls has the socket for
    /// itself, so that no other datagram is meant.
    pub(crate) fn send_whole(&self, to: Outer, datagram: &[u8]) -> io::Result<()> {
        forbid_fragments(&self.socket, self.dual, true)?;
        let sent = self.send(to, datagram, datagram.len());
        forbid_fragments(&self.socket, self.dual, false)?;
        sent
    }

    /// An address that datagrams were to leave from, and could leave only without. Told once.
    pub(crate) fn take_gone(&self) -> Option<IpAddr> {
        self.gone.take()
    }
}

fn send(socket: &Socket, to: SocketAddr, control: &Control, datagrams: &[u8]) -> io::Result<()> {
    let (to, buffers) = (SockAddr::from(to), [IoSlice::new(datagrams)]);
    let message = MsgHdr::new().with_addr(&to).with_buffers(&buffers);
    let message = message.with_control(control.bytes());
    loop {
        match socket.sendmsg(&message, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent.map(|_| ()),
        }
    }
}

/// Whether an error can come from an address that is no longer this host's, or leads nowhere.
fn may_be_the_source(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EHOSTUNREACH)
    )
}

/// Forbids it, for the datagrams that a path is measured with: whole or not at all. Routers' answers about
/// them are believed no more than about others.
fn forbid_fragments(socket: &impl AsRawFd, dual: bool, forbid: bool) -> io::Result<()> {
    if dual {
        let forbid = i32::from(forbid);
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, forbid)?;
    }
    let mode = if forbid {
        libc::IP_PMTUDISC_PROBE
    } else {
        libc::IP_PMTUDISC_OMIT
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)
}

/// Lets IP fragment what is too long for a path: slower than an MTU that fits, but no black hole
/// where the path is narrower than anyone knew. OMIT: nobody's word on a path is believed, as one
/// forged ICMP error would have all datagrams to a peer fragmented for ten minutes.
fn allow_fragments(socket: &std::net::UdpSocket, dual: bool) -> io::Result<()> {
    if dual {
        set_option(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_OMIT,
        )?;
    }
    // The option of IPv4 also for a dual socket: it sends to mapped addresses.
    forbid_fragments(socket, dual, false)
}

/// Whether the kernel believes what routers answer about IPv6 paths. It has to when a path does not
/// carry the smallest packets that the interface may have: only the sender can fragment IPv6, and the
/// kernel knows no other way to be told for one destination.
#[derive(Clone)]
pub(crate) struct PathErrors {
    sockets: Arc<[std::net::UdpSocket]>,
    /// How many of those who share this believe them.
    believers: Arc<AtomicUsize>,
}

impl PathErrors {
    /// To these sockets.
    pub(crate) fn to<'a>(
        sockets: impl Iterator<Item = &'a std::net::UdpSocket>,
    ) -> io::Result<Self> {
        let copies: io::Result<Vec<_>> = sockets.map(std::net::UdpSocket::try_clone).collect();
        Ok(Self {
            sockets: copies?.into(),
            believers: Arc::default(),
        })
    }

    /// Whether one of those who share this believes them from now on; it says so once for each change. They count
    /// while anybody does.
    pub(crate) fn believe(&self, believe: bool) -> io::Result<()> {
        let change = |more| match more {
            true => self.believers.fetch_add(1, Ordering::Relaxed),
            false => self.believers.fetch_sub(1, Ordering::Relaxed) - 1,
        };
        if change(believe) > 0 {
            return Ok(());
        }
        let set = self.set(believe);
        if set.is_err() {
            change(!believe);
        }
        set
    }

    fn set(&self, believe: bool) -> io::Result<()> {
        let mode = if believe {
            libc::IPV6_PMTUDISC_DONT
        } else {
            libc::IPV6_PMTUDISC_OMIT
        };
        for socket in &*self.sockets {
            if socket.local_addr()?.is_ipv6() {
                set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, mode)?;
            }
        }
        Ok(())
    }
}

/// Tries a batch of two datagrams on the loopback; without a loopback there is no verdict.
pub(crate) fn probe(offloads: &Offloads) -> io::Result<()> {
    let receiver = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = receiver.local_addr()?;
    receiver.set_read_timeout(Some(PROBE_PATIENCE))?;
    let batch: Vec<u8> = (0..200).collect();
    let control = Control::new(to, None, TrafficClass::default(), Some(100));
    match send(&SockRef::from(&sender), to, &control, &batch) {
        Err(error) if is_refusal(&error) => {
            offloads.turn_off(Offload::UdpGso, Why::Unsupported(error));
            return Ok(());
        }
        sent => sent?,
    }
    let mut arrived = Vec::new();
    let mut buffer = [0; 256];
    while arrived.len() < batch.len() {
        let len = receiver.recv(&mut buffer)?;
        arrived.extend_from_slice(buffer.get(..len).unwrap_or_default());
    }
    if arrived != batch {
        offloads.turn_off(
            Offload::UdpGso,
            Why::Kernel("damages batches of datagrams on the loopback"),
        );
    }
    Ok(())
}

/// Whether an error says that a batch, not its datagrams, is what the system refuses.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
    )
}

pub(super) fn set_option(
    socket: &impl AsRawFd,
    level: i32,
    name: i32,
    value: i32,
) -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "socket options that neither socket2 nor rustix has"
    )]
    // SAFETY: the options read an `int` of the size that is given, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn unsupported() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

/// 16 MB: at 4 MB, eight streams at full rate lost tens of thousands of datagrams.
const BUFFER: i32 = 16 << 20;
const PROBE_PATIENCE: Duration = Duration::from_millis(200);
