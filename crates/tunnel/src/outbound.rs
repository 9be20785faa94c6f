//! TUN → UDP: an inner packet becomes a datagram, waits for a session, or is a counted drop.

use crate::drops::DropReason;
use crate::limits::*;
use crate::packet;
use crate::tunnel::Tunnel;
use std::net::SocketAddr;
use std::time::Duration;

/// What became of a packet from the TUN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// `len` bytes of the lent buffer are to be sent.
    Send {
        /// Where to.
        to: SocketAddr,
        /// Bytes in the buffer.
        len: usize,
    },
    /// It waits for a session.
    Queued,
    /// It was dropped and counted.
    Dropped(DropReason),
}

impl Tunnel {
    /// Takes the inner packet in the first `len` bytes of `buffer` and seals it into `out`. The
    /// bytes of `buffer` behind `len` may be overwritten with padding; 15 of them are enough.
    /// `out` needs the padded length + [`DATA_OVERHEAD`] bytes and at least [`MIN_BUFFER`].
    pub fn handle_tun(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Outbound {
        match self.outbound(buffer, len, out, now) {
            Ok(outbound) => outbound,
            Err(reason) => {
                self.core.drops.count(reason);
                Outbound::Dropped(reason)
            }
        }
    }

    fn outbound(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Result<Outbound, DropReason> {
        self.check_lease(now)?;
        let packet = buffer.get(..len).ok_or(DropReason::TooLarge)?;
        let destination = packet::destination(packet).ok_or(DropReason::Malformed)?;
        let id = self.allowed.get(destination).ok_or(DropReason::NoRoute)?;
        let peer = self
            .peers
            .get_mut(id)
            .and_then(Option::as_mut)
            .ok_or(DropReason::NoRoute)?;
        let to = peer
            .endpoint
            .or(peer.candidates.first().copied())
            .ok_or(DropReason::NoEndpoint)?;

        let padded = packet::padded(len, self.core.mtu).min(buffer.len());
        if out.len() < (padded + DATA_OVERHEAD).max(MIN_BUFFER) {
            return Err(DropReason::TooLarge);
        }
        if let Some(padding) = buffer.get_mut(len..padded) {
            padding.fill(0);
        }
        let plaintext = buffer.get(..padded).ok_or(DropReason::TooLarge)?;
        if let Some(len) = peer.seal(plaintext, len, out, now) {
            peer.hurry(now, &mut self.core);
            return Ok(Outbound::Send { to, len });
        }
        let packet = buffer.get(..len).ok_or(DropReason::TooLarge)?;
        if peer.enqueue(packet, now, &mut self.core) {
            Ok(Outbound::Queued)
        } else {
            Err(DropReason::NoSession)
        }
    }
}
