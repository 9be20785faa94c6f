//! One peer: where it is, which packets wait for it, and its generations. Knows no other peer, and seals
//! nothing but for its own. The file is long because queue, sessions and timers act on each other in
//! almost every call: apart, each would have to be lent the others.

use crate::activity::Activity;
use crate::allowed_ips::PeerId;
use crate::cookie::Cookie;
use crate::drops::DropReason;
use crate::events::Event;
use crate::generation::{Generation, Initiating};
use crate::generations::{Generations, Slot};
use crate::initiation::Timestamp;
use crate::limits::*;
use crate::local::Local;
use crate::outbox::Transmit;
use crate::outer::{Outer, Route, TrafficClass};
use crate::role::Role;
use crate::stamps::Stamps;
use crate::traffic::Traffic;
use crate::whereabouts::Whereabouts;
use allowance::Bucket;
use boringtun::noise::TunnResult;
use filter::{Access, Gate};
use keys::{Epoch, SharedSecret, WgPublicKey};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) key: WgPublicKey,
    /// Which side of the pair begins a rotation.
    pub(crate) role: Role,
    pub(crate) shared: Arc<SharedSecret>,
    /// Its addresses, as the newest epoch that names it says.
    pub(crate) allowed: Vec<IpAddr>,
    /// Packets that the rules in force let in.
    pub(crate) gate: Gate,
    /// The same, of the epoch that is installed.
    pub(crate) next_access: Access,
    pub(crate) whereabouts: Whereabouts,
    pub(crate) generations: Generations,
    /// Timestamps of its initiations.
    pub(crate) stamps: Stamps,
    pub(crate) stock: Bucket,
    /// Its responses that were opened without a cookie.
    pub(crate) responses: Bucket,
    /// The cookie that it gave, and until when it is good.
    cookie: Option<(Cookie, Duration)>,
    pub(crate) queue: VecDeque<Vec<u8>>,
    activated_at: Duration,
    activity: Activity,
    /// When an initiation of its was answered last, or this side initiated because one was too old.
    news_at: Option<Duration>,
    /// When this peer's next handshake message is due; mirrored in the agenda.
    due: Option<Duration>,
    pub(crate) traffic: Traffic,
}

/// Whether packets to a peer can be sealed. It is decided once for a batch: as long as the peer is held
/// and the time is the same, nothing can change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// They can, on the generation in this slot, and that is all there is to do.
    Ready(Slot),
    /// They can, but on a previous generation that is about to end, while no handshake of the one in
    /// force is under way: one is to be begun.
    Hurry(Slot),
    /// There is no live session: they wait, and a handshake is asked for.
    Wait,
    /// There is no live session, nor anything to wait for, or no room.
    Drop(DropReason),
}

impl Peer {
    pub(crate) fn new(
        id: PeerId,
        key: WgPublicKey,
        shared: Arc<SharedSecret>,
        own: &WgPublicKey,
    ) -> Self {
        Self {
            id,
            key,
            role: Role::of(own, &key),
            shared,
            allowed: Vec::new(),
            gate: Gate::default(),
            next_access: Access::All,
            whereabouts: Whereabouts::default(),
            generations: Generations::default(),
            stamps: Stamps::default(),
            stock: Bucket::new(STOCK_INITIATIONS_PER_SECOND, STOCK_INITIATIONS_PER_SECOND),
            responses: Bucket::new(RESPONSES_PER_PEER, RESPONSES_PER_PEER),
            cookie: None,
            queue: VecDeque::new(),
            activated_at: Duration::ZERO,
            activity: Activity::default(),
            news_at: None,
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
        local: &mut Local,
    ) {
        self.generations.install(generation);
        // Until somebody says what the rules of this epoch are, it has none.
        self.next_access = Access::All;
        if self.role.leads() && self.is_active(now) {
            let at = now + local.forge.jitter(spread(lead));
            if let Some(next) = &mut self.generations.next {
                next.initiating = Some(Initiating::at(at));
            }
        }
        self.reschedule(local);
    }

    /// The access that it has from its next epoch on. A peer that has no epoch in force has it at once, because it may
    /// be heard a moment before.
    pub(crate) fn expect_access(&mut self, access: Access) {
        if self.generations.current.is_none() {
            self.gate.set(access.clone());
        }
        self.next_access = access;
    }

    /// `next → current → previous`. Returns whether the peer is part of `epoch`. A handshake that is
    /// still to be made begins within `spread`; with `greet`, within that time even without traffic.
    pub(crate) fn activate(
        &mut self,
        epoch: Epoch,
        greet: Option<Duration>,
        spread: Duration,
        now: Duration,
        local: &mut Local,
    ) -> bool {
        // A peer without a generation of this epoch is no member of it. The caller must drop it as a
        // whole: left as it is, its sessions of before would go on carrying packets both ways.
        if !self.generations.activate(epoch) {
            return false;
        }
        // Before any packet of the new epoch is carried, and for those of previous generations as well.
        self.gate.set(std::mem::take(&mut self.next_access));
        self.activated_at = now;
        if self.is_current_live(now) {
            // The other side must not be left unconfirmed because one keepalive was lost.
            if self.is_active(now) {
                self.send_keepalive(now, local);
            }
        } else if self.is_active(now) {
            // The news first: it has yet to reach others, and handshakes would be in its way.
            let pause = self.role.pause().max(spread / 3);
            let wait = pause + local.forge.jitter(pause.max(spread - spread / 3));
            // An initiation from before the activation may have met a peer that was not there yet.
            self.restart_handshake_at(now + wait);
        } else if let Some(spread) = greet {
            self.restart_handshake_at(now + local.forge.jitter(spread));
        }
        self.flush(now, local);
        self.reschedule(local);
        true
    }

    pub(crate) fn discard_previous(&mut self, local: &mut Local) {
        if self.generations.discard_previous() {
            self.reschedule(local);
        }
    }

    /// Ends the epoch in force; false when none is installed that is to come.
    pub(crate) fn close(&mut self, local: &mut Local) -> bool {
        self.generations.close();
        self.drop_queue(DropReason::NoSession, local);
        self.reschedule(local);
        self.generations.next.is_some()
    }

    /// Takes away what is installed for an epoch to come.
    pub(crate) fn withdraw(&mut self, local: &mut Local) {
        if self.generations.next.take().is_some() {
            self.reschedule(local);
        }
    }

    /// Forgets everything that would let a packet through in either direction. Sessions and indices go
    /// with `self`. The caller takes back the datagrams that were sealed for it and are not sent yet,
    /// because they would reach a node that is no peer any more.
    pub(crate) fn retire(mut self, local: &mut Local) {
        self.generations = Generations::default();
        self.drop_queue(DropReason::NoSession, local);
        self.reschedule(local);
        local.carried.add(self.traffic);
        self.whereabouts.leave(&local.endpoints);
        local.awake.remove(&self.id);
    }

    // ---- sending ----------------------------------------------------------------------------

    /// Whether packets can be sealed. One look at the generations for a whole batch.
    pub(crate) fn readiness(&self, now: Duration) -> Readiness {
        // Before the first epoch, and after the last, no session is to come.
        let Some(current) = &self.generations.current else {
            return Readiness::Drop(DropReason::NoSession);
        };
        let is_idle = current.initiating.is_none();
        match self.generations.sending(now) {
            Some(slot) if is_idle && self.generations.is_older(slot) => Readiness::Hurry(slot),
            Some(slot) => Readiness::Ready(slot),
            None if self.queue.len() >= MAX_QUEUED && current.is_waiting(now) => {
                Readiness::Drop(DropReason::NoSession)
            }
            None => Readiness::Wait,
        }
    }

    /// Seals `packet` for the wire on the generation in `slot`; `None` without a live session there.
    /// `len` is its unpadded length, 0 of a keepalive.
    #[inline]
    pub(crate) fn seal(
        &mut self,
        slot: Slot,
        packet: &[u8],
        len: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Option<usize> {
        // The slot was live when the batch began. It is asked again, because a packet that is sealed on a
        // session past its time is neither opened there nor counted here.
        let tunn = self.generations.sender(slot, now)?;
        let TunnResult::WriteToNetwork(sealed) = tunn.encapsulate(packet, out) else {
            return None;
        };
        if len > 0 {
            self.gate.sent(packet.get(..len).unwrap_or_default(), now);
            self.activity.sent_data(now);
            self.traffic.sealed(len);
        } else {
            self.activity.sent_message(now);
        }
        Some(sealed.len())
    }

    /// Keeps a packet until there is a session, and asks for one. False when the queue is full.
    pub(crate) fn enqueue(&mut self, packet: &[u8], now: Duration, local: &mut Local) -> bool {
        let fits = self.queue.len() < MAX_QUEUED;
        if fits {
            self.queue.push_back(packet.to_vec());
        }
        // In a rotation the side that leads comes first; in a first epoch, the one that has packets.
        let pause = if self.generations.is_first() {
            Duration::ZERO
        } else {
            self.role.pause()
        };
        self.want_handshake_at(now.max(self.activated_at + pause));
        self.run_due(now, local);
        fits
    }

    /// A packet was sealed on a previous generation, which is about to end: the one in force is wanted
    /// soon. To be called where [`Self::readiness`] says so.
    pub(crate) fn hurry(&mut self, now: Duration, local: &mut Local) {
        self.want_handshake_at(now.max(self.activated_at + self.role.pause()));
        self.run_due(now, local);
    }

    /// Sends the packets that waited, once there is a session.
    fn flush(&mut self, now: Duration, local: &mut Local) {
        let slot = self.generations.sending(now);
        let (Some(slot), Some(route)) = (slot, self.whereabouts.route()) else {
            return;
        };
        while let Some(mut packet) = self.queue.pop_front() {
            let (len, padded) = (packet.len(), crate::packet::padded(packet.len(), local.mtu));
            let class = TrafficClass::around(&packet);
            packet.resize(padded, 0);
            let mut out = vec![0; (padded + DATA_OVERHEAD).max(MIN_BUFFER)];
            let Some(sealed) = self.seal(slot, &packet, len, &mut out, now) else {
                packet.truncate(len);
                self.queue.push_front(packet);
                return;
            };
            out.truncate(sealed);
            let to = Outer { route, class };
            local.outbox.put(Transmit::to_peer(self.id, to, out));
        }
    }

    // ---- receiving --------------------------------------------------------------------------

    /// A message of this peer was authenticated; `data_len`: bytes of the packet in it, 0 of none.
    pub(crate) fn heard(&mut self, from: Route, data_len: usize, now: Duration, local: &Local) {
        // The caller has opened the message with this peer's keys. Moved by anything less, a header say,
        // the peer's packets would go to whoever can write a source address.
        if self.whereabouts.route() != Some(from) && self.whereabouts.hear(from, &local.endpoints) {
            local.events.push(Event::Endpoint {
                peer: self.key,
                endpoint: from.path,
            });
        }
        if data_len > 0 {
            self.activity.heard_data(now);
            self.traffic.opened(data_len);
        } else {
            self.activity.heard_message();
        }
    }

    /// An initiation of this peer was answered.
    pub(crate) fn heard_news(&mut self, now: Duration) {
        self.news_at = Some(now);
    }

    /// It made an initiation that names `epoch` and is older than another: its clock was set back, the
    /// initiation was held back on its way, or it is a recording that never came here. This side initiates,
    /// to where the peer is known to be.
    pub(crate) fn initiate_back(&mut self, epoch: Epoch, now: Duration, local: &mut Local) {
        let is_in_force = self
            .generations
            .current
            .as_ref()
            .is_some_and(|current| current.epoch == epoch);
        // Seldom, and not where a newer one was answered a moment ago: recordings must not make this side
        // send as often as somebody likes.
        let is_soon = self
            .news_at
            .is_some_and(|at| now.saturating_sub(at) < INITIATE_BACK_AFTER);
        if is_in_force && !is_soon {
            self.news_at = Some(now);
            self.want_handshake_at(now);
            self.run_due(now, local);
        }
    }

    /// This machine's wall clock was set back: no timestamp beyond `limit` has to be newer than one from
    /// before, nor is one before `floor` news.
    pub(crate) fn clock_set_back(&mut self, floor: Timestamp, limit: Timestamp) {
        // The peer's clock was wrong together with this one, or is now right and this one wrong: either way
        // neither side could shake hands before the future has come, or the epoch has ended.
        let kept = self.stamps.set_back(floor, limit);
        for generation in self.generations.iter_mut() {
            if generation.newest > limit {
                generation.newest = kept;
            }
        }
    }

    /// The generation that owns a 24-bit index of ours.
    pub(crate) fn owner_of(&mut self, index: u32) -> Option<&mut Generation> {
        self.generations
            .iter_mut()
            .find(|generation| generation.owns(index))
    }

    /// The handshake with this 24-bit index is confirmed.
    pub(crate) fn confirm(
        &mut self,
        index: u32,
        initiator: bool,
        now: Duration,
        local: &mut Local,
    ) {
        let Some(generation) = self.owner_of(index) else {
            return;
        };
        // Only now, when bytes have opened that a session key sealed: confirmed by an index alone, which
        // everybody on the way reads, a handshake that the other side has dropped would be sent on.
        generation.promote(index, now);
        let epoch = generation.epoch;
        local.handshakes += 1;
        local.events.push(Event::Handshake {
            peer: self.key,
            epoch,
            initiator,
        });
        self.flush(now, local);
        self.reschedule(local);
    }

    // ---- under load -------------------------------------------------------------------------

    /// It gave a cookie, for the handshake with this 24-bit index: the message that it refused is sent
    /// again, and all that follow have the cookie. The first initiation is made anew instead: somebody
    /// who read the refused one may have sent a copy of it meanwhile, and one timestamp is heard once.
    /// The first alone, because a forger of replies could else ask for one after the other.
    pub(crate) fn take_cookie(
        &mut self,
        index: u32,
        reply: &[u8],
        now: Duration,
        local: &mut Local,
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
            self.run_due(now, local);
        } else {
            local.outbox.put(Transmit::handshake(self.id, to, message));
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
    pub(crate) fn run_due(&mut self, now: Duration, local: &mut Local) {
        let between = self.generations.is_between(now);
        let (peer, cookie) = ((self.id, self.key), self.cookie(now));
        for generation in self.generations.iter_mut() {
            let Some(mut attempt) = generation.initiating.filter(|i| i.next_at <= now) else {
                continue;
            };
            // Nobody answers. The packets go with the attempt: sent minutes later, on a session that
            // comes by chance, they would surprise whoever has long given them up.
            if now.saturating_sub(attempt.since) > REKEY_ATTEMPT_TIME {
                generation.give_up();
                drop_all(&mut self.queue, DropReason::NoSession, local);
                continue;
            }
            attempt.next_at = now + local.forge.backoff(attempt.attempts, between);
            if let Some(to) = self.whereabouts.target_of(attempt.attempts) {
                let link = generation.initiator(peer, now, &mut local.forge);
                let mut buffer = [0; MIN_BUFFER];
                if let TunnResult::WriteToNetwork(message) =
                    link.tunn.format_handshake_initiation(&mut buffer, true)
                {
                    let message = link.send(to, message, cookie.as_ref());
                    local.outbox.put(Transmit::handshake(peer.0, to, message));
                    self.activity.sent_message(now);
                }
            }
            attempt.attempts = attempt.attempts.saturating_add(1);
            generation.initiating = Some(attempt);
        }
        self.reschedule(local);
    }

    /// Does what is due by the second: expiry, renewal, keepalive, a session that went dead.
    pub(crate) fn tick(&mut self, now: Duration, local: &mut Local) {
        // First, so that nothing below takes a session for live that has just ended.
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
            let is_lost = self.whereabouts.has_others() && self.activity.take_lost(now);
            if is_lost || self.activity.take_dead(now) || (age >= limit && self.is_active(now)) {
                self.want_handshake_at(now);
            }
        }
        if self.activity.owes_keepalive(now) {
            self.send_keepalive(now, local);
        }
        self.keep_alive(now, local);
        self.reschedule(local);
    }

    /// Sends something where nothing was sent for too long, as one behind an address translator must. An
    /// idle pair has no session after a while; then a handshake is sent instead, which also tells the
    /// other side where this one is to be found by now. A live session is renewed no earlier for this.
    fn keep_alive(&mut self, now: Duration, local: &mut Local) {
        let Some(every) = local.keepalive else { return };
        // To members alone: without an epoch in force nobody is one, and what is sent for an epoch to come
        // would reach a node that has yet to become one.
        let is_member = self.generations.current.is_some();
        let is_due = self.activity.is_unsent_for(every, self.activated_at, now);
        if !is_member || !is_due || self.whereabouts.target().is_none() {
            return;
        }
        match self.generations.sending(now) {
            Some(_) => self.send_keepalive(now, local),
            None => self.want_handshake_at(now),
        }
    }

    // ---- details ----------------------------------------------------------------------------

    fn is_active(&self, now: Duration) -> bool {
        self.activity.is_recent(now) || !self.queue.is_empty()
    }

    fn is_current_live(&self, now: Duration) -> bool {
        self.generations
            .current
            .as_ref()
            .is_some_and(|current| current.is_live(now))
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

    pub(crate) fn drop_queue(&mut self, reason: DropReason, local: &Local) {
        drop_all(&mut self.queue, reason, local);
    }

    fn send_keepalive(&mut self, now: Duration, local: &mut Local) {
        let slot = self.generations.sending(now);
        let mut out = [0; MIN_BUFFER];
        if let (Some(slot), Some(to)) = (slot, self.whereabouts.route())
            && let Some(sealed) = self.seal(slot, &[], 0, &mut out, now)
        {
            let message = out.get(..sealed).unwrap_or_default().to_vec();
            local.outbox.put(Transmit::to_peer(self.id, to, message));
        }
    }

    /// Brings the agenda up to date with what the generations want.
    pub(crate) fn reschedule(&mut self, local: &mut Local) {
        // Left as it was, an entry of a generation that is gone would wake the tunnel for nothing, and a
        // missing one would leave a handshake waiting for traffic to remind of it.
        let due = self
            .generations
            .iter_mut()
            .filter_map(|g| g.initiating.map(|i| i.next_at))
            .min();
        // A handshake or a session ends by the second.
        if !self.generations.are_blank() {
            local.awake.insert(self.id);
        }
        if due != self.due {
            local.agenda.change(self.id, self.due, due);
            self.due = due;
        }
    }
}

/// Over how much time the handshakes of a rotation are spread.
fn spread(lead: Duration) -> Duration {
    lead.mul_f64(0.6)
}

fn drop_all(queue: &mut VecDeque<Vec<u8>>, reason: DropReason, local: &Local) {
    local.drops.add(reason, queue.len() as u64);
    queue.clear();
}
