//! The node's side: takes verified updates, derives PSKs, and says when to install, activate,
//! discard and close.
//!
//! ```text
//!            update             activation             grace over
//!  Waiting ─────────▶ pending ─────────────▶ in force ─────────────▶ in force
//!                        ▲                      │  lease over
//!                        └── a newer update ────┴─────────────────▶ lapsed
//! ```
//!
//! Time that the machine did not count makes everything earlier, and never later: a node that stood
//! still for longer than its lease had left is as one that was started again.
//!
//! The PSKs of many peers take a while, which the machine does not wait for: an update is pending from the
//! moment that it is taken, and installed when [`Member::handle_derived`] brings its PSKs. A peer that it leaves
//! out has no part in that. It loses what was installed for it as soon as the update is taken, and is gone when
//! the update is due, whether the PSKs are there or not; the others go on under the epoch in force until they
//! are.
//!
//! One update may be pending while another is in force; a newer one supersedes it. The machine
//! remembers the newest epoch and its digest, also across restarts if the caller persists what
//! [`Notice::Persist`] says, and never goes back.
//!
//! The file is long because an update's checks, its steps and its end change one state.

pub use crate::command::HighWater;
use crate::command::{Change, Command, EpochChange, Install, Keep, Notice, Turn};
use crate::derivation::{Derivation, Derived, SharedSecrets};
use crate::plan::PeerPlan;
use keys::{Epoch, EpochSecret, MeshId, NodeId, Scope, SegmentId, WgPublicKey, WgSecret};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use wire::message::Phase;
use wire::rules::Groups;
use wire::update::LeaseEnd;
use wire::{EpochUpdate, Verified};

/// This node's identity in its segment.
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its WireGuard key.
    pub wg: WgSecret,
    /// The mesh whose updates count.
    pub mesh: MeshId,
    /// The segment whose updates count.
    pub segment: SegmentId,
}

/// Why an update was not taken. Nothing has changed when one of these comes back.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UpdateError {
    /// It belongs to another mesh or segment.
    #[error("the update is for another mesh or segment")]
    Foreign,
    /// A newer one was already taken.
    #[error("the update is for epoch {got}, but epoch {have} was already accepted")]
    Old {
        /// The newest accepted epoch.
        have: Epoch,
        /// The update's epoch.
        got: Epoch,
    },
    /// Two different updates for one epoch, or one that does not continue the last.
    #[error("the update for epoch {0} does not continue the history that this node has seen")]
    Forked(Epoch),
    /// This node is a member, and the secret is missing.
    #[error("the update for epoch {0} came without its secret")]
    NoSecret(Epoch),
    /// The secret does not fit the commitment in the update.
    #[error("the secret of epoch {0} does not fit the update's commitment")]
    WrongSecret(Epoch),
    /// The roster has another WireGuard key for this node.
    #[error("the roster of epoch {0} has another WireGuard key for this node: enrol again")]
    WrongKey(Epoch),
    /// Its lease is over.
    #[error("the lease of epoch {0} is over")]
    LeaseOver(Epoch),
}

/// The member machine.
///
/// Call contract: after every `handle_*`, poll [`Self::poll_command`] until it is empty and carry out each
/// command before the next; then wait for [`Self::poll_timeout`] and call [`Self::handle_timeout`]. A
/// command that is left out is never repeated: the data plane would then hold another epoch than the
/// machine believes, and nothing here would notice. Time may jump forward, as after a sleep; it must not
/// go back.
pub struct Member {
    identity: Identity,
    /// The newest update that was accepted, pending ones included.
    newest: HighWater,
    /// The newest update that was in force, which is what a restart would remember.
    activated: HighWater,
    state: State,
    pending: Option<Pending>,
    shared: SharedSecrets,
    derive_at_once: usize,
    commands: VecDeque<Command>,
}

enum State {
    Waiting,
    InForce(InForce),
    Lapsed(Lapsed),
    /// As after a restart: what was in force is taken once more if the controller says so.
    LostTime(Lapsed),
}

/// An update that will be in force at a time.
struct Pending {
    update: Arc<Verified<EpochUpdate>>,
    activate_at: Duration,
    lease_end: Duration,
    stage: Stage,
}

/// How far the data plane is with a pending update.
enum Stage {
    /// Its PSKs are being derived.
    Deriving(Deriving),
    /// It is installed.
    Installed,
}

struct Deriving {
    /// Dropped, it ends the derivation.
    _wanted: Arc<()>,
    /// Whether the peers that the update leaves out are gone.
    has_cut: bool,
}

/// The update in force.
struct InForce {
    update: Arc<Verified<EpochUpdate>>,
    lease_end: Duration,
    /// When the epoch before is wiped, if it is not yet.
    grace_until: Option<Duration>,
}

/// The update that was in force when its lease ended.
struct Lapsed {
    update: Arc<Verified<EpochUpdate>>,
}

/// The machine as it shows itself.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The update in force, or the last one whose lease has ended.
    pub update: Option<&'a EpochUpdate>,
    /// The update that is on its way.
    pub next: Option<&'a EpochUpdate>,
    /// When the lease ends; `None` when there is none or it has ended.
    pub lease_end: Option<Duration>,
    /// Whether the lease has ended.
    pub lapsed: bool,
}

impl View<'_> {
    /// Whether the lease has ended, and the policy closes then: no tunnel carries anything.
    pub fn is_closed(&self) -> bool {
        let closes = |update: &EpochUpdate| update.on_lease_end == LeaseEnd::Close;
        self.lapsed && self.update.is_some_and(closes)
    }
}

impl Identity {
    /// An epoch of this node's segment.
    fn scope(&self, epoch: Epoch) -> Scope {
        Scope {
            mesh: self.mesh,
            segment: self.segment,
            epoch,
        }
    }
}

impl From<Keep> for EpochChange {
    fn from(keep: Keep) -> Self {
        Self {
            keep: Some(keep),
            ..Self::default()
        }
    }
}

impl From<Turn> for EpochChange {
    fn from(turn: Turn) -> Self {
        Self {
            turn: Some(turn),
            ..Self::default()
        }
    }
}

impl Pending {
    /// Whether it is to begin, and can.
    fn begins(&self, now: Duration) -> bool {
        self.activate_at <= now && matches!(self.stage, Stage::Installed)
    }

    /// When something has to be done about it.
    fn due(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Deriving(deriving) if deriving.has_cut => None,
            Stage::Deriving(_) | Stage::Installed => Some(self.activate_at),
        }
    }

    /// The peers that the data plane keeps.
    fn keep(&self, own: &NodeId, at_once: bool) -> Keep {
        let own = self.update.groups_of(own);
        let members = self.update.roster.iter();
        let members = members.filter(|it| self.update.rules.connect(own, it.groups));
        let members = members.map(|member| member.wg);
        Keep {
            members: members.collect(),
            at_once,
        }
    }

    /// More time has passed than was counted.
    fn earlier(&mut self, lost: Duration) {
        self.activate_at = self.activate_at.saturating_sub(lost);
        self.lease_end = self.lease_end.saturating_sub(lost);
    }
}

impl InForce {
    /// More time has passed than was counted.
    fn earlier(&mut self, lost: Duration) {
        self.lease_end = self.lease_end.saturating_sub(lost);
        self.grace_until = self.grace_until.map(|at| at.saturating_sub(lost));
    }
}

impl Member {
    /// A machine that has nothing in force and never goes behind `high_water`.
    pub fn new(identity: Identity, high_water: HighWater) -> Self {
        Self {
            identity,
            newest: high_water,
            activated: high_water,
            state: State::Waiting,
            pending: None,
            shared: SharedSecrets::default(),
            derive_at_once: DERIVE_AT_ONCE,
            commands: VecDeque::new(),
        }
    }

    /// How many PSKs are derived where an update is taken, instead of by a [`Command::Derive`]: in PSKs of known
    /// peers, of which a newcomer's costs as much as fifty. [`DERIVE_AT_ONCE`] unless this says otherwise.
    pub fn set_derive_at_once(&mut self, most: usize) {
        self.derive_at_once = most;
    }

    /// Whether an update is of this mesh and segment, and continues the history that was seen.
    ///
    /// # Errors
    /// [`UpdateError`], as [`Self::handle_update`] would answer.
    pub fn check(&self, update: &Verified<EpochUpdate>) -> Result<(), UpdateError> {
        self.is_news(update).map(drop)
    }

    /// Takes an update that is `age` old. The same update twice is no error and changes nothing.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing has changed then.
    pub fn handle_update(
        &mut self,
        update: Verified<EpochUpdate>,
        secret: Option<EpochSecret>,
        age: Duration,
        now: Duration,
    ) -> Result<(), UpdateError> {
        // Due changes come first: a newer update must not replace one that should be in force.
        self.handle_timeout(now);
        if !self.is_news(&update)? {
            self.shorten(&update, age, now);
            return Ok(());
        }
        let until_activation = update.activate_in().saturating_sub(age);
        let until_lease_end = (update.activate_in() + update.lease()).saturating_sub(age);
        if until_lease_end.is_zero() {
            return Err(UpdateError::LeaseOver(update.epoch));
        }
        let secret = self.secret_for(&update, secret)?;
        self.newest = HighWater {
            epoch: update.epoch,
            digest: update.digest(),
        };
        let wanted = Arc::new(());
        let pending = Pending {
            update: Arc::new(update),
            activate_at: now + until_activation,
            lease_end: now + until_lease_end,
            stage: Stage::Deriving(Deriving {
                _wanted: Arc::clone(&wanted),
                has_cut: false,
            }),
        };
        let Some(secret) = secret else {
            // An epoch that leaves this node out is installed too, without peers: otherwise the generations of
            // an epoch that this one supersedes would stay, and could still come into force.
            self.install(pending, Vec::new(), now);
            return Ok(());
        };
        let derivation = Derivation {
            scope: pending.update.scope(),
            update: Arc::clone(&pending.update),
            secret,
            own: self.identity.node,
            wg: self.identity.wg.duplicate(),
            shared: self.shared.clone(),
            wanted: Arc::downgrade(&wanted),
        };
        let own = self.identity.node;
        let pending = self.pending.insert(pending);
        if derivation.cost() <= self.derive_at_once {
            let derived = derivation.run();
            derived
                .into_iter()
                .for_each(|derived| self.handle_derived(derived, now));
            return Ok(());
        }
        // One that is superseded before it began never will: a peer that it let in, and this one leaves out,
        // must not be heard on it until the PSKs of the others are there.
        if pending.activate_at > now {
            let keep = pending.keep(&own, false);
            self.push(keep.into(), []);
        }
        self.handle_timeout(now);
        self.commands.push_back(Command::Derive(derivation));
        Ok(())
    }

    /// Takes the PSKs of an update. Those of one that is not pending any more change nothing.
    pub fn handle_derived(&mut self, derived: Derived, now: Duration) {
        let Derived { of, peers, weak } = derived;
        let is_awaited =
            |it: &mut Pending| it.update.digest() == of && matches!(it.stage, Stage::Deriving(_));
        let Some(pending) = self.pending.take_if(is_awaited) else {
            return;
        };
        let weak = weak.into_iter().map(|key| Change::WeakKey { key });
        let weak = weak.map(|change| Command::Agent(Notice::Report(change)));
        self.commands.extend(weak);
        self.install(pending, peers, now);
    }

    /// Does what is due: activation, end of the grace, end of the lease.
    pub fn handle_timeout(&mut self, now: Duration) {
        if let Some(pending) = self.pending.take_if(|pending| pending.begins(now)) {
            let (turn, begun) = self.begin(pending, now);
            self.push(turn.into(), begun);
        }
        self.cut(now);
        let State::InForce(in_force) = &mut self.state else {
            return;
        };
        let epoch = in_force.update.epoch;
        let is_over = in_force.lease_end <= now;
        let grace = in_force.grace_until.take_if(|until| *until <= now);
        if grace.is_some() {
            // From here on what an excluded node recorded of its old sessions opens nothing.
            let discarded = Notice::Report(Change::Discarded { epoch });
            self.push(Turn::DiscardPrevious.into(), [discarded]);
        }
        if is_over {
            self.lapse();
        }
    }

    /// Takes into account that `lost` has passed which no reading of `now` has counted, because the machine
    /// stood still: everything happens earlier by so much. Where the lease does not last that long and the
    /// policy closes, the machine is as after a restart; whether that is so is returned. In either case the
    /// caller asks the controller anew: what is still on its way is older than it says.
    pub fn handle_lost_time(&mut self, lost: Duration, now: Duration) -> bool {
        self.handle_timeout(now);
        if let Some(pending) = &mut self.pending {
            pending.earlier(lost);
        }
        if let State::InForce(in_force) = &mut self.state {
            in_force.earlier(lost);
        }
        let due = self.pending.as_ref().filter(|it| it.activate_at <= now);
        let lease = match (&self.state, due) {
            (_, Some(pending)) => Some((pending.lease_end, pending.update.on_lease_end)),
            (State::InForce(it), None) => Some((it.lease_end, it.update.on_lease_end)),
            (State::Waiting | State::Lapsed(_) | State::LostTime(_), None) => None,
        };
        let closes = lease.is_some_and(|(end, then)| end <= now && then == LeaseEnd::Close);
        if closes {
            let update = self.forget(now, |epoch| Change::TimeLost { epoch });
            self.state = update.map_or(State::Waiting, |update| State::LostTime(Lapsed { update }));
        } else {
            self.handle_timeout(now);
        }
        closes
    }

    /// Another machine runs with this node's keys, and the controller serves that one. From here on this one is
    /// as after a restart, without peers, whatever the policy says of leases: two that send in one name would
    /// take the peers' packets from each other. What was in force is taken once more if the controller says so.
    pub fn handle_duplicate(&mut self, now: Duration) {
        self.handle_timeout(now);
        if matches!(self.state, State::Waiting) && self.pending.is_none() {
            return;
        }
        self.forget(now, |epoch| Change::Duplicate { epoch });
    }

    /// The control connection is a new one: says again how far this node has come.
    pub fn handle_reconnect(&mut self) {
        let in_force = match &self.state {
            State::InForce(in_force) => Some(&in_force.update),
            State::Waiting | State::Lapsed(_) | State::LostTime(_) => None,
        };
        let own = &self.identity.node;
        let activated = in_force.map(|update| match update.member(own) {
            Some(_) => (update.epoch, Phase::Activated),
            None => (update.epoch, Phase::Dark),
        });
        let pending = self.pending.as_ref();
        let pending = pending.filter(|it| matches!(it.stage, Stage::Installed));
        let pending = pending.map(|it| it.update.epoch);
        let installed = pending.map(|epoch| (epoch, Phase::Installed));
        let again = activated.into_iter().chain(installed);
        let again = again.map(|(epoch, phase)| Notice::Acknowledge { epoch, phase });
        self.commands.extend(again.map(Command::Agent));
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let activation = self.pending.as_ref().and_then(Pending::due);
        let (grace, lease) = match &self.state {
            State::InForce(in_force) => (in_force.grace_until, Some(in_force.lease_end)),
            State::Waiting | State::Lapsed(_) | State::LostTime(_) => (None, None),
        };
        [activation, grace, lease].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The update in force, the next one, and the end of the lease.
    pub fn view(&self) -> View<'_> {
        let next = self.pending.as_ref().map(|pending| &**pending.update);
        match &self.state {
            State::Waiting => View {
                update: None,
                next,
                lease_end: None,
                lapsed: false,
            },
            State::InForce(in_force) => {
                let lease_end = Some(in_force.lease_end);
                View {
                    update: Some(&in_force.update),
                    next,
                    lease_end,
                    lapsed: false,
                }
            }
            State::Lapsed(lapsed) | State::LostTime(lapsed) => View {
                update: Some(&lapsed.update),
                next,
                lease_end: None,
                lapsed: true,
            },
        }
    }

    // ---- verify -----------------------------------------------------------------------------

    /// Whether the update is newer than what this machine holds; the same again is not news.
    fn is_news(&self, update: &Verified<EpochUpdate>) -> Result<bool, UpdateError> {
        // The authority of this mesh may sign for other segments too: an update of one of those is as
        // genuine as ours, and would replace this segment's members by that one's.
        if update.scope() != self.identity.scope(update.epoch) {
            return Err(UpdateError::Foreign);
        }
        let HighWater {
            epoch: have,
            digest,
        } = self.newest;
        let got = update.epoch;
        if self.holds(update) {
            return Ok(false);
        }
        if got < have {
            return Err(UpdateError::Old { have, got });
        }
        if got == have {
            // After a restart the epoch in force is taken once more; only its digest is remembered.
            let same = update.digest() == digest;
            return if same {
                Ok(true)
            } else {
                Err(UpdateError::Forked(got))
            };
        }
        let continues = have == Epoch(0) || got > have.next() || update.previous == digest;
        if continues {
            Ok(true)
        } else {
            Err(UpdateError::Forked(got))
        }
    }

    /// Whether exactly this update is pending, in force, or was when its lease ended.
    fn holds(&self, update: &Verified<EpochUpdate>) -> bool {
        let digest = update.digest();
        let pending = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.update.digest() == digest);
        pending
            || match &self.state {
                State::Waiting | State::LostTime(_) => false,
                State::InForce(in_force) => in_force.update.digest() == digest,
                State::Lapsed(lapsed) => lapsed.update.digest() == digest,
            }
    }

    /// The controller says of an update that is held already how old it is. Clearly more than was counted
    /// here means that time was lost; less is no reason to go on for longer.
    fn shorten(&mut self, update: &Verified<EpochUpdate>, age: Duration, now: Duration) {
        let digest = update.digest();
        let said = now + (update.activate_in() + update.lease()).saturating_sub(age);
        // A way that is quicker than the first time is no time lost.
        let lost = |held: Duration| Some(held.saturating_sub(said)).filter(|it| *it >= UNCERTAIN);
        match (&mut self.state, &mut self.pending) {
            (_, Some(pending)) if pending.update.digest() == digest => {
                if let Some(lost) = lost(pending.lease_end) {
                    pending.earlier(lost);
                }
            }
            (State::InForce(in_force), _) if in_force.update.digest() == digest => {
                if let Some(lost) = lost(in_force.lease_end) {
                    in_force.earlier(lost);
                }
            }
            (State::Waiting | State::InForce(_) | State::Lapsed(_) | State::LostTime(_), _) => {}
        }
        self.handle_timeout(now);
    }

    // ---- install ----------------------------------------------------------------------------

    /// The epoch secret, if it is the update's; `None` when this node is not a member.
    fn secret_for(
        &self,
        update: &Verified<EpochUpdate>,
        secret: Option<EpochSecret>,
    ) -> Result<Option<EpochSecret>, UpdateError> {
        let Some(own) = update.member(&self.identity.node) else {
            return Ok(None);
        };
        let epoch = update.epoch;
        if own.wg != self.identity.wg.public() {
            return Err(UpdateError::WrongKey(epoch));
        }
        let secret = secret.ok_or(UpdateError::NoSecret(epoch))?;
        if secret.commitment() != update.commitment {
            return Err(UpdateError::WrongSecret(epoch));
        }
        Ok(Some(secret))
    }

    /// Has the data plane install an update, and begin it if that is due.
    fn install(&mut self, mut pending: Pending, peers: Vec<PeerPlan>, now: Duration) {
        let epoch = pending.update.epoch;
        let closes = pending.update.on_lease_end == LeaseEnd::Close;
        let install = Install {
            epoch,
            peers,
            rules: Box::new(pending.update.rules.clone()),
            own: pending.update.groups_of(&self.identity.node),
            behind: pending.update.routes_of(&self.identity.node).to_vec(),
            lead: pending.activate_at.saturating_sub(now),
            closes_at: closes.then_some(pending.lease_end),
        };
        let mut change = EpochChange {
            install: Some(install),
            ..EpochChange::default()
        };
        let acknowledge = Notice::Acknowledge {
            epoch,
            phase: Phase::Installed,
        };
        let report = Notice::Report(Change::Installed { epoch });
        pending.stage = Stage::Installed;
        if pending.begins(now) {
            // The epoch begins in the same step. A peer that it leaves out is gone before the first
            // handshake of the others, and no packet passes in between.
            self.pending = None;
            let (turn, begun) = self.begin(pending, now);
            change.turn = Some(turn);
            // That it has begun is acknowledged, and says that it is installed.
            self.push(change, [report].into_iter().chain(begun));
        } else {
            self.pending = Some(pending);
            self.push(change, [acknowledge, report]);
        }
        self.handle_timeout(now);
    }

    /// The peers that a pending update leaves out are gone when it is due, even if its PSKs are not there yet:
    /// a node that was removed must not be heard for as long as it takes to let others in.
    fn cut(&mut self, now: Duration) {
        let own = self.identity.node;
        let Some(pending) = self.pending.as_mut().filter(|it| it.activate_at <= now) else {
            return;
        };
        let Stage::Deriving(deriving) = &mut pending.stage else {
            return;
        };
        if !std::mem::replace(&mut deriving.has_cut, true) {
            let keep = pending.keep(&own, true);
            self.push(keep.into(), []);
        }
    }

    // ---- activate ---------------------------------------------------------------------------

    /// Puts a pending update in force: what that means for the data plane, and what the agent has to do.
    fn begin(&mut self, pending: Pending, now: Duration) -> (Turn, Vec<Notice>) {
        let Pending {
            update, lease_end, ..
        } = pending;
        let epoch = update.epoch;
        let digest = update.digest();
        let own = update.member(&self.identity.node);
        // A node that is left out closes at once, without a grace: its peers have dropped it already.
        let is_member = own.is_some();
        let (turn, phase, change) = if let Some(own) = own {
            let others = update.roster.iter().filter(|it| it.node != own.node);
            let connects = |it: &&wire::Member| update.rules.connect(own.groups, it.groups);
            let peers = others.filter(connects).count();
            let activated = Change::Activated { epoch, peers };
            (Turn::Begin(epoch), Phase::Activated, activated)
        } else {
            let reason = update.denial(&self.identity.node).map(str::to_owned);
            let excluded = Change::Excluded { epoch, reason };
            (Turn::Close, Phase::Dark, excluded)
        };
        // The disk comes last, so that a slow one delays nobody's revocation.
        self.activated = HighWater { epoch, digest };
        let notices = vec![
            Notice::Acknowledge { epoch, phase },
            Notice::Report(change),
            Notice::Persist(self.activated),
        ];
        let members: HashSet<&WgPublicKey> =
            update.roster.iter().map(|member| &member.wg).collect();
        self.shared.retain(|key| members.contains(key));
        let grace_until = is_member.then_some(now + update.grace());
        self.state = State::InForce(InForce {
            update,
            lease_end,
            grace_until,
        });
        (turn, notices)
    }

    /// The data plane changes before anybody is told that it has.
    fn push(&mut self, change: EpochChange, notices: impl IntoIterator<Item = Notice>) {
        self.commands.push_back(Command::Data(change));
        self.commands
            .extend(notices.into_iter().map(Command::Agent));
    }

    // ---- close ------------------------------------------------------------------------------

    /// As a restart: no peers, nothing on its way, and what was in force is remembered by its digest. Returns
    /// the update that was.
    fn forget(
        &mut self,
        now: Duration,
        why: impl Fn(Epoch) -> Change,
    ) -> Option<Arc<Verified<EpochUpdate>>> {
        let pending = self.pending.take().map(|pending| pending.update);
        let update = match std::mem::replace(&mut self.state, State::Waiting) {
            State::InForce(in_force) => Some(in_force.update),
            State::Lapsed(lapsed) | State::LostTime(lapsed) => Some(lapsed.update),
            State::Waiting => None,
        };
        // Closing leaves what is installed for an epoch to come, and a member that is ahead could begin to
        // send on it: an installation without peers takes that away first.
        let install = pending.as_ref().map(|pending| Install {
            epoch: pending.epoch,
            peers: Vec::new(),
            rules: Box::default(),
            own: Groups::default(),
            behind: Vec::new(),
            lead: Duration::ZERO,
            closes_at: Some(now),
        });
        self.newest = self.activated;
        let named = update.as_ref().or(pending.as_ref());
        let closed = named.map(|it| Notice::Report(why(it.epoch)));
        let turn = Some(Turn::Close);
        let change = EpochChange {
            keep: None,
            install,
            turn,
        };
        self.push(change, closed);
        update
    }

    fn lapse(&mut self) {
        let State::InForce(in_force) = std::mem::replace(&mut self.state, State::Waiting) else {
            return;
        };
        let (epoch, then) = (in_force.update.epoch, in_force.update.on_lease_end);
        let ended = Notice::Report(Change::LeaseEnded { epoch, then });
        let turn = match then {
            // Nobody has said for a whole lease that the members are still members: an eviction that this
            // node could not hear of must not be outlived.
            LeaseEnd::Close => Some(Turn::Close),
            // The epoch goes on, and what came before it does not: no timer is left that would end it.
            LeaseEnd::Open => in_force.grace_until.map(|_| Turn::DiscardPrevious),
        };
        match turn {
            Some(turn) => self.push(turn.into(), [ended]),
            None => self.commands.push_back(Command::Agent(ended)),
        }
        self.state = State::Lapsed(Lapsed {
            update: in_force.update,
        });
    }
}

/// PSKs of known peers that are derived where an update is taken: two milliseconds of them.
pub const DERIVE_AT_ONCE: usize = 2_000;
/// How much the way of an update may differ from one time to the next.
const UNCERTAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
