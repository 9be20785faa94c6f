//! Flows between two namespaces: bytes over TCP, hashed at both ends; numbered datagrams over UDP,
//! looked at one by one. The content comes from a seed, so that neither end needs a file, and both
//! are in this process, so that a sender can wait for its receiver: nothing is lost for want of
//! a buffer, and what is missing is the product's fault.

use blake2::{Blake2b512, Digest as _};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tests::harness::namespace::Namespace;
use tests::harness::{Mesh, poll_every};

/// From where, to which address of whom.
#[derive(Clone, Copy)]
pub(crate) struct Way<'m> {
    pub(crate) from: &'m Namespace,
    pub(crate) to: &'m Namespace,
    pub(crate) address: IpAddr,
}

/// The outcome of a TCP transfer.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) sent: Vec<u8>,
    pub(crate) received: Vec<u8>,
    /// Segments that the sender's namespace sent again.
    pub(crate) retransmitted: u64,
    /// Segments that the receiver's namespace got before their turn.
    pub(crate) out_of_order: u64,
}

/// Datagrams that go out together: in one call if the application uses `UDP_SEGMENT`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    pub(crate) size: usize,
    pub(crate) count: usize,
    /// Size of the last one; with `UDP_SEGMENT`, at most the others'.
    pub(crate) last: usize,
}

/// How datagrams are sent.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) bursts: Vec<Burst>,
    pub(crate) is_gso: bool,
    /// Datagrams on their way before the sender waits.
    pub(crate) window: u64,
}

/// The outcome of a stream of datagrams.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) damaged: u64,
    pub(crate) out_of_order: u64,
}

impl<'m> Way<'m> {
    /// Over IPv4 or IPv6.
    pub(crate) fn new(mesh: &'m Mesh, from: &str, to: &str, is_v6: bool) -> Self {
        Self {
            from: mesh.namespace(from),
            to: mesh.namespace(to),
            address: mesh.addresses(to)[usize::from(is_v6)],
        }
    }

    /// Sends `len` bytes over TCP.
    pub(crate) fn tcp(&self, len: u64) -> Transfer {
        let (address, (announce, announced)) = (self.address, mpsc::channel());
        let receiver = self.to.enter(move || {
            let before = counter("netstat", "TCPOFOQueue");
            let listener = TcpListener::bind((address, 0)).expect("a port is free");
            let local = listener.local_addr().expect("it is bound");
            announce.send(local).expect("the sender waits for it");
            let (stream, _) = listener.accept().expect("somebody connects");
            let digest = receive(stream);
            (digest, counter("netstat", "TCPOFOQueue") - before)
        });
        let sender = self.from.enter(move || {
            let before = counter("snmp", "RetransSegs");
            let to = announced.recv().expect("the receiver listens");
            let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("it answers");
            let digest = send(stream, len);
            (digest, counter("snmp", "RetransSegs") - before)
        });
        let (sent, retransmitted) = sender.join().expect("everything was sent");
        let (received, out_of_order) = receiver.join().expect("everything was received");
        Transfer {
            sent,
            received,
            retransmitted,
            out_of_order,
        }
    }

    /// Sends datagrams to a socket without `UDP_GRO`.
    pub(crate) fn udp(&self, stream: &Stream) -> Arrived {
        let (address, (announce, announced)) = (self.address, mpsc::channel());
        let (received, done) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counting, ending) = (Arc::clone(&received), Arc::clone(&done));
        let plan = stream.clone();
        let receiver = self.to.enter(move || {
            let socket = UdpSocket::bind((address, 0)).expect("a port is free");
            // The default holds 92 datagrams of 1,200 bytes, and gives room back by quarters.
            let roomy = socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20);
            roomy.expect("the kernel gives what it may");
            let local = socket.local_addr().expect("it is bound");
            announce.send(local).expect("the sender waits for it");
            take(&socket, &plan, &counting, &ending)
        });
        let plan = stream.clone();
        let sender = self.from.enter(move || {
            let to = announced.recv().expect("the receiver listens");
            say(to, &plan, &received)
        });
        let sent = sender.join().expect("everything was sent");
        done.store(true, Ordering::Relaxed);
        let arrived = receiver.join().expect("the receiver does not fail");
        Arrived { sent, ..arrived }
    }
}

impl Stream {
    /// Bursts of every kind that fits a packet, and, without `UDP_SEGMENT`, some that do not.
    pub(crate) fn of_all_sizes(is_gso: bool) -> Self {
        let mut stream = Self::of_whole_packets(is_gso);
        if !is_gso {
            // IP fragments.
            stream.bursts.extend([1393, 4000, 9000].map(|size| Burst {
                size,
                count: 3,
                last: size,
            }));
        }
        stream
    }

    /// Bursts of every kind that fits a packet.
    pub(crate) fn of_whole_packets(is_gso: bool) -> Self {
        let mut bursts = Vec::new();
        for size in [8, 9, 17, 100, 512, 1001, 1371, LARGEST] {
            for (count, last) in [(1, size), (2, size), (17, 8), (40, size), (40, size / 2)] {
                let last = last.max(8);
                bursts.push(Burst { size, count, last });
            }
        }
        Self {
            bursts,
            is_gso,
            window: 0,
        }
    }

    /// Bursts with `UDP_SEGMENT`, beginning with the longest datagrams.
    pub(crate) fn largest_first() -> Self {
        let mut stream = Self::of_whole_packets(true);
        stream.bursts.reverse();
        stream
    }

    /// Datagrams of changing sizes, the longest of them `largest` bytes, close together: what may be
    /// merged with what changes all the time.
    pub(crate) fn mixed(largest: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(1);
        let sizes = [8, 9, 100, 700, 701, largest];
        let bursts = (0..300).map(|_| Burst {
            size: sizes[rng.gen_range(0..sizes.len())],
            count: rng.gen_range(1..5),
            last: sizes[rng.gen_range(0..sizes.len())],
        });
        Self {
            bursts: bursts.collect(),
            is_gso: false,
            window: 40,
        }
    }

    /// Many datagrams of one size, close together.
    pub(crate) fn steady(size: usize, count: usize) -> Self {
        let burst = Burst {
            size,
            count: 16,
            last: size,
        };
        Self {
            bursts: vec![burst; count / 16],
            is_gso: false,
            window: 64,
        }
    }

    /// The number and the size of each datagram.
    fn datagrams(&self) -> Vec<usize> {
        let bursts = self.bursts.iter();
        bursts
            .flat_map(|burst| {
                let sizes = std::iter::repeat_n(burst.size, burst.count - 1);
                sizes.chain([burst.last])
            })
            .collect()
    }
}

impl Arrived {
    /// All of them, whole, in order; and there were some.
    pub(crate) fn assert_whole(&self, what: &str) {
        let whole = Self {
            sent: self.sent,
            received: self.sent,
            damaged: 0,
            out_of_order: 0,
        };
        assert!(self.sent > 0 && *self == whole, "{what}: {self:?}");
    }
}

// ---- TCP ----------------------------------------------------------------------------------------

fn send(mut stream: TcpStream, len: u64) -> Vec<u8> {
    let patience = stream.set_write_timeout(Some(PATIENCE));
    patience.expect("a timeout can be set");
    let (mut rng, mut hash) = (SmallRng::seed_from_u64(len), Blake2b512::new());
    let mut chunk = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        let part = &mut chunk[..left.min(CHUNK as u64) as usize];
        rng.fill_bytes(part);
        hash.update(&*part);
        stream.write_all(part).expect("the receiver takes it");
        left -= part.len() as u64;
    }
    hash.finalize().to_vec()
}

fn receive(mut stream: TcpStream) -> Vec<u8> {
    let patience = stream.set_read_timeout(Some(PATIENCE));
    patience.expect("a timeout can be set");
    let mut hash = Blake2b512::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).expect("the sender goes on") {
            0 => return hash.finalize().to_vec(),
            len => hash.update(&chunk[..len]),
        }
    }
}

/// A counter of the calling thread's namespace: a line of names, and below it one of values.
fn counter(file: &str, name: &str) -> u64 {
    let path = format!("/proc/thread-self/net/{file}");
    let text = std::fs::read_to_string(path).expect("the kernel counts");
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.chunks(2).find_map(|pair| {
        let [names, values] = pair else { return None };
        let mut both = names.split(' ').zip(values.split(' '));
        both.find(|(n, _)| *n == name)?.1.parse().ok()
    });
    found.unwrap_or_else(|| panic!("no {name} in {file}"))
}

// ---- UDP ----------------------------------------------------------------------------------------

/// The datagram of this number: nothing of it is like any other's.
fn datagram(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let (head, body) = bytes.split_at_mut(8);
    head.copy_from_slice(&number.to_be_bytes());
    SmallRng::seed_from_u64(number).fill_bytes(body);
    bytes
}

/// How many were sent, until some are missing.
fn say(to: SocketAddr, stream: &Stream, received: &AtomicU64) -> u64 {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).expect("a port is free");
    let batches = stream.is_gso.then(|| {
        quinn_udp::UdpSocketState::new((&socket).into()).expect("the kernel has UDP_SEGMENT")
    });
    socket.set_nonblocking(false).expect("a socket may block");
    let mut sent = 0;
    for burst in &stream.bursts {
        let goes_on = poll_every(Duration::from_micros(100), STALL, || {
            sent <= received.load(Ordering::Relaxed) + stream.window
        });
        if !goes_on {
            break;
        }
        let sizes = (1..=burst.count).map(|n| {
            if n < burst.count {
                burst.size
            } else {
                burst.last
            }
        });
        let datagrams = (sent..).zip(sizes).map(|(n, size)| datagram(n, size));
        match &batches {
            Some(state) => {
                let contents: Vec<u8> = datagrams.flatten().collect();
                let transmit = quinn_udp::Transmit {
                    destination: to,
                    ecn: None,
                    contents: &contents,
                    segment_size: (burst.count > 1).then_some(burst.size),
                    src_ip: None,
                };
                let done = state.try_send((&socket).into(), &transmit);
                done.expect("the kernel takes it");
            }
            None => datagrams.for_each(|datagram| {
                let done = socket.send_to(&datagram, to);
                done.expect("the kernel takes it");
            }),
        }
        sent += burst.count as u64;
    }
    sent
}

/// Takes datagrams until all are there, or none comes any more.
fn take(socket: &UdpSocket, stream: &Stream, received: &AtomicU64, done: &AtomicBool) -> Arrived {
    let sizes = stream.datagrams();
    let patience = socket.set_read_timeout(Some(STALL));
    patience.expect("a timeout can be set");
    let mut arrived = Arrived {
        sent: 0,
        received: 0,
        damaged: 0,
        out_of_order: 0,
    };
    let (mut next, mut buffer) = (0, vec![0; 1 << 16]);
    while arrived.received < sizes.len() as u64 {
        let Ok(len) = socket.recv(&mut buffer) else {
            if done.load(Ordering::Relaxed) {
                break;
            }
            continue;
        };
        arrived.received += 1;
        received.store(arrived.received, Ordering::Relaxed);
        let bytes = &buffer[..len];
        let number = bytes.first_chunk().map(|head| u64::from_be_bytes(*head));
        let number = number.filter(|number| *number < sizes.len() as u64);
        let Some(number) = number else {
            arrived.damaged += 1;
            continue;
        };
        let is_whole = datagram(number, sizes[number as usize]) == bytes;
        arrived.damaged += u64::from(!is_whole);
        arrived.out_of_order += u64::from(number < next);
        next = next.max(number + 1);
    }
    arrived
}

/// UDP payload that IPv6 carries in a packet of 1420 bytes.
pub(crate) const LARGEST: usize = 1420 - 48;
const CHUNK: usize = 1 << 18;
/// Without a byte for that long, a transfer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Without a datagram for that long, none is on its way.
const STALL: Duration = Duration::from_secs(5);
