//! One peer: where it is, what waits for it, and its generations `previous`, `current`, `next`.

use crate::allowed_ips::PeerId;
use crate::generation::{Generation, Initiating};
use crate::initiation::Timestamp;
use crate::limits::*;
use crate::tunnel::{Core, Event};
use boringtun::noise::TunnResult;
use keys::{Epoch, SharedSecret, WgPublicKey};
use rand::Rng as _;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) key: WgPublicKey,
    pub(crate) shared: SharedSecret,
    pub(crate) allowed: Vec<IpAddr>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) candidates: Vec<SocketAddr>,
    pub(crate) generations: Generations,
    /// Newest timestamp of any initiation; what a stock peer's initiations are held against.
    pub(crate) newest: Timestamp,
    pub(crate) stock: Allowance,
    pub(crate) queue: VecDeque<Vec<u8>>,
    activated_at: Duration,
    last_sent: Option<Duration>,
    last_data_sent: Option<Duration>,
    last_data_received: Option<Duration>,
    unanswered_since: Option<Duration>,
    /// When this peer's next handshake message is due; mirrored in [`Core::due`].
    due: Option<Duration>,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_bytes: u64,
}

/// The three slots of the key schedule's life on the data plane.
#[derive(Default)]
pub(crate) struct Generations {
    pub(crate) previous: Option<Generation>,
    pub(crate) current: Option<Generation>,
    pub(crate) next: Option<Generation>,
}

/// A small bucket of tokens that refills with time.
#[derive(Default)]
pub(crate) struct Allowance {
    used: u32,
    since: Duration,
}

/// What a peer looks like from outside; nothing secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// The peer.
    pub key: WgPublicKey,
    /// Where packets to it go.
    pub endpoint: Option<SocketAddr>,
    /// Epoch of the session that packets are sent on; `None`: no live session.
    pub session_epoch: Option<Epoch>,
    /// Time since that session's handshake.
    pub session_age: Option<Duration>,
    /// Whether a live session of the epoch after the current one is ready.
    pub next_ready: bool,
    /// Bytes of inner packets sent.
    pub tx_bytes: u64,
    /// Bytes of inner packets received.
    pub rx_bytes: u64,
}

impl Peer {
    pub(crate) fn new(id: PeerId, key: WgPublicKey, shared: SharedSecret) -> Self {
        Self {
            id,
            key,
            shared,
            allowed: Vec::new(),
            endpoint: None,
            candidates: Vec::new(),
            generations: Generations::default(),
            newest: Timestamp::default(),
            stock: Allowance::default(),
            queue: VecDeque::new(),
            activated_at: Duration::ZERO,
            last_sent: None,
            last_data_sent: None,
            last_data_received: None,
            unanswered_since: None,
            due: None,
            tx_bytes: 0,
            rx_bytes: 0,
        }
    }

    // ---- epochs -----------------------------------------------------------------------------

    /// Puts `generation` into the slot `next`; a pair with traffic shakes hands within `lead`.
    pub(crate) fn install(
        &mut self,
        generation: Generation,
        lead: Duration,
        now: Duration,
        core: &mut Core,
    ) {
        if let Some(superseded) = self.generations.next.replace(generation) {
            superseded.retire(&mut core.forge);
        }
        if self.initiates(core) && self.is_active(now) {
            let delay = core.jitter(spread(lead));
            self.schedule_next(now + delay);
        }
        self.reschedule(core);
    }

    /// `next → current → previous`. Returns whether the peer is part of `epoch`.
    pub(crate) fn activate(&mut self, epoch: Epoch, now: Duration, core: &mut Core) -> bool {
        let Some(next) = self.generations.next.take_if(|next| next.epoch == epoch) else {
            return false;
        };
        self.retain_newest_live(now, core);
        self.generations.current = Some(next);
        self.activated_at = now;
        let pause = if self.initiates(core) {
            Duration::ZERO
        } else {
            RESPONDER_PAUSE
        };
        let ready = self
            .generations
            .current
            .as_ref()
            .is_some_and(|current| current.is_live(now));
        if self.is_active(now) {
            if ready {
                // The other side must not be left unconfirmed because one keepalive was lost.
                self.send_keepalive(now, core);
            } else {
                self.want_handshake_at(now + pause + core.jitter(pause));
            }
        }
        self.flush(now, core);
        self.reschedule(core);
        true
    }

    pub(crate) fn discard_previous(&mut self, core: &mut Core) {
        if let Some(previous) = self.generations.previous.take() {
            previous.retire(&mut core.forge);
        }
        self.reschedule(core);
    }

    /// Forgets everything that would let a packet through in either direction.
    pub(crate) fn retire(mut self, core: &mut Core) {
        let Generations {
            previous,
            current,
            next,
        } = std::mem::take(&mut self.generations);
        for generation in [previous, current, next].into_iter().flatten() {
            generation.retire(&mut core.forge);
        }
        self.reschedule(core);
        let id = self.id;
        core.transmits.retain(|transmit| transmit.peer != Some(id));
    }

    // ---- sending ----------------------------------------------------------------------------

    /// Seals `packet` for the wire; `None` without a live session. `len` is its unpadded length.
    pub(crate) fn seal(
        &mut self,
        packet: &[u8],
        len: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Option<usize> {
        let tunn = self.generations.sender(now)?;
        let TunnResult::WriteToNetwork(sealed) = tunn.encapsulate(packet, out) else {
            return None;
        };
        let sealed = sealed.len();
        self.last_sent = Some(now);
        if len > 0 {
            self.last_data_sent = Some(now);
            self.unanswered_since.get_or_insert(now);
            self.tx_bytes += len as u64;
        }
        Some(sealed)
    }

    /// Keeps a packet until there is a session, and asks for one. False when the queue is full.
    pub(crate) fn enqueue(&mut self, packet: &[u8], now: Duration, core: &mut Core) -> bool {
        let fits = self.queue.len() < MAX_QUEUED;
        if fits {
            self.queue.push_back(packet.to_vec());
        }
        // In a rotation the other side comes first; otherwise whoever has something to say.
        let rotating = !self.initiates(core) && self.generations.previous.is_some();
        let pause = if rotating {
            RESPONDER_PAUSE
        } else {
            Duration::ZERO
        };
        self.want_handshake_at(now.max(self.activated_at + pause));
        self.run_due(now, core);
        fits
    }

    /// Sends what waited, once there is a session.
    pub(crate) fn flush(&mut self, now: Duration, core: &mut Core) {
        while let Some(mut packet) = self.queue.pop_front() {
            let (len, padded) = (packet.len(), crate::packet::padded(packet.len(), core.mtu));
            packet.resize(padded, 0);
            let mut out = vec![0; (padded + DATA_OVERHEAD).max(MIN_BUFFER)];
            match (self.seal(&packet, len, &mut out, now), self.endpoint) {
                (Some(sealed), Some(to)) => {
                    out.truncate(sealed);
                    core.transmit(self.id, to, out);
                }
                _ => {
                    packet.truncate(len);
                    self.queue.push_front(packet);
                    return;
                }
            }
        }
    }

    // ---- receiving --------------------------------------------------------------------------

    /// A message of this peer was authenticated.
    pub(crate) fn heard(
        &mut self,
        from: SocketAddr,
        data_len: usize,
        now: Duration,
        core: &mut Core,
    ) {
        if self.endpoint != Some(from) {
            self.endpoint = Some(from);
            core.events.push_back(Event::Endpoint {
                peer: self.key,
                endpoint: from,
            });
        }
        self.unanswered_since = None;
        if data_len > 0 {
            self.last_data_received = Some(now);
            self.rx_bytes += data_len as u64;
        }
    }

    /// The generation that owns a 24-bit index of ours.
    pub(crate) fn owner_of(&mut self, index: u32) -> Option<&mut Generation> {
        self.generations
            .iter_mut()
            .find(|generation| generation.owns(index))
    }

    /// The fresh session of the generation that owns `index` is confirmed.
    pub(crate) fn confirm(&mut self, index: u32, initiator: bool, now: Duration, core: &mut Core) {
        let Some(generation) = self.owner_of(index) else {
            return;
        };
        generation.promote(initiator, now, &mut core.forge);
        let epoch = generation.epoch;
        core.handshakes += 1;
        core.events.push_back(Event::Handshake {
            peer: self.key,
            epoch,
            initiator,
        });
        self.flush(now, core);
        self.reschedule(core);
    }

    // ---- time -------------------------------------------------------------------------------

    /// Sends the handshake initiations that are due.
    pub(crate) fn run_due(&mut self, now: Duration, core: &mut Core) {
        let Self {
            id,
            key,
            endpoint,
            candidates,
            generations,
            queue,
            ..
        } = self;
        for generation in generations.iter_mut() {
            let Some(mut attempt) = generation.initiating.filter(|i| i.next_at <= now) else {
                continue;
            };
            if now.saturating_sub(attempt.since) > REKEY_ATTEMPT_TIME {
                generation.initiating = None;
                generation.drop_fresh(&mut core.forge);
                queue
                    .drain(..)
                    .for_each(|_| core.drops.count(crate::DropReason::NoSession));
                continue;
            }
            attempt.next_at = now + core.backoff(attempt.attempts);
            if let Some(to) = target(*endpoint, candidates, attempt.attempts) {
                let tunn = generation.initiator((*id, *key), &mut core.forge);
                let mut buffer = [0; MIN_BUFFER];
                if let TunnResult::WriteToNetwork(message) =
                    tunn.format_handshake_initiation(&mut buffer, true)
                {
                    let message = message.to_vec();
                    core.transmit(*id, to, message);
                    self.last_sent = Some(now);
                }
            }
            attempt.attempts = attempt.attempts.saturating_add(1);
            generation.initiating = Some(attempt);
        }
        self.reschedule(core);
    }

    /// What is due by the second: expiry, renewal, keepalive, a session that went dead.
    pub(crate) fn tick(&mut self, now: Duration, core: &mut Core) {
        for generation in self.generations.iter_mut() {
            generation.expire(now, &mut core.forge);
        }
        let live = self
            .generations
            .current
            .as_ref()
            .and_then(|current| current.live_age(now));
        if let Some((age, initiator)) = live {
            let limit = if initiator {
                REKEY_AFTER_TIME
            } else {
                RENEW_FALLBACK
            };
            let silent = self
                .unanswered_since
                .is_some_and(|since| now.saturating_sub(since) >= DEAD_AFTER);
            if silent {
                self.unanswered_since = Some(now);
            }
            if silent || (age >= limit && self.is_active(now)) {
                self.want_handshake_at(now);
            }
        }
        let owes_keepalive = self.last_data_received.is_some_and(|received| {
            self.last_sent.is_none_or(|sent| sent < received)
                && now.saturating_sub(received) >= KEEPALIVE_TIMEOUT
        });
        if owes_keepalive {
            self.send_keepalive(now, core);
        }
        self.reschedule(core);
    }

    pub(crate) fn snapshot(&self, now: Duration) -> PeerSnapshot {
        let Generations {
            previous,
            current,
            next,
        } = &self.generations;
        let sending = [current, previous]
            .into_iter()
            .flatten()
            .find(|generation| generation.is_live(now));
        PeerSnapshot {
            key: self.key,
            endpoint: self.endpoint,
            session_epoch: sending.map(|generation| generation.epoch),
            session_age: sending
                .and_then(|generation| generation.live_age(now))
                .map(|(age, _)| age),
            next_ready: next.as_ref().is_some_and(|next| next.is_live(now)),
            tx_bytes: self.tx_bytes,
            rx_bytes: self.rx_bytes,
        }
    }

    // ---- details ----------------------------------------------------------------------------

    /// One side of a pair, the one with the lower key, initiates for a new epoch.
    fn initiates(&self, core: &Core) -> bool {
        core.forge.public < self.key
    }

    fn is_active(&self, now: Duration) -> bool {
        let recent =
            |at: Option<Duration>| at.is_some_and(|at| now.saturating_sub(at) < ACTIVE_FOR);
        recent(self.last_data_sent) || recent(self.last_data_received) || !self.queue.is_empty()
    }

    fn schedule_next(&mut self, at: Duration) {
        if let Some(next) = &mut self.generations.next {
            next.initiating = Some(Initiating {
                since: at,
                attempts: 0,
                next_at: at,
            });
        }
    }

    /// Wants a handshake of `current`, unless one is under way.
    fn want_handshake_at(&mut self, at: Duration) {
        if let Some(current) = self
            .generations
            .current
            .as_mut()
            .filter(|current| current.initiating.is_none())
        {
            current.initiating = Some(Initiating {
                since: at,
                attempts: 0,
                next_at: at,
            });
        }
    }

    /// `current → previous`, unless `current` never had a session and `previous` still has one: two
    /// epochs in quick succession must not cost a healthy pair its only session.
    fn retain_newest_live(&mut self, now: Duration, core: &mut Core) {
        let Generations {
            previous, current, ..
        } = &mut self.generations;
        let is_live = |slot: &Option<Generation>| {
            slot.as_ref()
                .is_some_and(|generation| generation.is_live(now))
        };
        let outgoing = if is_live(previous) && !is_live(current) {
            current.take()
        } else {
            std::mem::replace(previous, current.take())
        };
        if let Some(outgoing) = outgoing {
            outgoing.retire(&mut core.forge);
        }
    }

    fn send_keepalive(&mut self, now: Duration, core: &mut Core) {
        let mut out = [0; MIN_BUFFER];
        if let (Some(sealed), Some(to)) = (self.seal(&[], 0, &mut out, now), self.endpoint) {
            let message = out.get(..sealed).unwrap_or_default().to_vec();
            core.transmit(self.id, to, message);
        }
    }

    /// Brings [`Core::due`] up to date with what the generations want.
    fn reschedule(&mut self, core: &mut Core) {
        let due = self
            .generations
            .iter_mut()
            .filter_map(|g| g.initiating.map(|i| i.next_at))
            .min();
        if due != self.due {
            if let Some(before) = self.due {
                core.due.remove(&(before, self.id));
            }
            if let Some(due) = due {
                core.due.insert((due, self.id));
            }
            self.due = due;
        }
    }
}

impl Generations {
    /// The `Tunn` to send on: `current` once it is live, `previous` until then.
    fn sender(&mut self, now: Duration) -> Option<&mut boringtun::noise::Tunn> {
        let current_live = self
            .current
            .as_ref()
            .is_some_and(|current| current.is_live(now));
        let slot = if current_live {
            &mut self.current
        } else {
            &mut self.previous
        };
        slot.as_mut()?.sender(now)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Generation> {
        [&mut self.current, &mut self.next, &mut self.previous]
            .into_iter()
            .flatten()
    }
}

impl Allowance {
    /// Takes one of `per_second` tokens.
    pub(crate) fn take(&mut self, per_second: u32, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= Duration::from_secs(1) {
            *self = Self {
                used: 0,
                since: now,
            };
        }
        self.used += 1;
        self.used <= per_second
    }
}

impl Core {
    /// How long to wait for an answer to the `attempt`-th initiation: doubling, with a fifth of jitter.
    fn backoff(&mut self, attempt: u32) -> Duration {
        let base = RETRY_FIRST
            .saturating_mul(1 << attempt.min(6))
            .min(RETRY_MAX);
        base.mul_f64(self.forge.rng.gen_range(0.8..1.2))
    }

    fn jitter(&mut self, spread: Duration) -> Duration {
        spread.mul_f64(self.forge.rng.r#gen::<f64>())
    }
}

/// Over how much time the handshakes of a rotation are spread.
fn spread(lead: Duration) -> Duration {
    lead.mul_f64(0.6)
}

/// The endpoint to try: the one that works or worked, and every third time another that is known.
fn target(
    endpoint: Option<SocketAddr>,
    candidates: &[SocketAddr],
    attempt: u32,
) -> Option<SocketAddr> {
    let other = candidates
        .get((attempt / 3) as usize % candidates.len().max(1))
        .copied();
    match endpoint {
        Some(endpoint) if attempt % 3 < 2 => Some(endpoint),
        _ => other.or(endpoint),
    }
}
