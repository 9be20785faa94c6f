//! How threads that share the tunnels of a node carry packets: on the shared way as long as that will do, and
//! with the door alone where it must be. One lock is around all tunnels: a batch of datagrams, which may be for
//! several, costs one. Every data thread, and every test that carries packets, goes
//! through here.
//!
//! Four things always hold, and all of them are about what somebody else may rely on:
//!
//! - Handshake messages of a batch go first, so that data which came with them finds its session.
//! - A thread that shares the tunnel leaves nothing behind on giving it back: datagrams are sent and packets
//!   delivered before. The next that takes the tunnel alone may remove a peer, and when that returns no
//!   packet of the peer may be on its way.
//! - Before a thread takes the tunnel alone, the datagrams that it has sealed are sent: nothing that
//!   is sealed afterwards overtakes them.
//! - After it, the tunnel's own datagrams are sent, and the thread that sleeps until the tunnel's next
//!   deadline is told if that has changed.
//!
//! No lock is taken for a packet, only for a turn and for a batch. No socket, device or clock is known
//! here: they are the sinks', and the time is asked for when a lock has been waited for.

use crate::door::{Arrival, FrontDoor};
use crate::drops::DropReason;
use crate::inbound::Inbound;
use crate::opening::Opening;
use crate::outbound::{Outbound, Sealing};
use crate::outer::Outer;
use crate::packet::{self, Message};
use crate::tunnel::Tunnel;
use crate::tunnel_id::TunnelId;
use crate::unreachable::MAX_ERROR;
use std::borrow::{Borrow, BorrowMut};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// The place where datagrams go: sealed one behind the other, sent together.
pub trait DatagramSink {
    /// Room for a datagram of `len` bytes to `to`, of at least [`crate::MIN_BUFFER`] bytes. Datagrams
    /// that cannot be sent together with it are sent now.
    fn room(&mut self, to: Outer, len: usize) -> &mut [u8];
    /// The datagram that was written into the room is `len` bytes long.
    fn push(&mut self, len: usize);
    /// Sends all that was pushed.
    fn flush(&mut self);
    /// Sends one datagram of the tunnel's own, at once.
    fn send(&mut self, to: Outer, datagram: &[u8]);
    /// Tells this host of an ICMP error: a whole packet from one of its addresses to the same.
    fn refuse(&mut self, error: &[u8]);
    /// The tunnel's next deadline has changed, and a thread that sleeps until then has to look again.
    fn deadline_changed(&mut self);
}

/// The place where opened packets go.
pub trait PacketSink {
    /// Takes the packet at `range` of `plain`, where it stays until the flush: for the device of `tunnel`, and
    /// for no other.
    fn put(&mut self, tunnel: TunnelId, plain: &[u8], range: Range<usize>);
    /// Delivers all that was taken.
    fn flush(&mut self, plain: &mut [u8]);
}

/// Packets to one destination.
pub trait PacketSource {
    /// The next packet: a buffer that begins with it and may be overwritten for 15 bytes behind it, and
    /// its length.
    fn next(&mut self) -> Option<(&mut [u8], usize)>;
    /// How many are still to come.
    fn remaining(&self) -> usize;
}

/// The headers of one batch of datagrams, each read once. A thread keeps it, so that no batch costs an
/// allocation.
#[derive(Default)]
pub struct Headers(Vec<Option<Message>>);

/// One batch of datagrams.
pub struct Received<'r, I> {
    /// The datagrams, and whatever is between them.
    pub datagrams: &'r [u8],
    /// As long as `datagrams`: each is opened where it lies there.
    pub plain: &'r mut [u8],
    /// Where each datagram is, and its outer header, or as much of it as is known.
    pub each: I,
}

/// A front door that threads share; or, for as long as it is lent, one that a test owns.
pub struct Carrier<D = FrontDoor> {
    door: RwLock<D>,
}

impl<D> Carrier<D> {
    /// The door, to look at.
    pub fn read(&self) -> RwLockReadGuard<'_, D> {
        read(&self.door)
    }

    /// The door alone: for everything that changes a tunnel and is no packet.
    pub fn write(&self) -> RwLockWriteGuard<'_, D> {
        write(&self.door)
    }
}

impl<D: BorrowMut<FrontDoor>> Carrier<D> {
    /// Carries through `door` from here on.
    pub fn new(door: D) -> Self {
        Self {
            door: RwLock::new(door),
        }
    }

    /// Whether any thread has the door, shared or alone.
    #[cfg(test)]
    pub(crate) fn is_taken(&self) -> bool {
        self.door.try_write().is_err()
    }

    // ---- TUN → UDP --------------------------------------------------------------------------

    /// A turn of packets from the TUN device of one tunnel; it ends when it is dropped.
    pub fn turn<'c, S: DatagramSink>(
        &'c self,
        tunnel: TunnelId,
        sink: &'c mut S,
    ) -> Turn<'c, D, S> {
        Turn {
            carrier: self,
            tunnel,
            shared: Some(read(&self.door)),
            sink,
        }
    }

    // ---- UDP → TUN --------------------------------------------------------------------------

    /// Opens a batch of datagrams and delivers what is in it.
    pub fn receive<I, O>(
        &self,
        received: Received<'_, I>,
        headers: &mut Headers,
        sink: &mut (impl PacketSink + DatagramSink),
        clock: impl Fn() -> Duration,
    ) where
        I: Iterator<Item = (O, Range<usize>)> + Clone,
        O: Into<Outer>,
    {
        let Received {
            datagrams,
            plain,
            each,
        } = received;
        headers.0.clear();
        let mut has_handshakes = false;
        for (_, range) in each.clone() {
            let message = datagrams.get(range).and_then(packet::parse_message);
            has_handshakes |= message.is_some_and(Message::is_handshake);
            headers.0.push(message);
        }
        let arrivals = each
            .zip(&headers.0)
            .map(|((outer, range), message)| (Arrival::new(outer.into(), *message), range));
        if has_handshakes {
            for (arrival, range) in arrivals.clone().filter(|it| it.0.is_handshake()) {
                self.open_alone(arrival, range, datagrams, plain, sink, &clock);
            }
        }
        let mut unconfirmed = Vec::new();
        let shared = read(&self.door);
        let mut opening = Opening::new(Borrow::<FrontDoor>::borrow(&*shared), clock());
        for (arrival, range) in arrivals.filter(|it| !it.0.is_handshake()) {
            let place = (datagrams.get(range.clone()), plain.get_mut(range.clone()));
            let (Some(datagram), Some(out)) = place else {
                continue;
            };
            match opening.open(arrival, datagram, out) {
                Some(Inbound::Deliver { len }) => {
                    if let Some(tunnel) = opening.tunnel() {
                        sink.put(tunnel, plain, range.start..range.start + len);
                    }
                }
                Some(Inbound::Consumed | Inbound::Dropped(_)) => {}
                None => unconfirmed.push((arrival, range)),
            }
        }
        drop(opening);
        // Before others may have the tunnel: a packet that is delivered after its sender was removed
        // would be one that the removal let through.
        PacketSink::flush(sink, plain);
        drop(shared);
        for (arrival, range) in unconfirmed {
            self.open_alone(arrival, range, datagrams, plain, sink, &clock);
        }
    }

    /// A datagram that needs the tunnel alone. One at a time: an initiation costs an X25519 or more, and
    /// all other threads wait as long.
    fn open_alone(
        &self,
        arrival: Arrival,
        range: Range<usize>,
        datagrams: &[u8],
        plain: &mut [u8],
        sink: &mut (impl PacketSink + DatagramSink),
        clock: &impl Fn() -> Duration,
    ) {
        let place = (datagrams.get(range.clone()), plain.get_mut(range.clone()));
        let (Some(datagram), Some(out)) = place else {
            return;
        };
        let mut alone = write(&self.door);
        let door: &mut FrontDoor = (*alone).borrow_mut();
        let before = door.poll_timeout();
        let handled = door.handle(arrival, datagram, out, clock());
        if let (Some(tunnel), Inbound::Deliver { len }) = handled {
            sink.put(tunnel, plain, range.start..range.start + len);
            PacketSink::flush(sink, plain);
        }
        say(door, before, sink);
    }
}

/// Packets from the TUN device on their way out, for as long as one thread shares the tunnel. When it is
/// dropped, however that comes, all that it has sealed is sent, and only then is the tunnel given back.
pub struct Turn<'c, D, S>
where
    D: BorrowMut<FrontDoor>,
    S: DatagramSink,
{
    carrier: &'c Carrier<D>,
    tunnel: TunnelId,
    /// `None` only while this thread has the tunnel alone. Dropped after the flush in [`Drop`].
    shared: Option<RwLockReadGuard<'c, D>>,
    sink: &'c mut S,
}

impl<D, S> Turn<'_, D, S>
where
    D: BorrowMut<FrontDoor>,
    S: DatagramSink,
{
    /// Takes packets to `destination`; `None`: it is no IP packet.
    pub fn send(
        &mut self,
        destination: Option<IpAddr>,
        packets: &mut impl PacketSource,
        clock: impl Fn() -> Duration,
    ) {
        let Some(destination) = destination else {
            return self.count_drops(DropReason::Malformed, 1);
        };
        let shared = self.shared.get_or_insert_with(|| read(&self.carrier.door));
        let door: &FrontDoor = (**shared).borrow();
        // Of a tunnel that was closed, packets may still be read: its device is about to go.
        let Some(tunnel) = door.tunnel(self.tunnel) else {
            return;
        };
        let needs_tunnel_alone = match tunnel.sealing(destination, clock()) {
            Ok(Some(sealing)) => {
                seal_all(sealing, packets, self.sink);
                false
            }
            Ok(None) => true,
            Err(reason) => {
                tunnel.count_drops(reason, packets.remaining() as u64);
                if reason.is_unreachable() {
                    refuse(tunnel, packets, self.sink, clock());
                }
                false
            }
        };
        if needs_tunnel_alone {
            self.send_alone(destination, packets, clock);
        }
    }

    /// Counts packets that were dropped before anybody asked where they go.
    pub fn count_drops(&mut self, reason: DropReason, packets: u64) {
        let shared = self.shared.get_or_insert_with(|| read(&self.carrier.door));
        let door: &FrontDoor = (**shared).borrow();
        if let Some(tunnel) = door.tunnel(self.tunnel) {
            tunnel.count_drops(reason, packets);
        }
    }

    /// With the tunnel alone: shakes hands, and keeps packets until that is done.
    fn send_alone(
        &mut self,
        destination: IpAddr,
        packets: &mut impl PacketSource,
        clock: impl Fn() -> Duration,
    ) {
        self.sink.flush();
        self.shared = None;
        let mut alone = write(&self.carrier.door);
        let door: &mut FrontDoor = (*alone).borrow_mut();
        let before = door.poll_timeout();
        // Asked anew: while the lock was waited for, a session may have come, or the peer gone, or the tunnel.
        if let Some(tunnel) = door.tunnel_mut(self.tunnel) {
            seal_alone(tunnel, destination, packets, self.sink, clock());
        }
        self.sink.flush();
        say(door, before, self.sink);
        drop(alone);
        self.shared = Some(read(&self.carrier.door));
    }
}

impl<D, S> Drop for Turn<'_, D, S>
where
    D: BorrowMut<FrontDoor>,
    S: DatagramSink,
{
    fn drop(&mut self) {
        // The fields are dropped after this, and the lock with them. The other way round, a peer could be
        // removed in between, and be sent to afterwards.
        self.sink.flush();
    }
}

fn seal_all(
    mut sealing: Sealing<'_>,
    packets: &mut impl PacketSource,
    sink: &mut impl DatagramSink,
) {
    while let Some((buffer, len)) = packets.next() {
        let room = sink.room(sealing.around(buffer), sealing.datagram_len(len));
        // A packet that is not sealed was dropped, and counted, by the tunnel.
        if let Ok(len) = sealing.seal(buffer, len, room) {
            sink.push(len);
        }
    }
}

fn seal_alone(
    tunnel: &mut Tunnel,
    destination: IpAddr,
    packets: &mut impl PacketSource,
    sink: &mut impl DatagramSink,
    now: Duration,
) {
    match tunnel.sealing_alone(destination, now) {
        Ok(mut sealing) => {
            while let Some((buffer, len)) = packets.next() {
                let outer = sealing.around(buffer);
                let room = sink.room(outer, sealing.datagram_len(len));
                if let Outbound::Send { len, .. } = sealing.take(buffer, len, room) {
                    sink.push(len);
                }
            }
        }
        Err(reason) => tunnel.count_drops(reason, packets.remaining() as u64),
    }
}

/// Answers the first of packets that go nowhere, so that their sender need not wait.
fn refuse(
    tunnel: &Tunnel,
    packets: &mut impl PacketSource,
    sink: &mut impl DatagramSink,
    now: Duration,
) {
    let packet = packets.next();
    let packet = packet.and_then(|(buffer, len)| buffer.get(..len));
    if let Some(refused) = packet.and_then(|packet| tunnel.refused(packet, now)) {
        sink.refuse(refused.error(&mut [0; MAX_ERROR]));
    }
}

/// Sends what the tunnel has to say of its own, and tells if its deadline is not `before` any more.
fn say(door: &mut FrontDoor, before: Option<Duration>, sink: &mut impl DatagramSink) {
    while let Some(transmit) = door.poll_transmit() {
        sink.send(transmit.outer(), &transmit.payload);
    }
    if door.poll_timeout() != before {
        sink.deadline_changed();
    }
}

fn read<D>(door: &RwLock<D>) -> RwLockReadGuard<'_, D> {
    door.read().expect(NO_PANIC)
}

fn write<D>(door: &RwLock<D>) -> RwLockWriteGuard<'_, D> {
    door.write().expect(NO_PANIC)
}

const NO_PANIC: &str = "no thread has panicked with the tunnel alone";
