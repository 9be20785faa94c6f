//! The controller's one owner of state. Synchronous: inputs are `handle_*` and [`Engine::operator`]
//! with the time as an argument, outputs are [`Engine::poll_effect`] and [`Engine::poll_timeout`].
//!
//! | File | Holds |
//! |---|---|
//! | here | construction, timers, the one way to the log |
//! | [`crate::rotate`] | decide → persist → sign → push |
//! | [`crate::enrol`] | unknown keys, tokens, names, addresses |
//! | [`crate::ingest`] | what enrolled nodes say |
//! | [`crate::push`] | what nodes are told |
//! | [`crate::operator`] | what operators ask |
//! | [`crate::status`], [`crate::metrics`] | what all of that looks like from outside |

use crate::clock::Now;
use crate::counts::Counts;
use crate::decide::Cause;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::ingest::kept_bytes;
use crate::log::{Log, LogError, NewEpoch, StoredEpoch, is_evidence};
use crate::network::{Network, NetworkError};
use crate::push::moves;
use crate::rotate::{Issue, Unpublished};
use allowance::Bucket;
use epoch::authority::{Authority, Kind, NotNow, Timer, Timing};
use keys::{AuthoritySecret, ControllerId, Epoch, MeshId, NodeId};
use policy::{Policy, PolicyError};
use rand_core::{OsRng, RngCore as _};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use wire::NodeName;
use wire::admin::Observation;
use wire::message::Phase;

/// What the engine must be told once.
#[derive(Debug)]
pub struct Setup {
    /// The policy.
    pub policy: Policy,
    /// The mesh's IPv4 range.
    pub mesh_v4: (Ipv4Addr, u8),
    /// The mesh's IPv6 range; `None`: from the mesh's id.
    pub mesh_v6: Option<(Ipv6Addr, u8)>,
    /// Where nodes reach the controller, for tokens.
    pub advertise: Vec<String>,
    /// The key that nodes pin, for tokens.
    pub controller: ControllerId,
    /// Signs updates.
    pub authority: AuthoritySecret,
    /// Which boot of the machine this is.
    pub boot_id: String,
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy does not hold together.
    #[error("the policy cannot be used: {0}")]
    Policy(#[from] PolicyError),
    /// The address ranges do not.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The log does not open or take the first events.
    #[error("the event log cannot be used: {0}")]
    Log(#[from] LogError),
    /// The first epoch cannot be published.
    #[error("the first epoch cannot be published: {0}")]
    Publish(#[from] Unpublished),
}

pub use crate::effect::{ConnectionId, Effect};

/// The machine.
#[derive(Debug)]
pub struct Engine {
    pub(crate) setup: Setup,
    pub(crate) network: Network,
    pub(crate) mesh: MeshId,
    pub(crate) log: Log,
    pub(crate) fleet: Fleet,
    pub(crate) authority: Authority,
    /// The epoch in force and the one on its way, as far as they can be pushed.
    pub(crate) issues: BTreeMap<Epoch, Issue>,
    pub(crate) held: BTreeSet<NodeName>,
    pub(crate) sessions: BTreeMap<ConnectionId, Session>,
    pub(crate) live: BTreeMap<NodeName, Live>,
    pub(crate) enrolments: Bucket,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) counts: Counts,
    /// When the newest place of a node that moves too often is told.
    pub(crate) news_due: BTreeMap<NodeName, Duration>,
    /// A node that holds an epoch of this authority which the log does not know.
    pub(crate) alarm: Option<(NodeName, Epoch)>,
    keys_changed: bool,
    join_at: Option<Duration>,
    recover: bool,
    settle_until: Duration,
    retry_at: Duration,
    write_failed: bool,
    dirty: bool,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: NodeId,
    pub(crate) remote: SocketAddr,
    pub(crate) stage: Stage,
}

/// How far a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing that counts was said.
    Opening {
        /// When it must have been.
        deadline: Duration,
    },
    /// An enrolled node's session.
    Serving {
        /// The node.
        name: NodeName,
    },
}

/// What is known about a node while the controller runs; nothing of it decides membership.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) connection: Option<ConnectionId>,
    /// UDP port and configured addresses, as the node said last.
    pub(crate) announced: (u16, Vec<SocketAddr>),
    /// What follows from that and from where the node is seen.
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) acked: Option<(Epoch, Phase)>,
    pub(crate) clock_skew_ms: Option<i64>,
    pub(crate) software: Option<String>,
    pub(crate) observes: BTreeMap<NodeName, Observation>,
    pub(crate) evidence: Bucket,
    /// How many bytes of its evidence may be kept.
    pub(crate) kept_bytes: Bucket,
    /// Moves that its peers are told of at once.
    pub(crate) moves: Bucket,
    pub(crate) last_refusal: Option<String>,
}

impl Engine {
    /// Resumes from what the log holds, with `fleet` as its fold and the `epochs` that are kept beside it,
    /// or starts a mesh.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        setup: Setup,
        mut log: Log,
        mut fleet: Fleet,
        epochs: Vec<StoredEpoch>,
        now: Now,
    ) -> Result<Self, StartError> {
        setup.policy.validate()?;
        if fleet.mesh().is_none() {
            let mut mesh = MeshId([0; 16]);
            OsRng.fill_bytes(&mut mesh.0);
            // Refuse a bad range before it is durable.
            Network::new(setup.mesh_v4, setup.mesh_v6, mesh)?;
            let event = Event::MeshCreated { mesh };
            log.append(
                now.wall,
                std::slice::from_ref(&event),
                None,
                &setup.authority,
            )?;
            fleet.apply(now.wall, &event);
        }
        let mesh = fleet.mesh().expect("the mesh was created above");
        let network = Network::new(setup.mesh_v4, setup.mesh_v6, mesh)?;
        let highest = fleet.nodes().values().map(|node| node.host).max();
        if let Some(host) = highest.filter(|host| *host > network.last_host()) {
            return Err(NetworkError::TooSmall(host, network.last_host()).into());
        }
        fleet.start_ageing(now);
        let mut engine = Self {
            authority: Authority::new(timing(&setup.policy)),
            setup,
            network,
            mesh,
            log,
            fleet,
            issues: BTreeMap::new(),
            held: BTreeSet::new(),
            sessions: BTreeMap::new(),
            live: BTreeMap::new(),
            enrolments: Bucket::new(ENROLMENTS_PER_SECOND, ENROLMENT_BURST),
            effects: VecDeque::new(),
            counts: Counts::default(),
            news_due: BTreeMap::new(),
            alarm: None,
            keys_changed: true,
            join_at: None,
            recover: false,
            settle_until: Duration::ZERO,
            retry_at: Duration::ZERO,
            write_failed: false,
            dirty: true,
        };
        engine.resume(epochs, now);
        if engine.authority.in_force().is_none() {
            engine.publish(Cause::Scheduled, Kind::Scheduled, &[], now)?;
        } else {
            // Nodes need a moment to connect and to prove themselves to a controller that was away.
            let settle = SETTLE.min(engine.setup.policy.epoch() / 4);
            engine.settle_until = now.boot + settle;
            engine.recover = !engine.issues_complete();
            if engine.anyone_joins(now) {
                engine.want_join(now);
            }
        }
        Ok(engine)
    }

    /// What the shell shall do next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether anything that the status shows has changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// The keys of all enrolled nodes.
    pub fn enrolled(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.fleet.nodes().values().map(|node| node.id)
    }

    /// Whether [`Self::enrolled`] may have changed since the last call.
    pub fn take_keys_changed(&mut self) -> bool {
        std::mem::take(&mut self.keys_changed)
    }

    /// What can wait until the effects are carried out: a revocation does not.
    pub fn tidy(&mut self, now: Now) {
        self.log.tidy(self.fleet.nodes().len(), now.boot);
    }

    /// When [`Self::handle_timeout`] is due, on the boot-time clock.
    pub fn poll_timeout(&self, now: Now) -> Duration {
        let (at, timer) = self.authority.poll_timeout();
        let authority = match timer {
            Timer::Activation => at,
            Timer::Scheduled => at.max(self.retry_at).max(self.settle_until),
        };
        let join = self.join_at.map(|at| self.retry_after(at));
        let recover = self.recover.then_some(self.retry_at);
        let opening = self.sessions.values().filter_map(|s| match s.stage {
            Stage::Opening { deadline } => Some(deadline),
            Stage::Serving { .. } => None,
        });
        let news = self.news_due.values().min().copied();
        let timers = [join, recover, self.revocation_at(now), news];
        timers
            .into_iter()
            .flatten()
            .chain(opening)
            .fold(authority, Duration::min)
    }

    /// Does whatever is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if let Some(epoch) = self.authority.handle_timeout(now.boot) {
            self.issues.retain(|number, _| *number >= epoch);
            tracing::debug!(%epoch, "epoch in force");
            self.touch();
        }
        self.close_silent(now);
        self.tell_news(now);
        if now.boot < self.retry_at {
            return;
        }
        if self.recover {
            self.recover = false;
            let published = self.publish(Cause::Recovery, Kind::Immediate, &[], now);
            self.recover = published.is_err();
        }
        if self.authority.due(now.boot) && (self.settle_until <= now.boot || self.all_pass(now)) {
            let cause = if self.log.is_short_of_room() {
                Cause::Unjudged
            } else {
                Cause::Scheduled
            };
            // A failure is reported where it happens, and tried again.
            let _ = self.publish(cause, Kind::Scheduled, &[], now);
        }
        if self.join_at.is_some_and(|at| at <= now.boot) {
            self.try_join(now);
        }
        self.revoke_failing(now);
    }

    /// A node may be able to join: soon, together with others.
    pub(crate) fn want_join(&mut self, now: Now) {
        let soon = now.boot + JOIN_DEBOUNCE;
        self.join_at = Some(self.join_at.unwrap_or(soon).min(soon));
    }

    fn try_join(&mut self, now: Now) {
        self.join_at = None;
        if !self.anyone_joins(now) {
            return;
        }
        // Where nobody has a session, nobody can lose a packet: no lead.
        let alone = self.fleet.roster().is_empty() && self.issues.values().all(Issue::is_empty);
        let kind = if alone { Kind::Immediate } else { Kind::Join };
        match self.publish(Cause::Join, kind, &[], now) {
            Ok(_) | Err(Unpublished::NotNow(NotNow::Soon)) => {}
            Err(Unpublished::NotNow(NotNow::Pending)) => {
                let next = self.authority.next().map(|span| span.activates);
                self.join_at = next.or(Some(now.boot + JOIN_DEBOUNCE));
            }
            Err(Unpublished::Log | Unpublished::Rule(_)) => self.join_at = Some(self.retry_at),
        }
    }

    /// Makes events durable and only then folds them. On an error nothing has changed.
    pub(crate) fn commit(&mut self, events: &[Event], now: Now) -> Result<(), Unpublished> {
        let authority = &self.setup.authority;
        let written = self.log.append(now.wall, events, None, authority);
        if is_evidence(events) {
            // Evidence comes all the time. If its failures put off what else is to be written, a full disk
            // would stop epochs for which there is room.
            written.map_err(|_| Unpublished::Log)?;
        } else {
            self.written(written, now)?;
        }
        for event in events {
            self.fleet.apply(now.wall, event);
        }
        self.keys_changed |= change_keys(events);
        self.touch();
        Ok(())
    }

    /// As [`Self::commit`], with an epoch; the caller folds.
    pub(crate) fn commit_epoch(
        &mut self,
        events: &[Event],
        epoch: &Issue,
        now: Now,
    ) -> Result<(), Unpublished> {
        let keep = self.authority.in_force().map(|span| span.epoch);
        let new = NewEpoch {
            epoch: epoch.update.epoch,
            signed: &epoch.signed,
            secret: &epoch.secret,
            // An epoch without lead is in force at once: the one before is of no more use.
            keep: keep.filter(|_| epoch.update.activate_in_ms > 0),
        };
        let authority = &self.setup.authority;
        let written = self.log.append(now.wall, events, Some(&new), authority);
        self.keys_changed |= change_keys(events);
        self.written(written, now)
    }

    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }

    /// The session of an enrolled node.
    pub(crate) fn live_mut(&mut self, name: &NodeName) -> &mut Live {
        self.live.entry(name.clone()).or_insert_with(Live::new)
    }

    fn written(&mut self, result: Result<(), LogError>, now: Now) -> Result<(), Unpublished> {
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.write_failed) {
                    tracing::info!("the event log can be written again");
                }
                Ok(())
            }
            Err(error) => {
                self.retry_at = now.boot + RETRY;
                if !std::mem::replace(&mut self.write_failed, true) {
                    tracing::error!(%error, "the event log cannot be written: what is in force \
                        stays so, everything else is refused until it can");
                }
                Err(Unpublished::Log)
            }
        }
    }

    /// Whether the log took what it was given last.
    pub(crate) fn log_writable(&self) -> bool {
        !self.write_failed
    }

    /// Makes nothing worse: what failed is not tried again before this.
    pub(crate) fn retry_after(&self, at: Duration) -> Duration {
        at.max(self.retry_at)
    }

    /// Failed for another reason than the log.
    pub(crate) fn back_off(&mut self, now: Now) {
        self.retry_at = now.boot + RETRY;
    }

    /// When nodes have had their time to prove themselves after a restart.
    pub(crate) fn settle_until(&self) -> Duration {
        self.settle_until
    }

    /// Whether every member has proved itself already, so that settling has served its purpose.
    fn all_pass(&self, now: Now) -> bool {
        self.fleet.roster().iter().all(|name| {
            self.fleet.node(name).is_some_and(|node| {
                policy::judge(&self.setup.policy, &node.record(now), now.wall)
                    .reason
                    .is_none()
            })
        })
    }
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            connection: None,
            announced: (0, Vec::new()),
            endpoints: Vec::new(),
            acked: None,
            clock_skew_ms: None,
            software: None,
            observes: BTreeMap::new(),
            evidence: Bucket::new(EVIDENCE_PER_SECOND, EVIDENCE_BURST),
            kept_bytes: kept_bytes(),
            moves: moves(),
            last_refusal: None,
        }
    }
}

/// Whether the keys of enrolled nodes are others after these events.
fn change_keys(events: &[Event]) -> bool {
    let changes = |event: &Event| {
        matches!(
            event,
            Event::NodeEnrolled { .. } | Event::NodeRekeyed { .. }
        )
    };
    events.iter().any(changes)
}

fn timing(policy: &Policy) -> Timing {
    Timing {
        epoch: policy.epoch(),
        lease: policy.lease(),
        on_lease_end: policy.on_lease_end,
    }
}

/// Joins within this time share an epoch.
const JOIN_DEBOUNCE: Duration = Duration::from_millis(200);
/// After a failed write.
const RETRY: Duration = Duration::from_secs(1);
/// After a restart, at most.
const SETTLE: Duration = Duration::from_secs(10);
const ENROLMENTS_PER_SECOND: u32 = 20;
const ENROLMENT_BURST: u32 = 64;
const EVIDENCE_PER_SECOND: u32 = 10;
const EVIDENCE_BURST: u32 = 20;
