//! The agent against its effects, in virtual time.
//!
//! The file is long because each rule of the agent has its test here, on one bench.

use crate::{
    Agent, Config, Control, DataChange, Echoes, Effect, Emission, EvidenceResult, InSegment, Now,
    Round, SegmentConfig, SessionEvent, Target, inside,
};
use epoch::member::HighWater;
use epoch::{EpochChange, Turn};
use jiff::Timestamp;
use keys::{AuthoritySecret, EpochSecret, LogSecret, NodeSecret, SegmentId, WgSecret};
use rand_core::OsRng;
use std::net::SocketAddr;
use std::time::Duration;
use tunnel::LoneTunnel;
use wire::fixtures::{self, MESH};
use wire::instance::Seen;
use wire::log::{LogEnd, LogNews};
use wire::message::Update;
use wire::rules::{Allow, Groups, Protocol, Rules, Traffic};
use wire::update::Excluded;
use wire::{Digest, Duplicate, EpochUpdate, Mark, Member, Place, Signed, ToController, ToNode};

mod segments;

struct Bench {
    authority: AuthoritySecret,
    log: LogSecret,
    own: Member,
    peer: Member,
    wg: WgSecret,
    agent: Agent,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let authority = AuthoritySecret::generate(&mut OsRng);
        let (identity, wg) = (
            NodeSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
        );
        let own = Member {
            node: identity.public(),
            wg: wg.public(),
            ..fixtures::member(2)
        };
        let peer = Member {
            wg: WgSecret::generate(&mut OsRng).public(),
            ..fixtures::member(3)
        };
        let agent = Agent::new(Config {
            identity,
            name: own.name.clone(),
            mesh: MESH,
            authorities: vec![authority.public()],
            segments: vec![SegmentConfig {
                place: place(&own),
                wg: wg.duplicate(),
                high_water: HighWater::default(),
                mark: None,
            }],
            asks: Vec::new(),
            log: None,
            seen: Vec::new(),
            derive_at_once: epoch::DERIVE_AT_ONCE,
        });
        let now = Now {
            boot: Duration::from_secs(1_000),
            wall: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        let mut bench = Self {
            authority,
            log: LogSecret::generate(&mut OsRng),
            own,
            peer,
            wg,
            agent,
            now,
        };
        bench.agent.handle_clocks(now);
        bench
    }

    fn pass(&mut self, time: Duration) {
        self.now.boot += time;
        self.now.wall += time;
        self.agent.handle_clocks(self.now);
        self.agent.handle_timeout(self.now);
    }

    fn connect(&mut self) {
        self.connect_with(vec![place(&self.own)]);
    }

    /// The controller welcomes the node, which has these places.
    fn connect_with(&mut self, places: Vec<Place>) {
        let up = SessionEvent::Up {
            address: "controller:7443".into(),
            remote: endpoint(9),
            dialled: self.now.boot,
            places,
            skew_ms: 0,
        };
        self.agent.handle_session(up, self.now);
    }

    fn say(&mut self, message: ToNode) {
        let message = SessionEvent::Message(Box::new(message));
        self.agent.handle_session(message, self.now);
    }

    fn update(&self, lead_ms: u64) -> ToNode {
        let update = EpochUpdate {
            activate_in_ms: lead_ms,
            ..fixtures::update(1, vec![self.own.clone(), self.peer.clone()])
        };
        self.pushed(update)
    }

    fn pushed(&self, update: EpochUpdate) -> ToNode {
        let secret = EpochSecret::from_bytes([7; 32]);
        let update = EpochUpdate {
            commitment: secret.commitment(),
            ..update
        };
        let signed = Signed::sign(&update, &self.authority).unwrap();
        let end = LogEnd {
            events: 1,
            root: Digest([1; 32]),
        };
        let mark = Mark {
            mesh: MESH,
            segment: update.segment,
            epoch: update.epoch,
            update: signed.digest(),
            log: end,
            log_key: self.log.public(),
        };
        let checkpoint = ledger::Checkpoint {
            origin: "test/log".into(),
            size: end.events,
            root: ledger::Hash(end.root.0),
            extensions: Vec::new(),
        };
        ToNode::Update(Update {
            log: LogNews {
                checkpoint: checkpoint.sign(&self.log).unwrap().to_string(),
                from: self.agent.log().map_or(0, |kept| kept.events),
                proof: Vec::new(),
                restored: None,
            },
            mark: Signed::sign(&mark, &self.authority).unwrap(),
            signed,
            secret: Some(secret),
            age_ms: 0,
        })
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.agent.poll_effect()).collect()
    }

    /// The first segment, in which the node is.
    fn first(&self) -> InSegment<'_> {
        self.agent.segment(SegmentId::FIRST).unwrap()
    }

    fn changes(&mut self) -> Vec<DataChange> {
        self.changes_of(SegmentId::FIRST)
    }

    fn changes_of(&mut self, segment: SegmentId) -> Vec<DataChange> {
        let effects = self.effects().into_iter();
        let changes = effects.filter_map(|effect| match effect {
            Effect::Data(of, change) if of == segment => Some(change),
            _ => None,
        });
        changes.collect()
    }

    /// The evidence that is sent, as the controller would read it.
    fn sent(&mut self) -> Vec<wire::evidence::Benchmark> {
        let effects = self.effects().into_iter();
        let sent = effects.filter_map(|effect| match effect {
            Effect::Send(ToController::Evidence { envelope }) => wire::evidence::peek(&envelope),
            _ => None,
        });
        sent.collect()
    }

    fn run(&mut self, overall: f64) {
        let run = fixtures::run(overall, self.now.wall);
        self.agent
            .handle_evidence(Emission::Run(Box::new(run)), self.now);
    }
}

fn place(own: &Member) -> Place {
    Place {
        node: own.node,
        mesh: MESH,
        segment: SegmentId::FIRST,
        segment_name: wire::SegmentName::default(),
        name: own.name.clone(),
        v4: (own.v4, 24),
        v6: (own.v6, 64),
    }
}

fn endpoint(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51_820))
}

#[test]
fn rules_reach_the_data_plane_with_their_epoch_and_a_pair_without_a_hub_is_not_probed() {
    let mut bench = Bench::new();
    bench.connect();
    let mut update = EpochUpdate {
        activate_in_ms: 0,
        ..fixtures::update(1, vec![bench.own.clone(), bench.peer.clone()])
    };
    update.rules = Rules {
        groups: vec!["hub".into(), "store".into()],
        traffic: Traffic::Deny,
        allow: vec![Allow {
            protocol: Protocol::Tcp,
            ports: vec![(22, 22)],
            from: Groups(0),
            to: Groups(0b10),
        }],
        hubs: Groups(0),
    };
    let pushed = bench.pushed(update.clone());
    bench.say(pushed);
    let mut tunnel = LoneTunnel::new(
        1_000,
        tunnel::Config {
            secret: bench.wg.duplicate(),
            mtu: 1_420,
            seed: 1,
            inside: inside(&place(&bench.own)),
        },
    );
    for change in bench.changes() {
        change.carry_out(&mut tunnel, bench.now.boot);
    }
    assert_eq!(tunnel.passed_by_rule(), Some(vec![0]));
    assert_eq!(bench.agent.targets(SegmentId::FIRST, &[], 1_420).len(), 1);

    let mut next = EpochUpdate {
        epoch: keys::Epoch(3),
        ..update
    };
    next.rules.hubs = Groups(0b01);
    let pushed = bench.pushed(next);
    bench.say(pushed);
    for change in bench.changes() {
        change.carry_out(&mut tunnel, bench.now.boot);
    }
    assert_eq!(tunnel.snapshot(bench.now.boot), []);
    assert_eq!(bench.agent.targets(SegmentId::FIRST, &[], 1_420), []);
    let peer = bench.peer.node;
    let cause = bench.first().ping_cause(&peer, &Ok(Duration::ZERO));
    assert_eq!(cause, "no tunnel: neither is a hub");
}

#[test]
fn an_epoch_without_lead_is_one_change_and_its_peers_are_placed_before_it_begins() {
    let mut bench = Bench::new();
    bench.connect();
    let entries = vec![(bench.peer.node, vec![endpoint(3)])];
    bench.say(ToNode::Endpoints {
        entries: wire::endpoints::Entries::new(&entries),
        mark: None,
    });
    bench.effects();
    let update = bench.update(0);
    bench.say(update);
    let [DataChange::Epoch(change, places)] = &mut bench.changes()[..] else {
        panic!("one change");
    };
    assert!(change.install.is_some() && matches!(change.turn, Some(Turn::Begin(_))));
    assert_eq!(*places, [(bench.peer.wg, vec![endpoint(3)])]);

    let mut tunnel = LoneTunnel::new(
        100,
        tunnel::Config {
            secret: bench.wg.duplicate(),
            mtu: 1420,
            seed: 1,
            inside: inside(&place(&bench.own)),
        },
    );
    let change = DataChange::Epoch(std::mem::take(change), std::mem::take(places));
    let boot = bench.now.boot;
    assert!(change.carry_out(&mut tunnel, boot).is_empty());
    let peers = tunnel.snapshot(boot);
    assert_eq!(peers[0].endpoint, Some(endpoint(3).into()));
    let psk = tunnel.current_psk(&bench.peer.wg);
    assert!(psk.is_some(), "it is in force");
}

#[test]
fn with_a_lead_an_epoch_is_installed_and_begins_later() {
    let mut bench = Bench::new();
    bench.connect();
    let update = bench.update(5_000);
    bench.say(update);
    let parts = |changes: &[DataChange]| match changes {
        [DataChange::Epoch(EpochChange { install, turn, .. }, _)] => (install.is_some(), *turn),
        other => panic!("one change, not {}", other.len()),
    };
    assert_eq!(parts(&bench.changes()), (true, None));
    bench.pass(Duration::from_secs(5));
    let turn = Some(Turn::Begin(keys::Epoch(1)));
    let effects = bench.effects();
    assert!(
        matches!(&effects[0], Effect::Data(_, DataChange::Epoch(change, _)) if change.turn == turn),
        "nobody is told before the data plane"
    );
    let remembered = effects.iter().find_map(|effect| match effect {
        Effect::Remember {
            high_water, mark, ..
        } => Some((high_water.epoch, mark.is_some())),
        _ => None,
    });
    assert_eq!(remembered, Some((keys::Epoch(1), true)));
    assert_eq!(bench.first().is_member(), Some(true));
}

#[test]
fn after_lost_time_only_a_new_connection_is_believed() {
    let mut bench = Bench::new();
    bench.connect();
    bench.effects();
    bench.now.wall += Duration::from_secs(60);
    bench.agent.handle_clocks(bench.now);
    assert!(matches!(bench.effects()[..], [Effect::HangUp]));
    let update = bench.update(0);
    bench.say(update);
    assert!(bench.effects().is_empty());
    assert_eq!(bench.first().view().update, None);
    // A connection that was being made meanwhile brings what waited as well.
    bench.connect();
    assert!(matches!(bench.effects()[..], [Effect::HangUp]));
    let update = bench.update(0);
    bench.say(update);
    assert!(bench.effects().is_empty());
    bench.pass(Duration::from_millis(1));
    bench.connect();
    let update = bench.update(0);
    bench.say(update);
    assert_eq!(bench.changes().len(), 1);
}

#[test]
fn a_clock_that_was_set_back_is_told_to_the_tunnel_and_closes_nothing() {
    let mut bench = Bench::new();
    bench.connect();
    let update = bench.update(0);
    bench.say(update);
    bench.effects();
    bench.now.wall -= Duration::from_secs(86_400);
    bench.agent.handle_clocks(bench.now);
    let skew = bench.agent.control().skew_ms(bench.now);
    assert_eq!(skew, Some(-86_400_000), "as it is now, not as it was");
    let now = Duration::from_millis(bench.now.wall.as_millisecond().unsigned_abs());
    let effects = bench.effects();
    assert!(
        matches!(effects[..], [Effect::Data(_, DataChange::ClockSetBack(unix))] if unix == now),
        "{effects:?}"
    );
    assert_eq!(bench.first().is_member(), Some(true));
}

#[test]
fn a_run_waits_for_an_update_to_answer_to_and_is_signed_for_it() {
    let mut bench = Bench::new();
    bench.connect();
    bench.run(0.9);
    assert!(bench.sent().is_empty());
    let update = bench.update(0);
    let ToNode::Update(said) = &update else {
        panic!("an update");
    };
    let digest = said.signed.digest();
    bench.say(update);
    let sent = bench.sent();
    assert_eq!(
        (sent[0].mesh, sent[0].challenge),
        (Some(MESH), Some(digest))
    );
}

#[test]
fn evidence_that_was_lost_with_its_connection_goes_with_the_next_one() {
    let mut bench = Bench::new();
    bench.connect();
    let update = bench.update(0);
    bench.say(update);
    bench.run(0.9);
    assert_eq!(bench.sent().len(), 1);
    let down = SessionEvent::Down {
        address: String::new(),
        error: "lost".into(),
    };
    bench.agent.handle_session(down, bench.now);
    assert_eq!(
        bench.agent.evidence().unwrap().result,
        EvidenceResult::Unsent
    );
    bench.connect();
    assert_eq!(bench.sent().len(), 1);
    // A message that finds the way full is lost as well, and sent as soon as there is time.
    let full = ToController::Evidence {
        envelope: Vec::new(),
    };
    bench.agent.handle_unsent(&full);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.sent().len(), 1);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.sent().len(), 0);
}

#[test]
fn a_peer_without_a_common_address_family_is_named_while_it_lasts() {
    let mut bench = Bench::new();
    bench.connect();
    let update = bench.update(0);
    bench.say(update);
    let peer = bench.peer.node;
    let entries = vec![(peer, vec!["[2001:db8::3]:7".parse().unwrap()])];
    bench.say(ToNode::Endpoints {
        entries: wire::endpoints::Entries::new(&entries),
        mark: None,
    });
    bench.agent.handle_addresses(vec![[192, 0, 2, 1].into()]);
    let lost = |failure| Err(failure);
    let cause = |bench: &Bench, failure| bench.first().ping_cause(&peer, &lost(failure));
    let silent = || crate::PingFailure::Unanswered(Duration::from_secs(1));
    let named = "no common address family";
    assert!(cause(&bench, silent()).contains(named));
    assert!(bench.first().faults_of(&peer, bench.now)[0].contains(named));
    // A way that leads elsewhere is wrong by itself.
    assert!(cause(&bench, crate::PingFailure::Astray("eth1".into())).contains("eth1"));
    bench
        .agent
        .handle_addresses(vec![[192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap()]);
    assert_eq!(cause(&bench, silent()), "no answer within 1 s");
    assert_eq!(
        bench.first().faults_of(&peer, bench.now),
        Vec::<String>::new()
    );
}

#[test]
fn a_place_inside_the_mesh_is_none() {
    let mut bench = Bench::new();
    bench.connect();
    let update = bench.update(0);
    bench.say(update);
    bench.effects();
    let within = SocketAddr::new(bench.peer.v4.into(), 51_820);
    let entries = vec![(bench.peer.node, vec![within, endpoint(3)])];
    bench.say(ToNode::Endpoints {
        entries: wire::endpoints::Entries::new(&entries),
        mark: None,
    });
    let changes = bench.changes();
    let [DataChange::Places(places)] = &changes[..] else {
        panic!("places");
    };
    assert_eq!(*places, [(bench.peer.wg, vec![endpoint(3)])]);
    assert_eq!(
        bench
            .first()
            .destinations(&[])
            .into_iter()
            .collect::<Vec<_>>(),
        [endpoint(3)]
    );
}

fn duplicate() -> Duplicate {
    let seen = |run| Seen::at(endpoint(run), &fixtures::instance(run, run));
    Duplicate {
        first: seen(1),
        other: seen(2),
    }
}

impl Bench {
    /// The controller serves another process of this node.
    fn is_second(&mut self) {
        let second = SessionEvent::Duplicate {
            address: String::new(),
            duplicate: duplicate(),
        };
        self.agent.handle_session(second, self.now);
    }
}

#[test]
fn a_process_that_is_the_second_of_its_node_goes_dark_until_it_is_served_again() {
    let mut bench = Bench::new();
    bench.is_second();
    assert!(bench.changes().is_empty(), "it has nothing yet");
    for lead in [0, 5_000] {
        bench.connect();
        let update = bench.update(lead);
        bench.say(update);
        assert_eq!(bench.changes().len(), 1);
        bench.is_second();
        let [DataChange::Epoch(change, _)] = &bench.changes()[..] else {
            panic!("one change");
        };
        assert_eq!(change.turn, Some(Turn::Close));
        if let Some(install) = &change.install {
            assert!(install.peers.is_empty(), "nothing is left that could begin");
        }
        assert_eq!(change.install.is_some(), lead > 0);
        assert!(bench.first().is_member().is_none() && bench.agent.poll_timeout().is_none());
        bench.is_second();
        assert!(bench.changes().is_empty(), "once");
        assert!(bench.agent.duplicate(bench.now).is_some());
        let Control::Down { error, .. } = bench.agent.control() else {
            panic!("it is not served");
        };
        assert!(
            error
                .as_deref()
                .is_some_and(|it| it.contains("two machines"))
        );
        bench = if lead == 0 {
            // The first is gone: the epoch that was in force is taken once more.
            bench.connect();
            let update = bench.update(lead);
            bench.say(update);
            assert_eq!(bench.first().is_member(), Some(true));
            bench.pass(Duration::from_secs(180));
            assert!(bench.agent.duplicate(bench.now).is_none());
            Bench::new()
        } else {
            bench
        };
    }
}

#[test]
fn a_process_that_is_the_first_says_that_it_is_there_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.connect();
    let update = bench.update(0);
    bench.say(update);
    bench.effects();
    bench.say(ToNode::RollCall);
    assert!(matches!(
        bench.effects()[..],
        [Effect::Send(ToController::Present)]
    ));
    bench.say(ToNode::Duplicate(duplicate()));
    assert!(bench.effects().is_empty());
    assert!(bench.agent.duplicate(bench.now).is_some());
    assert_eq!(bench.first().is_member(), Some(true));
}

/// A round in which the peer has answered.
fn answered(peer: &Member) -> Round {
    let echo = Ok(Duration::from_micros(300));
    let target = Target {
        node: peer.node,
        name: peer.name.clone(),
        v4: peer.v4,
        v6: peer.v6,
        sizes: Vec::new(),
        search: 0,
    };
    let echoes = Echoes {
        target,
        v4: echo.clone(),
        v6: echo,
        large: Vec::new(),
    };
    Round {
        results: vec![echoes],
        is_search: false,
        ways: Vec::new(),
    }
}

#[test]
fn an_echo_of_before_a_peer_was_cut_off_is_not_shown_after() {
    let mut bench = Bench::new();
    bench.connect();
    let first = bench.update(0);
    let ToNode::Update(said) = &first else {
        panic!("an update");
    };
    let previous = said.signed.digest();
    bench.say(first);
    let peer = bench.peer.clone();
    bench
        .agent
        .handle_round(SegmentId::FIRST, answered(&peer), &[], 1_420, bench.now);
    assert!(bench.first().ping(&peer.node).is_some());

    let excluded = Excluded {
        node: peer.node,
        name: peer.name.clone(),
        v4: peer.v4,
        v6: peer.v6,
        reason: "evicted".into(),
    };
    let second = bench.pushed(EpochUpdate {
        previous,
        excluded: vec![excluded],
        activate_in_ms: 0,
        ..fixtures::update(2, vec![bench.own.clone()])
    });
    bench.say(second);
    assert_eq!(bench.first().view().update.unwrap().epoch.0, 2);
    assert!(bench.first().ping(&peer.node).is_none(), "it is cut off");
    // An excluded node that answers is news, and no leftover.
    bench
        .agent
        .handle_round(SegmentId::FIRST, answered(&peer), &[], 1_420, bench.now);
    assert!(bench.first().ping(&peer.node).is_some());
}

#[test]
fn an_echo_of_before_the_lease_ended_is_not_shown_after() {
    let mut bench = Bench::new();
    bench.connect();
    let update = bench.update(0);
    bench.say(update);
    let peer = bench.peer.clone();
    bench
        .agent
        .handle_round(SegmentId::FIRST, answered(&peer), &[], 1_420, bench.now);
    assert!(bench.first().ping(&peer.node).is_some());
    bench.pass(Duration::from_secs(301));
    assert!(bench.first().view().is_closed());
    assert!(bench.first().ping(&peer.node).is_none());
}

#[test]
fn a_node_follows_the_word_of_its_authority_remembers_it_and_believes_the_old_key_no_more() {
    let mut bench = Bench::new();
    bench.connect();
    let old_update = bench.update(0);
    let stranger = AuthoritySecret::generate(&mut OsRng);
    let next = AuthoritySecret::generate(&mut OsRng);
    let word = |by: &AuthoritySecret, mesh| {
        let new = next.public();
        let signed = Signed::sign(&wire::Succession { mesh, new }, by).unwrap();
        ToNode::Authorities {
            successions: vec![signed],
        }
    };
    bench.effects();
    for wrong in [
        word(&stranger, MESH),
        word(&bench.authority, keys::MeshId([9; 16])),
    ] {
        bench.say(wrong);
        assert!(bench.effects().is_empty(), "nobody's word for this mesh");
    }
    bench.say(word(&bench.authority, MESH));
    let effects = bench.effects();
    let trusted = [next.public()];
    assert!(
        matches!(&effects[..], [Effect::Trust(keys)] if *keys == trusted),
        "{effects:?}"
    );
    bench.say(old_update);
    assert_eq!(bench.agent.counts().updates_unverified, 1);
    bench.authority = next;
    let update = bench.update(0);
    bench.say(update);
    assert_eq!(bench.agent.counts().updates_accepted, 1);
}
