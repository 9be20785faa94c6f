//! Datagrams on their way out: sealed one behind the other into one buffer, sent by one call.
//!
//! A batch is datagrams with one outer header, all of one length but for the last (UDP GSO). One that does
//! not fit in has the others sent first, so nothing is reordered.

use crate::io::clock;
use crate::io::offload::{Offload, Offloads, Why};
use crate::io::udp::{Udp, is_refusal};
use std::collections::HashMap;
use std::time::Duration;
use tunnel::{Outer, Path};

pub(super) struct Batch {
    bytes: Box<[u8]>,
    len: usize,
    to: Option<Outer>,
    /// Length of the first datagram.
    segment: usize,
    count: usize,
    /// The last datagram was shorter: no other may follow.
    is_complete: bool,
    long: LongDatagrams,
}

/// Addresses that refused a batch of datagrams that long: the path is narrower, and IP fragments
/// them one by one. Forgotten from time to time, because paths change.
#[derive(Default)]
struct LongDatagrams {
    from_length: HashMap<Path, usize>,
    since: Duration,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; MAX_BYTES + tunnel::MIN_BUFFER].into_boxed_slice(),
            len: 0,
            to: None,
            segment: 0,
            count: 0,
            is_complete: false,
            long: LongDatagrams::default(),
        }
    }

    /// Room for a datagram of `len` bytes with the outer header `to`, and what comes behind it; sends what is in the
    /// way. Datagrams that the system did not take are returned as lost.
    pub(super) fn room(
        &mut self,
        to: Outer,
        len: usize,
        udp: &Udp,
        offloads: &Offloads,
    ) -> (&mut [u8], u64) {
        let fits = self.count == 0
            || self.to == Some(to)
                && !self.is_complete
                && len <= self.segment
                && self.len + len <= MAX_BYTES
                && self.count < self.most(to.route.path, offloads);
        let lost = if fits { 0 } else { self.flush(udp, offloads) };
        if self.count == 0 {
            self.to = Some(to);
        }
        (&mut self.bytes[self.len..], lost)
    }

    /// The datagram that was written into the room is `len` bytes long.
    pub(super) fn push(&mut self, len: usize) {
        if self.count == 0 {
            self.segment = len;
        }
        self.is_complete = len < self.segment;
        self.len += len;
        self.count += 1;
    }

    /// Sends what there is; how many datagrams the system did not take.
    pub(super) fn flush(&mut self, udp: &Udp, offloads: &Offloads) -> u64 {
        let (Some(to), 1..) = (self.to.take(), self.count) else {
            return 0;
        };
        let (len, count) = (self.len, self.count);
        (self.len, self.count, self.is_complete) = (0, 0, false);
        let datagrams = &self.bytes[..len];
        match udp.send(to, datagrams, self.segment) {
            Ok(()) => 0,
            Err(error) if count > 1 && is_refusal(&error) => {
                let each = datagrams.chunks(self.segment);
                let lost = each
                    .filter(|datagram| udp.send(to, datagram, datagram.len()).is_err())
                    .count();
                // Where not even one goes through, the batch is not to blame.
                if lost < count {
                    self.long
                        .refused(to.route.path, self.segment, error, offloads);
                }
                lost as u64
            }
            Err(_) => count as u64,
        }
    }

    /// Datagrams of the current length that one call may send.
    fn most(&self, to: Path, offloads: &Offloads) -> usize {
        if offloads.is_on(Offload::UdpGso) && self.long.fits(to, self.segment) {
            MAX_SEGMENTS
        } else {
            1
        }
    }
}

impl LongDatagrams {
    fn fits(&self, to: Path, segment: usize) -> bool {
        self.from_length.is_empty()
            || self
                .from_length
                .get(&to)
                .is_none_or(|length| segment < *length)
            || self.is_over(clock::boot())
    }

    /// A batch was refused: because its datagrams are long for their path, or altogether.
    fn refused(&mut self, to: Path, segment: usize, error: std::io::Error, offloads: &Offloads) {
        if segment <= FITS_ANY_PATH || error.raw_os_error() == Some(libc::EIO) {
            return offloads.turn_off(Offload::UdpGso, Why::Failed(error));
        }
        let now = clock::boot();
        if self.is_over(now) || self.from_length.len() >= MAX_ADDRESSES {
            self.from_length.clear();
        }
        if self.from_length.is_empty() {
            self.since = now;
        }
        self.from_length.insert(to, segment);
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) > FORGET_AFTER
    }
}

/// Segments of one call before Linux 6.9 (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: usize = 64;
/// Largest UDP payload over IPv4, which bounds a batch too.
const MAX_BYTES: usize = tunnel::MAX_DATAGRAM;
/// UDP payload that any path carries whole: the least MTU of IPv6 without the headers (RFC 8200,
/// section 5).
const FITS_ANY_PATH: usize = 1280 - 48;
const FORGET_AFTER: Duration = Duration::from_secs(60);
const MAX_ADDRESSES: usize = 1024;
