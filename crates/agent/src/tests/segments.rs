//! A node in two segments: each goes its own way, and the agent asks for, opens and leaves them.

use super::*;
use keys::WgPublicKey;
use wire::{Ask, SegmentName, Unplaced};

const SECOND: SegmentId = SegmentId(1);

fn name() -> SegmentName {
    "inference".parse().unwrap()
}

fn wg() -> WgSecret {
    WgSecret::generate(&mut OsRng)
}

impl Bench {
    /// This node's place in the second segment.
    fn second_place(&self) -> Place {
        let mut place = Place {
            segment: SECOND,
            segment_name: name(),
            ..place(&self.own)
        };
        place.v4.0 = std::net::Ipv4Addr::from(u32::from(place.v4.0) + (1 << 16));
        place.v6.0 = std::net::Ipv6Addr::from(u128::from(place.v6.0) + (1 << 80));
        place
    }

    fn placed(&self, place: &Place) -> ToNode {
        ToNode::Placed(Signed::sign(place, &self.authority).unwrap())
    }

    /// The daemon has opened the second segment, with this key.
    fn open(&mut self, wg: &WgSecret) {
        let config = SegmentConfig {
            place: self.second_place(),
            wg: wg.duplicate(),
            high_water: HighWater::default(),
            mark: None,
        };
        assert!(self.agent.handle_segment(config, self.now));
    }

    /// A node that is in both, and whose controller knows.
    fn in_both() -> (Self, WgSecret) {
        let (mut bench, wg) = (Self::new(), wg());
        bench.connect();
        let placed = bench.placed(&bench.second_place());
        bench.say(placed);
        bench.open(&wg);
        bench.effects();
        (bench, wg)
    }

    /// The same, with an epoch of each in force.
    fn in_epochs_of_both() -> (Self, WgSecret) {
        let (mut bench, wg) = Self::in_both();
        let first = bench.update(0);
        bench.say(first);
        let second = bench.second_update(1, &wg);
        bench.say(second);
        bench.effects();
        (bench, wg)
    }

    /// An update of the second segment, with another node in it.
    fn second_update(&self, epoch: u64, wg: &WgSecret) -> ToNode {
        let place = self.second_place();
        let own = Member {
            wg: wg.public(),
            v4: place.v4.0,
            v6: place.v6.0,
            ..self.own.clone()
        };
        self.pushed(EpochUpdate {
            segment: SECOND,
            activate_in_ms: 0,
            ..fixtures::update(epoch, vec![own, self.peer.clone()])
        })
    }

    fn says(&mut self) -> Vec<ToController> {
        let effects = self.effects().into_iter();
        let said = effects.filter_map(|effect| match effect {
            Effect::Send(message) => Some(message),
            _ => None,
        });
        said.collect()
    }

    /// The segments that it asks for, with the key for each.
    fn joins(&mut self) -> Vec<(Option<SegmentName>, WgPublicKey)> {
        let said = self.says().into_iter();
        let joins = said.filter_map(|message| match message {
            ToController::Join {
                ask: Ask { name, wg },
            } => Some((name, wg)),
            _ => None,
        });
        joins.collect()
    }

    fn epochs(&self) -> Vec<Option<u64>> {
        let segments = self.agent.segments();
        let epoch = |it: InSegment<'_>| it.view().update.map(|update| update.epoch.0);
        segments.map(epoch).collect()
    }
}

#[test]
fn a_place_is_opened_once_and_the_update_that_comes_meanwhile_waits_and_grows_old() {
    let (mut bench, wg) = (Bench::new(), wg());
    bench.connect();
    bench.effects();
    let place = bench.second_place();
    for _ in 0..2 {
        let placed = bench.placed(&place);
        bench.say(placed);
    }
    let effects = bench.effects();
    assert!(
        matches!(&effects[..], [Effect::Placed(opened)] if *opened == place),
        "{effects:?}"
    );
    let early = bench.second_update(1, &wg);
    bench.say(early);
    assert_eq!(bench.agent.counts().updates_rejected, 0);
    assert_eq!(bench.epochs(), [None]);
    bench.pass(Duration::from_secs(100));
    bench.open(&wg);
    assert_eq!(bench.epochs(), [None, Some(1)]);
    let acks = bench.says().into_iter();
    let acks =
        acks.filter(|it| matches!(it, ToController::Ack { segment, .. } if *segment == SECOND));
    assert_eq!(acks.count(), 1);
    // The lease of 300 s counts from when it came.
    let closed = |bench: &Bench| bench.agent.segment(SECOND).unwrap().view().is_closed();
    bench.pass(Duration::from_secs(199));
    assert!(!closed(&bench));
    bench.pass(Duration::from_secs(2));
    assert!(closed(&bench));
}

#[test]
fn an_update_that_waited_through_lost_time_is_worth_nothing() {
    let (mut bench, wg) = (Bench::new(), wg());
    bench.connect();
    let placed = bench.placed(&bench.second_place());
    bench.say(placed);
    let early = bench.second_update(1, &wg);
    bench.say(early);
    bench.now.wall += Duration::from_secs(3_600);
    bench.agent.handle_clocks(bench.now);
    bench.open(&wg);
    assert_eq!(bench.epochs(), [None, None]);
}

#[test]
fn an_epoch_of_one_segment_changes_nothing_in_the_other() {
    let (mut bench, wg) = Bench::in_both();
    let first = bench.update(0);
    bench.say(first);
    assert_eq!(bench.changes_of(SECOND).len(), 0);
    for epoch in [5, 7, 9] {
        let update = bench.second_update(epoch, &wg);
        bench.say(update);
        let effects = bench.effects();
        let changed = effects.iter().filter_map(|effect| match effect {
            Effect::Data(segment, _) | Effect::Remember { segment, .. } => Some(*segment),
            Effect::Send(ToController::Ack { segment, .. }) => Some(*segment),
            _ => None,
        });
        let changed: Vec<_> = changed.collect();
        assert!(changed.len() >= 3 && changed.iter().all(|it| *it == SECOND));
    }
    assert_eq!(bench.epochs(), [Some(1), Some(9)]);
    assert_eq!(bench.agent.marks().len(), 2);
    // The lease of the one ends, and the other, which has heard since, goes on.
    bench.pass(Duration::from_secs(200));
    let update = bench.second_update(11, &wg);
    bench.say(update);
    bench.pass(Duration::from_secs(101));
    let closed = bench.agent.segments().map(|it| it.view().is_closed());
    assert_eq!(closed.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_segment_that_is_left_is_gone_at_once_and_the_other_goes_on() {
    let (mut bench, wg) = Bench::in_epochs_of_both();
    bench.say(ToNode::Left { segment: SECOND });
    let effects = bench.effects();
    assert!(matches!(&effects[0], Effect::Left(SECOND)), "{effects:?}");
    assert!(bench.agent.segment(SECOND).is_none());
    assert_eq!(bench.agent.holds().len(), 1);
    let late = bench.second_update(2, &wg);
    bench.say(late);
    assert_eq!(bench.changes_of(SECOND).len(), 0);
    assert_eq!(bench.agent.counts().updates_rejected, 1);
    assert_eq!(bench.first().is_member(), Some(true));
    bench.run(0.9);
    assert_eq!(bench.sent().len(), 1, "evidence is the node's");
    bench.say(ToNode::Left { segment: SECOND });
    assert!(bench.effects().is_empty(), "it is left once");
}

#[test]
fn a_segment_that_is_left_while_it_is_opened_is_not_taken() {
    let (mut bench, wg) = (Bench::new(), wg());
    bench.connect();
    let placed = bench.placed(&bench.second_place());
    bench.say(placed);
    bench.say(ToNode::Left { segment: SECOND });
    let config = SegmentConfig {
        place: bench.second_place(),
        wg,
        high_water: HighWater::default(),
        mark: None,
    };
    assert!(!bench.agent.handle_segment(config, bench.now));
    assert_eq!(bench.agent.segments().count(), 1);
}

#[test]
fn a_welcome_without_a_place_ends_it_and_one_with_a_new_place_begins_it() {
    let (mut bench, _) = Bench::in_both();
    bench.connect();
    let effects = bench.effects();
    assert!(matches!(&effects[0], Effect::Left(SECOND)), "{effects:?}");
    bench.connect_with(vec![bench.second_place()]);
    let effects = bench.effects();
    assert!(matches!(&effects[0], Effect::Left(SegmentId::FIRST)));
    let opens = |it: &Effect| matches!(it, Effect::Placed(place) if place.segment == SECOND);
    assert!(effects.iter().any(opens), "{effects:?}");
    assert_eq!(bench.agent.segments().count(), 0);
    // A node that is in no segment is still there for its controller.
    bench.say(ToNode::RollCall);
    assert!(matches!(&bench.says()[..], [ToController::Present]));
}

#[test]
fn a_segment_that_could_not_be_opened_is_named_with_the_reason_and_tried_again() {
    let mut bench = Bench::new();
    let connect = |bench: &mut Bench| {
        bench.connect_with(vec![place(&bench.own), bench.second_place()]);
        let effects = bench.effects().into_iter();
        effects.filter(|it| matches!(it, Effect::Placed(_))).count()
    };
    assert_eq!(connect(&mut bench), 1);
    assert_eq!(connect(&mut bench), 0, "it is being opened");
    let why = "the interface is taken".to_owned();
    let second = bench.second_place();
    bench
        .agent
        .handle_no_segment(second, why.clone(), bench.now);
    let shown = |bench: &Bench| {
        bench
            .agent
            .not_placed()
            .map(|(_, why)| why)
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&bench), [why]);
    assert_eq!(connect(&mut bench), 0, "it is tried again in its time");
    let mut elsewhere = bench.second_place();
    elsewhere.name = "renamed".parse().unwrap();
    bench.connect_with(vec![place(&bench.own), elsewhere.clone()]);
    assert!(
        !bench
            .effects()
            .iter()
            .any(|it| matches!(it, Effect::Placed(_)))
    );
    bench.pass(Duration::from_secs(9));
    let opens = |it: &Effect| matches!(it, Effect::Placed(place) if *place == elsewhere);
    assert!(!bench.effects().iter().any(opens));
    bench.pass(Duration::from_secs(1));
    assert!(bench.effects().iter().any(opens));
    assert!(shown(&bench).is_empty());
    bench.open(&wg());
    assert_eq!(bench.agent.segments().count(), 2);
}

#[test]
fn a_segment_is_asked_for_with_each_connection_and_again_where_the_controller_was_busy() {
    let (mut bench, key) = (Bench::new(), wg().public());
    bench.agent.handle_ask(name(), key);
    assert!(bench.joins().is_empty(), "there is no connection");
    let asked = vec![(Some(name()), key)];
    bench.connect();
    assert_eq!(bench.joins(), asked);
    let refuse = |bench: &mut Bench, reason| {
        bench.say(ToNode::NotPlaced {
            name: name(),
            reason,
        });
    };
    refuse(&mut bench, Unplaced::Busy);
    bench.pass(Duration::from_secs(9));
    assert!(bench.joins().is_empty());
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.joins(), asked);
    refuse(&mut bench, Unplaced::NotAllowed);
    bench.pass(Duration::from_secs(60));
    assert!(bench.joins().is_empty());
    let refused: Vec<_> = bench.agent.not_placed().collect();
    assert_eq!(refused, [(&name(), Unplaced::NotAllowed.to_string())]);
    // An operator lets it in, and the key is there.
    bench.say(ToNode::Invited { name: name() });
    assert_eq!(bench.joins(), asked);
    let placed = bench.placed(&bench.second_place());
    bench.say(placed);
    assert_eq!(bench.agent.not_placed().count(), 0);
}

#[test]
fn an_invitation_is_for_the_daemon_to_make_a_key() {
    let mut bench = Bench::new();
    bench.connect();
    bench.effects();
    bench.say(ToNode::Invited { name: name() });
    let effects = bench.effects();
    assert!(matches!(&effects[..], [Effect::Invited(invited)] if *invited == name()));
    let key = wg().public();
    bench.agent.handle_ask(name(), key);
    assert_eq!(bench.joins(), [(Some(name()), key)]);
}

#[test]
fn a_place_that_no_authority_signed_or_that_is_anothers_is_none() {
    let mut bench = Bench::new();
    bench.connect();
    bench.effects();
    let place = bench.second_place();
    let stranger = AuthoritySecret::generate(&mut OsRng);
    bench.say(ToNode::Placed(Signed::sign(&place, &stranger).unwrap()));
    let anothers = Place {
        node: bench.peer.node,
        ..place.clone()
    };
    let elsewhere = Place {
        mesh: keys::MeshId([9; 16]),
        ..place
    };
    for place in [anothers, elsewhere] {
        let placed = bench.placed(&place);
        bench.say(placed);
    }
    assert!(bench.effects().is_empty());
}

#[test]
fn a_place_inside_any_of_the_segments_is_no_endpoint() {
    let (mut bench, _) = Bench::in_epochs_of_both();
    let inside_second = SocketAddr::new(bench.second_place().v4.0.into(), 7);
    let entries = vec![(bench.peer.node, vec![inside_second, endpoint(3)])];
    bench.say(ToNode::Endpoints {
        entries: wire::endpoints::Entries::new(&entries),
        mark: None,
    });
    let effects = bench.effects().into_iter();
    let told = effects.filter_map(|effect| match effect {
        Effect::Data(segment, DataChange::Places(places)) => Some((segment, places)),
        _ => None,
    });
    let places = vec![(bench.peer.wg, vec![endpoint(3)])];
    let both = [(SegmentId::FIRST, places.clone()), (SECOND, places)];
    assert_eq!(told.collect::<Vec<_>>(), both);
}

#[test]
fn the_log_is_followed_by_an_update_that_waits_for_its_segment() {
    let (mut bench, wg) = (Bench::new(), wg());
    bench.connect();
    let placed = bench.placed(&bench.second_place());
    bench.say(placed);
    bench.effects();
    let update = bench.second_update(1, &wg);
    bench.say(update);
    let effects = bench.effects();
    assert!(
        effects
            .iter()
            .any(|it| matches!(it, Effect::Witnessed(end) if end.events == 1)),
        "the controller's next proof begins there: {effects:?}"
    );
    assert_eq!(bench.epochs(), [None]);
    bench.open(&wg);
    assert_eq!(bench.epochs(), [None, Some(1)]);
    let said = bench.says();
    let asks = |it: &ToController| matches!(it, ToController::Kept { .. });
    assert!(!said.iter().any(asks), "{said:?}");
}
