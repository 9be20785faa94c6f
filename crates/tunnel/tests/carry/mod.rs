//! A tunnel for tests, which carries packets as the product's data threads do: through
//! [`tunnel::Carrier`], one packet a turn, and one datagram a batch. Instead of a socket it has a list
//! of the datagrams that the carrier sent of the tunnel's own.
#![allow(dead_code, reason = "each test uses a part")]

#[allow(
    unused_imports,
    reason = "inside the crate, `tunnel` is the parent's name for it"
)]
use super::*;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut, Range};
use std::time::Duration;
use tunnel::{
    Carrier, Config, DatagramSink, DropReason, Drops, Headers, Inbound, LoneTunnel, Outbound,
    Outer, PacketSink, PacketSource, Path, Received, TunnelId,
};

/// A door, and the datagrams of its tunnel that a carrier has sent and nobody has fetched.
pub(crate) struct Carried {
    door: LoneTunnel,
    sent: VecDeque<Datagram>,
}

/// A datagram of the tunnel's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) to: Path,
    pub(crate) payload: Vec<u8>,
}

impl Carried {
    pub(crate) fn new(handshakes_per_second: u64, config: Config) -> Self {
        Self {
            door: LoneTunnel::new(handshakes_per_second, config),
            sent: VecDeque::new(),
        }
    }

    /// The tunnel's own datagrams: first those that a carrier has sent, then those that still wait.
    pub(crate) fn poll_transmit(&mut self) -> Option<Datagram> {
        self.sent.pop_front().or_else(|| {
            let transmit = self.door.poll_transmit()?;
            Some(Datagram {
                to: transmit.to,
                payload: transmit.payload,
            })
        })
    }
}

impl Deref for Carried {
    type Target = LoneTunnel;

    fn deref(&self) -> &LoneTunnel {
        &self.door
    }
}

impl DerefMut for Carried {
    fn deref_mut(&mut self) -> &mut LoneTunnel {
        &mut self.door
    }
}

/// Sends the packet in the first `len` bytes of `buffer`.
pub(crate) fn send(
    tunnel: &mut Carried,
    buffer: &mut [u8],
    len: usize,
    out: &mut [u8],
    now: Duration,
) -> Outbound {
    let before = tunnel.drops();
    let destination = tunnel::destination(&buffer[..len]);
    let mut ends = Ends::new(out, &mut tunnel.sent);
    let carrier = Carrier::new(&mut tunnel.door);
    let mut turn = carrier.turn(TunnelId::FIRST, &mut ends);
    turn.send(destination, &mut One(Some((buffer, len))), || now);
    drop(turn);
    let datagram = ends.datagram;
    drop(ends);
    match (datagram, dropped(&before, &tunnel.drops())) {
        (Some((to, len)), None) => Outbound::Send { to, len },
        (None, Some(reason)) => Outbound::Dropped(reason),
        (None, None) => Outbound::Queued,
        (Some(_), Some(reason)) => panic!("it was sent, and dropped for {reason:?}"),
    }
}

/// Takes a datagram; the packet in it is opened into `out`.
pub(crate) fn receive(
    tunnel: &mut Carried,
    from: impl Into<Path>,
    datagram: &[u8],
    out: &mut [u8],
    now: Duration,
) -> Inbound {
    let before = tunnel.drops();
    let each = std::iter::once((from.into(), 0..datagram.len()));
    let packets = receive_all(tunnel, datagram, out, each, now);
    match (packets.as_slice(), dropped(&before, &tunnel.drops())) {
        ([packet], None) => Inbound::Deliver { len: packet.len() },
        ([], Some(reason)) => Inbound::Dropped(reason),
        ([], None) => Inbound::Consumed,
        (_, Some(reason)) => panic!("it was delivered, and dropped for {reason:?}"),
        (_, None) => panic!("one datagram is at most one packet"),
    }
}

/// Takes a batch of datagrams, each from where `each` says; where the packets are that were delivered.
pub(crate) fn receive_all(
    tunnel: &mut Carried,
    datagrams: &[u8],
    plain: &mut [u8],
    each: impl Iterator<Item = (Path, Range<usize>)> + Clone,
    now: Duration,
) -> Vec<Range<usize>> {
    let mut unused = [];
    let mut ends = Ends::new(&mut unused, &mut tunnel.sent);
    let received = Received {
        datagrams,
        plain,
        each,
    };
    let carrier = Carrier::new(&mut tunnel.door);
    carrier.receive(received, &mut Headers::default(), &mut ends, || now);
    std::mem::take(&mut ends.packets)
}

/// The reason of which the count has risen.
fn dropped(before: &Drops, after: &Drops) -> Option<DropReason> {
    let mut risen = after.iter().filter(|(reason, n)| *n > before.get(*reason));
    risen.next().map(|(reason, _)| reason)
}

/// A packet by itself.
struct One<'p>(Option<(&'p mut [u8], usize)>);

impl PacketSource for One<'_> {
    fn next(&mut self) -> Option<(&mut [u8], usize)> {
        self.0.take()
    }

    fn remaining(&self) -> usize {
        usize::from(self.0.is_some())
    }
}

/// Takes one datagram, any number of packets, and any number of the tunnel's own datagrams.
struct Ends<'b> {
    out: &'b mut [u8],
    to: Option<Path>,
    datagram: Option<(Path, usize)>,
    packets: Vec<Range<usize>>,
    sent: &'b mut VecDeque<Datagram>,
    /// Pushed or put, and not yet flushed.
    is_unsent: bool,
}

impl<'b> Ends<'b> {
    fn new(out: &'b mut [u8], sent: &'b mut VecDeque<Datagram>) -> Self {
        Self {
            out,
            to: None,
            datagram: None,
            packets: Vec::new(),
            sent,
            is_unsent: false,
        }
    }
}

impl DatagramSink for Ends<'_> {
    fn room(&mut self, to: Outer, _: usize) -> &mut [u8] {
        self.to = Some(to.route.path);
        self.out
    }

    fn push(&mut self, len: usize) {
        let to = self.to.expect("there was room");
        assert_eq!(self.datagram.replace((to, len)), None, "one packet");
        self.is_unsent = true;
    }

    fn flush(&mut self) {
        self.is_unsent = false;
    }

    fn send(&mut self, to: Outer, datagram: &[u8]) {
        assert!(!self.is_unsent, "it would overtake what was sealed before");
        self.sent.push_back(Datagram {
            to: to.route.path,
            payload: datagram.to_vec(),
        });
    }

    fn refuse(&mut self, _: &[u8]) {}

    fn deadline_changed(&mut self) {}
}

impl PacketSink for Ends<'_> {
    fn put(&mut self, _: TunnelId, _: &[u8], range: Range<usize>) {
        self.packets.push(range);
        self.is_unsent = true;
    }

    fn flush(&mut self, _: &mut [u8]) {
        self.is_unsent = false;
    }
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        assert!(!self.is_unsent || std::thread::panicking(), "left behind");
    }
}
