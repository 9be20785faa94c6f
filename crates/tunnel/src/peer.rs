//! One peer: where it is, what waits for it, and its generations.

use crate::allowed_ips::PeerId;
use crate::cookie::Cookie;
use crate::core::{Core, Event, Traffic};
use crate::drops::DropReason;
use crate::generation::{Generation, Initiating};
use crate::generations::Generations;
use crate::limits::*;
use crate::path::Path;
use crate::stamps::Stamps;
use boringtun::noise::TunnResult;
use keys::{Epoch, SharedSecret, WgPublicKey};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) key: WgPublicKey,
    pub(crate) shared: SharedSecret,
    /// Its addresses, as the newest epoch that names it says.
    pub(crate) allowed: Vec<IpAddr>,
    pub(crate) endpoint: Option<Path>,
    pub(crate) candidates: Vec<Path>,
    pub(crate) generations: Generations,
    /// Timestamps of its initiations.
    pub(crate) stamps: Stamps,
    pub(crate) stock: Allowance,
    /// Its responses that were opened without a cookie.
    pub(crate) responses: Allowance,
    /// The cookie that it gave, and until when it is good.
    cookie: Option<(Cookie, Duration)>,
    pub(crate) queue: VecDeque<Vec<u8>>,
    activated_at: Duration,
    last_data_sent: Option<Duration>,
    last_data_received: Option<Duration>,
    /// Since when data was sent and nothing was heard.
    unanswered_since: Option<Duration>,
    /// Since when data was heard and nothing was sent.
    silent_since: Option<Duration>,
    /// When this peer's next handshake message is due; mirrored in `Core::due`.
    due: Option<Duration>,
    pub(crate) traffic: Traffic,
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
    pub endpoint: Option<Path>,
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
            stamps: Stamps::default(),
            stock: Allowance::default(),
            responses: Allowance::default(),
            cookie: None,
            queue: VecDeque::new(),
            activated_at: Duration::ZERO,
            last_data_sent: None,
            last_data_received: None,
            unanswered_since: None,
            silent_since: None,
            due: None,
            traffic: Traffic::default(),
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
        self.generations.install(generation);
        if self.initiates(core) && self.is_active(now) {
            let at = now + core.forge.jitter(spread(lead));
            if let Some(next) = &mut self.generations.next {
                next.initiating = Some(Initiating::at(at));
            }
        }
        self.reschedule(core);
    }

    /// `next → current → previous`. Returns whether the peer is part of `epoch`. A handshake that is
    /// still to be made begins within `spread`; with `greet`, within that time even without traffic.
    pub(crate) fn activate(
        &mut self,
        epoch: Epoch,
        greet: Option<Duration>,
        spread: Duration,
        now: Duration,
        core: &mut Core,
    ) -> bool {
        if !self.generations.activate(epoch) {
            return false;
        }
        self.activated_at = now;
        if self.is_current_live(now) {
            // The other side must not be left unconfirmed because one keepalive was lost.
            if self.is_active(now) {
                self.send_keepalive(now, core);
            }
        } else if self.is_active(now) {
            // The news first: it has yet to reach others, and handshakes would be in its way.
            let pause = self.pause(core).max(spread / 3);
            let wait = pause + core.forge.jitter(pause.max(spread - spread / 3));
            // What was tried before the activation may have met a peer that was not there yet.
            self.restart_handshake_at(now + wait);
        } else if let Some(spread) = greet {
            self.restart_handshake_at(now + core.forge.jitter(spread));
        }
        self.flush(now, core);
        self.reschedule(core);
        true
    }

    pub(crate) fn discard_previous(&mut self, core: &mut Core) {
        self.generations.discard_previous();
        self.reschedule(core);
    }

    /// Ends what is in force; false when nothing is installed that is to come.
    pub(crate) fn close(&mut self, core: &mut Core) -> bool {
        self.generations.close();
        self.drop_queue(DropReason::NoSession, core);
        self.reschedule(core);
        self.generations.next.is_some()
    }

    /// Forgets everything that would let a packet through in either direction.
    pub(crate) fn retire(mut self, core: &mut Core) {
        self.generations = Generations::default();
        self.drop_queue(DropReason::NoSession, core);
        self.reschedule(core);
        core.carried.add(self.traffic);
        self.move_to(None, core);
        self.set_candidates(Vec::new(), core);
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
        self.silent_since = None;
        if len > 0 {
            self.last_data_sent = Some(now);
            self.unanswered_since.get_or_insert(now);
            self.traffic.tx_packets += 1;
            self.traffic.tx_bytes += len as u64;
        }
        Some(sealed)
    }

    /// Keeps a packet until there is a session, and asks for one. False when the queue is full.
    pub(crate) fn enqueue(&mut self, packet: &[u8], now: Duration, core: &mut Core) -> bool {
        // Before its first epoch, or after the last, there is nothing to wait for.
        let fits = self.generations.current.is_some() && self.queue.len() < MAX_QUEUED;
        if fits {
            self.queue.push_back(packet.to_vec());
        }
        // In a rotation the other side comes first; otherwise whoever has something to say.
        let rotating = !self.initiates(core) && !self.generations.is_first();
        let pause = if rotating {
            RESPONDER_PAUSE
        } else {
            Duration::ZERO
        };
        self.want_handshake_at(now.max(self.activated_at + pause));
        self.run_due(now, core);
        fits
    }

    /// Where packets to it go.
    pub(crate) fn target(&self) -> Option<Path> {
        self.endpoint.or(self.candidates.first().copied())
    }

    /// Whether packets can be sealed, and that is all there is to do.
    pub(crate) fn is_ready(&self, now: Duration) -> bool {
        self.generations.sending(now).is_some() && !self.must_hurry(now)
    }

    /// Whether a packet would find neither a session nor room to wait for one, and a handshake is
    /// under way.
    pub(crate) fn can_only_drop(&self, now: Duration) -> bool {
        let is_under_way = self
            .generations
            .current
            .as_ref()
            .is_none_or(|current| current.initiating.is_some_and(|i| i.next_at > now));
        is_under_way
            && self.generations.sending(now).is_none()
            && (self.queue.len() >= MAX_QUEUED || self.generations.current.is_none())
    }

    /// Whether packets are sealed on a previous generation, and no handshake of the one in force is
    /// under way.
    fn must_hurry(&self, now: Duration) -> bool {
        let idle = self
            .generations
            .current
            .as_ref()
            .is_some_and(|current| current.initiating.is_none());
        idle && self.generations.is_between(now)
    }

    /// A packet was sealed on a previous generation, which is about to end: the one in force is wanted
    /// soon.
    pub(crate) fn hurry(&mut self, now: Duration, core: &mut Core) {
        if self.must_hurry(now) {
            self.want_handshake_at(now.max(self.activated_at + self.pause(core)));
            self.run_due(now, core);
        }
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
    pub(crate) fn heard(&mut self, from: Path, data_len: usize, now: Duration, core: &Core) {
        if self.endpoint != Some(from) {
            self.move_to(Some(from), core);
            core.events.push(Event::Endpoint {
                peer: self.key,
                endpoint: from,
            });
        }
        self.unanswered_since = None;
        if data_len > 0 {
            self.last_data_received = Some(now);
            self.silent_since.get_or_insert(now);
            self.traffic.rx_packets += 1;
            self.traffic.rx_bytes += data_len as u64;
        }
    }

    /// Packets to it go to `endpoint` from here on.
    pub(crate) fn move_to(&mut self, endpoint: Option<Path>, core: &Core) {
        let before = std::mem::replace(&mut self.endpoint, endpoint);
        endpoint
            .into_iter()
            .for_each(|after| core.endpoints.add(after));
        before
            .into_iter()
            .for_each(|before| core.endpoints.remove(before));
    }

    /// Where it is said to be.
    pub(crate) fn set_candidates(&mut self, mut candidates: Vec<Path>, core: &Core) {
        candidates.truncate(MAX_ENDPOINTS);
        candidates
            .iter()
            .for_each(|after| core.endpoints.add(*after));
        let before = std::mem::replace(&mut self.candidates, candidates);
        before
            .into_iter()
            .for_each(|before| core.endpoints.remove(before));
    }

    /// The generation that owns a 24-bit index of ours.
    pub(crate) fn owner_of(&mut self, index: u32) -> Option<&mut Generation> {
        self.generations
            .iter_mut()
            .find(|generation| generation.owns(index))
    }

    /// The handshake with this 24-bit index is confirmed.
    pub(crate) fn confirm(&mut self, index: u32, initiator: bool, now: Duration, core: &mut Core) {
        let Some(generation) = self.owner_of(index) else {
            return;
        };
        generation.promote(index, now);
        let epoch = generation.epoch;
        core.handshakes += 1;
        core.events.push(Event::Handshake {
            peer: self.key,
            epoch,
            initiator,
        });
        self.flush(now, core);
        self.reschedule(core);
    }

    // ---- under load -------------------------------------------------------------------------

    /// It gave a cookie, for the handshake with this 24-bit index: the message that it refused is sent
    /// again, and all that follow have the cookie. The first initiation is made anew instead: somebody who
    /// read the refused one may have sent a copy of it meanwhile, and one timestamp is heard once. The
    /// first alone, or whoever can forge replies could ask for one after the other.
    pub(crate) fn take_cookie(
        &mut self,
        index: u32,
        reply: &[u8],
        now: Duration,
        core: &mut Core,
    ) -> Result<(), DropReason> {
        let (key, is_first) = (self.key, self.cookie(now).is_none());
        let generation = self.owner_of(index).ok_or(DropReason::UnknownIndex)?;
        let is_anew = is_first && generation.initiator_at(index).is_some();
        let link = generation
            .shaking_at(index)
            .ok_or(DropReason::UnknownIndex)?;
        let cookie = link
            .open_cookie(&key, reply)
            .ok_or(DropReason::BadHandshake)?;
        // A reply that comes a second time must not make an old cookie young again.
        let (to, message) = link.send_again(&cookie).ok_or(DropReason::Replayed)?;
        if is_anew {
            generation.initiate_again(now);
        }
        self.cookie = Some((cookie, now + COOKIE_FOR));
        if is_anew {
            self.run_due(now, core);
        } else {
            core.transmit(self.id, to, message);
        }
        Ok(())
    }

    /// The cookie that proves this side's address to it.
    pub(crate) fn cookie(&self, now: Duration) -> Option<Cookie> {
        let (cookie, until) = self.cookie?;
        (now < until).then_some(cookie)
    }

    // ---- time -------------------------------------------------------------------------------

    /// Sends the handshake initiations that are due.
    pub(crate) fn run_due(&mut self, now: Duration, core: &mut Core) {
        let between = self.generations.is_between(now);
        let cookie = self.cookie(now);
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
                generation.give_up();
                queue
                    .drain(..)
                    .for_each(|_| core.drops.add(DropReason::NoSession, 1));
                continue;
            }
            attempt.next_at = now + core.forge.backoff(attempt.attempts, between);
            if let Some(to) = target(*endpoint, candidates, attempt.attempts) {
                let link = generation.initiator((*id, *key), now, &mut core.forge);
                let mut buffer = [0; MIN_BUFFER];
                if let TunnResult::WriteToNetwork(message) =
                    link.tunn.format_handshake_initiation(&mut buffer, true)
                {
                    let message = link.send(to, message, cookie.as_ref());
                    core.transmit(*id, to, message);
                    self.silent_since = None;
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
            generation.expire(now);
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
        let owes_keepalive = self
            .silent_since
            .is_some_and(|since| now.saturating_sub(since) >= KEEPALIVE_TIMEOUT);
        if owes_keepalive {
            self.send_keepalive(now, core);
        }
        self.reschedule(core);
    }

    pub(crate) fn snapshot(&self, now: Duration) -> PeerSnapshot {
        let sending = self.generations.sending(now);
        let next = self.generations.next.as_ref();
        PeerSnapshot {
            key: self.key,
            endpoint: self.endpoint,
            session_epoch: sending.map(|generation| generation.epoch),
            session_age: sending
                .and_then(|generation| generation.live_age(now))
                .map(|(age, _)| age),
            next_ready: next.is_some_and(|next| next.is_live(now)),
            tx_bytes: self.traffic.tx_bytes,
            rx_bytes: self.traffic.rx_bytes,
        }
    }

    // ---- details ----------------------------------------------------------------------------

    /// One side of a pair, the one with the lower key, initiates for a new epoch.
    fn initiates(&self, core: &Core) -> bool {
        core.forge.public() < self.key
    }

    /// Of two initiations that cross, the higher key's waits.
    pub(crate) fn steps_back(&self, core: &Core) -> bool {
        !self.initiates(core)
    }

    fn is_active(&self, now: Duration) -> bool {
        let recent =
            |at: Option<Duration>| at.is_some_and(|at| now.saturating_sub(at) < ACTIVE_FOR);
        recent(self.last_data_sent) || recent(self.last_data_received) || !self.queue.is_empty()
    }

    fn is_current_live(&self, now: Duration) -> bool {
        self.generations
            .current
            .as_ref()
            .is_some_and(|current| current.is_live(now))
    }

    /// How long this side waits for the other to initiate after an activation.
    fn pause(&self, core: &Core) -> Duration {
        if self.initiates(core) {
            Duration::ZERO
        } else {
            RESPONDER_PAUSE
        }
    }

    /// Wants a handshake of `current` at `at`, unless one is under way; one that is planned for later
    /// comes forward.
    fn want_handshake_at(&mut self, at: Duration) {
        if let Some(current) = &mut self.generations.current {
            let under_way = current.initiating.get_or_insert(Initiating::at(at));
            if under_way.attempts == 0 {
                under_way.next_at = under_way.next_at.min(at);
            }
        }
    }

    /// Wants a handshake of `current`, with the patience of a new one.
    fn restart_handshake_at(&mut self, at: Duration) {
        if let Some(current) = &mut self.generations.current {
            current.initiating = Some(Initiating::at(at));
        }
    }

    pub(crate) fn drop_queue(&mut self, reason: DropReason, core: &mut Core) {
        self.queue.drain(..).for_each(|_| core.drops.add(reason, 1));
    }

    fn send_keepalive(&mut self, now: Duration, core: &mut Core) {
        let mut out = [0; MIN_BUFFER];
        if let (Some(sealed), Some(to)) = (self.seal(&[], 0, &mut out, now), self.endpoint) {
            let message = out.get(..sealed).unwrap_or_default().to_vec();
            core.transmit(self.id, to, message);
        }
    }

    /// Brings `Core::due` up to date with what the generations want.
    pub(crate) fn reschedule(&mut self, core: &mut Core) {
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

/// Over how much time the handshakes of a rotation are spread.
fn spread(lead: Duration) -> Duration {
    lead.mul_f64(0.6)
}

/// The endpoint to try: the one that works or worked, and every third time another that is known.
fn target(endpoint: Option<Path>, candidates: &[Path], attempt: u32) -> Option<Path> {
    let other = candidates
        .get((attempt / 3) as usize % candidates.len().max(1))
        .copied();
    match endpoint {
        Some(endpoint) if attempt % 3 < 2 => Some(endpoint),
        _ => other.or(endpoint),
    }
}
