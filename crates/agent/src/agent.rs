//! The agent: its inputs, its effects, and how its parts play together. Each part's knowledge is in a file
//! of its own.
//!
//! The file is long because every input and every view of the machine has its door here.

use crate::asks::Asks;
use crate::control::{Control, SessionEvent};
use crate::data::DataChange;
use crate::effect::{Config, Counts, Effect, Now, SegmentConfig};
use crate::evidence::{Emission, Evidence, Signer, Submissions};
use crate::held::Held;
use crate::lost_time::{Clocks, Step};
use crate::pings::{Round, Target};
use crate::places::{self, Whereabouts, inside_all};
use crate::report;
use crate::segment::{InSegment, Segment};
use crate::ways::PeerWays;
use crate::witness::{Cosigned, Unbelievable, Witness};
use epoch::{Command, Derived, Notice, UpdateError};
use keys::{AuthorityId, Epoch, LogId, MeshId, NodeId, NodeSecret, SegmentId};
use ledger::{cosignature, note};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tunnel::{Inside, PeerSnapshot};
use wire::endpoints::PlacesMark;
use wire::log::{LogEnd, LogNews};
use wire::message::{ChangedUpdate, InterfaceReport, Phase, Update};
use wire::{
    Ask, Digest, Duplicate, EpochUpdate, Mark, NodeName, Place, SegmentName, Signed, Succession,
    ToController, ToNode, Verified, succession,
};

/// The machine.
///
/// Call contract: before anything else on every turn, [`Self::handle_clocks`] with a reading of both clocks,
/// so that neither a timer nor a message is believed that time has overtaken. Then one `handle_*`. Then
/// poll [`Self::poll_effect`] until it is empty and carry out each effect before the next; an
/// [`Effect::Data`] must not be split, delayed behind a later one, or left out. Then wait until
/// [`Self::poll_timeout`], and not for long where the clock of the waiting stands still while the machine
/// sleeps.
pub struct Agent {
    identity: NodeSecret,
    name: NodeName,
    mesh: MeshId,
    /// The addresses of all segments.
    inside: Inside,
    authorities: Vec<AuthorityId>,
    segments: BTreeMap<SegmentId, Segment>,
    /// The segments that the daemon was told to open, and has not opened yet, with the updates that have come
    /// meanwhile, and when.
    opening: BTreeMap<SegmentId, Vec<(Update, Duration)>>,
    /// Those that it could not open, with the reason, and when that is tried again.
    unopened: BTreeMap<SegmentId, (Place, String, Duration)>,
    asks: Asks,
    derive_at_once: usize,
    held: Held,
    control: Control,
    submissions: Submissions,
    witness: Witness,
    places: Whereabouts,
    clocks: Clocks,
    /// When time was found to be lost, on the boot-time clock.
    lost_at: Option<Duration>,
    /// The other process that runs with this node's keys, as the controller said last, and when.
    duplicate: Option<(Duplicate, Now)>,
    counts: Counts,
    effects: VecDeque<Effect>,
}

impl Agent {
    /// An agent that knows nothing but what its disk holds.
    pub fn new(config: Config) -> Self {
        let Config {
            identity,
            name,
            mesh,
            authorities,
            segments,
            asks,
            log,
            seen,
            derive_at_once,
        } = config;
        let mut agent = Self {
            identity,
            name,
            mesh,
            inside: Inside::default(),
            authorities,
            segments: BTreeMap::new(),
            opening: BTreeMap::new(),
            unopened: BTreeMap::new(),
            asks: Asks::default(),
            derive_at_once,
            held: Held::default(),
            control: Control::default(),
            submissions: Submissions::new(seen),
            witness: Witness::new(log),
            places: Whereabouts::default(),
            clocks: Clocks::default(),
            lost_at: None,
            duplicate: None,
            counts: Counts::default(),
            effects: VecDeque::new(),
        };
        segments.into_iter().for_each(|it| agent.take(it));
        for Ask { name, wg } in asks {
            if let Some(name) = name {
                agent.asks.handle_ask(name, wg);
            }
        }
        agent
    }

    // ---- inputs -----------------------------------------------------------------------------

    /// Takes a reading of both clocks: a machine that stood still is held to the time that has passed for
    /// the others.
    pub fn handle_clocks(&mut self, now: Now) {
        let step = self
            .clocks
            .handle_reading(now.boot, now.wall.as_nanosecond());
        let lost = match step {
            None => return,
            Some(Step::SetBack(by)) => return self.set_back(by, now),
            Some(Step::Lost(by)) => by,
        };
        let mut closed = false;
        for segment in self.segments.values_mut() {
            closed |= segment.member.handle_lost_time(lost, now.boot);
        }
        let seconds = lost.as_secs();
        tracing::warn!(
            seconds,
            closed,
            "the wall clock is ahead of the time that this machine has counted: it was paused, or the clock was set"
        );
        // An update that was on its way as time stood still is older than it says. Only a connection that
        // begins now brings updates whose age counts; until then none is taken.
        self.lost_at = Some(now.boot);
        self.opening.values_mut().for_each(Vec::clear);
        if self.control.give_up(TIME_LOST) {
            self.effects.push_back(Effect::HangUp);
            self.submissions.handle_lost();
        }
        self.follow_members();
    }

    /// Takes what happens on the control channel.
    pub fn handle_session(&mut self, event: SessionEvent, now: Now) {
        match event {
            SessionEvent::Up {
                address,
                remote,
                dialled,
                places,
                skew_ms,
            } => {
                if self.lost_at.is_some_and(|lost_at| dialled <= lost_at) {
                    // Its updates may have waited in the machine's buffers for as long as it stood still, and
                    // would be given a whole new lease.
                    self.control.down(address, TIME_LOST.to_owned());
                    self.effects.push_back(Effect::HangUp);
                } else {
                    self.up(address, remote, places, skew_ms, now);
                }
            }
            SessionEvent::Message(message) => {
                // A message of a connection that this node has given up may be older than it says.
                if self.control.is_up() {
                    self.message(*message, now);
                }
            }
            SessionEvent::Down { address, error } => {
                self.control.down(address, error);
                self.submissions.handle_lost();
            }
            SessionEvent::Duplicate { address, duplicate } => {
                self.tell_duplicate(duplicate, now);
                self.control.refused(address, duplicate.to_string());
                self.submissions.handle_lost();
                // It may have been served before, and still hold an epoch: the other one's peers would follow
                // the packets of both.
                for segment in self.segments.values_mut() {
                    segment.member.handle_duplicate(now.boot);
                }
            }
        }
        self.follow_members();
    }

    /// An [`Effect::Send`] could not be carried out: the connection is about to be lost.
    pub fn handle_unsent(&mut self, message: &ToController) {
        // Acknowledgements are said again with the next connection, and reports are out of date by then.
        if matches!(message, ToController::Evidence { .. }) {
            self.submissions.handle_lost();
        }
    }

    /// Takes a finished run.
    pub fn handle_evidence(&mut self, emission: Emission, now: Now) {
        let signer = signer(&self.name, self.mesh, &self.identity);
        if self
            .submissions
            .handle_emission(emission, &signer, now.wall)
        {
            self.send_evidence(now);
        }
        if let Some(seen) = self.submissions.poll_seen() {
            self.effects.push_back(Effect::RememberRuns(seen));
        }
    }

    /// The daemon has opened a segment that the node has got a place in; whether it is still wanted.
    pub fn handle_segment(&mut self, config: SegmentConfig, now: Now) -> bool {
        let place = &config.place;
        let Some(waiting) = self.opening.remove(&place.segment) else {
            return false;
        };
        tracing::info!(segment = %place.segment_name, v4 = %place.v4.0, v6 = %place.v6.0, "in one more segment");
        self.take(config);
        // Those that came while it could not be opened were of no use, and the next one may be long in coming.
        if waiting.is_empty() {
            self.ask_for_updates();
        }
        for (update, came) in waiting {
            let waited = now.boot.saturating_sub(came).as_millis();
            let waited = u64::try_from(waited).unwrap_or(u64::MAX);
            let age_ms = update.age_ms.saturating_add(waited);
            self.waited(Update { age_ms, ..update }, now);
        }
        self.follow_members();
        true
    }

    /// The daemon could not open a segment, for this reason; that is tried again later.
    pub fn handle_no_segment(&mut self, place: Place, why: String, now: Now) {
        if self.opening.remove(&place.segment).is_some() {
            let again = now.boot + OPEN_AGAIN;
            self.unopened.insert(place.segment, (place, why, again));
        }
    }

    /// The daemon has a key for a segment that an operator lets the node into.
    pub fn handle_ask(&mut self, name: SegmentName, wg: keys::WgPublicKey) {
        self.asks.handle_ask(name.clone(), wg);
        self.ask(&name);
    }

    /// Takes a round of probes in a segment; `peers` is what its tunnel shows of them, and `full` the size of a full
    /// packet.
    pub fn handle_round(
        &mut self,
        segment: SegmentId,
        round: Round,
        peers: &[PeerSnapshot],
        full: u32,
        now: Now,
    ) {
        let Some(segment) = self.segments.get_mut(&segment) else {
            return;
        };
        if segment.handle_sizes(&round, full, now) {
            self.effects.push_back(Effect::LookAtUnderlay);
        }
        if !round.is_search {
            for message in segment.handle_round(round, peers, &self.places, now) {
                self.say(message);
            }
        }
    }

    /// Takes where the kernel sends what is meant for the peers in a segment, between two rounds.
    pub fn handle_ways(&mut self, segment: SegmentId, ways: Vec<PeerWays>) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.handle_ways(ways);
        }
    }

    /// Takes the addresses of this machine that peers can reach it at.
    pub fn handle_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.places.handle_own(addresses);
    }

    /// Takes how the interface of a segment stands; the next report says so.
    pub fn handle_interface(&mut self, segment: SegmentId, interface: InterfaceReport) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.interface = interface.bounded();
        }
    }

    /// Takes what came of an [`Effect::Derive`].
    pub fn handle_derived(&mut self, segment: SegmentId, derived: Derived, now: Now) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.member.handle_derived(derived, now.boot);
        }
        self.follow_members();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        for segment in self.segments.values_mut() {
            segment.member.handle_timeout(now.boot);
        }
        self.follow_members();
        let is_due = |_: &SegmentId, it: &mut (Place, String, Duration)| it.2 <= now.boot;
        let due: Vec<_> = self.unopened.extract_if(.., is_due).collect();
        for (_, (place, ..)) in due {
            self.placed(place);
        }
        if self.control.is_up() {
            if self.witness.handle_timeout(now.boot) {
                self.ask_for_updates();
            }
            for ask in self.asks.due(now.boot) {
                self.say(ToController::Join { ask });
            }
        }
        // Evidence that found the way full waits for no other occasion.
        self.send_evidence(now);
    }

    // ---- outputs ----------------------------------------------------------------------------

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Self::handle_timeout`] is due, on the boot-time clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let of_evidence = self.submissions.poll_timeout();
        let again = of_evidence.into_iter().chain(self.asks.poll_timeout());
        let again = again.chain(self.witness.poll_timeout());
        let again = again.filter(|_| self.control.is_up());
        let segments = self.segments.values();
        let epochs = segments.filter_map(|segment| segment.member.poll_timeout());
        let unopened = self.unopened.values().map(|(.., again)| *again);
        epochs.chain(again).chain(unopened).min()
    }

    // ---- views ------------------------------------------------------------------------------

    /// One of the segments that the node is in.
    pub fn segment(&self, segment: SegmentId) -> Option<InSegment<'_>> {
        self.segments.get(&segment).map(|it| self.in_segment(it))
    }

    /// All segments that the node is in, by number.
    pub fn segments(&self) -> impl Iterator<Item = InSegment<'_>> {
        self.segments.values().map(|it| self.in_segment(it))
    }

    /// The segments that the node would be in, and is not: the controller gives no place there, or the daemon could
    /// not open it.
    pub fn not_placed(&self) -> impl Iterator<Item = (&SegmentName, String)> {
        let refused = self.asks.refused();
        let refused = refused.map(|(name, why)| (name, why.to_string()));
        let unopened = self.unopened.values();
        refused.chain(unopened.map(|(place, why, _)| (&place.segment_name, why.clone())))
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.identity.public()
    }

    /// Its name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The addresses of all segments that the node is in.
    pub fn inside(&self) -> &Inside {
        &self.inside
    }

    /// The control channel.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The newest evidence.
    pub fn evidence(&self) -> Option<&Evidence> {
        self.submissions.newest()
    }

    /// Why the controller's log is refused; `None`: it is not.
    pub fn log_fault(&self) -> Option<&str> {
        self.witness.fault()
    }

    /// The newest checkpoint of the controller's log that this node has kept, with its own cosignature of now:
    /// its word that it has seen no other log. `None` before the first update of this run.
    pub fn cosigned(&self, now: Now) -> Option<Cosigned> {
        let (note, log) = self.witness.checkpoint()?;
        let name = self.name.as_str();
        let seconds = u64::try_from(now.wall.as_second()).ok()?;
        let line = cosignature::cosign(note, name, seconds, &self.identity).ok()?;
        let key = LogId(self.identity.public().0);
        let witness = note::Verifier::new(name, key).ok()?;
        let mut note = note.clone();
        note.push(line);
        Some(Cosigned {
            note: note.to_string(),
            log: log.to_string(),
            witness: cosignature::printed(&witness),
        })
    }

    /// Up to where it was told of the endpoints of others: for its next Hello.
    pub fn told(&self) -> Vec<PlacesMark> {
        self.places.told().to_vec()
    }

    /// Digests of the updates that it holds to build others on: for its next Hello.
    pub fn holds(&self) -> Vec<Digest> {
        self.held.digests()
    }

    /// The end of the controller's log by the newest checkpoint that was kept.
    pub fn log(&self) -> Option<LogEnd> {
        self.witness.kept()
    }

    /// The authority's word for the newest epoch of each segment that was in force here.
    pub fn marks(&self) -> Vec<Signed<Mark>> {
        let segments = self.segments.values();
        let newest = segments.filter_map(|segment| segment.marks.newest().cloned());
        newest.collect()
    }

    /// The other process that runs with this node's keys, if the controller spoke of one of late, and when.
    pub fn duplicate(&self, now: Now) -> Option<&(Duplicate, Now)> {
        let of_late = |(_, said): &&(Duplicate, Now)| now.boot < said.boot + DUPLICATE_TIME;
        self.duplicate.as_ref().filter(of_late)
    }

    /// The counts since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whom to probe next in a segment, and with which sizes: in a large mesh not everybody. A round moves the choice
    /// on; `full` is the size of a full packet.
    pub fn targets(
        &mut self,
        segment: SegmentId,
        peers: &[PeerSnapshot],
        full: u32,
    ) -> Vec<Target> {
        let segment = self.segments.get_mut(&segment);
        segment.map_or_else(Vec::new, |segment| segment.targets(peers, full))
    }

    fn in_segment<'a>(&'a self, segment: &'a Segment) -> InSegment<'a> {
        InSegment {
            segment,
            places: &self.places,
            control: &self.control,
            inside: &self.inside,
        }
    }

    // ---- segments ---------------------------------------------------------------------------

    /// Takes a segment that has an interface and a tunnel.
    fn take(&mut self, config: SegmentConfig) {
        let segment = Segment::new(config, self.derive_at_once);
        self.asks.handle_placed(&segment.place.segment_name);
        self.segments.insert(segment.place.segment, segment);
        self.inside = inside_all(self.segments.values().map(|it| &it.place));
    }

    /// The authority has a place for this node.
    fn placed(&mut self, place: Place) {
        let id = place.segment;
        match self.segments.get(&id) {
            Some(segment) if segment.place == place => {}
            Some(_) => self.effects.push_back(Effect::Move(place)),
            None if place.mesh != self.mesh => {
                tracing::warn!(segment = %place.segment_name, "a place in another mesh: ignored");
            }
            None if self.opening.contains_key(&id) => {}
            None => {
                if let Some((waiting, ..)) = self.unopened.get_mut(&id) {
                    // It is tried again in its time, where it is now.
                    *waiting = place;
                    return;
                }
                self.opening.insert(id, Vec::new());
                self.asks.handle_placed(&place.segment_name);
                self.effects.push_back(Effect::Placed(place));
            }
        }
    }

    /// The node has no place in a segment any more.
    fn left(&mut self, id: SegmentId) {
        let was_opening = self.opening.remove(&id).is_some();
        let was_unopened = self.unopened.remove(&id).is_some();
        let Some(segment) = self.segments.remove(&id) else {
            if was_opening || was_unopened {
                self.effects.push_back(Effect::Left(id));
            }
            return;
        };
        tracing::warn!(segment = %segment.place.segment_name, "out of a segment: its tunnels are closed");
        self.inside = inside_all(self.segments.values().map(|it| &it.place));
        self.held.forget(id);
        self.places.forget_segment(id);
        self.effects.push_back(Effect::Left(id));
        self.effects.push_back(Effect::Holds(self.held.digests()));
        self.effects
            .push_back(Effect::Told(self.places.told().to_vec()));
    }

    /// Asks for a place in a segment, with the key that there is for it.
    fn ask(&mut self, name: &SegmentName) {
        if let Some(ask) = self.asks.ask(name) {
            self.say(ToController::Join { ask });
        }
    }

    // ---- clocks -----------------------------------------------------------------------------

    fn set_back(&mut self, by: Duration, now: Now) {
        let seconds = by.as_secs();
        tracing::warn!(
            seconds,
            "the wall clock was set back: runs that finished before count as runs of the future"
        );
        let unix = u64::try_from(now.wall.as_millisecond()).unwrap_or(0);
        let unix = Duration::from_millis(unix);
        for segment in self.segments.keys() {
            let change = DataChange::ClockSetBack(unix);
            self.effects.push_back(Effect::Data(*segment, change));
        }
    }

    // ---- control channel --------------------------------------------------------------------

    fn up(
        &mut self,
        address: String,
        remote: SocketAddr,
        places: Vec<Place>,
        skew_ms: i64,
        now: Now,
    ) {
        self.counts.control_connections += 1;
        self.control.up(address, remote, skew_ms, now);
        self.witness.handle_session();
        let is_among = |id: &SegmentId| places.iter().any(|place| place.segment == *id);
        let known = self.segments.keys().chain(self.opening.keys());
        let known = known.chain(self.unopened.keys());
        let gone: Vec<SegmentId> = known.filter(|id| !is_among(id)).copied().collect();
        gone.into_iter().for_each(|id| self.left(id));
        let names: BTreeSet<_> = places.iter().map(|it| it.segment_name.clone()).collect();
        places.into_iter().for_each(|place| self.placed(place));
        for ask in self.asks.open(|name| names.contains(name)) {
            self.say(ToController::Join { ask });
        }
        self.effects.push_back(Effect::LookAtUnderlay);
        // The last acknowledgement may have been lost with the connection before, and the controller would
        // show this node as one that has not heard.
        for segment in self.segments.values_mut() {
            segment.member.handle_reconnect();
        }
        self.follow_members();
        self.send_evidence(now);
    }

    fn message(&mut self, message: ToNode, now: Now) {
        match message {
            ToNode::Update(update) => self.update(update, now),
            ToNode::Changes(changed) => self.changes(changed, now),
            ToNode::Endpoints { entries, mark } => {
                let Ok(entries) = entries.decode() else {
                    return tracing::warn!("the controller sent a malformed list of endpoints");
                };
                if let Some(mark) = mark {
                    let told = self.places.handle_mark(mark).to_vec();
                    self.effects.push_back(Effect::Told(told));
                }
                self.endpoints(entries);
            }
            ToNode::EvidenceResult { digest, refused } => {
                let is_refused = refused.is_some();
                if self.submissions.handle_answer(digest, refused, now.boot) {
                    self.counts.evidence_refused += u64::from(is_refused);
                    self.counts.evidence_accepted += u64::from(!is_refused);
                }
                // A refusal that signing anew can mend is mended at once.
                self.send_evidence(now);
            }
            // Said by the agent, not by the task that reads: a process that hangs is not there.
            ToNode::RollCall => self.say(ToController::Present),
            ToNode::Duplicate(duplicate) => self.tell_duplicate(duplicate, now),
            // The session's.
            ToNode::Seen { .. } => {}
            ToNode::Ways {
                segment,
                node,
                ways,
            } => {
                if let Some(segment) = self.segments.get_mut(&segment) {
                    segment.handle_theirs(node, ways, now);
                }
            }
            ToNode::Placed(signed) => match signed.verify(&self.authorities) {
                Ok(place) if place.node == self.node() => self.placed((*place).clone()),
                Ok(_) => tracing::warn!("the controller gives another node's place; ignored"),
                Err(reason) => tracing::warn!(%reason, "a place that no authority signed; ignored"),
            },
            ToNode::NotPlaced { name, reason } => {
                self.asks.handle_refused(&name, reason, now.boot);
            }
            ToNode::Invited { name } => match self.asks.ask(&name) {
                Some(ask) => self.say(ToController::Join { ask }),
                None => self.effects.push_back(Effect::Invited(name)),
            },
            ToNode::Left { segment } => self.left(segment),
            ToNode::Authorities { successions } => self.follow(&successions),
            ToNode::Enrolled(_)
            | ToNode::Waiting { .. }
            | ToNode::Welcome { .. }
            | ToNode::Refused { .. } => {
                tracing::warn!("the controller said something out of turn; ignored");
            }
        }
    }

    /// Other keys have signed for the mesh before: what an authority says of its successor is believed, and then
    /// remembered, because the old key's word is worth nothing from then on.
    fn follow(&mut self, chain: &[Signed<Succession>]) {
        let trusted = succession::follow(chain, Some(self.mesh), &self.authorities);
        if trusted != self.authorities {
            let keys: Vec<String> = trusted.iter().map(ToString::to_string).collect();
            tracing::warn!(
                authorities = keys.join(", "),
                "another authority signs for the mesh"
            );
            self.authorities.clone_from(&trusted);
            self.effects.push_back(Effect::Trust(trusted));
        }
    }

    /// Takes where nodes are; what is news to a tunnel goes there.
    fn endpoints(&mut self, entries: Vec<(NodeId, Vec<SocketAddr>)>) {
        let views: Vec<_> = self.segments.values().map(|it| it.member.view()).collect();
        let usable = self.places.handle_endpoints(entries, &self.inside, &views);
        for (id, segment) in &self.segments {
            let known = places::known(&usable, &segment.member.view());
            if !known.is_empty() {
                let change = DataChange::Places(known);
                self.effects.push_back(Effect::Data(*id, change));
            }
        }
        self.effects.push_back(Effect::LookAtUnderlay);
    }

    /// An update as what changed.
    fn changes(&mut self, changed: ChangedUpdate, now: Now) {
        match changed.changes.apply(|digest| self.held.get(digest)) {
            Ok(signed) => self.update(changed.with(signed), now),
            Err(reason) => {
                tracing::debug!(%reason, "the update is asked for whole");
                // It comes with the log from here on, and not once more with what came with this one.
                if self.believes(&changed.mark, &changed.log, now) {
                    self.say(ToController::Whole);
                }
            }
        }
    }

    fn update(&mut self, update: Update, now: Now) {
        let Some(verified) = self.verified(&update.signed) else {
            return;
        };
        if self.opening.contains_key(&verified.segment) {
            // It waits for the segment to have an interface. The log is followed in the order in which it is told.
            if self.believes(&update.mark, &update.log, now)
                && let Some(waiting) = self.opening.get_mut(&verified.segment)
            {
                if waiting.len() >= WAITING {
                    waiting.remove(0);
                }
                waiting.push((update, now.boot));
            }
            return;
        }
        if self.is_of_use(&verified) {
            if self.believes(&update.mark, &update.log, now) {
                self.install(verified, update, now);
            }
        } else {
            self.aside(&update.mark, &update.log);
        }
    }

    /// Takes an update that has waited for its segment; the log that came with it is known already.
    fn waited(&mut self, update: Update, now: Now) {
        let verified = self.verified(&update.signed);
        if let Some(verified) = verified.filter(|it| self.is_of_use(it)) {
            self.install(verified, update, now);
        }
    }

    /// The controller's connection key alone moves nothing: only what an authority signed is taken.
    fn verified(&mut self, signed: &Signed<EpochUpdate>) -> Option<Verified<EpochUpdate>> {
        match signed.verify(&self.authorities) {
            Ok(verified) => Some(verified),
            Err(reason) => {
                self.counts.updates_unverified += 1;
                tracing::warn!(%reason, "update rejected");
                None
            }
        }
    }

    /// Whether a segment that is open has a use for an update.
    fn is_of_use(&mut self, verified: &Verified<EpochUpdate>) -> bool {
        let checked = match self.segments.get(&verified.segment) {
            Some(segment) => segment.member.check(verified),
            None => Err(UpdateError::Foreign),
        };
        if let Err(reason) = &checked {
            self.counts.updates_rejected += 1;
            tracing::warn!(epoch = %verified.epoch, %reason, "update rejected");
        }
        checked.is_ok()
    }

    /// Whether the log that an update comes with is the one that this node has seen. Where that is not proved, the
    /// proof is asked for anew, and the update comes with it.
    fn believes(&mut self, mark: &Signed<Mark>, log: &LogNews, now: Now) -> bool {
        let Err(reason) = self.witness(mark, log, now) else {
            return true;
        };
        // For the log alone: nobody may have signed it.
        let epoch = mark.peek().map_or(Epoch::default(), |mark| mark.epoch);
        if let Unbelievable::Unproven { ask, .. } = reason {
            tracing::debug!(%epoch, %reason, "update held back");
            if ask {
                self.ask_for_updates();
            }
            return false;
        }
        self.counts.updates_rejected += 1;
        if self.witness.is_news() {
            tracing::error!(%epoch, %reason, "update rejected");
        }
        false
    }

    /// Asks for all updates that are in force and on their way, with the proof of the log from the end that was kept.
    fn ask_for_updates(&mut self) {
        if let Some(log) = self.witness.kept() {
            self.say(ToController::Kept { log });
        }
    }

    fn install(&mut self, verified: Verified<EpochUpdate>, update: Update, now: Now) {
        let Update {
            secret,
            age_ms,
            mark,
            ..
        } = update;
        let (id, epoch, digest) = (verified.segment, verified.epoch, verified.digest());
        let age = Duration::from_millis(age_ms);
        let (taken, all) = (verified.clone(), self.segments.len());
        let Some(segment) = self.segments.get_mut(&id) else {
            return;
        };
        match segment
            .member
            .handle_update(verified, secret, age, now.boot)
        {
            Ok(()) => {
                self.counts.updates_accepted += 1;
                let trusted = &self.authorities;
                segment.marks.handle_update((epoch, digest), mark, trusted);
                self.held.keep(taken, all);
                self.effects.push_back(Effect::Holds(self.held.digests()));
                self.answer_to(digest, now);
            }
            Err(reason) => {
                self.counts.updates_rejected += 1;
                tracing::warn!(%epoch, %reason, "update rejected");
                // After an outage longer than the lease the node must still be able to prove itself, or it
                // would wait for an epoch that waits for its evidence.
                if matches!(reason, UpdateError::LeaseOver(_)) {
                    self.answer_to(digest, now);
                }
            }
        }
    }

    /// Takes what an update of no use tells of the controller's log.
    fn aside(&mut self, mark: &Signed<Mark>, log: &LogNews) {
        let trusted = &self.authorities;
        self.witness.handle_aside(self.mesh, mark, log, trusted);
        let kept = self.witness.kept();
        self.effects.extend(kept.map(Effect::Witnessed));
    }

    /// Holds the controller's log against the one that this node has seen.
    fn witness(
        &mut self,
        mark: &Signed<Mark>,
        log: &LogNews,
        now: Now,
    ) -> Result<(), Unbelievable> {
        let trusted = &self.authorities;
        self.witness
            .handle_news(self.mesh, mark, log, trusted, now.boot)?;
        if let Some(end) = self.witness.kept() {
            self.effects.push_back(Effect::Witnessed(end));
        }
        Ok(())
    }

    /// Keeps what the controller says of another process, with a line if it is news.
    fn tell_duplicate(&mut self, duplicate: Duplicate, now: Now) {
        if self.duplicate(now).is_none() {
            tracing::warn!("{duplicate}");
        }
        self.duplicate = Some((duplicate, now));
    }

    fn say(&mut self, message: ToController) {
        if self.control.is_up() {
            self.effects.push_back(Effect::Send(message));
        }
    }

    // ---- evidence ---------------------------------------------------------------------------

    /// Evidence answers to this update from now on.
    fn answer_to(&mut self, update: Digest, now: Now) {
        for run in self.submissions.handle_challenge(update) {
            self.handle_evidence(Emission::Run(Box::new(run)), now);
        }
    }

    fn send_evidence(&mut self, now: Now) {
        if !self.control.is_up() {
            return;
        }
        let signer = signer(&self.name, self.mesh, &self.identity);
        if let Some(message) = self.submissions.send(&signer, now.boot) {
            self.effects.push_back(Effect::Send(message));
        }
    }

    // ---- epochs -----------------------------------------------------------------------------

    /// Turns what the member machines ask for into effects, each in its order.
    fn follow_members(&mut self) {
        let ids: Vec<SegmentId> = self.segments.keys().copied().collect();
        for id in ids {
            while let Some(command) = self.command(id) {
                match command {
                    Command::Data(change) => {
                        // With the peers go their places: one that comes back after an absence, or is new, has
                        // no other way to be found before it speaks.
                        let places = match (&change.install, self.segments.get(&id)) {
                            (Some(_), Some(segment)) => {
                                self.places.of_peers(&segment.member.view())
                            }
                            _ => Vec::new(),
                        };
                        let change = DataChange::Epoch(change, places);
                        self.effects.push_back(Effect::Data(id, change));
                    }
                    Command::Agent(notice) => self.notice(id, notice),
                    Command::Derive(derivation) => {
                        self.effects.push_back(Effect::Derive(id, derivation));
                    }
                }
            }
        }
    }

    fn command(&mut self, segment: SegmentId) -> Option<Command> {
        self.segments.get_mut(&segment)?.member.poll_command()
    }

    fn notice(&mut self, id: SegmentId, notice: Notice) {
        let Some(segment) = self.segments.get_mut(&id) else {
            return;
        };
        match notice {
            Notice::Persist(high_water) => {
                let mark = segment.marks.handle_in_force(high_water.epoch).cloned();
                let log = self.witness.kept();
                let remember = Effect::Remember {
                    segment: id,
                    high_water,
                    mark,
                    log,
                };
                self.effects.push_back(remember);
            }
            Notice::Acknowledge { epoch, phase } => {
                if phase != Phase::Installed {
                    segment.forget_strangers();
                    // Of a segment that is being opened nobody can say yet who its members are.
                    if self.opening.is_empty() {
                        let views: Vec<_> =
                            self.segments.values().map(|it| it.member.view()).collect();
                        self.places.forget_strangers(&views);
                    }
                }
                self.say(ToController::Ack {
                    segment: id,
                    epoch,
                    phase,
                });
                self.effects.push_back(Effect::LookAtUnderlay);
            }
            Notice::Report(change) => report::tell(&change, &segment.place.segment_name),
        }
    }
}

fn signer<'a>(name: &'a NodeName, mesh: MeshId, identity: &'a NodeSecret) -> Signer<'a> {
    Signer {
        identity,
        name,
        mesh,
    }
}

/// How long the controller's word on another process is shown: that one is refused again within 45 s.
const DUPLICATE_TIME: Duration = Duration::from_secs(180);
/// Before a segment that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(10);
/// Updates of a segment that is being opened which may wait: the epoch in force, and the next.
const WAITING: usize = 2;
/// Said of a connection that was given up because this machine stood still.
const TIME_LOST: &str = "this machine's clock lost time: asking the controller anew";
