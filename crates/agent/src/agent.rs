//! The agent: its inputs, its effects, and how its parts play together. Each part's knowledge is in a file
//! of its own.
//!
//! The file is long because every input and every view of the machine has its door here.

use crate::control::{Control, SessionEvent};
use crate::data::DataChange;
use crate::effect::{Config, Counts, Effect, Now};
use crate::evidence::{Emission, Evidence, Signer, Submissions};
use crate::held::Held;
use crate::lost_time::{Clocks, Step};
use crate::marks::Marks;
use crate::paths::{Heard, PathLimit, Paths};
use crate::pings::{self, Ping, PingResult, Pings, Round, Target};
use crate::places::{Whereabouts, inside};
use crate::report;
use crate::sample::Sample;
use crate::ways::{PeerWays, Ways};
use crate::witness::{Cosigned, Unbelievable, Witness};
use epoch::member::{Identity, View};
use epoch::{Command, Derived, Member, Notice, UpdateError};
use keys::{AuthorityId, LogId, NodeId, NodeSecret, WgPublicKey};
use ledger::{cosignature, note};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tunnel::{Inside, PeerSnapshot};
use wire::endpoints::PlacesMark;
use wire::log::{LogEnd, LogNews};
use wire::message::{ChangedUpdate, InterfaceReport, Phase, Update};
use wire::{
    Digest, Duplicate, Mark, Place, Signed, Succession, ToController, ToNode, Way, succession,
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
    place: Place,
    inside: Inside,
    authorities: Vec<AuthorityId>,
    member: Member,
    held: Held,
    control: Control,
    submissions: Submissions,
    marks: Marks,
    witness: Witness,
    places: Whereabouts,
    sample: Sample,
    pings: Pings,
    /// The paths to peers, as far as they are known.
    paths: Paths,
    ways: Ways,
    /// How the interface stands, as the daemon said last.
    interface: InterfaceReport,
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
            wg,
            place,
            authorities,
            high_water,
            mark,
            log,
            seen,
            derive_at_once,
        } = config;
        let member = Identity {
            node: identity.public(),
            wg,
            mesh: place.mesh,
            segment: place.segment,
        };
        let mut member = Member::new(member, high_water);
        member.set_derive_at_once(derive_at_once);
        Self {
            inside: inside(&place),
            member,
            held: Held::default(),
            identity,
            place,
            authorities,
            control: Control::default(),
            submissions: Submissions::new(seen),
            marks: Marks::new(mark),
            witness: Witness::new(log),
            places: Whereabouts::default(),
            sample: Sample::default(),
            pings: Pings::default(),
            paths: Paths::default(),
            ways: Ways::default(),
            interface: InterfaceReport::default(),
            clocks: Clocks::default(),
            lost_at: None,
            duplicate: None,
            counts: Counts::default(),
            effects: VecDeque::new(),
        }
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
        let closed = self.member.handle_lost_time(lost, now.boot);
        let seconds = lost.as_secs();
        tracing::warn!(
            seconds,
            closed,
            "the wall clock is ahead of the time that this machine has counted: it was paused, or the clock was set"
        );
        // An update that was on its way as time stood still is older than it says. Only a connection that
        // begins now brings updates whose age counts; until then none is taken.
        self.lost_at = Some(now.boot);
        if self.control.give_up(TIME_LOST) {
            self.effects.push_back(Effect::HangUp);
            self.submissions.handle_lost();
        }
        self.follow_member();
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
                self.member.handle_duplicate(now.boot);
            }
        }
        self.follow_member();
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
        let signer = signer(&self.place, &self.identity);
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

    /// Takes a round of probes; `peers` is what the tunnel shows of them, and `full` the size of a full
    /// packet.
    pub fn handle_round(&mut self, round: Round, peers: &[PeerSnapshot], full: u32, now: Now) {
        for echoes in &round.results {
            let heard = Heard {
                small: echoes.v4.is_ok(),
                large: &echoes.large,
            };
            let target = &echoes.target;
            if self
                .paths
                .handle_round(target.node, &target.name, &heard, full, now.boot)
            {
                self.effects.push_back(Effect::LookAtUnderlay);
            }
        }
        if round.is_search {
            return;
        }
        self.handle_ways(round.ways);
        self.sample.handle_round(peers, now.boot);
        let (own, view) = (self.identity.public(), self.member.view());
        let (results, known) = (round.results, (&self.ways, &self.places));
        let peers = self
            .pings
            .handle_round(results, &own, &view, peers, known, now);
        self.places.tell_gaps(&view, &own);
        let interface = self.interface.clone();
        let segment = self.place.segment;
        self.say(ToController::Report {
            segment,
            peers,
            interface,
        });
    }

    /// Takes where the kernel sends what is meant for the peers, between two rounds.
    pub fn handle_ways(&mut self, mut ways: Vec<PeerWays>) {
        // Those that were not asked about stay as they are, for as long as their echoes count.
        let not_asked = self.ways.but(&ways);
        ways.extend(not_asked.filter(|it| self.pings.knows(&it.node)));
        self.ways.handle_ways(ways);
    }

    /// Takes the addresses of this machine that peers can reach it at.
    pub fn handle_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.places.handle_own(addresses);
    }

    /// Takes how the interface stands; the next report says so.
    pub fn handle_interface(&mut self, interface: InterfaceReport) {
        self.interface = interface.bounded();
    }

    /// Takes what came of an [`Effect::Derive`].
    pub fn handle_derived(&mut self, derived: Derived, now: Now) {
        self.member.handle_derived(derived, now.boot);
        self.follow_member();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.member.handle_timeout(now.boot);
        self.follow_member();
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
        let again = self.submissions.poll_timeout();
        let again = again.filter(|_| self.control.is_up());
        self.member.poll_timeout().into_iter().chain(again).min()
    }

    // ---- views ------------------------------------------------------------------------------

    /// The update in force, the next one, and the end of the lease.
    pub fn view(&self) -> View<'_> {
        self.member.view()
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.place.node
    }

    /// Where it belongs.
    pub fn place(&self) -> &Place {
        &self.place
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
        let name = self.place.name.as_str();
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

    /// The authority's word for the newest epoch that was in force here.
    pub fn mark(&self) -> Option<&Signed<Mark>> {
        self.marks.newest()
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

    /// The last echoes of a node, if they were sent under what is in force between the two now. One that was
    /// answered counts only while packets take the tunnel.
    pub fn ping(&self, node: &NodeId) -> Option<PingResult> {
        let (own, view) = (self.identity.public(), self.member.view());
        self.pings.of(node, (&own, &view), &self.ways)
    }

    /// Why packets to `node`, or its packets to this one, do not take the tunnel, and why the tunnel does not
    /// reach it; empty when all is well. What keeps the tunnel from a node counts only while nothing is
    /// answered.
    pub fn faults_of(&self, node: &NodeId, now: Now) -> Vec<String> {
        let mut faults = self.ways.faults(node);
        faults.extend(self.ways.faults_of_theirs(node, self.own(), now.boot));
        let is_reached = self
            .ping(node)
            .is_some_and(|it| it.v4.is_ok() || it.v6.is_ok());
        faults.extend(self.places.faults(node, is_reached));
        faults
    }

    /// This node's mesh addresses.
    fn own(&self) -> [IpAddr; 2] {
        [self.place.v4.0.into(), self.place.v6.0.into()]
    }

    /// The same of all peers, in a few sentences.
    pub fn ways_astray(&self) -> Vec<String> {
        self.ways.summary()
    }

    /// How many addresses of peers are reached by the tunnel, elsewhere, and nobody knows where.
    pub fn ways_count(&self) -> [u64; 3] {
        self.ways.count()
    }

    /// Why an echo to `node` failed, with what the epoch says about it.
    pub fn ping_cause(&self, node: &NodeId, ping: &Ping) -> String {
        let (view, own) = (self.member.view(), self.identity.public());
        pings::cause(&view, &own, node, (ping, &self.places))
    }

    /// Why this node has no tunnel to another member, if the rules of the segment keep them apart.
    pub fn apart(&self, node: &NodeId) -> Option<&'static str> {
        let update = self.member.view().update?;
        pings::are_apart(update, &self.identity.public(), node).then_some(pings::NO_HUB)
    }

    /// Whether this node has peers by what is in force; `None` before the first epoch.
    pub fn is_member(&self) -> Option<bool> {
        let view = self.member.view();
        let is_in = view.update?.member(&self.identity.public()).is_some();
        Some(is_in && !view.is_closed())
    }

    /// Whom to probe next, and with which sizes: in a large mesh not everybody. A round moves the choice on; `full` is the size of a full packet.
    pub fn targets(&mut self, peers: &[PeerSnapshot], full: u32) -> Vec<Target> {
        let view = self.member.view();
        let targets = pings::targets(&self.identity.public(), &view, &mut self.sample);
        let names = |node: &NodeId| {
            let names = |update: &wire::EpochUpdate| {
                update.member(node).is_some() || update.exclusion(node).is_some()
            };
            view.update.is_some_and(names)
        };
        self.paths.retain(names);
        let endpoints = peers.iter().map(|peer| (peer.key, peer.endpoint));
        let endpoints: HashMap<_, _> = endpoints.collect();
        let tried = |(mut target, key): (Target, Option<WgPublicKey>)| {
            let endpoint = key.and_then(|key| *endpoints.get(&key)?);
            if let Some(endpoint) = endpoint.and_then(tunnel::Path::udp) {
                let tried = self.paths.sizes(target.node, endpoint.ip(), full);
                (target.sizes, target.search) = (tried.sizes, tried.search);
            }
            target
        };
        targets.into_iter().map(tried).collect()
    }

    /// The paths to the members of the epoch in force that are tried; `full` is the size of a full packet.
    pub fn path_limits(&self, full: u32) -> Vec<PathLimit> {
        let members = self.member.view().update.into_iter();
        let members = members.flat_map(|update| &update.roster);
        members
            .filter_map(|it| self.paths.limit(&it.node, (it.v4, it.v6), full))
            .collect()
    }

    /// Where the members of the epochs at hand are said to be and where they are heard from; the
    /// controller, which has the same underlay, while there are none.
    pub fn destinations(&self, peers: &[PeerSnapshot]) -> BTreeSet<SocketAddr> {
        let View { update, next, .. } = self.member.view();
        let own = self.identity.public();
        let members = [update, next]
            .into_iter()
            .flatten()
            .flat_map(|update| &update.roster)
            .filter(|member| member.node != own);
        let announced = members.flat_map(|member| self.places.of(&member.node));
        let observed = peers.iter().filter_map(|peer| peer.endpoint?.udp());
        // Of a path through the mesh the own MTU would be the measure, and shrink for ever.
        let outside = observed.filter(|endpoint| !self.inside.contains(endpoint.ip()));
        let found = announced.copied().chain(outside).map(canonical);
        let found: BTreeSet<SocketAddr> = found.collect();
        match &self.control {
            Control::Up { remote, .. } if found.is_empty() => BTreeSet::from([*remote]),
            Control::Up { .. } | Control::Down { .. } => found,
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
        let change = DataChange::ClockSetBack(Duration::from_millis(unix));
        self.effects.push_back(Effect::Data(change));
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
        self.control.up(address, remote, skew_ms);
        let mut places = places.into_iter();
        if let Some(place) = places.find(|it| it.segment == self.place.segment)
            && place != self.place
        {
            self.effects.push_back(Effect::Move(place));
        }
        self.effects.push_back(Effect::LookAtUnderlay);
        // The last acknowledgement may have been lost with the connection before, and the controller would
        // show this node as one that has not heard.
        self.member.handle_reconnect();
        self.follow_member();
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
                let view = self.member.view();
                let found = self.places.handle_endpoints(entries, &self.inside, &view);
                let change = DataChange::Places(found);
                self.effects.push_back(Effect::Data(change));
                self.effects.push_back(Effect::LookAtUnderlay);
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
            } if segment == self.place.segment => self.theirs(node, ways, now),
            ToNode::Ways { .. } => {}
            ToNode::Placed(_)
            | ToNode::NotPlaced { .. }
            | ToNode::Invited { .. }
            | ToNode::Left { .. } => {
                tracing::warn!("the controller speaks of another segment; ignored");
            }
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
        let trusted = succession::follow(chain, Some(self.place.mesh), &self.authorities);
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

    /// A peer says which ways its packets to this node take.
    fn theirs(&mut self, node: NodeId, ways: [Way; 2], now: Now) {
        let view = self.member.view();
        let updates = [view.update, view.next].into_iter().flatten();
        let mut name = updates.filter_map(|update| Some(update.member(&node)?.name.clone()));
        let Some(peer) = name.next() else { return };
        if self.ways.handle_theirs(node, ways, now.boot) {
            match &self.ways.faults_of_theirs(&node, self.own(), now.boot)[..] {
                [] => tracing::info!(%peer, "its packets to this node take the tunnel again"),
                faults => tracing::warn!(%peer, "{}", faults.join("; ")),
            }
        }
    }

    /// An update as what changed.
    fn changes(&mut self, changed: ChangedUpdate, now: Now) {
        match changed.changes.apply(|digest| self.held.get(digest)) {
            Ok(signed) => self.update(changed.with(signed), now),
            Err(reason) => {
                tracing::debug!(%reason, "the update is asked for whole");
                // It comes with the log from here on, and not once more with what came with this one.
                let _ = self.witness(&changed.mark, &changed.log);
                self.say(ToController::Whole);
            }
        }
    }

    fn update(&mut self, update: Update, now: Now) {
        let Update {
            signed,
            secret,
            age_ms,
            mark,
            log,
        } = update;
        // The controller's connection key alone moves nothing: only what an authority signed is taken.
        let verified = match signed.verify(&self.authorities) {
            Ok(verified) => verified,
            Err(reason) => {
                self.counts.updates_unverified += 1;
                return tracing::warn!(%reason, "update rejected");
            }
        };
        let (epoch, digest) = (verified.epoch, verified.digest());
        if let Err(reason) = self.member.check(&verified) {
            self.counts.updates_rejected += 1;
            let trusted = &self.authorities;
            self.witness
                .handle_aside(self.place.mesh, &mark, &log, trusted);
            let kept = self.witness.kept();
            self.effects.extend(kept.map(Effect::Witnessed));
            return tracing::warn!(%epoch, %reason, "update rejected");
        }
        if let Err(reason) = self.witness(&mark, &log) {
            if let (Unbelievable::Unproven { .. }, Some(log)) = (&reason, self.witness.kept()) {
                tracing::debug!(%epoch, %reason, "update held back");
                return self.say(ToController::Kept { log });
            }
            self.counts.updates_rejected += 1;
            if self.witness.is_news() {
                tracing::error!(%epoch, %reason, "update rejected");
            }
            return;
        }
        let age = Duration::from_millis(age_ms);
        let taken = verified.clone();
        match self.member.handle_update(verified, secret, age, now.boot) {
            Ok(()) => {
                self.counts.updates_accepted += 1;
                self.held.keep(taken);
                self.effects.push_back(Effect::Holds(self.held.digests()));
                self.marks
                    .handle_update((epoch, digest), mark, &self.authorities);
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

    /// Holds the controller's log against the one that this node has seen.
    fn witness(&mut self, mark: &Signed<Mark>, log: &LogNews) -> Result<(), Unbelievable> {
        let trusted = &self.authorities;
        self.witness
            .handle_news(self.place.mesh, mark, log, trusted)?;
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
        let signer = signer(&self.place, &self.identity);
        if let Some(message) = self.submissions.send(&signer, now.boot) {
            self.effects.push_back(Effect::Send(message));
        }
    }

    // ---- epochs -----------------------------------------------------------------------------

    /// Turns what the member machine asks for into effects, in its order.
    fn follow_member(&mut self) {
        while let Some(command) = self.member.poll_command() {
            match command {
                Command::Data(change) => {
                    // With the peers go their places: one that comes back after an absence, or is new, has
                    // no other way to be found before it speaks.
                    let places = match &change.install {
                        Some(_) => self.places.of_peers(&self.member.view()),
                        None => Vec::new(),
                    };
                    let change = DataChange::Epoch(change, places);
                    self.effects.push_back(Effect::Data(change));
                }
                Command::Agent(notice) => self.notice(notice),
                Command::Derive(derivation) => self.effects.push_back(Effect::Derive(derivation)),
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Persist(high_water) => {
                let mark = self.marks.handle_in_force(high_water.epoch).cloned();
                let log = self.witness.kept();
                let remember = Effect::Remember {
                    high_water,
                    mark,
                    log,
                };
                self.effects.push_back(remember);
            }
            Notice::Acknowledge { epoch, phase } => {
                self.say(ToController::Ack {
                    segment: self.place.segment,
                    epoch,
                    phase,
                });
                self.effects.push_back(Effect::LookAtUnderlay);
                if phase != Phase::Installed {
                    let view = self.member.view();
                    self.places.forget_strangers(&view);
                    let updates = [view.update, view.next];
                    let is_peer = |node: &NodeId| {
                        updates.iter().flatten().any(|it| it.member(node).is_some())
                    };
                    self.ways.forget_strangers(is_peer);
                }
            }
            Notice::Report(change) => report::tell(&change),
        }
    }
}

fn signer<'a>(place: &'a Place, identity: &'a NodeSecret) -> Signer<'a> {
    Signer {
        identity,
        name: &place.name,
        mesh: place.mesh,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How long the controller's word on another process is shown: that one is refused again within 45 s.
const DUPLICATE_TIME: Duration = Duration::from_secs(180);
/// Said of a connection that was given up because this machine stood still.
const TIME_LOST: &str = "this machine's clock lost time: asking the controller anew";
