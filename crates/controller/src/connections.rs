//! Open connections, and what is known about nodes while the controller runs: where they are, what they said,
//! and which process speaks for each. Nothing here decides membership, and nothing here outlives the process.
//! Refuses to know who is a member: whoever pushes asks a segment.
//!
//! The file is long because a connection's stages, and two processes that claim one node, are one machine.

use crate::announced::Announced;
use crate::clock::Now;
use crate::counts::{countable, refusals};
use crate::effect::{ConnectionId, Output};
use allowance::Bucket;
use exposition::Tally;
use keys::{Epoch, NodeId, SegmentId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use wire::instance::Seen;
use wire::message::{Hello, InterfaceReport, MAX_HELD, NodeFault, Phase, Refusal};
use wire::{Digest, Duplicate, Instance, NodeName, ToNode, Way};

/// All of them.
#[derive(Debug)]
pub(crate) struct Connections {
    sessions: BTreeMap<ConnectionId, Session>,
    /// Those that are not served: few, and looked at with every input.
    unserved: BTreeSet<ConnectionId>,
    live: BTreeMap<NodeName, Live>,
    /// When the newest place of a node that moves too often is told.
    news_due: BTreeMap<NodeName, Duration>,
    /// Connections that were closed with a word.
    refused: Tally<Refusal>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// The key that it proved. A name may get another key while the connection is open, so that only this one
    /// says what may be sent on it.
    pub(crate) peer: NodeId,
    pub(crate) remote: SocketAddr,
    pub(crate) stage: Stage,
    /// The log as its node knows it.
    pub(crate) kept: Cell<Kept>,
    /// Digests of updates that its node holds, by what it said and acknowledged; oldest first.
    pub(crate) holds: RefCell<Vec<Digest>>,
    /// Up to where its node was told of the places of others, by segment.
    pub(crate) told: RefCell<BTreeMap<SegmentId, u64>>,
}

impl Session {
    /// Up to where its node was told of the places of others.
    pub(crate) fn told(&self, segment: SegmentId) -> u64 {
        self.told.borrow().get(&segment).copied().unwrap_or(0)
    }

    /// Its node holds one more update.
    pub(crate) fn hold(&self, digest: Digest) {
        let mut holds = self.holds.borrow_mut();
        if holds.contains(&digest) {
            return;
        }
        if holds.len() >= MAX_HELD {
            holds.remove(0);
        }
        holds.push(digest);
    }
}

/// The log as a node knows it, by what it said and by what it was sent since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It knows none.
    #[default]
    Nothing,
    /// It knows this one, with so many events.
    Events(u64),
    /// It knows another one.
    Another,
}

/// How far a connection has come.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// Nothing that counts was said.
    Opening {
        /// When it must have been.
        deadline: Duration,
    },
    /// Says that it is a node's, while another process has that node's session and may be there. It is served
    /// once that one is gone, or has not answered.
    Claiming {
        /// The node.
        name: NodeName,
        /// The words to be heard then.
        hello: Box<Hello>,
        /// How long the other has to answer.
        until: Duration,
    },
    /// Its key is on record, and an operator has not approved it yet.
    Waiting,
    /// An enrolled node's session.
    Serving {
        /// The node.
        name: NodeName,
    },
}

/// One node.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) connection: Option<ConnectionId>,
    /// Since when it is served on that, on the boot-time clock.
    pub(crate) since: Option<Duration>,
    /// The process that was served last.
    instance: Option<Instance>,
    /// The last time that another one ran with the same keys.
    sighting: Option<Sighting>,
    /// Take-overs that need no roll call.
    takeovers: Bucket,
    /// Where it can be reached, as it said last.
    pub(crate) announced: Announced,
    /// Follows from that and from where the node is seen.
    pub(crate) endpoints: Vec<SocketAddr>,
    /// How far it has come in each segment, by its own word.
    pub(crate) acked: BTreeMap<SegmentId, (Epoch, Phase)>,
    pub(crate) clock_skew_ms: Option<i64>,
    pub(crate) software: Option<String>,
    /// When it was last heard on its connection, on the boot-time clock.
    pub(crate) heard: Option<Duration>,
    /// Its last report of each segment, on the connection that it has.
    pub(crate) reports: BTreeMap<SegmentId, Report>,
    /// How good its tunnels are, by node, as the next report of each segment will have it.
    pub(crate) tunnels: BTreeMap<SegmentId, BTreeMap<NodeId, Quality>>,
    /// All that is wrong with it besides its interfaces, by its word on the connection that it has.
    pub(crate) condition: Vec<NodeFault>,
    /// Requests for other segments.
    pub(crate) joins: Bucket,
    pub(crate) evidence: Bucket,
    /// How many bytes of its evidence may be kept.
    pub(crate) kept_bytes: Bucket,
    /// Moves that its peers are told of at once.
    moves: Bucket,
    pub(crate) last_refusal: Option<String>,
}

/// Two processes with one node's keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting {
    pub(crate) duplicate: Duplicate,
    pub(crate) seen: Now,
    /// When an operator was told of it last, on the boot-time clock.
    told: Duration,
}

/// A node's report of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Its sessions with others.
    pub(crate) observes: BTreeMap<NodeName, Observed>,
    /// Its interface there.
    pub(crate) interface: InterfaceReport,
    /// When it came, on the boot-time clock.
    pub(crate) at: Duration,
}

/// One node's word on its session with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The epoch of the session that packets are sent on; `None`: there is none.
    pub(crate) session_epoch: Option<Epoch>,
    /// Round trip in microseconds; `None`: the last echo was not answered.
    pub(crate) rtt_v4_us: Option<u32>,
    /// Likewise.
    pub(crate) rtt_v6_us: Option<u32>,
    /// Where its system sends packets to the other's addresses, IPv4 and IPv6.
    pub(crate) ways: [Way; 2],
    /// How good their tunnel is; `None`: the node does not say, or there is none.
    pub(crate) tunnel: Option<Quality>,
    /// Since which of its words, each of which said the same, the other answers nothing; on the boot-time clock.
    pub(crate) dark_since: Option<Duration>,
    /// When it said so, on the boot-time clock.
    pub(crate) at: Duration,
}

/// How good a tunnel is, by the word of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quality {
    /// When the handshake of its session was, on the boot-time clock here; `None`: there is no session.
    pub(crate) handshake: Option<Duration>,
    /// The last echoes, of both families.
    pub(crate) echoes: u8,
    /// Those of them that were not answered.
    pub(crate) lost: u8,
}

impl Observed {
    /// Whether it says the same, whenever.
    pub(crate) fn says(&self, other: &Self) -> bool {
        *self
            == Self {
                at: self.at,
                ..other.clone()
            }
    }

    /// Whether the other answers nothing: no session, or no echo of either family.
    pub(crate) fn is_dark(&self) -> bool {
        self.session_epoch.is_none() || (self.rtt_v4_us.is_none() && self.rtt_v6_us.is_none())
    }

    /// Whether it says anything of now.
    pub(crate) fn counts(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) < OBSERVED_FOR
    }
}

/// A node's word on a peer counts for so long: in a large mesh it does not speak of everybody each time.
pub(crate) const OBSERVED_FOR: Duration = Duration::from_secs(120);
/// Peers that a node's word is kept of, where they are more than its last report has: the newest.
pub(crate) const MOST_OBSERVED: usize = 64;

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            sessions: BTreeMap::new(),
            unserved: BTreeSet::new(),
            live: BTreeMap::new(),
            news_due: BTreeMap::new(),
            refused: refusals(),
        }
    }

    /// A key has proved itself on a new connection.
    pub(crate) fn open(
        &mut self,
        id: ConnectionId,
        peer: NodeId,
        remote: SocketAddr,
        output: &mut Output,
        now: Now,
    ) {
        // One connection per key that has said nothing yet: a key cannot crowd out others.
        let silent = |s: &Session| s.peer == peer && matches!(s.stage, Stage::Opening { .. });
        let older = self.unserved().find(|(_, s)| silent(s));
        let older = older.map(|(id, _)| id);
        if let Some(older) = older {
            self.close(older, Refusal::Superseded, output);
        }
        let session = Session {
            peer,
            remote,
            stage: Stage::opening(now),
            kept: Cell::default(),
            holds: RefCell::default(),
            told: RefCell::default(),
        };
        self.sessions.insert(id, session);
        self.unserved.insert(id);
    }

    /// A connection is seen at another address. Returns the node that it serves, if that may be elsewhere now.
    pub(crate) fn moved(&mut self, id: ConnectionId, remote: SocketAddr) -> Option<NodeName> {
        let session = self.sessions.get_mut(&id)?;
        if std::mem::replace(&mut session.remote, remote).ip() == remote.ip() {
            return None;
        }
        match &session.stage {
            Stage::Serving { name } => Some(name.clone()),
            Stage::Opening { .. } | Stage::Claiming { .. } | Stage::Waiting => None,
        }
    }

    /// A connection's other side was last heard at `at`.
    pub(crate) fn heard(&mut self, id: ConnectionId, at: Duration, output: &mut Output, now: Now) {
        let Some(Stage::Serving { name }) = self.sessions.get(&id).map(|it| &it.stage) else {
            return;
        };
        let Some(live) = self
            .live
            .get_mut(name)
            .filter(|live| live.connection == Some(id))
        else {
            return;
        };
        let was_silent = live.is_silent(now);
        live.heard = Some(at);
        if live.is_silent(now) != was_silent {
            output.touch();
        }
    }

    /// A connection has ended.
    pub(crate) fn ended(&mut self, id: ConnectionId, output: &mut Output) {
        self.unserved.remove(&id);
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        if let Stage::Waiting = session.stage {
            output.touch();
        }
        if let Stage::Serving { name } = session.stage
            && self.live_mut(&name).connection == Some(id)
        {
            self.live_mut(&name).connection = None;
            tracing::info!(node = %name, "node disconnected");
            output.touch();
        }
    }

    /// Says why and forgets the connection.
    pub(crate) fn close(&mut self, id: ConnectionId, reason: Refusal, output: &mut Output) {
        self.unserved.remove(&id);
        if let Some(session) = self.sessions.remove(&id)
            && let Stage::Serving { name } = session.stage
            && let Some(live) = self.live.get_mut(&name)
            && live.connection == Some(id)
        {
            live.connection = None;
            tracing::info!(node = %name, %reason, "node disconnected");
            output.touch();
        }
        self.refused.count(countable(reason));
        output.close(id, reason);
    }

    /// Closes connections that have said nothing in time.
    pub(crate) fn close_silent(&mut self, output: &mut Output, now: Now) {
        let late = self
            .openings()
            .filter(|(_, deadline)| *deadline <= now.boot);
        let late: Vec<ConnectionId> = late.map(|(id, _)| id).collect();
        for id in late {
            self.close(id, Refusal::Protocol, output);
        }
    }

    /// Tells every connection that the controller stops.
    pub(crate) fn stop(&mut self, output: &mut Output) {
        self.unserved.clear();
        for id in std::mem::take(&mut self.sessions).into_keys() {
            self.refused.count(Refusal::Stopping);
            output.close(id, Refusal::Stopping);
        }
        for live in self.live.values_mut() {
            live.connection = None;
        }
        output.touch();
    }

    pub(crate) fn session(&self, id: ConnectionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// A connection waits for an operator's word, and the one before of the same key does not.
    pub(crate) fn wait(&mut self, id: ConnectionId, output: &mut Output) {
        let Some(peer) = self.sessions.get(&id).map(|it| it.peer) else {
            return;
        };
        let older = self.waiting().into_iter();
        let older = older.filter(|(other, key)| *key == peer && *other != id);
        for (older, _) in older {
            self.close(older, Refusal::Superseded, output);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.stage = Stage::Waiting;
            output.touch();
        }
    }

    /// The connections that wait for an operator's word, each with the key that it proved.
    pub(crate) fn waiting(&self) -> Vec<(ConnectionId, NodeId)> {
        let waiting = self.unserved();
        let waiting = waiting.filter(|(_, s)| matches!(s.stage, Stage::Waiting));
        waiting.map(|(id, s)| (id, s.peer)).collect()
    }

    /// Gives a connection that was answered the time of a new one.
    pub(crate) fn reopen(&mut self, id: ConnectionId, now: Now) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.stage = Stage::opening(now);
        }
    }

    /// Whether the process that another connection of the node belongs to may be there beside this one: then
    /// that connection has to be asked. A restart is known by its home, and follows at once, as does the same
    /// process by another way; but not for ever, because machines that were copied while they ran look alike.
    pub(crate) fn rival(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        instance: &Instance,
        now: Now,
    ) -> Option<ConnectionId> {
        let live = self.live_mut(name);
        let first = live.connection.filter(|first| *first != id)?;
        let before = live.instance?;
        let follows = instance.succeeds(&before) && live.takeovers.take(now.boot);
        (!follows).then_some(first)
    }

    /// A connection waits until its rival has answered, or has not.
    pub(crate) fn claim(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        hello: Hello,
        output: &mut Output,
        now: Now,
    ) {
        let mut until = now.boot + ROLL_CALL_TIME;
        // One claim per node, and its time does not begin anew with each: whoever asks again and again would
        // otherwise never be let in.
        if let Some((older, since)) = self.claim_of(name) {
            until = until.min(since);
            self.close(older, Refusal::Superseded, output);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.stage = Stage::Claiming {
                name: name.clone(),
                hello: Box::new(hello),
                until,
            };
        }
    }

    /// The process that is served is there: whoever claimed to be the same node is a duplicate, and both are
    /// told. Returns it if an operator has to be told too.
    pub(crate) fn handle_present(
        &mut self,
        first: ConnectionId,
        name: &NodeName,
        output: &mut Output,
        now: Now,
    ) -> Option<Duplicate> {
        let (other, _) = self.claim_of(name)?;
        let claiming = self.sessions.get(&other)?;
        let Stage::Claiming { hello, .. } = &claiming.stage else {
            return None;
        };
        let other_seen = Seen::at(claiming.remote, &hello.instance);
        let address = self.sessions.get(&first)?.remote;
        let live = self.live_mut(name);
        let duplicate = Duplicate {
            first: Seen::at(address, &live.instance?),
            other: other_seen,
        };
        let told = live.sighting.map(|sighting| sighting.told);
        let is_news = told.is_none_or(|told| told + TELL_AGAIN <= now.boot);
        live.sighting = Some(Sighting {
            duplicate,
            seen: now,
            told: told.filter(|_| !is_news).unwrap_or(now.boot),
        });
        output.send(first, ToNode::Duplicate(duplicate));
        output.send(other, ToNode::Duplicate(duplicate));
        self.close(other, Refusal::Duplicate, output);
        output.touch();
        is_news.then_some(duplicate)
    }

    /// The claims whose rivals have not answered, or are gone. Each has to be served or closed.
    pub(crate) fn take_claims(&mut self, now: Now) -> Vec<(ConnectionId, NodeName, Hello)> {
        let due = self.claims().filter(|(_, due)| *due <= now.boot);
        let due: Vec<ConnectionId> = due.map(|(id, _)| id).collect();
        let mut claims = Vec::new();
        for id in due {
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            let stage = std::mem::replace(&mut session.stage, Stage::opening(now));
            if let Stage::Claiming { name, hello, .. } = stage {
                claims.push((id, name, *hello));
            }
        }
        claims
    }

    /// The connections whose rivals are asked, and until when; at once where there is none any more.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (ConnectionId, Duration)> {
        self.unserved().filter_map(|(id, s)| match &s.stage {
            Stage::Claiming { name, until, .. } => {
                let live = self.live.get(name);
                let is_contested = live.is_some_and(|live| live.connection.is_some());
                Some((id, if is_contested { *until } else { Duration::ZERO }))
            }
            Stage::Opening { .. } | Stage::Serving { .. } | Stage::Waiting => None,
        })
    }

    fn unserved(&self) -> impl Iterator<Item = (ConnectionId, &Session)> {
        let ids = self.unserved.iter();
        ids.filter_map(|id| Some((*id, self.sessions.get(id)?)))
    }

    fn claim_of(&self, node: &NodeName) -> Option<(ConnectionId, Duration)> {
        self.unserved().find_map(|(id, s)| match &s.stage {
            Stage::Claiming { name, until, .. } if name == node => Some((id, *until)),
            Stage::Claiming { .. }
            | Stage::Opening { .. }
            | Stage::Serving { .. }
            | Stage::Waiting => None,
        })
    }

    /// A connection is a node's from now on, and the one before is not. Returns where it is seen; `None` if it
    /// is gone.
    pub(crate) fn serve(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        instance: Instance,
        output: &mut Output,
        now: Now,
    ) -> Option<SocketAddr> {
        // The older one may be dead without anybody having noticed, with all that was sent on it last: the node
        // hears everything anew on this one.
        if let Some(old) = self.live_mut(name).connection.replace(id) {
            self.close(old, Refusal::Superseded, output);
        }
        let session = self.sessions.get_mut(&id)?;
        session.stage = Stage::Serving { name: name.clone() };
        self.unserved.remove(&id);
        let remote = session.remote;
        let live = self.live_mut(name);
        live.connection = Some(id);
        live.since = Some(now.boot);
        // The other one has the session now, or the same one goes on.
        let before = live.instance.replace(instance);
        if before.is_some_and(|before| !instance.succeeds(&before)) {
            live.sighting = None;
        }
        live.heard = None;
        // Of another time: the next report says how it is now.
        live.reports.clear();
        live.tunnels.clear();
        live.condition.clear();
        Some(remote)
    }

    /// The name stands for another identity now: its connection is closed, and nothing that the old one said is
    /// the new one's.
    pub(crate) fn forget(&mut self, name: &NodeName, reason: Refusal, output: &mut Output) {
        if let Some(id) = self.live.get(name).and_then(|live| live.connection) {
            self.close(id, reason, output);
        }
        self.live.remove(name);
    }

    /// The connections of enrolled nodes, each with the key that it proved.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (ConnectionId, &NodeId, &NodeName)> {
        self.sessions.iter().filter_map(|(id, s)| match &s.stage {
            Stage::Serving { name } => Some((*id, &s.peer, name)),
            Stage::Opening { .. } | Stage::Claiming { .. } | Stage::Waiting => None,
        })
    }

    /// The connections that must say something that counts, and until when.
    pub(crate) fn openings(&self) -> impl Iterator<Item = (ConnectionId, Duration)> {
        self.unserved().filter_map(|(id, s)| match s.stage {
            Stage::Opening { deadline } => Some((id, deadline)),
            Stage::Claiming { .. } | Stage::Serving { .. } | Stage::Waiting => None,
        })
    }

    pub(crate) fn live(&self, name: &NodeName) -> Option<&Live> {
        self.live.get(name)
    }

    pub(crate) fn live_mut(&mut self, name: &NodeName) -> &mut Live {
        self.live.entry(name.clone()).or_insert_with(Live::new)
    }

    /// A node is somewhere else now. Whether its peers are told at once; if it moves too often, that is news
    /// which waits, and then says only where the node is at that time. A member could otherwise make the
    /// controller send a message to every other one for each that it sends itself.
    pub(crate) fn moves(&mut self, name: &NodeName, now: Now) -> bool {
        let in_time = self.live_mut(name).moves.take(now.boot);
        let gathered =
            GATHER_PER_NODE.saturating_mul(u32::try_from(self.live.len()).unwrap_or(u32::MAX));
        let at_once = in_time && gathered <= AT_ONCE;
        if at_once {
            self.news_due.remove(name);
        } else {
            let pause = if in_time {
                gathered.min(NEWS_PAUSE)
            } else {
                NEWS_PAUSE
            };
            self.news_due
                .entry(name.clone())
                .or_insert(now.boot + pause);
        }
        at_once
    }

    /// The nodes whose news waits, and until when.
    pub(crate) fn news(&self) -> impl Iterator<Item = (&NodeName, Duration)> {
        self.news_due.iter().map(|(name, due)| (name, *due))
    }

    /// Whether news has waited for its time. All news is told then, or each node of many that move would have
    /// everybody told of itself alone.
    pub(crate) fn take_news(&mut self, now: Now) -> bool {
        let is_due = self.news().any(|(_, due)| due <= now.boot);
        if is_due {
            self.news_due.clear();
        }
        is_due
    }

    /// Connections that were closed with a word, since the start.
    pub(crate) fn refused(&self) -> &Tally<Refusal> {
        &self.refused
    }
}

impl Live {
    /// The other process that runs with this node's keys, if there was one of late.
    pub(crate) fn sighting(&self, now: Now) -> Option<&Sighting> {
        let sighting = self.sighting.as_ref()?;
        (now.boot < sighting.seen.boot + SIGHTING_TIME).then_some(sighting)
    }
}

impl Stage {
    fn opening(now: Now) -> Self {
        let deadline = now.boot + OPENING_TIME;
        Self::Opening { deadline }
    }
}

impl Live {
    /// Whether its connection, if it has one, says nothing.
    pub(crate) fn is_silent(&self, now: Now) -> bool {
        let silence = self.heard.map(|at| now.boot.saturating_sub(at));
        silence.is_some_and(|silence| silence >= quic::pulse::SILENT_AFTER)
    }

    fn new() -> Self {
        Self {
            connection: None,
            since: None,
            instance: None,
            sighting: None,
            takeovers: Bucket::per_ten_seconds(TAKEOVERS_IN_TEN_SECONDS, TAKEOVER_BURST),
            announced: Announced::default(),
            endpoints: Vec::new(),
            acked: BTreeMap::new(),
            clock_skew_ms: None,
            software: None,
            heard: None,
            reports: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            condition: Vec::new(),
            joins: Bucket::per_ten_seconds(JOINS_IN_TEN_SECONDS, JOIN_BURST),
            evidence: Bucket::new(EVIDENCE_PER_SECOND, EVIDENCE_BURST),
            kept_bytes: Bucket::new((MIB_A_DAY << 20) / DAY_SECONDS, KEPT_BURST),
            moves: Bucket::new(MOVES_PER_SECOND, MOVE_BURST),
            last_refusal: None,
        }
    }
}

/// How long a process has to answer that it is there: some retransmissions on a bad path. A machine that
/// started again within QUIC's idle timeout waits as long.
const ROLL_CALL_TIME: Duration = Duration::from_secs(3);
/// Take-overs by what seems to be the same process, or the next one on the same machine.
const TAKEOVERS_IN_TEN_SECONDS: u32 = 1;
const TAKEOVER_BURST: u32 = 10;
/// How long a duplicate is shown: one that is refused asks again after 45 s at the latest.
const SIGHTING_TIME: Duration = Duration::from_secs(180);
/// How often an operator is told of a duplicate that stays.
const TELL_AGAIN: Duration = Duration::from_secs(3_600);
/// How long a connection may take to say something that counts.
const OPENING_TIME: Duration = Duration::from_secs(5);
/// Requests for segments: each may be an epoch.
const JOINS_IN_TEN_SECONDS: u32 = 1;
const JOIN_BURST: u32 = 20;
const EVIDENCE_PER_SECOND: u32 = 10;
const EVIDENCE_BURST: u32 = 20;
/// Evidence of 45 kB every 30 s, or of a kilobyte every second, for ever.
pub(crate) const MIB_A_DAY: u32 = 256;
const DAY_SECONDS: u32 = 24 * 3_600;
const KEPT_BURST: u32 = 32 << 20;
/// How often a node may move, and be told of at once.
const MOVES_PER_SECOND: u32 = 1;
const MOVE_BURST: u32 = 4;
/// How long news is gathered for each node of a mesh, because telling takes as much for each.
const GATHER_PER_NODE: Duration = Duration::from_micros(200);
/// News that would be gathered for no longer is told at once.
const AT_ONCE: Duration = Duration::from_millis(20);
/// How long it is gathered at most, and the news of a node that moves more often in any case.
const NEWS_PAUSE: Duration = Duration::from_secs(1);
