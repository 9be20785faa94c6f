//! Two segments: policy, epochs, places and memberships of each, and what one of them does not hear of the other.

use super::*;
use std::collections::BTreeSet;

const SECOND: SegmentId = SegmentId(1);

/// One that everybody here passes, and one for the best.
fn policies() -> [(SegmentId, Policy); 2] {
    let strict = Policy {
        threshold: 0.95,
        probation_epochs: 0,
        ..Policy::default()
    };
    [(SegmentId::FIRST, Policy::default()), (SECOND, strict)]
}

fn second() -> wire::SegmentName {
    segment_name(SECOND)
}

/// A mesh with both segments, in which nobody is.
fn world() -> World {
    let mut world = World::new(Policy::default());
    world.try_restart_with(&policies(), s(1), "boot").unwrap();
    world
}

/// Asks for the second segment; the answer.
fn join(world: &mut World, node: &Node, wg: WgPublicKey) -> Option<ToNode> {
    let before = world.told[&node.connection].len();
    let ask = wire::Ask {
        name: Some(second()),
        wg,
    };
    world.say(node.connection, ToController::Join { ask });
    let mut told = world.told.get_mut(&node.connection)?.drain(before..);
    let is_answer = |it: &ToNode| matches!(it, ToNode::Placed(_) | ToNode::NotPlaced { .. });
    let answer = told.find(is_answer);
    drop(told);
    answer
}

/// An operator lets a node into the second segment, and it comes.
fn let_in(world: &mut World, node: &Node) {
    let request = Request::JoinSegment(node.name.clone(), second());
    assert!(world.ask(request).is_ok());
    let told = world.told[&node.connection].iter();
    let mut invited = told.filter(|it| matches!(it, ToNode::Invited { name } if *name == second()));
    assert!(invited.next().is_some());
    let answer = join(world, node, wg());
    assert!(matches!(answer, Some(ToNode::Placed(_))), "{answer:?}");
}

/// Enrols with a token for these segments, asking for `asked`.
fn enrol(
    world: &mut World,
    allowed: &[wire::SegmentName],
    asked: &[Option<wire::SegmentName>],
) -> Result<(Node, Vec<wire::Place>), Refusal> {
    let token = world.token_of(TokenRequest {
        segments: allowed.to_vec(),
        ..TokenRequest::default()
    });
    let secret = NodeSecret::generate(&mut OsRng);
    let connection = world.connect(&secret);
    let asks = asked.iter().cloned();
    let asks = asks.map(|name| wire::Ask { name, wg: wg() });
    let enrol = Enrol {
        token: token.secret,
        name: None,
        segments: asks.collect(),
        addresses: Vec::new(),
    };
    let wg = enrol.segments.first().map_or_else(wg, |ask| ask.wg);
    world.say(connection, ToController::Enrol(enrol));
    let Some(ToNode::Enrolled(places)) = world.told.get(&connection).and_then(|it| it.last())
    else {
        return Err(world.closed[&connection]);
    };
    let trusted = world.engine.fleet().authorities();
    let places: Vec<wire::Place> = places
        .iter()
        .map(|place| (*place.verify(&trusted).unwrap()).clone())
        .collect();
    let name = places[0].name.clone();
    world.hello(connection);
    let node = Node {
        secret,
        wg,
        name,
        connection,
    };
    Ok((node, places))
}

/// Sends a good run that answers to the newest update of a segment; why it was refused.
fn answer_to(world: &mut World, node: &Node, segment: SegmentId) -> Option<String> {
    let newest = world.engine.fleet().standings(segment).newest_epoch();
    let run = Benchmark {
        challenge: newest.map(|(_, published)| published.update),
        overall: Some(0.97),
        ..world.run()
    };
    let envelope = run.attest_self(node.name.as_str(), &node.secret).unwrap();
    world.envelope(node, envelope)
}

/// The segments of the updates and of the places that a node was told since `from`.
fn heard(world: &World, node: &Node) -> BTreeSet<SegmentId> {
    let told = world.told[&node.connection].iter();
    let segments = told.filter_map(|message| match message {
        ToNode::Update(update) => Some(world.open(update).0.segment),
        ToNode::Endpoints { mark, .. } => Some(mark.as_ref()?.segment),
        _ => None,
    });
    segments.collect()
}

fn roster(world: &World, segment: SegmentId) -> Vec<String> {
    let roster = world.engine.fleet().standings(segment).roster();
    roster.iter().map(ToString::to_string).collect()
}

/// The newest update of a segment that a node was sent, and whether the secret came with it.
fn update(world: &World, node: &Node, segment: SegmentId) -> (EpochUpdate, bool) {
    let told = world.told[&node.connection].iter().rev();
    let updates = told.filter_map(|message| match message {
        ToNode::Update(update) => Some(world.open(update)),
        _ => None,
    });
    let mut updates = updates.filter(|(update, _)| update.segment == segment);
    updates.next().expect("an update of this segment")
}

fn running() -> (World, [Node; 2]) {
    let mut world = World::new(Policy::default());
    let [mut a, mut b] = world.members(["a", "b"]);
    world.try_restart_with(&policies(), s(1), "boot").unwrap();
    world.reconnect(&mut a);
    world.reconnect(&mut b);
    let_in(&mut world, &a);
    let_in(&mut world, &b);
    // By what they had sent before, neither is good enough for it.
    assert!(roster(&world, SECOND).is_empty());
    for _ in 0..8 {
        assert_eq!(world.evidence(&a, 0.97), None);
        assert_eq!(world.evidence(&b, 0.9), None);
        world.pass(s(10));
    }
    (world, [a, b])
}

#[test]
fn each_segment_judges_the_same_evidence_by_its_own_policy_and_keeps_its_own_secret() {
    let (world, [a, b]) = running();
    assert_eq!(roster(&world, SegmentId::FIRST), ["a", "b"]);
    assert_eq!(roster(&world, SECOND), ["a"]);
    let (first, second) = (
        update(&world, &a, SegmentId::FIRST),
        update(&world, &a, SECOND),
    );
    assert!(first.1 && second.1);
    assert_ne!(first.0.commitment.0, second.0.commitment.0);
    assert!(update(&world, &b, SegmentId::FIRST).1);
    let (excluding, secret) = update(&world, &b, SECOND);
    assert!(!secret);
    let excluded = excluding.exclusion(&b.secret.public()).unwrap();
    assert_eq!(excluded.reason, "score below threshold");
}

#[test]
fn an_eviction_is_one_commit_with_an_epoch_in_each_segment_of_the_node() {
    let (mut world, [a, b]) = running();
    let before = world.engine.log().head().seq;
    let evict = Request::Evict(a.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    assert_eq!(world.engine.log().head().seq - before, 5);
    assert_eq!(roster(&world, SegmentId::FIRST), ["b"]);
    assert!(roster(&world, SECOND).is_empty());
    for segment in [SegmentId::FIRST, SECOND] {
        assert!(!update(&world, &a, segment).1);
    }
    // The other is a member of one of them, and only that one has anything new for it.
    let before = world.engine.log().head().seq;
    let evict = Request::Evict(b.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    assert_eq!(world.engine.log().head().seq - before, 3);
}

#[test]
fn each_segment_is_resumed_with_its_own_epochs_and_rotates_by_itself() {
    let (mut world, [mut a, _]) = running();
    let current = |world: &World| -> Vec<(SegmentId, Epoch)> {
        let segments = world.engine.segments().iter();
        segments.map(|it| (it.id(), it.current())).collect()
    };
    let before = current(&world);
    world.try_restart_with(&policies(), s(1), "boot").unwrap();
    assert_eq!(current(&world), before);
    assert!(world.engine.segments().iter().all(|it| it.is_whole()));
    world.reconnect(&mut a);
    assert!(update(&world, &a, SegmentId::FIRST).1 && update(&world, &a, SECOND).1);
    for _ in 0..8 {
        assert_eq!(world.evidence(&a, 0.97), None);
        world.pass(s(10));
    }
    let after = current(&world);
    let went_on = before
        .iter()
        .zip(&after)
        .all(|(before, after)| before.1 < after.1);
    assert!(went_on, "{before:?} {after:?}");
}

#[test]
fn a_token_says_which_segments_a_node_may_ask_for_and_each_gives_it_a_place() {
    let mut world = world();
    let both = [wire::SegmentName::default(), second()];
    let asked = both.clone().map(Some);
    let (a, places) = enrol(&mut world, &both, &asked).unwrap();
    let ids: Vec<SegmentId> = places.iter().map(|place| place.segment).collect();
    assert_eq!(ids, [SegmentId::FIRST, SECOND]);
    assert_eq!(places[1].segment_name, second());
    // One number, and an address of it in each range.
    let hosts = places.iter().map(|place| place.v4.0.octets()[2..].to_vec());
    assert_eq!(hosts.collect::<BTreeSet<_>>().len(), 1);
    assert_ne!(places[0].v4, places[1].v4);
    assert_ne!(places[0].v6, places[1].v6);
    let node = world.engine.fleet().node(&a.name).unwrap();
    assert_ne!(node.wg(SegmentId::FIRST), node.wg(SECOND));
    assert_eq!(
        heard(&world, &a),
        BTreeSet::from([SegmentId::FIRST, SECOND])
    );

    // Segments that the token does not allow, or that there are not, are left out; nothing but such is refused before
    // the token is used up.
    let first = [wire::SegmentName::default()];
    let nowhere: wire::SegmentName = "nowhere".parse().unwrap();
    for asked in [second(), nowhere.clone()] {
        let refused = enrol(&mut world, &first, &[Some(asked)]);
        assert_eq!(refused.err(), Some(Refusal::Segment));
    }
    let asked = [second(), first[0].clone(), nowhere].map(Some);
    let (b, places) = enrol(&mut world, &first, &asked).unwrap();
    assert_eq!((places.len(), places[0].segment), (1, SegmentId::FIRST));
    // It asks for the others on its connection, and hears why not.
    let answer = join(&mut world, &b, wg());
    assert!(
        matches!(answer, Some(ToNode::NotPlaced { .. })),
        "{answer:?}"
    );
    a_lost_answer_is_given_again(&mut world, &first, &asked);
    // Without a name it is the token's first.
    let (_, places) = enrol(&mut world, &[second()], &[None]).unwrap();
    assert_eq!((places.len(), places[0].segment), (1, SECOND));
    // An empty list, or one segment twice, is none.
    for asked in [vec![], vec![None, Some(wire::SegmentName::default())]] {
        let refused = enrol(&mut world, &first, &asked);
        assert_eq!(refused.err(), Some(Refusal::Protocol));
    }
}

/// A node that has its place, and did not hear so, asks for the same again with the token that is used up.
fn a_lost_answer_is_given_again(
    world: &mut World,
    allowed: &[wire::SegmentName],
    asked: &[Option<wire::SegmentName>],
) {
    let token = world.token_of(TokenRequest {
        segments: allowed.to_vec(),
        ..TokenRequest::default()
    });
    let secret = NodeSecret::generate(&mut OsRng);
    let asks = asked.iter().cloned();
    let segments: Vec<_> = asks.map(|name| wire::Ask { name, wg: wg() }).collect();
    for _ in 0..2 {
        let connection = world.connect(&secret);
        let enrol = Enrol {
            token: keys::TokenSecret::from_bytes(*token.secret.expose()),
            name: None,
            segments: segments.clone(),
            addresses: Vec::new(),
        };
        world.say(connection, ToController::Enrol(enrol));
        let told = world.told.get(&connection).and_then(|it| it.last());
        assert!(matches!(told, Some(ToNode::Enrolled(_))), "{told:?}");
    }
}

#[test]
fn a_node_hears_nothing_of_a_segment_that_it_is_not_in() {
    let mut world = world();
    let (a, _) = enrol(&mut world, &[second()], &[None]).unwrap();
    let (b, _) = enrol(&mut world, &[second()], &[None]).unwrap();
    let (c, _) = enrol(&mut world, &[], &[None]).unwrap();
    for _ in 0..8 {
        for (node, segment) in [(&a, SECOND), (&b, SECOND), (&c, SegmentId::FIRST)] {
            assert_eq!(answer_to(&mut world, node, segment), None);
        }
        world.pass(s(10));
    }
    // An update that it was never sent is no challenge for it.
    for (node, segment) in [(&a, SegmentId::FIRST), (&c, SECOND)] {
        let refused = answer_to(&mut world, node, segment).unwrap();
        assert!(
            refused.contains("its challenge is of no epoch"),
            "{refused}"
        );
    }
    assert_eq!(roster(&world, SECOND).len(), 2);
    assert_eq!(roster(&world, SegmentId::FIRST), [c.name.as_str()]);
    assert_eq!(heard(&world, &a), BTreeSet::from([SECOND]));
    assert_eq!(heard(&world, &c), BTreeSet::from([SegmentId::FIRST]));
    let (update, _) = update(&world, &a, SECOND);
    let strange = c.secret.public();
    assert!(update.member(&strange).is_none() && update.exclusion(&strange).is_none());
    // Nor is its word on them of use: an acknowledgement of another segment changes nothing.
    let (epoch, phase) = (update.epoch, Phase::Activated);
    let ack = ToController::Ack {
        segment: SECOND,
        epoch,
        phase,
    };
    world.say(c.connection, ack);
    let status = world.status();
    assert!(!status.nodes[&c.name].segments.contains_key(&second()));
    assert_eq!(status.segments[&second()].epoch.members, 2);
    assert_eq!(status.nodes[&a.name].segments.len(), 1);
}

#[test]
fn leaving_a_segment_is_a_revocation_there_and_nowhere_else() {
    let (mut world, [a, _]) = running();
    let before = world
        .engine
        .segments()
        .get(SegmentId::FIRST)
        .newest()
        .unwrap()
        .epoch;
    let (first, key) = (
        a.wg,
        world
            .engine
            .fleet()
            .node(&a.name)
            .unwrap()
            .wg(SECOND)
            .unwrap(),
    );
    let (secret_of, _) = update(&world, &a, SECOND);
    let leave = Request::LeaveSegment(a.name.clone(), second(), Default::default());
    assert!(world.ask(leave).is_ok());
    assert!(roster(&world, SECOND).is_empty());
    assert_eq!(roster(&world, SegmentId::FIRST), ["a", "b"]);
    let segments = world.engine.segments();
    assert_eq!(
        segments.get(SegmentId::FIRST).newest().unwrap().epoch,
        before
    );
    let newest = segments.get(SECOND).newest().unwrap();
    assert!(newest.epoch > secret_of.epoch && newest.activates <= world.now.boot);
    let told = world.told[&a.connection].iter().rev();
    let mut left = told.take_while(|it| !matches!(it, ToNode::Update(_)));
    assert!(left.any(|it| matches!(it, ToNode::Left { segment } if *segment == SECOND)));
    assert_eq!(
        world
            .engine
            .fleet()
            .node(&a.name)
            .unwrap()
            .wg(SegmentId::FIRST),
        Some(first)
    );

    // It does not come back by itself, with the old key or another one.
    for wg in [key, wg()] {
        let answer = join(&mut world, &a, wg);
        let reason = wire::segment::Unplaced::NotAllowed;
        assert!(
            matches!(&answer, Some(ToNode::NotPlaced { reason: it, .. }) if *it == reason),
            "{answer:?}"
        );
    }
    assert!(
        world
            .ask(Request::LeaveSegment(
                a.name.clone(),
                second(),
                Default::default()
            ))
            .is_err()
    );
    let_in(&mut world, &a);
    for _ in 0..4 {
        assert_eq!(world.evidence(&a, 0.97), None);
        world.pass(s(10));
    }
    assert_eq!(roster(&world, SECOND), ["a"]);
    let list = world.events(Page::default());
    let kinds: Vec<&str> = list
        .events
        .iter()
        .map(|event| event.kind.as_str())
        .collect();
    assert!(kinds.contains(&"node_left_segment") && kinds.contains(&"node_joined_segment"));
}

#[test]
fn a_key_of_one_segment_is_no_key_of_another() {
    let (mut world, [a, b]) = running();
    let (of_b, reason) = (b.wg, wire::segment::Unplaced::KeyTaken);
    for wg in [a.wg, of_b] {
        let answer = join(&mut world, &a, wg);
        assert!(
            matches!(&answer, Some(ToNode::NotPlaced { reason: it, .. }) if *it == reason),
            "{answer:?}"
        );
    }
    // Another one of its own takes the place of the old one at once.
    let (before, fresh) = (update(&world, &a, SECOND).0, wg());
    let answer = join(&mut world, &a, fresh);
    assert!(matches!(answer, Some(ToNode::Placed(_))), "{answer:?}");
    let segment = world.engine.segments().get(SECOND);
    let newest = segment.newest().unwrap().epoch;
    assert!(newest > before.epoch);
    let update = &segment.issue(newest).unwrap().update;
    assert_eq!(update.member(&a.secret.public()).unwrap().wg, fresh);
}

#[test]
fn a_segment_keeps_its_number_in_whatever_order_the_configuration_names_them() {
    let (mut world, _) = running();
    let [first, strict] = policies();
    let turned = [strict, first];
    world.try_restart_with(&turned, s(1), "boot").unwrap();
    let segments = world.engine.segments().iter();
    let numbers: Vec<_> = segments.map(|it| (it.id(), it.name().clone())).collect();
    let default = wire::SegmentName::default();
    assert_eq!(numbers, [(SegmentId::FIRST, default), (SECOND, second())]);
    assert!(world.engine.segments().iter().all(|it| it.is_whole()));
}

#[test]
fn a_node_in_no_segment_is_explained_as_such_with_the_way_out() {
    let mut world = world();
    let node = world.node("a");
    let name = node.name.clone();
    let leave = Request::LeaveSegment(
        name.clone(),
        segment_name(SegmentId::FIRST),
        wire::admin::EvictRequest { reason: None },
    );
    assert!(world.ask(leave).is_ok());
    let explain = |world: &mut World| match world.ask(Request::Explain(name.clone(), None)) {
        Ok(Answer::Explanation(explanation)) => explanation,
        _ => panic!("it is not explained"),
    };
    let join = format!("`meshctl node join {name} SEGMENT` lets it into one");
    let explanation = explain(&mut world);
    assert_eq!(
        explanation.decision.membership,
        wire::admin::Membership::Denied
    );
    assert_eq!(explanation.remedy, Some(join.clone()));
    assert!(explanation.rules.is_empty() && explanation.policy.is_empty());
    let said = explanation.outlook.join("\n");
    assert!(!said.contains("on its way in"), "{said}");
    let status = world.status_of(&node);
    assert_eq!(status.reason, Some(format!("in no segment: {join}")));
    assert_eq!((status.score, &status.permitted[..]), (None, &[][..]));

    // Let into one, it has to ask for its place.
    assert!(
        world
            .ask(Request::JoinSegment(name.clone(), second()))
            .is_ok()
    );
    let asks = format!("may come into {}: it asks when it is connected", second());
    let explanation = explain(&mut world);
    assert!(
        explanation.outlook.contains(&asks),
        "{:?}",
        explanation.outlook
    );
    assert_eq!(explanation.remedy, None);
    let status = world.status_of(&node);
    assert_eq!(status.permitted, [second()]);
    assert_eq!(status.reason, Some(format!("in no segment: {asks}")));
    let of_second = Request::Explain(name.clone(), Some(second()));
    let refused = world.ask(of_second).err().unwrap();
    assert!(refused.contains("has not asked"), "{refused}");
}
