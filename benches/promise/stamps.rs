//! Sockets that say when the kernel received something, by the wall clock that the daemons' logs have
//! too. The one place with raw system calls.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use tests::harness::namespace::Namespace;

/// Nanoseconds since 1970.
pub(crate) type Wall = i64;

/// Now, by the same clock as the stamps.
pub(crate) fn wall() -> Wall {
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel's receive stamps and the daemons' logs are wall time"
    )]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

/// A UDP socket of a namespace.
pub(crate) struct Ear(UdpSocket);

impl Ear {
    pub(crate) fn open(namespace: &Namespace, address: IpAddr, port: u16) -> Self {
        let opened = namespace.enter(move || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((address, port))?;
            stamp(&socket)?;
            Ok(socket)
        });
        let opened = opened.join().expect("a thread ends");
        Self(opened.expect("an address of the mesh can be listened on"))
    }

    /// Everything that has arrived.
    pub(crate) fn drain(&self, mut each: impl FnMut(Wall, &[u8])) {
        let mut buffer = [0; 256];
        while let Ok((at, len)) = receive(self.0.as_raw_fd(), &mut buffer) {
            each(at, &buffer[..len]);
        }
    }
}

/// Every WireGuard handshake message that passes the underlay of a mesh, each once.
pub(crate) struct Capture(OwnedFd);

/// One such message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) at: Wall,
    /// 1 initiation, 2 response, 3 cookie reply.
    pub(crate) kind: u8,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// The index that the initiator of the handshake gave itself; whose epoch tag it bears.
    pub(crate) initiator_index: u32,
}

impl Capture {
    /// `deaf_to`: a sender whose messages are of no interest and too many.
    pub(crate) fn open(underlay: &Namespace, deaf_to: Option<Ipv4Addr>) -> Self {
        let opened = underlay.enter(move || packet_socket(deaf_to));
        let opened = opened.join().expect("a thread ends");
        Self(opened.expect("root may capture packets"))
    }

    /// Everything that has passed.
    pub(crate) fn drain(&self, mut each: impl FnMut(Message)) {
        let mut buffer = [0; 256];
        while let Ok((at, len)) = receive(self.0.as_raw_fd(), &mut buffer) {
            if let Some(message) = message(at, &buffer[..len]) {
                each(message);
            }
        }
    }

    /// Messages that passed while the socket's buffer was full, since the last call.
    pub(crate) fn missed(&self) -> u32 {
        let mut stats = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut len = libc::socklen_t::try_from(size_of_val(&stats)).expect("it is small");
        #[expect(unsafe_code, reason = "the standard library has no packet sockets")]
        // SAFETY: `stats` and `len` are valid and writable for the call, and `len` is its size.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if result == 0 {
            stats.tp_drops
        } else {
            u32::MAX
        }
    }
}

fn message(at: Wall, packet: &[u8]) -> Option<Message> {
    let (from, to, udp): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
            (address(12)?.into(), address(16)?.into(), packet.get(20..)?)
        }
        6 => {
            let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
            (address(8)?.into(), address(24)?.into(), packet.get(40..)?)
        }
        _ => return None,
    };
    let payload = udp.get(8..)?;
    let index = |at: usize| Some(u32::from_le_bytes(*payload.get(at..)?.first_chunk()?));
    let kind = *payload.first()?;
    // A response names the initiator's index second; a cookie reply names only its receiver's.
    let initiator_index = if kind == 2 { index(8)? } else { index(4)? };
    Some(Message {
        at,
        kind,
        from,
        to,
        initiator_index,
    })
}

/// A packet socket on all ports of the bridge. A frame passes twice, in at one port and out at
/// another; the way out is left aside.
fn packet_socket(deaf_to: Option<Ipv4Addr>) -> io::Result<OwnedFd> {
    let mut program = filter(deaf_to.map_or(0, u32::from));
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("it is short"),
        filter: program.as_mut_ptr(),
    };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    #[expect(unsafe_code, reason = "the standard library has no packet sockets")]
    // SAFETY: the call has no memory arguments; its result is a new descriptor that nobody else owns.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_PACKET, kind, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(socket)
    };
    // The filter first: protocol 0 hears nothing until it is bound.
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)?;
    stamp(&socket)?;
    let all = u16::try_from(libc::ETH_P_ALL).expect("it has 16 bits");
    #[expect(unsafe_code, reason = "plain data")]
    // SAFETY: an address of zeros is a valid value of this plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("it is small");
    address.sll_protocol = all.to_be();
    let len = libc::socklen_t::try_from(size_of_val(&address)).expect("it is small");
    #[expect(unsafe_code, reason = "the standard library has no packet sockets")]
    // SAFETY: `address` is valid for the call and `len` is its size.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Classic BPF over the IP header. Each jump counts from the instruction after it.
fn filter(deaf_to: u32) -> Vec<libc::sock_filter> {
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
    let program: [(u16, u8, u8, u32); 20] = [
        /* 0 */ (LOAD_BYTE, 0, 0, packet_type),
        /* 1 */ (IF_EQUAL, 16, 0, u32::from(libc::PACKET_OUTGOING)),
        /* 2 */ (LOAD_BYTE, 0, 0, 0),
        /* 3 */ (SHIFT_RIGHT, 0, 0, 4),
        /* 4 */ (IF_EQUAL, 0, 6, 4),
        /* 5: IPv4 */ (LOAD_WORD, 0, 0, 12),
        /* 6 */ (IF_EQUAL, 11, 0, deaf_to),
        /* 7 */ (LOAD_BYTE, 0, 0, 9),
        /* 8 */ (IF_EQUAL, 0, 9, UDP),
        /* 9 */ (LOAD_WORD, 0, 0, 28),
        /* 10 */ (JUMP, 0, 0, 4),
        /* 11: IPv6 */ (IF_EQUAL, 0, 6, 6),
        /* 12 */ (LOAD_BYTE, 0, 0, 6),
        /* 13 */ (IF_EQUAL, 0, 4, UDP),
        /* 14 */ (LOAD_WORD, 0, 0, 48),
        /* 15: type and reserved bytes */ (IF_EQUAL, 3, 0, 0x0100_0000),
        /* 16 */ (IF_EQUAL, 2, 0, 0x0200_0000),
        /* 17 */ (IF_EQUAL, 1, 0, 0x0300_0000),
        /* 18 */ (RETURN, 0, 0, 0),
        /* 19 */ (RETURN, 0, 0, 256),
    ];
    let instruction = |(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k };
    program.into_iter().map(instruction).collect()
}

fn stamp(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1)?;
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)
        .or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &BUFFER))
}

fn set<T>(socket: &impl AsRawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("it is small");
    #[expect(
        unsafe_code,
        reason = "the standard library does not have these options"
    )]
    // SAFETY: `value` is valid for the call and `len` is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const *value).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One datagram without waiting: when the kernel received it, and its length.
fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<(Wall, usize)> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = [0_u64; 16];
    #[expect(unsafe_code, reason = "the standard library has no ancillary data")]
    // SAFETY: `header` points to `part` and `control`, which outlive the call; the control messages are
    // walked with the C library's own macros, and a timestamp is read only as far as it was written.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let len = libc::recvmsg(socket, &raw mut header, libc::MSG_DONTWAIT);
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            let (level, kind) = ((*message).cmsg_level, (*message).cmsg_type);
            if (level, kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
                let time: libc::timespec = libc::CMSG_DATA(message)
                    .cast::<libc::timespec>()
                    .read_unaligned();
                return Ok((time.tv_sec * 1_000_000_000 + time.tv_nsec, len));
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Err(io::Error::other("the kernel gave no receive time"))
}

/// Room, in bytes, for the packets that the kernel keeps for us between two looks.
const BUFFER: libc::c_int = 8 << 20;
const UDP: u32 = 17;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD: u16 = 0x20;
const SHIFT_RIGHT: u16 = 0x74;
const IF_EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
